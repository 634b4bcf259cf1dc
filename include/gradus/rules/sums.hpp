#pragma once
/// \file
/// Sums over the elements of a tensor or of the model, which some step sizes need before the first weight moves.
///
/// Such a step size has `sums_over`, `terms`, `finish(sums, n, step_scalars)`, and in its formula `term(to, θ, g, d, v)`.
/// A step then has two passes. The first updates the moments and adds up the terms; `finish` makes of the sums the factors
/// on the step and on the decay; the second updates the weights.

#include <array>
#include <cstddef>
#include <type_traits>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The elements that a sum covers.
enum class scope {
  tensor,  ///< a sum for each tensor
  model    ///< one for all tensors of the optimizer
};

/// How a term is added up, in double.
enum class summed {
  values,  ///< Σx
  squares  ///< Σx²
};

/// What a step size makes of its sums: factors on α.
struct step_factors {
  double step = 1;   ///< for the step
  double decay = 1;  ///< for a decay of the weights
};

/// A step size that needs sums.
template <class P>
concept has_sums = requires { P::sums_over; };

namespace detail {

/// The number of a step size's terms.
template <class P>
constexpr std::size_t term_count() noexcept
{
  if constexpr (has_sums<P>)
    return P::terms.size();
  else
    return 0;
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
