#pragma once
// A run that is large enough to be cut into pieces, to compare executors by.

#include <cstddef>
#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

namespace support {

// Sizes around the cuts: a tensor of many pieces, many in one piece, some that end within a block.
inline constexpr std::size_t sizes[] = {170'000, 5, 1, 4096, 70'001, 4097, 0, 33'333, 64, 64, 64};

template <class T = float, class Recipe, class Backend>
std::vector<float> train(const Recipe& recipe, Backend backend)
{
  std::vector<std::vector<float>> weights, gradients;
  for (const std::size_t n : sizes) {
    weights.emplace_back(n);
    gradients.emplace_back(n);
  }
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    for (std::size_t i = 0; i < weights[k].size(); ++i)
      weights[k][i] = float((i + k) % 19) * 0.1f - 0.9f;
    opt.add(weights[k], gradients[k]);
  }
  for (int t = 1; t <= 6; ++t) {
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i)
        gradients[k][i] = weights[k][i] + float((i * std::size_t(t)) % 23) * 0.01f - 0.11f;
    const auto report = t % 2 ? opt.step({.max_grad_norm = 10, .skip_nonfinite = true}) : opt.step();
    if (report.grad_norm)  // and the reductions
      weights[0][0] += float(*report.grad_norm) * 1e-3f;
  }
  std::vector<float> all;
  for (const auto& w : weights)
    all.insert(all.end(), w.begin(), w.end());
  return all;
}

inline bool same(const std::vector<float>& a, const std::vector<float>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline const auto two_passes = gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                               gradus::step_size::adaptive{},
                                               gradus::decay::scheduled{.weight_decay = 0.1});

// Every executor and number of threads gives the bits of one thread.
template <class Executor>
void check_executor(Executor executor)
{
  using gradus::backend::parallel;
  const gradus::default_backend cpu;
  const gradus::adams adams{.weight_decay = 0.1};
  CHECK(same(train(adams, cpu), train(adams, parallel(cpu, executor))));
  CHECK(same(train(two_passes, cpu), train(two_passes, parallel(cpu, executor))));
  using short_state = gradus::precision<float, float, gradus::block8>;
  CHECK(same(train<short_state>(adams, cpu), train<short_state>(adams, parallel(cpu, executor))));
}

}  // namespace support
