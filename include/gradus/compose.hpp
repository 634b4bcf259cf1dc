#pragma once
/// \file
/// A composition of four rules and a learning rate, and which compositions make sense.

#include <cstdint>
#include <type_traits>

#include <gradus/decay.hpp>
#include <gradus/first_moment.hpp>
#include <gradus/hyperparameters.hpp>
#include <gradus/second_moment.hpp>
#include <gradus/step_size.hpp>

namespace gradus::inline GRADUS_ISA {

template <class S>
concept keeps_second_moment = S::slots.size() > 0;

template <class S, class P>
concept step_size_is_served = !P::reads_second_moment || keeps_second_moment<S>;

/// A decay that is scheduled by v̄, the mean of the second moment over the whole model.
template <class D>
concept reads_mean_square = requires { requires D::reads_mean_square; };

template <class S, class D>
concept scheduled_decay_is_served = !reads_mean_square<D> || keeps_second_moment<S>;

template <class F, class D>
concept momentum_corrected_decay_is_served = !requires { requires D::reads_momentum; } || requires(F f) { f.momentum; };

/// Four rules and a learning rate: what a recipe's `rule()` and `compose` give, and itself a recipe.
template <class FirstMoment, class SecondMoment, class StepSize, class Decay>
struct composition {
  static_assert(step_size_is_served<SecondMoment, StepSize>,
                "gradus: this step size divides by the root of a second moment, and second_moment::none keeps none; "
                "take second_moment::ema (or another), or step_size::constant.");
  static_assert(scheduled_decay_is_served<SecondMoment, Decay>,
                "gradus: decay::scheduled divides by the mean of the second moment, and second_moment::none keeps none; "
                "take second_moment::ema (or another), or decay::momentum_corrected for SGD.");
  static_assert(momentum_corrected_decay_is_served<FirstMoment, Decay>,
                "gradus: decay::momentum_corrected is scaled by a momentum buffer's mu and dampening; "
                "take first_moment::momentum, or decay::decoupled.");

  double lr;
  FirstMoment first_moment;
  SecondMoment second_moment;
  StepSize step_size;
  Decay decay;

  static constexpr std::size_t slots = FirstMoment::slots.size() + SecondMoment::slots.size();
  /// Bytes of optimizer state a parameter; a momentum of 0 keeps no buffer and saves its part.
  template <class T>
  static constexpr std::size_t state_bytes = slots * sizeof(T);

  /// Whether a step needs v̄, and if so, whether v̄ follows from the gradient's norm so that one pass is enough.
  static constexpr bool scheduled = reads_mean_square<Decay>;
  static constexpr bool scheduled_in_one_pass =
      scheduled && SecondMoment::linear && !requires(const Decay& d) { d.template prepare<double>(tick{}).gradient(1.0, 1.0); };

  constexpr composition rule() const noexcept { return *this; }

  void validate() const
  {
    gradus::validate(first_moment);
    gradus::validate(second_moment);
    gradus::validate(step_size);
    gradus::validate(decay);
  }
};

/// `compose(1e-3, first_moment::ema{.beta1 = 0.9}, second_moment::ema_max{}, step_size::adaptive{}, decay::scheduled{})`
template <class F, class S, class P, class D>
constexpr composition<F, S, P, D> compose(double lr, F first_moment, S second_moment, P step_size, D decay) noexcept
{
  return {lr, first_moment, second_moment, step_size, decay};
}

/// The scalars of step t (counted from 1) for the rules of a composition.
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE tick make_tick(const composition<F, S, P, D>& rule, std::uint64_t t, double lr_scale) noexcept
{
  tick k{.lr = rule.lr * lr_scale, .lr_scale = lr_scale, .t = double(t)};
  if constexpr (requires { rule.first_moment.beta1; })
    k.bc1 = one_minus_power(rule.first_moment.beta1, k.t);
  if constexpr (requires { rule.second_moment.beta2; }) {
    k.beta2 = rule.second_moment.beta2;
    k.bc2 = one_minus_power(k.beta2, k.t);
  }
  if constexpr (requires { rule.first_moment.dampening; }) {
    k.momentum = rule.first_moment.momentum;
    k.dampening = rule.first_moment.dampening;
  }
  return k;
}

}  // namespace gradus::inline GRADUS_ISA
