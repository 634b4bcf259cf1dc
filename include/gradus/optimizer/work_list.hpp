#pragma once
/// \file
/// The flat list of all elements in a step, and its division into pieces for threads. It knows where elements are and
/// does not read them.

#include <cstddef>
#include <type_traits>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/kernel/denormals.hpp>
#include <gradus/optimizer/mean_square.hpp>
#include <gradus/optimizer/tensor_table.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The tensors that take part in steps, flattened into one list of elements. Rebuilt by `refresh` after changes.
template <class Model>
class work_list {
 public:
  using item = typename Model::work_item;

  void reserve(std::size_t tensors) { make_room(items_, tensors); }
  void outdate() noexcept { is_current_ = false; }  ///< call it after any change to the tensors that take part
  bool is_current() const noexcept { return is_current_; }

  // Valid while the list is current:
  const std::vector<item>& items() const noexcept { return items_; }
  std::size_t elements() const noexcept { return elements_; }
  std::size_t counted_elements() const noexcept { return counted_elements_; }  ///< without padding
  std::size_t pages() const noexcept { return pages_; }
  bool counts_all() const noexcept { return counts_all_; }  ///< whether the norm includes every item

  /// Brings the list up to date; allocates nothing, because `reserve` made room.
  template <class Cohorts>
  void refresh(tensor_table<Model>& table, Cohorts& cohorts, second_moment_sums& sums) noexcept
  {
    if (is_current_)
      return;
    items_.clear();
    elements_ = counted_elements_ = pages_ = 0;
    counts_all_ = true;
    for (auto& e : sums.entries().all())
      e.first_item = no_place;
    for (std::size_t i = 0; i < table.all().size(); ++i) {
      const auto& x = table[i];
      if (!x.active || x.size == 0)
        continue;
      item w{x.parameters,
             x.gradients,
             {},
             x.master.get(),
             x.name_hash,
             x.size,
             x.size - x.uncounted,
             elements_,
             pages_,
             x.cohort,
             no_place,
             x.trained.empty() ? nullptr : x.trained.data(),
             x.first_in_whole,
             x.is_counted,
             x.extents};
      for (std::size_t k = 0; k < Model::slots; ++k)
        w.state[k] = x.state[k].view();
      if constexpr (Model::rule_type::scheduled) {
        auto& sum = sums.entries()[cohorts[x.cohort].sum];
        w.next_of_sum = sum.first_item;
        sum.first_item = items_.size();
      }
      items_.push_back(w);
      elements_ += x.size;
      counted_elements_ += x.is_counted ? x.size - x.uncounted : 0;
      pages_ += page_count(x.size);
      counts_all_ = counts_all_ && x.is_counted;
    }
    is_current_ = true;
  }

  /// Calls f(item, begin, end) for ranges of elements that together cover the whole list. The ranges are grouped into
  /// pieces of about the same length, whatever the tensors' sizes, which the backend may run in parallel. Ranges begin
  /// at whole pages of a tensor and depend only on the list, not on the number of threads.
  /// \param flush_denormals  whether denormal numbers are flushed while f runs
  template <class Backend, class F>
  void for_ranges(Backend& backend, bool flush_denormals, const F& f) const noexcept
  {
    for_ranges(backend, flush_denormals, {0, items_.size()}, f);
  }

  /// The items from `begin` on and before `end`.
  struct item_range {
    std::size_t begin, end;
  };
  /// The same for some of the items.
  template <class Backend, class F>
  void for_ranges(Backend& backend, bool flush_denormals, item_range of, const F& f) const noexcept
  {
    static_assert(!std::is_const_v<Backend>, "for_pieces need not be const, and without it there would be one thread");
    if constexpr (requires { backend.for_pieces(std::size_t(), [](std::size_t) noexcept {}); })
      if (const std::size_t pieces = pieces_for(backend, of); pieces > 1)
        return backend.for_pieces(pieces, [&](std::size_t k) noexcept {
          const denormal_guard guard(flush_denormals);
          for_ranges_between(cut(of, k, pieces), cut(of, k + 1, pieces), f);
        });
    const denormal_guard guard(flush_denormals);
    for_ranges_between({of.begin, 0}, {of.end, 0}, f);
  }

 private:
  template <class Backend>
  std::size_t pieces_for(const Backend& backend, item_range of) const noexcept
  {
    const std::size_t elements = first_element(of.end) - first_element(of.begin);
    gradus::backend::division division;
    if constexpr (requires { backend.division; })
      division = backend.division;
    if constexpr (requires { backend.used_from(elements); })
      division.from = backend.used_from(elements);
    if (elements < division.from)
      return 1;
    const std::size_t pieces = elements / (division.piece > 0 ? division.piece : 1);
    return pieces < division.pieces ? pieces : division.pieces;
  }

  /// An element's position in the list.
  struct position {
    std::size_t item, element;
  };

  /// The position of an item's first element, which for the end of the list is the number of elements.
  std::size_t first_element(std::size_t index) const noexcept
  {
    return index < items_.size() ? items_[index].first_element : elements_;
  }

  /// The start of piece k of n.
  position cut(item_range of, std::size_t k, std::size_t n) const noexcept
  {
    if (k == n)
      return {of.end, 0};
    const std::size_t begin = first_element(of.begin), element = begin + (first_element(of.end) - begin) / n * k;
    std::size_t low = of.begin, high = of.end;  // the last item that starts at or before the element
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      (items_[middle].first_element <= element ? low : high) = middle;
    }
    return {low, (element - items_[low].first_element) / page_size * page_size};
  }

  template <class F>
  void for_ranges_between(position begin, position end, const F& f) const noexcept
  {
    for (std::size_t i = begin.item; i <= end.item && i < items_.size(); ++i) {
      const std::size_t first = i == begin.item ? begin.element : 0;
      const std::size_t last = i == end.item ? end.element : items_[i].size;
      if (first < last)
        f(items_[i], first, last);
    }
  }

  std::vector<item> items_;
  bool is_current_ = false, counts_all_ = true;
  std::size_t elements_ = 0, counted_elements_ = 0, pages_ = 0;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
