#pragma once
/// \file
/// A matrix product by any BLAS with the C interface: OpenBLAS, BLIS, MKL, …

#include <cstddef>
#include <limits>
#include <type_traits>

#include <cblas.h>

#include <gradus/gemm/plain.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace gemm {

/// A product by cblas_sgemm or cblas_dgemm, on as many threads as the library is set to. The bits are the library's.
struct blas {
  /// The library's numbers of rows and columns are of type int.
  static constexpr auto most = static_cast<std::size_t>((std::numeric_limits<int>::max)());

  /// C ← alpha·A·B + beta·C, see matrix_product.
  template <class T>
  void multiply(std::size_t m, std::size_t n, std::size_t k, T alpha, const T* a, const T* b, bool b_is_transposed,
                T beta, T* c) const noexcept
  {
    const int rows = static_cast<int>(m), columns = static_cast<int>(n), inner = static_cast<int>(k);
    const auto turned = b_is_transposed ? CblasTrans : CblasNoTrans;
    const int row_of_b = b_is_transposed ? inner : columns;
    if constexpr (std::is_same_v<T, float>)
      cblas_sgemm(CblasRowMajor, CblasNoTrans, turned, rows, columns, inner, alpha, a, inner, b, row_of_b, beta, c,
                  columns);
    else
      cblas_dgemm(CblasRowMajor, CblasNoTrans, turned, rows, columns, inner, alpha, a, inner, b, row_of_b, beta, c,
                  columns);
  }
};

}  // namespace gemm
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
