#pragma once
/// \file
/// Optimizers over Thrust's memory, threads and devices: `gradus::optimizer<Recipe, T, gradus::backend::thrust>`.
///
///     #include <gradus/backend/thrust.hpp>   // compile with -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -fopenmp, say
///     #include <gradus/gradus.hpp>
///     thrust::device_vector<float> weights(n), gradients(n);
///     gradus::optimizer<gradus::adamw, float, gradus::backend::thrust> opt;
///     opt.add(weights, gradients);
///
/// On the systems CPP, OMP and TBB a piece of the flattened list is a unit of work, and it is swept as the CPU backend
/// sweeps it (a unit of one 16-byte pack, as a GPU wants it, is three times as slow there): bits and speed are its own.

#include <cstddef>
#include <memory>
#include <type_traits>

#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>

#include <gradus/backend/default.hpp>

namespace gradus::inline GRADUS_ISA {
namespace backend {

/// What every backend over Thrust takes beside plain memory: ranges whose data() is a pointer of Thrust's own, such as
/// thrust::device_vector.
struct thrust_ranges {
  template <class R>
  static auto data(R& range) -> decltype(::thrust::raw_pointer_cast(range.data()))
  {
    return ::thrust::raw_pointer_cast(range.data());
  }
};

/// A CPU backend on the threads of one of Thrust's host systems.
///
/// \tparam Policy  thrust::device, which THRUST_DEVICE_SYSTEM chooses, or thrust::omp::par, thrust::tbb::par, …
/// \tparam Cpu     backend::simd or backend::scalar
template <class Policy = std::remove_cv_t<decltype(::thrust::device)>, class Cpu = default_backend>
struct thrust_host : Cpu, thrust_ranges {
  Policy policy;

  thrust_host() = default;
  explicit constexpr thrust_host(Policy p, Cpu cpu = Cpu()) : Cpu(cpu), policy(p) {}

  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    const F* const work = std::addressof(f);
    ::thrust::for_each_n(policy, ::thrust::make_counting_iterator(std::size_t(0)), n,
                         [work](std::size_t k) noexcept { (*work)(k); });
  }
};

using thrust = thrust_host<>;

}  // namespace backend
}  // namespace gradus::inline GRADUS_ISA
