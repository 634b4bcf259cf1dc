#pragma once
/// \file
/// Second-moment rules: running statistic v of squared gradients; adaptive steps divide by √v.
///
/// A rule has hyperparameters (`fields`), slots, and `prepare<T>(step_scalars)`, which returns the formula
/// `update(slots, g, d)`; g is the gradient, d the direction of the first moment. `value_slot` is the slot that the
/// step size and a scheduled decay read as v. `linear` means that v ← β₂v + (1−β₂)g² exactly; Σv then follows from
/// ‖g‖².

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

}  // namespace second_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
