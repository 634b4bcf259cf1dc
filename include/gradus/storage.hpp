#pragma once
/// \file
/// How numbers are stored in fewer bytes than they are computed in: bfloat16, float16, and blocks of 8-bit codes; and how
/// they are rounded.
///
/// A moment moves by a small part of itself in a step: (1−β₂) = 1/1000 of it, where bfloat16 has three decimal digits. Rounded
/// to nearest, such moves are lost and the moment stands still. So what is kept between steps in fewer bits is rounded
/// stochastically: up with the probability that makes the expected value exact. The random bits are a hash of seed,
/// tensor, step, array and element, and no generator's state: the same for any thread count and SIMD width.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/math.hpp>

#include <gradus/macros_off.hpp>

namespace gradus::inline GRADUS_ISA {

// ── random bits ──────────────────────────────────────────────────────────────────────────────────────────────────────

namespace detail {

/// The finalizer of splitmix64 (Steele, Lea and Flood 2014).
GRADUS_HOST_DEVICE constexpr std::uint64_t mix(std::uint64_t x) noexcept
{
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// FNV-1a of a name.
constexpr std::uint64_t hash(std::string_view name) noexcept
{
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name)
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// What noise is keyed by. \p steps  the tensor's, before this one
GRADUS_HOST_DEVICE constexpr std::uint64_t noise_key(std::uint64_t name_hash, std::uint64_t seed, std::uint64_t steps) noexcept
{
  return mix(name_hash + mix(mix(seed) + steps));
}

/// Sixteen random bits for each element of one array in one step, in 32-bit arithmetic alone, which every SIMD set has. Each
/// range of 2³² elements, from a multiple of that, has words a and b of its own: these are of the range that `begin` is in, and
/// a loop that leaves it needs others (for_noise_ranges).
struct noise {
  std::uint32_t a = 0, b = 0, first = 0, shift = 0;

  noise() = default;
  /// \param key  of the tensor and step  \param array  which of the tensor's arrays; two share the halves of a word
  /// \param begin  the array's element that index 0 stands for
  GRADUS_HOST_DEVICE noise(std::uint64_t key, std::size_t array, std::uint64_t begin) noexcept
      : first(std::uint32_t(begin)), shift(array % 2 ? 16 : 0)
  {
    const std::uint64_t h = mix(key + 0x9e3779b97f4a7c15u * (array / 2 + 1) + mix(begin >> 32));
    a = std::uint32_t(h);
    b = std::uint32_t(h >> 32);
  }
  GRADUS_HOST_DEVICE noise from(std::size_t i) const noexcept
  {
    noise moved = *this;
    moved.first += std::uint32_t(i);
    return moved;
  }
  static constexpr std::uint32_t weyl = 0x9e3779b1u, multiplier = 0x846ca68bu;  // the odd one next to 2³²/φ; Wellons's hash's
  GRADUS_HOST_DEVICE std::uint32_t operator()(std::size_t i) const noexcept
  {
    std::uint32_t x = (first + std::uint32_t(i)) * weyl + a;
    x = (x ^ (x >> 15) ^ b) * multiplier;
    x ^= x >> 16;
    return (x >> shift) & 0xffffu;
  }
};

/// Calls f(first, last) on the parts of [begin, end), elements of an array, that are each in one range of noise.
template <class F>
inline void for_noise_ranges(std::uint64_t begin, std::uint64_t end, const F& f) noexcept
{
  while (begin < end) {
    const std::uint64_t left = (std::uint64_t(1) << 32) - std::uint32_t(begin), next = end - begin < left ? end : begin + left;
    f(std::size_t(begin), std::size_t(next));
    begin = next;
  }
}

/// to[i] = f(from[i], i) for all n elements, by rows of fixed length in memory that nothing else can name: of such loops
/// compilers make SIMD code even at -O2, and the last row, padded, is computed as all others are.
template <class From, class To, class F>
inline void transform(const From* from, To* to, std::size_t n, const F f) noexcept
{
  constexpr std::size_t row = 64;
  From in[row];
  To out[row];
  std::size_t i = 0;
  for (; n - i >= row; i += row) {
    std::memcpy(in, from + i, sizeof in);
    for (std::size_t k = 0; k < row; ++k)
      out[k] = f(in[k], i + k);
    std::memcpy(to + i, out, sizeof out);
  }
  if (i == n)
    return;
  std::memset(in, 0, sizeof in);
  std::memcpy(in, from + i, (n - i) * sizeof(From));
  for (std::size_t k = 0; k < row; ++k)
    out[k] = f(in[k], i + k);
  std::memcpy(to + i, out, (n - i) * sizeof(To));
}

}  // namespace detail

// ── 16-bit numbers ───────────────────────────────────────────────────────────────────────────────────────────────────

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

// ── what a kernel reads and writes ───────────────────────────────────────────────────────────────────────────────────

/// Short numbers that are read.
template <short_float S>
struct readable {
  const S* data = nullptr;
  GRADUS_HOST_DEVICE readable from(std::size_t i) const noexcept { return {data + i}; }
};

/// Short numbers that are rounded stochastically when written, all of one range of noise.
template <short_float S>
struct stochastic {
  S* data = nullptr;
  detail::noise random = {};
  GRADUS_HOST_DEVICE stochastic from(std::size_t i) const noexcept { return {data + i, random.from(i)}; }
};

/// Master weights, and the short parameters that are written, rounded to nearest, whenever they are.
template <short_float S>
struct mirrored {
  float* master = nullptr;
  S* data = nullptr;
  GRADUS_HOST_DEVICE mirrored from(std::size_t i) const noexcept { return {master + i, data + i}; }
};

template <class T>
GRADUS_HOST_DEVICE T* from(T* p, std::size_t i) noexcept
{
  return p + i;
}
template <class A>
GRADUS_HOST_DEVICE auto from(const A& a, std::size_t i) noexcept -> decltype(a.from(i))
{
  return a.from(i);
}

/// The V::size elements from the i-th on (one, for a plain number).
template <class V, class A>
GRADUS_HOST_DEVICE V load(A a, std::size_t i) noexcept
{
  if constexpr (std::is_pointer_v<A>)
    return load<V>(a + i);
  else if constexpr (requires { a.master; })
    return load<V>(a.master + i);
  else
    return load<V>(a.data + i);
}
template <class V, class T>
GRADUS_HOST_DEVICE void store(T* p, std::size_t i, V x) noexcept
{
  store(p + i, x);
}
template <class V, short_float S>
GRADUS_HOST_DEVICE void store(const mirrored<S>& a, std::size_t i, V x) noexcept
{
  store(a.master + i, x);
  if constexpr (real<V>)
    a.data[i] = S(x);
  else
    x.store(a.data + i);
}
template <class V, short_float S>
GRADUS_HOST_DEVICE void store(const stochastic<S>& a, std::size_t i, V x) noexcept
{
  if constexpr (real<V>)
    a.data[i] = S(x, a.random(i));
  else
    x.store(a.data + i, a.random, i);
}

/// The first n of them, n ≤ V::size, in V; ones in the places of the others.
template <class V, class A>
V load_part(A a, std::size_t i, std::size_t n) noexcept
{
  if constexpr (std::is_pointer_v<A>)
    return V::load_part(a + i, n, 1);
  else {
    float part[V::size];
    for (std::size_t k = 0; k < V::size; ++k)
      part[k] = k < n ? load<float>(a, i + k) : 1;
    return V::load(part);
  }
}
template <class V, class A>
void store_part(const A& a, std::size_t i, V x, std::size_t n) noexcept
{
  if constexpr (std::is_pointer_v<A>)
    x.store_part(a + i, n);
  else {
    float part[V::size];
    x.store(part);
    for (std::size_t k = 0; k < n; ++k)
      store(a, i + k, part[k]);
  }
}

/// Asks for what lies so many bytes behind the i-th element.
template <class A>
void prefetch(const A& a, std::size_t i, std::size_t bytes) noexcept
{
  if constexpr (std::is_pointer_v<A>)
    prefetch(a + i, bytes);
  else
    prefetch(a.data + i, bytes);
  if constexpr (requires { a.master; })
    prefetch(a.master + i, bytes);
}

// ── 8-bit codes ──────────────────────────────────────────────────────────────────────────────────────────────────────

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

}  // namespace gradus::inline GRADUS_ISA

#include <gradus/macros_on.hpp>
