#pragma once
/// \file
/// The parts of an optimizer as its engine sees them: groups, tensors, cohorts, sums and the work list. Keeps them
/// consistent with one another when tensors come and go; does not touch elements.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gradus/optimizer/cohorts.hpp>
#include <gradus/optimizer/groups.hpp>
#include <gradus/optimizer/mean_square.hpp>
#include <gradus/optimizer/options.hpp>
#include <gradus/optimizer/tensor_state.hpp>
#include <gradus/optimizer/tensor_table.hpp>
#include <gradus/optimizer/work_list.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The data of an optimizer. Its member functions change several parts at once.
template <class Model>
struct parts {
  using model = Model;
  using value_type = typename Model::value_type;
  using rule_type = typename Model::rule_type;
  using tensor = typename Model::tensor;

  std::vector<typename Model::group> groups;
  tensor_table<Model> table;
  aging_table<typename Model::cohort> cohorts;
  second_moment_sums sums;
  work_list<Model> work;
  std::uint64_t seed = 0;  // of stochastic rounding

  /// Makes room for one more tensor in all parts.
  void reserve_one()
  {
    table.reserve_one();
    // Cohorts without members are reused, so there are never more cohorts than tensors.
    const std::size_t tensors = table.all().size() + 1;
    work.reserve(tensors);
    cohorts.reserve(tensors);
    sums.entries().reserve(tensors);
  }

  /// Brings the work list up to date.
  void refresh() noexcept
  {
    if (work.is_current())
      return;
    cohorts.compact([this](const auto& place) {
      for (tensor& x : table.all())
        if (x.active)
          x.cohort = place(x.cohort);
    });
    sums.entries().compact([this](const auto& place) {
      for (auto& c : cohorts.all())
        if (c.members > 0)
          c.sum = place(c.sum);
    });
    sums.settle_members();
    work.refresh(table, cohorts, sums);
  }

  /// Makes a tensor take part in steps or not, according to its flags. Cannot fail, because every `add` made room.
  void update_membership(tensor& x) noexcept
  {
    work.outdate();
    const bool takes_part = x.attached && x.has_gradients && !x.is_frozen;
    if (takes_part && !x.active)
      enlist(x);
    else if (!takes_part && x.active)
      drop(x);
  }

  /// The number of steps that a tensor has taken. Tensors that take part share their cohort's count, so that a step
  /// does not have to touch each tensor.
  std::uint64_t steps_of(const tensor& x) const noexcept { return x.active ? cohorts[x.cohort].t : x.t; }

  /// The scalars of a tensor, as steps_of.
  const typename Model::kept_scalars& scalars_of(const tensor& x) const noexcept
  {
    return x.active ? cohorts[x.cohort].kept : x.scalars;
  }

  /// Adds steps to the count of all tensors that take part, and keeps the scalars of the last.
  void count_steps(std::uint64_t steps = 1) noexcept
  {
    if constexpr (Model::scalar_count > 0)
      for (auto& c : cohorts.all())
        for (std::size_t i = 0; c.members > 0 && i < Model::scalar_count; ++i)
          c.kept[i] = c.scalars.state[i];
    cohorts.advance(steps);
    if constexpr (rule_type::scheduled)
      sums.entries().advance(steps);
  }

  /// The number of elements that take part, without padding.
  std::uint64_t active_elements() const noexcept
  {
    if (work.is_current())
      return work.counted_elements();
    std::uint64_t n = 0;
    for (const tensor& x : table.all())
      n += x.active && x.is_counted ? x.size - x.uncounted : 0;
    return n;
  }

  /// Makes Σv of the tensors that share a tensor's sum unknown, because its moments were changed outside a step.
  void forget_sum_of(const tensor& x) noexcept
  {
    work.outdate();
    if constexpr (rule_type::scheduled) {
      if (x.active)
        sums.entries()[cohorts[x.cohort].sum].sum = unknown_sum();
      else
        sums.forget();  // any of them may cover it, if it has left since the last step
    }
  }

  /// Makes all sums unknown, those that tensors will join too, because moments may have been written.
  void forget_sums() noexcept
  {
    work.outdate();
    if constexpr (rule_type::scheduled)
      for (tensor& x : table.all())
        expect_moments(x);
    sums.forget();
  }

  /// Gives a group new hyperparameters. If β₂ changes, its tensors move to other sums.
  void replace_group(std::size_t index, const typename Model::group& next) noexcept
  {
    const std::uint64_t key = key_of_sum(index);
    groups[index] = next;
    work.outdate();
    if (key == key_of_sum(index))
      return;
    for (const tensor& x : table.all())
      if (x.group == index && x.active && has_moments(x))
        forget_sum_of(x);
    scatter_sums();
    gather_sums();
  }

  /// Stores step counts and sums in the tensors, so that a visitor may change them, and which tensors take part.
  void scatter_sums() noexcept
  {
    work.outdate();
    for (tensor& x : table.all()) {
      x.t = steps_of(x);
      x.scalars = scalars_of(x);
      if constexpr (Model::one_pass)
        x.second_moment_sum = sum_of(x);
    }
  }
  /// Σv of the tensors that share a tensor's sum, or unknown_sum().
  double sum_of(const tensor& x) const noexcept
  {
    if (!x.active || !sums.entries()[cohorts[x.cohort].sum].is_known())
      return unknown_sum();
    return sums.entries()[cohorts[x.cohort].sum].sum;
  }
  /// Between the two: makes the stored sum of all tensors that share a tensor's sum unknown, unless a visitor wrote
  /// another one. A sum of 0 stays, because all its moments are 0.
  void forget_scattered_sum(const tensor& x) noexcept
  {
    const double sum = x.second_moment_sum;
    if (!x.active || !(sum > 0))
      return;
    for (tensor& y : table.all())
      if (y.active && cohorts[y.cohort].sum == cohorts[x.cohort].sum && y.second_moment_sum == sum)
        y.second_moment_sum = unknown_sum();
  }
  /// After a visitor may have written masks.
  void settle_masks() noexcept
  {
    for (tensor& x : table.all())
      if (!x.trained.empty())
        settle_mask(x);
  }

  /// Rebuilds cohorts and sums from the tensors. Tensors that share a sum must agree on it, otherwise it is unknown.
  void gather_sums() noexcept
  {
    work.outdate();
    cohorts.clear();
    sums.entries().clear();
    for (tensor& x : table.all()) {
      x.active = false;
      // A tensor that has no gradients yet is covered by a sum that was loaded with it.
      const bool is_covered = Model::one_pass && is_finite(x.second_moment_sum);
      if (!x.attached || x.is_frozen || (!x.has_gradients && !is_covered)) {
        if constexpr (rule_type::scheduled)
          expect_moments(x);
        continue;
      }
      const std::size_t live = sums.entries().live();
      enlist(x);
      if constexpr (Model::one_pass) {
        auto& e = sums.entries()[cohorts[x.cohort].sum];
        if (sums.entries().live() > live)
          e.sum = x.second_moment_sum;
        else if (__builtin_bit_cast(std::uint64_t, e.sum) != __builtin_bit_cast(std::uint64_t, x.second_moment_sum))
          e.sum = unknown_sum();
        e.summed = e.tensors;
      }
    }
    for (tensor& x : table.all())
      if (x.active && !x.has_gradients)
        drop(x);
  }

  /// Fails for options that are invalid, or that do not fit the tensors that take part.
  void check(const step_options& o) const
  {
    check_options<value_type>(o);
    if (table.attached() == 0)
      fail("step() has no tensors; expected at least one add(parameters, gradients) before it");
    const std::uint64_t elements = o.model_size ? active_elements() : 0;
    if (o.model_size && *o.model_size < elements)
      fail("model_size is " + std::to_string(*o.model_size) + "; expected at least " + std::to_string(elements) +
           ", the number of parameters of this part");
    for (const auto& g : groups)
      check_coefficients(g, o, value_type());
    check_decay_scale<decltype(rule_type::decay)>(o);
    if constexpr (rule_type::scheduled) {
      if (o.mean_square)
        return;
      if (Model::one_pass && o.grad_norm_sq && sums.entries().live() > 1)
        fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected none, because " +
             (reads_mean_square<decltype(rule_type::decay)> ? "a scheduled decay" : "this first moment") +
             " needs the norm of each tensor if tensors differ in beta2 or in the number of steps taken; leave it out "
             "to have it computed");
      if (o.model_size && *o.model_size != elements)
        check_model_size(o);
    }
  }

 private:
  void check_model_size(const step_options& o) const
  {
    const auto refuse = [&](const char* reason) {
      fail("model_size is " + std::to_string(*o.model_size) + "; expected none, because " + reason);
    };
    if (!Model::one_pass)
      refuse("this second moment's mean does not follow from a norm; give mean_square of the whole model instead");
    if (!o.grad_norm_sq)
      refuse("the norm of this part is not the whole model's; also give the whole model's grad_norm_sq, or give "
             "mean_square instead");
    if (sums.is_of_model() && sums.all_known())
      return;
    for (const tensor& x : table.all())
      if (x.active && steps_of(x) > 0)
        refuse("the whole model's sum of second moments is known only if model_size was given from the first step on, "
               "with the same tensors; give mean_square instead");
  }

  std::uint64_t key_of_sum(std::size_t group) const noexcept
  {
    if constexpr (Model::one_pass)
      return __builtin_bit_cast(std::uint64_t, double(groups[group].rule.second_moment.beta()));
    else
      return group;
  }

  bool has_moments(const tensor& x) const noexcept
  {
    return steps_of(x) > 0 || x.may_have_moments ||
           initial_value(groups[x.group].rule, Model::formula::value_slot) != 0;
  }

  /// The sum of a tensor that has taken no step is 0 until somebody may have written its moments.
  void expect_moments(tensor& x) noexcept
  {
    if (x.name.empty() || has_moments(x))
      return;
    if (x.active)
      sums.entries()[cohorts[x.cohort].sum].summed -= random_of(x);
    x.may_have_moments = true;
  }

  /// The random number by which entry::tensors and entry::summed identify a tensor.
  static std::uint64_t random_of(const tensor& x) noexcept { return mix(x.name_hash + x.first_in_whole); }

  /// Adds a tensor to its cohort and sum.
  void enlist(tensor& x) noexcept
  {
    const std::size_t live = cohorts.live();
    x.cohort = cohorts.join(x.group, x.t, [&x](const typename Model::cohort& c) { return c.kept == x.scalars; });
    cohorts[x.cohort].kept = x.scalars;
    x.active = true;
    if constexpr (rule_type::scheduled) {
      if (cohorts.live() > live)
        cohorts[x.cohort].sum = sums.entries().join(key_of_sum(x.group), x.t);
      auto& e = sums.entries()[cohorts[x.cohort].sum];
      e.tensors += random_of(x);
      e.summed += has_moments(x) ? 0 : random_of(x);
    }
  }
  /// Removes a tensor from its cohort and sum.
  void drop(tensor& x) noexcept
  {
    x.t = steps_of(x);
    x.scalars = scalars_of(x);
    x.active = false;
    const std::size_t sum = cohorts[x.cohort].sum, live = cohorts.live();
    cohorts.leave(x.cohort);
    if constexpr (rule_type::scheduled) {
      auto& e = sums.entries()[sum];
      e.tensors -= random_of(x);
      e.summed -= has_moments(x) ? 0 : random_of(x);
      if (cohorts.live() < live)
        sums.entries().leave(sum);
    }
  }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
