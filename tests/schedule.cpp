// Schedules, against torch.optim.lr_scheduler's values and its documentation's formulas written out, and what they
// refuse.

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
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

/// s(0), s(1), … within 1e-12.
template <class Schedule>
void check_values(const Schedule& s, std::initializer_list<double> expected)
{
  double t = 0;
  for (const double value : expected) {
    CAPTURE(t);
    CHECK(std::fabs(s(t++) - value) <= 1e-12);
  }
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

TEST_CASE("linear: LinearLR")
{
  // PyTorch 2.15, LinearLR(start_factor=0.25, end_factor=0.75, total_iters=6), stepped.
  check_values(linear{.t_max = 6, .start_factor = 0.25, .end_factor = 0.75},
               {0.25, 0.3333333333333333, 0.41666666666666663, 0.49999999999999994, 0.5833333333333333,
                0.6666666666666665, 0.7499999999999998, 0.7499999999999998, 0.7499999999999998});
  // Its defaults.
  check_values(linear{}, {0.3333333333333333, 0.4666666666666667, 0.6000000000000001, 0.7333333333333335,
                          0.8666666666666669, 1.0000000000000002, 1.0000000000000002});
  const linear down{.t_max = 4, .start_factor = 1, .end_factor = 0};
  CHECK(down(1.5) == 0.625);
  CHECK(down(4) == 0);
  CHECK(down(1e300) == 0);
  for (int i = 0; i < 50; ++i)
    CHECK(linear{.t_max = 7, .start_factor = 0.2}(i * 0.25) ==
          linear_warmup{.t_warmup = 7, .start_factor = 0.2}(i * 0.25));

  check_refuses_t(linear{});
  CHECK_THROWS_WITH_AS(linear{.t_max = 0}(0), "gradus: t_max is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((linear{.t_max = 1, .start_factor = -1}(0)),
                       "gradus: start_factor is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS((linear{.t_max = 1, .end_factor = infinity}(0)),
                       "gradus: end_factor is inf; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("polynomial: PolynomialLR, with an end")
{
  // PyTorch 2.15, PolynomialLR(total_iters=7, power=2.5), stepped.
  const polynomial s{.t_max = 7, .power = 2.5};
  check_values(s, {1.0, 0.6801943590165686, 0.4312011503716921, 0.2468339415570463, 0.12024251094636317,
                   0.043634488475497855, 0.007713560673657707, 0.0, 0.0});
  for (int i = 0; i < 40; ++i)
    CHECK(polynomial{.t_max = 7, .power = 2.5, .eta_min = 0.125}(i * 0.25) == about(0.125 + 0.875 * s(i * 0.25)));
  CHECK(polynomial{}(1) == about(0.8));  // PyTorch's defaults
  CHECK(polynomial{.t_max = 4, .power = 2}(2.5) == about(0.140625));

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(polynomial{.t_max = -1}(0), "gradus: t_max is -1; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((polynomial{.t_max = 1, .power = 0}(0)), "gradus: power is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((polynomial{.t_max = 1, .eta_min = -1}(0)),
                       "gradus: eta_min is -1; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("exponential: ExponentialLR")
{
  // PyTorch 2.15, ExponentialLR(gamma=0.93), stepped.
  const exponential s{.gamma = 0.93};
  check_values(s, {1.0, 0.93, 0.8649000000000001, 0.8043570000000001, 0.7480520100000001, 0.6956883693000001,
                   0.6469901834490002, 0.6017008706075702, 0.5595818096650402});
  CHECK(exponential{.gamma = 0.25}(0.5) == 0.5);
  CHECK(exponential{.gamma = 1}(1e300) == 1);
  CHECK(s(1e9) == 0);

  check_refuses_t(s);
  for (const auto& [gamma, shown] : {std::pair(0.0, "0"), {1.5, "1.5"}, {-0.5, "-0.5"}, {not_a_number, "nan"}})
    CHECK_THROWS_WITH_AS(exponential{.gamma = gamma}(0),
                         (std::string("gradus: gamma is ") + shown + "; expected a number in (0, 1]").c_str(),
                         std::invalid_argument);
  CHECK_THROWS_WITH_AS(exponential{}(0), "gradus: gamma is 0; expected a number in (0, 1]", std::invalid_argument);
}

TEST_CASE("one_cycle: OneCycleLR in two and three phases, along cosines and lines")
{
  // PyTorch 2.15, OneCycleLR(max_lr=1, cycle_momentum=False, …), stepped.
  const one_cycle s{.t_max = 20};
  check_values(s, {0.040000000000000036,
                   0.1316718427000253,
                   0.3716718427000253,
                   0.6683281572999747,
                   0.9083281572999747,
                   1.0,
                   0.9874640062350873,
                   0.9504846320134737,
                   0.89091617757105,
                   0.8117456539497631,
                   0.7169430017913008,
                   0.6112620219362893,
                   0.500002,
                   0.38874197806371075,
                   0.28306099820869923,
                   0.18825834605023697,
                   0.10908782242895004,
                   0.049519367986526286,
                   0.012539993764912554,
                   4e-06});
  check_values(
      one_cycle{.t_max = 20, .pct_start = 0.4, .anneal_linearly = true, .div_factor = 10, .final_div_factor = 100},
      {0.1,
       0.22857142857142856,
       0.3571428571428571,
       0.48571428571428565,
       0.6142857142857142,
       0.7428571428571429,
       0.8714285714285713,
       1.0,
       0.91675,
       0.8335,
       0.75025,
       0.667,
       0.58375,
       0.5005,
       0.41725,
       0.3340000000000001,
       0.25075000000000003,
       0.16749999999999998,
       0.08425000000000005,
       0.0010000000000000009});
  check_values(one_cycle{.t_max = 20, .pct_start = 0.35, .three_phase = true}, {0.040000000000000036,
                                                                                0.10430780618346935,
                                                                                0.28,
                                                                                0.52,
                                                                                0.7599999999999999,
                                                                                0.9356921938165306,
                                                                                1.0,
                                                                                0.9356921938165307,
                                                                                0.76,
                                                                                0.52,
                                                                                0.2800000000000001,
                                                                                0.10430780618346941,
                                                                                0.04,
                                                                                0.038019575420312576,
                                                                                0.032470549057570956,
                                                                                0.024451973637258376,
                                                                                0.015552026362741628,
                                                                                0.0075334509424290486,
                                                                                0.0019844245796874246,
                                                                                4e-06});
  check_values(one_cycle{.t_max = 20,
                         .pct_start = 0.25,
                         .anneal_linearly = true,
                         .div_factor = 4,
                         .final_div_factor = 50,
                         .three_phase = true},
               {0.25,
                0.4375,
                0.625,
                0.8125,
                1.0,
                0.8125,
                0.625,
                0.4375,
                0.25,
                0.22772727272727272,
                0.20545454545454545,
                0.18318181818181817,
                0.1609090909090909,
                0.13863636363636364,
                0.11636363636363636,
                0.09409090909090909,
                0.07181818181818181,
                0.04954545454545453,
                0.027272727272727282,
                0.0050000000000000044});
  // Fewer rising steps than one.
  check_values(one_cycle{.t_max = 6, .pct_start = 0.1}, {0.9865224892001707, 0.8431214464510911, 0.58682574153711,
                                                         0.3019629091399539, 0.08225976526915453, 4e-06});
  check_values(one_cycle{.t_max = 5, .pct_start = 0},
               {0.904508879153485, 0.654509879153485, 0.3454941208465151, 0.09549512084651508, 4e-06});
  CHECK(one_cycle{.t_max = 10, .pct_start = 0.1}(0) == 1);  // where PyTorch divides by zero
  CHECK(one_cycle{.t_max = 10, .pct_start = 0.1, .three_phase = true}(0) == about(0.04));
  CHECK(s(2.5) == about(0.52));
  CHECK(s(19) == about(4e-6));
  CHECK(s(1e18) == about(4e-6));

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(one_cycle{.t_max = 1}(0), "gradus: t_max is 1; expected a finite number > 1",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(one_cycle{.t_max = infinity}(0), "gradus: t_max is inf; expected a finite number > 1",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((one_cycle{.t_max = 9, .pct_start = 1.5}(0)),
                       "gradus: pct_start is 1.5; expected a number in [0, 1]", std::invalid_argument);
  CHECK_THROWS_WITH_AS((one_cycle{.t_max = 9, .pct_start = 0.75, .three_phase = true}(0)),
                       "gradus: pct_start with three_phase is 0.75; expected a number in [0, 0.5]",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((one_cycle{.t_max = 9, .div_factor = 0.5}(0)),
                       "gradus: div_factor is 0.5; expected a finite number >= 1", std::invalid_argument);
  CHECK_THROWS_WITH_AS((one_cycle{.t_max = 9, .final_div_factor = 0}(0)),
                       "gradus: final_div_factor is 0; expected a finite number >= 1", std::invalid_argument);
}

TEST_CASE("wsd: warm-up, stable phase and each form of decay")
{
  for (const wsd_decay form : {wsd_decay::linear, wsd_decay::cosine, wsd_decay::one_minus_sqrt}) {
    const wsd s{.t_warmup = 4, .t_stable = 10, .t_decay = 8, .eta_min = 0.125, .decay = form, .start_factor = 0.25};
    for (int i = 0; i < 120; ++i) {
      const double t = 0.25 * i, x = std::min(1.0, std::max(0.0, (t - 14) / 8));
      CAPTURE(t);
      const double fallen = form == wsd_decay::linear   ? 1 - x
                            : form == wsd_decay::cosine ? (1 + std::cos(pi * x)) / 2
                                                        : 1 - std::sqrt(x);
      CHECK(s(t) == about(t < 4 ? 0.25 + 0.75 * t / 4 : 0.125 + 0.875 * fallen));
    }
    CHECK(s(14) == 1);
    CHECK(s(22) == 0.125);
    CHECK(s(1e300) == 0.125);
  }
  const wsd bare{.t_decay = 2};  // no warm-up, no stable phase
  CHECK(bare(0) == 1);
  CHECK(bare(0.5) == 0.75);
  CHECK(bare(2) == 0);
  // Until the decay, the length of the stable phase is of no matter.
  CHECK(wsd{.t_warmup = 3, .t_stable = 5}(7) == wsd{.t_warmup = 3, .t_stable = 500}(7));

  check_refuses_t(bare);
  CHECK_THROWS_WITH_AS(wsd{.t_warmup = -1}(0), "gradus: t_warmup is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(wsd{.t_stable = infinity}(0), "gradus: t_stable is inf; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(wsd{.t_decay = 0}(0), "gradus: t_decay is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(wsd{.eta_min = -1}(0), "gradus: eta_min is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(wsd{.start_factor = 2}(0), "gradus: start_factor is 2; expected a number in [0, 1]",
                       std::invalid_argument);
}

TEST_CASE("inverse_sqrt: the schedule of the transformer, from its peak")
{
  // lr = d^−½ · min(t^−½, t · t_warmup^−3/2); the peak is at t_warmup.
  const inverse_sqrt s{.t_warmup = 40};
  const auto paper = [](double t) { return std::min(std::pow(t, -0.5), t * std::pow(40, -1.5)); };
  for (int i = 1; i < 1000; ++i)
    CHECK(s(0.5 * i) == about(paper(0.5 * i) / paper(40)));
  CHECK(s(0) == 0);
  CHECK(s(40) == 1);
  CHECK(s(160) == 0.5);
  CHECK(inverse_sqrt{.t_warmup = 4, .start_factor = 0.5}(2) == 0.75);
  CHECK(s(1e300) > 0);

  check_refuses_t(s);
  CHECK_THROWS_WITH_AS(inverse_sqrt{.t_warmup = 0}(0), "gradus: t_warmup is 0; expected a finite number > 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS((inverse_sqrt{.t_warmup = 1, .start_factor = -1}(0)),
                       "gradus: start_factor is -1; expected a number in [0, 1]", std::invalid_argument);
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
