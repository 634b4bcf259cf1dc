#pragma once
/// \file
/// Two lookup structures: a set of address intervals that finds overlaps, and a hash table of indices. Both allocate
/// only in `reserve`, so that later calls cannot fail. They know nothing about tensors.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// "No index" of a list.
inline constexpr std::size_t no_place = std::size_t(-1);

/// Reserves capacity for n elements, so that push_back cannot fail. Grows by doubling, because reserve(n) alone would
/// copy the vector at every call.
template <class X>
void make_room(std::vector<X>& v, std::size_t n)
{
  if (v.capacity() < n)
    v.reserve(2 * n);
}

/// A set of half-open intervals, numbered by the caller; they may overlap. Finds an interval that meets a given one in
/// O(log n), or in a few operations if calls go through memory in rising order, as they usually do. A treap (Seidel and
/// Aragon 1996) ordered by the intervals' beginnings, whose nodes store the largest end in their subtree. Interval i is
/// node i. Empty intervals are ignored.
class interval_set {
 public:
  /// Makes room for the intervals 0 to n − 1.
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
    nodes_[i] = {begin, end, end, no_place, no_place, no_place};
    for (gap& known : gaps_)
      if (begin < known.end && known.begin < end)
        known.begin = end < known.end ? end : known.end;
    hang(i);
    while (nodes_[i].parent != no_place && priority(nodes_[i].parent) < priority(i))
      rotate_up(i);
    for (std::size_t t = nodes_[i].parent; t != no_place && nodes_[t].last < end; t = nodes_[t].parent)
      nodes_[t].last = end;
    newest_ = i;
  }

  /// Does nothing if i is not in the set.
  void erase(std::size_t i) noexcept
  {
    if (i >= nodes_.size() || nodes_[i].begin == nodes_[i].end)
      return;
    const node& x = nodes_[i];
    while (x.left != no_place || x.right != no_place)
      rotate_up(x.right == no_place || (x.left != no_place && priority(x.left) > priority(x.right)) ? x.left : x.right);
    link_to(i) = no_place;
    for (std::size_t t = x.parent; t != no_place; t = nodes_[t].parent) {
      const std::uintptr_t last = nodes_[t].last;
      update(t);
      if (nodes_[t].last == last)
        break;
    }
    nodes_[i] = {};
    if (newest_ == i)
      newest_ = no_place;
  }

  /// The number of an interval that overlaps this one, or no_place.
  /// \param kind  0 or 1; each kind of query has its own cache of the last gap, because the two kinds alternate
  std::size_t meeting(std::size_t kind, std::uintptr_t begin, std::uintptr_t end) noexcept
  {
    gap& known = gaps_[kind];
    if (begin == end || (known.begin <= begin && end <= known.end))
      return no_place;
    gap around{0, UINTPTR_MAX};  // from the largest end of intervals that begin before, to the next beginning
    for (std::size_t t = root_; t != no_place;) {
      const node& x = nodes_[t];
      if (x.begin < begin) {
        around.begin = largest(around.begin, largest(x.end, x.left == no_place ? 0 : nodes_[x.left].last));
        t = x.right;
      } else {
        around.end = x.begin;
        t = x.left;
      }
    }
    if (begin < around.begin || around.end < end)
      return find(begin, end);
    known = around;
    return no_place;
  }

 private:
  struct node {
    std::uintptr_t begin = 0, end = 0, last = 0;
    std::size_t parent = no_place, left = no_place, right = no_place;
  };
  /// Addresses that are in no interval.
  struct gap {
    std::uintptr_t begin = 0, end = 0;
  };

  static std::uint64_t priority(std::size_t i) noexcept { return mix(std::uint64_t(i) + 1); }
  static std::uintptr_t largest(std::uintptr_t a, std::uintptr_t b) noexcept { return a < b ? b : a; }
  bool is_before(std::size_t a, std::size_t b) const noexcept
  {
    return nodes_[a].begin < nodes_[b].begin || (nodes_[a].begin == nodes_[b].begin && a < b);
  }
  /// The link that points at a node: its parent's, or root_.
  std::size_t& link_to(std::size_t t) noexcept
  {
    const std::size_t p = nodes_[t].parent;
    return p == no_place ? root_ : nodes_[p].left == t ? nodes_[p].left : nodes_[p].right;
  }
  /// The next node in order.
  std::size_t next(std::size_t t) const noexcept
  {
    if (nodes_[t].right != no_place) {
      for (t = nodes_[t].right; nodes_[t].left != no_place;)
        t = nodes_[t].left;
      return t;
    }
    while (nodes_[t].parent != no_place && nodes_[nodes_[t].parent].right == t)
      t = nodes_[t].parent;
    return nodes_[t].parent;
  }

  /// Recomputes a node's largest end from its children.
  void update(std::size_t t) noexcept
  {
    node& x = nodes_[t];
    x.last = x.end;
    for (const std::size_t child : {x.left, x.right})
      if (child != no_place)
        x.last = largest(x.last, nodes_[child].last);
  }
  /// Links a new node below its predecessor or successor. Tries the newest node first and searches only if that fails.
  void hang(std::size_t i) noexcept
  {
    std::size_t p = no_place;
    bool is_right = false;
    if (newest_ != no_place && is_before(newest_, i)) {
      const std::size_t after = next(newest_);
      if (after == no_place || is_before(i, after)) {
        is_right = nodes_[newest_].right == no_place;
        p = is_right ? newest_ : after;
      }
    }
    for (std::size_t t = p == no_place ? root_ : no_place; t != no_place;
         t = is_right ? nodes_[t].right : nodes_[t].left) {
      p = t;
      is_right = is_before(t, i);
    }
    nodes_[i].parent = p;
    (p == no_place ? root_ : is_right ? nodes_[p].right : nodes_[p].left) = i;
  }
  /// Rotates a node above its parent, which becomes its child.
  void rotate_up(std::size_t t) noexcept
  {
    const std::size_t p = nodes_[t].parent;
    link_to(p) = t;
    nodes_[t].parent = nodes_[p].parent;
    nodes_[p].parent = t;
    std::size_t& given = nodes_[p].left == t ? nodes_[t].right : nodes_[t].left;
    (nodes_[p].left == t ? nodes_[p].left : nodes_[p].right) = given;
    if (given != no_place)
      nodes_[given].parent = p;
    given = p;
    update(p);
    update(t);
  }
  /// An interval that overlaps this one. \pre there is one
  std::size_t find(std::uintptr_t begin, std::uintptr_t end) const noexcept
  {
    std::size_t t = root_;
    while (!(nodes_[t].begin < end && begin < nodes_[t].end)) {
      // If an interval on the left ends after `begin` and still none there overlaps, then none on the right does.
      const std::size_t left = nodes_[t].left;
      t = left != no_place && nodes_[left].last > begin ? left : nodes_[t].right;
    }
    return t;
  }

  std::vector<node> nodes_;
  std::size_t root_ = no_place;
  std::size_t newest_ = no_place;  // the last one inserted, unless it was erased
  gap gaps_[2];                    // around the last query of each kind
};

/// A hash table of indices into the caller's list: open addressing with linear probing.
class place_table {
 public:
  /// Makes room for n indices. \param hash_of  hash_of(index) is the hash of that element
  template <class Hash>
  void reserve(std::size_t n, const Hash& hash_of)
  {
    if (2 * n <= cells_.size())
      return;
    std::size_t size = 16;
    while (size < 4 * n)
      size *= 2;
    const std::vector<std::size_t> old = std::exchange(cells_, std::vector<std::size_t>(size, no_place));
    for (const std::size_t place : old)
      if (place != no_place)
        insert(hash_of(place), place);
  }

  /// The index with this hash that `is` accepts, or no_place.
  template <class Is>
  std::size_t find(std::uint64_t hash, const Is& is) const noexcept
  {
    std::size_t i = first(hash);
    while (cells_[i] != no_place && !is(cells_[i]))
      i = after(i);
    return cells_[i];
  }

  /// \pre  the index is not in the table, and there is room
  void insert(std::uint64_t hash, std::size_t place) noexcept
  {
    std::size_t i = first(hash);
    while (cells_[i] != no_place)
      i = after(i);
    cells_[i] = place;
  }

  /// \pre  the index is in the table
  template <class Hash>
  void erase(std::size_t place, const Hash& hash_of) noexcept
  {
    std::size_t hole = first(hash_of(place));
    while (cells_[hole] != place)
      hole = after(hole);
    // Later cells that may be in the hole move there, so that no search ends too early.
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

  std::vector<std::size_t> cells_;  // the size is a power of two, and at most half of the cells are used
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
