// The path that an optimizer takes over a GPU's memory, on Thrust's host systems: the bits are the scalar backend's.
// That whole suites run over it is support/thrust_under_test.hpp's matter.

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <tuple>
#include <vector>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/compositions.hpp"
#include "support/random.hpp"

extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

namespace {

using device = gradus::backend::thrust_device<>;
using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision;

template <class T>
T number(double x)
{
  if constexpr (gradus::real<T>)
    return T(x);
  else
    return T(float(x));
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b)
{
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Some steps of several tensors: one that begins anywhere but at a whole pack, an empty one, one longer than a block,
// one in a group of its own, one added late. Gradients that are not finite, clipping, a moving lr. All weights at the
// end, and the state's bytes.
template <class T, class Backend, class Rule>
std::vector<unsigned char> train(const Rule& rule)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  constexpr std::size_t sizes[] = {1001, 0, 3, 9001, 64};
  constexpr std::size_t tensors = std::size(sizes);
  std::vector<std::vector<P>> weights;
  std::vector<std::vector<G>> gradients;
  support::random r(7);
  for (const std::size_t n : sizes) {
    weights.emplace_back();
    for (std::size_t i = 0; i < n + 1; ++i)
      weights.back().push_back(number<P>(r.uniform(-1, 1)));
    gradients.emplace_back(n + 1, number<G>(0));
  }
  gradus::optimizer<Rule, T, Backend> opt(rule);
  Rule other = rule;
  other.lr /= 2;
  const auto group = opt.add_group(other);
  const auto part = [&](std::size_t k) {
    const std::size_t skipped = k == 0 ? 1 : 0;  // of the first tensor, weights and gradients are not aligned
    return std::pair(std::span<P>(weights[k].data() + skipped, sizes[k]),
                     std::span<const G>(gradients[k].data() + skipped, sizes[k]));
  };
  gradus::tensor_handle handles[tensors];
  const auto add = [&](std::size_t k) {
    handles[k] = opt.add("w" + std::to_string(k), part(k).first, part(k).second,
                         k == 2 ? group : gradus::group_handle{});
  };
  for (std::size_t k = 0; k + 1 < tensors; ++k)
    add(k);
  std::vector<unsigned char> all;
  const auto append = [&](const void* p, std::size_t n) {
    const auto* const bytes = static_cast<const unsigned char*>(p);
    all.insert(all.end(), bytes, bytes + n);
  };
  const auto append_report = [&](const gradus::step_report& report) {
    for (const double x : {double(report.applied), report.grad_norm.value_or(-1), report.mean_square.value_or(-1),
                           report.decay_factor.value_or(-1), double(report.decay_clamped)})
      append(&x, sizeof x);
  };
  for (int t = 1; t <= 8; ++t) {
    for (auto& g : gradients)
      for (G& x : g)
        x = number<G>(r.uniform(-1, 1));
    if (t == 3)
      add(tensors - 1);
    if (t == 4)
      gradients[3][5000] = number<G>(std::numeric_limits<double>::quiet_NaN());
    if (t == 5)
      opt.freeze(handles[2]);
    if (t == 7)
      opt.unfreeze(handles[2]);
    if constexpr (requires { opt.set_seed(1); })
      if (t == 6)
        opt.set_seed(42);
    gradus::step_options o{.lr_scale = t < 6 ? 1 : 0.5, .grad_scale = 0.75, .skip_nonfinite = t == 4};
    if (t % 2)
      o.max_grad_norm = t == 5 ? 1e9 : 2;
    const auto report = opt.step(o);
    CHECK(report.applied == (t != 4));
    append_report(report);
  }
  CHECK(opt.step_count(handles[0]) == 7);
  CHECK(opt.step_count(handles[2]) == 5);
  for (const auto& w : weights)
    append(w.data(), w.size() * sizeof(P));
  std::as_const(opt).visit_state([&](std::string_view, std::string_view, auto values) {
    if (!values.empty())
      append(values.data(), values.size_bytes());
  });
  return all;
}

template <class T, class Rule>
bool same_as_scalar(const Rule& rule)
{
  return same(train<T, gradus::backend::scalar>(rule), train<T, device>(rule));
}

}  // namespace

TEST_CASE("thrust_device: every optimizer has the bits of the scalar backend")
{
  support::for_each_composition([](std::string_view name, const auto& rule) {
    CHECK_MESSAGE(same_as_scalar<float>(rule), name);
  });
}

TEST_CASE("thrust_device: double, 16-bit and 8-bit precisions have the bits of the scalar backend")
{
  const auto adams = gradus::adams{.lr = 0.01, .weight_decay = 0.1}.rule();
  CHECK(same_as_scalar<double>(adams));
  CHECK(same_as_scalar<precision<float, float, bfloat16>>(adams));
  CHECK(same_as_scalar<precision<bfloat16>>(adams));
  CHECK(same_as_scalar<precision<float16, float16, float, float>>(adams));
  using gradus::remainder16;
  CHECK(same_as_scalar<precision<bfloat16, bfloat16, float, remainder16>>(adams));
  CHECK(same_as_scalar<precision<bfloat16, float, block8, remainder16>>(gradus::amsgrad{.lr = 0.01}.rule()));
  CHECK(same(train<precision<bfloat16, bfloat16, float, float>, device>(adams),
             train<precision<bfloat16, bfloat16, float, remainder16>, device>(adams)));
  CHECK(same_as_scalar<precision<bfloat16, bfloat16, bfloat16>>(gradus::sgd{.lr = 0.01, .momentum = 0.9}.rule()));
  CHECK(same_as_scalar<precision<float, float, block8>>(adams));
  CHECK(same_as_scalar<precision<bfloat16, bfloat16, block8, float>>(gradus::amsgrad{.lr = 0.01}.rule()));
  CHECK(same_as_scalar<precision<bfloat16, bfloat16, block8>>(gradus::sgd{.lr = 0.01, .momentum = 0.9}.rule()));
  CHECK(same_as_scalar<precision<float, float, block8>>(gradus::sgd{.lr = 0.01}.rule()));
  CHECK(same_as_scalar<double>(gradus::nadam{.lr = 0.01}.rule()));
  CHECK(same_as_scalar<precision<float, float, bfloat16>>(gradus::adan{.lr = 0.01}.rule()));
  const auto every_precision = [](const auto& rule) {
    CHECK(same_as_scalar<double>(rule));
    CHECK(same_as_scalar<precision<bfloat16, bfloat16, bfloat16>>(rule));
    CHECK(same_as_scalar<precision<bfloat16, bfloat16, block8, float>>(rule));
    CHECK(same_as_scalar<precision<bfloat16, bfloat16, float, remainder16>>(rule));
  };
  every_precision(gradus::lamb{.lr = 0.01}.rule());
  every_precision(gradus::cautious_adamw{.lr = 0.01}.rule());
  every_precision(gradus::adai{.lr = 0.01}.rule());
  for (const bool centered : {false, true}) {
    CHECK(same_as_scalar<precision<float, float, block8>>(gradus::rmsprop{.lr = 0.01, .centered = centered}.rule()));
    CHECK(same_as_scalar<precision<float, float, block8>>(
        gradus::compose(0.01, gradus::first_moment::normalized_momentum{.momentum = 0.5},
                        gradus::second_moment::ema_about_mean{.centered = centered}, gradus::step_size::constant{},
                        gradus::decay::scheduled{.weight_decay = 0.1})));
  }
}

namespace {

bool same_report(const gradus::step_report& a, const gradus::step_report& b)
{
  return a.applied == b.applied && a.grad_norm == b.grad_norm && a.mean_square == b.mean_square &&
         a.decay_factor == b.decay_factor && a.decay_clamped == b.decay_clamped;
}

// Runs the same on a device and on the scalar backend: f(optimizer, gradients), which returns the last step's report.
template <class F>
void check_same_as_scalar(const gradus::adams& hyperparameters, const F& f)
{
  const auto run = [&]<class Backend>(Backend) {
    std::vector<float> weights(9001, 1), gradients(9001, 0.5);
    gradus::optimizer<gradus::adams, float, Backend> opt(hyperparameters);
    const gradus::step_report report = f(opt, weights, gradients);
    std::vector<double> state;
    std::as_const(opt).visit_state([&](std::string_view, std::string_view, auto values) {
      for (const auto& x : values)
        state.push_back(double(x));
    });
    return std::tuple(weights, state, report);
  };
  const auto [weights, state, report] = run(device());
  const auto [expected_weights, expected_state, expected_report] = run(gradus::backend::scalar());
  CHECK(same(weights, expected_weights));
  CHECK(same(state, expected_state));
  CHECK(same_report(report, expected_report));
}

}  // namespace

TEST_CASE("step: applied and reported with norm 0 if no tensor takes part")
{
  check_same_as_scalar({.weight_decay = 0.1}, [](auto& opt, auto& weights, auto& gradients) {
    opt.add(weights, gradients);
    gradients[0] = std::numeric_limits<float>::infinity();
    CHECK(!opt.step({.skip_nonfinite = true}).applied);
    opt.visit_tensors([](std::string_view, auto, std::size_t, bool& takes_part) { takes_part = false; });
    const auto report = opt.step({.skip_nonfinite = true});
    CHECK(report.applied);
    CHECK(report.grad_norm == 0);
    return report;
  });
}

TEST_CASE("grad_norm_sq: sums of second moments are the scalar backend's, also for NaN and infinity")
{
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const double norm_sq : {1.0, nan, infinity})
    for (const bool finite : {true, false})
      check_same_as_scalar({.weight_decay = 0.1}, [&](auto& opt, auto& weights, auto& gradients) {
        opt.add(std::span(weights).first(4500), std::span(gradients).first(4500));
        opt.add(std::span(weights).subspan(4500), std::span(gradients).subspan(4500));
        opt.step();
        gradients[5000] = finite ? 0.25f : float(infinity);
        opt.step({.grad_norm_sq = norm_sq, .skip_nonfinite = true});
        gradients[5000] = 0.125f;
        return opt.step();
      });
  // And taken apart again: by the moments themselves, where a tensor leaves or comes.
  check_same_as_scalar({.weight_decay = 0.1}, [&](auto& opt, auto& weights, auto& gradients) {
    opt.add(std::span(weights).first(4500), std::span(gradients).first(4500));
    const auto second = opt.add(std::span(weights).subspan(4500), std::span(gradients).subspan(4500));
    opt.step({.grad_norm_sq = 2.0});
    opt.freeze(second);
    opt.step({.grad_norm_sq = 1.0});
    opt.unfreeze(second);
    return opt.step();
  });
  check_same_as_scalar({.weight_decay = 0.1}, [&](auto& opt, auto& weights, auto& gradients) {
    opt.add(std::span(weights).first(0), std::span(gradients).first(0));
    return opt.step({.grad_norm_sq = 0.0});
  });
}

namespace {

// Steps with those options on a device and on the scalar backend: the same reports, weights and state. f(gradients, t)
// fills in the gradients of step t, the options say how it is taken.
template <class T, class Recipe, class F>
void check_steps_same_as_scalar(const Recipe& recipe, const std::vector<gradus::step_options>& steps, const F& fill,
                                double weight = 1)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  const auto run = [&]<class Backend>(Backend) {
    std::vector<P> weights(9001, number<P>(1));
    weights[8000] = number<P>(weight);
    std::vector<G> gradients(9001, number<G>(0.5));
    gradus::optimizer<Recipe, T, Backend> opt(recipe);
    opt.add(std::span(weights).first(4500), std::span(gradients).first(4500));
    opt.add(std::span(weights).subspan(4500), std::span(gradients).subspan(4500));
    std::vector<double> seen;
    int t = 0;
    for (const auto& o : steps) {
      fill(gradients, t++);
      const auto r = opt.step(o);
      for (const double x : {double(r.applied), r.grad_norm.value_or(-1), r.mean_square.value_or(-1),
                             r.decay_factor.value_or(-1), double(r.decay_clamped)})
        seen.push_back(x);
    }
    std::vector<unsigned char> state(reinterpret_cast<const unsigned char*>(weights.data()),
                                     reinterpret_cast<const unsigned char*>(weights.data() + weights.size()));
    std::as_const(opt).visit_state([&](std::string_view, std::string_view, auto values) {
      if (!values.empty())
        state.insert(state.end(), reinterpret_cast<const unsigned char*>(values.data()),
                     reinterpret_cast<const unsigned char*>(values.data() + values.size()));
    });
    return std::pair(seen, state);
  };
  const auto [seen, state] = run(device());
  const auto [expected, expected_state] = run(gradus::backend::scalar());
  CHECK(seen == expected);
  CHECK(same(state, expected_state));
}

}  // namespace

TEST_CASE("max_grad_norm: a norm whose square overflows or underflows is the scalar backend's")
{
  for (const double size : {1e200, 1e-200, 1.5e308, 1e-320}) {
    const auto fill = [&](auto& g, int t) {
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = t == 1 ? 0.25 : size * (i % 7 < 3 ? 1 : -0.5);
    };
    for (const double scale : {1.0, size > 1 ? 1e-200 : 1e200})
      for (const bool skips : {false, true}) {
        const gradus::step_options o{.grad_scale = scale, .max_grad_norm = 3e3, .skip_nonfinite = skips};
        check_steps_same_as_scalar<double>(gradus::sgd{.lr = 0.1, .momentum = 0.9}, {o, o, o}, fill);
        check_steps_same_as_scalar<double>(gradus::adams{.lr = 0.1, .weight_decay = 0.1}, {o, o, o}, fill);
      }
  }
  // And one that is infinite, of infinite gradients.
  const auto fill = [](auto& g, int t) {
    g[7] = t == 1 ? 1e200 : 0.5, g[8999] = t == 1 ? std::numeric_limits<double>::infinity() : 0.5;
  };
  const gradus::step_options o{.max_grad_norm = 1, .skip_nonfinite = true};
  check_steps_same_as_scalar<double>(gradus::adams{}, {o, o, o}, fill);
}

TEST_CASE("skip_nonfinite: skips a finite gradient that overflows, as the scalar backend does")
{
  const auto check = [](auto type, const auto& recipe, double gradient, gradus::step_options o = {},
                        double weight = 1) {
    using T = typename decltype(type)::type;
    const auto fill = [&](auto& g, int t) {
      g[8000] = number<std::remove_cvref_t<decltype(g[0])>>(t == 1 ? gradient : 0.5);
    };
    o.skip_nonfinite = true;
    check_steps_same_as_scalar<T>(recipe, {o, o, o}, fill, weight);
  };
  using std::type_identity;
  for (const double g : {1.5e19, 1e21, -1e21, 1e30}) {
    check(type_identity<float>(), gradus::adam{}, g);
    check(type_identity<float>(), gradus::adams{.weight_decay = 0.1}, g);
    check(type_identity<float>(), gradus::yogi{}, g);
    check(type_identity<float>(), gradus::adamw{}, g / 1e3, {.grad_scale = 1e3});
    check(type_identity<float>(), gradus::adamw{}, g, {.max_grad_norm = 1e18});
    check(type_identity<float>(), gradus::sgd{.lr = 1e9}, g);
    check(type_identity<precision<float, float, block8>>(), gradus::adam{}, g);
    check(type_identity<precision<float, float, bfloat16>>(), gradus::amsgrad{}, g);
    check(type_identity<precision<bfloat16, bfloat16, float, float>>(), gradus::adams{}, g);
  }
  check(type_identity<double>(), gradus::adams{}, 1e157);
  check(type_identity<float>(), gradus::sgd{.momentum = 0.9}, 1e38, {.grad_scale = 10});
  for (const double w : {1e18, 1e23, 1e38}) {
    check(type_identity<float>(), gradus::adam{.weight_decay = 0.1}, 0.5, {}, w);
    check(type_identity<float>(), gradus::sgd{.weight_decay = 10}, 0.5, {}, w);
    check(type_identity<float>(), gradus::radam{.weight_decay = 0.1, .decoupled_weight_decay = true}, 0.5, {}, w);
  }
  // With a norm that is given, by which a sum would have been shared.
  for (const double norm_sq : {1e44, 1.0})
    check(type_identity<float>(), gradus::adams{.weight_decay = 0.1}, 1e21, {.grad_norm_sq = norm_sq});
}

TEST_CASE("max_grad_norm: a step is skipped if the type cannot hold the clip factor")
{
  std::vector<float> weights(9, 1), gradients(9, 1e30f);
  gradus::optimizer<gradus::sgd, float, device> opt;
  opt.add(weights, gradients);
  const auto report = opt.step({.max_grad_norm = 1e-9});
  CHECK(!report.applied);
  CHECK(*report.grad_norm == doctest::Approx(3e30));
  CHECK(weights[0] == 1);
}

TEST_CASE("mean_square, model_size: as on the scalar backend")
{
  const auto fill = [](auto& g, int t) {
    for (std::size_t i = 0; i < g.size(); ++i)
      g[i] = number<std::remove_cvref_t<decltype(g[0])>>(0.01 * double(i % 19) + 0.1 * t);
  };
  const gradus::adams recipe{.lr = 0.01, .weight_decay = 0.1};
  const gradus::step_options plain, mean{.mean_square = 2}, mean_clipped{.max_grad_norm = 1, .mean_square = 3};
  const gradus::step_options norm{.grad_norm_sq = 50}, norm_and_mean{.grad_norm_sq = 50, .mean_square = 4};
  const gradus::step_options part{.grad_norm_sq = 50, .model_size = 20'000};
  const gradus::step_options part_and_mean{.grad_norm_sq = 60, .mean_square = 4, .model_size = 20'000};
  check_steps_same_as_scalar<float>(recipe, {mean, mean, plain, plain}, fill);
  check_steps_same_as_scalar<float>(recipe, {plain, mean, mean}, fill);
  check_steps_same_as_scalar<float>(recipe, {plain, mean_clipped, plain, mean, mean_clipped, plain}, fill);
  check_steps_same_as_scalar<float>(recipe, {norm, mean, norm, norm_and_mean, norm, plain}, fill);
  check_steps_same_as_scalar<double>(recipe, {part, part, part_and_mean, part, plain, norm}, fill);
  check_steps_same_as_scalar<float>(recipe, {part, part, mean, plain}, fill);
  check_steps_same_as_scalar<precision<float, float, bfloat16>>(recipe, {plain, mean, mean_clipped, plain}, fill);
  // A step that is skipped leaves Σv alone.
  const auto spoilt = [&](auto& g, int t) {
    fill(g, t);
    if (t % 2 == 1)
      g[5000] = number<std::remove_cvref_t<decltype(g[0])>>(t == 1 ? std::numeric_limits<float>::infinity() : 1e25f);
  };
  auto skipping = [](gradus::step_options o) {
    o.skip_nonfinite = true;
    return o;
  };
  const double infinity = std::numeric_limits<double>::infinity();
  check_steps_same_as_scalar<float>(recipe, {plain, skipping(mean), plain, skipping(norm_and_mean), plain}, spoilt);
  check_steps_same_as_scalar<float>(
      recipe, {norm, skipping({.grad_norm_sq = infinity}), norm, skipping({.grad_norm_sq = 1e50}), norm}, spoilt);
  check_steps_same_as_scalar<float>(recipe, {part, skipping({.grad_norm_sq = 1e50}), part, skipping(mean), part},
                                    spoilt);
  const auto two_passes = gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                          gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
  check_steps_same_as_scalar<float>(two_passes, {plain, mean, mean_clipped, plain}, fill);
}

TEST_CASE("mean_square: sums that it makes unknown are recomputed even after a step that clipping skips")
{
  std::vector<float> weights(9, 1), gradients(9, 0.5f);
  gradus::optimizer<gradus::adams, float, device> opt;
  opt.add(weights, gradients);
  opt.step({.mean_square = 2});
  gradients.assign(9, 1e30f);
  CHECK(!opt.step({.max_grad_norm = 1e-9}).applied);
  gradients.assign(9, 0.5f);
  CHECK(gradus::is_finite(*opt.step().mean_square));
}

TEST_CASE("decay_clamped: reported for one group of several")
{
  for (const double steep : {1e4, 0.1})
    check_same_as_scalar({.weight_decay = 0.1}, [&](auto& opt, auto& weights, auto& gradients) {
      gradus::adams h = opt.hyperparameters();
      h.weight_decay = steep;
      const auto group = opt.add_group(h);
      opt.add(std::span(weights).first(4500), std::span(gradients).first(4500));
      opt.add(std::span(weights).subspan(4500), std::span(gradients).subspan(4500), group);
      const auto report = opt.step();
      CHECK(report.decay_clamped == (steep > 1));
      return report;
    });
}

TEST_CASE("sums: many tensors, and tensors of many pages")
{
  // More tensors than a block has sums, and a tensor of more than a block of blocks.
  for (const std::size_t tensors : {std::size_t(5000), std::size_t(1)}) {
    const std::size_t length = tensors == 1 ? 4096 * 4096 + 5001 : 3;
    std::vector<float> gradients(tensors * length), weights(gradients.size());
    support::random r(3);
    for (float& g : gradients)
      g = float(r.uniform(-1, 1));
    auto twin_weights = weights;
    gradus::optimizer<gradus::adams, float, device> opt;
    gradus::optimizer<gradus::adams, float> twin;
    for (std::size_t k = 0; k < tensors; ++k) {
      opt.add(std::span(weights.data() + k * length, length),
              std::span<const float>(gradients.data() + k * length, length));
      twin.add(std::span(twin_weights.data() + k * length, length),
               std::span<const float>(gradients.data() + k * length, length));
    }
    for (int t = 0; t < 2; ++t) {
      const auto report = opt.step(), expected = twin.step();
      CHECK(report.grad_norm == expected.grad_norm);
      CHECK(report.mean_square == expected.mean_square);
    }
    CHECK(same(weights, twin_weights));
  }
}

// ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// The caller's memory pool, which counts and can run dry.
struct pool {
  std::size_t allocations = 0, bytes = 0, left = std::numeric_limits<std::size_t>::max();
};
struct pool_allocator : thrust::device_malloc_allocator<unsigned char> {
  using base = thrust::device_malloc_allocator<unsigned char>;
  pool* of = nullptr;

  base::pointer allocate(std::size_t n)
  {
    if (of->left == 0)
      throw std::bad_alloc();
    --of->left;
    ++of->allocations;
    of->bytes += n;
    return base::allocate(n);
  }
  void deallocate(base::pointer p, std::size_t n)
  {
    of->bytes -= n;
    base::deallocate(p, n);
  }
};
using pooled = gradus::backend::thrust_device<std::remove_cv_t<decltype(thrust::device)>, pool_allocator>;

pooled backend_of(pool& p)
{
  pool_allocator a;
  a.of = &p;
  return pooled(thrust::device, a);
}

}  // namespace

TEST_CASE("allocator: state comes from it, and steps allocate nothing")
{
  pool p;
  {
    gradus::optimizer<gradus::adams, float, pooled> opt({}, backend_of(p));
    thrust::device_vector<float> weights(10'000, 1), gradients(10'000, 0.5);
    opt.add(weights, gradients);
    CHECK(p.bytes >= opt.state_bytes());
    const std::size_t before = p.allocations;
    for (int t = 0; t < 3; ++t)
      opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
    CHECK(p.allocations == before);
  }
  CHECK(p.bytes == 0);
}

TEST_CASE("allocator: a failed allocation changes nothing")
{
  bool complete = false;
  for (std::size_t left = 0; !complete; ++left) {
    pool p;
    gradus::optimizer<gradus::adams, float, pooled> opt({}, backend_of(p));
    std::vector<float> weights(5000, 1), gradients(5000, 0.5), twin_weights = weights;
    opt.add("first", weights, gradients);
    opt.step();
    p.left = left;
    std::vector<float> more(70'000, 1), more_gradients(70'000, 0.25);
    try {
      opt.add("second", more, more_gradients);
      complete = true;
    } catch (const std::bad_alloc&) {
      CHECK(opt.parameter_count() == 5000);
      p.left = 100;
      opt.step();
      gradus::optimizer<gradus::adams> twin;
      twin.add(twin_weights, gradients);
      twin.step();
      twin.step();
      CHECK(same(weights, twin_weights));
    }
    CHECK(left < 100);
  }
}

namespace {

// The caller's pool may be difficult: not default-constructible; its addresses aligned only to bytes, as it is asked
// for bytes; and it throws when memory is handed back.
struct stubborn_allocator : thrust::device_malloc_allocator<unsigned char> {
  using base = thrust::device_malloc_allocator<unsigned char>;
  std::size_t off;

  explicit stubborn_allocator(std::size_t o) : off(o) {}
  base::pointer allocate(std::size_t n) { return base::allocate(n + off) + std::ptrdiff_t(off); }
  void deallocate(base::pointer p, std::size_t n)
  {
    base::deallocate(p - std::ptrdiff_t(off), n + off);
    throw std::runtime_error("the device is gone");
  }
};
// A policy that cannot be assigned, as those that refer to an allocator.
struct fixed_policy : std::remove_cv_t<decltype(thrust::device)> {
  const int number = 1;
};

}  // namespace

TEST_CASE("allocator, policy: need only be copyable; addresses must be multiples of 16")
{
  using backend = gradus::backend::thrust_device<fixed_policy, stubborn_allocator>;
  std::vector<float> weights(5000, 1), gradients(5000, 0.5), twin_weights = weights;
  {
    gradus::optimizer<gradus::adams, float, backend> opt({}, backend(fixed_policy(), stubborn_allocator(0)));
    opt.add(weights, gradients);
    opt.step();
  }
  gradus::optimizer<gradus::adams> twin;
  twin.add(twin_weights, gradients);
  twin.step();
  CHECK(same(weights, twin_weights));

  gradus::optimizer<gradus::adams, float, backend> opt({}, backend(fixed_policy(), stubborn_allocator(4)));
  CHECK_THROWS_WITH_AS(
      opt.add(weights, gradients),
      "gradus: allocator returned an address that is 4 more than a multiple of 16; expected a multiple of 16",
      std::invalid_argument);
  CHECK(opt.parameter_count() == 0);
}

// ── graphs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// Keeps what is launched while it is captured, instead of running it. Counts bytes that are copied.
struct stream {
  std::vector<std::function<void()>> graph;
  bool capturing = false;
  std::size_t copied = 0;
};
struct recording : gradus::backend::thrust_device<> {
  template <class Parts>
  using engine_type = gradus::detail::device_step<Parts, recording>;
  stream* on = nullptr;

  template <class F>
  void launch(std::size_t n, const F& f) const
  {
    if (on->capturing)
      on->graph.push_back([n, f] { device().launch(n, f); });
    else
      device::launch(n, f);
  }
  template <class Work>
  void launch_warps(std::size_t n, const Work& work) const
  {
    if (on->capturing)
      on->graph.push_back([n, work] { device().launch_warps(n, work); });
    else
      device::launch_warps(n, work);
  }
  void copy(void* to, const void* from, std::size_t bytes) const
  {
    on->copied += bytes;
    device::copy(to, from, bytes);
  }
  static constexpr bool synchronous = false;
};

}  // namespace

TEST_CASE("graph: a replay increments t and takes lr from set_options")
{
  stream s;
  recording backend;
  backend.on = &s;
  std::vector<float> weights(9001, 1), gradients(9001), twin_weights = weights;
  gradus::optimizer<gradus::adams, float, recording> opt({.weight_decay = 0.1}, backend);
  gradus::optimizer<gradus::adams> twin({.weight_decay = 0.1});
  const auto tensor = opt.add("w", weights, gradients);
  twin.add("w", twin_weights, gradients);
  const auto move = [&](int t) {
    for (std::size_t i = 0; i < gradients.size(); ++i)
      gradients[i] = float((i * std::size_t(t)) % 31) * 0.1f - 1;
  };
  move(1);
  CHECK(!opt.step({.max_grad_norm = 5}).grad_norm);  // nothing is known on return
  twin.step({.max_grad_norm = 5});
  s.capturing = true;
  opt.step({.max_grad_norm = 5});
  s.capturing = false;
  CHECK(same(weights, twin_weights));
  for (int t = 2; t <= 6; ++t) {
    move(t);
    const double lr_scale = 1.0 / t;
    opt.set_options({.lr_scale = lr_scale, .max_grad_norm = 5});
    for (const auto& launch : s.graph)
      launch();
    const auto expected = twin.step({.lr_scale = lr_scale, .max_grad_norm = 5});
    CHECK(opt.report().grad_norm == expected.grad_norm);
    CHECK(opt.report().mean_square == expected.mean_square);
    CHECK(same(weights, twin_weights));
  }
  CHECK(opt.step_count(tensor) == 6);
  // What was captured without a norm reports none.
  gradus::optimizer<gradus::adamw, float, recording> plain({}, backend);
  std::vector<float> others(100, 1);
  plain.add(others, std::span<const float>(gradients).first(100));
  plain.step();
  s.graph.clear();
  s.capturing = true;
  plain.step();
  s.capturing = false;
  plain.set_options({.max_grad_norm = 1});
  for (const auto& launch : s.graph)
    launch();
  CHECK(!plain.report().grad_norm);
  // A step that is not replayed follows on.
  opt.step();
  twin.step();
  CHECK(same(weights, twin_weights));
}

TEST_CASE("graph: a replay takes lr, decay_scale and maximize from set_options")
{
  stream s;
  recording backend;
  backend.on = &s;
  std::vector<float> weights(9001, 1), gradients(9001, 0.5f), twin_weights = weights;
  gradus::optimizer<gradus::adams, float, recording> opt({.weight_decay = 0.1}, backend);
  gradus::optimizer<gradus::adams> twin({.weight_decay = 0.1});
  const auto slow = opt.add_group({.weight_decay = 0.1}, {.lr_scale = 0.25}),
             slow_twin = twin.add_group({.weight_decay = 0.1}, {.lr_scale = 0.25});
  opt.add("w", weights, gradients, slow);
  twin.add("w", twin_weights, gradients, slow_twin);
  opt.step();
  twin.step();
  s.capturing = true;
  opt.step();
  s.capturing = false;
  for (const gradus::step_options& o : {gradus::step_options{.lr = 0.5},
                                        {.decay_scale = 0.125},
                                        {.maximize = true},
                                        {.lr_scale = 0.5},
                                        {.lr = 0.01, .decay_scale = 2, .maximize = true},
                                        {}}) {
    opt.set_options(o);
    for (const auto& launch : s.graph)
      launch();
    const auto expected = twin.step(o);
    CHECK(opt.report().decay_factor == expected.decay_factor);
    CHECK(same(weights, twin_weights));
  }
}

TEST_CASE("graph: a replay takes skip_nonfinite and mean_square from set_options")
{
  for (const bool captured : {false, true}) {
    stream s;
    recording backend;
    backend.on = &s;
    std::vector<float> weights(900, 1), gradients(900, 0.5f), twin_weights = weights;
    gradus::optimizer<gradus::adams, float, recording> opt({.weight_decay = 0.1}, backend);
    gradus::optimizer<gradus::adams> twin({.weight_decay = 0.1});
    const auto tensor = opt.add("w", weights, gradients);
    twin.add("w", twin_weights, gradients);
    opt.step({.skip_nonfinite = captured});
    twin.step();
    s.capturing = true;
    opt.step({.skip_nonfinite = captured});
    s.capturing = false;
    std::uint64_t steps = 1;
    for (const bool skips : {true, false, true})
      for (const float bad : {0.5f, std::numeric_limits<float>::infinity(), 1e25f, 0.25f}) {
        // A step captured without it is not tried on its elements.
        if ((!skips && bad > 1) || (!captured && bad == 1e25f))
          continue;
        gradients[800] = bad;
        gradus::step_options o{.skip_nonfinite = skips};
        if (bad < 0.5f)
          o.mean_square = 2;
        opt.set_options(o);
        for (const auto& launch : s.graph)
          launch();
        if (bad < 0.5f)
          o.max_grad_norm = std::numeric_limits<double>::infinity();  // so that the norm is computed, as captured
        const auto expected = twin.step(o);
        CHECK(opt.report().applied == expected.applied);
        CHECK(opt.report().mean_square == expected.mean_square);
        CHECK(same(weights, twin_weights));
        steps += expected.applied;
      }
    CHECK(opt.step_count(tensor) == steps);
  }
}

namespace {

// The launches of a captured step, after one with the same options.
template <class T, class Recipe>
std::size_t launches_of(const Recipe& recipe, const gradus::step_options& o,
                        const std::vector<gradus::step_options>& before = {})
{
  stream s;
  recording backend;
  backend.on = &s;
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  std::vector<P> weights(9001, number<P>(1));
  std::vector<G> gradients(9001, number<G>(0.5));
  gradus::optimizer<Recipe, T, recording> opt(recipe, backend);
  opt.add(std::span(weights).first(4500), std::span(gradients).first(4500));
  opt.add(std::span(weights).subspan(4500), std::span(gradients).subspan(4500));
  for (const auto& b : before)
    opt.step(b);
  opt.step(o);
  s.capturing = true;
  opt.step(o);
  s.capturing = false;
  return s.graph.size();
}

}  // namespace

TEST_CASE("step: two launches, three with skip_nonfinite or if a recipe looks at the moments first")
{
  const gradus::step_options plain, clipped{.max_grad_norm = 1}, given{.max_grad_norm = 1, .grad_norm_sq = 4},
      mean{.mean_square = 2}, skipping{.skip_nonfinite = true},
      skipping_clipped{.max_grad_norm = 1, .skip_nonfinite = true},
      skipping_given{.grad_norm_sq = 4, .skip_nonfinite = true},
      skipping_mean{.skip_nonfinite = true, .mean_square = 2};
  gradus::for_each_recipe([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    using rule = decltype(Recipe().rule());
    for (const auto& o : {plain, clipped, given, mean}) {
      const bool looks_at_moments = rule::sums || (rule::scheduled && !rule::scheduled_in_one_pass && !o.mean_square);
      CHECK_MESSAGE(launches_of<float>(Recipe(), o) == (looks_at_moments ? 3 : 2), name);
    }
    for (const auto& o : {skipping, skipping_clipped, skipping_given, skipping_mean})
      CHECK_MESSAGE(launches_of<float>(Recipe(), o) == 3, name);
  });
  for (const auto& o : {plain, clipped}) {
    CHECK(launches_of<double>(gradus::adamw(), o) == 2);
    CHECK(launches_of<precision<bfloat16, bfloat16, float, float>>(gradus::adams(), o) == 2);
    CHECK(launches_of<precision<float, float, block8>>(gradus::adamw(), o) == 2);
  }
}

TEST_CASE("step: three launches if v̄ needs the moments")
{
  const gradus::step_options plain, clipped{.max_grad_norm = 1}, mean{.mean_square = 2},
      skipping{.skip_nonfinite = true}, part{.grad_norm_sq = 4, .model_size = 20'000};
  for (const auto& o : {plain, clipped, skipping}) {
    CHECK(launches_of<double>(gradus::adams(), o) == 3);  // squares may overflow
    CHECK(launches_of<precision<float, float, bfloat16>>(gradus::adams(), o) == 3);
    CHECK(launches_of<precision<float, float, block8>>(gradus::adams(), o) == 3);
    CHECK(launches_of<float>(gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                             gradus::step_size::adaptive{}, gradus::decay::scheduled{}),
                             o) == 3);
  }
  CHECK(launches_of<precision<float, float, bfloat16>>(gradus::adams(), mean) == 2);
  CHECK(launches_of<double>(gradus::adams(), mean) == 2);
  // The step before has recomputed the sums that were unknown, so that the captured one need not.
  CHECK(launches_of<float>(gradus::adams(), plain, {mean}) == 2);
  CHECK(launches_of<float>(gradus::adams(), plain, {part}) == 2);
  CHECK(launches_of<float>(gradus::adams(), part) == 2);
}

TEST_CASE("report: copies only the board")
{
  stream s;
  recording backend;
  backend.on = &s;
  std::vector<float> weights(9001, 1), gradients(9001, 0.5f);
  gradus::optimizer<gradus::adams, float, recording> opt({}, backend);
  opt.add(weights, gradients);
  opt.step({.max_grad_norm = 1});
  s.copied = 0;
  CHECK(opt.report().applied);
  CHECK(s.copied == sizeof(gradus::detail::device_board));
  CHECK(s.copied <= 256);
}
