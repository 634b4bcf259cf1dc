// pow: against the C library in extended precision, and every pack against single numbers, to the bit.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

// How far pow(x, y) for x ≥ 0 is from the exact power, in units of the exact power's last place; infinity stands for
// the number after the largest.
template <class T>
double error_of_pow(T x, T y)
{
  using limits = std::numeric_limits<T>;
  const T result = gradus::pow(x, y);
  const long double exact = std::pow(static_cast<long double>(x), static_cast<long double>(y));
  if (std::isnan(result) || std::isnan(exact))
    return std::isnan(result) && std::isnan(exact) ? 0 : std::numeric_limits<double>::infinity();
  const long double end = std::ldexp(1.0L, limits::max_exponent);
  const int exponent = exact > 0 && exact < end ? std::ilogb(exact) + 1
                       : exact > 0              ? limits::max_exponent
                                                : limits::min_exponent;
  const long double unit = std::ldexp(1.0L, std::max(exponent, limits::min_exponent) - limits::digits);
  return double(std::fabs(std::min<long double>(result, end) - std::min(exact, end)) / unit);
}

}  // namespace

TEST_CASE_TEMPLATE("pow: as exact as its comment says", T, float, double)
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
      FAIL_CHECK("pow(", support::hexadecimal(x), ", ", support::hexadecimal(y), ") is wrong by ", error, " ulp");
    double& highest = std::fabs(double(y) * std::log2(double(x))) <= 100 ? worst_of_moderate : worst;
    highest = std::max(highest, error);
  };
  const auto towards = [&](T x, double exponent_of_result) {
    try_one(x, T(exponent_of_result / std::log2(double(x))));
  };
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
  std::printf("pow of %s: %.2f ulp, %.2f where the logarithm is at most 100\n", sizeof(T) == 4 ? "float" : "double",
              worst, worst_of_moderate);
  CHECK(worst_of_moderate < 1);
}

TEST_CASE_TEMPLATE("pow: IEEE 754's special cases, and NaN for numbers below 0", T, float, double)
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
      CHECK_MESSAGE((exact ? support::same_bits(result, expected) : error_of_pow(x, y) < 3), "pow(",
                    support::hexadecimal(x), ", ", support::hexadecimal(y), ") is ", support::hexadecimal(result),
                    ", expected ", support::hexadecimal(expected));
    }
}

#if defined(GRADUS_HAS_SIMD)
TEST_CASE_TEMPLATE("pow: each lane of a pack gives the bits of a single number", T, float, double)
{
  std::vector<T> x, y;
  for (const T a : support::special_numbers<T>())
    for (const T b : support::special_numbers<T>()) {
      x.push_back(a);
      y.push_back(b);
    }
  support::random r(11);
  for (int i = 0; i < 20000; ++i) {
    x.push_back(i % 2 ? r.any<T>() : T(r.magnitude(1e-12, 1e3)));
    y.push_back(i % 2 ? r.any<T>() : T(r.uniform(-2, 2)));
  }
  while (x.size() % 16 != 0) {  // whole packs of every width
    x.push_back(1);
    y.push_back(1);
  }
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    using pack = gradus::backend::pack<T, Arch>;
    T result[pack::size];
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); i += pack::size) {
      gradus::store(result, gradus::pow(gradus::load<pack>(&x[i]), gradus::load<pack>(&y[i])));
      for (std::size_t k = 0; k < pack::size; ++k)
        wrong += !support::same_bits(result[k], gradus::pow(x[i + k], y[i + k]));
    }
    CHECK_MESSAGE(wrong == 0, std::string(name));
  });
}
#endif
