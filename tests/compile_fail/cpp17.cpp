#if defined(CASE_KERNEL)
#include <gradus/kernel.hpp>
#elif defined(CASE_CHECKPOINT)
#include <gradus/checkpoint.hpp>
#elif defined(CASE_ANY_OPTIMIZER)
#include <gradus/any_optimizer.hpp>
#elif defined(CASE_SCHEDULE)
#include <gradus/schedule.hpp>
#elif defined(CASE_THREAD_POOL)
#include <gradus/executor/thread_pool.hpp>
#else
#include <gradus/gradus.hpp>
#endif
