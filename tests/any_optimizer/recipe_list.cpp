// any_optimizer over lists of recipes, and over a program's own.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"
#include "support/own_rules.hpp"
#include "support/refusal.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using gradus::all_recipes, gradus::all_recipes_and, gradus::recipe_list, gradus::recipe_names;
using support::checkpoint_of, support::load_bytes, support::refusal, support::same, support::tensor;

using own_list = recipe_list<gradus::adamw, own::warm>;
template <class T>
using own_any = gradus::any_optimizer<T, gradus::default_backend, own_list>;

// A recipe that has no name.
struct nameless : gradus::adamw {};
struct another_adamw {
  static constexpr std::string_view name = "adamw";
};
static_assert(gradus::detail::names_are_distinct<own_list>());
static_assert(gradus::detail::names_are_distinct<all_recipes>());
static_assert(gradus::detail::names_are_distinct<all_recipes_and<own::warm>>());
static_assert(!gradus::detail::names_are_distinct<recipe_list<nameless>>());
static_assert(!gradus::detail::names_are_distinct<recipe_list<gradus::sgd, gradus::sgd>>());
static_assert(!gradus::detail::names_are_distinct<recipe_list<gradus::adamw, another_adamw>>());
static_assert(!gradus::detail::names_are_distinct<all_recipes_and<another_adamw>>());
static_assert(
    std::is_same_v<gradus::any_optimizer<float>, gradus::any_optimizer<float, gradus::default_backend, all_recipes>>);
static_assert(std::is_same_v<gradus::any_optimizer_of<float, gradus::adamw, own::warm>, own_any<float>>);

}  // namespace

TEST_CASE("recipe_list: names and hyperparameters of the listed recipes alone")
{
  CHECK(recipe_names<own_list>() == std::vector<std::string_view>{"adamw", "warm"});
  auto all = recipe_names();
  CHECK(recipe_names<all_recipes>() == all);
  all.push_back("warm");
  CHECK(recipe_names<all_recipes_and<own::warm>>() == all);
  using list = std::vector<gradus::named_number>;
  CHECK((gradus::recipe_hyperparameters<own_list>("warm") ==
         list{{"lr", 1e-3}, {"inertia", 0.95}, {"warmth", 0.5}, {"weight_decay", 1e-2}}));
  CHECK(refusal([] { gradus::recipe_hyperparameters<own_list>("sgd"); }) ==
        "gradus: optimizer is \"sgd\"; expected one of adamw, warm");
  CHECK(refusal([] { own_any<float>("sgd"); }) == "gradus: optimizer is \"sgd\"; expected one of adamw, warm");
  CHECK(refusal([] { own_any<float>("worm"); }) ==
        "gradus: optimizer is \"worm\"; expected one of adamw, warm (\"warm\"?)");
  CHECK(refusal([] { own_any<float>("warm", {{"warmth", 1}}); }) == "gradus: warmth is 1; expected a number in [0, 1)");
  CHECK(
      refusal([] { own_any<float>("warm", {{"inerta", 0.5}}); }) ==
      "gradus: hyperparameter of warm is \"inerta\"; expected one of lr, inertia, warmth, weight_decay (\"inertia\"?)");
}

TEST_CASE_TEMPLATE("any_optimizer: a recipe of one's own has the bits of the optimizer of its type", T, float, double)
{
  tensor<T> a(70, 1), b = a, c = a;
  own_any<T> any("warm", {{"lr", 0.02}, {"warmth", 0.75}});
  gradus::optimizer<own::warm, T> typed({.lr = 0.02, .warmth = 0.75});
  CHECK(any.name() == "warm");
  any.add("a", a.weights, a.gradients);
  typed.add("a", b.weights, b.gradients);
  for (int t = 0; t < 10; ++t) {
    if (t == 5) {
      any.set_hyperparameters({{"inertia", 0.5}});
      typed.set_hyperparameters({.lr = 0.02, .inertia = 0.5, .warmth = 0.75});
    }
    a.compute(t);
    b.compute(t);
    any.step();
    typed.step();
  }
  CHECK(a.weights == b.weights);
  // The equation, in double.
  if constexpr (std::is_same_v<T, double>) {
    double m = 0, v = 0, product = 1, theta = c.weights[7], worst = 0;
    for (int t = 1; t <= 10; ++t) {
      const double g = c.slope[7] * theta + 0.3 * std::sin(7 + 0.7 * (t - 1));
      const double beta = (t > 5 ? 0.5 : 0.95) * (1 - std::pow(0.75, t));
      product *= beta;
      m = beta * m + (1 - beta) * g;
      v = 0.999 * v + 0.001 * g * g;
      const double step = 0.02 * (m / (1 - product)) / (std::sqrt(v / (1 - std::pow(0.999, t))) + 1e-8);
      theta -= 0.02 * 1e-2 * theta + step;
    }
    worst = std::fabs(theta - a.weights[7]);
    CHECK(worst < 1e-13);
  }
}

TEST_CASE("save, load: a recipe of one's own, with its hyperparameters, slots and scalars")
{
  tensor<float> a(70, 1);
  own_any<float> any("warm", {{"lr", 0.02}, {"warmth", 0.75}}), resumed("warm");
  any.add("a", a.weights, a.gradients);
  for (int t = 0; t < 3; ++t)
    any.step();
  const std::string bytes = checkpoint_of(any);
  for (const char* key :
       {"\"gradus/recipe\":\"warm\"", "\"gradus/group/0/warmth\":\"0.75\"", "state/a/warm_avg", "state/a/beta_product"})
    CHECK_MESSAGE(bytes.find(key) != std::string::npos, key);
  tensor<float> b = a, c = a;
  resumed.add("a", b.weights, b.gradients);
  load_bytes(resumed, bytes);
  CHECK(checkpoint_of(resumed) == bytes);
  // The optimizer of its type writes and reads the same file.
  gradus::optimizer<own::warm> typed;
  typed.add("a", c.weights, c.gradients);
  load_bytes(typed, bytes);
  CHECK(checkpoint_of(typed) == bytes);
  any.step();
  resumed.step();
  typed.step();
  CHECK(checkpoint_of(resumed) == checkpoint_of(any));
  CHECK(checkpoint_of(typed) == checkpoint_of(any));
  CHECK(same(a.weights, b.weights));
  std::string bad = bytes;
  bad.replace(bad.find("\"0.75\""), 6, "\"1.75\"");
  CHECK(refusal([&] { load_bytes(resumed, bad); }).ends_with("group 0: warmth is 1.75; expected a number in [0, 1)"));
}
