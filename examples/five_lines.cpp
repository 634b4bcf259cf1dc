// A minimal program: minimises f(x) = Σ (xᵢ − i)² with AdamS.

#include <cmath>
#include <cstdio>
#include <vector>

#include <gradus/gradus.hpp>

int main()
{
  std::vector<float> weights(5, 0.0f), gradients(5);

  gradus::optimizer<gradus::adams> opt({.lr = 1e-1, .weight_decay = 0});
  opt.add(weights, gradients);
  for (int step = 0; step < 500; ++step) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = 2 * (weights[i] - float(i));
    opt.step();
  }

  float worst = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    std::printf("x%zu = %.4f\n", i, double(weights[i]));
    worst = std::fmax(worst, std::fabs(weights[i] - float(i)));
  }
  return worst < 1e-2f ? 0 : 1;
}
