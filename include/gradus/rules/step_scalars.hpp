#pragma once
/// \file
/// What the rules are told once a step, all in double.

#include <cmath>

#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The scalars of one step of the tensors that share a group and a step count. A composition fills them in from its
/// rules' hyperparameters (make_step_scalars in compose.hpp); a rule's `prepare<T>(step_scalars)` turns them into its formula.
struct step_scalars {
  double lr = 0;           ///< this step's learning rate α, the recipe's lr times lr_scale
  double lr_scale = 1;     ///< what the schedule gave
  double t = 1;            ///< how many steps the tensor has taken, this one included
  double beta2 = 0;        ///< β of the second moment, for rules that have one
  double bc1 = 1;          ///< 1 − β₁ᵗ; 1 where the first moment needs no correction
  double bc2 = 1;          ///< 1 − β₂ᵗ; 1 where there is no second moment
  double gain = 1;         ///< what the first moment of gradients of 1 grows to: (1−dampening)/(1−μ) of a momentum buffer
  double mean_square = 0;  ///< v̄: the mean of v/bc2 over the whole model, for decay::scheduled
};

/// 1 − βᵗ. Where βᵗ is near 1 a difference would keep little more than what pow has rounded off; at t = 1 there is nothing
/// to round.
GRADUS_HOST_DEVICE inline double one_minus_power(double beta, double t) noexcept
{
  const double power = std::pow(beta, t);
  return power < 0.9375 || t == 1 ? 1 - power : -std::expm1(t * std::log(beta));
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
