#pragma once
/// \file
/// Decay policies: how the weights are drawn towards zero, either as a term of the gradient (L2) or by a part s of
/// themselves, which is taken off together with the step.
///
/// A rule's `prepare<T>(step_scalars)` gives its formula: `to_gradient` or `shrink`.

#include <cmath>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/step_scalars.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace decay {

/// g ← g + λθ.
template <class T>
struct to_gradient {
  T weight_decay;
  template <class V>
  GRADUS_HOST_DEVICE V gradient(V g, V theta) const noexcept
  {
    return fma(V(weight_decay), theta, g);
  }
};

/// θ ← θ − (sθ + u), with s itself in T: as a factor, 1 − s would be 1 in float for s below 3e-8, and wrong by up to that
/// much for any other. An s beyond 1/2, and 0, is taken as the factor: θ ← (1−s)·θ − u, which is −u for 1.
template <class T>
struct shrink {
  T kept, lost;
  bool decrements;
  template <class V>
  GRADUS_HOST_DEVICE V decrement(V theta) const noexcept
  {
    return V(lost) * theta;
  }
  template <class V>
  GRADUS_HOST_DEVICE V weights(V theta) const noexcept
  {
    return V(kept) * theta;
  }
};

template <class T>
GRADUS_HOST_DEVICE shrink<T> shrink_by(double s) noexcept
{
  const bool small = s <= 0.5 && s >= -0.5;
  return {T(small ? 1 : 1 - s), T(small ? s : 0), small && T(s) != 0};
}

struct none {
  static constexpr std::string_view kind = "none";

  struct formula {};
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// g ← g + λθ, before the moments: PyTorch's `weight_decay` of SGD and Adam.
struct l2 {
  double weight_decay = 0;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&l2::weight_decay));
  static constexpr std::string_view kind = "l2";

  template <class T>
  GRADUS_HOST_DEVICE to_gradient<T> prepare(const step_scalars&) const noexcept
  {
    return {T(weight_decay)};
  }
};

/// s = αλ. AdamW (Loshchilov and Hutter 2019); Xie et al. 2023, Equation 2.
struct decoupled {
  double weight_decay = 1e-2;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&decoupled::weight_decay));
  static constexpr std::string_view kind = "decoupled";

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    return shrink_by<T>(k.lr * weight_decay);
  }
};

/// s = λ, times neither lr nor lr_scale: "vanilla" weight decay (Hanson and Pratt 1988; Xie et al. 2023, Equation 1).
struct independent {
  double weight_decay = 0;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&independent::weight_decay));
  static constexpr std::string_view kind = "independent";

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars&) const noexcept
  {
    return shrink_by<T>(weight_decay);
  }
};

/// s = αλ/√(v̄ + eps), v̄ the mean of v/bc2 over the whole model: Scheduled Weight Decay (Xie et al. 2023, Equation 9,
/// Algorithm 2). s is at most 1; v̄ + eps = 0, when every gradient so far was zero, means no decay in that step.
struct scheduled {
  double weight_decay = 1e-4;
  double eps = 0;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&scheduled::weight_decay), hyper::eps(&scheduled::eps));
  static constexpr std::string_view kind = "scheduled";
  static constexpr bool reads_mean_square = true;

  /// s before it is held to 1.
  GRADUS_HOST_DEVICE double rate(const step_scalars& k) const noexcept
  {
    const double v = k.mean_square + eps;
    return v == 0 ? 0 : k.lr * weight_decay / std::sqrt(v);
  }
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    const double s = rate(k);
    return shrink_by<T>(s > 1 ? 1 : s);
  }
};

/// s = αλ(1−dampening)/(1−μ), from the first step: SGDS (Xie et al. 2023, the authors' code). For a momentum buffer.
struct stable {
  double weight_decay = 0;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&stable::weight_decay));
  static constexpr std::string_view kind = "stable";
  static constexpr bool reads_gain = true;

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const step_scalars& k) const noexcept
  {
    return shrink_by<T>(k.lr * weight_decay * k.gain);
  }
};

/// `decoupled` or `l2`, chosen by a flag when the program runs: PyTorch's RAdam.
struct l2_or_decoupled {
  double weight_decay = 0;
  bool decoupled_weight_decay = false;

  static constexpr auto fields = gradus::fields(hyper::weight_decay(&l2_or_decoupled::weight_decay),
                                                hyper::decoupled_weight_decay(&l2_or_decoupled::decoupled_weight_decay));
  static constexpr std::string_view kind = "l2_or_decoupled";

  template <class T>
  struct formula : to_gradient<T>, shrink<T> {};
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
