#pragma once
// A step at the kernel layer of a step size with sums, which has two halves.

#include <array>
#include <cstddef>
#include <span>

#include <gradus/kernel.hpp>

namespace support {

// Moves one tensor. \return false if the lengths differ
template <class T, class Backend, class Rule>
bool step_with_sums(const Backend& backend, const Rule& rule, const gradus::step_scalars& k, double grad_scale,
                    std::span<T> weights, std::span<const T> gradients,
                    const std::array<std::span<T>, Rule::slots>& state)
{
  auto formula = gradus::prepare<T>(rule, k, grad_scale);
  std::array<gradus::exact_sum, formula.terms> sums;
  if (!gradus::update_terms(backend, formula, weights, gradients, state, sums))
    return false;
  std::array<double, formula.terms> values;
  for (std::size_t j = 0; j < values.size(); ++j)
    values[j] = sums[j].value();
  gradus::prepare_with_factors(formula, rule, k, gradus::factors_of(rule, k, values.data(), double(weights.size())));
  return gradus::update_weights(backend, formula, weights, gradients, state);
}

}  // namespace support
