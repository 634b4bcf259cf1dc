#pragma once
/// \file
/// The memory of state: the host's, or a backend's own.

#include <cstddef>
#include <new>
#include <string>
#include <utility>

#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// Host memory, aligned to a cache line. (xsimd's aligned allocator needs exceptions.)
struct host_memory {
  static void* allocate(std::size_t bytes) noexcept
  {
    return ::operator new(bytes, std::align_val_t(64), std::nothrow);
  }
  static void release(void* p, std::size_t) noexcept { ::operator delete(p, std::align_val_t(64)); }
  template <class T>
  static void fill(T* p, std::size_t n, T value) noexcept
  {
    for (std::size_t i = 0; i < n; ++i)
      p[i] = value;
  }
};

/// An owning array of fixed length.
/// \tparam Memory  has `allocate`, which throws or returns null if memory runs out, `release` and `fill`
template <class T, class Memory = host_memory>
class array_memory {
 public:
  array_memory() = default;
  array_memory(std::size_t length, T value, Memory memory = Memory())
      : array_memory()  // so that a throw below releases
  {
    if (length == 0)
      return;
    void* p = memory.allocate(length * sizeof(T));
    if (!p) {
#if GRADUS_EXCEPTIONS
      throw std::bad_alloc();
#else
      detail::fail("size of parameters is " + std::to_string(length) +
                   "; expected as much memory for each slot of state");
#endif
    }
    memory_ = memory;
    bytes_ = length * sizeof(T);
    data_ = static_cast<T*>(p);
    memory.fill(data_, length, value);
  }
  array_memory(array_memory&& other) noexcept : array_memory() { *this = std::move(other); }
  array_memory& operator=(array_memory&& other) noexcept
  {
    memory_ = std::exchange(other.memory_, memory_);
    bytes_ = std::exchange(other.bytes_, bytes_);
    data_ = std::exchange(other.data_, data_);
    return *this;
  }
  ~array_memory()
  {
    if (data_)
      memory_.release(data_, bytes_);
  }
  T* get() const noexcept { return data_; }
  /// Sets all elements to a value.
  void fill(T value)
  {
    if (data_)
      memory_.fill(data_, bytes_ / sizeof(T), value);
  }

 private:
  [[no_unique_address]] Memory memory_ = Memory();
  std::size_t bytes_ = 0;
  T* data_ = nullptr;  // no unique_ptr: <memory> alone takes a quarter of a second to compile
};

/// The memory that a backend keeps state in.
template <class Backend>
struct memory_of {
  using type = host_memory;
  static type get(const Backend&) noexcept { return {}; }
};
template <class Backend>
  requires(requires { typename Backend::memory_type; })
struct memory_of<Backend> {
  using type = typename Backend::memory_type;
  static type get(const Backend& b) { return b.memory(); }
};

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
