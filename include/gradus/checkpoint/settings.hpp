#pragma once
/// \file
/// The settings that a checkpoint keeps: the recipe's name and each group's hyperparameters, by name.

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/optimizer/handles.hpp>
#include <gradus/recipes.hpp>
#include <gradus/rules/hyperparameters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The recipe's name, its own or gradus's. A composition without a name has its rules' names, joined by " + ".
template <class Opt>
std::string recipe_of(const Opt& opt)
{
  if constexpr (requires { opt.name(); })
    return std::string(opt.name());
  else {
    std::string found(name_of_recipe<typename Opt::recipe_type>());
    using rule = typename Opt::rule_type;
    if (found.empty())
      for (const std::string_view kind : {decltype(rule::first_moment)::kind, decltype(rule::second_moment)::kind,
                                          decltype(rule::step_size)::kind, decltype(rule::decay)::kind})
        (found += found.empty() ? "" : " + ") += kind;
    return found;
  }
}

/// Calls f(name, field, range) for each hyperparameter of a recipe. A composition's rules prefix the names, as in
/// "decay.eps".
template <class Recipe, class F>
void for_each_field(Recipe& recipe, const F& f)
{
  for_each_hyperparameter(recipe, [&](std::string_view name, auto& field, range r) { f(std::string(name), field, r); });
  if constexpr (requires { recipe.first_moment, recipe.second_moment, recipe.step_size, recipe.decay; }) {
    const auto rule = [&](const std::string& prefix, auto& part) {
      for_each_hyperparameter(part, [&](std::string_view name, auto& field, range r) {
        f(prefix + std::string(name), field, r);
      });
    };
    rule("first_moment.", recipe.first_moment);
    rule("second_moment.", recipe.second_moment);
    rule("step_size.", recipe.step_size);
    rule("decay.", recipe.decay);
  }
}

/// Hyperparameters by name.
using number_list = std::vector<std::pair<std::string, double>>;

/// A group's hyperparameters.
template <class Opt>
number_list numbers_of(const Opt& opt, std::size_t group)
{
  number_list numbers;
  auto h = opt.hyperparameters(opt.group_at(group));
  if constexpr (requires { opt.name(); })
    for (const auto& [name, value] : h)
      numbers.emplace_back(name, value);
  else
    for_each_field(h, [&](const std::string& name, auto& field, range) { numbers.emplace_back(name, double(field)); });
  return numbers;
}

/// Converts a group's hyperparameters to the argument that set_hyperparameters takes, and refuses invalid ones.
/// \param numbers  in the order of numbers_of; must outlive the result, which may refer to their names
template <class Opt>
auto checked_hyperparameters(const Opt& opt, std::size_t group, const number_list& numbers)
{
  const group_handle g = opt.group_at(group);
  if constexpr (requires { opt.name(); }) {
    std::vector<std::pair<std::string_view, double>> named(numbers.begin(), numbers.end());
    opt.check_hyperparameters(named, g);
    return named;
  } else {
    auto recipe = opt.hyperparameters(g);
    auto number = numbers.begin();
    for_each_field(recipe, [&](const std::string& name, auto& field, range r) {
      check(name, number->second, r);
      field = static_cast<std::remove_reference_t<decltype(field)>>(number++->second);
    });
    opt.check_hyperparameters(recipe);
    return recipe;
  }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
