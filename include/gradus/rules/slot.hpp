#pragma once
/// \file
/// State that a rule keeps: a slot is an array, a scalar one number.

#include <string_view>
#include <type_traits>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// One array of state, with an element for each parameter: slot{"exp_avg", slot::any_sign}.
struct slot {
  /// Which values a slot holds; 8-bit state has a code for each.
  enum sign : bool { any_sign = false, nonnegative = true };

  std::string_view name = {};   ///< PyTorch's name, such as "exp_avg"; without a slash, and unique in a composition
  bool is_nonnegative = false;  ///< whether its values are never below zero, as mean squares; 8-bit codes rely on it

  constexpr slot() = default;
  /// \param its_name  the key in checkpoints  \param its_sign  any_sign or nonnegative
  constexpr slot(std::string_view its_name, bool its_sign) noexcept : name(its_name), is_nonnegative(its_sign) {}
  /// Does not compile: 8-bit state needs to know the sign, and it cannot be guessed.
  template <class Name>
    requires(std::is_convertible_v<const Name&, std::string_view>)
  constexpr slot(const Name& its_name) noexcept : name(its_name), is_nonnegative(true)
  {
    static_assert(
        sizeof(Name) == 0,
        "gradus: a slot says which values it keeps: slot{name, slot::any_sign}, or slot{name, slot::nonnegative} for "
        "what is never below zero.");
  }
  constexpr slot(const slot&) = default;             ///< copies
  constexpr slot& operator=(const slot&) = default;  ///< copies
};

/// One number of state that a rule keeps for each tensor: scalar{"mu_product", 1}.
struct scalar {
  std::string_view name = {};  ///< without a slash, and unique among the slots and scalars of a composition
  double start = 0;            ///< its value before the first step
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
