// gradus on a problem in NLopt's form: a callback that returns f(x) and writes its gradient. NLopt's L-BFGS finds the
// reference minimum. Ceres's problems have the same form: `Evaluate(x, &value, gradient)` of a ceres::FirstOrderFunction
// takes the callback's place, and `NumParameters()` is n.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <nlopt.h>

#include <gradus/gradus.hpp>

#include "images.hpp"

namespace {

// ── the glue ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Minimises f from x, which receives the last point.
/// \param lower  bounds, or none; as in NLopt, a step that leaves them ends on them
/// \return f of the last point
template <class Recipe>
double minimise(nlopt_func f, void* data, std::vector<double>& x, const std::vector<double>& lower,
                const Recipe& recipe, int steps)
{
  const auto n = unsigned(x.size());
  std::vector<double> gradient(n);
  gradus::optimizer<Recipe, double> opt(recipe);
  opt.add(x, gradient);
  const gradus::schedule::cosine schedule{.t_max = double(steps)};
  for (int t = 0; t < steps; ++t) {
    f(n, x.data(), gradient.data(), data);
    opt.step({.lr_scale = schedule(t)});
    for (std::size_t i = 0; i < lower.size(); ++i)
      x[i] = std::max(x[i], lower[i]);
  }
  return f(n, x.data(), nullptr, data);
}

// ── the problems ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// The sum of 100(y − x²)² + (1 − x)² over neighbours x, y.
double rosenbrock(unsigned n, const double* x, double* gradient, void*)
{
  double f = 0;
  if (gradient)
    std::fill_n(gradient, n, 0.0);
  for (unsigned i = 0; i + 1 < n; ++i) {
    const double a = x[i + 1] - x[i] * x[i], b = 1 - x[i];
    f += 100 * a * a + b * b;
    if (gradient) {
      gradient[i] += -400 * a * x[i] - 2 * b;
      gradient[i + 1] += 200 * a;
    }
  }
  return f;
}

constexpr std::size_t features = 50;  // 7 × 7 means of 4 × 4 pixels, and 1

struct points {
  std::vector<double> features_of, label;  // the label is −1 or 1
};

/// Pullovers and shirts.
points read_points()
{
  const images::training_set set("nlopt", 10000);
  const auto [pixels, label] = set.of_step(0, 10000);
  points p;
  for (std::size_t s = 0; s < label.size(); ++s)
    if (label[s] == 2 || label[s] == 6) {
      p.label.push_back(label[s] == 2 ? -1 : 1);
      const std::size_t at = p.features_of.size();
      p.features_of.resize(at + features, 0.0);
      p.features_of[at + features - 1] = 1;
      for (std::size_t i = 0; i < 784; ++i)
        p.features_of[at + i / 28 / 4 * 7 + i % 28 / 4] += pixels[784 * s + i] / 16.0;
    }
  return p;
}

/// The mean logistic loss, and 5e-3 ‖w‖².
double logistic_loss(unsigned n, const double* w, double* gradient, void* data)
{
  const points& p = *static_cast<const points*>(data);
  double f = 0;
  for (unsigned i = 0; i < n; ++i) {
    f += 5e-3 * w[i] * w[i];
    if (gradient)
      gradient[i] = 1e-2 * w[i];
  }
  const double share = 1 / double(p.label.size());
  for (std::size_t s = 0; s < p.label.size(); ++s) {
    const double* const x = &p.features_of[features * s];
    double z = 0;
    for (unsigned i = 0; i < n; ++i)
      z -= w[i] * x[i] * p.label[s];
    f += share * (z > 0 ? z + std::log1p(std::exp(-z)) : std::log1p(std::exp(z)));
    const double slope = share * p.label[s] / (1 + std::exp(-z));
    for (unsigned i = 0; gradient && i < n; ++i)
      gradient[i] -= slope * x[i];
  }
  return f;
}

// ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────

bool good = true;

template <class Recipe>
void compare(const char* what, nlopt_func f, void* data, const std::vector<double>& start,
             const std::vector<double>& lower, const Recipe& recipe, int steps)
{
  std::vector<double> x = start, reference = start;
  const double found = minimise(f, data, x, lower, recipe, steps);

  double least = 0;
  nlopt_opt lbfgs = nlopt_create(NLOPT_LD_LBFGS, unsigned(start.size()));
  nlopt_set_min_objective(lbfgs, f, data);
  if (!lower.empty())
    nlopt_set_lower_bounds(lbfgs, lower.data());
  nlopt_set_ftol_rel(lbfgs, 1e-15);
  nlopt_set_maxeval(lbfgs, 500);
  const nlopt_result result = nlopt_optimize(lbfgs, reference.data(), &least);
  nlopt_destroy(lbfgs);

  const double difference = images::largest_difference(x, reference);
  std::printf("%-34s minimum %.9f, NLopt's %.9f, largest difference of x %.1e\n", what, found, least, difference);
  good = good && result > 0 && found - least < 1e-8 && difference < 1e-4;
}

}  // namespace

int main()
{
  using namespace gradus;
  points p = read_points();
  const std::vector<double> start(10, -1.0), zeros(features, 0.0), none;
  compare("Rosenbrock, adam:", rosenbrock, nullptr, start, none, adam{.lr = 0.05}, 20000);
  const sgd nesterov{.lr = 1, .momentum = 0.97, .nesterov = true};
  compare("logistic regression, sgd:", logistic_loss, &p, zeros, none, nesterov, 2000);
  compare("the same with w >= 0:", logistic_loss, &p, zeros, zeros, nesterov, 1000);
  return good ? 0 : 1;
}
