#pragma once
// The benchmarks of one model, a precision and a backend at a time. Each is compiled by itself (own_model_steps.cpp),
// because ten recipes take long.

#include <gradus/gradus.hpp>
#if defined(BENCH_DISPATCH)
#include <gradus/backend/dispatch.hpp>
#endif

#include "measure.hpp"

namespace bench {

/// Puts every recipe's step; `backend` is the backend's name. With `threads` also on several threads.
template <class T, class Cpu>
void put_own_model(const shape& s, const std::string& backend, bool threads);

}  // namespace bench
