#pragma once
/// \file
/// The scalar backend: plain loops, the reference for every other backend. Compilers can vectorise them with
/// -fno-math-errno; otherwise each square root must set errno, which keeps the loop scalar.

#include <cstddef>

#include <gradus/kernel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Backends: they run kernels over arrays.
namespace backend {

/// The backend without dependencies: computes one element at a time.
struct scalar {
  /// Applies a kernel to n elements. Inlined, because passing the kernel would store it piecewise and load it back in
  /// packs, which stalls.
  template <class Kernel, class Theta, class G, class Slot>
  GRADUS_INLINE void sweep(const Kernel& kernel, const Theta theta, const G g, const Slot* slots,
                           std::size_t n) const noexcept
  {
    Slot slot[Kernel::slots + 1];
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slot[k] = slots[k];
    for (std::size_t i = 0; i < n; ++i)
      apply_at<typename Kernel::value_type>(kernel, theta, g, slot, i);
  }

  /// Adds n ≤ page_size elements to the partial sums, element i to partial[i % 32].
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
