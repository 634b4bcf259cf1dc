#pragma once
/// \file
/// An exact sum of doubles. It does not depend on the order of the terms, nor on the number of threads or ranks.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Adds doubles without rounding; `value()` rounds the sum once, to nearest, ties to even.
///
/// The sum is stored as an integer in units of 2^-1074. It has 68 digits of 32 bits, each in 64 bits, so that 2^31
/// numbers can be added before a carry is needed. Because digits are integers, several threads may add them with
/// integer atomics, and several ranks with one all-reduce of `words`.
class exact_sum {
 public:
  static constexpr std::size_t digit_count = 68;              ///< digits of 32 bits that cover the range of double
  static constexpr std::size_t word_count = digit_count + 3;  ///< the digits and three counts
  /// The digits, lowest first; then the numbers of NaNs, +infinities and -infinities that were added.
  std::int64_t words[word_count] = {};

  /// Adds x. \pre fewer than 2^31 numbers were added since the last `carry()`
  GRADUS_HOST_DEVICE void add(double x) noexcept
  {
    split(x, [this](std::size_t word, std::int64_t change) { words[word] += change; });
  }
  /// Adds another sum. \pre fewer than 2^31 numbers were added to both since their last `carry()`
  GRADUS_HOST_DEVICE void add(const exact_sum& other) noexcept
  {
    for (std::size_t k = 0; k < word_count; ++k)
      words[k] += other.words[k];
  }

  /// Calls f(word, change) for each word that adding x changes: up to three digits, or one count.
  template <class F>
  GRADUS_HOST_DEVICE static void split(double x, const F& f) noexcept
  {
    const std::uint64_t bits = __builtin_bit_cast(std::uint64_t, x);
    const std::uint64_t exponent = (bits >> 52) & 0x7ffu, fraction = bits & ((std::uint64_t(1) << 52) - 1);
    const bool negative = (bits >> 63) != 0;
    if (exponent == 0x7ffu)
      return f(digit_count + (fraction != 0 ? 0u : negative ? 2u : 1u), 1);
    // x = ±mantissa · 2^(place − 1074)
    const std::uint64_t mantissa = exponent == 0 ? fraction : fraction | (std::uint64_t(1) << 52);
    const std::uint64_t place = exponent == 0 ? 0 : exponent - 1;
    const std::size_t digit = std::size_t(place / 32), shift = std::size_t(place % 32);
    const std::uint64_t low = mantissa << shift, high = shift == 0 ? 0 : mantissa >> (64 - shift);
    const std::int64_t sign = negative ? -1 : 1;
    f(digit, sign * std::int64_t(low & 0xffffffffu));
    f(digit + 1, sign * std::int64_t(low >> 32));
    if (high != 0)
      f(digit + 2, sign * std::int64_t(high));
  }

  /// Reduces every digit except the last to 32 bits; the sum stays the same.
  GRADUS_HOST_DEVICE void carry() noexcept
  {
    for (std::size_t k = 0; k + 1 < digit_count; ++k) {
      words[k + 1] += words[k] >> 32;
      words[k] &= 0xffffffff;
    }
  }

  /// The sum, rounded once to nearest, ties to even. NaN and infinities are treated as in a plain sum.
  GRADUS_HOST_DEVICE double value() const noexcept
  {
    constexpr std::uint64_t infinity = std::uint64_t(0x7ff) << 52, nan = infinity | (std::uint64_t(1) << 51);
    const std::int64_t nans = words[digit_count], plus = words[digit_count + 1], minus = words[digit_count + 2];
    if (nans > 0 || (plus > 0 && minus > 0))
      return __builtin_bit_cast(double, nan);
    if (plus > 0 || minus > 0)
      return __builtin_bit_cast(double, infinity | (std::uint64_t(minus > 0) << 63));
    const leading_digits sum = leading(1);
    return __builtin_bit_cast(double,
                              sum.is_negative ? magnitude(leading(-1)) | std::uint64_t(1) << 63 : magnitude(sum));
  }

 private:
  /// The leading digits of a sum after all carries.
  struct leading_digits {
    std::uint64_t first = 0, second = 0, third = 0;  // the highest digit that is not 0, and the two below it
    std::size_t place = 0;                           // the index of the first
    bool more = false;                               // whether any lower digit is not 0
    bool is_negative = false;
  };
  /// The leading digits of the sum times a sign. Reads the digits once, from the lowest that is not 0, and keeps no
  /// copy, for which each thread of a device would need memory.
  GRADUS_HOST_DEVICE leading_digits leading(std::int64_t sign) const noexcept
  {
    std::size_t begin = digit_count, end = 0;
    for (std::size_t k = 0; k < digit_count; ++k) {
      const bool is_zero = words[k] == 0;
      begin = !is_zero && begin == digit_count ? k : begin;
      end = is_zero ? end : k + 1;
    }
    leading_digits sum;
    std::uint64_t below = 0, two_below = 0;
    std::int64_t carry = 0;
    bool more = false;
    for (std::size_t k = begin; k < digit_count && (k < end || carry != 0); ++k) {
      const std::int64_t word = sign * words[k] + carry;
      const bool is_last = k + 1 == digit_count;  // which has no digit to carry to
      const std::uint64_t digit = is_last ? std::uint64_t(word) : std::uint64_t(word) & 0xffffffffu;
      carry = word >> 32;
      sum.is_negative = is_last && word < 0;
      if (digit != 0) {
        sum.first = digit;
        sum.second = below;
        sum.third = two_below;
        sum.place = k;
        sum.more = more;
      }
      more = more || two_below != 0;
      two_below = below;
      below = digit;
    }
    return sum;
  }
  /// The bits of value() for a sum that is not negative.
  GRADUS_HOST_DEVICE static std::uint64_t magnitude(const leading_digits& sum) noexcept
  {
    if (sum.first == 0)
      return 0;
    const std::size_t top = sum.place;
    const std::uint64_t first = sum.first, second = sum.second, third = sum.third;
    const std::size_t length = 64 - std::size_t(std::countl_zero(first));  // of the first digit, in bits
    if (32 * top + length <= 53)
      return first << 32 * top | (top > 0 ? second : 0);  // subnormal or just above; exact, so no rounding
    // Takes the 53 highest bits; the bits below them decide the rounding.
    const std::uint64_t upper = first << 32 | second;
    const std::size_t dropped = 64 + length - 53;  // of the 64 + length bits of these three digits
    std::uint64_t mantissa, rest, half;
    if (dropped < 32) {
      mantissa = upper << (32 - dropped) | third >> dropped;
      rest = third & ((std::uint64_t(1) << dropped) - 1);
      half = std::uint64_t(1) << (dropped - 1);
    } else {
      mantissa = upper >> (dropped - 32);
      rest = (upper & ((std::uint64_t(1) << (dropped - 32)) - 1)) << 32 | third;
      half = std::uint64_t(1) << (dropped - 1);
    }
    if (rest > half || (rest == half && (sum.more || (mantissa & 1) != 0)))
      ++mantissa;
    const std::uint64_t place = 32 * top + length - 53;   // the mantissa's last bit counts 2^(place − 1074)
    const std::uint64_t bits = (place << 52) + mantissa;  // the mantissa's leading bit adds one to the exponent
    constexpr std::uint64_t infinity = std::uint64_t(0x7ff) << 52;
    return bits < infinity ? bits : infinity;
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
