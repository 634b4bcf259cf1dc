// Precisions: that runs over short numbers arrive where those in float do, with the same bits on every backend.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/precision_model.hpp"

using namespace support;

namespace {

// The last piece first: an executor may take them in any order.
struct backwards {
  void run(std::size_t n, gradus::executor::work work) const
  {
    for (std::size_t k = n; k-- > 0;)
      work(k);
  }
};

template <class Recipe, class T, class Backend = gradus::default_backend>
std::string run(Backend backend = {}, std::uint64_t seed = 0, int steps = 7)
{
  model<T> m(5);
  gradus::optimizer<Recipe, T, Backend> opt(with_all_parts<Recipe>(), backend);
  if constexpr (gradus::precision_of<T>::stochastic)
    opt.set_seed(seed);
  m.add_to(opt);
  for (int i = 0; i < steps; ++i)
    opt.step({.grad_scale = 0.5, .max_grad_norm = 30});
  return everything(opt, m);
}

}  // namespace

#define PRECISIONS \
  bf16_state, block8_state, bf16_master, bf16_remainder, bf16_alone, bf16_all, float16_master, float16_block8

TEST_CASE_TEMPLATE(
    "precision: the same bits on every backend and width, in any order of pieces; others from another seed", T,
    PRECISIONS)
{
  const auto check = []<class Recipe>(Recipe) {
    const std::string expected = run<Recipe, T>(gradus::backend::scalar{});
    CHECK(run<Recipe, T>(gradus::backend::parallel(gradus::default_backend{}, backwards{},
                                                   {.from = 1, .piece = 4096})) == expected);
#if defined(GRADUS_HAS_SIMD)
    support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* name) {
      CAPTURE(name);
      CHECK(run<Recipe, T>(gradus::backend::basic_simd<Arch>{}) == expected);
    });
#endif
    if constexpr (gradus::precision_of<T>::stochastic)
      CHECK(run<Recipe, T>({}, 1) != run<Recipe, T>({}, 0));
  };
  check(gradus::adamw{});
  if constexpr (std::is_same_v<T, bf16_all> || std::is_same_v<T, float16_block8>)
    check(gradus::adams{});  // in two passes
}

TEST_CASE_TEMPLATE("precision: steps far below the spacing of the stored numbers are not lost", T, PRECISIONS)
{
  // A thousand steps of SGD, each an eighth of what a bfloat16 near 1 can move by, or less.
  std::vector<parameter_of<T>> w(4096, parameter_of<T>(1.0f));
  std::vector<gradient_of<T>> g(4096, gradient_of<T>(1.0f));
  gradus::optimizer<gradus::sgd, T> opt({.lr = 1e-4});
  opt.add(w, g);
  for (int i = 0; i < 1000; ++i)
    opt.step();
  double mean = 0;
  for (const auto x : w)
    mean += double(float(x)) / 4096;
  CHECK(mean == doctest::Approx(0.9).epsilon(0.003));
}

TEST_CASE_TEMPLATE("precision: a second moment that changes by a thousandth a step reaches its limit", T, PRECISIONS)
{
  // To nearest, a bfloat16 would stand still at 256/257 of a step's size, an 8-bit code far earlier.
  std::vector<parameter_of<T>> w(4096, parameter_of<T>(0.0f));
  std::vector<gradient_of<T>> g(4096, gradient_of<T>(1.0f));
  gradus::optimizer<gradus::adam, T> opt({.lr = 0});
  opt.add(w, g);
  for (int i = 0; i < 1000; ++i)
    opt.step();
  for (auto& x : g)
    x = gradient_of<T>(0.5f);
  for (int i = 0; i < 1000; ++i)
    opt.step();
  const double expected = (1 - std::pow(0.999, 1000)) * (std::pow(0.999, 1000) + 0.25);
  double mean = 0;
  std::vector<float> v(4096);
  opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
    if constexpr (std::is_same_v<X, float> || std::is_same_v<X, bfloat16>) {
      if (key == "exp_avg_sq")
        for (std::size_t i = 0; i < 4096; ++i)
          v[i] = float(x[i]);
    } else if constexpr (std::is_same_v<X, std::uint8_t>)
      if (key == "exp_avg_sq")
        for (std::size_t i = 0; i < 4096; ++i)
          v[i] = gradus::detail::dynamic_map_of<false>.value[x[i]];
    if constexpr (std::is_same_v<X, float>)
      if (key == "exp_avg_sq_scale")
        for (std::size_t i = 0; i < 4096; ++i)
          v[i] *= x[i / 256];
  });
  for (const float x : v)
    mean += double(x) / 4096;
  CHECK(mean == doctest::Approx(expected).epsilon(0.01));
}

TEST_CASE_TEMPLATE("mean square: of the moment that starts from the stored one", T, bf16_state, block8_state)
{
  model<T> m(5);
  gradus::optimizer<gradus::adams, T> opt({.weight_decay = 1e-3});
  gradus::optimizer<gradus::adams> exact({.weight_decay = 1e-3});
  model<float> same(5);
  m.add_to(opt);
  same.add_to(exact);
  for (int i = 0; i < 50; ++i) {
    const auto a = opt.step(), b = exact.step();
    REQUIRE(a.mean_square.value() == doctest::Approx(b.mean_square.value()).epsilon(0.01));
    REQUIRE(a.mean_square.value() != b.mean_square.value());
  }
}

TEST_CASE_TEMPLATE("visit_state: a run that is restored, its seed included, goes on with the same bits", T, PRECISIONS)
{
  model<T> a(5), b(5);
  gradus::optimizer<gradus::adams, T> first({.weight_decay = 1e-3}), second({.weight_decay = 1e-3});
  if constexpr (gradus::precision_of<T>::stochastic)
    first.set_seed(11);
  a.add_to(first);
  for (int i = 0; i < 4; ++i)
    first.step();
  std::map<std::string, std::string> kept;
  first.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<X> x) {
    kept[std::string(name) + "/" + std::string(key)] = std::string(reinterpret_cast<const char*>(x.data()),
                                                                   x.size_bytes());
  });
  b.weights = a.weights;
  b.add_to(second);
  second.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<X> x) {
    const std::string& bytes = kept.at(std::string(name) + "/" + std::string(key));
    REQUIRE(bytes.size() == x.size_bytes());
    if (!bytes.empty())
      std::memcpy(x.data(), bytes.data(), bytes.size());
  });
  for (int i = 0; i < 4; ++i)
    first.step(), second.step();
  CHECK(everything(first, a) == everything(second, b));
}

TEST_CASE("master weights: follow the parameters when told, and are what steps move")
{
  std::vector<bfloat16> w(100, bfloat16(1.0f)), g(100, bfloat16(1.0f));
  gradus::optimizer<gradus::sgd, bf16_master> opt({.lr = 1e-3});
  const auto h = opt.add("w", w, g);
  CHECK(opt.state_bytes() == 400);
  opt.step();
  CHECK(float(w[0]) == 1.0f);  // 0.999 is nearer to 1 than to the next bfloat16 below
  opt.step(), opt.step();
  CHECK(float(w[0]) == bfloat16(0.997f).operator float());
  for (auto& x : w)
    x = bfloat16(3.0f);
  opt.reset_master(h);
  opt.step();
  CHECK(float(w[0]) == 3.0f);
  std::vector<float> master;
  opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
    if constexpr (std::is_same_v<X, float>)
      if (key == "master")
        master.assign(x.begin(), x.end());
  });
  CHECK(master == std::vector<float>(100, 3.0f - 1e-3f));
}

TEST_CASE_TEMPLATE("master weights: a decay too small for 1 - s in float is not lost", T, bf16_master, float16_master)
{
  const auto mean_after_noise = [](double weight_decay) {
    std::vector<parameter_of<T>> w(256, parameter_of<T>(1.0f));
    std::vector<gradient_of<T>> g(256);
    gradus::optimizer<gradus::adamw, T> opt({.weight_decay = weight_decay});
    opt.add(w, g);
    support::random r(12);
    for (int t = 1; t <= 2000; ++t) {
      for (auto& e : g)
        e = gradient_of<T>(r.chance(0.5) ? 1.0f : -1.0f);
      opt.step();
    }
    double mean = 0;
    opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
      if constexpr (std::is_same_v<X, float>)
        if (key == "master")
          for (const float e : x)
            mean += double(e) / 256;
    });
    return mean;
  };
  // 2000 steps of s = 4e-8, and the weights are 1 within some hundredths.
  CHECK((mean_after_noise(0) - mean_after_noise(4e-5)) / (2000 * 4e-8) == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE_TEMPLATE("skip_nonfinite: a gradient that is not finite is found, and the step skipped", T, PRECISIONS)
{
  model<T> m(5);
  gradus::optimizer<gradus::adamw, T> opt;
  m.add_to(opt);
  opt.step();
  const std::string before = everything(opt, m);
  m.gradients[4][4999] = gradient_of<T>(NAN);
  CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
  m.gradients[4][4999] = gradient_of<T>(-HUGE_VALF);
  CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
  CHECK(everything(opt, m) == before);
}

TEST_CASE_TEMPLATE("skip_nonfinite: a gradient whose square overflows leaves the moments of its block finite", T,
                   block8_state, bf16_state)
{
  std::vector<parameter_of<T>> w(256, parameter_of<T>(1.0f));
  std::vector<gradient_of<T>> g(256, gradient_of<T>(1.0f));
  g[7] = gradient_of<T>(2e19f);
  gradus::optimizer<gradus::adam, T> opt;
  opt.add(w, g);
  CHECK(opt.step({.skip_nonfinite = true}).applied);
  opt.visit_state([&]<class X>(std::string_view, std::string_view, std::span<X> x) {
    if constexpr (std::is_same_v<X, float> || std::is_same_v<X, bfloat16>)
      for (const X e : x)
        CHECK(gradus::is_finite(e));
  });
}
