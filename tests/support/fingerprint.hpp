#pragma once
// Long trajectories at the kernel layer, as hashes of their bits; and the hashes recorded in bits/expected.txt.
//
// Nothing in them comes from the C library, whose pow differs in the last bit between versions and processors: the bias
// corrections are made by multiplication. Nor does the problem have a product that is rounded and feeds a sum, which
// some compilers would fuse: the ranges of the random numbers are powers of two wide.

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"
#include "support/sums.hpp"

namespace support {

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
  std::string text() const
  {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016" PRIx64, hash_);
    return digits;
  }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

// 1 − βᵗ, by multiplication: the product goes through memory, where no compiler can fuse it.
inline double bias_correction(double beta, std::uint64_t t)
{
  volatile double power = 1;
  for (std::uint64_t i = 0; i < t; ++i)
    power = power * beta;
  return 1 - power;
}

// The weights at every fiftieth step and at the last, then the state. The recorded ones have these lengths.
template <class T, class Backend, class Rule>
std::string fingerprint_of(const Backend& backend, const Rule& rule, std::size_t length = 1037,
                           std::uint64_t steps = 300)
{
  random r(2023);
  std::vector<T> weights(length), gradients(length), curvature(length), noise(length + std::size_t(steps));
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
  gradus::step_scalars k;
  fingerprint f;
  for (std::uint64_t t = 1; t <= steps; ++t) {
    for (std::size_t i = 0; i < length; ++i)
      gradients[i] = curvature[i] * (weights[i] - noise[i + std::size_t(t) - 1]);
    k = gradus::make_step_scalars(rule, t, t <= 200 ? 1 : 0.125, 0, k);
    if constexpr (requires { rule.first_moment.beta1; })
      if (k.bc1 != 1)
        k.bc1 = bias_correction(rule.first_moment.beta1, t);
    if constexpr (requires { rule.second_moment.beta2; })
      if (k.bc2 != 1)
        k.bc2 = bias_correction(rule.second_moment.beta2, t);
    bool done = true;
    if constexpr (Rule::scheduled_in_one_pass) {
      second_moment_sum = gradus::next_second_moment_sum<T>(
          rule.second_moment, second_moment_sum, gradus::squared_norm(backend, std::span<const T>(gradients)), 0.75);
      k.mean_square = second_moment_sum / k.bc2 / double(length);
    } else if constexpr (Rule::scheduled) {
      const auto moments = gradus::prepare<T>(rule, k, 0.75);
      done = gradus::update_moments(backend, moments, weights, gradients, state);
      k.mean_square = gradus::sum(backend, std::span<const T>(slots[moments.value_slot])) / k.bc2 / double(length);
    }
    const auto formula = gradus::prepare<T>(rule, k, 0.75);
    if constexpr (Rule::sums)
      done = step_with_sums<T>(backend, rule, k, 0.75, std::span<T>(weights), gradients, state);
    else if constexpr (Rule::scheduled && !Rule::scheduled_in_one_pass)
      done = done && gradus::update_weights(backend, formula, weights, gradients, state);
    else
      done = gradus::update(backend, formula, weights, gradients, state);
    if (!done)
      return "refused";
    if (t % 50 == 0 || t == steps)
      f.add(std::span<const T>(weights));
  }
  for (const auto& s : slots)
    f.add(std::span<const T>(s));
  return f.text();
}

// Sums of arrays of up to several pages, each alone and then all together.
template <class T, class Backend>
std::string fingerprint_of_sums(const Backend& backend)
{
  random r(2024);
  fingerprint f;
  gradus::exact_sum squares, plain;
  for (const std::size_t length : {0u, 1u, 31u, 32u, 33u, 1000u, 4095u, 4096u, 4097u, 3 * 4096u + 5, 70001u}) {
    std::vector<T> x(length);
    for (T& e : x)
      e = T(r.uniform(-1, 1));
    const double sums[] = {gradus::squared_norm(backend, std::span<const T>(x)),
                           gradus::sum(backend, std::span<const T>(x))};
    f.add(std::span<const double>(sums));
    gradus::add_squared_norm(backend, std::span<const T>(x), squares);
    gradus::add_sum(backend, std::span<const T>(x), plain);
  }
  const double sums[] = {squares.value(), plain.value()};
  f.add(std::span<const double>(sums));
  return f.text();
}

// By "FAMILY NAME TYPE".
inline std::map<std::string, std::string> expected_hashes(const char* file = GRADUS_TEST_DATA "/bits/expected.txt")
{
  std::ifstream in(file);
  std::map<std::string, std::string> all;
  for (std::string family, name, type, hash; in >> family >> name >> type >> hash;)
    all[family + " " + name + " " + type] = hash;
  return all;
}

}  // namespace support
