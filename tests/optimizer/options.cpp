// What a step is told, and what it reports.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/scene.hpp"
#include "support/tensors.hpp"

namespace {

using support::check_refused, support::inf, support::not_a_number, support::scheduled, support::tensor, support::text;

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
  // One bad option among good ones is enough.
  check_refused("gradus: lr_scale is -1; expected a finite number >= 0", [](auto& s) {
    s.opt.step({.lr_scale = -1, .max_grad_norm = 1, .grad_norm_sq = 1, .skip_nonfinite = true});
  });
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
