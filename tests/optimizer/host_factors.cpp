// Step sizes that need sums over tensors or the model before the first weight moves.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/own_rules.hpp"
#include "support/random.hpp"
#include "support/scene.hpp"

namespace {

using gradus::backend::scalar;

constexpr auto descent = own::descent(0.5);

// Sizes that threads and pages cut, and small ones between them.
const std::vector<std::size_t> sizes{1, 20'000, 7, 4096, 3, 4097, 12'289, 500};

// Everything after four steps. \param order  of the tensors
template <class T, class Recipe, class Backend>
std::vector<std::vector<typename gradus::precision_of<T>::parameter_type>> train(const Recipe& recipe, Backend backend,
                                                                                 const std::vector<std::size_t>& order)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  std::vector<std::vector<P>> weights(sizes.size());
  std::vector<std::vector<G>> gradients(sizes.size());
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  for (const std::size_t k : order) {
    support::random r(100 + k);
    for (std::size_t i = 0; i < sizes[k]; ++i) {
      weights[k].push_back(P(float(r.uniform(-1, 1))));
      gradients[k].push_back(G(float(r.uniform(-1, 1))));
    }
    opt.add(std::to_string(k), weights[k], gradients[k]);
  }
  for (int t = 0; t < 4; ++t) {
    for (auto& g : gradients)
      for (std::size_t i = 0; i < g.size(); i += 3)
        g[i] = G(float(g[i]) * (t % 2 ? -0.5f : 3.0f));
    opt.step({.max_grad_norm = t == 2 ? std::optional(0.5) : std::nullopt});
  }
  return weights;
}

const std::vector<std::size_t> in_order{0, 1, 2, 3, 4, 5, 6, 7}, mixed{6, 0, 3, 7, 5, 1, 4, 2};

template <class T, class Recipe>
void check_same_bits(const char* name, const Recipe& recipe)
{
  CAPTURE(name);
  const auto expected = train<T>(recipe, scalar(), in_order);
  const auto check = [&](const auto& other) {
    for (std::size_t k = 0; k < sizes.size(); ++k)
      CHECK(std::memcmp(expected[k].data(), other[k].data(), expected[k].size() * sizeof expected[k][0]) == 0);
  };
  check(train<T>(recipe, gradus::default_backend(), in_order));
  if constexpr (!gradus::precision_of<T>::stochastic)  // random bits belong to a tensor's name, and not to its place
    check(train<T>(recipe, scalar(), mixed));
  for (const unsigned threads : {1u, 3u})
    check(train<T>(recipe,
                   gradus::backend::parallel(gradus::default_backend(), gradus::executor::thread_pool(threads),
                                             {.from = 0, .piece = 1}),
                   in_order));
}

}  // namespace

TEST_CASE("sums: the same bits on every backend, with one thread and with three, in any order of the tensors")
{
  using gradus::bfloat16, gradus::block8, gradus::precision;
  const auto check_all = []<class Recipe>(const char* name, const Recipe& recipe) {
    check_same_bits<float>(name, recipe);
    check_same_bits<double>(name, recipe);
    check_same_bits<precision<bfloat16, bfloat16, float, float>>(name, recipe);
    check_same_bits<precision<float, float, block8>>(name, recipe);
  };
  check_all("lamb", gradus::lamb{.lr = 0.01});
  check_all("stable_adamw", gradus::stable_adamw{.lr = 0.01});
  check_all("cautious_adamw", gradus::cautious_adamw{.lr = 0.01});
  check_same_bits<float>("unit_length", descent);
}

TEST_CASE("sums: over the model, of all tensors that take part and count, in all groups")
{
  std::vector<float> a{1, 1}, b{2, 2, 2}, c{5}, g_a{3, 0}, g_b{0, 0, 4}, g_c{12};
  gradus::optimizer opt(descent, scalar());
  auto slower = opt.hyperparameters();
  slower.lr = 0.25;
  opt.add(a, g_a);
  opt.add(b, g_b, opt.add_group(slower));
  const auto third = opt.add(c, g_c);
  opt.freeze(third);
  opt.step();
  CHECK(a == std::vector<float>{1 - 0.5f * 3 / 5, 1});
  CHECK(b == std::vector<float>{2, 2, 2 - 0.25f * 4 / 5});
  CHECK(c[0] == 5);
  opt.unfreeze(third);
  opt.step();
  CHECK(c[0] == doctest::Approx(5 - 0.5 * 12 / 13));
  opt.set_in_norm(third, gradus::in_norm::counted_elsewhere);
  a = {1, 1};
  opt.step();
  CHECK(a[0] == doctest::Approx(1 - 0.5 * 3 / 5));
}

TEST_CASE("sums: over a tensor, of it alone")
{
  const auto trained = [](bool with_neighbour) {
    support::random r(8);
    std::vector<float> w, g, other(300, 2), other_g(300, 0.5);
    for (int i = 0; i < 300; ++i) {
      w.push_back(float(r.uniform(-1, 1)));
      g.push_back(float(r.uniform(-1, 1)));
    }
    gradus::optimizer<gradus::lamb> opt;
    if (with_neighbour)
      opt.add(other, other_g);
    opt.add(w, g);
    for (int t = 0; t < 3; ++t)
      opt.step();
    return w;
  };
  CHECK(trained(true) == trained(false));
}

TEST_CASE("sums: a step that is skipped changes nothing")
{
  support::random r(9);
  std::vector<float> w(50, 0.5f), g(50, 0.25f);
  gradus::optimizer<gradus::lamb> opt;
  const auto h = opt.add("w", w, g);
  opt.step();
  const auto weights = w;
  const std::vector<float> m(opt.state("w", "exp_avg").begin(), opt.state("w", "exp_avg").end());
  g[7] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
  CHECK(w == weights);
  CHECK(std::vector<float>(opt.state("w", "exp_avg").begin(), opt.state("w", "exp_avg").end()) == m);
  CHECK(opt.step_count(h) == 1);
}

TEST_CASE("set_part: refused with sums over tensors")
{
  std::vector<float> w(5, 1), g(5, 1);
  gradus::optimizer<gradus::lamb> opt;
  const auto h = opt.add("w", w, g);
  CHECK_THROWS_WITH_AS(opt.set_part(h, "whole", 4096),
                       "gradus: tensor \"w\" is to be a part of a larger one; expected a whole tensor, because this "
                       "step size needs sums over all its elements",
                       std::invalid_argument);
}
