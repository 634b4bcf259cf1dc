#pragma once
/// \file
/// The value type of the SIMD backend: several numbers in one register of xsimd 8.1 or later.

#include <gradus/macros_off.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's AVX-512 headers use an undefined register and then warn about it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
// In loops that never run, over arrays shorter than a register.
#pragma GCC diagnostic ignored "-Warray-bounds"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <gradus/backend/simd/codes.hpp>
#include <gradus/kernel.hpp>

// xsimd does not support other targets, and has no doubles on 32-bit Arm; default.hpp then uses scalar.
#if !defined(XSIMD_NO_SUPPORTED_ARCHITECTURE) && !(XSIMD_WITH_NEON && !XSIMD_WITH_NEON64)
#define GRADUS_HAS_SIMD 1  ///< defined if the SIMD backend supports the target

GRADUS_OPEN_NAMESPACE
namespace backend {

/// Several T in one register, with the vocabulary of math.hpp.
/// \tparam T  float or double  \tparam Arch  xsimd's instruction set
template <class T, class Arch>
struct pack {
  using batch = xsimd::batch<T, Arch>;              ///< xsimd's register
  using mask = typename batch::batch_bool_type;     ///< the result of a comparison
  static constexpr std::size_t size = batch::size;  ///< lanes

  batch x;  ///< the register

  pack() = default;
  /// From xsimd's register.
  pack(batch b) noexcept : x(b) {}
  /// s in all lanes.
  explicit pack(T s) noexcept : x(s) {}

  /// Loads `size` numbers; p need not be aligned to the register.
  static pack load(const T* p) noexcept { return batch::load_unaligned(p); }

  /// Loads floats as doubles, for the sums.
  static pack load(const float* p) noexcept
    requires(std::is_same_v<T, double>)
  {
    // By intrinsic if there is one, because compilers emit three instructions for a conversion.
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64)
      return batch(_mm512_cvtps_pd(_mm256_loadu_ps(p)));
    else
#endif
#if defined(__AVX__)
        if constexpr (sizeof(batch) == 32)
      return batch(_mm256_cvtps_pd(_mm_loadu_ps(p)));
    else
#endif
    {
      T converted[size];
      for (std::size_t i = 0; i < size; ++i)
        converted[i] = T(p[i]);
      return load(converted);
    }
  }
  /// Stores `size` numbers.
  void store(T* p) const noexcept { x.store_unaligned(p); }

  // 16-bit numbers: by intrinsics that GCC and Clang would not select, otherwise lane by lane.
  /// Loads `size` bfloat16 as floats.
  static pack load(const bfloat16* p) noexcept
    requires(std::is_same_v<T, float>)
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64)
      return batch(_mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16)));
    else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32)
      return batch(_mm256_castsi256_ps(
          _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)));
    else
#endif
      return load_each(p);
  }
  /// Loads `size` float16 as floats.
  static pack load(const float16* p) noexcept
    requires(std::is_same_v<T, float>)
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64)
      return batch(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
    else
#endif
#if defined(__F16C__)
        if constexpr (sizeof(batch) == 32)
      return batch(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    else
#endif
      return load_each(p);
  }
  /// Decodes `size` 8-bit codes from the i-th on.
  static pack load(const coded& a, std::size_t i) noexcept
    requires(std::is_same_v<T, float>)
  {
    if constexpr (requires { detail::code_registers<sizeof(batch)>::size; })
      return batch(detail::code_registers<sizeof(batch)>::decode(a.data + i, a.scales[i / block8::block], *a.map));
    else {
      T s[size];
      for (std::size_t k = 0; k < size; ++k)
        s[k] = a[i + k];
      return load(s);
    }
  }
  /// Stores 16-bit numbers, rounded to nearest.
  template <short_float S>
  void store(S* p) const noexcept
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64 && std::is_same_v<S, bfloat16>) {
      store_high(p, rounded_to_bfloat16(_mm512_castps_si512(x)));
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32 && std::is_same_v<S, bfloat16>) {
      store_high(p, rounded_to_bfloat16(_mm256_castps_si256(x)));
    } else
#endif
      store_each(p, [](T s, std::size_t) { return S(s); });
  }
  /// Stores 16-bit numbers, rounded stochastically with the random bits of the elements from the i-th on.
  template <short_float S>
  void store(S* p, const detail::noise& random, std::size_t i) const noexcept
  {
    [[maybe_unused]] const std::uint32_t start = (random.first + std::uint32_t(i)) * detail::noise::weyl + random.a;
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64 && std::is_same_v<S, bfloat16>) {
      constexpr std::uint32_t w = detail::noise::weyl;
      const auto all = [](std::uint32_t s) { return _mm512_set1_epi32(int(s)); };
      const __m512i lanes = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                               all(w));
      __m512i r = _mm512_add_epi32(all(start), lanes);
      r = _mm512_xor_si512(_mm512_xor_si512(r, _mm512_srli_epi32(r, 15)), all(random.b));
      r = _mm512_mullo_epi32(r, all(detail::noise::multiplier));
      r = _mm512_xor_si512(r, _mm512_srli_epi32(r, 16));
      r = random.shift ? _mm512_srli_epi32(r, 16) : _mm512_and_si512(r, all(0xffff));
      const __m512i u = _mm512_castps_si512(x), exponent = all(0x7f800000);
      // Adds nothing to infinities and NaN. (A computed NaN is already quiet.)
      const __mmask16 finite = _mm512_cmpneq_epi32_mask(_mm512_and_si512(u, exponent), exponent);
      store_high(p, _mm512_mask_add_epi32(u, finite, u, r));
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32 && std::is_same_v<S, bfloat16>) {
      constexpr std::uint32_t w = detail::noise::weyl;
      const auto all = [](std::uint32_t s) { return _mm256_set1_epi32(int(s)); };
      const __m256i lanes = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), all(w));
      __m256i r = _mm256_add_epi32(all(start), lanes);
      r = _mm256_xor_si256(_mm256_xor_si256(r, _mm256_srli_epi32(r, 15)), all(random.b));
      r = _mm256_mullo_epi32(r, all(detail::noise::multiplier));
      r = _mm256_xor_si256(r, _mm256_srli_epi32(r, 16));
      r = random.shift ? _mm256_srli_epi32(r, 16) : _mm256_and_si256(r, all(0xffff));
      const __m256i u = _mm256_castps_si256(x), exponent = all(0x7f800000);
      const __m256i special = _mm256_cmpeq_epi32(_mm256_and_si256(u, exponent), exponent);
      store_high(p, _mm256_add_epi32(u, _mm256_andnot_si256(special, r)));
    } else
#endif
      store_each(p, [&](T s, std::size_t k) { return S(s, random(i + k)); });
  }
  /// Loads `size` master weights, the i-th and those after it, from bfloat16 and remainders.
  static pack load(const completed& a, std::size_t i) noexcept
    requires(std::is_same_v<T, float>)
  {
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
    if constexpr (sizeof(batch) == 64) {
      const auto halves = [](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
      const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves(a.data + i)), 16);
      __m512i rest = _mm512_cvtepi16_epi32(halves(a.rest + i));  // negative if the weight was rounded up
      if (const std::uint32_t above = a.above_at<size>(i)) [[unlikely]]
        rest = _mm512_mask_and_epi32(rest, __mmask16(above), rest, _mm512_set1_epi32(0xffff));
      return batch(_mm512_castsi512_ps(_mm512_add_epi32(upper, rest)));
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32) {
      const auto halves = [](const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); };
      const __m256i upper = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves(a.data + i)), 16);
      __m256i rest = _mm256_cvtepi16_epi32(halves(a.rest + i));
      if (const std::uint32_t above = a.above_at<size>(i)) [[unlikely]] {
        const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const __m256i is_above = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(above)), bit), bit);
        rest = _mm256_and_si256(rest, _mm256_or_si256(_mm256_set1_epi32(0xffff), _mm256_andnot_si256(is_above, rest)));
      }
      return batch(_mm256_castsi256_ps(_mm256_add_epi32(upper, rest)));
    } else
#endif
    {
      T s[size];
      for (std::size_t k = 0; k < size; ++k)
        s[k] = gradus::load<T>(a, i + k);
      return load(s);
    }
  }
  /// Stores `size` master weights as bfloat16 and remainders.
  void store(const completed& a, std::size_t i) const noexcept
  {
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
    if constexpr (sizeof(batch) == 64) {
      const __m512i u = _mm512_castps_si512(x), rounded = rounded_to_bfloat16(u);
      // As lies_above: bit 15 of u, shifted to bit 16, and not (u xor rounded).
      const __m512i above = _mm512_ternarylogic_epi32(_mm512_add_epi32(u, u), u, rounded, 0x90);
      a.set_above<size>(i, _mm512_test_epi32_mask(above, _mm512_set1_epi32(0x10000)));
      // The remainders to the lower half of a register, the parameters to the upper half.
      alignas(64) static constexpr std::uint16_t order[] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                            1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
      const __m512i both = _mm512_permutexvar_epi16(_mm512_load_si512(order),
                                                    _mm512_mask_blend_epi16(0x55555555u, rounded, u));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.rest + i), _mm512_castsi512_si256(both));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.data + i), _mm512_extracti64x4_epi64(both, 1));
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32) {
      const __m256i u = _mm256_castps_si256(x), rounded = rounded_to_bfloat16(u);
      // As lies_above: bit 15 of u, shifted to bit 16, and not (u xor rounded).
      const __m256i above = _mm256_andnot_si256(_mm256_xor_si256(u, rounded), _mm256_add_epi32(u, u));
      a.set_above<size>(i, unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32(above, 15)))));
      // The remainders to the lower half of a register, the parameters to the upper half.
      const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                             0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
      const __m256i both = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(_mm256_blend_epi16(u, rounded, 0xaa), order),
                                                    0xd8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(a.rest + i), _mm256_castsi256_si128(both));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(a.data + i), _mm256_extracti128_si256(both, 1));
    } else
#endif
    {
      T s[size];
      store(s);
      for (std::size_t k = 0; k < size; ++k)
        gradus::store(a, i + k, s[k]);
    }
  }
  /// Loads the first n ≤ size elements and accesses no others; the remaining lanes are `rest`.
  static pack load_part(const T* p, std::size_t n, T rest) noexcept
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64) {
      if constexpr (sizeof(T) == 4)
        return batch(_mm512_mask_loadu_ps(_mm512_set1_ps(rest), first(n), p));
      else
        return batch(_mm512_mask_loadu_pd(_mm512_set1_pd(rest), first(n), p));
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32) {
      if constexpr (sizeof(T) == 4)
        return batch(_mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(p, first(n)),
                                      _mm256_castsi256_ps(first(n))));
      else
        return batch(_mm256_blendv_pd(_mm256_set1_pd(rest), _mm256_maskload_pd(p, first(n)),
                                      _mm256_castsi256_pd(first(n))));
    } else
#endif
    {
      T padded[size];
      for (T& e : padded)
        e = rest;
      std::memcpy(padded, p, n * sizeof(T));
      return load(padded);
    }
  }
  /// Loads the first n ≤ size floats as doubles.
  static pack load_part(const float* p, std::size_t n, float rest) noexcept
    requires(std::is_same_v<T, double>)
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64)
      return batch(_mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_mask_loadu_ps(_mm512_set1_ps(rest),
                                                                               __mmask16(first(n)), p))));
    else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32) {
      const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32(int(n)), _mm_setr_epi32(0, 1, 2, 3));
      return batch(_mm256_cvtps_pd(_mm_blendv_ps(_mm_set1_ps(rest), _mm_maskload_ps(p, mask), _mm_castsi128_ps(mask))));
    } else
#endif
    {
      float padded[size];
      for (float& e : padded)
        e = rest;
      std::memcpy(padded, p, n * sizeof(float));
      return load(padded);
    }
  }
  /// Stores the first n ≤ size lanes and accesses no other elements.
  void store_part(T* p, std::size_t n) const noexcept
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64) {
      if constexpr (sizeof(T) == 4)
        _mm512_mask_storeu_ps(p, first(n), x);
      else
        _mm512_mask_storeu_pd(p, first(n), x);
    } else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32) {
      if constexpr (sizeof(T) == 4)
        _mm256_maskstore_ps(p, first(n), x);
      else
        _mm256_maskstore_pd(p, first(n), x);
    } else
#endif
    {
      T padded[size];
      store(padded);
      std::memcpy(p, padded, n * sizeof(T));
    }
  }

  /// @{
  /// The operators and the functions of math.hpp, lane by lane.
  friend pack operator+(pack a, pack b) noexcept { return a.x + b.x; }
  friend pack operator-(pack a, pack b) noexcept { return a.x - b.x; }
  friend pack operator*(pack a, pack b) noexcept { return a.x * b.x; }
  // On Arm, xsimd's division and square root of floats are corrected estimates, not rounded as IEEE requires.
  friend pack operator/(pack a, pack b) noexcept
  {
#if defined(__aarch64__)
    if constexpr (sizeof(T) == 4 && sizeof(batch) == 16)
      return batch(vdivq_f32(a.x, b.x));
    else
#endif
      return a.x / b.x;
  }
  // xsimd's negation for AVX-512 is 0 − a, which gives the wrong sign of zero.
#if defined(__GNUC__)
  friend pack operator-(pack a) noexcept { return batch(-static_cast<typename batch::register_type>(a.x)); }
#else
  friend pack operator-(pack a) noexcept { return a.x * batch(T(-1)); }
#endif
  friend mask operator>(pack a, pack b) noexcept { return a.x > b.x; }
  friend mask operator<(pack a, pack b) noexcept { return a.x < b.x; }
  friend mask operator==(pack a, pack b) noexcept { return a.x == b.x; }

  /// a*b + c, fused if GRADUS_FUSED. xsimd 8.1 has no fused instruction for AVX-512, nor for the narrower registers
  /// there.
  friend pack fma(pack a, pack b, pack c) noexcept
  {
    [[maybe_unused]] constexpr bool single = sizeof(T) == 4;
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64) {
      if constexpr (single)
        return batch(_mm512_fmadd_ps(a.x, b.x, c.x));
      else
        return batch(_mm512_fmadd_pd(a.x, b.x, c.x));
    } else
#endif
#if defined(__FMA__)
        if constexpr (sizeof(batch) == 32) {
      if constexpr (single)
        return batch(_mm256_fmadd_ps(a.x, b.x, c.x));
      else
        return batch(_mm256_fmadd_pd(a.x, b.x, c.x));
    } else if constexpr (sizeof(batch) == 16) {
      if constexpr (single)
        return batch(_mm_fmadd_ps(a.x, b.x, c.x));
      else
        return batch(_mm_fmadd_pd(a.x, b.x, c.x));
    } else
#elif defined(__aarch64__)
    if constexpr (sizeof(batch) == 16) {
      if constexpr (single)
        return batch(vfmaq_f32(c.x, a.x, b.x));
      else
        return batch(vfmaq_f64(c.x, a.x, b.x));
    } else
#endif
#if GRADUS_FUSED
      return each([](T s, T t, T u) { return gradus::fma(s, t, u); }, a, b, c);
#else
      return a.x * b.x + c.x;
#endif
  }
  friend pack sqrt(pack a) noexcept
  {
#if defined(__aarch64__)
    if constexpr (sizeof(T) == 4 && sizeof(batch) == 16)
      return batch(vsqrtq_f32(a.x));
    else
#endif
      return xsimd::sqrt(a.x);
  }
  friend pack abs(pack a) noexcept { return xsimd::abs(a.x); }
  friend pack select(mask m, pack a, pack b) noexcept { return xsimd::select(m, a.x, b.x); }
  friend pack sign(pack a) noexcept
  {
    return select(a > pack(T(0)), pack(T(1)), select(a < pack(T(0)), pack(T(-1)), pack(T(0))));
  }
  friend pack pow(pack a, pack b) noexcept { return gradus::detail::power<T>(a, b); }
  template <class F>
  friend pack map_bits(F f, pack a) noexcept
  {
#if defined(__GNUC__)
    using registers = typename batch::register_type;
    using integers [[gnu::vector_size(sizeof(registers))]] = bits_of<T>;
    return batch(__builtin_bit_cast(registers, f(__builtin_bit_cast(integers, static_cast<registers>(a.x)))));
#else
    return each([f](T s, T, T) { return gradus::map_bits(f, s); }, a, a, a);
#endif
  }
  /// The sum of the lanes, folded by halves, as reduce.hpp's `fold` does.
  friend double folded(pack a) noexcept
    requires(std::is_same_v<T, double>)
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64) {
      const __m256d half = _mm256_add_pd(_mm512_castpd512_pd256(a.x), _mm512_maskz_extractf64x4_pd(0xff, a.x, 1));
      const __m128d quarter = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
      return _mm_cvtsd_f64(_mm_add_sd(quarter, _mm_unpackhi_pd(quarter, quarter)));
    } else
#endif
    {
      T lane[size];
      a.store(lane);
      return fold(lane);
    }
  }
  friend pack rounded(pack a) noexcept
  {
    return batch(gradus::rounded(static_cast<typename batch::register_type>(a.x)));
  }
  /// @}

 private:
  // Stores the upper half of each lane.
#if defined(__AVX512F__)
  static void store_high(bfloat16* p, __m512i u) noexcept
  {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)));
  }
  // Rounds to nearest; the result is the upper half of each lane.
  static __m512i rounded_to_bfloat16(__m512i u) noexcept
  {
    const auto all = [](std::uint32_t s) { return _mm512_set1_epi32(int(s)); };
    const __mmask16 odd = _mm512_test_epi32_mask(u, all(0x10000));
#if defined(__AVX512DQ__)
    const __mmask16 nan = _mm512_fpclass_ps_mask(_mm512_castsi512_ps(u), 0x81);
#else
    const __mmask16 nan = _mm512_cmpgt_epu32_mask(_mm512_and_si512(u, all(0x7fffffff)), all(0x7f800000));
#endif
    __m512i rounded = _mm512_add_epi32(u, all(0x7fff));
    rounded = _mm512_mask_add_epi32(rounded, odd, rounded, all(1));
    return _mm512_mask_or_epi32(rounded, nan, u, all(0x400000));
  }
#endif
#if defined(__AVX2__)
  static void store_high(bfloat16* p, __m256i u) noexcept
  {
    const __m256i halves = _mm256_srli_epi32(u, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static __m256i rounded_to_bfloat16(__m256i u) noexcept
  {
    const auto all = [](std::uint32_t s) { return _mm256_set1_epi32(int(s)); };
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), all(1));
    const __m256i nan = _mm256_cmpgt_epi32(_mm256_and_si256(u, all(0x7fffffff)), all(0x7f800000));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, all(0x7fff)), odd);
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(u, all(0x400000)), nan);
  }
#endif
  template <class S>
  static pack load_each(const S* p) noexcept
  {
    T s[size];
    for (std::size_t k = 0; k < size; ++k)
      s[k] = T(p[k]);
    return load(s);
  }
  template <class S, class F>
  void store_each(S* p, F f) const noexcept
  {
    T s[size];
    S short_ones[size];
    store(s);
    for (std::size_t k = 0; k < size; ++k)
      short_ones[k] = f(s[k], k);
    std::memcpy(p, short_ones, sizeof short_ones);
  }
  /// The mask of the first n elements, in the form that the intrinsics take.
  static auto first(std::size_t n) noexcept
  {
#if defined(__AVX512F__)
    if constexpr (sizeof(batch) == 64)
      return std::conditional_t < sizeof(T) == 4, __mmask16, __mmask8 > ((1u << n) - 1);
    else
#endif
#if defined(__AVX2__)
        if constexpr (sizeof(batch) == 32 && sizeof(T) == 4)
      return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    else if constexpr (sizeof(batch) == 32)
      return _mm256_cmpgt_epi64(_mm256_set1_epi64x(int(n)), _mm256_setr_epi64x(0, 1, 2, 3));
    else
#endif
      return n;
  }
  template <class F>
  static pack each(F f, pack a, pack b, pack c) noexcept
  {
    T s[size], t[size], u[size];
    a.store(s), b.store(t), c.store(u);
    for (std::size_t i = 0; i < size; ++i)
      s[i] = f(s[i], t[i], u[i]);
    return load(s);
  }
};

// By select, because xsimd's max and min treat NaN differently on NEON and x86.
/// a > b ? a : b in each lane.
template <class T, class Arch>
pack<T, Arch>(max)(pack<T, Arch> a, pack<T, Arch> b) noexcept
{
  return select(a > b, a, b);
}
/// a < b ? a : b in each lane.
template <class T, class Arch>
pack<T, Arch>(min)(pack<T, Arch> a, pack<T, Arch> b) noexcept
{
  return select(a < b, a, b);
}

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#endif

#include <gradus/macros_on.hpp>
