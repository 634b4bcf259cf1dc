#pragma once
/// \file
/// The number types of an optimizer's parameters, gradients and state.
///
///     using gradus::bfloat16, gradus::block8, gradus::remainder16, gradus::precision;
///     gradus::optimizer<gradus::adamw, precision<float, float, bfloat16>> a;                  // moments in bfloat16
///     gradus::optimizer<gradus::adamw, precision<float, float, block8>> b;                    // moments in 8-bit codes
///     gradus::optimizer<gradus::adamw, precision<bfloat16, bfloat16, float, float>> c;        // float master weights
///     gradus::optimizer<gradus::adamw, precision<bfloat16, bfloat16, float, remainder16>> d;  // the same, fewer bytes
///     gradus::optimizer<gradus::adamw, precision<bfloat16>> e;                                // no master weights
///
/// Rules and backends do not see these types: numbers are decoded into a buffer in the first-level cache.

#include <type_traits>

#include <gradus/number/block8.hpp>
#include <gradus/number/half.hpp>
#include <gradus/number/remainder.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The number types of an optimizer. It computes in float, or in double if the state is double.
///
/// \tparam Parameter  float, double, bfloat16 or float16. 16-bit parameters are rounded to nearest from their master
///                    weights, or stochastically if there are none
/// \tparam Gradient   one of the same types
/// \tparam State      type of the moments: float, double, or, rounded stochastically, bfloat16 or block8. Not float16,
///                    because squares of gradients under 2e-4 underflow in it
/// \tparam Master     float: steps update float master weights, the slot "master", and round the 16-bit parameters from
///                    them; remainder16: the same with bfloat16 parameters, but only the bits that the parameters lack
///                    are stored; void: no master weights
template <class Parameter, class Gradient = Parameter, class State = float, class Master = void>
struct precision {
  using parameter_type = Parameter;                                                  ///< of the weights
  using gradient_type = Gradient;                                                    ///< of the gradients
  using state_type = State;                                                          ///< of the moments
  using master_type = Master;                                                        ///< float, remainder16 or void
  using compute_type = std::conditional_t<__is_same(State, double), double, float>;  ///< of the arithmetic

  static constexpr bool has_master = !__is_same(Master, void);  ///< whether there are master weights
  /// Whether parameters, gradients and state are all stored in the compute type.
  static constexpr bool uniform = __is_same(Parameter, compute_type) && __is_same(Gradient, compute_type) &&
                                  __is_same(State, compute_type);
  /// Whether something is rounded stochastically; results then depend on a seed.
  static constexpr bool stochastic = !__is_same(State, compute_type) || (short_float<Parameter> && !has_master);

  static_assert(
      real<State> || __is_same(State, bfloat16) || __is_same(State, block8),
      "gradus: the state of a precision is float, double, bfloat16 or block8 (float16 cannot hold the squares of "
      "small gradients).");
  static_assert(
      __is_same(Parameter, compute_type) || (short_float<Parameter> && __is_same(compute_type, float)),
      "gradus: the parameters of a precision are bfloat16, float16 or float; or double, with state in double.");
  static_assert(
      __is_same(Gradient, compute_type) || (short_float<Gradient> && __is_same(compute_type, float)),
      "gradus: the gradients of a precision are bfloat16, float16 or float; or double, with state in double.");
  static_assert(!has_master || ((__is_same(Master, float) || __is_same(Master, remainder16)) && short_float<Parameter>),
                "gradus: the master weights of a precision are float or remainder16, and its parameters bfloat16 or "
                "float16.");
  static_assert(
      !__is_same(Master, remainder16) || !__is_same(Parameter, float16),
      "gradus: master weights in remainder16 complete bfloat16 parameters, and a float16 is not the upper half "
      "of a float; take float master weights.");
};

namespace detail {

template <class T>
struct to_precision;
template <real T>
struct to_precision<T> {
  using type = precision<T, T, T>;
};
template <class Parameter, class Gradient, class State, class Master>
struct to_precision<precision<Parameter, Gradient, State, Master>> {
  using type = precision<Parameter, Gradient, State, Master>;
};

}  // namespace detail

/// The types that an optimizer accepts as T: float, double, or a `precision`.
template <class T>
concept precise = requires { typename detail::to_precision<T>::type; };
/// T itself if it is a `precision`; for float and double, the precision with that type throughout.
template <precise T>
using precision_of = typename detail::to_precision<T>::type;

namespace detail {

/// float if T is no precision, so that the optimizer's static_assert is the only error.
template <class T>
struct precision_or_float {
  using precision = gradus::precision<float>;
};
template <precise T>
struct precision_or_float<T> {
  using precision = precision_of<T>;
};
template <class T>
using parameter_of = typename precision_or_float<T>::precision::parameter_type;
template <class T>
using gradient_of = typename precision_or_float<T>::precision::gradient_type;

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
