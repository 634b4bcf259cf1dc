#pragma once
/// \file
/// a*b + c, rounded once, in integers: for C libraries whose std::fma rounds twice. `fused` in math.hpp chooses.

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// An unsigned integer of 128 bits; not every target has one of the compiler's.
struct wide {
  std::uint64_t high = 0, low = 0;

  constexpr bool is_zero() const noexcept { return (high | low) == 0; }
  constexpr int bits() const noexcept { return 128 - (high ? std::countl_zero(high) : 64 + std::countl_zero(low)); }
  constexpr bool operator<(const wide& b) const noexcept { return high != b.high ? high < b.high : low < b.low; }
  constexpr wide operator+(const wide& b) const noexcept { return {high + b.high + (low + b.low < low), low + b.low}; }
  constexpr wide operator-(const wide& b) const noexcept { return {high - b.high - (low < b.low), low - b.low}; }
  constexpr wide operator<<(int n) const noexcept
  {
    return n == 0 ? *this : n >= 64 ? wide{low << (n - 64), 0} : wide{high << n | low >> (64 - n), low << n};
  }
  /// Divides by 2ⁿ. The lowest bit is also set if any bit was lost.
  constexpr wide shifted_with_rest(int n) const noexcept
  {
    if (n == 0)
      return *this;
    if (n >= 128)
      return {0, !is_zero()};
    const wide kept = n >= 64 ? wide{0, n == 64 ? high : high >> (n - 64)}
                              : wide{high >> n, low >> n | high << (64 - n)};
    const wide lost = *this << (128 - n);
    return {kept.high, kept.low | !lost.is_zero()};
  }

  static constexpr wide product(std::uint64_t a, std::uint64_t b) noexcept
  {
    const std::uint64_t lower = 0xffffffffu;
    const std::uint64_t low = (a & lower) * (b & lower), one = (a >> 32) * (b & lower), other = (a & lower) * (b >> 32);
    const std::uint64_t middle = (low >> 32) + (one & lower) + (other & lower);
    return {(a >> 32) * (b >> 32) + (one >> 32) + (other >> 32) + (middle >> 32), middle << 32 | (low & lower)};
  }
};

/// a*b + c, rounded once to nearest, ties to even. float or double.
template <class T>
T exact_fma(T a, T b, T c) noexcept
{
  using bits_type = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr int fraction = std::numeric_limits<T>::digits - 1, exponent_bits = int(8 * sizeof(T)) - 1 - fraction;
  constexpr std::uint64_t infinity = ((std::uint64_t(1) << exponent_bits) - 1) << fraction;
  constexpr int lowest = 2 - (1 << (exponent_bits - 1)) - fraction;  // exponent of the least denormal
  const auto bits_of = [](T x) { return std::uint64_t(__builtin_bit_cast(bits_type, x)); };
  const auto magnitude_of = [&](T x) { return bits_of(x) & (infinity | ((std::uint64_t(1) << fraction) - 1)); };
  const auto exponent_of = [&](T x) {
    const int field = int(magnitude_of(x) >> fraction);
    return lowest + (field > 0 ? field - 1 : 0);
  };
  const auto significand_of = [&](T x) {
    const std::uint64_t m = magnitude_of(x), implicit = std::uint64_t(1) << fraction;
    return m < implicit ? m : (m & (implicit - 1)) | implicit;
  };
  const auto is_negative = [&](T x) { return (bits_of(x) >> (8 * sizeof(T) - 1)) != 0; };

  const bool is_finite = magnitude_of(a) < infinity && magnitude_of(b) < infinity;
  if (is_finite && magnitude_of(c) >= infinity)
    return c + c;  // quiet
  if (!is_finite || magnitude_of(a) == 0 || magnitude_of(b) == 0)
    return a * b + c;

  // Both terms as ±integer · 2^exponent, the integer's highest bit being 2^125, which leaves room for a carry.
  const auto normalize = [](wide& x, int& exponent) {
    const int shift = x.is_zero() ? 0 : 126 - x.bits();
    x = x << shift;
    exponent -= shift;
  };
  wide large = wide::product(significand_of(a), significand_of(b)), small{0, significand_of(c)};
  int exponent = exponent_of(a) + exponent_of(b), small_exponent = exponent_of(c);
  bool negative = is_negative(a) != is_negative(b);
  const bool subtracts = negative != is_negative(c);
  normalize(large, exponent);
  normalize(small, small_exponent);
  if (small.is_zero())
    small_exponent = exponent;
  else if (small_exponent > exponent || (small_exponent == exponent && large < small)) {
    std::swap(large, small);
    std::swap(exponent, small_exponent);
    negative = negative != subtracts;
  }
  // Bits are lost only if the result has many more than T.
  small = small.shifted_with_rest(exponent - small_exponent < 128 ? exponent - small_exponent : 128);
  wide sum = subtracts ? large - small : large + small;
  if (sum.is_zero())
    return T(0);
  // Keeps the bits from 2^last on.
  int last = exponent + sum.bits() - (fraction + 1);
  last = last < lowest ? lowest : last;
  if (last < exponent)
    sum = sum << (exponent - last);
  else {  // the last two bits are then the half, and the rest
    const int drop = last - exponent;
    sum = drop < 2 ? sum << (2 - drop) : sum.shifted_with_rest(drop - 2 < 128 ? drop - 2 : 128);
    sum = {0, (sum.low >> 2) + ((sum.low & 3) + (sum.low >> 2 & 1) > 2)};
  }
  // By addition, so that the implicit bit and a carry each increment the exponent.
  const int field = last - lowest;
  std::uint64_t result = infinity;
  if (field < (1 << exponent_bits) - 1)
    result = (std::uint64_t(field) << fraction) + sum.low;
  result = (result < infinity ? result : infinity) | std::uint64_t(negative) << (8 * sizeof(T) - 1);
  return __builtin_bit_cast(T, bits_type(result));
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
