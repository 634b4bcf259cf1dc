#pragma once
/// \file
/// Sums whose bits depend on the numbers and their order alone, not on width, threads or backend.
///
/// A list is cut into blocks of 4096. In a block, element i goes to partial sum i mod 32, in double; the 32 are folded
/// by halves. The block sums are a list again, summed in the same way, until one number is left. A backend offers
/// `accumulate(term, partial, x, n)`, the inner loop; or `block_sum(term, x, n)`, all of a block.

#include <cstddef>
#include <cstdint>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

inline constexpr std::size_t reduce_block = 4096;
inline constexpr std::size_t reduce_lanes = 32;

/// What an element adds to its partial sum.
struct square_term {
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V sum, V x) const noexcept
  {
    return fma(x, x, sum);
  }
};
struct plain_term {
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V sum, V x) const noexcept
  {
    return sum + x;
  }
};

/// The sum by halves of a power of two of numbers.
template <std::size_t N>
GRADUS_HOST_DEVICE inline double fold(double (&partial)[N]) noexcept
{
  for (std::size_t half = N / 2; half > 0; half /= 2)
    for (std::size_t k = 0; k < half; ++k)
      partial[k] += partial[k + half];
  return partial[0];
}

/// Sums a list that is handed over one number at a time. Fixed size: six levels of 4096 exceed any 64-bit length.
class running_sum {
 public:
  void add(double x) noexcept
  {
    for (level& l : levels_) {
      l.partial[l.count % reduce_lanes] += x;
      if (++l.count < reduce_block)
        return;
      x = take(l);
    }
  }

  /// The sum of all that was added; starts afresh.
  double finish() noexcept
  {
    double sum = 0;
    bool carried = false;
    for (level& l : levels_) {
      if (l.count == 0)
        continue;  // what is carried would be alone in it, and its own sum
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

template <class Term, class Backend, class T>
double reduce(const Backend& backend, const T* x, std::size_t n) noexcept
{
  if (n <= reduce_block)
    return block_sum<Term>(backend, x, n);  // a list of one is its own sum
  running_sum sum;
  for (std::size_t i = 0; i < n; i += reduce_block)
    sum.add(block_sum<Term>(backend, x + i, n - i < reduce_block ? n - i : reduce_block));
  return sum.finish();
}

/// A block's sum of squares in units other than 1: of n <= reduce_block elements, each times a factor first.
template <class Backend>
double scaled_square_sum(const Backend& backend, const double* x, std::size_t n, double factor) noexcept
{
  double scaled[reduce_block];
  for (std::size_t i = 0; i < n; ++i)
    scaled[i] = x[i] * factor;
  return block_sum<square_term>(backend, scaled, n);
}

/// Whether every element is neither infinite nor NaN.
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
