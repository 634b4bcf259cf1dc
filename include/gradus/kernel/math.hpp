#pragma once
/// \file
/// The vocabulary of the element formulas: `fma sqrt max min abs sign select`, here for float and double; pow.hpp has
/// pow.
///
/// A value type V that offers these, the four operators and comparisons can run every rule; the SIMD backend's pack is
/// the other one. A product that feeds a sum is always written as fma(a, b, c): a bare `a*b + c` is contracted by some
/// compilers and not by others, and then the bits depend on who compiled.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

template <class T>
concept real = __is_same(T, float) || __is_same(T, double);

/// a*b + c: rounded once where the target has the instruction, twice where it has not (see GRADUS_FUSED). For elements and
/// their sums. What is computed once a step takes std::fma, which is fused everywhere: so a program of one family can hand
/// its coefficients to a backend of the other, and the step has that backend's bits.
template <real T>
GRADUS_HOST_DEVICE inline T fma(T a, T b, T c) noexcept
{
#if GRADUS_FUSED
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// IEEE square root, rounded to nearest.
template <real T>
GRADUS_HOST_DEVICE inline T sqrt(T a) noexcept
{
  return std::sqrt(a);
}

// Named in brackets here and called as max<>(a, b), lest a macro of that name (windows.h) takes them; bracketed calls would
// not find the packs' by their arguments.

/// a > b ? a : b. Of a NaN and a number it gives b, so write the operand that may be NaN second to let it through.
template <real T>
GRADUS_HOST_DEVICE inline T(max)(T a, T b) noexcept
{
  return a > b ? a : b;
}

/// a < b ? a : b, with the same rule for NaN as max.
template <real T>
GRADUS_HOST_DEVICE inline T(min)(T a, T b) noexcept
{
  return a < b ? a : b;
}

template <real T>
GRADUS_HOST_DEVICE inline T abs(T a) noexcept
{
  return std::fabs(a);
}

/// a where the condition holds, else b.
template <real T>
GRADUS_HOST_DEVICE inline T select(bool condition, T a, T b) noexcept
{
  return condition ? a : b;
}

/// −1, 0 or 1; 0 for NaN. Never hand it `x - y*z` (the compiler may fuse that): compare instead.
template <real T>
GRADUS_HOST_DEVICE inline T sign(T a) noexcept
{
  return select(a > T(0), T(1), select(a < T(0), T(-1), T(0)));
}

namespace by_value {

// Only those of a value type's own are found here, by its arguments.
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

// The same of any other value type, so that a formula may write gradus::fma(a, b, c) whatever V is.

template <class V>
concept value_type = !real<V> && requires(V a) { by_value::call_fma(a, a, a); };

template <value_type V>
GRADUS_HOST_DEVICE inline V fma(V a, V b, V c) noexcept
{
  return by_value::call_fma(a, b, c);
}
template <value_type V>
GRADUS_HOST_DEVICE inline V sqrt(V a) noexcept
{
  return by_value::call_sqrt(a);
}
template <value_type V>
GRADUS_HOST_DEVICE inline V(max)(V a, V b) noexcept
{
  return by_value::call_max(a, b);
}
template <value_type V>
GRADUS_HOST_DEVICE inline V(min)(V a, V b) noexcept
{
  return by_value::call_min(a, b);
}
template <value_type V>
GRADUS_HOST_DEVICE inline V abs(V a) noexcept
{
  return by_value::call_abs(a);
}
template <class Mask, value_type V>
GRADUS_HOST_DEVICE inline V select(Mask condition, V a, V b) noexcept
{
  return by_value::call_select(condition, a, b);
}
template <value_type V>
GRADUS_HOST_DEVICE inline V sign(V a) noexcept
{
  return by_value::call_sign(a);
}

/// The unsigned integer of T's size.
template <real T>
using bits_of = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// The number whose bits are f(bits of a); a pack hands f a vector of integers.
template <class F, real T>
GRADUS_HOST_DEVICE inline T map_bits(F f, T a) noexcept
{
  return __builtin_bit_cast(T, f(__builtin_bit_cast(bits_of<T>, a)));
}

/// a, a number or a register of them, as it was rounded: no flag lets a compiler take anything through it. Where nothing
/// else could, it is no code, and loops over numbers are still vectorised.
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

/// a*b as a value that no later sum can fuse with.
template <class V>
GRADUS_HOST_DEVICE inline V product(V a, V b) noexcept
{
  return fma(a, b, -V(0));
}

/// Loads one V from memory, and stores it: the only doors between a formula and what is stored.
template <real V, class T>
GRADUS_HOST_DEVICE inline V load(const T* p) noexcept
{
  return V(*p);
}
template <class V, class T>
  requires(V::size > 0)
GRADUS_HOST_DEVICE inline V load(const T* p) noexcept
{
  return V::load(p);
}
template <real V, class T>
GRADUS_HOST_DEVICE inline void store(T* p, V x) noexcept
{
  *p = T(x);
}
template <class V, class T>
  requires(V::size > 0)
GRADUS_HOST_DEVICE inline void store(T* p, V x) noexcept
{
  x.store(p);
}

/// Asks for the cache line so many bytes on, into the second-level cache. Past the end of memory it does nothing.
inline void prefetch([[maybe_unused]] const void* p, [[maybe_unused]] std::size_t bytes) noexcept
{
#if defined(__GNUC__)
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + bytes), 0, 2);
#endif
}

namespace detail {

/// The bits of x, of which a compiler knows nothing: with -ffinite-math-only it takes them for those of a finite number.
template <real T>
GRADUS_HOST_DEVICE inline bits_of<T> unknown_bits(const T& x) noexcept
{
  bits_of<T> bits = __builtin_bit_cast(bits_of<T>, x);
#if defined(__GNUC__) && !defined(__CUDA_ARCH__)
  __asm__("" : "+r"(bits));
#endif
  return bits;
}

/// Infinity as a bound, for a comparison that -ffinite-math-only must not decide when it compiles.
template <real T>
GRADUS_HOST_DEVICE inline T no_limit() noexcept
{
  const T largest = (std::numeric_limits<T>::max)();
  return __builtin_bit_cast(T, unknown_bits(largest) + 1);
}

}  // namespace detail

/// Whether x is neither infinite nor NaN, by its bits: -ffast-math folds std::isfinite to true.
template <real T>
GRADUS_HOST_DEVICE inline bool is_finite(const T& x) noexcept
{
  constexpr bits_of<T> exponent = sizeof(T) == 4 ? bits_of<T>(0x7f800000u) : bits_of<T>(0x7ff0000000000000u);
  return (detail::unknown_bits(x) & exponent) != exponent;
}

/// Whether x is NaN, by its bits likewise.
GRADUS_HOST_DEVICE inline bool is_nan(const double& x) noexcept
{
  return (detail::unknown_bits(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
