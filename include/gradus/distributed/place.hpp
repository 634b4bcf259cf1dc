#pragma once
/// \file
/// Where a sharded optimizer keeps parameters and gradients, and how it adds gradients there: in host memory, or in a
/// device's, by launches of the backend. Knows no communicator.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <gradus/distributed/reduction.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A backend that can take steps over device memory together with other ranks: it names the engine of them.
template <class Backend, class Parts>
concept names_shared_engine = requires { typename Backend::template shared_engine_type<Parts, Backend>; };

/// A backend whose memory its own copies access, and not the host.
template <class Backend>
concept has_device_memory = requires(const Backend& b, void* p) {
  typename Backend::memory_type;
  b.copy(p, p, std::size_t());
};

// ── launches on a device ─────────────────────────────────────────────────────────────────────────────────────────────

/// to[k] = from[k].
template <class X>
struct copy_one {
  const X* from;
  X* to;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { to[k] = from[k]; }
};
/// to[k] = left[k] + to[k].
template <class T>
struct add_one {
  const T* left;
  T* to;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { to[k] = left[k] + to[k]; }
};
/// The sum of element k of all pieces, as add_pieces adds them.
template <class G>
struct add_pieces_of_one {
  using T = sum_of<G>;
  static constexpr unsigned most_levels = 20;

  const G* pieces;
  T* to;
  std::size_t count, length;
  bool is_tree;

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    const G* const first = pieces + k;
    if (!is_tree) {
      T sum = T(first[0]);
      for (std::size_t r = 1; r < count; ++r)
        sum += T(first[r * length]);
      to[k] = sum;
      return;
    }
    // A binary counter, see add_pieces. Its levels are indexed by constants, so that a device keeps them in registers.
    T sums[most_levels] = {};
    for (std::size_t r = 0; r < count; ++r) {
      T next = T(first[r * length]);
      bool carries = true;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
      for (unsigned level = 0; level < most_levels; ++level) {
        const bool adds = carries && (r >> level & 1), stops = carries && !adds;
        next = adds ? T(sums[level] + next) : next;
        sums[level] = stops ? next : sums[level];
        carries = adds;
      }
    }
    T sum = 0;
    bool is_first = true;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (unsigned level = 0; level < most_levels; ++level)
      if (count >> level & 1) {
        sum = is_first ? sums[level] : T(sums[level] + sum);
        is_first = false;
      }
    to[k] = sum;
  }
};

// ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Host memory.
template <class Backend>
class memory_place {
 public:
  using memory_type = host_memory;
  static constexpr bool on_device = false;

  explicit memory_place(const Backend&) {}
  memory_type source() const noexcept { return {}; }

  /// Copies to or from the host.
  void copy(void* to, const void* from, std::size_t bytes) const noexcept
  {
    if (bytes > 0)
      std::memcpy(to, from, bytes);
  }
  /// Copies n elements within the place.
  template <class X>
  void move(X* to, const X* from, std::size_t n) const noexcept
  {
    std::memcpy(to, from, n * sizeof(X));
  }
  template <class T>
  void add_pairwise(const T* left, T* to, std::size_t n) const noexcept
  {
    detail::add_pairwise(left, to, n);
  }
  template <class G>
  void add_pieces(const G* pieces, std::size_t count, std::size_t length, reduction order, sum_of<G>* to) const noexcept
  {
    detail::add_pieces(pieces, count, length, order, to);
  }
  /// Calls f(bytes), for which the communicator can access the host's bytes; f waits for it.
  template <class F>
  void lend(void* bytes, std::size_t, const F& f)
  {
    f(bytes);
  }
};

/// A device's memory. Launches and copies are in the order of the backend's stream.
template <has_device_memory Backend>
class memory_place<Backend> {
 public:
  using memory_type = typename Backend::memory_type;
  static constexpr bool on_device = true;

  explicit memory_place(const Backend& b) : backend_(b) {}
  memory_type source() const { return backend_.memory(); }

  void copy(void* to, const void* from, std::size_t bytes) const { backend_.copy(to, from, bytes); }
  template <class X>
  void move(X* to, const X* from, std::size_t n) const
  {
    backend_.launch(n, copy_one<X>{from, to});
  }
  template <class T>
  void add_pairwise(const T* left, T* to, std::size_t n) const
  {
    backend_.launch(n, add_one<T>{left, to});
  }
  template <class G>
  void add_pieces(const G* pieces, std::size_t count, std::size_t length, reduction order, sum_of<G>* to) const
  {
    backend_.launch(length, add_pieces_of_one<G>{pieces, to, count, length, order == reduction::tree});
  }
  template <class F>
  void lend(void* bytes, std::size_t n, const F& f)
  {
    if (n > room_) {
      lent_ = {n, 0, source()};
      room_ = n;
    }
    copy(lent_.get(), bytes, n);
    f(static_cast<void*>(lent_.get()));
    copy(bytes, lent_.get(), n);
  }

 private:
  Backend backend_;
  array_memory<unsigned char, memory_type> lent_;
  std::size_t room_ = 0;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
