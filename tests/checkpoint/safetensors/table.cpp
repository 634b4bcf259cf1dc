// The tables of a header: sorted in place, whatever the order of the entries.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gradus/checkpoint/safetensors/table.hpp>

#include "support/random.hpp"

namespace {

struct named {
  gradus::safetensors::text_range key;
  std::size_t number = 0;
};

// Orders on which simple sorts are slow, or wrong.
std::vector<std::vector<int>> orders(std::size_t n, support::random& r)
{
  std::vector<std::vector<int>> all(8, std::vector<int>(n));
  for (std::size_t i = 0; i < n; ++i) {
    const int k = int(i), m = int(n);
    all[0][i] = k;
    all[1][i] = m - k;
    all[2][i] = 7;
    all[3][i] = int(r.below(n));
    all[4][i] = int(r.below(3));
    all[5][i] = k < m / 2 ? k : m - k;
    all[6][i] = k % 2 ? k : m - k;
    all[7][i] = i + 1 == n ? 0 : k;
  }
  return all;
}

// An order in which every median of three is one of the two smallest: a quicksort's worst. It is found by running the
// sort with values that are decided as late as possible.
std::vector<int> worst_order(std::size_t n)
{
  std::vector<int> value(n, int(n)), index(n);
  for (std::size_t i = 0; i < n; ++i)
    index[i] = int(i);
  int decided = 0, candidate = 0;
  gradus::safetensors::sort_in_place(index, [&](int a, int b) {
    int& x = value[std::size_t(a)];
    int& y = value[std::size_t(b)];
    if (x == int(n) && y == int(n))
      (a == candidate ? x : y) = decided++;
    candidate = x == int(n) ? a : y == int(n) ? b : candidate;
    return x < y;
  });
  return value;
}

}  // namespace

TEST_CASE("table: arrays are sorted in n log n steps, whatever their order")
{
  support::random r(7);
  for (const std::size_t n : {0u, 1u, 2u, 3u, 15u, 16u, 17u, 18u, 100u, 1000u, 4096u, 20000u})
    for (std::vector<int>& a : [&] {
           auto all = orders(n, r);
           all.push_back(worst_order(n));
           return all;
         }()) {
      std::vector<int> expected = a, by_heap = a;
      std::sort(expected.begin(), expected.end());
      std::size_t steps = 0;
      const auto less = [&](int x, int y) { return ++steps, x < y; };
      gradus::safetensors::sort_in_place(a, less);
      CHECK(a == expected);
      const double most = 200 * double(n) + 200;
      CHECK(double(steps) < most);
      gradus::safetensors::heap_sort(by_heap, 0, n, less);
      CHECK(by_heap == expected);
    }
}

TEST_CASE("table: entries are found by their keys")
{
  support::random r(8);
  std::string text;
  gradus::safetensors::table<named> t(nullptr);
  CHECK(t.find("a") == nullptr);
  CHECK(t.lower_bound("a") == 0);
  std::vector<std::string> keys;
  for (int i = 0; i < 500; ++i)
    keys.push_back(std::to_string(i * 2 + 1000));
  for (std::size_t i = keys.size(); i > 1; --i)
    std::swap(keys[i - 1], keys[r.below(i)]);
  for (const std::string& key : keys)
    text += key;
  t = gradus::safetensors::table<named>(text.data());
  for (std::size_t i = 0; i < keys.size(); ++i)
    t.add({{std::uint32_t(4 * i), 4}, i});
  t.sort();
  CHECK(t.size() == keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    REQUIRE(t.find(keys[i]) != nullptr);
    CHECK(t.find(keys[i])->number == i);
    CHECK(t.find(std::to_string(std::stoi(keys[i]) + 1)) == nullptr);
  }
  CHECK(t.lower_bound("") == 0);
  CHECK(t.lower_bound("1001") == 1);
  CHECK(t.lower_bound("2") == t.size());
}
