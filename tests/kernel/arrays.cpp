// The arrays of 16-bit numbers that a kernel reads and writes: single elements and packs, whole and in part.

#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::float16, gradus::mirrored, gradus::readable, gradus::stochastic;

template <class S>
struct arrays {
  static constexpr std::size_t n = 64;
  std::vector<float> numbers;
  std::vector<S> stored;

  arrays() : stored(n)
  {
    support::random r(4);
    for (std::size_t i = 0; i < n; ++i) {
      numbers.push_back(float(r.uniform(-2, 2)));
      stored[i] = S(numbers[i]);
    }
  }
};

template <class S>
bool same(const std::vector<S>& a, const std::vector<S>& b)
{
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].bits != b[i].bits)
      return false;
  return a.size() == b.size();
}

}  // namespace

TEST_CASE_TEMPLATE("readable: loads the decoded number, counted from any element", S, bfloat16, float16)
{
  const arrays<S> x;
  const readable<S> a{x.stored.data()};
  for (std::size_t i = 0; i < x.n; ++i) {
    CHECK(gradus::load<float>(a, i) == float(x.stored[i]));
    CHECK(gradus::load<float>(gradus::from(a, i), 0) == float(x.stored[i]));
  }
}

TEST_CASE_TEMPLATE("mirrored: a store writes the master weight and the nearest parameter; a load reads the master", S,
                   bfloat16, float16)
{
  const arrays<S> x;
  std::vector<float> master(x.n);
  std::vector<S> parameters(x.n);
  const mirrored<S> a{master.data(), parameters.data()};
  for (std::size_t i = 0; i < x.n; ++i) {
    gradus::store(gradus::from(a, i / 2), i - i / 2, x.numbers[i]);
    CHECK(gradus::load<float>(a, i) == x.numbers[i]);
  }
  CHECK(master == x.numbers);
  CHECK(same(parameters, x.stored));
}

TEST_CASE_TEMPLATE("stochastic: an element's random bits do not depend on where the array begins", S, bfloat16, float16)
{
  const arrays<S> x;
  const gradus::detail::noise random(7, 0, 100);
  std::vector<S> whole(x.n), moved(x.n), expected(x.n);
  for (std::size_t i = 0; i < x.n; ++i) {
    gradus::store(stochastic<S>{whole.data(), random}, i, x.numbers[i]);
    gradus::store(gradus::from(stochastic<S>{moved.data(), random}, i), 0, x.numbers[i]);
    expected[i] = S(x.numbers[i], random(i));
  }
  CHECK(same(whole, expected));
  CHECK(same(moved, expected));
  CHECK_FALSE(same(whole, x.stored));  // which are rounded to nearest
}

TEST_CASE("completed: a store writes parameters, remainders and bits; a load gives back the float")
{
  // Around 1 and 2: all remainders of neighbouring parameters, with both floats halfway to an even one.
  for (const std::uint32_t begin : {0x3f7f0000u, 0x3fff0000u}) {
    constexpr std::size_t n = 3 << 16;
    std::vector<bfloat16> parameters(n);
    std::vector<gradus::remainder16> rest(n);
    std::vector<std::uint8_t> above(n / 8, 0x5a);
    const gradus::completed a{parameters.data(), rest.data(), above.data()};
    const auto number = [&](std::size_t i) { return std::bit_cast<float>(begin + std::uint32_t(i)); };
    for (std::size_t i = 0; i < n; ++i)
      gradus::store(gradus::from(a, i / 2), i - i / 2, number(i));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < n; ++i)
      wrong += gradus::load<float>(a, i) != number(i) || parameters[i].bits != bfloat16(number(i)).bits;
    CHECK(wrong == 0);
  }
}

#if defined(GRADUS_HAS_SIMD)
TEST_CASE("completed: a pack does what single elements do, whole and in part, for floats of every exponent")
{
  support::for_each_architecture(support::architectures{}, []<class Arch>(Arch, const char* name) {
    using pack = gradus::backend::pack<float, Arch>;
    constexpr std::size_t n = 1 << 16;
    std::size_t wrong = 0;
    for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      std::vector<float> numbers(n);
      for (std::size_t i = 0; i < n; ++i)
        numbers[i] = std::bit_cast<float>(std::uint32_t(i) << 16 | low);
      std::vector<bfloat16> p(n), q(n);
      std::vector<gradus::remainder16> r(n), s(n);
      std::vector<std::uint8_t> a(n / 8, 0xa5), b(n / 8, 0x5a);
      const gradus::completed whole{p.data(), r.data(), a.data()}, single{q.data(), s.data(), b.data()};
      for (std::size_t i = 0; i < n; i += pack::size) {
        const std::size_t m = i / pack::size % pack::size;
        const pack x = pack::load(&numbers[i]);
        if (m == 0)
          gradus::store(whole, i, x);
        else {
          gradus::store_part(whole, i, x, m);
          for (std::size_t k = m; k < pack::size; ++k)
            gradus::store(whole, i + k, numbers[i + k]);
        }
      }
      for (std::size_t i = 0; i < n; ++i)
        gradus::store(single, i, numbers[i]);
      wrong += !same(p, q) || !same(r, s) || a != b;
      for (std::size_t i = 0; i < n; i += pack::size) {
        float lane[pack::size], part[pack::size];
        gradus::load<pack>(whole, i).store(lane);
        gradus::load_part<pack>(whole, i, 1).store(part);
        for (std::size_t k = 0; k < pack::size; ++k)
          wrong += std::bit_cast<std::uint32_t>(lane[k]) !=
                   std::bit_cast<std::uint32_t>(gradus::load<float>(single, i + k));
        wrong += std::bit_cast<std::uint32_t>(part[0]) != std::bit_cast<std::uint32_t>(lane[0]);
      }
    }
    CHECK_MESSAGE(wrong == 0, std::string(name));
  });
}

TEST_CASE_TEMPLATE("load, store: a pack does what single elements do, whole and in part", S, bfloat16, float16)
{
  const arrays<S> x;
  support::for_each_architecture(support::architectures{}, [&]<class Arch>(Arch, const char* name) {
    using pack = gradus::backend::pack<float, Arch>;
    constexpr std::size_t width = pack::size, at = 3;
    int wrong = 0;
    const auto lanes = [](const pack& p) {
      std::vector<float> all(pack::size);
      p.store(all.data());
      return all;
    };
    const readable<S> a{x.stored.data()};
    for (std::size_t n = 1; n <= width; ++n) {
      const auto loaded = lanes(n == width ? gradus::load<pack>(a, at) : gradus::load_part<pack>(a, at, n));
      std::vector<float> master(x.n, -7), master_too = master;
      std::vector<S> nearest(x.n), nearest_too(x.n), noisy(x.n), noisy_too(x.n);
      const mirrored<S> m{master.data(), nearest.data()};
      const stochastic<S> s{noisy.data(), gradus::detail::noise(7, 0, 100)};
      const auto put = [&](const auto& to) {
        const pack p = pack::load(&x.numbers[at]);
        n == width ? gradus::store(to, at, p) : gradus::store_part(to, at, p, n);
      };
      put(m);
      put(s);
      for (std::size_t k = 0; k < width; ++k)
        wrong += loaded[k] != (k < n ? float(x.stored[at + k]) : 1);
      for (std::size_t i = at; i < at + n; ++i) {
        gradus::store(mirrored<S>{master_too.data(), nearest_too.data()}, i, x.numbers[i]);
        gradus::store(stochastic<S>{noisy_too.data(), s.random}, i, x.numbers[i]);
      }
      wrong += master != master_too || !same(nearest, nearest_too) || !same(noisy, noisy_too);
    }
    CHECK_MESSAGE(wrong == 0, std::string(name));
  });
}
#endif
