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

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision;

// The precisions that every test of whole steps runs over.
using bf16_state = precision<float, float, bfloat16>;
using block8_state = precision<float, float, block8>;
using bf16_master = precision<bfloat16, bfloat16, float, float>;
using bf16_remainder = precision<bfloat16, bfloat16, float, gradus::remainder16>;
using remainder_block8 = precision<bfloat16, float, block8, gradus::remainder16>;
using bf16_alone = precision<bfloat16>;
using bf16_all = precision<bfloat16, bfloat16, bfloat16>;
using float16_master = precision<float16, float16, bfloat16, float>;
using float16_block8 = precision<float16, bfloat16, block8>;

template <class T>
using parameter_of = typename gradus::precision_of<T>::parameter_type;
template <class T>
using gradient_of = typename gradus::precision_of<T>::gradient_type;

// Tensors of lengths that make tails, blocks, stages and several pieces.
template <class T>
struct model {
  std::vector<std::vector<parameter_of<T>>> weights;
  std::vector<std::vector<gradient_of<T>>> gradients;
  explicit model(std::uint64_t seed)
  {
    support::random r(seed);
    for (const std::size_t n : {1u, 37u, 256u, 513u, 5000u, 270001u}) {
      auto& w = weights.emplace_back(n);
      auto& g = gradients.emplace_back(n);
      for (std::size_t i = 0; i < n; ++i) {
        w[i] = parameter_of<T>(float(r.uniform(-1, 1)));
        g[i] = gradient_of<T>(float(r.magnitude(1e-4, 1)) * (r.chance(0.5) ? 1.0f : -1.0f));
      }
    }
  }
  template <class Optimizer>
  void add_to(Optimizer& opt)
  {
    for (std::size_t k = 0; k < weights.size(); ++k)
      opt.add(std::string(k + 1, 't'), weights[k], gradients[k]);
  }
};

// Everything that a run leaves behind, as bytes.
template <class Optimizer, class Model>
std::string everything(Optimizer& opt, const Model& m)
{
  std::string all;
  const auto put = [&]<class X>(std::span<X> x) {
    all.append(reinterpret_cast<const char*>(x.data()), x.size_bytes());
  };
  for (const auto& w : m.weights)
    put(std::span(w));
  opt.visit_state([&]<class X>(std::string_view, std::string_view, std::span<X> x) { put(x); });
  return all;
}

template <class Recipe>
Recipe with_all_parts()
{
  Recipe h;
  h.weight_decay = 1e-3;
  if constexpr (requires { h.momentum; })
    h.momentum = 0.9;
  return h;
}

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
    CHECK(run<Recipe, T>(gradus::backend::parallel(gradus::default_backend{}, backwards{})) == expected);
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

TEST_CASE_TEMPLATE("precision: every recipe agrees with float up to rounding", T, bf16_all, block8_state,
                   float16_master)
{
  gradus::for_each_recipe([]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    CAPTURE(std::string(name));
    // From equal parameters and gradients, which float holds exactly.
    model<T> m(9);
    model<float> reference(9);
    for (std::size_t k = 0; k < m.weights.size(); ++k)
      for (std::size_t i = 0; i < m.weights[k].size(); ++i) {
        reference.weights[k][i] = float(m.weights[k][i]);
        reference.gradients[k][i] = float(m.gradients[k][i]);
      }
    Recipe h = with_all_parts<Recipe>();
    h.lr = std::string_view(name) == "adadelta" ? 1 : 1e-2;  // the steps of adadelta are small
    gradus::optimizer<Recipe, T> opt(h);
    gradus::optimizer<Recipe> exact(h);
    m.add_to(opt);
    reference.add_to(exact);
    for (int i = 0; i < 10; ++i)
      opt.step(), exact.step();
    double along = 0, moved = 0;
    const model<T> start(9);
    for (std::size_t k = 0; k < m.weights.size(); ++k)
      for (std::size_t i = 0; i < m.weights[k].size(); ++i) {
        const double from = double(float(start.weights[k][i])), way = double(reference.weights[k][i]) - from;
        along += (double(float(m.weights[k][i])) - from) * way;
        moved += way * way;
      }
    CHECK(along / moved == doctest::Approx(1).epsilon(0.03));
  });
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

namespace {

// Runs of float master weights and of remainders over the same memory layout, which must agree in every bit.
template <class Recipe, class Masters, class Remainders, class Backend>
void compare_remainders(Backend backend, int steps, std::size_t shift)
{
  const Recipe h = with_all_parts<Recipe>();
  gradus::optimizer<Recipe, Masters, Backend> a(h, backend);
  gradus::optimizer<Recipe, Remainders, Backend> b(h, backend);
  std::vector<std::vector<bfloat16>> w;
  std::vector<std::vector<gradient_of<Masters>>> g;
  const std::size_t sizes[] = {1, 15, 16, 17, 33, 100, 1003, 4099};
  w.reserve(2 * std::size(sizes));
  g.reserve(std::size(sizes));
  support::random r(8);
  for (const std::size_t n : sizes) {
    auto& first = w.emplace_back(n + shift);
    for (auto& x : first)
      x = bfloat16(float(r.uniform(-1, 1)));
    auto& second = w.emplace_back(first);
    auto& gradients = g.emplace_back(n);
    a.add(std::to_string(n), std::span(w[w.size() - 2]).subspan(shift), std::span(gradients));
    b.add(std::to_string(n), std::span(second).subspan(shift), std::span(gradients));
  }
  CHECK(b.state_bytes() < a.state_bytes());
  for (int t = 0; t < steps; ++t) {
    for (auto& x : g)
      for (auto& e : x)
        e = gradient_of<Masters>(float(r.uniform(-1, 1)));
    const gradus::step_options o{.lr_scale = t % 3 ? 1.0 : 0.25, .skip_nonfinite = t % 2 == 0};
    a.step(o), b.step(o);
    for (std::size_t k = 0; k < w.size(); k += 2)
      REQUIRE(std::memcmp(w[k].data(), w[k + 1].data(), w[k].size() * 2) == 0);
  }
  REQUIRE(everything(a, model<bf16_master>(0)) == everything(b, model<bf16_master>(0)));
}

}  // namespace

TEST_CASE("remainder16: every recipe has the bits of float master weights, over hundreds of steps")
{
  gradus::for_each_recipe([]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    CAPTURE(std::string(name));
    compare_remainders<Recipe, bf16_master, bf16_remainder>(gradus::default_backend{}, 300, 1);
  });
}

TEST_CASE("remainder16: the bits of float master weights with other gradients and state, and on every backend")
{
  using masters_block8 = precision<bfloat16, float, block8, float>;
  compare_remainders<gradus::adams, masters_block8, remainder_block8>(gradus::default_backend{}, 100, 0);
  compare_remainders<gradus::adamw, bf16_master, bf16_remainder>(gradus::backend::scalar{}, 100, 3);
#if defined(GRADUS_HAS_SIMD)
  support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char*) {
    compare_remainders<gradus::adamw, bf16_master, bf16_remainder>(gradus::backend::basic_simd<Arch>{}, 100, 5);
  });
#endif
}

TEST_CASE("remainder16: weights that all lie halfway between two bfloat16 keep the bits of float master weights")
{
  // Each step moves the weights by half of a bfloat16's step, up or down.
  std::vector<bfloat16> w(1000, bfloat16(1.5f)), same = w, g(1000);
  gradus::optimizer<gradus::sgd, bf16_master> a({.lr = 0x1p-8});
  gradus::optimizer<gradus::sgd, bf16_remainder> b({.lr = 0x1p-8});
  a.add("w", w, g);
  b.add("w", same, g);
  support::random r(2);
  for (int t = 0; t < 200; ++t) {
    for (auto& x : g)
      x = bfloat16(r.chance(0.5) ? 1.0f : -1.0f);
    a.step(), b.step();
    REQUIRE(std::memcmp(w.data(), same.data(), 2000) == 0);
  }
  const model<bf16_master> none(0);
  CHECK(everything(a, none) == everything(b, none));
}

TEST_CASE("remainder16: a NaN or infinite master weight keeps its bits")
{
  std::vector<bfloat16> w(64, bfloat16(1.0f)), same = w;
  std::vector<float> g(64, 1.0f);
  g[3] = NAN, g[20] = -NAN, g[40] = HUGE_VALF;
  gradus::optimizer<gradus::sgd, precision<bfloat16, float, float, float>> a({.lr = 1e-3});
  gradus::optimizer<gradus::sgd, precision<bfloat16, float, float, gradus::remainder16>> b({.lr = 1e-3});
  a.add("w", w, g);
  b.add("w", same, g);
  const auto put = [](std::string_view, std::string_view key, auto values) {
    if constexpr (std::is_same_v<typename decltype(values)::element_type, float>)
      if (key == "master") {
        const std::uint32_t bits[] = {0x7fffffffu, 0xffc08000u, 0x7fc0ffffu, 0x7f800000u, 0xff7fffffu, 0x80000000u, 1u};
        std::memcpy(values.data(), bits, sizeof bits);
      }
  };
  a.visit_state(put), b.visit_state(put);
  const model<bf16_master> none(0);
  CHECK(everything(a, none) == everything(b, none));
  a.step(), b.step();
  CHECK(everything(a, none) == everything(b, none));
  CHECK(std::memcmp(w.data(), same.data(), 128) == 0);
}

TEST_CASE("remainder16: master weights follow the parameters when told, and parameters follow written master weights")
{
  std::vector<bfloat16> w(100, bfloat16(1.0f)), g(100, bfloat16(1.0f));
  gradus::optimizer<gradus::sgd, bf16_remainder> opt({.lr = 1e-3});
  const auto h = opt.add("w", w, g);
  CHECK(opt.state_bytes() == 200 + 16);
  opt.step();
  for (auto& x : w)
    x = bfloat16(3.0f);
  opt.reset_master(h);
  const auto read = [&] {
    std::vector<float> master;
    std::as_const(opt).visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
      if constexpr (std::is_same_v<X, const float>)
        if (key == "master")
          master.assign(x.begin(), x.end());
    });
    return master;
  };
  CHECK(read() == std::vector<float>(100, 3.0f));
  opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
    if constexpr (std::is_same_v<X, float>)
      if (key == "master")
        for (float& e : x)
          e = 0.7f;
  });
  CHECK(read() == std::vector<float>(100, 0.7f));
  CHECK(w[99].bits == bfloat16(0.7f).bits);
}

TEST_CASE("remainder16: a removed tensor keeps its master weights until it is added again")
{
  std::vector<bfloat16> w(100, bfloat16(1.0f)), g(100, bfloat16(1.0f)), reference = w;
  gradus::optimizer<gradus::sgd, bf16_remainder> opt({.lr = 1e-3});
  gradus::optimizer<gradus::sgd, bf16_master> masters({.lr = 1e-3});
  const auto h = opt.add("w", w, g);
  masters.add("w", reference, g);
  opt.step(), masters.step();
  opt.remove(h, gradus::removed_state::kept);
  const model<bf16_master> none(0);
  CHECK(everything(opt, none) == everything(masters, none));
  std::vector<bfloat16> elsewhere(100);
  opt.add("w", elsewhere, g);
  CHECK(elsewhere[7].bits == reference[7].bits);
  opt.step(), masters.step();
  CHECK(everything(opt, none) == everything(masters, none));
  CHECK(std::memcmp(elsewhere.data(), reference.data(), 200) == 0);
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

TEST_CASE_TEMPLATE("any_optimizer: has the precisions too", T, block8_state, bf16_master, bf16_remainder)
{
  model<T> a(5), b(5);
  gradus::any_optimizer<T> any("adamw", {{"lr", 1e-2}});
  gradus::optimizer<gradus::adamw, T> typed({.lr = 1e-2});
  a.add_to(any);
  b.add_to(typed);
  for (int i = 0; i < 3; ++i)
    any.step(), typed.step();
  CHECK(everything(any, a) == everything(typed, b));
}
