// Master weights as parameters and remainders, against float master weights.

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/precision_model.hpp"
#include "support/random.hpp"

using namespace support;

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
