// Visitors: what they are shown, what they may change and when.

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/refusal.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::checkpoint, support::refusal, support::restore, support::same, support::save, support::scheduled;
using support::tensor, support::tensors;

}  // namespace

TEST_CASE("visit_state: what it shows, in what order")
{
  tensor<float> a(3, 1), b(2, 2);
  std::vector<std::string> seen;
  const auto note = [&](std::string_view name, std::string_view key, auto values) {
    using element = std::remove_const_t<typename decltype(values)::element_type>;
    seen.push_back(std::string(name) + '/' + std::string(key) + ' ' + std::to_string(values.size()) + ' ' +
                   (std::is_same_v<element, float>    ? "float"
                    : std::is_same_v<element, double> ? "double"
                                                      : "count"));
  };
  gradus::optimizer<gradus::adams> opt;
  opt.add("a", a.weights, a.gradients);
  opt.add("b", b.weights, b.gradients);
  std::as_const(opt).visit_state(note);
  const std::vector<std::string> expected{"a/exp_avg 3 float",
                                          "a/exp_avg_sq 3 float",
                                          "a/step 1 count",
                                          "a/exp_avg_sq_sum 1 double",
                                          "b/exp_avg 2 float",
                                          "b/exp_avg_sq 2 float",
                                          "b/step 1 count",
                                          "b/exp_avg_sq_sum 1 double",
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

// A run of 20 steps through all that can happen to tensors; the same when it is cut after step `cut` and gone on with
// in another optimizer that is given the checkpoint.
struct events {
  bool late = false;       // the second tensor comes at step 3
  bool pause = false;      // the third is left out of steps 4 to 8
  bool groups = false;     // the last is of a group of its own
  bool give_norm = false;  // the norm is given where it may be
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

TEST_CASE("visit_state: a run that is saved at any step and goes on elsewhere keeps its bits")
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

TEST_CASE("visit_tensors: a visitor may leave out every tensor")
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

TEST_CASE("visit_state, visit_tensors: a visitor may read the optimizer, and changes are refused until it returns")
{
  const std::string expected = "gradus: this optimizer is being visited; expected no change to it until visit_state or "
                               "visit_tensors has returned";
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
