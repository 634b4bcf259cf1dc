// a*b + c in integers, against the C library's std::fma where that is right.

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gradus/kernel/math.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

using gradus::detail::exact_fma;

namespace {

template <class T>
bool same(T a, T b)
{
  return support::bits(a) == support::bits(b) || (std::isnan(a) && std::isnan(b));
}

}  // namespace

TEST_CASE_TEMPLATE("exact_fma: values known by hand", T, float, double)
{
  constexpr T eps = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::denorm_min(),
              largest = (std::numeric_limits<T>::max)(), infinity = std::numeric_limits<T>::infinity();
  const T one = 1, half = T(0.5);
  CHECK(exact_fma(T(3), T(4), T(5)) == 17);
  // (1+ε)(1−ε) = 1 − ε²: the product alone rounds to 1.
  CHECK(exact_fma(one + eps, one - eps, -one) == -eps * eps);
  // 1 + ε/2 is a tie; anything more decides it, however small.
  CHECK(exact_fma(eps, half, one) == one);
  CHECK(exact_fma(eps + eps * eps, half, one) == one + eps);
  CHECK(exact_fma(eps, half, one + eps) == one + 2 * eps);
  CHECK(exact_fma(least, least, one + eps) == one + eps);
  CHECK(exact_fma(-least, least, one) == one);
  CHECK(exact_fma(largest, T(2), -largest) == largest);
  CHECK(exact_fma(largest, largest, -infinity) == -infinity);
  CHECK(exact_fma(largest, T(2), T(0)) == infinity);
  CHECK(exact_fma(least, half, T(0)) == 0);
  CHECK(exact_fma(least, half, least) == 2 * least);  // a tie
  CHECK(exact_fma(least, T(0.75), T(0)) == least);
  CHECK(std::signbit(exact_fma(-least, least, T(0))));
  CHECK_FALSE(std::signbit(exact_fma(one, one, -one)));
  CHECK(std::signbit(exact_fma(T(-0.0), one, T(-0.0))));
  CHECK(std::isnan(exact_fma(infinity, T(0), one)));
  CHECK(std::isnan(exact_fma(infinity, one, -infinity)));
}

#if !defined(__MINGW32__) && !defined(__NEWLIB__)
TEST_CASE_TEMPLATE("exact_fma: std::fma's bits", T, float, double)
{
  support::random r(7);
  const auto numbers = support::special_numbers<T>();
  for (const T a : numbers)
    for (const T b : numbers)
      for (const T c : numbers)
        REQUIRE(same(exact_fma(a, b, c), std::fma(a, b, c)));
  const auto near = [&](T x, int width) {
    using word = decltype(support::bits(x));
    return std::bit_cast<T>(word(support::bits(x) + word(r.below(std::size_t(width)))));
  };
  for (int i = 0; i < 300'000; ++i) {
    T a = r.any<T>(), b = r.any<T>(), c = r.any<T>();
    switch (i % 6) {
    case 0: break;
    case 1: a = T(r.uniform(-2, 2)), b = T(r.uniform(-2, 2)), c = T(r.uniform(-4, 4)); break;
    case 2: a = T(r.uniform(1, 2)), b = T(r.uniform(1, 2)), c = -near(T(a * b), 4); break;  // nearly cancels
    case 3: c = near(T(a * b), 4); break;                                                   // a tie, or nearly
    case 4:
      // At the border of the denormals and below.
      a = std::ldexp(T(r.uniform(1, 2)), std::numeric_limits<T>::min_exponent / 2 - int(r.below(16)));
      b = std::ldexp(T(r.uniform(1, 2)), std::numeric_limits<T>::min_exponent / 2 - int(r.below(16)));
      c = T(int(r.below(9)) - 4) * std::numeric_limits<T>::denorm_min();
      break;
    case 5:
      // Of any distance between the two terms.
      a = std::ldexp(T(1 + double(r.below(16)) / 8), int(r.below(20)) - 10);
      b = T(1) + std::numeric_limits<T>::epsilon() * T(r.below(4));
      c = std::ldexp(T(1) + std::numeric_limits<T>::epsilon() * T(r.below(4)), int(r.below(240)) - 120) *
          (r.chance(0.5) ? 1 : -1);
      break;
    }
    const T found = exact_fma(a, b, c), expected = std::fma(a, b, c);
    INFO(a, " ", b, " ", c);
    REQUIRE(same(found, expected));
  }
}
#endif

TEST_CASE("fused: rounds once on every target")
{
  CHECK(gradus::fused(1 + 0x1p-52, 1 - 0x1p-52, -1.0) == -0x1p-104);
  CHECK(gradus::fused(1 + 0x1p-23f, 1 - 0x1p-23f, -1.0f) == -0x1p-46f);
}
