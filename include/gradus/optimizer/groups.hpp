#pragma once
/// \file
/// Checks a group's hyperparameters, and that the coefficients computed from them fit T. Knows no tensors.

#include <cstdint>
#include <string>
#include <string_view>

#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/model.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Calls f(name, value) for every hyperparameter of a recipe and of its rule.
template <class Recipe, class Rule, class F>
void for_each_number(const Recipe& recipe, const Rule& rule, const F& f)
{
  const auto each = [&](const auto& of) {
    for_each_hyperparameter(of, [&](std::string_view name, auto value, range) { f(name, double(value)); });
  };
  each(recipe);
  each(rule);
  each(rule.first_moment);
  each(rule.second_moment);
  each(rule.step_size);
  each(rule.decay);
}

// Up to these limits coefficients stay far below the largest float, even after division by 1 − β, and need no check.
inline constexpr double most_tame = 0x1p20, most_tame_lr_scale = 0x1p10;

/// A group with these hyperparameters. Fails if one is out of range or too large for T.
template <class Model>
typename Model::group checked_group(const typename Model::recipe_type& hyperparameters)
{
  using T = typename Model::value_type;
  const typename Model::rule_type rule = rule_of(hyperparameters);
  validate(hyperparameters);
  validate(rule);
  double most = 0;
  for_each_number(hyperparameters, rule, [&](std::string_view name, double value) {
    if (value > largest<T>)
      fail(std::string(name) + " is " + show(value) + "; expected at most " + show(largest<T>) + ", the largest " +
           name_of<T>);
    most = value > most ? value : most;
  });
  return {hyperparameters, rule, most <= most_tame};
}

/// Fails if this group's coefficients would be too large for T with this lr_scale.
template <class Group, class T>
void check_coefficients(const Group& group, double lr_scale, T)
{
  if (group.is_tame && lr_scale <= most_tame_lr_scale)
    return;
  const auto& rule = group.rule;
  const auto as = std::string(", the largest ") + name_of<T>;
  constexpr double most = largest<T>;
  const double lr = rule.lr * lr_scale;
  if (!(lr <= most))
    fail("lr_scale is " + show(lr_scale) + " with lr " + show(rule.lr) + "; expected a product of at most " +
         show(most) + as);
  // Bias corrections are largest in the first step, or grow until the last, so these two steps are checked.
  for (const std::uint64_t t : {std::uint64_t(1), std::uint64_t(1) << 53})
    if (!coefficients_are_finite<T>(rule, t, lr_scale)) {
      if constexpr (requires { rule.decay.weight_decay; })
        if (!(lr * rule.decay.weight_decay <= most))
          fail("weight_decay is " + show(rule.decay.weight_decay) + " with lr " + show(rule.lr) + " and lr_scale " +
               show(lr_scale) + "; expected a product of at most " + show(most) + as);
      fail("lr is " + show(rule.lr) + " and lr_scale " + show(lr_scale) +
           "; expected hyperparameters that give coefficients of at most " + show(most) + as);
    }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
