#pragma once
/// \file
/// Concepts for rules, and for rules that fit together; check_rules has the error message for each violation.

#include <array>
#include <concepts>
#include <string_view>
#include <type_traits>

#include <gradus/rules/hyperparameters.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/rules/step_scalars.hpp>
#include <gradus/rules/sums.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

// ── flags of a rule, each optional ───────────────────────────────────────────────────────────────────────────────────

/// A first moment whose `update` reads the v of the step before.
template <class F>
concept reads_old_v = requires { requires F::reads_old_v; };
/// A first moment whose `update` and `direction` read the new v.
template <class F>
concept reads_new_v = requires { requires F::reads_new_v; };
/// A first moment that reads the new v, and whose `update` and `direction` also read θ.
template <class F>
concept reads_parameters = reads_new_v<F> && requires { requires F::reads_parameters; };
/// A first moment that reads v.
template <class F>
concept reads_v = reads_old_v<F> || reads_new_v<F>;
/// A first moment whose `direction` is computed from the slots before `update`.
template <class F>
concept updates_last = requires { requires F::updates_last; };
/// A first moment that keeps scalars: it has `scalars`, and `advance(double*, const step_scalars&)`.
template <class F>
concept keeps_scalars = requires { F::scalars.size(); };
/// A first moment that gives the second moment another gradient than g.
template <class F>
concept changes_gradient_of_v = requires(const F& f, const double* slots) {
  f.template prepare<double>(step_scalars{}).gradient_of_v(slots, 1.0);
};
/// A first moment with a last word on the new θ: its formula has `finish(slots, θ before, θ)`.
template <class F>
concept finishes_step = requires(const F& f, double* slots, double& theta) {
  f.template prepare<double>(step_scalars{}).finish(slots, 1.0, theta);
};
/// A first moment whose step cannot be taken in two passes, moments and weights.
template <class F>
concept takes_one_pass = updates_last<F> || finishes_step<F>;
/// A first moment whose directions an engine computes from whole matrices.
template <class F>
concept works_on_matrices = requires { requires F::works_on_matrices; };
/// A first moment that stands for an average of the weights: `average(slots, θ)` computes it.
template <class F>
concept averages_weights = requires(const F& f, const double* slots) {
  { f.average(slots, 1.0) } -> std::convertible_to<double>;
};
/// A first moment whose direction contains the learning rate.
template <class F>
concept contains_lr = requires { requires F::contains_lr; };
/// A decay or first moment that needs v̄, the mean of the second moment over the whole model.
template <class R>
concept reads_mean_square = requires { requires R::reads_mean_square; };
/// A second moment that depends on the direction d.
template <class S>
concept reads_direction = requires { requires S::reads_direction; };
/// A second moment with the unit of g instead of g².
template <class S>
concept is_norm = requires { requires S::is_norm; };
/// A step size that divides by a norm.
template <class P>
concept reads_norm = requires { requires P::reads_norm; };

// ── members of a rule ────────────────────────────────────────────────────────────────────────────────────────────────

namespace detail {

template <class R>
concept has_kind = requires { std::string_view(R::kind); };
template <class R>
concept has_slots = requires {
  R::slots.size();
  requires std::is_same_v<std::remove_cvref_t<decltype(*R::slots.data())>, slot>;
};
template <class R>
concept has_correction = requires(const R& r) {
  { r.correction(1.0) } -> std::convertible_to<double>;
};
template <class R>
concept has_prepare = requires(const R& r) {
  r.template prepare<float>(step_scalars{});
  requires std::is_trivially_copyable_v<decltype(r.template prepare<double>(step_scalars{}))>;
};
template <class R>
concept updates_with_parameters = requires(const R& r, double* slots) {
  r.template prepare<double>(step_scalars{}).update(slots, 1.0, 1.0, 1.0);
  { r.template prepare<double>(step_scalars{}).direction(slots, 1.0, 1.0, 1.0) } -> std::convertible_to<double>;
};
template <class R>
concept updates_with_gradient = (reads_parameters<R> && updates_with_parameters<R>) ||
                                (!reads_v<R> && requires(const R& r, double* slots) {
                                  r.template prepare<double>(step_scalars{}).update(slots, 1.0);
                                  {
                                    r.template prepare<double>(step_scalars{}).direction(slots, 1.0)
                                  } -> std::convertible_to<double>;
                                }) || (reads_v<R> && !reads_parameters<R> && requires(const R& r, double* slots) {
                                  r.template prepare<double>(step_scalars{}).update(slots, 1.0, 1.0);
                                  requires reads_old_v<R> || requires {
                                    {
                                      r.template prepare<double>(step_scalars{}).direction(slots, 1.0, 1.0)
                                    } -> std::convertible_to<double>;
                                  };
                                  requires reads_new_v<R> || requires {
                                    {
                                      r.template prepare<double>(step_scalars{}).direction(slots, 1.0)
                                    } -> std::convertible_to<double>;
                                  };
                                });
template <class R>
concept updates_with_direction = requires(const R& r, double* slots) {
  r.template prepare<double>(step_scalars{}).update(slots, 1.0, 1.0);
};
template <class R>
concept says_what_it_keeps = R::slots.size() == 0 || requires {
  R::slots[R::value_slot];
  { R::linear } -> std::convertible_to<bool>;
};
template <class R>
concept gives_a_step = requires(const R& r) {
  { R::reads_second_moment } -> std::convertible_to<bool>;
  { r.template prepare<double>(step_scalars{})(1.0) } -> std::convertible_to<double>;
};
template <class P>
concept finishes_its_sums = !has_sums<P> || requires(const P& p, double* to, const double* sums) {
  requires std::is_same_v<std::remove_cvref_t<decltype(P::sums_over)>, scope>;
  requires std::is_same_v<std::remove_cvref_t<decltype(*P::terms.data())>, summed>;
  p.template prepare<double>(step_scalars{}).term(to, 1.0, 1.0, 1.0, 1.0);
  { p.finish(sums, 1.0, step_scalars{}) } -> std::convertible_to<step_factors>;
};
/// Neither a rule of another family, nor one whose formula has coefficients that nothing reads.
template <class R>
concept acts_as_decay = !requires { R::slots; } && !requires { R::reads_second_moment; } && requires(const R& r) {
  requires std::is_empty_v<decltype(r.template prepare<double>(step_scalars{}))> ||
               requires { r.template prepare<double>(step_scalars{}).gradient(1.0, 1.0); } ||
               requires { r.template prepare<double>(step_scalars{}).decrement(1.0); } ||
               requires { r.template prepare<double>(step_scalars{}).weights(1.0); } ||
               requires { r.template prepare<double>(step_scalars{}).decrement(1.0, 1.0); } ||
               requires { r.template prepare<double>(step_scalars{}).weights(1.0, 1.0); };
};

template <class R>
concept says_its_rate = !requires { requires R::reads_mean_square; } || requires(const R& r) {
  { r.rate(step_scalars{}) } -> std::convertible_to<double>;
  { r.eps } -> std::convertible_to<double>;
};

/// The number of scalars that a first moment keeps.
template <class F>
constexpr std::size_t scalar_count() noexcept
{
  if constexpr (keeps_scalars<F>)
    return F::scalars.size();
  else
    return 0;
}
template <class F>
concept advances_its_scalars = !keeps_scalars<F> || requires(const F& f, double* state) {
  requires scalar_count<F>() <= step_scalars::most_state;
  requires std::is_same_v<std::remove_cvref_t<decltype(*F::scalars.data())>, scalar>;
  f.advance(state, step_scalars{});
};

template <class R>
constexpr bool value_is_nonnegative() noexcept
{
  if constexpr (has_slots<R>)
    if constexpr (R::slots.size() > 0)
      return R::slots[R::value_slot].is_nonnegative;
  return true;
}

/// Whether all names of slots and scalars of a composition can be keys in a checkpoint, and are distinct.
template <class F, class S>
constexpr bool slot_names_are_good() noexcept
{
  constexpr std::size_t n = F::slots.size() + S::slots.size() + scalar_count<F>();
  std::string_view names[n + 1];
  std::size_t count = 0;
  for (const slot& s : F::slots)
    names[count++] = s.name;
  for (const slot& s : S::slots)
    names[count++] = s.name;
  if constexpr (keeps_scalars<F>)
    for (const scalar& s : F::scalars)
      names[count++] = s.name;
  for (std::size_t i = 0; i < n; ++i) {
    for (const std::string_view taken :
         {"", "step", "trained", "master", "seed", "exp_avg_sq_sum", "exp_avg_sq_sum_is_of_model"})
      if (names[i] == taken)
        return false;
    if (names[i].find('/') != names[i].npos)
      return false;
    for (std::size_t k = 0; k < n; ++k)  // block8 keeps a slot's scales under "NAME_scale"
      if (k != i && names[k].starts_with(names[i]) &&
          (names[k] == names[i] || names[k].substr(names[i].size()) == "_scale"))
        return false;
  }
  return true;
}
template <class R>
constexpr bool field_names_are_good() noexcept
{
  if constexpr (requires { R::fields.bytes; }) {
    // Each name must be found exactly once.
    bool good = true;
    R::fields.any_name([&](std::string_view name) {
      std::size_t found = 0;
      R::fields.any_name([&](std::string_view other) {
        found += other == name;
        return false;
      });
      good = good && found == 1 && !name.empty() && name.find_first_of("/ =\t\n") == name.npos;
      return false;
    });
    return good;
  } else
    return true;
}
template <class R>
concept listed = (lists_its_fields<R> || requires { R::has_no_default; }) &&
                 field_names_are_good<R>();  // a composition's rules list theirs

}  // namespace detail

/// Rule for the direction d: has `kind`, `slots`, `correction(t)`, and `prepare<T>(step_scalars)`, whose formula has
/// `update(slots, g)` and `direction(slots, g)`, or takes v as their third argument; also `fields`, if it has
/// hyperparameters. See CONTRIBUTING.md.
template <class F>
concept first_moment_rule = detail::has_kind<F> && detail::has_slots<F> && detail::has_correction<F> &&
                            detail::has_prepare<F> && detail::updates_with_gradient<F> && detail::listed<F> &&
                            detail::advances_its_scalars<F>;

/// Rule for the second moment v: as above, but the formula has `update(slots, g, d)`. A rule with slots also has
/// `value_slot`, whose slot is nonnegative, and `linear`; if `linear` is true, also `beta()`.
template <class S>
concept second_moment_rule = detail::has_kind<S> && detail::has_slots<S> && detail::has_correction<S> &&
                             detail::has_prepare<S> && detail::updates_with_direction<S> &&
                             detail::says_what_it_keeps<S> && detail::value_is_nonnegative<S>() && detail::listed<S>;

/// Rule for the step size a(v): has `kind`, `reads_second_moment`, and `prepare<T>(step_scalars)`, which returns a
/// function of v.
template <class P>
concept step_size_rule = detail::has_kind<P> && detail::has_prepare<P> && detail::gives_a_step<P> && detail::listed<P>;

/// Rule for weight decay: has `kind`, and `prepare<T>(step_scalars)`, whose formula has `gradient(g, θ)`,
/// `decrement(θ)` or `weights(θ)`, which may also take the direction d, or is empty.
template <class D>
concept decay_rule = detail::has_kind<D> && detail::has_prepare<D> && detail::acts_as_decay<D> && detail::listed<D>;

// ── which rules fit together ─────────────────────────────────────────────────────────────────────────────────────────

/// A second moment that keeps state: any but `none`.
template <class S>
concept keeps_second_moment = S::slots.size() > 0;

/// The step size P can read a second moment from S, or needs none.
template <class S, class P>
concept step_size_is_served = !P::reads_second_moment || keeps_second_moment<S>;

/// The step size P takes the root of S if that is a mean of squares, and none if it is a norm.
template <class S, class P>
concept unit_is_served = !P::reads_second_moment || is_norm<S> == reads_norm<P>;

/// The first moment F can have v from S, or needs none.
template <class F, class S>
concept v_is_served = !reads_v<F> || (keeps_second_moment<S> && !is_norm<S>);

/// The second moment S can have the direction from F, or needs none.
template <class F, class S>
concept direction_is_served = !reads_direction<S> || !(reads_new_v<F> || changes_gradient_of_v<F>);

/// The decay D can have v̄ from the second moment S, or needs none.
template <class S, class D>
concept scheduled_decay_is_served = !reads_mean_square<D> || keeps_second_moment<S>;

/// The step size P can have its sums before the first weight moves, or needs none.
template <class F, class P, class D>
concept sums_are_served = !has_sums<P> || !(takes_one_pass<F> || reads_mean_square<F> || reads_mean_square<D>);

/// The first moment F can have v̄, because it is updated after the second moment; or it needs none.
template <class F>
concept mean_is_served = !reads_mean_square<F> || (reads_new_v<F> && !takes_one_pass<F> && !changes_gradient_of_v<F>);

/// The decay D can have v̄ before the direction is computed, because v̄ follows from the gradient norm; or the direction
/// can be computed after all moments.
template <class F, class S, class D>
concept two_passes_are_served = !takes_one_pass<F> || !reads_mean_square<D> || S::linear;

/// A direction of F that contains the learning rate is taken by P as it is, and not scaled by D; or F has no such.
template <class F, class P, class D>
concept lr_is_taken_once =
    !contains_lr<F> ||
    (requires { requires P::leaves_direction; } && !requires(const D& d) { d.step_factor(step_scalars{}); });

/// The decay D can have `gain()` from the first moment F, or needs none.
template <class F, class D>
concept stable_decay_is_served = !requires { requires D::reads_gain; } || requires(const F& f) {
  { f.gain() } -> std::convertible_to<double>;
};

/// The step size P can have `beta()` from the second moment S, or does not read step_scalars::beta2 (rectified does).
template <class S, class P>
concept beta_is_served = !requires { requires P::reads_beta; } || requires(const S& s) {
  { s.beta() } -> std::convertible_to<double>;
};

/// The second moment S has the `beta()` that a `linear` one needs, or is not linear.
template <class S>
concept linearity_is_served = !S::linear || requires(const S& s) {
  { s.beta() } -> std::convertible_to<double>;
};

namespace detail {

/// Whether four rules are valid together; a static_assert fails for the first problem found.
template <class F, class S, class P, class D>
constexpr bool check_rules() noexcept
{
  // One static_assert a line; after the first that fails, the others are not evaluated.
#define GRADUS_REFUSE(condition, sentence)         \
  if constexpr (!(condition)) {                    \
    static_assert(condition, "gradus: " sentence); \
    return false;                                  \
  } else
#define GRADUS_REFUSE_RULE(R, place, family)                                                                           \
  GRADUS_REFUSE(has_kind<R>, "the " place " of a composition is no rule: it has no `kind`; " family)                   \
  GRADUS_REFUSE(lists_its_fields<R>,                                                                                   \
                "the " place " has members that its `fields` does not list (or no `fields`); list each: static "       \
                "constexpr auto fields = gradus::fields(gradus::field{\"alpha\", &rule::alpha, "                       \
                "gradus::range::zero_to_one}).")                                                                       \
  GRADUS_REFUSE(field_names_are_good<R>(),                                                                             \
                "the " place " lists two fields of one name, or a name that is empty or has a space, a slash or an "   \
                "equals sign.")
  GRADUS_REFUSE_RULE(F, "first rule", "expected one of first_moment (none, momentum, ema and others, or your own).")
  GRADUS_REFUSE(has_slots<F>,
                "the first rule is a first moment, and this has no `slots`; expected a std::array of gradus::slot, or "
                "one of first_moment (rules stand in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(has_correction<F>,
                "the first moment has no `correction(t)`; expected 1 - beta^t of a moving average from 0, or 1.")
  GRADUS_REFUSE(has_prepare<F>, "the first moment has no `prepare<T>(const gradus::step_scalars&) const`, which gives "
                                "its formula, a trivially copyable struct.")
  GRADUS_REFUSE(
      updates_with_gradient<F>,
      "the first rule's formula has no `update(V* slots, V g)` and `direction(const V* slots, V g)` of any value type "
      "V, as a first moment has (rules stand in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(advances_its_scalars<F>,
                "the first moment keeps scalars and has no `advance(double*, const gradus::step_scalars&) const`, or "
                "its `scalars` is no std::array of at most two gradus::scalar.")
  GRADUS_REFUSE_RULE(S, "second rule",
                     "expected one of second_moment (none, ema, ema_max, yogi and others, or your own).")
  GRADUS_REFUSE(has_slots<S>,
                "the second rule is a second moment, and this has no `slots`; expected a std::array of gradus::slot, "
                "or one of second_moment (rules stand in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(has_correction<S>,
                "the second moment has no `correction(t)`; expected 1 - beta^t of a moving average from 0, or 1.")
  GRADUS_REFUSE(has_prepare<S>, "the second moment has no `prepare<T>(const gradus::step_scalars&) const`, which gives "
                                "its formula, a trivially copyable struct.")
  GRADUS_REFUSE(updates_with_direction<S>,
                "the second rule's formula has no `update(V* slots, V g, V d)` of any value type V, as a second moment "
                "has (rules stand in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(says_what_it_keeps<S>,
                "the second moment has slots and no `value_slot` (which of them step sizes read as v) or no `linear`.")
  GRADUS_REFUSE(
      value_is_nonnegative<S>(),
      "the second moment's value slot is slot::any_sign; expected slot::nonnegative, as step sizes take its root.")
  GRADUS_REFUSE(linearity_is_served<S>,
                "the second moment is `linear` and has no `beta()`, by which its sum follows from the gradient's norm.")
  GRADUS_REFUSE_RULE(
      P, "third rule",
      "expected one of step_size (constant, adaptive, bounded, partially_adaptive, rectified and others, or your own).")
  GRADUS_REFUSE(has_prepare<P>, "the step size has no `prepare<T>(const gradus::step_scalars&) const`, which gives its "
                                "formula, a trivially copyable struct.")
  GRADUS_REFUSE(gives_a_step<P>,
                "the third rule is a step size, and this has no `reads_second_moment` or a formula that is no function "
                "of v (rules stand in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(
      finishes_its_sums<P>,
      "the step size has `sums_over` and no `terms` (a std::array of gradus::summed), no `finish(const double* "
      "sums, double n, const gradus::step_scalars&) const` that returns gradus::step_factors, or its formula no "
      "`term(V* to, V theta, V g, V d, V v)`.")
  GRADUS_REFUSE_RULE(D, "fourth rule",
                     "expected one of decay (none, l2, decoupled, scheduled and others, or your own).")
  GRADUS_REFUSE(has_prepare<D>, "the decay has no `prepare<T>(const gradus::step_scalars&) const`, which gives its "
                                "formula, a trivially copyable struct.")
  GRADUS_REFUSE(acts_as_decay<D>, "the fourth rule is a decay, and this is another rule, or its formula has none of "
                                  "`gradient(V g, V theta)`, `decrement(V theta)` and `weights(V theta)` (rules stand "
                                  "in the order first moment, second moment, step size, decay).")
  GRADUS_REFUSE(says_its_rate<D>, "the decay reads the mean square and has no `double rate(const "
                                  "gradus::step_scalars&) const`, or no `double eps`, which a step's report shows.")
  GRADUS_REFUSE((slot_names_are_good<F, S>()),
                "two slots of a composition have one name, or one has a name that checkpoints use otherwise; expected "
                "names without a slash, each once (and none that is another's with _scale).")
  GRADUS_REFUSE((step_size_is_served<S, P>),
                "this step size divides by the root of a second moment, and second_moment::none keeps none; "
                "take second_moment::ema (or another), or step_size::constant.")
  GRADUS_REFUSE((unit_is_served<S, P> || !is_norm<S>),
                "this step size takes the root of a mean of squares, and the second moment is a norm; take "
                "step_size::by_norm.")
  GRADUS_REFUSE((unit_is_served<S, P>),
                "this step size divides by a norm, and the second moment is a mean of squares; take "
                "second_moment::infinity_norm, or step_size::adaptive.")
  GRADUS_REFUSE((v_is_served<F, S>),
                "this first moment divides the gradient by the root of a mean of squares, and the second moment keeps "
                "none; take second_moment::ema (or another), or first_moment::ema.")
  GRADUS_REFUSE(
      (direction_is_served<F, S>),
      "this second moment is computed from the direction, and with this first moment it is computed before the "
      "direction; take second_moment::ema, or first_moment::ema.")
  GRADUS_REFUSE((beta_is_served<S, P>),
                "this step size is computed from beta2, and the second moment has no `double beta() const`; "
                "add it, or take step_size::adaptive.")
  GRADUS_REFUSE((scheduled_decay_is_served<S, D>),
                "decay::scheduled divides by the mean of the second moment, and second_moment::none keeps none; "
                "take second_moment::ema (or another), or decay::stable for SGD.")
  GRADUS_REFUSE((!reads_mean_square<D> || !is_norm<S>),
                "decay::scheduled divides by the root of a mean of squares, and the second moment is a norm; take "
                "decay::decoupled.")
  GRADUS_REFUSE(
      (two_passes_are_served<F, S, D>),
      "decay::scheduled needs all moments before the first weight unless the second moment is linear, and this "
      "first moment computes its direction before its update, or averages weights; take second_moment::ema, or "
      "decay::decoupled.")
  GRADUS_REFUSE((sums_are_served<F, P, D> || !takes_one_pass<F>),
                "this step size needs sums before the first weight moves, and this first moment computes its direction "
                "before its update, or averages weights, in one pass; take step_size::adaptive, or first_moment::ema.")
  GRADUS_REFUSE(
      (sums_are_served<F, P, D>),
      "this step size needs sums before the first weight moves, and the decay or the first moment another sum "
      "before these; take decay::decoupled (and first_moment::ema), or step_size::adaptive.")
  GRADUS_REFUSE((mean_is_served<F>),
                "the first moment reads the mean square, which is known only after all second moments; expected "
                "`reads_new_v`, so that the second moment is updated first, and no `updates_last`, `gradient_of_v` or "
                "average of weights.")
  GRADUS_REFUSE(
      (lr_is_taken_once<F, P, D> || !requires { requires P::leaves_direction; }),
      "this first moment's direction cannot be scaled by the decay, because it contains the learning rate; take "
      "decay::decoupled.")
  GRADUS_REFUSE((lr_is_taken_once<F, P, D>),
                "this first moment's direction contains the learning rate, and the step size would multiply it by that "
                "again; take step_size::one.")
  GRADUS_REFUSE((stable_decay_is_served<F, D>),
                "decay::stable is scaled by a momentum buffer's mu and dampening; "
                "take first_moment::momentum, a first moment of your own with `gain()`, or decay::decoupled.")
  return true;
#undef GRADUS_REFUSE_RULE
#undef GRADUS_REFUSE
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
