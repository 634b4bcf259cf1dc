// The vocabulary: float and double against the C library, and every pack against float and double, to the bit.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

enum class operation {
  add,
  subtract,
  multiply,
  divide,
  negate,
  fma,
  product,
  sqrt,
  abs,
  max,
  min,
  sign,
  select_if_greater,
  select_if_less
};
constexpr int operations = int(operation::select_if_less) + 1;

// As a formula is written: over any V, the vocabulary found by its plain names.
template <class V>
V evaluate(operation o, V a, V b, V c)
{
  using gradus::abs, gradus::fma, gradus::max, gradus::min, gradus::product, gradus::select, gradus::sign, gradus::sqrt;
  switch (o) {
  case operation::add: return a + b;
  case operation::subtract: return a - b;
  case operation::multiply: return a * b;
  case operation::divide: return a / b;
  case operation::negate: return -a;
  case operation::fma: return fma(a, b, c);
  case operation::product: return product(a, b);
  case operation::sqrt: return sqrt(a);
  case operation::abs: return abs(a);
  case operation::max: return max(a, b);
  case operation::min: return min(a, b);
  case operation::sign: return sign(a);
  case operation::select_if_greater: return select(a > b, c, a);
  case operation::select_if_less: return select(a < b, c, a);
  }
  return a;
}

template <class T>
struct operands {
  std::vector<T> a, b, c;
  void add(T x, T y, T z)
  {
    a.push_back(x);
    b.push_back(y);
    c.push_back(z);
  }
};

// All triples of special numbers, random bits, and sums that cancel: only there does a second rounding show often.
template <class T>
const operands<T>& all_operands()
{
  static const operands<T> all = [] {
    operands<T> o;
    const auto special = support::special_numbers<T>();
    for (const T x : special)
      for (const T y : special)
        for (const T z : special)
          o.add(x, y, z);
    support::random r(11);
    for (int i = 0; i < 20000; ++i) {
      o.add(r.any<T>(), r.any<T>(), r.any<T>());
      o.add(T(r.uniform(-2, 2)), T(r.uniform(-2, 2)), T(r.uniform(-2, 2)));
      const T x = T(r.uniform(1, 2)), y = T(r.uniform(1, 2));
      o.add(x, y, T(-x * y));
      const T z = r.any<T>();
      o.add(z, z, r.chance(0.5) ? z : -z);
    }
    while (o.a.size() % 16 != 0)  // whole packs of every width
      o.add(1, 1, 1);
    return o;
  }();
  return all;
}

// Selections hand a number on as it is, NaN with all its bits.
constexpr bool hands_on(operation o)
{
  return o == operation::max || o == operation::min || o == operation::abs || o == operation::select_if_greater ||
         o == operation::select_if_less;
}

// How many results differ from what was expected, with the first of them described.
struct finding {
  int count = 0;
  std::string first;
};

template <class V, class T, class Expected>
finding differences(operation o, Expected&& expected)
{
  const operands<T>& in = all_operands<T>();
  constexpr std::size_t width = sizeof(V) / sizeof(T);
  std::array<T, width> result;
  finding f;
  for (std::size_t i = 0; i < in.a.size(); i += width) {
    gradus::store(result.data(),
                  evaluate<V>(o, gradus::load<V>(&in.a[i]), gradus::load<V>(&in.b[i]), gradus::load<V>(&in.c[i])));
    for (std::size_t k = 0; k < width; ++k) {
      const T a = in.a[i + k], b = in.b[i + k], c = in.c[i + k], e = expected(a, b, c);
      if (hands_on(o) ? support::bits(result[k]) == support::bits(e) : support::same_bits(result[k], e))
        continue;
      if (f.count++ == 0)
        f.first = "a = " + support::hexadecimal(a) + ", b = " + support::hexadecimal(b) +
                  ", c = " + support::hexadecimal(c) + " give " + support::hexadecimal(result[k]) + ", expected " +
                  support::hexadecimal(e);
    }
  }
  return f;
}

// Rounds for certain: nothing is fused with what went through memory.
template <class T>
T rounded(T x)
{
  volatile T y = x;
  return y;
}

template <class T>
T by_the_c_library(operation o, T a, T b, T c)
{
  switch (o) {
  case operation::add: return a + b;
  case operation::subtract: return a - b;
  case operation::multiply: return a * b;
  case operation::divide: return a / b;
  case operation::negate: return std::copysign(a, std::signbit(a) ? T(1) : T(-1));
  case operation::fma: return GRADUS_FUSED ? std::fma(a, b, c) : T(rounded(T(a * b)) + c);
  case operation::product: return a * b;
  case operation::sqrt: return std::sqrt(a);
  case operation::abs: return std::copysign(a, T(1));
  case operation::max: return std::isnan(a) || std::isnan(b) || !(a > b) ? b : a;
  case operation::min: return std::isnan(a) || std::isnan(b) || !(a < b) ? b : a;
  case operation::sign: return std::isnan(a) || a == 0 ? T(0) : std::copysign(T(1), a);
  case operation::select_if_greater: return std::isgreater(a, b) ? c : a;
  case operation::select_if_less: return std::isless(a, b) ? c : a;
  }
  return a;
}

}  // namespace

TEST_CASE_TEMPLATE("math: float and double agree with the C library", T, float, double)
{
  for (int k = 0; k < operations; ++k) {
    const auto o = operation(k);
    const finding f = differences<T, T>(o, [o](T a, T b, T c) { return by_the_c_library(o, a, b, c); });
    CHECK_MESSAGE(f.count == 0, "operation ", k, ": ", f.first);
  }
}

TEST_CASE_TEMPLATE("fma: fused if GRADUS_FUSED says so, otherwise rounded twice", T, float, double)
{
  const T e = std::numeric_limits<T>::epsilon();
  const T x = rounded(T(1 + e));
  CHECK(gradus::fma(x, x, T(-(1 + 2 * e))) == (GRADUS_FUSED ? e * e : T(0)));
}

TEST_CASE_TEMPLATE("is_finite: agrees with the C library for all bits", T, float, double)
{
  int wrong = 0;
  for (const T x : all_operands<T>().a)
    wrong += gradus::is_finite(x) != bool(std::isfinite(x));
  CHECK(wrong == 0);
}

#if defined(GRADUS_HAS_SIMD)
TEST_CASE_TEMPLATE("pack: each lane gives the bits of a single number", T, float, double)
{
  int packs = 0;
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    using pack = gradus::backend::pack<T, Arch>;
    static_assert(std::is_trivially_copyable_v<pack>);
    static_assert(sizeof(pack) == pack::size * sizeof(T));
    ++packs;
    for (int k = 0; k < operations; ++k) {
      const auto o = operation(k);
      const finding f = differences<pack, T>(o, [o](T a, T b, T c) { return evaluate<T>(o, a, b, c); });
      CHECK_MESSAGE(f.count == 0, std::string(name), ", operation ", k, ": ", f.first);
    }
  });
  CHECK(packs > 0);
  std::printf("packs of %s: %d\n", sizeof(T) == 4 ? "float" : "double", packs);
}

TEST_CASE("pack: loads and stores any address, and converts float to double exactly")
{
  const auto& numbers = all_operands<float>().a;
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    using narrow = gradus::backend::pack<float, Arch>;
    using wide = gradus::backend::pack<double, Arch>;
    int wrong = 0;
    for (std::size_t i = 0; i < 1000; ++i) {  // every alignment that an element can have
      std::vector<float> same(narrow::size + 2, -7.0f);
      gradus::store(&same[1], gradus::load<narrow>(&numbers[i]));
      for (std::size_t k = 0; k < narrow::size; ++k)
        wrong += support::bits(same[1 + k]) != support::bits(numbers[i + k]);
      wrong += same.front() != -7.0f || same.back() != -7.0f;

      std::vector<double> converted(wide::size + 2, -7.0);
      gradus::store(&converted[1], gradus::load<wide>(&numbers[i]));
      for (std::size_t k = 0; k < wide::size; ++k)
        wrong += !support::same_bits(converted[1 + k], double(numbers[i + k]));
      wrong += converted.front() != -7.0 || converted.back() != -7.0;
    }
    CHECK_MESSAGE(wrong == 0, std::string(name));
  });
}

TEST_CASE_TEMPLATE("load_part, store_part: touch no other elements", T, float, double)
{
  support::for_each_architecture(support::architectures{}, []<class Arch>(Arch, const char* name) {
    using pack = gradus::backend::pack<T, Arch>;
    int wrong = 0;
    for (std::size_t n = 1; n <= pack::size; ++n) {
      const std::vector<T> numbers(n, T(7));  // the sanitizer sees what is read after it
      std::vector<T> loaded(pack::size), stored(pack::size, T(-7));
      const pack x = pack::load_part(numbers.data(), n, 1);
      x.store(loaded.data());
      x.store_part(stored.data(), n);
      for (std::size_t k = 0; k < pack::size; ++k)
        wrong += loaded[k] != (k < n ? T(7) : T(1)) || stored[k] != (k < n ? T(7) : T(-7));
    }
    CHECK_MESSAGE(wrong == 0, std::string(name));
  });
}
#endif
