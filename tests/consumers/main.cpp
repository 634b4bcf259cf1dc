// What a user's program may look like: built under strict flags, without exceptions, from every place gradus can be in.

#include <cmath>
#include <cstdio>
#include <vector>

#include <gradus/gradus.hpp>
#if defined(CONSUMER_DISPATCH)
#include <gradus/backend/dispatch.hpp>
using backend = gradus::backend::dispatch;
#else
using backend = gradus::default_backend;
#endif

// Names that a program may well have, and that a header's own must not be said to shadow.
constexpr std::size_t n = 10;
constexpr int i = 0, k = 0, t = 0, x = 0, name = 0, value = 0;

#if defined(GRADUS_NO_XSIMD)
static_assert(__is_same(gradus::default_backend, gradus::backend::scalar));
#endif

int main()
{
  std::vector<float> weights(n, 1.0f), gradients(n);
  gradus::optimizer<gradus::adams, float, backend> opt({.lr = 0.05, .weight_decay = 1e-4});
  opt.add(weights, gradients);
  for (int step = 0; step < 200; ++step) {
    for (std::size_t j = 0; j < n; ++j)
      gradients[j] = 2 * weights[j];
    opt.step();
  }
  std::printf("gradus %d.%d.%d: %g\n", GRADUS_VERSION_MAJOR, GRADUS_VERSION_MINOR, GRADUS_VERSION_PATCH,
              double(weights[9]));
  return std::fabs(weights[9]) < 0.05f ? 0 : i + k + t + x + name + value + 1;
}
