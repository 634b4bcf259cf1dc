// Sums over arrays, whose bits depend on the numbers alone: every backend and width against plain loops.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"
#include "support/wide_integer.hpp"

namespace {

enum class term { square, plain };

double added(term t, double sum, double x)
{
  if (t == term::plain)
    return sum + x;
#if GRADUS_FUSED
  return std::fma(x, x, sum);
#else
  volatile double square = x * x;
  return square + sum;
#endif
}

// The sum of up to 4096 elements: 32 partial sums, folded by halves.
template <class T>
double sum_of_page(term t, std::span<const T> x)
{
  std::vector<double> partial(32, 0.0);
  for (std::size_t i = 0; i < x.size(); ++i)
    partial[i % 32] = added(t, partial[i % 32], double(x[i]));
  for (; partial.size() > 1; partial.resize(partial.size() / 2))
    for (std::size_t k = 0; k < partial.size() / 2; ++k)
      partial[k] += partial[k + partial.size() / 2];
  return partial[0];
}

// The exact sum of the pages' sums, rounded once.
template <class T>
double reference(term t, const std::vector<std::vector<T>>& arrays)
{
  support::wide_integer sum;
  for (const std::vector<T>& x : arrays)
    for (std::size_t begin = 0; begin < x.size(); begin += 4096)
      sum.add(sum_of_page(t, std::span(x).subspan(begin, std::min(x.size() - begin, std::size_t(4096)))));
  return sum.nearest();
}
template <class T>
double reference(term t, const std::vector<T>& x)
{
  return reference(t, std::vector<std::vector<T>>{x});
}

template <class T>
std::vector<T> numbers(std::size_t n)
{
  support::random r(n);
  std::vector<T> x(n);
  for (T& e : x)
    e = T((r.chance(0.5) ? 1 : -1) * std::ldexp(r.uniform(1, 2), int(r.below(40)) - 20));
  return x;
}

template <class T, class Backend>
void compare(const Backend& backend, const char* name, const std::vector<T>& x)
{
  const double squares = reference(term::square, x), sum = reference(term::plain, x);
  // From every offset a copy may have in memory, four bytes or eight apart.
  for (const std::size_t offset : {0u, 1u, 3u, 7u}) {
    std::vector<T> moved(offset, std::numeric_limits<T>::quiet_NaN());
    moved.insert(moved.end(), x.begin(), x.end());
    const auto view = std::span<const T>(moved).subspan(offset);
    CHECK_MESSAGE(support::same_bits(gradus::squared_norm(backend, view), squares), std::string(name), ", ", x.size());
    CHECK_MESSAGE(support::same_bits(gradus::sum(backend, view), sum), std::string(name), ", ", x.size());
  }
}

// Calls f(backend, its name) for each backend and instruction set.
template <class F>
void for_each_backend(const F& f)
{
  f(gradus::backend::scalar{}, "scalar");
#if defined(GRADUS_HAS_SIMD)
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    f(gradus::backend::basic_simd<Arch>{}, name);
  });
  f(gradus::backend::basic_simd<xsimd::default_arch, gradus::backend::simd_tuning{.sum = {}}>{}, "no prefetch");
#endif
}

template <class T>
void compare_everywhere(const std::vector<T>& x)
{
  for_each_backend([&](const auto& backend, const char* name) { compare(backend, name, x); });
}

}  // namespace

TEST_CASE_TEMPLATE("squared_norm, sum: have the bits of plain loops for any length, on every backend", T, float, double)
{
  for (std::size_t n = 0; n <= 100; ++n)
    compare_everywhere(numbers<T>(n));
  for (const std::size_t n : {4095u, 4096u, 4097u, 2 * 4096u, 3 * 4096u + 17, 33 * 4096u + 5})
    compare_everywhere(numbers<T>(n));
}

TEST_CASE_TEMPLATE("page_sums: one sum for each page, and nothing else is written", T, float, double)
{
  for (const std::size_t n : {0u, 1u, 4096u, 4097u, 2 * 4096u, 2 * 4096u + 5, 5 * 4096u, 5 * 4096u + 31}) {
    const std::vector<T> x = numbers<T>(n);
    const std::size_t pages = gradus::page_count(n);
    for_each_backend([&](const auto& backend, const char* name) {
      std::vector<double> sums(pages + 1, -1.25);
      gradus::page_sums<gradus::square_term>(backend, x.data(), n, sums.data());
      for (std::size_t k = 0; k < pages; ++k) {
        const double expected = sum_of_page(term::square,
                                            std::span(x).subspan(k * 4096, std::min(n - k * 4096, std::size_t(4096))));
        CHECK_MESSAGE(support::same_bits(sums[k], expected), std::string(name), ", ", n, ", page ", k);
      }
      CHECK_MESSAGE(sums[pages] == -1.25, std::string(name), ", ", n);
    });
  }
}

TEST_CASE("sum: of no elements is +0")
{
  for_each_backend([](const auto& backend, const char* name) {
    CHECK_MESSAGE(support::bits(gradus::squared_norm(backend, std::span<const float>())) == 0, std::string(name));
    CHECK_MESSAGE(support::bits(gradus::sum(backend, std::span<const double>())) == 0, std::string(name));
    gradus::exact_sum sum;
    gradus::add_squared_norm(backend, std::span<const double>(), sum);
    CHECK_MESSAGE(support::bits(sum.value()) == 0, std::string(name));
  });
}

TEST_CASE("page_count: 4096 elements to a page, and the last may be shorter")
{
  constexpr std::size_t expected[][2] = {{0, 0}, {1, 1}, {4095, 1}, {4096, 1}, {4097, 2}, {8192, 2}, {8193, 3}};
  for (const auto& [n, pages] : expected)
    CHECK(gradus::page_count(n) == pages);
}

TEST_CASE("sum: pages are added without rounding errors")
{
  // 1 would be lost in a plain sum: it is less than half of the last bit of 2^53.
  std::vector<double> x(5 * 4096, 0.0);
  x[0] = 0x1p53;
  x[4096] = x[2 * 4096] = x[3 * 4096 + 5] = 1;
  x[4 * 4096] = -0x1p53;
  for_each_backend([&](const auto& backend, const char* name) {
    CHECK_MESSAGE(gradus::sum(backend, std::span<const double>(x)) == 3, std::string(name));
  });
}

TEST_CASE_TEMPLATE("add_sum, add_squared_norm: arrays may be added in any order and by any backend", T, float, double)
{
  std::vector<std::vector<T>> arrays;
  for (const std::size_t n : {4097u, 0u, 1u, 33u, 3 * 4096u, 4095u, 50u, 5000u})
    arrays.push_back(numbers<T>(n));
  const double squares = reference(term::square, arrays), sum = reference(term::plain, arrays);
  support::random r(1);
  for (int i = 0; i < 5; ++i) {
    for (std::size_t k = arrays.size(); k > 1; --k)
      std::swap(arrays[k - 1], arrays[r.below(k)]);
    gradus::exact_sum mixed_squares, mixed_sum;
    for_each_backend([&](const auto& backend, const char* name) {
      gradus::exact_sum all_squares, all;
      for (const auto& x : arrays) {
        gradus::add_squared_norm(backend, std::span<const T>(x), all_squares);
        gradus::add_sum(backend, std::span<const T>(x), all);
      }
      CHECK_MESSAGE(support::same_bits(all_squares.value(), squares), std::string(name));
      CHECK_MESSAGE(support::same_bits(all.value(), sum), std::string(name));
    });
    for (const auto& x : arrays) {
      const auto add = [&](const auto& backend) {
        gradus::add_squared_norm(backend, std::span<const T>(x), mixed_squares);
        gradus::add_sum(backend, std::span<const T>(x), mixed_sum);
      };
      if (r.chance(0.5))
        add(gradus::backend::scalar{});
      else
        add(gradus::default_backend{});
    }
    CHECK(support::same_bits(mixed_squares.value(), squares));
    CHECK(support::same_bits(mixed_sum.value(), sum));
  }
}

TEST_CASE("scaled_square_sum: is the sum of squares of the scaled numbers, on every backend")
{
  for (const double factor : {0x1p-600, 0x1p600})
    for (const std::size_t n : {1u, 31u, 33u, 4095u, 4096u}) {
      std::vector<double> x = numbers<double>(n), scaled(n);
      for (std::size_t i = 0; i < n; ++i) {
        scaled[i] = x[i];
        x[i] /= factor;
      }
      const double expected = reference(term::square, scaled);
      for_each_backend([&](const auto& backend, const char* name) {
        const double found = gradus::detail::scaled_square_sum(backend, x.data(), n, factor);
        CHECK_MESSAGE(support::same_bits(found, expected), std::string(name));
      });
    }
}

TEST_CASE_TEMPLATE("sum: is computed in double, also for floats", T, float, double)
{
  // In float, 2²⁴ + 1 = 2²⁴.
  const std::vector<T> uneven{T(0x1p24), 1, 1, 1};
  const std::vector<T> large(5000, T(3e38));
  for_each_backend([&](const auto& backend, const char* name) {
    CHECK_MESSAGE(gradus::sum(backend, std::span<const T>(uneven)) == 0x1p24 + 3, std::string(name));
    CHECK_MESSAGE(gradus::squared_norm(backend, std::span<const T>(large)) == doctest::Approx(5000 * 9e76),
                  std::string(name));
  });
}

TEST_CASE_TEMPLATE("sum, all_finite: detect one element that is not finite", T, float, double)
{
  constexpr T infinity = std::numeric_limits<T>::infinity(), not_a_number = std::numeric_limits<T>::quiet_NaN();
  auto x = numbers<T>(5000);
  const auto sums = [&](const auto& check) {
    for_each_backend([&](const auto& backend, const char* name) {
      const std::span<const T> all(x);
      CHECK_MESSAGE(check(gradus::squared_norm(backend, all), gradus::sum(backend, all)), std::string(name));
    });
  };
  for (const std::size_t at : {0u, 33u, 4095u, 4096u, 4999u}) {
    const T before = x[at];
    CHECK(gradus::detail::all_finite(x.data(), x.size()));
    x[at] = not_a_number;
    CHECK_FALSE(gradus::detail::all_finite(x.data(), x.size()));
    sums([](double squares, double sum) { return std::isnan(squares) && std::isnan(sum); });
    x[at] = infinity;
    CHECK_FALSE(gradus::detail::all_finite(x.data(), x.size()));
    sums([](double squares, double sum) { return squares == double(infinity) && sum == double(infinity); });
    x[at] = -infinity;
    CHECK_FALSE(gradus::detail::all_finite(x.data(), x.size()));
    sums([](double squares, double sum) { return squares == double(infinity) && sum == -double(infinity); });
    // Beside one of the other sign, in the same page or not.
    x[1] = infinity;
    sums([](double squares, double sum) { return squares == double(infinity) && std::isnan(sum); });
    x[at] = before;
    x[1] = 1;
  }
}
