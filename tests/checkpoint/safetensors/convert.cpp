// Conversion between floating-point types, against the compiler's and the types' definitions.

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include <gradus/checkpoint/safetensors/convert.hpp>

#include "support/random.hpp"

TEST_CASE("convert: rounds to nearest, ties to even")
{
  using gradus::safetensors::convert;
  using gradus::safetensors::find_dtype;
  const auto *f64 = find_dtype("F64"), *f32 = find_dtype("F32"), *f16 = find_dtype("F16"), *bf16 = find_dtype("BF16");
  const auto converted = [](const auto* from, auto x, const auto* to, auto y) {
    convert(*from, reinterpret_cast<const unsigned char*>(&x), *to, reinterpret_cast<unsigned char*>(&y), 1);
    return y;
  };
  // The compiler's own conversion, for any number that there is and for those around float's denormals.
  support::random r(1);
  for (int i = 0; i < 100000; ++i) {
    double x = r.any<double>();
    if (i % 2)
      x = std::ldexp(r.uniform(-2, 2), -int(r.below(60)) - 100);
    if (i % 4 == 3)
      x = double(float(x)) * (1 + 0x1p-24);  // a tie, where it is not a denormal
    const float expected = float(x), found = converted(f64, x, f32, 0.0f);
    REQUIRE((std::isnan(x) ? std::isnan(found)
                           : std::bit_cast<std::uint32_t>(found) == std::bit_cast<std::uint32_t>(expected)));
    REQUIRE((std::isnan(expected) || std::bit_cast<std::uint64_t>(converted(f32, expected, f64, 0.0)) ==
                                         std::bit_cast<std::uint64_t>(double(expected))));
    // bfloat16: float's upper half, its lower half added to round it.
    const auto bits = std::bit_cast<std::uint32_t>(expected);
    const auto upper = std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    REQUIRE((std::isnan(expected) || converted(f32, expected, bf16, std::uint16_t{}) == upper));
  }
  // Every float16, there and back; and what it is, by its definition.
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto sixteen = std::uint16_t(bits);
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float x = converted(f16, sixteen, f32, 0.0f);
    if (exponent == 31 && fraction) {
      REQUIRE(std::isnan(x));
      continue;
    }
    const double magnitude = exponent == 31 ? INFINITY
                             : exponent     ? std::ldexp(1024 + fraction, int(exponent) - 25)
                                            : std::ldexp(fraction, -24);
    REQUIRE(double(x) == (bits & 0x8000 ? -magnitude : magnitude));
    REQUIRE(std::signbit(x) == (bits >= 0x8000));
    REQUIRE(converted(f32, x, f16, std::uint16_t{}) == sixteen);
    REQUIRE(converted(f64, double(x), f16, std::uint16_t{}) == sixteen);
    // Half-way to the next one, and a little to either side.
    if ((bits & 0x7fff) < 0x7bff) {
      const double next = double(converted(f16, std::uint16_t(bits + 1), f32, 0.0f)), middle = (double(x) + next) / 2;
      REQUIRE(converted(f64, middle, f16, std::uint16_t{}) == (bits % 2 ? bits + 1 : bits));
      REQUIRE(converted(f64, std::nextafter(middle, 0.0), f16, std::uint16_t{}) == bits);
      REQUIRE(converted(f64, std::nextafter(middle, middle * 2), f16, std::uint16_t{}) == bits + 1);
    }
  }
  CHECK(converted(f64, 65520.0, f16, std::uint16_t{}) == 0x7c00);
  CHECK(converted(f64, 65519.99, f16, std::uint16_t{}) == 0x7bff);
  CHECK(converted(f32, 1e-30f, f16, std::uint16_t{}) == 0);
}
