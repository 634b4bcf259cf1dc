// The vocabulary: float and double against the C library, and every pack against float and double, to the bit.

#include <doctest/doctest.h>

#include <algorithm>
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
  select_if_less,
  pow
};
constexpr int operations = int(operation::pow) + 1;

// As a formula is written: over any V, the vocabulary found by its plain names.
template <class V>
V evaluate(operation o, V a, V b, V c)
{
  using gradus::abs, gradus::fma, gradus::max, gradus::min, gradus::pow, gradus::product, gradus::select, gradus::sign,
      gradus::sqrt;
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
  case operation::pow: return pow(a, b);
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

template <class T>
std::string hexadecimal(T x)
{
  char text[64];
  std::snprintf(text, sizeof text, "%a", double(x));
  return text;
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
    gradus::store(result.data(), evaluate<V>(o, gradus::load<V>(&in.a[i]), gradus::load<V>(&in.b[i]), gradus::load<V>(&in.c[i])));
    for (std::size_t k = 0; k < width; ++k) {
      const T a = in.a[i + k], b = in.b[i + k], c = in.c[i + k], e = expected(a, b, c);
      if (hands_on(o) ? support::bits(result[k]) == support::bits(e) : support::same_bits(result[k], e))
        continue;
      if (f.count++ == 0)
        f.first = "a = " + hexadecimal(a) + ", b = " + hexadecimal(b) + ", c = " + hexadecimal(c) + " give " +
                  hexadecimal(result[k]) + ", expected " + hexadecimal(e);
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
  case operation::pow: break;
  }
  return a;
}

}  // namespace

TEST_CASE_TEMPLATE("float and double do what the C library does", T, float, double)
{
  for (int k = 0; k < operations; ++k) {
    const auto o = operation(k);
    if (o == operation::pow)  // which is not exact
      continue;
    const finding f = differences<T, T>(o, [o](T a, T b, T c) { return by_the_c_library(o, a, b, c); });
    CHECK_MESSAGE(f.count == 0, "operation ", k, ": ", f.first);
  }
}

TEST_CASE_TEMPLATE("fma is fused where GRADUS_FUSED says so, and rounded twice where not", T, float, double)
{
  const T e = std::numeric_limits<T>::epsilon();
  const T x = rounded(T(1 + e));
  CHECK(gradus::fma(x, x, T(-(1 + 2 * e))) == (GRADUS_FUSED ? e * e : T(0)));
}

namespace {

// How far pow(x, y) for x ≥ 0 is from the exact power, in units of the exact power's last place; infinity stands for the
// number after the largest.
template <class T>
double error_of_pow(T x, T y)
{
  using limits = std::numeric_limits<T>;
  const T result = gradus::pow(x, y);
  const long double exact = std::pow(static_cast<long double>(x), static_cast<long double>(y));
  if (std::isnan(result) || std::isnan(exact))
    return std::isnan(result) && std::isnan(exact) ? 0 : std::numeric_limits<double>::infinity();
  const long double end = std::ldexp(1.0L, limits::max_exponent);
  const int exponent = exact > 0 && exact < end ? std::ilogb(exact) + 1 : exact > 0 ? limits::max_exponent : limits::min_exponent;
  const long double unit = std::ldexp(1.0L, std::max(exponent, limits::min_exponent) - limits::digits);
  return double(std::fabs(std::min<long double>(result, end) - std::min(exact, end)) / unit);
}

}  // namespace

TEST_CASE_TEMPLATE("pow is as exact as it says", T, float, double)
{
  using limits = std::numeric_limits<T>;
  if (limits::digits + 11 > std::numeric_limits<long double>::digits)
    return;  // nothing here to measure it with
  constexpr double bound = sizeof(T) == 4 ? 1 : 3;
  double worst = 0, worst_of_moderate = 0;
  support::random r(17);
  const auto try_one = [&](T x, T y) {
    const double error = error_of_pow(x, y);
    if (!(error < bound))
      FAIL_CHECK("pow(", hexadecimal(x), ", ", hexadecimal(y), ") is wrong by ", error, " ulp");
    double& highest = std::fabs(double(y) * std::log2(double(x))) <= 100 ? worst_of_moderate : worst;
    highest = std::max(highest, error);
  };
  const auto towards = [&](T x, double exponent_of_result) { try_one(x, T(exponent_of_result / std::log2(double(x)))); };
  for (int i = 0; i < 20000; ++i) {
    try_one(std::fabs(r.any<T>()), r.any<T>());
    try_one(T(r.magnitude(1e-12, 1e3)), T(r.uniform()));  // what Padam asks for
    try_one(T(r.magnitude(1e-12, 1e3)), -T(r.uniform()));
    // Results from the smallest to the largest there are: from any base, a small one, one near 1, a subnormal one.
    const double wanted = r.uniform(limits::min_exponent - limits::digits - 2, limits::max_exponent + 2);
    towards(T(std::ldexp(r.uniform(1, 2), int(r.uniform(limits::min_exponent, limits::max_exponent)))), wanted);
    towards(T(r.uniform(0.5, 0.99)), wanted);
    towards(T(r.uniform(1.01, 2)), wanted);
    towards(T(1 + std::ldexp(r.uniform(1, 2), -int(r.uniform(1, limits::digits)))), wanted);
    towards(T(1 - std::ldexp(r.uniform(1, 2), -int(r.uniform(2, limits::digits)))), wanted);
    towards(T(r.uniform(1, 1000) * double(limits::denorm_min())), wanted);
    try_one(T(r.uniform(1, 1e6) * double(limits::denorm_min())), T(r.uniform(-1, 1)));
  }
  std::printf("pow of %s: %.2f ulp, %.2f where the logarithm is at most 100\n", sizeof(T) == 4 ? "float" : "double", worst,
              worst_of_moderate);
  CHECK(worst_of_moderate < 1);
}

TEST_CASE_TEMPLATE("pow has IEEE 754's special cases, and is NaN for what is below 0", T, float, double)
{
  using limits = std::numeric_limits<T>;
  auto numbers = support::special_numbers<T>();
  for (const T x : {T(2), T(0.5), T(0.3), T(1 - limits::epsilon() / 2), T(1e30)}) {
    numbers.push_back(x);
    numbers.push_back(-x);
  }
  for (const T x : numbers)
    for (const T y : numbers) {
      const T result = gradus::pow(x, y), expected = x < 0 && y != 0 ? limits::quiet_NaN() : std::pow(std::fabs(x), y);
      const bool exact = std::isnan(expected) || std::isinf(expected) || expected == 0 || expected == 1 || y == 1;
      CHECK_MESSAGE((exact ? support::same_bits(result, expected) : error_of_pow(x, y) < 3), "pow(", hexadecimal(x), ", ",
                    hexadecimal(y), ") is ", hexadecimal(result), ", expected ", hexadecimal(expected));
    }
}

TEST_CASE_TEMPLATE("is_finite looks at the bits", T, float, double)
{
  int wrong = 0;
  for (const T x : all_operands<T>().a)
    wrong += gradus::is_finite(x) != bool(std::isfinite(x));
  CHECK(wrong == 0);
}

#if defined(GRADUS_HAS_SIMD)
TEST_CASE_TEMPLATE("every pack does what one number does", T, float, double)
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

TEST_CASE("packs load and store any address, and turn float into double exactly")
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

TEST_CASE_TEMPLATE("part of a pack is loaded and stored alone", T, float, double)
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
