// What the equations imply, whoever wrote them down: relations between optimizers, most of them to the bit.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

using namespace gradus;

constexpr default_backend backend{};

// One tensor moved by one rule at the engine layer, in one pass or in two as the rule needs.
template <class T, class Rule>
struct walk {
  Rule rule;
  std::vector<T> weights;
  std::array<std::vector<T>, Rule::slots> slots{};
  step_scalars scalars{};  // of the last step
  std::uint64_t t = 0;
  double second_moment_sum = 0;

  walk(const Rule& r, const std::vector<T>& start) : rule(r), weights(start)
  {
    for (std::size_t k = 0; k < Rule::slots; ++k)
      slots[k].assign(start.size(), T(initial_value(rule, k)));
  }

  void step(const std::vector<T>& gradients, double lr_scale = 1)
  {
    std::array<std::span<T>, Rule::slots> state;
    for (std::size_t k = 0; k < Rule::slots; ++k)
      state[k] = slots[k];
    scalars = make_step_scalars(rule, ++t, lr_scale, 0);
    if constexpr (Rule::scheduled_in_one_pass) {
      second_moment_sum = next_second_moment_sum<T>(rule.second_moment, second_moment_sum,
                                                    squared_norm(backend, std::span<const T>(gradients)));
      scalars.mean_square = second_moment_sum / scalars.bc2 / double(weights.size());
    } else if constexpr (Rule::scheduled) {
      const auto moments = prepare<T>(rule, scalars);
      REQUIRE(update_moments(backend, moments, weights, gradients, state));
      scalars.mean_square =
          sum(backend, std::span<const T>(slots[moments.value_slot])) / scalars.bc2 / double(weights.size());
      REQUIRE(update_weights(backend, prepare<T>(rule, scalars), weights, gradients, state));
      return;
    }
    REQUIRE(update(backend, prepare<T>(rule, scalars), weights, gradients, state));
  }
};
template <class T, class Rule>
walk(const Rule&, const std::vector<T>&) -> walk<T, Rule>;

template <class T>
std::vector<T> draw(support::random& r, std::size_t n = 70)
{
  std::vector<T> x(n);
  for (T& e : x)
    e = T(r.uniform(-1, 1));
  return x;
}

template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b)
{
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::fmax(worst, std::fabs(double(a[i]) - double(b[i])) / (1e-3 + std::fabs(double(a[i]))));
  return worst;
}

template <class T>
bool equal(const std::vector<T>& a, const std::vector<T>& b)
{
  return support::first_difference(a, b) == -1;
}

// The same equation as `ema`, but one that does not say so: a scheduled decay then takes two passes.
struct ema_of_unknown_sum : second_moment::ema {
  static constexpr bool linear = false;
};

}  // namespace

TEST_CASE_TEMPLATE("without weight decay Adam, AdamW and AdamS are one", T, float, double)
{
  support::random r(1);
  const auto start = draw<T>(r);
  walk l2(adam{.lr = 0.01, .weight_decay = 0}.rule(), start);
  walk decoupled(adamw{.lr = 0.01, .weight_decay = 0}.rule(), start);
  walk scheduled(adams{.lr = 0.01, .weight_decay = 0}.rule(), start);
  walk none(compose(0.01, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{}, decay::none{}), start);
  for (int t = 1; t <= 100; ++t) {
    auto g = draw<T>(r);
    for (T& x : g)
      if (r.chance(0.1))
        x = r.chance(0.5) ? T(0) : T(-0.0);
    const double lr_scale = r.uniform();
    l2.step(g, lr_scale);
    decoupled.step(g, lr_scale);
    scheduled.step(g, lr_scale);
    none.step(g, lr_scale);
    REQUIRE(equal(l2.weights, none.weights));
    REQUIRE(equal(decoupled.weights, none.weights));
    REQUIRE(equal(scheduled.weights, none.weights));
  }
}

// To the bit: both divide the same numerator by √v, which a power of one leaves as it is.
TEST_CASE_TEMPLATE("Padam with the whole root is AMSGrad, where there is no eps to stand in different places", T, float, double)
{
  support::random r(2);
  const auto start = draw<T>(r);
  walk whole_root(padam{.lr = 0.01, .beta2 = 0.9, .eps = 0, .weight_decay = 0.1, .partial = 0.5}.rule(), start);
  walk reference(amsgrad{.lr = 0.01, .beta2 = 0.9, .eps = 0, .weight_decay = 0.1}.rule(), start);
  for (int t = 1; t <= 100; ++t) {
    const auto g = draw<T>(r);
    whole_root.step(g);
    reference.step(g);
    REQUIRE(equal(whole_root.weights, reference.weights));
  }
}

TEST_CASE_TEMPLATE("Padam with no root is momentum", T, float, double)
{
  support::random r(3);
  const auto start = draw<T>(r);
  walk no_root(padam{.lr = 0.01, .partial = 0}.rule(), start);
  for (int t = 1; t <= 20; ++t) {
    auto expected = no_root.weights;
    no_root.step(draw<T>(r));
    const T a = T(0.01 * std::sqrt(no_root.scalars.bc2) / no_root.scalars.bc1);
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = gradus::fma(-a, no_root.slots[0][i], expected[i]);
    REQUIRE(equal(no_root.weights, expected));
  }
}

TEST_CASE_TEMPLATE("RAdam's first five steps are the corrected momentum, its sixth is not", T, float, double)
{
  support::random r(4);
  walk x(radam{.lr = 0.01}.rule(), draw<T>(r));
  for (int t = 1; t <= 6; ++t) {
    auto expected = x.weights;
    x.step(draw<T>(r));
    const T a = T(0.01 / (1 - std::pow(0.9, t)));
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = gradus::fma(-a, x.slots[0][i], expected[i]);
    CHECK(equal(x.weights, expected) == (t <= 5));
  }
}

TEST_CASE_TEMPLATE("AdaBound's step tends to final_lr times the first moment, and follows the schedule", T, float, double)
{
  const adabound recipe{.lr = 0.01, .final_lr = 0.1, .gamma = 1e-2};
  support::random r(5);
  for (const double lr_scale : {1.0, 0.25}) {
    walk x(recipe.rule(), draw<T>(r));
    for (const std::uint64_t t : {1u, 10u, 100u, 10'000u, 1'000'000u, 100'000'000u}) {
      x.t = t - 1;
      x.weights.assign(x.weights.size(), T(0));  // the step is then all that is left of them
      x.step(draw<T>(r), lr_scale);
      double furthest = 0;
      for (std::size_t i = 0; i < x.weights.size(); ++i)
        furthest = std::fmax(furthest, std::fabs(double(x.weights[i]) / (-0.1 * lr_scale * double(x.slots[0][i])) - 1));
      CHECK(furthest <= (1 + 1e-6) / (1e-2 * double(t)) + 1e-6);
    }
  }
}

// The paper's Section 2: without momentum the three kinds of decay are one, until the learning rate changes.
TEST_CASE_TEMPLATE("the decays of SGD agree while lr is constant, and part once it drops", T, float, double)
{
  constexpr double lr = 0.1, lambda = 0.05, rounding = sizeof(T) == 4 ? 1e-4 : 1e-12;
  support::random r(6);
  const auto start = draw<T>(r);
  const auto sgd_with = [&](const auto& decay) {
    return walk(compose(lr, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay), start);
  };
  auto l2 = sgd_with(decay::l2{lambda});
  auto decoupled = sgd_with(decay::decoupled{lambda});
  auto independent = sgd_with(decay::independent{lr * lambda});
  const auto step_all = [&](double lr_scale) {
    const auto g = draw<T>(r);
    l2.step(g, lr_scale);
    decoupled.step(g, lr_scale);
    independent.step(g, lr_scale);
  };
  for (int t = 1; t <= 100; ++t)
    step_all(1);
  CHECK(largest_difference(l2.weights, start) > 0.1);
  CHECK(largest_difference(l2.weights, decoupled.weights) < rounding);
  CHECK(largest_difference(l2.weights, independent.weights) < rounding);
  for (int t = 1; t <= 100; ++t)
    step_all(0.1);
  CHECK(largest_difference(l2.weights, decoupled.weights) < rounding);
  CHECK(largest_difference(l2.weights, independent.weights) > 0.1);
}

// To the bit, as every operation commutes with a power of two: m grows by c, v by c², A/√v by 1/c.
TEST_CASE_TEMPLATE("gradients c times as large leave AdamS's step alone and divide its decay by c", T, float, double)
{
  for (const int exponent : {10, -7}) {
    const double c = std::ldexp(1.0, exponent);
    support::random r(7);
    const auto start = draw<T>(r);
    const auto rule = adams{.lr = 0.01, .eps = 0, .weight_decay = 0.5}.rule();
    walk plain(rule, start), scaled(rule, start);
    for (int t = 1; t <= 100; ++t) {
      auto g = draw<T>(r);
      // Of weights that are zero, the step is all that is left.
      plain.weights.assign(start.size(), T(0));
      scaled.weights = plain.weights;
      plain.step(g);
      for (T& x : g)
        x *= T(c);
      scaled.step(g);
      REQUIRE(equal(plain.weights, scaled.weights));
      REQUIRE(rule.decay.rate(plain.scalars) > 0);
      REQUIRE(rule.decay.rate(plain.scalars) == c * rule.decay.rate(scaled.scalars));
    }
  }
}

TEST_CASE_TEMPLATE("a scheduled decay in one pass is that in two", T, float, double)
{
  constexpr double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-12;
  support::random r(8);
  const auto start = draw<T>(r, 3000);
  const auto with = [&](const auto& second) {
    return walk(compose(0.01, first_moment::ema{}, second, step_size::adaptive{}, decay::scheduled{0.1}), start);
  };
  auto one = with(second_moment::ema{.beta2 = 0.99});
  auto two = with(ema_of_unknown_sum{{.beta2 = 0.99}});
  static_assert(one.rule.scheduled_in_one_pass && !two.rule.scheduled_in_one_pass);
  for (int t = 1; t <= 300; ++t) {
    auto g = draw<T>(r, start.size());
    for (T& x : g)
      x *= T(1 / (1 + 0.1 * t));
    one.step(g);
    two.step(g);
    REQUIRE(std::fabs(one.scalars.mean_square / two.scalars.mean_square - 1) < tolerance);
    // The decay acts with all digits of s, and so with the last digits of v̄, step after step.
    REQUIRE(largest_difference(one.weights, two.weights) < 2 * tolerance);
  }
  CHECK(equal(one.slots[1], two.slots[1]));
}

TEST_CASE_TEMPLATE("a scheduled decay waits for the first gradient, and never takes more than the whole weight", T, float, double)
{
  support::random r(9);
  const auto start = draw<T>(r);
  walk x(adams{.lr = 0.01, .weight_decay = 0.5}.rule(), start);
  x.step(std::vector<T>(start.size(), T(0)));
  CHECK(equal(x.weights, start));
  // Gradients of 1e-7 make s = 0.01·0.5/√v̄ some ten thousand. What is left of the weight is the step, of at most lr.
  x.step(std::vector<T>(start.size(), T(1e-7)));
  CHECK(x.rule.decay.rate(x.scalars) > 1);
  for (const T w : x.weights) {
    CHECK(w < 0);
    CHECK(w > T(-0.01));
  }
}

TEST_CASE_TEMPLATE("SGDS is SGD with a decoupled decay times (1 - dampening)/(1 - momentum)", T, float, double)
{
  support::random r(10);
  const auto start = draw<T>(r);
  walk corrected(sgds{.lr = 0.1, .momentum = 0.9, .dampening = 0.25, .weight_decay = 1e-2}.rule(), start);
  walk decoupled(compose(0.1, first_moment::momentum{.momentum = 0.9, .dampening = 0.25}, second_moment::none{},
                         step_size::constant{}, decay::decoupled{1e-2 * (1 - 0.25) / (1 - 0.9)}),
                 start);
  for (int t = 1; t <= 100; ++t) {
    const auto g = draw<T>(r);
    corrected.step(g);
    decoupled.step(g);
    REQUIRE(largest_difference(corrected.weights, decoupled.weights) < (sizeof(T) == 4 ? 1e-4 : 1e-12));
  }
}

TEST_CASE_TEMPLATE("AMSGrad is Adam as long as the second moment grows", T, float, double)
{
  support::random r(11);
  const auto start = draw<T>(r);
  walk running_maximum(amsgrad{.lr = 0.01, .beta2 = 0.9}.rule(), start);
  walk average(adam{.lr = 0.01, .beta2 = 0.9}.rule(), start);
  auto g = draw<T>(r);
  for (int t = 1; t <= 40; ++t) {
    for (T& x : g)
      x *= T(t <= 30 ? -1.1 : 0.1);
    running_maximum.step(g);
    average.step(g);
    REQUIRE(equal(running_maximum.weights, average.weights) == (t <= 30));
  }
}

// ── what float would round away, or overflow at ───────────────────────────────────────────────────────────────────────

namespace {

// The mean of 256 weights that start from 1, after 2000 gradients of about ±1.
template <class T, class Rule>
double mean_after_noise(const Rule& rule)
{
  walk x(rule, std::vector<T>(256, T(1)));
  support::random r(12);
  std::vector<T> g(256);
  for (int t = 1; t <= 2000; ++t) {
    for (T& e : g)
      e = T(float(r.chance(0.5) ? r.uniform(0.9, 1.1) : r.uniform(-1.1, -0.9)));
    x.step(g);
  }
  double mean = 0;
  for (const T w : x.weights)
    mean += double(w) / 256;
  return mean;
}

}  // namespace

TEST_CASE("step: a decay too small for 1 - s in float is not lost, nor rounded up")
{
  const auto check = [](const char* name, double s_for_one, const auto& with_weight_decay) {
    const double undecayed = mean_after_noise<double>(with_weight_decay(0)), rounded = mean_after_noise<float>(with_weight_decay(0));
    for (const double s : {1e-8, 4e-8, 1e-7, 1e-6}) {
      CAPTURE(std::string(name));
      CAPTURE(s);
      const auto rule = with_weight_decay(s / s_for_one);
      const double exact = undecayed - mean_after_noise<double>(rule);
      CHECK(exact > 1000 * s);
      CHECK((rounded - mean_after_noise<float>(rule)) / exact == doctest::Approx(1).epsilon(0.03));
    }
  };
  check("decoupled", 1e-3, [](double wd) { return adamw{.weight_decay = wd}.rule(); });
  check("scheduled", 1e-3, [](double wd) { return adams{.weight_decay = wd}.rule(); });
  check("scheduled, two passes", 1e-3, [](double wd) {
    return compose(1e-3, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{}, decay::scheduled{wd});
  });
  check("stable", 1e-2, [](double wd) { return sgds{.momentum = 0.9, .weight_decay = wd}.rule(); });
  check("stable, idle", 1e-3, [](double wd) { return sgds{.weight_decay = wd}.rule(); });
  check("l2_or_decoupled", 1e-3, [](double wd) { return radam{.weight_decay = wd, .decoupled_weight_decay = true}.rule(); });
  check("independent", 1, [](double wd) {
    return compose(1e-3, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay::independent{wd});
  });
}

TEST_CASE_TEMPLATE("a decay of 0 gives the bits of none, one of 1 leaves the step alone", T, float, double)
{
  support::random r(13);
  const auto start = draw<T>(r), zeros = std::vector<T>(start.size(), T(0));
  const auto sgd_with = [](const auto& decay) {
    return compose(0.3, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay);
  };
  walk none(sgd_with(decay::none{}), start), of_zeros(sgd_with(decay::none{}), zeros);
  walk independent(sgd_with(decay::independent{0}), start);
  walk decoupled(sgd_with(decay::decoupled{0}), start);
  walk either(sgd_with(decay::l2_or_decoupled{0, true}), start);
  walk stable(sgds{.lr = 0.3}.rule(), start);
  walk whole(sgd_with(decay::independent{1}), start);
  const auto g = draw<T>(r);
  none.step(g), of_zeros.step(g), independent.step(g), decoupled.step(g), either.step(g), stable.step(g), whole.step(g);
  CHECK(equal(independent.weights, none.weights));
  CHECK(equal(decoupled.weights, none.weights));
  CHECK(equal(either.weights, none.weights));
  CHECK(equal(stable.weights, none.weights));
  CHECK(equal(whole.weights, of_zeros.weights));
}

TEST_CASE_TEMPLATE("a second moment is finite wherever (1 - beta2)g² is, and the weight moves on", T, float, double)
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

TEST_CASE_TEMPLATE("Yogi's second moment never falls below zero", T, float, double)
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

TEST_CASE_TEMPLATE("where v = 0, a divisor that vanishes or nearly does lets a zero gradient move nothing", T, float, double)
{
  constexpr bool single = sizeof(T) == 4;
  for (const double eps : {0.0, single ? 1e-46 : 5e-324, single ? 1e-40 : 1e-320, single ? 1e-38 : 1e-307})
    for (const double lr : {0.01, 0.0, single ? 1e30 : 1e300}) {
      const auto check = [&](const char* name, const auto& second, const auto& step, const auto& decay) {
        CAPTURE(std::string(name));
        CAPTURE(eps);
        CAPTURE(lr);
        // β₂ = 0.7, so that `rectified` has both forms in ten steps
        walk x(compose(lr, first_moment::ema{}, second, step, decay), std::vector<T>{T(1), T(-2), T(0)});
        const auto start = x.weights;
        for (int t = 1; t <= 12; ++t)
          x.step({T(0), T(0), T(-0.0)});
        CHECK(equal(x.weights, start));
      };
      const auto check_step = [&](const char* name, const auto& step) {
        check(name, second_moment::ema{0.7}, step, decay::none{});
        check(name, second_moment::ema_max{0.7}, step, decay::decoupled{0});
        check(name, second_moment::yogi{0.7, 0}, step, decay::scheduled{0.1});
      };
      check_step("adaptive", step_size::adaptive{eps});
      check_step("bounded", step_size::bounded{eps});
      check_step("partially_adaptive", step_size::partially_adaptive{eps});
      check_step("partially_adaptive, the whole root", step_size::partially_adaptive{eps, 0.5});
      check_step("partially_adaptive, by pow", step_size::partially_adaptive{eps, 0.45});
      check_step("rectified", step_size::rectified{eps});
    }
}

TEST_CASE_TEMPLATE("without eps, gradients whose squares are rounded to 0 move the weights no further than Adam may", T, float, double)
{
  for (int exponent = sizeof(T) == 4 ? -149 : -1074; exponent < 10; exponent += 3) {
    walk x(adam{.lr = 0.01, .eps = 0}.rule(), std::vector<T>{T(0)});
    const std::vector<T> g{T(std::ldexp(1.0, exponent))};
    for (int t = 1; t <= 10; ++t)
      x.step(g);
    CHECK(std::fabs(double(x.weights[0])) <= 10 * 0.01 / std::sqrt(1 - 0.999));
  }
}

TEST_CASE_TEMPLATE("eps that T holds well is what it was", T, float, double)
{
  for (const double eps : {1e-8, 1e-15, 1e-20}) {
    const auto rule = adam{.eps = eps}.rule();
    CHECK(rule.step_size.template prepare<T>(make_step_scalars(rule, 1'000'000, 1)).eps == T(eps));
    CHECK(step_size::bounded{.eps = eps}.template prepare<T>(step_scalars{}).inner.eps == T(eps));
    CHECK(step_size::partially_adaptive{.eps = eps}.template prepare<T>(step_scalars{}).eps == T(eps));
  }
}

// ── scalars of a step ─────────────────────────────────────────────────────────────────────────────────────────────────

// By Python's decimal in 80 digits: b = Decimal(beta); p = b**t; 2/(1-b) - 1 - 2*t*p/(1-p).
TEST_CASE("RAdam's length of the simple average is right to the last digits, for beta2 near 1 too")
{
  struct row {
    double beta, t, rho;
  };
  for (const row& x : {row{0.9, 2, 1.94736842105263159e+0},
                       row{0.9, 5, 4.58057190300603170e+0},
                       row{0.9, 10, 8.29320134424741043e+0},
                       row{0.9, 20, 1.34638696033788713e+1},
                       row{0.9, 1000, 1.90000000000000044e+1},
                       row{0.99, 6, 5.94137669235507880e+0},
                       row{0.99, 100, 8.35264939828788981e+1},
                       row{0.99, 1000, 1.98913653777504372e+2},
                       row{0.999, 5, 4.99599800040160120e+0},
                       row{0.999, 6, 5.99416375165671731e+0},
                       row{0.999, 100, 9.83329443227247371e+1},
                       row{0.999, 1000, 8.35967375610793437e+2},
                       row{0.999, 100000, 1.99899999999999822e+3},
                       row{0.99999, 6, 5.99994166637500192e+0},
                       row{0.99999, 100000, 8.36045793009582186e+4},
                       row{0.99999999, 4, 3.99999997499999975e+0},
                       row{0.99999999, 5, 4.99999995999999960e+0},
                       row{0.99999999, 6, 5.99999994166666608e+0},
                       row{0.99999999, 1000, 9.99998333334983295e+2},
                       row{0.99999999, 2e9, 1.99999989750435296e+8},
                       row{0.999999999, 4, 3.99999999750000007e+0},
                       row{0.999999999, 5, 4.99999999600000011e+0},
                       row{0.999999999, 6, 5.99999999416666683e+0},
                       row{0.999999999, 100000, 9.99983333333800810e+4},
                       row{0.999999999, 2e9, 1.37392944433353753e+9},
                       row{0.999999999999, 5, 4.99999999999600009e+0},
                       row{0.999999999999, 6, 5.99999999999416680e+0},
                       row{0.999999999999, 2e9, 1.99933334812558791e+9},
                       row{0.9999999999999999, 5, 4.99999999999999956e+0},
                       row{0.9999999999999999, 6, 5.99999999999999935e+0},
                       row{0.9999999999999999, 2e9, 1.99999992598513169e+9}}) {
    CAPTURE(x.beta);
    CAPTURE(x.t);
    CHECK(std::fabs(step_size::average_length(x.beta, x.t, one_minus_power(x.beta, x.t)) / x.rho - 1) < 2e-15);
  }
}

TEST_CASE_TEMPLATE("RAdam rectifies from the sixth step on, however near beta2 is to 1", T, float, double)
{
  for (const double beta2 : {0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-8, 1 - 1e-9, 1 - 1e-12, 1 - 0x1p-53}) {
    const auto rule = radam{.beta2 = beta2}.rule();
    for (std::uint64_t t = 1; t <= 50; ++t) {
      const auto a = rule.step_size.template prepare<T>(make_step_scalars(rule, t, 1, 0));
      CHECK((a.hi > a.lo) == (t >= 6));
    }
  }
}

// By Python's decimal in 80 digits: 1 - Decimal(beta)**t.
TEST_CASE("the bias corrections are right to the last digits, for a beta near 1 too")
{
  struct row {
    double beta, t, correction;
  };
  for (const row& x : {row{0.9, 2, 1.89999999999999960e-1},
                       row{0.9, 7, 5.21703099999999917e-1},
                       row{0.95, 2, 9.75000000000000844e-2},
                       row{0.99, 3, 2.97010000000000261e-2},
                       row{0.999, 1, 1.00000000000000089e-3},
                       row{0.999, 2, 1.99900000000000177e-3},
                       row{0.999, 10, 9.95511979025179892e-3},
                       row{0.999, 64, 6.20250361741545028e-2},
                       row{0.999, 65, 6.29630111379803491e-2},
                       row{0.999, 1000, 6.32304575229036282e-1},
                       row{0.99999, 2, 1.99998999999089804e-5},
                       row{0.99999999, 2, 2.00000000004951845e-8},
                       row{0.99999999, 1000, 9.99995010041325737e-6},
                       row{0.999999999, 3, 2.99999991215420578e-9},
                       row{0.999999999, 2e9, 8.64664709243635965e-1},
                       row{0.9999999999999999, 7, 7.77156117237609319e-16}})
    CHECK(std::fabs(one_minus_power(x.beta, x.t) / x.correction - 1) < 3e-15);
  CHECK(one_minus_power(0, 1) == 1);
  CHECK(one_minus_power(0, 1000) == 1);
  CHECK(one_minus_power(0.999, 1) == 1 - 0.999);
}
