#pragma once
/// \file
/// Optimizers over Thrust's memory, threads and devices: `gradus::optimizer<Recipe, T, gradus::backend::thrust>`.
///
///     #include <thrust/device_vector.h>
///     #include <gradus/backend/thrust.hpp>   // compile with -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -fopenmp, say
///     #include <gradus/gradus.hpp>
///     thrust::device_vector<float> weights(n), gradients(n);
///     gradus::optimizer<gradus::adamw, float, gradus::backend::thrust> opt;
///     opt.add(weights, gradients);
///
/// On the systems CPP, OMP and TBB a piece of the flattened list is a unit of work, and it is swept as the CPU backend
/// sweeps it (a unit of one 16-byte pack, as a GPU wants it, is three times as slow there): bits and speed are its own. On
/// CUDA the unit is the pack, state lies on the device, and a step waits for nothing. docs/gpu.md tells the rest.

#if !defined(THRUST_DEVICE_SYSTEM) && !defined(__CUDACC__) && !defined(__NVCOMPILER_CUDA__)
#error "gradus: define THRUST_DEVICE_SYSTEM, as THRUST_DEVICE_SYSTEM_OMP, _TBB or _CPP, or compile with nvcc."
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <thrust/device_malloc_allocator.h>
#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>
#include <thrust/type_traits/is_contiguous_iterator.h>
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
#include <thrust/system/cuda/error.h>
#include <thrust/system_error.h>
#endif

#include <gradus/backend/default.hpp>
#include <gradus/backend/thrust/device_step.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace backend {

/// What every backend over Thrust takes beside plain memory: thrust::device_vector and other ranges whose iterators are
/// contiguous by Thrust's own word.
struct thrust_ranges {
  template <class R>
    requires(::thrust::is_contiguous_iterator<decltype(std::declval<R&>().begin())>::value)
  static auto data(R& range) -> decltype(::thrust::raw_pointer_cast(range.data()))
  {
    return ::thrust::raw_pointer_cast(range.data());
  }
};

/// The policy of the system that THRUST_DEVICE_SYSTEM chooses; of CUDA's, the one that does not wait.
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using thrust_policy = std::remove_cv_t<decltype(::thrust::cuda::par_nosync)>;
template <class Policy>
concept cuda_policy = requires(Policy p) { ::thrust::cuda_cub::stream(p); };
#else
using thrust_policy = std::remove_cv_t<decltype(::thrust::device)>;
template <class Policy>
concept cuda_policy = false;
#endif

/// A CPU backend on the threads of one of Thrust's host systems.
///
/// \tparam Policy  the system's own, or thrust::omp::par, thrust::tbb::par, …
/// \tparam Cpu     backend::simd or backend::scalar
template <class Policy = thrust_policy, class Cpu = default_backend>
struct thrust_host : Cpu, thrust_ranges {
  Policy policy;

  thrust_host() = default;
  explicit constexpr thrust_host(Policy p, Cpu cpu = Cpu()) : Cpu(cpu), policy(p) {}

  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    static_assert(!cuda_policy<Policy>, "gradus: thrust_host takes a policy of a system for CPUs; for CUDA there is thrust_device.");
    const F* const work = std::addressof(f);
    ::thrust::for_each_n(policy, ::thrust::make_counting_iterator(std::size_t(0)), n,
                         [work](std::size_t k) noexcept { (*work)(k); });
  }
};

// ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// State in a device's memory, and every element's work on the device: one launch a step for all tensors. It runs on any of
/// Thrust's systems with the same bits; made for CUDA, where it is backend::thrust. See docs/gpu.md.
///
/// \tparam Policy     as for thrust_host; on a stream and without waiting: thrust::cuda::par_nosync.on(stream)
/// \tparam Allocator  of bytes, with Thrust's pointers: an engine's pool, say
template <class Policy = thrust_policy, class Allocator = ::thrust::device_malloc_allocator<unsigned char>>
struct thrust_device : thrust_ranges {
  using device_type = thrust_device;
  /// Whether a step has happened when it returns, and so returns its report.
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  static constexpr bool synchronous = false;
#else
  static constexpr bool synchronous = true;
#endif

  Policy policy;
  Allocator allocator;

  thrust_device() = default;
  explicit thrust_device(Policy p, Allocator a = Allocator()) : policy(p), allocator(a) {}

  /// f(k) for all k < n, in any order.
  template <class F>
  void launch(std::size_t n, const F& f) const
  {
    if (n > 0)
      ::thrust::for_each_n(policy, ::thrust::make_counting_iterator(std::int64_t(0)), std::int64_t(n), f);
  }

  /// Copies to, from or within the device, in the order of its stream; has happened on return where one side is the host.
  void copy(void* to, const void* from, std::size_t bytes) const
  {
    if (bytes == 0)
      return;
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
    static_assert(cuda_policy<Policy>, "gradus: thrust_device takes a policy of CUDA here; for a system for CPUs there is thrust_host.");
    auto p = policy;
    const cudaStream_t stream = ::thrust::cuda_cub::stream(p);
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
    if (error == cudaSuccess)
      error = cudaStreamSynchronize(stream);
    if (error != cudaSuccess)
      throw ::thrust::system_error(error, ::thrust::cuda_category(), "gradus: copy of " + std::to_string(bytes) + " bytes");
#else
    std::memcpy(to, from, bytes);
#endif
  }

  /// Refuses what the device cannot reach, where that can be told.
  void check_reachable([[maybe_unused]] const void* p, [[maybe_unused]] std::string_view argument, [[maybe_unused]] std::string_view tensor) const
  {
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
    cudaPointerAttributes known{};
    if (cudaPointerGetAttributes(&known, p) != cudaSuccess)
      cudaGetLastError();  // it could not be told, which is no error
    else if (known.type == cudaMemoryTypeUnregistered && !reaches_all_of_the_host())
      detail::fail(std::string(argument) + " of tensor " + detail::quote(tensor) + " is in the host's own memory; expected memory that the device can reach");
#endif
  }

  /// Of allocator and policy no more is asked than that they can be copied.
  struct memory_type {
    std::optional<thrust_device> backend;

    memory_type() = default;
    explicit memory_type(const thrust_device& b) : backend(b) {}
    memory_type(const memory_type&) = default;
    memory_type& operator=(const memory_type& other)
    {
      backend.reset();
      if (other.backend)
        backend.emplace(*other.backend);
      return *this;
    }

    void* allocate(std::size_t bytes)
    {
      unsigned char* const p = ::thrust::raw_pointer_cast(backend->allocator.allocate(bytes));
      const std::size_t off = reinterpret_cast<std::uintptr_t>(p) % 16;
      if (off != 0) {
        release(p, bytes);
        detail::fail("allocator gave an address that is " + std::to_string(off) + " more than a multiple of 16; expected a multiple of 16");
      }
      return p;
    }
    /// An error of the device is for the next call to find, not for a destructor.
    void release(void* p, std::size_t bytes) noexcept
    {
      using pointer = typename std::allocator_traits<Allocator>::pointer;
      try {
        backend->allocator.deallocate(pointer(static_cast<unsigned char*>(p)), bytes);
      } catch (...) {
      }
    }
    template <class T>
    struct filler {
      T* p;
      T value;
      GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { p[k] = value; }
    };
    template <class T>
    void fill(T* p, std::size_t n, T value) const
    {
      backend->launch(n, filler<T>{p, value});
    }
  };
  memory_type memory() const { return memory_type(*this); }

 private:
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  static bool reaches_all_of_the_host()
  {
    int device = 0, reaches = 0;
    if (cudaGetDevice(&device) == cudaSuccess)
      cudaDeviceGetAttribute(&reaches, cudaDevAttrPageableMemoryAccess, device);
    return reaches != 0;
  }
#endif
};

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using thrust = thrust_device<>;
#else
using thrust = thrust_host<>;
#endif

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
