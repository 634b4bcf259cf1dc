#pragma once
/// \file
/// Says which convention an implementation of Adam, AdamW, AMSGrad, RMSprop, Adagrad or SGD follows: where eps stands, what is
/// corrected for bias, how weight decay and the learning rate enter. C++17, one header, no dependencies.
///
///     conformance::settings s;  // configure your optimizer with these
///     const auto v = conformance::examine<float>(s, [&](std::vector<conformance::tensor<float>>& tensors, int t, double lr) {
///       for (auto& x : tensors)
///         my_adam(x.parameters, x.gradients, x.size, lr, x.weight_decay, t);
///     });
///     std::cout << v.text;
///
/// The suite makes a small problem and trains it with the implementation. It has its own formulas, in double, for every
/// combination of conventions and of common mistakes. Each formula predicts every step from the parameters before it, so
/// differences do not add up, and parts from the implementation at the first step that it does not predict to rounding.
/// The formula that never parts is the verdict; conformance.py is the same in Python.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace conformance {

/// The hyperparameters that the implementation is configured with. Those that it does not have are ignored.
struct settings {
  double lr = 0.02;                ///< the first learning rate; each call of the step passes the current one
  double beta1 = 0.9;              ///< decay rate of the average of g
  double beta2 = 0.95;             ///< decay rate of the average of g²; near 1 hides AMSGrad's maximum
  double eps = 1e-8;               ///< the problem has gradients as small as eps and as √eps
  double weight_decay = 0.1;       ///< 0 for an implementation without
  double momentum = 0.9;           ///< SGD's and RMSprop's
  double dampening = 0;            ///< SGD's
  bool nesterov = false;           ///< whether SGD should take Nesterov's step
  double initial_accumulator = 0;  ///< Adagrad's start value
};

/// The tensors, their gradients and the learning rates (tests/golden/README.md in gradus's repository).
struct problem {
  std::uint64_t seed = 20;
  std::vector<std::size_t> sizes{6, 5, 4, 4};
  int steps = 60;
  std::vector<int> drops{40, 50};  ///< steps from which on the learning rate is a tenth
  std::vector<double> scales;      ///< of each tensor's gradients; empty for 1
  std::size_t undecayed = 2;       ///< so many last tensors have weight_decay 0
};
/// The suite's own problem: two tensors as usual, then one with gradients near √eps, and one with gradients near eps.
inline problem problem_for(const settings& s)
{
  problem p;
  const double eps = s.eps > 1e-17 ? s.eps : 1e-17;  // so that g² does not underflow in float
  p.scales = {1, 1, std::sqrt(eps), 3 * eps};
  return p;
}

namespace detail {

inline std::string show(double x)
{
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", x);
  return text;
}

}  // namespace detail

/// What is wrong with settings or a problem, in a sentence; empty if nothing is.
inline std::string fault_of(const settings& s, const problem& p)
{
  const auto fault = [](const char* name, double x, const char* expected) {
    return std::string("The setting ") + name + " is " + detail::show(x) + "; expected " + expected + ".";
  };
  if (!(s.lr > 0 && std::isfinite(s.lr)))
    return fault("lr", s.lr, "a finite number above 0");
  for (const auto& [name, x] : {std::pair("beta1", s.beta1), {"beta2", s.beta2}, {"momentum", s.momentum}})
    if (!(x >= 0 && x < 1))
      return fault(name, x, "a number in [0, 1)");
  for (const auto& [name, x] :
       {std::pair("eps", s.eps), {"weight_decay", s.weight_decay}, {"initial_accumulator", s.initial_accumulator}})
    if (!(x >= 0 && std::isfinite(x)))
      return fault(name, x, "a finite number of at least 0");
  if (!std::isfinite(s.dampening))
    return fault("dampening", s.dampening, "a finite number");
  if (std::accumulate(p.sizes.begin(), p.sizes.end(), std::size_t(0)) == 0 || p.steps < 1)
    return "The problem has no tensors or no steps.";
  if (!p.scales.empty() && p.scales.size() != p.sizes.size())
    return "The problem has " + std::to_string(p.sizes.size()) + " tensors and " + std::to_string(p.scales.size()) +
           " scales; expected one for each, or none.";
  if (p.undecayed > p.sizes.size())
    return "The problem has " + std::to_string(p.sizes.size()) + " tensors, of which " + std::to_string(p.undecayed) +
           " are undecayed; expected at most all.";
  return {};
}

/// What a step receives of each tensor; the pointers stay the same from step to step. It updates `parameters`.
template <class T>
struct tensor {
  T* parameters;
  const T* gradients;
  std::size_t size;
  double weight_decay;  ///< settings' or 0
};

/// The parameters after some of the steps, tensor after tensor, as the implementation left them.
struct observations {
  problem of;
  bool single;  ///< in float
  std::map<int, std::vector<double>> at;
};

// ── the hypotheses ───────────────────────────────────────────────────────────────────────────────────────────────────

/// One way to do a part of a step.
struct choice {
  const char* text;  ///< completes "AXIS: "
  int cost;          ///< 0 for a textbook's, 1 for a convention of some libraries, 2 for what is probably a mistake
};
/// A part of a step, and the families that have it: letters a Adam, r RMSprop, g Adagrad, s SGD.
struct axis {
  const char* name;
  const char* families;
  std::vector<choice> choices;
};
/// Names for the indices of `axes()` and for the choices there, in their order.
enum axis_name {
  family,
  second,
  eps_place,
  root,
  correction,
  momentum,
  buffer,
  nesterov,
  decay,
  rate,
  groups,
  state,
  betas,
  axis_count
};
enum { adam, rmsprop, adagrad, sgd };
enum { plain, maximum, corrected_maximum };
enum { beside_corrected, beside_uncorrected, inside_corrected, inside_uncorrected, no_eps };
enum { beside, inside, no_root_eps };
enum { both, none, only_first, only_second, once_a_tensor, ahead, stuck };
enum { outside, lr_inside, complement, dampened, no_momentum };
enum { no_buffer, buffer_outside, buffer_inside };
enum { l2, decoupled, without_lr, base_lr, after, proximal, stable, first_only, in_ratio, twice, no_decay };
enum { followed, ignored, late };

inline const std::array<axis, axis_count>& axes()
{
  static const std::array<axis, axis_count> all{{
      {"optimizer", "args", {{"Adam", 0}, {"RMSprop", 0}, {"Adagrad", 0}, {"SGD", 0}}},
      {"second moment",
       "a",
       {{"the average v of g²", 0},
        {"AMSGrad's running maximum of v, before bias correction (PyTorch, Keras, ensmallen)", 0},
        {"AMSGrad's running maximum of the bias-corrected v (optax)", 1}}},
      {"eps",
       "a",
       {{"beside the bias-corrected root, sqrt(v/(1-beta2^t)) + eps (PyTorch, optax, ggml, DeepSpeed)", 0},
        {"beside the uncorrected root, sqrt(v) + eps (Keras and TensorFlow, dlib, ensmallen; the paper's epsilon hat)",
         1},
        {"inside the bias-corrected root, sqrt(v/(1-beta2^t) + eps) (optax's eps_root)", 1},
        {"inside the uncorrected root, sqrt(v + eps)", 1},
        {"none: it is ignored", 2}}},
      {"eps",
       "rg",
       {{"beside the root, sqrt(v) + eps (PyTorch, ensmallen)", 0},
        {"inside the root, sqrt(v + eps) (Keras and TensorFlow, optax)", 0},
        {"none: it is ignored", 2}}},
      {"bias correction",
       "a",
       {{"of both moments, with a count of steps from 1", 0},
        {"none (BERT's Adam, DeepSpeed's and apex's option)", 1},
        {"of the first moment only", 2},
        {"of the second moment only", 2},
        {"with a count that advances once a tensor in place of once a step", 2},
        {"with a count that is one ahead: the first step counts as the second", 2},
        {"with a count that stays 1", 2}}},
      {"momentum",
       "s",
       {{"b = mu*b + g, and the step is lr*b (PyTorch, optax)", 0},
        {"b = mu*b + lr*g, and the step is b: the learning rate is inside (Keras and TensorFlow, dlib, ensmallen)", 1},
        {"b = mu*b + (1-mu)*g, without bias correction", 1},
        {"b = mu*b + (1-dampening)*g after the first step (PyTorch)", 0},
        {"none: it is ignored", 2}}},
      {"momentum",
       "r",
       {{"none", 0},
        {"b = mu*b + g/root, and the step is lr*b (PyTorch)", 0},
        {"b = mu*b + lr*g/root, and the step is b: the learning rate is inside (Keras and TensorFlow, optax)", 0}}},
      {"Nesterov", "s", {{"no", 0}, {"yes, g + mu*b", 0}}},
      {"weight decay",
       "args",
       {{"L2, added to the gradient (PyTorch's Adam and SGD, dlib)", 0},
        {"decoupled, lr*lambda of the weight before the step (AdamW of PyTorch, optax, Keras, ggml, DeepSpeed)", 0},
        {"decoupled, lambda of the weight without the learning rate", 1},
        {"decoupled, with the first learning rate in place of the current one", 1},
        {"decoupled, of the weight after the step", 1},
        {"proximal: the weight after the step is divided by 1 + lr*lambda (Adan)", 1},
        {"decoupled, lr*lambda*(1-dampening)/(1-mu) of the weight (stable weight decay)", 1},
        {"L2 in the first moment only: the second does not see it", 2},
        {"added to the corrected first moment, and divided by the root of the second", 2},
        {"L2 with twice lambda, the derivative of lambda*|w|^2", 2},
        {"none: it is ignored", 2}}},
      {"learning rate",
       "args",
       {{"as passed to the step", 0},
        {"always the first: its drops are ignored", 2},
        {"that of the step before: its drops act a step late", 2}}},
      {"groups", "args", {{"each tensor has its own weight decay", 0}, {"ignored: all tensors decay", 2}}},
      {"state", "args", {{"of each tensor's own", 0}, {"shared: the buffers of one tensor go on in the next", 2}}},
      {"betas", "a", {{"as given", 0}, {"swapped", 2}}},
  }};
  return all;
}

/// One choice for each axis.
using hypothesis = std::array<unsigned char, axis_count>;

inline bool has_axis(const hypothesis& h, std::size_t a)
{
  return std::string(axes()[a].families).find("args"[h[family]]) != std::string::npos;
}

// ── the formulas ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// What the formula of a hypothesis keeps of an element.
struct element_state {
  double m = 0, v = 0, largest = 0;
  double size = 0;  ///< as m, of |g|: what roundings are measured by
};

/// What a step does to one weight, and to how much of it rounding may amount.
struct prediction {
  double theta, step_size;
};

/// One step of one element, in double, as the hypothesis has it.
/// \param t       the implementation's step, from 1
/// \param count   how many tensors had steps before this one, in all steps
/// \param lr      this step's, \param before  that of the step before
/// \param lambda  the tensor's weight decay
inline prediction predict(const hypothesis& h, const settings& s, element_state& e, double theta, double g, int t,
                          long count, double lr, double before, double lambda)
{
  const double alpha = h[rate] == ignored ? s.lr : h[rate] == late ? before : lr;
  const double l2_part = h[decay] == l2 || h[decay] == first_only ? lambda * theta
                         : h[decay] == twice                      ? 2 * lambda * theta
                                                                  : 0;
  const double gm = g + l2_part, gv = h[decay] == first_only ? g : gm, size = std::fabs(g) + std::fabs(l2_part);
  const double mu = s.momentum;
  double u = 0, reach = 0;
  if (h[family] == adam) {
    const double b1 = h[betas] ? s.beta2 : s.beta1, b2 = h[betas] ? s.beta1 : s.beta2;
    e.m = b1 * e.m + (1 - b1) * gm;
    e.size = b1 * e.size + (1 - b1) * size;
    e.v = b2 * e.v + (1 - b2) * gv * gv;
    const double n = h[correction] == once_a_tensor ? double(count + 1)
                     : h[correction] == ahead       ? t + 1.0
                     : h[correction] == stuck       ? 1.0
                                                    : double(t);
    const double c1 = h[correction] == none || h[correction] == only_second ? 1 : 1 - std::pow(b1, n);
    double c2 = h[correction] == none || h[correction] == only_first ? 1 : 1 - std::pow(b2, n), v = e.v;
    if (h[second] == maximum)
      v = e.largest = std::fmax(e.largest, e.v);
    if (h[second] == corrected_maximum) {
      v = e.largest = std::fmax(e.largest, e.v / c2);
      c2 = 1;
    }
    const double divisor = h[eps_place] == beside_corrected     ? std::sqrt(v / c2) + s.eps
                           : h[eps_place] == beside_uncorrected ? (std::sqrt(v) + s.eps) / std::sqrt(c2)
                           : h[eps_place] == inside_corrected   ? std::sqrt(v / c2 + s.eps)
                           : h[eps_place] == inside_uncorrected ? std::sqrt(v + s.eps) / std::sqrt(c2)
                                                                : std::sqrt(v / c2);
    const double more = h[decay] == in_ratio ? lambda * theta : 0;
    u = alpha * (e.m / c1 + more) / divisor;
    reach = alpha * (e.size / c1 + std::fabs(more)) / divisor;
  } else if (h[family] == sgd) {
    const bool first = t == 1, inner = h[momentum] == lr_inside;
    const double kept = h[momentum] == no_momentum || (h[momentum] == dampened && first) ? 0 : mu;
    const double share = h[momentum] == complement           ? 1 - mu
                         : h[momentum] == dampened && !first ? 1 - s.dampening
                         : inner                             ? alpha
                                                             : 1;
    e.m = kept * e.m + share * gm;
    e.size = kept * e.size + share * size;
    u = (inner ? 1 : alpha) * (h[nesterov] ? (inner ? alpha : 1) * gm + mu * e.m : e.m);
    reach = (inner ? 1 : alpha) * (h[nesterov] ? (inner ? alpha : 1) * size + mu * e.size : e.size);
  } else {
    if (t == 1 && h[family] == adagrad)
      e.v = s.initial_accumulator;
    e.v = h[family] == adagrad ? e.v + gv * gv : s.beta2 * e.v + (1 - s.beta2) * gv * gv;
    const double divisor = h[root] == beside ? std::sqrt(e.v) + s.eps
                                             : std::sqrt(e.v + (h[root] == inside ? s.eps : 0));
    const double inner = h[buffer] == buffer_inside ? alpha : 1, kept = h[buffer] == no_buffer ? 0 : mu;
    const double more = h[decay] == in_ratio ? lambda * theta : 0;
    e.m = kept * e.m + inner * (gm + more) / divisor;
    e.size = kept * e.size + inner * (size + std::fabs(more)) / divisor;
    u = (h[buffer] == buffer_inside ? 1 : alpha) * e.m;
    reach = (h[buffer] == buffer_inside ? 1 : alpha) * e.size;
  }
  double next = theta - u;
  if (h[decay] == decoupled || h[decay] == without_lr || h[decay] == base_lr || h[decay] == stable) {
    const double factor = h[decay] == decoupled    ? alpha
                          : h[decay] == base_lr    ? s.lr
                          : h[decay] == without_lr ? 1
                                                   : alpha * (1 - s.dampening) / (1 - mu);
    next = theta - factor * lambda * theta - u;
  }
  if (h[decay] == after)
    next = (1 - alpha * lambda) * (theta - u);
  if (h[decay] == proximal)
    next = (theta - u) / (1 + alpha * lambda);
  return {next, reach};
}

// ── the problem ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Parameters at the start, and what gradients are computed from.
struct drawn {
  std::vector<double> theta, a, b;
  double scale;
  double gradient(std::size_t i, double at, int t) const
  {
    return scale * (a[i] * at + b[i] * std::sin(3 * at + 0.1 * t));
  }
};
inline std::vector<drawn> draw(const problem& p)
{
  std::uint64_t s = p.seed;
  const auto next = [&s] {
    s = s * 6364136223846793005u + 1442695040888963407u;
    return double(s >> 11) / 9007199254740992.0;
  };
  std::vector<drawn> all;
  for (const std::size_t n : p.sizes) {
    drawn x;
    x.scale = p.scales.empty() ? 1 : p.scales[all.size()];
    for (std::size_t i = 0; i < n; ++i) {
      x.theta.push_back(-1 + 2 * next());
      x.a.push_back(0.1 + 1.9 * next());
      x.b.push_back(-0.5 + next());
    }
    all.push_back(x);
  }
  return all;
}
/// The learning rate of a step.
inline double rate_at(const settings& s, const problem& p, int t)
{
  double lr = s.lr;
  for (const int drop : p.drops)
    lr *= t >= drop ? 0.1 : 1;
  return lr;
}

/// Trains the problem with an implementation, and keeps its parameters after each step.
/// \param step  step(std::vector<tensor<T>>&, int t, double lr) updates the parameters; t counts from 1
template <class T, class Step>
observations observe(const settings& s, const problem& p, Step&& step)
{
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "conformance: T is float or double");
  observations seen{p, sizeof(T) == 4, {}};
  if (!fault_of(s, p).empty())
    return seen;  // judge says why
  const std::vector<drawn> data = draw(p);
  std::vector<std::vector<T>> parameters, gradients;
  for (const drawn& x : data) {
    parameters.emplace_back(x.theta.begin(), x.theta.end());
    gradients.emplace_back(x.theta.size());
  }
  std::vector<tensor<T>> tensors;
  for (std::size_t k = 0; k < data.size(); ++k)
    tensors.push_back({parameters[k].data(), gradients[k].data(), parameters[k].size(),
                       k + p.undecayed < data.size() ? s.weight_decay : 0});
  for (int t = 1; t <= p.steps; ++t) {
    for (std::size_t k = 0; k < data.size(); ++k)
      for (std::size_t i = 0; i < parameters[k].size(); ++i)
        gradients[k][i] = T(data[k].gradient(i, double(parameters[k][i]), t));
    step(tensors, t, rate_at(s, p, t));
    for (const auto& w : parameters)
      seen.at[t].insert(seen.at[t].end(), w.begin(), w.end());
  }
  return seen;
}

// ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Where a hypothesis parts from the implementation.
struct parting {
  int step = 0;  ///< the first step that it does not predict; 0 if there is none
  std::size_t tensor = 0, element = 0;
  double expected = 0, came = 0;
};

/// Follows the observations with a hypothesis. Between steps that were not observed it goes on from its own parameters.
/// \param single  whether to allow for rounding to float, or to double
inline parting follow(const hypothesis& h, const settings& s, const observations& seen, const std::vector<drawn>& data,
                      bool single)
{
  const problem& p = seen.of;
  const double unit = single ? 0x1p-24 : 0x1p-53;
  struct element {
    double theta, slack;
    element_state own;
  };
  std::vector<std::vector<element>> elements;
  std::size_t widest = 0;
  for (const drawn& x : data) {
    elements.emplace_back();
    for (const double theta : x.theta)
      elements.back().push_back({single ? double(float(theta)) : theta, 0, {}});
    widest = x.theta.size() > widest ? x.theta.size() : widest;
  }
  std::vector<element_state> shared(h[state] ? widest : 0);
  long count = 0;
  for (int t = 1; t <= p.steps; ++t) {
    const double lr = rate_at(s, p, t), before = rate_at(s, p, t > 1 ? t - 1 : 1);
    const auto observed = seen.at.find(t);
    std::size_t at = 0;
    for (std::size_t k = 0; k < data.size(); ++k, ++count) {
      const double lambda = h[decay] == no_decay || (!h[groups] && k + p.undecayed >= data.size()) ? 0 : s.weight_decay;
      for (std::size_t i = 0; i < elements[k].size(); ++i, ++at) {
        element& x = elements[k][i];
        double g = data[k].gradient(i, x.theta, t);
        g = single ? double(float(g)) : g;
        const prediction next = predict(h, s, h[state] ? shared[i] : x.own, x.theta, g, t, count, lr, before, lambda);
        // Parameters are rounded a few times. A step of v, and of 1 - beta2 rounded to float, loses some more digits.
        x.slack = 1.05 * x.slack + unit * (4 * std::fabs(x.theta) + (h[family] == sgd ? 32 : 256) * next.step_size);
        x.theta = next.theta;
        if (observed == seen.at.end())
          continue;
        const double came = observed->second[at];
        if (!(std::fabs(came - next.theta) <= x.slack))
          return {t, k, i, next.theta, came};
        x.theta = came;
        x.slack *= 0.5;  // what remains is in the state
      }
    }
  }
  return {};
}

/// What the suite finds.
struct verdict {
  bool follows = false;                ///< a hypothesis predicts every step
  hypothesis best{};                   ///< the simplest that does; if none does, the simplest of those that part last
  parting parts;                       ///< where it parts
  bool single = false;                 ///< it follows to rounding of float only
  int mistakes = 0;                    ///< how many choices of `best` are probably mistakes
  std::vector<std::string> undecided;  ///< what the problem could not tell apart
  std::string text;                    ///< all this in sentences
};

namespace detail {

inline int cost(const hypothesis& h, int& mistakes)
{
  int sum = 0;
  mistakes = 0;
  for (std::size_t a = 0; a < axis_count; ++a)
    if (has_axis(h, a)) {
      const int c = axes()[a].choices[h[a]].cost;
      sum += c * 100 + (h[a] > 0 && a != family);
      mistakes += c == 2;
    }
  return sum;
}

/// Whether choice c means the same as another, or nothing, with these settings and the choices before it.
inline bool is_idle(const settings& s, const hypothesis& h, std::size_t a, std::size_t c)
{
  const bool uncorrected = h[correction] == none || h[correction] == only_first, is_sgd = h[family] == sgd;
  switch (a) {
  case eps_place:
    if (h[second] == corrected_maximum && (c == beside_uncorrected || c == inside_uncorrected))
      return true;
    return s.eps == 0 && c > 0;
  case root: return s.eps == 0 && c > 0;
  case correction:
    return h[family] == adam && uncorrected &&
           (h[second] == corrected_maximum || h[eps_place] == beside_uncorrected || h[eps_place] == inside_uncorrected);
  case momentum: return is_sgd && (s.momentum == 0 ? c != no_momentum : c == dampened && s.dampening == 0);
  case buffer: return s.momentum == 0 && c > 0;
  case nesterov: return h[momentum] == no_momentum && c > 0;
  case decay:
    if (s.weight_decay == 0)
      return c != no_decay;
    return is_sgd ? c == first_only || c == in_ratio || (c == stable && s.momentum == 0) : c == stable;
  case rate: return h[decay] == base_lr && c == ignored;
  case groups: return c > 0 && (s.weight_decay == 0 || h[decay] == no_decay);
  case betas: return c > 0 && s.beta1 == s.beta2;
  default: return false;
  }
}

/// Calls f for each hypothesis of up to two mistakes and four choices that are not the textbook's.
template <class F>
void for_each(const settings& s, F&& f)
{
  hypothesis h{};
  const auto recurse = [&](const auto& self, std::size_t a, int mistakes, int conventions) -> void {
    if (mistakes > 2 || mistakes + conventions > 4)
      return;
    if (a == axis_count)
      return f(h);
    const bool applies = has_axis(h, a);
    const bool nothing_to_ignore = (a == decay && s.weight_decay == 0) || (a == momentum && s.momentum == 0);
    for (std::size_t c = 0; c < (applies ? axes()[a].choices.size() : 1); ++c) {
      h[a] = static_cast<unsigned char>(c);
      if (is_idle(s, h, a, c))
        continue;
      const int cost = applies && !nothing_to_ignore ? axes()[a].choices[c].cost : 0;
      self(self, a + 1, mistakes + (cost == 2), conventions + (cost == 1));
    }
    h[a] = 0;
  };
  recurse(recurse, 0, 0, 0);
}

inline std::string name_of(const hypothesis& h, const settings& s)
{
  if (h[family] != adam)
    return axes()[family].choices[h[family]].text;
  const bool shrinks = h[decay] >= decoupled && h[decay] <= proximal && s.weight_decay > 0;
  return std::string(h[second] == plain ? "Adam" : "AMSGrad") + (shrinks ? "W" : "");
}

}  // namespace detail

/// Says what observations follow.
inline verdict judge(const settings& s, const observations& seen)
{
  verdict v;
  std::string fault = fault_of(s, seen.of);
  const std::size_t elements = std::accumulate(seen.of.sizes.begin(), seen.of.sizes.end(), std::size_t(0));
  for (const auto& [t, parameters] : seen.at)
    if (fault.empty() && (t < 1 || t > seen.of.steps || parameters.size() != elements))
      fault = "Step " + std::to_string(t) + " was observed with " + std::to_string(parameters.size()) +
              " parameters; expected steps 1 to " + std::to_string(seen.of.steps) + " and " + std::to_string(elements) +
              " parameters.";
  if (fault.empty() && seen.at.empty())
    fault = "No step was observed.";
  if (!fault.empty()) {
    v.text = fault + "\n";
    return v;
  }
  for (const auto& [t, parameters] : seen.at)
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (!std::isfinite(parameters[i])) {
        v.text = "The parameters are not finite after step " + std::to_string(t) + ".";
        if (t == seen.at.begin()->first)
          v.text += " A bias correction whose count starts from 0 divides by 1 - beta^0 = 0.";
        std::size_t k = 0, first = 0;  // of the tensor that has it
        for (; i >= first + seen.of.sizes[k]; ++k)
          first += seen.of.sizes[k];
        v.parts = {t, k, i - first, 0, parameters[i]};
        v.mistakes = 1;
        v.text += "\n";
        return v;
      }

  const std::vector<drawn> data = draw(seen.of);
  std::vector<hypothesis> followers;
  for (const bool single : {false, true}) {
    if (!followers.empty() || (seen.single && !single))
      continue;
    v.single = single;
    v.parts = {};
    int best_cost = 0;
    bool any = false;
    detail::for_each(s, [&](const hypothesis& h) {
      int mistakes;
      const int cost = detail::cost(h, mistakes) + (bool(h[nesterov]) != s.nesterov && h[family] == sgd ? 200 : 0);
      const parting at = follow(h, s, seen, data, single);
      if (at.step == 0)
        followers.push_back(h);
      const auto place = [](const parting& x) {
        return std::tuple(x.step == 0, x.step, x.tensor, x.element);  // the later, the nearer
      };
      if (!any || place(at) > place(v.parts) || (place(at) == place(v.parts) && cost < best_cost)) {
        any = true;
        best_cost = cost;
        v.best = h;
        v.parts = at;
        v.mistakes = mistakes;
      }
    });
  }
  v.follows = v.parts.step == 0;
  const bool unasked = v.best[family] == sgd && bool(v.best[nesterov]) != s.nesterov && v.best[momentum] != no_momentum;
  const bool without_decay = s.weight_decay == 0;
  v.mistakes += unasked;
  v.mistakes -= without_decay;  // none that it ignores
  v.mistakes -= v.best[family] == sgd && s.momentum == 0;

  // What else fits: hypotheses that differ in one choice.
  for (std::size_t a = 0; v.follows && a < axis_count; ++a)
    for (const hypothesis& h : followers) {
      std::size_t differences = 0;
      for (std::size_t b = 0; b < axis_count; ++b)
        differences += h[b] != v.best[b];
      if (differences == 1 && h[a] != v.best[a])
        v.undecided.push_back(std::string(axes()[a].name) + ": or " + axes()[a].choices[h[a]].text);
    }

  const std::string steps = std::to_string(seen.of.steps), name = detail::name_of(v.best, s);
  if (v.follows)
    v.text = "Follows " + name + " over all " + steps + " steps, to rounding of " + (v.single ? "float" : "double") +
             (v.single && !seen.single ? ", although its numbers are double" : "") + ".\n";
  else
    v.text = "Follows no convention that the suite knows. The nearest is " + name + ", from which it parts at step " +
             std::to_string(v.parts.step) + ", in tensor " + std::to_string(v.parts.tensor) + ", element " +
             std::to_string(v.parts.element) + ": " + detail::show(v.parts.expected) + " was expected, " +
             detail::show(v.parts.came) + " came.\n";
  // What the nearest has in common with it is worth telling if it was followed for some steps.
  for (std::size_t a = 1; (v.follows || v.parts.step > 3) && a < axis_count; ++a) {
    if (!has_axis(v.best, a))
      continue;
    const choice& c = axes()[a].choices[v.best[a]];
    if ((without_decay && (a == decay || a == groups)) || (s.eps == 0 && (a == eps_place || a == root)))
      continue;
    const bool standard = c.cost == 0 && (a >= rate || (a == second && v.best[a] == plain));  // not worth a line
    if (standard || (a == momentum && v.best[family] == sgd && s.momentum == 0) ||
        (a == nesterov && v.best[momentum] == no_momentum))
      continue;
    v.text += std::string(c.cost == 2 ? "! " : "  ") + axes()[a].name + ": " + c.text + "\n";
  }
  if (unasked)
    v.text += std::string("! Nesterov: ") + (s.nesterov ? "asked for, and ignored\n" : "not asked for\n");
  if (s.eps == 0 && v.follows && v.best[family] != sgd)
    v.text += "  eps: not tested, because eps is 0\n";
  if (without_decay && v.follows)
    v.text += "  weight decay: not tested, because weight_decay is 0\n";
  for (const std::string& u : v.undecided)
    v.text += "  cannot be told apart: " + u + "\n";
  return v;
}

/// Trains the suite's problem with an implementation in T, and says what it follows.
/// \param step  step(std::vector<tensor<T>>&, int t, double lr)
template <class T, class Step>
verdict examine(const settings& s, Step&& step)
{
  return judge(s, observe<T>(s, problem_for(s), step));
}

}  // namespace conformance
