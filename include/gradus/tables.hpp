#pragma once
/// \file
/// What the optimizer looks its tensors up in: intervals of memory by where they meet, and places in a list by a hash. Both
/// allocate in `reserve` and nowhere else, so that what follows it cannot fail.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <gradus/storage.hpp>

namespace gradus::inline GRADUS_ISA {
namespace detail {

inline constexpr std::size_t no_place = std::size_t(-1);

/// Half-open intervals, numbered by the caller, which may overlap: which of them meets a given one is found in O(log n). A
/// treap (Seidel and Aragon 1996), in the order of the intervals' beginnings; each node knows the largest end below it.
/// Interval i is node i. Empty intervals occupy nothing and are not kept.
class interval_set {
 public:
  /// Room for the numbers 0 to n − 1.
  void reserve(std::size_t n)
  {
    if (n > nodes_.size())
      nodes_.resize(n + n / 2);
  }

  /// \pre  i is not in the set
  void insert(std::size_t i, std::uintptr_t begin, std::uintptr_t end) noexcept
  {
    if (begin == end)
      return;
    nodes_[i] = {begin, end, end, no_place, no_place};
    std::size_t* at = &root_;
    while (*at != no_place && priority(*at) >= priority(i)) {
      node& x = nodes_[*at];
      x.last = x.last < end ? end : x.last;
      at = is_before(i, *at) ? &x.left : &x.right;
    }
    split(*at, i, nodes_[i].left, nodes_[i].right);
    update(i);
    *at = i;
  }

  /// Does nothing if i is not in the set.
  void erase(std::size_t i) noexcept
  {
    if (i < nodes_.size() && nodes_[i].begin != nodes_[i].end)
      erase(root_, i);
  }

  /// The number of an interval that meets this one, or no_place.
  std::size_t meeting(std::uintptr_t begin, std::uintptr_t end) const noexcept
  {
    std::size_t t = begin == end ? no_place : root_;
    while (t != no_place) {
      const node& x = nodes_[t];
      if (x.begin < end && begin < x.end)
        break;
      // Where an interval of the left part ends after `begin` and yet none there meets, none on the right does either.
      t = x.left != no_place && nodes_[x.left].last > begin ? x.left : x.right;
    }
    return t;
  }

 private:
  struct node {
    std::uintptr_t begin = 0, end = 0, last = 0;
    std::size_t left = no_place, right = no_place;
  };

  static std::uint64_t priority(std::size_t i) noexcept { return mix(std::uint64_t(i) + 1); }
  bool is_before(std::size_t a, std::size_t b) const noexcept
  {
    return nodes_[a].begin < nodes_[b].begin || (nodes_[a].begin == nodes_[b].begin && a < b);
  }
  void update(std::size_t t) noexcept
  {
    node& x = nodes_[t];
    x.last = x.end;
    for (const std::size_t child : {x.left, x.right})
      if (child != no_place && nodes_[child].last > x.last)
        x.last = nodes_[child].last;
  }
  /// What is before i, and what is after it.
  void split(std::size_t t, std::size_t i, std::size_t& before, std::size_t& after) noexcept
  {
    if (t == no_place)
      before = after = no_place;
    else if (is_before(t, i)) {
      before = t;
      split(nodes_[t].right, i, nodes_[t].right, after);
      update(t);
    }
    else {
      after = t;
      split(nodes_[t].left, i, before, nodes_[t].left);
      update(t);
    }
  }
  std::size_t joined(std::size_t a, std::size_t b) noexcept
  {
    if (a == no_place || b == no_place)
      return a == no_place ? b : a;
    const bool first = priority(a) >= priority(b);
    const std::size_t top = first ? a : b;
    if (first)
      nodes_[a].right = joined(nodes_[a].right, b);
    else
      nodes_[b].left = joined(a, nodes_[b].left);
    update(top);
    return top;
  }
  void erase(std::size_t& t, std::size_t i) noexcept
  {
    if (t == i) {
      t = joined(nodes_[i].left, nodes_[i].right);
      nodes_[i] = {};
      return;
    }
    const std::size_t above = t;
    erase(is_before(i, t) ? nodes_[t].left : nodes_[t].right, i);
    update(above);
  }

  std::vector<node> nodes_;
  std::size_t root_ = no_place;
};

/// Places in a list of the caller's, found by the hash of what is there: open addressing with linear probing.
class place_table {
 public:
  /// Room for n places. \param hash_of  the hash of what is at a place
  template <class Hash>
  void reserve(std::size_t n, const Hash& hash_of)
  {
    if (2 * n <= cells_.size())
      return;
    std::size_t size = 16;
    while (size < 4 * n)
      size *= 2;
    std::vector<std::size_t> old(size, no_place);
    old.swap(cells_);
    for (const std::size_t place : old)
      if (place != no_place)
        insert(hash_of(place), place);
  }

  /// The place that `is` accepts, among those of that hash, or no_place.
  template <class Is>
  std::size_t find(std::uint64_t hash, const Is& is) const noexcept
  {
    std::size_t i = first(hash);
    while (cells_[i] != no_place && !is(cells_[i]))
      i = after(i);
    return cells_[i];
  }

  /// \pre  it is not there, and there is room
  void insert(std::uint64_t hash, std::size_t place) noexcept
  {
    std::size_t i = first(hash);
    while (cells_[i] != no_place)
      i = after(i);
    cells_[i] = place;
  }

  /// \pre  it is there
  template <class Hash>
  void erase(std::size_t place, const Hash& hash_of) noexcept
  {
    std::size_t hole = first(hash_of(place));
    while (cells_[hole] != place)
      hole = after(hole);
    // Whatever stands behind the hole and may stand in it moves there, so that no search ends too early.
    for (std::size_t i = after(hole); cells_[i] != no_place; i = after(i))
      if (((i - first(hash_of(cells_[i]))) & (cells_.size() - 1)) >= ((i - hole) & (cells_.size() - 1))) {
        cells_[hole] = cells_[i];
        hole = i;
      }
    cells_[hole] = no_place;
  }

  void clear() noexcept
  {
    for (std::size_t& cell : cells_)
      cell = no_place;
  }

 private:
  std::size_t first(std::uint64_t hash) const noexcept { return std::size_t(hash) & (cells_.size() - 1); }
  std::size_t after(std::size_t i) const noexcept { return (i + 1) & (cells_.size() - 1); }

  std::vector<std::size_t> cells_;  // a power of two, at most half of them taken
};

}  // namespace detail
}  // namespace gradus::inline GRADUS_ISA
