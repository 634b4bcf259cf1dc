// A rule of one's own: the second moment of AdaBelief (Zhuang et al. 2020), written once, composed with every decay, run on
// every backend.
//
// AdaBelief is Adam but for one line: it divides not by the size of the gradient but by its surprise, the distance from
// what the first moment expected:  s ← β₂s + (1−β₂)(g − m)² + eps.

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

// ── the rule ───────────────────────────────────────────────────────────────────────────────────────────────────────

struct belief {
  double beta2 = 0.999, eps = 1e-16;  // fields of known names are checked, and beta2 gives the bias correction

  static constexpr std::string_view kind = "belief";
  static constexpr std::array slots{gradus::slot{"exp_avg_var"}};  // the state it keeps: s
  static constexpr std::size_t value_slot = 0;                     // by whose root the step size divides
  static constexpr bool linear = false;                            // Σs does not follow from ‖g‖² alone

  template <class T>
  struct formula {
    T beta2, one_minus_beta2, eps;
    template <class V>
    void update(V* s, V g, V d) const noexcept  // V: one number or a register full; d: the first moment's direction, m
    {
      using gradus::fma;  // a product that feeds a sum is written as fma: so all backends round alike
      const V surprise = g - d;
      s[0] = fma(V(one_minus_beta2), surprise * surprise, V(beta2) * s[0]) + V(eps);
    }
  };
  template <class T>
  formula<T> prepare(const gradus::tick&) const noexcept { return {T(beta2), T(1 - beta2), T(eps)}; }
};

// ── what it can do ─────────────────────────────────────────────────────────────────────────────────────────────────

constexpr std::size_t dimensions = 37;  // no multiple of a register's width

// f(x) = Σ aᵢ/2 (xᵢ − cᵢ)², steep in some directions and flat in others.
float slope(std::size_t i) { return std::pow(100.0f, float(i) / float(dimensions - 1)) / 100; }
float minimum(std::size_t i) { return std::cos(float(i)); }

double f(const std::vector<float>& x)
{
  double sum = 0;
  for (std::size_t i = 0; i < dimensions; ++i)
    sum += 0.5 * slope(i) * std::pow(x[i] - minimum(i), 2);
  return sum;
}

// Where 1000 steps from zero lead.
template <class Backend, class Recipe>
std::vector<float> minimise(const Recipe& recipe)
{
  std::vector<float> x(dimensions, 0.0f), gradients(dimensions);
  gradus::optimizer<Recipe, float, Backend> opt(recipe);
  opt.add(x, gradients);
  const gradus::schedule::cosine schedule{.t_max = 1000};
  for (int t = 0; t < 1000; ++t) {
    for (std::size_t i = 0; i < dimensions; ++i)
      gradients[i] = slope(i) * (x[i] - minimum(i));
    opt.step({.lr_scale = schedule(t)});
  }
  return x;
}

// One line of the table; whether all is well.
template <class Decay>
bool show(const char* name, Decay decay)
{
  const auto recipe = gradus::compose(0.02, gradus::first_moment::ema{}, belief{}, gradus::step_size::adaptive{}, decay);
  const std::vector<float> x = minimise<gradus::backend::scalar>(recipe);
#if defined(GRADUS_HAS_SIMD)
  const std::vector<float> y = minimise<gradus::backend::simd>(recipe);
  const bool same = std::memcmp(x.data(), y.data(), dimensions * sizeof(float)) == 0;
  const char* comparison = same ? "same bits" : "DIFFERENT BITS";
#else
  const bool same = true;
  const char* comparison = "no simd here";
#endif
  std::printf("%-12s  %9.2e  %s\n", name, f(x), comparison);
  return same && f(x) < 0.01 * f(std::vector<float>(dimensions, 0.0f));
}

int main()
{
  namespace decay = gradus::decay;
  std::printf("%-12s  %9s  %s\n", "decay", "f", "scalar and simd");
  std::printf("%-12s  %9.2e\n", "(start)", f(std::vector<float>(dimensions, 0.0f)));
  bool good = true;
  good &= show("none", decay::none{});
  good &= show("l2", decay::l2{1e-4});
  good &= show("decoupled", decay::decoupled{1e-4});
  good &= show("independent", decay::independent{1e-7});
  good &= show("scheduled", decay::scheduled{1e-4});
  return good ? 0 : 1;
}
