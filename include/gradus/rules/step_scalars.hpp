#pragma once
/// \file
/// The scalars that rules receive once a step, all in double.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <gradus/kernel/math.hpp>
#include <gradus/kernel/pow.hpp>

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

namespace detail {

/// An unevaluated sum of two doubles, |low| being at most half a unit in the last place of high.
struct double_pair {
  double high, low;
};
/// The product, with a relative error below 2^-100. std::fma would give the low part in one operation, but under
/// -ffast-math clang++ computes it from two; the products of halves are exact.
GRADUS_HOST_DEVICE inline double_pair operator*(const double_pair& a, const double_pair& b) noexcept
{
  const double h = rounded(product(a.high, b.high));
  const double a_h = layout<double>::high(a.high), a_l = rounded(a.high - a_h);
  const double b_h = layout<double>::high(b.high), b_l = rounded(b.high - b_h);
  double l = rounded(product(a_h, b_h) - h);
  l = rounded(l + product(a_h, b_l));
  l = rounded(l + product(a_l, b_h));
  l = rounded(l + product(a_l, b_l));
  l = rounded(l + rounded(product(a.high, b.low) + product(a.low, b.high)));
  const double high = rounded(h + l);
  return {high, l - rounded(high - h)};
}

}  // namespace detail

/// 1 − βᵗ for 0 ≤ β ≤ 1 and a step count t: rounded to nearest, but for one number in a million, if β ≤ 1 − 1e-9; else
/// with a relative error below 1e-15. The bits do not depend on the C library, because βᵗ is computed by squaring in
/// pairs of doubles. A t that is no integer goes through pow.
GRADUS_HOST_DEVICE inline double one_minus_power(double beta, double t) noexcept
{
  if (!(t >= 0 && t < 0x1p63) || double(std::uint64_t(t)) != t) {
    const double power = std::pow(beta, t);
    return power < 0.9375 ? 1 - power : -std::expm1(t * std::log(beta));
  }
  detail::double_pair power{1, 0}, factor{beta, 0};
  for (auto left = std::uint64_t(t);; factor = factor * factor) {
    if (left & 1)
      power = power * factor;
    left >>= 1;
    if (left == 0)
      break;
  }
  const double difference = rounded(1 - power.high);
  return difference + rounded(rounded(rounded(1 - difference) - power.high) - power.low);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
