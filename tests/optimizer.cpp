// What an optimizer does over any number of tensors: membership, groups, options of a step, state. That the formulas are
// right is golden.cpp's matter; here one optimizer is mostly held against another, to the bit, or a textbook loop.

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

namespace {

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b)
{
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Weights and gradients of one tensor. The gradient depends on the weights, so that an error does not wash out.
template <class T>
struct tensor {
  std::vector<T> weights, gradients, slope;

  tensor(std::size_t n, std::uint64_t seed) : gradients(n)
  {
    support::random r(seed);
    for (std::size_t i = 0; i < n; ++i) {
      weights.push_back(T(r.uniform(-1, 1)));
      slope.push_back(T(r.uniform(0.1, 2)));
    }
    compute(0);
  }
  void compute(int t)
  {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = T(double(slope[i]) * double(weights[i]) + 0.3 * std::sin(double(i) + 0.7 * t));
  }
};

// Two tensors with sizes that leave a tail, and one longer than a block of the sums.
template <class T>
std::vector<tensor<T>> tensors(std::vector<std::size_t> sizes = {5, 4133, 40})
{
  std::vector<tensor<T>> all;
  for (const std::size_t n : sizes)
    all.emplace_back(n, all.size() + 1);
  return all;
}

template <class T>
bool same(const std::vector<tensor<T>>& a, const std::vector<tensor<T>>& b)
{
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i)
    all = same(a[i].weights, b[i].weights);
  return all;
}

// All that visit_state shows, as bytes under "name/key".
using checkpoint = std::map<std::string, std::string>;

template <class Optimizer>
checkpoint save(const Optimizer& opt)
{
  checkpoint c;
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    static_assert(std::is_const_v<typename decltype(values)::element_type>);
    std::string& bytes = c[std::string(name) + '/' + std::string(key)];
    CHECK(bytes.empty());  // no key twice
    if (!values.empty())
      bytes.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  });
  return c;
}

template <class Optimizer>
void restore(Optimizer& opt, const checkpoint& c)
{
  std::size_t used = 0;
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    const std::string& bytes = c.at(std::string(name) + '/' + std::string(key));
    REQUIRE(bytes.size() == values.size_bytes());
    if (!values.empty())
      std::memcpy(values.data(), bytes.data(), bytes.size());
    ++used;
  });
  CHECK(used == c.size());
}

gradus::adams scheduled{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.02};

template <class T>
constexpr T not_finite[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                            -std::numeric_limits<T>::infinity()};

}  // namespace

// ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────

static_assert(!std::is_copy_constructible_v<gradus::optimizer<gradus::adam>>);
static_assert(!std::is_copy_assignable_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_nothrow_move_constructible_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_nothrow_move_assignable_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_default_constructible_v<gradus::optimizer<gradus::adam>>);
// A recipe is not silently an optimizer.
static_assert(!std::is_convertible_v<gradus::adam, gradus::optimizer<gradus::adam>>);

TEST_CASE("the defaults of the template are float and the default backend")
{
  using opt = gradus::optimizer<gradus::adam>;
  static_assert(std::is_same_v<opt::value_type, float> && std::is_same_v<opt::backend_type, gradus::default_backend>);
  static_assert(std::is_same_v<opt::recipe_type, gradus::adam>);
  gradus::optimizer deduced(gradus::adam{});
  static_assert(std::is_same_v<decltype(deduced), opt>);
}

TEST_CASE("contiguous ranges of every kind are viewed, never copied")
{
  tensor<float> a(4, 1);
  gradus::optimizer<gradus::adam> reference({.lr = 0.1});
  const std::vector<float> start = a.weights;
  reference.add(a.weights, a.gradients);
  reference.step();
  const auto check = [&](auto& weights, auto&& gradients) {
    gradus::optimizer<gradus::adam> opt({.lr = 0.1});
    opt.add(weights, gradients);
    CHECK(opt.parameter_count() == 4);
    opt.step();
    CHECK(std::memcmp(std::data(weights), a.weights.data(), 4 * sizeof(float)) == 0);
  };
  std::vector<float> vector = start;
  check(vector, std::as_const(a.gradients));
  std::array<float, 4> array{start[0], start[1], start[2], start[3]};
  const std::array<float, 4> const_array{a.gradients[0], a.gradients[1], a.gradients[2], a.gradients[3]};
  check(array, const_array);
  float c_array[] = {start[0], start[1], start[2], start[3]};
  const float const_c_array[] = {a.gradients[0], a.gradients[1], a.gradients[2], a.gradients[3]};
  check(c_array, const_c_array);
  std::vector<float> memory = start;
  std::span<float> span(memory);
  check(span, std::span<const float>(a.gradients));  // a temporary view of memory that stays is welcome
  memory = start;
  std::span<float, 4> fixed(memory);
  check(fixed, std::span<float>(a.gradients));
}

TEST_CASE("names: a tensor's own, or one by its place")
{
  tensor<float> a(3, 1), b(2, 2), c(1, 3);
  gradus::optimizer<gradus::adam> opt;
  const auto group = opt.add_group({.lr = 1});
  opt.add("layer1.weight", a.weights, a.gradients);
  opt.add("layer1.bias", b.weights, b.gradients, group);
  opt.add(c.weights, c.gradients);
  opt.step();
  CHECK(opt.state("layer1.weight", "exp_avg").size() == 3);
  CHECK(std::as_const(opt).state("layer1.bias", "exp_avg_sq").size() == 2);
  CHECK(opt.state("tensor2", "exp_avg").size() == 1);
  CHECK(opt.state("tensor2", "exp_avg")[0] == 0.1f * c.gradients[0]);
}

TEST_CASE("groups: each with hyperparameters of its own")
{
  auto model = tensors<float>();
  auto alone = tensors<float>();
  gradus::optimizer<gradus::adamw> opt({.lr = 0.1, .weight_decay = 0.5});
  auto h = opt.hyperparameters();
  CHECK(h.lr == 0.1);
  h.weight_decay = 0;
  const auto undecayed = opt.add_group(h);
  h.lr = 0.025;
  const auto slow = opt.add_group(h);
  CHECK(opt.hyperparameters().weight_decay == 0.5);
  CHECK(opt.hyperparameters(undecayed).weight_decay == 0);
  CHECK(opt.hyperparameters(undecayed).lr == 0.1);
  CHECK(opt.hyperparameters(slow).lr == 0.025);
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, undecayed);
  opt.add("slow", model[2].weights, model[2].gradients, slow);

  // Without a decay AdamW is Adam, to the bit; and each tensor moves as if alone.
  gradus::optimizer<gradus::adamw> first({.lr = 0.1, .weight_decay = 0.5});
  gradus::optimizer<gradus::adam> second({.lr = 0.1}), third({.lr = 0.025});
  first.add(alone[0].weights, alone[0].gradients);
  second.add(alone[1].weights, alone[1].gradients);
  third.add(alone[2].weights, alone[2].gradients);
  for (int t = 0; t < 10; ++t) {
    for (auto* m : {&model, &alone})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    first.step();
    second.step();
    third.step();
  }
  CHECK(same(model, alone));
}

TEST_CASE("a tensor added late has its own bias correction")
{
  // RAdam is the strictest: its steps before and after the sixth are of two kinds.
  tensor<float> early(37, 1), late(21, 2), alone(21, 2);
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9}), fresh({.lr = 0.01, .beta2 = 0.9});
  const auto first = opt.add(early.weights, early.gradients);
  for (int t = 0; t < 4; ++t)
    opt.step();
  const auto second = opt.add(late.weights, late.gradients);
  fresh.add(alone.weights, alone.gradients);
  for (int t = 0; t < 12; ++t) {
    late.compute(t);
    alone.compute(t);
    opt.step();
    fresh.step();
    CHECK(same(late.weights, alone.weights));
  }
  CHECK(opt.step_count(first) == 16);
  CHECK(opt.step_count(second) == 12);
}

TEST_CASE("a tensor left out stands still, its step count too")
{
  auto model = tensors<float>();
  tensor<float> alone(4133, 2);
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9}), sole({.lr = 0.01, .beta2 = 0.9});
  std::vector<gradus::tensor_handle> handles;
  for (auto& x : model)
    handles.push_back(opt.add(x.weights, x.gradients));
  sole.add(alone.weights, alone.gradients);
  int taken = 0;
  for (int t = 0; t < 20; ++t) {
    const bool out = t % 5 == 1 || (t > 6 && t < 10);
    for (auto& x : model)
      x.compute(t);
    out ? opt.freeze(handles[1]) : opt.unfreeze(handles[1]);
    if (out)
      opt.freeze(handles[1]);  // again, without effect
    const auto weights = model[1].weights;
    const auto before = save(opt);
    opt.step();
    CHECK(opt.step_count(handles[0]) == std::uint64_t(t + 1));
    if (out) {
      CHECK(same(model[1].weights, weights));
      auto after = save(opt);
      for (const char* key : {"tensor1/exp_avg", "tensor1/exp_avg_sq", "tensor1/step"})
        CHECK((after.at(key) == before.at(key)));
      continue;
    }
    ++taken;
    alone.compute(t);
    sole.step();
    CHECK(same(model[1].weights, alone.weights));
  }
  CHECK(opt.step_count(handles[1]) == std::uint64_t(taken));
  CHECK(opt.parameter_count() == 5 + 4133 + 40);
}

TEST_CASE("where all are left out, a step moves nothing")
{
  tensor<float> a(9, 1);
  const auto start = a.weights;
  gradus::optimizer<gradus::adams> opt(scheduled);
  const auto h = opt.add(a.weights, a.gradients);
  opt.freeze(h);
  const auto report = opt.step();
  CHECK(report.applied);
  CHECK(report.grad_norm == 0);
  CHECK(report.mean_square == 0);
  CHECK(same(a.weights, start));
  CHECK(opt.step_count(h) == 0);
  // The norm of no gradients is 0, and may be said.
  CHECK_NOTHROW(opt.step({.grad_norm_sq = 0}));
  CHECK(same(a.weights, start));
}

TEST_CASE_TEMPLATE("removed with its state kept, a tensor resumes under its name", Recipe, gradus::adam, gradus::sgd,
                   gradus::adams)
{
  Recipe recipe{};
  recipe.lr = 0.01;
  recipe.weight_decay = std::is_same_v<Recipe, gradus::adams> ? 20 : 0.01;  // so that v̄'s last bits reach the weights
  if constexpr (requires { recipe.momentum; })
    recipe.momentum = 0.9;
  auto model = tensors<float>({3, 2, 4}), uninterrupted = tensors<float>({3, 2, 4});
  gradus::optimizer<Recipe> opt(recipe), reference(recipe);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 3; ++i) {
    handles.push_back(opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients));
    reference.add(uninterrupted[i].weights, uninterrupted[i].gradients);
  }
  std::vector<float> moved;
  for (int t = 0; t < 12; ++t) {
    if (t == 5) {
      // Between two steps the tensor goes and comes back, at another place in memory.
      opt.remove(handles[1], gradus::removed_state::kept);
      CHECK(opt.parameter_count() == 7);
      CHECK(opt.state_bytes() == reference.state_bytes());
      moved = model[1].weights;
      model[1].weights.swap(moved);
      handles[1] = opt.add("t1", model[1].weights, model[1].gradients);
      CHECK(opt.step_count(handles[1]) == 5);
      CHECK(opt.parameter_count() == reference.parameter_count());
    }
    for (auto* m : {&model, &uninterrupted})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    reference.step();
  }
  CHECK(same(model, uninterrupted));
}

TEST_CASE("a tensor that comes back stays in its group, unless told otherwise")
{
  tensor<float> a(3, 1);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto still = opt.add_group({.lr = 0});
  auto h = opt.add("a", a.weights, a.gradients, still);
  const auto start = a.weights;
  opt.step();
  opt.remove(h, gradus::removed_state::kept);
  h = opt.add("a", a.weights, a.gradients);
  opt.step();
  CHECK(same(a.weights, start));
  opt.remove(h, gradus::removed_state::kept);
  opt.add("a", a.weights, a.gradients, gradus::group_handle{});
  opt.step();
  CHECK_FALSE(same(a.weights, start));
}

TEST_CASE("removed with its state dropped, a tensor starts afresh")
{
  tensor<float> a(30, 1), b(20, 2), alone(20, 2);
  gradus::optimizer<gradus::adam> opt({.lr = 0.01}), fresh({.lr = 0.01});
  opt.add("a", a.weights, a.gradients);
  const auto old = opt.add("b", b.weights, b.gradients);
  opt.step();
  opt.step();
  opt.remove(old, gradus::removed_state::dropped);
  CHECK(opt.state_bytes() == 8 * 30);
  b = tensor<float>(20, 2);
  const auto h = opt.add("b", b.weights, b.gradients);
  CHECK(opt.step_count(h) == 0);
  fresh.add(alone.weights, alone.gradients);
  for (int t = 0; t < 3; ++t) {
    opt.step();
    fresh.step();
  }
  CHECK(same(b.weights, alone.weights));
}

TEST_CASE("a tensor without a name never takes another's state")
{
  tensor<float> a(3, 1), b(3, 2);
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add("tensor1", a.weights, a.gradients);
  opt.step();
  opt.remove(h, gradus::removed_state::kept);
  CHECK(opt.step_count(opt.add(b.weights, b.gradients)) == 0);
}

TEST_CASE("many tensors that come and go leave the others alone")
{
  tensor<float> stays(11, 1), alone(11, 1), guest(7, 2);
  gradus::optimizer<gradus::adam> opt, reference;
  opt.add(stays.weights, stays.gradients);
  reference.add(alone.weights, alone.gradients);
  for (int t = 0; t < 100; ++t) {
    const auto h = opt.add(guest.weights, guest.gradients);
    CHECK(opt.step_count(h) == 0);
    opt.step();
    reference.step();
    opt.remove(h, gradus::removed_state::dropped);
  }
  CHECK(same(stays.weights, alone.weights));
  CHECK(opt.parameter_count() == 11);
  CHECK(opt.state_bytes() == 88);
}

TEST_CASE("rebound to memory that was moved, a tensor goes on with the same bits")
{
  auto model = tensors<float>(), unmoved = tensors<float>();
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 3; ++i) {
    handles.push_back(opt.add(model[i].weights, model[i].gradients));
    reference.add(unmoved[i].weights, unmoved[i].gradients);
  }
  for (int t = 0; t < 10; ++t) {
    if (t % 3 == 2)
      for (std::size_t i = 0; i < 3; ++i) {
        // An odd place: memory need not be aligned to more than its elements.
        std::vector<float> w(1 + model[i].weights.size()), g(w.size() + 2);
        std::copy(model[i].weights.begin(), model[i].weights.end(), w.begin() + 1);
        model[i].weights.swap(w);
        model[i].gradients.swap(g);
        std::fill(w.begin(), w.end(), 1e9f);  // whoever still reads there is found out
        opt.rebind(handles[i], std::span(model[i].weights).subspan(1),
                   std::span<const float>(model[i].gradients).subspan(1, model[i].weights.size() - 1));
        model[i].weights.erase(model[i].weights.begin());
        opt.rebind(handles[i], model[i].weights, std::span(model[i].gradients).first(model[i].weights.size()));
      }
    for (auto* m : {&model, &unmoved})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    reference.step();
  }
  CHECK(same(model, unmoved));
}

TEST_CASE("memory may start anywhere")
{
  tensor<float> a(203, 1);
  std::vector<float> expected = a.weights;
  gradus::optimizer<gradus::adams> reference(scheduled);
  reference.add(expected, a.gradients);
  reference.step();
  reference.step();
  for (std::size_t w = 0; w < 17; ++w)
    for (const std::size_t g : {std::size_t(0), 16 - w, std::size_t(5)}) {
      std::vector<float> weights(a.weights.size() + 32, 9.0f), gradients(a.weights.size() + 32, 9.0f);
      std::copy(a.weights.begin(), a.weights.end(), weights.begin() + std::ptrdiff_t(w));
      std::copy(a.gradients.begin(), a.gradients.end(), gradients.begin() + std::ptrdiff_t(g));
      gradus::optimizer<gradus::adams> opt(scheduled);
      opt.add(std::span(weights).subspan(w, 203), std::span(gradients).subspan(g, 203));
      opt.step();
      opt.step();
      bool right = std::memcmp(&weights[w], expected.data(), 203 * sizeof(float)) == 0;
      for (std::size_t i = 0; i < weights.size(); ++i)
        right = right && (weights[i] == 9.0f || (i >= w && i < w + 203));
      CHECK(right);
    }
}

TEST_CASE("an optimizer moves; its handles stay good")
{
  auto model = tensors<float>(), unmoved = tensors<float>();
  gradus::optimizer<gradus::adams> first(scheduled), reference(scheduled);
  const auto group = first.add_group({.lr = 0.5});
  const auto h = first.add(model[0].weights, model[0].gradients);
  const auto in_reference = reference.add_group({.lr = 0.5});
  reference.add(unmoved[0].weights, unmoved[0].gradients);
  first.step();
  reference.step();
  gradus::optimizer<gradus::adams> second(std::move(first));
  second.add(model[1].weights, model[1].gradients, group);
  reference.add(unmoved[1].weights, unmoved[1].gradients, in_reference);
  second.step();
  reference.step();
  gradus::optimizer<gradus::adams> third;
  third = std::move(second);
  third.step();
  reference.step();
  CHECK(third.step_count(h) == 3);
  CHECK(third.hyperparameters(group).lr == 0.5);
  CHECK(same(model, unmoved));
}

TEST_CASE("empty tensors take part and change nothing")
{
  tensor<float> a(7, 1), alone(7, 1), none(0, 2);
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  const auto empty = opt.add("empty", none.weights, none.gradients);
  opt.add(a.weights, a.gradients);
  std::array<float, 0> also_none{};
  opt.add(also_none, std::span<float>());
  reference.add(alone.weights, alone.gradients);
  for (int t = 0; t < 3; ++t) {
    const auto report = opt.step({.max_grad_norm = 0.5, .skip_nonfinite = true});
    const auto expected = reference.step({.max_grad_norm = 0.5, .skip_nonfinite = true});
    CHECK(*report.grad_norm == *expected.grad_norm);
    CHECK(*report.mean_square == *expected.mean_square);
  }
  CHECK(same(a.weights, alone.weights));
  CHECK(opt.step_count(empty) == 3);
  CHECK(opt.state("empty", "exp_avg").empty());
  CHECK(opt.parameter_count() == 7);

  gradus::optimizer<gradus::adams> nothing_else(scheduled);
  nothing_else.add(none.weights, none.gradients);
  const auto report = nothing_else.step();
  CHECK(report.mean_square == 0);
  CHECK(report.decay_factor == 0);
}

// ── hyperparameters that change ──────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("a visitor may leave out every tensor")
{
  std::vector<float> weights(40, 1), gradients(40, 1);
  gradus::optimizer<gradus::adam> opt;
  opt.add(weights, gradients);
  opt.step();
  opt.visit_tensors([](std::string_view, auto, std::size_t, bool& takes_part) { takes_part = false; });
  const auto before = weights;
  CHECK(opt.step({.max_grad_norm = 1}).grad_norm == 0);
  CHECK(weights == before);
}

TEST_CASE("new hyperparameters hold from the next step on, the state stays")
{
  tensor<float> a(37, 1), b(37, 1);
  gradus::optimizer<gradus::adamw> opt({.lr = 0.1}), scaled({.lr = 0.1});
  opt.add(a.weights, a.gradients);
  scaled.add(b.weights, b.gradients);
  for (int t = 0; t < 10; ++t) {
    a.compute(t);
    b.compute(t);
    if (t == 5) {
      auto h = opt.hyperparameters();
      h.lr /= 4;
      opt.set_hyperparameters(h);
    }
    opt.step();
    scaled.step({.lr_scale = t < 5 ? 1 : 0.25});
  }
  CHECK(same(a.weights, b.weights));
}

TEST_CASE("new hyperparameters are one group's alone")
{
  auto model = tensors<float>({5, 6}), other = tensors<float>({5, 6});
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5}), reference({.lr = 0.5});
  const auto group = opt.add_group({.lr = 0.5});
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, group);
  reference.add(other[0].weights, other[0].gradients);
  opt.set_hyperparameters({.lr = 0.25}, group);
  opt.step();
  reference.step();
  CHECK(opt.hyperparameters().lr == 0.5);
  CHECK(same(model[0].weights, other[0].weights));
  CHECK(model[1].weights[0] == other[1].weights[0] - 0.25f * model[1].gradients[0]);
}

TEST_CASE("a momentum raised from 0 starts from zeros; lowered to 0, it lets its buffer go")
{
  tensor<double> a(13, 1);
  std::vector<double> w = a.weights, buffer(13, 0.0);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 0.1, .dampening = 0.5});
  opt.add("a", a.weights, a.gradients);
  double worst = 0;
  for (int t = 0; t < 15; ++t) {
    if (t == 4 || t == 11)
      opt.set_hyperparameters({.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
    if (t == 8)
      opt.set_hyperparameters({.lr = 0.1, .dampening = 0.5});
    const bool idle = t < 4 || (t >= 8 && t < 11);
    CHECK(opt.state_bytes() == (idle ? 0 : 13 * sizeof(double)));
    a.compute(t);
    for (std::size_t i = 0; i < 13; ++i) {
      buffer[i] = idle ? 0 : 0.9 * buffer[i] + 0.5 * a.gradients[i];
      w[i] -= 0.1 * (idle ? a.gradients[i] : buffer[i]);
    }
    opt.step();
    for (std::size_t i = 0; i < 13; ++i)
      worst = std::fmax(worst, std::fabs(w[i] - a.weights[i]));
  }
  CHECK(worst < 1e-14);
}

TEST_CASE("other beta2 in the middle of a scheduled decay")
{
  // The sums that v̄ follows from must go on from the moments that are there.
  auto model = tensors<double>({5, 60});
  gradus::optimizer<gradus::adams, double> opt(scheduled);
  const auto group = opt.add_group(scheduled);
  opt.add(model[0].weights, model[0].gradients);
  opt.add(model[1].weights, model[1].gradients, group);
  for (int t = 1; t <= 12; ++t) {
    auto h = scheduled;
    if (t > 4)
      h.beta2 = 0.9;
    if (t == 5)
      opt.set_hyperparameters(h, group);
    if (t == 9)
      opt.set_hyperparameters(h);
    for (auto& x : model)
      x.compute(t);
    const auto report = opt.step();
    double sum = 0;
    for (std::size_t i = 0; i < 2; ++i)
      for (const double v : opt.state("tensor" + std::to_string(i), "exp_avg_sq"))
        sum += v / (1 - std::pow(t > (i == 1 ? 4 : 8) ? 0.9 : 0.99, t));
    CHECK(*report.mean_square == doctest::Approx(sum / 65).epsilon(1e-12));
  }
}

// ── options of a step ────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("a grad_scale is as good as scaled gradients")
{
  auto model = tensors<float>(), scaled = tensors<float>();
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(scaled[i].weights, scaled[i].gradients);
  }
  for (int t = 0; t < 8; ++t) {
    const float scale = t % 2 ? 0.125f : 1024.0f;
    for (auto& x : model)
      x.compute(t);
    for (auto& x : scaled) {
      x.compute(t);
      for (float& g : x.gradients)
        g *= scale;
    }
    const auto report = opt.step({.grad_scale = double(scale)});
    const auto expected = reference.step();
    CHECK(*report.grad_norm == *expected.grad_norm);
    CHECK(*report.mean_square == *expected.mean_square);
    CHECK(same(model, scaled));
  }
}

TEST_CASE("clipping by the norm over all tensors, as PyTorch does it")
{
  for (const double max_norm : {0.25, 3.0, 1e3}) {
    auto model = tensors<double>(), clipped = tensors<double>();
    gradus::optimizer<gradus::adamw, double> opt({.lr = 0.01}), reference({.lr = 0.01});
    const auto group = opt.add_group({.lr = 0.02});
    const auto in_reference = reference.add_group({.lr = 0.02});
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients, i == 1 ? group : gradus::group_handle{});
      reference.add(clipped[i].weights, clipped[i].gradients, i == 1 ? in_reference : gradus::group_handle{});
    }
    for (int t = 0; t < 8; ++t) {
      double norm = 0;
      for (auto& x : model) {
        x.compute(t);
        for (const double g : x.gradients)
          norm += g * g;
      }
      norm = 0.5 * std::sqrt(norm);
      const double factor = std::fmin(1.0, max_norm / (norm + 1e-6));
      for (auto& x : clipped) {
        x.compute(t);
        for (double& g : x.gradients)
          g *= 0.5 * factor;
      }
      const auto report = opt.step({.grad_scale = 0.5, .max_grad_norm = max_norm});
      reference.step();
      CHECK(*report.grad_norm == doctest::Approx(norm).epsilon(1e-13));
      double worst = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < model[i].weights.size(); ++j)
          worst = std::fmax(worst, std::fabs(model[i].weights[j] - clipped[i].weights[j]));
      CHECK(worst < 1e-12);
    }
  }
}

TEST_CASE("a norm under the limit, or an infinite limit, changes no bit")
{
  for (const double limit : {1e6, std::numeric_limits<double>::infinity()}) {
    auto model = tensors<float>(), plain = tensors<float>();
    gradus::optimizer<gradus::adam> opt, reference;
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients);
      reference.add(plain[i].weights, plain[i].gradients);
    }
    for (int t = 0; t < 3; ++t) {
      CHECK(opt.step({.max_grad_norm = limit}).grad_norm > 0);
      CHECK_FALSE(reference.step().grad_norm);
    }
    CHECK(same(model, plain));
  }
  // Even where its square is too large for a double.
  std::vector<double> w(3, 1.0), v(3, 1.0), g(3, 1e200);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 1e-200}), reference({.lr = 1e-200});
  opt.add(w, g);
  reference.add(v, g);
  const auto report = opt.step({.max_grad_norm = std::numeric_limits<double>::infinity()});
  reference.step();
  CHECK(*report.grad_norm == doctest::Approx(std::sqrt(3.0) * 1e200).epsilon(1e-15));
  CHECK(same(w, v));
}

TEST_CASE_TEMPLATE("a norm that is given is as good as one that is computed", Recipe, gradus::adam, gradus::adams)
{
  auto model = tensors<float>(), other = tensors<float>();
  Recipe recipe{};
  recipe.weight_decay = 0.02;
  gradus::optimizer<Recipe> opt(recipe), reference(recipe);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(other[i].weights, other[i].gradients);
  }
  for (int t = 0; t < 6; ++t) {
    for (auto* m : {&model, &other})
      for (auto& x : *m)
        x.compute(t);
    const auto computed = reference.step({.grad_scale = 0.5, .max_grad_norm = 2});
    gradus::exact_sum norm_sq;
    for (auto& x : model)
      gradus::add_squared_norm(gradus::backend::scalar{}, std::span<const float>(x.gradients), norm_sq);
    const auto given = opt.step({.grad_scale = 0.5, .max_grad_norm = 2, .grad_norm_sq = norm_sq.value()});
    CHECK(*given.grad_norm == *computed.grad_norm);
    CHECK(given.mean_square == computed.mean_square);
    CHECK(same(model, other));
  }
}

TEST_CASE_TEMPLATE("one number that is not finite stops a step that may be skipped", T, float, double)
{
  auto model = tensors<T>({5, 4133, 67});
  gradus::optimizer<gradus::adams, T> opt(scheduled);
  std::vector<gradus::tensor_handle> handles;
  for (auto& x : model)
    handles.push_back(opt.add(x.weights, x.gradients));
  const auto before_first = model;
  int skipped = 0;
  // Before the first step and after three, at places that are bodies, tails and ends of blocks.
  for (const int steps : {0, 3}) {
    for (int t = 0; t < steps; ++t)
      CHECK(opt.step({.skip_nonfinite = true}).applied);
    const auto weights = model;
    const auto state = save(opt);
    for (std::size_t tensor = 0; tensor < 3; ++tensor)
      for (const std::size_t i : {0u, 1u, 4u, 31u, 33u, 63u, 66u, 4095u, 4096u, 4127u, 4132u})
        for (const T bad : not_finite<T>) {
          if (i >= model[tensor].gradients.size())
            continue;
          const T good = std::exchange(model[tensor].gradients[i], bad);
          const auto report = opt.step({.max_grad_norm = 1.0, .skip_nonfinite = true});
          CHECK_FALSE(report.applied);
          CHECK(report.grad_norm);
          CHECK_FALSE(report.grad_norm < std::numeric_limits<double>::max());
          CHECK_FALSE(report.mean_square);
          CHECK_FALSE(report.decay_factor);
          CHECK_FALSE(report.decay_clamped);
          model[tensor].gradients[i] = good;
          ++skipped;
        }
    CHECK(same(model, weights));
    CHECK((save(opt) == state));
    for (const auto& h : handles)
      CHECK(opt.step_count(h) == std::uint64_t(steps));
  }
  CHECK(skipped == 2 * 3 * (3 + 11 + 7));
  // A tensor that is left out is not looked at.
  model[1].gradients[4000] = not_finite<T>[0];
  opt.freeze(handles[1]);
  CHECK(opt.step({.skip_nonfinite = true}).applied);
  CHECK(opt.step_count(handles[0]) == 4);
  // And who does not ask is not spared.
  opt.unfreeze(handles[1]);
  CHECK(opt.step().applied);
  CHECK(std::isnan(double(model[1].weights[4000])));
}

TEST_CASE("a skipped step leaves no trace in those that follow")
{
  auto model = tensors<float>(), spared = tensors<float>();
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(spared[i].weights, spared[i].gradients);
  }
  for (int t = 0; t < 9; ++t) {
    for (auto* m : {&model, &spared})
      for (auto& x : *m)
        x.compute(t);
    if (t % 3 == 1) {
      const float good = std::exchange(model[2].gradients[39], not_finite<float>[0]);
      CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
      model[2].gradients[39] = good;
    }
    opt.step({.skip_nonfinite = true});
    reference.step();
  }
  CHECK(same(model, spared));
}

TEST_CASE("a norm that overflows is no reason to skip")
{
  std::vector<double> w(3, 1.0), v(3, 1.0), g(3, 1e200);
  gradus::optimizer<gradus::sgd, double> opt({.lr = 1e-201}), reference({.lr = 1e-201});
  opt.add(w, g);
  reference.add(v, g);
  const auto report = opt.step({.skip_nonfinite = true});
  reference.step();
  CHECK(report.applied);
  CHECK(*report.grad_norm == doctest::Approx(std::sqrt(3.0) * 1e200).epsilon(1e-15));
  CHECK(same(w, v));
  CHECK(w[0] == 0.9);
  // A norm that is given is looked at first, and the elements where it is not finite.
  CHECK(opt.step({.grad_norm_sq = not_finite<double>[1], .skip_nonfinite = true}).applied);
  g[2] = not_finite<double>[0];
  CHECK_FALSE(opt.step({.grad_norm_sq = not_finite<double>[0], .skip_nonfinite = true}).applied);
}

TEST_CASE("clipping: a norm whose square is out of a double's range is as good as any")
{
  const auto moved_by = [](std::vector<double> g, gradus::step_options o, double norm) {
    std::vector<double> w(g.size(), 0.0);
    gradus::optimizer<gradus::sgd, double> opt({.lr = 1});
    opt.add(w, g);
    const auto report = opt.step(o);
    CHECK(report.applied);
    CHECK((*report.grad_norm == norm || *report.grad_norm == doctest::Approx(norm).epsilon(1e-15)));
    for (double& x : w)
      x = -x;
    return w;
  };
  for (const bool skip : {false, true}) {
    const auto large = moved_by({3e200, 4e200}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e200);
    CHECK(large[0] == doctest::Approx(0.6).epsilon(1e-14));
    CHECK(large[1] == doctest::Approx(0.8).epsilon(1e-14));
    const auto small = moved_by({3e-170, 4e-170}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-170);
    CHECK(small[0] == 3e-170);
    const auto smallest = moved_by({3e-320, 4e-320}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-320);
    CHECK(smallest[0] == 3e-320);
    // Squares that lose digits, next to denormals; 5e-160, and its square no denormal either.
    moved_by({3e-160, 4e-160}, {.max_grad_norm = 1, .skip_nonfinite = skip}, 5e-160);
    // After grad_scale the norm is an ordinary one, or too large for a double.
    const auto scaled = moved_by({3e200, 4e200}, {.grad_scale = 1e-200, .max_grad_norm = 2.5, .skip_nonfinite = skip}, 5);
    CHECK(scaled[1] == doctest::Approx(2).epsilon(1e-6));
    const auto tiny = moved_by({3e-200, 4e-200}, {.grad_scale = 1e200, .max_grad_norm = 2.5, .skip_nonfinite = skip}, 5);
    CHECK(tiny[1] == doctest::Approx(2).epsilon(1e-6));
    const auto largest = moved_by(std::vector<double>(4, 1.5e308), {.max_grad_norm = 10, .skip_nonfinite = skip}, not_finite<double>[1]);
    CHECK(largest[3] == doctest::Approx(5).epsilon(1e-12));
    const auto beyond = moved_by({3e300, 4e300}, {.grad_scale = 1e100, .max_grad_norm = 1, .skip_nonfinite = skip}, not_finite<double>[1]);
    CHECK(beyond[0] == doctest::Approx(0.6).epsilon(1e-12));
    // Only the total overflows: each tensor's, or block's, own sum does not.
    moved_by(std::vector<double>(9000, 1e153), {.max_grad_norm = 1, .skip_nonfinite = skip}, std::sqrt(9000.0) * 1e153);
  }
  moved_by({0, 0}, {.max_grad_norm = 1}, 0);
}

TEST_CASE("clipping: what is not finite is told from what overflows")
{
  for (const double bad : not_finite<double>) {
    std::vector<double> w(3, 1.0), g{1e200, bad, 1e200};
    gradus::optimizer<gradus::sgd, double> opt({.lr = 1});
    opt.add(w, g);
    CHECK_FALSE(opt.step({.max_grad_norm = 1, .skip_nonfinite = true}).applied);
    CHECK_FALSE(opt.step({.skip_nonfinite = true}).applied);
    CHECK(w[0] == 1);
    CHECK(opt.step({.max_grad_norm = 1}).applied);  // who does not ask is not spared
    CHECK(std::isnan(w[1]));
  }
}

TEST_CASE_TEMPLATE("a scheduled decay's mean is right for gradients whose squares overflow before they are scaled", Backend,
                   gradus::backend::scalar, gradus::default_backend)
{
  for (const double size : {1e200, 1e-200}) {
    auto model = tensors<double>(), ordinary = tensors<double>();
    gradus::optimizer<gradus::adams, double, Backend> opt(scheduled);
    gradus::optimizer<gradus::adams, double> reference(scheduled);
    for (std::size_t i = 0; i < 3; ++i) {
      opt.add(model[i].weights, model[i].gradients);
      reference.add(ordinary[i].weights, ordinary[i].gradients);
    }
    for (int t = 0; t < 5; ++t) {
      const bool clips = size > 1 && t % 2 == 1;
      double norm_sq = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        ordinary[i].compute(t);
        model[i].gradients = ordinary[i].gradients;
        for (double& g : model[i].gradients) {
          norm_sq += g * g;
          g *= size;
        }
      }
      // Clipped to the norm that it has unscaled, or scaled back.
      const auto report = clips ? opt.step({.max_grad_norm = std::sqrt(norm_sq)}) : opt.step({.grad_scale = 1 / size});
      const auto expected = reference.step();
      CHECK(*report.mean_square == doctest::Approx(*expected.mean_square).epsilon(1e-12));
      CHECK(*report.grad_norm == doctest::Approx(*expected.grad_norm * (clips ? size : 1)).epsilon(1e-12));
      double worst = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < model[i].weights.size(); ++j)
          worst = std::fmax(worst, std::fabs(model[i].weights[j] - ordinary[i].weights[j]));
      CHECK(worst < 1e-10);
    }
  }
}

namespace {

// One step with skip_nonfinite, of weights that are alike but for one: whether it was applied. If not, nothing has changed;
// if so, it was the step of those who do not ask.
template <class T, class Backend, class Recipe>
bool is_applied(const Recipe& recipe, double weight, double gradient, gradus::step_options o = {}, std::size_t n = 4133)
{
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  const auto number = []<class X>(X, double x) {
    if constexpr (gradus::real<X>)
      return X(x);
    else
      return X(float(x));
  };
  std::vector<P> w(n, number(P(), 1.0)), v;
  std::vector<G> g(n, number(G(), 0.5));
  v = w;
  gradus::optimizer<Recipe, T, Backend> opt(recipe), reference(recipe);
  opt.add("w", w, g);
  reference.add("w", v, g);
  for (auto* each : {&opt, &reference})
    each->step({.lr_scale = 0});
  w[n - 1] = v[n - 1] = number(P(), weight);
  g[n - 1] = number(G(), gradient);
  const auto weights = w;
  const auto state = save(opt);
  if (!o.max_grad_norm)
    reference.step(o);
  o.skip_nonfinite = true;
  const bool applied = opt.step(o).applied;
  if (applied)
    CHECK((o.max_grad_norm || same(w, v)));
  else {
    CHECK(same(w, weights));
    CHECK((save(opt) == state));
  }
  return applied;
}

// A gradient of one size is applied and one of another is not, with room between them for a formula's details.
template <class T, class Recipe>
void check_overflow(const Recipe& recipe, double applied, double skipped, const gradus::step_options& o = {})
{
  CAPTURE(applied);
  CAPTURE(skipped);
  for (const double sign : {1.0, -1.0}) {
    CHECK(is_applied<T, gradus::default_backend>(recipe, 1, sign * applied, o));
    CHECK_FALSE(is_applied<T, gradus::default_backend>(recipe, 1, sign * skipped, o));
  }
  CHECK(is_applied<T, gradus::backend::scalar>(recipe, 1, applied, o));
  CHECK_FALSE(is_applied<T, gradus::backend::scalar>(recipe, 1, skipped, o));
}

}  // namespace

TEST_CASE("skip_nonfinite: a finite gradient that would make a moment infinite is skipped, and only such")
{
  using gradus::bfloat16, gradus::block8, gradus::precision;
  check_overflow<float>(gradus::adam{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::adams{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::amsgrad{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::yogi{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::padam{}, 1.5e19, 1e21);
  check_overflow<float>(gradus::radam{}, 1.5e19, 1e21);
  check_overflow<double>(gradus::adams{}, 1e154, 1e157);
  check_overflow<precision<float, float, bfloat16>>(gradus::adamw{}, 1.5e19, 1e21);
  check_overflow<precision<float, float, block8>>(gradus::adam{}, 1.5e19, 1e21);
  check_overflow<precision<bfloat16, bfloat16, float, float>>(gradus::adams{}, 1.5e19, 1e21);
  check_overflow<precision<bfloat16, bfloat16, block8>>(gradus::adam{}, 1.5e19, 1e21);
  // After grad_scale, and after clipping.
  check_overflow<float>(gradus::adam{}, 1.5e16, 1e18, {.grad_scale = 1e3});
  check_overflow<float>(gradus::adam{}, 1.5e36, 1e38, {.grad_scale = 1e-17, .max_grad_norm = 1e36});
  CHECK(is_applied<float, gradus::default_backend>(gradus::adam{}, 1, 1e30, {.max_grad_norm = 1}));
  CHECK(is_applied<float, gradus::default_backend>(gradus::adam{}, 1000, 2e19));
}

TEST_CASE("skip_nonfinite: a product that overflows is skipped where nothing is squared, too")
{
  check_overflow<float>(gradus::sgd{.lr = 1e-3}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<float>(gradus::sgd{.lr = 1e-3, .momentum = 0.9}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<double>(gradus::sgds{.lr = 1e-3}, 1e307, 1e308, {.grad_scale = 10});
  check_overflow<gradus::precision<gradus::bfloat16>>(gradus::sgd{.lr = 1e-3}, 1e37, 1e38, {.grad_scale = 10});
  check_overflow<float>(gradus::sgd{.lr = 1e20}, 1e15, 1e20);  // lr times the gradient
}

TEST_CASE("skip_nonfinite: many large gradients are no reason, however large their norm")
{
  std::vector<float> w(100'000, 1), v(w), g(w.size(), 1.5e19f);
  gradus::optimizer<gradus::adam> opt, reference;
  opt.add(w, g);
  reference.add(v, g);
  for (int t = 0; t < 3; ++t) {
    CHECK(opt.step({.skip_nonfinite = true}).applied);
    reference.step();
  }
  CHECK(same(w, v));
}

TEST_CASE("clipping so far that the compute type cannot hold the factor is refused, or skipped")
{
  const auto check = [](auto type, double gradient, double limit, const std::string& message) {
    using T = decltype(type);
    std::vector<T> w(9, T(1)), g(9, T(gradient));
    const auto before = w;
    gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
    gradus::optimizer<gradus::sgd, T, gradus::backend::scalar> who_does_not_ask({.lr = 1});
    opt.add("w", w, g);
    who_does_not_ask.add("w", w, g);
    const auto state = save(opt);
    CHECK_THROWS_WITH_AS(who_does_not_ask.step({.max_grad_norm = limit}), doctest::Contains(message.c_str()), std::invalid_argument);
    const auto report = opt.step({.max_grad_norm = limit, .skip_nonfinite = true});
    CHECK_FALSE(report.applied);
    CHECK(*report.grad_norm == doctest::Approx(3 * gradient));
    CHECK(same(w, before));
    CHECK((save(opt) == state));
  };
  check(float(), 1e30, 1e-9, "max_grad_norm is 1e-09 and the gradients' norm 3");
  check(double(), 1e300, 1e-9, "max_grad_norm is 1e-09 and the gradients' norm 3");
  std::vector<float> w(4, 0), g(4, 1e30f);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  opt.add(w, g);
  CHECK(opt.step({.max_grad_norm = 1e-6}).applied);
  CHECK(double(w[0]) == doctest::Approx(-5e-7));
}

TEST_CASE("a norm that is given as infinite clips nothing to zero")
{
  std::vector<float> w(3, 1), g(3, 1);
  gradus::optimizer<gradus::adams> opt;
  opt.add(w, g);
  const double infinity = not_finite<double>[1];
  CHECK_THROWS_WITH_AS(opt.step({.max_grad_norm = 1, .grad_norm_sq = infinity}),
                       doctest::Contains("grad_norm_sq is inf; expected a finite number with max_grad_norm"), std::invalid_argument);
  CHECK_FALSE(opt.step({.max_grad_norm = 1, .grad_norm_sq = infinity, .skip_nonfinite = true}).applied);
  CHECK(w[0] == 1);
  CHECK(opt.step({.max_grad_norm = infinity, .grad_norm_sq = infinity}).applied);
  // A decay that is scheduled by it rests for that step, and no longer.
  CHECK(*opt.step().mean_square == doctest::Approx(1).epsilon(1e-6));
  CHECK(opt.step({.max_grad_norm = 1, .grad_norm_sq = 0}).applied);
}

// ── a part of a model ────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE_TEMPLATE("parts of a model that are told its size and norm have its mean, to the bit", T, float, double)
{
  auto whole = tensors<T>({5, 4133, 40}), parts = tensors<T>({5, 4133, 40});
  gradus::optimizer<gradus::adams, T> opt(scheduled);
  std::vector<gradus::optimizer<gradus::adams, T>> of_part;
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(whole[i].weights, whole[i].gradients);
    of_part.emplace_back(scheduled);
    of_part[i].add("w", parts[i].weights, parts[i].gradients);
  }
  for (int t = 0; t < 9; ++t) {
    gradus::exact_sum sum;
    for (std::size_t i = 0; i < 3; ++i) {
      whole[i].compute(t);
      parts[i].compute(t);
      gradus::add_squared_norm(gradus::backend::scalar{}, std::span<const T>(whole[i].gradients), sum);
    }
    gradus::step_options o{.max_grad_norm = t % 3 ? 2 : 1e9, .grad_norm_sq = sum.value(), .skip_nonfinite = t % 2 == 0};
    const auto expected = opt.step(o);
    o.model_size = 5 + 4133 + 40;
    for (std::size_t i = 0; i < 3; ++i) {
      if (t == 5) {  // saved and gone on with
        gradus::optimizer<gradus::adams, T> resumed(scheduled);
        resumed.add("w", parts[i].weights, parts[i].gradients);
        restore(resumed, save(of_part[i]));
        of_part[i] = std::move(resumed);
      }
      const auto report = of_part[i].step(o);
      CHECK(*report.mean_square == *expected.mean_square);
      CHECK(*report.decay_factor == *expected.decay_factor);
    }
    CHECK(same(whole, parts));
  }
  // The size of all of it is no part's; and it counts in clipping alone where no decay is scheduled.
  CHECK_NOTHROW(opt.step({.model_size = 5 + 4133 + 40}));
  gradus::optimizer<gradus::adam, T> plain;
  plain.add(parts[0].weights, parts[0].gradients);
  CHECK_NOTHROW(plain.step({.model_size = 1'000'000}));
}

TEST_CASE("the size of a model that does not help is refused")
{
  tensor<float> a(30, 1);
  gradus::optimizer<gradus::adams> opt(scheduled);
  opt.add("w", a.weights, a.gradients);
  const auto check = [&](auto& of, const gradus::step_options& o, const char* message) {
    const auto weights = a.weights;
    const auto state = save(of);
    CHECK_THROWS_WITH_AS(of.step(o), doctest::Contains(message), std::invalid_argument);
    CHECK(same(a.weights, weights));
    CHECK((save(of) == state));
  };
  check(opt, {.grad_norm_sq = 1, .model_size = 29}, "model_size is 29; expected at least 30");
  check(opt, {.model_size = 31}, "model_size is 31; expected none, because the norm of this part is not the whole model's; also give");
  const auto two_passes = gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                          gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
  gradus::optimizer<decltype(two_passes)> by_moments(two_passes);
  by_moments.add("w", a.weights, a.gradients);
  check(by_moments, {.grad_norm_sq = 1, .model_size = 31}, "give mean_square");
  opt.step();
  check(opt, {.grad_norm_sq = 1, .model_size = 31}, "from the first step on");
  CHECK_NOTHROW(opt.step({.grad_norm_sq = 1, .model_size = 30}));
}

TEST_CASE_TEMPLATE("a mean that is given is the decay's", Rule, gradus::second_moment::ema, gradus::second_moment::ema_max)
{
  const auto recipe = gradus::compose(0.01, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                      gradus::decay::scheduled{.weight_decay = 0.1});
  const auto decoupled = gradus::compose(0.01, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                         gradus::decay::decoupled{.weight_decay = 0.1 / 4});
  auto model = tensors<float>(), twin = tensors<float>();
  gradus::optimizer<std::remove_const_t<decltype(recipe)>> opt(recipe);
  gradus::optimizer<std::remove_const_t<decltype(decoupled)>> reference(decoupled);
  for (std::size_t i = 0; i < 3; ++i) {
    opt.add(model[i].weights, model[i].gradients);
    reference.add(twin[i].weights, twin[i].gradients);
  }
  for (int t = 0; t < 4; ++t) {
    const auto report = opt.step({.mean_square = 16});
    CHECK(*report.mean_square == 16);
    CHECK(*report.decay_factor == 0.25);
    CHECK_FALSE(report.grad_norm);
    reference.step();
  }
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < model[i].weights.size(); ++k)
      CHECK(double(model[i].weights[k]) == doctest::Approx(double(twin[i].weights[k])).epsilon(1e-6));
  for (const double bad : {-1.0, not_finite<double>[0], not_finite<double>[1]})
    CHECK_THROWS_WITH_AS(opt.step({.mean_square = bad}), doctest::Contains("mean_square is "), std::invalid_argument);
}

TEST_CASE_TEMPLATE("after steps with a mean that is given, the optimizer's own is right again", T, float, double)
{
  for (const bool measured : {false, true})
    for (const bool shared : {false, true}) {
      auto model = tensors<T>(), twin = tensors<T>();
      gradus::adams still = scheduled;
      still.weight_decay = 0;  // so that both have the same gradients
      gradus::optimizer<gradus::adams, T> opt(still), reference(still);
      for (std::size_t i = 0; i < 3; ++i) {
        opt.add("w" + std::to_string(i), model[i].weights, model[i].gradients);
        reference.add(twin[i].weights, twin[i].gradients);
      }
      gradus::step_options norm;
      if (shared)
        norm.grad_norm_sq = 25;
      if (shared && !measured)
        opt.step(), reference.step();
      else
        opt.step(norm), reference.step(norm);
      gradus::step_options given{.mean_square = 3};
      if (measured)
        given.max_grad_norm = 1e9;
      opt.step(given), reference.step(measured ? gradus::step_options{.max_grad_norm = 1e9} : gradus::step_options{});
      if (!measured) {  // and through a checkpoint
        gradus::optimizer<gradus::adams, T> resumed(still);
        for (std::size_t i = 0; i < 3; ++i)
          resumed.add("w" + std::to_string(i), model[i].weights, model[i].gradients);
        restore(resumed, save(opt));
        opt = std::move(resumed);
      }
      const double mean = *opt.step().mean_square, expected = *reference.step().mean_square;
      if (measured)
        CHECK(mean == expected);
      else
        CHECK(mean == doctest::Approx(expected).epsilon(std::is_same_v<T, float> ? 1e-6 : 1e-13));
    }
}

TEST_CASE("what a step reports")
{
  tensor<float> a(10, 1);
  double norm_sq = 0;
  for (const float g : a.gradients)
    norm_sq += double(g) * double(g);
  const double norm = std::sqrt(norm_sq);
  {
    gradus::optimizer<gradus::adamw> opt;
    opt.add(a.weights, a.gradients);
    const auto plain = opt.step();
    CHECK(plain.applied);
    CHECK_FALSE(plain.grad_norm);  // nobody asked, and it costs a pass
    CHECK_FALSE(plain.mean_square);
    CHECK_FALSE(plain.decay_factor);
    CHECK_FALSE(plain.decay_clamped);
    CHECK(*opt.step({.max_grad_norm = 0.1}).grad_norm == doctest::Approx(norm).epsilon(1e-14));  // before clipping
    CHECK(*opt.step({.skip_nonfinite = true}).grad_norm == doctest::Approx(norm).epsilon(1e-14));
    CHECK(*opt.step({.grad_scale = 3, .max_grad_norm = 0.1}).grad_norm == doctest::Approx(3 * norm).epsilon(1e-14));
    CHECK(*opt.step({.grad_norm_sq = 49}).grad_norm == 7);
    CHECK(*opt.step({.grad_scale = 2, .grad_norm_sq = 49}).grad_norm == 14);
    CHECK_FALSE(opt.step({.grad_norm_sq = 49}).mean_square);
  }
  {
    gradus::optimizer<gradus::adams> opt({.lr = 1e-3, .weight_decay = 1e-3});
    opt.add(a.weights, a.gradients);
    const auto report = opt.step();
    CHECK(*report.grad_norm == doctest::Approx(norm).epsilon(1e-14));
    CHECK(*report.mean_square == doctest::Approx(norm_sq / 10).epsilon(1e-6));  // float's 1 − β₂ stands in it
    CHECK(*report.decay_factor == 1 / std::sqrt(*report.mean_square));
    CHECK_FALSE(report.decay_clamped);
    CHECK(*opt.step({.grad_norm_sq = norm_sq}).grad_norm == std::sqrt(norm_sq));
  }
  {
    // SGDS's decay needs no norm and reports none.
    gradus::optimizer<gradus::sgds> opt({.momentum = 0.9, .weight_decay = 1e-3});
    opt.add(a.weights, a.gradients);
    const auto report = opt.step();
    CHECK_FALSE(report.grad_norm);
    CHECK_FALSE(report.decay_factor);
  }
}

// ── the scheduled decay ──────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// Any optimizer whose decay is scheduled, written down as in a textbook: in double, in two passes, over all tensors. A
// subclass of nothing of gradus's.
struct textbook {
  double lr = 0.01, beta1 = 0.9, beta2 = 0.99;
  std::vector<double> weight_decay = {};  // each tensor's
  double start = 0;
  enum second { ema, maximum, yogi } second_moment = ema;
  // The step without the direction: α and bc1, bc2, t, the second moment to divide by.
  std::function<double(double alpha, double bc1, double bc2, int t, double v)> step_size;

  struct state {
    std::vector<double> w, m, v, x;
  };
  std::vector<state> tensors = {};
  double mean_square = 0;
  bool clamped = false;

  void add(const std::vector<double>& w)
  {
    const std::size_t n = w.size();
    tensors.push_back({w, std::vector(n, start), std::vector(n, start), std::vector(n, 0.0)});
  }

  void step(const std::vector<const std::vector<double>*>& gradients, int t, double lr_scale)
  {
    const double bc1 = 1 - std::pow(beta1, t), bc2 = 1 - std::pow(beta2, t), alpha = lr * lr_scale;
    double sum = 0, count = 0;
    for (std::size_t k = 0; k < tensors.size(); ++k)
      for (std::size_t i = 0; i < tensors[k].w.size(); ++i) {
        state& s = tensors[k];
        const double g = (*gradients[k])[i];
        s.m[i] = beta1 * s.m[i] + (1 - beta1) * g;
        if (second_moment == yogi) {
          const double sign = s.v[i] > g * g ? 1 : s.v[i] < g * g ? -1 : 0;
          s.v[i] -= (1 - beta2) * sign * g * g;
        } else
          s.v[i] = beta2 * s.v[i] + (1 - beta2) * g * g;
        s.x[i] = second_moment == maximum ? std::fmax(s.x[i], s.v[i]) : s.v[i];
        sum += s.x[i] / bc2;
        count += 1;
      }
    mean_square = sum / count;
    clamped = false;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      double s = mean_square == 0 ? 0 : alpha * weight_decay[k] / std::sqrt(mean_square);
      clamped = clamped || s > 1;
      s = std::fmin(s, 1);
      for (std::size_t i = 0; i < tensors[k].w.size(); ++i) {
        state& x = tensors[k];
        x.w[i] = (1 - s) * x.w[i] - step_size(alpha, bc1, bc2, t, x.x[i]) * x.m[i];
      }
    }
  }
};

// Runs a composition beside its textbook for a hundred steps, with a group that does not decay and a learning rate that
// changes; gives the largest difference, relative to 1e-3 + |w|.
template <class Recipe>
double worst_difference(const Recipe& recipe, textbook book)
{
  auto model = tensors<double>({5, 67, 12});
  gradus::optimizer<Recipe, double> opt(recipe);
  auto h = opt.hyperparameters();
  book.weight_decay = {h.decay.weight_decay, h.decay.weight_decay, 0};
  h.decay.weight_decay = 0;
  const auto undecayed = opt.add_group(h);
  std::vector<const std::vector<double>*> gradients;
  for (auto& x : model) {
    opt.add(x.weights, x.gradients, &x == &model.back() ? undecayed : gradus::group_handle{});
    book.add(x.weights);
    gradients.push_back(&x.gradients);
  }
  double worst = 0;
  for (int t = 1; t <= 100; ++t) {
    for (auto& x : model)
      x.compute(t);
    const double lr_scale = t > 60 ? 0.1 : 1;
    book.step(gradients, t, lr_scale);
    const auto report = opt.step({.lr_scale = lr_scale});
    worst = std::fmax(worst, std::fabs(*report.mean_square / book.mean_square - 1));
    CHECK(report.decay_clamped == book.clamped);
    for (std::size_t k = 0; k < model.size(); ++k)
      for (std::size_t i = 0; i < model[k].weights.size(); ++i)
        worst = std::fmax(worst, std::fabs(model[k].weights[i] - book.tensors[k].w[i]) / (1e-3 + std::fabs(book.tensors[k].w[i])));
  }
  return worst;
}

double adaptive(double alpha, double bc1, double bc2, int, double v)
{
  return alpha / bc1 / (std::sqrt(v) / std::sqrt(bc2) + 1e-8);
}

}  // namespace

TEST_CASE("a scheduled decay joins every optimizer, in one line each")
{
  using namespace gradus;
  const decay::scheduled swd{.weight_decay = 0.05};
  const textbook base{.step_size = adaptive};

  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::adaptive{}, swd), base) < 1e-12);

  textbook book = base;
  book.second_moment = textbook::maximum;
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema_max{0.99}, step_size::adaptive{}, swd), book) < 1e-12);

  book.step_size = [](double alpha, double bc1, double bc2, int, double v) {
    return alpha * std::sqrt(bc2) / bc1 / std::pow(std::sqrt(v) + 1e-8, 2 * 0.125);
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema_max{0.99}, step_size::partially_adaptive{.partial = 0.125}, swd), book) < 1e-12);

  book = base;
  book.second_moment = textbook::yogi;
  book.start = 1e-6;
  CHECK(worst_difference(compose(0.01, first_moment::ema{.initial_accumulator = 1e-6}, second_moment::yogi{.beta2 = 0.99}, step_size::adaptive{}, swd), book) < 1e-12);

  book = base;
  book.step_size = [](double alpha, double bc1, double bc2, int t, double v) {
    const double final_lr = 0.1 * alpha / 0.01, gamma = 1e-2;
    return std::fmin(std::fmax(alpha * std::sqrt(bc2) / bc1 / (std::sqrt(v) + 1e-8), final_lr * (1 - 1 / (gamma * t + 1))),
                     final_lr * (1 + 1 / (gamma * t)));
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::bounded{.gamma = 1e-2}, swd), book) < 1e-12);

  book.step_size = [](double alpha, double bc1, double bc2, int t, double v) {
    const double beta2 = 0.99, inf = 2 / (1 - beta2) - 1, rho = inf - 2 * t * std::pow(beta2, t) / bc2;
    if (rho <= 5)
      return alpha / bc1;
    return alpha / bc1 * std::sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho)) * std::sqrt(bc2) / (std::sqrt(v) + 1e-8);
  };
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::rectified{}, swd), book) < 1e-12);

  // A decay of everything in each step, which is held to just that.
  CHECK(worst_difference(compose(0.01, first_moment::ema{}, second_moment::ema{0.99}, step_size::adaptive{}, decay::scheduled{1e4}), base) < 1e-12);
}

TEST_CASE_TEMPLATE("one pass finds the mean that two passes find", T, float, double)
{
  // Groups, one of which does not decay; a scale on the gradients; a tensor that comes late, one that pauses; a norm that
  // is given now and then; a thousand steps for the sums to drift in.
  auto model = tensors<T>({7, 500, 33});
  gradus::optimizer<gradus::adams, T> opt({.lr = 1e-3, .weight_decay = 1e-3});
  const auto undecayed = opt.add_group({.lr = 1e-3, .weight_decay = 0});
  std::vector<gradus::tensor_handle> h{opt.add("0", model[0].weights, model[0].gradients),
                                       opt.add("1", model[1].weights, model[1].gradients, undecayed)};
  double worst = 0;
  for (int t = 0; t < 1000; ++t) {
    if (t == 300)
      h.push_back(opt.add("2", model[2].weights, model[2].gradients));
    if (t == 500)
      opt.freeze(h[1]);
    if (t == 600)
      opt.unfreeze(h[1]);
    double norm_sq = 0;
    for (std::size_t k = 0; k < h.size(); ++k) {
      model[k].compute(t);
      for (const T g : model[k].gradients)
        norm_sq += double(g) * double(g);
    }
    const bool given = t < 300 && t % 3 == 1;
    const auto report = opt.step({.grad_scale = t % 2 ? 1.0 : 3.0, .grad_norm_sq = given ? std::optional(norm_sq) : std::nullopt});
    double sum = 0, count = 0;
    for (std::size_t k = 0; k < h.size(); ++k) {
      if (k == 1 && t >= 500 && t < 600)
        continue;
      const double bc2 = 1 - std::pow(0.999, double(opt.step_count(h[k])));
      for (const T v : opt.state(std::to_string(k), "exp_avg_sq")) {
        sum += double(v) / bc2;
        count += 1;
      }
    }
    worst = std::fmax(worst, std::fabs(*report.mean_square / (sum / count) - 1));
  }
  MESSAGE("worst relative difference of v̄ over 1000 steps: ", worst);
  CHECK(worst < (sizeof(T) == 4 ? 1e-5 : 1e-12));
}

TEST_CASE("a sum shared by the model takes in who comes back")
{
  // b, five steps old, comes back when a, a newcomer, is five steps old as well: of one age, they could share a sum.
  tensor<double> a(4, 1), b(40, 2), c(4, 3);
  gradus::optimizer<gradus::adams, double> opt(scheduled);
  const auto gone = opt.add(c.weights, c.gradients);
  const auto paused = opt.add("b", b.weights, b.gradients);
  for (int t = 0; t < 5; ++t)
    opt.step();
  opt.freeze(paused);
  opt.remove(gone, gradus::removed_state::dropped);
  opt.add("a", a.weights, a.gradients);
  const auto norm_sq = [](const tensor<double>& x) {
    return gradus::squared_norm(gradus::backend::scalar{}, std::span<const double>(x.gradients));
  };
  for (int t = 0; t < 5; ++t)
    opt.step({.grad_norm_sq = norm_sq(a)});
  opt.unfreeze(paused);
  const auto report = opt.step();
  double sum = 0;
  for (const char* name : {"a", "b"})
    for (const double v : opt.state(name, "exp_avg_sq"))
      sum += v;
  CHECK(*report.mean_square == doctest::Approx(sum / (1 - std::pow(0.99, 6)) / 44).epsilon(1e-12));
}

TEST_CASE("leaving out and taking in again between two steps changes no bit")
{
  // Few elements and a strong decay, so that v̄'s last bits reach the weights.
  auto model = tensors<float>({3, 2}), other = tensors<float>({3, 2});
  auto strong = scheduled;
  strong.weight_decay = 20;
  gradus::optimizer<gradus::adams> opt(strong), reference(strong);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 2; ++i) {
    handles.push_back(opt.add(model[i].weights, model[i].gradients));
    reference.add(other[i].weights, other[i].gradients);
  }
  for (int t = 0; t < 20; ++t) {
    for (auto* m : {&model, &other})
      for (auto& x : *m)
        x.compute(t);
    if (t % 4 == 3) {
      opt.freeze(handles[1]);
      opt.unfreeze(handles[1]);
    }
    const auto report = opt.step();
    CHECK(*report.mean_square == *reference.step().mean_square);
  }
  CHECK(same(model, other));
}

TEST_CASE("gradients that are all zero do not decay, and make no NaN")
{
  std::vector<float> w{1, -2, 3}, g(3, 0.0f);
  const auto start = w;
  gradus::optimizer<gradus::adams> opt({.lr = 0.1, .weight_decay = 0.5});
  opt.add(w, g);
  for (int t = 0; t < 3; ++t) {
    const auto report = opt.step();
    CHECK(report.grad_norm == 0);
    CHECK(report.mean_square == 0);
    CHECK(report.decay_factor == 0);
    CHECK_FALSE(report.decay_clamped);
  }
  CHECK(same(w, start));
  g = {1, 0, 0};
  CHECK(*opt.step().mean_square > 0);
  CHECK(w[1] > -2);

  // In two passes too.
  using namespace gradus;
  std::vector<float> v = start, zero(3, 0.0f);
  optimizer two(compose(0.1, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{}, decay::scheduled{0.5}));
  two.add(v, zero);
  CHECK(two.step().decay_factor == 0);
  CHECK(same(v, start));
}

TEST_CASE("a decay of more than everything is held to everything, and reported")
{
  // |g| ≈ 1e-7 makes s ≈ 5: in the authors' code the weights would change their sign and grow.
  std::vector<float> w{1, -2, 3}, g{1e-7f, -1e-7f, 1e-7f}, from_zero(3, 0.0f);
  gradus::optimizer<gradus::adams> opt({.lr = 1e-3, .weight_decay = 5e-4}), still({.lr = 1e-3, .weight_decay = 0});
  opt.add(w, g);
  still.add(from_zero, g);
  const auto report = opt.step();
  still.step();
  CHECK(report.decay_clamped);
  CHECK(*report.decay_factor > 9e6);
  CHECK(same(w, from_zero));  // (1 − 1)·w − u
  // A group that does not decay is not drawn in, but another's clamping is reported.
  std::vector<float> bias{1, 2, 3}, bias_gradients{1e-7f, 1e-7f, 1e-7f};
  const auto undecayed = opt.add_group({.lr = 1e-3, .weight_decay = 0});
  opt.add(bias, bias_gradients, undecayed);
  CHECK(opt.step().decay_clamped);
  CHECK(bias[2] == doctest::Approx(3).epsilon(1e-3));
}

TEST_CASE("eps of a scheduled decay is added to the mean")
{
  using namespace gradus;
  std::vector<double> w{1, -2, 3}, g{1e-7, -1e-7, 1e-7};
  optimizer<decltype(compose(0, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{}, decay::scheduled{})), double> opt(
      compose(1e-3, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{}, decay::scheduled{.weight_decay = 5e-4, .eps = 1e-2}));
  opt.add(w, g);
  const auto report = opt.step();
  CHECK_FALSE(report.decay_clamped);
  CHECK(*report.mean_square == doctest::Approx(1e-14));  // as it is, without eps
  CHECK(*report.decay_factor == doctest::Approx(10));
  CHECK(w[2] == doctest::Approx(3 * (1 - 1e-3 * 5e-4 * 10) - 1e-3 / (1 + 0.1)).epsilon(1e-9));
  // Of zero gradients too: eps is what the paper proposes against the division by zero.
  std::vector<double> v{1, -2, 3}, zero(3, 0.0);
  decltype(opt) other(opt.hyperparameters());
  other.add(v, zero);
  CHECK(*other.step().decay_factor == doctest::Approx(10));
  CHECK(v[0] == doctest::Approx(1 - 1e-3 * 5e-4 * 10).epsilon(1e-12));
}

// ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("bytes of state a parameter")
{
  const auto check = [](auto recipe, std::size_t expected) {
    using Recipe = decltype(recipe);
    std::vector<float> w(100, 1.0f), g(100, 1.0f);
    std::vector<double> v(100, 1.0), d(100, 1.0);
    gradus::optimizer<Recipe> opt(recipe);
    CHECK(opt.state_bytes() == 0);
    opt.add(w, g);
    CHECK(opt.state_bytes() == expected * 100);
    gradus::optimizer<Recipe, double> in_double(recipe);
    in_double.add(v, d);
    CHECK(in_double.state_bytes() == 2 * expected * 100);
  };
  check(gradus::sgd{}, 0);
  check(gradus::sgd{.momentum = 0.9}, 4);
  check(gradus::sgds{.momentum = 0.9}, 4);
  check(gradus::adam{}, 8);
  check(gradus::adamw{}, 8);
  check(gradus::adams{}, 8);
  check(gradus::amsgrad{}, 12);
  check(gradus::yogi{}, 8);
  check(gradus::adabound{}, 8);
  check(gradus::padam{}, 12);
  check(gradus::radam{}, 8);
  static_assert(gradus::optimizer<gradus::adam>::rule_type::state_bytes<float> == 8);
  static_assert(gradus::optimizer<gradus::padam>::rule_type::state_bytes<double> == 24);
  static_assert(gradus::optimizer<gradus::sgd>::rule_type::state_bytes<float> == 4);
}

TEST_CASE("what visit_state shows, in what order")
{
  tensor<float> a(3, 1), b(2, 2);
  std::vector<std::string> seen;
  const auto note = [&](std::string_view name, std::string_view key, auto values) {
    using element = std::remove_const_t<typename decltype(values)::element_type>;
    seen.push_back(std::string(name) + '/' + std::string(key) + ' ' + std::to_string(values.size()) + ' ' +
                   (std::is_same_v<element, float> ? "float" : std::is_same_v<element, double> ? "double" : "count"));
  };
  gradus::optimizer<gradus::adams> opt;
  opt.add("a", a.weights, a.gradients);
  opt.add("b", b.weights, b.gradients);
  std::as_const(opt).visit_state(note);
  const std::vector<std::string> expected{
      "a/exp_avg 3 float",        "a/exp_avg_sq 3 float",      "a/step 1 count", "a/exp_avg_sq_sum 1 double",
      "b/exp_avg 2 float",        "b/exp_avg_sq 2 float",      "b/step 1 count", "b/exp_avg_sq_sum 1 double",
      "/exp_avg_sq_sum_is_of_model 1 count"};
  CHECK((seen == expected));
  seen.clear();
  gradus::optimizer<gradus::sgd> plain;
  plain.add("a", a.weights, a.gradients);
  plain.visit_state(note);
  CHECK((seen == std::vector<std::string>{"a/step 1 count"}));
  plain.set_hyperparameters({.momentum = 0.9});
  seen.clear();
  plain.visit_state(note);
  CHECK((seen == std::vector<std::string>{"a/momentum_buffer 3 float", "a/step 1 count"}));
}

namespace {

// A run of 20 steps through all that can happen to tensors; the same when it is cut after step `cut` and gone on with in
// another optimizer that is given the checkpoint.
struct events {
  bool late = false;      // the second tensor comes at step 3
  bool pause = false;     // the third is left out of steps 4 to 8
  bool groups = false;    // the last is of a group of its own
  bool give_norm = false; // the norm is given where it may be
};

template <class Recipe>
std::vector<tensor<float>> run(const Recipe& recipe, const events& e, int cut)
{
  auto model = tensors<float>({7, 45, 5000});
  std::optional<gradus::optimizer<Recipe>> opt;
  std::vector<gradus::tensor_handle> handles(3);
  gradus::group_handle group;
  const auto add = [&](std::size_t i) {
    const std::string name = "t" + std::to_string(i);
    handles[i] = e.groups && i == 2 ? opt->add(name, model[i].weights, model[i].gradients, group)
                                    : opt->add(name, model[i].weights, model[i].gradients);
  };
  const auto start = [&](bool all) {
    opt.emplace(recipe);
    Recipe other = recipe;
    other.lr *= 0.5;
    other.weight_decay = 0;
    group = opt->add_group(other);
    for (std::size_t i = 0; i < 3; ++i)
      if (all || !e.late || i != 1)
        add(i);
  };
  start(false);
  for (int t = 0; t < 20; ++t) {
    if (e.late && t == 3)
      add(1);
    if (e.pause && t == 4)
      opt->freeze(handles[2]);
    if (e.pause && t == 9)
      opt->unfreeze(handles[2]);
    if (t == cut) {
      const checkpoint saved = save(*opt);
      start(t >= 3);
      if (e.pause && t >= 4 && t < 9)
        opt->freeze(handles[2]);
      restore(*opt, saved);
      CHECK((save(*opt) == saved));
    }
    double norm_sq = 0;
    for (auto& x : model) {
      x.compute(t);
      norm_sq += gradus::squared_norm(gradus::backend::scalar{}, std::span<const float>(x.gradients));
    }
    opt->step({.lr_scale = t < 10 ? 1 : 0.1, .grad_norm_sq = e.give_norm ? std::optional(norm_sq) : std::nullopt});
  }
  return model;
}

template <class Recipe>
void check_resumes(const Recipe& recipe, const events& e)
{
  const auto uninterrupted = run(recipe, e, -1);
  for (const int cut : {0, 1, 2, 4, 5, 6, 7, 9, 10, 19}) {
    CAPTURE(cut);
    CHECK(same(run(recipe, e, cut), uninterrupted));
  }
}

}  // namespace

TEST_CASE("nothing is lost: saved at any step and gone on with elsewhere, a run keeps its bits")
{
  for (const events& e : {events{}, events{.groups = true, .give_norm = true}, events{.late = true, .groups = true},
                          events{.pause = true}, events{.late = true, .pause = true, .groups = true}}) {
    check_resumes(scheduled, e);
    if (e.give_norm)
      continue;
    check_resumes(gradus::sgd{.lr = 0.01, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.01}, e);
    check_resumes(gradus::amsgrad{.lr = 0.01, .weight_decay = 0.01}, e);
    check_resumes(gradus::radam{.lr = 0.01, .beta2 = 0.95, .weight_decay = 0.01}, e);  // rectified from step 6 on
  }
}

TEST_CASE("second moments written by hand count after recompute_second_moment_sum")
{
  tensor<double> a(20, 1), b(20, 1);
  gradus::optimizer<gradus::adams, double> opt(scheduled), other(scheduled);
  opt.add("a", a.weights, a.gradients);
  other.add("a", b.weights, b.gradients);
  opt.step();
  other.step();
  for (double& v : opt.state("a", "exp_avg_sq"))
    v *= 16;
  opt.recompute_second_moment_sum();
  const auto report = opt.step();
  double sum = 0;
  for (const double v : opt.state("a", "exp_avg_sq"))
    sum += v;
  CHECK(*report.mean_square == doctest::Approx(sum / 20 / (1 - 0.99 * 0.99)).epsilon(1e-12));
  // Where nothing was written, recompute_second_moment_sum is no more than rounding.
  const auto expected = other.step();
  (void)expected;
  other.recompute_second_moment_sum();
  other.recompute_second_moment_sum();
  const auto after = other.step();
  sum = 0;
  for (const double v : other.state("a", "exp_avg_sq"))
    sum += v;
  CHECK(*after.mean_square == doctest::Approx(sum / 20 / (1 - 0.99 * 0.99 * 0.99)).epsilon(1e-12));
}

// ── memory of one's own ──────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// The sentence of a refusal, or nothing.
template <class Call>
std::string refusal(Call&& call)
{
  try {
    call();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return {};
}

// n numbers that start as 1, 2, … and can be asked for in part.
template <class T>
struct arena {
  std::vector<T> numbers;
  explicit arena(std::size_t n)
  {
    for (std::size_t i = 0; i < n; ++i)
      numbers.push_back(T(i + 1));
  }
  std::span<T> part(std::size_t begin, std::size_t n) { return std::span<T>(numbers).subspan(begin, n); }
};

}  // namespace

TEST_CASE_TEMPLATE("add: memory that another tensor uses is refused, and both are named", T, float, double)
{
  arena<T> w(40), g(40);
  gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
  const auto a = opt.add("a", w.part(10, 10), g.part(10, 10));
  const auto expected = [](const char* new_one, const char* old_one) {
    return "gradus: " + std::string(new_one) + " of tensor \"b\" overlap the " + old_one +
           " of tensor \"a\"; expected memory of their own";
  };
  const std::string twice = expected("parameters", "parameters");
  // The same, what begins in it, ends in it, lies in it, has it in itself, and by one element.
  const std::size_t parts[][2] = {{10, 10}, {15, 10}, {5, 10}, {12, 3}, {0, 40}, {19, 1}, {1, 10}, {19, 10}};
  for (const auto& x : parts)
    CHECK(refusal([&] { opt.add("b", w.part(x[0], x[1]), g.part(0, x[1])); }) == twice);
  arena<T> spare(40);
  CHECK(refusal([&] { opt.add("b", g.part(19, 3), spare.part(0, 3)); }) == expected("parameters", "gradients"));
  CHECK(refusal([&] { opt.add("b", spare.part(0, 3), w.part(8, 3)); }) == expected("gradients", "parameters"));
  // Who is left out has its place still.
  opt.freeze(a);
  CHECK(refusal([&] { opt.add("b", w.part(10, 10), g.part(0, 10)); }) == twice);
  opt.unfreeze(a);
  CHECK(opt.parameter_count() == 10);

  // Beside it, and nothing at all, is no overlap; and many may read one gradient.
  CHECK_NOTHROW(opt.add("left", w.part(0, 10), g.part(10, 10)));
  CHECK_NOTHROW(opt.add("right", w.part(20, 10), g.part(15, 10)));
  CHECK_NOTHROW(opt.add("empty", w.part(15, 0), g.part(15, 0)));
  opt.step();
  CHECK(w.numbers[10] == T(11 - 11));
  CHECK(w.numbers[20] == T(21 - 16));

  // What was removed is free.
  opt.remove(a, gradus::removed_state::kept);
  CHECK_NOTHROW(opt.add("b", w.part(12, 8), spare.part(0, 8)));
  CHECK(refusal([&] { opt.add("a", w.part(10, 10), g.part(10, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
}

TEST_CASE("rebind: memory that another tensor uses is refused, one's own is not")
{
  arena<float> w(40), g(40), spare(40);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto a = opt.add("a", w.part(0, 10), g.part(0, 10));
  opt.add("b", w.part(10, 10), g.part(10, 10));
  CHECK(refusal([&] { opt.rebind(a, w.part(5, 10), g.part(0, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind(a, g.part(10, 10), spare.part(0, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the gradients of tensor \"b\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind(a, w.part(0, 10), w.part(15, 10)); }) ==
        "gradus: gradients of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
  // It is where it was, and its place is taken still.
  opt.step();
  CHECK(w.numbers[0] == 0);
  CHECK_FALSE(refusal([&] { opt.add(w.part(3, 1), spare.part(0, 1)); }).empty());
  // Moved by less than its length, and onto its gradients' old place.
  opt.rebind(a, w.part(20, 10), g.part(10, 10));
  opt.rebind(a, w.part(25, 10), g.part(10, 10));
  opt.rebind(a, g.part(0, 10), spare.part(0, 10));
  opt.rebind(a, g.part(0, 10), spare.part(0, 10));
  CHECK_NOTHROW(opt.add("c", w.part(20, 20), spare.part(0, 20)));
  opt.step();
  CHECK(g.numbers[4] == 0);
}

TEST_CASE("rebind: several at once may take each other's places, all or none")
{
  arena<float> w(40), g(40);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto a = opt.add("a", w.part(0, 10), g.part(0, 10));
  const auto b = opt.add("b", w.part(10, 10), g.part(10, 10));
  const auto c = opt.add("c", w.part(20, 10), g.part(20, 10));
  using rebinding = decltype(opt)::rebinding;
  CHECK_FALSE(refusal([&] { opt.rebind(a, w.part(10, 10), g.part(10, 10)); }).empty());
  const std::vector<rebinding> round{{a, w.part(10, 10), g.part(10, 10)}, {b, w.part(20, 10), g.part(20, 10)}, {c, w.part(0, 10), g.part(0, 10)}};
  opt.rebind_spans(round);
  opt.step();
  CHECK(w.numbers == std::vector<float>([] {
    std::vector<float> v(40, 0.0f);
    for (std::size_t i = 30; i < 40; ++i)
      v[i] = float(i + 1);
    return v;
  }()));
  // The last of three is refused: nobody has moved.
  const std::vector<rebinding> bad{{a, w.part(0, 10), g.part(0, 10)}, {b, w.part(30, 10), std::nullopt}, {c, w.part(5, 10), g.part(0, 10)}};
  CHECK(refusal([&] { opt.rebind_spans(bad); }) ==
        "gradus: parameters of tensor \"c\" overlap the parameters of tensor \"a\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind_spans(std::vector<rebinding>{round[0], round[1], round[0]}); }) ==
        "gradus: tensor \"a\" occurs twice in the list; expected each tensor once");
  opt.step();
  CHECK(w.numbers[5] == -6);    // c's
  CHECK(w.numbers[15] == -16);  // a's
  CHECK(w.numbers[25] == -26);  // b's
  CHECK(w.numbers[35] == 36);
  CHECK_NOTHROW(opt.add("d", w.part(30, 10), g.part(0, 10)));
}

TEST_CASE("whatever comes, moves and goes, what overlaps is refused and nothing else")
{
  support::random r(3);
  const auto below = [&](std::size_t n) { return std::size_t(r.uniform(0, double(n))); };
  arena<float> memory(300);
  struct known {
    gradus::tensor_handle handle;
    std::size_t n, w, g;
  };
  gradus::optimizer<gradus::sgd> opt;
  std::vector<known> all;
  int refused = 0, accepted = 0;
  for (int k = 0; k < 3000; ++k) {
    const std::size_t at = all.empty() ? 0 : below(2 * all.size());  // a tensor, or a new one
    const bool is_new = at >= all.size();
    const std::size_t n = is_new ? below(k % 2 ? 4 : 20) : all[at].n, w = below(300 - n), g = below(300 - n);
    if (!is_new && (all.size() > 12 || below(3) == 0)) {
      opt.remove(all[at].handle, gradus::removed_state::dropped);
      all.erase(all.begin() + std::ptrdiff_t(at));
      continue;
    }
    const auto meet = [](std::size_t a, std::size_t n_a, std::size_t b, std::size_t n_b) {
      return n_a > 0 && n_b > 0 && a < b + n_b && b < a + n_a;
    };
    bool overlaps = meet(w, n, g, n);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (is_new || i != at)
        overlaps = overlaps || meet(w, n, all[i].w, all[i].n) || meet(w, n, all[i].g, all[i].n) || meet(g, n, all[i].w, all[i].n);
    gradus::tensor_handle handle;
    const std::string sentence = refusal([&] {
      if (is_new)
        handle = opt.add(memory.part(w, n), memory.part(g, n));
      else
        opt.rebind(all[at].handle, memory.part(w, n), memory.part(g, n));
    });
    REQUIRE(sentence.empty() == !overlaps);
    (overlaps ? refused : accepted)++;
    if (!overlaps && is_new)
      all.push_back({handle, n, w, g});
    else if (!overlaps)
      all[at] = {all[at].handle, n, w, g};
  }
  CHECK(refused > 300);
  CHECK(accepted > 300);
}

// ── gradients that come later ────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE_TEMPLATE("add: without gradients, a tensor stands still until it has some", T, float, double)
{
  tensor<T> a(37, 1), alone(37, 1);
  const auto start = a.weights;
  gradus::optimizer<gradus::adams, T> opt(scheduled), fresh(scheduled);
  const auto h = opt.add_spans("a", a.weights, std::nullopt);
  const auto report = opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
  CHECK(report.applied);
  CHECK(report.grad_norm == 0);
  CHECK(report.mean_square == 0);
  CHECK(refusal([&] { opt.unfreeze(h); }) ==
        "gradus: tensor \"a\" has no gradients; expected rebind_gradients(tensor, gradients) before unfreeze(tensor)");
  // Whatever a visitor writes, no step reads gradients that are not there.
  for (const bool written : {true, false, true}) {
    opt.visit_tensors([&](std::string_view, auto, std::size_t, bool& takes_part) { takes_part = written; });
    opt.step();
  }
  CHECK(same(a.weights, start));
  CHECK(opt.step_count(h) == 0);
  opt.rebind_gradients_spans(h, a.gradients);
  fresh.add(alone.weights, alone.gradients);
  opt.step();
  fresh.step();
  CHECK(same(a.weights, alone.weights));
  // And back again: its state stays.
  opt.rebind_spans(h, a.weights, std::nullopt);
  opt.step();
  CHECK(same(a.weights, alone.weights));
  opt.rebind_spans(h, a.weights, a.gradients);
  opt.step();
  fresh.step();
  CHECK(same(a.weights, alone.weights));
  CHECK(opt.step_count(h) == 2);
}

TEST_CASE("rebind_gradients: who was left out stays so")
{
  tensor<float> a(5, 1), b(6, 2);
  const auto start = a.weights;
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add_spans("a", a.weights, std::nullopt);
  opt.add(b.weights, b.gradients);
  opt.freeze(h);
  opt.rebind_gradients_spans(h, a.gradients);
  opt.step();
  CHECK(same(a.weights, start));
  opt.unfreeze(h);
  opt.step();
  CHECK_FALSE(same(a.weights, start));
  CHECK(refusal([&] { opt.rebind_gradients_spans(h, b.gradients); }) ==
        "gradus: size of gradients of tensor \"a\" is 6; expected 5, the size of its parameters");
  CHECK(refusal([&] { opt.rebind_gradients_spans(h, std::span<const float>(b.weights).first(5)); }) ==
        "gradus: gradients of tensor \"a\" overlap the parameters of tensor \"tensor1\"; expected memory of their own");
  // A visitor that leaves it as it is does not leave it out.
  const auto h2 = opt.add_spans("c", std::span(b.gradients).first(0), std::nullopt);
  opt.visit_tensors([](std::string_view, auto, std::size_t, bool&) {});
  opt.rebind_gradients_spans(h2, {});
  opt.step();
  CHECK(opt.step_count(h2) == 1);
}

// ── who takes part, of many ages ─────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("however tensors come, pause and go, each is as old as its own steps")
{
  support::random r(5);
  const auto below = [&](std::size_t n) { return std::size_t(r.uniform(0, double(n))); };
  constexpr std::size_t n = 40;
  auto model = tensors<float>(std::vector<std::size_t>(n, 3)), alone = model;
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9});
  std::vector<gradus::optimizer<gradus::radam>> each;
  std::vector<gradus::tensor_handle> handles;
  std::vector<bool> takes_part(n, true);
  const auto group = opt.add_group({.lr = 0.02, .beta2 = 0.9});
  for (std::size_t i = 0; i < n; ++i) {
    each.emplace_back(opt.hyperparameters(i % 3 ? gradus::group_handle{} : group));
    each.back().add(alone[i].weights, alone[i].gradients);
    handles.push_back(opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients, i % 3 ? gradus::group_handle{} : group));
  }
  for (int t = 0; t < 60; ++t) {
    for (std::size_t k = 0; k < 15; ++k) {
      const std::size_t i = below(n);
      if (below(4) == 0) {
        opt.remove(handles[i], gradus::removed_state::kept);
        handles[i] = opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients);
        takes_part[i] = true;
      } else {
        takes_part[i] ? opt.freeze(handles[i]) : opt.unfreeze(handles[i]);
        takes_part[i] = !takes_part[i];
      }
    }
    if (t % 10 == 5)  // all but a few, so that cohorts are done with
      for (std::size_t i = 3; i < n; ++i) {
        opt.freeze(handles[i]);
        takes_part[i] = false;
      }
    opt.step();
    for (std::size_t i = 0; i < n; ++i)
      if (takes_part[i])
        each[i].step();
    CHECK(same(model, alone));
  }
}

TEST_CASE("freeze, unfreeze: as fast among many ages as among few")
{
  const auto seconds = [](std::size_t tensors) {
    std::vector<float> w(tensors), g(tensors);
    gradus::optimizer<gradus::sgd> opt;
    std::vector<gradus::tensor_handle> handles;
    for (std::size_t i = 0; i < tensors; ++i)
      handles.push_back(opt.add(std::span(w).subspan(i, 1), std::span(g).subspan(i, 1)));
    std::uint64_t age = 0;
    opt.visit_state([&](std::string_view, std::string_view, auto values) {
      if constexpr (std::is_same_v<typename decltype(values)::element_type, std::uint64_t>)
        values[0] = age++;
    });
    double best = 1e9;
    for (int k = 0; k < 3; ++k) {
      const auto start = std::chrono::steady_clock::now();
      for (std::size_t i = 0; i < 1000; ++i)
        opt.freeze(handles[i]);
      for (std::size_t i = 0; i < 1000; ++i)
        opt.unfreeze(handles[i]);
      best = std::fmin(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  };
  CHECK(seconds(24000) < 8 * seconds(1000));  // 24 where every cohort is looked at
}

// ── out of turn ──────────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("what was moved from refuses every call, in the same words")
{
  const std::string expected = "gradus: this optimizer has been moved from; expected the one it was moved to";
  tensor<float> a(5, 1), b(5, 2);
  gradus::optimizer<gradus::adam> opt;
  const auto group = opt.add_group({});
  const auto h = opt.add("a", a.weights, a.gradients);
  gradus::optimizer<gradus::adam> other = std::move(opt);
  const gradus::optimizer<gradus::adam>& constant = opt;
  const auto none = [](auto&&...) {};
  CHECK(refusal([&] { opt.add("b", b.weights, b.gradients); }) == expected);
  CHECK(refusal([&] { opt.add(b.weights, b.gradients, group); }) == expected);
  CHECK(refusal([&] { opt.add_group({}); }) == expected);
  CHECK(refusal([&] { opt.hyperparameters(); }) == expected);
  CHECK(refusal([&] { opt.hyperparameters(group); }) == expected);
  CHECK(refusal([&] { opt.set_hyperparameters({}); }) == expected);
  CHECK(refusal([&] { opt.lr(); }) == expected);
  CHECK(refusal([&] { opt.set_lr(1); }) == expected);
  CHECK(refusal([&] { opt.rebind(h, b.weights, b.gradients); }) == expected);
  CHECK(refusal([&] { opt.rebind_gradients_spans(h, b.gradients); }) == expected);
  CHECK(refusal([&] { opt.freeze(h); }) == expected);
  CHECK(refusal([&] { opt.unfreeze(h); }) == expected);
  CHECK(refusal([&] { opt.remove(h, gradus::removed_state::kept); }) == expected);
  CHECK(refusal([&] { opt.set_padding(h, [](std::size_t) { return false; }); }) == expected);
  CHECK(refusal([&] { opt.step_count(h); }) == expected);
  CHECK(refusal([&] { opt.parameter_count(); }) == expected);
  CHECK(refusal([&] { opt.state_bytes(); }) == expected);
  CHECK(refusal([&] { opt.state("a", "exp_avg"); }) == expected);
  CHECK(refusal([&] { opt.visit_state(none); }) == expected);
  CHECK(refusal([&] { constant.visit_state(none); }) == expected);
  CHECK(refusal([&] { opt.visit_tensors(none); }) == expected);
  CHECK(refusal([&] { constant.visit_tensors(none); }) == expected);
  CHECK(refusal([&] { opt.group_count(); }) == expected);
  CHECK(refusal([&] { opt.group_at(0); }) == expected);
  CHECK(refusal([&] { opt.recompute_second_moment_sum(); }) == expected);
  CHECK(refusal([&] { opt.step(); }) == expected);
  CHECK(refusal([&] { opt.report(); }) == expected);
  // It can be given another, and is then as good as that.
  opt = std::move(other);
  CHECK_NOTHROW(opt.step());
  CHECK(opt.step_count(h) == 1);
  CHECK(refusal([&] { other.step(); }) == expected);
}

TEST_CASE("moved to itself, an optimizer keeps everything")
{
  tensor<float> a(5, 1), alone(5, 1);
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  const auto h = opt.add("a", a.weights, a.gradients);
  reference.add("a", alone.weights, alone.gradients);
  for (int t = 0; t < 3; ++t) {
    auto& same_one = opt;
    opt = std::move(same_one);
    opt.step();
    reference.step();
  }
  CHECK(opt.step_count(h) == 3);
  CHECK(same(a.weights, alone.weights));
  CHECK((save(opt) == save(reference)));
}

TEST_CASE("visitors may read an optimizer; changes are refused until they have returned")
{
  const std::string expected =
      "gradus: this optimizer is being visited; expected no change to it until visit_state or visit_tensors has returned";
  tensor<float> a(5, 1), b(5, 2), c(5, 3);
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add("a", a.weights, a.gradients);
  opt.add("b", b.weights, b.gradients);
  opt.step();
  const auto before = save(opt);
  int visits = 0;
  const auto meddle = [&](auto&&...) {
    ++visits;
    CHECK(refusal([&] { opt.add(c.weights, c.gradients); }) == expected);
    CHECK(refusal([&] { opt.remove(h, gradus::removed_state::dropped); }) == expected);
    CHECK(refusal([&] { opt.freeze(h); }) == expected);
    CHECK(refusal([&] { opt.unfreeze(h); }) == expected);
    CHECK(refusal([&] { opt.rebind(h, c.weights, c.gradients); }) == expected);
    CHECK(refusal([&] { opt.add_group({}); }) == expected);
    CHECK(refusal([&] { opt.set_hyperparameters({}); }) == expected);
    CHECK(refusal([&] { opt.set_lr(1); }) == expected);
    CHECK(refusal([&] { opt.recompute_second_moment_sum(); }) == expected);
    CHECK(refusal([&] { opt.step(); }) == expected);
    CHECK(opt.step_count(h) == 1);
    CHECK((save(opt) == before));
  };
  opt.visit_state(meddle);
  opt.visit_tensors(meddle);
  std::as_const(opt).visit_state(meddle);
  std::as_const(opt).visit_tensors(meddle);
  CHECK(visits == 2 * (6 + 2));
  CHECK_THROWS_AS(opt.visit_tensors([](auto&&...) { throw 1; }), int);
  CHECK_NOTHROW(opt.add(c.weights, c.gradients));  // and afterwards all is as before
  opt.step();
  CHECK(opt.step_count(h) == 2);
}

// ── options, reports, learning rates ─────────────────────────────────────────────────────────────────────────────────

namespace {

template <class... X>
concept makes_options = requires(X... x) { gradus::step_options{x...}; };
template <class X>
concept may_be_stepped_with = requires(gradus::optimizer<gradus::sgd>& opt, X x) { opt.step({x}); };
template <class X>
concept may_be_stepped_with_bare = requires(gradus::optimizer<gradus::sgd>& opt, X x) { opt.step(x); };
static_assert(makes_options<> && makes_options<gradus::step_options>);
static_assert(!makes_options<double> && !makes_options<int> && !makes_options<bool> && !makes_options<double, double>);
static_assert(!may_be_stepped_with<double> && !may_be_stepped_with<float> && !may_be_stepped_with<bool> &&
              !may_be_stepped_with<std::optional<double>> && !may_be_stepped_with_bare<double>);

}  // namespace

TEST_CASE("options have names")
{
  std::vector<float> w{0}, g{1};
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  opt.add(w, g);
  opt.step();
  opt.step({});
  opt.step({.lr_scale = 0.5});
  gradus::step_options o;
  o.lr_scale = 0.25;
  opt.step(o);
  CHECK(w[0] == -2.75f);
}

TEST_CASE("report: what the last step did, on every backend")
{
  std::vector<float> w(3, 1), g(3, 1);
  gradus::optimizer<gradus::adams> opt(scheduled);
  CHECK_FALSE(opt.report().applied);
  opt.add(w, g);
  CHECK_FALSE(opt.report().applied);
  const auto report = opt.step({.max_grad_norm = 1});
  if (!report.pending) {
    CHECK(report.applied);
    CHECK(report.grad_norm == std::sqrt(3.0));
  } else
    CHECK_FALSE(report.applied);  // nothing is claimed before it is known
  CHECK(opt.report().applied);
  CHECK_FALSE(opt.report().pending);
  CHECK(opt.report().grad_norm == std::sqrt(3.0));
  CHECK(*opt.report().mean_square == doctest::Approx(1.0 / 3).epsilon(1e-5));  // of the clipped gradients
  g[1] = std::numeric_limits<float>::infinity();
  opt.step({.skip_nonfinite = true});
  CHECK_FALSE(opt.report().applied);
}

TEST_CASE_TEMPLATE("set_lr: of a group, from the next step on, and no other hyperparameter", T, float, double)
{
  std::vector<T> w{0}, v{0}, g{1};
  gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
  const auto group = opt.add_group({.lr = 2});
  opt.add(w, g);
  opt.add(v, g, group);
  opt.set_lr(0.25);
  CHECK(opt.lr() == 0.25);
  CHECK(opt.lr(group) == 2);
  opt.step();
  CHECK(w[0] == T(-0.25));
  CHECK(v[0] == T(-2));
  opt.set_lr(4, group);
  opt.step();
  CHECK(v[0] == T(-6));
  CHECK(w[0] == T(-0.5));
  CHECK(refusal([&] { opt.set_lr(-1); }) == "gradus: lr is -1; expected a finite number >= 0");
  CHECK(opt.lr() == 0.25);
  static_assert(!requires { opt.hyperparameters().lr = 1.0; });
  auto h = opt.hyperparameters();
  h.lr = 3;
  CHECK(opt.lr() == 0.25);  // a copy
  opt.set_hyperparameters(h);
  CHECK(opt.lr() == 3);
  // Of a composition too.
  gradus::optimizer composed(gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema{}, gradus::step_size::adaptive{}, gradus::decay::none{}));
  composed.set_lr(0.5);
  CHECK(composed.lr() == 0.5);
}

// ── padding ──────────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// As oneDNN pads channels to blocks of 16: of each block of 16 the first so many are numbers.
constexpr std::size_t in_block = 10;
constexpr bool is_padding(std::size_t i)
{
  return i % 16 >= in_block;
}

// Steps of a padded tensor beside those of its numbers alone, with another tensor in the model; whether padding stays 0, and
// the largest relative difference of the weights and of v̄.
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
        zeros = zeros && (!is_padding(i) || values[i] == 0);
    CHECK_MESSAGE(zeros, (std::string(name) + ' ' + std::string(key)));
  });
  return worst;
}

}  // namespace

TEST_CASE("padding: v-bar is the mean over the numbers alone")
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
    const double v = moments_first ? mean_square(optimizer(compose(1e-3, first_moment::ema{}, second_moment::yogi{}, step_size::adaptive{}, decay::scheduled{0.1})))
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
    const double worst = padded_difference<float>(recipe, name), worst_in_double = padded_difference<double>(recipe, name);
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

TEST_CASE("padding: a range of bool, sizes, and a tensor that is all padding or comes back")
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
