#pragma once
// Included before all else (-include), it puts the Thrust backend in the default backend's place: so test suites that know
// nothing of Thrust run over it unchanged. The environment's GRADUS_TEST_SYSTEM names one of Thrust's host systems: one
// program, compiled once, serves all.

#include <cstdlib>
#include <string_view>
#include <type_traits>

#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/omp/execution_policy.h>
#if defined(GRADUS_TEST_TBB)
#include <thrust/system/tbb/execution_policy.h>
#endif

#include <gradus/backend/thrust.hpp>

namespace gradus::inline GRADUS_ISA {

#if defined(GRADUS_TEST_THRUST_DEVICE)
// The path of GPUs, on a system that is none.
struct backend_under_test : backend::thrust_device<> {};
#else
struct backend_under_test : backend::thrust_host<std::remove_cv_t<decltype(thrust::cpp::par)>> {
  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    const char* const given = std::getenv("GRADUS_TEST_SYSTEM");
    const std::string_view system = given ? given : "";
    const auto run = [&]<class Policy>(Policy on) { backend::thrust_host<Policy>(on).for_pieces(n, f); };
    if (system == "CPP")
      run(thrust::cpp::par);
    else if (system == "OMP")
      run(thrust::omp::par);
#if defined(GRADUS_TEST_TBB)
    else if (system == "TBB")
      run(thrust::tbb::par);
#endif
    else
      std::abort();  // a test that runs nothing must not pass
  }
};
#endif

}  // namespace gradus::inline GRADUS_ISA

#define default_backend backend_under_test
