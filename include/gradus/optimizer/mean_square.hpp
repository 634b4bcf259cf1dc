#pragma once
/// \file
/// Σv, the sums of second moments, which give the mean v̄ of a scheduled decay without a second pass over the elements.
/// Knows norms and step counts, and no tensors.
///
/// v is linear in g², so Σv obeys the recursion of v: Σv ← β₂Σv + (1−β₂)‖g‖². All tensors with the same β₂ and t share
/// one sum, whether their norm is computed or given. A sum that is not finite is unknown, and is recomputed from the
/// moments before the next step that needs it.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <gradus/optimizer/cohorts.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/options.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The value of an unknown sum: NaN, from its bits, so that it is NaN under -ffast-math too.
GRADUS_HOST_DEVICE inline double unknown_sum() noexcept
{
  return __builtin_bit_cast(double, std::uint64_t(0x7ff8000000000000u));
}

/// Whether a step has to compute the gradients' norm. \tparam OnePass  see model::one_pass
template <bool OnePass>
bool measures(const step_options& o) noexcept
{
  return !o.grad_norm_sq && (o.max_grad_norm || o.skip_nonfinite || (OnePass && !o.mean_square));
}

/// What a step does with the sums of second moments.
struct sums_plan {
  bool advances;  // by the step's norm
  bool forgets;   // makes all sums unknown first
  bool of_model;  // whether they are a whole model's from then on
};

/// Decides this for host and device. With a given v̄ the sums may be unable to advance, because the norm may be missing,
/// or be the norm of a model of unknown size; they are unknown then.
/// \param counts_model  whether the step's norm includes tensors of other optimizers
/// \param of_model      whether the sums are a whole model's so far
/// \param live          the number of entries with members
GRADUS_HOST_DEVICE inline sums_plan plan_of_sums(bool mean_is_given, bool measures, bool counts_model, bool of_model,
                                                 bool all_known, std::size_t live) noexcept
{
  const bool follows = of_model ? counts_model && live == 1 : measures;
  if (mean_is_given && !(all_known && follows))
    return {false, true, of_model};
  return {true, of_model && !counts_model, counts_model};
}

/// The sums of an optimizer, or of the whole model that it is a part of.
class second_moment_sums {
 public:
  /// The sum of the tensors with one β₂ and t.
  struct entry {
    std::uint64_t key = 0;  // the bits of β₂; or the group's index, if Σv does not follow from a norm
    std::uint64_t t = 0;
    std::size_t members = 0;  // the number of cohorts
    std::size_t next = no_place;
    double sum = 0;                     // Σv of these cohorts' tensors, or of the whole model if is_of_model
    double correction = 1;              // the bias correction of this step: v̂ = v / correction
    std::size_t first_item = no_place;  // in the work list; a linked list, by next_of_sum

    // Two sets of tensors, each stored as the sum of its tensors' random numbers: the tensors that take part now, and
    // the tensors that `sum` includes.
    std::uint64_t tensors = 0, summed = 0;

    bool is_known() const noexcept { return tensors == summed && is_finite(sum); }
    double beta2() const noexcept { return __builtin_bit_cast(double, key); }
  };

  aging_table<entry>& entries() noexcept { return entries_; }
  const aging_table<entry>& entries() const noexcept { return entries_; }

  /// Whether the sums are a whole model's. They are known only if its norms were given from the first step on.
  bool is_of_model() const noexcept { return is_of_model_; }
  void set_of_model(bool is) noexcept { is_of_model_ = is; }

  /// Makes all sums unknown.
  void forget() noexcept
  {
    for (entry& e : entries_.all())
      e.sum = unknown_sum();
  }

  bool all_known() const noexcept
  {
    for (const entry& e : entries_.all())
      if (e.members > 0 && !e.is_known())
        return false;
    return true;
  }

  /// Called when the set of tensors is final: a sum over a different set becomes unknown.
  void settle_members() noexcept
  {
    for (entry& e : entries_.all())
      if (e.tensors != e.summed) {
        e.sum = unknown_sum();
        e.summed = e.tensors;
      }
  }

  /// \param elements  the number of elements that take part
  sums_plan plan(const step_options& o, std::uint64_t elements) const noexcept
  {
    return plan_of_sums(o.mean_square.has_value(), measures<true>(o), counts_model(o, elements), is_of_model_,
                        all_known(), entries_.live());
  }

  /// Whether a step's norm includes tensors of other optimizers.
  static bool counts_model(const step_options& o, std::uint64_t elements) noexcept
  {
    return o.grad_norm_sq && o.model_size && *o.model_size != elements;
  }

  /// Advances the sums by one step.
  /// \param squares   squares(entry) is ‖g‖² of the tensors in the entry
  /// \param scale     the factor on the gradients
  /// \param elements  the number of elements in all sums together
  /// \return v̄
  template <class T, class Cohort, class Squares>
  double advance(const std::vector<Cohort>& cohorts, const Squares& squares, double scale, double elements) noexcept
  {
    correct(cohorts);
    for (entry& e : entries_.all())
      if (e.members > 0)
        e.sum = next_sum<T>(e.beta2(), e.sum, squares(e), scale);
    return elements > 0 ? total_of([](const entry& e) { return e.sum; }) / elements : 0;
  }

  /// Copies the bias corrections of this step from the cohorts.
  template <class Cohort>
  void correct(const std::vector<Cohort>& cohorts) noexcept
  {
    for (const Cohort& c : cohorts)
      if (c.members > 0)
        entries_[c.sum].correction = c.scalars.bc2;
  }

  /// n·v̄ for n elements: the exact sum of of(entry) / bias correction over all entries.
  template <class Of>
  double total_of(const Of& of) const noexcept
  {
    const auto part = [&of](const entry& e) { return of(e) / e.correction; };
    if (entries_.live() == 1)  // one term is exact
      for (const entry& e : entries_.all())
        if (e.members > 0)
          return part(e);
    exact_sum total;
    for (const entry& e : entries_.all())
      if (e.members > 0)
        total.add(part(e));
    return total.value();
  }

 private:
  aging_table<entry> entries_;
  bool is_of_model_ = false;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
