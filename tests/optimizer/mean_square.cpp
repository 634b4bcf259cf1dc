// The mean of the second moment, by which a decay is scheduled: from the gradients' norm, from the moments, or given.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/scene.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::not_finite, support::restore, support::same, support::save, support::scene, support::scheduled;
using support::tensor, support::tensors;

}  // namespace

TEST_CASE_TEMPLATE("mean square: one pass finds what two passes find", T, float, double)
{
  // Groups, one of which does not decay; a scale on the gradients; a tensor that comes late, one that pauses; a norm
  // that is given now and then; a thousand steps for the sums to drift in.
  auto model = tensors<T>({7, 500, 33});
  gradus::optimizer<gradus::adams, T> opt({.lr = 1e-3, .weight_decay = 1e-3});
  const auto undecayed = opt.add_group({.lr = 1e-3, .weight_decay = 0});
  std::vector<gradus::tensor_handle> h{opt.add("0", model[0].weights, model[0].gradients),
                                       opt.add("1", model[1].weights, model[1].gradients, undecayed)};
  double worst = 0;
  for (int t = 0; t < 1000; ++t) {
    if (t == 300)
      h.push_back(opt.add("2", model[2].weights, model[2].gradients));
    if (t == 500)
      opt.freeze(h[1]);
    if (t == 600)
      opt.unfreeze(h[1]);
    double norm_sq = 0;
    for (std::size_t k = 0; k < h.size(); ++k) {
      model[k].compute(t);
      for (const T g : model[k].gradients)
        norm_sq += double(g) * double(g);
    }
    const bool given = t < 300 && t % 3 == 1;
    const auto report = opt.step({.grad_scale = t % 2 ? 1.0 : 3.0,
                                  .grad_norm_sq = given ? std::optional(norm_sq) : std::nullopt});
    double sum = 0, count = 0;
    for (std::size_t k = 0; k < h.size(); ++k) {
      if (k == 1 && t >= 500 && t < 600)
        continue;
      const double bc2 = 1 - std::pow(0.999, double(opt.step_count(h[k])));
      for (const T v : opt.state(std::to_string(k), "exp_avg_sq")) {
        sum += double(v) / bc2;
        count += 1;
      }
    }
    worst = std::fmax(worst, std::fabs(*report.mean_square / (sum / count) - 1));
  }
  MESSAGE("worst relative difference of v̄ over 1000 steps: ", worst);
  CHECK(worst < (sizeof(T) == 4 ? 1e-5 : 1e-12));
}

TEST_CASE_TEMPLATE("mean square: right for gradients whose squares overflow before they are scaled", Backend,
                   gradus::backend::scalar, gradus::default_backend)
{
  for (const double size : {1e200, 1e-200}) {
    auto model = tensors<double>(), ordinary = tensors<double>();
    gradus::optimizer<gradus::adams, double, Backend> opt(scheduled);
    gradus::optimizer<gradus::adams, double> reference(scheduled);
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients);
      reference.add(ordinary[i].weights, ordinary[i].gradients);
    }
    for (int t = 0; t < 5; ++t) {
      const bool clips = size > 1 && t % 2 == 1;
      double norm_sq = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        ordinary[i].compute(t);
        model[i].gradients = ordinary[i].gradients;
        for (double& g : model[i].gradients) {
          norm_sq += g * g;
          g *= size;
        }
      }
      // Clipped to the norm that it has unscaled, or scaled back.
      const auto report = clips ? opt.step({.max_grad_norm = std::sqrt(norm_sq)}) : opt.step({.grad_scale = 1 / size});
      const auto expected = reference.step();
      CHECK(*report.mean_square == doctest::Approx(*expected.mean_square).epsilon(1e-12));
      CHECK(*report.grad_norm == doctest::Approx(*expected.grad_norm * (clips ? size : 1)).epsilon(1e-12));
      double worst = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < model[i].weights.size(); ++j)
          worst = std::fmax(worst, std::fabs(model[i].weights[j] - ordinary[i].weights[j]));
      CHECK(worst < 1e-10);
    }
  }
}

TEST_CASE("mean square: 0 for gradients that are all zero, which then decay nothing and make no NaN")
{
  std::vector<float> w{1, -2, 3}, g(3, 0.0f);
  const auto start = w;
  gradus::optimizer<gradus::adams> opt({.lr = 0.1, .weight_decay = 0.5});
  opt.add(w, g);
  for (int t = 0; t < 3; ++t) {
    const auto report = opt.step();
    CHECK(report.grad_norm == 0);
    CHECK(report.mean_square == 0);
    CHECK(report.decay_factor == 0);
    CHECK_FALSE(report.decay_clamped);
  }
  CHECK(same(w, start));
  g = {1, 0, 0};
  CHECK(*opt.step().mean_square > 0);
  CHECK(w[1] > -2);

  // In two passes too.
  using namespace gradus;
  std::vector<float> v = start, zero(3, 0.0f);
  optimizer two(compose(0.1, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{},
                        decay::scheduled{0.5}));
  two.add(v, zero);
  CHECK(two.step().decay_factor == 0);
  CHECK(same(v, start));
}

TEST_CASE("mean square: right after beta2 was changed, of all groups or of one")
{
  // The sums that v̄ follows from must go on from the moments that are there.
  auto model = tensors<double>({5, 60});
  gradus::optimizer<gradus::adams, double> opt(scheduled);
  const auto group = opt.add_group(scheduled);
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, group);
  for (int t = 1; t <= 12; ++t) {
    auto h = scheduled;
    if (t > 4)
      h.beta2 = 0.9;
    if (t == 5)
      opt.set_hyperparameters(h, group);
    if (t == 9)
      opt.set_hyperparameters(h);
    for (auto& x : model)
      x.compute(t);
    const auto report = opt.step();
    double sum = 0;
    for (std::size_t i = 0; i < 2; ++i)
      for (const double v : opt.state("tensor" + std::to_string(i), "exp_avg_sq"))
        sum += v / (1 - std::pow(t > (i == 1 ? 4 : 8) ? 0.9 : 0.99, t));
    CHECK(*report.mean_square == doctest::Approx(sum / 65).epsilon(1e-12));
  }
}

TEST_CASE("mean square: a sum that tensors share takes in one that comes back")
{
  // b, five steps old, comes back when a, a newcomer, is five steps old as well: of one age, they could share a sum.
  tensor<double> a(4, 1), b(40, 2), c(4, 3);
  gradus::optimizer<gradus::adams, double> opt(scheduled);
  const auto gone = opt.add(c.weights, c.gradients);
  const auto paused = opt.add("b", b.weights, b.gradients);
  for (int t = 0; t < 5; ++t)
    opt.step();
  opt.freeze(paused);
  opt.remove(gone, gradus::removed_state::dropped);
  opt.add("a", a.weights, a.gradients);
  const auto norm_sq = [](const tensor<double>& x) {
    return gradus::squared_norm(gradus::backend::scalar{}, std::span<const double>(x.gradients));
  };
  for (int t = 0; t < 5; ++t)
    opt.step({.grad_norm_sq = norm_sq(a)});
  opt.unfreeze(paused);
  const auto report = opt.step();
  double sum = 0;
  for (const char* name : {"a", "b"})
    for (const double v : opt.state(name, "exp_avg_sq"))
      sum += v;
  CHECK(*report.mean_square == doctest::Approx(sum / (1 - std::pow(0.99, 6)) / 44).epsilon(1e-12));
}

TEST_CASE_TEMPLATE("mean square: the bits do not depend on the order of tensors, nor on whether the norm is given", T,
                   float, double)
{
  // Several pages, and a decay so large that the last bits of v̄ reach the weights.
  const gradus::adams hyperparameters{.lr = 0.01, .weight_decay = 20};
  auto one = tensors<T>({5000, 3, 70, 9001}), other = one, given = one;
  gradus::optimizer<gradus::adams, T> in_order(hyperparameters), reversed(hyperparameters), told(hyperparameters);
  for (std::size_t i = 0; i < one.size(); ++i) {
    const std::size_t k = one.size() - 1 - i;
    in_order.add(one[i].weights, one[i].gradients);
    reversed.add(other[k].weights, other[k].gradients);
    told.add(given[i].weights, given[i].gradients);
  }
  for (int t = 0; t < 20; ++t) {
    for (auto* model : {&one, &other, &given})
      for (auto& x : *model)
        x.compute(t);
    gradus::exact_sum squares;
    for (const auto& x : given)
      gradus::add_squared_norm(gradus::backend::scalar{}, std::span<const T>(x.gradients), squares);
    const auto report = in_order.step();
    CHECK(*report.mean_square == *reversed.step().mean_square);
    CHECK(*report.mean_square == *told.step({.grad_norm_sq = squares.value()}).mean_square);
  }
  CHECK(same(one, other));
  CHECK(same(one, given));
}

TEST_CASE("mean square: a restored sum that covers a tensor without gradients is recomputed for the others")
{
  auto model = tensors<double>({3, 4}), restored = model;
  gradus::optimizer<gradus::adams, double> opt(scheduled), next(scheduled);
  for (std::size_t i = 0; i < 2; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    const auto h = next.add(restored[i].weights, restored[i].gradients);
    if (i == 1)
      next.rebind_spans(h, std::span(restored[i].weights), std::nullopt);
  }
  for (int t = 0; t < 4; ++t) {
    for (auto& x : model)
      x.compute(t);
    opt.step();
  }
  restore(next, save(opt));
  restored[0].compute(4);
  const auto report = next.step();
  double sum = 0;
  for (const double v : next.state("tensor0", "exp_avg_sq"))
    sum += v;
  CHECK(*report.mean_square == doctest::Approx(sum / 3 / (1 - std::pow(scheduled.beta2, 5))).epsilon(1e-12));
}

TEST_CASE("mean square: recomputed after padding was set while frozen, and after visit_tensors froze a tensor")
{
  for (const bool pads : {true, false}) {
    auto model = tensors<double>({3, 4});
    gradus::optimizer<gradus::adams, double> opt(scheduled);
    opt.add(model[0].weights, model[0].gradients);
    const auto second = opt.add(model[1].weights, model[1].gradients);
    for (int t = 0; t < 4; ++t) {
      for (auto& x : model)
        x.compute(t);
      opt.step();
    }
    if (pads) {
      opt.freeze(second);
      opt.set_padding(second, [](std::size_t i) { return i > 0; });
      opt.unfreeze(second);
    } else
      opt.visit_tensors([](std::string_view name, auto, std::size_t, bool& takes_part) {
        takes_part = name == "tensor0";
      });
    for (auto& x : model)
      x.compute(4);
    for (std::size_t i = 1; pads && i < 4; ++i)
      model[1].gradients[i] = 0;
    const auto report = opt.step();
    double sum = 0;
    for (std::size_t i = 0; i < (pads ? 2u : 1u); ++i)
      for (const double v : opt.state("tensor" + std::to_string(i), "exp_avg_sq"))
        sum += v;
    const double counted = pads ? 4 : 3;
    CHECK(*report.mean_square == doctest::Approx(sum / counted / (1 - std::pow(scheduled.beta2, 5))).epsilon(1e-12));
  }
}

TEST_CASE("model_size: refused after steps without it, on every backend")
{
  auto model = tensors<double>({31});
  gradus::optimizer<gradus::adams, double> opt(scheduled);
  opt.add(model[0].weights, model[0].gradients);
  model[0].compute(0);
  opt.step();
  CHECK_THROWS_AS(opt.step({.grad_norm_sq = 100, .model_size = 10000}), std::invalid_argument);
}

TEST_CASE("recompute_second_moment_sum: moments that were written before the first step count too")
{
  // Whether the tensor takes part meanwhile, or only joins afterwards, or leaves and comes back.
  for (const int way : {0, 1, 2, 3}) {
    std::vector<double> w(12, 1), g(12, 0.5);
    gradus::optimizer<gradus::adams, double> opt({.beta2 = 0.5, .weight_decay = 0.1});
    const auto h = opt.add("w", w, g);
    if (way == 1 || way == 3)
      opt.freeze(h);
    opt.state("w", "exp_avg_sq")[0] = 6;
    if (way == 3)
      opt.visit_state([](auto, auto, auto) {});
    else
      opt.recompute_second_moment_sum();
    if (way == 2)
      opt.freeze(h);
    opt.unfreeze(h);
    // v/(1 − β₂) = (0.5·6 + 0.5·0.25 + 11·0.5·0.25)/0.5 over 12 elements
    CHECK(*opt.step().mean_square == doctest::Approx((3 + 12 * 0.125) / 0.5 / 12).epsilon(1e-14));
  }
}

TEST_CASE("recompute_second_moment_sum: moments that were written by hand count after it")
{
  tensor<double> a(20, 1), b(20, 1);
  gradus::optimizer<gradus::adams, double> opt(scheduled), other(scheduled);
  opt.add("a", a.weights, a.gradients);
  other.add("a", b.weights, b.gradients);
  opt.step();
  other.step();
  for (double& v : opt.state("a", "exp_avg_sq"))
    v *= 16;
  opt.recompute_second_moment_sum();
  const auto report = opt.step();
  double sum = 0;
  for (const double v : opt.state("a", "exp_avg_sq"))
    sum += v;
  CHECK(*report.mean_square == doctest::Approx(sum / 20 / (1 - 0.99 * 0.99)).epsilon(1e-12));
  // Where nothing was written, recompute_second_moment_sum is no more than rounding.
  const auto expected = other.step();
  (void)expected;
  other.recompute_second_moment_sum();
  other.recompute_second_moment_sum();
  const auto after = other.step();
  sum = 0;
  for (const double v : other.state("a", "exp_avg_sq"))
    sum += v;
  CHECK(*after.mean_square == doctest::Approx(sum / 20 / (1 - 0.99 * 0.99 * 0.99)).epsilon(1e-12));
}

TEST_CASE_TEMPLATE("model_size: parts of a model that are told its size and norm have its mean, to the bit", T, float,
                   double)
{
  auto whole = tensors<T>({5, 4133, 40}), parts = tensors<T>({5, 4133, 40});
  gradus::optimizer<gradus::adams, T> opt(scheduled);
  std::vector<gradus::optimizer<gradus::adams, T>> of_part;
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(whole[i].weights, whole[i].gradients);
    of_part.emplace_back(scheduled);
    of_part[i].add("w", parts[i].weights, parts[i].gradients);
  }
  for (int t = 0; t < 9; ++t) {
    gradus::exact_sum sum;
    for (std::size_t i = 0; i < 3; ++i) {
      whole[i].compute(t);
      parts[i].compute(t);
      gradus::add_squared_norm(gradus::backend::scalar{}, std::span<const T>(whole[i].gradients), sum);
    }
    gradus::step_options o{.max_grad_norm = t % 3 ? 2 : 1e9, .grad_norm_sq = sum.value(), .skip_nonfinite = t % 2 == 0};
    const auto expected = opt.step(o);
    o.model_size = 5 + 4133 + 40;
    for (std::size_t i = 0; i < 3; ++i) {
      if (t == 5) {  // saved and gone on with
        gradus::optimizer<gradus::adams, T> resumed(scheduled);
        resumed.add("w", parts[i].weights, parts[i].gradients);
        restore(resumed, save(of_part[i]));
        of_part[i] = std::move(resumed);
      }
      const auto report = of_part[i].step(o);
      CHECK(*report.mean_square == *expected.mean_square);
      CHECK(*report.decay_factor == *expected.decay_factor);
    }
    CHECK(same(whole, parts));
  }
  // The size of all of it is no part's; and it counts in clipping alone where no decay is scheduled.
  CHECK_NOTHROW(opt.step({.model_size = 5 + 4133 + 40}));
  gradus::optimizer<gradus::adam, T> plain;
  plain.add(parts[0].weights, parts[0].gradients);
  CHECK_NOTHROW(plain.step({.model_size = 1'000'000}));
}

TEST_CASE("model_size: refused where it does not give the mean")
{
  tensor<float> a(30, 1);
  gradus::optimizer<gradus::adams> opt(scheduled);
  opt.add("w", a.weights, a.gradients);
  const auto check = [&](auto& of, const gradus::step_options& o, const char* message) {
    const auto weights = a.weights;
    const auto state = save(of);
    CHECK_THROWS_WITH_AS(of.step(o), doctest::Contains(message), std::invalid_argument);
    CHECK(same(a.weights, weights));
    CHECK((save(of) == state));
  };
  check(opt, {.grad_norm_sq = 1, .model_size = 29}, "model_size is 29; expected at least 30");
  check(opt, {.model_size = 31},
        "model_size is 31; expected none, because the norm of this part is not the whole model's; also give");
  const auto two_passes = gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                          gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
  gradus::optimizer<decltype(two_passes)> by_moments(two_passes);
  by_moments.add("w", a.weights, a.gradients);
  check(by_moments, {.grad_norm_sq = 1, .model_size = 31}, "give mean_square");
  opt.step();
  check(opt, {.grad_norm_sq = 1, .model_size = 31}, "from the first step on");
  CHECK_NOTHROW(opt.step({.grad_norm_sq = 1, .model_size = 30}));
}

TEST_CASE_TEMPLATE("option mean_square: what is given is the decay's", Rule, gradus::second_moment::ema,
                   gradus::second_moment::ema_max)
{
  const auto recipe = gradus::compose(0.01, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                      gradus::decay::scheduled{.weight_decay = 0.1});
  const auto decoupled = gradus::compose(0.01, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                         gradus::decay::decoupled{.weight_decay = 0.1 / 4});
  auto model = tensors<float>(), twin = tensors<float>();
  gradus::optimizer<std::remove_const_t<decltype(recipe)>> opt(recipe);
  gradus::optimizer<std::remove_const_t<decltype(decoupled)>> reference(decoupled);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(twin[i].weights, twin[i].gradients);
  }
  for (int t = 0; t < 4; ++t) {
    const auto report = opt.step({.mean_square = 16});
    CHECK(*report.mean_square == 16);
    CHECK(*report.decay_factor == 0.25);
    CHECK_FALSE(report.grad_norm);
    reference.step();
  }
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < model[i].weights.size(); ++k)
      CHECK(double(model[i].weights[k]) == doctest::Approx(double(twin[i].weights[k])).epsilon(1e-6));
  for (const double bad : {-1.0, not_finite<double>[0], not_finite<double>[1]})
    CHECK_THROWS_WITH_AS(opt.step({.mean_square = bad}), doctest::Contains("mean_square is "), std::invalid_argument);
}

TEST_CASE_TEMPLATE("option mean_square: after it was given, the optimizer's own is right again", T, float, double)
{
  for (const bool measured : {false, true})
    for (const bool shared : {false, true}) {
      auto model = tensors<T>(), twin = tensors<T>();
      gradus::adams still = scheduled;
      still.weight_decay = 0;  // so that both have the same gradients
      gradus::optimizer<gradus::adams, T> opt(still), reference(still);
      for (std::size_t i = 0; i < 3; ++i) {
        opt.add("w" + std::to_string(i), model[i].weights, model[i].gradients);
        reference.add(twin[i].weights, twin[i].gradients);
      }
      gradus::step_options norm;
      if (shared)
        norm.grad_norm_sq = 25;
      if (shared && !measured)
        opt.step(), reference.step();
      else
        opt.step(norm), reference.step(norm);
      gradus::step_options given{.mean_square = 3};
      if (measured)
        given.max_grad_norm = 1e9;
      opt.step(given), reference.step(measured ? gradus::step_options{.max_grad_norm = 1e9} : gradus::step_options{});
      if (!measured) {  // and through a checkpoint
        gradus::optimizer<gradus::adams, T> resumed(still);
        for (std::size_t i = 0; i < 3; ++i)
          resumed.add("w" + std::to_string(i), model[i].weights, model[i].gradients);
        restore(resumed, save(opt));
        opt = std::move(resumed);
      }
      const double mean = *opt.step().mean_square, expected = *reference.step().mean_square;
      if (measured)
        CHECK(mean == expected);
      else
        CHECK(mean == doctest::Approx(expected).epsilon(std::is_same_v<T, float> ? 1e-6 : 1e-13));
    }
}

TEST_CASE("grad_norm_sq: refused where tensors need a norm each")
{
  const std::string message =
      "gradus: grad_norm_sq is 14; expected none, because a scheduled decay needs the norm of each tensor if tensors "
      "differ in beta2 or in the number of steps taken; leave it out to have it computed";
  scene<gradus::adams> late, twin;
  for (auto* s : {&late, &twin})
    s->opt.add("spare", s->spare, s->spare_gradient);
  const std::string before = late.image();
  CHECK_THROWS_WITH_AS(late.opt.step({.grad_norm_sq = 14}), message.c_str(), std::invalid_argument);
  CHECK((late.image() == before));
  for (auto* s : {&late, &twin})
    s->opt.step();
  CHECK((late.image() == twin.image()));

  scene<gradus::adams> beta2;
  gradus::adams other = beta2.opt.hyperparameters();
  other.beta2 = 0.5;
  beta2.opt.set_hyperparameters(other, beta2.undecayed);
  const std::string before_beta2 = beta2.image();
  CHECK_THROWS_WITH_AS(beta2.opt.step({.grad_norm_sq = 14}), message.c_str(), std::invalid_argument);
  CHECK((beta2.image() == before_beta2));
  CHECK_NOTHROW(beta2.opt.step());

  // Where no decay is scheduled one norm serves all: it is only for clipping.
  scene<gradus::adam> plain;
  plain.opt.add("spare", plain.spare, plain.spare_gradient);
  CHECK_NOTHROW(plain.opt.step({.max_grad_norm = 1, .grad_norm_sq = 14}));
  // And what is left out does not count.
  scene<gradus::adams> alone;
  alone.opt.freeze(alone.opt.add("spare", alone.spare, alone.spare_gradient));
  CHECK_NOTHROW(alone.opt.step({.grad_norm_sq = 14}));
}

TEST_CASE("mean_square: a sum beside one whose squares overflow a double is right when it is alone")
{
  // In the unit that the large gradients need, the squares of the small ones underflow.
  std::vector<double> w(3, 1.0), large{1e200, 2e200, -1e200}, small{1e-30, -2e-30, 3e-30}, v = w;
  gradus::optimizer<gradus::adams, double> opt({.beta2 = 0.9});
  const auto first = opt.add("large", w, large);
  auto other = opt.hyperparameters();
  other.beta2 = 0.99;
  opt.add("small", v, small, opt.add_group(other));
  opt.step({.grad_scale = 1e-60});
  opt.freeze(first);
  const auto report = opt.step({.grad_scale = 1e-60});
  double sum = 0;
  for (const double x : opt.state("small", "exp_avg_sq"))
    sum += x;
  CHECK(*report.mean_square == doctest::Approx(sum / 3 / (1 - 0.99 * 0.99)).epsilon(1e-12));
  CHECK(*report.mean_square > 0);
}
