// What a user's program may look like: built under strict flags, without exceptions, from every place gradus can be in.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#if defined(CONSUMER_HEADER)
#include CONSUMER_HEADER
#else
#include <gradus/gradus.hpp>
#endif
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

#if defined(CONSUMER_PARTS)
int parts(const char* path);  // in parts.cpp, another unit
#endif

// consumer [VERSION BACKEND [FILE]]: with these, also checks that they are what was found.
int main(int argc, char** argv)
{
  std::vector<float> weights(n, 1.0f), gradients(n);
  gradus::optimizer<gradus::adams, float, backend> opt({.lr = 0.05, .weight_decay = 1e-4});
  opt.add(weights, gradients);
  for (int step = 0; step < 200; ++step) {
    for (std::size_t j = 0; j < n; ++j)
      gradients[j] = 2 * weights[j];
    opt.step();
  }
  char version[32];
  std::snprintf(version, sizeof version, "%d.%d.%d", GRADUS_VERSION_MAJOR, GRADUS_VERSION_MINOR, GRADUS_VERSION_PATCH);
  std::printf("gradus %s on the backend %s: %.9g\n", version, gradus::default_backend_name(), double(weights[9]));
#if defined(CONSUMER_PARTS)
  if (argc != 4 || parts(argv[3]) != 0)
    return 3;
#endif
  if (argc >= 3 && (std::strcmp(argv[1], version) != 0 || std::strcmp(argv[2], gradus::default_backend_name()) != 0))
    return 2;
  return std::fabs(weights[9]) < 0.05f ? 0 : i + k + t + x + name + value + 1;
}
