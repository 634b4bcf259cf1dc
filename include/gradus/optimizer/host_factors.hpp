#pragma once
/// \file
/// The factors on the steps of tensors, for a step size that needs sums over a whole tensor or the whole model (lamb,
/// stable_adamw): each page's sums of its terms, the sums of the pages, exactly, and from these a factor.

#include <cstddef>
#include <vector>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/optimizer/options.hpp>
#include <gradus/optimizer/sweep.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The factors of one step over host memory.
template <class Parts>
class host_factors {
  using model = typename Parts::model;
  using item = typename model::work_item;

 public:
  void reserve(std::size_t tensors, std::size_t pages)
  {
    if (pages_.size() < pages * model::terms)
      pages_.resize((pages + pages / 2) * model::terms);
    if (factors_.size() < tensors)
      factors_.resize(tensors + tensors / 2);
  }

  /// Computes the new moments and each tensor's sums, and from these the factor on its step. Moments that are stored
  /// rounded are not stored yet, because weights are divided by the unrounded values.
  template <class Backend>
  void compute(const Backend& backend, const Parts& p, const step_options& o) noexcept
  {
    p.work.for_ranges(backend, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      page_of_terms<typename model::formula> terms = {};
      for (std::size_t i = begin; i < end; i += page_size)
        sum_page_of_terms<model>(backend, p.cohorts[x.cohort].prepared, x, i, end - i < page_size ? end - i : page_size,
                                 terms, pages_.data() + (x.first_page + i / page_size) * model::terms);
    });
    constexpr bool of_model = Parts::rule_type::sums_over_model;
    const auto& items = p.work.items();
    double sums[model::terms] = {};
    for (std::size_t j = 0; of_model && j < model::terms; ++j) {
      exact_sum sum;
      for (const item& x : items)
        if (x.is_counted)
          add_terms(x, j, sum);
      sums[j] = sum.value();
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      const item& x = items[i];
      for (std::size_t j = 0; !of_model && j < model::terms; ++j)
        sums[j] = sum_of_terms(x, j);
      const auto& c = p.cohorts[x.cohort];
      factors_[i] = factors_of(p.groups[c.key].rule, c.scalars, sums,
                               double(of_model ? p.work.counted_elements() : x.counted));
    }
  }

  /// The formulas of a tensor, with its factor.
  auto formula_of(const Parts& p, const item& x) const noexcept
  {
    const auto& c = p.cohorts[x.cohort];
    typename model::formula own = c.prepared;
    prepare_with_factors(own, p.groups[c.key].rule, c.scalars, factors_[std::size_t(&x - p.work.items().data())]);
    return own;
  }

 private:
  /// A tensor's sum of term j.
  double sum_of_terms(const item& x, std::size_t j) const noexcept
  {
    if (page_count(x.size) == 1)
      return pages_[x.first_page * model::terms + j];
    exact_sum sum;
    add_terms(x, j, sum);
    return sum.value();
  }
  /// Adds a tensor's pages of term j to a sum.
  void add_terms(const item& x, std::size_t j, exact_sum& sum) const noexcept
  {
    for (std::size_t k = 0; k < page_count(x.size); ++k)
      sum.add(pages_[(x.first_page + k) * model::terms + j]);
  }

  std::vector<double> pages_;          // the terms of each page
  std::vector<step_factors> factors_;  // of each item in the work list
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
