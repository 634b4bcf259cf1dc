// A second oracle: every optimizer written down plainly, as a textbook has it, in double and sharing nothing with
// gradus, against gradus::optimizer on random problems: hyperparameters, shapes, groups, schedules, clipping, tensors
// that join late or sit out some steps.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

// ── the textbook ───────────────────────────────────────────────────────────────────────────────────────────────────
namespace textbook {

struct hyperparameters {
  double lr, beta1, beta2, eps, weight_decay, momentum, dampening, initial_accumulator, final_lr, gamma, partial,
      lr_decay, rho, alpha, clip_exponent, beta3, t_alpha_beta3, momentum_decay, beta0, warmup_steps, r,
      weight_lr_power;
  bool nesterov, decoupled_weight_decay, centered;
};

struct tensor {
  std::vector<double> theta, g, m, v, v_max, previous;
  hyperparameters h;
  double lr_max = 0, weight_sum = 0;
  int t = 0;
  bool takes_part = true;
};

using model = std::vector<tensor>;

void sgd(model& all, double lr_scale, bool stable_decay)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    const double lr = x.h.lr * lr_scale, mu = x.h.momentum;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      double g = x.g[i];
      if (!stable_decay)
        g += x.h.weight_decay * x.theta[i];
      double d = g;
      if (mu != 0) {
        x.m[i] = x.t == 1 ? g : mu * x.m[i] + (1 - x.h.dampening) * g;
        d = x.h.nesterov ? g + mu * x.m[i] : x.m[i];
      }
      if (stable_decay)
        x.theta[i] -= lr * x.h.weight_decay * (1 - x.h.dampening) / (1 - mu) * x.theta[i];
      x.theta[i] -= lr * d;
    }
  }
}

enum class decay { l2, decoupled };

// Adam, AdamW; AMSGrad with its running maximum.
void adam(model& all, double lr_scale, decay kind, bool running_maximum)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    const double lr = x.h.lr * lr_scale;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      double g = x.g[i];
      if (kind == decay::l2)
        g += x.h.weight_decay * x.theta[i];
      else
        x.theta[i] -= lr * x.h.weight_decay * x.theta[i];
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
      x.v_max[i] = std::max(x.v_max[i], x.v[i]);
      const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t));
      const double v_hat = (running_maximum ? x.v_max[i] : x.v[i]) / (1 - std::pow(x.h.beta2, x.t));
      x.theta[i] -= lr * m_hat / (std::sqrt(v_hat) + x.h.eps);
    }
  }
}

// Algorithm 2 of Xie et al.: all second moments first, then their mean, then the weights.
void adams(model& all, double lr_scale)
{
  double sum = 0, count = 0;
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * x.g[i];
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * x.g[i] * x.g[i];
      sum += x.v[i] / (1 - std::pow(x.h.beta2, x.t));
      count += 1;
    }
  }
  const double mean = sum / count;
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    const double lr = x.h.lr * lr_scale;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t)), v_hat = x.v[i] / (1 - std::pow(x.h.beta2, x.t));
      if (mean > 0)
        x.theta[i] *= 1 - std::min(1.0, lr * x.h.weight_decay / std::sqrt(mean));
      x.theta[i] -= lr * m_hat / (std::sqrt(v_hat) + x.h.eps);
    }
  }
}

void yogi(model& all, double lr_scale)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    for (std::size_t i = 0; i < x.theta.size() && x.t == 0; ++i)
      x.m[i] = x.v[i] = x.h.initial_accumulator;
    ++x.t;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double g = x.g[i] + x.h.weight_decay * x.theta[i];
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
      const double sign = x.v[i] > g * g ? 1 : x.v[i] < g * g ? -1 : 0;
      x.v[i] -= (1 - x.h.beta2) * sign * g * g;
      const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t)), v_hat = x.v[i] / (1 - std::pow(x.h.beta2, x.t));
      x.theta[i] -= x.h.lr * lr_scale * m_hat / (std::sqrt(v_hat) + x.h.eps);
    }
  }
}

void adabound(model& all, double lr_scale)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    const double final_lr = x.h.final_lr * lr_scale;
    const double lower = final_lr * (1 - 1 / (x.h.gamma * x.t + 1)), upper = final_lr * (1 + 1 / (x.h.gamma * x.t));
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double g = x.g[i] + x.h.weight_decay * x.theta[i];
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
      const double step_size = x.h.lr * lr_scale * std::sqrt(1 - std::pow(x.h.beta2, x.t)) /
                               (1 - std::pow(x.h.beta1, x.t));
      x.theta[i] -= std::clamp(step_size / (std::sqrt(x.v[i]) + x.h.eps), lower, upper) * x.m[i];
    }
  }
}

void padam(model& all, double lr_scale)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double g = x.g[i] + x.h.weight_decay * x.theta[i];
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
      x.v_max[i] = std::max(x.v_max[i], x.v[i]);
      const double step_size = x.h.lr * lr_scale * std::sqrt(1 - std::pow(x.h.beta2, x.t)) /
                               (1 - std::pow(x.h.beta1, x.t));
      x.theta[i] -= step_size * x.m[i] / std::pow(std::sqrt(x.v_max[i]) + x.h.eps, 2 * x.h.partial);
    }
  }
}

void radam(model& all, double lr_scale)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    const double lr = x.h.lr * lr_scale, power = std::pow(x.h.beta2, x.t);
    const double rho_inf = 2 / (1 - x.h.beta2) - 1, rho = rho_inf - 2 * x.t * power / (1 - power);
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      double g = x.g[i];
      if (x.h.decoupled_weight_decay)
        x.theta[i] *= 1 - lr * x.h.weight_decay;
      else
        g += x.h.weight_decay * x.theta[i];
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
      const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t));
      if (rho > 5) {
        const double r = std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
        x.theta[i] -= lr * m_hat * r * std::sqrt(1 - power) / (std::sqrt(x.v[i]) + x.h.eps);
      } else {
        x.theta[i] -= lr * m_hat;
      }
    }
  }
}

// Calls f(tensor, i, lr) for the elements of all tensors that take part; tensors' step counts then include this step.
template <class F>
void for_elements(model& all, double lr_scale, const F& f)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    for (std::size_t i = 0; i < x.theta.size(); ++i)
      f(x, i, x.h.lr * lr_scale);
  }
}

void adagrad(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i] + x.h.weight_decay * x.theta[i];
    x.v[i] = (x.t == 1 ? x.h.initial_accumulator : x.v[i]) + g * g;
    x.theta[i] -= lr / (1 + (x.t - 1) * x.h.lr_decay) * g / (std::sqrt(x.v[i]) + x.h.eps);
  });
}

// The average of squared steps is in m.
void adadelta(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i] + x.h.weight_decay * x.theta[i], rho = x.h.rho;
    x.v[i] = rho * x.v[i] + (1 - rho) * g * g;
    const double step = std::sqrt(x.m[i] + x.h.eps) / std::sqrt(x.v[i] + x.h.eps) * g;
    x.m[i] = rho * x.m[i] + (1 - rho) * step * step;
    x.theta[i] -= lr * step;
  });
}

void adamax(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i] + x.h.weight_decay * x.theta[i];
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
    x.v[i] = std::max(x.h.beta2 * x.v[i], std::fabs(g) + x.h.eps);
    x.theta[i] -= lr / (1 - std::pow(x.h.beta1, x.t)) * x.m[i] / x.v[i];
  });
}

// The average gradient is in v_max.
void rmsprop(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i] + x.h.weight_decay * x.theta[i], alpha = x.h.alpha;
    x.v[i] = alpha * x.v[i] + (1 - alpha) * g * g;
    x.v_max[i] = alpha * x.v_max[i] + (1 - alpha) * g;
    const double v = x.h.centered ? x.v[i] - x.v_max[i] * x.v_max[i] : x.v[i];
    x.m[i] = x.h.momentum * x.m[i] + g / (std::sqrt(v) + x.h.eps);
    x.theta[i] -= lr * x.m[i];
  });
}

void adabelief(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    x.theta[i] *= 1 - lr * x.h.weight_decay;
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * x.g[i];
    const double surprise = x.g[i] - x.m[i];
    x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * surprise * surprise + x.h.eps;
    const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t)), v_hat = x.v[i] / (1 - std::pow(x.h.beta2, x.t));
    x.theta[i] -= lr * m_hat / (std::sqrt(v_hat) + x.h.eps);
  });
}

void adopt(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i];
    if (x.t == 1) {
      x.v[i] = g * g;
      return;
    }
    const double limit = std::pow(x.t - 1, x.h.clip_exponent);
    const double normalized = std::clamp(g / std::max(std::sqrt(x.v[i]), x.h.eps), -limit, limit);
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * normalized;
    x.theta[i] = (1 - lr * x.h.weight_decay) * x.theta[i] - lr * x.m[i];
    x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
  });
}

// The slow average is in v_max.
void ademamix(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    double alpha = x.h.alpha, beta3 = x.h.beta3;
    if (x.t < x.h.t_alpha_beta3) {
      const double part = x.t / x.h.t_alpha_beta3;
      alpha *= part;
      const auto half_life = [](double beta) { return std::log(0.5) / std::log(beta); };
      if (x.h.beta1 > 0)
        beta3 = std::min(beta3, std::pow(0.5, 1 / ((1 - part) * half_life(x.h.beta1) + part * half_life(beta3))));
      else
        beta3 = std::pow(0.5, 1 / (part * half_life(beta3)));
    }
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * x.g[i];
    x.v_max[i] = beta3 * x.v_max[i] + (1 - beta3) * x.g[i];
    x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * x.g[i] * x.g[i];
    const double m_hat = x.m[i] / (1 - std::pow(x.h.beta1, x.t)), v_hat = x.v[i] / (1 - std::pow(x.h.beta2, x.t));
    x.theta[i] *= 1 - lr * x.h.weight_decay;
    x.theta[i] -= lr * (m_hat + alpha * x.v_max[i]) / (std::sqrt(v_hat) + x.h.eps);
  });
}

// μ and their product are made anew in each step, from the first one on.
void nadam(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const auto mu = [&](int t) { return x.h.beta1 * (1 - 0.5 * std::pow(0.96, t * x.h.momentum_decay)); };
    double product = 1;
    for (int t = 1; t <= x.t; ++t)
      product *= mu(t);
    double g = x.g[i];
    if (x.h.decoupled_weight_decay)
      x.theta[i] *= 1 - lr * x.h.weight_decay;
    else
      g += x.h.weight_decay * x.theta[i];
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
    x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * g * g;
    const double root = std::sqrt(x.v[i] / (1 - std::pow(x.h.beta2, x.t))) + x.h.eps;
    x.theta[i] -= lr * (1 - mu(x.t)) / (1 - product) * g / root;
    x.theta[i] -= lr * mu(x.t + 1) / (1 - product * mu(x.t + 1)) * x.m[i] / root;
  });
}

void adan(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double g = x.g[i], change = x.t == 1 ? 0 : g - x.previous[i], ahead = g + x.h.beta2 * change;
    x.previous[i] = g;
    x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * g;
    x.v_max[i] = x.h.beta2 * x.v_max[i] + (1 - x.h.beta2) * change;
    x.v[i] = x.h.beta3 * x.v[i] + (1 - x.h.beta3) * ahead * ahead;
    const double root = std::sqrt(x.v[i] / (1 - std::pow(x.h.beta3, x.t))) + x.h.eps;
    x.theta[i] -= lr * x.m[i] / (1 - std::pow(x.h.beta1, x.t)) / root;
    x.theta[i] -= lr * x.h.beta2 * x.v_max[i] / (1 - std::pow(x.h.beta2, x.t)) / root;
    x.theta[i] /= 1 + lr * x.h.weight_decay;
  });
}

void lion(model& all, double lr_scale)
{
  for_elements(all, lr_scale, [](tensor& x, std::size_t i, double lr) {
    const double ahead = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * x.g[i];
    x.theta[i] *= 1 - lr * x.h.weight_decay;
    x.theta[i] -= ahead > 0 ? lr : ahead < 0 ? -lr : 0;
    x.m[i] = x.h.beta2 * x.m[i] + (1 - x.h.beta2) * x.g[i];
  });
}

// The authors' reference: z in `previous`, the parameters y, and no average x.
void schedule_free_adamw(model& all, double lr_scale)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    if (x.t++ == 0)
      x.previous = x.theta;
    const double lr = x.h.lr * lr_scale * (x.t < x.h.warmup_steps ? x.t / x.h.warmup_steps : 1);
    x.lr_max = std::max(x.lr_max, lr);
    const double weight = std::pow(x.t, x.h.r) * std::pow(x.lr_max, x.h.weight_lr_power);
    x.weight_sum += weight;
    const double c = weight / x.weight_sum;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      double &y = x.theta[i], &z = x.previous[i];
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * x.g[i] * x.g[i];
      const double u = x.g[i] / (std::sqrt(x.v[i] / (1 - std::pow(x.h.beta2, x.t))) + x.h.eps) + x.h.weight_decay * y;
      y = (1 - c) * y + c * z;
      y += lr * (x.h.beta1 * (1 - c) - 1) * u;
      z -= lr * u;
    }
  }
}

// The moments of the squares first, then their mean over the model, then the rest. The weights of the averages are in
// v_max.
void adai(model& all, double lr_scale, decay kind)
{
  double sum = 0, count = 0;
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      if (kind == decay::l2)
        x.g[i] += x.h.weight_decay * x.theta[i];
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * x.g[i] * x.g[i];
      sum += x.v[i] / (1 - std::pow(x.h.beta2, x.t));
      count += 1;
    }
  }
  const double mean = sum / count;
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    const double lr = x.h.lr * lr_scale;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double v_hat = x.v[i] / (1 - std::pow(x.h.beta2, x.t));
      const double beta1 = std::clamp(1 - x.h.beta0 * v_hat / mean, 0.0, 1 - x.h.eps);
      x.m[i] = beta1 * x.m[i] + (1 - beta1) * x.g[i];
      x.v_max[i] = beta1 * x.v_max[i] + (1 - beta1);
      if (kind == decay::decoupled)
        x.theta[i] -= lr * x.h.weight_decay * x.theta[i];
      x.theta[i] -= lr * x.m[i] / x.v_max[i];
    }
  }
}

// AdamW with a factor on each tensor's step, and one on its decay. \param finish  finish(tensor, direction) makes them of
// the tensor and of m̂/(√v̂ + eps), and may change the latter
template <class Finish>
void adam_by_tensor(model& all, double lr_scale, const Finish& finish)
{
  for (tensor& x : all) {
    if (!x.takes_part)
      continue;
    ++x.t;
    std::vector<double> direction(x.theta.size());
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      x.m[i] = x.h.beta1 * x.m[i] + (1 - x.h.beta1) * x.g[i];
      x.v[i] = x.h.beta2 * x.v[i] + (1 - x.h.beta2) * x.g[i] * x.g[i];
      direction[i] = x.m[i] / (1 - std::pow(x.h.beta1, x.t)) /
                     (std::sqrt(x.v[i] / (1 - std::pow(x.h.beta2, x.t))) + x.h.eps);
    }
    const auto [of_step, of_decay] = finish(x, direction);
    const double lr = x.h.lr * lr_scale;
    for (std::size_t i = 0; i < x.theta.size(); ++i)
      x.theta[i] -= lr * of_decay * x.h.weight_decay * x.theta[i] + lr * of_step * direction[i];
  }
}

void lamb(model& all, double lr_scale)
{
  adam_by_tensor(all, lr_scale, [](const tensor& x, const std::vector<double>& direction) {
    double weights = 0, steps = 0;
    for (std::size_t i = 0; i < x.theta.size(); ++i) {
      const double step = direction[i] + x.h.weight_decay * x.theta[i];
      weights += x.theta[i] * x.theta[i];
      steps += step * step;
    }
    const double ratio = x.h.weight_decay == 0 ? 1 : std::sqrt(weights / steps);
    return std::pair(ratio, ratio);
  });
}

void stable_adamw(model& all, double lr_scale)
{
  adam_by_tensor(all, lr_scale, [](const tensor& x, const std::vector<double>&) {
    double sum = 0;
    for (std::size_t i = 0; i < x.theta.size(); ++i)
      sum += x.g[i] * x.g[i] / std::max(x.v[i] / (1 - std::pow(x.h.beta2, x.t)), x.h.eps * x.h.eps);
    const double rms = std::sqrt(sum / double(x.theta.size()));
    return std::pair(1 / std::max(1.0, rms), 1 / std::max(1.0, rms));
  });
}

void cautious_adamw(model& all, double lr_scale)
{
  adam_by_tensor(all, lr_scale, [](const tensor& x, std::vector<double>& direction) {
    double agree = 0;
    for (std::size_t i = 0; i < x.theta.size(); ++i)
      if (x.m[i] * x.g[i] > 0)
        ++agree;
      else
        direction[i] = 0;
    return std::pair(1 / std::max(1e-3, agree / double(x.theta.size())), 1.0);
  });
}

void step(std::string_view name, model& all, double lr_scale)
{
  if (name == "sgd")
    return sgd(all, lr_scale, false);
  if (name == "sgds")
    return sgd(all, lr_scale, true);
  if (name == "adam")
    return adam(all, lr_scale, decay::l2, false);
  if (name == "adamw")
    return adam(all, lr_scale, decay::decoupled, false);
  if (name == "amsgrad")
    return adam(all, lr_scale, decay::l2, true);
  if (name == "adams")
    return adams(all, lr_scale);
  if (name == "yogi")
    return yogi(all, lr_scale);
  if (name == "adabound")
    return adabound(all, lr_scale);
  if (name == "padam")
    return padam(all, lr_scale);
  if (name == "radam")
    return radam(all, lr_scale);
  if (name == "adagrad")
    return adagrad(all, lr_scale);
  if (name == "adadelta")
    return adadelta(all, lr_scale);
  if (name == "adamax")
    return adamax(all, lr_scale);
  if (name == "rmsprop")
    return rmsprop(all, lr_scale);
  if (name == "adabelief")
    return adabelief(all, lr_scale);
  if (name == "adopt")
    return adopt(all, lr_scale);
  if (name == "ademamix")
    return ademamix(all, lr_scale);
  if (name == "nadam")
    return nadam(all, lr_scale);
  if (name == "adan")
    return adan(all, lr_scale);
  if (name == "lion")
    return lion(all, lr_scale);
  if (name == "schedule_free_adamw")
    return schedule_free_adamw(all, lr_scale);
  if (name == "adai")
    return adai(all, lr_scale, decay::l2);
  if (name == "adais")
    return adai(all, lr_scale, decay::decoupled);
  if (name == "lamb")
    return lamb(all, lr_scale);
  if (name == "stable_adamw")
    return stable_adamw(all, lr_scale);
  if (name == "cautious_adamw")
    return cautious_adamw(all, lr_scale);
  FAIL("the textbook knows no ", std::string(name));
}

// PyTorch's clip_grad_norm_, after a factor on every gradient.
void scale_and_clip(model& all, double grad_scale, std::optional<double> max_norm)
{
  double squares = 0;
  for (tensor& x : all)
    for (std::size_t i = 0; i < x.g.size() && x.takes_part; ++i) {
      x.g[i] *= grad_scale;
      squares += x.g[i] * x.g[i];
    }
  const double clip = max_norm ? std::min(1.0, *max_norm / (std::sqrt(squares) + 1e-6)) : 1;
  for (tensor& x : all)
    for (double& g : x.g)
      g *= clip;
}

}  // namespace textbook

// ── gradus, and the comparison ─────────────────────────────────────────────────────────────────────────────────────
namespace {

using textbook::hyperparameters;

template <class Recipe>
Recipe recipe_of(const hyperparameters& h)
{
  Recipe r;
  r.lr = h.lr;
  r.weight_decay = h.weight_decay;
  if constexpr (requires { r.momentum; })
    r.momentum = h.momentum;
  if constexpr (requires { r.dampening; })
    r.dampening = h.dampening;
  if constexpr (requires { r.nesterov; })
    r.nesterov = h.nesterov;
  if constexpr (requires { r.beta0; })
    r.beta0 = h.beta0;
  if constexpr (requires { r.beta1; })
    r.beta1 = h.beta1;
  if constexpr (requires { r.beta2; })
    r.beta2 = h.beta2;
  if constexpr (requires { r.eps; })
    r.eps = h.eps;
  if constexpr (requires { r.lr_decay; })
    r.lr_decay = h.lr_decay;
  if constexpr (requires { r.rho; })
    r.rho = h.rho;
  if constexpr (requires { r.alpha; })
    r.alpha = h.alpha;
  if constexpr (requires { r.clip_exponent; })
    r.clip_exponent = h.clip_exponent;
  if constexpr (requires { r.beta3; })
    r.beta3 = h.beta3;
  if constexpr (requires { r.t_alpha_beta3; })
    r.t_alpha_beta3 = h.t_alpha_beta3;
  if constexpr (requires { r.momentum_decay; })
    r.momentum_decay = h.momentum_decay;
  if constexpr (requires { r.centered; })
    r.centered = h.centered;
  if constexpr (requires { r.warmup_steps; }) {
    r.warmup_steps = h.warmup_steps;
    r.r = h.r;
    r.weight_lr_power = h.weight_lr_power;
  }
  if constexpr (requires { r.initial_accumulator; })
    r.initial_accumulator = h.initial_accumulator;
  if constexpr (requires { r.final_lr; })
    r.final_lr = h.final_lr;
  if constexpr (requires { r.gamma; })
    r.gamma = h.gamma;
  if constexpr (requires { r.partial; })
    r.partial = h.partial;
  if constexpr (requires { r.decoupled_weight_decay; })
    r.decoupled_weight_decay = h.decoupled_weight_decay;
  return r;
}

// An optimizer without its types, so that the comparison below is compiled once and not thirty times.
template <class T>
struct machine {
  virtual ~machine() = default;
  virtual void add(std::vector<T>& weights, const std::vector<T>& gradients, const hyperparameters&) = 0;
  virtual void sit_out(std::size_t tensor, bool out) = 0;
  virtual gradus::step_report step(const gradus::step_options&) = 0;
};

template <class Recipe, class T, class Backend>
struct machine_of final : machine<T> {
  gradus::optimizer<Recipe, T, Backend> opt;
  std::vector<gradus::tensor_handle> tensors;

  void add(std::vector<T>& weights, const std::vector<T>& gradients, const hyperparameters& h) override
  {
    tensors.push_back(opt.add(weights, gradients, opt.add_group(recipe_of<Recipe>(h))));
  }
  void sit_out(std::size_t tensor, bool out) override
  {
    out ? opt.freeze(tensors[tensor]) : opt.unfreeze(tensors[tensor]);
  }
  gradus::step_report step(const gradus::step_options& o) override { return opt.step(o); }
};

hyperparameters draw_hyperparameters(support::random& r, std::string_view recipe)
{
  hyperparameters h{};
  h.lr = r.magnitude(1e-3, 1e-1);
  // In adabelief 0 leaves nothing but eps in v, and in schedule_free_adamw it is out of range.
  h.beta1 = r.chance(0.2) && recipe != "adabelief" && recipe != "schedule_free_adamw" ? 0 : r.uniform(0.5, 0.95);
  h.beta2 = r.chance(0.2) && recipe == "radam" ? r.uniform(0.5, 0.8) : r.uniform(0.9, 0.9995);
  h.eps = r.magnitude(1e-10, 1e-3);
  h.weight_decay = r.chance(0.2) ? 0 : r.magnitude(1e-4, 1e-1);
  h.momentum = r.chance(0.2) ? 0 : r.uniform(0.5, 0.95);
  h.dampening = r.chance(0.5) ? 0 : r.uniform();
  h.nesterov = h.momentum > 0 && h.dampening == 0 && r.chance(0.5);
  h.initial_accumulator = r.magnitude(1e-7, 1e-1);
  h.final_lr = r.magnitude(1e-2, 1);
  h.gamma = r.magnitude(1e-3, 0.5);
  h.partial = r.chance(0.5) ? r.uniform(0, 0.5) : std::ldexp(1.0, -1 - int(r.below(4)));
  h.decoupled_weight_decay = r.chance(0.5);
  support::random more = r;  // so that the problems of other recipes stay the same
  h.lr_decay = more.chance(0.5) ? 0 : more.magnitude(1e-3, 1);
  h.rho = more.uniform(0.5, 0.99);
  h.alpha = recipe == "rmsprop" ? more.uniform(0.5, 0.999) : more.chance(0.2) ? 0 : more.uniform(0, 8);
  h.clip_exponent = more.chance(0.5) ? 0.25 : more.uniform(0, 2);
  h.beta3 = more.uniform(0.95, 0.9999);
  h.t_alpha_beta3 = more.chance(0.3) ? 0 : more.uniform(1, 50);
  h.centered = more.chance(0.5);
  h.warmup_steps = more.chance(0.5) ? 0 : more.uniform(1, 20);
  h.r = more.chance(0.5) ? 0 : more.uniform(0, 3);
  h.weight_lr_power = more.chance(0.5) ? 2 : more.uniform(0, 4);
  h.momentum_decay = more.chance(0.2) ? 0 : more.magnitude(1e-3, 1);
  if (recipe.starts_with("adai"))
    h.eps = more.magnitude(1e-3, 0.5);  // 1 − eps must not round to 1 in float
  h.beta0 = more.chance(0.2) ? 0 : more.magnitude(1e-2, 2);
  return h;
}

// The largest difference, relative to 1e-3 + |x|, in thirty steps on one random problem.
template <class T>
double worst_difference(machine<T>& ours, std::string_view recipe, std::uint64_t seed)
{
  support::random r(seed);
  const std::size_t tensors = 1 + r.below(5);
  const double gradient_size = r.magnitude(1e-2, 10);
  std::vector<hyperparameters> groups(1 + r.below(3));
  for (auto& h : groups)
    h = draw_hyperparameters(r, recipe);
  const std::size_t late = r.chance(0.3) ? r.below(tensors) : 0;    // the last so many join at step 8
  const std::size_t idler = r.chance(0.3) ? r.below(tensors) : 99;  // sits out steps 15 to 19, unless it is alone
  const std::optional<double> max_norm = r.chance(0.3) ? std::optional(gradient_size * r.magnitude(0.1, 10))
                                                       : std::nullopt;
  const double grad_scale = r.chance(0.5) ? 1 : r.uniform(0.1, 2);

  textbook::model model;
  std::vector<std::vector<T>> weights(tensors), gradients(tensors);
  std::vector<std::vector<double>> curvature(tensors);
  const auto join = [&] {
    const std::size_t k = model.size(), n = 1 + r.below(70);
    textbook::tensor x;
    x.h = groups[r.below(groups.size())];
    for (std::size_t i = 0; i < n; ++i) {
      weights[k].push_back(T(r.uniform(-1, 1)));
      x.theta.push_back(double(weights[k].back()));
      curvature[k].push_back(r.uniform(0, 1));
    }
    gradients[k].resize(n);
    x.g = x.m = x.v = x.v_max = x.previous = std::vector<double>(n, 0.0);
    model.push_back(std::move(x));
    ours.add(weights[k], gradients[k], model[k].h);
  };

  while (model.size() < tensors - late)
    join();
  double worst = 0;
  for (int t = 1; t <= 30; ++t) {
    while (t == 8 && model.size() < tensors)
      join();
    if (idler < tensors && tensors > 1 && (t == 15 || t == 20)) {
      model[idler].takes_part = t == 20;
      ours.sit_out(idler, t == 15);
    }
    for (std::size_t k = 0; k < model.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i) {
        const double noise = r.uniform(-1, 1);
        gradients[k][i] = T(gradient_size * (curvature[k][i] * double(weights[k][i]) + noise));
        model[k].g[i] = gradient_size * (curvature[k][i] * model[k].theta[i] + noise);
      }
    const double lr_scale = t > 25 ? 0.1 : 1 / (1 + 0.02 * t);
    textbook::scale_and_clip(model, grad_scale, max_norm);
    textbook::step(recipe, model, lr_scale);
    const auto report = ours.step({.lr_scale = lr_scale, .grad_scale = grad_scale, .max_grad_norm = max_norm});
    CHECK(report.applied);
    for (std::size_t k = 0; k < model.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i) {
        const double x = model[k].theta[i], difference = std::fabs(double(weights[k][i]) - x) / (1e-3 + std::fabs(x));
        worst = difference > worst || std::isnan(difference) ? difference : worst;
      }
  }
  return worst;
}

template <class T, class Backend>
void compare(std::uint64_t trials, double tolerance)
{
  gradus::for_each_recipe([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    double worst = 0;
    for (std::uint64_t seed = 1; seed <= trials; ++seed) {
      const std::unique_ptr<machine<T>> ours = std::make_unique<machine_of<Recipe, T, Backend>>();
      const double difference = worst_difference(*ours, name, seed);
      CHECK_MESSAGE(difference < tolerance, std::string(name), ", seed ", seed);
      worst = std::fmax(worst, difference);
    }
    std::printf("%-9s %s %.1e\n", std::string(name).c_str(), sizeof(T) == 4 ? "float " : "double", worst);
  });
}

}  // namespace

// The scalar backend gives the same bits (see backend/simd.cpp).
TEST_CASE("default_backend: agrees with the textbook in double")
{
  compare<double, gradus::default_backend>(100, 1e-12);
}

TEST_CASE("default_backend: agrees with the textbook in float") { compare<float, gradus::default_backend>(30, 1e-3); }
