#pragma once
/// \file
/// pow for every value type, as one formula over the vocabulary of math.hpp, with the same bits in every width and
/// backend.

#include <limits>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// c₀ + c₁x + c₂x² + …, by Horner's rule.
template <class T, class V>
GRADUS_HOST_DEVICE inline V polynomial(V, double c) noexcept
{
  return V(T(c));
}
template <class T, class V, class... C>
GRADUS_HOST_DEVICE inline V polynomial(V x, double c, C... more) noexcept
{
  return fma(x, polynomial<T>(x, more...), V(T(c)));
}

/// The layout of exponent and fraction in a T.
template <class T>
struct layout {
  using bits = bits_of<T>;
  static constexpr int digits = std::numeric_limits<T>::digits, fraction = digits - 1;
  static constexpr int bias = std::numeric_limits<T>::max_exponent - 1;
  static constexpr T two_to_fraction = T(bits(1) << fraction);
  static constexpr bits bits_of_one = bits(bias) << fraction;
  static constexpr bits bits_of_root_half = __builtin_bit_cast(bits, T(0.70710678118654752));

  static constexpr T nan = __builtin_bit_cast(T, (bits(2 * bias + 1) << fraction) | bits(1) << (fraction - 1));

  /// |a|/2 for a normal a, computed on the bits. Infinities and NaN give a number above half of the largest.
  template <class V>
  GRADUS_HOST_DEVICE static V halved(V a) noexcept
  {
    return map_bits([](auto i) { return (i & (~bits(0) >> 1)) - (bits(1) << fraction); }, a);
  }
  /// a with only the upper half of its digits; the product of two such numbers is exact.
  template <class V>
  GRADUS_HOST_DEVICE static V high(V a) noexcept
  {
    return map_bits([](auto i) { return i & (~bits(0) << (digits + 1) / 2); }, a);
  }
  /// 2ⁿ for an integer n that is the exponent of a normal number.
  template <class V>
  GRADUS_HOST_DEVICE static V two_to(V n) noexcept
  {
    return map_bits([](auto i) { return i << fraction; }, rounded(n + V(two_to_fraction + T(bias))));
  }
  /// For a normal a = 2ᵏ·m with √½ ≤ m < √2: `exponent` returns k + 2^fraction + bias, `significand` returns m.
  template <class V>
  GRADUS_HOST_DEVICE static V exponent(V a) noexcept
  {
    constexpr auto exponent_of = [](auto i) {
      return ((i + (bits_of_one - bits_of_root_half)) >> fraction) | (bits(bias + fraction) << fraction);
    };
    return map_bits(exponent_of, a);
  }
  template <class V>
  GRADUS_HOST_DEVICE static V significand(V a) noexcept
  {
    return map_bits([](auto i) { return i - ((i - bits_of_root_half) & (~bits(0) << fraction)); }, a);
  }
};

/// x^y for x ≥ 0, with all special cases of IEEE 754. NaN for x < 0 (unless y is 0); −0 counts as 0. The error is below
/// 1 ulp in float; in double below 1 ulp for |y·log₂x| ≤ 100 and below 3 elsewhere; under -ffast-math below 4 for
/// normal results.
///
/// x^y = 2^(y·log₂x) multiplies a relative error of the logarithm by |y·log₂x|, which is up to 2^7.3 in float and
/// 2^10.1 in double. The logarithm is therefore a pair: a high part with half of the digits, and a low part. Products
/// of high parts are exact, with a fused fma and without. The polynomials are minimax, from a Remez exchange in 60
/// digits.
template <class T, class V>
GRADUS_HOST_DEVICE inline V power(V x, V y) noexcept
{
  using limits = std::numeric_limits<T>;
  using part = layout<T>;
  constexpr bool single = limits::digits == 24;
  constexpr T bias = T(part::bias), digits = T(limits::digits), largest = (limits::max)();
  const V one(T(1)), zero(T(0));

  // x = 2ᵏ·m. For an x that is not positive or not finite, the result is replaced at the end.
  const auto subnormal = x < V((limits::min)());
  const V normal = select(subnormal, x * V(part::two_to_fraction), x), m = part::significand(normal);
  constexpr T excess = part::two_to_fraction + bias;
  const V k = rounded(part::exponent(normal) - select(subnormal, V(excess + (digits - 1)), V(excess)));

  // log₂x = k + log₂c + 2/ln 2·artanh(s) with s = (m − c)/(m + c). The centre c is 25/32, 1 or 5/4, so that |s| ≤
  // 0.0617. log₂c is in two parts, the first a multiple of 2^-14, so that k + log₂c is exact.
  const auto below = (m < V(T(0.8838834764831844))), above = (m > V(T(1.118033988749895)));
  const auto choose = [&](double low, double middle, double high) {
    return select(below, V(T(low)), select(above, V(T(high)), V(T(middle))));
  };
  const V c = choose(0.78125, 1, 1.25);
  const V whole = k + choose(-0x1.6cbp-2, 0, 0x1.49ap-2);
  const V whole_l = choose(-0x1.ed0cb91d406dbp-19, 0, 0x1.e12f346e2bf92p-16);
  const V difference = m - c, sum = m + c, sum_h = part::high(sum), sum_l = rounded(m - rounded(sum_h - c));
  const V inverse = one / sum, s_h = part::high(difference * inverse);
  const V s_l = product(fma(-s_h, sum_l, rounded(fma(-s_h, sum_h, difference))), inverse);
  const V s = s_h + s_l, square = product(s, s);
  // 2/ln 2·artanh(s) = 2/ln 2·s + s³P(s²), to a relative 2^-42 with P of degree 2, to 2^-73 with P of degree 5.
  V p;
  if constexpr (single)
    p = polynomial<T>(square, 0.9617966972256395, 0.5770727781853631, 0.41456091759194025);
  else
    p = polynomial<T>(square, 0.9617966939259756, 0.5770780163556108, 0.41219858306795415, 0.3205989315944627,
                      0.2622949616175968, 0.22451018183490004);
  constexpr T scale_h = T(0x1.716p+1), scale_l = T(-0x1.7135a8fa03d11p-12), scale = T(2.8853900817779268);  // 2/ln 2
  const V line = V(scale_h) * s_h;
  const V rest = fma(product(square, s), p, fma(V(scale), s_l, fma(V(scale_l), s_h, whole_l)));
  const V log_h = part::high(whole + (line + rest)), log_l = rest - rounded(rounded(log_h - whole) - line);

  // e = y·log₂x = n + r with an integer n and |r| ≤ 1/2. A |y| beyond the limit gives 0, 1 or infinity, as the limit
  // does.
  constexpr T limit = part::two_to_fraction * 8192;
  const V exponent = min<>(V(limit), max<>(V(-limit), y)), y_h = part::high(exponent), y_l = exponent - y_h;
  const V e_h = y_h * log_h, e_l = fma(exponent, log_l, product(y_l, log_h));
  V e = e_h + e_l;
  constexpr T shifter = T(1.5) * part::two_to_fraction;  // adding it rounds to a whole number
  const V n = rounded(rounded(e + V(shifter)) - V(shifter)), r = rounded(e_h - n) + e_l;

  // 2^r = 1 + r ln 2 + r²E(r), to a relative 2^-28.3 with E of degree 4, to 2^-57.9 with E of degree 9.
  V curve;
  if constexpr (single)
    curve = polynomial<T>(r, 0.24022647513543485, 0.05550361874511337, 0.00961852933401478, 0.0013390381870545581,
                          0.00015320853097254355);
  else
    curve = polynomial<T>(r, 0.24022650695910122, 0.055504108664820716, 0.009618129107596504, 0.0013333558146690241,
                          0.00015403530454761769, 1.5252733543742854e-05, 1.3215436225117758e-06,
                          1.0178185479039335e-07, 7.07365082550151e-09, 4.4362581618221994e-10);
  const V ln2(T(0.6931471805599453)), line_of_r = rounded(fma(r, ln2, one));
  const V two_to_r = line_of_r + fma(product(r, r), curve, fma(r, ln2, rounded(one - line_of_r)));

  // Two products, because 2ⁿ may not be a normal number. The first is exact, and only the second rounds.
  const V n_normal = max<>(V(1 - bias), n - one);
  V result = rounded(two_to_r * part::two_to(n - n_normal)) * part::two_to(n_normal);

  // log₂x is −∞ for 0 and ∞ for ∞; e is NaN if x or y is. Under -ffinite-math-only comparisons with an infinity are
  // undefined, so values above the largest number are detected one exponent lower, and infinity is computed.
  const auto special = part::halved(normal) > V(largest / 2);
  const V at_zero = select(y < zero, V(largest), select(y > zero, V(-largest), y));
  e = select(special, x * y, select(x > zero, e, at_zero));
  result = select(e < V(bias + 2), result, e * V(largest));
  result = select(e < V(-bias - digits - 1), zero, result);
  result = select(x < zero, V(part::nan), result);
  return select(x == one, one, select(y == zero, one, result));
}

}  // namespace detail

/// x^y for x ≥ 0, NaN for x < 0; error below 1 ulp in float, 3 ulp in double (details at detail::power).
template <real T>
GRADUS_HOST_DEVICE inline T pow(T x, T y) noexcept
{
  return detail::power<T>(x, y);
}
namespace by_value {
void pow();
template <class V>
GRADUS_HOST_DEVICE inline auto call_pow(V x, V y) noexcept -> decltype(pow(x, y))
{
  return pow(x, y);
}
}  // namespace by_value
/// x^y in each lane.
template <value_type V>
GRADUS_HOST_DEVICE inline V pow(V x, V y) noexcept
{
  return by_value::call_pow(x, y);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
