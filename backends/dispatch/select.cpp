// Detects the instruction sets of the machine: the processor must have them, and the operating system must save their
// registers.

#include <gradus/backend/dispatch.hpp>

extern "C" {

#if defined(__x86_64__)
extern const gradus::dispatch_table gradus_dispatch_baseline, gradus_dispatch_avx2_fma, gradus_dispatch_avx512;

const gradus::dispatch_table* gradus::gradus_dispatch_table(int set) noexcept
{
  using gradus::backend::instruction_set;
  __builtin_cpu_init();  // for a call before main
  switch (instruction_set(set)) {
  case instruction_set::baseline: return &gradus_dispatch_baseline;
  case instruction_set::avx2_fma:
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &gradus_dispatch_avx2_fma : nullptr;
  case instruction_set::avx512:
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? &gradus_dispatch_avx512
               : nullptr;
  }
  return nullptr;
}

#else

#if defined(__aarch64__)
#define GRADUS_ONLY gradus_dispatch_neon
#else
#define GRADUS_ONLY gradus_dispatch_baseline
#endif
extern const gradus::dispatch_table GRADUS_ONLY;

const gradus::dispatch_table* gradus::gradus_dispatch_table(int set) noexcept
{
  return set == 0 ? &GRADUS_ONLY : nullptr;
}

#endif

}  // extern "C"
