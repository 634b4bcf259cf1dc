#pragma once
/// \file
/// Decay policies: how the weights are drawn towards zero, either as a term of the gradient (L2) or by a factor 1 − s on
/// the weights before they move.
///
/// A rule's `prepare<T>(tick)` gives its formula: `to_gradient` or `shrink`.

#include <cmath>

#include <gradus/tick.hpp>

namespace gradus::inline GRADUS_ISA {
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

/// θ ← (1−s)·θ; `kept` is 1 − s.
template <class T>
struct shrink {
  T kept;
  template <class V>
  GRADUS_HOST_DEVICE V weights(V theta) const noexcept
  {
    return V(kept) * theta;
  }
};

struct none {
  static constexpr std::string_view kind = "none";

  struct formula {};
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const tick&) const noexcept
  {
    return {};
  }
};

/// g ← g + λθ, before the moments: PyTorch's `weight_decay` of SGD and Adam.
struct l2 {
  double weight_decay = 0;

  static constexpr std::string_view kind = "l2";

  template <class T>
  GRADUS_HOST_DEVICE to_gradient<T> prepare(const tick&) const noexcept
  {
    return {T(weight_decay)};
  }
};

/// s = αλ. AdamW (Loshchilov and Hutter 2019); Xie et al. 2023, Equation 2.
struct decoupled {
  double weight_decay = 1e-2;

  static constexpr std::string_view kind = "decoupled";

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const tick& k) const noexcept
  {
    return {T(std::fma(-k.lr, weight_decay, 1.0))};
  }
};

/// s = λ, times neither lr nor lr_scale: "vanilla" weight decay (Hanson and Pratt 1988; Xie et al. 2023, Equation 1).
struct independent {
  double weight_decay = 0;

  static constexpr std::string_view kind = "independent";

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const tick&) const noexcept
  {
    return {T(1 - weight_decay)};
  }
};

/// s = αλ/√(v̄ + eps), v̄ the mean of v/bc2 over the whole model: Scheduled Weight Decay (Xie et al. 2023, Equation 9,
/// Algorithm 2). s is at most 1; v̄ + eps = 0, when every gradient so far was zero, means no decay in that step.
struct scheduled {
  double weight_decay = 1e-4;
  double eps = 0;

  static constexpr std::string_view kind = "scheduled";
  static constexpr bool reads_mean_square = true;

  /// s before it is held to 1.
  GRADUS_HOST_DEVICE double rate(const tick& k) const noexcept
  {
    const double v = k.mean_square + eps;
    return v == 0 ? 0 : k.lr * weight_decay / std::sqrt(v);
  }
  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const tick& k) const noexcept
  {
    const double s = rate(k);
    return {T(s > 1 ? 0 : 1 - s)};
  }
};

/// s = αλ(1−dampening)/(1−μ), from the first step: SGDS (Xie et al. 2023, the authors' code). For a momentum buffer.
struct momentum_corrected {
  double weight_decay = 0;

  static constexpr std::string_view kind = "momentum_corrected";
  static constexpr bool reads_momentum = true;

  template <class T>
  GRADUS_HOST_DEVICE shrink<T> prepare(const tick& k) const noexcept
  {
    return {T(1 - k.lr * weight_decay * (1 - k.dampening) / (1 - k.momentum))};
  }
};

/// `decoupled` or `l2`, chosen by a flag when the program runs: PyTorch's RAdam.
struct l2_or_decoupled {
  double weight_decay = 0;
  bool decoupled_weight_decay = false;

  static constexpr std::string_view kind = "l2_or_decoupled";

  template <class T>
  struct formula : to_gradient<T>, shrink<T> {};
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const tick& k) const noexcept
  {
    if (decoupled_weight_decay)
      return {{T(0)}, decay::decoupled{weight_decay}.prepare<T>(k)};
    return {l2{weight_decay}.prepare<T>(k), {T(1)}};
  }
};

}  // namespace decay
}  // namespace gradus::inline GRADUS_ISA
