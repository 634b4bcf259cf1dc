// Slots: how many bytes they take, and what they start from, in every type of state.

#include <doctest/doctest.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/own_rules.hpp"
#include "support/precision_model.hpp"

using namespace support;

// With 8-bit state, which has no spans of values, every member of the class compiles, too.
template class gradus::optimizer<gradus::adam, gradus::precision<float, float, gradus::block8>,
                                 gradus::backend::scalar>;

TEST_CASE("state_bytes: of every recipe")
{
  const auto check = [](auto recipe, std::size_t expected) {
    using Recipe = decltype(recipe);
    std::vector<float> w(100, 1.0f), g(100, 1.0f);
    std::vector<double> v(100, 1.0), d(100, 1.0);
    gradus::optimizer<Recipe> opt(recipe);
    CHECK(opt.state_bytes() == 0);
    opt.add(w, g);
    CHECK(opt.state_bytes() == expected * 100);
    gradus::optimizer<Recipe, double> in_double(recipe);
    in_double.add(v, d);
    CHECK(in_double.state_bytes() == 2 * expected * 100);
  };
  check(gradus::sgd{}, 0);
  check(gradus::sgd{.momentum = 0.9}, 4);
  check(gradus::sgds{.momentum = 0.9}, 4);
  check(gradus::adam{}, 8);
  check(gradus::adamw{}, 8);
  check(gradus::adams{}, 8);
  check(gradus::amsgrad{}, 12);
  check(gradus::yogi{}, 8);
  check(gradus::adabound{}, 8);
  check(gradus::padam{}, 12);
  check(gradus::radam{}, 8);
  static_assert(gradus::optimizer<gradus::adam>::rule_type::state_bytes<float> == 8);
  static_assert(gradus::optimizer<gradus::padam>::rule_type::state_bytes<double> == 24);
  static_assert(gradus::optimizer<gradus::sgd>::rule_type::state_bytes<float> == 4);
}

TEST_CASE("state_bytes: of every type of state")
{
  const auto bytes = []<class T>(std::type_identity<T>) {
    std::vector<parameter_of<T>> w(1000);
    std::vector<gradient_of<T>> g(1000);
    gradus::optimizer<gradus::adam, T> opt;
    opt.add(w, g);
    return opt.state_bytes();
  };
  CHECK(bytes(std::type_identity<float>{}) == 8000);
  CHECK(bytes(std::type_identity<bf16_state>{}) == 4000);
  CHECK(bytes(std::type_identity<block8_state>{}) == 2 * (1000 + 4 * 4));
  CHECK(bytes(std::type_identity<bf16_master>{}) == 12000);
  CHECK(bytes(std::type_identity<bf16_all>{}) == 4000);
}

TEST_CASE_TEMPLATE("slots: a slot of the caller's rule starts from the rule's value in short state, too", T, bf16_state,
                   block8_state)
{
  const auto rule = gradus::compose(0.5, own::blended{.inner = {.beta1 = 0.5, .initial_accumulator = 0.25}},
                                    gradus::second_moment::none{}, gradus::step_size::constant{},
                                    gradus::decay::none{});
  std::vector<float> w(300, 1.0f), g(300, 0.0f);
  gradus::optimizer<std::remove_const_t<decltype(rule)>, T> opt(rule);
  opt.add(w, g);
  opt.step();
  for (const float x : w)
    REQUIRE(x == doctest::Approx(1 - 0.5 * 0.5 * 0.25).epsilon(1e-3));
}

namespace {

// Minimises Σ (k+1)·(w_k − 1)² from 0: how far from 1 the weights are in the end.
template <class T, class Rule>
double distance_of_minimum(const Rule& rule)
{
  constexpr std::size_t n = 37;
  std::vector<float> w(n, 0.0f), g(n);
  gradus::optimizer<Rule, T> opt(rule);
  opt.add(w, g);
  for (int step = 0; step < 1000; ++step) {
    for (std::size_t k = 0; k < n; ++k)
      g[k] = 2 * float(k + 1) * (w[k] - 1);
    opt.step({.lr_scale = 1 - step / 1000.0});
  }
  double far = 0;
  for (const float x : w)
    far = std::fmax(far, std::fabs(double(x) - 1));
  return far;
}

}  // namespace

TEST_CASE("8-bit state: a second moment of one's own keeps its zeros from dividing")
{
  const auto rule = gradus::compose(0.02, gradus::first_moment::ema{}, own::belief{}, gradus::step_size::adaptive{},
                                    gradus::decay::none{});
  CHECK(distance_of_minimum<float>(rule) < 0.01);
  CHECK(distance_of_minimum<block8_state>(rule) < 0.3);
  CHECK(distance_of_minimum<bf16_state>(rule) < 0.3);
}
