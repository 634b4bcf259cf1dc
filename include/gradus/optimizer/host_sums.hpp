#pragma once
/// \file
/// The sums of a step over host memory: ‖g‖² for the norm, and Σv for v̄. Each page is summed in a fixed order, and the
/// pages exactly, so that no sum depends on threads, the order of tensors, or how many processes take the step together.

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/mean_square.hpp>
#include <gradus/optimizer/parts.hpp>
#include <gradus/optimizer/tables.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A backend whose steps are shared with other processes: add_up(sums) adds to each sum the same sum of all others. All
/// processes call it the same number of times in a step, with equally many sums. If the backend also has
/// counted_elements(), the number of elements that count in all processes together, they need not add that up.
template <class Backend>
concept shares_steps = requires(Backend& b, std::span<exact_sum> sums) { b.add_up(sums); };

/// Sums pages on a backend, which it holds, and keeps the page sums of the step. An entry is one of those that
/// second_moment_sums has.
template <class Parts, class Backend>
class host_sums {
  using model = typename Parts::model;
  using gradient_type = typename model::gradient_type;
  using item = typename model::work_item;
  static constexpr bool is_shared = shares_steps<Backend>;

 public:
  explicit host_sums(const Backend& backend) : backend_(backend) {}
  Backend& backend() noexcept { return backend_; }
  const Backend& backend() const noexcept { return backend_; }

  void reserve([[maybe_unused]] std::size_t tensors, std::size_t pages)
  {
    if (pages_.size() < pages)
      pages_.resize(pages + pages / 2);
    if constexpr (is_shared) {
      make_room(shared_, 1 + (Parts::rule_type::scheduled ? tensors : 0));
      make_room(entries_, Parts::rule_type::scheduled ? tensors : 0);
    }
  }

  /// ‖g‖², of which `total` then gives the part of each entry.
  square_sum of_squares(const Parts& p)
  {
    p.work.for_ranges(backend_, false, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      if (x.trained)
        for (std::size_t i = begin; i < end; i += page_size)
          pages_[x.first_page + i / page_size] = page_sum_of<square_term>(x, x.gradients, i,
                                                                          end - i < page_size ? end - i : page_size);
      else
        page_sums<square_term>(backend_, x.gradients + begin, end - begin,
                               pages_.data() + x.first_page + begin / page_size);
    });
    leave_uncounted(p);
    share(p);
    const double plain = total(p);
    if constexpr (std::is_same_v<gradient_type, double>)
      if (const double unit = unit_for(plain); unit != 1) {
        sum_pages(p, false, [this, unit](const item& x, std::size_t i, std::size_t n) {
          if (!x.is_counted && unit < 1)
            return 0.0;  // finite, because the plain sum is; in this unit it may overflow
          const auto sum = [&](const double* g) { return scaled_square_sum(backend_, g, n, 1 / unit); };
          return x.trained ? of_trained(x.gradients + i, x.trained + i, n, sum) : sum(x.gradients + i);
        });
        return {total(p), unit};
      }
    return {plain, 1};
  }

  /// Whether all gradients of trained elements are finite, in this process.
  bool gradients_are_finite(const Parts& p) const noexcept
  {
    for (const item& x : p.work.items())
      if (!all_finite(x.gradients, x.size))
        for (std::size_t i = 0; i < x.size; ++i)
          if (!is_finite(x.gradients[i]) && (!x.trained || x.trained[i]))
            return false;
    return true;
  }

  /// The sum over one page of a tensor's gradients or moments, n elements from the i-th on.
  template <class Term, class X>
  double page_sum_of(const item& x, const X* values, std::size_t i, std::size_t n) const noexcept
  {
    const auto sum = [&](const X* page) { return page_sum<Term>(backend_, page, n); };
    return x.trained ? of_trained(values + i, x.trained + i, n, sum) : sum(values + i);
  }

  /// Takes of_page(item, begin, length) as the sum of each page, for `total`.
  template <class F>
  void sum_pages(const Parts& p, bool flush_denormals, const F& of_page) noexcept
  {
    p.work.for_ranges(backend_, flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end; i += page_size)
        pages_[x.first_page + i / page_size] = of_page(x, i, end - i < page_size ? end - i : page_size);
    });
    leave_uncounted(p);
    share(p);
  }

  /// Adds up zeros over all processes, as many as `of_squares` would: in a step without a norm, processes that agree on
  /// something else while they add up still do.
  void share_nothing(const Parts& p)
    requires(is_shared)
  {
    order_entries(p);
    shared_.assign(entries_.size() > 1 ? entries_.size() : 1, exact_sum());
    backend_.add_up(std::span(shared_));
  }

  /// The sum of all pages.
  double total(const Parts& p) const noexcept
  {
    if constexpr (is_shared) {
      exact_sum sum;
      for (const exact_sum& part : shared_)
        sum.add(part);
      return sum.value();
    }
    if (p.work.pages() == 1)
      return pages_[0];
    exact_sum sum;
    add_pages(p, sum);
    return sum.value();
  }
  /// The sum over the pages of the tensors in one entry.
  double total(const Parts& p, const second_moment_sums::entry& e) const noexcept
  {
    if (p.sums.entries().live() == 1)
      return total(p);
    if constexpr (is_shared)
      for (std::size_t k = 0; k < entries_.size(); ++k)
        if (entries_[k] == std::size_t(&e - p.sums.entries().all().data()))
          return shared_[k].value();
    exact_sum sum;
    add_pages(p, e, sum);
    return sum.value();
  }

  /// The number of elements in the whole model that count.
  std::uint64_t counted_elements(const Parts& p)
  {
    if constexpr (requires { backend_.counted_elements(); })
      return backend_.counted_elements();
    else
      return std::uint64_t(over_all(double(p.work.counted_elements())));
  }
  /// The sum of a number over all processes; alone, the number.
  double over_all(double mine)
  {
    if constexpr (is_shared) {
      exact_sum sum;
      sum.add(mine);
      backend_.add_up(std::span(&sum, 1));
      return sum.value();
    } else
      return mine;
  }
  /// Whether it is so in any process.
  bool any(bool here) { return over_all(here) > 0; }

  /// Recomputes unknown sums from the moments.
  void sum_moments(Parts& p)
  {
    const auto sum_up = [&](auto& e) {
      if (e.members == 0 || is_finite(e.sum))
        return;
      exact_sum sum;
      for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
        const item& x = p.work.items()[i];
        if (!x.is_counted)
          continue;
        const auto* const moments = x.state[model::formula::value_slot].values;
        if (x.trained)
          for (std::size_t k = 0; k < x.size; k += page_size)
            sum.add(page_sum_of<plain_term>(x, moments, k, x.size - k < page_size ? x.size - k : page_size));
        else
          gradus::add_pages<plain_term>(backend_, moments, x.size, sum);
      }
      if constexpr (is_shared)
        backend_.add_up(std::span(&sum, 1));
      e.sum = sum.value();
    };
    if constexpr (is_shared) {
      order_entries(p);
      for (const std::size_t k : entries_)
        sum_up(p.sums.entries()[k]);
    } else
      for (auto& e : p.sums.entries().all())
        sum_up(e);
  }

 private:
  /// Removes the pages of tensors that do not count from the sums, except those that are not finite.
  void leave_uncounted(const Parts& p) noexcept
  {
    if (p.work.counts_all())
      return;
    for (const item& x : p.work.items())
      for (std::size_t k = 0; !x.is_counted && k < page_count(x.size); ++k)
        if (double& sum = pages_[x.first_page + k]; is_finite(sum))
          sum = 0;
  }
  /// Shares the page sums: the total of each entry of the sums of second moments, or of all pages if there is only one.
  void share(const Parts& p)
  {
    if constexpr (is_shared) {
      order_entries(p);
      shared_.assign(entries_.size() > 1 ? entries_.size() : 1, exact_sum());
      if (entries_.size() > 1)
        for (std::size_t k = 0; k < entries_.size(); ++k)
          add_pages(p, p.sums.entries()[entries_[k]], shared_[k]);
      else
        add_pages(p, shared_[0]);
      backend_.add_up(std::span(shared_));
    }
  }
  /// Lists the entries that have members in the same order in all processes, by β₂ (or group) and step count.
  void order_entries(const Parts& p) noexcept
  {
    entries_.clear();
    if constexpr (Parts::rule_type::scheduled) {
      const auto& all = p.sums.entries().all();
      const auto is_before = [&](std::size_t a, std::size_t b) {
        return all[a].key != all[b].key ? all[a].key < all[b].key : all[a].t < all[b].t;
      };
      for (std::size_t i = 0; i < all.size(); ++i)
        if (all[i].members > 0) {
          entries_.push_back(i);
          for (std::size_t k = entries_.size() - 1; k > 0 && is_before(entries_[k], entries_[k - 1]); --k)
            std::swap(entries_[k], entries_[k - 1]);
        }
    }
  }
  void add_pages(const Parts& p, exact_sum& sum) const noexcept
  {
    for (std::size_t k = 0; k < p.work.pages(); ++k)
      sum.add(pages_[k]);
  }
  void add_pages(const Parts& p, const second_moment_sums::entry& e, exact_sum& sum) const noexcept
  {
    for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
      const item& x = p.work.items()[i];
      for (std::size_t k = 0; k < page_count(x.size); ++k)
        sum.add(pages_[x.first_page + k]);
    }
  }

  Backend backend_;
  std::vector<double> pages_;  // in the order of the work list
  // For processes that share steps: the sums of the entries in the list, or of all pages.
  std::vector<exact_sum> shared_;
  std::vector<std::size_t> entries_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
