// Schedules, against the formulas of torch.optim.lr_scheduler's documentation written out, and what they refuse.

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gradus/schedule.hpp>

namespace {

using namespace gradus::schedule;

const double pi = std::acos(-1.0);
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

doctest::Approx about(double x) { return doctest::Approx(x).epsilon(1e-13).scale(1); }

// CosineAnnealingWarmRestarts, which finds its period by walking there from 0.
double torch_warm_restarts(double t, double t_0, double t_mult, double eta_min)
{
  double period = t_0;
  while (t >= period) {
    t -= period;
    period *= t_mult;
  }
  return eta_min + (1 - eta_min) * (1 + std::cos(pi * t / period)) / 2;
}

template <class Schedule>
void check_refuses_t(const Schedule& s)
{
  CHECK_THROWS_WITH_AS(s(-1), "gradus: t is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(s(-1e-9), "gradus: t is -1e-09; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(s(infinity), "gradus: t is inf; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(s(not_a_number), "gradus: t is nan; expected a finite number >= 0", std::invalid_argument);
}

}  // namespace

TEST_CASE("multi_step: gamma to the number of milestones passed")
{
  const multi_step s{.milestones = {80, 160}, .gamma = 0.1};
  for (int t = 0; t < 250; ++t) {
    CAPTURE(t);
    CHECK(s(t) == about(std::pow(0.1, (t >= 80) + (t >= 160))));
  }
  CHECK(s(0) == 1);
  CHECK(s(79.999) == 1);
  CHECK(s(80) == 0.1);
  CHECK(s(1e18) == about(0.01));
  CHECK(multi_step{.milestones = {80, 160}}(100) == 0.1);  // PyTorch's default
  CHECK(multi_step{}(5) == 1);
  // A milestone that stands twice counts twice, as in PyTorch; their order is of no matter.
  const multi_step twice{.milestones = {9, 3, 9}, .gamma = 0.5};
  CHECK(twice(4) == 0.5);
  CHECK(twice(9) == 0.125);
  CHECK(multi_step{.milestones = {0}, .gamma = 0.5}(0) == 0.5);

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS((multi_step{.milestones = {1}, .gamma = -1}(0)),
                       "gradus: gamma is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS((multi_step{.milestones = {1, -2}}(0)),
                       "gradus: milestones is -2; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("cosine: CosineAnnealingLR, and then the end")
{
  const cosine s{.t_max = 200, .eta_min = 0.05};
  for (int i = 0; i <= 400; ++i) {
    const double t = 0.5 * i;
    CAPTURE(t);
    CHECK(s(t) == about(0.05 + 0.95 * (1 + std::cos(pi * t / 200)) / 2));
  }
  CHECK(s(0) == 1);
  CHECK(s(200) == 0.05);
  CHECK(s(201) == 0.05);  // PyTorch's closed form would rise again
  CHECK(s(1e18) == 0.05);
  CHECK(cosine{.t_max = 10}(5) == about(0.5));
  CHECK(cosine{.t_max = 0.25}(0.125) == about(0.5));

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(cosine{.t_max = 0}(0), "gradus: t_max is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((cosine{.t_max = 1, .eta_min = -0.5}(0)),
                       "gradus: eta_min is -0.5; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("cosine_warm_restarts: CosineAnnealingWarmRestarts")
{
  const cosine_warm_restarts s{.t_0 = 14, .t_mult = 2};
  for (const double restart : {0.0, 14.0, 42.0, 98.0, 210.0, 434.0}) {
    CHECK(s(restart) == 1);
    if (restart > 0)
      CHECK(s(restart - 1e-3) < 1e-6);
  }
  for (const auto& r :
       {cosine_warm_restarts{14, 2, 0}, {14, 2, 0.1}, {14, 1, 0.1}, {10, 1.5, 0}, {0.3, 3, 0}, {1, 1.0625, 0.5}})
    for (int i = 0; i < 2000; ++i) {
      const double t = 0.25 * i;
      const double expected = torch_warm_restarts(t, r.t_0, r.t_mult, r.eta_min);
      // A sum of many inexact periods may put a restart a hair before or after t.
      const bool near_restart = std::fabs(torch_warm_restarts(t + 1e-9, r.t_0, r.t_mult, r.eta_min) - expected) >
                                    1e-3 ||
                                (t > 0 && std::fabs(torch_warm_restarts(t - 1e-9, r.t_0, r.t_mult, r.eta_min) -
                                                    expected) > 1e-3);
      if (r.t_mult == int(r.t_mult) && r.t_0 == int(r.t_0))
        CHECK(r(t) == about(expected));
      else if (!near_restart)
        CHECK(r(t) == doctest::Approx(expected).epsilon(1e-9).scale(1));
    }
  CHECK(s(0.5) == about((1 + std::cos(pi * 0.5 / 14)) / 2));
  CHECK(cosine_warm_restarts{.t_0 = 10}(25) == about(0.5));

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(cosine_warm_restarts{.t_0 = 0}(0), "gradus: t_0 is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((cosine_warm_restarts{.t_0 = 1, .t_mult = 0.5}(0)),
                       "gradus: t_mult is 0.5; expected a finite number >= 1", std::invalid_argument);
  CHECK_THROWS_WITH_AS((cosine_warm_restarts{.t_0 = 1, .eta_min = not_a_number}(0)),
                       "gradus: eta_min is nan; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("cosine_warm_restarts: finds its period in constant time")
{
  const auto start = std::chrono::steady_clock::now();
  const double largest = std::numeric_limits<double>::max();
  for (const double t_mult : {1.0, std::nextafter(1.0, 2.0), 1.0000001, 1.001, 2.0, 3.0, 1e10})
    for (const double t_0 : {1e-6, 14.0, 1e6})
      for (const double t : {0.0, 1e3, 1e9, 1e18, 1e100, largest}) {
        CAPTURE(t_mult);
        CAPTURE(t_0);
        CAPTURE(t);
        const double scale = cosine_warm_restarts{.t_0 = t_0, .t_mult = t_mult, .eta_min = 0.25}(t);
        CHECK(scale >= 0.25);
        CHECK(scale <= 1);
      }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
}

TEST_CASE("cosine_warm_restarts: terminates for every input in range, and stays within [eta_min, 1]")
{
  const double denormal = std::numeric_limits<double>::denorm_min(), largest = std::numeric_limits<double>::max();
  const double lengths[] = {denormal, 3 * denormal, 1e-320, 2.3e-308, 1e-300, 1e-151, 1e-149, 1e-20,  1,
                            14,       1e18,         1e100,  1e119,    1e122,  1e200,  1e300,  largest};
  const auto start = std::chrono::steady_clock::now();
  for (const double t_mult : {1.0, 1 + 0x1p-52, 1 + 1e-15, 1 + 1e-13, 1 + 1e-9, 1.001, 1.5, 2.0, 1e5 + 0.1, 1e100,
                              1e130, 1e200, 1e308, largest})
    for (const double t_0 : lengths)
      for (const double t : lengths) {
        CAPTURE(t_mult);
        CAPTURE(t_0);
        CAPTURE(t);
        const double scale = cosine_warm_restarts{.t_0 = t_0, .t_mult = t_mult, .eta_min = 0.25}(t);
        CHECK(scale >= 0.25);
        CHECK(scale <= 1);
      }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("cosine_warm_restarts: tiny and huge periods, and growth by the last bit, against exact arithmetic")
{
  // Python's decimal with 400 digits: n periods are gone at t_0·(mⁿ − 1)/(m − 1).
  struct {
    double t, t_0, t_mult, expected;
  } const cases[] = {
      {1000.25, 1.0, 1 + 0x1p-52, 0.85355339071652692},
      {1000000.25, 1.0, 1 + 0x1p-52, 0.85367668379717543},
      {12345.6, 7.0, 1 + 1e-15, 0.26306567115046292},
      {1e9 + .5, 1.0, 1 + 1e-13, 0.10333980970619197},
      {1e-320, 5e-324, 1.001, 0.95660314414669811},
      {4.94e-322, 4e-323, 1.5, 0.044818529516926671},
      {1e-300, 5e-324, 2.0, 0.74172189038580227},
      {1e-318, 1.5e-323, 1.000001, 0.025847217774569307},
      {1e+100, 5e-324, 12345.678, 0.99990921250829712},
      {1e+308, 5e-324, 2.0, 0.96907558712979402},
      {1e+308, 5e-324, 1.5, 0.7257347844731542},
      {1e+308, 5e-324, 10000000000.0, 1},
      {1e+308, 5e-324, 1e+200, 1},
      {1e+308, 5e-324, 1e+308, 1},
      {1.0, 5e-324, 3.0, 0.93990861417620974},
      {1e+308, 14.0, 1e+308, 0.98746395609091175},
      {1e+308, 1e+300, 1.001, 0.21783296494911597},
      {1.7e+308, 1e+308, 1.5, 0.55226423163382687},
      {1e+308, 1e+307, 1 + 0x1p-52, 2.3419790535924279e-28},
      {1e+307, 14.0, 1e+308, 0.99987411747125332},
      {1e+300, 1e-200, 1.01, 0.95892069257735413},
      {1.6528282690043758e+22, 14.0, 2.0, 1},
      {1e+18, 14.0, 1.001, 0.25069402380249134},
      {1000000000000.3, 14.0, 1.0000001, 0.27778851898028722},
      {5e-324, 5e-324, 1.5, 1},
      {3.5e-323, 1e-323, 2.0, 0.96193976625564337},
  };
  for (const auto& c : cases) {
    CAPTURE(c.t);
    CAPTURE(c.t_0);
    CAPTURE(c.t_mult);
    // 1e9 periods of 1 have a phase to seven digits, as t has sixteen.
    CHECK(std::fabs(cosine_warm_restarts{c.t_0, c.t_mult, 0}(c.t) - c.expected) < (c.t == 1e9 + .5 ? 1e-6 : 1e-9));
  }
}

TEST_CASE("linear_warmup: LinearLR up to 1")
{
  const linear_warmup s{.t_warmup = 5};
  for (int i = 0; i <= 40; ++i) {
    const double t = 0.25 * i;
    CHECK(s(t) == about(std::min(1.0, t / 5)));
  }
  CHECK(s(0) == 0);
  CHECK(s(5) == 1);
  const linear_warmup from{.t_warmup = 4, .start_factor = 0.25};  // lr·(f + (1−f)·t/t_warmup)
  CHECK(from(0) == 0.25);
  CHECK(from(1) == about(0.4375));
  CHECK(from(4) == 1);

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(linear_warmup{.t_warmup = 0}(0), "gradus: t_warmup is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((linear_warmup{.t_warmup = 1, .start_factor = 2}(0)),
                       "gradus: start_factor is 2; expected a number in [0, 1]", std::invalid_argument);
}

TEST_CASE("product: all see the same t")
{
  const product s(linear_warmup{.t_warmup = 5}, multi_step{.milestones = {3}, .gamma = 0.5});
  CHECK(s(2) == about(0.4));
  CHECK(s(4) == about(0.4));
  CHECK(s(9) == 0.5);
  // Any function of t is a schedule.
  CHECK(product([](double t) { return t; }, [](double t) { return t + 1; }, cosine{.t_max = 1e9})(3) == about(12));
  check_refuses_t(s);
}

TEST_CASE("sequence: the second counts from 0 again")
{
  const sequence s(linear_warmup{.t_warmup = 5}, 5, cosine{.t_max = 195});
  for (int t = 0; t < 250; ++t)
    CHECK(s(t) == about(t < 5 ? t / 5.0 : t < 200 ? (1 + std::cos(pi * (t - 5) / 195)) / 2 : 0));
  CHECK(s(5) == 1);
  const sequence three(linear_warmup{.t_warmup = 2}, 2,
                       sequence([](double) { return 1.0; }, 10, multi_step{.milestones = {1}, .gamma = 0.5}));
  CHECK(three(1) == 0.5);
  CHECK(three(11.5) == 1);
  CHECK(three(12.5) == 1);
  CHECK(three(13) == 0.5);

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(sequence(cosine{}, -1, cosine{}), "gradus: until is -1; expected a finite number >= 0",
                       std::invalid_argument);
}
