// Decays: what is taken off the weights, and that no step loses it.

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/own_rules.hpp"
#include "support/random.hpp"
#include "support/tensors.hpp"
#include "support/walk.hpp"

namespace {

using support::draw, support::equal, support::same, support::tensors, support::walk;

namespace first_moment = gradus::first_moment;
namespace second_moment = gradus::second_moment;
namespace step_size = gradus::step_size;
namespace decay = gradus::decay;

constexpr std::size_t length = 19;

}  // namespace

// ── the equations ───────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// The largest difference in 50 steps between a decay of SGD with momentum and a loop in double. \param loop loop(θ, g,
// α/lr) decays the weight, or the gradient
template <class T, class Decay, class Loop>
double worst_difference_of_sgd(const Decay& decay, const Loop& loop)
{
  constexpr std::size_t n = 37;
  constexpr double lr = 0.1, mu = 0.75, dampening = 0.5;
  support::random r(22);
  walk x(gradus::compose(lr, first_moment::momentum{.momentum = mu, .dampening = dampening}, second_moment::none{},
                         step_size::constant{}, decay),
         draw<T>(r, n));
  std::vector<double> weights(x.weights.begin(), x.weights.end()), buffer(n);
  double worst = 0;
  for (int t = 1; t <= 50; ++t) {
    auto gradients = draw<T>(r, n);
    const double lr_scale = t > 30 ? 0.25 : 1;
    for (std::size_t i = 0; i < n; ++i) {
      if (i == 0 || (t > 25 && i % 3 == 0))
        gradients[i] = 0;
      double g = double(gradients[i]), decayed = weights[i];
      loop(decayed, g, lr_scale);
      buffer[i] = t == 1 ? g : mu * buffer[i] + (1 - dampening) * g;
      weights[i] = decayed - lr * lr_scale * buffer[i];
    }
    x.step(gradients, lr_scale);
    for (std::size_t i = 0; i < n; ++i)
      worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
  }
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("none, l2, decoupled, independent, stable, l2_or_decoupled: the equations", T, float, double)
{
  constexpr double rounding = sizeof(T) == 4 ? 1e-5 : 1e-13, lr = 0.1, gain = (1 - 0.5) / (1 - 0.75);
  CHECK(worst_difference_of_sgd<T>(decay::none{}, [](double&, double&, double) {}) < rounding);
  // Parts of the weight from nothing to all of it and beyond, on either side of the half from which another form is
  // taken.
  for (const double s : {0.0, 1e-6, 0.01, 0.49, 0.51, 1.0, 1.25}) {
    CAPTURE(s);
    const auto decoupled = [&](double& theta, double&, double scale) { theta -= s * scale * theta; };
    const auto l2 = [&](double& theta, double& g, double) { g += s * theta; };
    CHECK(worst_difference_of_sgd<T>(decay::l2{s}, l2) < rounding);
    CHECK(worst_difference_of_sgd<T>(decay::decoupled{s / lr}, decoupled) < rounding);
    CHECK(worst_difference_of_sgd<T>(decay::independent{s},
                                     [&](double& theta, double&, double) { theta -= s * theta; }) < rounding);
    CHECK(worst_difference_of_sgd<T>(decay::stable{s / lr / gain}, decoupled) < rounding);
    CHECK(worst_difference_of_sgd<T>(decay::l2_or_decoupled{s, false}, l2) < rounding);
    CHECK(worst_difference_of_sgd<T>(decay::l2_or_decoupled{s / lr, true}, decoupled) < rounding);
  }
}

TEST_CASE_TEMPLATE("proximal: divides the weight after the step, by any amount", T, float, double)
{
  for (const double weight_decay : {0.0, 1e-7, 0.1, 9.0, 1000.0}) {
    CAPTURE(weight_decay);
    support::random r(25);
    const auto composed = [](const auto& decay) {
      return gradus::compose(0.1, first_moment::ema{}, second_moment::ema{}, step_size::bounded{.gamma = 0.5}, decay);
    };
    walk x(composed(decay::proximal{weight_decay}), draw<T>(r));
    walk plain(composed(decay::none{}), x.weights);
    double worst = 0;
    for (int t = 1; t <= 20; ++t) {
      plain.weights = x.weights;
      const auto g = draw<T>(r);
      const double lr_scale = t > 10 ? 0.25 : 1;
      x.step(g, lr_scale);
      plain.step(g, lr_scale);
      for (std::size_t i = 0; i < g.size(); ++i)
        worst = std::fmax(worst, std::fabs(double(x.weights[i]) -
                                           double(plain.weights[i]) / (1 + 0.1 * lr_scale * weight_decay)));
    }
    CHECK(worst < (sizeof(T) == 4 ? 1e-6 : 1e-15));
  }
}

TEST_CASE_TEMPLATE("cautious: the whole decay, but none where the step and the weight have opposite signs", T, float,
                   double)
{
  for (const double weight_decay : {0.0, 1e-7, 0.1, 4.0, 6.0, 10.0, 25.0}) {  // s from 0 to 2.5
    CAPTURE(weight_decay);
    constexpr double lr = 0.1, mu = 0.75;
    support::random r(26);
    const auto start = draw<T>(r);
    const auto composed = [&](const auto& decay) {
      return gradus::compose(lr, first_moment::momentum{.momentum = mu}, second_moment::none{}, step_size::constant{},
                             decay);
    };
    walk x(composed(decay::cautious{weight_decay}), start);
    std::vector<double> weights(start.begin(), start.end()), buffer(start.size());
    double worst = 0;
    std::size_t decayed = 0, spared = 0;
    for (int t = 1; t <= 20; ++t) {
      const double lr_scale = t > 10 ? 0.25 : 1;
      auto g = draw<T>(r);
      g[0] = 0;
      for (std::size_t i = 0; i < g.size(); ++i) {
        weights[i] = double(x.weights[i]);
        buffer[i] = t == 1 ? double(g[i]) : mu * buffer[i] + double(g[i]);
        const double u = lr * lr_scale * buffer[i];
        const bool acts = u * weights[i] >= 0;
        weights[i] = weights[i] - (acts ? lr * lr_scale * weight_decay * weights[i] : 0) - u;
        ++(acts ? decayed : spared);
      }
      x.step(g, lr_scale);
      for (std::size_t i = 0; i < g.size(); ++i)
        worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
    }
    CHECK(decayed > 300);
    CHECK(spared > 300);
    CHECK(worst < (sizeof(T) == 4 ? 1e-6 : 1e-15));
  }
}

TEST_CASE_TEMPLATE("cautious: sees the sign of steps and weights whose product is no number", T, float, double)
{
  // s = 1/2 decays as a part taken off, s = 1 as a factor.
  for (const double s : {0.5, 1.0}) {
    const T least = std::numeric_limits<T>::denorm_min();
    walk x(gradus::compose(1, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay::cautious{s}),
           std::vector<T>{4 * least, 4 * least, -4 * least, 1, 0, 1});
    x.step({least, -least, -least, 0, 1, -1});
    const T kept = T(1 - s);
    CHECK(x.weights[0] == 4 * least * kept - least);
    CHECK(x.weights[1] == 5 * least);
    CHECK(x.weights[2] == -(4 * least * kept - least));
    CHECK(x.weights[3] == kept);  // no step is no step away from 0, as in the paper
    CHECK(x.weights[4] == -1);
    CHECK(x.weights[5] == 2);
  }
}

// ── scheduled ───────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// Any optimizer whose decay is scheduled, written down as in a textbook: in double, in two passes, over all tensors. A
// subclass of nothing of gradus's.
struct textbook {
  double lr = 0.01, beta1 = 0.9, beta2 = 0.99;
  std::vector<double> weight_decay = {};  // each tensor's
  double start = 0;
  enum second { ema, maximum, yogi } second_moment = ema;
  // The step without the direction: α and bc1, bc2, t, the second moment to divide by.
  std::function<double(double alpha, double bc1, double bc2, int t, double v)> step_size;

  struct state {
    std::vector<double> w, m, v, x;
  };
  std::vector<state> tensors = {};
  double mean_square = 0;
  bool clamped = false;

  void add(const std::vector<double>& w)
  {
    const std::size_t n = w.size();
    tensors.push_back({w, std::vector(n, start), std::vector(n, start), std::vector(n, 0.0)});
  }

  void step(const std::vector<const std::vector<double>*>& gradients, int t, double lr_scale)
  {
    const double bc1 = 1 - std::pow(beta1, t), bc2 = 1 - std::pow(beta2, t), alpha = lr * lr_scale;
    double sum = 0, count = 0;
    for (std::size_t k = 0; k < tensors.size(); ++k)
      for (std::size_t i = 0; i < tensors[k].w.size(); ++i) {
        state& s = tensors[k];
        const double g = (*gradients[k])[i];
        s.m[i] = beta1 * s.m[i] + (1 - beta1) * g;
        if (second_moment == yogi) {
          const double sign = s.v[i] > g * g ? 1 : s.v[i] < g * g ? -1 : 0;
          s.v[i] -= (1 - beta2) * sign * g * g;
        } else
          s.v[i] = beta2 * s.v[i] + (1 - beta2) * g * g;
        s.x[i] = second_moment == maximum ? std::fmax(s.x[i], s.v[i]) : s.v[i];
        sum += s.x[i] / bc2;
        count += 1;
      }
    mean_square = sum / count;
    clamped = false;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      double s = mean_square == 0 ? 0 : alpha * weight_decay[k] / std::sqrt(mean_square);
      clamped = clamped || s > 1;
      s = std::fmin(s, 1);
      for (std::size_t i = 0; i < tensors[k].w.size(); ++i) {
        state& x = tensors[k];
        x.w[i] = (1 - s) * x.w[i] - step_size(alpha, bc1, bc2, t, x.x[i]) * x.m[i];
      }
    }
  }
};

// Runs a composition beside its textbook for a hundred steps, with a group that does not decay and a learning rate that
// changes; gives the largest difference, relative to 1e-3 + |w|.
template <class Recipe>
double worst_difference(const Recipe& recipe, textbook book)
{
  auto model = tensors<double>({5, 67, 12});
  gradus::optimizer<Recipe, double> opt(recipe);
  auto h = opt.hyperparameters();
  book.weight_decay = {h.decay.weight_decay, h.decay.weight_decay, 0};
  h.decay.weight_decay = 0;
  const auto undecayed = opt.add_group(h);
  std::vector<const std::vector<double>*> gradients;
  for (auto& x : model) {
    opt.add(x.weights, x.gradients, &x == &model.back() ? undecayed : gradus::group_handle{});
    book.add(x.weights);
    gradients.push_back(&x.gradients);
  }
  double worst = 0;
  for (int t = 1; t <= 100; ++t) {
    for (auto& x : model)
      x.compute(t);
    const double lr_scale = t > 60 ? 0.1 : 1;
    book.step(gradients, t, lr_scale);
    const auto report = opt.step({.lr_scale = lr_scale});
    worst = std::fmax(worst, std::fabs(*report.mean_square / book.mean_square - 1));
    CHECK(report.decay_clamped == book.clamped);
    for (std::size_t k = 0; k < model.size(); ++k)
      for (std::size_t i = 0; i < model[k].weights.size(); ++i)
        worst = std::fmax(worst, std::fabs(model[k].weights[i] - book.tensors[k].w[i]) /
                                     (1e-3 + std::fabs(book.tensors[k].w[i])));
  }
  return worst;
}

double adaptive(double alpha, double bc1, double bc2, int, double v)
{
  return alpha / bc1 / (std::sqrt(v) / std::sqrt(bc2) + 1e-8);
}

}  // namespace

TEST_CASE("scheduled: the equation, with every second moment and step size")
{
  using namespace gradus;
  const decay::scheduled swd{.weight_decay = 0.05};
  const textbook base{.step_size = adaptive};

  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::adaptive{}, swd),
                         base) < 1e-12);

  textbook book = base;
  book.second_moment = textbook::maximum;
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema_max{0.99}, step_size::adaptive{}, swd),
                         book) < 1e-12);

  book.step_size = [](double alpha, double bc1, double bc2, int, double v) {
    return alpha * std::sqrt(bc2) / bc1 / std::pow(std::sqrt(v) + 1e-8, 2 * 0.125);
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema_max{0.99},
                                 step_size::partially_adaptive{.partial = 0.125}, swd),
                         book) < 1e-12);

  book = base;
  book.second_moment = textbook::yogi;
  book.start = 1e-6;
  CHECK(worst_difference(compose(0.01, first_moment::ema{.initial_accumulator = 1e-6},
                                 second_moment::yogi{.beta2 = 0.99}, step_size::adaptive{}, swd),
                         book) < 1e-12);

  book = base;
  book.step_size = [](double alpha, double bc1, double bc2, int t, double v) {
    const double final_lr = 0.1 * alpha / 0.01, gamma = 1e-2;
    return std::fmin(std::fmax(alpha * std::sqrt(bc2) / bc1 / (std::sqrt(v) + 1e-8),
                               final_lr * (1 - 1 / (gamma * t + 1))),
                     final_lr * (1 + 1 / (gamma * t)));
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::bounded{.gamma = 1e-2},
                                 swd),
                         book) < 1e-12);

  book.step_size = [](double alpha, double bc1, double bc2, int t, double v) {
    const double beta2 = 0.99, inf = 2 / (1 - beta2) - 1, rho = inf - 2 * t * std::pow(beta2, t) / bc2;
    if (rho <= 5)
      return alpha / bc1;
    return alpha / bc1 * std::sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho)) * std::sqrt(bc2) /
           (std::sqrt(v) + 1e-8);
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::rectified{}, swd),
                         book) < 1e-12);

  // A decay of everything in each step, which is held to just that.
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::adaptive{},
                                 decay::scheduled{1e4}),
                         base) < 1e-12);
}

namespace {

// Each step of a scheduled decay against the same step without a decay, from which s·θ is taken off; v̄ comes from the
// new state, in a plain loop.
template <class F, class S, class P>
double worst_difference_from_undecayed(const F& first, const S& second, const P& step)
{
  constexpr std::size_t n = 37;
  constexpr double lr = 0.02, weight_decay = 0.3;
  support::random r(24);
  walk x(gradus::compose(lr, first, second, step, decay::scheduled{.weight_decay = weight_decay}), draw<double>(r, n));
  walk plain(gradus::compose(lr, first, second, step, decay::none{}), x.weights);
  double worst = 0;
  for (int t = 1; t <= 50; ++t) {
    plain.weights = x.weights;
    plain.slots = x.slots;
    const auto before = x.weights, g = draw<double>(r, n);
    const double lr_scale = t > 30 ? 0.25 : 1;
    x.step(g, lr_scale);
    plain.step(g, lr_scale);
    double mean = 0;
    for (const double v : plain.slots[F::slots.size() + S::value_slot])
      mean += v / double(n);
    mean /= second.correction(t);
    const double s = std::fmin(1, plain.scalars.lr * weight_decay / std::sqrt(mean));
    CHECK((s > 0) == (plain.scalars.lr > 0));
    for (std::size_t i = 0; i < n; ++i)
      worst = std::fmax(worst, std::fabs(x.weights[i] - (plain.weights[i] - s * before[i])));
  }
  return worst;
}

}  // namespace

TEST_CASE("scheduled: with every rule that keeps mean squares, it is the step without decay, and s of the weight")
{
  const first_moment::ema average{};
  const second_moment::ema square{};
  const step_size::adaptive adaptive{};
  const step_size::constant constant{};
  CHECK(worst_difference_from_undecayed(first_moment::none{}, second_moment::sum{0.1},
                                        step_size::decaying{.lr_decay = 0.1}) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::rms_ratio{}, second_moment::ema{0.9}, constant) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::normalized{}, square, constant) < 1e-13);
  for (const bool centered : {false, true})
    CHECK(worst_difference_from_undecayed(first_moment::normalized_momentum{.momentum = 0.9},
                                          second_moment::ema_about_mean{.beta2 = 0.9, .centered = centered},
                                          constant) < 1e-13);
  CHECK(worst_difference_from_undecayed(average, second_moment::belief{}, step_size::adaptive_above{}) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::normalized_ema{}, second_moment::ema_from_first{}, constant) <
        1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::two_emas{.t_alpha_beta3 = 20}, square, adaptive) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::nesterov_ema{}, square, adaptive) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::ema_and_difference{}, square, adaptive) < 1e-13);
  CHECK(worst_difference_from_undecayed(first_moment::sign_of_ema{}, square, adaptive) < 1e-13);
}

TEST_CASE("scheduled: a decay of more than the whole weight is held to that, and reported")
{
  // |g| ≈ 1e-7 makes s ≈ 5: in the authors' code the weights would change their sign and grow.
  std::vector<float> w{1, -2, 3}, g{1e-7f, -1e-7f, 1e-7f}, from_zero(3, 0.0f);
  gradus::optimizer<gradus::adams> opt({.lr = 1e-3, .weight_decay = 5e-4}), still({.lr = 1e-3, .weight_decay = 0});
  opt.add(w, g);
  still.add(from_zero, g);
  const auto report = opt.step();
  still.step();
  CHECK(report.decay_clamped);
  CHECK(*report.decay_factor > 9e6);
  CHECK(same(w, from_zero));  // (1 − 1)·w − u
  // A group that does not decay is not drawn in, but another's clamping is reported.
  std::vector<float> bias{1, 2, 3}, bias_gradients{1e-7f, 1e-7f, 1e-7f};
  const auto undecayed = opt.add_group({.lr = 1e-3, .weight_decay = 0});
  opt.add(bias, bias_gradients, undecayed);
  CHECK(opt.step().decay_clamped);
  CHECK(bias[2] == doctest::Approx(3).epsilon(1e-3));
}

TEST_CASE("scheduled: eps is added to the mean")
{
  using namespace gradus;
  std::vector<double> w{1, -2, 3}, g{1e-7, -1e-7, 1e-7};
  optimizer<decltype(compose(0, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{}, decay::scheduled{})),
            double>
      opt(compose(1e-3, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{},
                  decay::scheduled{.weight_decay = 5e-4, .eps = 1e-2}));
  opt.add(w, g);
  const auto report = opt.step();
  CHECK_FALSE(report.decay_clamped);
  CHECK(*report.mean_square == doctest::Approx(1e-14));  // as it is, without eps
  CHECK(*report.decay_factor == doctest::Approx(10));
  CHECK(w[2] == doctest::Approx(3 * (1 - 1e-3 * 5e-4 * 10) - 1e-3 / (1 + 0.1)).epsilon(1e-9));
  // Of zero gradients too: eps is what the paper proposes against the division by zero.
  std::vector<double> v{1, -2, 3}, zero(3, 0.0);
  decltype(opt) other(opt.hyperparameters());
  other.add(v, zero);
  CHECK(*other.step().decay_factor == doctest::Approx(10));
  CHECK(v[0] == doctest::Approx(1 - 1e-3 * 5e-4 * 10).epsilon(1e-12));
}

TEST_CASE_TEMPLATE("scheduled: waits for the first gradient, and never takes more than the whole weight", T, float,
                   double)
{
  support::random r(9);
  const auto start = draw<T>(r);
  walk x(gradus::adams{.lr = 0.01, .weight_decay = 0.5}.rule(), start);
  x.step(std::vector<T>(start.size(), T(0)));
  CHECK(equal(x.weights, start));
  // Gradients of 1e-7 make s = 0.01·0.5/√v̄ some ten thousand. What is left of the weight is the step, of at most lr.
  x.step(std::vector<T>(start.size(), T(1e-7)));
  CHECK(x.rule.decay.rate(x.scalars) > 1);
  for (const T w : x.weights) {
    CHECK(w < 0);
    CHECK(w > T(-0.01));
  }
}

// ── all ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// The mean of 256 weights that start from 1, after 2000 gradients of about ±1.
template <class T, class Rule>
double mean_after_noise(const Rule& rule)
{
  walk x(rule, std::vector<T>(256, T(1)));
  support::random r(12);
  std::vector<T> g(256);
  for (int t = 1; t <= 2000; ++t) {
    for (T& e : g)
      e = T(float(r.chance(0.5) ? r.uniform(0.9, 1.1) : r.uniform(-1.1, -0.9)));
    x.step(g);
  }
  double mean = 0;
  for (const T w : x.weights)
    mean += double(w) / 256;
  return mean;
}

}  // namespace

TEST_CASE("decay: a rate too small for 1 - s in float is neither lost nor rounded up")
{
  const auto check = [](const char* name, double s_for_one, const auto& with_weight_decay) {
    const double undecayed = mean_after_noise<double>(with_weight_decay(0)),
                 rounded = mean_after_noise<float>(with_weight_decay(0));
    for (const double s : {1e-8, 4e-8, 1e-7, 1e-6}) {
      CAPTURE(std::string(name));
      CAPTURE(s);
      const auto rule = with_weight_decay(s / s_for_one);
      const double exact = undecayed - mean_after_noise<double>(rule);
      CHECK(exact > 1000 * s);
      CHECK((rounded - mean_after_noise<float>(rule)) / exact == doctest::Approx(1).epsilon(0.03));
    }
  };
  check("decoupled", 1e-3, [](double wd) { return gradus::adamw{.weight_decay = wd}.rule(); });
  check("scheduled", 1e-3, [](double wd) { return gradus::adams{.weight_decay = wd}.rule(); });
  check("scheduled, two passes", 1e-3, [](double wd) {
    return gradus::compose(1e-3, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{},
                           decay::scheduled{wd});
  });
  check("stable", 1e-2, [](double wd) { return gradus::sgds{.momentum = 0.9, .weight_decay = wd}.rule(); });
  check("stable, idle", 1e-3, [](double wd) { return gradus::sgds{.weight_decay = wd}.rule(); });
  check("l2_or_decoupled", 1e-3,
        [](double wd) { return gradus::radam{.weight_decay = wd, .decoupled_weight_decay = true}.rule(); });
  check("independent", 1, [](double wd) {
    return gradus::compose(1e-3, first_moment::none{}, second_moment::none{}, step_size::constant{},
                           decay::independent{wd});
  });
}

TEST_CASE_TEMPLATE("decay: a rate of 0 gives the bits of none, and a rate of 1 leaves only the step", T, float, double)
{
  support::random r(13);
  const auto start = draw<T>(r), zeros = std::vector<T>(start.size(), T(0));
  const auto sgd_with = [](const auto& decay) {
    return gradus::compose(0.3, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay);
  };
  walk none(sgd_with(decay::none{}), start), of_zeros(sgd_with(decay::none{}), zeros);
  walk independent(sgd_with(decay::independent{0}), start);
  walk decoupled(sgd_with(decay::decoupled{0}), start);
  walk cautious(sgd_with(decay::cautious{0}), start);
  walk either(sgd_with(decay::l2_or_decoupled{0, true}), start);
  walk stable(gradus::sgds{.lr = 0.3}.rule(), start);
  walk whole(sgd_with(decay::independent{1}), start);
  const auto g = draw<T>(r);
  none.step(g), of_zeros.step(g), independent.step(g), decoupled.step(g), cautious.step(g), either.step(g),
      stable.step(g);
  whole.step(g);
  CHECK(equal(independent.weights, none.weights));
  CHECK(equal(decoupled.weights, none.weights));
  CHECK(equal(cautious.weights, none.weights));
  CHECK(equal(either.weights, none.weights));
  CHECK(equal(stable.weights, none.weights));
  CHECK(equal(whole.weights, of_zeros.weights));
}

namespace {

// Decays of a user's own: the new weight, and what is taken off it.
struct halved {
  static constexpr std::string_view kind = "halved";
  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE V weights(V theta) const noexcept
    {
      return V(0.5f) * theta;
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const gradus::step_scalars&) const noexcept
  {
    return {};
  }
};
struct less_a_quarter {
  static constexpr std::string_view kind = "less_a_quarter";
  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE V decrement(V theta) const noexcept
    {
      return V(0.25f) * theta;
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const gradus::step_scalars&) const noexcept
  {
    return {};
  }
};

}  // namespace

TEST_CASE("decay: the caller's own rule gives the new weight, or the part to subtract")
{
  const auto moved = [](const auto& decay) {
    std::vector<float> w(length, 1.0f), g(length, 1.0f);
    gradus::optimizer opt(gradus::compose(0.125, first_moment::none{}, second_moment::none{}, step_size::constant{},
                                          decay));
    opt.add(w, g);
    opt.step();
    return w;
  };
  CHECK(moved(halved{}) == std::vector<float>(length, 0.5f - 0.125f));
  CHECK(moved(less_a_quarter{}) == std::vector<float>(length, 1 - (0.25f + 0.125f)));
}

TEST_CASE("stable: takes the gain of a first moment of one's own")
{
  const auto after_a_step = [](const auto& first) {
    std::vector<double> w(length, 1.0), g(length, 0.0);
    gradus::optimizer<
        decltype(gradus::compose(0.1, first, second_moment::none{}, step_size::constant{}, decay::stable{})), double>
        opt(gradus::compose(0.1, first, second_moment::none{}, step_size::constant{},
                            decay::stable{.weight_decay = 0.01}));
    opt.add(w, g);
    opt.step();
    return w[0];
  };
  CHECK(1 - after_a_step(own::heavy_ball{.friction = 0.1}) == doctest::Approx(1e-2));
  CHECK(1 - after_a_step(own::heavy_ball{.friction = 0.5}) == doctest::Approx(2e-3));
  CHECK(1 - after_a_step(first_moment::momentum{.momentum = 0.9}) == doctest::Approx(1e-2));
  static_assert(gradus::stable_decay_is_served<own::heavy_ball, decay::stable>);
  static_assert(!gradus::stable_decay_is_served<own::blended, decay::stable>);
}
