#pragma once
/// \file
/// Σv, the sums of second moments from which a scheduled decay's v̄ follows in one pass.
///
/// v is linear in g², so Σv obeys the recursion of v itself: Σv ← β₂Σv + (1−β₂)‖g‖². One sum serves all tensors that share β₂
/// and t, whether their norm is computed or given. A sum that is not finite is unknown, and is taken anew from the moments
/// before the next step that needs it.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <gradus/optimizer/cohorts.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/options.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// What an unknown sum is: NaN, also under -ffast-math.
GRADUS_HOST_DEVICE inline double unknown_sum() noexcept
{
  return std::bit_cast<double>(std::uint64_t(0x7ff8000000000000u));
}

/// Whether a step measures the gradients' norm, if it is not given. \tparam OnePass  see model::one_pass
template <bool OnePass>
bool measures(const step_options& o) noexcept
{
  return !o.grad_norm_sq && (o.max_grad_norm || o.skip_nonfinite || (OnePass && !o.mean_square));
}

class second_moment_sums {
 public:
  struct entry {
    std::uint64_t key = 0;  // the bits of β₂; the group, where Σv does not follow from a norm
    std::uint64_t t = 0;
    std::size_t members = 0;  // cohorts
    std::size_t next = no_place;
    double sum = 0;  // Σv, of the tensors of these cohorts; or, if is_of_model, of the whole model that they are a part of
    double correction = 1;  // of this step: v̂ = v / correction
    std::size_t first_item = no_place;  // in the work list, and so on by next_of_sum

    // Each the sum of its tensors' random numbers: who takes part now, and of whom `sum` is.
    std::uint64_t tensors = 0, summed = 0;

    bool is_known() const noexcept { return tensors == summed && is_finite(sum); }
    double beta2() const noexcept { return std::bit_cast<double>(key); }
  };

  aging_table<entry>& entries() noexcept { return entries_; }
  const aging_table<entry>& entries() const noexcept { return entries_; }

  /// The sum of a whole model is known only from outside: by the norms that were given since its first step.
  bool is_of_model() const noexcept { return is_of_model_; }
  void set_of_model(bool is) noexcept { is_of_model_ = is; }

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

  /// Once who takes part is settled: sums of others are unknown from now on.
  void settle_members() noexcept
  {
    for (entry& e : entries_.all())
      if (e.tensors != e.summed) {
        e.sum = unknown_sum();
        e.summed = e.tensors;
      }
  }

  /// Whether this step advances the sums. Beside a given v̄, the norm may be that of a whole model of unknown size.
  /// \param elements  that take part
  bool advances(const step_options& o, std::uint64_t elements) const noexcept
  {
    if (!o.mean_square)
      return true;
    return is_of_model_ ? counts_model(o, elements) && entries_.live() == 1 : measures<true>(o);
  }

  /// Whether a step's norm is that of more than this optimizer has.
  static bool counts_model(const step_options& o, std::uint64_t elements) noexcept
  {
    return o.grad_norm_sq && o.model_size && *o.model_size != elements;
  }

  /// Moves the sums one step ahead. \param squares  squares(entry, i) is ‖g‖² of the tensors of entry i  \param scale  the
  /// factor on the gradients  \param elements  how many the sums are of  \return v̄
  template <class T, class Cohort, class Squares>
  double advance(const std::vector<Cohort>& cohorts, const Squares& squares, double scale, double elements) noexcept
  {
    correct(cohorts);
    for (std::size_t i = 0; i < entries_.all().size(); ++i)
      if (entry& e = entries_[i]; e.members > 0)
        e.sum = next_sum<T>(e.beta2(), e.sum, squares(e, i), scale);
    return elements > 0 ? total_of([](const entry& e) { return e.sum; }) / elements : 0;
  }

  /// Takes over the bias corrections of this step.
  template <class Cohort>
  void correct(const std::vector<Cohort>& cohorts) noexcept
  {
    for (const Cohort& c : cohorts)
      if (c.members > 0)
        entries_[c.sum].correction = c.scalars.bc2;
  }

  /// n·v̄ of n elements: the exact sum over the entries of of(entry), each divided by its bias correction.
  template <class Of>
  double total_of(const Of& of) const noexcept
  {
    const auto part = [&of](const entry& e) { return of(e) / e.correction; };
    if (entries_.live() == 1)  // exact as it is
      for (const entry& e : entries_.all())
        if (e.members > 0)
          return part(e);
    exact_sum total;
    for (const entry& e : entries_.all())
      if (e.members > 0)
        total.add(part(e));
    return total.value();
  }

  /// Whether the sums have to change from a part's to a whole model's, or back, before they can advance.
  bool changes_extent(const step_options& o, std::uint64_t elements) const noexcept
  {
    return advances(o, elements) && is_of_model_ != counts_model(o, elements);
  }

 private:
  aging_table<entry> entries_;
  bool is_of_model_ = false;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
