// Which tensors step together: those of one group and one number of steps; and who takes part in a step.

#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::same, support::save, support::scheduled, support::tensor, support::tensors;

}  // namespace

TEST_CASE("add: a tensor that is added late has a bias correction of its own")
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

TEST_CASE("freeze: a frozen tensor stands still, its step count too")
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

TEST_CASE("freeze: where all tensors are frozen, a step moves nothing")
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

TEST_CASE("freeze, unfreeze: between two steps they change no bit")
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

TEST_CASE("freeze, remove: however tensors come, pause and go, each has a step count of its own")
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

TEST_CASE("freeze, unfreeze: as fast among many step counts as among few")
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
