#pragma once
/// \file
/// Tables of what a safetensors header contains, in little memory: a hostile header may have ten million entries.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// A piece of a header's text, whose length is below 2^32. It takes half the memory of a string_view.
struct text_range {
  std::uint32_t begin = 0;   ///< the offset of the first character
  std::uint32_t length = 0;  ///< the number of characters

  /// The piece of this text.
  std::string_view of(const char* text) const noexcept { return {text + begin, length}; }
};

/// Sorts the elements of an array from begin to end, in n log n steps for any input.
template <class Array, class Less>
void heap_sort(Array& a, std::size_t begin, std::size_t end, const Less& less)
{
  // Puts x at its place below `root`, among the first n elements.
  const auto sift = [&](auto x, std::size_t root, std::size_t n) {
    std::size_t hole = root;
    for (std::size_t child; (child = 2 * hole + 1) < n; hole = child) {
      child += child + 1 < n && less(a[begin + child], a[begin + child + 1]);
      a[begin + hole] = a[begin + child];
    }
    for (std::size_t parent; hole > root && less(a[begin + (parent = (hole - 1) / 2)], x); hole = parent)
      a[begin + hole] = a[begin + parent];
    a[begin + hole] = x;
  };
  const std::size_t count = end - begin;
  for (std::size_t i = count / 2; i-- > 0;)
    sift(a[begin + i], i, count);
  for (std::size_t n = count; n-- > 1;) {
    const auto last = a[begin + n];
    a[begin + n] = a[begin];
    sift(last, 0, n);
  }
}

/// The same, faster by far for elements that refer to memory in their order, because it goes through them one by one.
/// After `splits` splits it leaves the rest to heap_sort, because some inputs split badly.
template <class Array, class Less>
void quick_sort(Array& a, std::size_t begin, std::size_t end, const Less& less, int splits = 64)
{
  while (end - begin > 16) {
    if (--splits < 0)
      return heap_sort(a, begin, end, less);
    // Splits at the median of three elements, which is not the only largest one, so no side gets everything.
    auto low = a[begin], median = a[begin + (end - begin) / 2], high = a[end - 1];
    if (less(high, low))
      std::swap(low, high);
    if (less(median, low))
      median = low;
    else if (less(high, median))
      median = high;
    std::size_t i = begin, j = end - 1;
    for (;; ++i, --j) {
      while (less(a[i], median))
        ++i;
      while (less(median, a[j]))
        --j;
      if (i >= j)
        break;
      std::swap(a[i], a[j]);
    }
    // The smaller side first, so that the calls are never deep.
    const std::size_t middle = j + 1;
    if (middle - begin < end - middle) {
      quick_sort(a, begin, middle, less, splits);
      begin = middle;
    } else {
      quick_sort(a, middle, end, less, splits);
      end = middle;
    }
  }
  for (std::size_t i = begin + 1; i < end; ++i) {
    const auto x = a[i];
    std::size_t hole = i;
    for (; hole > begin && less(x, a[hole - 1]); --hole)
      a[hole] = a[hole - 1];
    a[hole] = x;
  }
}

/// Sorts an array in place, in n log n steps for any input, and in n for one that is sorted, as headers often are.
template <class Array, class Less>
void sort_in_place(Array& a, const Less& less)
{
  const std::size_t n = a.size();
  std::size_t sorted = n > 0;
  while (sorted < n && !less(a[sorted], a[sorted - 1]))
    ++sorted;
  if (sorted < n)
    quick_sort(a, 0, n, less);
}

/// Entries by their keys. X has a member `key`, a text_range.
///
/// Entries are added in any order; after `sort` they are in the order of their keys, and can be found.
template <class X>
class table {
 public:
  /// \param text  what the entries' text_ranges refer to
  explicit table(const char* text = nullptr) noexcept : text_(text) {}

  /// The number of entries.
  std::size_t size() const noexcept { return size_; }

  /// The entry at an index.
  X& operator[](std::size_t i) noexcept { return blocks_[i / in_block][i % in_block]; }
  /// The entry at an index.
  const X& operator[](std::size_t i) const noexcept { return blocks_[i / in_block][i % in_block]; }

  /// The key of the entry at an index.
  std::string_view key(std::size_t i) const noexcept { return (*this)[i].key.of(text_); }

  /// Adds an entry at the end.
  void add(const X& x)
  {
    if (size_ % in_block == 0)
      blocks_.push_back(std::make_unique<X[]>(in_block));
    (*this)[size_++] = x;
  }

  /// Puts the entries into the order of their keys.
  void sort()
  {
    sort_in_place(*this, [this](const X& a, const X& b) { return a.key.of(text_) < b.key.of(text_); });
  }

  /// The index of the first entry whose key is not before this one. \pre the table is sorted
  std::size_t lower_bound(std::string_view wanted) const noexcept
  {
    std::size_t begin = 0;
    for (std::size_t count = size_; count > 0;)
      if (const std::size_t half = count / 2; key(begin + half) < wanted) {
        begin += half + 1;
        count -= half + 1;
      } else
        count = half;
    return begin;
  }

  /// The entry with this key; null if there is none. \pre the table is sorted
  const X* find(std::string_view wanted) const noexcept
  {
    const std::size_t i = lower_bound(wanted);
    return i < size_ && key(i) == wanted ? &(*this)[i] : nullptr;
  }
  /// The entry with this key; null if there is none. \pre the table is sorted
  X* find(std::string_view wanted) noexcept { return const_cast<X*>(static_cast<const table&>(*this).find(wanted)); }

 private:
  // Blocks, because a vector would move its elements, and take three times their memory meanwhile.
  static constexpr std::size_t in_block = 32;

  const char* text_;
  std::size_t size_ = 0;
  std::vector<std::unique_ptr<X[]>> blocks_;
};

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
