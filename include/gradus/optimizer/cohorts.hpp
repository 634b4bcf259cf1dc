#pragma once
/// \file
/// A table of entries with a key and a step count t, found in constant time while all t grow together. The optimizer
/// keeps cohorts (tensors with the same group and step count) and second-moment sums in such tables.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <gradus/optimizer/model.hpp>
#include <gradus/optimizer/tables.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Entries found by (key, t). Each step increments the t of all entries. An entry without members is kept until the
/// next `purge`, so that a member that leaves and returns between two steps finds the same entry.
/// \tparam Entry  with `key`, `t`, `members` and `next`
template <class Entry>
class aging_table {
 public:
  /// Room for n entries, so that `join` cannot fail.
  void reserve(std::size_t n)
  {
    make_room(entries_, n);
    places_.reserve(n, [this](std::size_t i) { return hash(i); });
  }

  /// Adds a member to the entry of (key, t), and creates the entry if there is none. \return the entry's index
  /// \param fits  whether the member may join an entry of this key and t
  template <class Key, class Fits>
  std::size_t join(Key key, std::uint64_t t, const Fits& fits) noexcept
  {
    const std::uint64_t h = hash(std::uint64_t(key), t);
    std::size_t i = places_.find(h, [&](std::size_t k) {
      return entries_[k].key == key && entries_[k].t == t && fits(entries_[k]);
    });
    if (i == no_place) {
      if (first_free_ == no_place && entries_.size() == entries_.capacity())
        purge();
      i = first_free_;
      if (i == no_place) {
        i = entries_.size();
        entries_.emplace_back();
      } else
        first_free_ = entries_[i].next;
      entries_[i] = Entry{};
      entries_[i].key = key;
      entries_[i].t = t;
      places_.insert(h, i);
    }
    live_ += entries_[i].members++ == 0;
    return i;
  }

  template <class Key>
  std::size_t join(Key key, std::uint64_t t) noexcept
  {
    return join(key, t, [](const Entry&) { return true; });
  }

  /// Removes a member from entry i.
  void leave(std::size_t i) noexcept { live_ -= --entries_[i].members == 0; }

  /// Frees the places of entries without members.
  void purge() noexcept
  {
    if (entries_.size() == live_)
      return;
    places_.clear();
    first_free_ = no_place;
    for (std::size_t i = entries_.size(); i-- > 0;)
      if (entries_[i].members > 0)
        places_.insert(hash(i), i);
      else {
        entries_[i].next = first_free_;
        first_free_ = i;
      }
  }

  /// Purges; if most entries have no members, also removes these from the list, so that steps do not loop over them.
  /// \param renumber  called as renumber(place) before entries move; place(i) is the new index of entry i
  template <class Renumber>
  void compact(const Renumber& renumber) noexcept
  {
    if (entries_.size() - live_ <= live_ + 8)
      return purge();
    std::size_t next = 0;
    for (Entry& e : entries_)
      if (e.members > 0)
        e.next = next++;
    renumber([this](std::size_t i) { return entries_[i].next; });
    for (const Entry& e : entries_)
      if (e.members > 0)
        entries_[e.next] = Entry(e);
    entries_.resize(next);
    first_free_ = no_place;
    places_.clear();
    for (std::size_t i = 0; i < next; ++i)
      places_.insert(hash(i), i);
  }

  void clear() noexcept
  {
    entries_.clear();
    places_.clear();
    first_free_ = no_place;
    live_ = 0;
  }

  /// Adds `steps` to the t of every entry that has members.
  void advance(std::uint64_t steps = 1) noexcept
  {
    for (Entry& e : entries_)
      e.t += e.members > 0 ? steps : 0;
    steps_ += steps;
  }

  std::size_t live() const noexcept { return live_; }      ///< the number of entries with members
  std::vector<Entry>& all() noexcept { return entries_; }  ///< including entries without members
  const std::vector<Entry>& all() const noexcept { return entries_; }
  Entry& operator[](std::size_t i) noexcept { return entries_[i]; }
  const Entry& operator[](std::size_t i) const noexcept { return entries_[i]; }

 private:
  /// Hashes steps_ − t instead of t, because all entries step together and this difference stays the same.
  std::uint64_t hash(std::uint64_t key, std::uint64_t t) const noexcept { return mix(mix(key) + (steps_ - t)); }
  std::uint64_t hash(std::size_t i) const noexcept { return hash(std::uint64_t(entries_[i].key), entries_[i].t); }

  std::vector<Entry> entries_;
  place_table places_;
  std::size_t first_free_ = no_place;  // a linked list, by next
  std::size_t live_ = 0;
  std::uint64_t steps_ = 0;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
