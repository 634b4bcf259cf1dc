#pragma once
/// \file
/// A composition of four rules and a learning rate; every recipe has one.

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <gradus/rules/concepts.hpp>
#include <gradus/rules/decay.hpp>
#include <gradus/rules/first_moment.hpp>
#include <gradus/rules/second_moment.hpp>
#include <gradus/rules/step_size.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Four rules and a learning rate. A recipe's `rule()` and `compose` return one, and it is a recipe itself.
template <class FirstMoment, class SecondMoment, class StepSize, class Decay>
struct composition {
  /// Whether the rules are complete and fit together; if not, one static_assert has failed, and no other error follows.
  static constexpr bool is_good = detail::check_rules<FirstMoment, SecondMoment, StepSize, Decay>();

  double lr;  ///< learning rate, ≥ 0; it has no default
  /// The name and range of lr; each rule lists its own hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&composition::lr));
  FirstMoment first_moment;    ///< g → d
  SecondMoment second_moment;  ///< g → v
  StepSize step_size;          ///< a(v) in u = a(v)·d
  Decay decay;                 ///< adds to g, or shrinks θ

  /// Arrays of state for each tensor: the first moment's, then the second moment's.
  static constexpr std::size_t slots = [] {
    if constexpr (is_good)
      return FirstMoment::slots.size() + SecondMoment::slots.size();
    else
      return std::size_t(0);
  }();
  /// Bytes of optimizer state for each parameter. With momentum 0 there is no buffer, and they are fewer.
  template <class T>
  static constexpr std::size_t state_bytes = slots * sizeof(T);

  /// Whether a step needs sums over tensors or the model before the first weight moves, and so two passes.
  static constexpr bool sums = has_sums<StepSize>;
  /// Whether these are sums over the model.
  static constexpr bool sums_over_model = [] {
    if constexpr (sums)
      return StepSize::sums_over == scope::model;
    else
      return false;
  }();
  /// Whether a step needs v̄.
  static constexpr bool scheduled = reads_mean_square<Decay> || reads_mean_square<FirstMoment>;
  /// Whether a step needs v̄ and one pass is enough, because v̄ follows from the gradient norm.
  static constexpr bool scheduled_in_one_pass = [] {
    if constexpr (is_good && scheduled)
      return SecondMoment::linear && !changes_gradient_of_v<FirstMoment> &&
             !requires(const Decay& d) { d.template prepare<double>(step_scalars{}).gradient(1.0, 1.0); };
    else
      return false;
  }();

  /// As `compose`. Ranges are checked where an optimizer takes the composition.
  constexpr composition(double learning_rate, FirstMoment f, SecondMoment s, StepSize p, Decay d) noexcept
      : lr(learning_rate), first_moment(f), second_moment(s), step_size(p), decay(d)
  {}
  /// Does not compile, because lr has no default.
  template <class Lr = void>
  constexpr composition() noexcept
  {
    static_assert(!std::is_void_v<Lr>,
                  "gradus: lr was not given: a composition has no default; take what compose(lr, …) returns.");
  }

  /// Itself.
  constexpr composition rule() const noexcept { return *this; }
  static constexpr bool has_no_default = true;  ///< because of lr

  /// Refuses hyperparameters of the rules that are out of range.
  void validate() const
  {
    gradus::validate(first_moment);
    gradus::validate(second_moment);
    gradus::validate(step_size);
    gradus::validate(decay);
  }
};

namespace detail {
using some_composition = composition<first_moment::ema, second_moment::ema, step_size::adaptive, decay::none>;
}

/// Makes a recipe from a learning rate and four rules: `compose(1e-3, first_moment::ema{.beta1 = 0.9},
/// second_moment::ema_max{}, step_size::adaptive{}, decay::scheduled{})`. Rules in another order, and rules that do not
/// fit together, do not compile.
template <class F, class S, class P, class D>
constexpr auto compose(double lr, F first_moment, S second_moment, P step_size, D decay) noexcept
{
  if constexpr (detail::check_rules<F, S, P, D>())
    return composition<F, S, P, D>{lr, first_moment, second_moment, step_size, decay};
  else  // some valid composition, so that the static_assert is the only error
    return detail::some_composition(0, {}, {}, {}, {});
}
/// Does not compile: too few or too many arguments, or the first is no number.
template <class First, class... Rest>
  requires(sizeof...(Rest) != 4 || !std::is_convertible_v<First, double>)
constexpr auto compose(const First&, const Rest&...) noexcept
{
  static_assert(sizeof...(Rest) == 4,
                "gradus: compose takes a learning rate and four rules: compose(lr, first_moment, second_moment, "
                "step_size, decay); where there is no decay, decay::none{}.");
  static_assert(sizeof...(Rest) != 4,
                "gradus: compose takes the learning rate first, a number: compose(lr, first_moment, "
                "second_moment, step_size, decay).");
  return detail::some_composition(0, {}, {}, {}, {});
}

namespace detail {
template <class F, class S, class P, class D>
std::bool_constant<composition<F, S, P, D>::is_good> composition_is_good(const composition<F, S, P, D>&);

/// Has a `rule()` that returns a composition, valid or not.
template <class R>
concept gives_composition = requires(const R& r) { composition_is_good(r.rule()); };
}  // namespace detail

/// An aggregate that an optimizer can be made from: `rule()` returns a valid composition, and `fields` lists its
/// members.
template <class R>
concept recipe = detail::gives_composition<R> &&
                 decltype(detail::composition_is_good(std::declval<const R&>().rule()))::value;

namespace detail {

/// What a step makes of a group's learning rate and decay.
struct step_rates {
  double lr_scale = 1;     // the step's factor on the group's lr
  double lr = -1;          // replaces the group's lr and lr_scale; negative for none
  double decay_scale = 1;  // factor on weight_decay
  double group_scale = 1;  // the group's own factor, on either lr

  /// The step's learning rate for a rule's lr.
  GRADUS_HOST_DEVICE double lr_of(double of_rule) const noexcept
  {
    return lr >= 0 ? lr * group_scale : of_rule * (lr_scale * group_scale);
  }
  /// The factor by which that differs from the rule's lr; for a rule's lr of 0, the group's.
  GRADUS_HOST_DEVICE double scale_of(double of_rule) const noexcept
  {
    return (lr < 0 ? lr_scale : of_rule > 0 ? lr / of_rule : 1) * group_scale;
  }
};

/// A decay with its weight_decay multiplied by the step's decay_scale.
template <class D>
GRADUS_HOST_DEVICE D scaled_decay(D decay, [[maybe_unused]] const step_scalars& k) noexcept
{
  if constexpr (requires { decay.weight_decay; })
    decay.weight_decay *= k.decay_scale;
  return decay;
}

/// The scalars of step t, from the scalars that a first moment kept after the step before.
/// \param kept  not read in the first step, nor if there are none
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE step_scalars scalars_of_step(const composition<F, S, P, D>& rule, std::uint64_t t,
                                                const step_rates& rates, double mean_square,
                                                [[maybe_unused]] const double* kept) noexcept
{
  step_scalars k{.lr = rates.lr_of(rule.lr),
                 .lr_scale = rates.scale_of(rule.lr),
                 .decay_scale = rates.decay_scale,
                 .t = double(t),
                 .mean_square = mean_square};
  if constexpr (requires { rule.first_moment.lr_factor(k.t); })
    k.lr *= rule.first_moment.lr_factor(k.t);
  if constexpr (requires { rule.step_size.lr_factor(k.t); })
    k.lr *= rule.step_size.lr_factor(k.t);
  k.bc1 = rule.first_moment.correction(k.t);
  k.bc2 = rule.second_moment.correction(k.t);
  if constexpr (requires { rule.second_moment.beta(); })
    k.beta2 = rule.second_moment.beta();
  if constexpr (requires { rule.first_moment.gain(); })
    k.gain = rule.first_moment.gain();
  if constexpr (keeps_scalars<F>) {
    constexpr auto list = F::scalars;
    for (std::size_t i = 0; i < list.size(); ++i)
      k.state[i] = t == 1 ? list[i].start : kept[i];
    rule.first_moment.advance(k.state, k);
  }
  return k;
}

}  // namespace detail

/// The scalars of step t for the rules of a composition.
/// \param rule  a recipe's `rule()`
/// \param t  the step count, from 1
/// \param lr_scale  a schedule's factor on lr, ≥ 0
/// \param mean_square  v̄ for a rule that reads it; 0 if all gradients so far were 0
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE step_scalars make_step_scalars(const composition<F, S, P, D>& rule, std::uint64_t t, double lr_scale,
                                                  double mean_square) noexcept
{
  static_assert(!keeps_scalars<F>,
                "gradus: this first moment keeps scalars from step to step; pass what make_step_scalars returned for "
                "the step before as its fifth argument (in the first step, step_scalars{}).");
  return detail::scalars_of_step(rule, t, {.lr_scale = lr_scale}, mean_square, nullptr);
}
/// The same for a first moment that keeps scalars from step to step, as `nadam`'s.
/// \param before  what this returned for the step before; in the first step, step_scalars{}
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE step_scalars make_step_scalars(const composition<F, S, P, D>& rule, std::uint64_t t, double lr_scale,
                                                  double mean_square, const step_scalars& before) noexcept
{
  return detail::scalars_of_step(rule, t, {.lr_scale = lr_scale}, mean_square, before.state);
}
/// The same for rules that do not need v̄.
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE step_scalars make_step_scalars(const composition<F, S, P, D>& rule, std::uint64_t t,
                                                  double lr_scale) noexcept
{
  static_assert(
      !reads_mean_square<D>,
      "gradus: this decay is scheduled by the mean of the second moment over the whole model, and without it nothing "
      "would decay; pass it as make_step_scalars's fourth argument.");
  static_assert(!reads_mean_square<F>,
                "gradus: this first moment reads the mean of the second moment over the whole model; pass it as "
                "make_step_scalars's fourth argument.");
  return make_step_scalars(rule, t, lr_scale, 0);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
