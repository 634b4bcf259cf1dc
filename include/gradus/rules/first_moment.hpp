#pragma once
/// \file
/// First-moment rules: how the gradient g becomes the direction d that a step follows.
///
/// A rule is its hyperparameters (`fields`), its slots and `prepare<T>(step_scalars)`, which gives the formula with this step's
/// coefficients in it: `update(slots, g)` moves the slots on by one gradient, `direction(slots, g)` then reads d.
/// `correction(t)` is by how much d falls short of the gradients' mean in step t, 1 − β₁ᵗ of an average from 0; `gain()`,
/// which stable decay asks for, what d grows to under gradients of 1; `initial_value(k)` what slot k starts from,
/// 0 if the rule does not say.

#include <array>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace first_moment {

/// d = g.
struct none {
  static constexpr std::string_view kind = "none";
  static constexpr std::array<slot, 0> slots{};
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE void update(V*, V) const noexcept
    {
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V*, V g) const noexcept
    {
      return g;
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// b ← μb + (1−dampening)g, in the first step b = g; d = b, or g + μb with nesterov. PyTorch's SGD.
struct momentum {
  double momentum = 0.9;
  double dampening = 0;
  bool nesterov = false;

  static constexpr std::string_view kind = "momentum";
  static constexpr std::array slots{slot{"momentum_buffer", slot::any_sign}};
  static constexpr auto fields = gradus::fields(hyper::momentum(&momentum::momentum), hyper::dampening(&momentum::dampening),
                                                hyper::nesterov(&momentum::nesterov));
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  GRADUS_HOST_DEVICE double gain() const noexcept { return (1 - dampening) / (1 - momentum); }

  template <class T>
  struct formula {
    T momentum, kept, gradient;
    bool nesterov;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g) const noexcept
    {
      b[0] = fma(V(gradient), g, V(kept) * b[0]);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V g) const noexcept
    {
      return nesterov ? fma(V(momentum), b[0], g) : b[0];
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const bool first = k.t == 1;
    return {T(momentum), T(first ? 0 : momentum), T(first ? 1 : 1 - dampening), nesterov};
  }

  /// With μ = 0 this rule is `none`, whatever the dampening (as in PyTorch): no slot is kept and `none` runs instead.
  using idle_form = first_moment::none;
  GRADUS_HOST_DEVICE bool idle() const noexcept { return momentum == 0; }

  void validate() const
  {
    if (nesterov && !(momentum > 0 && dampening == 0))
      detail::fail("nesterov is 1 with momentum " + detail::show(momentum) + " and dampening " + detail::show(dampening) +
           "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false");
  }
};

/// m ← β₁m + (1−β₁)g; d = m. Adam (Kingma and Ba 2015). m₀ = initial_accumulator, which is 0 but for Yogi.
struct ema {
  double beta1 = 0.9;
  double initial_accumulator = 0;

  static constexpr std::string_view kind = "ema";
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};
  static constexpr auto fields = gradus::fields(hyper::beta1(&ema::beta1), hyper::initial_accumulator(&ema::initial_accumulator));
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta1, t); }
  double initial_value(std::size_t) const noexcept { return initial_accumulator; }

  template <class T>
  struct formula {
    T beta1, one_minus_beta1;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      m[0] = fma(V(one_minus_beta1), g, V(beta1) * m[0]);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return m[0];
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(beta1), T(1 - beta1)};  // 1 − β in double: in float, 1 − 0.999f is off by 1.3e-5
  }
};

}  // namespace first_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
