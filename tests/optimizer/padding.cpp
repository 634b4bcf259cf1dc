// Padding: elements that stay 0 and do not count.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/refusal.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::refusal, support::save, support::scheduled, support::tensor;

// As oneDNN pads channels to blocks of 16: of each block of 16 the first so many are numbers.
constexpr std::size_t in_block = 10;
constexpr bool is_padding(std::size_t i) { return i % 16 >= in_block; }

// Steps of a padded tensor beside those of its numbers alone, with another tensor in the model; whether padding stays
// 0, and the largest relative difference of the weights and of v̄.
template <class T, class Recipe>
double padded_difference(const Recipe& recipe, std::string_view name)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  const auto number = []<class N>(std::type_identity<N>, double x) {
    if constexpr (gradus::real<N>)
      return N(x);
    else
      return N(float(x));
  };
  const auto P_of = [&](double x) { return number(std::type_identity<P>{}, x); };
  const auto G_of = [&](double x) { return number(std::type_identity<G>{}, x); };
  const auto back = [](P x) {
    if constexpr (gradus::real<P>)
      return double(x);
    else
      return double(float(x));
  };
  constexpr std::size_t n = 16 * 300;
  std::vector<P> padded(n, P_of(0)), dense, other(7, P_of(0.5)), other_too = other;
  std::vector<G> padded_g(n, G_of(0)), dense_g, other_g(7, G_of(0.25));
  support::random r(9);
  for (std::size_t i = 0; i < n; ++i)
    if (!is_padding(i)) {
      padded[i] = P_of(r.uniform(-1, 1));
      dense.push_back(padded[i]);
    }
  dense_g.resize(dense.size());
  gradus::optimizer<Recipe, T> opt(recipe), reference(recipe);
  const auto h = opt.add("padded", padded, padded_g);
  opt.add(other, other_g);
  opt.set_padding(h, is_padding);
  reference.add("dense", dense, dense_g);
  reference.add(other_too, other_g);
  CHECK(opt.parameter_count() == n + 7);
  double worst = 0;
  for (int t = 0; t < 5; ++t) {
    for (std::size_t i = 0, k = 0; i < n; ++i)
      if (!is_padding(i))
        padded_g[i] = dense_g[k++] = G_of(r.uniform(-0.1, 0.1));
    const auto report = opt.step(), expected = reference.step();
    CHECK(report.mean_square.has_value() == expected.mean_square.has_value());
    if (report.mean_square)
      worst = std::fmax(worst, std::fabs(*report.mean_square / *expected.mean_square - 1));
  }
  bool zeros = true;
  for (std::size_t i = 0, k = 0; i < n; ++i)
    if (is_padding(i))
      zeros = zeros && back(padded[i]) == 0;
    else {
      worst = std::fmax(worst, std::fabs(back(padded[i]) - back(dense[k])) / (1e-2 + std::fabs(back(dense[k]))));
      ++k;
    }
  CHECK_MESSAGE(zeros, name);
  std::as_const(opt).visit_state([&](std::string_view tensor_name, std::string_view key, auto values) {
    using S = std::remove_cvref_t<decltype(values[0])>;
    if constexpr (gradus::real<S>)
      for (std::size_t i = 0; tensor_name == "padded" && values.size() == n && i < n; ++i)
        zeros = zeros && (!is_padding(i) || values[i] == 0 || key == "exp_inf");  // Adamax's norm is at least eps
    CHECK_MESSAGE(zeros, (std::string(name) + ' ' + std::string(key)));
  });
  return worst;
}

}  // namespace

TEST_CASE("padding_mask: of a function, of what can be called, and of ranges of bool, which have a size")
{
  using gradus::padding_mask;
  const padding_mask function(is_padding);
  CHECK_FALSE(function(9));
  CHECK(function(10));
  CHECK_FALSE(function.size());
  std::size_t first = 3;
  const auto from = [&](std::size_t i) { return i >= first; };
  const padding_mask call(from);
  CHECK_FALSE(call(2));
  CHECK(call(3));
  first = 4;
  CHECK_FALSE(call(3));  // it views what it is made of
  CHECK_FALSE(call.size());
  const std::vector<bool> bits{false, true};
  const padding_mask range(bits);
  CHECK_FALSE(range(0));
  CHECK(range(1));
  CHECK(range.size() == 2);
  static_assert(!std::is_constructible_v<padding_mask, int> &&
                !std::is_constructible_v<padding_mask, std::vector<std::vector<bool>>>);
}

TEST_CASE("padding: the mean square is that of the numbers alone")
{
  // A layer of 15910 weights in 25630 floats.
  constexpr std::size_t n = 25630, numbers = 15910;
  const auto padding = [](std::size_t i) { return i % 16 >= 10 || i / 16 * 10 + i % 16 >= numbers; };
  for (const bool moments_first : {false, true}) {
    std::vector<float> w(n, 0.0f), g(n, 0.0f);
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i)
      if (!padding(i)) {
        w[i] = 1;
        g[i] = std::sqrt(1.98e-4f);
        ++count;
      }
    REQUIRE(count == numbers);
    const auto mean_square = [&](auto opt) {
      const auto h = opt.add(w, g);
      opt.set_padding(h, padding);
      opt.step();
      return *opt.report().mean_square;
    };
    using namespace gradus;
    const double v = moments_first ? mean_square(optimizer(compose(1e-3, first_moment::ema{}, second_moment::yogi{},
                                                                   step_size::adaptive{}, decay::scheduled{0.1})))
                                   : mean_square(optimizer<adams>({.weight_decay = 0.1}));
    // yogi's v starts from 1e-6, and is 1e-6 + 0.001 g² after a step.
    CHECK(v == doctest::Approx(moments_first ? (1e-6 + 1e-3 * 1.98e-4) / 1e-3 : 1.98e-4).epsilon(1e-4));
  }
}

TEST_CASE("padding: stays 0, and the numbers move as if there were none")
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    Recipe recipe;
    recipe.weight_decay = 0.1;
    if constexpr (requires { recipe.momentum; })
      recipe.momentum = 0.9;
    if constexpr (requires { recipe.initial_accumulator; })
      recipe.initial_accumulator = 0.5;
    const double worst = padded_difference<float>(recipe, name),
                 worst_in_double = padded_difference<double>(recipe, name);
    CHECK_MESSAGE(worst <= (name == "adams" ? 1e-6 : 0), name);  // v̄'s sums have other terms side by side
    CHECK_MESSAGE(worst_in_double <= (name == "adams" ? 1e-14 : 0), name);
  });
  const gradus::adams strong{.lr = 0.01, .weight_decay = 0.5};
  const gradus::yogi yogi{.lr = 0.01, .weight_decay = 0.5, .initial_accumulator = 0.5};
  using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision;
  CHECK(padded_difference<precision<bfloat16, bfloat16, float, float>>(yogi, "masters") == 0);
  // Where state is rounded by chance, an element's place decides how.
  padded_difference<precision<float, float, bfloat16>>(yogi, "bfloat16 state");
  padded_difference<precision<float, float, block8>>(yogi, "codes");
  padded_difference<precision<bfloat16, bfloat16, block8>>(strong, "no masters");
}

TEST_CASE("padding: as a range of bool, of another size, of a whole tensor, and of one that comes back")
{
  tensor<float> a(8, 1);
  a.weights[6] = a.weights[7] = a.gradients[6] = a.gradients[7] = 0;
  gradus::optimizer<gradus::adams> opt(scheduled);
  auto h = opt.add("a", a.weights, a.gradients);
  const std::vector<bool> bits{0, 0, 0, 0, 0, 0, 1, 1};
  const std::array<bool, 8> flags{0, 0, 0, 0, 0, 0, true, true};
  opt.set_padding(h, bits);
  opt.set_padding(h, flags);
  CHECK(refusal([&] { opt.set_padding(h, std::vector<bool>(7)); }) ==
        "gradus: size of the padding mask of tensor \"a\" is 7; expected 8, the size of its parameters");
  double sum = 0;
  for (const float g : a.gradients)
    sum += double(g) * double(g);
  opt.step();
  CHECK(*opt.report().mean_square == doctest::Approx(sum / 6).epsilon(1e-6));
  // A mask that throws changes nothing.
  const auto before = save(opt);
  CHECK_THROWS_AS(opt.set_padding(h, [](std::size_t i) { return i == 7 ? throw 1 : true; }), int);
  CHECK((save(opt) == before));
  // Kept with the state.
  opt.remove(h, gradus::removed_state::kept);
  h = opt.add("a", a.weights, a.gradients);
  opt.step();
  double v = 0;
  for (const float x : opt.state("a", "exp_avg_sq"))
    v += double(x);
  CHECK(*opt.report().mean_square == doctest::Approx(v / 6 / (1 - 0.99 * 0.99)).epsilon(1e-6));
  // Nothing but padding: no mean, and no NaN.
  opt.set_padding(h, [](std::size_t) { return true; });
  std::fill(a.weights.begin(), a.weights.end(), 0.0f);
  std::fill(a.gradients.begin(), a.gradients.end(), 0.0f);
  opt.step();
  CHECK(*opt.report().mean_square == 0);
  CHECK(a.weights == std::vector<float>(8, 0.0f));
}
