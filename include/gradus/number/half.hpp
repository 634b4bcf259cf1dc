#pragma once
/// \file
/// The 16-bit number types: bfloat16 and float16.

#include <cstddef>
#include <cstdint>

#include <gradus/kernel/math.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The upper half of a float: the range of float, 8 significant bits. May alias other 16-bit types with the same bits.
struct GRADUS_MAY_ALIAS bfloat16 {
  std::uint16_t bits;  ///< sign, 8 bits of exponent, 7 of fraction

  bfloat16() = default;
  /// Rounds to nearest, ties to even; NaN stays NaN.
  GRADUS_HOST_DEVICE explicit bfloat16(float x) noexcept : bits(0)
  {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
    const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u), nan = u | 0x400000u;
    bits = std::uint16_t(((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
  }
  /// Rounds stochastically, so that the expected value is x. \param random  16 random bits
  GRADUS_HOST_DEVICE bfloat16(float x, std::uint32_t random) noexcept : bits(0)
  {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
    // Infinities and NaN keep their bits (NaN becomes quiet); adding to them could turn one into the other.
    const std::uint32_t special = (u >> 16) | std::uint32_t((u & 0x7fffffffu) > 0x7f800000u ? 0x40u : 0u);
    bits = std::uint16_t((u & 0x7f800000u) == 0x7f800000u ? special : (u + random) >> 16);
  }
  /// Exact.
  GRADUS_HOST_DEVICE explicit operator float() const noexcept
  {
    return __builtin_bit_cast(float, std::uint32_t(bits) << 16);
  }
};

/// IEEE binary16: from 6e-8 to 65504, 11 significant bits. May alias other 16-bit types with the same bits.
struct GRADUS_MAY_ALIAS float16 {
  std::uint16_t bits;  ///< sign, 5 bits of exponent, 10 of fraction

  float16() = default;
  /// Rounds to nearest, ties to even; NaN stays NaN; 65520 and more become infinite.
  GRADUS_HOST_DEVICE explicit float16(float x) noexcept : bits(0)
  {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x), a = u & 0x7fffffffu;
    // Adding a number under 2⁻¹⁴ to 0.5f rounds it to a multiple of 2⁻²⁴, as float16 does there.
    const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, a) + 0.5f) -
                                    0x3f000000u;
    const std::uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    finish(u, a, subnormal, normal);
  }
  /// Rounds stochastically, so that the expected value is x. \param random  16 random bits
  GRADUS_HOST_DEVICE float16(float x, std::uint32_t random) noexcept : bits(0)
  {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x), a = u & 0x7fffffffu;
    // A number under 2⁻¹⁴ that is added to 2⁻¹⁴ keeps 13 bits below the steps of 2⁻²⁴.
    const std::uint32_t fine = __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, a) + 0x1p-14f) - 0x38800000u;
    const std::uint32_t subnormal = (fine + (random >> 3)) >> 13;
    const std::uint32_t normal = (a - 0x38000000u + (random >> 3)) >> 13;
    finish(u, a, subnormal, normal);
  }
  /// Exact.
  GRADUS_HOST_DEVICE explicit operator float() const noexcept
  {
    const std::uint32_t a = (bits & 0x7fffu), shifted = a << 13;
    const std::uint32_t normal = shifted + 0x38000000u;
    // A subnormal's bits with the exponent of 2⁻¹⁴ give a value that is 2⁻¹⁴ too large.
    const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t,
                                                       __builtin_bit_cast(float, shifted + 0x38800000u) - 0x1p-14f);
    const std::uint32_t special = shifted + 0x70000000u;
    const std::uint32_t magnitude = a >= 0x7c00u ? special : a < 0x400u ? subnormal : normal;
    return __builtin_bit_cast(float, magnitude | (std::uint32_t(bits & 0x8000u) << 16));
  }

 private:
  GRADUS_HOST_DEVICE void finish(std::uint32_t u, std::uint32_t a, std::uint32_t subnormal,
                                 std::uint32_t normal) noexcept
  {
    const std::uint32_t finite = a < 0x38800000u ? subnormal : normal;
    const std::uint32_t large = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
    bits = std::uint16_t((a >= 0x477ff000u && (a >= 0x47800000u || finite >= 0x7c00u) ? large : finite) |
                         ((u >> 16) & 0x8000u));
  }
};

/// bfloat16 or float16.
template <class T>
concept short_float = __is_same(T, bfloat16) || __is_same(T, float16);

/// Whether x is neither infinite nor NaN.
GRADUS_HOST_DEVICE inline bool is_finite(bfloat16 x) noexcept { return (x.bits & 0x7f80u) != 0x7f80u; }
/// Whether x is neither infinite nor NaN.
GRADUS_HOST_DEVICE inline bool is_finite(float16 x) noexcept { return (x.bits & 0x7c00u) != 0x7c00u; }

/// Converts n elements to float.
template <short_float S>
void decode(const S* from, float* to, std::size_t n) noexcept
{
  detail::transform(from, to, n, [](S x, std::size_t) { return float(x); });
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
