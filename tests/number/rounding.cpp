// The random bits of stochastic rounding: whose they are, and that no width or cut changes them.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::float16;
using gradus::detail::noise;

}  // namespace

TEST_CASE("noise: uniform, and independent of the previous element, the other array and the next step")
{
  constexpr std::size_t n = 1 << 18;
  const noise a(7, 0, 0), b(7, 1, 0), next(8, 0, 0);
  double mean = 0, square = 0, neighbour = 0, other = 0, later = 0;
  std::vector<int> low(256), high(256);
  const auto centred = [](std::uint32_t x) { return (double(x) - 32767.5) / 18918.6; };  // variance 1
  for (std::size_t i = 0; i < n; ++i) {
    const double x = centred(a(i));
    mean += x, square += x * x;
    neighbour += x * centred(a(i + 1));
    other += x * centred(b(i));
    later += x * centred(next(i));
    ++low[a(i) & 255], ++high[a(i) >> 8];
  }
  for (const double sum : {mean, neighbour, other, later})
    CHECK(std::fabs(sum / n) < 5 / std::sqrt(double(n)));
  CHECK(std::fabs(square / n - 1) < 0.01);
  for (const auto& counts : {low, high}) {
    double chi = 0;
    for (const int c : counts)
      chi += (c - n / 256.0) * (c - n / 256.0) / (n / 256.0);
    CHECK(chi < 400);  // 255 ± 23 are expected
  }
  CHECK(a.from(5)(3) == a(8));
  CHECK(noise(7, 0, 512)(1) == a(513));
  CHECK(noise(7, 0, std::size_t(1) << 32)(1) != a(1));
}

TEST_CASE("noise: depends on the element alone and not on where counting starts, beyond 2³² too")
{
  constexpr std::uint64_t range = std::uint64_t(1) << 32;
  const std::uint64_t most = ~std::uint64_t(0);
  for (const std::size_t array : {0u, 1u, 4u})
    for (const std::uint64_t start : {std::uint64_t(0), range, 3 * range, most - (range - 1)})
      for (const std::uint64_t begin : {std::uint64_t(0), std::uint64_t(1), std::uint64_t(4095), range / 2, range - 1})
        for (const std::uint64_t i :
             {std::uint64_t(0), std::uint64_t(1), std::uint64_t(17), range / 2 - 1, range - 1}) {
          if (begin + i >= range)
            continue;
          const std::uint32_t expected = noise(7, array, start + begin + i)(0);
          REQUIRE(noise(7, array, start + begin)(i) == expected);
          REQUIRE(noise(7, array, start + begin).from(i)(0) == expected);
          REQUIRE(noise(7, array, start).from(begin).from(i)(0) == expected);
          REQUIRE(noise(7, array, start).from(begin)(i) == expected);
        }
}

TEST_CASE("noise: words serve two arrays, and have the bits that each computes alone")
{
  support::random r(5);
  for (std::size_t n = 0; n <= 100; ++n) {
    const std::uint64_t key = r.any<std::uint32_t>(), begin = 512 * r.below(1 << 20);
    std::vector<std::uint32_t> words((n + 63) / 64 * 64);
    noise(key, 2, begin).words(words.data(), n);
    for (const std::size_t array : {2u, 3u}) {
      const noise random(key, array, begin);
      const gradus::detail::noise_words from_memory{words.data(), random.shift};
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(from_memory(i) == random(i));
        CHECK(from_memory.from(i)(0) == random(i));
      }
    }
  }
}

TEST_CASE("for_noise_ranges: cuts a loop where a range of random bits ends, and nowhere else")
{
  constexpr std::uint64_t range = std::uint64_t(1) << 32;
  using parts = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  const auto cut = [](std::uint64_t begin, std::uint64_t end) {
    parts all;
    gradus::detail::for_noise_ranges(begin, end,
                                     [&](std::size_t first, std::size_t last) { all.emplace_back(first, last); });
    return all;
  };
  CHECK(cut(5, 5).empty());
  CHECK(cut(range, range).empty());
  CHECK(cut(0, 4096) == parts{{0, 4096}});
  CHECK(cut(0, range) == parts{{0, range}});
  CHECK(cut(range - 1, range + 1) == parts{{range - 1, range}, {range, range + 1}});
  CHECK(cut(7, 2 * range + 9) == parts{{7, range}, {range, 2 * range}, {2 * range, 2 * range + 9}});
  CHECK(cut(3 * range, 3 * range + 1) == parts{{3 * range, 3 * range + 1}});
}

TEST_CASE("noise: the bits stay what they were in earlier versions")
{
  CHECK(noise(7, 0, 0)(0) == 49787);
  CHECK(noise(7, 1, 0)(1) == 60427);
  CHECK(noise(7, 2, 4096)(12345) == 1044);
  CHECK(noise(7, 3, 0).from(4'000'000'000)(1) == 1360);
}

namespace {

// What `write(first element, how many, where to)` leaves of 80 elements that begin 40 before a multiple of 2³²: in one
// piece, and in two that are cut anywhere.
template <class S, class Write>
void check_around_a_multiple(const Write& write)
{
  const auto bytes = [](const std::vector<S>& x) {
    return std::string(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(S));
  };
  std::vector<S> singly(80);
  for (std::size_t i = 0; i < 80; ++i)
    write(i, 1, singly.data() + i);
  for (const std::size_t cut : {0u, 1u, 8u, 31u, 32u, 36u, 40u, 41u, 48u, 79u}) {
    std::vector<S> pieces(80);
    write(0, cut, pieces.data());
    write(cut, 80 - cut, pieces.data() + cut);
    CHECK(bytes(pieces) == bytes(singly));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("stochastic: every width stores an element with the same random bits, across a multiple of 2³² too",
                   S, bfloat16, float16)
{
  std::vector<float> x(80);
  support::random r(11);
  for (float& e : x)
    e = float(r.uniform(-1, 1));
  for (const std::uint64_t multiple : {std::uint64_t(1) << 32, std::uint64_t(3) << 32})
    for (const std::size_t array : {0u, 1u}) {
      const std::uint64_t begin = multiple - 40;
      std::vector<S> expected(80);
      for (std::size_t i = 0; i < 80; ++i)
        expected[i] = S(x[i], noise(7, array, begin + i)(0));
      const auto check = [&]<class V>(std::type_identity<V>, std::size_t size) {
        for (std::size_t from = 0; from + size <= 80; ++from) {
          std::vector<S> to(80), moved(85);
          if (from < 40 && from + size > 40)
            continue;  // half in one range and half in the next
          const std::size_t start = from < 40 ? 0 : 40;
          gradus::store(gradus::stochastic<S>{to.data() + start, noise(7, array, begin + start)}, from - start,
                        gradus::load<V>(&x[from]));
          if (start == 0)
            gradus::store(gradus::stochastic<S>{moved.data(), noise(7, array, begin - 5)}.from(5), from,
                          gradus::load<V>(&x[from]));
          for (std::size_t i = from; i < from + size; ++i) {
            REQUIRE(to[i].bits == expected[i].bits);
            REQUIRE((start != 0 || moved[i + 5].bits == expected[i].bits));
          }
        }
      };
      check(std::type_identity<float>{}, 1);
#if defined(GRADUS_HAS_SIMD)
      support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* name) {
        CAPTURE(name);
        using V = gradus::backend::pack<float, Arch>;
        check(std::type_identity<V>{}, V::size);
        // Whole sweeps: through the loop and its tail.
        const auto c = gradus::prepare<float>(gradus::sgd{}.rule(), gradus::step_scalars{.lr = 1e-3});
        check_around_a_multiple<S>([&](std::size_t i, std::size_t n, S* to) {
          for (std::size_t k = 0; k < n; ++k)
            to[k] = S(x[i + k]);
          const gradus::kernel<gradus::pass::whole, std::remove_const_t<decltype(c)>> move{c};
          float buffer[80] = {};
          gradus::detail::for_noise_ranges(begin + i, begin + i + n, [&](std::size_t first, std::size_t last) {
            const std::size_t at = first - begin;
            float* slots[] = {buffer + at, nullptr};
            const gradus::stochastic<S> weights{to + (at - i), noise(7, array, first)};
            gradus::backend::basic_simd<Arch>{}.sweep(move, weights, x.data() + at, slots, last - first);
          });
        });
      });
#endif
    }
}
