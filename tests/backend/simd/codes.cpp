// 8-bit state in registers against block8.hpp's functions: codes, scales and values to the bit, for every width.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>
#include <gradus/kernel/denormals.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

#if defined(GRADUS_HAS_SIMD)

namespace {

using gradus::block8, gradus::detail::dynamic_map_of;

constexpr std::size_t block = block8::block;
constexpr std::uint8_t untouched = 0xa5;

// Random bits for stochastic rounding. Often all of them are 0, or all are 1, which are the extremes.
std::vector<std::uint32_t> random_words(support::random& r, std::size_t n)
{
  std::vector<std::uint32_t> words((n + 63) / 64 * 64);  // as many as noise::words writes
  for (std::uint32_t& w : words)
    w = r.chance(0.2) ? 0 : r.chance(0.2) ? 0xffffffffu : r.any<std::uint32_t>();
  return words;
}

// Both halves of the words, with one more code, which must not be written.
template <bool Signed, class Arch>
void compare_encoding(const std::vector<float>& x, const std::vector<std::uint32_t>& words)
{
  const std::size_t n = x.size(), blocks = (n + block - 1) / block;
  for (const std::uint32_t shift : {0u, 16u}) {
    const gradus::detail::noise_words random{words.data(), shift};
    std::vector<std::uint8_t> expected(n + 1, untouched), codes(n + 1, untouched);
    std::vector<float> expected_scales(blocks + 1, -1.0f), scales(blocks + 1, -1.0f);
    gradus::encode<Signed>(x.data(), expected.data(), expected_scales.data(), n, random);
    gradus::backend::basic_simd<Arch>{}.template encode<Signed>(x.data(), codes.data(), scales.data(), n, random);
    CHECK_MESSAGE(support::first_difference(expected_scales, scales) == -1, Arch::name());
    const auto i = std::size_t(std::mismatch(codes.begin(), codes.end(), expected.begin()).first - codes.begin());
    CHECK_MESSAGE(i == n + 1, Arch::name(), Signed ? ", signed" : ", unsigned", ", element ", i, " of ", n, ": ",
                  i < n ? x[i] : 0, " of ", expected_scales[i / block]);
  }
}
void compare_encoding(const std::vector<float>& x, support::random& r)
{
  const auto words = random_words(r, x.size());
  std::vector<float> magnitudes = x;
  for (float& m : magnitudes)
    m = std::fabs(m);
  support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char*) {
    compare_encoding<true, Arch>(x, words);
    compare_encoding<false, Arch>(x, words);
    compare_encoding<false, Arch>(magnitudes, words);
  });
}

// Numbers whose blocks all have the largest magnitude `scale`.
std::vector<float> with_scale(const std::vector<float>& shares, float scale)
{
  std::vector<float> x;
  for (const float s : shares) {
    if (x.size() % block == 0)
      x.push_back(scale);
    x.push_back(std::clamp(s * scale, -scale, scale));
  }
  return x;
}

}  // namespace

TEST_CASE("coded: packs decode every code to block8's value")
{
  std::vector<std::uint8_t> codes(2 * block);
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = std::uint8_t(i);
  const auto compare = [&]<bool Signed>(float first, float second) {
    const float scales[] = {first, second};
    std::vector<float> expected(codes.size()), values(codes.size());
    gradus::decode<Signed>(codes.data(), scales, expected.data(), codes.size());
    const gradus::coded array{codes.data(), scales, &dynamic_map_of<Signed>, values.data()};
    support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* name) {
      using V = gradus::backend::pack<float, Arch>;
      for (std::size_t i = 0; i < codes.size(); i += V::size)
        gradus::store(array, i, gradus::load<V>(array, i));
      CHECK_MESSAGE(support::first_difference(expected, values) == -1, name, ", scales ", first, ", ", second);
    });
    for (std::size_t i = 0; i < codes.size(); ++i)
      values[i] = array[i];
    CHECK(support::first_difference(expected, values) == -1);
  };
  const auto compare_both = [&](float first, float second) {
    compare.template operator()<true>(first, second);
    compare.template operator()<false>(first, second);
  };
  compare_both(1, 0);
  compare_both(std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN());
  compare_both((std::numeric_limits<float>::min)(), (std::numeric_limits<float>::max)());
  support::random r(11);
  for (int i = 0; i < 1000; ++i)
    compare_both(float(r.magnitude(1e-38, 1e38)), float(r.magnitude(1e-38, 1e38)));
}

TEST_CASE("encode: packs give block8's codes at every value and threshold, and a few ulps around")
{
  support::random r(12);
  std::vector<float> shares;
  const auto add = [&](float share) {
    for (int ulps = -3; ulps <= 3; ++ulps)
      for (const std::uint32_t sign : {0u, 0x80000000u})
        shares.push_back(std::bit_cast<float>((std::bit_cast<std::uint32_t>(share) + std::uint32_t(ulps)) | sign));
  };
  for (std::size_t code = 1; code < 256; ++code)
    add(dynamic_map_of<false>.value[code]);
  for (std::size_t code = 1; code < 128; ++code)
    add(dynamic_map_of<true>.value[code]);
  for (const float threshold : dynamic_map_of<false>.threshold)
    add(threshold);
  for (const float threshold : dynamic_map_of<true>.threshold)
    add(threshold);
  for (int exponent = -140; exponent <= 0; ++exponent)
    add(std::ldexp(1.0f, exponent));
  for (const float scale : {1.0f, 0.7f, 3e38f, 1e-37f, 1.7e-12f})
    compare_encoding(with_scale(shares, scale), r);
}

TEST_CASE("encode: packs give block8's codes and scales for every length and kind of numbers, and write no more")
{
  support::random r(13);
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t n = 0; n <= 600; n += 1 + r.below(9)) {
    const double span = r.magnitude(1e-30, 1);
    std::vector<float> x(n), tiny(n, 1e-39f), awkward(n);
    for (float& v : x)
      v = r.chance(0.05) ? 0.0f : float(r.magnitude(span, 1)) * (r.chance(0.5) ? 1.0f : -1.0f);
    for (float& v : awkward)
      v = support::awkward<float>(r);
    compare_encoding(x, r);
    compare_encoding(tiny, r);
    compare_encoding(awkward, r);
    for (const float special : {infinity, -infinity, nan, -nan})
      if (n > 0) {
        std::vector<float> spoilt = x;
        spoilt[r.below(n)] = special;
        compare_encoding(spoilt, r);
      }
    const gradus::denormal_guard flush(true);
    compare_encoding(x, r);
    compare_encoding(awkward, r);
  }
}

TEST_CASE("coded: the part of a pack holds its elements and ones, and stores nothing else")
{
  using V = gradus::backend::pack<float, xsimd::default_arch>;
  std::vector<std::uint8_t> codes(block, 200);
  const float scale = 3;
  std::vector<float> next(block, -1.0f);
  const gradus::coded array{codes.data(), &scale, &dynamic_map_of<true>, next.data()};
  for (std::size_t n = 0; n <= V::size; ++n) {
    const V x = gradus::load_part<V>(array, 16, n);
    float lanes[V::size];
    x.store(lanes);
    gradus::store_part(array, 16, x, n);
    for (std::size_t k = 0; k < V::size; ++k) {
      CHECK(lanes[k] == (k < n ? array[16 + k] : 1));
      CHECK(next[16 + k] == (k < n ? array[16 + k] : -1));
    }
  }
}

TEST_CASE_TEMPLATE("optimizer: 8-bit state gives the same weights on simd as on scalar, for every length", Recipe,
                   gradus::adamw, gradus::amsgrad, gradus::adams, gradus::sgds)
{
  using precision = gradus::precision<float, float, block8>;
  const auto weights_after_steps = [](const auto& backend, std::size_t n) {
    support::random r(n);
    std::vector<float> weights(n), gradients(n);
    for (float& w : weights)
      w = float(r.uniform(-1, 1));
    gradus::optimizer<Recipe, precision, std::remove_cvref_t<decltype(backend)>> opt(Recipe{.lr = 0.01}, backend);
    opt.add(weights, gradients);
    for (int t = 0; t < 4; ++t) {
      for (float& g : gradients)
        g = float(r.magnitude(1e-6, 1)) * (r.chance(0.5) ? 1.0f : -1.0f);
      opt.step();
    }
    return weights;
  };
  for (const std::size_t n : {1u, 15u, 17u, 64u, 255u, 256u, 300u, 511u, 513u, 4096u, 5000u})
    CHECK_MESSAGE(support::first_difference(weights_after_steps(gradus::backend::scalar{}, n),
                                            weights_after_steps(gradus::backend::simd{}, n)) == -1,
                  "length ", n);
}

#endif
