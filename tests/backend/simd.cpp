// The SIMD backend against the scalar one, to the bit: every width, rule, length and alignment, and the memory around.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/compositions.hpp"
#include "support/random.hpp"
#include "support/sums.hpp"

#if defined(GRADUS_HAS_SIMD)

namespace {

// n elements that start a number of elements after a cache line's start, between others that nobody may touch.
template <class T>
class guarded {
 public:
  guarded(std::size_t n, std::size_t offset) : memory_(n + offset + 2 * line, T(-1.25)), size_(n), offset_(offset) {}

  std::span<T> elements() { return {start() + offset_, size_}; }
  // The elements and all that is around them.
  std::vector<T> everything() { return {start(), start() + offset_ + size_ + line}; }

 private:
  static constexpr std::size_t line = 64 / sizeof(T);
  T* start()
  {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return memory_.data() + (64 - address % 64) % 64 / sizeof(T);
  }
  std::vector<T> memory_;
  std::size_t size_, offset_;
};

struct problem {
  std::size_t length = 0;
  std::uint64_t seed = 0;
  bool nonfinite = false;
};

// One rule on one backend: all that a test needs of the types, so that little is compiled for each.
template <class T>
struct runner {
  std::string name;
  std::size_t slots;
  std::array<double, 4> initial_values;
  std::function<bool(gradus::pass, std::uint64_t t, double lr_scale, std::span<T>, std::span<const T>,
                     const std::span<T>*)>
      step;
};

template <class T, class Backend, class Rule>
runner<T> make_runner(std::string name, const Backend& backend, const Rule& rule)
{
  runner<T> e{std::move(name), Rule::slots, {}, {}};
  for (std::size_t k = 0; k < Rule::slots; ++k)
    e.initial_values[k] = gradus::initial_value(rule, k);
  e.step = [backend, rule, before = gradus::step_scalars{},
            last = gradus::step_scalars{}](gradus::pass pass, std::uint64_t t, double lr_scale, std::span<T> weights,
                                           std::span<const T> gradients, const std::span<T>* slots) mutable {
    if (double(t) != last.t)
      before = last;
    gradus::step_scalars k = last = gradus::make_step_scalars(rule, t, lr_scale, 0, before);
    k.mean_square = 0.01;
    const auto formula = gradus::prepare<T>(rule, k, 0.7);
    std::array<std::span<T>, Rule::slots> state;
    for (std::size_t i = 0; i < Rule::slots; ++i)
      state[i] = slots[i];
    if constexpr (Rule::sums)  // takes its steps in two passes only
      return pass == gradus::pass::moments ||
             support::step_with_sums<T>(backend, rule, k, 0.7, weights, gradients, state);
    else if constexpr (gradus::takes_one_pass<decltype(rule.first_moment)>)  // takes its steps in one pass only
      return pass == gradus::pass::weights || gradus::update(backend, formula, weights, gradients, state);
    else
      return pass == gradus::pass::whole     ? gradus::update(backend, formula, weights, gradients, state)
             : pass == gradus::pass::moments ? gradus::update_moments(backend, formula, weights, gradients, state)
                                             : gradus::update_weights(backend, formula, weights, gradients, state);
  };
  return e;
}

// Weights, slots and what surrounds them, after five steps on gradients of every kind.
template <class T>
std::vector<T> run(const runner<T>& e, const problem& p, bool in_two_passes)
{
  support::random r(p.seed);
  const auto offset = [&] { return r.chance(0.2) ? 0 : 1 + r.below(15); };
  guarded<T> weights(p.length, offset()), gradients(p.length, offset());
  std::vector<guarded<T>> slots;
  for (std::size_t k = 0; k < e.slots; ++k)
    slots.emplace_back(p.length, offset());
  std::vector<std::span<T>> state;
  for (std::size_t k = 0; k < e.slots; ++k) {
    state.push_back(slots[k].elements());
    for (T& x : state[k])
      x = T(e.initial_values[k]);
  }
  for (T& x : weights.elements())
    x = support::awkward<T>(r);
  for (std::uint64_t t = 1; t <= 5; ++t) {
    const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    for (T& g : gradients.elements())
      g = p.nonfinite && r.chance(0.1) ? (r.chance(0.5)   ? nan
                                          : r.chance(0.5) ? infinity
                                                          : -infinity)
                                       : support::awkward<T>(r);
    // A schedule may end in 0: such a step subtracts zeros, whose signs show.
    const double lr_scale = t == 4 ? 0 : 1.0 / double(t);
    const auto step = [&](gradus::pass pass) {
      return e.step(pass, t, lr_scale, weights.elements(), gradients.elements(), state.data());
    };
    REQUIRE((in_two_passes ? step(gradus::pass::moments) && step(gradus::pass::weights) : step(gradus::pass::whole)));
  }
  std::vector<T> all = weights.everything();
  for (auto& s : slots) {
    const std::vector<T> more = s.everything();
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

std::vector<problem> problems()
{
  std::vector<problem> all;
  for (std::size_t n = 0; n <= 40; ++n)
    for (std::uint64_t draw = 0; draw < 4; ++draw)
      all.push_back({n, 4 * n + draw, draw == 3});
  for (const std::size_t n : {1000u, 4097u})
    all.push_back({n, n, false});
  all.push_back({1000, 1, true});
  return all;
}

}  // namespace

template <class T>
void compare(const std::vector<T>& expected, const runner<T>& e, const problem& p)
{
  for (const bool in_two_passes : {false, true}) {
    const std::ptrdiff_t at = support::first_difference(expected, run(e, p, in_two_passes));
    CHECK_MESSAGE(at == -1, e.name, std::string(in_two_passes ? " in two passes" : ""), ", length ", p.length,
                  ", seed ", p.seed, ": element ", at, " of weights, slots and guards");
  }
}

TEST_CASE_TEMPLATE("simd: every width gives the scalar backend's bits, in one pass or two, and writes nothing else", T,
                   float, double)
{
  support::for_each_composition([]<class Rule>(std::string_view rule_name, const Rule& rule) {
    const std::string name(rule_name);
    const auto scalar = make_runner<T>(name + " scalar", gradus::backend::scalar{}, rule);
    std::vector<runner<T>> others{scalar};
    support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* arch) {
      others.push_back(make_runner<T>(name + " " + arch, gradus::backend::basic_simd<Arch>{}, rule));
    });
    for (const problem& p : problems()) {
      const auto expected = run(scalar, p, false);
      for (const auto& e : others)
        compare(expected, e, p);
    }
  });
}

namespace {

constexpr gradus::backend::simd_tuning tuning{.update = {.bytes = 4096, .level = 2},
                                              .light_update = {.bytes = 512, .from = 1024}};
using tuned = gradus::backend::basic_simd<xsimd::default_arch, tuning>;

}  // namespace

TEST_CASE_TEMPLATE("basic_simd: a tuning changes no bits and accesses no other elements", T, float, double)
{
  support::for_each_composition([&]<class Rule>(std::string_view rule_name, const Rule& rule) {
    const std::string name(rule_name);
    const auto untuned = make_runner<T>(name, gradus::default_backend{}, rule);
    const auto e = make_runner<T>(name + " tuned", tuned{}, rule);
    for (const problem& p : {problem{0, 1}, problem{37, 2}, problem{1000, 3}, problem{4097, 4}})
      compare(run(untuned, p, false), e, p);
  });
}

TEST_CASE_TEMPLATE("simd: a NaN gradient changes only its own weight", T, float, double)
{
  support::for_each_composition([]<class Rule>(std::string_view rule_name, const Rule& rule) {
    const auto e = make_runner<T>(std::string(rule_name), gradus::default_backend{}, rule);
    constexpr std::size_t n = 37;
    std::vector<T> weights(n, T(0.5)), gradients(n, T(0.25)), memory(n * e.slots, T(0.125));
    std::vector<std::span<T>> state;
    for (std::size_t k = 0; k < e.slots; ++k)
      state.push_back(std::span(memory).subspan(n * k, n));
    for (const std::size_t spoilt : {0u, 17u, 31u, 36u})
      gradients[spoilt] = std::numeric_limits<T>::quiet_NaN();
    REQUIRE(e.step(gradus::pass::whole, 7, 1, weights, gradients, state.data()));
    for (std::size_t i = 0; i < n; ++i)
      CHECK_MESSAGE(std::isnan(weights[i]) == (std::isnan(gradients[i]) && rule_name != "lion"),  // NaN has the sign 0
                    e.name, ", element ", i);
  });
}

TEST_CASE("simd: this build compares all widths that its flags allow")
{
  int count = 0;
  support::for_each_architecture(support::widths{}, [&]<class Arch>(Arch, const char* name) {
    std::printf("%s: %zu floats\n", name, gradus::backend::pack<float, Arch>::size);
    ++count;
  });
  CHECK(count >= 1);
#if defined(__AVX512F__)
  CHECK(count == 3);
#elif defined(__AVX2__)
  CHECK(count == 2);
#endif
}

#endif
