#pragma once
/// \file
/// Averages of weights, which most recipes can keep beside their own state: `averaged<adamw, average::ema>`. They cost 8
/// bytes of traffic a parameter, in the same pass. `optimizer::copy_average` gives the averaged weights.

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/recipes.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Averages of weights. The average e starts from the parameters before the first step.
namespace average {

/// e ← rest·e + weight·θ, of the new θ; and then θ ← e, if it replaces the weights.
template <class T>
struct formula {
  T weight,       ///< of θ
      rest;       ///< of e
  bool is_first,  ///< e is still the parameters before the step
      replaces;   ///< θ becomes e
  /// Updates e, and θ if it is replaced. \param before  θ before the step
  template <class V>
  GRADUS_HOST_DEVICE void operator()(V& e, V before, V& theta) const noexcept
  {
    e = fma(V(weight), theta, V(rest) * (is_first ? before : e));
    if (replaces)
      theta = e;
  }
};

/// e ← decay·e + (1−decay)·θ after every step, the exponential moving average. Polyak and Juditsky 1992 for plain means.
struct ema {
  double decay = 0.999;  ///< in [0, 1)

  static constexpr std::string_view kind = "ema";  ///< the average's name
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"average_decay", &ema::decay, range::zero_to_below_one});
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {T(1 - decay), T(decay), k.t == 1, false};
  }
};

/// The mean of the weights after steps start, start + period, start + 2·period, …, and before these e = θ. Stochastic
/// weight averaging (Izmailov et al. 2018).
struct swa {
  double start = 1;   ///< the first step that counts, ≥ 1
  double period = 1;  ///< steps from one that counts to the next, ≥ 1

  static constexpr std::string_view kind = "swa";  ///< the average's name
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"average_start", &swa::start, range::at_least_one},
                                                field{"average_period", &swa::period, range::at_least_one});
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    double weight = 1;
    if (k.t >= start)
      weight = std::fmod(k.t - start, period) < 1 ? 1 / (std::floor((k.t - start) / period) + 1) : 0;
    return {T(weight), T(1 - weight), k.t == 1, false};
  }
};

/// e ← e + alpha·(θ − e) in every period-th step, and then θ ← e: the fast weights θ go ahead, and the slow ones e follow.
/// Lookahead (Zhang et al. 2019).
struct lookahead {
  double alpha = 0.5;  ///< in [0, 1]
  double period = 5;   ///< steps of θ for one of e, ≥ 1

  static constexpr std::string_view kind = "lookahead";  ///< the average's name
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"average_alpha", &lookahead::alpha, range::zero_to_one},
                                                field{"average_period", &lookahead::period, range::at_least_one});
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    const bool follows = std::fmod(k.t, period) < 1 && k.t >= period;
    const double weight = follows ? alpha : 0;
    return {T(weight), T(1 - weight), k.t == 1, follows};
  }
};

}  // namespace average

namespace detail {

/// A list of fields with one more.
template <class First, class... Rest>
constexpr field_list<First, Rest...> prepended(First first, const field_list<Rest...>& rest) noexcept
{
  return {first, rest};
}
template <class Last>
constexpr field_list<Last> appended(const field_list<>&, Last last) noexcept
{
  return fields(last);
}
template <class First, class... Rest, class Last>
constexpr auto appended(const field_list<First, Rest...>& list, Last last) noexcept
{
  return prepended(list.first, appended(list.rest, last));
}
/// The fields of A, which may have none, and one more.
template <class A, class Last>
constexpr auto fields_and(Last last) noexcept
{
  if constexpr (requires { A::fields.bytes; })
    return appended(A::fields, last);
  else
    return fields(last);
}

/// "a+b", as a static text.
template <class A, class B>
inline constexpr auto joined_kinds = [] {
  std::array<char, A::kind.size() + 1 + B::kind.size()> all{};
  std::size_t n = 0;
  for (const std::string_view part : {A::kind, std::string_view("+"), B::kind})
    for (const char c : part)
      all[n++] = c;
  return all;
}();

}  // namespace detail

namespace first_moment {

/// A first moment that keeps an average of the weights beside its own state.
/// \tparam F  the first moment  \tparam A  average::ema, swa or lookahead
template <class F, class A>
struct averaged : F {
  A average_rule;  ///< which average

  /// The rule's name in checkpoints.
  static constexpr std::string_view kind{detail::joined_kinds<F, A>.data(), detail::joined_kinds<F, A>.size()};
  /// F's, and the average.
  static constexpr auto slots = [] {
    std::array<slot, F::slots.size() + 1> all{};
    for (std::size_t k = 0; k < F::slots.size(); ++k)
      all[k] = F::slots[k];
    all[F::slots.size()] = slot{"average", slot::any_sign};
    return all;
  }();
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = detail::fields_and<F>(fields_of(&averaged::average_rule));
  /// The start values of F's slots; the average's is the parameters.
  double initial_value(std::size_t k) const noexcept
  {
    if constexpr (requires(const F& f) { f.initial_value(k); })
      return k < F::slots.size() ? F::initial_value(k) : 0;
    else
      return 0;
  }
  /// False: with momentum 0 there is still an average.
  GRADUS_HOST_DEVICE bool idle() const noexcept { return false; }
  /// The average.
  template <class T>
  T average(const T* state, T) const noexcept
  {
    return state[F::slots.size()];
  }

  /// F's formula.
  template <class T>
  using formula_of_inner = decltype(std::declval<const F&>().template prepare<T>(step_scalars()));
  /// F's formula, and the average after it.
  template <class T>
  struct formula : formula_of_inner<T> {
    gradus::average::formula<T> average;  ///< updates the average
    /// Ends a step: updates the average. \param state  the slots  \param before  θ before the step
    template <class V>
    GRADUS_HOST_DEVICE void finish(V* state, V before, V& theta) const noexcept
    {
      average(state[F::slots.size()], before, theta);
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {F::template prepare<T>(k), average_rule.template prepare<T>(k)};
  }
};

}  // namespace first_moment

/// A recipe that also keeps an average of the weights: `averaged<adamw, average::ema>{{.lr = 1e-3}, {.decay = 0.99}}`.
/// State: the recipe's, and `average`. Not in 8 bits, in which an average would not move.
/// \tparam Recipe  a recipe  \tparam Average  average::ema, swa or lookahead
template <class Recipe, class Average>
struct averaged : Recipe {
  Average average;  ///< the average's hyperparameters

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = detail::fields_and<Recipe>(fields_of(&averaged::average));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    const auto r = Recipe::rule();
    using first = decltype(r.first_moment);
    return compose(r.lr, first_moment::averaged<std::remove_const_t<first>, Average>{r.first_moment, average},
                   r.second_moment, r.step_size, r.decay);
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
