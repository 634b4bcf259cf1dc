// A program built with -fno-exceptions -fno-rtti works as any other; so does one built with -ffast-math as well, but
// for rounding. Without doctest, which needs exceptions. With the argument `refuse` or `handled` it makes a call that
// is refused, and run_refused.cmake looks at how it ends.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this is to be compiled with -fno-exceptions -fno-rtti"
#endif

namespace {

bool good = true;

void check(bool condition, const char* what)
{
  if (!condition)
    std::printf("failed: %s\n", what);
  good = good && condition;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b)
{
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// How far an optimizer is from a textbook's loop in double after 100 steps, relative to 0.1 + |w|. With `scheduled`,
// the decay is AdamS's, else there is none.
template <class T, class Recipe>
double worst_difference(const Recipe& recipe, bool scheduled)
{
  std::vector<T> w, g(301);
  std::vector<double> x, m(301), v(301);
  for (std::size_t i = 0; i < 301; ++i) {
    w.push_back(T(std::cos(double(i))));
    x.push_back(double(w[i]));
  }
  gradus::optimizer<Recipe, T> opt(recipe);
  opt.add(w, g);
  for (int t = 1; t <= 100; ++t) {
    const double bc1 = 1 - std::pow(0.9, t), bc2 = 1 - std::pow(0.999, t);
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      g[i] = T(std::sin(double(i) + 0.1 * t));  // does not depend on w: differences do not build up
      m[i] = 0.9 * m[i] + 0.1 * double(g[i]);
      v[i] = 0.999 * v[i] + 0.001 * double(g[i]) * double(g[i]);
      sum += v[i] / bc2;
    }
    const double s = scheduled ? 0.01 * recipe.weight_decay / std::sqrt(sum / double(w.size())) : 0;
    for (std::size_t i = 0; i < w.size(); ++i)
      x[i] = (1 - s) * x[i] - 0.01 / bc1 * m[i] / (std::sqrt(v[i] / bc2) + 1e-8);
    check(opt.step().applied, "a step is applied");
  }
  double worst = 0;
  for (std::size_t i = 0; i < w.size(); ++i)
    worst = std::fmax(worst, std::fabs(double(w[i]) - x[i]) / (0.1 + std::fabs(x[i])));
  return worst;
}

void steps_are_right()
{
  check(worst_difference<double>(gradus::adam{.lr = 0.01}, false) < 1e-12, "Adam in double as in a textbook");
  check(worst_difference<float>(gradus::adam{.lr = 0.01}, false) < 1e-5, "Adam in float as in a textbook");
  check(worst_difference<float>(gradus::adams{.lr = 0.01, .weight_decay = 0.1}, true) < 1e-5, "AdamS as in a textbook");
}

// By bits: to a compiler that takes it for granted that there are no NaNs, a comparison with one says anything.
void what_is_not_finite_is_found()
{
  const std::uint32_t patterns[] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7f800000u, 0xff800000u};
  std::vector<float> w(77, 1.0f), g(77, 0.5f);
  gradus::optimizer<gradus::adams> opt({.weight_decay = 0.1});
  const auto h = opt.add("w", w, g);
  check(opt.step({.skip_nonfinite = true}).applied, "finite gradients are no reason to skip");
  const std::vector<float> before = w;
  const auto m = opt.state("w", "exp_avg");
  const std::vector<float> moment(m.begin(), m.end());
  for (const std::uint32_t pattern : patterns)
    for (const std::size_t i : {0u, 15u, 16u, 64u, 76u}) {
      std::memcpy(&g[i], &pattern, sizeof pattern);
      check(!opt.step({.max_grad_norm = 1, .skip_nonfinite = true}).applied, "a NaN or infinity is a reason to skip");
      check(same_bits(w, before), "a skipped step moves no weight");
      check(std::memcmp(m.data(), moment.data(), m.size_bytes()) == 0, "a skipped step moves no state");
      g[i] = 0.5f;
    }
  check(opt.step_count(h) == 1, "a skipped step is not counted");
  check(opt.step({.skip_nonfinite = true}).applied && !same_bits(w, before), "the next step is applied");
}

// pow is made of differences that -ffast-math would take for zero.
template <class T>
void powers_are_right()
{
  double worst = 0;
  for (int i = 0; i < 1024; ++i) {
    T x[64], y[64];
    for (int k = 0; k < 64; ++k) {
      x[k] = T(std::exp(0.04 * (i - 512) + 0.0004 * k));
      y[k] = T(0.01 * (i % 100));
    }
#if defined(GRADUS_HAS_SIMD)
    using pack = gradus::backend::pack<T, xsimd::default_arch>;
    T z[64];
    for (std::size_t k = 0; k < 64; k += pack::size)
      gradus::store(z + k, pow(gradus::load<pack>(x + k), gradus::load<pack>(y + k)));
#endif
    for (int k = 0; k < 64; ++k) {
      // In long double, whose pow compilers do not replace by a faster one.
      const double expected = double(std::pow(static_cast<long double>(x[k]), static_cast<long double>(y[k])));
      worst = std::fmax(worst, std::fabs(double(gradus::pow(x[k], y[k])) - expected) / expected);
#if defined(GRADUS_HAS_SIMD)
      worst = std::fmax(worst, std::fabs(double(z[k]) - expected) / expected);
#endif
    }
  }
  check(worst < 2 * double(std::numeric_limits<T>::epsilon()), "pow is right to rounding");
}

void chosen_by_name()
{
  std::vector<float> w{1, -2, 3, 4, 5}, x = w, g{1, 2, 3, 4, 5};
  gradus::optimizer<gradus::adams> typed({.lr = 0.01, .weight_decay = 0.1});
  gradus::any_optimizer<float> named("adams", {{"lr", 0.01}, {"weight_decay", 0.1}});
  typed.add(w, g);
  const auto h = named.add(x, g);
  for (int t = 0; t < 10; ++t) {
    const auto expected = typed.step({.max_grad_norm = 3, .skip_nonfinite = true});
    const auto report = named.step({.max_grad_norm = 3, .skip_nonfinite = true});
    check(report.mean_square == expected.mean_square, "an optimizer chosen by name reports the same");
  }
  check(same_bits(w, x), "an optimizer chosen by name has the same bits");
  int seen = 0;
  named.visit_state([&](std::string_view, std::string_view, auto) { ++seen; });
  check(seen == 5, "state is visited");
  named.remove(h, gradus::removed_state::kept);
  const gradus::schedule::cosine schedule{.t_max = 10};
  check(schedule(0) == 1, "a schedule starts from 1");
}

void checkpoints()
{
  std::vector<float> w{1, -2, 3}, x(3), g{1, 2, 3};
  gradus::optimizer<gradus::adams> opt({.lr = 0.01, .weight_decay = 0.1}), loaded;
  opt.add("w", w, g);
  loaded.add("w", x, g);
  opt.step();
  std::vector<std::byte> bytes;
  const auto write = [&](const void* p, std::size_t n) {
    bytes.insert(bytes.end(), static_cast<const std::byte*>(p), static_cast<const std::byte*>(p) + n);
    return true;
  };
  gradus::save_to(opt, write, {.parameters = true});
  check(gradus::load_from(loaded, bytes).settings, "a checkpoint is loaded");
  check(same_bits(w, x), "the parameters are the file's");
  opt.step();
  loaded.step();
  check(same_bits(w, x), "a resumed run has the same bits");
}

}  // namespace

int main(int argc, char** argv)
{
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "handled")
    gradus::error_handler = [](const char* message) {
      std::printf("handled: %s\n", message);
      std::exit(7);
    };
  if (what == "refuse" || what == "handled") {
    gradus::optimizer<gradus::adam> opt;
    auto bad = opt.hyperparameters();
    bad.lr = -1;
    opt.add_group(bad);
    std::fputs("went on after a refusal\n", stderr);
    return 0;
  }
  steps_are_right();
  what_is_not_finite_is_found();
  powers_are_right<float>();
  powers_are_right<double>();
  chosen_by_name();
  checkpoints();
  return good ? 0 : 1;
}
