#pragma once
/// \file
/// Every hyperparameter's name and range, once: what validation checks, and what a choice by name knows.

#include <string>
#include <string_view>

#include <gradus/error.hpp>
#include <gradus/math.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// GCC takes a lambda's names in a template for shadows of globals that the user declares after this header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

namespace gradus::inline GRADUS_ISA {

/// The set of values that a hyperparameter may take.
enum class range {
  at_least_zero,
  above_zero,
  at_least_one,
  zero_to_below_one,
  zero_to_one,
  above_zero_below_one,
  zero_to_half,
  yes_or_no
};

inline const char* expectation(range r) noexcept
{
  switch (r) {
  case range::at_least_zero: return "a finite number >= 0";
  case range::above_zero: return "a finite number > 0";
  case range::at_least_one: return "a finite number >= 1";
  case range::zero_to_below_one: return "a number in [0, 1)";
  case range::zero_to_one: return "a number in [0, 1]";
  case range::above_zero_below_one: return "a number in (0, 1)";
  case range::zero_to_half: return "a number in [0, 0.5]";
  case range::yes_or_no: return "0 or 1";
  }
  return "";
}

inline bool contains(range r, double x) noexcept
{
  if (!is_finite(x))
    return false;
  switch (r) {
  case range::at_least_zero: return x >= 0;
  case range::above_zero: return x > 0;
  case range::at_least_one: return x >= 1;
  case range::zero_to_below_one: return x >= 0 && x < 1;
  case range::zero_to_one: return x >= 0 && x <= 1;
  case range::above_zero_below_one: return x > 0 && x < 1;
  case range::zero_to_half: return x >= 0 && x <= 0.5;
  case range::yes_or_no: return x == 0 || x == 1;
  }
  return false;
}

inline void check(std::string_view name, double value, range r)
{
  if (!contains(r, value))
    fail(std::string(name) + " is " + show(value) + "; expected " + expectation(r));
}

/// Calls f(name, field, range) for every hyperparameter that an aggregate (a rule or a recipe) has as a field.
template <class A, class F>
constexpr void for_each_hyperparameter(A& a, F&& f)
{
  if constexpr (requires { a.lr; }) f("lr", a.lr, range::at_least_zero);
  if constexpr (requires { a.momentum; }) f("momentum", a.momentum, range::zero_to_below_one);
  if constexpr (requires { a.dampening; }) f("dampening", a.dampening, range::zero_to_one);
  if constexpr (requires { a.nesterov; }) f("nesterov", a.nesterov, range::yes_or_no);
  if constexpr (requires { a.beta1; }) f("beta1", a.beta1, range::zero_to_below_one);
  if constexpr (requires { a.beta2; }) f("beta2", a.beta2, range::zero_to_below_one);
  if constexpr (requires { a.eps; }) f("eps", a.eps, range::at_least_zero);
  if constexpr (requires { a.weight_decay; }) f("weight_decay", a.weight_decay, range::at_least_zero);
  if constexpr (requires { a.initial_accumulator; })
    f("initial_accumulator", a.initial_accumulator, range::at_least_zero);
  if constexpr (requires { a.final_lr; }) f("final_lr", a.final_lr, range::at_least_zero);
  if constexpr (requires { a.gamma; }) f("gamma", a.gamma, range::above_zero_below_one);
  if constexpr (requires { a.partial; }) f("partial", a.partial, range::zero_to_half);
  if constexpr (requires { a.decoupled_weight_decay; })
    f("decoupled_weight_decay", a.decoupled_weight_decay, range::yes_or_no);
}

/// Refuses an aggregate whose hyperparameters are out of range, or whose own `validate()` objects.
template <class A>
void validate(const A& a)
{
  for_each_hyperparameter(a, [](std::string_view name, auto value, range r) { check(name, double(value), r); });
  if constexpr (requires { a.validate(); })
    a.validate();
}

}  // namespace gradus::inline GRADUS_ISA

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
