// Optimizers chosen by name: the same bits as those chosen by type, and what they refuse.

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>

#include "support/random.hpp"

namespace {

template <class T>
struct tensor {
  std::vector<T> weights, gradients;

  tensor(std::size_t n, std::uint64_t seed) : gradients(n)
  {
    support::random r(seed);
    for (std::size_t i = 0; i < n; ++i)
      weights.push_back(T(r.uniform(-1, 1)));
    compute(0);
  }
  void compute(int t)
  {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = T(1.5 * double(weights[i]) + 0.3 * std::sin(double(i) + 0.7 * t));
  }
  bool operator==(const tensor& other) const
  {
    return std::memcmp(weights.data(), other.weights.data(), weights.size() * sizeof(T)) == 0;
  }
};

// Values that are not the defaults, one for each hyperparameter there is.
const std::map<std::string_view, double> unusual{{"lr", 0.03},
                                                 {"momentum", 0.75},
                                                 {"dampening", 0.25},
                                                 {"nesterov", 0},
                                                 {"beta1", 0.8},
                                                 {"beta2", 0.95},
                                                 {"eps", 1e-4},
                                                 {"weight_decay", 0.07},
                                                 {"initial_accumulator", 1e-3},
                                                 {"final_lr", 0.2},
                                                 {"gamma", 0.02},
                                                 {"partial", 0.2},
                                                 {"decoupled_weight_decay", 1},
                                                 {"lr_decay", 0.01},
                                                 {"rho", 0.8},
                                                 {"alpha", 0.9},
                                                 {"centered", 1},
                                                 {"clip_exponent", 0.5},
                                                 {"beta3", 0.98},
                                                 {"t_alpha_beta3", 5},
                                                 {"momentum_decay", 0.02},
                                                 {"warmup_steps", 5},
                                                 {"r", 1},
                                                 {"weight_lr_power", 1.5},
                                                 {"beta0", 0.2}};

// What recipe_names() lists, as error messages have it.
const std::string all_names =
    "sgd, sgds, adam, adamw, adams, amsgrad, yogi, adabound, padam, radam, adagrad, adadelta, "
    "adamax, rmsprop, adabelief, adopt, ademamix, lion, nadam, adan, schedule_free_adamw, "
    "lamb, stable_adamw, cautious_adamw, adai, adais";

using checkpoint = std::map<std::string, std::string>;

template <class Optimizer>
checkpoint save(Optimizer& opt)
{
  checkpoint c;
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    c[std::string(name) + '/' + std::string(key)].assign(reinterpret_cast<const char*>(values.data()),
                                                         values.size_bytes());
  });
  return c;
}

template <class Optimizer>
void restore(Optimizer& opt, const checkpoint& c)
{
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    const std::string& bytes = c.at(std::string(name) + '/' + std::string(key));
    REQUIRE(bytes.size() == values.size_bytes());
    std::memcpy(values.data(), bytes.data(), bytes.size());
  });
}

// The same life for both: groups, a late tensor, one left out and rebound, clipping, a change of lr.
template <class Optimizer, class Group, class Slow>
std::vector<tensor<float>> live(Optimizer& opt, const Group& add_undecayed_group, const Slow& slow_down)
{
  std::vector<tensor<float>> model{{5, 1}, {67, 2}, {19, 3}};
  const auto group = add_undecayed_group(opt);
  opt.add("first", model[0].weights, model[0].gradients);
  const auto second = opt.add(model[1].weights, model[1].gradients, group);
  for (int t = 0; t < 12; ++t) {
    if (t == 2)
      opt.add("late", model[2].weights, model[2].gradients);
    t == 5 ? opt.freeze(second) : opt.unfreeze(second);
    if (t == 7)
      slow_down(opt, group);
    if (t == 8) {
      tensor<float> moved = model[1];
      model[1].weights.swap(moved.weights);
      opt.rebind(second, model[1].weights, model[1].gradients);
    }
    for (auto& x : model)
      x.compute(t);
    const auto report = opt.step({.lr_scale = t > 9 ? 0.1 : 1, .max_grad_norm = 2});
    CHECK(report.applied);
    CHECK(report.grad_norm > 0);
  }
  CHECK(opt.step_count(second) == 11);
  CHECK(opt.parameter_count() == 91);
  return model;
}

}  // namespace

TEST_CASE("recipe_names: all recipes, in their order")
{
  std::string names;
  for (const std::string_view name : gradus::recipe_names())
    (names += names.empty() ? "" : ", ") += name;
  CHECK(names == all_names);
}

TEST_CASE("recipe_hyperparameters: of each recipe, with their defaults")
{
  using list = std::vector<gradus::named_number>;
  const auto of = [](std::string_view name) { return gradus::recipe_hyperparameters(name); };
  const list sgd{{"lr", 1e-3}, {"momentum", 0}, {"dampening", 0}, {"nesterov", 0}, {"weight_decay", 0}};
  list adam{{"lr", 1e-3}, {"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weight_decay", 0}};
  CHECK((of("sgd") == sgd));
  CHECK((of("sgds") == sgd));
  CHECK((of("adam") == adam));
  CHECK((of("amsgrad") == adam));
  adam.back().second = 1e-2;
  CHECK((of("adamw") == adam));
  adam.back().second = 1e-4;
  CHECK((of("adams") == adam));
  CHECK((of("yogi") == list{{"lr", 1e-2},
                            {"beta1", 0.9},
                            {"beta2", 0.999},
                            {"eps", 1e-3},
                            {"weight_decay", 0},
                            {"initial_accumulator", 1e-6}}));
  CHECK((of("adabound") == list{{"lr", 1e-3},
                                {"beta1", 0.9},
                                {"beta2", 0.999},
                                {"eps", 1e-8},
                                {"weight_decay", 0},
                                {"final_lr", 0.1},
                                {"gamma", 1e-3}}));
  CHECK((of("padam") ==
         list{{"lr", 0.1}, {"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weight_decay", 0}, {"partial", 0.25}}));
  CHECK((of("radam") == list{{"lr", 1e-3},
                             {"beta1", 0.9},
                             {"beta2", 0.999},
                             {"eps", 1e-8},
                             {"weight_decay", 0},
                             {"decoupled_weight_decay", 0}}));
  // And an optimizer that is given none has just these.
  for (const auto name : gradus::recipe_names())
    CHECK((gradus::any_optimizer<float>(name).hyperparameters() == of(name)));
}

TEST_CASE("any_optimizer: has the bits of the optimizer chosen by type")
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    CAPTURE(name);
    Recipe recipe;
    std::vector<gradus::named_number> numbers;
    gradus::for_each_hyperparameter(recipe, [&](std::string_view field, auto& value, gradus::range) {
      value = static_cast<std::remove_reference_t<decltype(value)>>(unusual.at(field));
      numbers.emplace_back(field, unusual.at(field));
    });
    gradus::optimizer<Recipe> typed(recipe);
    const auto expected = live(
        typed,
        [](auto& opt) {
          Recipe r = opt.hyperparameters();
          r.weight_decay = 0;
          return opt.add_group(r);
        },
        [](auto& opt, const gradus::group_handle& g) {
          Recipe r = opt.hyperparameters(g);
          r.lr /= 2;
          opt.set_hyperparameters(r, g);
        });
    gradus::any_optimizer<float> any(name, numbers);
    CHECK(any.name() == name);
    CHECK((any.hyperparameters() == numbers));
    const auto model = live(
        any, [](auto& opt) { return opt.add_group({{"weight_decay", 0}}); },
        [](auto& opt, const gradus::group_handle& g) { opt.set_hyperparameters({{"lr", unusual.at("lr") / 2}}, g); });
    CHECK((model == expected));
    CHECK(any.state_bytes() == typed.state_bytes());
    CHECK((save(any) == save(typed)));
    using rule = typename gradus::optimizer<Recipe>::rule_type;
    using first = decltype(rule::first_moment);
    std::string_view slot;
    if constexpr (first::slots.size() > 0)
      slot = first::slots[0].name;
    else
      slot = decltype(rule::second_moment)::slots[0].name;
    CHECK(any.state("first", slot).size() == 5);
    CHECK(std::as_const(any).state("tensor1", slot).size() == 67);
    CHECK(any.state("late", slot)[18] == typed.state("late", slot)[18]);
  });
}

TEST_CASE("add_group: groups start from the default group, not from each other")
{
  gradus::any_optimizer<float> opt("adamw", {{"lr", 0.5}});
  const auto a = opt.add_group({{"weight_decay", 0}});
  const auto b = opt.add_group({{"beta1", 0.5}});
  using list = std::vector<gradus::named_number>;
  CHECK((opt.hyperparameters(a) ==
         list{{"lr", 0.5}, {"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weight_decay", 0}}));
  CHECK((opt.hyperparameters(b) ==
         list{{"lr", 0.5}, {"beta1", 0.5}, {"beta2", 0.999}, {"eps", 1e-8}, {"weight_decay", 1e-2}}));
  opt.set_hyperparameters({{"eps", 1}}, b);
  CHECK(opt.hyperparameters(b)[3].second == 1);
  CHECK(opt.hyperparameters(b)[1].second == 0.5);  // what is not named keeps its value
  CHECK(opt.hyperparameters()[3].second == 1e-8);
}

TEST_CASE("add_group, set_lr_scale, step: options of groups and steps are passed on")
{
  std::vector<float> w{1}, v{1};
  const std::vector<float> g{1};
  gradus::any_optimizer<float> opt("sgd", {{"lr", 1}, {"weight_decay", 1}});
  const auto slow = opt.add_group({{"weight_decay", 0}}, {.lr_scale = 0.25});
  CHECK(opt.lr_scale(slow) == 0.25);
  CHECK(opt.lr_scale() == 1);
  opt.add(w, g);
  opt.add(v, g, slow);
  opt.step({.lr = 0.5, .decay_scale = 0});
  CHECK(w[0] == 0.5f);
  CHECK(v[0] == 0.875f);
  opt.set_lr_scale(2, slow);
  opt.step({.lr = 0.5, .decay_scale = 0, .maximize = true});
  CHECK(w[0] == 1);
  CHECK(v[0] == 1.875f);
}

TEST_CASE("visit_state: a run that is saved and goes on in another keeps its bits")
{
  // AdamS has all kinds of state: arrays, counts, and sums in double beside arrays in float.
  for (const int cut : {0, 1, 6}) {
    tensor<float> a(37, 1), b(5, 2), c(37, 1), d(5, 2);
    const std::vector<gradus::named_number> numbers{{"lr", 0.01}, {"weight_decay", 0.1}};
    gradus::any_optimizer<float> whole("adams", numbers);
    whole.add("a", a.weights, a.gradients);
    whole.add("b", b.weights, b.gradients);
    auto part = std::make_unique<gradus::any_optimizer<float>>("adams", numbers);
    part->add("a", c.weights, c.gradients);
    part->add("b", d.weights, d.gradients);
    for (int t = 0; t < 10; ++t) {
      if (t == cut) {
        const checkpoint saved = save(*part);
        part = std::make_unique<gradus::any_optimizer<float>>("adams", numbers);
        part->add("a", c.weights, c.gradients);
        part->add("b", d.weights, d.gradients);
        restore(*part, saved);
        CHECK((save(*part) == saved));
      }
      for (auto* x : {&a, &b, &c, &d})
        x->compute(t);
      whole.step();
      part->step();
    }
    CHECK(a == c);
    CHECK(b == d);
  }
}

TEST_CASE("double, and a backend that is named: tensors are removed and the optimizer moved")
{
  std::vector<double> w{1, 2, 3}, v = w, g{1, -1, 0.5};
  gradus::any_optimizer<double, gradus::backend::scalar> first("adams", {{"weight_decay", 0.5}},
                                                               gradus::backend::scalar{});
  gradus::optimizer<gradus::adams, double, gradus::backend::scalar> typed({.weight_decay = 0.5});
  const auto h = first.add("w", w, g);
  typed.add("w", v, g);
  first.step();
  typed.step();
  gradus::any_optimizer<double, gradus::backend::scalar> opt(std::move(first));
  const auto report = opt.step();
  CHECK(report.mean_square == typed.step().mean_square);
  CHECK((w == v));
  CHECK((save(opt) == save(typed)));
  for (double& x : opt.state("w", "exp_avg_sq"))
    x *= 4;
  for (double& x : typed.state("w", "exp_avg_sq"))
    x *= 4;
  opt.recompute_second_moment_sum();
  typed.recompute_second_moment_sum();
  CHECK(opt.step().mean_square == typed.step().mean_square);
  CHECK((w == v));
  opt.remove(h, gradus::removed_state::kept);
  CHECK(opt.parameter_count() == 0);
  CHECK(opt.step_count(opt.add("w", w, g)) == 3);
}

TEST_CASE("any_optimizer: unknown names are refused with the nearest name")
{
  using any = gradus::any_optimizer<float>;
  const std::string message = "gradus: optimizer is \"amdaw\"; expected one of " + all_names + " (\"adamw\"?)";
  CHECK_THROWS_WITH_AS(any("amdaw"), message.c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(gradus::recipe_hyperparameters("amdaw"), message.c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(any("sgd", {{"momentun", 0.9}}),
                       "gradus: hyperparameter of sgd is \"momentun\"; expected one of lr, momentum, dampening, "
                       "nesterov, weight_decay (\"momentum\"?)",
                       std::invalid_argument);
}

TEST_CASE("any_optimizer: of two hyperparameters with one name the later counts, and both are checked")
{
  using any = gradus::any_optimizer<float>;
  CHECK(any("adam", {{"lr", 0.5}, {"eps", 0}, {"lr", 0.25}}).lr() == 0.25);
  CHECK_THROWS_WITH_AS(any("adam", {{"lr", -1}, {"lr", 0.25}}), "gradus: lr is -1; expected a finite number >= 0",
                       std::invalid_argument);
}

TEST_CASE("any_optimizer: values out of range are refused, and change nothing")
{
  using any = gradus::any_optimizer<float>;
  CHECK_THROWS_WITH_AS(any("adam", {{"beta2", 1}}), "gradus: beta2 is 1; expected a number in [0, 1)",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(any("sgd", {{"nesterov", 0.5}}), "gradus: nesterov is 0.5; expected 0 or 1",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(any("sgd", {{"nesterov", 1}}), doctest::Contains("gradus: nesterov is 1 with momentum 0"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(any("radam", {{"decoupled_weight_decay", -1}}),
                       "gradus: decoupled_weight_decay is -1; expected 0 or 1", std::invalid_argument);
  CHECK_THROWS_WITH_AS(any("adam", {{"eps", 1e39}}),
                       "gradus: eps is 1e+39; expected at most 3.40282347e+38, the largest float",
                       std::invalid_argument);

  std::vector<float> w{1, 2, 3}, g{1, 1, 1};
  any opt("adam", {{"lr", 0.1}});
  opt.add("w", w, g);
  opt.step();
  const auto before = w;
  const checkpoint state = save(opt);
  const auto numbers = opt.hyperparameters();
  // The first of the two is good, and yet nothing is taken over.
  CHECK_THROWS_WITH_AS(opt.set_hyperparameters({{"lr", 0.5}, {"eps", -1}}),
                       "gradus: eps is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(
      opt.add_group({{"lr", 0.5}, {"lrr", 1}}),
      "gradus: hyperparameter of adam is \"lrr\"; expected one of lr, beta1, beta2, eps, weight_decay (\"lr\"?)",
      std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.step({.lr_scale = -1}), "gradus: lr_scale is -1; expected a finite number >= 0",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.state("w", "momentum_buffer"),
                       "gradus: slot of tensor \"w\" is \"momentum_buffer\"; expected \"exp_avg\" or \"exp_avg_sq\"",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.add("w", w, g),
                       "gradus: name is \"w\", which another tensor has; expected a name of its own",
                       std::invalid_argument);
  // Handles of another optimizer are known as such, whatever their types.
  any other("adam");
  const auto group = other.add_group({});
  CHECK_THROWS_WITH_AS(opt.hyperparameters(group),
                       "gradus: group is of another optimizer; expected one that add_group of this optimizer returned",
                       std::invalid_argument);
  CHECK((opt.hyperparameters() == numbers));
  CHECK((save(opt) == state));
  CHECK((w == before));
}

TEST_CASE("copy_average: as the optimizer of the recipe; refused by a recipe that averages no weights")
{
  std::vector<float> weights{1, 2, 3}, gradients{1, -1, 2}, average(3), expected(3);
  auto twin = weights;
  gradus::any_optimizer<float> opt("schedule_free_adamw", {{"lr", 0.25}});
  const auto handle = opt.add(weights, gradients);
  gradus::optimizer<gradus::schedule_free_adamw> same({.lr = 0.25});
  const auto handle_of_same = same.add(twin, gradients);
  for (int t = 0; t < 3; ++t)
    opt.step(), same.step();
  opt.copy_average(handle, average);
  same.copy_average(handle_of_same, expected);
  CHECK(average == expected);
  CHECK(average != weights);
  gradus::any_optimizer<float> adamw("adamw", {{"lr", 0.25}});
  const auto h = adamw.add(weights, gradients);
  CHECK_THROWS_WITH_AS(
      adamw.copy_average(h, average),
      "gradus: the optimizer is adamw; expected one that averages weights, such as schedule_free_adamw, "
      "on the host",
      std::invalid_argument);
}

TEST_CASE("any_optimizer: refuses calls after a move; shows its state if const")
{
  std::vector<float> w(3, 1.0f), g(3, 0.5f);
  gradus::any_optimizer<float> opt("adam");
  opt.add("w", w, g);
  gradus::any_optimizer<float> other = std::move(opt);
  other.step();
  CHECK_THROWS_WITH_AS(opt.step(), "gradus: this optimizer has been moved from; expected the one it was moved to",
                       std::invalid_argument);
  std::size_t keys = 0;
  std::as_const(other).visit_state([&]<class X>(std::string_view, std::string_view, std::span<X>) {
    static_assert(std::is_const_v<X>);
    ++keys;
  });
  CHECK(keys == 3);

  gradus::optimizer<gradus::adam> typed;
  const auto moved = std::move(typed);
  CHECK_THROWS_WITH_AS(typed.hyperparameters(),
                       "gradus: this optimizer has been moved from; expected the one it was moved to",
                       std::invalid_argument);
}

TEST_CASE("set_lr, report, padding, rebind_gradients, rebind of several: as of one chosen by type")
{
  std::vector<float> w(32, 0.0f), v, g(32, 0.0f), more(3, 1.0f), more_g(3, 0.5f);
  for (std::size_t i = 0; i < 10; ++i)
    w[i] = g[i] = float(i + 1);
  v = w;
  std::vector<float> more_too = more;
  const auto is_padding = [](std::size_t i) { return i >= 10; };
  gradus::any_optimizer<float> any("adams", {{"lr", 0.5}, {"weight_decay", 0.1}});
  gradus::optimizer<gradus::adams> typed({.lr = 0.5, .weight_decay = 0.1});
  const auto run = [&](auto& opt, std::vector<float>& weights, std::vector<float>& others) {
    CHECK_FALSE(opt.report().applied);
    const auto h = opt.add("w", weights, g);
    opt.set_padding(h, is_padding);
    opt.set_padding(h, [&](std::size_t i) { return is_padding(i); });
    const auto late = opt.add_spans("late", others, std::nullopt);
    CHECK_THROWS_WITH_AS(opt.unfreeze(late),
                         doctest::Contains("expected rebind_gradients(tensor, gradients) before unfreeze(tensor)"),
                         std::invalid_argument);
    const auto group = opt.add_group({});
    opt.set_lr(0.125);
    opt.set_lr(2, group);
    CHECK(opt.lr() == 0.125);
    CHECK(opt.lr(group) == 2);
    opt.step();
    opt.rebind_gradients_spans(late, more_g);
    opt.step();
    using rebinding = typename std::remove_reference_t<decltype(opt)>::rebinding;
    const std::vector<rebinding> both{{h, weights, g}, {late, others, std::nullopt}};
    opt.rebind_spans(both);
    opt.step();
    opt.unbind_gradients(h);
    opt.step();
    CHECK(opt.step_count(h) == 3);
    opt.rebind_gradients_spans(h, g);
    opt.step();
    CHECK(opt.report().applied);
    CHECK(opt.step_count(late) == 1);
    return *opt.report().mean_square;
  };
  CHECK(run(any, w, more) == run(typed, v, more_too));
  CHECK((w == v));
  CHECK((more == more_too));
  CHECK(w[10] == 0);
}

TEST_CASE("any_optimizer: refuses another tensor's memory, changes by a visitor, and calls after a move")
{
  std::vector<float> w(4, 1.0f), v(4, 1.0f), g(4, 0.5f);
  gradus::any_optimizer<float> opt("adam");
  const auto h = opt.add("w", w, g);
  CHECK_THROWS_WITH_AS(
      opt.add("v", std::span(w).subspan(2), std::span(v).first(2)),
      "gradus: parameters of tensor \"v\" overlap the parameters of tensor \"w\"; expected memory of their own",
      std::invalid_argument);
  const auto meddle = [&](auto&&...) {
    CHECK_THROWS_WITH_AS(opt.add("v", v, g), doctest::Contains("gradus: this optimizer is being visited"),
                         std::invalid_argument);
    CHECK_THROWS_WITH_AS(opt.step(), doctest::Contains("gradus: this optimizer is being visited"),
                         std::invalid_argument);
  };
  opt.visit_state(meddle);
  opt.visit_tensors(meddle);
  auto& same_one = opt;
  opt = std::move(same_one);
  opt.step();
  CHECK(opt.step_count(h) == 1);
  // Given another's place, it leaves that one empty, not with what was here.
  gradus::any_optimizer<float> other("sgd");
  other = std::move(opt);
  CHECK(other.name() == "adam");
  const std::string expected = "gradus: this optimizer has been moved from; expected the one it was moved to";
  CHECK_THROWS_WITH_AS(opt.step(), expected.c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.report(), expected.c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.set_lr(1), expected.c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.parameter_count(), expected.c_str(), std::invalid_argument);
}

namespace {

std::vector<std::byte> saved(const auto& opt)
{
  std::vector<std::byte> all;
  gradus::save_to(opt, [&](const void* p, std::size_t n) {
    all.insert(all.end(), static_cast<const std::byte*>(p), static_cast<const std::byte*>(p) + n);
    return true;
  });
  return all;
}

}  // namespace

TEST_CASE("a checkpoint of a tensor that has no gradients yet: resumed, it takes part once it has some")
{
  const auto run = [](auto make) {
    for (const bool bound_before_load : {false, true}) {
      tensor<float> a(9, 1), late(5, 2), b(9, 1), late_too(5, 2);
      auto whole = make(), part = make(), resumed = make();
      whole.add("a", a.weights, a.gradients);
      const auto h = whole.add_spans("late", late.weights, std::nullopt);
      part.add("a", b.weights, b.gradients);
      part.add_spans("late", late_too.weights, std::nullopt);
      whole.step();
      part.step();
      resumed.add("a", b.weights, b.gradients);
      const auto h_too = resumed.add_spans("late", late_too.weights, std::nullopt);
      if (bound_before_load)
        resumed.rebind_gradients_spans(h_too, late_too.gradients);
      CHECK(gradus::load_from(resumed, saved(part)).differences.empty());
      whole.rebind_gradients_spans(h, late.gradients);
      resumed.rebind_gradients_spans(h_too, late_too.gradients);
      whole.step();
      resumed.step();
      CHECK(a == b);
      CHECK(late == late_too);
      CHECK(resumed.step_count(h_too) == 1);
    }
  };
  run([] { return gradus::any_optimizer<float>("adams", {{"weight_decay", 0.1}}); });
  run([] { return gradus::optimizer<gradus::adams>({.weight_decay = 0.1}); });
}

TEST_CASE("save: an optimizer that was moved from is refused")
{
  const auto check = [](auto opt) {
    const auto moved = std::move(opt);
    CHECK_NOTHROW(saved(moved));
    CHECK_THROWS_WITH_AS(saved(opt), "gradus: this optimizer has been moved from; expected the one it was moved to",
                         std::invalid_argument);
  };
  check(gradus::any_optimizer<float>("adam"));
  check(gradus::optimizer<gradus::adam>());
}
