#pragma once
/// \file
/// The 16-bit numbers: bfloat16 and float16.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gradus/kernel/math.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The upper half of a float: its range, 8 significant bits.
struct GRADUS_MAY_ALIAS bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  /// To nearest, ties to even; a NaN stays one.
  GRADUS_HOST_DEVICE explicit bfloat16(float x) noexcept : bits(0)
  {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u), nan = u | 0x400000u;
    bits = std::uint16_t(((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
  }
  /// Up or down by chance, so that the expected value is x. \param random  16 random bits
  GRADUS_HOST_DEVICE bfloat16(float x, std::uint32_t random) noexcept : bits(0)
  {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
    // Infinities and NaN keep their bits (a NaN made quiet): to add to them would make one the other.
    const std::uint32_t special = (u >> 16) | std::uint32_t((u & 0x7fffffffu) > 0x7f800000u ? 0x40u : 0u);
    bits = std::uint16_t((u & 0x7f800000u) == 0x7f800000u ? special : (u + random) >> 16);
  }
  GRADUS_HOST_DEVICE explicit operator float() const noexcept { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
};

/// IEEE binary16: from 6e-8 to 65504, 11 significant bits.
struct GRADUS_MAY_ALIAS float16 {
  std::uint16_t bits;

  float16() = default;
  /// To nearest, ties to even; a NaN stays one; 65520 and more is infinite.
  GRADUS_HOST_DEVICE explicit float16(float x) noexcept : bits(0)
  {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x), a = u & 0x7fffffffu;
    // To 0.5f a number under 2⁻¹⁴ is added in steps of 2⁻²⁴, which are those of float16 there.
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + 0.5f) - 0x3f000000u;
    const std::uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    finish(u, a, subnormal, normal);
  }
  /// Up or down by chance, so that the expected value is x. \param random  16 random bits
  GRADUS_HOST_DEVICE float16(float x, std::uint32_t random) noexcept : bits(0)
  {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x), a = u & 0x7fffffffu;
    // Added to 2⁻¹⁴, a number under it keeps 13 bits below those steps.
    const std::uint32_t fine = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + 0x1p-14f) - 0x38800000u;
    const std::uint32_t subnormal = (fine + (random >> 3)) >> 13;
    const std::uint32_t normal = (a - 0x38000000u + (random >> 3)) >> 13;
    finish(u, a, subnormal, normal);
  }
  GRADUS_HOST_DEVICE explicit operator float() const noexcept
  {
    const std::uint32_t a = (bits & 0x7fffu), shifted = a << 13;
    const std::uint32_t normal = shifted + 0x38000000u;
    // A subnormal's bits under the exponent of 2⁻¹⁴ are 2⁻¹⁴ too much.
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(shifted + 0x38800000u) - 0x1p-14f);
    const std::uint32_t special = shifted + 0x70000000u;
    const std::uint32_t magnitude = a >= 0x7c00u ? special : a < 0x400u ? subnormal : normal;
    return std::bit_cast<float>(magnitude | (std::uint32_t(bits & 0x8000u) << 16));
  }

 private:
  GRADUS_HOST_DEVICE void finish(std::uint32_t u, std::uint32_t a, std::uint32_t subnormal, std::uint32_t normal) noexcept
  {
    const std::uint32_t finite = a < 0x38800000u ? subnormal : normal;
    const std::uint32_t large = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
    bits = std::uint16_t((a >= 0x477ff000u && (a >= 0x47800000u || finite >= 0x7c00u) ? large : finite) | ((u >> 16) & 0x8000u));
  }
};

template <class T>
concept short_float = __is_same(T, bfloat16) || __is_same(T, float16);

GRADUS_HOST_DEVICE inline bool is_finite(bfloat16 x) noexcept
{
  return (x.bits & 0x7f80u) != 0x7f80u;
}
GRADUS_HOST_DEVICE inline bool is_finite(float16 x) noexcept
{
  return (x.bits & 0x7c00u) != 0x7c00u;
}

template <short_float S>
void decode(const S* from, float* to, std::size_t n) noexcept
{
  detail::transform(from, to, n, [](S x, std::size_t) { return float(x); });
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
