#pragma once
// Rules as a program of its own writes them: outside namespace gradus, with gradus's vocabulary by its full name.

#include <array>
#include <cmath>
#include <string_view>

#include <gradus/rules/composition.hpp>

namespace own {

/// AdaBelief's second moment, as CONTRIBUTING.md has it.
struct belief {
  double beta2 = 0.999;

  static constexpr std::string_view kind = "belief";
  static constexpr auto fields = gradus::fields(gradus::hyper::beta2(&belief::beta2));
  static constexpr std::array slots{gradus::slot{"exp_avg_var", gradus::slot::nonnegative}};
  static constexpr std::size_t value_slot = 0;
  static constexpr bool linear = false;
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return gradus::one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    T beta2, one_minus_beta2;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* s, V g, V m) const noexcept
    {
      const V surprise = g - m;
      s[0] = gradus::fma(V(one_minus_beta2), surprise * surprise, V(beta2) * s[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
};

/// d = m + alpha·(g − m), or m itself: a rule in a rule, with a number and a yes or no of its own.
struct blended {
  gradus::first_moment::ema inner;
  double alpha = 0;
  bool plain = false;

  static constexpr std::string_view kind = "blended";
  static constexpr auto fields = gradus::fields(gradus::fields_of(&blended::inner),
                                                gradus::field{"alpha", &blended::alpha, gradus::range::zero_to_one},
                                                gradus::field{"plain", &blended::plain, gradus::range::yes_or_no});
  static constexpr std::array slots{gradus::slot{"trace", gradus::slot::any_sign}};
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return inner.correction(t); }
  double initial_value(std::size_t k) const noexcept { return inner.initial_value(k); }

  template <class T>
  struct formula {
    gradus::first_moment::ema::formula<T> inner;
    T alpha;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      inner.update(m, g);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V g) const noexcept
    {
      return gradus::fma(V(alpha), g - m[0], m[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {inner.prepare<T>(k), T(plain ? 0 : alpha)};
  }
};

/// A momentum buffer that knows no dampening, nor the name momentum.
struct heavy_ball {
  double friction = 0.1;

  static constexpr std::string_view kind = "heavy_ball";
  static constexpr auto fields = gradus::fields(gradus::field{"friction", &heavy_ball::friction,
                                                              gradus::range::zero_to_one});
  static constexpr std::array slots{gradus::slot{"velocity", gradus::slot::any_sign}};
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  GRADUS_HOST_DEVICE double gain() const noexcept { return 1 / friction; }

  template <class T>
  struct formula {
    T kept;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* b, V g) const noexcept
    {
      b[0] = gradus::fma(V(kept), b[0], g);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* b, V) const noexcept
    {
      return b[0];
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(1 - friction)};
  }
};

/// second_moment::ema with one more field; all else is inherited.
struct deriving : gradus::second_moment::ema {
  double alpha = 0.5;

  static constexpr std::string_view kind = "deriving";
  static constexpr auto fields = gradus::fields(gradus::hyper::beta2(&deriving::beta2),
                                                gradus::field{"alpha", &deriving::alpha, gradus::range::above_zero});
};

/// second_moment::ema_max in all words of the vocabulary: sign(g)·|g| is g, but for the sign of a 0.
struct spelled_maximum {
  double beta2 = 0.999;

  static constexpr std::string_view kind = "spelled_maximum";
  static constexpr auto fields = gradus::fields(gradus::hyper::beta2(&spelled_maximum::beta2));
  static constexpr auto slots = gradus::second_moment::ema_max::slots;
  static constexpr std::size_t value_slot = 1;
  static constexpr bool linear = false;
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return gradus::one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    T beta2, one_minus_beta2;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* v, V g, V) const noexcept
    {
      const V same = gradus::product(gradus::sign(g), gradus::abs(g));
      g = gradus::select(same > V(0), same, gradus::min(same, V(0)));
      v[0] = gradus::fma(V(one_minus_beta2) * g, g, V(beta2) * v[0]);
      v[1] = gradus::max(v[1], v[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
};

/// step_size::partially_adaptive, for exponents that are no power of 1/2.
struct spelled_power {
  double eps = 1e-8, partial = 0.3;

  static constexpr std::string_view kind = "spelled_power";
  static constexpr bool reads_second_moment = true;
  static constexpr auto fields = gradus::fields(gradus::hyper::eps(&spelled_power::eps),
                                                gradus::hyper::partial(&spelled_power::partial));

  template <class T>
  struct formula {
    T numerator, eps, exponent;
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      return V(numerator) * gradus::pow(gradus::sqrt(v) + V(eps), V(-exponent));
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {T(k.lr * std::sqrt(k.bc2) / k.bc1), T(eps), T(2 * partial)};
  }
};

inline auto spelled_out() noexcept
{
  return gradus::compose(0.01, gradus::first_moment::ema{}, spelled_maximum{}, spelled_power{},
                         gradus::decay::decoupled{});
}
inline auto built_in() noexcept
{
  return gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                         gradus::step_size::partially_adaptive{.partial = 0.3}, gradus::decay::decoupled{});
}

// As CONTRIBUTING.md has it: two hyperparameters that gradus does not know, and a number kept from step to step.

/// m ← βm + (1−β)g with β = inertia·(1 − warmthᵗ), which grows from step to step; d = m/(1 − the product of all β).
struct warm_ema {
  double inertia = 0.95, warmth = 0.5;

  static constexpr std::string_view kind = "warm_ema";
  static constexpr auto fields = gradus::fields(gradus::field{"inertia", &warm_ema::inertia,
                                                              gradus::range::zero_to_below_one},
                                                gradus::field{"warmth", &warm_ema::warmth,
                                                              gradus::range::zero_to_below_one});
  static constexpr std::array slots{gradus::slot{"warm_avg", gradus::slot::any_sign}};
  static constexpr std::array scalars{gradus::scalar{"beta_product", 1}};    // 1 before the first step
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }  // the formula divides itself
  GRADUS_HOST_DEVICE double beta(double t) const noexcept { return inertia * gradus::one_minus_power(warmth, t); }
  GRADUS_HOST_DEVICE void advance(double* state, const gradus::step_scalars& k) const noexcept
  {
    state[0] = gradus::product(state[0], beta(k.t));
  }

  template <class T>
  struct formula {
    T beta, one_minus_beta, factor;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      m[0] = gradus::fma(V(beta), m[0], V(one_minus_beta) * g);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return gradus::product(V(factor), m[0]);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {T(beta(k.t)), T(1 - beta(k.t)), T(1 / (1 - k.state[0]))};
  }
};

/// AdamW's second moment and decay with this first moment.
struct warm {
  double lr = 1e-3, inertia = 0.95, warmth = 0.5, weight_decay = 1e-2;

  static constexpr std::string_view name = "warm";
  static constexpr auto fields = gradus::fields(
      gradus::hyper::lr(&warm::lr), gradus::field{"inertia", &warm::inertia, gradus::range::zero_to_below_one},
      gradus::field{"warmth", &warm::warmth, gradus::range::zero_to_below_one},
      gradus::hyper::weight_decay(&warm::weight_decay));
  constexpr auto rule() const noexcept
  {
    return gradus::compose(lr, warm_ema{inertia, warmth}, gradus::second_moment::ema{}, gradus::step_size::adaptive{},
                           gradus::decay::decoupled{weight_decay});
  }
};

/// u = α·g/‖g‖ with the norm over all tensors that count: a step of length α.
struct unit_length {
  static constexpr std::string_view kind = "unit_length";
  static constexpr bool reads_second_moment = false;
  static constexpr gradus::scope sums_over = gradus::scope::model;
  static constexpr std::array terms{gradus::summed::squares, gradus::summed::values};

  template <class T>
  struct formula {
    T lr;
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V) const noexcept
    {
      return V(lr);
    }
    template <class V>
    GRADUS_HOST_DEVICE void term(V* to, V, V g, V, V) const noexcept
    {
      to[0] = g;
      to[1] = V(1);
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {T(k.lr)};
  }
  /// The second sum counts the elements, as n does.
  GRADUS_HOST_DEVICE gradus::step_factors finish(const double* sums, double n,
                                                 const gradus::step_scalars&) const noexcept
  {
    return {sums[1] == n ? 1 / std::sqrt(sums[0]) : 0, 1};
  }
};

constexpr auto descent(double lr)
{
  return gradus::compose(lr, gradus::first_moment::none{}, gradus::second_moment::none{}, unit_length{},
                         gradus::decay::none{});
}

}  // namespace own
