#pragma once
/// \file
/// The value type of device kernels: a pack of 16 bytes of numbers, with the functions that formulas use (math.hpp).

#include <cstddef>

#include <gradus/kernel/arrays.hpp>
#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace backend {

/// A value type for formulas: 4 floats or 2 doubles. A GPU loads and stores it with one access of 16 bytes.
template <real T>
struct alignas(16) [[gnu::may_alias]] device_pack {
  static constexpr std::size_t size = 16 / sizeof(T);  ///< the number of elements
  T x[size];                                           ///< the elements

  /// The result of a comparison.
  struct mask {
    bool x[size];  ///< one result for each element
  };

  /// Elements without a value.
  device_pack() = default;
  /// All elements equal to a.
  GRADUS_HOST_DEVICE device_pack(T a) noexcept
  {
    for (std::size_t k = 0; k < size; ++k)
      x[k] = a;
  }
  /// Loads elements from p, which is aligned to 16 bytes.
  GRADUS_HOST_DEVICE static device_pack load(const T* p) noexcept { return *reinterpret_cast<const device_pack*>(p); }
  /// Stores the elements at p, which is aligned to 16 bytes.
  GRADUS_HOST_DEVICE void store(T* p) const noexcept { *reinterpret_cast<device_pack*>(p) = *this; }

  /// As many 16-bit numbers, for one access of 8 bytes.
  template <class S>
  struct alignas(size * sizeof(S)) [[gnu::may_alias]] short_pack {
    S x[size];  ///< the elements
  };
  /// Loads 16-bit numbers from p, which is aligned to a short_pack.
  template <short_float S>
  GRADUS_HOST_DEVICE static device_pack load(const S* p) noexcept
  {
    const short_pack<S> s = *reinterpret_cast<const short_pack<S>*>(p);
    return make([&](std::size_t k) { return T(s.x[k]); });
  }
  /// Rounds the elements to nearest and stores them at p, which is aligned to a short_pack.
  template <short_float S>
  GRADUS_HOST_DEVICE void store(S* p) const noexcept
  {
    short_pack<S> s;
    for (std::size_t k = 0; k < size; ++k)
      s.x[k] = S(x[k]);
    *reinterpret_cast<short_pack<S>*>(p) = s;
  }
  /// Rounds the elements stochastically and stores them at p, which is aligned to a short_pack.
  /// \param i  the number of the first element among the random numbers
  template <short_float S>
  GRADUS_HOST_DEVICE void store(S* p, const detail::noise& random, std::size_t i) const noexcept
  {
    short_pack<S> s;
    for (std::size_t k = 0; k < size; ++k)
      s.x[k] = S(x[k], random(i + k));
    *reinterpret_cast<short_pack<S>*>(p) = s;
  }

  /// Loads master weights, the i-th and those after it, which are aligned to a short_pack.
  GRADUS_HOST_DEVICE static device_pack load(const completed& a, std::size_t i) noexcept
  {
    const auto p = *reinterpret_cast<const short_pack<bfloat16>*>(a.data + i);
    const auto r = *reinterpret_cast<const short_pack<remainder16>*>(a.rest + i);
    const std::uint32_t above = a.above_at<size>(i);
    return make([&](std::size_t k) { return T(completed_float(p.x[k], r.x[k], above >> k & 1u)); });
  }
  /// Stores master weights, which are aligned to a short_pack.
  GRADUS_HOST_DEVICE void store(const completed& a, std::size_t i) const noexcept
  {
    short_pack<bfloat16> p;
    short_pack<remainder16> r;
    std::uint32_t above = 0;
    for (std::size_t k = 0; k < size; ++k) {
      p.x[k] = bfloat16(x[k]);
      r.x[k] = remainder16(x[k]);
      above |= std::uint32_t(lies_above(x[k], p.x[k])) << k;
    }
    *reinterpret_cast<short_pack<bfloat16>*>(a.data + i) = p;
    *reinterpret_cast<short_pack<remainder16>*>(a.rest + i) = r;
    a.set_above<size>(i, above);
  }

  /// The pack whose element k is f(k).
  template <class F>
  GRADUS_HOST_DEVICE static device_pack make(F f) noexcept
  {
    device_pack r;
    for (std::size_t k = 0; k < size; ++k)
      r.x[k] = f(k);
    return r;
  }
  /// The mask whose element k is f(k).
  template <class F>
  GRADUS_HOST_DEVICE static mask make_mask(F f) noexcept
  {
    mask r;
    for (std::size_t k = 0; k < size; ++k)
      r.x[k] = f(k);
    return r;
  }
  using pack = device_pack;  ///< this type

  /// @{
  /// The operators and the functions of math.hpp, element by element.
  // clang-format off
  friend GRADUS_HOST_DEVICE pack operator+(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] + b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator-(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] - b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator*(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] * b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator/(pack a, pack b) noexcept { return make([&](std::size_t k) { return a.x[k] / b.x[k]; }); }
  friend GRADUS_HOST_DEVICE pack operator-(pack a) noexcept { return make([&](std::size_t k) { return -a.x[k]; }); }
  friend GRADUS_HOST_DEVICE mask operator>(pack a, pack b) noexcept { return make_mask([&](std::size_t k) { return a.x[k] > b.x[k]; }); }
  friend GRADUS_HOST_DEVICE mask operator<(pack a, pack b) noexcept { return make_mask([&](std::size_t k) { return a.x[k] < b.x[k]; }); }
  // clang-format on
  friend GRADUS_HOST_DEVICE pack fma(pack a, pack b, pack c) noexcept
  {
    return make([&](std::size_t k) { return gradus::fma(a.x[k], b.x[k], c.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack sqrt(pack a) noexcept
  {
    return make([&](std::size_t k) { return gradus::sqrt(a.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack rounded(pack a) noexcept
  {
    return make([&](std::size_t k) { return gradus::rounded(a.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack abs(pack a) noexcept
  {
    return make([&](std::size_t k) { return gradus::abs(a.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack sign(pack a) noexcept
  {
    return make([&](std::size_t k) { return gradus::sign(a.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack pow(pack a, pack b) noexcept
  {
    return make([&](std::size_t k) { return gradus::pow(a.x[k], b.x[k]); });
  }
  friend GRADUS_HOST_DEVICE pack select(mask m, pack a, pack b) noexcept
  {
    return make([&](std::size_t k) { return m.x[k] ? a.x[k] : b.x[k]; });
  }
  /// @}
};

/// The larger of two elements, element by element; b's if either is NaN.
template <class T>
GRADUS_HOST_DEVICE device_pack<T>(max)(device_pack<T> a, device_pack<T> b) noexcept
{
  return select(a > b, a, b);
}
/// The smaller of two elements, element by element; b's if either is NaN.
template <class T>
GRADUS_HOST_DEVICE device_pack<T>(min)(device_pack<T> a, device_pack<T> b) noexcept
{
  return select(a < b, a, b);
}

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
