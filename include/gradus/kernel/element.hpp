#pragma once
/// \file
/// The value type that a rule's formula sees for single elements.

#include <gradus/kernel/pow.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A float or double as a type of gradus, so that unqualified `fma` in a rule outside namespace gradus finds gradus's.
/// With plain float it would find the C library's fma, which computes in double and is fused on every target.
template <real T>
struct number {
  T x;

  number() = default;
  GRADUS_HOST_DEVICE constexpr explicit number(T a) noexcept : x(a) {}

  friend GRADUS_HOST_DEVICE number operator+(number a, number b) noexcept { return number(a.x + b.x); }
  friend GRADUS_HOST_DEVICE number operator-(number a, number b) noexcept { return number(a.x - b.x); }
  friend GRADUS_HOST_DEVICE number operator*(number a, number b) noexcept { return number(a.x * b.x); }
  friend GRADUS_HOST_DEVICE number operator/(number a, number b) noexcept { return number(a.x / b.x); }
  friend GRADUS_HOST_DEVICE number operator-(number a) noexcept { return number(-a.x); }
  friend GRADUS_HOST_DEVICE bool operator>(number a, number b) noexcept { return a.x > b.x; }
  friend GRADUS_HOST_DEVICE bool operator<(number a, number b) noexcept { return a.x < b.x; }
  friend GRADUS_HOST_DEVICE bool operator==(number a, number b) noexcept { return a.x == b.x; }
  friend GRADUS_HOST_DEVICE number fma(number a, number b, number c) noexcept
  {
    return number(gradus::fma(a.x, b.x, c.x));
  }
  friend GRADUS_HOST_DEVICE number sqrt(number a) noexcept { return number(gradus::sqrt(a.x)); }
  friend GRADUS_HOST_DEVICE number abs(number a) noexcept { return number(gradus::abs(a.x)); }
  friend GRADUS_HOST_DEVICE number rounded(number a) noexcept { return number(gradus::rounded(a.x)); }
  friend GRADUS_HOST_DEVICE number sign(number a) noexcept { return number(gradus::sign(a.x)); }
  friend GRADUS_HOST_DEVICE number pow(number a, number b) noexcept { return number(gradus::pow(a.x, b.x)); }
  friend GRADUS_HOST_DEVICE number select(bool m, number a, number b) noexcept { return number(m ? a.x : b.x); }
};
template <real T>
GRADUS_HOST_DEVICE number<T>(max)(number<T> a, number<T> b) noexcept
{
  return number<T>(a.x > b.x ? a.x : b.x);
}
template <real T>
GRADUS_HOST_DEVICE number<T>(min)(number<T> a, number<T> b) noexcept
{
  return number<T>(a.x < b.x ? a.x : b.x);
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
