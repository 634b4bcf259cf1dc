// What the compiler's flags may change: rounding, and nothing else. Compiled once without such flags and once for each
// of them (CMakeLists.txt); `record FILE` writes what all recipes give, `compare FILE` holds another build against it.

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include <gradus/backend/default.hpp>
#include <gradus/kernel.hpp>
#include <gradus/recipes.hpp>

#include "support/sums.hpp"

namespace {

bool good = true;

void fail(const char* what, const char* recipe, double seen, double expected)
{
  std::printf("failed: %s %s: %.17g, expected %.17g\n", recipe, what, seen, expected);
  good = false;
}

// By bits: a compiler may take it for granted that there are no NaNs.
template <class T>
bool near(T seen, T expected, double tolerance)
{
  const double difference = double(seen) - double(expected),
               bound = tolerance * (1 + (expected < 0 ? -double(expected) : double(expected)));
  return gradus::is_finite(seen) && difference <= bound && -difference <= bound;
}

template <class Recipe>
Recipe tried()
{
  Recipe recipe;
  recipe.lr = 0.01;
  recipe.weight_decay = 0.07;
  if constexpr (requires { recipe.momentum; })
    recipe.momentum = 0.9;
  if constexpr (requires { recipe.partial; })
    recipe.partial = 0.3;
  return recipe;
}

constexpr std::size_t n = 77;

template <class T, class Recipe, class Backend>
std::vector<T> walk(Backend backend)
{
  const auto rule = tried<Recipe>().rule();
  constexpr std::size_t slots = decltype(rule)::slots;
  std::vector<T> w(n), g(n);
  std::array<std::vector<T>, slots> memory;
  std::array<std::span<T>, slots> state;
  for (std::size_t i = 0; i < n; ++i)
    w[i] = T(int(i % 13) - 6) / 4 + T(0.1);
  for (std::size_t i = 0; i < slots; ++i) {
    memory[i].assign(n, T(gradus::initial_value(rule, i)));
    state[i] = memory[i];
  }
  gradus::step_scalars k;
  for (int t = 1; t <= 20; ++t) {
    for (std::size_t i = 0; i < n; ++i)
      g[i] = T(int((i * 7 + std::size_t(t) * 5) % 23) - 11) / T(i % 3 == 0 ? 16 : i % 3 == 1 ? 4096 : 1 << 20);
    k = gradus::make_step_scalars(rule, std::uint64_t(t), 1, 0.01, k);
    bool fits;
    if constexpr (decltype(rule)::sums)
      fits = support::step_with_sums<T>(backend, rule, k, 1, w, g, state);
    else
      fits = gradus::update(backend, gradus::prepare<T>(rule, k), w, g, state);
    if (!fits)
      fail("lengths", "", 0, 0);
  }
  return w;
}

template <class T, class Recipe>
void walks(const char* recipe, std::FILE* file, bool record)
{
  const std::vector<T> scalar = walk<T, Recipe>(gradus::backend::scalar{}),
                       packed = walk<T, Recipe>(gradus::default_backend{});
  std::vector<T> expected = scalar;
  if (record ? std::fwrite(expected.data(), sizeof(T), n, file) != n
             : std::fread(expected.data(), sizeof(T), n, file) != n)
    fail("the file", recipe, 0, 0);
  for (const auto* w : {&scalar, &packed})
    for (std::size_t i = 0; i < n; ++i)
      if (!near((*w)[i], expected[i], sizeof(T) == 4 ? 2e-6 : 1e-12))
        return fail(w == &scalar ? "scalar" : "packed", recipe, double((*w)[i]), double(expected[i]));
}

// One weight of 1 under gradients of one size, by Padam, whose pow is made of differences that are zero to an
// algebraist.
template <class T>
void one_weight(double partial, double gradient, int steps, double expected, double tolerance)
{
  const auto rule = gradus::padam{.lr = 0.1, .partial = partial}.rule();
  const auto run = [&](auto backend) {
    std::vector<T> w(65, T(1)), g(65, T(gradient)), m(65), v(65), largest(65);
    for (int t = 1; t <= steps; ++t)
      if (!gradus::update(backend, gradus::prepare<T>(rule, gradus::make_step_scalars(rule, std::uint64_t(t), 1)), w, g,
                          {m, v, largest}))
        return fail("lengths", "padam", 0, 0);
    for (const T x : w)
      if (!near(x, T(expected), tolerance))
        return fail("by hand", "padam", double(x), expected);
  };
  run(gradus::backend::scalar{});
  run(gradus::default_backend{});
}

// A gradient whose square T cannot hold, and 1 − β₂ times it can: the first step is lr all the same.
template <class T, class Recipe>
void large_gradient(const char* recipe)
{
  constexpr auto rule = Recipe{.lr = 0.1}.rule();
  const auto run = [&](auto backend) {
    std::vector<T> w(65, T(1)), g(65, sizeof(T) == 4 ? T(3e19) : T(3e154)), m(65),
        v(65, T(gradus::initial_value(rule, 1))), largest(65);
    const auto formula = gradus::prepare<T>(rule, gradus::make_step_scalars(rule, 1, 1));
    bool fits;
    if constexpr (rule.slots == 2)
      fits = gradus::update(backend, formula, w, g, {m, v});
    else
      fits = gradus::update(backend, formula, w, g, {m, v, largest});
    if (!fits)
      return fail("lengths", recipe, 0, 0);
    for (std::size_t i = 0; i < w.size(); ++i)
      if (!near(w[i], T(0.9), 1e-6) || !gradus::is_finite(v[i]))
        return fail("a large gradient", recipe, double(w[i]), 0.9);
  };
  run(gradus::backend::scalar{});
  run(gradus::default_backend{});
}

// What is not finite is found by its bits, and does not touch what is beside it.
template <class T>
void not_finite()
{
  using bits = gradus::bits_of<T>;
  const bits exponent = sizeof(T) == 4 ? bits(0x7f800000u) : bits(0x7ff0000000000000u), sign = ~(~bits(0) >> 1);
  for (const bits b : {exponent, exponent | sign, exponent | 1, exponent | (exponent >> 1), exponent | sign | 5}) {
    std::vector<T> x(100, T(1));
    std::memcpy(&x[70], &b, sizeof b);
    if (gradus::detail::all_finite(x.data(), x.size()) || gradus::is_finite(x[70]) || !gradus::is_finite(x[71]))
      fail("is_finite", "", double(b), 0);
    if (gradus::is_nan(double(x[70])) != ((b & ~exponent & ~sign) != 0))
      fail("is_nan", "", double(b), 0);
  }
  const std::vector<T> thirds(10001, T(1) / 3);
  const double sum = gradus::sum(gradus::default_backend{}, std::span<const T>(thirds));
  if (!near(sum, 10001 * double(thirds[0]), 1e-12))
    fail("a sum", "", sum, 10001 * double(thirds[0]));
}

}  // namespace

int main(int argc, char** argv)
{
  if (argc != 3)
    return 2;
  const bool record = std::string_view(argv[1]) == "record";
  std::FILE* const file = std::fopen(argv[2], record ? "wb" : "rb");
  if (!file)
    return 2;
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    walks<float, Recipe>(name, file, record);
    walks<double, Recipe>(name, file, record);
  });
  std::fclose(file);
  one_weight<double>(0.45, 0.5, 3, 0.795785004534339635, 1e-12);
  one_weight<float>(0.3, 0.01, 1, 0.996019, 5e-7);
  one_weight<double>(0.3, 0.01, 1, 0.996019003828078873, 1e-12);
  const auto large_gradients = []<class T>(T) {
    large_gradient<T, gradus::adam>("adam");
    large_gradient<T, gradus::amsgrad>("amsgrad");
    large_gradient<T, gradus::yogi>("yogi");
  };
  large_gradients(float());
  large_gradients(double());
  not_finite<float>();
  not_finite<double>();
  return good ? 0 : 1;
}
