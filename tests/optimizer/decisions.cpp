// What a step decides before it moves anything: clipping, and whether its numbers stay finite.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::not_finite, support::same, support::save, support::scheduled, support::tensors;

}  // namespace

// ── the functions ───────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("unit_for: 1, unless the plain sum of squares overflows or nearly vanishes")
{
  using gradus::detail::unit_for;
  constexpr double largest = std::numeric_limits<double>::max();
  for (const double good : {1.0, 0x1p-960, 1e-200, largest})
    CHECK(unit_for(good) == 1);
  for (const double small : {0.0, 1e-300, std::nextafter(0x1p-960, 0.0)})
    CHECK(unit_for(small) == 0x1p-600);
  CHECK(unit_for(not_finite<double>[1]) == 0x1p600);
  CHECK(unit_for(not_finite<double>[0]) == 1);
}

TEST_CASE("root_of: the norm times the scale, infinite only where no double can hold it")
{
  using gradus::detail::root_of;
  CHECK(root_of({25, 1}, 1) == 5);
  CHECK(root_of({25, 1}, 0.5) == 2.5);
  CHECK(root_of({25, 0x1p600}, 1) == 5 * 0x1p600);
  CHECK(root_of({25, 0x1p-600}, 2) == 10 * 0x1p-600);
  CHECK(root_of({0x1p1000, 0x1p600}, 0x1p-600) == 0x1p500);  // the norm alone, 2¹¹⁰⁰, is no double
  CHECK(std::isinf(root_of({0x1p1000, 0x1p600}, 1)));
  CHECK(root_of({0, 1}, 3) == 0);
  CHECK(std::isnan(root_of({not_finite<double>[0], 1}, 1)));
}

TEST_CASE("clipped_scale: as PyTorch's clip_grad_norm_, and right where the norm is no double")
{
  using gradus::detail::clipped_scale;
  CHECK(clipped_scale({25, 1}, 1, 10) == 1);
  CHECK(clipped_scale({25, 1}, 0.5, 2.6) == 0.5);
  CHECK(clipped_scale({25, 1}, 1, 2.5) == 2.5 / (5 + 1e-6));
  CHECK(clipped_scale({25, 1}, 2, 2.5) == 2 * (2.5 / (10 + 1e-6)));
  CHECK(clipped_scale({0, 1}, 3, 1e-9) == doctest::Approx(3e-3));
  CHECK(clipped_scale({0x1p1000, 0x1p600}, 1, 0x1p100) == 0x1p-1000);
}

TEST_CASE("underflows: a scale that was lowered below the smallest normal number of the type")
{
  using gradus::detail::underflows;
  CHECK(underflows<float>({1e80, 1}, 1e-39, 1));
  CHECK_FALSE(underflows<float>({1e80, 1}, 2e-38, 1));
  CHECK_FALSE(underflows<double>({1e80, 1}, 1e-39, 1));
  CHECK_FALSE(underflows<float>({1, 1}, 1e-39, 1e-39));  // not by clipping
  CHECK_FALSE(underflows<float>({not_finite<double>[1], 1}, 0, 1));
}

TEST_CASE_TEMPLATE("next_sum: beta2 of the sum and the rest of the norm's square, in any unit", T, float, double)
{
  using gradus::detail::next_sum;
  const double kept = double(T(0.9)), rest = double(T(1 - 0.9));
  CHECK(next_sum<T>(0.9, 3, {25, 1}, 1) == doctest::Approx(kept * 3 + rest * 25).epsilon(1e-14));
  CHECK(next_sum<T>(0.9, 3, {25, 1}, 0.5) == doctest::Approx(kept * 3 + rest * 25 * 0.25).epsilon(1e-14));
  CHECK(next_sum<T>(0, 3, {25, 1}, 1) == 25);
  CHECK(next_sum<T>(0.9, 3, {0, 1}, 1) == doctest::Approx(kept * 3).epsilon(1e-14));
  if constexpr (sizeof(T) == sizeof(double)) {
    // ‖g‖ = 5·2⁶⁰⁰, or 5·2⁻⁶⁰⁰, with a scale that makes it 5 again.
    CHECK(next_sum<T>(0.9, 3, {25, 0x1p600}, 0x1p-600) == doctest::Approx(kept * 3 + rest * 25).epsilon(1e-14));
    CHECK(next_sum<T>(0.9, 3, {25, 0x1p-600}, 0x1p600) == doctest::Approx(kept * 3 + rest * 25).epsilon(1e-14));
    CHECK(next_sum<T>(0.9, 3, {25, 0x1p600}, 0x1p-400) == doctest::Approx(rest * 25 * 0x1p400).epsilon(1e-14));
  }
}

TEST_CASE("decay_factor: one over the root of the mean and eps, and 0 where both are 0")
{
  using gradus::detail::decay_factor;
  CHECK(decay_factor(16, 0) == 0.25);
  CHECK(decay_factor(7, 9) == 0.25);
  CHECK(decay_factor(0, 4) == 0.5);
  CHECK(decay_factor(0, 0) == 0);
}

TEST_CASE("may_overflow: sizes whose square, or lr times them, come near the largest number of the type")
{
  using gradus::detail::may_overflow;
  CHECK_FALSE(may_overflow<float>(0x1p62, 1));
  CHECK(may_overflow<float>(0x1p63, 1));
  CHECK(may_overflow<float>(0x1p60, 8));
  CHECK_FALSE(may_overflow<float>(0x1p60, 4));
  CHECK_FALSE(may_overflow<double>(0x1p510, 1));
  CHECK(may_overflow<double>(0x1p511, 1));
  for (const double bad : not_finite<double>)
    CHECK(may_overflow<float>(std::fabs(bad), 0));
}

TEST_CASE("judge: whether a step is taken, and with which scale")
{
  using gradus::detail::judge, gradus::detail::norm_of_step;
  constexpr double no_limit = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const norm_of_step unknown{}, five{.known = true, .squares = {25, 1}},
      given_five{.known = true, .given = true, .squares = {25, 1}};
  for (const norm_of_step& norm : {unknown, five, given_five})
    for (const bool skips : {false, true}) {
      const auto v = judge<float>(norm, 0.5, no_limit, skips);
      CHECK(v.applied);
      CHECK(v.scale == 0.5);
      CHECK_FALSE(v.underflows);
    }
  for (const norm_of_step& norm : {five, given_five}) {
    CHECK(judge<float>(norm, 1, 2.5, false).scale == 2.5 / (5 + 1e-6));
    CHECK(judge<float>(norm, 1, 10, false).scale == 1);
  }
  // Clipping that float cannot hold, and double can.
  const norm_of_step huge{.known = true, .squares = {1e100, 1}};
  CHECK(judge<float>(huge, 1, 1, false).underflows);
  CHECK_FALSE(judge<double>(huge, 1, 1, false).underflows);
  // What is not finite stops a step only if it may be skipped; a given norm that overflowed does not, unless it clips.
  for (const double bad : {no_limit, nan}) {
    const norm_of_step measured{.known = true, .squares = {bad, 1}};
    CHECK(judge<float>(measured, 1, no_limit, false).applied);
    CHECK_FALSE(judge<float>(measured, 1, no_limit, true).applied);
    const norm_of_step given{.known = true, .given = true, .squares = {bad, 1}};
    CHECK(judge<float>(given, 1, no_limit, true).applied == (bad == no_limit));
    CHECK_FALSE(judge<float>(given, 1, 2, true).applied);
    const norm_of_step of_bad{.known = true, .given = true, .squares = {bad, 1}, .gradients_are_finite = false};
    CHECK_FALSE(judge<float>(of_bad, 1, no_limit, true).applied);
  }
}

// ── in a step ───────────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("max_grad_norm: clips by the norm over all tensors, as PyTorch does")
{
  for (const double max_norm : {0.25, 3.0, 1e3}) {
    auto model = tensors<double>(), clipped = tensors<double>();
    gradus::optimizer<gradus::adamw, double> opt({.lr = 0.01}), reference({.lr = 0.01});
    const auto group = opt.add_group({.lr = 0.02});
    const auto in_reference = reference.add_group({.lr = 0.02});
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients, i == 1 ? group : gradus::group_handle{});
      reference.add(clipped[i].weights, clipped[i].gradients, i == 1 ? in_reference : gradus::group_handle{});
    }
    for (int t = 0; t < 8; ++t) {
      double norm = 0;
      for (auto& x : model) {
        x.compute(t);
        for (const double g : x.gradients)
          norm += g * g;
      }
      norm = 0.5 * std::sqrt(norm);
      const double factor = std::fmin(1.0, max_norm / (norm + 1e-6));
      for (auto& x : clipped) {
        x.compute(t);
        for (double& g : x.gradients)
          g *= 0.5 * factor;
      }
      const auto report = opt.step({.grad_scale = 0.5, .max_grad_norm = max_norm});
      reference.step();
      CHECK(*report.grad_norm == doctest::Approx(norm).epsilon(1e-13));
      double worst = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < model[i].weights.size(); ++j)
          worst = std::fmax(worst, std::fabs(model[i].weights[j] - clipped[i].weights[j]));
      CHECK(worst < 1e-12);
    }
  }
}

TEST_CASE("max_grad_norm: a norm under the limit, or an infinite limit, changes no bit")
{
  for (const double limit : {1e6, std::numeric_limits<double>::infinity()}) {
    auto model = tensors<float>(), plain = tensors<float>();
    gradus::optimizer<gradus::adam> opt, reference;
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients);
      reference.add(plain[i].weights, plain[i].gradients);
    }
    for (int t = 0; t < 3; ++t) {
      CHECK(opt.step({.max_grad_norm = limit}).grad_norm > 0);
      CHECK_FALSE(reference.step().grad_norm);
    }
    CHECK(same(model, plain));
  }
  // Even where its square is too large for a double.
  std::vector<double> w(3, 1.0), v(3, 1.0), g(3, 1e200);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 1e-200}), reference({.lr = 1e-200});
  opt.add(w, g);
  reference.add(v, g);
  const auto report = opt.step({.max_grad_norm = std::numeric_limits<double>::infinity()});
  reference.step();
  CHECK(*report.grad_norm == doctest::Approx(std::sqrt(3.0) * 1e200).epsilon(1e-15));
  CHECK(same(w, v));
}

TEST_CASE("max_grad_norm: a norm whose square is out of a double's range is as good as any")
{
  const auto moved_by = [](std::vector<double> g, gradus::step_options o, double norm) {
    std::vector<double> w(g.size(), 0.0);
    gradus::optimizer<gradus::sgd, double> opt({.lr = 1});
    opt.add(w, g);
    const auto report = opt.step(o);
    CHECK(report.applied);
    CHECK((*report.grad_norm == norm || *report.grad_norm == doctest::Approx(norm).epsilon(1e-15)));
    for (double& x : w)
      x = -x;
    return w;
  };
  for (const bool skip : {false, true}) {
    const auto large = moved_by({3e200, 4e200}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e200);
    CHECK(large[0] == doctest::Approx(0.6).epsilon(1e-14));
    CHECK(large[1] == doctest::Approx(0.8).epsilon(1e-14));
    const auto small = moved_by({3e-170, 4e-170}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-170);
    CHECK(small[0] == 3e-170);
    const auto smallest = moved_by({3e-320, 4e-320}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-320);
    CHECK(smallest[0] == 3e-320);
    // Squares that lose digits, next to denormals; 5e-160, and its square no denormal either.
    moved_by({3e-160, 4e-160}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-160);
    // After grad_scale the norm is an ordinary one, or too large for a double.
    const auto scaled = moved_by({3e200, 4e200}, {.grad_scale = 1e-200, .max_grad_norm = 2.5, .skip_nonfinite = skip},
                                 5);
    CHECK(scaled[1] == doctest::Approx(2).epsilon(1e-6));
    const auto tiny = moved_by({3e-200, 4e-200}, {.grad_scale = 1e200, .max_grad_norm = 2.5, .skip_nonfinite = skip},
                               5);
    CHECK(tiny[1] == doctest::Approx(2).epsilon(1e-6));
    const auto largest = moved_by(std::vector<double>(4, 1.5e308), {.max_grad_norm = 10, .skip_nonfinite = skip},
                                  not_finite<double>[1]);
    CHECK(largest[3] == doctest::Approx(5).epsilon(1e-12));
    const auto beyond = moved_by({3e300, 4e300}, {.grad_scale = 1e100, .max_grad_norm = 1, .skip_nonfinite = skip},
                                 not_finite<double>[1]);
    CHECK(beyond[0] == doctest::Approx(0.6).epsilon(1e-12));
    // Only the total overflows: each tensor's, or block's, own sum does not.
    moved_by(std::vector<double>(9000, 1e153), {.max_grad_norm = 1, .skip_nonfinite = skip}, std::sqrt(9000.0) * 1e153);
  }
  moved_by({0, 0}, {.max_grad_norm = 1}, 0);
}

TEST_CASE("max_grad_norm: gradients that are not finite are told from a norm that overflows")
{
  for (const double bad : not_finite<double>) {
    std::vector<double> w(3, 1.0), g{1e200, bad, 1e200};
    gradus::optimizer<gradus::sgd, double> opt({.lr = 1});
    opt.add(w, g);
    CHECK_FALSE(opt.step({.max_grad_norm = 1, .skip_nonfinite = true}).applied);
    CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
    CHECK(w[0] == 1);
    CHECK(opt.step({.max_grad_norm = 1}).applied);  // who does not ask is not spared
    CHECK(std::isnan(w[1]));
  }
}

TEST_CASE("max_grad_norm: a factor that the compute type cannot hold is refused, or the step skipped")
{
  const auto check = [](auto type, double gradient, double limit, const std::string& message) {
    using T = decltype(type);
    std::vector<T> w(9, T(1)), g(9, T(gradient));
    const auto before = w;
    gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
    gradus::optimizer<gradus::sgd, T, gradus::backend::scalar> who_does_not_ask({.lr = 1});
    opt.add("w", w, g);
    who_does_not_ask.add("w", w, g);
    const auto state = save(opt);
    CHECK_THROWS_WITH_AS(who_does_not_ask.step({.max_grad_norm = limit}), doctest::Contains(message.c_str()),
                         std::invalid_argument);
    const auto report = opt.step({.max_grad_norm = limit, .skip_nonfinite = true});
    CHECK_FALSE(report.applied);
    CHECK(*report.grad_norm == doctest::Approx(3 * gradient));
    CHECK(same(w, before));
    CHECK((save(opt) == state));
  };
  check(float(), 1e30, 1e-9, "max_grad_norm is 1e-09 and the gradients' norm 3");
  check(double(), 1e300, 1e-9, "max_grad_norm is 1e-09 and the gradients' norm 3");
  std::vector<float> w(4, 0), g(4, 1e30f);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  opt.add(w, g);
  CHECK(opt.step({.max_grad_norm = 1e-6}).applied);
  CHECK(double(w[0]) == doctest::Approx(-5e-7));
}

TEST_CASE("grad_norm_sq: an infinite norm clips nothing to zero")
{
  std::vector<float> w(3, 1), g(3, 1);
  gradus::optimizer<gradus::adams> opt;
  opt.add(w, g);
  const double infinity = not_finite<double>[1];
  CHECK_THROWS_WITH_AS(opt.step({.max_grad_norm = 1, .grad_norm_sq = infinity}),
                       doctest::Contains("grad_norm_sq is inf; expected a finite number with max_grad_norm"),
                       std::invalid_argument);
  CHECK_FALSE(opt.step({.max_grad_norm = 1, .grad_norm_sq = infinity, .skip_nonfinite = true}).applied);
  CHECK(w[0] == 1);
  CHECK(opt.step({.max_grad_norm = infinity, .grad_norm_sq = infinity}).applied);
  // A decay that is scheduled by it rests for that step, and no longer.
  CHECK(*opt.step().mean_square == doctest::Approx(1).epsilon(1e-6));
  CHECK(opt.step({.max_grad_norm = 1, .grad_norm_sq = 0}).applied);
}

TEST_CASE_TEMPLATE("skip_nonfinite: skips on one NaN or infinity", T, float, double)
{
  auto model = tensors<T>({5, 4133, 67});
  gradus::optimizer<gradus::adams, T> opt(scheduled);
  std::vector<gradus::tensor_handle> handles;
  for (auto& x : model)
    handles.push_back(opt.add(x.weights, x.gradients));
  const auto before_first = model;
  int skipped = 0;
  // Before the first step and after three, at places that are bodies, tails and ends of blocks.
  for (const int steps : {0, 3}) {
    for (int t = 0; t < steps; ++t)
      CHECK(opt.step({.skip_nonfinite = true}).applied);
    const auto weights = model;
    const auto state = save(opt);
    for (std::size_t tensor = 0; tensor < 3; ++tensor)
      for (const std::size_t i : {0u, 1u, 4u, 31u, 33u, 63u, 66u, 4095u, 4096u, 4127u, 4132u})
        for (const T bad : not_finite<T>) {
          if (i >= model[tensor].gradients.size())
            continue;
          const T good = std::exchange(model[tensor].gradients[i], bad);
          const auto report = opt.step({.max_grad_norm = 1.0, .skip_nonfinite = true});
          CHECK_FALSE(report.applied);
          CHECK(report.grad_norm);
          CHECK_FALSE(report.grad_norm < std::numeric_limits<double>::max());
          CHECK_FALSE(report.mean_square);
          CHECK_FALSE(report.decay_factor);
          CHECK_FALSE(report.decay_clamped);
          model[tensor].gradients[i] = good;
          ++skipped;
        }
    CHECK(same(model, weights));
    CHECK((save(opt) == state));
    for (const auto& h : handles)
      CHECK(opt.step_count(h) == std::uint64_t(steps));
  }
  CHECK(skipped == 2 * 3 * (3 + 11 + 7));
  // A tensor that is left out is not looked at.
  model[1].gradients[4000] = not_finite<T>[0];
  opt.freeze(handles[1]);
  CHECK(opt.step({.skip_nonfinite = true}).applied);
  CHECK(opt.step_count(handles[0]) == 4);
  // And who does not ask is not spared.
  opt.unfreeze(handles[1]);
  CHECK(opt.step().applied);
  CHECK(std::isnan(double(model[1].weights[4000])));
}

TEST_CASE("skip_nonfinite: a skipped step does not change later steps")
{
  auto model = tensors<float>(), spared = tensors<float>();
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(spared[i].weights, spared[i].gradients);
  }
  for (int t = 0; t < 9; ++t) {
    for (auto* m : {&model, &spared})
      for (auto& x : *m)
        x.compute(t);
    if (t % 3 == 1) {
      const float good = std::exchange(model[2].gradients[39], not_finite<float>[0]);
      CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
      model[2].gradients[39] = good;
    }
    opt.step({.skip_nonfinite = true});
    reference.step();
  }
  CHECK(same(model, spared));
}

TEST_CASE("skip_nonfinite: a norm that overflows is no reason to skip")
{
  std::vector<double> w(3, 1.0), v(3, 1.0), g(3, 1e200);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 1e-201}), reference({.lr = 1e-201});
  opt.add(w, g);
  reference.add(v, g);
  const auto report = opt.step({.skip_nonfinite = true});
  reference.step();
  CHECK(report.applied);
  CHECK(*report.grad_norm == doctest::Approx(std::sqrt(3.0) * 1e200).epsilon(1e-15));
  CHECK(same(w, v));
  CHECK(w[0] == 0.9);
  // A norm that is given is looked at first, and the elements where it is not finite.
  CHECK(opt.step({.grad_norm_sq = not_finite<double>[1], .skip_nonfinite = true}).applied);
  g[2] = not_finite<double>[0];
  CHECK_FALSE(opt.step({.grad_norm_sq = not_finite<double>[0], .skip_nonfinite = true}).applied);
}

namespace {

// One step with skip_nonfinite, of weights that are alike but for one: whether it was applied. If not, nothing has
// changed; if so, it was the step of those who do not ask.
template <class T, class Backend, class Recipe>
bool is_applied(const Recipe& recipe, double weight, double gradient, gradus::step_options o = {}, std::size_t n = 4133)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  const auto number = []<class X>(X, double x) {
    if constexpr (gradus::real<X>)
      return X(x);
    else
      return X(float(x));
  };
  std::vector<P> w(n, number(P(), 1.0)), v;
  std::vector<G> g(n, number(G(), 0.5));
  v = w;
  gradus::optimizer<Recipe, T, Backend> opt(recipe), reference(recipe);
  opt.add("w", w, g);
  reference.add("w", v, g);
  for (auto* each : {&opt, &reference})
    each->step({.lr_scale = 0});
  w[n - 1] = v[n - 1] = number(P(), weight);
  g[n - 1] = number(G(), gradient);
  const auto weights = w;
  const auto state = save(opt);
  if (!o.max_grad_norm)
    reference.step(o);
  o.skip_nonfinite = true;
  const bool applied = opt.step(o).applied;
  if (applied)
    CHECK((o.max_grad_norm || same(w, v)));
  else {
    CHECK(same(w, weights));
    CHECK((save(opt) == state));
  }
  return applied;
}

// A gradient of one size is applied and one of another is not, with room between them for a formula's details.
template <class T, class Recipe>
void check_overflow(const Recipe& recipe, double applied, double skipped, const gradus::step_options& o = {})
{
  CAPTURE(applied);
  CAPTURE(skipped);
  for (const double sign : {1.0, -1.0}) {
    CHECK(is_applied<T, gradus::default_backend>(recipe, 1, sign * applied, o));
    CHECK_FALSE(is_applied<T, gradus::default_backend>(recipe, 1, sign * skipped, o));
  }
  CHECK(is_applied<T, gradus::backend::scalar>(recipe, 1, applied, o));
  CHECK_FALSE(is_applied<T, gradus::backend::scalar>(recipe, 1, skipped, o));
}

}  // namespace

TEST_CASE("skip_nonfinite: a finite gradient that would make a moment infinite is skipped, and only such")
{
  using gradus::bfloat16, gradus::block8, gradus::precision;
  check_overflow<float>(gradus::adam{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::adams{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::amsgrad{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::yogi{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::padam{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::radam{}, 1.5e19, 1e21);
  check_overflow<double>(gradus::adams{}, 1e154, 1e157);
  check_overflow<precision<float, float, bfloat16>>(gradus::adamw{}, 1.5e19, 1e21);
  check_overflow<precision<float, float, block8>>(gradus::adam{}, 1.5e19, 1e21);
  check_overflow<precision<bfloat16, bfloat16, float, float>>(gradus::adams{}, 1.5e19, 1e21);
  check_overflow<precision<bfloat16, bfloat16, block8>>(gradus::adam{}, 1.5e19, 1e21);
  // After grad_scale, and after clipping.
  check_overflow<float>(gradus::adam{}, 1.5e16, 1e18, {.grad_scale = 1e3});
  check_overflow<float>(gradus::adam{}, 1.5e36, 1e38, {.grad_scale = 1e-17, .max_grad_norm = 1e36});
  CHECK(is_applied<float, gradus::default_backend>(gradus::adam{}, 1, 1e30, {.max_grad_norm = 1}));
  CHECK(is_applied<float, gradus::default_backend>(gradus::adam{}, 1000, 2e19));
}

TEST_CASE("skip_nonfinite: a product that overflows is skipped where nothing is squared, too")
{
  check_overflow<float>(gradus::sgd{.lr = 1e-3}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<float>(gradus::sgd{.lr = 1e-3, .momentum = 0.9}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<double>(gradus::sgds{.lr = 1e-3}, 1e307, 1e308, {.grad_scale = 10});
  check_overflow<gradus::precision<gradus::bfloat16>>(gradus::sgd{.lr = 1e-3}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<float>(gradus::sgd{.lr = 1e20}, 1e15, 1e20);  // lr times the gradient
}

TEST_CASE("skip_nonfinite: many large gradients are no reason, however large their norm")
{
  std::vector<float> w(100'000, 1), v(w), g(w.size(), 1.5e19f);
  gradus::optimizer<gradus::adam> opt, reference;
  opt.add(w, g);
  reference.add(v, g);
  for (int t = 0; t < 3; ++t) {
    CHECK(opt.step({.skip_nonfinite = true}).applied);
    reference.step();
  }
  CHECK(same(w, v));
}
