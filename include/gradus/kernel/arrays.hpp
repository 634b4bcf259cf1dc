#pragma once
/// \file
/// The arrays that a kernel reads and writes: plain ones, and ones of shorter numbers.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gradus/kernel/math.hpp>
#include <gradus/number/block8.hpp>
#include <gradus/number/half.hpp>

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

/// An array from element i on.
template <class T>
GRADUS_HOST_DEVICE T* from(T* p, std::size_t i) noexcept
{
  return p + i;
}
/// The same for `readable`, `stochastic` and `mirrored`.
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

/// Prefetches the memory that lies `bytes` after the i-th element.
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

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
