// The value type of single elements: plain arithmetic, and gradus's functions for unqualified names.

#include <doctest/doctest.h>

#include <type_traits>

#include <gradus/kernel/element.hpp>

#include "support/random.hpp"

namespace caller {

// As in a rule of the caller's, where nothing is qualified.
template <class V>
V calls(int k, V a, V b, V c)
{
  switch (k) {
  case 0: return fma(a, b, c);
  case 1: return sqrt(a);
  case 2: return abs(a);
  case 3: return sign(a);
  case 4: return rounded(a * b);
  case 5: return select(a > b, c, a);
  case 6: return select(a < b, c, a);
  case 7: return select(a == b, c, a);
  case 8: return max<>(a, b);
  case 9: return min<>(a, b);
  case 10: return pow(abs(a), b);
  case 11: return a + b;
  case 12: return a - b;
  case 13: return a * b;
  case 14: return a / b;
  default: return -a;
  }
}

}  // namespace caller

namespace {

template <class T>
T expected(int k, T a, T b, T c)
{
  switch (k) {
  case 0: return gradus::fma(a, b, c);
  case 1: return gradus::sqrt(a);
  case 2: return gradus::abs(a);
  case 3: return gradus::sign(a);
  case 4: return gradus::rounded(T(a * b));
  case 5: return a > b ? c : a;
  case 6: return a < b ? c : a;
  case 7: return a == b ? c : a;
  case 8: return gradus::max<>(a, b);
  case 9: return gradus::min<>(a, b);
  case 10: return gradus::pow(gradus::abs(a), b);
  case 11: return a + b;
  case 12: return a - b;
  case 13: return a * b;
  case 14: return a / b;
  default: return -a;
  }
}

}  // namespace

TEST_CASE_TEMPLATE("number: unqualified functions and operators are gradus's, to the bit", T, float, double)
{
  using number = gradus::detail::number<T>;
  static_assert(std::is_trivially_copyable_v<number> && sizeof(number) == sizeof(T));
  static_assert(!std::is_convertible_v<T, number>);
  const auto special = support::special_numbers<T>();
  support::random r(3);
  int wrong = 0;
  const auto compare = [&](T a, T b, T c) {
    for (int k = 0; k < 16; ++k) {
      const T found = caller::calls(k, number(a), number(b), number(c)).x, wanted = expected(k, a, b, c);
      wrong += found != wanted && (found == found || wanted == wanted);
    }
  };
  for (const T a : special)
    for (const T b : special)
      for (const T c : special)
        compare(a, b, c);
  for (int i = 0; i < 2000; ++i) {
    const T a = T(r.uniform(1, 2)), b = T(r.uniform(1, 2));
    compare(a, b, -a * b);  // only a fused fma is not 0 here
    compare(r.any<T>(), r.any<T>(), r.any<T>());
  }
  CHECK(wrong == 0);
}
