#pragma once
/// \file
/// Step-size rules: the weights move by u = a(v)·d, where d is the direction and v the second moment.
///
/// A rule's `prepare<T>(step_scalars)` returns a(v) as a function object, whose `displacement`, if it has one, takes the
/// place of a(v)·d. Rules with `sums_over` need sums first (sums.hpp). Four of the five rules share one expression,
/// a = clip(A/(√v + ε′), lo, hi), whose coefficients are computed in double once a step. The place of eps is part of
/// the rule: PyTorch's Adam corrects v before it adds eps; RAdam, AdaBound and Padam add eps to the uncorrected √v.

#include <array>
#include <cmath>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/kernel/pow.hpp>
#include <gradus/rules/step_scalars.hpp>
#include <gradus/rules/sums.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Step-size rules: a(v) in u = a(v)·d.
namespace step_size {

/// ε′ for a numerator A: eps, raised where A/eps would be infinite in T, because a zero gradient with v = 0 would then
/// give ∞·0 = NaN. An eps of 0 becomes a number below the root of any v > 0.
template <class T>
GRADUS_HOST_DEVICE T eps_for(double numerator, double eps) noexcept
{
  constexpr T below_all_roots = T(sizeof(T) == 4 ? 0x1p-75 : 0x1p-538), finest = 8 / (std::numeric_limits<T>::max)();
  return max<>(max<>(below_all_roots, T(numerator) * finest), T(eps));
}

/// A/(√v + ε′).
template <class T>
struct ratio {
  T numerator,  ///< A
      eps;      ///< ε′
  /// The value at v.
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V v) const noexcept
  {
    return V(numerator) / (sqrt(v) + V(eps));
  }
};
/// The ratio with its coefficients rounded to T.
template <class T>
GRADUS_HOST_DEVICE ratio<T> ratio_of(double numerator, double eps) noexcept
{
  return {T(numerator), eps_for<T>(numerator, eps)};
}

/// A/(√v + ε′) clipped to [lo, hi]. The limits are the first arguments of min and max, so that a NaN passes through.
template <class T>
struct clipped_ratio {
  ratio<T> inner;  ///< A/(√v + ε′)
  T lo,            ///< the lower limit
      hi;          ///< the upper limit
  /// The value at v.
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V v) const noexcept
  {
    return min<>(V(hi), max<>(V(lo), inner(v)));
  }
};

/// u = α·d, without bias correction. SGD (Robbins and Monro 1951).
struct constant {
  static constexpr std::string_view kind = "constant";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = false;    ///< goes with any second moment, also none

  /// a(v) = α.
  template <class T>
  struct formula {
    T lr;  ///< α
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V) const noexcept
    {
      return V(lr);
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {T(k.lr)};
  }
};

/// u = d, for first moments whose direction contains the learning rate.
struct one {
  static constexpr std::string_view kind = "one";     ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = false;  ///< goes with any second moment, also none
  static constexpr bool leaves_direction = true;      ///< for directions that contain the learning rate

  /// a(v) = 1.
  struct formula {
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V) const noexcept
    {
      return V(1);
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// u = α/bc1 · d/(√v/√bc2 + eps). Adam (Kingma and Ba 2015), with PyTorch's place of eps.
struct adaptive {
  double eps = 1e-8;  ///< ≥ 0; added to the corrected root √(v/bc2)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&adaptive::eps));
  static constexpr std::string_view kind = "adaptive";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;     ///< needs a second moment

  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE ratio<T> prepare(const step_scalars& k) const noexcept
  {
    const double root = std::sqrt(k.bc2);
    return ratio_of<T>(k.lr * root / k.bc1, eps * root);
  }
};

/// `adaptive` with α/(1 + (t−1)·lr_decay) for α. Adagrad (Duchi, Hazan and Singer 2011) in PyTorch's form.
struct decaying {
  double eps = 1e-10;   ///< ≥ 0; added to the corrected root √(v/bc2)
  double lr_decay = 0;  ///< ≥ 0; how fast α falls, also for the decay of the weights

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&decaying::eps), hyper::lr_decay(&decaying::lr_decay));
  static constexpr std::string_view kind = "decaying";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;     ///< needs a second moment
  /// 1/(1 + (t−1)·lr_decay).
  GRADUS_HOST_DEVICE double lr_factor(double t) const noexcept { return 1 / fused(t - 1, lr_decay, 1.0); }

  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE ratio<T> prepare(const step_scalars& k) const noexcept
  {
    return adaptive{eps}.prepare<T>(k);
  }
};

/// u = α/bc1 · d/(√(v/bc2 + eps/(1−β₂)) + eps). AdaBelief (Zhuang et al. 2020) adds eps to v in each step; this is the
/// same, but v stays 0 where gradients are 0.
struct adaptive_above {
  double eps = 1e-16;  ///< ≥ 0; added to the average and to its root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&adaptive_above::eps));
  static constexpr std::string_view kind = "adaptive_above";  ///< the rule's name in checkpoints
  /// Needs a second moment.
  static constexpr bool reads_second_moment = true, reads_beta = true;  ///< needs the second moment's `beta()`

  /// a(v).
  template <class T>
  struct formula {
    ratio<T> inner;  ///< A/(√v + ε′)
    T least;         ///< added to v
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      return inner(v + V(least));
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {adaptive{eps}.prepare<T>(k), T(eps * k.bc2 / (1 - k.beta2))};
  }
};

/// u = α/bc1 · d/(√(v/bc2 + eps_root) + eps), or without bias_correction u = α·d/(√(v + eps_root) + eps): every place that
/// libraries have for eps but `partially_adaptive`'s, beside the uncorrected root. optax's Adam; Keras's RMSprop.
struct adaptive_eps_root {
  double eps = 1e-8;            ///< ≥ 0; added to the root
  double eps_root = 0;          ///< ≥ 0; added inside the root
  bool bias_correction = true;  ///< whether d and v are divided by bc1 and bc2

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&adaptive_eps_root::eps),
                                                field{"eps_root", &adaptive_eps_root::eps_root, range::at_least_zero},
                                                field{"bias_correction", &adaptive_eps_root::bias_correction,
                                                      range::yes_or_no});
  static constexpr std::string_view kind = "adaptive_eps_root";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;              ///< needs a second moment

  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE adaptive_above::formula<T> prepare(step_scalars k) const noexcept
  {
    if (!bias_correction)
      k.bc1 = k.bc2 = 1;
    return {adaptive{eps}.prepare<T>(k), T(eps_root * k.bc2)};
  }
};

/// u = α/bc1 · d/v, for a v that is a norm. Adamax (Kingma and Ba 2015).
struct by_norm {
  static constexpr std::string_view kind = "by_norm";  ///< the rule's name in checkpoints
  /// Needs a second moment.
  static constexpr bool reads_second_moment = true, reads_norm = true;  ///< takes no root of it

  /// a(v).
  template <class T>
  struct formula {
    T numerator,  ///< α/bc1
        least;    ///< the least divisor, for v = 0
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      return V(numerator) / max<>(V(least), v);
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const double numerator = k.lr / k.bc1;
    return {T(numerator), eps_for<T>(numerator, 0)};
  }
};

/// u = clip(α√bc2/bc1/(√v + eps), F(1−1/(γt+1)), F(1+1/(γt)))·d with F = final_lr·α/lr, or 0 if α is 0. The bounds
/// follow the schedule, as in the authors' code. AdaBound (Luo et al. 2019).
struct bounded {
  double eps = 1e-8;      ///< ≥ 0; added to the uncorrected root √v
  double final_lr = 0.1;  ///< ≥ 0; both bounds tend to final_lr·lr_scale
  double gamma = 1e-3;    ///< γ in (0, 1): how fast the bounds close

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&bounded::eps), hyper::final_lr(&bounded::final_lr),
                                                hyper::gamma(&bounded::gamma));
  static constexpr std::string_view kind = "bounded";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;    ///< needs a second moment

  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE clipped_ratio<T> prepare(const step_scalars& k) const noexcept
  {
    const double final_step = k.lr == 0 ? 0 : final_lr * k.lr_scale;
    return {ratio_of<T>(k.lr * std::sqrt(k.bc2) / k.bc1, eps), T(final_step * (1 - 1 / fused(gamma, k.t, 1.0))),
            T(final_step * (1 + 1 / (gamma * k.t)))};
  }
};

/// u = α√bc2/bc1 · d/(√v + eps)^(2·partial). Padam (Chen et al. 2020).
struct partially_adaptive {
  double eps = 1e-8;      ///< ≥ 0; added to the uncorrected root √v
  double partial = 0.25;  ///< p in [0, 0.5]; the default is the authors' class's

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&partially_adaptive::eps),
                                                hyper::partial(&partially_adaptive::partial));
  static constexpr std::string_view kind = "partially_adaptive";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;               ///< needs a second moment

  /// a(v). An exponent 2⁻ᵏ takes k square roots, each correctly rounded; any other exponent takes pow.
  template <class T>
  struct formula {
    T numerator,   ///< α√bc2/bc1
        eps,       ///< ε′
        exponent;  ///< 2·partial
    int roots;     ///< the number of square roots, or −1 for pow
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      V x = sqrt(v) + V(eps);
      if (roots < 0)
        return V(numerator) * pow(x, V(-exponent));
      for (int i = 0; i < roots; ++i)
        x = sqrt(x);
      return V(numerator) / x;
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    int roots;
    const bool power_of_two = std::frexp(2 * partial, &roots) == 0.5;
    roots = 1 - roots;
    const double numerator = k.lr * std::sqrt(k.bc2) / k.bc1;
    return {T(numerator), eps_for<T>(numerator, eps), T(2 * partial), power_of_two && roots <= 6 ? roots : -1};
  }
};

/// ρ_t = ρ_∞ − 2tβᵗ/(1−βᵗ) with ρ_∞ = 2/(1−β) − 1: the length of the simple average that approximates the moving
/// average after t steps. In this form ρ_∞ cancels: it is 2e9 for β = 1 − 1e-9. The equal form t + L(y) − t·L(ty),
/// where y = artanh(1/ρ_∞) = −½ log β and L(y) = coth y − 1/y, has no cancellation.
/// \param correction  1 − βᵗ
GRADUS_HOST_DEVICE inline double average_length(double beta, double t, double correction) noexcept
{
  const double z = (1 - beta) / (1 + beta);
  if (!(z < 0.2 && t * z < 1))
    return 1 / z - 2 * t * (1 - correction) / correction;
  // artanh z = z + z³/3 + z⁵/5 + …; L(y) = y/(3 + y²/(5 + y²/(7 + …))).
  double series = 1.0 / 25;
  for (int k = 23; k > 0; k -= 2)
    series = fused(z * z, series, 1.0 / k);
  const double y = z * series;
  const auto langevin = [](double x) {
    double below = 21;
    for (int k = 19; k > 1; k -= 2)
      below = k + x * x / below;
    return x / below;
  };
  return t - fused(t, langevin(t * y), -langevin(y));
}

/// u = α/bc1 · d · r√bc2/(√v + eps) once the variance of 1/√v is tractable (ρ_t > 5, PyTorch's threshold), and before
/// that u = α/bc1 · d. RAdam (Liu et al. 2020).
struct rectified {
  double eps = 1e-8;  ///< ≥ 0; added to the uncorrected root √v

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&rectified::eps));
  static constexpr std::string_view kind = "rectified";  ///< the rule's name in checkpoints
  /// Needs a second moment.
  static constexpr bool reads_second_moment = true, reads_beta = true;  ///< needs the second moment's `beta()`

  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE clipped_ratio<T> prepare(const step_scalars& k) const noexcept
  {
    const double lr = k.lr / k.bc1;
    const double rho_inf = (1 + k.beta2) / (1 - k.beta2), rho = average_length(k.beta2, k.t, k.bc2);
    if (!(rho > 5))
      return {{T(lr), T(1)}, T(lr), T(lr)};
    const double r = std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
    return {ratio_of<T>(lr * r * std::sqrt(k.bc2), eps), T(0), detail::no_limit<T>()};
  }
};

/// `adaptive`, and θ ← θ − ρ(u + sθ), where ρ = ‖θ‖/‖(u + sθ)/α‖ of each tensor, or 1 if either norm is 0; u is the
/// step and s = αλ of the decay. Without decay ρ is 1, unless `always_adapt`. LAMB (You et al. 2020), in timm's form.
struct trust_ratio {
  double eps = 1e-6;          ///< ≥ 0; added to the corrected root √(v/bc2)
  bool always_adapt = false;  ///< whether ρ acts also on tensors without decay, as biases usually are

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&trust_ratio::eps),
                                                field{"always_adapt", &trust_ratio::always_adapt, range::yes_or_no});
  static constexpr std::string_view kind = "trust_ratio";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;        ///< needs a second moment
  static constexpr scope sums_over = scope::tensor;        ///< a ratio for each tensor
  /// ‖θ‖² and ‖u + sθ‖².
  static constexpr std::array terms{summed::squares, summed::squares};

  /// a(v), and the terms.
  template <class T>
  struct formula : ratio<T> {
    T decay_rate;  ///< s
    /// The terms of an element.
    template <class V>
    GRADUS_HOST_DEVICE void term(V* to, V theta, V, V d, V v) const noexcept
    {
      to[0] = theta;
      to[1] = fma((*this)(v), d, V(decay_rate) * theta);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {adaptive{eps}.prepare<T>(k), T(k.decay_rate)};
  }
  /// ρ, for step and decay. \param sums  of the terms
  GRADUS_HOST_DEVICE step_factors finish(const double* sums, double, const step_scalars& k) const noexcept
  {
    const double rho = k.lr * std::sqrt(sums[0]) / std::sqrt(sums[1]);
    const bool acts = (always_adapt || k.decay_rate != 0) && sums[0] > 0 && sums[1] > 0 && is_finite(rho);
    return acts ? step_factors{rho, rho} : step_factors{};
  }
};

/// `adaptive`, with α/max(1, r) for α, where r is the root of the mean of g²/max(v̂, eps²) over each tensor, so that a
/// sudden large gradient makes a small step; also for the decay. StableAdamW (Wortsman et al. 2023).
struct rms_clipped {
  double eps = 1e-8;  ///< ≥ 0; added to the corrected root √(v/bc2), and its least value in r

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&rms_clipped::eps));
  static constexpr std::string_view kind = "rms_clipped";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;        ///< needs a second moment
  static constexpr scope sums_over = scope::tensor;        ///< a factor for each tensor
  static constexpr std::array terms{summed::squares};      ///< Σ g²/max(v̂, eps²)

  /// a(v), and the term.
  template <class T>
  struct formula : ratio<T> {
    T root,     ///< √bc2
        least;  ///< the least root of v
    /// The term of an element.
    template <class V>
    GRADUS_HOST_DEVICE void term(V* to, V, V g, V, V v) const noexcept
    {
      to[0] = V(root) * g / max<>(V(least), sqrt(v));
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const double root = std::sqrt(k.bc2);
    return {adaptive{eps}.prepare<T>(k), T(root), eps_for<T>(1, eps * root)};
  }
  /// 1/max(1, r), for step and decay. \param sums  of the term  \param n  the number of elements
  GRADUS_HOST_DEVICE step_factors finish(const double* sums, double n, const step_scalars&) const noexcept
  {
    const double r = std::sqrt(sums[0] / n), factor = r > 1 ? 1 / r : 1;
    return {factor, factor};
  }
};

/// `adaptive` for the elements whose direction agrees with the gradient, d·g > 0, and no step for the others; the step is
/// divided by the share of these elements in the tensor, which counts as at least 1/1000. The decay stays as it is.
/// Cautious optimizers (Liang et al. 2024), in timm's form.
struct cautious {
  double eps = 1e-8;  ///< ≥ 0; added to the corrected root √(v/bc2)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&cautious::eps));
  static constexpr std::string_view kind = "cautious";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;     ///< needs a second moment
  static constexpr scope sums_over = scope::tensor;     ///< a share for each tensor
  static constexpr std::array terms{summed::values};    ///< the number of elements that agree

  /// a(v), and what becomes of a(v)·d.
  template <class T>
  struct formula : ratio<T> {
    /// u of an element; NaN if d is.
    template <class V>
    GRADUS_HOST_DEVICE V displacement(V v, V d, V g, V) const noexcept
    {
      return product((*this)(v), d * agree(d, g));
    }
    /// The term of an element.
    template <class V>
    GRADUS_HOST_DEVICE void term(V* to, V, V g, V d, V) const noexcept
    {
      to[0] = agree(d, g);
    }

   private:
    /// 1 if d·g > 0, otherwise 0. A product with a sign does not underflow.
    template <class V>
    GRADUS_HOST_DEVICE static V agree(V d, V g) noexcept
    {
      return select(sign(d) * g > V(0), V(1), V(0));
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {adaptive{eps}.prepare<T>(k)};
  }
  /// 1/share, for the step. \param sums  of the term  \param n  the number of elements
  GRADUS_HOST_DEVICE step_factors finish(const double* sums, double n, const step_scalars&) const noexcept
  {
    const double share = sums[0] / n;
    return {1 / (share > 1e-3 ? share : 1e-3), 1};
  }
};

}  // namespace step_size
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
