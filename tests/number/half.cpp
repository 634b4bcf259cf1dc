// The 16-bit numbers: every value of them, and how float is rounded to them.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::float16;

template <class S>
S from_bits(unsigned bits)
{
  S s;
  s.bits = std::uint16_t(bits);
  return s;
}

// The value of a short number by its definition: sign, exponent, fraction.
template <class S>
double value(unsigned bits)
{
  constexpr int fraction = std::is_same_v<S, float16> ? 10 : 7, bias = std::is_same_v<S, float16> ? 15 : 127;
  const int exponent = int(bits & 0x7fff) >> fraction, part = int(bits) & ((1 << fraction) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 2 * bias + 1)
    return part ? NAN : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp((1 << fraction) + part, exponent - bias - fraction)
                          : std::ldexp(part, 1 - bias - fraction));
}

}  // namespace

TEST_CASE_TEMPLATE("bfloat16, float16: every number is decoded to its value and encoded to itself", S, bfloat16,
                   float16)
{
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const S s = from_bits<S>(bits);
    const double expected = value<S>(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(float(s)));
      REQUIRE(std::isnan(float(S(float(s)))));
      REQUIRE(std::isnan(float(S(float(s), 0xffff))));
      REQUIRE_FALSE(gradus::is_finite(s));
      continue;
    }
    REQUIRE(double(float(s)) == expected);
    REQUIRE(S(float(s)).bits == bits);
    REQUIRE(S(float(s), 0).bits == bits);
    REQUIRE(S(float(s), 0xffff).bits == bits);
    REQUIRE(gradus::is_finite(s) == std::isfinite(expected));
  }
}

TEST_CASE_TEMPLATE("bfloat16, float16: rounding to nearest, ties to even", S, bfloat16, float16)
{
  const unsigned infinite = std::is_same_v<S, float16> ? 0x7c00 : 0x7f80;
  for (unsigned bits = 0; bits + 1 < infinite; ++bits) {
    const double low = value<S>(bits), high = value<S>(bits + 1);
    const float middle = float((low + high) / 2);
    REQUIRE(double(middle) == (low + high) / 2);
    REQUIRE(S(middle).bits == (bits % 2 ? bits + 1 : bits));
    REQUIRE(S(std::nextafterf(middle, 0)).bits == bits);
    REQUIRE(S(std::nextafterf(middle, HUGE_VALF)).bits == bits + 1);
    REQUIRE(S(-middle).bits == S(middle).bits + 0x8000u);
  }
  CHECK(S(HUGE_VALF).bits == infinite);
  CHECK(S(3.4e38f).bits == infinite);
  CHECK(S(3.4e38f, 0xffff).bits == infinite);
}

TEST_CASE_TEMPLATE("bfloat16, float16: stochastic rounding gives a neighbour, and on average the number itself", S,
                   bfloat16, float16)
{
  support::random r(1);
  for (const float x : {1.0001f, -0.3f, 1e-5f, 3e-6f, -6.1e-5f, 1000.7f, float(r.uniform())}) {
    double mean = 0;
    bool neighbours = true;
    // Every value of the random bits once: the mean is exact to the last of them.
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const S s(x, bits);
      neighbours = neighbours && std::abs(int(s.bits) - int(S(x).bits)) <= 1;
      mean += double(float(s)) / 0x10000;
    }
    CHECK(neighbours);
    const double step = double(std::fabs(float(from_bits<S>(S(x).bits + 1u)) - float(S(x))));
    CHECK(std::fabs(mean - double(x)) <= step * 0x1p-13);
  }
}
