#pragma once
/// \file
/// The arrays that a kernel reads and writes: plain ones, and ones of shorter numbers.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gradus/kernel/math.hpp>
#include <gradus/number/block8.hpp>
#include <gradus/number/half.hpp>
#include <gradus/number/remainder.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// 16-bit numbers that are only read.
template <short_float S>
struct readable {
  const S* data = nullptr;  ///< the first element
  /// The array from element i on.
  GRADUS_HOST_DEVICE readable from(std::size_t i) const noexcept { return {data + i}; }
};

/// 16-bit numbers that are rounded stochastically when written; all lie in one range of noise (rounding.hpp).
template <short_float S>
struct stochastic {
  S* data = nullptr;          ///< the first element
  detail::noise random = {};  ///< the random bits of these elements
  /// The array from element i on.
  GRADUS_HOST_DEVICE stochastic from(std::size_t i) const noexcept { return {data + i, random.from(i)}; }
};

/// Master weights in float, and 16-bit parameters. A store writes both; the parameters are rounded to nearest.
template <short_float S>
struct mirrored {
  float* master = nullptr;  ///< read and written
  S* data = nullptr;        ///< only written
  /// The array from element i on.
  GRADUS_HOST_DEVICE mirrored from(std::size_t i) const noexcept { return {master + i, data + i}; }
};

/// 8-bit codes that are only read, from the start of a block on. What a kernel writes are floats, because codes follow
/// only when a block is complete.
struct coded {
  const std::uint8_t* data = nullptr;  ///< the codes
  const float* scales = nullptr;       ///< one for each block
  const code_values* map = nullptr;    ///< how they are decoded
  float* next = nullptr;               ///< only written

  /// Element i.
  float operator[](std::size_t i) const noexcept { return scales[i / block8::block] * map->value[data[i]]; }
};

namespace detail {

GRADUS_HOST_DEVICE inline std::uint8_t read_shared(const std::uint8_t& byte) noexcept
{
#if defined(__GNUC__) && !defined(__CUDA_ARCH__)
  return __atomic_load_n(&byte, __ATOMIC_RELAXED);
#else
  return byte;
#endif
}
/// Sets the bits `which` to those of `bits`, from bit number `at` on, all of one byte. Hardly ever writes, because these
/// bits are almost always 0.
GRADUS_HOST_DEVICE inline void change_shared(std::uint8_t* bytes, std::size_t at, std::uint32_t which,
                                             std::uint32_t bits) noexcept
{
#if defined(__CUDA_ARCH__)
  std::uint32_t* const word = reinterpret_cast<std::uint32_t*>(bytes) + at / 32;
  if (const std::uint32_t changed = (*word >> at % 32 ^ bits) & which)
    atomicXor(word, changed << at % 32);
#else
  std::uint8_t& byte = bytes[at / 8];
  if (const std::uint32_t changed = (std::uint32_t(read_shared(byte)) >> at % 8 ^ bits) & which)
#if defined(__GNUC__)
    __atomic_fetch_xor(&byte, std::uint8_t(changed << at % 8), __ATOMIC_RELAXED);
#else
    byte = std::uint8_t(byte ^ changed << at % 8);
#endif
#endif
}

}  // namespace detail

/// Master weights in float, each stored as a bfloat16 parameter, rounded to nearest, and the remainder that completes it.
struct completed {
  bfloat16* data = nullptr;       ///< read and written
  remainder16* rest = nullptr;    ///< read and written
  std::uint8_t* above = nullptr;  ///< one bit for each element (see `completed_float`), in words; read and written
  std::size_t first = 0;          ///< the number of the first element's bit
  /// The array from element i on.
  GRADUS_HOST_DEVICE completed from(std::size_t i) const noexcept { return {data + i, rest + i, above, first + i}; }

  /// The bits of N elements from the i-th on, the first of them lowest. N is 1, 2, 4, 8 or 16, and `first` + i a multiple
  /// of N.
  template <std::size_t N>
  GRADUS_HOST_DEVICE std::uint32_t above_at(std::size_t i) const noexcept
  {
    const std::uint8_t* const byte = above + (first + i) / 8;
    if constexpr (N == 16)
      return byte[0] | std::uint32_t(byte[1]) << 8;
    else if constexpr (N == 8)
      return *byte;
    else
      return std::uint32_t(detail::read_shared(*byte)) >> (first + i) % 8 & ((1u << N) - 1);
  }
  /// Sets these bits. Other threads may set other bits of the same byte.
  template <std::size_t N>
  GRADUS_HOST_DEVICE void set_above(std::size_t i, std::uint32_t bits) const noexcept
  {
    if constexpr (N < 8)
      detail::change_shared(above, first + i, (1u << N) - 1, bits);
    else {
      std::uint8_t* const byte = above + (first + i) / 8;
      byte[0] = std::uint8_t(bits);
      if constexpr (N == 16)
        byte[1] = std::uint8_t(bits >> 8);
    }
  }
};

/// An array from element i on.
template <class T>
GRADUS_HOST_DEVICE T* from(T* p, std::size_t i) noexcept
{
  return p + i;
}
/// The same for `readable`, `stochastic`, `mirrored` and `completed`.
template <class A>
GRADUS_HOST_DEVICE auto from(const A& a, std::size_t i) noexcept -> decltype(a.from(i))
{
  return a.from(i);
}

/// Loads the V::size elements from the i-th on (one for a plain number).
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
/// Decodes the V::size elements from the i-th on (one for a plain number); V::size divides the block length.
template <class V>
V load(const coded& a, std::size_t i) noexcept
{
  if constexpr (real<V>)
    return V(a[i]);
  else
    return V::load(a, i);
}
/// Loads master weights that are stored as parameters and remainders.
template <class V>
GRADUS_HOST_DEVICE V load(const completed& a, std::size_t i) noexcept
{
  if constexpr (real<V>)
    return completed_float(a.data[i], a.rest[i], a.above_at<1>(i) != 0);
  else
    return V::load(a, i);
}
/// Stores x in the V::size elements from the i-th on (one for a plain number).
template <class V, class T>
GRADUS_HOST_DEVICE void store(T* p, std::size_t i, V x) noexcept
{
  store(p + i, x);
}
/// Stores x in the master weights, and rounded to nearest in the parameters.
template <class V, short_float S>
GRADUS_HOST_DEVICE void store(const mirrored<S>& a, std::size_t i, V x) noexcept
{
  store(a.master + i, x);
  if constexpr (real<V>)
    a.data[i] = S(x);
  else
    x.store(a.data + i);
}
/// Stores x as parameters, rounded to nearest, and remainders.
template <class V>
GRADUS_HOST_DEVICE void store(const completed& a, std::size_t i, V x) noexcept
{
  if constexpr (real<V>) {
    a.data[i] = bfloat16(x);
    a.rest[i] = remainder16(x);
    a.set_above<1>(i, lies_above(x, a.data[i]));
  } else
    x.store(a, i);
}
/// Stores x, rounded stochastically.
template <class V, short_float S>
GRADUS_HOST_DEVICE void store(const stochastic<S>& a, std::size_t i, V x) noexcept
{
  if constexpr (real<V>)
    a.data[i] = S(x, a.random(i));
  else
    x.store(a.data + i, a.random, i);
}

/// Stores x as floats.
template <class V>
void store(const coded& a, std::size_t i, V x) noexcept
{
  store(a.next + i, x);
}

/// Loads only the first n ≤ V::size elements; the other lanes of the result are 1.
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
/// Stores only the first n ≤ V::size lanes.
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

/// Prefetches the memory that lies `bytes` after the i-th element. Inlined, because GCC takes a function that only
/// prefetches for one without effects, and drops its calls.
template <int Level, class A>
GRADUS_INLINE inline void prefetch(const A& a, std::size_t i, std::size_t bytes) noexcept
{
  if constexpr (std::is_pointer_v<A>)
    prefetch<Level>(a + i, bytes);
  else
    prefetch<Level>(a.data + i, bytes);
  if constexpr (requires { a.master; })
    prefetch<Level>(a.master + i, bytes);
  if constexpr (requires { a.rest; })
    prefetch<Level>(a.rest + i, bytes);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
