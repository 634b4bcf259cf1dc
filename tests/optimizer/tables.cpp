// What an optimizer looks its tensors up in, beside plain lists.

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <gradus/optimizer/tables.hpp>

#include "support/random.hpp"

namespace {

using gradus::detail::interval_set, gradus::detail::no_place, gradus::detail::place_table;

struct interval {
  std::uintptr_t begin, end;
  bool meets(std::uintptr_t b, std::uintptr_t e) const { return begin < end && b < e && begin < e && b < end; }
};

}  // namespace

TEST_CASE("interval_set: what meets an interval, and what only touches it")
{
  interval_set set;
  set.reserve(4);
  CHECK(set.meeting(0, 0, 100) == no_place);
  set.insert(0, 10, 20);
  set.insert(1, 30, 40);
  CHECK(set.meeting(0, 0, 10) == no_place);
  CHECK(set.meeting(0, 20, 30) == no_place);
  CHECK(set.meeting(0, 40, 50) == no_place);
  CHECK(set.meeting(0, 19, 30) == 0);
  CHECK(set.meeting(0, 0, 11) == 0);
  CHECK(set.meeting(1, 39, 100) == 1);
  CHECK(set.meeting(0, 15, 15) == no_place);  // nothing meets nothing
  set.insert(2, 25, 25);
  CHECK(set.meeting(0, 21, 29) == no_place);
  set.erase(0);
  set.erase(2);  // was never there
  CHECK(set.meeting(0, 10, 30) == no_place);
  CHECK(set.meeting(0, 10, 31) == 1);
}

TEST_CASE("interval_set: as a list of intervals has it, whatever comes and goes")
{
  support::random r(4);
  interval_set set;
  std::vector<std::optional<interval>> all(60);
  set.reserve(all.size());
  int met = 0, missed = 0;
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t i = r.below(all.size());
    // Rising, as memory mostly is gone through, or anywhere; many overlap.
    const std::uintptr_t begin = step % 4 == 0 ? r.below(2000) : std::uintptr_t(step * 7 % 2000),
                         end = begin + r.below(step % 50 == 0 ? 500 : 12);
    if (all[i]) {
      set.erase(i);
      all[i].reset();
    } else if (r.chance(0.7)) {
      set.insert(i, begin, end);
      all[i] = {begin, end};
    }
    const std::uintptr_t b = r.chance(0.5) ? begin : r.below(2000), e = b + r.below(30);
    const std::size_t found = set.meeting(r.below(2), b, e);
    bool any = false;
    for (const auto& x : all)
      any = any || (x && x->meets(b, e));
    REQUIRE((found != no_place) == any);
    if (any)
      REQUIRE((all[found] && all[found]->meets(b, e)));
    ++(any ? met : missed);
  }
  CHECK(met > 1000);
  CHECK(missed > 1000);
}

TEST_CASE("place_table: finds what was inserted, until it is erased, for hashes that collide too")
{
  for (const std::uint64_t modulus : {std::uint64_t(1), std::uint64_t(5), ~std::uint64_t(0)}) {
    support::random r(6);
    const auto hash = [&](std::size_t place) { return (std::uint64_t(place) * 0x9e3779b97f4a7c15u) % modulus; };
    place_table table;
    table.reserve(10, hash);
    std::vector<bool> there(200);
    const auto find = [&](std::size_t place) {
      return table.find(hash(place), [&](std::size_t k) { return k == place; });
    };
    for (int step = 0; step < 3000; ++step) {
      const std::size_t place = r.below(step < 100 ? 10 : there.size());
      if (step == 100)
        table.reserve(there.size(), hash);  // and keeps what it has
      CHECK(find(place) == (there[place] ? place : no_place));
      if (there[place])
        table.erase(place, hash);
      else
        table.insert(hash(place), place);
      there[place] = !there[place];
    }
    for (std::size_t place = 0; place < there.size(); ++place)
      CHECK(find(place) == (there[place] ? place : no_place));
    table.clear();
    for (std::size_t place = 0; place < there.size(); ++place)
      CHECK(find(place) == no_place);
  }
}
