// Second moments: the running statistic v of squared gradients.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using namespace gradus;
using support::draw, support::walk;

// The largest difference of v in 50 steps from a loop in double. \param next next(v, largest, g) moves v and its
// maximum
template <class T, class Rule, class Loop>
double worst_difference(const Rule& rule, const Loop& next, double start = 0)
{
  constexpr std::size_t n = 37;
  support::random r(21);
  walk x(compose(0.01, first_moment::none{}, rule, step_size::constant{}, decay::none{}), std::vector<T>(n, T(1)));
  std::vector<double> v(n, start), largest(n, start);
  double worst = 0;
  for (int t = 1; t <= 50; ++t) {
    auto g = draw<T>(r, n);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == 0 || (t > 25 && i % 3 == 0))
        g[i] = 0;
      next(v[i], largest[i], double(g[i]));
    }
    x.step(g);
    for (std::size_t i = 0; i < n; ++i) {
      worst = std::fmax(worst, std::fabs(double(x.slots[0][i]) - v[i]));
      if constexpr (Rule::slots.size() > 1)
        worst = std::fmax(worst, std::fabs(double(x.slots[1][i]) - largest[i]));
    }
  }
  return worst;
}

template <class T>
constexpr double rounding = sizeof(T) == 4 ? 1e-6 : 1e-15;

}  // namespace

TEST_CASE_TEMPLATE("ema, ema_max: the equations, for beta2 from 0 to almost 1", T, float, double)
{
  for (const double beta2 : {0.0, 0.5, 0.9, 0.999, 1 - 0x1p-20}) {
    CAPTURE(beta2);
    const auto next = [&](double& v, double& largest, double g) {
      v = beta2 * v + (1 - beta2) * g * g;
      largest = std::fmax(largest, v);
    };
    CHECK(worst_difference<T>(second_moment::ema{beta2}, next) < rounding<T>);
    CHECK(worst_difference<T>(second_moment::ema_max{beta2}, next) < rounding<T>);
  }
}

TEST_CASE_TEMPLATE("ema_max_corrected: the maximum of the corrected average, for beta2 from 0 to almost 1", T, float,
                   double)
{
  for (const double beta2 : {0.0, 0.5, 0.9, 0.999, 1 - 0x1p-20}) {
    CAPTURE(beta2);
    int calls = 0;
    CHECK(worst_difference<T>(second_moment::ema_max_corrected{beta2}, [&](double& v, double& largest, double g) {
            const int t = calls++ / 37 + 1;  // 37 elements a step
            v = beta2 * v + (1 - beta2) * g * g;
            largest = std::fmax(largest, v / -std::expm1(t * std::log(beta2)));
          }) < rounding<T> * 10);
    CHECK(second_moment::ema_max_corrected{beta2}.correction(3) == 1);
  }
}

TEST_CASE_TEMPLATE("yogi: the equation, for beta2 from 0 to almost 1, and from every start", T, float, double)
{
  for (const double beta2 : {0.0, 0.5, 0.9, 0.999, 1 - 0x1p-20})
    for (const double start : {0.0, 1e-6, 0.5}) {
      CAPTURE(beta2);
      CAPTURE(start);
      CHECK(worst_difference<T>(
                second_moment::yogi{beta2, start},
                [&](double& v, double&, double g) {
                  const double sign = v > g * g ? 1 : v < g * g ? -1 : 0;
                  v -= (1 - beta2) * sign * g * g;
                },
                start) < rounding<T>);
    }
}

TEST_CASE_TEMPLATE("ema_from_first, sum, infinity_norm: the equations", T, float, double)
{
  for (const double beta2 : {0.0, 0.9, 0.9999}) {
    CAPTURE(beta2);
    int seen = 0;  // next is called once for each of 37 elements in each step
    CHECK(worst_difference<T>(second_moment::ema_from_first{beta2}, [&](double& v, double&, double g) {
            v = seen++ < 37 ? g * g : beta2 * v + (1 - beta2) * g * g;
          }) < rounding<T>);
    for (const double eps : {0.0, 1e-8, 0.25})
      CHECK(worst_difference<T>(second_moment::infinity_norm{beta2, eps}, [&](double& v, double&, double g) {
              v = std::fmax(beta2 * v, std::fabs(g) + eps);
            }) < 2 * rounding<T>);
  }
  for (const double start : {0.0, 0.5})
    CHECK(worst_difference<T>(
              second_moment::sum{start}, [](double& v, double&, double g) { v += g * g; }, start) < 50 * rounding<T>);
}

TEST_CASE_TEMPLATE("ema_about_mean: the average of g² minus the square of the average, or of g² alone", T, float,
                   double)
{
  for (const double beta2 : {0.0, 0.5, 0.9, 0.999}) {
    CAPTURE(beta2);
    std::vector<double> mean(37, 0.0), square(37, 0.0);
    std::size_t i = 0;
    CHECK(worst_difference<T>(second_moment::ema_about_mean{beta2, true}, [&](double& v, double& m, double g) {
            m = mean[i] = beta2 * mean[i] + (1 - beta2) * g;
            square[i] = beta2 * square[i] + (1 - beta2) * g * g;
            v = square[i] - mean[i] * mean[i];
            i = (i + 1) % 37;
          }) < rounding<T>);
  }
}

TEST_CASE_TEMPLATE("ema_about_mean: v never falls below zero, where the difference of the averages does", T, float,
                   double)
{
  walk x(compose(0.01, first_moment::none{}, second_moment::ema_about_mean{0.9, true}, step_size::constant{},
                 decay::none{}),
         std::vector<T>(100, T(0)));
  support::random r(15);
  std::vector<T> g = draw<T>(r, 100);  // the same in each step, so that v tends to 0
  for (int t = 1; t <= 500; ++t) {
    x.step(g);
    for (const T v : x.slots[0])
      REQUIRE(v >= 0);
  }
  for (std::size_t i = 0; i < 100; ++i)
    CHECK(x.slots[0][i] <= g[i] * g[i] * T(1e-10));
}

TEST_CASE_TEMPLATE("belief: the equation, about the direction", T, float, double)
{
  for (const double beta2 : {0.0, 0.9, 0.999}) {
    CAPTURE(beta2);
    walk x(compose(0.01, first_moment::ema{.beta1 = 0.8}, second_moment::belief{beta2}, step_size::constant{},
                   decay::none{}),
           std::vector<T>(37, T(1)));
    support::random r(22);
    std::vector<double> m(37, 0.0), v(37, 0.0);
    double worst = 0;
    for (int t = 1; t <= 50; ++t) {
      const auto g = draw<T>(r, 37);
      x.step(g);
      for (std::size_t i = 0; i < 37; ++i) {
        m[i] = 0.8 * m[i] + 0.2 * double(g[i]);
        v[i] = beta2 * v[i] + (1 - beta2) * (double(g[i]) - m[i]) * (double(g[i]) - m[i]);
        worst = std::fmax(worst, std::fabs(double(x.slots[1][i]) - v[i]));
      }
    }
    CHECK(worst < 2 * rounding<T>);
  }
}

TEST_CASE_TEMPLATE("second_moment: the first step from 0 gives (1 - beta2)g², and a zero gradient lowers v or keeps it",
                   T, float, double)
{
  const auto run = [](const auto& rule) {
    walk x(compose(0.01, first_moment::none{}, rule, step_size::constant{}, decay::none{}), std::vector<T>{1, 1});
    x.step({T(0.5), T(0)});
    CHECK(x.slots.back()[0] == T(0.125));
    CHECK(x.slots.back()[1] == 0);
    x.step({T(0), T(0)});
    CHECK(x.slots.back()[1] == 0);
    return double(x.slots.back()[0]);
  };
  CHECK(run(second_moment::ema{0.5}) == 0.0625);
  CHECK(run(second_moment::ema_max{0.5}) == 0.125);
  CHECK(run(second_moment::yogi{0.5, 0}) == 0.125);
}

TEST_CASE_TEMPLATE("ema, ema_max, yogi: v is finite wherever (1 - beta2)g² is, and the weight moves on", T, float,
                   double)
{
  // The square of the first overflows by itself, the last is near the end of what (1 − β₂)g² allows.
  constexpr bool single = sizeof(T) == 4;
  for (const double g : {single ? 2e19 : 2e154, single ? 5e20 : 4e155}) {
    const auto check = [&](const char* name, const auto& second) {
      CAPTURE(std::string(name));
      CAPTURE(g);
      using namespace gradus;
      walk x(compose(0.01, first_moment::none{}, second, step_size::adaptive{}, decay::none{}),
             std::vector<T>{T(1), T(1), T(1)});
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

TEST_CASE_TEMPLATE("ema_max_corrected: a first g² that overflows stays the maximum, and the weight where it is", T,
                   float, double)
{
  using namespace gradus;
  walk x(compose(0.01, first_moment::none{}, second_moment::ema_max_corrected{}, step_size::adaptive{}, decay::none{}),
         std::vector<T>{T(1), T(1)});
  x.step({sizeof(T) == 4 ? T(2e19) : T(2e154), T(1)});
  CHECK(std::isfinite(x.slots[0][0]));
  CHECK(std::isinf(x.slots[1][0]));
  x.step({T(1), T(1)});
  CHECK(x.weights[0] == 1);
  CHECK(x.weights[1] < 1);
  x.step({std::numeric_limits<T>::quiet_NaN(), T(1)});
  CHECK(std::isnan(x.slots[1][0]));
}

TEST_CASE_TEMPLATE("yogi: v never falls below zero", T, float, double)
{
  support::random r(14);
  for (const double beta2 : {0.0, 1e-9, 1e-7, 1e-3, 0.5}) {
    walk x(compose(0.01, first_moment::none{}, second_moment::yogi{.beta2 = beta2}, step_size::constant{},
                   decay::none{}),
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
