// An optimizer that has a part of a model: parts of tensors, and tensors that another process counts.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/refusal.hpp"
#include "support/tensors.hpp"

namespace {

using support::number, support::refusal, support::same;

// Steps of a tensor whole, and of the same tensor in two parts; whether they give the same weights.
template <class Precision, class Recipe>
bool cut_like_whole(const Recipe& recipe, bool says_so = true)
{
  using P = typename gradus::precision_of<Precision>::parameter_type;
  using G = typename gradus::precision_of<Precision>::gradient_type;
  constexpr std::size_t n = 3 * gradus::page_size + 100, at = 2 * gradus::page_size;
  std::vector<P> whole(n), cut(n);
  std::vector<G> g(n);
  for (std::size_t i = 0; i < n; ++i)
    whole[i] = cut[i] = number<P>(std::cos(double(i)));
  gradus::optimizer<Recipe, Precision> one(recipe), two(recipe);
  if constexpr (gradus::precision_of<Precision>::stochastic) {
    one.set_seed(7);
    two.set_seed(7);
  }
  one.add_spans("w", whole, std::span<const G>(g));
  const auto a = two.add_spans("w", std::span(cut).first(at), std::span<const G>(g).first(at));
  const auto b = two.add_spans("w, from page 2 on", std::span(cut).subspan(at), std::span<const G>(g).subspan(at));
  if (says_so) {
    two.set_part(a, "w", 0);
    two.set_part(b, "w", at);
  }
  for (int t = 0; t < 4; ++t) {
    for (std::size_t i = 0; i < n; ++i)
      g[i] = number<G>(std::sin(double(i) * 0.37 + t));
    one.step({.max_grad_norm = 0.5});
    two.step({.max_grad_norm = 0.5});
    CHECK(*one.report().grad_norm == *two.report().grad_norm);
  }
  return same(whole, cut);
}

}  // namespace

TEST_CASE("set_part: stochastic rounding gives a part the bits that it has in the whole")
{
  using gradus::bfloat16, gradus::block8, gradus::precision;
  CHECK(cut_like_whole<precision<float, float, block8>>(gradus::adamw{.lr = 0.1}));
  CHECK(cut_like_whole<precision<float, float, bfloat16>>(gradus::adams{.lr = 0.1, .weight_decay = 0.1}));
  CHECK(cut_like_whole<precision<bfloat16>>(gradus::sgd{.lr = 0.1}));
  CHECK(cut_like_whole<double>(gradus::adams{.weight_decay = 0.1}));
  CHECK(!cut_like_whole<precision<float, float, block8>>(gradus::adamw{.lr = 0.1}, false));
  CHECK(!cut_like_whole<precision<float, float, bfloat16>>(gradus::adamw{.lr = 0.1}, false));
  CHECK(!cut_like_whole<precision<bfloat16>>(gradus::sgd{.lr = 0.1}, false));
}

TEST_CASE("set_part: may come between steps, and refuses a part that begins inside a page")
{
  std::vector<float> w(5000, 1), g(5000, 0.5f), twin = w;
  gradus::optimizer<gradus::adams> opt({.weight_decay = 0.1}), reference({.weight_decay = 0.1});
  const auto h = opt.add("part", w, g);
  reference.add("part", twin, g);
  opt.step();
  reference.step();
  opt.set_part(h, "whole", 8192);
  CHECK(opt.step().mean_square == reference.step().mean_square);
  CHECK(same(w, twin));
  CHECK(opt.step_count(h) == 2);
  CHECK(refusal([&] { opt.set_part(h, "whole", 100); }) ==
        "gradus: first of tensor \"part\" is 100; expected a multiple of 4096, the number of elements in a page");
  opt.freeze(h);
  opt.set_part(h, "whole", 4096);
  opt.step();
  CHECK(same(w, twin));
}

TEST_CASE("set_in_norm: a tensor that is counted elsewhere is in neither norm nor v̄, and still steps")
{
  const auto run = [](auto recipe) {
    std::vector<double> a(5000, 1), ga(5000, 0.5), b(4100, 1), gb(4100, 3), alone = a;
    gradus::optimizer<decltype(recipe), double> opt(recipe), reference(recipe);
    opt.add("a", a, ga);
    const auto h = opt.add("b", b, gb);
    reference.add("a", alone, ga);
    opt.set_in_norm(h, gradus::in_norm::counted_elsewhere);
    for (int t = 0; t < 3; ++t) {
      const auto report = opt.step({.max_grad_norm = 1}), expected = reference.step({.max_grad_norm = 1});
      CHECK(report.grad_norm == expected.grad_norm);
      CHECK(report.mean_square == expected.mean_square);
    }
    CHECK(same(a, alone));
    CHECK(b[0] != 1);
    gb[4099] = std::numeric_limits<double>::quiet_NaN();
    CHECK(!opt.step({.skip_nonfinite = true}).applied);
    gb[4099] = 3;
    opt.set_in_norm(h, gradus::in_norm::counted);
    CHECK(*opt.step({.max_grad_norm = 1}).grad_norm > 100);
  };
  run(gradus::adamw{});
  run(gradus::adams{.weight_decay = 0.1});
  run(gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                      gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1}));
}

TEST_CASE("set_in_norm: where all that counts is 0 or tiny, a tensor that is counted elsewhere is no infinite norm")
{
  for (const double tiny : {0.0, 1e-200}) {
    std::vector<double> a(10, 1), ga(10, tiny), b(10, 1), gb(10, 3), alone = a;
    gradus::optimizer<gradus::adamw, double> opt, reference;
    opt.add("a", a, ga);
    opt.set_in_norm(opt.add("b", b, gb), gradus::in_norm::counted_elsewhere);
    reference.add("a", alone, ga);
    const auto report = opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
    CHECK(report.applied);
    CHECK(report.grad_norm == reference.step({.max_grad_norm = 1}).grad_norm);
    CHECK(same(a, alone));
    CHECK(b[0] != 1);
    // Infinities and numbers whose squares are infinite are told apart as ever.
    gb[3] = 1e200;
    CHECK(opt.step({.max_grad_norm = 1, .skip_nonfinite = true}).applied);
    gb[3] = HUGE_VAL;
    CHECK(!opt.step({.max_grad_norm = 1, .skip_nonfinite = true}).applied);
  }
}
