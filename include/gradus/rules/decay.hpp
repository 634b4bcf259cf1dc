#pragma once
/// \file
/// Weight-decay rules. L2 adds a term to the gradient; the others subtract a part s of the weight together with the
/// step.
///
/// A rule's `prepare<T>(step_scalars)` returns its formula: `to_gradient` or `shrink`.

#include <cmath>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/step_scalars.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Weight-decay rules.
namespace decay {

/// g ← g + λθ.
template <class T>
struct to_gradient {
  T weight_decay;  ///< λ
  /// The gradient that the moments see.
  template <class V>
  GRADUS_HOST_DEVICE V gradient(V g, V theta) const noexcept
  {
    return fma(V(weight_decay), theta, g);
  }
};

/// θ ← θ − (sθ + u), with s in T, because the factor 1 − s loses small s: in float it is 1 for s below 3e-8, and for
/// any other s wrong by up to that much. For |s| > 1/2, and for 0, θ ← (1−s)·θ − u instead, which is −u for s = 1.
template <class T>
struct shrink {
  T kept;           ///< the factor 1 − s, or 1
  T lost;           ///< s, or 0
  bool decrements;  ///< whether `decrement` acts in this step; otherwise `weights` does
  /// sθ, which is added to u.
  template <class V>
  GRADUS_HOST_DEVICE V decrement(V theta) const noexcept
  {
    return V(lost) * theta;
  }
  /// (1−s)·θ, from which u is subtracted.
  template <class V>
  GRADUS_HOST_DEVICE V weights(V theta) const noexcept
  {
    return V(kept) * theta;
  }
};

/// The formula for s.
template <class T>
GRADUS_HOST_DEVICE shrink<T> shrink_by(double s) noexcept
{
  const bool small = s <= 0.5 && s >= -0.5;
  return {T(small ? 1 : 1 - s), T(small ? s : 0), small && T(s) != 0};
}

/// No weight decay.
struct none {
  static constexpr std::string_view kind = "none";  ///< the rule's name in checkpoints

  /// Changes neither gradient nor weights.
  struct formula {};
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// g ← g + λθ, before the moments. PyTorch's `weight_decay` of SGD and Adam.
struct l2 {
  double weight_decay = 0;  ///< λ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&l2::weight_decay));
  static constexpr std::string_view kind = "l2";  ///< the rule's name in checkpoints

  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE to_gradient<T> prepare(const step_scalars&) const noexcept
  {
    return {T(weight_decay)};
  }
};

/// s = αλ. AdamW (Loshchilov and Hutter 2019) in PyTorch's form; Xie et al. 2023, Equation 2.
struct decoupled {
  double weight_decay = 1e-2;  ///< λ ≥ 0; PyTorch's default

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&decoupled::weight_decay));
  static constexpr std::string_view kind = "decoupled";  ///< the rule's name in checkpoints

  /// s.
  GRADUS_HOST_DEVICE double rate(const step_scalars& k) const noexcept { return k.lr * weight_decay; }
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    return shrink_by<T>(rate(k));
  }
};

/// s = λ, independent of lr and lr_scale: "vanilla" weight decay (Hanson and Pratt 1988; Xie et al. 2023, Equation 1).
struct independent {
  double weight_decay = 0;  ///< λ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&independent::weight_decay));
  static constexpr std::string_view kind = "independent";  ///< the rule's name in checkpoints

  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars&) const noexcept
  {
    return shrink_by<T>(weight_decay);
  }
};

/// s = αλ/√(v̄ + eps), clamped to 1, where v̄ is the mean of v/bc2 over the whole model. Where v̄ + eps = 0, because
/// every gradient so far was 0, s is 0. Scheduled weight decay (Xie et al. 2023, Equation 9, Algorithm 2).
struct scheduled {
  double weight_decay = 1e-4;  ///< λ ≥ 0; the default is the authors' class's
  double eps = 0;              ///< ≥ 0; added to v̄

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&scheduled::weight_decay),
                                                hyper::eps(&scheduled::eps));
  static constexpr std::string_view kind = "scheduled";  ///< the rule's name in checkpoints
  static constexpr bool reads_mean_square = true;        ///< needs v̄, and so a second moment

  /// s before it is clamped to 1.
  GRADUS_HOST_DEVICE double rate(const step_scalars& k) const noexcept
  {
    const double v = k.mean_square + eps;
    return v == 0 ? 0 : k.lr * weight_decay / std::sqrt(v);
  }
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    const double s = rate(k);
    return shrink_by<T>(s > 1 ? 1 : s);
  }
};

/// s = αλ(1−dampening)/(1−μ) in every step, for a momentum buffer. SGDS in the authors' code (Xie et al. 2023).
struct stable {
  double weight_decay = 0;  ///< λ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&stable::weight_decay));
  static constexpr std::string_view kind = "stable";  ///< the rule's name in checkpoints
  static constexpr bool reads_gain = true;            ///< needs a first moment with `gain()`

  /// s.
  GRADUS_HOST_DEVICE double rate(const step_scalars& k) const noexcept { return k.lr * weight_decay * k.gain; }
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    return shrink_by<T>(rate(k));
  }
};

/// s = αλ, but 0 where the step u and the weight have opposite signs: a weight that the step moves away from 0 does not
/// decay. Cautious weight decay (Chen et al. 2025), over any other three rules.
struct cautious {
  double weight_decay = 1e-2;  ///< λ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&cautious::weight_decay));
  static constexpr std::string_view kind = "cautious";  ///< the rule's name in checkpoints

  /// `shrink`, which sees the direction.
  template <class T>
  struct formula {
    shrink<T> inner;  ///< where the weight decays
    bool decrements;  ///< the inner's
    /// sθ or 0, which is added to u.
    template <class V>
    GRADUS_HOST_DEVICE V decrement(V theta, V d) const noexcept
    {
      return select(grows(theta, d), V(0), inner.decrement(theta));
    }
    /// (1−s)·θ or θ, from which u is subtracted.
    template <class V>
    GRADUS_HOST_DEVICE V weights(V theta, V d) const noexcept
    {
      return select(grows(theta, d), theta, inner.weights(theta));
    }

   private:
    /// Whether θ·d < 0. A product with a sign does not underflow.
    template <class V>
    GRADUS_HOST_DEVICE static auto grows(V theta, V d) noexcept
    {
      return sign(d) * theta < V(0);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const shrink<T> inner = decay::decoupled{weight_decay}.prepare<T>(k);
    return {inner, inner.decrements};
  }
};

/// θ ← (θ − u)/(1 + αλ): the implicit form of `decoupled`, a proximal step. As s = αλ/(1 + αλ), and u is scaled by 1 − s.
/// Adan (Xie et al. 2024); Zhuang et al. 2022 for AdamW.
struct proximal {
  double weight_decay = 0;  ///< λ ≥ 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::weight_decay(&proximal::weight_decay));
  static constexpr std::string_view kind = "proximal";  ///< the rule's name in checkpoints

  /// The factor on the step.
  GRADUS_HOST_DEVICE double step_factor(const step_scalars& k) const noexcept
  {
    return 1 / fused(k.lr, weight_decay, 1.0);
  }
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    return shrink_by<T>(k.lr * weight_decay * step_factor(k));
  }
};

/// `decoupled` or `l2`, chosen by a flag at run time, as in PyTorch's RAdam.
struct l2_or_decoupled {
  double weight_decay = 0;              ///< λ ≥ 0
  bool decoupled_weight_decay = false;  ///< true: `decoupled`, false: `l2`

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(
      hyper::weight_decay(&l2_or_decoupled::weight_decay),
      hyper::decoupled_weight_decay(&l2_or_decoupled::decoupled_weight_decay));
  static constexpr std::string_view kind = "l2_or_decoupled";  ///< the rule's name in checkpoints

  /// s, or 0 for L2.
  GRADUS_HOST_DEVICE double rate(const step_scalars& k) const noexcept
  {
    return decoupled_weight_decay ? k.lr * weight_decay : 0;
  }
  /// Both formulas; the one that is off has λ = 0 or s = 0.
  template <class T>
  struct formula : to_gradient<T>, shrink<T> {};
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    if (decoupled_weight_decay)
      return {{T(0)}, decay::decoupled{weight_decay}.prepare<T>(k)};
    return {l2{weight_decay}.prepare<T>(k), shrink_by<T>(0)};
  }
};

}  // namespace decay
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
