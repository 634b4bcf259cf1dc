#pragma once
/// \file
/// The scalars that rules receive once a step, all in double.

#include <cmath>
#include <cstddef>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The scalars of one step, for all tensors that share a group and a step count. make_step_scalars (composition.hpp)
/// fills them in from the hyperparameters; a rule's `prepare<T>(step_scalars)` turns them into its formula.
struct step_scalars {
  double lr = 0;        ///< this step's learning rate α: the recipe's lr times lr_scale, and times a rule's lr_factor
  double lr_scale = 1;  ///< the schedule's factor
  double decay_scale = 1;  ///< factor on the decay's weight_decay, which `prepare` applies
  double t = 1;            ///< the tensor's step count, this step included
  double beta2 = 0;        ///< β₂, if the second moment has one
  double bc1 = 1;          ///< 1 − β₁ᵗ; 1 if the first moment needs no bias correction
  double bc2 = 1;          ///< 1 − β₂ᵗ; 1 if there is no second moment
  double gain = 1;         ///< limit of the first moment while every gradient is 1: (1−dampening)/(1−μ) for momentum
  double mean_square = 0;  ///< v̄: the mean of v/bc2 over the whole model, for decay::scheduled
  double decay_rate = 0;   ///< s of a decay in proportion to α, for a step size with sums
  /// The most scalars that a rule may keep.
  static constexpr std::size_t most_state = 2;
  double state[most_state] = {};  ///< the first moment's scalars, after `advance` of this step
};

/// 1 − βᵗ, accurate also for βᵗ near 1, where the plain difference loses its digits to cancellation (not at t = 1,
/// where pow does not round).
GRADUS_HOST_DEVICE inline double one_minus_power(double beta, double t) noexcept
{
  const double power = std::pow(beta, t);
  return power < 0.9375 || t == 1 ? 1 - power : -std::expm1(t * std::log(beta));
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
