#pragma once
// The memory of the benchmarks.

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/state/precision.hpp>
#include <gradus/recipes.hpp>

#include "tensors.hpp"

namespace bench {

/// Uninitialised numbers that start at a cache line, or one element after it.
template <class T>
class buffer {
 public:
  explicit buffer(std::size_t n, bool unaligned = false)
      : memory_(static_cast<T*>(::operator new((n + 1) * sizeof(T), std::align_val_t(64)))), shift_(unaligned)
  {}
  T* data() const noexcept { return memory_.get() + shift_; }

 private:
  struct release {
    void operator()(T* p) const noexcept { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<T, release> memory_;
  std::size_t shift_;
};

/// Parameters in [−1, 1], gradients of both signs with magnitudes from 0.01 to 0.2. No gradient is near 0, so that the
/// place of eps, which differs between implementations, hardly matters.
template <class T>
using computed = std::conditional_t<gradus::short_float<T>, float, T>;
template <class T>
T parameter(std::size_t i)
{
  return T(computed<T>(int(i % 2001) - 1000) * computed<T>(1e-3));
}
template <class T>
T gradient(std::size_t i)
{
  const int k = int(i * 7919 % 1999) - 999;
  return T(computed<T>(k + (k < 0 ? -50 : 50)) * computed<T>(2e-4));
}

/// Parameters and gradients of all tensors. Tensors lie a cache line or more apart, as with an allocator.
template <class T>
struct model {
  shape s;
  std::vector<std::size_t> starts;  // and the end
  buffer<T> theta, g;

  explicit model(shape of, bool unaligned = false)
      : s(std::move(of)), starts(starts_of(s)), theta(length(), unaligned), g(length(), unaligned)
  {
    constexpr std::size_t period = 1 << 16;
    for (std::size_t i = 0, n = length(); i < n; ++i) {
      theta.data()[i] = i < period ? parameter<T>(i) : theta.data()[i - period];
      g.data()[i] = i < period ? gradient<T>(i) : g.data()[i - period];
    }
  }
  /// The length of an array with one element for each parameter, at the same places.
  std::size_t length() const noexcept { return starts.back(); }
  T* parameters(std::size_t k) const noexcept { return theta.data() + starts[k]; }
  T* gradients(std::size_t k) const noexcept { return g.data() + starts[k]; }

  template <class Optimizer>
  void add_to(Optimizer& opt) const
  {
    for (std::size_t k = 0; k < s.tensors(); ++k)
      opt.add(std::span(parameters(k), s.sizes[k]), std::span<const T>(gradients(k), s.sizes[k]));
  }

 private:
  static std::vector<std::size_t> starts_of(const shape& s)
  {
    std::vector<std::size_t> starts = {0};
    for (const std::size_t size : s.sizes)
      starts.push_back(starts.back() + (size + 31) / 16 * 16);
    return starts;
  }
};

/// A recipe with its defaults, except that a momentum of 0 is replaced, because without it there is no state to move.
template <class Recipe>
Recipe measured()
{
  Recipe h;
  if constexpr (requires { h.momentum; })
    h.momentum = 0.9;
  if (h.weight_decay == 0)
    h.weight_decay = 1e-4;
  return h;
}

/// A number that the compiler cannot constant-fold.
inline void clobber() { __asm__ volatile("" : : : "memory"); }

}  // namespace bench
