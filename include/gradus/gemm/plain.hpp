#pragma once
/// \file
/// The concept of a matrix product, which matrix rules such as Muon get from their caller, and one without a dependency.

#include <cstddef>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A product of matrices: `multiply(m, n, k, alpha, a, b, b_is_transposed, beta, c)` computes C ← alpha·A·B + beta·C. A is
/// m × k; B is k × n, or, transposed, is stored as n × k; C is m × n. All are row-major without gaps, and C overlaps
/// neither A nor B. With beta = 0, C is not read. Optional: `P::most`, the most rows or columns that it can take.
template <class P, class T>
concept matrix_product = requires(const P& p, std::size_t n, const T* a, T* c, T x) {
  p.multiply(n, n, n, x, a, a, true, x, c);
};

/// Matrix products (general matrix multiply).
namespace gemm {

/// A product in plain loops, on one thread. The same bits with every compiler and flag of one family (docs/algorithms.md).
/// For large matrices, gemm::eigen and gemm::blas are many times faster.
struct plain {
  /// C ← alpha·A·B + beta·C, see matrix_product.
  template <class T>
  void multiply(std::size_t m, std::size_t n, std::size_t k, T alpha, const T* a, const T* b, bool b_is_transposed,
                T beta, T* c) const noexcept
  {
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; j += lanes) {
        const std::size_t width = n - j < lanes ? n - j : lanes;
        T sums[lanes] = {};
        if (b_is_transposed)
          for (std::size_t l = 0; l < width; ++l)
            sums[l] = dot(a + i * k, b + (j + l) * k, k);
        else
          for (std::size_t p = 0; p < k; ++p)
            add_row(sums, a[i * k + p], b + p * n + j, width);
        for (std::size_t l = 0; l < width; ++l) {
          T& to = c[i * n + j + l];
          to = beta == 0 ? rounded(alpha * sums[l]) : fma(alpha, sums[l], rounded(beta * to));
        }
      }
  }

 private:
  static constexpr std::size_t lanes = 16;  // a fixed number, which compilers can put into vectors

  /// sums[l] += x·row[l].
  template <class T>
  static void add_row(T (&sums)[lanes], T x, const T* row, std::size_t width) noexcept
  {
    if (width == lanes)
      for (std::size_t l = 0; l < lanes; ++l)
        sums[l] = fma(x, row[l], sums[l]);
    else
      for (std::size_t l = 0; l < width; ++l)
        sums[l] = fma(x, row[l], sums[l]);
  }
  /// Σ x[i]·y[i].
  template <class T>
  static T dot(const T* x, const T* y, std::size_t k) noexcept
  {
    T sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= k; i += lanes)
      for (std::size_t l = 0; l < lanes; ++l)
        sums[l] = fma(x[i + l], y[i + l], sums[l]);
    for (std::size_t l = 0; i + l < k; ++l)
      sums[l] = fma(x[i + l], y[i + l], sums[l]);
    for (std::size_t half = lanes / 2; half > 0; half /= 2)
      for (std::size_t l = 0; l < half; ++l)
        sums[l] = sums[l] + sums[l + half];
    return sums[0];
  }
};

}  // namespace gemm
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
