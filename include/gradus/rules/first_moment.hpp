#pragma once
/// \file
/// First-moment rules: how the gradient g becomes the direction d that a step follows.
///
/// A rule has hyperparameters (`fields`), slots, and `prepare<T>(step_scalars)`, which returns the formula with this
/// step's coefficients: `update(slots, g)` updates the slots with one gradient, then `direction(slots, g)` returns d.
/// `correction(t)` is the bias correction of d in step t: 1 − β₁ᵗ for an average that starts from 0. `gain()` is the
/// value that d approaches while every gradient is 1; decay::stable needs it. `initial_value(k)` is the start value of
/// slot k, 0 if the rule has no such member.

#include <array>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>

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
    return {T(momentum), T(first ? 0 : momentum), T(first ? 1 : 1 - dampening), nesterov};
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

}  // namespace first_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
