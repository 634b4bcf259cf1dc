#pragma once
// One tensor under one rule at the kernel layer, and the comparison of two.

#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"
#include "support/sums.hpp"

namespace support {

// One tensor moved by one rule at the kernel layer, in one pass or in two as the rule needs.
template <class T, class Rule>
struct walk {
  Rule rule;
  std::vector<T> weights;
  std::array<std::vector<T>, Rule::slots> slots{};
  gradus::step_scalars scalars{};  // of the last step
  std::uint64_t t = 0;
  double second_moment_sum = 0;

  walk(const Rule& r, const std::vector<T>& start) : rule(r), weights(start)
  {
    for (std::size_t k = 0; k < Rule::slots; ++k)
      slots[k].assign(start.size(), T(gradus::initial_value(rule, k)));
  }

  void step(const std::vector<T>& gradients, double lr_scale = 1)
  {
    std::array<std::span<T>, Rule::slots> state;
    for (std::size_t k = 0; k < Rule::slots; ++k)
      state[k] = slots[k];
    scalars = gradus::make_step_scalars(rule, ++t, lr_scale, 0, scalars);
    if constexpr (Rule::scheduled_in_one_pass) {
      second_moment_sum = gradus::next_second_moment_sum<T>(rule.second_moment, second_moment_sum,
                                                            gradus::squared_norm(gradus::default_backend{},
                                                                                 std::span<const T>(gradients)));
      scalars.mean_square = second_moment_sum / scalars.bc2 / double(weights.size());
    } else if constexpr (Rule::scheduled) {
      const auto moments = gradus::prepare<T>(rule, scalars);
      REQUIRE(gradus::update_moments(gradus::default_backend{}, moments, weights, gradients, state));
      scalars.mean_square = gradus::sum(gradus::default_backend{}, std::span<const T>(slots[moments.value_slot])) /
                            scalars.bc2 / double(weights.size());
      REQUIRE(gradus::update_weights(gradus::default_backend{}, gradus::prepare<T>(rule, scalars), weights, gradients,
                                     state));
      return;
    }
    if constexpr (Rule::sums)
      REQUIRE(step_with_sums<T>(gradus::default_backend{}, rule, scalars, 1, weights, gradients, state));
    else
      REQUIRE(gradus::update(gradus::default_backend{}, gradus::prepare<T>(rule, scalars), weights, gradients, state));
  }
};
template <class T, class Rule>
walk(const Rule&, const std::vector<T>&) -> walk<T, Rule>;

template <class T>
std::vector<T> draw(random& r, std::size_t n = 70)
{
  std::vector<T> x(n);
  for (T& e : x)
    e = T(r.uniform(-1, 1));
  return x;
}

template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b)
{
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::fmax(worst, std::fabs(double(a[i]) - double(b[i])) / (1e-3 + std::fabs(double(a[i]))));
  return worst;
}

template <class T>
bool equal(const std::vector<T>& a, const std::vector<T>& b)
{
  return first_difference(a, b) == -1;
}

}  // namespace support
