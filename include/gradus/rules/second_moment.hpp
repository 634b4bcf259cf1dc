#pragma once
/// \file
/// Second-moment rules: what the squared gradients leave behind in v, by whose root an adaptive step divides.
///
/// A rule is its hyperparameters (`fields`), its slots and `prepare<T>(step_scalars)`, which gives the formula: `update(slots, g, d)`, with
/// g the gradient and d the first moment's direction. `value_slot` is the slot that the step size and the scheduled
/// decay read as v. `linear` says that v ← β₂v + (1−β₂)g² exactly: then Σv follows from ‖g‖² without a look at v.

#include <array>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace second_moment {

struct none {
  static constexpr std::string_view kind = "none";
  static constexpr std::array<slot, 0> slots{};
  static constexpr bool linear = false;
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }

  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE void update(V*, V, V) const noexcept
    {
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const step_scalars&) const noexcept
  {
    return {};
  }
};

/// v ← β₂v + (1−β₂)g². Adam (Kingma and Ba 2015).
struct ema {
  double beta2 = 0.999;

  static constexpr auto fields = gradus::fields(hyper::beta2(&ema::beta2));
  static constexpr std::string_view kind = "ema";
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}};
  static constexpr std::size_t value_slot = 0;
  static constexpr bool linear = true;
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    T beta2, one_minus_beta2;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      // Not g·g first, which overflows in float for |g| above 1.8e19, where v is still far from it.
      v[0] = fma(rounded(V(one_minus_beta2) * g), g, V(beta2) * v[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
};

/// The running maximum of `ema`, taken before the bias correction as in PyTorch. AMSGrad (Reddi, Kale and Kumar 2018).
struct ema_max {
  double beta2 = 0.999;

  static constexpr auto fields = gradus::fields(hyper::beta2(&ema_max::beta2));
  static constexpr std::string_view kind = "ema_max";
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}, slot{"max_exp_avg_sq", slot::nonnegative}};
  static constexpr std::size_t value_slot = 1;
  static constexpr bool linear = false;
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    ema::formula<T> average;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V d) const noexcept
    {
      average.update(v, g, d);
      v[1] = max<>(v[1], v[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta2}.prepare<T>(k)};
  }
};

/// v ← v − (1−β₂)·sign(v − g²)·g², from v₀ = initial_accumulator. Yogi (Zaheer et al. 2018).
struct yogi {
  double beta2 = 0.999;
  double initial_accumulator = 1e-6;

  static constexpr auto fields = gradus::fields(hyper::beta2(&yogi::beta2), hyper::initial_accumulator(&yogi::initial_accumulator));
  static constexpr std::string_view kind = "yogi";
  static constexpr std::array slots{slot{"exp_avg_sq", slot::nonnegative}};
  static constexpr std::size_t value_slot = 0;
  static constexpr bool linear = false;
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return one_minus_power(beta2, t); }
  double initial_value(std::size_t) const noexcept { return initial_accumulator; }

  template <class T>
  struct formula {
    T one_minus_beta2;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      const V square = g * g, up(one_minus_beta2);
      // Compared, not subtracted: v − g·g might be fused, and its sign would then depend on the compiler.
      const V signed_weight = select(v[0] > square, -up, select(v[0] < square, up, V(0)));
      v[0] = fma(rounded(signed_weight * g), g, v[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars&) const noexcept
  {
    return {T(1 - beta2)};
  }
};

}  // namespace second_moment
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
