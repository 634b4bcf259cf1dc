// Hyperparameters as lists of names and numbers, and which name is suggested for an unknown one.

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/any_optimizer/names.hpp>

#include "support/refusal.hpp"

namespace {

using gradus::detail::edit_distance, gradus::detail::to_numbers, gradus::detail::with_numbers;
using numbers = std::vector<gradus::named_number>;

// The message for an optimizer of this name, without what is the same for all.
std::string suggestion_for(std::string_view typed)
{
  std::vector<std::string_view> known;
  std::string list;
  gradus::for_each_recipe([&]<class R>(const char* name, std::type_identity<R>) {
    (list += known.empty() ? "" : ", ") += name;
    known.push_back(name);
  });
  const std::string message = support::refusal([&] { gradus::detail::fail_unknown("optimizer", typed, known); });
  const std::string expected = "gradus: optimizer is \"" + std::string(typed) + "\"; expected one of " + list;
  CHECK(message.starts_with(expected));
  return message.substr(expected.size());
}

}  // namespace

TEST_CASE("edit_distance: letters to insert, delete or replace")
{
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("adam", "adam") == 0);
  CHECK(edit_distance("", "adam") == 4);
  CHECK(edit_distance("adam", "") == 4);
  CHECK(edit_distance("adam", "adamw") == 1);
  CHECK(edit_distance("yoggi", "yogi") == 1);
  CHECK(edit_distance("amdaw", "adamw") == 2);
  CHECK(edit_distance("kitten", "sitting") == 3);
}

TEST_CASE("fail_unknown: suggests the nearest name, and none if none is near")
{
  for (const auto& [typed, meant] : {std::pair("amdaw", "adamw"), std::pair("Adam", "adam"), std::pair("SGD", "sgd"),
                                     std::pair("ada_bound", "adabound"), std::pair("AMSGrad", "amsgrad"),
                                     std::pair("yoggi", "yogi"), std::pair("radamm", "radam")})
    CHECK(suggestion_for(typed) == " (\"" + std::string(meant) + "\"?)");
  for (const char* typed : {"", "shampoo"})
    CHECK(suggestion_for(typed).empty());
}

TEST_CASE("fail_unknown: suggests nothing for algorithms that gradus does not have, even if a name is similar")
{
  for (const char* typed : {"nadamw", "lars", "adafactor", "sgdw"})
    CHECK(suggestion_for(typed).empty());
  CHECK(suggestion_for("sgdm") == " (\"sgd\"?)");
}

TEST_CASE("with_numbers: replaces the named hyperparameters")
{
  const numbers changed = to_numbers(with_numbers("sgd", gradus::sgd{}, numbers{{"momentum", 0.5}, {"nesterov", 1}}));
  CHECK((changed == numbers{{"lr", 1e-3}, {"momentum", 0.5}, {"dampening", 0}, {"nesterov", 1}, {"weight_decay", 0}}));
  CHECK_THROWS_WITH_AS(with_numbers("sgd", gradus::sgd{}, numbers{{"momentum", -1}}),
                       doctest::Contains("momentum is -1"), std::invalid_argument);
}

TEST_CASE("with_numbers: unknown hyperparameters are refused with the nearest name")
{
  CHECK_THROWS_WITH_AS(with_numbers("sgd", gradus::sgd{}, numbers{{"momentun", 0.9}}),
                       "gradus: hyperparameter of sgd is \"momentun\"; expected one of lr, momentum, dampening, "
                       "nesterov, weight_decay (\"momentum\"?)",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(with_numbers("adam", gradus::adam{}, numbers{{"weightdecay", 0.9}}),
                       "gradus: hyperparameter of adam is \"weightdecay\"; expected one of lr, beta1, beta2, eps, "
                       "weight_decay (\"weight_decay\"?)",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(
      with_numbers("adam", gradus::adam{}, numbers{{"momentum", 0.9}}),
      "gradus: hyperparameter of adam is \"momentum\"; expected one of lr, beta1, beta2, eps, weight_decay",
      std::invalid_argument);
}

TEST_CASE("with_numbers: other libraries' names are refused with gradus's")
{
  const auto check = [](const auto& recipe, const char* elsewhere, const char* ours) {
    const std::string meant = "(\"" + std::string(ours) + "\"?)";
    CHECK_THROWS_WITH_AS(with_numbers("it", recipe, numbers{{elsewhere, 0.5}}), doctest::Contains(meant.c_str()),
                         std::invalid_argument);
  };
  for (const char* name :
       {"learning_rate", "learningRate", "Learning_Rate", "learning-rate", "alpha", "eta", "step_size"})
    check(gradus::adam{}, name, "lr");
  check(gradus::adamw{}, "wd", "weight_decay");
  check(gradus::adamw{}, "l2", "weight_decay");
  check(gradus::yogi{}, "epsilon", "eps");
  check(gradus::adam{}, "beta_1", "beta1");
  check(gradus::adam{}, "b2", "beta2");
  check(gradus::sgd{}, "mu", "momentum");
  check(gradus::yogi{}, "initial_accumulator_value", "initial_accumulator");
  check(gradus::adamw{}, "weight_decay_rate", "weight_decay");
}
