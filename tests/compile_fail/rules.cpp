// Four rules of a program's own, which compile together. Each case leaves one thing out, or adds one that must not be.

#include <array>
#include <span>
#include <string_view>

#include <gradus/optimizer.hpp>

#if defined(CASE_FIRST_SLOT_WITHOUT_SIGN)
#define FIRST_SLOTS gradus::slot{"trace"}
#elif defined(CASE_SLOTS_OF_ONE_NAME)
#define FIRST_SLOTS gradus::slot{"spread", gradus::slot::any_sign}
#elif defined(CASE_SLOT_CALLED_STEP)
#define FIRST_SLOTS gradus::slot{"step", gradus::slot::any_sign}
#elif defined(CASE_SLOT_CALLED_TRAINED)
#define FIRST_SLOTS gradus::slot{"trained", gradus::slot::any_sign}
#elif defined(CASE_SLOT_WITH_A_SLASH)
#define FIRST_SLOTS gradus::slot{"a/b", gradus::slot::any_sign}
#elif defined(CASE_SLOT_CALLED_AS_SCALES_ARE)
#define FIRST_SLOTS gradus::slot{"spread_scale", gradus::slot::any_sign}
#else
#define FIRST_SLOTS gradus::slot{"trace", gradus::slot::any_sign}
#endif
#if defined(CASE_VALUE_SLOT_OF_ANY_SIGN)
#define SIGN any_sign
#else
#define SIGN nonnegative
#endif

struct first {
  double decay_rate = 0.9;
#if defined(CASE_FIRST_UNLISTED)
  double alpha = 0.5;
#endif
#if defined(CASE_FIELDS_OF_ONE_NAME)
  double other_rate = 0.5;
  static constexpr auto fields = gradus::fields(gradus::field{"rate", &first::decay_rate,
                                                              gradus::range::zero_to_below_one},
                                                gradus::field{"rate", &first::other_rate,
                                                              gradus::range::zero_to_below_one});
#elif defined(CASE_FIELD_WITH_A_SLASH)
  static constexpr auto fields = gradus::fields(gradus::field{"a/b", &first::decay_rate,
                                                              gradus::range::zero_to_below_one});
#elif defined(CASE_FIELD_WITH_A_SPACE)
  static constexpr auto fields = gradus::fields(gradus::field{"decay rate", &first::decay_rate,
                                                              gradus::range::zero_to_below_one});
#elif !defined(CASE_FIRST_WITHOUT_FIELDS)
  static constexpr auto fields = gradus::fields(gradus::field{"rate", &first::decay_rate,
                                                              gradus::range::zero_to_below_one});
#endif
#if !defined(CASE_FIRST_WITHOUT_KIND)
  static constexpr std::string_view kind = "first";
#endif
#if !defined(CASE_FIRST_WITHOUT_SLOTS)
  static constexpr std::array slots{FIRST_SLOTS};
#endif
#if !defined(CASE_FIRST_WITHOUT_CORRECTION)
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
#endif

  template <class T>
  struct formula {
    T rate;
#if !defined(CASE_FIRST_WITHOUT_UPDATE)
    template <class V>
    GRADUS_HOST_DEVICE void update(V* s, V g) const noexcept
    {
      s[0] = gradus::fma(V(rate), s[0], g);
    }
#endif
#if !defined(CASE_FIRST_WITHOUT_DIRECTION)
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* s, V) const noexcept
    {
      return s[0];
    }
#endif
  };
#if !defined(CASE_FIRST_WITHOUT_PREPARE)
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(decay_rate)};
  }
#endif
};

struct second {
  double beta2 = 0.99;
#if defined(CASE_SECOND_UNLISTED)
  bool sharp = false;
#endif

#if !defined(CASE_SECOND_WITHOUT_FIELDS)
  static constexpr auto fields = gradus::fields(gradus::hyper::beta2(&second::beta2));
#endif
#if !defined(CASE_SECOND_WITHOUT_KIND)
  static constexpr std::string_view kind = "second";
#endif
#if !defined(CASE_SECOND_WITHOUT_SLOTS)
  static constexpr std::array slots{gradus::slot{"spread", gradus::slot::SIGN}};
#endif
#if !defined(CASE_SECOND_WITHOUT_VALUE_SLOT)
  static constexpr std::size_t value_slot = 0;
#endif
#if defined(CASE_RECTIFIED_WITHOUT_BETA)
  static constexpr bool linear = false;
#elif !defined(CASE_SECOND_WITHOUT_LINEAR)
  static constexpr bool linear = true;
#endif
#if !defined(CASE_SECOND_WITHOUT_BETA) && !defined(CASE_RECTIFIED_WITHOUT_BETA)
  GRADUS_HOST_DEVICE double beta() const noexcept { return beta2; }
#endif
#if !defined(CASE_SECOND_WITHOUT_CORRECTION)
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return gradus::one_minus_power(beta2, t); }
#endif

  template <class T>
  struct formula {
    T beta2, one_minus_beta2;
#if !defined(CASE_SECOND_WITHOUT_UPDATE)
    template <class V>
    GRADUS_HOST_DEVICE void update(V* s, V g, V) const noexcept
    {
      s[0] = gradus::fma(V(one_minus_beta2) * g, g, V(beta2) * s[0]);
    }
#endif
  };
#if !defined(CASE_SECOND_WITHOUT_PREPARE)
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
#endif
};

struct third {
#if defined(CASE_THIRD_UNLISTED)
  double alpha = 0.5;
#endif
#if !defined(CASE_THIRD_WITHOUT_KIND)
  static constexpr std::string_view kind = "third";
#endif
#if !defined(CASE_THIRD_WITHOUT_READS_SECOND_MOMENT)
  static constexpr bool reads_second_moment = true;
#endif

  template <class T>
  struct formula {
    T lr;
#if !defined(CASE_THIRD_WITHOUT_STEP)
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      return V(lr) / (gradus::sqrt(v) + V(T(1e-8)));
    }
#endif
  };
#if !defined(CASE_THIRD_WITHOUT_PREPARE)
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {T(k.lr)};
  }
#endif
};

struct fourth {
#if defined(CASE_FOURTH_UNLISTED)
  double alpha = 0.5;
#endif
#if !defined(CASE_FOURTH_WITHOUT_KIND)
  static constexpr std::string_view kind = "fourth";
#endif

  template <class T>
  struct formula {
    T lost;
#if !defined(CASE_FOURTH_WITHOUT_EFFECT)
    template <class V>
    GRADUS_HOST_DEVICE V decrement(V theta) const noexcept
    {
      return V(lost) * theta;
    }
#endif
  };
#if !defined(CASE_FOURTH_WITHOUT_PREPARE)
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars& k) const noexcept
  {
    return {T(k.lr / 100)};
  }
#endif
};

void step(std::span<float> weights, std::span<const float> gradients)
{
#if defined(CASE_FIRST_AND_SECOND_SWAPPED)
  gradus::optimizer opt(gradus::compose(1e-3, second{}, first{}, third{}, fourth{}));
#elif defined(CASE_SECOND_AND_FOURTH_SWAPPED)
  gradus::optimizer opt(gradus::compose(1e-3, first{}, fourth{}, third{}, second{}));
#elif defined(CASE_THIRD_AND_FOURTH_SWAPPED)
  gradus::optimizer opt(gradus::compose(1e-3, first{}, second{}, fourth{}, third{}));
#elif defined(CASE_DECAY_LEFT_OUT)
  gradus::optimizer opt(gradus::compose(1e-3, first{}, second{}, third{}));
#elif defined(CASE_LR_LEFT_OUT)
  gradus::optimizer opt(gradus::compose(first{}, second{}, third{}, fourth{}));
#elif defined(CASE_LR_LAST)
  gradus::optimizer opt(gradus::compose(first{}, second{}, third{}, fourth{}, 1e-3));
#elif defined(CASE_RECTIFIED_WITHOUT_BETA)
  gradus::optimizer opt(gradus::compose(1e-3, first{}, second{}, gradus::step_size::rectified{}, fourth{}));
#elif defined(CASE_STABLE_WITHOUT_GAIN)
  gradus::optimizer opt(gradus::compose(1e-3, first{}, second{}, third{}, gradus::decay::stable{}));
#elif defined(CASE_COMPOSITION_BY_DEFAULT)
  gradus::optimizer<decltype(gradus::compose(1e-3, first{}, second{}, third{}, fourth{}))> opt;
#elif defined(CASE_COMPOSITION_OF_WRONG_RULES)
  using wrong = gradus::composition<second, first, third, fourth>;
  gradus::optimizer<wrong> opt(wrong(1e-3, second{}, first{}, third{}, fourth{}));
#elif defined(CASE_COMPOSITION_OF_NOTHING)
  gradus::optimizer opt(decltype(gradus::compose(1e-3, first{}, second{}, third{}, fourth{})){});
#else
  gradus::optimizer opt(gradus::compose(1e-3, first{}, second{}, third{}, fourth{}));
#endif
  opt.add(weights, gradients);
  opt.step();
}
