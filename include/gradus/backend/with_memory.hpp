#pragma once
/// \file
/// A CPU backend that keeps state in the caller's memory, such as an arena, huge pages, or a NUMA node.
///
///     #include <memory_resource>
///
///     #include <gradus/backend/with_memory.hpp>
///     #include <gradus/gradus.hpp>
///     std::pmr::monotonic_buffer_resource arena;
///     gradus::optimizer opt(gradus::adamw{}, gradus::backend::with_memory(gradus::default_backend{}, arena));

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A source of memory with the members of std::pmr::memory_resource: `allocate(bytes, alignment)`, which throws
/// std::bad_alloc or returns null if there is none left, and `deallocate(pointer, bytes, alignment)`, which never throws.
template <class R>
concept memory_resource = requires(R& r, void* p, std::size_t n) {
  { r.allocate(n, n) } -> std::convertible_to<void*>;
  r.deallocate(p, n, n);
};

namespace backend {

/// A CPU backend whose moments and master weights are in memory of a resource. Steps are Cpu's, with the same bits, and
/// allocate nothing; `add` takes memory, and removing a tensor or destroying the optimizer returns it.
/// \tparam Cpu       backend::simd, scalar, dispatch or parallel. `parallel` and `with_product` may also be around it
/// \tparam Resource  std::pmr::memory_resource, or your own class; it must outlive the optimizer
template <class Cpu, class Resource>
struct with_memory : Cpu {
  static_assert(
      memory_resource<Resource>,
      "gradus: the resource of backend::with_memory has no allocate(bytes, alignment) and deallocate(pointer, "
      "bytes, alignment), as std::pmr::memory_resource has.");
  static_assert(
      !requires { typename Cpu::memory_type; },
      "gradus: the backend in backend::with_memory has a source of memory already; expected a CPU backend.");
  static constexpr std::size_t alignment = 64;  ///< of what the resource is asked for: a cache line

  Resource* resource;  ///< where state comes from

  /// From a backend, which is copied or moved in, and a resource, which is not.
  explicit with_memory(Cpu cpu, Resource& r) : Cpu(std::move(cpu)), resource(&r) {}

  /// The source of memory for state (state/memory.hpp).
  class memory_type {
   public:
    /// No source; for arrays that are empty.
    memory_type() = default;
    /// The memory of this resource.
    explicit memory_type(Resource& r) : resource_(&r) {}

    /// Allocates bytes.
    /// \throws what the resource throws, or std::invalid_argument if its memory is not aligned
    void* allocate(std::size_t bytes)
    {
      void* const p = resource_->allocate(bytes, alignment);
      const std::size_t off = reinterpret_cast<std::uintptr_t>(p) % alignment;
      if (off != 0) {
        release(p, bytes);
        detail::fail("resource returned an address that is " + std::to_string(off) + " more than a multiple of " +
                     std::to_string(alignment) + "; expected a multiple");
      }
      return p;
    }
    /// Deallocates.
    void release(void* p, std::size_t bytes) noexcept { resource_->deallocate(p, bytes, alignment); }
    /// Sets n elements to a value.
    template <class T>
    void fill(T* p, std::size_t n, T value) noexcept
    {
      for (std::size_t i = 0; i < n; ++i)
        p[i] = value;
    }

   private:
    Resource* resource_ = nullptr;
  };
  /// The source of memory for state.
  memory_type memory() const { return memory_type(*resource); }
};

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
