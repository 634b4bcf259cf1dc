// Step sizes: a(v) in u = a(v)·d, and where eps stands in it.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
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
