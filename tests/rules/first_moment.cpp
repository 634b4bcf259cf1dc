// First moments: what the gradient g becomes as the direction d.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/refusal.hpp"
#include "support/scene.hpp"
#include "support/walk.hpp"

namespace {

using support::check_refused, support::draw, support::scalar_optimizer, support::walk;

namespace first_moment = gradus::first_moment;
namespace second_moment = gradus::second_moment;

// The largest difference in 50 steps between plain descent along d and a loop in double. \param direction direction(t,
// g, s) is d, and moves the state s of an element, which starts from `start`
template <class T, class Rule, class Second, class State, class Loop>
double worst_difference(const Rule& rule, const Second& second, std::uint64_t seed, const State& start,
                        const Loop& direction)
{
  constexpr std::size_t n = 37;
  support::random r(seed);
  walk x(gradus::compose(0.1, rule, second, gradus::step_size::constant{}, gradus::decay::none{}), draw<T>(r, n));
  std::vector<double> weights(x.weights.begin(), x.weights.end());
  std::vector<State> state(n, start);
  double worst = 0;
  for (int t = 1; t <= 50; ++t) {
    auto g = draw<T>(r, n);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == 0 || (t > 25 && i % 3 == 0))
        g[i] = 0;
      weights[i] -= 0.1 * direction(t, double(g[i]), state[i]);
    }
    x.step(g);
    for (std::size_t i = 0; i < n; ++i)
      worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
  }
  return worst;
}
// Without a second moment.
template <class T, class Rule, class Loop>
double worst_difference(const Rule& rule, const Loop& direction, double start = 0)
{
  return worst_difference<T>(rule, second_moment::none{}, 20, start, direction);
}
// With one: the state is an array of three numbers.
template <class T, class Rule, class Second, class Loop>
double worst_difference_by_v(const Rule& rule, const Second& second, const Loop& direction)
{
  return worst_difference<T>(rule, second, 23, std::array<double, 3>{}, direction);
}

template <class T>
constexpr double rounding = sizeof(T) == 4 ? 1e-5 : 1e-13;

}  // namespace

TEST_CASE_TEMPLATE("none: d = g", T, float, double)
{
  CHECK(worst_difference<T>(first_moment::none{}, [](int, double g, double&) { return g; }) < rounding<T>);
}

TEST_CASE_TEMPLATE("momentum: the equation, with dampening and nesterov, to the limits of both", T, float, double)
{
  for (const first_moment::momentum& rule : {first_moment::momentum{.momentum = 0.9},
                                             {.momentum = 0.9, .nesterov = true},
                                             {.momentum = 0.99, .dampening = 0.25},
                                             {.momentum = 0.5, .dampening = 1},
                                             {.momentum = 1 - 0x1p-20},
                                             {.momentum = 0},
                                             {.momentum = 0, .dampening = 0.5}}) {
    CAPTURE(rule.momentum);
    CAPTURE(rule.dampening);
    CHECK(worst_difference<T>(rule, [&](int t, double g, double& b) {
            if (rule.momentum == 0)
              return g;  // whatever the dampening
            b = t == 1 ? g : rule.momentum * b + (1 - rule.dampening) * g;
            return rule.nesterov ? g + rule.momentum * b : b;
          }) < rounding<T>);
  }
}

TEST_CASE_TEMPLATE("momentum: in the first step the buffer is the gradient, of zero gradients it stays 0", T, float,
                   double)
{
  walk x(gradus::compose(0.1, first_moment::momentum{.dampening = 0.5}, gradus::second_moment::none{},
                         gradus::step_size::constant{}, gradus::decay::none{}),
         std::vector<T>{1, 1, 1});
  x.step({T(0.3), T(-2), T(0)});
  CHECK(x.slots[0] == std::vector<T>{T(0.3), T(-2), T(0)});
  CHECK(x.weights[2] == 1);
  x.step({T(0), T(0), T(0)});
  CHECK(x.slots[0] == std::vector<T>{T(0.9) * T(0.3), T(0.9) * T(-2), T(0)});
  CHECK(x.weights[2] == 1);
}

TEST_CASE_TEMPLATE("ema: the equation, for beta1 from 0 to almost 1, and from another start", T, float, double)
{
  for (const first_moment::ema& rule : {first_moment::ema{},
                                        {.beta1 = 0},
                                        {.beta1 = 0.5},
                                        {.beta1 = 1 - 0x1p-20},
                                        {.beta1 = 0.9, .initial_accumulator = 0.25}}) {
    CAPTURE(rule.beta1);
    CHECK(worst_difference<T>(
              rule, [&](int, double g, double& m) { return m = rule.beta1 * m + (1 - rule.beta1) * g; },
              rule.initial_accumulator) < rounding<T>);
  }
}

TEST_CASE_TEMPLATE("sign_of_ema: the sign of one average, while the state is another", T, float, double)
{
  for (const double beta1 : {0.0, 0.5, 0.9})
    for (const double beta2 : {0.0, 0.99})
      CHECK(worst_difference<T>(first_moment::sign_of_ema{beta1, beta2}, [&](int, double g, double& m) {
              const double ahead = beta1 * m + (1 - beta1) * g;
              m = beta2 * m + (1 - beta2) * g;
              return ahead > 0 ? 1.0 : ahead < 0 ? -1.0 : 0.0;
            }) < rounding<T>);
}

TEST_CASE_TEMPLATE("two_emas: the equation, before, in and after the warm-up, for betas from 0", T, float, double)
{
  for (const double beta1 : {0.0, 0.9})
    for (const double beta3 : {0.0, 0.5, 0.999})
      for (const double warm_up : {0.0, 1.0, 20.5, 1000.0}) {
        CAPTURE(beta1);
        CAPTURE(beta3);
        CAPTURE(warm_up);
        const auto half_life = [](double beta) { return beta == 0 ? 0 : std::log(0.5) / std::log(beta); };
        CHECK(worst_difference_by_v<T>(first_moment::two_emas{beta1, beta3, 4, warm_up}, second_moment::none{},
                                       [&](int t, double g, std::array<double, 3>& s) {
                                         double alpha = 4, beta = beta3;
                                         if (t < warm_up) {
                                           const double part = t / warm_up;
                                           const double half = (1 - part) * half_life(beta1) + part * half_life(beta3);
                                           alpha = part * 4;
                                           beta = std::fmin(beta3, half == 0 ? 0 : std::pow(0.5, 1 / half));
                                         }
                                         s[0] = beta1 * s[0] + (1 - beta1) * g;
                                         s[1] = beta * s[1] + (1 - beta) * g;
                                         return s[0] / (1 - std::pow(beta1, t)) + alpha * s[1];
                                       }) < 10 * rounding<T>);
      }
}

TEST_CASE_TEMPLATE("nesterov_ema: the equation, with the product of all momenta", T, float, double)
{
  for (const double beta1 : {0.0, 0.5, 0.9})
    for (const double decay : {0.0, 4e-3, 0.5}) {
      const auto mu = [&](int t) { return beta1 * (1 - 0.5 * std::pow(0.96, t * decay)); };
      CHECK(worst_difference_by_v<T>(first_moment::nesterov_ema{beta1, decay}, second_moment::none{},
                                     [&](int t, double g, std::array<double, 3>& s) {
                                       s[0] = t == 1 ? mu(1) : s[0] * mu(t);
                                       s[1] = beta1 * s[1] + (1 - beta1) * g;
                                       return (1 - mu(t)) / (1 - s[0]) * g + mu(t + 1) / (1 - s[0] * mu(t + 1)) * s[1];
                                     }) < 10 * rounding<T>);
    }
}

TEST_CASE_TEMPLATE("ema_and_difference: the equation, with no difference in the first step", T, float, double)
{
  for (const double beta1 : {0.0, 0.9})
    for (const double beta2 : {0.0, 0.5, 0.92})
      CHECK(worst_difference_by_v<T>(first_moment::ema_and_difference{beta1, beta2}, second_moment::none{},
                                     [&](int t, double g, std::array<double, 3>& s) {
                                       s[0] = beta1 * s[0] + (1 - beta1) * g;
                                       s[1] = beta2 * s[1] + (1 - beta2) * (t == 1 ? 0 : g - s[2]);
                                       s[2] = g;
                                       return s[0] / (1 - std::pow(beta1, t)) + beta2 * s[1] / (1 - std::pow(beta2, t));
                                     }) < 10 * rounding<T>);
}

TEST_CASE_TEMPLATE("ema_and_difference: v averages the square of the gradient and its difference", T, float, double)
{
  walk x(gradus::compose(0.1, first_moment::ema_and_difference{.beta2 = 0.5}, second_moment::ema{0.75},
                         gradus::step_size::adaptive{}, gradus::decay::none{}),
         std::vector<T>{T(1)});
  x.step({T(2)});
  CHECK(x.slots[3][0] == 1);
  x.step({T(4)});  // 4 + 0.5·(4 − 2)
  CHECK(x.slots[3][0] == T(0.75 * 1 + 0.25 * 25));
}

TEST_CASE_TEMPLATE("normalized, normalized_momentum: g over the root of this step's v", T, float, double)
{
  const second_moment::ema second{0.9};
  const auto normalized = [](double g, double& v, double eps) {
    v = 0.9 * v + (1 - 0.9) * g * g;
    return g == 0 ? 0 : g / (std::sqrt(v) + eps);
  };
  for (const double eps : {0.0, 1e-8, 0.5}) {
    CHECK(worst_difference_by_v<T>(first_moment::normalized{eps}, second, [&](int, double g, std::array<double, 3>& s) {
            return normalized(g, s[0], eps);
          }) < rounding<T>);
    for (const double mu : {0.0, 0.5, 0.9})
      CHECK(worst_difference_by_v<T>(first_moment::normalized_momentum{mu, eps}, second,
                                     [&](int, double g, std::array<double, 3>& s) {
                                       return s[1] = mu * s[1] + normalized(g, s[0], eps);
                                     }) < rounding<T>);
  }
}

// With a learning rate that falls, because it is inside the velocity.
TEST_CASE_TEMPLATE("velocity, normalized_velocity: the equations, with the learning rate of each gradient's own step",
                   T, float, double)
{
  constexpr std::size_t n = 37;
  const auto check = [&](const auto& rule, const auto& second, double mu, bool nesterov, const auto& term) {
    support::random r(29);
    walk x(gradus::compose(0.1, rule, second, gradus::step_size::one{}, gradus::decay::none{}), draw<T>(r, n));
    std::vector<double> weights(x.weights.begin(), x.weights.end()), b(n), v(n);
    double worst = 0;
    for (int t = 1; t <= 50; ++t) {
      auto g = draw<T>(r, n);
      g[0] = 0;
      const double scale = t < 20 ? 1 : 0.1;
      for (std::size_t i = 0; i < n; ++i) {
        v[i] = 0.9 * v[i] + (1 - 0.9) * double(g[i]) * double(g[i]);
        const double step = 0.1 * scale * term(double(g[i]), v[i]);
        b[i] = mu * b[i] + step;
        weights[i] -= nesterov ? step + mu * b[i] : b[i];
      }
      x.step(g, scale);
      for (std::size_t i = 0; i < n; ++i)
        worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
    }
    CHECK(worst < rounding<T>);
  };
  for (const double mu : {0.0, 0.5, 0.9})
    for (const bool nesterov : {false, true}) {
      check(first_moment::velocity{mu, nesterov}, second_moment::none{}, mu, nesterov,
            [](double g, double) { return g; });
      for (const double eps : {0.0, 1e-7, 0.5})
        check(first_moment::normalized_velocity{mu, eps, nesterov}, second_moment::ema{0.9}, mu, nesterov,
              [&](double g, double v) { return g == 0 ? 0 : g / std::sqrt(v + eps); });
    }
}

TEST_CASE("velocity, normalized_velocity: nesterov needs momentum")
{
  const std::string expected =
      "gradus: nesterov is 1 with momentum 0; expected momentum > 0: set it so, or nesterov = false";
  CHECK(support::refusal([] { gradus::validate(first_moment::velocity{.momentum = 0, .nesterov = true}); }) ==
        expected);
  CHECK(support::refusal([] { gradus::validate(first_moment::normalized_velocity{0, 1e-7, true}); }) == expected);
}

TEST_CASE_TEMPLATE("normalized_ema: g over the root of the last step's v, clipped, and no first step", T, float, double)
{
  for (const double eps : {1e-6, 0.5})
    for (const double exponent : {0.0, 0.25, 2.0})
      CHECK(worst_difference_by_v<T>(first_moment::normalized_ema{0.8, eps, exponent},
                                     second_moment::ema_from_first{0.9},
                                     [&](int t, double g, std::array<double, 3>& s) {
                                       const double limit = std::pow(t - 1, exponent);
                                       if (t > 1)
                                         s[1] = 0.8 * s[1] +
                                                (1 - 0.8) *
                                                    std::fmin(limit,
                                                              std::fmax(-limit, g / std::fmax(std::sqrt(s[0]), eps)));
                                       s[0] = t == 1 ? g * g : 0.9 * s[0] + (1 - 0.9) * g * g;
                                       return s[1];
                                     }) < 10 * rounding<T>);
  // The first step keeps and decays nothing, even with a limit of 1.
  walk x(gradus::adopt{.lr = 1, .weight_decay = 0.5, .clip_exponent = 0}.rule(), std::vector<T>{T(2)});
  x.step({T(0.25)});
  CHECK(x.weights[0] == 2);
  CHECK(x.slots[0][0] == 0);
  CHECK(x.slots[1][0] == T(0.0625));
}

TEST_CASE_TEMPLATE("normalized_ema: without eps, a gradient after zeros gives a finite step", T, float, double)
{
  for (const double exponent : {0.25, 1e3}) {
    walk x(gradus::adopt{.lr = 1e-3, .eps = 0, .clip_exponent = exponent}.rule(), std::vector<T>{T(2)});
    for (const double g : {0.0, 0.0, 1.0, 1.0})
      x.step({T(g)});
    CHECK(std::isfinite(double(x.weights[0])));
    CHECK(x.weights[0] < 2);
  }
}

TEST_CASE_TEMPLATE("rms_ratio: the equation, with the average of squared steps before this one", T, float, double)
{
  for (const double eps : {0.0, 1e-6, 0.5})
    for (const double rho : {0.0, 0.9})
      CHECK(worst_difference_by_v<T>(first_moment::rms_ratio{rho, eps}, second_moment::ema{rho},
                                     [&](int, double g, std::array<double, 3>& s) {
                                       s[0] = rho * s[0] + (1 - rho) * g * g;
                                       if (s[1] + eps == 0 || g == 0)
                                         return s[1] *= rho, 0.0;
                                       const double d = std::sqrt(s[1] + eps) / std::sqrt(s[0] + eps) * g;
                                       s[1] = rho * s[1] + (1 - rho) * d * d;
                                       return d;
                                     }) < 10 * rounding<T>);
}

TEST_CASE_TEMPLATE("schedule_free: parameters and copy_average are the authors' y and x, with warm-up and weights", T,
                   float, double)
{
  for (const gradus::schedule_free_adamw& h :
       {gradus::schedule_free_adamw{.lr = 0.05},
        {.lr = 0.05, .beta1 = 0.5, .weight_decay = 0.1, .warmup_steps = 10, .r = 1, .weight_lr_power = 1},
        {.lr = 0.05, .eps = 0, .weight_decay = 0.1, .warmup_steps = 2.5, .weight_lr_power = 0}}) {
    constexpr std::size_t n = 37;
    support::random r(41);
    std::vector<T> weights = draw<T>(r, n), gradients(n), average(n);
    gradus::optimizer<gradus::schedule_free_adamw, T, gradus::backend::scalar> opt(h);
    const auto handle = opt.add(weights, gradients);
    std::vector<double> x(weights.begin(), weights.end()), y = x, z = x, v(n);
    opt.copy_average(handle, average);
    CHECK(average == weights);
    double largest = 0, sum = 0, worst = 0;
    for (int t = 1; t <= 40; ++t) {
      const std::vector<T> drawn = draw<T>(r, n);
      std::copy(drawn.begin(), drawn.end(), gradients.begin());
      const double scale = t > 30 ? 0.1 : 1, lr = h.lr * scale * (t < h.warmup_steps ? t / h.warmup_steps : 1);
      largest = std::fmax(largest, lr);
      sum += std::pow(t, h.r) * std::pow(largest, h.weight_lr_power);
      const double c = std::pow(t, h.r) * std::pow(largest, h.weight_lr_power) / sum;
      opt.step({.lr_scale = scale});
      opt.copy_average(handle, average);
      for (std::size_t i = 0; i < n; ++i) {
        const double g = double(gradients[i]);
        v[i] = h.beta2 * v[i] + (1 - h.beta2) * g * g;
        z[i] -= lr * (g / (std::sqrt(v[i] / (1 - std::pow(h.beta2, t))) + h.eps) + h.weight_decay * y[i]);
        x[i] += c * (z[i] - x[i]);
        y[i] = (1 - h.beta1) * z[i] + h.beta1 * x[i];
        worst = std::fmax(worst, std::fabs(double(weights[i]) - y[i]));
        worst = std::fmax(worst, std::fabs(double(average[i]) - x[i]));
      }
    }
    CHECK(worst < 10 * rounding<T>);
    CHECK(average != weights);
  }
}

TEST_CASE_TEMPLATE("schedule_free: a beta1 next to 0 gives no NaN", T, float, double)
{
  std::vector<T> w{T(1)}, g{T(1)}, average{T(0)};
  gradus::optimizer<gradus::schedule_free_adamw, T> opt({.lr = 0.125, .beta1 = 5e-324});
  const auto h = opt.add(w, g);
  opt.step();
  opt.copy_average(h, average);
  CHECK(double(average[0]) == doctest::Approx(0.875));
}

TEST_CASE_TEMPLATE("schedule_free: no learning rate moves nothing, and infinite weights of steps count the newest", T,
                   float, double)
{
  walk still(gradus::schedule_free_adamw{.lr = 0}.rule(), std::vector<T>{T(2)});
  for (int t = 0; t < 3; ++t)
    still.step({T(1)});
  CHECK(still.weights[0] == 2);
  walk newest(gradus::schedule_free_adamw{.lr = 0.125, .beta2 = 0, .eps = 0, .r = 5000}.rule(), std::vector<T>{T(2)});
  for (int t = 1; t <= 3; ++t) {
    newest.step({T(1)});
    CHECK(newest.weights[0] == T(2 - 0.125 * t));
    CHECK(newest.slots[0][0] == 0);
  }
}

TEST_CASE("copy_average: state and weights of few bits, masters, and a wrong size")
{
  const auto run = []<class Precision>(std::type_identity<Precision>) {
    using W = typename Precision::parameter_type;
    using G = typename Precision::gradient_type;
    support::random r(42);
    std::vector<W> weights(1000), average(1000);
    for (W& w : weights)
      w = W(float(r.uniform(-1, 1)));
    std::vector<G> gradients(1000);
    gradus::optimizer<gradus::schedule_free_adamw, Precision> opt({.lr = 0.05});
    const auto handle = opt.add("w", weights, gradients);
    for (int t = 0; t < 20; ++t) {
      for (G& g : gradients)
        g = G(float(r.uniform(-1, 1)));
      opt.step();
    }
    opt.copy_average(handle, average);
    CHECK_THROWS_WITH_AS(opt.copy_average(handle, std::span(average).first(999)),
                         "gradus: size of `to` is 999; expected 1000, the size of the parameters of tensor \"w\"",
                         std::invalid_argument);
    return std::vector<float>(average.begin(), average.end());
  };
  const auto largest_difference = [](const std::vector<float>& a, const std::vector<float>& b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      most = std::fmax(most, std::fabs(double(a[i]) - double(b[i])));
    return most;
  };
  using gradus::precision, gradus::bfloat16, gradus::block8;
  const auto plain = run(std::type_identity<precision<float, float, float>>{});
  CHECK(largest_difference(plain, run(std::type_identity<precision<float, float, bfloat16>>{})) < 0.01);
  CHECK(largest_difference(plain, run(std::type_identity<precision<float, float, block8>>{})) < 0.05);
  // These start from rounded weights, and the average is rounded to 8 bits.
  CHECK(largest_difference(plain, run(std::type_identity<precision<bfloat16, float, float, float>>{})) < 0.02);
  CHECK(largest_difference(plain, run(std::type_identity<precision<bfloat16, float, float, gradus::remainder16>>{})) <
        0.02);
}

TEST_CASE_TEMPLATE("adaptive_inertia: the equation, with a beta1 of each element's own, from 0 to 1 - eps", T, float,
                   double)
{
  for (const double beta0 : {0.0, 0.1, 1.5})
    for (const double eps : {1e-3, 0.5}) {
      constexpr std::size_t n = 37;
      constexpr double beta2 = 0.9;
      support::random r(27);
      walk x(gradus::adais{.lr = 0.1, .beta0 = beta0, .beta2 = beta2, .eps = eps, .weight_decay = 0.1}.rule(),
             draw<T>(r, n));
      std::vector<double> weights(x.weights.begin(), x.weights.end()), m(n), inertia(n, 1.0), v(n);
      double worst = 0;
      std::size_t least = 0, most = 0, between = 0;
      for (int t = 1; t <= 50; ++t) {
        auto g = draw<T>(r, n);
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
          g[i] = i == 0 || (t > 25 && i % 3 == 0) ? T(0) : g[i];
          v[i] = beta2 * v[i] + (1 - beta2) * double(g[i]) * double(g[i]);
          sum += v[i];
        }
        for (std::size_t i = 0; i < n; ++i) {
          const double beta1 = std::fmin(1 - eps, std::fmax(0, 1 - beta0 * v[i] / (sum / double(n))));
          ++(beta1 == 0 ? least : beta1 == 1 - eps ? most : between);
          m[i] = beta1 * m[i] + (1 - beta1) * double(g[i]);
          inertia[i] *= beta1;  // as the authors have it
          weights[i] = weights[i] - 0.1 * 0.1 * weights[i] - 0.1 * m[i] / (1 - inertia[i]);
        }
        x.step(g);
        for (std::size_t i = 0; i < n; ++i)
          worst = std::fmax(worst, std::fabs(double(x.weights[i]) - weights[i]) / (1 + std::fabs(weights[i])));
      }
      CHECK(worst < rounding<T>);
      CHECK(most > 0);
      CHECK((beta0 < eps || between > 0));
      CHECK((beta0 < 1 || least > 0));
    }
}

TEST_CASE_TEMPLATE("adaptive_inertia: the first step is along the gradient", T, float, double)
{
  walk x(gradus::adais{.lr = 0.5}.rule(), std::vector<T>{T(1), T(1), T(1)});
  const std::vector<T> g{T(0.5), T(-0.25), T(1)};
  x.step(g);
  for (std::size_t i = 0; i < g.size(); ++i)
    CHECK(double(x.weights[i]) == doctest::Approx(1 - 0.5 * double(g[i])));
}

TEST_CASE_TEMPLATE("adaptive_inertia: an inertia that rounds to 1 moves nothing and divides by no 0", T, float, double)
{
  walk x(gradus::adais{.lr = 1, .beta0 = 0, .eps = 1e-18}.rule(), std::vector<T>{T(1), T(1)});
  for (int t = 1; t <= 3; ++t)
    x.step({T(1), T(0)});
  CHECK(x.weights == std::vector<T>{T(1), T(1)});
}

TEST_CASE_TEMPLATE("adaptive_inertia: a mean square near 0, or a large beta0, moves no weight whose gradients are 0", T,
                   float, double)
{
  const T tiny = sizeof(T) == 4 ? T(1e-21) : T(1e-161);
  for (const auto& [beta0, g] : {std::pair(0.1, tiny), std::pair(1e300, T(1e-6))}) {
    walk x(gradus::adais{.lr = 1, .beta0 = beta0}.rule(), std::vector<T>(1000, T(1)));
    std::vector<T> gradients(1000);
    gradients[0] = g;
    for (int t = 1; t <= 3; ++t)
      x.step(gradients);
    CHECK(std::fabs(double(x.weights[0]) - 1) <= 3.3 * double(g));
    CHECK(support::equal(std::vector<T>(x.weights.begin() + 1, x.weights.end()), std::vector<T>(999, T(1))));
  }
}

TEST_CASE_TEMPLATE("first_moment: zero gradients from the start move no weight, also without eps", T, float, double)
{
  const auto check = [](const char* name, const auto& recipe) {
    walk x(recipe.rule(), std::vector<T>{T(1), T(-2), T(0)});
    const auto start = x.weights;
    for (int t = 1; t <= 5; ++t)
      x.step({T(0), T(0), T(-0.0)});
    CHECK_MESSAGE(support::equal(x.weights, start), std::string(name));
  };
  check("adadelta", gradus::adadelta{.eps = 0});
  check("rmsprop", gradus::rmsprop{.eps = 0});
  check("rmsprop with both", gradus::rmsprop{.eps = 0, .momentum = 0.5, .centered = true});
  check("adopt", gradus::adopt{.eps = 0});
  check("ademamix", gradus::ademamix{.eps = 0});
  check("lion", gradus::lion{});
  check("nadam", gradus::nadam{.eps = 0});
  check("adan", gradus::adan{.eps = 0});
  check("schedule_free_adamw", gradus::schedule_free_adamw{.eps = 0});
  check("adai", gradus::adai{});
  check("adais", gradus::adais{});
}

TEST_CASE("first_moment: bias corrections and gains")
{
  CHECK(first_moment::none{}.correction(3) == 1);
  CHECK(first_moment::momentum{}.correction(3) == 1);
  CHECK(first_moment::ema{.beta1 = 0.5}.correction(1) == 0.5);
  CHECK(first_moment::ema{.beta1 = 0.5}.correction(3) == 0.875);
  CHECK(first_moment::ema{.beta1 = 0}.correction(1) == 1);
  CHECK(first_moment::momentum{.momentum = 0.75, .dampening = 0.5}.gain() == 2);
  CHECK(first_moment::momentum{.momentum = 0}.gain() == 1);
  CHECK(first_moment::momentum{.momentum = 0.5, .dampening = 1}.gain() == 0);
}

TEST_CASE("momentum: nesterov without a momentum, or with dampening, is refused")
{
  const std::string expected = "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false";
  const gradus::sgd without_momentum{.nesterov = true};
  const gradus::sgds dampened{.momentum = 0.9, .dampening = 0.5, .nesterov = true};
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgd>{without_momentum},
                       ("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected).c_str(),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgds>{dampened},
                       ("gradus: nesterov is 1 with momentum 0.9 and dampening 0.5" + expected).c_str(),
                       std::invalid_argument);
  CHECK_NOTHROW(scalar_optimizer<gradus::sgd>({.momentum = 0.9, .nesterov = true}));
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.set_hyperparameters(without_momentum, s.undecayed); },
                             {.momentum = 0.5});
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.add_group(without_momentum); });
}
