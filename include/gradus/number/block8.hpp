#pragma once
/// \file
/// Blocks of 8-bit codes, a number format for moments.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <gradus/kernel/math.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The state type of 8-bit moments. Each block of 256 elements has its largest magnitude as a float, and each element
/// an 8-bit code for its share of that magnitude. Blocks and the dynamic map of shares follow Dettmers et al., "8-bit
/// Optimizers via Block-wise Quantization" (2021), with two differences: the values of a decade start at its lower
/// bound and are evenly spaced up to the next decade, so that stochastic rounding works everywhere; and their blocks
/// have 2048 elements.
///
/// A block with an infinite or NaN element becomes all infinite or NaN (skip_nonfinite keeps such gradients out). A
/// block whose magnitudes are all under 2⁻¹²⁶ becomes zeros.
struct block8 {
  static constexpr std::size_t block = 256;  ///< elements in a block
};

/// How a map's codes are decoded, the same for signed and unsigned ones.
///
/// Code 2ʲ + i stands for (2ʲ + 9i)·unit, rounded once. Packs compute this, because they cannot hold all values. The
/// unit is a pair of floats, so that one fma rounds to the value; its index is the exponent of the code as a float,
/// modulo 8.
struct code_values {
  float value[256] = {};                               ///< the share for each code
  alignas(64) float unit_h[16] = {}, unit_l[16] = {};  ///< repeat after 8 entries
  std::uint32_t magnitude = 0;                         ///< the bits of a code without its sign
  std::uint8_t sign[16] = {};                          ///< the sign bit of codes, for a register of them
};

/// The dynamic map of D decades. Code 0 is zero, and codes 2ʲ … 2ʲ⁺¹−1 divide the decade from 10^(j−D) to 10^(j−D+1),
/// for j = 0 … D−1; all values are scaled so that the last code is exactly 1. Signed codes have the sign in the highest
/// bit.
template <bool Signed>
struct dynamic_map : code_values {
  static constexpr std::size_t decades = Signed ? 7 : 8;      ///< D
  static constexpr std::uint32_t last = (1u << decades) - 1;  ///< the code of 1

  float threshold[decades];   ///< the lower bound of decade j
  float slope[decades + 1];   ///< a share's code is slope·share + offset; [0] is for shares below all decades
  float offset[decades + 1];  ///< see slope

  constexpr dynamic_map() : threshold(), slope(), offset()
  {
    constexpr double top = 0.1 * (10 - 9.0 / (1 << (decades - 1)));
    double ten[decades + 1] = {1};  // ten[k] = 10ᵏ
    for (std::size_t k = 0; k < decades; ++k)
      ten[k + 1] = 10 * ten[k];
    magnitude = Signed ? 0x7f : 0xff;
    for (std::uint8_t& s : sign)
      s = Signed ? 0x80 : 0;
    for (std::size_t j = 0; j < decades; ++j) {
      const std::size_t first = std::size_t(1) << j;
      const double bins = double(first);
      for (std::size_t i = 0; i < first; ++i) {
        const std::size_t code = first + i;
        value[code] = float((1 + 9 * (double(i) / bins)) / ten[decades - j] / top);
        if constexpr (Signed)
          value[code + 128] = -value[code];
      }
      const double unit = 1 / ten[decades - j] / top / bins;
      for (std::size_t at = (127 + j) % 8; at < 16; at += 8) {
        unit_h[at] = float(unit);
        unit_l[at] = float(unit - double(float(unit)));
      }
      threshold[j] = value[first];
      slope[j + 1] = float(top * bins * ten[decades - j] / 9);
      offset[j + 1] = float(bins * 8 / 9);
    }
    slope[0] = 1 / threshold[0];
  }

  /// The code of a share, rounded stochastically.
  /// \param share   part of the block's largest magnitude, −1 to 1 (0 to 1 if unsigned)
  /// \param random  16 random bits
  GRADUS_INLINE GRADUS_HOST_DEVICE std::uint8_t code(float share, std::uint32_t random) const noexcept
  {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, share);
    const float a = __builtin_bit_cast(float, bits & 0x7fffffffu);
    float s = slope[0], o = offset[0];
    // Unrolled over constants, because compilers would otherwise load the numbers from memory, one element at a time.
    const auto choose = [&]<std::size_t... J>(std::index_sequence<J...>) GRADUS_INLINE {
      ((s = a >= threshold[J] ? slope[J + 1] : s, o = a >= threshold[J] ? offset[J + 1] : o), ...);
    };
    choose(std::make_index_sequence<decades>{});
    const float place = fma(s, a, o) + float(std::int32_t(random)) * 0x1p-16f;
    std::uint32_t c = std::uint32_t(std::int32_t(place));
    c = c > last ? last : c;
    if constexpr (Signed)
      return std::uint8_t(c | (bits >> 31 << 7));
    // Nonzero second moments must stay nonzero, because steps divide by them.
    return std::uint8_t(c == 0 && a > 0 ? 1u : c);
  }
};

namespace detail {
template <bool Signed>
inline constexpr dynamic_map<Signed> dynamic_map_of{};
}

/// Decodes n elements, beginning at the start of a block.
/// \param codes   n codes  \param scales  one for each block  \param to  n floats
/// \param n       a multiple of the block length, unless the last block is shorter
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

/// The scale of a block from the bits of its largest magnitude.
GRADUS_HOST_DEVICE inline float scale_of_block(std::uint32_t largest) noexcept
{
  return largest < 0x00800000u ? 0.0f : __builtin_bit_cast(float, largest);
}

/// The code of one element of such a block.
template <bool Signed>
GRADUS_HOST_DEVICE std::uint8_t encode_one(const dynamic_map<Signed>& map, float x, std::uint32_t largest,
                                           std::uint32_t random) noexcept
{
  if (largest < 0x00800000u || largest >= 0x7f800000u)
    return std::uint8_t(largest < 0x00800000u ? 0u : dynamic_map<Signed>::last);
  return map.code(x / scale_of_block(largest), random);
}

}  // namespace detail

/// Encodes n elements for `decode`, rounded stochastically.
/// \param random  the random bits: detail::noise or noise_words (rounding.hpp)
template <bool Signed, class Random>
void encode(const float* from, std::uint8_t* codes, float* scales, std::size_t n, const Random random) noexcept
{
  for (std::size_t begin = 0; begin < n; begin += block8::block) {
    const std::size_t length = n - begin < block8::block ? n - begin : block8::block;
    std::uint32_t largest = 0;  // as bits; a NaN's are larger than all others
    for (std::size_t i = begin; i < begin + length; ++i) {
      const std::uint32_t a = __builtin_bit_cast(std::uint32_t, from[i]) & 0x7fffffffu;
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
