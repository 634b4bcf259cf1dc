#pragma once
/// \file
/// A matrix product by Eigen 3.3 or later.

#include <cstddef>

#include <Eigen/Core>

#include <gradus/gemm/plain.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace gemm {

/// A product by Eigen, on as many threads as Eigen is set to (Eigen::setNbThreads). The bits depend on Eigen's version, on
/// the instruction set, and on nothing else if the number of threads is fixed. Eigen allocates memory for large matrices.
struct eigen {
  /// C ← alpha·A·B + beta·C, see matrix_product.
  template <class T>
  void multiply(std::size_t m, std::size_t n, std::size_t k, T alpha, const T* a, const T* b, bool b_is_transposed,
                T beta, T* c) const
  {
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto rows = static_cast<Eigen::Index>(m), columns = static_cast<Eigen::Index>(n),
               inner = static_cast<Eigen::Index>(k);
    Eigen::Map<matrix> to(c, rows, columns);
    const Eigen::Map<const matrix> left(a, rows, inner);
    if (beta == 0)
      to.setZero();
    else
      to *= beta;
    if (b_is_transposed)
      to.noalias() += alpha * left * Eigen::Map<const matrix>(b, columns, inner).transpose();
    else
      to.noalias() += alpha * left * Eigen::Map<const matrix>(b, inner, columns);
  }
};

}  // namespace gemm
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
