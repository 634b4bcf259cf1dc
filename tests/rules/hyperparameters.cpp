// Hyperparameters: their lists, their names and their ranges.

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/own_rules.hpp"
#include "support/scene.hpp"

namespace {

using support::inf, support::not_a_number, support::scalar_optimizer, support::text;

// What is expected of each hyperparameter, and values outside it.
struct limits {
  const char* name;
  const char* expected;
  std::vector<double> outside;
};
const limits all_limits[] = {
    {"lr", "a finite number >= 0", {-1e-3, not_a_number, inf}},
    {"momentum", "a number in [0, 1)", {-0.1, 1, 1.5, not_a_number, inf}},
    {"dampening", "a number in [0, 1]", {-0.1, 1.5, not_a_number, inf}},
    {"beta1", "a number in [0, 1)", {-0.1, 1, 2, not_a_number, inf}},
    {"beta2", "a number in [0, 1)", {-0.1, 1, 2, not_a_number, inf}},
    {"eps", "a finite number >= 0", {-1e-8, not_a_number, inf}},
    {"weight_decay", "a finite number >= 0", {-0.01, not_a_number, inf}},
    {"initial_accumulator", "a finite number >= 0", {-1e-6, not_a_number, inf}},
    {"final_lr", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"gamma", "a number in (0, 1)", {-1e-3, 0, 1, not_a_number, inf}},
    {"partial", "a number in [0, 0.5]", {-0.125, 0.75, not_a_number, inf}},
    {"lr_decay", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"rho", "a number in [0, 1)", {-0.1, 1, not_a_number, inf}},
    {"rmsprop alpha", "a number in [0, 1)", {-0.1, 1, not_a_number, inf}},
    {"ademamix alpha", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"clip_exponent", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"momentum_decay", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"beta3", "a number in [0, 1)", {-0.1, 1, 2, not_a_number, inf}},
    {"t_alpha_beta3", "a finite number >= 0", {-1, not_a_number, inf}},
    {"beta0", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"adai eps", "a number in (0, 1)", {-0.1, 0, 1, not_a_number, inf}},
    {"adais eps", "a number in (0, 1)", {-0.1, 0, 1, not_a_number, inf}},
    {"schedule_free_adamw beta1", "a number in (0, 1)", {-0.1, 0, 1, not_a_number, inf}},
    {"warmup_steps", "a finite number >= 0", {-1, not_a_number, inf}},
    {"r", "a finite number >= 0", {-1, not_a_number, inf}},
    {"weight_lr_power", "a finite number >= 0", {-1, not_a_number, inf}},
};

}  // namespace

namespace listing {

using gradus::field, gradus::fields, gradus::lists_its_fields, gradus::range;

// What is listed, and what is forgotten where no size shows it: bools and ints beside a bool, in a derived rule too.
struct three {
  double a = 1;
  bool b = true;
  double c = 2;
  static constexpr auto fields = gradus::fields(field{"a", &three::a, range::any_number},
                                                field{"b", &three::b, range::yes_or_no},
                                                field{"c", &three::c, range::any_number});
};
struct two {
  double a = 1;
  bool b = true;
  static constexpr auto fields = gradus::fields(field{"a", &two::a, range::any_number},
                                                field{"b", &two::b, range::yes_or_no});
};
struct forgotten_bool {
  double a = 1;
  bool b = true, forgotten = false;
  static constexpr auto fields = gradus::fields(field{"a", &forgotten_bool::a, range::any_number},
                                                field{"b", &forgotten_bool::b, range::yes_or_no});
};
struct forgotten_int {
  double a = 1;
  bool b = true;
  int forgotten = 0;
  static constexpr auto fields = gradus::fields(field{"a", &forgotten_int::a, range::any_number},
                                                field{"b", &forgotten_int::b, range::yes_or_no});
};
struct only_a_bool {
  bool forgotten = false;
  static constexpr auto fields = gradus::fields();
};
struct one_twice {
  double a = 1, forgotten = 1;
  static constexpr auto fields = gradus::fields(field{"a", &one_twice::a, range::any_number},
                                                field{"b", &one_twice::a, range::any_number});
};
struct derived : two {};
struct derived_and_forgotten : two {
  bool forgotten = false;
};
struct derived_and_listed : two {
  bool c = false;
  static constexpr auto fields = gradus::fields(field{"a", &derived_and_listed::a, range::any_number},
                                                field{"b", &derived_and_listed::b, range::yes_or_no},
                                                field{"c", &derived_and_listed::c, range::yes_or_no});
};
struct around {
  gradus::first_moment::momentum inner;
  bool c = false;
  static constexpr auto fields = gradus::fields(gradus::fields_of(&around::inner),
                                                field{"c", &around::c, range::yes_or_no});
};
struct around_and_forgotten {
  gradus::first_moment::momentum inner;
  bool c = false, forgotten = false;
  static constexpr auto fields = gradus::fields(gradus::fields_of(&around_and_forgotten::inner),
                                                field{"c", &around_and_forgotten::c, range::yes_or_no});
};
struct nothing {};
struct nothing_listed {
  static constexpr auto fields = gradus::fields();
};

static_assert(lists_its_fields<three> && lists_its_fields<two> && lists_its_fields<derived> &&
              lists_its_fields<derived_and_listed>);
static_assert(lists_its_fields<around> && lists_its_fields<nothing> && lists_its_fields<nothing_listed>);
static_assert(!lists_its_fields<forgotten_bool> && !lists_its_fields<forgotten_int> && !lists_its_fields<only_a_bool>);
static_assert(!lists_its_fields<one_twice> && !lists_its_fields<derived_and_forgotten> &&
              !lists_its_fields<around_and_forgotten>);

}  // namespace listing

TEST_CASE("ranges: their limits are in them, or not, as their words say")
{
  using gradus::range, gradus::detail::contains, gradus::detail::expectation;
  constexpr double tiny = std::numeric_limits<double>::denorm_min(), most = std::numeric_limits<double>::max(),
                   below_one = 1 - 0x1p-53;
  struct row {
    range r;
    std::string_view words;
    std::vector<double> in, out;
  };
  for (const row& x : {row{range::any_number, "a finite number", {-most, 0, most}, {}},
                       row{range::at_least_zero, "a finite number >= 0", {-0.0, 0, tiny, most}, {-tiny}},
                       row{range::above_zero, "a finite number > 0", {tiny, most}, {0, -0.0, -tiny}},
                       row{range::at_least_one, "a finite number >= 1", {1, most}, {below_one, 0, -1}},
                       row{range::zero_to_below_one, "a number in [0, 1)", {0, below_one}, {-tiny, 1}},
                       row{range::zero_to_one, "a number in [0, 1]", {0, 1}, {-tiny, 1 + 0x1p-52}},
                       row{range::above_zero_below_one, "a number in (0, 1)", {tiny, below_one}, {0, 1}},
                       row{range::zero_to_half, "a number in [0, 0.5]", {0, 0.5}, {-tiny, 0.5 + 0x1p-53}},
                       row{range::yes_or_no, "0 or 1", {0, 1}, {tiny, 0.5, below_one, -1, 2}}}) {
    CAPTURE(x.words);
    CHECK(expectation(x.r) == x.words);
    for (const double in : x.in)
      CHECK(contains(x.r, in));
    for (const double out : x.out)
      CHECK_FALSE(contains(x.r, out));
    for (const double never : {not_a_number, inf, -inf})
      CHECK_FALSE(contains(x.r, never));
  }
}

TEST_CASE("for_each_hyperparameter: fields by name, in rules that hold or derive from others too")
{
  std::string seen;
  const auto visit = [&](std::string_view name, auto& field, gradus::range) {
    seen += std::string(name) + (std::is_same_v<decltype(field), bool&> ? "? " : " ");
    field = std::remove_reference_t<decltype(field)>(1);
  };
  own::blended first{};
  gradus::for_each_hyperparameter(first, visit);
  CHECK(seen == "beta1 initial_accumulator alpha plain? ");
  CHECK(first.inner.beta1 == 1);
  CHECK(first.alpha == 1);
  CHECK(first.plain);
  seen = "";
  own::deriving second{};
  gradus::for_each_hyperparameter(second, visit);
  CHECK(seen == "beta2 alpha ");
  CHECK(second.beta2 == 1);
  CHECK(second.alpha == 1);
}

TEST_CASE("hyperparameters outside their range are refused: of every recipe")
{
  int refused = 0;
  gradus::for_each_recipe([&]<class Recipe>(std::string_view recipe_name, std::type_identity<Recipe>) {
    CAPTURE(recipe_name);
    Recipe model;
    gradus::for_each_hyperparameter(model, [&](std::string_view name, auto& field, gradus::range) {
      using Field = std::remove_reference_t<decltype(field)>;
      if (std::is_same_v<Field, bool>)
        return;  // cannot be anything but a yes or a no
      const limits* limit = nullptr;
      for (const limits& l : all_limits)
        if (l.name == name || l.name == std::string(recipe_name) + ' ' + std::string(name))
          limit = &l;
      REQUIRE_MESSAGE(limit, name);
      const Field good = field;
      for (const double bad : limit->outside) {
        field = Field(bad);
        const std::string message = "gradus: " + std::string(name) + " is " + text(bad) + "; expected " +
                                    limit->expected;
        CHECK_THROWS_WITH_AS(scalar_optimizer<Recipe>{model}, message.c_str(), std::invalid_argument);
        scalar_optimizer<Recipe> opt;
        CHECK_THROWS_WITH_AS(opt.add_group(model), message.c_str(), std::invalid_argument);
        CHECK_THROWS_WITH_AS(opt.set_hyperparameters(model), message.c_str(), std::invalid_argument);
        CHECK(double(opt.hyperparameters().lr) == Recipe{}.lr);
        ++refused;
      }
      field = good;
    });
  });
  CHECK(refused > 150);
}

TEST_CASE("hyperparameters outside their range are refused: of a composition's rules")
{
  const auto composed = [](double lr, double beta1, double beta2, double eps, double weight_decay, double decay_eps) {
    return gradus::compose(lr, gradus::first_moment::ema{.beta1 = beta1},
                           gradus::second_moment::ema_max{.beta2 = beta2}, gradus::step_size::adaptive{.eps = eps},
                           gradus::decay::scheduled{.weight_decay = weight_decay, .eps = decay_eps});
  };
  using recipe = decltype(composed(0, 0, 0, 0, 0, 0));
  const auto make = [&](const recipe& r) { return scalar_optimizer<recipe>(r); };
  CHECK_NOTHROW(make(composed(0, 0, 0, 0, 0, 0)));
  CHECK_THROWS_WITH_AS(make(composed(-1, 0, 0, 0, 0, 0)), "gradus: lr is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 1, 0, 0, 0, 0)), "gradus: beta1 is 1; expected a number in [0, 1)",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 1, 0, 0, 0)), "gradus: beta2 is 1; expected a number in [0, 1)",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, -1, 0, 0)), "gradus: eps is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, 0, -1, 0)), "gradus: weight_decay is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, 0, 0, -2)), "gradus: eps is -2; expected a finite number >= 0",
                       std::invalid_argument);
}

TEST_CASE("hyperparameters outside their range are refused: of rules of one's own, in it and under it")
{
  own::blended first{};
  own::deriving second{};
  const auto make = [&] {
    const auto rule = gradus::compose(0.1, first, second, gradus::step_size::adaptive{}, gradus::decay::none{});
    return scalar_optimizer<std::remove_const_t<decltype(rule)>>(rule);
  };
  CHECK_NOTHROW(make());
  first.alpha = not_a_number;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is nan; expected a number in [0, 1]", std::invalid_argument);
  first.alpha = 1.5;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is 1.5; expected a number in [0, 1]", std::invalid_argument);
  first.alpha = 1;
  first.inner.beta1 = 1;
  CHECK_THROWS_WITH_AS(make(), "gradus: beta1 is 1; expected a number in [0, 1)", std::invalid_argument);
  first.inner.beta1 = 0;
  second.alpha = 0;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is 0; expected a finite number > 0", std::invalid_argument);
  second.alpha = 1;
  second.beta2 = not_a_number;
  CHECK_THROWS_WITH_AS(make(), "gradus: beta2 is nan; expected a number in [0, 1)", std::invalid_argument);
  second.beta2 = 0.9;
  // A running optimizer refuses likewise, and keeps what it has.
  auto opt = make();
  auto changed = opt.hyperparameters();
  changed.first_moment.alpha = -1;
  CHECK_THROWS_WITH_AS(opt.set_hyperparameters(changed), "gradus: alpha is -1; expected a number in [0, 1]",
                       std::invalid_argument);
  CHECK(opt.hyperparameters().first_moment.alpha == 1);
}
