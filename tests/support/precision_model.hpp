#pragma once
// Number types of optimizers, and a model with parameters and gradients in them.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

namespace support {

using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision;

// The precisions that every test of whole steps runs over.
using bf16_state = precision<float, float, bfloat16>;
using block8_state = precision<float, float, block8>;
using bf16_master = precision<bfloat16, bfloat16, float, float>;
using bf16_remainder = precision<bfloat16, bfloat16, float, gradus::remainder16>;
using remainder_block8 = precision<bfloat16, float, block8, gradus::remainder16>;
using bf16_alone = precision<bfloat16>;
using bf16_all = precision<bfloat16, bfloat16, bfloat16>;
using float16_master = precision<float16, float16, bfloat16, float>;
using float16_block8 = precision<float16, bfloat16, block8>;

template <class T>
using parameter_of = typename gradus::precision_of<T>::parameter_type;
template <class T>
using gradient_of = typename gradus::precision_of<T>::gradient_type;

// Tensors of lengths that make tails, blocks, stages and, in a fine division, several pieces.
template <class T>
struct model {
  std::vector<std::vector<parameter_of<T>>> weights;
  std::vector<std::vector<gradient_of<T>>> gradients;
  explicit model(std::uint64_t seed)
  {
    support::random r(seed);
    for (const std::size_t n : {1u, 37u, 256u, 513u, 5000u, 20011u}) {
      auto& w = weights.emplace_back(n);
      auto& g = gradients.emplace_back(n);
      for (std::size_t i = 0; i < n; ++i) {
        w[i] = parameter_of<T>(float(r.uniform(-1, 1)));
        g[i] = gradient_of<T>(float(r.magnitude(1e-4, 1)) * (r.chance(0.5) ? 1.0f : -1.0f));
      }
    }
  }
  template <class Optimizer>
  void add_to(Optimizer& opt)
  {
    for (std::size_t k = 0; k < weights.size(); ++k)
      opt.add(std::string(k + 1, 't'), weights[k], gradients[k]);
  }
};

// Everything that a run leaves behind, as bytes.
template <class Optimizer, class Model>
std::string everything(Optimizer& opt, const Model& m)
{
  std::string all;
  const auto put = [&]<class X>(std::span<X> x) {
    all.append(reinterpret_cast<const char*>(x.data()), x.size_bytes());
  };
  for (const auto& w : m.weights)
    put(std::span(w));
  opt.visit_state([&]<class X>(std::string_view, std::string_view, std::span<X> x) { put(x); });
  return all;
}

template <class Recipe>
Recipe with_all_parts()
{
  Recipe h;
  h.weight_decay = 1e-3;
  if constexpr (requires { h.momentum; })
    h.momentum = 0.9;
  return h;
}

}  // namespace support
