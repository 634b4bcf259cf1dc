// What a step is told, and what it reports.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/scene.hpp"
#include "support/tensors.hpp"

namespace {

using support::check_refused, support::inf, support::not_a_number, support::same, support::scheduled, support::tensor,
    support::text;

template <class... X>
concept makes_options = requires(X... x) { gradus::step_options{x...}; };
template <class X>
concept may_be_stepped_with = requires(gradus::optimizer<gradus::sgd>& opt, X x) { opt.step({x}); };
template <class X>
concept may_be_stepped_with_bare = requires(gradus::optimizer<gradus::sgd>& opt, X x) { opt.step(x); };
static_assert(makes_options<> && makes_options<gradus::step_options>);
static_assert(!makes_options<double> && !makes_options<int> && !makes_options<bool> && !makes_options<double, double>);
static_assert(!may_be_stepped_with<double> && !may_be_stepped_with<float> && !may_be_stepped_with<bool> &&
              !may_be_stepped_with<std::optional<double>> && !may_be_stepped_with_bare<double>);

}  // namespace

TEST_CASE("step_options: have to be named")
{
  std::vector<float> w{0}, g{1};
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  opt.add(w, g);
  opt.step();
  opt.step({});
  opt.step({.lr_scale = 0.5});
  gradus::step_options o;
  o.lr_scale = 0.25;
  opt.step(o);
  CHECK(w[0] == -2.75f);
}

TEST_CASE("step_options: values out of range are refused")
{
  for (const double bad : {-1.0, -inf, inf, not_a_number})
    check_refused("gradus: lr_scale is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.lr_scale = bad}); });
  for (const double bad : {0.0, -1.0, inf, not_a_number})
    check_refused("gradus: grad_scale is " + text(bad) + "; expected a finite number > 0",
                  [=](auto& s) { s.opt.step({.grad_scale = bad}); });
  for (const double bad : {0.0, -1.0, -inf, not_a_number})
    check_refused("gradus: max_grad_norm is " + text(bad) + "; expected a number > 0 (infinity only measures)",
                  [=](auto& s) { s.opt.step({.max_grad_norm = bad}); });
  for (const double bad : {-1.0, -inf})
    check_refused("gradus: grad_norm_sq is " + text(bad) + "; expected the sum of the squares of all raw gradients",
                  [=](auto& s) { s.opt.step({.grad_norm_sq = bad}); });
  for (const double bad : {1e39, 1e-46, 1e-39})
    check_refused("gradus: grad_scale is " + text(bad) +
                      "; expected a number from 1.17549435e-38 to 3.40282347e+38, the range of float",
                  [=](auto& s) { s.opt.step({.grad_scale = bad}); });
  check_refused(
      "gradus: lr_scale is 1e+42 with lr 0.001; expected a product of at most 3.40282347e+38, the largest float",
      [=](auto& s) { s.opt.step({.lr_scale = 1e42}); });
  for (const double bad : {-1.0, inf, not_a_number})
    check_refused("gradus: mean_square is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.mean_square = bad}); });
  check_refused("gradus: model_size is 7; expected at least 8, the number of parameters of this part",
                [=](auto& s) { s.opt.step({.grad_norm_sq = 1, .model_size = 7}); });
  check_refused(
      "gradus: grad_norm_sq is inf; expected a finite number with max_grad_norm, which divides by its root; leave it "
      "out to have it computed, or set skip_nonfinite",
      [=](auto& s) { s.opt.step({.max_grad_norm = 1, .grad_norm_sq = inf}); });
  for (const double bad : {-1.0, -inf, inf, not_a_number}) {
    check_refused("gradus: lr is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.lr = bad}); });
    check_refused("gradus: decay_scale is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.decay_scale = bad}); });
  }
  check_refused("gradus: lr_scale is 0.5 with lr 0.1; expected 1, because lr is the learning rate itself",
                [](auto& s) { s.opt.step({.lr_scale = 0.5, .lr = 0.1}); });
  check_refused("gradus: lr is 1e+39; expected a product of at most 3.40282347e+38, the largest float",
                [](auto& s) { s.opt.step({.lr = 1e39}); });
  // adams clamps its decay; adamw does not.
  check_refused(
      "gradus: weight_decay is 0.01 with lr 1e+30, decay_scale 1e+20; expected a product of at most 3.40282347e+38, "
      "the "
      "largest float",
      [](auto& s) { s.opt.step({.lr = 1e30, .decay_scale = 1e20}); }, gradus::adamw{});
  // One bad option among good ones is enough.
  check_refused("gradus: lr_scale is -1; expected a finite number >= 0", [](auto& s) {
    s.opt.step({.lr_scale = -1, .max_grad_norm = 1, .grad_norm_sq = 1, .skip_nonfinite = true});
  });
}

namespace {

// Two tensors in two groups, stepped by step(opt, group of the second, t), for a comparison of bits.
template <class Recipe>
struct run {
  std::vector<tensor<float>> model = support::tensors<float>({70, 4133});
  gradus::optimizer<Recipe> opt;
  gradus::group_handle second;

  explicit run(Recipe r) : opt(r)
  {
    r.lr /= 4;
    second = opt.add_group(r);
    opt.add("first", model[0].weights, model[0].gradients);
    opt.add("second", model[1].weights, model[1].gradients, second);
  }
  template <class Step>
  run& steps(const Step& step)
  {
    for (int t = 0; t < 6; ++t) {
      for (auto& x : model)
        x.compute(t);
      step(*this, t);
    }
    return *this;
  }
};
template <class Recipe, class Step, class Twin>
bool steps_alike(const Recipe& recipe, const Step& step, const Twin& twin)
{
  return same(run<Recipe>(recipe).steps(step).model, run<Recipe>(recipe).steps(twin).model);
}

// Calls f with recipes that between them have every decay, and rules that read lr and lr_scale.
template <class F>
void for_some_recipes(const F& f)
{
  f(gradus::sgd{.lr = 0.1, .momentum = 0.5, .weight_decay = 0.1});
  f(gradus::sgds{.lr = 0.1, .momentum = 0.5, .weight_decay = 0.1});
  f(gradus::adamw{.lr = 0.1});
  f(gradus::adams{.lr = 0.1, .weight_decay = 0.1});
  f(gradus::adabound{.lr = 0.1, .weight_decay = 0.1});
  f(gradus::radam{.lr = 0.1, .weight_decay = 0.1, .decoupled_weight_decay = true});
  f(gradus::adan{.lr = 0.1, .weight_decay = 0.1});
  f(gradus::schedule_free_adamw{.lr = 0.1, .weight_decay = 0.1});
}

// A decay without a weight_decay of its own.
struct towards_zero {
  double pull = 0.5;
  static constexpr std::string_view kind = "towards_zero";
  static constexpr auto fields = gradus::fields(gradus::field{"pull", &towards_zero::pull, gradus::range::zero_to_one});
  template <class T>
  GRADUS_HOST_DEVICE gradus::decay::shrink<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return gradus::decay::shrink_by<T>(k.lr * pull);
  }
};

}  // namespace

TEST_CASE("lr: takes the place of every group's lr")
{
  for_some_recipes([](const auto& recipe) {
    const auto lr = [](int t) { return 0.3 / (t + 1); };
    const auto absolute = [&](auto& r, int t) { r.opt.step({.lr = lr(t)}); };
    const auto set = [&](auto& r, int t) {
      r.opt.set_lr(lr(t));
      r.opt.set_lr(lr(t), r.second);
      r.opt.step();
    };
    if constexpr (!std::is_same_v<decltype(recipe), const gradus::adabound&>) {
      CHECK(steps_alike(recipe, absolute, set));
      CHECK_FALSE(steps_alike(recipe, absolute, [](auto& r, int) { r.opt.step(); }));
    }
  });
  // AdaBound's bounds follow it, as they follow a schedule.
  std::vector<float> w{1, 2}, v = w, g{1, -1};
  gradus::optimizer<gradus::adabound> opt({.lr = 0.1}), twin({.lr = 0.1});
  opt.add(w, g);
  twin.add(v, g);
  for (const double scale : {1.0, 0.5, 0.25, 2.0}) {
    opt.step({.lr = 0.1 * scale});
    twin.step({.lr_scale = scale});
    CHECK(w == v);
  }
  // A group whose own lr is 0 is moved, too.
  std::vector<float> u{1};
  const std::vector<float> one{1};
  gradus::optimizer<gradus::sgd> still({.lr = 0});
  still.add(u, one);
  still.step({.lr = 0.5});
  CHECK(u[0] == 0.5f);
  still.step({.lr = 0});
  CHECK(u[0] == 0.5f);
}

TEST_CASE("decay_scale: multiplies weight_decay in every decay that has one")
{
  for_some_recipes([](const auto& recipe) {
    const auto scale = [](int t) { return 1 / (1.0 + t * t); };
    const auto scaled = [&](auto& r, int t) { r.opt.step({.decay_scale = scale(t)}); };
    const auto set = [&](auto& r, int t) {
      for (const auto& g : {gradus::group_handle(), r.second}) {
        auto h = r.opt.hyperparameters(g);
        h.weight_decay = recipe.weight_decay * scale(t);
        r.opt.set_hyperparameters(h, g);
      }
      r.opt.step();
    };
    CHECK(steps_alike(recipe, scaled, set));
    CHECK_FALSE(steps_alike(recipe, scaled, [](auto& r, int) { r.opt.step(); }));
  });
  // Reported as it acts.
  std::vector<float> w{1, 2}, g{1e-6f, 1e-6f};
  gradus::optimizer<gradus::adams> opt({.lr = 0.01, .weight_decay = 0.001});
  opt.add(w, g);
  CHECK(opt.step().decay_clamped);
  CHECK_FALSE(opt.step({.decay_scale = 1e-3}).decay_clamped);

  const auto composed = [](auto decay) {
    return gradus::compose(0.1, gradus::first_moment::none{}, gradus::second_moment::none{},
                           gradus::step_size::constant{}, decay);
  };
  gradus::optimizer pulled(composed(towards_zero{}));
  gradus::optimizer free(composed(gradus::decay::none{}));
  std::vector<float> a{1}, b{1};
  const std::vector<float> one{1};
  pulled.add(a, one);
  free.add(b, one);
  CHECK_THROWS_WITH_AS(pulled.step({.decay_scale = 0.5}),
                       "gradus: decay_scale is 0.5; expected 1, because the decay \"towards_zero\" has no weight_decay "
                       "that it could scale",
                       std::invalid_argument);
  CHECK(a[0] == 1);
  pulled.step();
  CHECK(a[0] < 1);
  CHECK_NOTHROW(free.step({.decay_scale = 0.5}));
}

TEST_CASE("maximize: has the bits of a step with the gradients negated")
{
  for_some_recipes([](const auto& recipe) {
    for (const gradus::step_options& o :
         {gradus::step_options{}, {.grad_scale = 0.7, .max_grad_norm = 3.0}, {.skip_nonfinite = true}}) {
      const auto up = [&](auto& r, int) {
        gradus::step_options ascend = o;
        ascend.maximize = true;
        r.opt.step(ascend);
      };
      const auto negated = [&](auto& r, int) {
        for (auto& x : r.model)
          for (float& g : x.gradients)
            g = -g;
        r.opt.step(o);
      };
      CHECK(steps_alike(recipe, up, negated));
      CHECK_FALSE(steps_alike(recipe, up, [&](auto& r, int) { r.opt.step(o); }));
    }
  });
  std::vector<float> w{1};
  const std::vector<float> one{1};
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5, .weight_decay = 1});
  opt.add(w, one);
  CHECK(opt.step({.max_grad_norm = inf, .maximize = true}).grad_norm == 1);
  CHECK(w[0] == 1);  // up by the gradient, down by L2, which is not a part of what is maximized
}

TEST_CASE("grad_norm_sq, max_grad_norm: NaN is refused, or stops a step that may be skipped")
{
  std::vector<float> w{1, 2}, g{0.5f, 0.5f};
  gradus::optimizer<gradus::adams> opt;
  opt.add(w, g);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(opt.step({.grad_norm_sq = nan}), std::invalid_argument);
  CHECK_FALSE(opt.step({.grad_norm_sq = nan, .skip_nonfinite = true}).applied);
  CHECK_THROWS_WITH_AS(opt.step({.max_grad_norm = nan}),
                       "gradus: max_grad_norm is nan; expected a number > 0 (infinity only measures)",
                       std::invalid_argument);
  CHECK(w == std::vector<float>{1, 2});
  CHECK(opt.step().applied);
  CHECK(w[0] < 1);
}

TEST_CASE("report: norm, mean square and decay factor, where a step has them")
{
  tensor<float> a(10, 1);
  double norm_sq = 0;
  for (const float g : a.gradients)
    norm_sq += double(g) * double(g);
  const double norm = std::sqrt(norm_sq);
  {
    gradus::optimizer<gradus::adamw> opt;
    opt.add(a.weights, a.gradients);
    const auto plain = opt.step();
    CHECK(plain.applied);
    CHECK_FALSE(plain.grad_norm);  // nobody asked, and it costs a pass
    CHECK_FALSE(plain.mean_square);
    CHECK_FALSE(plain.decay_factor);
    CHECK_FALSE(plain.decay_clamped);
    CHECK(*opt.step({.max_grad_norm = 0.1}).grad_norm == doctest::Approx(norm).epsilon(1e-14));  // before clipping
    CHECK(*opt.step({.skip_nonfinite = true}).grad_norm == doctest::Approx(norm).epsilon(1e-14));
    CHECK(*opt.step({.grad_scale = 3, .max_grad_norm = 0.1}).grad_norm == doctest::Approx(3 * norm).epsilon(1e-14));
    CHECK(*opt.step({.grad_norm_sq = 49}).grad_norm == 7);
    CHECK(*opt.step({.grad_scale = 2, .grad_norm_sq = 49}).grad_norm == 14);
    CHECK_FALSE(opt.step({.grad_norm_sq = 49}).mean_square);
  }
  {
    gradus::optimizer<gradus::adams> opt({.lr = 1e-3, .weight_decay = 1e-3});
    opt.add(a.weights, a.gradients);
    const auto report = opt.step();
    CHECK(*report.grad_norm == doctest::Approx(norm).epsilon(1e-14));
    CHECK(*report.mean_square == doctest::Approx(norm_sq / 10).epsilon(1e-6));  // float's 1 − β₂ stands in it
    CHECK(*report.decay_factor == 1 / std::sqrt(*report.mean_square));
    CHECK_FALSE(report.decay_clamped);
    CHECK(*opt.step({.grad_norm_sq = norm_sq}).grad_norm == std::sqrt(norm_sq));
  }
  {
    // SGDS's decay needs no norm and reports none.
    gradus::optimizer<gradus::sgds> opt({.momentum = 0.9, .weight_decay = 1e-3});
    opt.add(a.weights, a.gradients);
    const auto report = opt.step();
    CHECK_FALSE(report.grad_norm);
    CHECK_FALSE(report.decay_factor);
  }
}

TEST_CASE("report: what the last step did, on every backend")
{
  std::vector<float> w(3, 1), g(3, 1);
  gradus::optimizer<gradus::adams> opt(scheduled);
  CHECK_FALSE(opt.report().applied);
  opt.add(w, g);
  CHECK_FALSE(opt.report().applied);
  const auto report = opt.step({.max_grad_norm = 1});
  if (!report.pending) {
    CHECK(report.applied);
    CHECK(report.grad_norm == std::sqrt(3.0));
  } else
    CHECK_FALSE(report.applied);  // nothing is claimed before it is known
  CHECK(opt.report().applied);
  CHECK_FALSE(opt.report().pending);
  CHECK(opt.report().grad_norm == std::sqrt(3.0));
  CHECK(*opt.report().mean_square == doctest::Approx(1.0 / 3).epsilon(1e-5));  // of the clipped gradients
  g[1] = std::numeric_limits<float>::infinity();
  opt.step({.skip_nonfinite = true});
  CHECK_FALSE(opt.report().applied);
}
