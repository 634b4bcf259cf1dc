#pragma once
/// \file
/// The value type of a device's kernels: 16 bytes of numbers.

#include <cstddef>

#include <gradus/kernel/math.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace backend {

/// One load or store of 16 bytes, as a GPU likes them: a value type of the formulas.
template <real T>
struct alignas(16) [[gnu::may_alias]] device_pack {
  static constexpr std::size_t size = 16 / sizeof(T);
  T x[size];

  struct mask {
    bool x[size];
  };

  device_pack() = default;
  GRADUS_HOST_DEVICE device_pack(T a) noexcept
  {
    for (std::size_t k = 0; k < size; ++k)
      x[k] = a;
  }
  GRADUS_HOST_DEVICE static device_pack load(const T* p) noexcept
  {
    return *reinterpret_cast<const device_pack*>(p);
  }
  GRADUS_HOST_DEVICE void store(T* p) const noexcept { *reinterpret_cast<device_pack*>(p) = *this; }

  /// Short numbers, of which there are as many in half the bytes.
  template <short_float S>
  struct alignas(size * sizeof(S)) [[gnu::may_alias]] short_pack {
    S x[size];
  };
  template <short_float S>
  GRADUS_HOST_DEVICE static device_pack load(const S* p) noexcept
  {
    const short_pack<S> s = *reinterpret_cast<const short_pack<S>*>(p);
    return make([&](std::size_t k) { return T(s.x[k]); });
  }
  template <short_float S>
  GRADUS_HOST_DEVICE void store(S* p) const noexcept
  {
    short_pack<S> s;
    for (std::size_t k = 0; k < size; ++k)
      s.x[k] = S(x[k]);
    *reinterpret_cast<short_pack<S>*>(p) = s;
  }
  template <short_float S>
  GRADUS_HOST_DEVICE void store(S* p, const detail::noise& random, std::size_t i) const noexcept
  {
    short_pack<S> s;
    for (std::size_t k = 0; k < size; ++k)
      s.x[k] = S(x[k], random(i + k));
    *reinterpret_cast<short_pack<S>*>(p) = s;
  }

  /// Of the elements that f(k) gives.
  template <class F>
  GRADUS_HOST_DEVICE static device_pack make(F f) noexcept
  {
    device_pack r;
    for (std::size_t k = 0; k < size; ++k)
      r.x[k] = f(k);
    return r;
  }
  template <class F>
  GRADUS_HOST_DEVICE static mask make_mask(F f) noexcept
  {
    mask r;
    for (std::size_t k = 0; k < size; ++k)
      r.x[k] = f(k);
    return r;
  }
  using pack = device_pack;
  friend GRADUS_HOST_DEVICE pack operator+(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] + b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator-(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] - b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator*(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] * b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator/(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] / b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator-(pack a) noexcept { return make([&](std::size_t k) { return -a.x[k]; }); }
  friend GRADUS_HOST_DEVICE mask operator>(pack a, pack b) noexcept { return make_mask([&](std::size_t k) { return a.x[k] > b.x[k]; }); }
  friend GRADUS_HOST_DEVICE mask operator<(pack a, pack b) noexcept { return make_mask([&](std::size_t k) { return a.x[k] < b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack fma(pack a, pack b, pack c) noexcept
  {
    return make([&](std::size_t k) { return gradus::fma(a.x[k], b.x[k], c.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack sqrt(pack a) noexcept { return make([&](std::size_t k) { return gradus::sqrt(a.x[k]); }); }
  friend GRADUS_HOST_DEVICE pack rounded(pack a) noexcept { return make([&](std::size_t k) { return gradus::rounded(a.x[k]); }); }
  friend GRADUS_HOST_DEVICE pack abs(pack a) noexcept { return make([&](std::size_t k) { return gradus::abs(a.x[k]); }); }
  friend GRADUS_HOST_DEVICE pack sign(pack a) noexcept { return make([&](std::size_t k) { return gradus::sign(a.x[k]); }); }
  friend GRADUS_HOST_DEVICE pack pow(pack a, pack b) noexcept
  {
    return make([&](std::size_t k) { return gradus::pow(a.x[k], b.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack select(mask m, pack a, pack b) noexcept
  {
    return make([&](std::size_t k) { return m.x[k] ? a.x[k] : b.x[k]; });
  }
};

template <class T>
GRADUS_HOST_DEVICE device_pack<T>(max)(device_pack<T> a, device_pack<T> b) noexcept
{
  return select(a > b, a, b);
}
template <class T>
GRADUS_HOST_DEVICE device_pack<T>(min)(device_pack<T> a, device_pack<T> b) noexcept
{
  return select(a < b, a, b);
}

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
