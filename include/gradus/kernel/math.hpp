#pragma once
/// \file
/// The vocabulary of the element formulas: `fma sqrt max min abs sign select` for float and double. pow.hpp has pow.
///
/// Every rule runs on any value type V with these functions, the four operators and comparisons, such as the SIMD
/// backend's pack. A product that feeds a sum is always written fma(a, b, c), because only some compilers contract a
/// bare `a*b + c`, and the bits would then depend on the compiler.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <gradus/config.hpp>
#include <gradus/kernel/exact_fma.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// float or double.
template <class T>
concept real = __is_same(T, float) || __is_same(T, double);

/// a*b + c for elements and their sums: rounded once if the target has a fused instruction, otherwise twice (see
/// GRADUS_FUSED). Scalars that are computed once a step use `fused`.
template <real T>
GRADUS_HOST_DEVICE inline T fma(T a, T b, T c) noexcept
{
#if GRADUS_FUSED && defined(__MINGW32__)
  // The instruction, also without optimization; std::fma would then be the C library's, which rounds twice.
  if constexpr (sizeof(T) == sizeof(float))
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
#elif GRADUS_FUSED
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// a*b + c rounded once on every target, for scalars that are computed once a step. Coefficients then do not depend on
/// the target, and a program of one family of bits can pass them to a backend of the other.
template <real T>
GRADUS_HOST_DEVICE inline T fused(T a, T b, T c) noexcept
{
#if GRADUS_FUSED
  return fma(a, b, c);
#elif defined(__MINGW32__) || defined(__NEWLIB__)
  return detail::exact_fma(a, b, c);  // their std::fma rounds twice
#else
  return std::fma(a, b, c);
#endif
}

/// IEEE square root, rounded to nearest.
template <real T>
GRADUS_HOST_DEVICE inline T sqrt(T a) noexcept
{
  return std::sqrt(a);
}

// Declared in parentheses and called as max<>(a, b), because windows.h defines macros of these names. Calls in
// parentheses would not find the packs' functions by argument-dependent lookup.

/// a > b ? a : b. If either is NaN the result is b, so pass the operand that may be NaN as b to let it through.
template <real T>
GRADUS_HOST_DEVICE inline T(max)(T a, T b) noexcept
{
  return a > b ? a : b;
}

/// a < b ? a : b. If either is NaN the result is b.
template <real T>
GRADUS_HOST_DEVICE inline T(min)(T a, T b) noexcept
{
  return a < b ? a : b;
}

/// |a|.
template <real T>
GRADUS_HOST_DEVICE inline T abs(T a) noexcept
{
  return std::fabs(a);
}

/// a if the condition holds, else b.
template <real T>
GRADUS_HOST_DEVICE inline T select(bool condition, T a, T b) noexcept
{
  return condition ? a : b;
}

/// −1, 0 or 1; 0 for NaN. Do not pass `x - y*z`, because a compiler may fuse it; compare x with y*z instead.
template <real T>
GRADUS_HOST_DEVICE inline T sign(T a) noexcept
{
  return select(a > T(0), T(1), select(a < T(0), T(-1), T(0)));
}

namespace by_value {

// These declarations hide gradus's own functions, so that only argument-dependent lookup finds a value type's.
void fma();
void sqrt();
void abs();
void select();
void sign();
void max();
void min();
template <class V>
GRADUS_HOST_DEVICE inline auto call_fma(V a, V b, V c) noexcept -> decltype(fma(a, b, c))
{
  return fma(a, b, c);
}
template <class V>
GRADUS_HOST_DEVICE inline auto call_sqrt(V a) noexcept -> decltype(sqrt(a))
{
  return sqrt(a);
}
template <class V>
GRADUS_HOST_DEVICE inline auto call_abs(V a) noexcept -> decltype(abs(a))
{
  return abs(a);
}
template <class M, class V>
GRADUS_HOST_DEVICE inline auto call_select(M m, V a, V b) noexcept -> decltype(select(m, a, b))
{
  return select(m, a, b);
}
template <class V>
GRADUS_HOST_DEVICE inline auto call_sign(V a) noexcept -> decltype(sign(a))
{
  return sign(a);
}
template <class V>
GRADUS_HOST_DEVICE inline auto call_max(V a, V b) noexcept -> decltype(max<>(a, b))
{
  return max<>(a, b);
}
template <class V>
GRADUS_HOST_DEVICE inline auto call_min(V a, V b) noexcept -> decltype(min<>(a, b))
{
  return min<>(a, b);
}

}  // namespace by_value

// The same functions for any other value type, so that a formula may write gradus::fma(a, b, c) for every V.

/// A value type other than float and double that brings its own fma, such as a SIMD pack.
template <class V>
concept value_type = !real<V> && requires(V a) { by_value::call_fma(a, a, a); };

/// a*b + c in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V fma(V a, V b, V c) noexcept
{
  return by_value::call_fma(a, b, c);
}
/// The square root in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V sqrt(V a) noexcept
{
  return by_value::call_sqrt(a);
}
/// a > b ? a : b in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V(max)(V a, V b) noexcept
{
  return by_value::call_max(a, b);
}
/// a < b ? a : b in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V(min)(V a, V b) noexcept
{
  return by_value::call_min(a, b);
}
/// |a| in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V abs(V a) noexcept
{
  return by_value::call_abs(a);
}
/// a in the lanes where the condition holds, else b.
template <class Mask, value_type V>
GRADUS_HOST_DEVICE inline V select(Mask condition, V a, V b) noexcept
{
  return by_value::call_select(condition, a, b);
}
/// −1, 0 or 1 in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V sign(V a) noexcept
{
  return by_value::call_sign(a);
}

/// The unsigned integer of T's size.
template <real T>
using bits_of = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// The number whose bits are f(bits of a). For a pack, f receives a vector of integers.
template <class F, real T>
GRADUS_HOST_DEVICE inline T map_bits(F f, T a) noexcept
{
  return __builtin_bit_cast(T, f(__builtin_bit_cast(bits_of<T>, a)));
}

/// Returns a, a number or a register of numbers, as it was rounded: under no flag does a compiler reassociate across
/// this call. Without such flags it is no code, and loops over numbers still vectorise.
template <class T>
GRADUS_HOST_DEVICE inline T rounded(T a) noexcept
{
#if GRADUS_ROUNDED_BY == GRADUS_BY_FENCE
  return __arithmetic_fence(a);
#elif GRADUS_ROUNDED_BY == GRADUS_BY_ASSEMBLY
#if defined(__AVX512F__)
  __asm__("" : "+v"(a));
#elif defined(__SSE2__)
  __asm__("" : "+x"(a));
#elif defined(__aarch64__)
  __asm__("" : "+w"(a));
#else
  __asm__("" : "+m"(a));
#endif
  return a;
#else
  return a;
#endif
}

/// a*b, rounded. No compiler fuses it with a later sum, but clang with -ffp-contract=fast.
template <class V>
GRADUS_HOST_DEVICE inline V product(V a, V b) noexcept
{
  return fma(a, b, -V(0));
}

/// Loads one V, with conversion from T.
template <real V, class T>
GRADUS_HOST_DEVICE inline V load(const T* p) noexcept
{
  return V(*p);
}
/// Loads V::size numbers.
template <class V, class T>
  requires(V::size > 0)
GRADUS_HOST_DEVICE inline V load(const T* p) noexcept
{
  return V::load(p);
}
/// Stores one V, with conversion to T.
template <real V, class T>
GRADUS_HOST_DEVICE inline void store(T* p, V x) noexcept
{
  *p = T(x);
}
/// Stores V::size numbers.
template <class V, class T>
  requires(V::size > 0)
GRADUS_HOST_DEVICE inline void store(T* p, V x) noexcept
{
  x.store(p);
}

/// Prefetches the cache line `bytes` after p into the cache of a level, 1 or 2. Harmless past the end of an array.
template <int Level = 1>
GRADUS_INLINE inline void prefetch([[maybe_unused]] const void* p, [[maybe_unused]] std::size_t bytes) noexcept
{
#if defined(__GNUC__)
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + bytes), 0, 4 - Level);
#endif
}

namespace detail {

/// The bits of x, hidden from the optimizer, because under -ffinite-math-only it assumes that x is finite.
template <real T>
GRADUS_HOST_DEVICE inline bits_of<T> unknown_bits(const T& x) noexcept
{
  bits_of<T> bits = __builtin_bit_cast(bits_of<T>, x);
#if defined(__GNUC__) && !defined(__CUDA_ARCH__)
  __asm__("" : "+r"(bits));
#endif
  return bits;
}

/// Infinity as a bound, hidden so that -ffinite-math-only cannot fold comparisons with it.
template <real T>
GRADUS_HOST_DEVICE inline T no_limit() noexcept
{
  const T largest = (std::numeric_limits<T>::max)();
  return __builtin_bit_cast(T, unknown_bits(largest) + 1);
}

}  // namespace detail

/// Whether x is neither infinite nor NaN. Tests the bits, because -ffast-math folds std::isfinite to true.
template <real T>
GRADUS_HOST_DEVICE inline bool is_finite(const T& x) noexcept
{
  constexpr bits_of<T> exponent = sizeof(T) == 4 ? bits_of<T>(0x7f800000u) : bits_of<T>(0x7ff0000000000000u);
  return (detail::unknown_bits(x) & exponent) != exponent;
}

/// Whether x is NaN; also tests the bits.
GRADUS_HOST_DEVICE inline bool is_nan(const double& x) noexcept
{
  return (detail::unknown_bits(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
