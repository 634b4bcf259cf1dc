// Padding: elements that stay 0 and do not count. Masks of trained elements.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/backend/scalar.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/refusal.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::number, support::refusal, support::save, support::scheduled, support::tensor;

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
  const auto P_of = [&](double x) { return number<P>(x); };
  const auto G_of = [&](double x) { return number<G>(x); };
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
        // Adamax's norm is at least eps, and Adai's inertia less than 1.
        zeros = zeros && (!is_padding(i) || values[i] == 0 || key == "exp_inf" || key == "exp_avg_weight");
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
    using rule = decltype(recipe.rule());
    const bool by_mean = rule::scheduled || rule::sums;  // the sums have other terms side by side
    CHECK_MESSAGE(padded_difference<float>(recipe, name) <= (by_mean ? 1e-6 : 0), name);
  });
  CHECK(padded_difference<double>(gradus::adamw{}, "in double") == 0);
  CHECK(padded_difference<double>(gradus::adams{}, "scheduled, in double") <= 1e-14);
  CHECK(padded_difference<double>(gradus::lamb{}, "with sums, in double") <= 1e-14);
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

#if defined(GRADUS_TEST_THRUST_DEVICE)

TEST_CASE("trained_mask: is refused on a device")
{
  tensor<float> a(8, 1);
  gradus::optimizer<gradus::adams> opt(scheduled);
  CHECK(refusal([&] { opt.add("a", a.weights, a.gradients, gradus::trained_mask(std::vector<bool>(8, true))); }) ==
        "gradus: the mask of tensor \"a\" is given; expected none on a device: set the gradients of the other elements "
        "to 0, or choose a CPU backend");
  CHECK(opt.parameter_count() == 0);
}

#else

namespace {

// Masks of n elements: scattered, whole stages of a sweep, rows of a matrix, one element, all but one, none.
constexpr std::size_t masked_size = 5003;
using mask_function = bool (*)(std::size_t);
constexpr mask_function masks[] = {[](std::size_t i) { return i % 3 != 0; },
                                   [](std::size_t i) { return i / 512 % 3 == 1; },
                                   [](std::size_t i) { return i / 100 % 2 == 0; },
                                   [](std::size_t i) { return i == 4999; },
                                   [](std::size_t i) { return i != 600; },
                                   [](std::size_t) { return false; }};

template <class X>
bool same_bits(const X& a, const X& b)
{
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// A tensor with a mask, whose other elements have weights and gradients that are no numbers, beside one whose other
// elements are padding: the trained elements and the report have the same bits, and the others do not change.
template <class T, class Recipe, class Backend = gradus::default_backend>
void check_mask(const Recipe& recipe, mask_function is_trained, const gradus::step_options& o, Backend backend = {})
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  std::vector<P> w(masked_size), twin_w, other(7, number<P>(0.5)), other_too = other;
  std::vector<G> g(masked_size), twin_g(masked_size), other_g(7, number<G>(0.25));
  support::random r(9);
  for (std::size_t i = 0; i < masked_size; ++i)
    w[i] = number<P>(r.uniform(-1, 1));
  twin_w = w;
  for (std::size_t i = 0; i < masked_size; ++i)
    if (!is_trained(i)) {
      w[i] = number<P>(i % 2 ? NAN : 1.5);
      twin_w[i] = number<P>(0);
    }
  const std::vector<P> start = w;
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  gradus::optimizer<Recipe, T, gradus::default_backend> twin(recipe);
  opt.add("masked", w, g, gradus::trained_mask(is_trained));
  opt.add(other, other_g);
  const auto h = twin.add("masked", twin_w, twin_g);
  twin.add(other_too, other_g);
  twin.set_padding(h, [&](std::size_t i) { return !is_trained(i); });
  const auto state = [](const auto& of) {
    auto c = support::save(of);
    c.erase("masked/trained");
    return c;
  };
  const auto before = state(opt);
  for (int t = 0; t < 4; ++t) {
    for (std::size_t i = 0; i < masked_size; ++i) {
      twin_g[i] = number<G>(is_trained(i) ? r.uniform(-0.1, 0.1) : 0);
      g[i] = is_trained(i) ? twin_g[i] : number<G>(i % 2 ? NAN : INFINITY);
    }
    opt.step(o);
    twin.step(o);
    const gradus::step_report report = opt.report(), expected = twin.report();
    REQUIRE(report.applied);
    CHECK(report.grad_norm == expected.grad_norm);
    CHECK(report.mean_square == expected.mean_square);
  }
  bool trained = true, kept = true;
  for (std::size_t i = 0; i < masked_size; ++i)
    if (is_trained(i))
      trained = trained && same_bits(w[i], twin_w[i]);
    else
      kept = kept && same_bits(w[i], start[i]);
  CHECK(trained);
  CHECK(kept);
  // Arrays of state with one number for each element.
  const auto after = state(opt), of_twin = state(twin);
  CHECK(after.size() == before.size());
  for (const auto& entry : after) {
    const std::string &key = entry.first, &bytes = entry.second;
    if (!key.starts_with("masked/"))
      continue;
    const std::size_t size = bytes.size() / masked_size;
    bool right = size > 0 || bytes == of_twin.at(key);
    for (std::size_t i = 0; size > 0 && i < masked_size; ++i)
      right = right && std::memcmp(bytes.data() + i * size,
                                   (is_trained(i) ? of_twin : before).at(key).data() + i * size, size) == 0;
    CHECK_MESSAGE(right, key);
  }
}

}  // namespace

TEST_CASE("trained_mask: the trained elements move as if the others were padding, which keep their bits")
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    CAPTURE(name);
    Recipe recipe;
    recipe.weight_decay = 0.1;
    if constexpr (requires { recipe.momentum; })
      recipe.momentum = 0.9;
    check_mask<float>(recipe, masks[0], {});
    check_mask<float>(recipe, masks[1], {.grad_scale = 0.5, .max_grad_norm = 0.75, .skip_nonfinite = true});
  });
  for (const mask_function mask : masks) {
    check_mask<float>(support::scheduled, mask, {.grad_scale = 0.5, .max_grad_norm = 0.75, .skip_nonfinite = true});
    check_mask<double>(support::scheduled, mask, {.skip_nonfinite = true});
    check_mask<double>(gradus::sgd{.momentum = 0.9}, mask, {.max_grad_norm = 0.01});
    // A given norm that overflowed: the finite gradients are those that are trained.
    check_mask<float>(gradus::adamw{}, mask, {.grad_norm_sq = INFINITY, .skip_nonfinite = true});
  }
}

TEST_CASE("trained_mask: with a decay that needs two passes, and with state that is stored rounded")
{
  using namespace gradus;
  const auto yogis = compose(1e-3, first_moment::ema{}, second_moment::yogi{}, step_size::adaptive{},
                             decay::scheduled{0.1});
  for (const mask_function mask : masks) {
    check_mask<float>(yogis, mask, {.max_grad_norm = 1.0});
    check_mask<double>(yogis, mask, {});
    check_mask<precision<bfloat16, bfloat16, float, float>>(yogis, mask, {.skip_nonfinite = true});
    check_mask<precision<bfloat16, bfloat16, bfloat16, remainder16>>(adamw{}, mask, {.max_grad_norm = 1.0});
    check_mask<precision<bfloat16, float, bfloat16>>(support::scheduled, mask, {.skip_nonfinite = true});
    check_mask<precision<bfloat16, bfloat16, bfloat16, remainder16>>(lamb{}, mask, {.max_grad_norm = 1.0});
    check_mask<precision<bfloat16, bfloat16, float, float>>(cautious_adamw{}, mask, {});
    check_mask<precision<float, float16, bfloat16>>(sgd{.momentum = 0.9}, mask, {.max_grad_norm = 0.5});
  }
}

TEST_CASE("trained_mask: several threads, each with a part of the tensor")
{
  namespace backend = gradus::backend;
  const backend::parallel threads(backend::scalar{}, gradus::executor::thread_pool(3), {.from = 0, .piece = 1});
  for (const mask_function mask : masks) {
    check_mask<float>(support::scheduled, mask, {.max_grad_norm = 1.0, .skip_nonfinite = true}, threads);
    check_mask<float>(gradus::yogi{}, mask, {}, threads);
    check_mask<float>(gradus::lamb{}, mask, {}, threads);
  }
}

TEST_CASE("trained_mask: is copied, saved and restored; a tensor that comes back keeps it or gets another")
{
  std::vector<unsigned char> mask{0, 1, 1, 0, 7};
  tensor<float> a(5, 1), b(3, 2);
  const auto start = a.weights;
  gradus::optimizer<gradus::adams> opt(scheduled), resumed(scheduled);
  const auto h = opt.add("a", a.weights, a.gradients, gradus::trained_mask(mask));
  opt.add("b", b.weights, b.gradients);
  mask.assign(5, 1);
  opt.step();
  opt.step();
  CHECK(a.weights[0] == start[0]);
  CHECK(a.weights[3] == start[3]);
  CHECK(a.weights[4] != start[4]);
  CHECK(opt.parameter_count() == 8);

  // Restored with the state, also over another mask.
  tensor<float> a2 = a, b2 = b;
  resumed.add("a", a2.weights, a2.gradients, gradus::trained_mask([](std::size_t i) { return i == 0; }));
  resumed.add("b", b2.weights, b2.gradients);
  const auto saved = support::save(opt);
  CHECK((saved.at("a/trained") == std::string("\0\1\1\0\1", 5)));
  support::restore(resumed, saved);
  CHECK((support::save(resumed) == saved));
  opt.step();
  resumed.step();
  CHECK(opt.report().mean_square == resumed.report().mean_square);
  CHECK(a.weights == a2.weights);
  CHECK(b.weights == b2.weights);

  // Kept with the state, or replaced; v̄ counts the elements that are trained now.
  const auto mean = [&](auto is_trained) {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < 5; ++i)
      if (is_trained(i)) {
        sum += double(opt.state("a", "exp_avg_sq")[i]);
        ++count;
      }
    for (const float v : opt.state("b", "exp_avg_sq"))
      sum += double(v);
    return sum / (count + 3);
  };
  opt.remove(h, gradus::removed_state::kept);
  const auto again = opt.add("a", a.weights, a.gradients);
  opt.step();
  const auto old_mask = [](std::size_t i) { return i == 1 || i == 2 || i == 4; };
  CHECK(*opt.report().mean_square == doctest::Approx(mean(old_mask) / (1 - std::pow(0.99, 4))).epsilon(1e-6));
  opt.remove(again, gradus::removed_state::kept);
  const auto new_mask = [](std::size_t i) { return i < 2; };
  opt.add("a", a.weights, a.gradients, gradus::trained_mask(new_mask));
  const auto last = a.weights;
  opt.step();
  CHECK(*opt.report().mean_square == doctest::Approx(mean(new_mask) / (1 - std::pow(0.99, 5))).epsilon(1e-6));
  CHECK(a.weights[0] != last[0]);
  CHECK(a.weights[4] == last[4]);
}

TEST_CASE("trained_mask: of another size, with 8-bit state and with padding is refused")
{
  tensor<float> a(8, 1), b(8, 2);
  gradus::optimizer<gradus::adams> opt(scheduled);
  const std::vector<bool> seven(7, true), eight(8, true);
  CHECK(refusal([&] { opt.add("a", a.weights, a.gradients, gradus::trained_mask(seven)); }) ==
        "gradus: size of the mask of tensor \"a\" is 7; expected 8, the size of its parameters");
  CHECK(opt.parameter_count() == 0);
  const auto h = opt.add("a", a.weights, a.gradients, opt.group_at(0), gradus::trained_mask(eight));
  CHECK(refusal([&] { opt.set_padding(h, is_padding); }) ==
        "gradus: tensor \"a\" has a mask of trained elements; expected none with set_padding: let the mask leave out "
        "padding");
  opt.add(b.weights, b.gradients, gradus::trained_mask(eight));
  CHECK(opt.parameter_count() == 16);

  gradus::optimizer<gradus::adamw, gradus::precision<float, float, gradus::block8>> codes;
  CHECK(
      refusal([&] { codes.add(a.weights, a.gradients, codes.group_at(0), gradus::trained_mask(eight)); }) ==
      "gradus: the mask of tensor \"tensor0\" is given; expected none with 8-bit state, because a block is encoded as "
      "a whole; choose a precision with another state");
  CHECK(codes.parameter_count() == 0);
  static_assert(!std::is_convertible_v<std::vector<bool>, gradus::trained_mask>);
}

#endif
