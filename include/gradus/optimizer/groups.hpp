#pragma once
/// \file
/// Checks a group's hyperparameters, and that the coefficients computed from them fit T. Knows no tensors.

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/model.hpp>
#include <gradus/optimizer/options.hpp>

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

/// What a step's options make of a group's learning rate and decay.
template <class Group>
step_rates rates_of(const step_options& o, const Group& group) noexcept
{
  return {o.lr_scale, o.lr.value_or(-1.0), o.decay_scale, group.lr_scale};
}

/// Fails if this group's coefficients would be too large for T with these options.
template <class Group, class T>
void check_coefficients(const Group& group, const step_options& o, T)
{
  const step_rates rates = rates_of(o, group);
  const auto& rule = group.rule;
  const double lr = rates.lr_of(rule.lr);
  if (group.is_tame && rates.scale_of(rule.lr) <= most_tame_lr_scale && lr <= most_tame * most_tame_lr_scale &&
      o.decay_scale <= most_tame_lr_scale)
    return;
  const auto as = std::string(", the largest ") + name_of<T>;
  constexpr double most = largest<T>;
  const std::string scales = (group.lr_scale == 1 ? std::string() : ", the group's lr_scale " + show(group.lr_scale)) +
                             (o.decay_scale == 1 ? std::string() : ", decay_scale " + show(o.decay_scale));
  if (!(lr <= most)) {
    if (o.lr)
      fail("lr is " + show(*o.lr) + scales + "; expected a product of at most " + show(most) + as);
    fail("lr_scale is " + show(o.lr_scale) + " with lr " + show(rule.lr) + scales + "; expected a product of at most " +
         show(most) + as);
  }
  // Bias corrections are largest in the first step, or grow until the last, so these two steps are checked.
  if (coefficients_are_finite<T>(rule, 1, rates) && coefficients_are_finite<T>(rule, std::uint64_t(1) << 53, rates))
    return;
  const std::string rate = o.lr ? "lr " + show(*o.lr) : "lr " + show(rule.lr) + " and lr_scale " + show(o.lr_scale);
  if constexpr (requires { rule.decay.weight_decay; })
    if (!(lr * rule.decay.weight_decay * o.decay_scale <= most))
      fail("weight_decay is " + show(rule.decay.weight_decay) + " with " + rate + scales +
           "; expected a product of at most " + show(most) + as);
  fail((o.lr ? "lr is " + show(*o.lr) : "lr is " + show(rule.lr) + " and lr_scale " + show(o.lr_scale)) + scales +
       "; expected hyperparameters that give coefficients of at most " + show(most) + as);
}

/// Fails for a decay_scale if the decay has no weight_decay that it could scale. No decay needs none.
template <class Decay>
void check_decay_scale(const step_options& o)
{
  if constexpr (!requires(Decay d) { d.weight_decay; } && !std::is_same_v<Decay, decay::none>)
    if (o.decay_scale != 1)
      fail("decay_scale is " + show(o.decay_scale) + "; expected 1, because the decay " + quote(Decay::kind) +
           " has no weight_decay that it could scale");
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
