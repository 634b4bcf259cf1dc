// Step sizes: a(v) in u = a(v)·d, and where eps stands in it.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using namespace gradus;
using support::draw, support::equal, support::walk;

// Checks a(v) of a rule against a formula in double, in steps 1 to 50 and some late ones, for v of every size.
// \param expected  expected(α, α/lr, t, bc1, bc2, v)
template <class T, class Second = second_moment::ema, class Rule, class Formula>
void check_formula(const Rule& rule, const Formula& expected, double smallest_v = 0)
{
  constexpr double beta1 = 0.9, beta2 = 0.99, lr = 0.02;
  double worst = 0;
  const auto recipe = compose(lr, first_moment::ema{beta1}, Second{beta2}, rule, decay::none{});
  std::vector<std::uint64_t> steps{100, 1000, 100'000};
  for (std::uint64_t t = 1; t <= 50; ++t)
    steps.push_back(t);
  for (const std::uint64_t t : steps)
    for (const double lr_scale : {1.0, 0.25, 0.0}) {
      const auto a = recipe.step_size.template prepare<T>(make_step_scalars(recipe, t, lr_scale));
      for (const T v : {T(0), T(1e-20), T(1e-12), T(1e-6), T(0.01), T(1), T(1e6)}) {
        if (double(v) < smallest_v)
          continue;
        const double exact = expected(lr * lr_scale, lr_scale, double(t), 1 - std::pow(beta1, double(t)),
                                      1 - std::pow(beta2, double(t)), double(v));
        const double given = double(a(v));
        worst = std::fmax(worst, exact == 0 ? std::fabs(given) : std::fabs(given / exact - 1));
      }
    }
  CHECK(worst < (sizeof(T) == 4 ? 1e-5 : 1e-12));
}

constexpr double all_eps[] = {1e-8, 1e-3, 0.5};

}  // namespace

TEST_CASE_TEMPLATE("constant: a = alpha", T, float, double)
{
  check_formula<T>(step_size::constant{}, [](double alpha, double, double, double, double, double) { return alpha; });
}

TEST_CASE_TEMPLATE("adaptive: the equation, with eps beside the corrected root", T, float, double)
{
  for (const double eps : all_eps)
    check_formula<T>(step_size::adaptive{eps}, [&](double alpha, double, double, double bc1, double bc2, double v) {
      return alpha / bc1 / (std::sqrt(v / bc2) + eps);
    });
  check_formula<T>(
      step_size::adaptive{0},
      [](double alpha, double, double, double bc1, double bc2, double v) { return alpha / bc1 / std::sqrt(v / bc2); },
      1e-20);
}

TEST_CASE_TEMPLATE("decaying: adaptive, with a learning rate that falls with t for the decay too", T, float, double)
{
  for (const double lr_decay : {0.0, 0.01, 3.0})
    check_formula<T>(step_size::decaying{1e-8, lr_decay},
                     [&](double alpha, double, double t, double bc1, double bc2, double v) {
                       return alpha / (1 + (t - 1) * lr_decay) / bc1 / (std::sqrt(v / bc2) + 1e-8);
                     });
  const auto rule = compose(0.5, first_moment::none{}, second_moment::sum{}, step_size::decaying{.lr_decay = 0.5},
                            decay::decoupled{});
  CHECK(make_step_scalars(rule, 1, 1).lr == 0.5);
  CHECK(make_step_scalars(rule, 3, 0.5).lr == 0.125);
}

TEST_CASE_TEMPLATE("adaptive_above: the equation, which is an eps added to v in every step", T, float, double)
{
  for (const double eps : {1e-16, 1e-8, 1e-3})
    check_formula<T>(step_size::adaptive_above{eps},
                     [&](double alpha, double, double t, double bc1, double bc2, double v) {
                       double more = 0;
                       for (int k = 0; k < int(t) && k < 5000; ++k)
                         more = 0.99 * more + eps;
                       return alpha / bc1 / (std::sqrt((v + more) / bc2) + eps);
                     });
}

TEST_CASE_TEMPLATE("adaptive_eps_root: eps beside and inside the root, with and without bias correction", T, float,
                   double)
{
  for (const double eps : {1e-8, 0.5})
    for (const double eps_root : {0.0, 1e-8, 1e-3, 0.5}) {
      check_formula<T>(step_size::adaptive_eps_root{eps, eps_root},
                       [&](double alpha, double, double, double bc1, double bc2, double v) {
                         return alpha / bc1 / (std::sqrt(v / bc2 + eps_root) + eps);
                       });
      check_formula<T>(step_size::adaptive_eps_root{eps, eps_root, false},
                       [&](double alpha, double, double, double, double, double v) {
                         return alpha / (std::sqrt(v + eps_root) + eps);
                       });
    }
}

TEST_CASE_TEMPLATE("by_norm: the equation", T, float, double)
{
  check_formula<T, second_moment::infinity_norm>(
      step_size::by_norm{}, [](double alpha, double, double, double bc1, double, double v) { return alpha / bc1 / v; },
      1e-20);
}

TEST_CASE_TEMPLATE("bounded: the equation, with bounds that close and follow the schedule", T, float, double)
{
  for (const double eps : all_eps)
    for (const double final_lr : {0.1, 0.0})
      for (const double gamma : {1e-3, 0.5, 1 - 0x1p-10})
        check_formula<T>(step_size::bounded{eps, final_lr, gamma},
                         [&](double alpha, double scale, double t, double bc1, double bc2, double v) {
                           const double f = final_lr * scale;
                           return std::fmin(std::fmax(alpha * std::sqrt(bc2) / bc1 / (std::sqrt(v) + eps),
                                                      f * (1 - 1 / (gamma * t + 1))),
                                            f * (1 + 1 / (gamma * t)));
                         });
}

TEST_CASE_TEMPLATE("partially_adaptive: the equation, for exponents from 0 to the whole root", T, float, double)
{
  for (const double eps : all_eps)
    for (const double partial : {0.0, 0.01, 0.125, 0.25, 0.3, 0.5})
      check_formula<T>(step_size::partially_adaptive{eps, partial},
                       [&](double alpha, double, double, double bc1, double bc2, double v) {
                         return alpha * std::sqrt(bc2) / bc1 / std::pow(std::sqrt(v) + eps, 2 * partial);
                       });
}

TEST_CASE_TEMPLATE("rectified: the equation, plain in the first five steps", T, float, double)
{
  for (const double eps : all_eps)
    check_formula<T>(step_size::rectified{eps}, [&](double alpha, double, double t, double bc1, double bc2, double v) {
      const double inf = 2 / (1 - 0.99) - 1, rho = inf - 2 * t * (1 - bc2) / bc2;
      if (rho <= 5)
        return alpha / bc1;
      return alpha / bc1 * std::sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho)) * std::sqrt(bc2) /
             (std::sqrt(v) + eps);
    });
}

namespace {

// The largest difference in 40 steps between Adam's step, changed by sums over the tensor, and a loop in double.
// \param change  change(θ, g, m, v̂, u/α) makes the factors on step and decay, and may change u/α
template <class T, class Rule, class Change>
double worst_difference_by_sums(const Rule& rule, double weight_decay, const Change& change)
{
  constexpr std::size_t n = 37;
  constexpr double lr = 0.05, beta1 = 0.8, beta2 = 0.95;
  support::random r(28);
  walk x(compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, rule, decay::decoupled{weight_decay}),
         draw<T>(r, n));
  std::vector<double> theta(x.weights.begin(), x.weights.end()), m(n), v(n), v_hat(n), u(n), g(n);
  double worst = 0;
  for (int t = 1; t <= 40; ++t) {
    auto gradients = draw<T>(r, n);
    gradients[0] = 0;
    const double lr_scale = t > 20 ? 0.25 : 1;
    for (std::size_t i = 0; i < n; ++i) {
      if (t % 10 == 0)
        gradients[i] *= 20;  // a sudden change
      g[i] = double(gradients[i]);
      theta[i] = double(x.weights[i]);  // so that a sign that differs is not carried on
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      v_hat[i] = v[i] / (1 - std::pow(beta2, t));
      u[i] = m[i] / (1 - std::pow(beta1, t)) / (std::sqrt(v_hat[i]) + rule.eps);
    }
    const step_factors factors = change(theta, g, m, v_hat, u);
    x.step(gradients, lr_scale);
    for (std::size_t i = 0; i < n; ++i) {
      const double expected = theta[i] -
                              lr * lr_scale * (factors.step * u[i] + factors.decay * weight_decay * theta[i]);
      worst = std::fmax(worst, std::fabs(double(x.weights[i]) - expected) / (1 + std::fabs(expected)));
    }
  }
  return worst;
}

using numbers = std::vector<double>;

template <class T>
constexpr double rounding = sizeof(T) == 4 ? 1e-5 : 1e-13;

double norm(const numbers& x)
{
  double sum = 0;
  for (const double e : x)
    sum += e * e;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE_TEMPLATE("trust_ratio: the step is as long as the weights, times alpha", T, float, double)
{
  for (const double eps : {1e-6, 0.1})
    for (const bool always : {false, true})
      for (const double weight_decay : {0.0, 0.1, 12.0})
        CHECK(worst_difference_by_sums<T>(step_size::trust_ratio{eps, always}, weight_decay,
                                          [&](const numbers& theta, const numbers&, const numbers&, const numbers&,
                                              const numbers& u) {
                                            numbers whole = u;
                                            for (std::size_t i = 0; i < u.size(); ++i)
                                              whole[i] += weight_decay * theta[i];
                                            const double ratio = always || weight_decay > 0 ? norm(theta) / norm(whole)
                                                                                            : 1;
                                            return step_factors{ratio, ratio};
                                          }) < rounding<T>);
  // One element moves by α times itself.
  walk x(lamb{.lr = 0.25, .weight_decay = 1e-3}.rule(), std::vector<T>{T(-2)});
  x.step({T(0.5)});
  CHECK(double(x.weights[0]) == doctest::Approx(-2.5));
}

TEST_CASE_TEMPLATE("trust_ratio: zero weights take Adam's step, and zero gradients only decay", T, float, double)
{
  const std::vector<T> zeros(5, T(0)), g{T(1), T(-2), T(0.5), T(0), T(1e-6)};
  walk x(lamb{.lr = 0.25, .weight_decay = 0.1}.rule(), zeros);
  walk plain(adamw{.lr = 0.25, .eps = 1e-6}.rule(), zeros);
  x.step(g), plain.step(g);
  CHECK(equal(x.weights, plain.weights));
  // r = λθ, so the weights lose the part α.
  walk still(lamb{.lr = 0.25, .weight_decay = 0.1}.rule(), std::vector<T>{T(1), T(-2), T(4)});
  still.step({T(0), T(0), T(0)});
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(double(still.weights[i]) == doctest::Approx(0.75 * std::vector<double>{1, -2, 4}[i]));
  // Nothing at all.
  walk nothing(lamb{.lr = 0.25, .eps = 0}.rule(), zeros);
  nothing.step(zeros);
  CHECK(equal(nothing.weights, zeros));
}

TEST_CASE_TEMPLATE("trust_ratio: without decay, by whatever kind of decay, it is adaptive unless it always adapts", T,
                   float, double)
{
  support::random r(29);
  const auto start = draw<T>(r), g = draw<T>(r);
  const auto moved = [&](const auto& rule, const auto& decay) {
    walk x(compose(0.1, first_moment::ema{}, second_moment::ema{}, rule, decay), start);
    x.step(g), x.step(g);
    return x.weights;
  };
  const step_size::adaptive plain{1e-6};
  const step_size::trust_ratio ratio{}, always{.always_adapt = true};
  CHECK(equal(moved(ratio, decay::none{}), moved(plain, decay::none{})));
  CHECK(equal(moved(ratio, decay::l2{0.1}), moved(plain, decay::l2{0.1})));
  CHECK(equal(moved(ratio, decay::decoupled{0}), moved(plain, decay::none{})));
  CHECK(equal(moved(ratio, decay::independent{0.1}), moved(plain, decay::independent{0.1})));
  CHECK(equal(moved(ratio, decay::cautious{0}), moved(plain, decay::none{})));
  CHECK(equal(moved(ratio, decay::l2_or_decoupled{0.1, false}), moved(plain, decay::l2{0.1})));
  CHECK(equal(moved(ratio, decay::l2_or_decoupled{0.1, true}), moved(ratio, decay::decoupled{0.1})));
  CHECK_FALSE(equal(moved(ratio, decay::decoupled{0.1}), moved(plain, decay::decoupled{0.1})));
  CHECK_FALSE(equal(moved(always, decay::none{}), moved(plain, decay::none{})));
}

TEST_CASE_TEMPLATE("rms_clipped: alpha is divided by the root mean square of g over the root of v, above 1", T, float,
                   double)
{
  for (const double eps : {1e-8, 0.1}) {
    std::size_t clipped = 0;
    CHECK(worst_difference_by_sums<T>(step_size::rms_clipped{eps}, 0.1,
                                      [&](const numbers&, const numbers& g, const numbers&, const numbers& v_hat,
                                          const numbers&) {
                                        double sum = 0;
                                        for (std::size_t i = 0; i < g.size(); ++i)
                                          sum += g[i] * g[i] / std::fmax(v_hat[i], eps * eps);
                                        const double rms = std::sqrt(sum / double(g.size()));
                                        clipped += rms > 1;
                                        return step_factors{1 / std::fmax(1, rms), 1 / std::fmax(1, rms)};
                                      }) < rounding<T>);
    CHECK(clipped > 3);
    CHECK(clipped < 40);
  }
  // In the first step v̂ = g², and nothing is divided but by a rounding.
  const std::vector<T> g{T(1), T(-2), T(0.5), T(3)};
  walk x(stable_adamw{.lr = 0.25}.rule(), g);
  walk plain(adamw{.lr = 0.25}.rule(), g);
  x.step(g), plain.step(g);
  CHECK(support::largest_difference(x.weights, plain.weights) < 1e-6);
  // Zero gradients from the start move nothing, also without eps, and decay.
  walk still(stable_adamw{.lr = 0.5, .eps = 0, .weight_decay = 0.5}.rule(), std::vector<T>{T(1), T(-2)});
  still.step({T(0), T(0)});
  CHECK(still.weights == std::vector<T>{T(0.75), T(-1.5)});
}

TEST_CASE("trust_ratio: a ratio that float cannot hold gives no NaN")
{
  walk x(lamb{.lr = 1, .weight_decay = 1e-40}.rule(), std::vector<float>{1.0f, -2.0f});
  x.step({0.0f, 0.0f});
  CHECK(std::fabs(double(x.weights[0])) < 0.01);  // s = 1 but for the digits of a denormal
  CHECK(std::fabs(double(x.weights[1])) < 0.01);
}

TEST_CASE_TEMPLATE("rms_clipped: a proximal decay sees the divided alpha, in step and decay alike", T, float, double)
{
  constexpr double lr = 0.5, lambda = 2, beta1 = 0.9, beta2 = 0.99;
  walk x(gradus::compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::rms_clipped{},
                         decay::proximal{lambda}),
         std::vector<T>{T(1), T(-2)});
  double theta = 1, m = 0, v = 0, worst = 0, least = 1;
  for (int t = 1; t <= 6; ++t) {
    const double g = t < 4 ? 0.125 : 8;  // of both elements, so r is g/root of v
    x.step({T(g), T(g)});
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double root = std::sqrt(v / (1 - std::pow(beta2, t))), alpha = lr / std::fmax(1, g / root);
    theta = (theta - alpha * m / (1 - std::pow(beta1, t)) / (root + 1e-8)) / (1 + alpha * lambda);
    worst = std::fmax(worst, std::fabs(double(x.weights[0]) - theta));
    least = std::fmin(least, alpha / lr);
  }
  CHECK(least < 0.6);
  CHECK(worst < (sizeof(T) == 4 ? 1e-6 : 1e-14));
}

TEST_CASE_TEMPLATE("cautious: moves the weights whose direction and gradient agree, the further the fewer they are", T,
                   float, double)
{
  std::size_t moved = 0, all = 0;
  CHECK(worst_difference_by_sums<T>(step_size::cautious{}, 0.1,
                                    [&](const numbers&, const numbers& g, const numbers& m, const numbers&,
                                        numbers& u) {
                                      double agree = 0;
                                      for (std::size_t i = 0; i < g.size(); ++i)
                                        m[i] * g[i] > 0 ? agree += 1 : u[i] = 0;
                                      moved += std::size_t(agree);
                                      all += g.size();
                                      return step_factors{double(g.size()) / agree, 1};
                                    }) < rounding<T>);
  CHECK(moved > all / 3);
  CHECK(moved < all * 9 / 10);
  // If none agrees, none moves, and all decay.
  walk x(cautious_adamw{.lr = 0.5, .beta1 = 0.9, .weight_decay = 0.5}.rule(), std::vector<T>{T(1), T(-2), T(4)});
  x.step({T(1), T(1), T(-1)});
  const auto before = x.weights;
  x.step({T(-0.5), T(-0.5), T(0.5)});
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(x.weights[i] == before[i] - T(0.25) * before[i]);
  // A product of d and g that rounds to 0 counts.
  const T least = std::numeric_limits<T>::denorm_min();
  walk tiny(compose(1, first_moment::none{}, second_moment::ema{}, step_size::cautious{}, decay::none{}),
            std::vector<T>{T(0), T(0)});
  tiny.step({least, T(1)});
  CHECK(double(tiny.weights[1]) == doctest::Approx(-1));
}

TEST_CASE("cautious: few elements that agree count as a thousandth")
{
  CHECK(step_size::cautious{}.finish(std::array{1.0}.data(), 1e6, {}).step == 1e3);
  CHECK(step_size::cautious{}.finish(std::array{0.0}.data(), 5, {}).step == 1e3);
  CHECK(step_size::cautious{}.finish(std::array{5.0}.data(), 10, {}).step == 2);
  CHECK(step_size::cautious{}.finish(std::array{10.0}.data(), 10, {}).step == 1);
}

TEST_CASE_TEMPLATE("step_size: a zero gradient with v = 0 moves nothing, even if the divisor is 0 or nearly 0", T,
                   float, double)
{
  constexpr bool single = sizeof(T) == 4;
  for (const double eps : {0.0, single ? 1e-46 : 5e-324, single ? 1e-40 : 1e-320, single ? 1e-38 : 1e-307})
    for (const double lr : {0.01, 0.0, single ? 1e30 : 1e300}) {
      const auto check = [&](const char* name, const auto& second, const auto& step, const auto& decay) {
        CAPTURE(std::string(name));
        CAPTURE(eps);
        CAPTURE(lr);
        // β₂ = 0.7, so that `rectified` has both forms in ten steps
        walk x(compose(lr, first_moment::ema{}, second, step, decay), std::vector<T>{T(1), T(-2), T(0)});
        const auto start = x.weights;
        for (int t = 1; t <= 12; ++t)
          x.step({T(0), T(0), T(-0.0)});
        CHECK(equal(x.weights, start));
      };
      const auto check_step = [&](const char* name, const auto& step) {
        check(name, second_moment::ema{0.7}, step, decay::none{});
        check(name, second_moment::ema_max{0.7}, step, decay::decoupled{0});
        check(name, second_moment::yogi{0.7, 0}, step, decay::scheduled{0.1});
      };
      check_step("adaptive", step_size::adaptive{eps});
      check_step("bounded", step_size::bounded{eps});
      check_step("partially_adaptive", step_size::partially_adaptive{eps});
      check_step("partially_adaptive, the whole root", step_size::partially_adaptive{eps, 0.5});
      check_step("partially_adaptive, by pow", step_size::partially_adaptive{eps, 0.45});
      check_step("rectified", step_size::rectified{eps});
      check_step("decaying", step_size::decaying{eps});
      check_step("adaptive_above", step_size::adaptive_above{eps});
      check_step("adaptive_eps_root", step_size::adaptive_eps_root{eps});
      check_step("adaptive_eps_root, uncorrected", step_size::adaptive_eps_root{eps, 0, false});
      check("by_norm", second_moment::infinity_norm{0.7, eps}, step_size::by_norm{}, decay::none{});
    }
}

TEST_CASE_TEMPLATE("adaptive: without eps, squares that are rounded to 0 move the weights no further than Adam may", T,
                   float, double)
{
  for (int exponent = sizeof(T) == 4 ? -149 : -1074; exponent < 10; exponent += 3) {
    walk x(adam{.lr = 0.01, .eps = 0}.rule(), std::vector<T>{T(0)});
    const std::vector<T> g{T(std::ldexp(1.0, exponent))};
    for (int t = 1; t <= 10; ++t)
      x.step(g);
    CHECK(std::fabs(double(x.weights[0])) <= 10 * 0.01 / std::sqrt(1 - 0.999));
  }
}

TEST_CASE_TEMPLATE("eps: what T holds well is taken as it is", T, float, double)
{
  for (const double eps : {1e-8, 1e-15, 1e-20}) {
    const auto rule = adam{.eps = eps}.rule();
    CHECK(rule.step_size.template prepare<T>(make_step_scalars(rule, 1'000'000, 1)).eps == T(eps));
    CHECK(step_size::bounded{.eps = eps}.template prepare<T>(step_scalars{}).inner.eps == T(eps));
    CHECK(step_size::partially_adaptive{.eps = eps}.template prepare<T>(step_scalars{}).eps == T(eps));
  }
}

// By Python's decimal in 80 digits: b = Decimal(beta); p = b**t; 2/(1-b) - 1 - 2*t*p/(1-p).
TEST_CASE("rectified: the length of the simple average is right to the last digits, for beta2 near 1 too")
{
  struct row {
    double beta, t, rho;
  };
  for (const row& x : {row{0.9, 2, 1.94736842105263159e+0},
                       row{0.9, 5, 4.58057190300603170e+0},
                       row{0.9, 10, 8.29320134424741043e+0},
                       row{0.9, 20, 1.34638696033788713e+1},
                       row{0.9, 1000, 1.90000000000000044e+1},
                       row{0.99, 6, 5.94137669235507880e+0},
                       row{0.99, 100, 8.35264939828788981e+1},
                       row{0.99, 1000, 1.98913653777504372e+2},
                       row{0.999, 5, 4.99599800040160120e+0},
                       row{0.999, 6, 5.99416375165671731e+0},
                       row{0.999, 100, 9.83329443227247371e+1},
                       row{0.999, 1000, 8.35967375610793437e+2},
                       row{0.999, 100000, 1.99899999999999822e+3},
                       row{0.99999, 6, 5.99994166637500192e+0},
                       row{0.99999, 100000, 8.36045793009582186e+4},
                       row{0.99999999, 4, 3.99999997499999975e+0},
                       row{0.99999999, 5, 4.99999995999999960e+0},
                       row{0.99999999, 6, 5.99999994166666608e+0},
                       row{0.99999999, 1000, 9.99998333334983295e+2},
                       row{0.99999999, 2e9, 1.99999989750435296e+8},
                       row{0.999999999, 4, 3.99999999750000007e+0},
                       row{0.999999999, 5, 4.99999999600000011e+0},
                       row{0.999999999, 6, 5.99999999416666683e+0},
                       row{0.999999999, 100000, 9.99983333333800810e+4},
                       row{0.999999999, 2e9, 1.37392944433353753e+9},
                       row{0.999999999999, 5, 4.99999999999600009e+0},
                       row{0.999999999999, 6, 5.99999999999416680e+0},
                       row{0.999999999999, 2e9, 1.99933334812558791e+9},
                       row{0.9999999999999999, 5, 4.99999999999999956e+0},
                       row{0.9999999999999999, 6, 5.99999999999999935e+0},
                       row{0.9999999999999999, 2e9, 1.99999992598513169e+9}}) {
    CAPTURE(x.beta);
    CAPTURE(x.t);
    CHECK(std::fabs(step_size::average_length(x.beta, x.t, one_minus_power(x.beta, x.t)) / x.rho - 1) < 2e-15);
  }
}

TEST_CASE_TEMPLATE("rectified: rectifies from the sixth step on, however near beta2 is to 1", T, float, double)
{
  for (const double beta2 : {0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-8, 1 - 1e-9, 1 - 1e-12, 1 - 0x1p-53}) {
    const auto rule = radam{.beta2 = beta2}.rule();
    for (std::uint64_t t = 1; t <= 50; ++t) {
      const auto a = rule.step_size.template prepare<T>(make_step_scalars(rule, t, 1, 0));
      CHECK((a.hi > a.lo) == (t >= 6));
    }
  }
}
