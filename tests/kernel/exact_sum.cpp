// The exact sum, against a wide integer that is changed bit by bit, and against the processor.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

#include <gradus/kernel/exact_sum.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"
#include "support/wide_integer.hpp"

using gradus::exact_sum;
using support::bits;

namespace {

using limits = std::numeric_limits<double>;
constexpr double largest = limits::max(), least = limits::denorm_min(), infinity = limits::infinity(),
                 not_a_number = limits::quiet_NaN();

using list = std::vector<double>;

exact_sum sum_of(const list& numbers)
{
  exact_sum sum;
  for (const double x : numbers)
    sum.add(x);
  return sum;
}
double reference(const list& numbers)
{
  support::wide_integer sum;
  for (const double x : numbers)
    sum.add(x);
  return sum.nearest();
}

double any_finite(support::random& r)
{
  double x;
  do
    x = r.any<double>();
  while (!std::isfinite(x));
  return x;
}

// Lists of all sorts: numbers of any size, of one size, denormals, and such as cancel all but little.
list any_list(support::random& r)
{
  list numbers;
  const std::size_t n = r.below(30), sort = r.below(4);
  const int exponent = int(r.below(2084)) - 1060;
  for (std::size_t i = 0; i < n; ++i)
    switch (sort) {
    case 0: numbers.push_back(any_finite(r)); break;
    case 1: numbers.push_back(std::ldexp(r.uniform(-1, 1), std::min(exponent + int(r.below(60)), 1023))); break;
    case 2: numbers.push_back(std::ldexp(std::floor(r.uniform(-0x1p53, 0x1p53)), -1074)); break;
    default: numbers.push_back(std::ldexp(r.uniform(-1, 1), exponent)); break;
    }
  if (sort != 2 && r.chance(0.5)) {
    for (std::size_t i = 0; i < n; ++i)
      numbers.push_back(-numbers[i]);
    for (std::size_t i = r.below(3); i > 0; --i)
      numbers.push_back(r.chance(0.5) ? any_finite(r) : std::ldexp(r.uniform(-1, 1), exponent - 50));
  }
  return numbers;
}

void shuffle(list& numbers, support::random& r)
{
  for (std::size_t i = numbers.size(); i > 1; --i)
    std::swap(numbers[i - 1], numbers[r.below(i)]);
}

bool same_words(const exact_sum& a, const exact_sum& b)
{
  for (std::size_t k = 0; k < exact_sum::word_count; ++k)
    if (a.words[k] != b.words[k])
      return false;
  return true;
}

// x, added so many times.
exact_sum times(std::uint64_t n, double x)
{
  exact_sum sum;
  for (std::size_t b = 64; b-- > 0;) {
    sum.add(exact_sum(sum));
    if (n >> b & 1)
      sum.add(x);
  }
  return sum;
}

}  // namespace

TEST_CASE("exact_sum: gives the double nearest to the sum of any list")
{
  support::random r(1);
  int negative = 0, infinite = 0, denormal = 0, zero = 0;
  for (int i = 0; i < 20000; ++i) {
    const list numbers = any_list(r);
    const double expected = reference(numbers), found = sum_of(numbers).value();
    REQUIRE(bits(found) == bits(expected));
    negative += found < 0;
    infinite += std::isinf(found);
    denormal += std::fpclassify(found) == FP_SUBNORMAL;
    zero += found == 0;
  }
  CHECK(negative > 1000);  // each kind of result was among them
  CHECK(infinite > 10);
  CHECK(denormal > 100);
  CHECK(zero > 100);
}

TEST_CASE("exact_sum: two numbers give the processor's sum")
{
  support::random r(2);
  for (int i = 0; i < 100000; ++i) {
    const double a = any_finite(r);
    const double b = i % 2 ? any_finite(r) : a * std::ldexp(r.uniform(-1, 1), int(r.below(120)) - 60);
    if (!std::isfinite(b))
      continue;
    const double expected = a + b;
    REQUIRE(bits(sum_of({a, b}).value()) == bits(expected == 0 ? 0 : expected));  // 0 is positive
  }
}

TEST_CASE("exact_sum: a tie between two doubles rounds to the even one, at any exponent")
{
  constexpr double e = limits::epsilon();  // 2^-52
  const std::pair<list, double> cases[] = {
      {{1, e / 2}, 1}, {{1, e, e / 2}, 1 + 2 * e}, {{1, -e / 4}, 1}, {{1, -e / 2, -e / 4}, 1 - e}, {{2 - e, e / 2}, 2},
  };
  int moved = 0;
  for (int place = -1074 + 54; place <= 1022; ++place)
    for (const auto& [numbers, even] : cases) {
      list scaled;
      for (const double x : numbers)
        scaled.push_back(std::ldexp(x, place));
      const double expected = std::ldexp(even, place);
      REQUIRE(bits(sum_of(scaled).value()) == bits(expected));
      // The least number tips the scales.
      for (const double little : {least, -least}) {
        list tipped = scaled;
        tipped.push_back(little);
        const double nearest = reference(tipped);
        REQUIRE(bits(sum_of(tipped).value()) == bits(nearest));
        moved += bits(nearest) != bits(expected);
        for (double& x : tipped)
          x = -x;
        REQUIRE(bits(sum_of(tipped).value()) == bits(-nearest));
      }
    }
  CHECK(moved == (1022 + 1074 - 54 + 1) * 5);  // in one of the two directions
}

TEST_CASE("exact_sum: sums of denormals are exact, up to and beyond the smallest normal number")
{
  constexpr double normal = limits::min();
  CHECK(sum_of({least, least, least}).value() == 3 * least);
  CHECK(sum_of({normal - least, least}).value() == normal);
  CHECK(sum_of({normal, -least}).value() == normal - least);
  CHECK(sum_of({2 * normal - least, least}).value() == 2 * normal);
  CHECK(sum_of({2 * normal, least}).value() == 2 * normal);
  CHECK(sum_of({2 * normal, least, least, least}).value() == 2 * normal + 4 * least);
  CHECK(sum_of({-normal, least}).value() == -(normal - least));
}

TEST_CASE("exact_sum: infinite if the total rounds to 2^1024 or more, whatever the partial sums")
{
  constexpr double half = 0x1p970;  // of the largest double's last bit
  CHECK(sum_of({largest, largest}).value() == infinity);
  CHECK(sum_of({-largest, -largest}).value() == -infinity);
  CHECK(sum_of({largest, half}).value() == infinity);
  CHECK(sum_of({largest, half, -least}).value() == largest);
  CHECK(sum_of({-largest, -half}).value() == -infinity);
  CHECK(sum_of({largest, half / 2}).value() == largest);
  CHECK(sum_of({largest, largest, -largest}).value() == largest);
  CHECK(sum_of({largest, largest, -largest, -largest}).value() == 0);
  CHECK(times(0x7fffffff, largest).value() == infinity);
  CHECK(times(0x7fffffff, -largest).value() == -infinity);
  exact_sum all = times(0x7fffffff, largest);
  all.carry();
  all.add(times(0x7fffffff, -largest));
  all.add(3);
  CHECK(all.value() == 3);
}

TEST_CASE("exact_sum: zeros, or numbers that cancel, give +0")
{
  CHECK(bits(exact_sum().value()) == bits(0.0));
  CHECK(bits(sum_of({0.0, 0.0}).value()) == bits(0.0));
  CHECK(bits(sum_of({-0.0}).value()) == bits(0.0));
  CHECK(bits(sum_of({1.5, -1.5}).value()) == bits(0.0));
  CHECK(bits(sum_of({-1.5, 1.5}).value()) == bits(0.0));
  CHECK(bits(sum_of({largest, -least, -largest, least}).value()) == bits(0.0));
}

TEST_CASE("exact_sum: NaN or infinities of both signs give NaN; infinities of one sign give infinity")
{
  for (const double x : {0.0, 1.0, -largest}) {
    CHECK(std::isnan(sum_of({x, not_a_number}).value()));
    CHECK(std::isnan(sum_of({-not_a_number, x}).value()));
    CHECK(std::isnan(sum_of({x, not_a_number, infinity}).value()));
    CHECK(std::isnan(sum_of({x, -infinity, not_a_number}).value()));
    CHECK(std::isnan(sum_of({infinity, x, -infinity}).value()));
    CHECK(sum_of({x, infinity}).value() == infinity);
    CHECK(sum_of({infinity, infinity, x}).value() == infinity);
    CHECK(sum_of({x, -infinity}).value() == -infinity);
    CHECK(sum_of({-infinity, x, -infinity}).value() == -infinity);
  }
  // Also in a sum of sums.
  exact_sum a = sum_of({1, infinity});
  a.add(sum_of({2, -infinity}));
  CHECK(std::isnan(a.value()));
  exact_sum b = sum_of({1, -infinity});
  b.carry();
  b.add(sum_of({2}));
  CHECK(b.value() == -infinity);
}

TEST_CASE("exact_sum: the order of the numbers changes no word")
{
  support::random r(3);
  for (int i = 0; i < 300; ++i) {
    list numbers = any_list(r);
    if (i % 10 == 0)
      numbers.insert(numbers.end(), {infinity, 1, not_a_number});
    const exact_sum sum = sum_of(numbers);
    shuffle(numbers, r);
    REQUIRE(same_words(sum_of(numbers), sum));
  }
}

TEST_CASE("exact_sum: sums of parts, added in any order, give the sum of the whole")
{
  support::random r(4);
  for (int i = 0; i < 300; ++i) {
    list numbers = any_list(r);
    const double expected = reference(numbers);
    std::array<exact_sum, 5> parts;
    for (const double x : numbers)
      parts[r.below(parts.size())].add(x);
    exact_sum forward, backward;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      forward.add(parts[k]);
      backward.add(parts[parts.size() - 1 - k]);
    }
    REQUIRE(same_words(forward, backward));
    REQUIRE(bits(forward.value()) == bits(expected));
    // Also if some of them have been carried.
    exact_sum carried;
    for (exact_sum& part : parts) {
      if (r.chance(0.5))
        part.carry();
      carried.add(part);
    }
    REQUIRE(bits(carried.value()) == bits(expected));
  }
}

TEST_CASE("exact_sum: a carry keeps the value, and leaves each digit but the last below 2^32")
{
  support::random r(5);
  for (int i = 0; i < 300; ++i) {
    list numbers = any_list(r);
    exact_sum sum = sum_of(numbers);
    const double before = sum.value();
    REQUIRE(bits(sum.value()) == bits(before));  // asking changes nothing
    sum.carry();
    for (std::size_t k = 0; k + 1 < exact_sum::digit_count; ++k)
      REQUIRE((sum.words[k] >= 0 && sum.words[k] <= 0xffffffff));
    REQUIRE(bits(sum.value()) == bits(before));
    for (const double x : any_list(r)) {
      numbers.push_back(x);
      sum.add(x);
    }
    REQUIRE(bits(sum.value()) == bits(reference(numbers)));
  }
}

TEST_CASE("exact_sum: 2^31 − 1 numbers can be added before a carry")
{
  support::random r(6);
  constexpr std::uint64_t n = 0x7fffffff;
  for (int place = -1074; place <= 900; place += 7)
    for (const double mantissa : {0x1p53 - 1, -(0x1p53 - 1), 0x1p52, r.uniform(-0x1p53, 0x1p53)}) {
      const double x = std::ldexp(mantissa, place);
      if (!std::isfinite(x))
        continue;
      support::wide_integer expected;
      for (int b = 0; b < 31; ++b)
        expected.add(std::ldexp(x, b));
      exact_sum sum = times(n, x);
      REQUIRE(bits(sum.value()) == bits(expected.nearest()));
      sum.carry();
      REQUIRE(bits(sum.value()) == bits(expected.nearest()));
    }
}

TEST_CASE("exact_sum: a finite number changes at most three words, any other changes one count")
{
  support::random r(7);
  const auto changes_of = [](double x) {
    std::vector<std::pair<std::size_t, std::int64_t>> changes;
    exact_sum::split(x, [&](std::size_t word, std::int64_t change) { changes.emplace_back(word, change); });
    return changes;
  };
  for (int i = 0; i < 20000; ++i) {
    const double x = i == 0 ? largest : i == 1 ? -least : any_finite(r);
    const auto changes = changes_of(x);
    REQUIRE(changes.size() <= 3);
    support::wide_integer worth;
    for (std::size_t k = 0; k < changes.size(); ++k) {
      const auto [word, change] = changes[k];
      REQUIRE(word < exact_sum::digit_count);
      REQUIRE((k == 0 || word == changes[k - 1].first + 1));
      REQUIRE(std::abs(change) <= 0xffffffff);
      worth.add(std::ldexp(double(change), 32 * int(word) - 1074));
    }
    REQUIRE(bits(worth.nearest()) == bits(x + 0.0));
  }
  constexpr std::size_t first = exact_sum::digit_count;
  using changes = std::vector<std::pair<std::size_t, std::int64_t>>;
  CHECK(changes_of(not_a_number) == changes{{first, 1}});
  CHECK(changes_of(-not_a_number) == changes{{first, 1}});
  CHECK(changes_of(infinity) == changes{{first + 1, 1}});
  CHECK(changes_of(-infinity) == changes{{first + 2, 1}});
  CHECK(exact_sum::word_count == first + 3);
}
