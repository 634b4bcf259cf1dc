#pragma once
/// \file
/// Sums over arrays: pages, then exact.
///
/// A page is up to 4096 elements of one array. Within a page, element i goes to partial sum i mod 32, in double; the 32
/// partial sums are folded by halves. The sums of the pages are added exactly (exact_sum.hpp) and rounded once. So a
/// sum depends on the arrays only, not on SIMD width, threads, backend, or the order of the arrays. A backend has
/// `accumulate(term, partial, x, n)`, the inner loop, or `page_sums(term, x, n, sums)`, the sums of all pages of an
/// array.

#include <cstddef>
#include <cstdint>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

inline constexpr std::size_t page_size = 4096;  ///< elements in a page
inline constexpr std::size_t page_lanes = 32;   ///< partial sums in a page

/// The number of pages of n elements.
constexpr std::size_t page_count(std::size_t n) noexcept { return n / page_size + (n % page_size != 0); }

/// Adds x² to a partial sum.
struct square_term {
  /// sum + x².
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V sum, V x) const noexcept
  {
    return fma(x, x, sum);
  }
};
/// Adds x to a partial sum.
struct plain_term {
  /// sum + x.
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V sum, V x) const noexcept
  {
    return sum + x;
  }
};

/// The sum of N numbers by halves; N is a power of two. Overwrites `partial`.
template <std::size_t N>
GRADUS_HOST_DEVICE inline double fold(double (&partial)[N]) noexcept
{
  for (std::size_t half = N / 2; half > 0; half /= 2)
    for (std::size_t k = 0; k < half; ++k)
      partial[k] += partial[k + half];
  return partial[0];
}

/// The sum of one page, n ≤ page_size, by the backend.
template <class Term, class Backend, class T>
double page_sum(const Backend& backend, const T* x, std::size_t n) noexcept
{
  if constexpr (requires(double* sums) { backend.page_sums(Term{}, x, n, sums); }) {
    double sum = 0;
    backend.page_sums(Term{}, x, n, &sum);
    return sum;
  } else {
    double partial[page_lanes] = {};
    backend.accumulate(Term{}, partial, x, n);
    return fold(partial);
  }
}

/// The sums of the pages of an array of any length. \param sums  page_count(n) of them, written
template <class Term, class Backend, class T>
void page_sums(const Backend& backend, const T* x, std::size_t n, double* sums) noexcept
{
  if constexpr (real<T> && requires { backend.page_sums(Term{}, x, n, sums); })
    backend.page_sums(Term{}, x, n, sums);
  else
    for (std::size_t i = 0; i < n; i += page_size)
      sums[i / page_size] = page_sum<Term>(backend, x + i, n - i < page_size ? n - i : page_size);
}

/// Adds the pages of an array of any length to a sum.
template <class Term, class Backend, class T>
void add_pages(const Backend& backend, const T* x, std::size_t n, exact_sum& sum) noexcept
{
  constexpr std::size_t most = 16 * page_size;
  for (std::size_t i = 0; i < n; i += most) {
    const std::size_t m = n - i < most ? n - i : most;
    double sums[most / page_size];
    page_sums<Term>(backend, x + i, m, sums);
    for (std::size_t k = 0; k < page_count(m); ++k)
      sum.add(sums[k]);
  }
}

/// The sum of an array of any length.
template <class Term, class Backend, class T>
double reduce(const Backend& backend, const T* x, std::size_t n) noexcept
{
  if (n <= page_size)
    return page_sum<Term>(backend, x, n);
  exact_sum sum;
  add_pages<Term>(backend, x, n, sum);
  return sum.value();
}

namespace detail {

/// The sum of squares of n ≤ page_size elements, each multiplied by a factor first.
template <class Backend>
double scaled_square_sum(const Backend& backend, const double* x, std::size_t n, double factor) noexcept
{
  double scaled[page_size];
  for (std::size_t i = 0; i < n; ++i)
    scaled[i] = x[i] * factor;
  return page_sum<square_term>(backend, scaled, n);
}

/// Whether no element is infinite or NaN.
template <class T>
bool all_finite(const T* x, std::size_t n) noexcept
{
  for (std::size_t i = 0; i < n; ++i)
    if (!is_finite(x[i]))
      return false;
  return true;
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
