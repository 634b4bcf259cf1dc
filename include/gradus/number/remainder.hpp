#pragma once
/// \file
/// Float master weights, of which the bfloat16 parameters are a part.
///
/// A parameter is its master weight, rounded to nearest, and a remainder is the lower half of the master weight's bits:
/// if it is 2¹⁵ or more, the parameter is the upper half plus 1. For one float in 131072 this rule fails. With ties to
/// even, 65537 floats round to an even bfloat16, one more than a remainder can tell apart: one lies halfway to the
/// neighbour below, another one halfway to the neighbour above. One further bit tells these two apart.

#include <cstddef>
#include <cstdint>

#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The 16 bits that complete a bfloat16 to the float that it was rounded from.
struct remainder16 {
  std::uint16_t bits;  ///< the lower half of the float's bits

  remainder16() = default;
  /// The remainder of a float.
  GRADUS_HOST_DEVICE explicit remainder16(float x) noexcept : bits(std::uint16_t(__builtin_bit_cast(std::uint32_t, x)))
  {}
};

/// The float that was rounded to nearest. Exact for all floats except signalling NaNs, which become quiet.
/// \param above  from `lies_above`
GRADUS_HOST_DEVICE inline float completed_float(bfloat16 rounded, remainder16 rest, bool above) noexcept
{
  const std::uint32_t difference = rest.bits - (rest.bits >= 0x8000u && !above ? 0x10000u : 0u);
  return __builtin_bit_cast(float, (std::uint32_t(rounded.bits) << 16) + difference);
}
/// Whether the upper half of a float was not rounded up, although its lower half is 2¹⁵ or more. So it is if the float
/// lies halfway to the neighbour above, and for NaNs.
GRADUS_HOST_DEVICE inline bool lies_above(float x, bfloat16 rounded) noexcept
{
  const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
  return (u & 0x8000u) && !((u >> 16 ^ rounded.bits) & 1u);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
