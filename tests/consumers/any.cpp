// A unit that leaves the recipes to gradus::compiled: any_optimizer steps as the optimizer of the same recipe does.

#include <cstdio>
#include <vector>

#include <gradus/gradus.hpp>

#if defined(CONSUMER_ANY_ALONE)
// The least that needs the library.
int main() { return gradus::any_optimizer<float>("adams").parameter_count() == 0 ? 0 : 1; }
#else
int main()
{
  std::vector<float> weights(37, 1.0f), gradients(37, 0.5f), expected(37, 1.0f);
  gradus::any_optimizer<float> opt("adams", {{"lr", 0.05}, {"weight_decay", 1e-3}});
  gradus::optimizer same(gradus::adams{.lr = 0.05, .weight_decay = 1e-3});
  opt.add("w", weights, gradients);
  same.add("w", expected, gradients);
  for (int step = 0; step < 20; ++step) {
    opt.step({.max_grad_norm = 1});
    same.step({.max_grad_norm = 1});
  }
  std::printf("%s: %.9g, expected %.9g\n", opt.name().data(), double(weights[0]), double(expected[0]));
  return weights == expected && opt.state("w", "exp_avg")[0] == same.state("w", "exp_avg")[0] ? 0 : 1;
}
#endif
