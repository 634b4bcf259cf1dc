// What a user's program may look like: built under strict flags, without exceptions, from every place gradus can be in.

#include <cmath>
#include <cstdio>
#include <vector>

#include <gradus/gradus.hpp>

#if defined(GRADUS_NO_XSIMD)
static_assert(__is_same(gradus::default_backend, gradus::backend::scalar));
#endif

int main()
{
  std::vector<float> weights(10, 1.0f), gradients(10);
  gradus::optimizer<gradus::adams> opt({.lr = 0.05, .weight_decay = 1e-4});
  opt.add(weights, gradients);
  for (int step = 0; step < 200; ++step) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = 2 * weights[i];
    opt.step();
  }
  std::printf("gradus %d.%d.%d: %g\n", GRADUS_VERSION_MAJOR, GRADUS_VERSION_MINOR, GRADUS_VERSION_PATCH, double(weights[9]));
  return std::fabs(weights[9]) < 0.05f ? 0 : 1;
}
