// Second moments: the running statistic v of squared gradients.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using namespace gradus;
using support::draw, support::walk;

}  // namespace

TEST_CASE_TEMPLATE("ema, ema_max, yogi: v is finite wherever (1 - beta2)g² is, and the weight moves on", T, float, double)
{
  // The square of the first overflows by itself, the last is near the end of what (1 − β₂)g² allows.
  constexpr bool single = sizeof(T) == 4;
  for (const double g : {single ? 2e19 : 2e154, single ? 5e20 : 4e155}) {
    const auto check = [&](const char* name, const auto& second) {
      CAPTURE(std::string(name));
      CAPTURE(g);
      using namespace gradus;
      walk x(compose(0.01, first_moment::none{}, second, step_size::adaptive{}, decay::none{}), std::vector<T>{T(1), T(1), T(1)});
      x.step({T(g), T(-g), T(1)});
      for (std::size_t i = 0; i < 2; ++i)
        for (const auto& slot : x.slots)
          CHECK(double(slot[i]) / g / g == doctest::Approx(0.001).epsilon(1e-5));
      CHECK(double(x.weights[0]) == doctest::Approx(0.99));
      CHECK(double(x.weights[1]) == doctest::Approx(1.01));
      const auto before = x.weights;
      x.step({T(g / 10), T(-g / 10), T(1)});
      CHECK(x.weights[0] < before[0]);
      CHECK(x.weights[1] > before[1]);
    };
    check("ema", second_moment::ema{});
    check("ema_max", second_moment::ema_max{});
    check("yogi", second_moment::yogi{});
  }
}

TEST_CASE_TEMPLATE("yogi: v never falls below zero", T, float, double)
{
  support::random r(14);
  for (const double beta2 : {0.0, 1e-9, 1e-7, 1e-3, 0.5}) {
    walk x(compose(0.01, first_moment::none{}, second_moment::yogi{.beta2 = beta2}, step_size::constant{}, decay::none{}),
           std::vector<T>(1000, T(0)));
    std::vector<T> g(1000);
    for (std::size_t i = 0; i < 1000; ++i) {
      g[i] = T(r.uniform(0.5, 1));
      x.slots[0][i] = std::nextafter(g[i] * g[i], T(i % 2));  // the last number below the square, or the first above
    }
    x.step(g);
    for (const T v : x.slots[0])
      REQUIRE(v >= 0);
  }
}
