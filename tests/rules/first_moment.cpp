// First moments: what the gradient g becomes as the direction d.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/scene.hpp"
#include "support/walk.hpp"

namespace {

using support::check_refused, support::draw, support::scalar_optimizer, support::walk;

namespace first_moment = gradus::first_moment;

// The largest difference in 50 steps between plain descent along d and a loop in double. \param direction direction(t,
// g, s) is d, and moves the state s of an element, which starts from `start`
template <class T, class Rule, class Loop>
double worst_difference(const Rule& rule, const Loop& direction, double start = 0)
{
  constexpr std::size_t n = 37;
  support::random r(20);
  walk x(gradus::compose(0.1, rule, gradus::second_moment::none{}, gradus::step_size::constant{},
                         gradus::decay::none{}),
         draw<T>(r, n));
  std::vector<double> weights(x.weights.begin(), x.weights.end()), state(n, start);
  double worst = 0;
  for (int t = 1; t <= 50; ++t) {
    auto g = draw<T>(r, n);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == 0 || (t > 25 && i % 3 == 0))
        g[i] = 0;
      weights[i] -= 0.1 * direction(t, double(g[i]), state[i]);
    }
    x.step(g);
    for (std::size_t i = 0; i < n; ++i)
      worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
  }
  return worst;
}

template <class T>
constexpr double rounding = sizeof(T) == 4 ? 1e-5 : 1e-13;

}  // namespace

TEST_CASE_TEMPLATE("none: d = g", T, float, double)
{
  CHECK(worst_difference<T>(first_moment::none{}, [](int, double g, double&) { return g; }) < rounding<T>);
}

TEST_CASE_TEMPLATE("momentum: the equation, with dampening and nesterov, to the limits of both", T, float, double)
{
  for (const first_moment::momentum& rule : {first_moment::momentum{.momentum = 0.9},
                                             {.momentum = 0.9, .nesterov = true},
                                             {.momentum = 0.99, .dampening = 0.25},
                                             {.momentum = 0.5, .dampening = 1},
                                             {.momentum = 1 - 0x1p-20},
                                             {.momentum = 0},
                                             {.momentum = 0, .dampening = 0.5}}) {
    CAPTURE(rule.momentum);
    CAPTURE(rule.dampening);
    CHECK(worst_difference<T>(rule, [&](int t, double g, double& b) {
            if (rule.momentum == 0)
              return g;  // whatever the dampening
            b = t == 1 ? g : rule.momentum * b + (1 - rule.dampening) * g;
            return rule.nesterov ? g + rule.momentum * b : b;
          }) < rounding<T>);
  }
}

TEST_CASE_TEMPLATE("momentum: in the first step the buffer is the gradient, of zero gradients it stays 0", T, float,
                   double)
{
  walk x(gradus::compose(0.1, first_moment::momentum{.dampening = 0.5}, gradus::second_moment::none{},
                         gradus::step_size::constant{}, gradus::decay::none{}),
         std::vector<T>{1, 1, 1});
  x.step({T(0.3), T(-2), T(0)});
  CHECK(x.slots[0] == std::vector<T>{T(0.3), T(-2), T(0)});
  CHECK(x.weights[2] == 1);
  x.step({T(0), T(0), T(0)});
  CHECK(x.slots[0] == std::vector<T>{T(0.9) * T(0.3), T(0.9) * T(-2), T(0)});
  CHECK(x.weights[2] == 1);
}

TEST_CASE_TEMPLATE("ema: the equation, for beta1 from 0 to almost 1, and from another start", T, float, double)
{
  for (const first_moment::ema& rule : {first_moment::ema{},
                                        {.beta1 = 0},
                                        {.beta1 = 0.5},
                                        {.beta1 = 1 - 0x1p-20},
                                        {.beta1 = 0.9, .initial_accumulator = 0.25}}) {
    CAPTURE(rule.beta1);
    CHECK(worst_difference<T>(
              rule, [&](int, double g, double& m) { return m = rule.beta1 * m + (1 - rule.beta1) * g; },
              rule.initial_accumulator) < rounding<T>);
  }
}

TEST_CASE("first_moment: bias corrections and gains")
{
  CHECK(first_moment::none{}.correction(3) == 1);
  CHECK(first_moment::momentum{}.correction(3) == 1);
  CHECK(first_moment::ema{.beta1 = 0.5}.correction(1) == 0.5);
  CHECK(first_moment::ema{.beta1 = 0.5}.correction(3) == 0.875);
  CHECK(first_moment::ema{.beta1 = 0}.correction(1) == 1);
  CHECK(first_moment::momentum{.momentum = 0.75, .dampening = 0.5}.gain() == 2);
  CHECK(first_moment::momentum{.momentum = 0}.gain() == 1);
  CHECK(first_moment::momentum{.momentum = 0.5, .dampening = 1}.gain() == 0);
}

TEST_CASE("momentum: nesterov without a momentum, or with dampening, is refused")
{
  const std::string expected = "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false";
  const gradus::sgd without_momentum{.nesterov = true};
  const gradus::sgds dampened{.momentum = 0.9, .dampening = 0.5, .nesterov = true};
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgd>{without_momentum},
                       ("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected).c_str(),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgds>{dampened},
                       ("gradus: nesterov is 1 with momentum 0.9 and dampening 0.5" + expected).c_str(),
                       std::invalid_argument);
  CHECK_NOTHROW(scalar_optimizer<gradus::sgd>({.momentum = 0.9, .nesterov = true}));
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.set_hyperparameters(without_momentum, s.undecayed); },
                             {.momentum = 0.5});
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.add_group(without_momentum); });
}
