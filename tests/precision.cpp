// Short number types: how they round, what their state loses and does not, and that threads and widths change no bit.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/own_rules.hpp"
#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision;
using gradus::detail::noise;

// The precisions that every test of whole steps runs over.
using bf16_state = precision<float, float, bfloat16>;
using block8_state = precision<float, float, block8>;
using bf16_master = precision<bfloat16, bfloat16, float, float>;
using bf16_alone = precision<bfloat16>;
using bf16_all = precision<bfloat16, bfloat16, bfloat16>;
using float16_master = precision<float16, float16, bfloat16, float>;
using float16_block8 = precision<float16, bfloat16, block8>;

template <class S>
S from_bits(unsigned bits)
{
  S s;
  s.bits = std::uint16_t(bits);
  return s;
}

// The value of a short number by its definition: sign, exponent, fraction.
template <class S>
double value(unsigned bits)
{
  constexpr int fraction = std::is_same_v<S, float16> ? 10 : 7, bias = std::is_same_v<S, float16> ? 15 : 127;
  const int exponent = int(bits & 0x7fff) >> fraction, part = int(bits) & ((1 << fraction) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 2 * bias + 1)
    return part ? NAN : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp((1 << fraction) + part, exponent - bias - fraction) : std::ldexp(part, 1 - bias - fraction));
}

}  // namespace

TEST_CASE_TEMPLATE("every 16-bit number is decoded to its value and encoded to itself", S, bfloat16, float16)
{
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const S s = from_bits<S>(bits);
    const double expected = value<S>(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(float(s)));
      REQUIRE(std::isnan(float(S(float(s)))));
      REQUIRE(std::isnan(float(S(float(s), 0xffff))));
      REQUIRE_FALSE(gradus::is_finite(s));
      continue;
    }
    REQUIRE(double(float(s)) == expected);
    REQUIRE(S(float(s)).bits == bits);
    REQUIRE(S(float(s), 0).bits == bits);
    REQUIRE(S(float(s), 0xffff).bits == bits);
    REQUIRE(gradus::is_finite(s) == std::isfinite(expected));
  }
}

TEST_CASE_TEMPLATE("between two 16-bit numbers, nearest and ties to even", S, bfloat16, float16)
{
  const unsigned infinite = std::is_same_v<S, float16> ? 0x7c00 : 0x7f80;
  for (unsigned bits = 0; bits + 1 < infinite; ++bits) {
    const double low = value<S>(bits), high = value<S>(bits + 1);
    const float middle = float((low + high) / 2);
    REQUIRE(double(middle) == (low + high) / 2);
    REQUIRE(S(middle).bits == (bits % 2 ? bits + 1 : bits));
    REQUIRE(S(std::nextafterf(middle, 0)).bits == bits);
    REQUIRE(S(std::nextafterf(middle, HUGE_VALF)).bits == bits + 1);
    REQUIRE(S(-middle).bits == S(middle).bits + 0x8000u);
  }
  CHECK(S(HUGE_VALF).bits == infinite);
  CHECK(S(3.4e38f).bits == infinite);
  CHECK(S(3.4e38f, 0xffff).bits == infinite);
}

TEST_CASE_TEMPLATE("stochastic rounding gives a neighbour, and on average the number itself", S, bfloat16, float16)
{
  support::random r(1);
  for (const float x : {1.0001f, -0.3f, 1e-5f, 3e-6f, -6.1e-5f, 1000.7f, float(r.uniform())}) {
    double mean = 0;
    bool neighbours = true;
    // Every value of the random bits once: the mean is exact to the last of them.
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const S s(x, bits);
      neighbours = neighbours && std::abs(int(s.bits) - int(S(x).bits)) <= 1;
      mean += double(float(s)) / 0x10000;
    }
    CHECK(neighbours);
    const double step = double(std::fabs(float(from_bits<S>(S(x).bits + 1u)) - float(S(x))));
    CHECK(std::fabs(mean - double(x)) <= step * 0x1p-13);
  }
}

TEST_CASE("random bits are even, and independent of the element before, the other array and the next step")
{
  constexpr std::size_t n = 1 << 18;
  const noise a(7, 0, 0), b(7, 1, 0), next(8, 0, 0);
  double mean = 0, square = 0, neighbour = 0, other = 0, later = 0;
  std::vector<int> low(256), high(256);
  const auto centred = [](std::uint32_t x) { return (double(x) - 32767.5) / 18918.6; };  // variance 1
  for (std::size_t i = 0; i < n; ++i) {
    const double x = centred(a(i));
    mean += x, square += x * x;
    neighbour += x * centred(a(i + 1));
    other += x * centred(b(i));
    later += x * centred(next(i));
    ++low[a(i) & 255], ++high[a(i) >> 8];
  }
  for (const double sum : {mean, neighbour, other, later})
    CHECK(std::fabs(sum / n) < 5 / std::sqrt(double(n)));
  CHECK(std::fabs(square / n - 1) < 0.01);
  for (const auto& counts : {low, high}) {
    double chi = 0;
    for (const int c : counts)
      chi += (c - n / 256.0) * (c - n / 256.0) / (n / 256.0);
    CHECK(chi < 400);  // 255 ± 23 are expected
  }
  CHECK(a.from(5)(3) == a(8));
  CHECK(noise(7, 0, 512)(1) == a(513));
  CHECK(noise(7, 0, std::size_t(1) << 32)(1) != a(1));
}

TEST_CASE("random bits are the element's, whichever element of its range they are counted from, past 2³² too")
{
  constexpr std::uint64_t range = std::uint64_t(1) << 32;
  const std::uint64_t most = ~std::uint64_t(0);
  for (const std::size_t array : {0u, 1u, 4u})
    for (const std::uint64_t start : {std::uint64_t(0), range, 3 * range, most - (range - 1)})
      for (const std::uint64_t begin : {std::uint64_t(0), std::uint64_t(1), std::uint64_t(4095), range / 2, range - 1})
        for (const std::uint64_t i : {std::uint64_t(0), std::uint64_t(1), std::uint64_t(17), range / 2 - 1, range - 1}) {
          if (begin + i >= range)
            continue;
          const std::uint32_t expected = noise(7, array, start + begin + i)(0);
          REQUIRE(noise(7, array, start + begin)(i) == expected);
          REQUIRE(noise(7, array, start + begin).from(i)(0) == expected);
          REQUIRE(noise(7, array, start).from(begin).from(i)(0) == expected);
          REQUIRE(noise(7, array, start).from(begin)(i) == expected);
        }
}

TEST_CASE("a loop is cut where a range of random bits ends, and nowhere else")
{
  constexpr std::uint64_t range = std::uint64_t(1) << 32;
  using parts = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  const auto cut = [](std::uint64_t begin, std::uint64_t end) {
    parts all;
    gradus::detail::for_noise_ranges(begin, end, [&](std::size_t first, std::size_t last) { all.emplace_back(first, last); });
    return all;
  };
  CHECK(cut(5, 5).empty());
  CHECK(cut(range, range).empty());
  CHECK(cut(0, 4096) == parts{{0, 4096}});
  CHECK(cut(0, range) == parts{{0, range}});
  CHECK(cut(range - 1, range + 1) == parts{{range - 1, range}, {range, range + 1}});
  CHECK(cut(7, 2 * range + 9) == parts{{7, range}, {range, 2 * range}, {2 * range, 2 * range + 9}});
  CHECK(cut(3 * range, 3 * range + 1) == parts{{3 * range, 3 * range + 1}});
}

TEST_CASE("the random bits of an element are those that runs so far have been rounded with")
{
  CHECK(noise(7, 0, 0)(0) == 49787);
  CHECK(noise(7, 1, 0)(1) == 60427);
  CHECK(noise(7, 2, 4096)(12345) == 1044);
  CHECK(noise(7, 3, 0).from(4'000'000'000)(1) == 1360);
}

namespace {

// What `write(first element, how many, where to)` leaves of 80 elements that begin 40 before a multiple of 2³²: in one
// piece, and in two that are cut anywhere.
template <class S, class Write>
void check_around_a_multiple(const Write& write)
{
  const auto bytes = [](const std::vector<S>& x) { return std::string(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(S)); };
  std::vector<S> singly(80);
  for (std::size_t i = 0; i < 80; ++i)
    write(i, 1, singly.data() + i);
  for (const std::size_t cut : {0u, 1u, 8u, 31u, 32u, 36u, 40u, 41u, 48u, 79u}) {
    std::vector<S> pieces(80);
    write(0, cut, pieces.data());
    write(cut, 80 - cut, pieces.data() + cut);
    CHECK(bytes(pieces) == bytes(singly));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("every width stores an element with the same random bits, across a multiple of 2³² too", S, bfloat16, float16)
{
  std::vector<float> x(80);
  support::random r(11);
  for (float& e : x)
    e = float(r.uniform(-1, 1));
  for (const std::uint64_t multiple : {std::uint64_t(1) << 32, std::uint64_t(3) << 32})
    for (const std::size_t array : {0u, 1u}) {
      const std::uint64_t begin = multiple - 40;
      std::vector<S> expected(80);
      for (std::size_t i = 0; i < 80; ++i)
        expected[i] = S(x[i], noise(7, array, begin + i)(0));
      const auto check = [&]<class V>(std::type_identity<V>, std::size_t size) {
        for (std::size_t from = 0; from + size <= 80; ++from) {
          std::vector<S> to(80), moved(85);
          if (from < 40 && from + size > 40)
            continue;  // half in one range and half in the next
          const std::size_t start = from < 40 ? 0 : 40;
          gradus::store(gradus::stochastic<S>{to.data() + start, noise(7, array, begin + start)}, from - start, gradus::load<V>(&x[from]));
          if (start == 0)
            gradus::store(gradus::stochastic<S>{moved.data(), noise(7, array, begin - 5)}.from(5), from, gradus::load<V>(&x[from]));
          for (std::size_t i = from; i < from + size; ++i) {
            REQUIRE(to[i].bits == expected[i].bits);
            REQUIRE((start != 0 || moved[i + 5].bits == expected[i].bits));
          }
        }
      };
      check(std::type_identity<float>{}, 1);
#if defined(GRADUS_HAS_SIMD)
      support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* name) {
        CAPTURE(name);
        using V = gradus::backend::pack<float, Arch>;
        check(std::type_identity<V>{}, V::size);
        // Whole sweeps: through the loop and its tail.
        const auto c = gradus::prepare<float>(gradus::sgd{}.rule(), gradus::step_scalars{.lr = 1e-3});
        check_around_a_multiple<S>([&](std::size_t i, std::size_t n, S* to) {
          for (std::size_t k = 0; k < n; ++k)
            to[k] = S(x[i + k]);
          const gradus::kernel<gradus::pass::whole, std::remove_const_t<decltype(c)>> move{c};
          float buffer[80] = {};
          gradus::detail::for_noise_ranges(begin + i, begin + i + n, [&](std::size_t first, std::size_t last) {
            const std::size_t at = first - begin;
            float* slots[] = {buffer + at, nullptr};
            const gradus::stochastic<S> weights{to + (at - i), noise(7, array, first)};
            gradus::backend::basic_simd<Arch>{}.sweep(move, weights, x.data() + at, slots, last - first);
          });
        });
      });
#endif
    }
}

TEST_CASE("8-bit codes: the largest is exact, the rest within the map's steps, and right on average")
{
  support::random r(3);
  std::vector<float> x(1000), y(1000);
  for (float& v : x)
    v = float(r.magnitude(1e-9, 1)) * (r.chance(0.5) ? 1.0f : -1.0f);
  x[100] = 0, x[600] = -3, x[999] = 2;
  std::vector<std::uint8_t> codes(1000);
  std::vector<float> scales(4);
  std::vector<double> mean(1000);
  // A decade below the largest by 10⁻ᵏ has 64/2ᵏ values, in steps of 9/64·2ᵏ of its lower end.
  const auto step = [&](std::size_t i) {
    const double scale = double(scales[i / 256]), share = double(std::fabs(x[i])) / scale;
    const double decade = share < 1e-7 ? 1e-7 : std::pow(10, std::floor(std::log10(share)));
    return (share < 1e-7 ? 1.2e-7 : decade * 9 / 64 * std::pow(2, -std::log10(decade) - 1) * 1.1) * scale;
  };
  constexpr int rounds = 2000;
  for (int k = 0; k < rounds; ++k) {
    gradus::encode<true>(x.data(), codes.data(), scales.data(), 1000, noise(std::uint64_t(k), 0, 0));
    gradus::decode<true>(codes.data(), scales.data(), y.data(), 1000);
    REQUIRE(y[600] == -3.0f);
    REQUIRE(y[999] == 2.0f);
    REQUIRE(y[100] == 0.0f);
    for (std::size_t i = 0; i < 1000; ++i) {
      mean[i] += double(y[i]) / rounds;
      REQUIRE(std::fabs(double(y[i] - x[i])) <= step(i));
    }
  }
  for (std::size_t i = 0; i < 1000; ++i)
    CHECK(std::fabs(mean[i] - double(x[i])) <= step(i) * 5 / 2 / std::sqrt(double(rounds)));
}

TEST_CASE("8-bit codes at the edges: nothing nonnegative becomes zero, NaN and infinity are kept, tiny blocks vanish")
{
  std::vector<float> x(512, 1e-20f), y(512);
  x[0] = 1, x[1] = 0;
  std::vector<std::uint8_t> codes(512);
  std::vector<float> scales(2);
  const auto round_trip = [&] {
    gradus::encode<false>(x.data(), codes.data(), scales.data(), 512, noise(1, 2, 0));
    gradus::decode<false>(codes.data(), scales.data(), y.data(), 512);
  };
  round_trip();
  CHECK(y[0] == 1.0f);
  CHECK(y[1] == 0.0f);
  CHECK(y[2] > 0.0f);
  CHECK(y[300] == 1e-20f);
  x[0] = HUGE_VALF;
  round_trip();
  CHECK(std::isinf(y[0]));
  CHECK(y[300] == 1e-20f);
  x[3] = NAN;
  round_trip();
  CHECK(std::isnan(y[3]));
  CHECK(std::isnan(y[0]));
  x.assign(512, 1e-39f);
  round_trip();
  CHECK(y[5] == 0.0f);
}

namespace {

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
  const auto put = [&]<class X>(std::span<X> x) { all.append(reinterpret_cast<const char*>(x.data()), x.size_bytes()); };
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

#define PRECISIONS bf16_state, block8_state, bf16_master, bf16_alone, bf16_all, float16_master, float16_block8

TEST_CASE_TEMPLATE("the same bits on every backend and width, in any order of pieces; others from another seed", T, PRECISIONS)
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

TEST_CASE_TEMPLATE("every recipe moves as in float, but for the noise of rounding", T, bf16_all, block8_state, float16_master)
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
    h.lr = 1e-2;
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

namespace {

// Minimises Σ (k+1)·(w_k − 1)² from 0: how far from 1 the weights are in the end.
template <class T, class Rule>
double distance_of_minimum(const Rule& rule)
{
  constexpr std::size_t n = 37;
  std::vector<float> w(n, 0.0f), g(n);
  gradus::optimizer<Rule, T> opt(rule);
  opt.add(w, g);
  for (int step = 0; step < 1000; ++step) {
    for (std::size_t k = 0; k < n; ++k)
      g[k] = 2 * float(k + 1) * (w[k] - 1);
    opt.step({.lr_scale = 1 - step / 1000.0});
  }
  double far = 0;
  for (const float x : w)
    far = std::fmax(far, std::fabs(double(x) - 1));
  return far;
}

}  // namespace

TEST_CASE("a second moment of one's own keeps its zeros from dividing in 8 bits")
{
  const auto rule = gradus::compose(0.02, gradus::first_moment::ema{}, own::belief{}, gradus::step_size::adaptive{}, gradus::decay::none{});
  CHECK(distance_of_minimum<float>(rule) < 0.01);
  CHECK(distance_of_minimum<block8_state>(rule) < 0.3);
  CHECK(distance_of_minimum<bf16_state>(rule) < 0.3);
}

TEST_CASE_TEMPLATE("a slot of one's own starts from the rule's value in short state, too", T, bf16_state, block8_state)
{
  const auto rule = gradus::compose(0.5, own::blended{.inner = {.beta1 = 0.5, .initial_accumulator = 0.25}}, gradus::second_moment::none{},
                                    gradus::step_size::constant{}, gradus::decay::none{});
  std::vector<float> w(300, 1.0f), g(300, 0.0f);
  gradus::optimizer<std::remove_const_t<decltype(rule)>, T> opt(rule);
  opt.add(w, g);
  opt.step();
  for (const float x : w)
    REQUIRE(x == doctest::Approx(1 - 0.5 * 0.5 * 0.25).epsilon(1e-3));
}

TEST_CASE_TEMPLATE("steps far below the stored numbers' own are not lost", T, PRECISIONS)
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

TEST_CASE_TEMPLATE("a second moment that moves by a thousandth a step arrives where it should", T, PRECISIONS)
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
    }
    else if constexpr (std::is_same_v<X, std::uint8_t>)
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

TEST_CASE_TEMPLATE("a scheduled decay sees the mean of the moment that starts from the stored one", T, bf16_state, block8_state)
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

TEST_CASE_TEMPLATE("a run restored through visit_state, its seed included, goes on with the same bits", T, PRECISIONS)
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
    kept[std::string(name) + "/" + std::string(key)] = std::string(reinterpret_cast<const char*>(x.data()), x.size_bytes());
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

TEST_CASE("master weights follow the parameters when told, and are what steps move")
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

TEST_CASE_TEMPLATE("a gradient that is not finite is found, and the step skipped", T, PRECISIONS)
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

TEST_CASE("the bytes of state")
{
  const auto bytes = []<class T>(std::type_identity<T>) {
    std::vector<parameter_of<T>> w(1000);
    std::vector<gradient_of<T>> g(1000);
    gradus::optimizer<gradus::adam, T> opt;
    opt.add(w, g);
    return opt.state_bytes();
  };
  CHECK(bytes(std::type_identity<float>{}) == 8000);
  CHECK(bytes(std::type_identity<bf16_state>{}) == 4000);
  CHECK(bytes(std::type_identity<block8_state>{}) == 2 * (1000 + 4 * 4));
  CHECK(bytes(std::type_identity<bf16_master>{}) == 12000);
  CHECK(bytes(std::type_identity<bf16_all>{}) == 4000);
}

TEST_CASE_TEMPLATE("any_optimizer has the precisions too", T, block8_state, bf16_master)
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

TEST_CASE_TEMPLATE("a decay too small for 1 - s in float is not lost from master weights", T, bf16_master, float16_master)
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

TEST_CASE_TEMPLATE("a gradient whose square overflows leaves its block's moments finite", T, block8_state, bf16_state)
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
