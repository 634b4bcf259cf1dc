#pragma once
// An optimizer as one would write it down: tensors in a list, loops in double, everything computed anew in each step. The
// fuzzer of the API compares gradus with it; the two share no code.

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace naive {

enum class kind { sgd, adam, adamw, adams, amsgrad };

struct group {
  double lr = 0, momentum = 0, dampening = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0, lr_scale = 1;
  bool nesterov = false;
};

struct tensor {
  std::string name;
  std::size_t group = 0;
  std::vector<double> w, g, m, v, top;
  std::vector<bool> trained;  // empty: all are
  std::vector<bool> padding;  // empty: none is
  unsigned long t = 0;
  bool attached = true, frozen = false, bound = true, counted = true;

  bool takes_part() const { return attached && bound && !frozen; }
  bool counts(std::size_t i) const { return counted && is_trained(i) && (padding.empty() || !padding[i]); }
  bool is_trained(std::size_t i) const { return trained.empty() || trained[i]; }
};

struct options {
  double lr_scale = 1, decay_scale = 1, grad_scale = 1;
  std::optional<double> lr, max_grad_norm, grad_norm_sq, mean_square;
  bool skip_nonfinite = false, maximize = false;
};

struct report {
  bool applied = true, clamped = false, barely = false;  // barely: rounding decides whether the decay is clamped
  double norm = 0, mean_square = 0;
};

template <class Tensors>
double squares(const Tensors& all)
{
  double sum = 0;
  for (const tensor& x : all)
    for (std::size_t i = 0; x.takes_part() && x.counted && i < x.g.size(); ++i)
      sum += x.is_trained(i) ? x.g[i] * x.g[i] : 0;
  return sum;
}

template <class Tensors>
std::size_t counted_elements(const Tensors& all)
{
  std::size_t n = 0;
  for (const tensor& x : all)
    for (std::size_t i = 0; x.takes_part() && i < x.w.size(); ++i)
      n += x.counts(i);
  return n;
}

// How many different pairs of β₂ and step count take part.
template <class Tensors>
std::size_t ages(const Tensors& all, const std::vector<group>& groups)
{
  std::set<std::pair<double, unsigned long>> found;
  for (const tensor& x : all)
    if (x.takes_part())
      found.emplace(groups[x.group].beta2, x.t);
  return found.size();
}

template <class Tensors>
report step(kind k, Tensors& all, const std::vector<group>& groups, const options& o)
{
  report r;
  r.norm = std::sqrt(o.grad_norm_sq.value_or(squares(all))) * o.grad_scale;
  if (o.skip_nonfinite && !std::isfinite(r.norm)) {
    r.applied = false;
    return r;
  }
  double scale = o.grad_scale;
  if (o.max_grad_norm && std::isfinite(*o.max_grad_norm))
    scale *= std::fmin(1, *o.max_grad_norm / (r.norm + 1e-6));
  const double sign = o.maximize ? -1 : 1;

  double sum = 0, count = 0;
  for (tensor& x : all) {
    if (!x.takes_part())
      continue;
    const group& h = groups[x.group];
    ++x.t;
    for (std::size_t i = 0; i < x.w.size(); ++i) {
      if (!x.is_trained(i))
        continue;
      double g = sign * scale * x.g[i];
      if (k == kind::sgd || k == kind::adam || k == kind::amsgrad)
        g += h.weight_decay * o.decay_scale * x.w[i];
      if (k == kind::sgd) {
        x.g[i] = g;
        if (h.momentum > 0)
          x.m[i] = x.t == 1 ? g : h.momentum * x.m[i] + (1 - h.dampening) * g;
        continue;
      }
      x.m[i] = h.beta1 * x.m[i] + (1 - h.beta1) * g;
      x.v[i] = h.beta2 * x.v[i] + (1 - h.beta2) * g * g;
      x.top[i] = std::fmax(x.top[i], x.v[i]);
      sum += x.counted ? x.v[i] / (1 - std::pow(h.beta2, double(x.t))) : 0;
      count += x.counts(i);
    }
  }
  r.mean_square = o.mean_square.value_or(count > 0 ? sum / count : 0);

  for (tensor& x : all) {
    if (!x.takes_part())
      continue;
    const group& h = groups[x.group];
    const double lr = (o.lr ? *o.lr : h.lr * o.lr_scale) * h.lr_scale, decay = h.weight_decay * o.decay_scale;
    double shrink = 0;
    if (k == kind::adamw)
      shrink = lr * decay;
    if (k == kind::adams && r.mean_square > 0) {
      shrink = lr * decay / std::sqrt(r.mean_square);
      r.barely = r.barely || std::fabs(shrink - 1) < 1e-9;
      r.clamped = r.clamped || shrink > 1;
      shrink = std::fmin(shrink, 1);
    }
    for (std::size_t i = 0; i < x.w.size(); ++i) {
      if (!x.is_trained(i))
        continue;
      if (k == kind::sgd) {
        const double d = h.momentum == 0 ? x.g[i] : h.nesterov ? x.g[i] + h.momentum * x.m[i] : x.m[i];
        x.w[i] -= lr * d;
        continue;
      }
      const double m_hat = x.m[i] / (1 - std::pow(h.beta1, double(x.t)));
      const double v_hat = (k == kind::amsgrad ? x.top[i] : x.v[i]) / (1 - std::pow(h.beta2, double(x.t)));
      x.w[i] = (1 - shrink) * x.w[i] - lr * m_hat / (std::sqrt(v_hat) + h.eps);
    }
  }
  return r;
}

}  // namespace naive
