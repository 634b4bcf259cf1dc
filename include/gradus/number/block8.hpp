#pragma once
/// \file
/// Blocks of 8-bit codes, in which moments can be kept.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <gradus/kernel/math.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A slot of 8-bit codes: in each block of 256 elements the largest magnitude, a float, and for each element a code for the
/// share of it. The block and the dynamic map of shares are those of Dettmers et al., "8-bit Optimizers via Block-wise
/// Quantization" (2021), but for two points: a decade's values begin at its lower bound and are evenly spaced to that of
/// the next, so that rounding can be stochastic anywhere; and their blocks are of 2048.
///
/// A block with an infinite or NaN element becomes one of nothing else (skip_nonfinite keeps such gradients out); one whose
/// magnitudes are all under 2⁻¹²⁶ becomes zeros.
struct block8 {
  static constexpr std::size_t block = 256;
};

/// The dynamic map. Of D + … bits for a magnitude, code 0 is zero and codes 2ʲ … 2ʲ⁺¹−1 divide the decade from 10^(j−D) to
/// 10^(j−D+1), for j = 0 … D−1; all is scaled so that the last code is exactly 1. Signed codes carry the sign above.
template <bool Signed>
struct dynamic_map {
  static constexpr std::size_t decades = Signed ? 7 : 8;
  static constexpr std::uint32_t last = (1u << decades) - 1;

  float value[256];          ///< of a code
  float threshold[decades];  ///< where decade j begins
  float slope[decades + 1];  ///< from a share to its place among the codes, slope·share + offset; [0] is under all decades
  float offset[decades + 1];

  constexpr dynamic_map() : value(), threshold(), slope(), offset()
  {
    double ten[decades + 1] = {1};  // ten[k] = 10ᵏ
    for (std::size_t k = 0; k < decades; ++k)
      ten[k + 1] = 10 * ten[k];
    const double top = 0.1 * (10 - 9.0 / (1 << (decades - 1)));
    for (std::size_t j = 0; j < decades; ++j) {
      const std::size_t first = std::size_t(1) << j;
      const double bins = double(first);
      for (std::size_t i = 0; i < first; ++i) {
        const std::size_t code = first + i;
        value[code] = float((1 + 9 * (double(i) / bins)) / ten[decades - j] / top);
        if constexpr (Signed)
          value[code + 128] = -value[code];
      }
      threshold[j] = value[first];
      slope[j + 1] = float(top * bins * ten[decades - j] / 9);
      offset[j + 1] = float(bins * 8 / 9);
    }
    slope[0] = 1 / threshold[0];
  }

  /// \param share   of the block's largest magnitude, −1 to 1 (0 to 1 if unsigned)
  /// \param random  16 random bits
  GRADUS_INLINE GRADUS_HOST_DEVICE std::uint8_t code(float share, std::uint32_t random) const noexcept
  {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(share);
    const float a = std::bit_cast<float>(bits & 0x7fffffffu);
    float s = slope[0], o = offset[0];
    // Unrolled over constants, or compilers look the numbers up in memory, one element at a time.
    const auto choose = [&]<std::size_t... J>(std::index_sequence<J...>) GRADUS_INLINE {
      ((s = a >= threshold[J] ? slope[J + 1] : s, o = a >= threshold[J] ? offset[J + 1] : o), ...);
    };
    choose(std::make_index_sequence<decades>{});
    const float place = fma(s, a, o) + float(std::int32_t(random)) * 0x1p-16f;
    std::uint32_t c = std::uint32_t(std::int32_t(place));
    c = c > last ? last : c;
    if constexpr (Signed)
      return std::uint8_t(c | (bits >> 31 << 7));
    // A second moment's elements are divisors: what is not zero must not become it.
    return std::uint8_t(c == 0 && a > 0 ? 1u : c);
  }
};

namespace detail {
template <bool Signed>
inline constexpr dynamic_map<Signed> dynamic_map_of{};
}

/// \param n  a multiple of a block's length, or all that is left
template <bool Signed>
void decode(const std::uint8_t* codes, const float* scales, float* to, std::size_t n) noexcept
{
  for (std::size_t i = 0; i < n; i += block8::block)
    detail::transform(codes + i, to + i, n - i < block8::block ? n - i : block8::block,
                      [scale = scales[i / block8::block]](std::uint8_t code, std::size_t) {
                        return scale * detail::dynamic_map_of<Signed>.value[code];
                      });
}

namespace detail {

/// A block's scale from the bits of its largest magnitude.
GRADUS_HOST_DEVICE inline float scale_of_block(std::uint32_t largest) noexcept
{
  return largest < 0x00800000u ? 0.0f : std::bit_cast<float>(largest);
}

/// The code of one element of such a block.
template <bool Signed>
GRADUS_HOST_DEVICE std::uint8_t encode_one(const dynamic_map<Signed>& map, float x, std::uint32_t largest, std::uint32_t random) noexcept
{
  if (largest < 0x00800000u || largest >= 0x7f800000u)
    return std::uint8_t(largest < 0x00800000u ? 0u : dynamic_map<Signed>::last);
  return map.code(x / scale_of_block(largest), random);
}

}  // namespace detail

/// Rounds stochastically, by bits of one range of noise; codes and scales as `decode` reads them.
template <bool Signed>
void encode(const float* from, std::uint8_t* codes, float* scales, std::size_t n, detail::noise random) noexcept
{
  for (std::size_t begin = 0; begin < n; begin += block8::block) {
    const std::size_t length = n - begin < block8::block ? n - begin : block8::block;
    std::uint32_t largest = 0;  // as bits, among which a NaN's are the largest of all
    for (std::size_t i = begin; i < begin + length; ++i) {
      const std::uint32_t a = std::bit_cast<std::uint32_t>(from[i]) & 0x7fffffffu;
      largest = a > largest ? a : largest;
    }
    const float scale = detail::scale_of_block(largest);
    scales[begin / block8::block] = scale;
    if (largest < 0x00800000u)
      std::memset(codes + begin, 0, length);
    else if (largest >= 0x7f800000u)
      std::memset(codes + begin, int(dynamic_map<Signed>::last), length);
    else
      detail::transform(from + begin, codes + begin, length, [=](float x, std::size_t i) {
        return detail::dynamic_map_of<Signed>.code(x / scale, random(begin + i));
      });
  }
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
