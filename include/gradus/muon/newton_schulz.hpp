#pragma once
/// \file
/// The Newton–Schulz iteration, which makes a matrix nearly orthogonal with products alone.

#include <cstddef>
#include <cstring>
#include <utility>

#include <gradus/gemm/plain.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The memory for an iteration over matrices of some sizes.
template <class T>
struct newton_schulz_memory {
  array_memory<T> x, y;              ///< as many elements as the matrix
  array_memory<T> gram, polynomial;  ///< the square of its smaller side

  /// Makes room for a matrix. \param small  the smaller side
  void reserve(std::size_t elements, std::size_t small)
  {
    if (elements > elements_) {
      array_memory<T> next_x(elements, T()), next_y(elements, T());
      x = std::move(next_x), y = std::move(next_y);
      elements_ = elements;
    }
    if (small > small_) {
      array_memory<T> next_gram(small * small, T()), next_polynomial(small * small, T());
      gram = std::move(next_gram), polynomial = std::move(next_polynomial);
      small_ = small;
    }
  }

 private:
  std::size_t elements_ = 0, small_ = 0;
};

/// X ← aX + (bG + cG²)X with G = XXᵀ, some times: each singular value s of X, in (0, 1], becomes as + bs³ + cs⁵, and comes
/// near to 1. The coefficients are those of Jordan et al. 2024 (docs/muon.md), which rise fastest from 0 and leave the values
/// between about 0.7 and 1.2.
/// \param memory   memory.x has X, rows × columns with rows ≤ columns, with a norm of at most 1; it is overwritten
template <class T, class Product>
void newton_schulz(const Product& product, std::size_t rows, std::size_t columns, std::size_t iterations,
                   newton_schulz_memory<T>& memory)
{
  constexpr T a = T(3.4445), b = T(-4.775), c = T(2.0315);
  for (std::size_t k = 0; k < iterations; ++k) {
    T* const x = memory.x.get();
    T* const gram = memory.gram.get();
    product.multiply(rows, rows, columns, T(1), x, x, true, T(0), gram);
    std::memcpy(memory.polynomial.get(), gram, rows * rows * sizeof(T));
    product.multiply(rows, rows, rows, c, gram, gram, false, b, memory.polynomial.get());
    std::memcpy(memory.y.get(), x, rows * columns * sizeof(T));
    product.multiply(rows, columns, rows, T(1), memory.polynomial.get(), x, false, a, memory.y.get());
    std::swap(memory.x, memory.y);
  }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
