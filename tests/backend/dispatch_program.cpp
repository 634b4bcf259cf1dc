// Every recipe through the optimizer: prints hashes of the bits. Built twice, over gradus::dispatch without -march, and
// directly with the flags of this build. The test has the first run the instruction set that the second names
// in its first line, and compares.

#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/fingerprint.hpp"

#if defined(GRADUS_TEST_DISPATCH)
#include <gradus/backend/dispatch.hpp>
using backend = gradus::backend::dispatch;

backend choose(std::string_view name)
{
  using gradus::backend::instruction_set;
  std::printf("%s\n", std::string(name).c_str());
  return backend(name == "avx512"     ? instruction_set::avx512
                 : name == "avx2_fma" ? instruction_set::avx2_fma
                                      : instruction_set::baseline);
}
#else
using backend = gradus::default_backend;

backend choose(std::string_view)
{
#if defined(__AVX512BW__)
  std::printf("avx512\n");
#elif defined(__x86_64__) && GRADUS_FUSED
  std::printf("avx2_fma\n");
#else
  std::printf("baseline\n");
#endif
  return {};
}
#endif

namespace {

// The products are exact or stand alone, so that the compiler has none to fuse.
template <class T, class Recipe>
void run(const char* name, const backend& b)
{
  gradus::optimizer<Recipe, T, backend> opt({.lr = 0.01, .weight_decay = 0.01}, b);
  std::vector<std::vector<T>> weights, gradients;
  for (const std::size_t n : {1u, 5u, 16u, 100u, 4099u}) {
    weights.emplace_back(n);
    gradients.emplace_back(n);
  }
  support::random r(7);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    for (T& x : weights[k])
      x = T(r.uniform(-1, 1));
    opt.add(weights[k], gradients[k]);
  }
  const gradus::schedule::cosine schedule{.t_max = 20, .eta_min = 0.1};
  support::fingerprint f;
  for (int t = 0; t < 20; ++t) {
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i)
        gradients[k][i] = weights[k][i] - T(r.uniform(-1, 1));
    gradus::step_options o{.lr_scale = schedule(t), .grad_scale = 0.7};
    if (t % 3 == 0)
      o.max_grad_norm = 10.0;
    const gradus::step_report report = opt.step(o);
    const double seen[] = {report.grad_norm.value_or(0), report.mean_square.value_or(0)};
    f.add(std::span<const double>(seen));
    for (const auto& w : weights)
      f.add(std::span<const T>(w));
  }
  std::printf("%s %zu %s\n", name, sizeof(T), f.text().c_str());
}

}  // namespace

int main(int argc, char** argv)
{
  const backend b = choose(argc > 1 ? argv[1] : "");
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    run<float, Recipe>(name, b);
  });
  run<double, gradus::adams>("adams", b);
  run<double, gradus::adabound>("adabound", b);
}
