#pragma once
/// \file
/// The types and records that the parts of one optimizer share. Data only; the functions are in the parts.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/kernel/kernel.hpp>
#include <gradus/optimizer/tables.hpp>
#include <gradus/recipes.hpp>
#include <gradus/state/masters.hpp>
#include <gradus/state/memory.hpp>
#include <gradus/state/precision.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A recipe's rule. For a type that is not a recipe, a placeholder, so that the optimizer's static_assert is the only
/// error.
template <class R>
constexpr auto rule_of(const R& r) noexcept
{
  if constexpr (recipe<R>)
    return r.rule();
  else
    return some_composition(0, {}, {}, {}, {});
}

/// Whether a recipe's averages of weights would be stored in 8 bits.
template <class Recipe, class T>
concept averages_in_8_bits = requires(const Recipe& r) {
  requires finishes_step<std::remove_cvref_t<decltype(r.rule().first_moment)>>;
  requires std::is_same_v<typename precision_or_float<T>::precision::state_type, block8>;
};

/// The shape of a tensor that is a matrix; without rows it is none.
struct matrix_extents {
  std::size_t rows = 0, columns = 0;
  bool is_column_major = false;

  /// Of the matrix that lies row by row in the same memory: itself, or its transpose.
  matrix_extents by_rows() const noexcept { return is_column_major ? matrix_extents{columns, rows, false} : *this; }
};

/// All types and constants that follow from an optimizer's template arguments.
template <class Recipe, class T, class Backend>
struct model {
  using recipe_type = Recipe;
  using rule_type = decltype(rule_of(std::declval<const Recipe&>()));
  using precision_type = typename precision_or_float<T>::precision;
  using parameter_type = typename precision_type::parameter_type;
  using gradient_type = typename precision_type::gradient_type;
  using state_type = typename precision_type::state_type;
  using master_type = typename precision_type::master_type;
  using value_type = typename precision_type::compute_type;
  using formula = decltype(prepare<value_type>(std::declval<const rule_type&>(), step_scalars{}));
  using parameters_span = std::span<parameter_type>;
  using gradients_span = std::span<const gradient_type>;

  static constexpr std::size_t slots = rule_type::slots;
  static constexpr std::size_t first_slots = formula::first_slots;
  static constexpr auto slot_list = [] {
    std::array<slot, slots + 1> list{};
    std::size_t k = 0;
    for (const slot& s : decltype(rule_type::first_moment)::slots)
      list[k++] = s;
    for (const slot& s : decltype(rule_type::second_moment)::slots)
      list[k++] = s;
    return list;
  }();

  /// Whether moments are stored as computed, without rounding to a shorter type.
  static constexpr bool keeps_exactly = std::is_same_v<state_type, value_type>;
  /// Whether v̄ follows from the gradients' norm, so that a step needs one pass over the elements. This needs unrounded
  /// moments, because the recursion of Σv does not hold for rounded ones.
  static constexpr bool one_pass = rule_type::scheduled_in_one_pass && keeps_exactly;
  /// Whether a step computes all moments before the first weight, because the decay depends on them.
  static constexpr bool two_passes = rule_type::scheduled && !one_pass && keeps_exactly;

  /// The number of terms that the step size adds up before the first weight moves.
  static constexpr std::size_t terms = formula::terms;

  /// The numbers that the first moment keeps for each tensor, beside the slots.
  static constexpr std::size_t scalar_count = detail::scalar_count<decltype(rule_type::first_moment)>();
  using kept_scalars = std::array<double, scalar_count>;

  using memory_source = memory_of<Backend>;
  using state_memory = std::array<slot_memory<state_type, typename memory_source::type>, slots>;
  using masters = master_memory<master_type, typename memory_source::type>;
  /// Whether the parameters are a part of the master weights.
  static constexpr bool has_remainders = std::is_same_v<master_type, remainder16>;

  struct group {
    recipe_type recipe;
    rule_type rule;
    bool is_tame;         // hyperparameters are so small that no product of several overflows
    double lr_scale = 1;  // group_options
  };

  /// A tensor. Without a name, it is a free place in the list. If it is not attached, it was removed with its state
  /// kept.
  struct tensor {
    std::string name = {};
    parameter_type* parameters = nullptr;
    const gradient_type* gradients = nullptr;
    std::size_t size = 0;
    std::size_t group = 0;
    std::uint64_t generation = 0;
    state_memory state = {};
    masters master = {};
    std::uint64_t name_hash = 0;
    std::uint64_t t = 0;           // the step count; while the tensor takes part, its cohort has the count
    double second_moment_sum = 0;  // only during a visit: Σv of all tensors with the same β₂ and t
    kept_scalars scalars = {};     // likewise its scalars
    std::size_t cohort = 0;
    std::size_t uncounted = 0;               // the number of elements that count in no mean: padding, or not trained
    std::vector<std::uint8_t> trained = {};  // 1 or 0 each; empty if all are
    std::uint64_t first_in_whole = 0;        // the index of the first element, if this is a part of a larger tensor
    matrix_extents extents = {};
    std::size_t next_free = no_place;
    bool attached = false;
    bool has_gradients = false;
    bool is_frozen = false;
    bool may_have_moments = false;  // its moments may have been written although it has taken no step
    bool active = false;            // takes part in steps: attached, with gradients, and not frozen
    bool is_counted = true;         // in the norm and in v̄
  };

  /// The data of a tensor that a step needs. first_element and first_page count from the start of the whole list.
  struct work_item {
    parameter_type* parameters;
    const gradient_type* gradients;
    std::array<slot_view<state_type>, slots + 1> state;
    masters_pointer<master_type> master;
    std::uint64_t name_hash;
    std::size_t size;
    std::size_t counted;  // the number of elements without padding and those that are not trained
    std::size_t first_element;
    std::size_t first_page;
    std::size_t cohort;
    std::size_t next_of_sum;      // the next item whose second moments are in the same sum
    const std::uint8_t* trained;  // null if all elements are
    std::uint64_t first_in_whole;
    bool is_counted;
    matrix_extents extents;
  };

  /// The tensors that take part and have the same group, step count and scalars. They share one set of coefficients.
  struct cohort {
    std::size_t key = 0;  // the group's index
    std::uint64_t t = 0;
    std::size_t members = 0;
    std::size_t next = no_place;
    std::size_t sum = 0;     // the index of its entry in second_moment_sums
    kept_scalars kept = {};  // after the last step that was taken
    step_scalars scalars = {};
    formula prepared = {};
  };

  /// Whether a tensor under this rule has slot k.
  static bool keeps(const rule_type& rule, std::size_t k) noexcept
  {
    return keeps_slot<decltype(rule.first_moment), decltype(rule.second_moment)>(k, is_idle(rule.first_moment),
                                                                                 is_idle(rule.second_moment));
  }
  /// Whether tensors under two rules have the same slots.
  static bool keep_the_same(const rule_type& a, const rule_type& b) noexcept
  {
    return is_idle(a.first_moment) == is_idle(b.first_moment) && is_idle(a.second_moment) == is_idle(b.second_moment);
  }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
