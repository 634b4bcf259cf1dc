#pragma once
/// \file
/// First-moment rules: how the gradient g becomes the direction d that a step follows.
///
/// A rule has hyperparameters (`fields`), slots, and `prepare<T>(step_scalars)`, which returns the formula with this
/// step's coefficients: `update(slots, g)` updates the slots with one gradient, then `direction(slots, g)` returns d.
/// `correction(t)` is the bias correction of d in step t: 1 − β₁ᵗ for an average that starts from 0. `gain()` is the
/// value that d approaches while every gradient is 1; decay::stable needs it. `initial_value(k)` is the start value of
/// slot k, 0 if the rule has no such member.
///
/// Three flags change the order of a step. With `updates_last`, `direction` is computed from the slots before `update`.
/// With `reads_old_v`, `update` takes the v of the step before as a third argument. With `reads_new_v`, the second
/// moment comes first, and `update` and `direction` take the new v as a third argument; with `reads_parameters` as well,
/// they take θ as a fourth. With `contains_lr`, d contains the learning rate, and step_size::one takes it as it is. If the formula has `gradient_of_v(slots, g)`, the second moment comes first and gets its result in place of g.

#include <array>
#include <cmath>
#include <limits>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>
#include <gradus/rules/step_size.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// First-moment rules: g → d.
namespace first_moment {

/// d = g. No hyperparameters, no state.
struct none {
  static constexpr std::string_view kind = "none";  ///< the rule's name in checkpoints
  static constexpr std::array<slot, 0> slots{};     ///< no state
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula.
  struct formula {
    /// Nothing to update.
    template <class V>
    GRADUS_HOST_DEVICE void update(V*, V) const noexcept
    {}
    /// d = g.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V*, V g) const noexcept
    {
      return g;
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// b ← μb + (1−dampening)g, and b = g in the first step; d = b, or g + μb with nesterov. As PyTorch's SGD. Polyak 1964;
/// nesterov as in Sutskever et al. 2013.
struct momentum {
  double momentum = 0.9;  ///< μ in [0, 1)
  double dampening = 0;   ///< in [0, 1]
  bool nesterov = false;  ///< needs momentum > 0 and dampening = 0

  static constexpr std::string_view kind = "momentum";                         ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"momentum_buffer", slot::any_sign}};  ///< b, from 0
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::momentum(&momentum::momentum),
                                                hyper::dampening(&momentum::dampening),
                                                hyper::nesterov(&momentum::nesterov));
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  /// The value that b approaches while every gradient is 1.
  GRADUS_HOST_DEVICE double gain() const noexcept { return (1 - dampening) / (1 - momentum); }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T momentum,     ///< μ
        kept,       ///< factor on the old b
        gradient;   ///< factor on g
    bool nesterov;  ///< whether d = g + μb
    /// Updates b.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g) const noexcept
    {
      b[0] = fma(V(gradient), g, V(kept) * b[0]);
    }
    /// d, from the new b.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V g) const noexcept
    {
      return nesterov ? fma(V(momentum), b[0], g) : b[0];
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const bool first = k.t == 1;
    // With μ = 0 there is no dampening, as in idle_form, also where a rule over this one keeps the buffer.
    return {T(momentum), T(first ? 0 : momentum), T(first || momentum == 0 ? 1 : 1 - dampening), nesterov};
  }

  /// The rule that runs instead, without a slot, when `idle()`: with μ = 0 dampening has no effect, as in PyTorch.
  using idle_form = first_moment::none;
  /// Whether μ is 0.
  GRADUS_HOST_DEVICE bool idle() const noexcept { return momentum == 0; }

  /// Refuses nesterov without momentum or with dampening.
  void validate() const
  {
    if (nesterov && !(momentum > 0 && dampening == 0))
      detail::fail("nesterov is 1 with momentum " + detail::show(momentum) + " and dampening " +
                   detail::show(dampening) +
                   "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false");
  }
};

/// b ← μb + αg; d = b, or αg + μb with nesterov, so that a drop of the learning rate acts slowly, through the gradients
/// to come. d contains α: goes with step_size::one. Sutskever et al. 2013; SGD of Keras, dlib and ensmallen.
struct velocity {
  double momentum = 0.9;  ///< μ in [0, 1)
  bool nesterov = false;  ///< needs momentum > 0

  static constexpr std::string_view kind = "velocity";                  ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"velocity", slot::any_sign}};  ///< b, from 0
  static constexpr bool contains_lr = true;                             ///< d contains α
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::momentum(&velocity::momentum),
                                                hyper::nesterov(&velocity::nesterov));
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T momentum,     ///< μ
        lr;         ///< α
    bool nesterov;  ///< whether d = αg + μb
    /// Updates b.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g) const noexcept
    {
      b[0] = fma(V(lr), g, V(momentum) * b[0]);
    }
    /// d, from the new b.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V g) const noexcept
    {
      return nesterov ? fma(V(momentum), b[0], V(lr) * g) : b[0];
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {T(momentum), T(k.lr), nesterov};
  }

  /// Refuses nesterov without momentum.
  void validate() const
  {
    if (nesterov && !(momentum > 0))
      detail::fail("nesterov is 1 with momentum " + detail::show(momentum) +
                   "; expected momentum > 0: set it so, or nesterov = false");
  }
};

/// m ← β₁m + (1−β₁)g; d = m, without the bias correction. Adam (Kingma and Ba 2015).
struct ema {
  double beta1 = 0.9;              ///< β₁ in [0, 1)
  double initial_accumulator = 0;  ///< m₀ ≥ 0; only Yogi starts from another value than 0

  static constexpr std::string_view kind = "ema";                      ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};  ///< m, from initial_accumulator
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&ema::beta1),
                                                hyper::initial_accumulator(&ema::initial_accumulator));
  /// 1 − β₁ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta1, t); }
  /// m₀.
  double initial_value(std::size_t) const noexcept { return initial_accumulator; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T beta1,              ///< β₁
        one_minus_beta1;  ///< 1 − β₁
    /// Updates m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      m[0] = fma(V(one_minus_beta1), g, V(beta1) * m[0]);
    }
    /// d = m.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return m[0];
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(beta1), T(1 - beta1)};  // 1 − β in double: in float, 1 − 0.999f is off by 1.3e-5
  }
};

/// d = sign(β₁m + (1−β₁)g), and then m ← β₂m + (1−β₂)g. Lion (Chen et al. 2023).
struct sign_of_ema {
  double beta1 = 0.9;   ///< β₁ in [0, 1): the weight of m in d
  double beta2 = 0.99;  ///< β₂ in [0, 1): decay rate of m

  static constexpr std::string_view kind = "sign_of_ema";              ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};  ///< m, from 0
  static constexpr bool updates_last = true;                           ///< d is computed from the old m
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&sign_of_ema::beta1), hyper::beta2(&sign_of_ema::beta2));
  /// No bias correction, because d is a sign.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> ahead,  ///< with β₁
        average;            ///< with β₂
    /// Updates m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      average.update(m, g);
    }
    /// d, from the old m.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V g) const noexcept
    {
      V next = m[0];
      ahead.update(&next, g);
      return sign(next);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta1}.prepare<T>(k), ema{beta2}.prepare<T>(k)};
  }
};

/// m ← β₁m + (1−β₁)g; d = (1−μ_t)/(1−P)·g + μ_{t+1}/(1−P·μ_{t+1})·m, where μ_t = β₁(1 − 0.96^(t·momentum_decay)/2) and
/// P is the product of μ_1 … μ_t. NAdam (Dozat 2016) in PyTorch's form.
struct nesterov_ema {
  double beta1 = 0.9;            ///< β₁ in [0, 1)
  double momentum_decay = 4e-3;  ///< ≥ 0: how fast μ rises from β₁/2 to β₁

  static constexpr std::string_view kind = "nesterov_ema";             ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};  ///< m, from 0
  static constexpr std::array scalars{scalar{"mu_product", 1}};        ///< P
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&nesterov_ema::beta1),
                                                hyper::momentum_decay(&nesterov_ema::momentum_decay));
  /// 1, because d contains the bias corrections.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  /// μ of step t.
  GRADUS_HOST_DEVICE double momentum(double t) const noexcept
  {
    return product(beta1, fused(-0.5, std::pow(0.96, t * momentum_decay), 1.0));
  }
  /// P, from the P of the step before.
  GRADUS_HOST_DEVICE void advance(double* state, const step_scalars& k) const noexcept
  {
    state[0] = product(state[0], momentum(k.t));
  }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< with β₁
    T gradient,               ///< the weight of g
        mean;                 ///< the weight of m
    /// Updates m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      average.update(m, g);
    }
    /// d, from the new m.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V g) const noexcept
    {
      return fma(V(gradient), g, V(mean) * m[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const double all = k.state[0], next = momentum(k.t + 1);
    return {ema{beta1}.prepare<T>(k), T((1 - momentum(k.t)) / (1 - all)), T(next / fused(-all, next, 1.0))};
  }
};

/// m ← β₁m + (1−β₁)g and n ← β₃n + (1−β₃)g; d = m/(1−β₁ᵗ) + αn. While t < t_alpha_beta3, α rises linearly from 0, and
/// β₃ from β₁ so that the half-life of n grows linearly. AdEMAMix (Pagliardini, Ablin and Grangier 2025).
struct two_emas {
  double beta1 = 0.9;        ///< β₁ in [0, 1): decay rate of the fast average m
  double beta3 = 0.9999;     ///< β₃ in [0, 1): decay rate of the slow average n
  double alpha = 5;          ///< ≥ 0: the weight of n
  double t_alpha_beta3 = 0;  ///< ≥ 0: the steps of the warm-up of α and β₃; 0 for none

  static constexpr std::string_view kind = "two_emas";  ///< the rule's name in checkpoints
  /// m and n, both from 0.
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}, slot{"exp_avg_slow", slot::any_sign}};
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&two_emas::beta1), hyper::beta3(&two_emas::beta3),
                                                field{"alpha", &two_emas::alpha, range::at_least_zero},
                                                hyper::t_alpha_beta3(&two_emas::t_alpha_beta3));
  /// 1, because d contains the bias correction of m.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> fast,  ///< with β₁
        slow;              ///< with this step's β₃
    T fast_weight,         ///< 1/(1−β₁ᵗ)
        slow_weight;       ///< this step's α
    /// Updates m and n.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      fast.update(m, g);
      slow.update(m + 1, g);
    }
    /// d, from the new m and n.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return fma(V(slow_weight), m[1], V(fast_weight) * m[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const bool warms_up = k.t < t_alpha_beta3;
    const double part = warms_up ? k.t / t_alpha_beta3 : 1;
    double beta = beta3;
    if (warms_up) {  // 1/log β, the time in which the average decays, moves linearly; exact for β = 0 too
      const double warm = std::exp(1 / ((1 - part) / std::log(beta1) + part / std::log(beta3)));
      beta = warm < beta3 ? warm : beta3;
    }
    return {ema{beta1}.prepare<T>(k), ema{beta}.prepare<T>(k), T(1 / one_minus_power(beta1, k.t)), T(part * alpha)};
  }
};

/// m ← β₁m + (1−β₁)g and n ← β₂n + (1−β₂)(g − p), where p is the gradient of the step before; d = m/(1−β₁ᵗ) +
/// β₂n/(1−β₂ᵗ). The second moment averages (g + β₂(g − p))². In the first step g − p is 0. Adan (Xie et al. 2024).
struct ema_and_difference {
  double beta1 = 0.98;  ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.92;  ///< β₂ in [0, 1): decay rate of the average n of g − p

  static constexpr std::string_view kind = "ema_and_difference";  ///< the rule's name in checkpoints
  /// m, n and p, all from 0.
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}, slot{"exp_avg_diff", slot::any_sign},
                                    slot{"previous_grad", slot::any_sign}};
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&ema_and_difference::beta1),
                                                hyper::beta2(&ema_and_difference::beta2));
  /// 1, because d contains the bias corrections.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< with β₁
    T beta2,                  ///< β₂
        difference,           ///< the weight of g − p in n, 0 in the first step
        ahead,                ///< the weight of g − p in the gradient that v averages, 0 in the first step
        mean,                 ///< the weight of m in d
        trend;                ///< the weight of n in d
    /// Updates m, n and p.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      average.update(m, g);
      m[1] = fma(V(difference), g - m[2], V(beta2) * m[1]);
      m[2] = g;
    }
    /// d, from the new m and n.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return fma(V(trend), m[1], V(mean) * m[0]);
    }
    /// The gradient that v averages, from the old p.
    template <class V>
    GRADUS_HOST_DEVICE V gradient_of_v(const V* m, V g) const noexcept
    {
      return fma(V(ahead), g - m[2], g);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const bool first = k.t == 1;
    return {ema{beta1}.prepare<T>(k),           T(beta2),
            T(first ? 0 : 1 - beta2),           T(first ? 0 : beta2),
            T(1 / one_minus_power(beta1, k.t)), T(beta2 / one_minus_power(beta2, k.t))};
  }
};

/// m ← b·m + (1−b)g and w ← b·w + (1−b) with a β₁ of each element's own, b = 1 − β₀·v̂/v̄ in [0, 1 − eps]; d = m/w. v̂
/// is the bias-corrected v of this step, and v̄ its mean over the whole model. Adai (Xie et al. 2022), whose code keeps
/// 1 − w.
struct adaptive_inertia {
  double beta0 = 0.1;  ///< β₀ ≥ 0: how much less inertia an element has where v̂ is large
  double eps = 1e-3;   ///< in (0, 1): the inertia is at most 1 − eps

  static constexpr std::string_view kind = "adaptive_inertia";  ///< the rule's name in checkpoints
  /// m and w, both from 0.
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}, slot{"exp_avg_weight", slot::nonnegative}};
  /// Needs a second moment, and its mean.
  static constexpr bool reads_new_v = true, reads_mean_square = true;
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta0(&adaptive_inertia::beta0),
                                                field{"eps", &adaptive_inertia::eps, range::above_zero_below_one});
  /// 1, because d is divided by w.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T slope,    ///< β₀/(bc2·v̄)
        most,   ///< the largest inertia
        least;  ///< the least divisor, for an inertia that rounds to 1
    /// Updates m and w.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g, V v) const noexcept
    {
      const V b = min<>(V(most), max<>(V(0), fma(V(-slope), v, V(1)))), rest = V(1) - b;
      m[0] = fma(rest, g, b * m[0]);
      m[1] = fma(b, m[1], rest);
    }
    /// d, from the new m and w.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V, V) const noexcept
    {
      return m[0] / max<>(V(least), m[1]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    // While all gradients are 0, so is v, and any slope gives the same. An infinite one gives NaN where v is 0.
    constexpr T steepest = (std::numeric_limits<T>::max)();
    const double mean = k.bc2 * k.mean_square, slope = mean > 0 ? beta0 / mean : 0;
    return {slope < double(steepest) ? T(slope) : steepest, T(1 - eps), step_size::eps_for<T>(1, 0)};
  }
};

/// d = g/(√v + eps), with the v of this step. No state.
struct normalized {
  double eps = 1e-8;  ///< ≥ 0; added to the uncorrected root √v

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&normalized::eps));
  static constexpr std::string_view kind = "normalized";  ///< the rule's name in checkpoints
  static constexpr std::array<slot, 0> slots{};           ///< no state
  static constexpr bool reads_new_v = true;               ///< needs a second moment
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula.
  template <class T>
  struct formula {
    T eps;  ///< ε′
    /// Nothing to update.
    template <class V>
    GRADUS_HOST_DEVICE void update(V*, V, V) const noexcept
    {}
    /// d = g/(√v + eps).
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V*, V g, V v) const noexcept
    {
      return g / (sqrt(v) + V(eps));
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {step_size::eps_for<T>(1, eps)};
  }
};

/// b ← μb + g/(√v + eps) with the v of this step; d = b. PyTorch's RMSprop.
struct normalized_momentum {
  double momentum = 0;  ///< μ in [0, 1); 0 keeps no buffer
  double eps = 1e-8;    ///< ≥ 0; added to the uncorrected root √v

  static constexpr std::string_view kind = "normalized_momentum";              ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"momentum_buffer", slot::any_sign}};  ///< b, from 0
  static constexpr bool reads_new_v = true;                                    ///< needs a second moment
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::momentum(&normalized_momentum::momentum),
                                                hyper::eps(&normalized_momentum::eps));
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    normalized::formula<T> normalize;  ///< g/(√v + eps)
    T momentum;                        ///< μ
    /// Updates b.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g, V v) const noexcept
    {
      b[0] = fma(V(momentum), b[0], normalize.direction(b, g, v));
    }
    /// d = b.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V, V) const noexcept
    {
      return b[0];
    }
    /// The formula of the rule that runs instead when `idle()`.
    GRADUS_HOST_DEVICE normalized::formula<T> idle_form() const noexcept { return normalize; }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {normalized{eps}.prepare<T>(k), T(momentum)};
  }

  /// The rule that runs instead, without a slot, when `idle()`.
  using idle_form = normalized;
  /// Whether μ is 0.
  GRADUS_HOST_DEVICE bool idle() const noexcept { return momentum == 0; }
};

/// b ← μb + αg/√(v + eps) with the v of this step; d = b, or the new term again + μb with nesterov. d contains α: goes
/// with step_size::one. RMSprop of TensorFlow, Keras and optax.
struct normalized_velocity {
  double momentum = 0;    ///< μ in [0, 1)
  double eps = 1e-7;      ///< ≥ 0; added to v inside the root
  bool nesterov = false;  ///< needs momentum > 0

  static constexpr std::string_view kind = "normalized_velocity";       ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"velocity", slot::any_sign}};  ///< b, from 0
  static constexpr bool reads_new_v = true;                             ///< needs a second moment
  static constexpr bool contains_lr = true;                             ///< d contains α
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::momentum(&normalized_velocity::momentum),
                                                hyper::eps(&normalized_velocity::eps),
                                                hyper::nesterov(&normalized_velocity::nesterov));
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    velocity::formula<T> inner;  ///< over g/√(v + eps)
    T eps,                       ///< added to v
        least;                   ///< the least divisor, for v + eps = 0
    /// g/√(v + eps).
    template <class V>
    GRADUS_HOST_DEVICE V normalize(V g, V v) const noexcept
    {
      return g / max<>(V(least), sqrt(v + V(eps)));
    }
    /// Updates b.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g, V v) const noexcept
    {
      inner.update(b, normalize(g, v));
    }
    /// d, from the new b.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V g, V v) const noexcept
    {
      return inner.direction(b, normalize(g, v));
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {velocity{momentum, nesterov}.prepare<T>(k), T(eps), step_size::eps_for<T>(1, 0)};
  }

  /// Refuses nesterov without momentum.
  void validate() const { velocity{momentum, nesterov}.validate(); }
};

/// m ← β₁m + (1−β₁)·clip(g/max(√v, eps), ±(t−1)^clip_exponent) with the v of the step before; d = m. The first step only
/// fills v, and moves and decays no weight. ADOPT (Taniguchi et al. 2024).
struct normalized_ema {
  double beta1 = 0.9;           ///< β₁ in [0, 1)
  double eps = 1e-6;            ///< ≥ 0; the least divisor
  double clip_exponent = 0.25;  ///< ≥ 0; the normalized gradient is clipped to ±(t−1)^clip_exponent

  static constexpr std::string_view kind = "normalized_ema";           ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};  ///< m, from 0
  static constexpr bool reads_old_v = true;                            ///< needs a second moment
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta1(&normalized_ema::beta1), hyper::eps(&normalized_ema::eps),
                                                hyper::clip_exponent(&normalized_ema::clip_exponent));
  /// No bias correction, because the first gradient does not enter m.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  /// 0 in the first step, then 1.
  GRADUS_HOST_DEVICE double lr_factor(double t) const noexcept { return t == 1 ? 0 : 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< with β₁; m is kept in the first step
    T eps,                    ///< ε′
        clip;                 ///< the limit of the normalized gradient
    /// Updates m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g, V v) const noexcept
    {
      const V ratio = g / max<>(V(eps), sqrt(v));
      average.update(m, min<>(V(clip), max<>(V(-clip), ratio)));
    }
    /// d = m.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return m[0];
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    constexpr double most = sizeof(T) == 4 ? 0x1p62 : 0x1p510;  // keeps m finite where v and eps are 0
    const double clip = std::pow(k.t - 1, clip_exponent);
    ema::formula<T> average = ema{beta1}.prepare<T>(k);
    if (k.t == 1)
      average = {T(1), T(0)};
    return {average, step_size::eps_for<T>(1, eps), T(clip < most ? clip : most)};
  }
};

/// d = √(u + eps)/√(v + eps)·g with the v of this step, and then u ← ρu + (1−ρ)d². Adadelta (Zeiler 2012).
struct rms_ratio {
  double rho = 0.9;   ///< ρ in [0, 1): decay rate of the average u of d²
  double eps = 1e-6;  ///< ≥ 0; added to u and v. With 0, no weight ever moves

  static constexpr std::string_view kind = "rms_ratio";                     ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"acc_delta", slot::nonnegative}};  ///< u, from 0
  static constexpr bool updates_last = true;                                ///< d is computed from the old u
  static constexpr bool reads_new_v = true;                                 ///< needs a second moment
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::rho(&rms_ratio::rho), hyper::eps(&rms_ratio::eps));
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T rho,              ///< ρ
        one_minus_rho,  ///< 1 − ρ
        eps,            ///< added to u and v
        least;          ///< the least divisor, for eps = 0
    /// Updates u.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* u, V g, V v) const noexcept
    {
      const V d = direction(u, g, v);
      u[0] = fma(rounded(V(one_minus_rho) * d), d, V(rho) * u[0]);
    }
    /// d, from the old u.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* u, V g, V v) const noexcept
    {
      return product(sqrt(u[0] + V(eps)) / max<>(V(least), sqrt(v + V(eps))), g);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(rho), T(1 - rho), T(eps), step_size::eps_for<T>(1, 0)};
  }
};

/// Follows g/(√v̂ + eps) + λθ without a schedule, by averaging in place of letting α fall. With the weights θ at which
/// gradients are taken, the fast weights z, c = weight/(sum of weights) and u = g/(√v̂ + eps) + λθ:
/// θ ← θ + c(z − θ) − α(1−β₁(1−c))u and z ← z − αu. The slot holds z − θ, which starts from 0. A step weighs
/// t^r·(largest α so far)^weight_lr_power, and α rises linearly in warmup_steps. d contains α. Schedule-Free (Defazio et
/// al. 2024).
struct schedule_free {
  double beta1 = 0.9;          ///< β₁ in (0, 1): how near θ is to the average x: θ = (1−β₁)z + β₁x
  double eps = 1e-8;           ///< ≥ 0; added to the corrected root √v̂
  double weight_decay = 0;     ///< λ ≥ 0
  double warmup_steps = 0;     ///< ≥ 0: the steps in which α rises
  double r = 0;                ///< ≥ 0: the power of t in the weight of a step
  double weight_lr_power = 2;  ///< ≥ 0: the power of α in the weight of a step

  static constexpr std::string_view kind = "schedule_free";              ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"z_minus_y", slot::any_sign}};  ///< z − θ, from 0
  static constexpr std::array scalars{scalar{"lr_max", 0}, scalar{"weight_sum", 0}};  ///< as the authors name them
  static constexpr bool updates_last = true;      ///< d is computed from the old z − θ
  static constexpr bool reads_new_v = true;       ///< needs a second moment
  static constexpr bool reads_parameters = true;  ///< for λθ
  static constexpr bool contains_lr = true;       ///< d contains α
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"beta1", &schedule_free::beta1, range::above_zero_below_one},
                                                hyper::eps(&schedule_free::eps),
                                                hyper::weight_decay(&schedule_free::weight_decay),
                                                hyper::warmup_steps(&schedule_free::warmup_steps),
                                                hyper::weight_power(&schedule_free::r),
                                                hyper::weight_lr_power(&schedule_free::weight_lr_power));
  /// 1, because β₁ is no decay rate.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  /// α of a step, with the warm-up.
  GRADUS_HOST_DEVICE double lr(const step_scalars& k) const noexcept
  {
    return k.t < warmup_steps ? k.lr * (k.t / warmup_steps) : k.lr;
  }
  /// The weight of a step. \param lr_max  the largest α so far
  GRADUS_HOST_DEVICE double weight(double t, double lr_max) const noexcept
  {
    return product(std::pow(t, r), std::pow(lr_max, weight_lr_power));
  }
  /// The largest α so far, and the sum of weights.
  GRADUS_HOST_DEVICE void advance(double* state, const step_scalars& k) const noexcept
  {
    const double now = lr(k);
    state[0] = state[0] < now ? now : state[0];
    state[1] = state[1] + weight(k.t, state[0]);
  }
  /// x = θ − (1/β₁ − 1)(z − θ), the weights to evaluate and to keep.
  template <class T>
  T average(const T* w, T theta) const noexcept
  {
    constexpr auto lowest = double(std::numeric_limits<T>::lowest());  // for a β₁ so near to 0 that w is 0
    const double weight = (beta1 - 1) / beta1;
    return fused(T(weight < lowest ? lowest : weight), w[0], theta);
  }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    step_size::ratio<T> normalize;  ///< 1/(√v̂ + eps)
    T weight_decay,                 ///< λ
        step,                       ///< the weight of u in d: α(1−β₁(1−c))
        part,                       ///< c
        rest,                       ///< 1 − c
        ahead;                      ///< the weight of u in z − θ: α·β₁(1−c)
    /// u.
    template <class V>
    GRADUS_HOST_DEVICE V decayed(V g, V v, V theta) const noexcept
    {
      return fma(V(weight_decay), theta, normalize(v) * g);
    }
    /// Updates z − θ.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* w, V g, V v, V theta) const noexcept
    {
      w[0] = fma(V(-ahead), decayed(g, v, theta), V(rest) * w[0]);
    }
    /// d, from the old z − θ.
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* w, V g, V v, V theta) const noexcept
    {
      return fma(V(step), decayed(g, v, theta), V(-part) * w[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const double now = lr(k), root = std::sqrt(k.bc2), mine = weight(k.t, k.state[0]), all = k.state[1];
    const double part = !(all > 0) ? 0 : mine < all ? mine / all : 1;  // both may be infinite
    const double rest = 1 - part;
    return {step_size::ratio_of<T>(root, eps * root),
            T(weight_decay * k.decay_scale),
            T(now * fused(-beta1, rest, 1.0)),
            T(part),
            T(rest),
            T(now * beta1 * rest)};
  }
};

}  // namespace first_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
