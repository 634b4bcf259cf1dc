#pragma once
/// \file
/// 8-bit codes of moments (number/block8.hpp) in registers, for AVX-512 and for AVX2 with FMA. Gives the bits of
/// block8.hpp's own functions, which read tables that do not fit in registers.

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <gradus/number/block8.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// dynamic_map's tables for encoding, in registers.
template <bool Signed>
struct code_tables {
  static constexpr std::size_t decades = dynamic_map<Signed>::decades;
  static constexpr std::uint32_t lowest_exponent = 96;  ///< biased; a multiple of 32

  alignas(64) float slope[16] = {}, offset[16] = {};  ///< as in dynamic_map
  /// For each exponent of a share, modulo 32: added to the share's bits, gives the decade above bit 23. [0] is for all
  /// shares below 2⁻³⁰.
  alignas(64) std::uint32_t to_decade[32] = {};
  std::uint32_t threshold[8] = {};  ///< bits of dynamic_map's

  constexpr code_tables() noexcept
  {
    const dynamic_map<Signed> map;
    for (std::size_t j = 0; j < decades; ++j)
      threshold[j] = __builtin_bit_cast(std::uint32_t, map.threshold[j]);
    for (std::size_t j = 0; j <= decades; ++j) {
      slope[j] = map.slope[j];
      offset[j] = map.offset[j];
    }
    for (std::uint32_t e = 0; e < 32; ++e) {
      // At most one decade begins among the numbers of one exponent.
      const std::uint32_t first = (lowest_exponent + e) << 23, end = first + (1u << 23);
      std::uint32_t decade = 0, next = end;
      for (std::size_t j = 0; j < decades; ++j) {
        decade += threshold[j] <= first;
        next = threshold[j] > first && threshold[j] < end ? threshold[j] : next;
      }
      to_decade[e] = ((decade + 1) << 23) - next;
    }
  }
};

template <bool Signed>
inline constexpr code_tables<Signed> code_tables_of{};

/// Registers of Bytes bytes that decode and encode; undefined where the target has none.
template <std::size_t Bytes>
struct code_registers;

#if defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct code_registers<64> {
  static constexpr std::size_t size = 16;

  /// Decodes 16 codes.
  static __m512 decode(const std::uint8_t* codes, float scale, const code_values& map) noexcept
  {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m512 c = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtepu8_epi32(bytes), all(map.magnitude)));
    const __m512i exponent = _mm512_srli_epi32(_mm512_castps_si512(c), 23);
    const __m512 first = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(c), all(0x7f800000)));
    __m512 units = _mm512_fmadd_ps(_mm512_set1_ps(8), _mm512_sub_ps(c, first), c);
    // Subtracted from 0, because code 0 is +0 with either sign.
    units = _mm512_mask_sub_ps(units,
                               _mm_test_epi8_mask(bytes, _mm_loadu_si128(reinterpret_cast<const __m128i*>(map.sign))),
                               _mm512_setzero_ps(), units);
    const __m512 low = _mm512_mul_ps(units, _mm512_permutexvar_ps(exponent, _mm512_load_ps(map.unit_l)));
    const __m512 share = _mm512_fmadd_ps(units, _mm512_permutexvar_ps(exponent, _mm512_load_ps(map.unit_h)), low);
    return _mm512_mul_ps(_mm512_set1_ps(scale), share);
  }

  /// The largest magnitude of n elements, as bits; n is a multiple of 64.
  static std::uint32_t largest(const float* x, std::size_t n) noexcept
  {
    __m512i most[4] = {};
    for (std::size_t i = 0; i < n; i += 64)
      for (std::size_t k = 0; k < 4; ++k)
        most[k] = _mm512_max_epu32(most[k], _mm512_and_si512(_mm512_loadu_si512(x + i + k * size), all(0x7fffffff)));
    const __m512i a = _mm512_max_epu32(most[0], most[1]), b = _mm512_max_epu32(most[2], most[3]);
    std::uint32_t lane[size], all_lanes = 0;
    _mm512_storeu_si512(lane, _mm512_max_epu32(a, b));
    for (const std::uint32_t l : lane)
      all_lanes = l > all_lanes ? l : all_lanes;
    return all_lanes;
  }

  /// Encodes 64 elements.
  template <bool Signed>
  static void encode(const float* x, std::uint8_t* codes, float scale, const noise_words& random) noexcept
  {
    constexpr const code_tables<Signed>& t = code_tables_of<Signed>;
    const __m512i decade_l = _mm512_load_si512(t.to_decade), decade_h = _mm512_load_si512(t.to_decade + size);
    __m512i share[4], code[4];
    for (std::size_t k = 0; k < 4; ++k) {
      share[k] = _mm512_castps_si512(_mm512_div_ps(_mm512_loadu_ps(x + k * size), _mm512_set1_ps(scale)));
      const __m512i a = _mm512_and_si512(share[k], all(0x7fffffff));
      const __m512i bits = _mm512_max_epu32(a, all(code_tables<Signed>::lowest_exponent << 23));
      const __m512i to_decade = _mm512_permutex2var_epi32(decade_l, _mm512_srli_epi32(bits, 23), decade_h);
      const __m512i decade = _mm512_srli_epi32(_mm512_add_epi32(bits, to_decade), 23);
      const __m512i word = _mm512_loadu_si512(random.words + k * size);
      const __m512i r = random.shift ? _mm512_srli_epi32(word, 16) : _mm512_and_si512(word, all(0xffff));
      const __m512 place = _mm512_fmadd_ps(_mm512_permutexvar_ps(decade, _mm512_load_ps(t.slope)),
                                           _mm512_castsi512_ps(a),
                                           _mm512_permutexvar_ps(decade, _mm512_load_ps(t.offset)));
      code[k] = _mm512_cvttps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(r), _mm512_set1_ps(0x1p-16f), place));
      if constexpr (!Signed)
        share[k] = a;
    }
    // Packing saturates. This limits codes to the last one, and keeps the shares' signs and whether they are zero.
    const __m512i low = _mm512_packs_epi32(code[0], code[1]), high = _mm512_packs_epi32(code[2], code[3]);
    const __m512i share_l = _mm512_packs_epi32(share[0], share[1]), share_h = _mm512_packs_epi32(share[2], share[3]);
    __m512i packed;
    if constexpr (Signed)
      packed = _mm512_or_si512(_mm512_packs_epi16(low, high),
                               _mm512_and_si512(_mm512_packs_epi16(share_l, share_h), all(0x80808080)));
    else
      packed = _mm512_max_epu8(_mm512_packus_epi16(low, high),
                               _mm512_min_epu8(_mm512_packus_epi16(share_l, share_h), all(0x01010101)));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(codes, _mm512_permutexvar_epi32(order, packed));
  }

 private:
  static __m512i all(std::uint32_t s) noexcept { return _mm512_set1_epi32(int(s)); }
};
#endif

#if defined(__AVX2__) && defined(__FMA__)
template <>
struct code_registers<32> {
  static constexpr std::size_t size = 8;

  /// Decodes 8 codes.
  static __m256 decode(const std::uint8_t* codes, float scale, const code_values& map) noexcept
  {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
    const __m256 c = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, all(map.magnitude)));
    const __m256i exponent = _mm256_srli_epi32(_mm256_castps_si256(c), 23);
    const __m256 first = _mm256_and_ps(c, _mm256_castsi256_ps(all(0x7f800000)));
    __m256 units = _mm256_fmadd_ps(_mm256_set1_ps(8), _mm256_sub_ps(c, first), c);
    // Subtracted from 0, because code 0 is +0 with either sign.
    units = _mm256_blendv_ps(units, _mm256_sub_ps(_mm256_setzero_ps(), units),
                             _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_and_si256(bytes, all(map.sign[0])), 24)));
    const __m256 low = _mm256_mul_ps(units, _mm256_permutevar8x32_ps(_mm256_load_ps(map.unit_l), exponent));
    const __m256 share = _mm256_fmadd_ps(units, _mm256_permutevar8x32_ps(_mm256_load_ps(map.unit_h), exponent), low);
    return _mm256_mul_ps(_mm256_set1_ps(scale), share);
  }

  /// The largest magnitude of n elements, as bits; n is a multiple of 64.
  static std::uint32_t largest(const float* x, std::size_t n) noexcept
  {
    __m256i most[4] = {};
    for (std::size_t i = 0; i < n; i += 32)
      for (std::size_t k = 0; k < 4; ++k) {
        const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i + k * size));
        most[k] = _mm256_max_epu32(most[k], _mm256_and_si256(bits, all(0x7fffffff)));
      }
    const __m256i a = _mm256_max_epu32(most[0], most[1]), b = _mm256_max_epu32(most[2], most[3]);
    std::uint32_t lane[size], all_lanes = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lane), _mm256_max_epu32(a, b));
    for (const std::uint32_t l : lane)
      all_lanes = l > all_lanes ? l : all_lanes;
    return all_lanes;
  }

  /// Encodes 64 elements.
  template <bool Signed>
  static void encode(const float* x, std::uint8_t* codes, float scale, const noise_words& random) noexcept
  {
    for (std::size_t i = 0; i < 64; i += 4 * size)
      encode_32<Signed>(x + i, codes + i, scale, {random.words + i, random.shift});
  }

 private:
  template <bool Signed>
  static void encode_32(const float* x, std::uint8_t* codes, float scale, const noise_words& random) noexcept
  {
    constexpr const code_tables<Signed>& t = code_tables_of<Signed>;
    constexpr std::size_t decades = dynamic_map<Signed>::decades;
    __m256i share[4], code[4];
    for (std::size_t k = 0; k < 4; ++k) {
      share[k] = _mm256_castps_si256(_mm256_div_ps(_mm256_loadu_ps(x + k * size), _mm256_set1_ps(scale)));
      const __m256i a = _mm256_and_si256(share[k], all(0x7fffffff));
      // The decade less one, in seven comparisons, because the tables of eight entries have no room for shares below
      // all decades.
      __m256i decade = _mm256_setzero_si256();
      [&]<std::size_t... J>(std::index_sequence<J...>) {
        ((decade = _mm256_sub_epi32(decade, _mm256_cmpgt_epi32(a, all(t.threshold[J + 1] - 1)))), ...);
      }(std::make_index_sequence<decades - 1>{});
      const __m256 below = _mm256_castsi256_ps(_mm256_cmpgt_epi32(all(t.threshold[0]), a));
      const __m256 slope = _mm256_blendv_ps(_mm256_permutevar8x32_ps(_mm256_loadu_ps(t.slope + 1), decade),
                                            _mm256_set1_ps(t.slope[0]), below);
      const __m256 offset = _mm256_andnot_ps(below, _mm256_permutevar8x32_ps(_mm256_loadu_ps(t.offset + 1), decade));
      const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(random.words + k * size));
      const __m256i r = random.shift ? _mm256_srli_epi32(word, 16) : _mm256_and_si256(word, all(0xffff));
      const __m256 place = _mm256_fmadd_ps(slope, _mm256_castsi256_ps(a), offset);
      code[k] = _mm256_cvttps_epi32(_mm256_fmadd_ps(_mm256_cvtepi32_ps(r), _mm256_set1_ps(0x1p-16f), place));
      if constexpr (!Signed)
        share[k] = a;
    }
    // Packing saturates. This limits codes to the last one, and keeps the shares' signs and whether they are zero.
    const __m256i low = _mm256_packs_epi32(code[0], code[1]), high = _mm256_packs_epi32(code[2], code[3]);
    const __m256i share_l = _mm256_packs_epi32(share[0], share[1]), share_h = _mm256_packs_epi32(share[2], share[3]);
    __m256i packed;
    if constexpr (Signed)
      packed = _mm256_or_si256(_mm256_packs_epi16(low, high),
                               _mm256_and_si256(_mm256_packs_epi16(share_l, share_h), all(0x80808080)));
    else
      packed = _mm256_max_epu8(_mm256_packus_epi16(low, high),
                               _mm256_min_epu8(_mm256_packus_epi16(share_l, share_h), all(0x01010101)));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_permutevar8x32_epi32(packed, order));
  }
  static __m256i all(std::uint32_t s) noexcept { return _mm256_set1_epi32(int(s)); }
};
#endif

/// block8.hpp's `encode` in such registers.
template <class Registers, bool Signed>
void encode_in_registers(const float* from, std::uint8_t* codes, float* scales, std::size_t n,
                         noise_words random) noexcept
{
  constexpr std::size_t row = 64;
  // All scales first, because each waits for a long chain of operations, and the chains of several blocks overlap.
  for (std::size_t begin = 0; begin < n; begin += block8::block) {
    const std::size_t length = n - begin < block8::block ? n - begin : block8::block, whole = length / row * row;
    std::uint32_t most = Registers::largest(from + begin, whole);
    for (std::size_t i = begin + whole; i < begin + length; ++i) {
      const std::uint32_t a = __builtin_bit_cast(std::uint32_t, from[i]) & 0x7fffffffu;
      most = a > most ? a : most;
    }
    scales[begin / block8::block] = scale_of_block(most);
  }
  for (std::size_t begin = 0; begin < n; begin += block8::block) {
    const std::size_t length = n - begin < block8::block ? n - begin : block8::block, whole = length / row * row;
    const float scale = scales[begin / block8::block];
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, scale);
    if (bits == 0 || bits >= 0x7f800000u) {
      std::memset(codes + begin, bits == 0 ? 0 : int(dynamic_map<Signed>::last), length);
      continue;
    }
    for (std::size_t i = begin; i < begin + whole; i += row)
      Registers::template encode<Signed>(from + i, codes + i, scale, random.from(i));
    if (const std::size_t rest = length - whole; rest > 0) {
      float x[row] = {};
      std::uint32_t words[row] = {};
      std::uint8_t c[row];
      std::memcpy(x, from + begin + whole, rest * sizeof(float));
      std::memcpy(words, random.words + begin + whole, rest * sizeof(std::uint32_t));
      Registers::template encode<Signed>(x, c, scale, {words, random.shift});
      std::memcpy(codes + begin + whole, c, rest);
    }
  }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
