#pragma once
// Tensors to train, and their comparison to the bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <gradus/recipes.hpp>

#include "support/random.hpp"

namespace support {

// A number of any type that parameters or gradients may have.
template <class N>
N number(double x)
{
  if constexpr (gradus::real<N>)
    return N(x);
  else
    return N(float(x));
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b)
{
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Weights and gradients of one tensor. The gradient depends on the weights, so that an error does not wash out.
template <class T>
struct tensor {
  std::vector<T> weights, gradients, slope;

  tensor(std::size_t n, std::uint64_t seed) : gradients(n)
  {
    support::random r(seed);
    for (std::size_t i = 0; i < n; ++i) {
      weights.push_back(T(r.uniform(-1, 1)));
      slope.push_back(T(r.uniform(0.1, 2)));
    }
    compute(0);
  }
  void compute(int t)
  {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = T(double(slope[i]) * double(weights[i]) + 0.3 * std::sin(double(i) + 0.7 * t));
  }
};

// Two tensors with sizes that leave a tail, and one longer than a block of the sums.
template <class T>
std::vector<tensor<T>> tensors(std::vector<std::size_t> sizes = {5, 4133, 40})
{
  std::vector<tensor<T>> all;
  for (const std::size_t n : sizes)
    all.emplace_back(n, all.size() + 1);
  return all;
}

template <class T>
bool same(const std::vector<tensor<T>>& a, const std::vector<tensor<T>>& b)
{
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i)
    all = same(a[i].weights, b[i].weights);
  return all;
}

inline const gradus::adams scheduled{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.02};

template <class T>
constexpr T not_finite[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                            -std::numeric_limits<T>::infinity()};

}  // namespace support
