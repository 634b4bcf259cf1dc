#pragma once
/// \file
/// Sums whose bits depend only on the numbers and their order, not on width, threads or backend.
///
/// A list is cut into blocks of 4096. In a block, element i goes to partial sum i mod 32, in double; the 32 partial
/// sums are folded by halves. The block sums form a list that is summed in the same way, until one number is left. A
/// backend has `accumulate(term, partial, x, n)`, the inner loop, or `block_sum(term, x, n)`, the sum of a block.

#include <cstddef>
#include <cstdint>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

inline constexpr std::size_t reduce_block = 4096;  ///< elements in a block
inline constexpr std::size_t reduce_lanes = 32;    ///< partial sums in a block

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

/// Sums a list that arrives one number at a time. Its size is fixed, because six levels of 4096 exceed any 64-bit
/// length.
class running_sum {
 public:
  /// Appends a number to the list.
  void add(double x) noexcept
  {
    for (level& l : levels_) {
      l.partial[l.count % reduce_lanes] += x;
      if (++l.count < reduce_block)
        return;
      x = take(l);
    }
  }

  /// The sum of all numbers added; then the list is empty again.
  double finish() noexcept
  {
    double sum = 0;
    bool carried = false;
    for (level& l : levels_) {
      if (l.count == 0)
        continue;  // a carried sum would be alone in this level, and so its sum
      if (carried)
        l.partial[l.count++ % reduce_lanes] += sum;
      sum = take(l);
      carried = true;
    }
    return sum;
  }

 private:
  static constexpr std::size_t level_count = 7;
  struct level {
    double partial[reduce_lanes] = {};
    std::size_t count = 0;
  };
  static double take(level& l) noexcept
  {
    const double sum = fold(l.partial);
    l = level{};
    return sum;
  }
  level levels_[level_count];
};

/// The sum of one block, n ≤ reduce_block, by the backend.
template <class Term, class Backend, class T>
double block_sum(const Backend& backend, const T* x, std::size_t n) noexcept
{
  if constexpr (requires { backend.block_sum(Term{}, x, n); })
    return backend.block_sum(Term{}, x, n);
  else {
    double partial[reduce_lanes] = {};
    backend.accumulate(Term{}, partial, x, n);
    return fold(partial);
  }
}

/// The sum of a list of any length.
template <class Term, class Backend, class T>
double reduce(const Backend& backend, const T* x, std::size_t n) noexcept
{
  if (n <= reduce_block)
    return block_sum<Term>(backend, x, n);  // one block: no list to sum
  running_sum sum;
  for (std::size_t i = 0; i < n; i += reduce_block)
    sum.add(block_sum<Term>(backend, x + i, n - i < reduce_block ? n - i : reduce_block));
  return sum.finish();
}

/// The sum of squares of n ≤ reduce_block elements, each multiplied by a factor first.
template <class Backend>
double scaled_square_sum(const Backend& backend, const double* x, std::size_t n, double factor) noexcept
{
  double scaled[reduce_block];
  for (std::size_t i = 0; i < n; ++i)
    scaled[i] = x[i] * factor;
  return block_sum<square_term>(backend, scaled, n);
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

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
