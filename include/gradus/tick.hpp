#pragma once
/// \file
/// What the rules are told once a step, all in double, and the two small types that they share.

#include <cmath>
#include <string_view>
#include <type_traits>

#include <gradus/math.hpp>

#include <gradus/macros_off.hpp>

namespace gradus::inline GRADUS_ISA {

/// The scalars of one step of the tensors that share a group and a step count. A composition fills them in from its
/// rules' hyperparameters (make_tick in compose.hpp); a rule's `prepare<T>(tick)` turns them into its formula.
struct tick {
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

/// One array of state, with an element for each parameter: slot{"exp_avg", slot::any_sign}.
struct slot {
  enum sign : bool { any_sign = false, nonnegative = true };

  std::string_view name = {};    ///< PyTorch's name for it: "exp_avg", "momentum_buffer", …; no slash, and unique in a composition
  bool is_nonnegative = false;  ///< what is kept there never is below zero, as mean squares are; 8-bit codes rely on it

  constexpr slot() = default;
  constexpr slot(std::string_view its_name, bool its_sign) noexcept : name(its_name), is_nonnegative(its_sign) {}
  /// Refused: 8-bit codes of values that may be negative are others, and which is right cannot be guessed.
  template <class Name>
    requires(std::is_convertible_v<const Name&, std::string_view>)
  constexpr slot(const Name& its_name) noexcept : name(its_name), is_nonnegative(true)
  {
    static_assert(sizeof(Name) == 0,
                  "gradus: a slot says which values it keeps: slot{name, slot::any_sign}, or slot{name, slot::nonnegative} for "
                  "what is never below zero.");
  }
  constexpr slot(const slot&) = default;
  constexpr slot& operator=(const slot&) = default;
};

}  // namespace gradus::inline GRADUS_ISA

#include <gradus/macros_on.hpp>
