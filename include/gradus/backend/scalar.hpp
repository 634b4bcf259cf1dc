#pragma once
/// \file
/// The scalar backend: plain loops, the oracle for every other backend. The compiler may vectorise them; with
/// -fno-math-errno it does (a square root that must set errno keeps a loop scalar).

#include <cstddef>

#include <gradus/kernel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace backend {

struct scalar {
  /// Inlined, so that the kernel is not copied: to load in packs what has just been stored piecewise stalls.
  template <class Kernel, class Theta, class G, class Slot>
  GRADUS_INLINE void sweep(const Kernel& kernel, const Theta theta, const G g, const Slot* slots, std::size_t n) const noexcept
  {
    Slot slot[Kernel::slots + 1];
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slot[k] = slots[k];
    for (std::size_t i = 0; i < n; ++i)
      apply_at<typename Kernel::value_type>(kernel, theta, g, slot, i);
  }

  /// Adds up to a block of elements to the partial sums, element i to partial[i % 32].
  template <class Term, class T>
  void accumulate(Term term, double (&partial)[page_lanes], const T* x, std::size_t n) const noexcept
  {
    for (std::size_t i = 0; i < n; i += page_lanes)
      for (std::size_t k = 0, m = n - i < page_lanes ? n - i : page_lanes; k < m; ++k)
        partial[k] = term(partial[k], double(x[i + k]));
  }
};

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
