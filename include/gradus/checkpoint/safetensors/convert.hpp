#pragma once
/// \file
/// Converts floating-point elements of one type to another, rounded to nearest.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The numbers of exponent and fraction bits of a floating-point type. The sign bit is above them.
struct float_layout {
  int exponent, fraction;
};

inline float_layout layout_of(const safetensors::dtype& t) noexcept
{
  return t.name == "F64"    ? float_layout{11, 52}
         : t.name == "F32"  ? float_layout{8, 23}
         : t.name == "BF16" ? float_layout{8, 7}
                            : float_layout{5, 10};
}

/// Converts the bits of one number. Rounds to nearest, ties to even; numbers that are too large become infinite.
inline std::uint64_t convert_bits(std::uint64_t bits, float_layout from, float_layout to) noexcept
{
  const std::uint64_t sign = bits >> (from.exponent + from.fraction) & 1;
  const std::uint64_t magnitude = bits & ((std::uint64_t(1) << (from.exponent + from.fraction)) - 1);
  const std::uint64_t signed_zero = sign << (to.exponent + to.fraction);
  const std::uint64_t infinity = ((std::uint64_t(1) << to.exponent) - 1) << to.fraction;
  const std::uint64_t from_infinity = ((std::uint64_t(1) << from.exponent) - 1) << from.fraction;
  if (magnitude >= from_infinity)
    return signed_zero | infinity | (magnitude > from_infinity ? std::uint64_t(1) << (to.fraction - 1) : 0);
  if (magnitude == 0)
    return signed_zero;
  // The number is significand · 2^(exponent − 63), and the significand's highest bit is set.
  std::int64_t exponent = std::int64_t(magnitude >> from.fraction);
  std::uint64_t significand = magnitude & ((std::uint64_t(1) << from.fraction) - 1);
  if (exponent == 0)
    exponent = 1;
  else
    significand |= std::uint64_t(1) << from.fraction;
  const int shift = std::countl_zero(significand);
  significand <<= shift;
  exponent += 63 - from.fraction - shift - ((1 << (from.exponent - 1)) - 1);
  std::int64_t biased = exponent + ((1 << (to.exponent - 1)) - 1), drop = 63 - to.fraction;
  if (biased < 1) {  // The result is denormal: it has the exponent 1, and its highest bit is stored in the fraction.
    drop += 1 - biased;
    biased = 1;
  }
  if (drop > 64)
    return signed_zero;
  const std::uint64_t kept = drop == 64 ? 0 : significand >> drop, lost = significand << (64 - drop) % 64;
  const std::uint64_t tie = std::uint64_t(1) << 63;
  const bool up = lost > tie || (lost == tie && kept % 2 == 1);
  // Addition, so that the highest kept bit and a carry each increment the exponent.
  const std::uint64_t result = (std::uint64_t(biased - 1) << to.fraction) + kept + up;
  return signed_zero | (result > infinity ? infinity : result);
}

}  // namespace detail

namespace safetensors {

/// Converts `count` little-endian elements from one floating-point type to another, rounded to nearest.
inline void convert(const dtype& from, const unsigned char* source, const dtype& to, unsigned char* target,
                    std::size_t count) noexcept
{
  const detail::float_layout a = detail::layout_of(from), b = detail::layout_of(to);
  for (std::size_t i = 0; i < count; ++i, source += from.bytes, target += to.bytes) {
    std::uint64_t bits = 0;
    for (std::size_t k = from.bytes; k-- > 0;)
      bits = bits << 8 | source[k];
    bits = detail::convert_bits(bits, a, b);
    for (std::size_t k = 0; k < to.bytes; ++k)
      target[k] = static_cast<unsigned char>(bits >> 8 * k);
  }
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
