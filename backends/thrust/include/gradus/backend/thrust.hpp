#pragma once
/// \file
/// The backends over Thrust, for GPUs and for Thrust's threads: `gradus::optimizer<Recipe, T,
/// gradus::backend::thrust>`.
///
///     #include <thrust/device_vector.h>
///     #include <gradus/backend/thrust.hpp>  // compile with -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -fopenmp
///     #include <gradus/gradus.hpp>
///     thrust::device_vector<float> weights(n), gradients(n);
///     gradus::optimizer<gradus::adamw, float, gradus::backend::thrust> opt;
///     opt.add(weights, gradients);
///
/// On the systems CPP, OMP and TBB, each thread takes a piece of the list of elements and runs the CPU backend on it,
/// with the CPU backend's bits and speed (one 16-byte pack per task is three times as slow there). On CUDA, each thread
/// takes one pack, state is in device memory, and a step waits for nothing. See docs/gpu.md.

#if !defined(THRUST_DEVICE_SYSTEM) && !defined(__CUDACC__) && !defined(__NVCOMPILER_CUDA__)
#error "gradus: define THRUST_DEVICE_SYSTEM as THRUST_DEVICE_SYSTEM_OMP, _TBB or _CPP, or compile with nvcc."
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
#include <gradus/backend/thrust/shared_step.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace backend {

/// The ranges that a backend over Thrust accepts in addition: thrust::device_vector, and others whose iterators Thrust
/// declares contiguous.
struct thrust_ranges {
  /// The plain pointer to a range's elements.
  template <class R>
    requires(::thrust::is_contiguous_iterator<decltype(std::declval<R&>().begin())>::value)
  static auto data(R& range) -> decltype(::thrust::raw_pointer_cast(range.data()))
  {
    return ::thrust::raw_pointer_cast(range.data());
  }
};

/// The default policy of the system that THRUST_DEVICE_SYSTEM selects; for CUDA, par_nosync, which does not wait.
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using thrust_policy = std::remove_cv_t<decltype(::thrust::cuda::par_nosync)>;
/// A policy of Thrust's CUDA system.
template <class Policy>
concept cuda_policy = requires(Policy p) { ::thrust::cuda_cub::stream(p); };
#else
using thrust_policy = std::remove_cv_t<decltype(::thrust::device)>;
template <class Policy>
concept cuda_policy = false;
#endif

/// A CPU backend that uses the threads of one of Thrust's CPU systems, with the CPU backend's bits.
///
/// \tparam Policy  the type of thrust::omp::par, thrust::tbb::par, …; by default THRUST_DEVICE_SYSTEM's
/// \tparam Cpu     backend::simd or backend::scalar
template <class Policy = thrust_policy, class Cpu = default_backend>
struct thrust_host : Cpu, thrust_ranges {
  Policy policy;  ///< selects the threads

  /// The backend with the default policy.
  thrust_host() = default;
  /// The backend with this policy.
  explicit constexpr thrust_host(Policy p, Cpu cpu = Cpu()) : Cpu(cpu), policy(p) {}

  /// Calls f(k) for k < n, on the policy's threads.
  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    static_assert(!cuda_policy<Policy>,
                  "gradus: thrust_host needs a policy of one of Thrust's CPU systems; for CUDA use thrust_device.");
    const F* const work = std::addressof(f);
    ::thrust::for_each_n(policy, ::thrust::make_counting_iterator(std::size_t(0)), n,
                         [work](std::size_t k) noexcept { (*work)(k); });
  }
};

// ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A backend whose state is in device memory. One launch per step updates the elements of all tensors. Designed for
/// CUDA, where it is backend::thrust; runs on all of Thrust's systems with the same bits. See docs/gpu.md.
///
/// \tparam Policy     the type of the execution policy, such as thrust::cuda::par_nosync.on(stream)
/// \tparam Allocator  allocates bytes, with Thrust's pointers, such as a memory pool; its memory is aligned to 16
///                    bytes. Policy and Allocator need only be copyable
template <class Policy = thrust_policy, class Allocator = ::thrust::device_malloc_allocator<unsigned char>>
struct thrust_device : thrust_ranges {
  /// The engine of an optimizer's steps.
  template <class Parts>
  using engine_type = detail::device_step<Parts, thrust_device>;
  /// The engine of a sharded optimizer's steps. \tparam Sharing  this backend, with what the ranks talk by
  template <class Parts, class Sharing>
  using shared_engine_type = detail::shared_device_step<Parts, Sharing>;
  /// Whether launches have finished when they return, so that `step` returns its report. False on CUDA.
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  static constexpr bool synchronous = false;
#else
  static constexpr bool synchronous = true;
#endif
  /// Whether memory is a device's, which the host cannot read: CUDA's, but not that of Thrust's CPU systems.
  static constexpr bool on_device = !synchronous;

  Policy policy;        ///< selects the stream
  Allocator allocator;  ///< allocates the state

  /// The backend with the default policy and allocator.
  thrust_device() = default;
  /// The backend with this policy and allocator.
  explicit thrust_device(Policy p, Allocator a = Allocator()) : policy(p), allocator(a) {}

  /// Enqueues f(k) for all k < n, in any order.
  template <class F>
  void launch(std::size_t n, const F& f) const
  {
    if (n > 0)
      ::thrust::for_each_n(policy, ::thrust::make_counting_iterator(std::int64_t(0)), std::int64_t(n), f);
  }

  /// Enqueues a work of n warps, whose threads work together (teams.hpp).
  template <class Work>
  void launch_warps(std::size_t n, const Work& work) const
  {
    constexpr bool finishes = detail::finishing_work<Work>;
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA && !defined(__CUDACC__)
    static_assert(!cuda_policy<Policy>, "gradus: thrust_device needs a compiler for CUDA, such as nvcc.");
#elif THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
    const std::size_t blocks = n / detail::warps_of_block + (n % detail::warps_of_block != 0) + finishes;
    if (blocks == 0)
      return;
    auto p = policy;
    detail::run_warps<<<unsigned(blocks), detail::threads_of_block, 0, ::thrust::cuda_cub::stream(p)>>>(
        work, std::int64_t(n));
    ::thrust::cuda_cub::throw_on_error(cudaPeekAtLastError(), "gradus: launch");
    ::thrust::cuda_cub::throw_on_error(::thrust::cuda_cub::synchronize_optional(p), "gradus: launch");
#else
    if constexpr (finishes)
      work.start(detail::serial_team());
    launch(n, detail::each_warp<Work>{work});
    if constexpr (finishes)
      work.finish(detail::serial_team());
#endif
  }

  /// Copies bytes to, from or within the device, in stream order, and waits until the copy is done.
  /// \throws thrust::system_error for an error of CUDA
  void copy(void* to, const void* from, std::size_t bytes) const
  {
    if (bytes == 0)
      return;
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
    static_assert(
        cuda_policy<Policy>,
        "gradus: thrust_device needs a CUDA policy in this build; for one of Thrust's CPU systems use thrust_host.");
    auto p = policy;
    const cudaStream_t stream = ::thrust::cuda_cub::stream(p);
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
    if (error == cudaSuccess)
      error = cudaStreamSynchronize(stream);
    if (error != cudaSuccess)
      throw ::thrust::system_error(error, ::thrust::cuda_category(),
                                   "gradus: copy of " + std::to_string(bytes) + " bytes");
#else
    std::memcpy(to, from, bytes);
#endif
  }

  /// Fails if the device cannot access the memory at p, as far as CUDA can tell. The names are for the error message.
  void check_reachable([[maybe_unused]] const void* p, [[maybe_unused]] std::string_view argument,
                       [[maybe_unused]] std::string_view tensor) const
  {
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
    cudaPointerAttributes known{};
    if (cudaPointerGetAttributes(&known, p) != cudaSuccess)
      cudaGetLastError();  // CUDA cannot tell; clears its error
    else if (known.type == cudaMemoryTypeUnregistered && !reaches_all_of_the_host())
      detail::fail(std::string(argument) + " of tensor " + detail::quote(tensor) +
                   " is in host memory; expected memory that the device can access");
#endif
  }

  /// The source of device memory for state (state/memory.hpp).
  struct memory_type {
    std::optional<thrust_device> backend;  ///< whose policy and allocator are used

    /// No source; for arrays that are empty.
    memory_type() = default;
    /// The memory of this backend.
    explicit memory_type(const thrust_device& b) : backend(b) {}
    /// Copies the backend.
    memory_type(const memory_type&) = default;
    /// Copies the backend by its copy constructor, because allocators and policies need not be assignable.
    memory_type& operator=(const memory_type& other)
    {
      backend.reset();
      if (other.backend)
        backend.emplace(*other.backend);
      return *this;
    }

    /// Allocates bytes, aligned to 16.
    /// \throws std::bad_alloc, or std::invalid_argument if the allocator's memory is not aligned
    void* allocate(std::size_t bytes)
    {
      unsigned char* const p = ::thrust::raw_pointer_cast(backend->allocator.allocate(bytes));
      const std::size_t off = reinterpret_cast<std::uintptr_t>(p) % 16;
      if (off != 0) {
        release(p, bytes);
        detail::fail("allocator returned an address that is " + std::to_string(off) +
                     " more than a multiple of 16; expected a multiple of 16");
      }
      return p;
    }
    /// Deallocates. Ignores errors of the device, because destructors call it; the next call on the device reports
    /// them.
    void release(void* p, std::size_t bytes) noexcept
    {
      using pointer = typename std::allocator_traits<Allocator>::pointer;
      try {
        backend->allocator.deallocate(pointer(static_cast<unsigned char*>(p)), bytes);
      } catch (...) {
      }
    }
    /// The launch of `fill`.
    template <class T>
    struct filler {
      T* p;     ///< the first element
      T value;  ///< the value
      /// Sets element k.
      GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { p[k] = value; }
    };
    /// Sets n elements to a value.
    template <class T>
    void fill(T* p, std::size_t n, T value) const
    {
      backend->launch(n, filler<T>{p, value});
    }
  };
  /// The source of memory for state.
  memory_type memory() const { return memory_type(*this); }

 private:
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  /// Whether the device can access all host memory, as on systems with heterogeneous memory management.
  static bool reaches_all_of_the_host()
  {
    int device = 0, reaches = 0;
    if (cudaGetDevice(&device) == cudaSuccess)
      cudaDeviceGetAttribute(&reaches, cudaDevAttrPageableMemoryAccess, device);
    return reaches != 0;
  }
#endif
};

/// The backend for the system that THRUST_DEVICE_SYSTEM selects: thrust_device for CUDA, thrust_host for OMP, TBB and
/// CPP.
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using thrust = thrust_device<>;
#else
using thrust = thrust_host<>;
#endif

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
