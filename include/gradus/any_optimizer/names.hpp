#pragma once
/// \file
/// Lists of named hyperparameters for any_optimizer, and suggestions for unknown names. Knows no optimizer.

#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <gradus/error.hpp>
#include <gradus/recipes.hpp>
#include <gradus/rules/hyperparameters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A hyperparameter's name and value; a bool's value is 1 or 0.
using named_number = std::pair<std::string_view, double>;

namespace detail {

/// The Levenshtein distance: letters to insert, delete or replace to turn one word into the other.
inline std::size_t edit_distance(std::string_view a, std::string_view b)
{
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      const std::size_t changed = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
      row[j + 1] = replaced < changed ? replaced : changed;
    }
  }
  return row[b.size()];
}

/// gradus's name for a name of another library. Empty for an algorithm that gradus does not have, even if its name is
/// similar to another's. Null for an unknown name.
inline const std::string_view* known_elsewhere_as(std::string_view name) noexcept
{
  // clang-format off
  static constexpr std::pair<std::string_view, std::string_view> synonyms[] = {
      {"learning_rate", "lr"},     {"learningrate", "lr"},    {"step_size", "lr"},        {"stepsize", "lr"},
      {"alpha", "lr"},             {"eta", "lr"},             {"wd", "weight_decay"},     {"decay", "weight_decay"},
      {"l2", "weight_decay"},      {"lambda", "weight_decay"}, {"weightdecay", "weight_decay"},
      {"epsilon", "eps"},          {"beta_1", "beta1"},       {"beta_2", "beta2"},        {"b1", "beta1"},
      {"b2", "beta2"},             {"betas", "beta1"},        {"mu", "momentum"},         {"use_nesterov", "nesterov"},
      {"initial_accumulator_value", "initial_accumulator"},   {"base_lr", "lr"},          {"adam_epsilon", "eps"},
      {"weight_decay_rate", "weight_decay"},                  {"l2_penalty", "weight_decay"},
      {"adamwscheduled", "adams"}, {"radamw", "radam"},       {"sgdm", "sgd"},            {"nag", "sgd"},
      {"adafactor", ""},           {"asgd", ""},
      {"ftrl", ""},                {"lars", ""},               {"muon", ""},
      {"nadamw", ""},              {"rprop", ""},             {"sgdw", ""},               {"shampoo", ""},
      {"soap", ""}};
  // clang-format on
  for (const auto& pair : synonyms)
    if (name == pair.first)
      return &pair.second;
  return nullptr;
}

/// Fails for an unknown name, and suggests the known name that was probably meant, if one is near.
[[noreturn]] inline void fail_unknown(const std::string& what, std::string_view given,
                                      const std::vector<std::string_view>& known)
{
  std::string name(given);  // in lower case, and without the hyphens of command lines
  for (char& c : name)
    c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c == '-' ? '_' : c;
  const std::string_view* const synonym = known_elsewhere_as(name);
  // Between two equally near names, the more similar length decides.
  const auto distance = [&name](std::string_view k) {
    const std::size_t longer = name.size() > k.size() ? name.size() - k.size() : k.size() - name.size();
    return std::pair(edit_distance(name, k), longer);
  };
  std::string_view nearest, meant;
  std::string all;
  for (const std::string_view k : known) {
    if (nearest.empty() || distance(k) < distance(nearest))
      nearest = k;
    if (synonym && k == *synonym)
      meant = k;
    (all += all.empty() ? "" : ", ") += k;
  }
  if (!synonym && !nearest.empty() && 3 * edit_distance(name, nearest) <= nearest.size() + 1)
    meant = nearest;
  detail::fail(what + " is " + detail::quote(given) + "; expected one of " + all +
               (meant.empty() ? "" : " (" + detail::quote(meant) + "?)"));
}

/// A recipe's hyperparameters as a list.
template <class Recipe>
std::vector<named_number> to_numbers(Recipe recipe)
{
  std::vector<named_number> all;
  for_each_hyperparameter(recipe,
                          [&](std::string_view name, auto value, range) { all.emplace_back(name, double(value)); });
  return all;
}
/// A recipe with some hyperparameters replaced. Fails for an unknown name or a value out of range.
template <class Recipe>
Recipe with_numbers(std::string_view recipe_name, Recipe recipe, std::span<const named_number> numbers)
{
  for (const auto& [name, number] : numbers) {
    bool known = false;
    for_each_hyperparameter(recipe, [&, &wanted = name, &given = number](std::string_view field, auto& value, range r) {
      if (field != wanted)
        return;
      known = true;
      check(wanted, given, r);
      value = static_cast<std::remove_reference_t<decltype(value)>>(given);
    });
    if (known)
      continue;
    std::vector<std::string_view> names;
    for (const auto& [field, value] : to_numbers(recipe))
      names.push_back(field);
    fail_unknown("hyperparameter of " + std::string(recipe_name), name, names);
  }
  return recipe;
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
