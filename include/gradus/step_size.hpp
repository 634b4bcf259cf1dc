#pragma once
/// \file
/// Step-size rules: u, by which the weights move, as u = a(v)·d of the direction d and the second moment v.
///
/// A rule's `prepare<T>(tick)` gives a(v) as a function object. Four of the five are one expression,
/// a = clip(A/(√v + ε′), lo, hi), with coefficients computed in double once a step. Where eps stands is part of the
/// rule: PyTorch's Adam corrects v before it adds eps; RAdam, AdaBound and Padam add eps to the uncorrected √v.

#include <cmath>

#include <gradus/pow.hpp>
#include <gradus/tick.hpp>

namespace gradus::inline GRADUS_ISA {
namespace step_size {

/// A/(√v + ε′).
template <class T>
struct ratio {
  T numerator, eps;
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V v) const noexcept
  {
    return V(numerator) / (sqrt(v) + V(eps));
  }
};

/// A/(√v + ε′) held between lo and hi. The limits stand first in min and max, so that a NaN comes through.
template <class T>
struct clipped_ratio {
  ratio<T> inner;
  T lo, hi;
  template <class V>
  GRADUS_HOST_DEVICE V operator()(V v) const noexcept
  {
    return min<>(V(hi), max<>(V(lo), inner(v)));
  }
};

/// u = α·d. SGD.
struct constant {
  static constexpr std::string_view kind = "constant";
  static constexpr bool reads_second_moment = false;

  template <class T>
  struct formula {
    T lr;
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V) const noexcept
    {
      return V(lr);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const tick& k) const noexcept
  {
    return {T(k.lr)};
  }
};

/// u = α/bc1 · d/(√v/√bc2 + eps). Adam (Kingma and Ba 2015), eps as PyTorch has it.
struct adaptive {
  double eps = 1e-8;

  static constexpr std::string_view kind = "adaptive";
  static constexpr bool reads_second_moment = true;

  template <class T>
  GRADUS_HOST_DEVICE ratio<T> prepare(const tick& k) const noexcept
  {
    const double root = std::sqrt(k.bc2);
    return {T(k.lr * root / k.bc1), T(eps * root)};
  }
};

/// u = clip(α√bc2/bc1/(√v + eps), F(1−1/(γt+1)), F(1+1/(γt)))·d with F = final_lr·α/lr: the bounds follow the schedule,
/// as their authors intend. AdaBound (Luo et al. 2019).
struct bounded {
  double eps = 1e-8;
  double final_lr = 0.1;
  double gamma = 1e-3;

  static constexpr std::string_view kind = "bounded";
  static constexpr bool reads_second_moment = true;

  template <class T>
  GRADUS_HOST_DEVICE clipped_ratio<T> prepare(const tick& k) const noexcept
  {
    const double final_step = final_lr * k.lr_scale;
    return {{T(k.lr * std::sqrt(k.bc2) / k.bc1), T(eps)},
            T(final_step * (1 - 1 / std::fma(gamma, k.t, 1.0))),
            T(final_step * (1 + 1 / (gamma * k.t)))};
  }
};

/// u = α√bc2/bc1 · d/(√v + eps)^(2·partial), partial in [0, 1/2]. Padam (Chen et al. 2020).
struct partially_adaptive {
  double eps = 1e-8;
  double partial = 0.25;

  static constexpr std::string_view kind = "partially_adaptive";
  static constexpr bool reads_second_moment = true;

  /// An exponent 2⁻ᵏ is k square roots, exactly rounded; any other goes through pow.
  template <class T>
  struct formula {
    T numerator, eps, exponent;
    int roots;
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
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const tick& k) const noexcept
  {
    int roots;
    const bool power_of_two = std::frexp(2 * partial, &roots) == 0.5;
    roots = 1 - roots;
    return {T(k.lr * std::sqrt(k.bc2) / k.bc1), T(eps), T(2 * partial), power_of_two && roots <= 6 ? roots : -1};
  }
};

/// u = α/bc1 · d · r√bc2/(√v + eps) once the variance of 1/√v is tractable (ρ_t > 5, as PyTorch has it), before that
/// u = α/bc1 · d. RAdam (Liu et al. 2020).
struct rectified {
  double eps = 1e-8;

  static constexpr std::string_view kind = "rectified";
  static constexpr bool reads_second_moment = true;

  template <class T>
  GRADUS_HOST_DEVICE clipped_ratio<T> prepare(const tick& k) const noexcept
  {
    const double lr = k.lr / k.bc1;
    const double rho_inf = 2 / (1 - k.beta2) - 1;
    const double rho = rho_inf - 2 * k.t * (1 - k.bc2) / k.bc2;
    if (!(rho > 5))
      return {{T(lr), T(1)}, T(lr), T(lr)};
    const double r = std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
    return {{T(lr * r * std::sqrt(k.bc2)), T(eps)}, T(0), detail::no_limit<T>()};
  }
};

}  // namespace step_size
}  // namespace gradus::inline GRADUS_ISA
