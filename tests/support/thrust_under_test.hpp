#pragma once
// Included before all else (-include), it puts the Thrust backend in the default backend's place: so test suites that
// know nothing of Thrust run over it unchanged. The environment's GRADUS_TEST_SYSTEM names one of Thrust's host
// systems: one program, compiled once, serves all. Compiled by nvcc, it is CUDA.

#include <cstdlib>
#include <string_view>
#include <type_traits>
#include <vector>

#include <thrust/device_vector.h>
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/omp/execution_policy.h>
#if defined(GRADUS_TEST_TBB)
#include <thrust/system/tbb/execution_policy.h>
#endif

#include <gradus/backend/thrust.hpp>

// Where a test's weights and gradients lie.
#define GRADUS_TEST_DEVICE_VECTOR
template <class Backend, class T>
using vector_for =
    std::conditional_t<requires { typename Backend::memory_type; }, thrust::device_vector<T>, std::vector<T>>;

GRADUS_OPEN_NAMESPACE

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using backend_under_test = backend::thrust_device<>;
#else
/// Calls f with the policy of the system that the environment names.
template <class F>
void with_policy_under_test(const F& f)
{
  const char* const given = std::getenv("GRADUS_TEST_SYSTEM");
  const std::string_view system = given ? given : "";
  if (system == "CPP")
    f(thrust::cpp::par);
  else if (system == "OMP")
    f(thrust::omp::par);
#if defined(GRADUS_TEST_TBB)
  else if (system == "TBB")
    f(thrust::tbb::par);
#endif
  else
    std::abort();  // a test that runs nothing must not pass
}

#if defined(GRADUS_TEST_THRUST_DEVICE)
// The path of GPUs, on systems that are none.
struct backend_under_test : backend::thrust_device<> {
  template <class Parts>
  using engine_type = detail::device_step<Parts, backend_under_test>;

  template <class F>
  void launch(std::size_t n, const F& f) const
  {
    with_policy_under_test([&]<class Policy>(Policy on) { backend::thrust_device<Policy>(on).launch(n, f); });
  }
  template <class Work>
  void launch_warps(std::size_t n, const Work& work) const
  {
    with_policy_under_test([&]<class Policy>(Policy on) { backend::thrust_device<Policy>(on).launch_warps(n, work); });
  }
};
#else
struct backend_under_test : backend::thrust_host<> {
  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    with_policy_under_test([&]<class Policy>(Policy on) { backend::thrust_host<Policy>(on).for_pieces(n, f); });
  }
};
#endif
#endif

GRADUS_CLOSE_NAMESPACE

#define default_backend backend_under_test
