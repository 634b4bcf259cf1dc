// A custom rule: AdaBelief's second moment, s ← β₂s + (1−β₂)(g − m)² + eps (Zhuang et al., NeurIPS 2020), which
// measures how far a gradient is from the moving average of gradients. Written once, it runs with every decay, on every
// backend and in every precision; GRADUS_HOST_DEVICE on its functions makes it run on GPUs.

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include <gradus/gradus.hpp>

struct belief {
  double beta2 = 0.999, eps = 1e-16;

  static constexpr std::string_view kind = "belief";
  // Names and ranges of all members, for validation, checkpoints and choice by name.
  static constexpr auto fields = gradus::fields(gradus::field{"beta2", &belief::beta2,
                                                              gradus::range::zero_to_below_one},
                                                gradus::field{"belief_eps", &belief::eps,
                                                              gradus::range::at_least_zero});
  static constexpr std::array slots{gradus::slot{"exp_avg_var", gradus::slot::nonnegative}};  // 8-bit codes rely on it
  static constexpr std::size_t value_slot = 0;  // the slot that step sizes and a scheduled decay read
  static constexpr bool linear = false;         // not linear in g², so v̄ takes a second pass
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return gradus::one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    T beta2, one_minus_beta2, eps;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* s, V g, V m) const noexcept
    {
      const V surprise = g - m;
      s[0] = gradus::fma(V(one_minus_beta2), surprise * surprise, gradus::fma(V(beta2), s[0], V(eps)));
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2), T(eps)};
  }
};

namespace {

constexpr std::size_t n = 37;

/// Minimises Σ (k+1)·(xₖ − 1)² from 0 and returns x.
template <class Backend, class Decay>
std::vector<float> minimise(Decay decay)
{
  std::vector<float> x(n, 0.0f), g(n);
  gradus::optimizer opt(gradus::compose(0.02, gradus::first_moment::ema{}, belief{}, gradus::step_size::adaptive{},
                                        decay),
                        Backend{});
  opt.add(x, g);
  for (int step = 0; step < 1000; ++step) {
    for (std::size_t k = 0; k < n; ++k)
      g[k] = 2 * float(k + 1) * (x[k] - 1);
    opt.step({.lr_scale = 1 - step / 1000.0});
  }
  return x;
}

template <class Decay>
bool check(Decay decay)
{
  const auto x = minimise<gradus::backend::scalar>(decay), y = minimise<gradus::default_backend>(decay);
  double worst = 0;
  for (const float xk : x)
    worst = std::fmax(worst, std::fabs(double(xk) - 1));
  const bool same_bits = std::memcmp(x.data(), y.data(), n * sizeof(float)) == 0;
  std::printf("%-12s  largest error %.4f  %s\n", std::string(Decay::kind).c_str(), worst,
              same_bits ? "same bits on both backends" : "DIFFERENT BITS");
  return same_bits && worst < 0.05;
}

}  // namespace

int main()
{
  using namespace gradus::decay;
  const bool good[] = {check(none{}), check(l2{1e-3}), check(decoupled{1e-3}), check(independent{1e-6}),
                       check(scheduled{1e-3})};
  for (const bool g : good)
    if (!g)
      return 1;
  return 0;
}
