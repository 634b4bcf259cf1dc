// The sums whose bits depend on the numbers alone: every backend and width against the scheme written out plainly.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

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

// Blocks of 4096, in each 32 partial sums that are folded by halves; then the same again over the blocks' sums.
template <class T>
double reference(term t, const std::vector<T>& x)
{
  std::vector<double> sums;
  for (std::size_t begin = 0; begin == 0 || begin < x.size(); begin += 4096) {
    std::vector<double> partial(32, 0.0);
    for (std::size_t i = begin; i < x.size() && i < begin + 4096; ++i)
      partial[(i - begin) % 32] = added(t, partial[(i - begin) % 32], double(x[i]));
    for (; partial.size() > 1; partial.resize(partial.size() / 2))
      for (std::size_t k = 0; k < partial.size() / 2; ++k)
        partial[k] += partial[k + partial.size() / 2];
    sums.push_back(partial[0]);
  }
  return sums.size() == 1 ? sums[0] : reference(term::plain, sums);
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

template <class T>
void compare_everywhere(const std::vector<T>& x)
{
  compare(gradus::backend::scalar{}, "scalar", x);
#if defined(GRADUS_HAS_SIMD)
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    compare(gradus::backend::basic_simd<Arch>{}, name, x);
  });
#endif
}

}  // namespace

TEST_CASE_TEMPLATE("norms and sums have the bits of the scheme, on every backend and width", T, float, double)
{
  for (std::size_t n = 0; n <= 100; ++n)
    compare_everywhere(numbers<T>(n));
  for (const std::size_t n : {4095u, 4096u, 4097u, 2 * 4096u, 3 * 4096u + 17, 33 * 4096u + 5})
    compare_everywhere(numbers<T>(n));
}

TEST_CASE("more than 4096 blocks: the blocks' sums are cut into blocks themselves")
{
  constexpr std::size_t n = 4097 * 4096 + 3;
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i)
    x[i] = float(i % 1021) * 0.37f - 100;
  const double squares = reference(term::square, x), sum = reference(term::plain, x);
  CHECK(gradus::squared_norm(gradus::default_backend{}, std::span<const float>(x)) == squares);
  CHECK(gradus::sum(gradus::default_backend{}, std::span<const float>(x)) == sum);
  CHECK(gradus::squared_norm(gradus::backend::scalar{}, std::span<const float>(x)) == squares);
  // Another order would have shown.
  double plain = 0;
  for (const float e : x)
    plain += double(e) * double(e);
  CHECK(plain != squares);
  CHECK(plain == doctest::Approx(squares));
}

TEST_CASE("a running sum gives the bits of the list's sum, and then starts afresh")
{
  gradus::running_sum running;
  for (const std::size_t n : {0u, 1u, 31u, 32u, 33u, 4095u, 4096u, 4097u, 5 * 4096u + 1, 33 * 4096u}) {
    const auto x = numbers<double>(n);
    for (const double e : x)
      running.add(e);
    CHECK_MESSAGE(support::same_bits(running.finish(), reference(term::plain, x)), n);
  }
}

TEST_CASE("a scaled sum of squares is that of the scaled numbers, on every backend, block by block")
{
  for (const double factor : {0x1p-600, 0x1p600})
    for (const std::size_t n : {1u, 31u, 33u, 4095u, 4096u}) {
      std::vector<double> x = numbers<double>(n), scaled(n);
      for (std::size_t i = 0; i < n; ++i) {
        scaled[i] = x[i];
        x[i] /= factor;
      }
      const double expected = reference(term::square, scaled);
      CHECK(support::same_bits(gradus::scaled_square_sum(gradus::backend::scalar{}, x.data(), n, factor), expected));
      CHECK(support::same_bits(gradus::scaled_square_sum(gradus::default_backend{}, x.data(), n, factor), expected));
    }
}

TEST_CASE_TEMPLATE("sums lose neither small terms next to large ones nor what is not finite", T, float, double)
{
  // In float, 2²⁴ + 1 = 2²⁴; the sums are in double.
  const std::vector<T> uneven{T(0x1p24), 1, 1, 1};
  CHECK(gradus::sum(gradus::default_backend{}, std::span<const T>(uneven)) == 0x1p24 + 3);
  const std::vector<T> large(5000, T(3e38));
  CHECK(gradus::squared_norm(gradus::default_backend{}, std::span<const T>(large)) == doctest::Approx(5000 * 9e76));

  auto x = numbers<T>(5000);
  for (const std::size_t at : {0u, 33u, 4095u, 4096u, 4999u}) {
    const T before = x[at];
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                        -std::numeric_limits<T>::infinity()}) {
      CHECK(gradus::all_finite(x.data(), x.size()));
      x[at] = bad;
      CHECK_FALSE(gradus::all_finite(x.data(), x.size()));
      CHECK_FALSE(std::isfinite(gradus::squared_norm(gradus::default_backend{}, std::span<const T>(x))));
      CHECK_FALSE(std::isfinite(gradus::sum(gradus::default_backend{}, std::span<const T>(x))));
      x[at] = before;
    }
  }
}
