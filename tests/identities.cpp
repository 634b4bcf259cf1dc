// What the equations imply, whoever wrote them down: relations between optimizers, most of them to the bit.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using namespace gradus;
using support::draw, support::equal, support::largest_difference, support::walk;

// The same equation as `ema`, but one that does not say so: a scheduled decay then takes two passes.
struct ema_of_unknown_sum : second_moment::ema {
  static constexpr bool linear = false;
};

}  // namespace

TEST_CASE_TEMPLATE("adam, adamw, adams: equal without weight decay", T, float, double)
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
TEST_CASE_TEMPLATE("padam: with partial = 1/2 and eps = 0 it is AMSGrad", T, float, double)
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

TEST_CASE_TEMPLATE("padam: with partial = 0 it is momentum", T, float, double)
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

TEST_CASE_TEMPLATE("RAdam: the first five steps are bias-corrected momentum, the sixth is not", T, float, double)
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

TEST_CASE_TEMPLATE("adabound: the step tends to final_lr times the first moment, and follows the schedule", T, float,
                   double)
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
TEST_CASE_TEMPLATE("SGD: all decays agree while lr is constant, and differ once it drops", T, float, double)
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
TEST_CASE_TEMPLATE("AdamS: gradients c times as large give the same step and 1/c of the decay", T, float, double)
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

TEST_CASE_TEMPLATE("scheduled decay: one pass gives the result of two passes", T, float, double)
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

TEST_CASE_TEMPLATE("sgds: is SGD with a decoupled decay times (1 - dampening)/(1 - momentum)", T, float, double)
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

TEST_CASE_TEMPLATE("amsgrad: is Adam as long as the second moment grows", T, float, double)
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
