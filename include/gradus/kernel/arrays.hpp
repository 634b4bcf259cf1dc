#pragma once
/// \file
/// What a kernel reads and writes: plain arrays, and arrays of 16-bit numbers.

#include <cstddef>
#include <type_traits>

#include <gradus/kernel/math.hpp>
#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

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

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
