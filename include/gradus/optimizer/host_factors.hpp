#pragma once
/// \file
/// The factors on the steps of tensors, for a step size that needs sums over a whole tensor or the whole model (lamb,
/// stable_adamw): each page's sums of its terms, the sums of the pages, exactly, and from these a factor. Processes that
/// take a step together add up the sums of those tensors of which several have a part.

#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/optimizer/host_sums.hpp>
#include <gradus/optimizer/options.hpp>
#include <gradus/optimizer/sweep.hpp>
#include <gradus/optimizer/tables.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A backend whose steps are shared, and which knows the tensors of several parts, here and in other processes:
/// cut_tensor(parameters) is the index of such a tensor, of which a part begins there, or no_place; and cut_sums(n) has n
/// sums of 0 for each of them, in the same order in all processes.
template <class Backend>
concept shares_tensors = shares_steps<Backend> && requires(Backend& b, const void* parameters, std::size_t n) {
  { b.cut_tensor(parameters) } -> std::same_as<std::size_t>;
  { b.cut_sums(n) } -> std::same_as<std::span<exact_sum>>;
};

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
  void compute(Backend& backend, const Parts& p, const step_options& o)
  {
    p.work.for_ranges(backend, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      page_of_terms<typename model::formula> terms = {};
      for (std::size_t i = begin; i < end; i += page_size)
        sum_page_of_terms<model>(backend, p.cohorts[x.cohort].prepared, x, i, end - i < page_size ? end - i : page_size,
                                 terms, pages_.data() + (x.first_page + i / page_size) * model::terms);
    });
    if constexpr (Parts::rule_type::sums_over_model)
      factors_of_model(backend, p);
    else
      factors_of_tensors(backend, p);
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
  template <class Backend>
  void factors_of_model(Backend& backend, const Parts& p)
  {
    exact_sum exact[model::terms];
    for (const item& x : p.work.items())
      for (std::size_t j = 0; x.is_counted && j < model::terms; ++j)
        add_terms(x, j, exact[j]);
    auto counted = double(p.work.counted_elements());
    if constexpr (shares_tensors<Backend>) {
      backend.add_up(std::span<exact_sum>(exact));
      counted = double(backend.counted_elements());
    }
    double sums[model::terms];
    for (std::size_t j = 0; j < model::terms; ++j)
      sums[j] = exact[j].value();
    for (std::size_t i = 0; i < p.work.items().size(); ++i)
      set_factor(p, i, sums, counted);
  }
  template <class Backend>
  void factors_of_tensors(Backend& backend, const Parts& p)
  {
    const auto& items = p.work.items();
    // Of the tensors of several parts, the terms and the number of elements.
    constexpr std::size_t each = model::terms + 1;
    std::span<exact_sum> shared;
    if constexpr (shares_tensors<Backend>) {
      shared = backend.cut_sums(each);
      for (const item& x : items)
        if (const std::size_t k = backend.cut_tensor(x.parameters); k != no_place) {
          for (std::size_t j = 0; j < model::terms; ++j)
            add_terms(x, j, shared[k * each + j]);
          shared[k * each + model::terms].add(double(x.counted));
        }
      if (!shared.empty())
        backend.add_up(shared);
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      double sums[each];
      std::size_t k = no_place;
      if constexpr (shares_tensors<Backend>)
        k = backend.cut_tensor(items[i].parameters);
      for (std::size_t j = 0; j < model::terms; ++j)
        sums[j] = k != no_place ? shared[k * each + j].value() : sum_of_terms(items[i], j);
      set_factor(p, i, sums, k != no_place ? shared[k * each + model::terms].value() : double(items[i].counted));
    }
  }
  /// \param n  the number of elements in the sums
  void set_factor(const Parts& p, std::size_t i, const double* sums, double n) noexcept
  {
    const auto& c = p.cohorts[p.work.items()[i].cohort];
    factors_[i] = factors_of(p.groups[c.key].rule, c.scalars, sums, n);
  }
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
