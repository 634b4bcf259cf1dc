#pragma once
/// \file
/// Second-moment rules: running statistic v of squared gradients; adaptive steps divide by √v.
///
/// A rule has hyperparameters (`fields`), slots, and `prepare<T>(step_scalars)`, which returns the formula
/// `update(slots, g, d)`; g is the gradient, d the direction of the first moment. `value_slot` is the slot that the
/// step size and a scheduled decay read as v. `linear` means that v ← β₂v + (1−β₂)g² exactly; Σv then follows from
/// ‖g‖². With `is_norm`, v has the unit of g instead of g². With `reads_direction`, v depends on d.

#include <array>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Second-moment rules: g → v.
namespace second_moment {

/// No second moment. Needs step_size::constant, and a decay other than `scheduled`.
struct none {
  static constexpr std::string_view kind = "none";  ///< the rule's name in checkpoints
  static constexpr std::array<slot, 0> slots{};     ///< no state
  static constexpr bool linear = false;             ///< there is no v
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula.
  struct formula {
    /// Nothing to update.
    template <class V>
    GRADUS_HOST_DEVICE void update(V*, V, V) const noexcept
    {}
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// v ← β₂v + (1−β₂)g². Adam (Kingma and Ba 2015).
struct ema {
  double beta2 = 0.999;  ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&ema::beta2));
  static constexpr std::string_view kind = "ema";                            ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}};  ///< v, from 0
  static constexpr std::size_t value_slot = 0;                               ///< v
  static constexpr bool linear = true;                                       ///< Σv follows from ‖g‖²
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1 − β₂ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T beta2,              ///< β₂
        one_minus_beta2;  ///< 1 − β₂
    /// Updates v.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      // (1−β₂)·g comes first because g·g overflows in float for |g| above 1.8e19, where v is still far from it.
      v[0] = fma(rounded(V(one_minus_beta2) * g), g, V(beta2) * v[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
};

/// The running maximum of `ema`, taken before the bias correction as in PyTorch. AMSGrad (Reddi, Kale and Kumar 2018).
struct ema_max {
  double beta2 = 0.999;  ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&ema_max::beta2));
  static constexpr std::string_view kind = "ema_max";  ///< the rule's name in checkpoints
  /// The average and its maximum, both from 0.
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}, slot{"max_exp_avg_sq", slot::nonnegative}};
  static constexpr std::size_t value_slot = 1;  ///< the maximum
  static constexpr bool linear = false;         ///< a scheduled decay needs two passes
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1 − β₂ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< updates the average
    /// Updates the average and its maximum.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V d) const noexcept
    {
      average.update(v, g, d);
      v[1] = max<>(v[1], v[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta2}.prepare<T>(k)};
  }
};

/// v as `ema`, and x ← max(x, v/bc2), the running maximum of the bias-corrected average, which step sizes read and no
/// longer correct. optax's AMSGrad.
struct ema_max_corrected {
  double beta2 = 0.999;  ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&ema_max_corrected::beta2));
  static constexpr std::string_view kind = "ema_max_corrected";  ///< the rule's name in checkpoints
  /// The average and the maximum, both from 0.
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative},
                                    slot{"max_exp_avg_sq_corrected", slot::nonnegative}};
  static constexpr std::size_t value_slot = 1;  ///< the maximum
  static constexpr bool linear = false;         ///< a scheduled decay needs two passes
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1, because the maximum is of corrected averages.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< updates the average
    T inverse;                ///< 1/bc2
    /// Updates the average and the maximum.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V d) const noexcept
    {
      average.update(v, g, d);
      v[1] = max<>(v[1], V(inverse) * v[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta2}.prepare<T>(k), T(1 / one_minus_power(beta2, k.t))};
  }
};

/// v ← v − (1−β₂)·sign(v − g²)·g². Yogi (Zaheer et al. 2018).
struct yogi {
  double beta2 = 0.999;               ///< β₂ in [0, 1)
  double initial_accumulator = 1e-6;  ///< v₀ ≥ 0; the torch_optimizer package's default

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&yogi::beta2),
                                                hyper::initial_accumulator(&yogi::initial_accumulator));
  static constexpr std::string_view kind = "yogi";                           ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}};  ///< v, from initial_accumulator
  static constexpr std::size_t value_slot = 0;                               ///< v
  static constexpr bool linear = false;                                      ///< a scheduled decay needs two passes
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1 − β₂ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }
  /// v₀.
  double initial_value(std::size_t) const noexcept { return initial_accumulator; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T one_minus_beta2;  ///< 1 − β₂
    /// Updates v.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      const V square = g * g, up(one_minus_beta2);
      // Compares instead of subtracting: a compiler may fuse v − g·g, and then the sign would depend on the compiler.
      const V signed_weight = select(v[0] > square, -up, select(v[0] < square, up, V(0)));
      v[0] = fma(rounded(signed_weight * g), g, v[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(1 - beta2)};
  }
};

/// `ema` that starts as the first g² instead of 0, and so needs no bias correction. ADOPT (Taniguchi et al. 2024).
struct ema_from_first {
  double beta2 = 0.9999;  ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&ema_from_first::beta2));
  static constexpr std::string_view kind = "ema_from_first";                 ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}};  ///< v, from 0
  static constexpr std::size_t value_slot = 0;                               ///< v
  static constexpr bool linear = false;                                      ///< because of the first step
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE ema::formula<T> prepare(const step_scalars& k) const noexcept
  {
    if (k.t == 1)
      return {T(0), T(1)};
    return ema{beta2}.prepare<T>(k);
  }
};

/// `ema`, or if `centered` the average of the squared distance to the average gradient m: v ← β₂v + β₂(1−β₂)(g−m)²,
/// m ← β₂m + (1−β₂)g. This v is the average of g² minus m², computed without their cancellation. PyTorch's RMSprop.
struct ema_about_mean {
  double beta2 = 0.99;    ///< β₂ in [0, 1)
  bool centered = false;  ///< whether v is about the average gradient, which takes another slot

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&ema_about_mean::beta2),
                                                hyper::centered(&ema_about_mean::centered));
  static constexpr std::string_view kind = "ema_about_mean";  ///< the rule's name in checkpoints
  /// v and m, both from 0.
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}, slot{"grad_avg", slot::any_sign}};
  static constexpr std::size_t value_slot = 0;  ///< v
  static constexpr bool linear = false;         ///< a scheduled decay needs two passes
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1 − β₂ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< β₂ and 1 − β₂
    T spread;                 ///< β₂(1 − β₂)
    /// Updates v and m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      const V distance = g - v[1];
      v[0] = fma(rounded(V(spread) * distance), distance, V(average.beta2) * v[0]);
      v[1] = fma(V(average.one_minus_beta2), g, V(average.beta2) * v[1]);
    }
    /// The formula of the rule that runs instead when `idle()`.
    GRADUS_HOST_DEVICE ema::formula<T> idle_form() const noexcept { return average; }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta2}.prepare<T>(k), T(beta2 * (1 - beta2))};
  }

  /// The rule that runs instead, with the first slot only, when `idle()`.
  using idle_form = ema;
  /// Whether v is about 0.
  GRADUS_HOST_DEVICE bool idle() const noexcept { return !centered; }
};

/// v ← v + g². Adagrad (Duchi, Hazan and Singer 2011).
struct sum {
  double initial_accumulator = 0;  ///< v₀ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::initial_accumulator(&sum::initial_accumulator));
  static constexpr std::string_view kind = "sum";                     ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"sum", slot::nonnegative}};  ///< v, from initial_accumulator
  static constexpr std::size_t value_slot = 0;                        ///< v
  static constexpr bool linear = false;                               ///< a scheduled decay needs two passes
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  /// v₀.
  double initial_value(std::size_t) const noexcept { return initial_accumulator; }

  /// The element formula.
  struct formula {
    /// Updates v.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      v[0] = fma(g, g, v[0]);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// v ← β₂v + (1−β₂)(g−d)²: how far gradients are from their direction. AdaBelief (Zhuang et al. 2020), whose eps inside
/// this average is in step_size::adaptive_above.
struct belief {
  double beta2 = 0.999;  ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&belief::beta2));
  static constexpr std::string_view kind = "belief";                          ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg_var", slot::nonnegative}};  ///< v, from 0
  static constexpr std::size_t value_slot = 0;                                ///< v
  /// A scheduled decay needs two passes.
  static constexpr bool linear = false, reads_direction = true;  ///< v depends on d
  /// β₂.
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  /// 1 − β₂ᵗ.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< updates the average
    /// Updates v.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V d) const noexcept
    {
      average.update(v, g - d, d);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta2}.prepare<T>(k)};
  }
};

/// v ← max(β₂v, |g| + eps). A norm, so step_size::by_norm divides by it without a root. Adamax (Kingma and Ba 2015) in
/// PyTorch's form.
struct infinity_norm {
  double beta2 = 0.999;  ///< β₂ in [0, 1)
  double eps = 1e-8;     ///< ≥ 0; keeps v away from 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&infinity_norm::beta2), hyper::eps(&infinity_norm::eps));
  static constexpr std::string_view kind = "infinity_norm";               ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_inf", slot::nonnegative}};  ///< v, from 0
  static constexpr std::size_t value_slot = 0;                            ///< v
  /// No average of squares.
  static constexpr bool linear = false, is_norm = true;  ///< v has the unit of g
  /// No bias correction.
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    T beta2,  ///< β₂
        eps;  ///< added to |g|
    /// Updates v.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      v[0] = max<>(V(beta2) * v[0], abs(g) + V(eps));
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(beta2), T(eps)};
  }
};

}  // namespace second_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
