// 8-bit codes with a scale for each block.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

namespace {

using gradus::detail::noise;

}  // namespace

TEST_CASE("8-bit codes: the largest is exact, the rest within the map's steps, and right on average")
{
  support::random r(3);
  std::vector<float> x(1000), y(1000);
  for (float& v : x)
    v = float(r.magnitude(1e-9, 1)) * (r.chance(0.5) ? 1.0f : -1.0f);
  x[100] = 0, x[600] = -3, x[999] = 2;
  std::vector<std::uint8_t> codes(1000);
  std::vector<float> scales(4);
  std::vector<double> mean(1000);
  // A decade below the largest by 10⁻ᵏ has 64/2ᵏ values, in steps of 9/64·2ᵏ of its lower end.
  const auto step = [&](std::size_t i) {
    const double scale = double(scales[i / 256]), share = double(std::fabs(x[i])) / scale;
    const double decade = share < 1e-7 ? 1e-7 : std::pow(10, std::floor(std::log10(share)));
    return (share < 1e-7 ? 1.2e-7 : decade * 9 / 64 * std::pow(2, -std::log10(decade) - 1) * 1.1) * scale;
  };
  constexpr int rounds = 2000;
  for (int k = 0; k < rounds; ++k) {
    gradus::encode<true>(x.data(), codes.data(), scales.data(), 1000, noise(std::uint64_t(k), 0, 0));
    gradus::decode<true>(codes.data(), scales.data(), y.data(), 1000);
    REQUIRE(y[600] == -3.0f);
    REQUIRE(y[999] == 2.0f);
    REQUIRE(y[100] == 0.0f);
    for (std::size_t i = 0; i < 1000; ++i) {
      mean[i] += double(y[i]) / rounds;
      REQUIRE(std::fabs(double(y[i] - x[i])) <= step(i));
    }
  }
  for (std::size_t i = 0; i < 1000; ++i)
    CHECK(std::fabs(mean[i] - double(x[i])) <= step(i) * 5 / 2 / std::sqrt(double(rounds)));
}

TEST_CASE("8-bit codes: nothing nonnegative becomes zero, NaN and infinity are kept, tiny blocks vanish")
{
  std::vector<float> x(512, 1e-20f), y(512);
  x[0] = 1, x[1] = 0;
  std::vector<std::uint8_t> codes(512);
  std::vector<float> scales(2);
  const auto round_trip = [&] {
    gradus::encode<false>(x.data(), codes.data(), scales.data(), 512, noise(1, 2, 0));
    gradus::decode<false>(codes.data(), scales.data(), y.data(), 512);
  };
  round_trip();
  CHECK(y[0] == 1.0f);
  CHECK(y[1] == 0.0f);
  CHECK(y[2] > 0.0f);
  CHECK(y[300] == 1e-20f);
  x[0] = HUGE_VALF;
  round_trip();
  CHECK(std::isinf(y[0]));
  CHECK(y[300] == 1e-20f);
  x[3] = NAN;
  round_trip();
  CHECK(std::isnan(y[3]));
  CHECK(std::isnan(y[0]));
  x.assign(512, 1e-39f);
  round_trip();
  CHECK(y[5] == 0.0f);
}
