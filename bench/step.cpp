// One AdamW step in float, side by side: the same bytes with next to no arithmetic, a loop written by hand in intrinsics,
// and gradus. Rounds are interleaved and medians compared, so that a machine whose speed drifts still gives fair ratios.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#define HAS_TWIN 1
#else
#define HAS_TWIN 0
#endif

namespace {

constexpr double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2;

struct tensors {
  std::vector<float> theta, g, m, v;
  explicit tensors(std::size_t n) : theta(n), g(n), m(n, 0.0f), v(n, 0.0f)
  {
    for (std::size_t i = 0; i < n; ++i) {
      theta[i] = float(int(i % 2001) - 1000) * 1e-3f;
      g[i] = float(int(i * 7919 % 1999) - 999) * 1e-4f + 1e-6f;
    }
  }
};

// Reads and writes what AdamW reads and writes: 28 bytes a parameter. The compiler vectorises it.
void traffic(tensors& x)
{
  float *__restrict theta = x.theta.data(), *__restrict m = x.m.data(), *__restrict v = x.v.data();
  const float* __restrict g = x.g.data();
  for (std::size_t i = 0, n = x.theta.size(); i < n; ++i) {
    const float gi = g[i];
    theta[i] -= gi;
    m[i] += gi;
    v[i] += gi;
  }
}

#if HAS_TWIN
#if defined(__AVX512F__)
using reg = __m512;
constexpr std::size_t width = 16;
inline reg all(float x) { return _mm512_set1_ps(x); }
inline reg load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, reg x) { _mm512_storeu_ps(p, x); }
inline reg mul(reg a, reg b) { return _mm512_mul_ps(a, b); }
inline reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
inline reg div(reg a, reg b) { return _mm512_div_ps(a, b); }
inline reg root(reg a) { return _mm512_sqrt_ps(a); }
inline reg mul_add(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
#else
using reg = __m256;
constexpr std::size_t width = 8;
inline reg all(float x) { return _mm256_set1_ps(x); }
inline reg load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, reg x) { _mm256_storeu_ps(p, x); }
inline reg mul(reg a, reg b) { return _mm256_mul_ps(a, b); }
inline reg add(reg a, reg b) { return _mm256_add_ps(a, b); }
inline reg div(reg a, reg b) { return _mm256_div_ps(a, b); }
inline reg root(reg a) { return _mm256_sqrt_ps(a); }
inline reg mul_add(reg a, reg b, reg c) { return _mm256_fmadd_ps(a, b, c); }
#endif

// Exact square root and division, as gradus has them; lengths are multiples of the width.
void by_hand(tensors& x, int t)
{
  const double bc1 = 1 - std::pow(beta1, t), bc2 = 1 - std::pow(beta2, t);
  const reg b1 = all(float(beta1)), c1 = all(float(1 - beta1)), b2 = all(float(beta2)), c2 = all(float(1 - beta2));
  const reg numerator = all(float(-lr * std::sqrt(bc2) / bc1)), e = all(float(eps * std::sqrt(bc2)));
  const reg kept = all(float(1 - lr * weight_decay));
  float *theta = x.theta.data(), *m = x.m.data(), *v = x.v.data();
  const float* g = x.g.data();
  for (std::size_t i = 0, n = x.theta.size(); i < n; i += width) {
    const reg gi = load(g + i);
    const reg mi = mul_add(c1, gi, mul(b1, load(m + i)));
    const reg vi = mul_add(c2, mul(gi, gi), mul(b2, load(v + i)));
    const reg step = div(numerator, add(root(vi), e));
    store(m + i, mi);
    store(v + i, vi);
    store(theta + i, mul_add(step, mi, mul(kept, load(theta + i))));
  }
}
#endif

double nanoseconds(auto&& work)
{
  const auto start = std::chrono::steady_clock::now();
  work();
  return double(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count());
}

double median(std::vector<double> x)
{
  std::nth_element(x.begin(), x.begin() + long(x.size() / 2), x.end());
  return x[x.size() / 2];
}

void measure(std::size_t n)
{
  tensors moved(n), twin(n), ours(n);
  gradus::optimizer<gradus::adamw> opt(
      {.lr = lr, .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = weight_decay});
  opt.add(ours.theta, ours.g);

  const std::size_t repeats = std::max<std::size_t>(1, (std::size_t(1) << 22) / n);
  std::vector<double> of_traffic, of_twin, of_ours;
  int t = 0;
  for (int round = 0; round < 15; ++round) {
    of_traffic.push_back(nanoseconds([&] { for (std::size_t k = 0; k < repeats; ++k) traffic(moved); }));
#if HAS_TWIN
    of_twin.push_back(nanoseconds([&] { for (std::size_t k = 0; k < repeats; ++k) by_hand(twin, t + 1 + int(k)); }));
#endif
    of_ours.push_back(nanoseconds([&] { for (std::size_t k = 0; k < repeats; ++k) opt.step(); }));
    t += int(repeats);
  }
  std::printf("%9zu  %15.2f", n, median(of_ours) / median(of_traffic));
#if HAS_TWIN
  const bool equal = std::memcmp(ours.theta.data(), twin.theta.data(), n * sizeof(float)) == 0;
  std::printf("  %15.2f  %s", median(of_ours) / median(of_twin), equal ? "same bits" : "DIFFERENT BITS");
#endif
  std::printf("\n");
}

}  // namespace

int main()
{
  std::printf("AdamW, float32, one thread: time of optimizer::step() as a multiple of\n%9s  %15s  %15s\n", "elements",
              "pure traffic", HAS_TWIN ? "hand-written" : "");
  for (const std::size_t n : {std::size_t(1) << 12, std::size_t(1) << 16, std::size_t(1) << 20, std::size_t(1) << 24})
    measure(n);
}
