#pragma once
/// \file
/// The SIMD backend, over xsimd (8.1 or later): the formulas run on packs of `xsimd::batch`.

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 headers start results from an undefined register and then warn about it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <gradus/kernel.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// GCC takes a lambda's names in a template for shadows of globals that the user declares after this header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

namespace gradus::inline GRADUS_ISA {
namespace backend {

/// Several T in one register, with the vocabulary of math.hpp and nothing else. The instruction set is in the type.
template <class T, class Arch>
struct pack {
  using batch = xsimd::batch<T, Arch>;
  using mask = typename batch::batch_bool_type;
  static constexpr std::size_t size = batch::size;

  batch x;

  pack() = default;
  pack(batch b) noexcept : x(b) {}
  explicit pack(T s) noexcept : x(s) {}

  static pack load(const T* p) noexcept { return batch::load_unaligned(p); }

  /// Converts as it loads: float to double, for the sums.
  static pack load(const float* p) noexcept
    requires(std::is_same_v<T, double>)
  {
    // By the instruction itself where there is one: compilers make three of it.
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
  void store(T* p) const noexcept { x.store_unaligned(p); }

  friend pack operator+(pack a, pack b) noexcept { return a.x + b.x; }
  friend pack operator-(pack a, pack b) noexcept { return a.x - b.x; }
  friend pack operator*(pack a, pack b) noexcept { return a.x * b.x; }
  friend pack operator/(pack a, pack b) noexcept { return a.x / b.x; }
  // Not xsimd's, which for AVX-512 is 0 − a and gives the wrong zero.
#if defined(__GNUC__)
  friend pack operator-(pack a) noexcept { return batch(-static_cast<typename batch::register_type>(a.x)); }
#else
  friend pack operator-(pack a) noexcept { return a.x * batch(T(-1)); }
#endif
  friend mask operator>(pack a, pack b) noexcept { return a.x > b.x; }
  friend mask operator<(pack a, pack b) noexcept { return a.x < b.x; }

  /// One instruction wherever GRADUS_FUSED: xsimd 8.1 has none for AVX-512, nor for the narrower types of such a target.
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
  friend pack sqrt(pack a) noexcept { return xsimd::sqrt(a.x); }
  friend pack abs(pack a) noexcept { return xsimd::abs(a.x); }
  friend pack select(mask m, pack a, pack b) noexcept { return xsimd::select(m, a.x, b.x); }
  friend pack sign(pack a) noexcept { return select(a > pack(T(0)), pack(T(1)), select(a < pack(T(0)), pack(T(-1)), pack(T(0)))); }
  // xsimd's polynomial would differ from the scalar backend's pow.
  friend pack pow(pack a, pack b) noexcept
  {
    return each([](T s, T t, T) { return gradus::pow(s, t); }, a, b, b);
  }

 private:
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

// By selection, not by xsimd's max and min: those of NEON treat NaN in another way than those of x86.
template <class T, class Arch>
pack<T, Arch>(max)(pack<T, Arch> a, pack<T, Arch> b) noexcept
{
  return select(a > b, a, b);
}
template <class T, class Arch>
pack<T, Arch>(min)(pack<T, Arch> a, pack<T, Arch> b) noexcept
{
  return select(a < b, a, b);
}

/// The backend for one of xsimd's instruction sets; `simd` is that of the compiler's flags.
template <class Arch>
struct basic_simd {
  template <class Kernel, class T>
  void sweep(const Kernel kernel, T* theta, const T* g, T* const* slots, std::size_t n) const noexcept
  {
    using V = pack<T, Arch>;
    T* slot[Kernel::slots + 1];
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slot[k] = slots[k];
    std::size_t i = 0;
    for (; n - i >= V::size; i += V::size) {
      constexpr std::size_t ahead = 8192;  // bytes in each stream: measured 5 % faster from memory, no slower in caches
      prefetch(theta + i, ahead);
      prefetch(g + i, ahead);
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        prefetch(slot[k] + i, ahead);
      apply_at<V>(kernel, theta, g, slot, i);
    }
    if (i == n)
      return;
    // The tail runs in the same V, on copies padded with ones (zeros would divide 0 by 0 and raise flags).
    const std::size_t rest = n - i;
    T copy[Kernel::slots + 2][V::size];
    T* copied[Kernel::slots + 1];
    for (auto& row : copy)
      for (T& x : row)
        x = 1;
    std::memcpy(copy[Kernel::slots], theta + i, rest * sizeof(T));
    std::memcpy(copy[Kernel::slots + 1], g + i, rest * sizeof(T));
    for (std::size_t k = 0; k < Kernel::slots; ++k) {
      std::memcpy(copy[k], slot[k] + i, rest * sizeof(T));
      copied[k] = copy[k];
    }
    apply_at<V>(kernel, copy[Kernel::slots], copy[Kernel::slots + 1], copied, 0);
    if constexpr (Kernel::writes_slots)
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        std::memcpy(slot[k] + i, copy[k], rest * sizeof(T));
    if constexpr (Kernel::writes_parameters)
      std::memcpy(theta + i, copy[Kernel::slots], rest * sizeof(T));
  }

  /// Adds up to a block of elements to the partial sums, element i to partial[i % 32].
  template <class Term, class T>
  void accumulate(Term term, double (&partial)[reduce_lanes], const T* x, std::size_t n) const noexcept
  {
    using V = pack<double, Arch>;
    V sum[reduce_lanes / V::size];
    const auto add_row = [&](const T* row) {
      // A lone stream of reads leaves memory idle at each page's end, where the hardware stops to look ahead.
      for (std::size_t byte = 0; byte < reduce_lanes * sizeof(T); byte += 64)
        prefetch(row, reduce_block * sizeof(T) + byte);
      for (std::size_t k = 0; k < reduce_lanes / V::size; ++k)
        sum[k] = term(sum[k], V::load(row + k * V::size));
    };
    for (std::size_t k = 0; k < reduce_lanes / V::size; ++k)
      sum[k] = V::load(partial + k * V::size);
    std::size_t i = 0;
    for (; n - i >= reduce_lanes; i += reduce_lanes)
      add_row(x + i);
    if (i < n) {
      T row[reduce_lanes] = {};
      std::memcpy(row, x + i, (n - i) * sizeof(T));
      add_row(row);
    }
    for (std::size_t k = 0; k < reduce_lanes / V::size; ++k)
      sum[k].store(partial + k * V::size);
  }
};

#if !defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
#define GRADUS_HAS_SIMD 1
using simd = basic_simd<xsimd::default_arch>;
#endif

}  // namespace backend
}  // namespace gradus::inline GRADUS_ISA

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
