// Hashes of the bits of long trajectories, the same in every build of a family: g++ or clang++, AVX2 or AVX-512 are all
// "fused"; a target without fused multiply-add is "unfused". See README.md here.
//
// Nothing in them comes from the C library, whose pow differs in the last bit between versions and processors: the bias
// corrections are made by multiplication. Nor does the problem have a product that is rounded and feeds a sum, which some
// compilers would fuse: the ranges of the random numbers are powers of two wide.

#include <doctest/doctest.h>

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/compositions.hpp"
#include "support/random.hpp"

namespace {

constexpr gradus::default_backend backend{};
constexpr std::size_t length = 1037;
constexpr std::uint64_t steps = 300;

// FNV-1a, over the bytes of each number from the lowest.
class fingerprint {
 public:
  template <class T>
  void add(std::span<const T> x)
  {
    for (const T e : x)
      for (std::size_t byte = 0; byte < sizeof(T); ++byte)
        hash_ = (hash_ ^ (support::bits(e) >> (8 * byte) & 0xff)) * 0x100000001b3u;
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

// 1 − βᵗ, by multiplication: the product goes through memory, where no compiler can fuse it.
double bias_correction(double beta, std::uint64_t t)
{
  volatile double power = 1;
  for (std::uint64_t i = 0; i < t; ++i)
    power = power * beta;
  return 1 - power;
}

template <class T, class Rule>
std::uint64_t fingerprint_of(const Rule& rule)
{
  support::random r(2023);
  std::vector<T> weights(length), gradients(length), curvature(length), noise(length + steps);
  for (T& x : weights)
    x = T(r.uniform(-1, 1));
  for (T& x : curvature)
    x = T(r.uniform(0.25, 1.25));
  for (T& x : noise)
    x = T(r.uniform(-1, 1));
  std::array<std::vector<T>, Rule::slots> slots;
  std::array<std::span<T>, Rule::slots> state;
  for (std::size_t k = 0; k < Rule::slots; ++k) {
    slots[k].assign(length, T(gradus::initial_value(rule, k)));
    state[k] = slots[k];
  }
  double second_moment_sum = 0;
  fingerprint f;
  for (std::uint64_t t = 1; t <= steps; ++t) {
    for (std::size_t i = 0; i < length; ++i)
      gradients[i] = curvature[i] * (weights[i] - noise[i + t - 1]);
    gradus::tick k = gradus::make_tick(rule, t, t <= 200 ? 1 : 0.125);
    if constexpr (requires { rule.first_moment.beta1; })
      k.bc1 = bias_correction(rule.first_moment.beta1, t);
    if constexpr (requires { rule.second_moment.beta2; })
      k.bc2 = bias_correction(rule.second_moment.beta2, t);
    bool done = true;
    if constexpr (Rule::scheduled_in_one_pass) {
      second_moment_sum = gradus::next_second_moment_sum<T>(rule.second_moment, second_moment_sum,
                                                            gradus::squared_norm(backend, std::span<const T>(gradients)), 0.75);
      k.mean_square = second_moment_sum / k.bc2 / double(length);
    } else if constexpr (Rule::scheduled) {
      const auto moments = gradus::prepare<T>(rule, k, 0.75);
      done = gradus::update_moments(backend, moments, weights, gradients, state);
      k.mean_square = gradus::sum(backend, std::span<const T>(slots[moments.value_slot])) / k.bc2 / double(length);
    }
    const auto formula = gradus::prepare<T>(rule, k, 0.75);
    if constexpr (Rule::scheduled && !Rule::scheduled_in_one_pass)
      done = done && gradus::update_weights(backend, formula, weights, gradients, state);
    else
      done = gradus::update(backend, formula, weights, gradients, state);
    REQUIRE(done);
    if (t % 50 == 0)
      f.add(std::span<const T>(weights));
  }
  for (const auto& s : slots)
    f.add(std::span<const T>(s));
  return f.value();
}

std::map<std::string, std::string> expected_hashes()
{
  std::ifstream in(GRADUS_TEST_DATA "/bits/expected.txt");
  std::map<std::string, std::string> all;
  for (std::string family, name, type, hash; in >> family >> name >> type >> hash;)
    all[family + " " + name + " " + type] = hash;
  return all;
}

}  // namespace

TEST_CASE("the bits of every optimizer are those recorded for this family")
{
  const auto expected = expected_hashes();
  int compared = 0;
  support::for_each_composition([&](std::string_view name, const auto& rule) {
    const auto check = [&](const char* type, std::uint64_t hash) {
      char text[32];
      std::snprintf(text, sizeof text, "%016" PRIx64, hash);
      const std::string key = std::string(GRADUS_FUSED ? "fused" : "unfused") + " " + std::string(name) + " " + type;
      std::printf("%s %s\n", key.c_str(), text);
      const auto known = expected.find(key);
      CHECK_MESSAGE(known != expected.end(), "bits/expected.txt has no line for ", key);
      if (known != expected.end())
        CHECK_MESSAGE(known->second == text, key);
      ++compared;
    };
    check("float", fingerprint_of<float>(rule));
    check("double", fingerprint_of<double>(rule));
  });
  CHECK(2 * std::size_t(compared) == expected.size());
}
