// Groups and their hyperparameters: what each tensor is moved by, and what the compute type cannot hold.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/refusal.hpp"
#include "support/scene.hpp"
#include "support/tensors.hpp"

namespace {

using support::check_refused, support::refusal, support::same, support::scalar_optimizer, support::tensor,
    support::tensors;

}  // namespace

TEST_CASE("groups: each with hyperparameters of its own")
{
  auto model = tensors<float>();
  auto alone = tensors<float>();
  gradus::optimizer<gradus::adamw> opt({.lr = 0.1, .weight_decay = 0.5});
  auto h = opt.hyperparameters();
  CHECK(h.lr == 0.1);
  h.weight_decay = 0;
  const auto undecayed = opt.add_group(h);
  h.lr = 0.025;
  const auto slow = opt.add_group(h);
  CHECK(opt.hyperparameters().weight_decay == 0.5);
  CHECK(opt.hyperparameters(undecayed).weight_decay == 0);
  CHECK(opt.hyperparameters(undecayed).lr == 0.1);
  CHECK(opt.hyperparameters(slow).lr == 0.025);
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, undecayed);
  opt.add("slow", model[2].weights, model[2].gradients, slow);

  // Without a decay AdamW is Adam, to the bit; and each tensor moves as if alone.
  gradus::optimizer<gradus::adamw> first({.lr = 0.1, .weight_decay = 0.5});
  gradus::optimizer<gradus::adam> second({.lr = 0.1}), third({.lr = 0.025});
  first.add(alone[0].weights, alone[0].gradients);
  second.add(alone[1].weights, alone[1].gradients);
  third.add(alone[2].weights, alone[2].gradients);
  for (int t = 0; t < 10; ++t) {
    for (auto* m : {&model, &alone})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    first.step();
    second.step();
    third.step();
  }
  CHECK(same(model, alone));
}

TEST_CASE("groups: those of another optimizer are refused")
{
  const std::string message =
      "gradus: group is of another optimizer; expected one that add_group of this optimizer returned";
  scalar_optimizer<gradus::adams> other;
  const auto group = other.add_group({});
  check_refused(message, [&](auto& s) { s.opt.add("x", s.spare, s.spare_gradient, group); });
  check_refused(message, [&](auto& s) { s.opt.add(s.spare, s.spare_gradient, group); });
  check_refused(message, [&](auto& s) { s.opt.hyperparameters(group); });
  check_refused(message, [&](auto& s) { s.opt.set_hyperparameters({}, group); });
}

TEST_CASE("set_hyperparameters: they hold from the next step on, the state stays")
{
  tensor<float> a(37, 1), b(37, 1);
  gradus::optimizer<gradus::adamw> opt({.lr = 0.1}), scaled({.lr = 0.1});
  opt.add(a.weights, a.gradients);
  scaled.add(b.weights, b.gradients);
  for (int t = 0; t < 10; ++t) {
    a.compute(t);
    b.compute(t);
    if (t == 5) {
      auto h = opt.hyperparameters();
      h.lr /= 4;
      opt.set_hyperparameters(h);
    }
    opt.step();
    scaled.step({.lr_scale = t < 5 ? 1 : 0.25});
  }
  CHECK(same(a.weights, b.weights));
}

TEST_CASE("set_hyperparameters: of one group alone")
{
  auto model = tensors<float>({5, 6}), other = tensors<float>({5, 6});
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5}), reference({.lr = 0.5});
  const auto group = opt.add_group({.lr = 0.5});
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, group);
  reference.add(other[0].weights, other[0].gradients);
  opt.set_hyperparameters({.lr = 0.25}, group);
  opt.step();
  reference.step();
  CHECK(opt.hyperparameters().lr == 0.5);
  CHECK(same(model[0].weights, other[0].weights));
  CHECK(model[1].weights[0] == other[1].weights[0] - 0.25f * model[1].gradients[0]);
}

TEST_CASE("set_hyperparameters: a momentum raised from 0 starts from zeros, and one lowered to 0 frees its buffer")
{
  tensor<double> a(13, 1);
  std::vector<double> w = a.weights, buffer(13, 0.0);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 0.1, .dampening = 0.5});
  opt.add("a", a.weights, a.gradients);
  double worst = 0;
  for (int t = 0; t < 15; ++t) {
    if (t == 4 || t == 11)
      opt.set_hyperparameters({.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
    if (t == 8)
      opt.set_hyperparameters({.lr = 0.1, .dampening = 0.5});
    const bool idle = t < 4 || (t >= 8 && t < 11);
    CHECK(opt.state_bytes() == (idle ? 0 : 13 * sizeof(double)));
    a.compute(t);
    for (std::size_t i = 0; i < 13; ++i) {
      buffer[i] = idle ? 0 : 0.9 * buffer[i] + 0.5 * a.gradients[i];
      w[i] -= 0.1 * (idle ? a.gradients[i] : buffer[i]);
    }
    opt.step();
    for (std::size_t i = 0; i < 13; ++i)
      worst = std::fmax(worst, std::fabs(w[i] - a.weights[i]));
  }
  CHECK(worst < 1e-14);
}

TEST_CASE("set_hyperparameters: of rmsprop, momentum and centered each keep an array of their own")
{
  tensor<double> a(13, 1);
  gradus::optimizer<gradus::rmsprop, double> opt;
  const auto h = opt.add("a", a.weights, a.gradients);
  const auto slots = [&] {
    std::string names;
    std::as_const(opt).visit_state([&](std::string_view, std::string_view key, auto values) {
      if (values.size() == 13)
        (names += names.empty() ? "" : " ") += key;
    });
    return names;
  };
  CHECK(slots() == "exp_avg_sq");
  opt.step();
  const double v = opt.state("a", "exp_avg_sq")[5];
  CHECK(v == doctest::Approx(0.01 * a.gradients[5] * a.gradients[5]));
  opt.set_hyperparameters({.centered = true});
  CHECK(slots() == "exp_avg_sq grad_avg");
  CHECK(opt.state("a", "exp_avg_sq")[5] == v);
  CHECK(opt.state("a", "grad_avg")[5] == 0);
  opt.step();
  CHECK(opt.state("a", "grad_avg")[5] != 0);
  opt.set_hyperparameters({.momentum = 0.5, .centered = true});
  CHECK(slots() == "momentum_buffer exp_avg_sq grad_avg");
  opt.step();
  opt.set_hyperparameters({.momentum = 0.5});
  CHECK(slots() == "momentum_buffer exp_avg_sq");
  CHECK(opt.state("a", "momentum_buffer")[5] != 0);
  opt.step();
  // Added again to a group with other slots, a tensor has these.
  const auto group = opt.add_group({.centered = true});
  opt.remove(h, gradus::removed_state::kept);
  opt.add("a", a.weights, a.gradients, group);
  CHECK(slots() == "exp_avg_sq grad_avg");
  CHECK(opt.state_bytes() == 2 * 13 * sizeof(double));
}

TEST_CASE_TEMPLATE("set_lr: of a group, from the next step on, and no other hyperparameter", T, float, double)
{
  std::vector<T> w{0}, v{0}, g{1};
  gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
  const auto group = opt.add_group({.lr = 2});
  opt.add(w, g);
  opt.add(v, g, group);
  opt.set_lr(0.25);
  CHECK(opt.lr() == 0.25);
  CHECK(opt.lr(group) == 2);
  opt.step();
  CHECK(w[0] == T(-0.25));
  CHECK(v[0] == T(-2));
  opt.set_lr(4, group);
  opt.step();
  CHECK(v[0] == T(-6));
  CHECK(w[0] == T(-0.5));
  CHECK(refusal([&] { opt.set_lr(-1); }) == "gradus: lr is -1; expected a finite number >= 0");
  CHECK(opt.lr() == 0.25);
  static_assert(!requires { opt.hyperparameters().lr = 1.0; });
  auto h = opt.hyperparameters();
  h.lr = 3;
  CHECK(opt.lr() == 0.25);  // a copy
  opt.set_hyperparameters(h);
  CHECK(opt.lr() == 3);
  // Of a composition too.
  gradus::optimizer composed(gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema{},
                                             gradus::step_size::adaptive{}, gradus::decay::none{}));
  composed.set_lr(0.5);
  CHECK(composed.lr() == 0.5);
}

TEST_CASE("lr_scale: a group's factor on its lr, on a step's lr_scale and on a step's lr")
{
  for (const bool absolute : {false, true}) {
    auto model = tensors<float>({5, 4133}), other = model;
    gradus::optimizer<gradus::adamw> opt({.lr = 0.1}), twin({.lr = 0.1});
    const auto slow = opt.add_group({.lr = 0.1}, {.lr_scale = 0.25}), slow_twin = twin.add_group({.lr = 0.1 * 0.25});
    CHECK(opt.lr_scale(slow) == 0.25);
    CHECK(opt.lr_scale() == 1);
    CHECK(opt.lr(slow) == 0.1);
    opt.add(model[0].weights, model[0].gradients);
    opt.add(model[1].weights, model[1].gradients, slow);
    twin.add(other[0].weights, other[0].gradients);
    twin.add(other[1].weights, other[1].gradients, slow_twin);
    for (int t = 0; t < 8; ++t) {
      for (auto* m : {&model, &other})
        for (auto& x : *m)
          x.compute(t);
      if (t == 4) {  // from the next step on; new hyperparameters keep it
        opt.set_lr_scale(0.5, slow);
        twin.set_lr(0.1 * 0.5, slow_twin);
        opt.set_hyperparameters({.lr = 0.1, .beta1 = 0.75}, slow);
        twin.set_hyperparameters({.lr = 0.1 * 0.5, .beta1 = 0.75}, slow_twin);
      }
      if (absolute) {
        opt.step({.lr = 0.5});
        twin.set_lr(0.5);
        twin.set_lr(0.5 * (t < 4 ? 0.25 : 0.5), slow_twin);
        twin.step();
      } else {
        opt.step({.lr_scale = 0.5});
        twin.step({.lr_scale = 0.5});
      }
      CHECK(same(model, other));
    }
  }
  check_refused("gradus: lr_scale is -1; expected a finite number >= 0",
                [](auto& s) { s.opt.add_group(s.opt.hyperparameters(), {.lr_scale = -1}); });
  check_refused("gradus: lr_scale is -1; expected a finite number >= 0",
                [](auto& s) { s.opt.set_lr_scale(-1, s.undecayed); });
  check_refused(
      "gradus: lr_scale is 1 with lr 0.001, the group's lr_scale 1e+42; expected a product of at most 3.40282347e+38, "
      "the largest float",
      [](auto& s) {
        s.opt.set_lr_scale(1e42, s.undecayed);
        try {
          s.opt.step();
        } catch (...) {
          s.opt.set_lr_scale(1, s.undecayed);
          throw;
        }
      });
}

TEST_CASE("add_group, set_hyperparameters: numbers that the compute type cannot hold are refused")
{
  const auto check = [](const auto& good, auto change, const std::string& name) {
    auto bad = good;
    change(bad);
    check_refused(
        "gradus: " + name + " is 1e+39; expected at most 3.40282347e+38, the largest float",
        [=](auto& s) { s.opt.add_group(bad); }, good);
    check_refused(
        "gradus: " + name + " is 1e+39; expected at most 3.40282347e+38, the largest float",
        [=](auto& s) { s.opt.set_hyperparameters(bad); }, good);
    CHECK_THROWS_AS(scalar_optimizer<std::remove_const_t<decltype(bad)>>{bad}, std::invalid_argument);
    CHECK_NOTHROW(gradus::optimizer<std::remove_const_t<decltype(bad)>, double, gradus::backend::scalar>{bad});
  };
  check(gradus::adam{}, [](auto& r) { r.lr = 1e39; }, "lr");
  check(gradus::adam{}, [](auto& r) { r.eps = 1e39; }, "eps");
  check(gradus::sgd{}, [](auto& r) { r.weight_decay = 1e39; }, "weight_decay");
  check(gradus::adabound{}, [](auto& r) { r.final_lr = 1e39; }, "final_lr");
  check(gradus::yogi{}, [](auto& r) { r.initial_accumulator = 1e39; }, "initial_accumulator");
  // A rule's own, of a composition.
  const auto composed = gradus::compose(1, gradus::first_moment::ema{}, gradus::second_moment::ema{},
                                        gradus::step_size::adaptive{}, gradus::decay::scheduled{.eps = 1e39});
  CHECK_THROWS_WITH_AS((gradus::optimizer(composed)),
                       "gradus: eps is 1e+39; expected at most 3.40282347e+38, the largest float",
                       std::invalid_argument);
}

TEST_CASE("add_group, set_hyperparameters: products that the compute type cannot hold are refused")
{
  const auto check = [](const auto& recipe, const std::string& message) {
    using R = std::remove_cvref_t<decltype(recipe)>;
    std::vector<float> w(3, 1), g(3, 1);
    scalar_optimizer<R> opt(recipe);
    opt.add(w, g);
    CHECK_THROWS_WITH_AS(opt.step(), message.c_str(), std::invalid_argument);
    CHECK(w == std::vector<float>(3, 1));
    std::vector<double> v(3, 1), h(3, 1);
    gradus::optimizer<R, double, gradus::backend::scalar> in_double(recipe);
    in_double.add(v, h);
    CHECK_NOTHROW(in_double.step());
  };
  const std::string product = "; expected a product of at most 3.40282347e+38, the largest float";
  check(gradus::adamw{.lr = 1e30, .weight_decay = 1e20},
        "gradus: weight_decay is 1e+20 with lr 1e+30 and lr_scale 1" + product);
  check(gradus::sgds{.lr = 1e30, .weight_decay = 1e20},
        "gradus: weight_decay is 1e+20 with lr 1e+30 and lr_scale 1" + product);
  check(gradus::adam{.lr = 1e35, .beta1 = 0.999999, .beta2 = 0.5},
        "gradus: lr is 1e+35 and lr_scale 1; expected hyperparameters that give coefficients of at most "
        "3.40282347e+38, the largest float");
  // What is large and fits is taken; and a scheduled decay, which is held to 1, is.
  std::vector<float> w(3, 1), g(3, 1);
  scalar_optimizer<gradus::adams> opt({.lr = 1e30, .weight_decay = 1e20});
  opt.add(w, g);
  CHECK(opt.step().decay_clamped);
  CHECK_NOTHROW(opt.step({.grad_scale = 1e38}));
}
