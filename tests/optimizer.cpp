// optimizer.hpp: what an optimizer is, how it moves, and what it refuses.

#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/refusal.hpp"
#include "support/scene.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::check_refused, support::refusal, support::same, support::save, support::scalar_optimizer, support::scene;
using support::scheduled, support::tensor, support::tensors;

}  // namespace

static_assert(!std::is_copy_constructible_v<gradus::optimizer<gradus::adam>>);
static_assert(!std::is_copy_assignable_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_nothrow_move_constructible_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_nothrow_move_assignable_v<gradus::optimizer<gradus::adam>>);
static_assert(std::is_default_constructible_v<gradus::optimizer<gradus::adam>>);
// A recipe is not silently an optimizer.
static_assert(!std::is_convertible_v<gradus::adam, gradus::optimizer<gradus::adam>>);

TEST_CASE("optimizer: the template's defaults are float and the default backend")
{
  using opt = gradus::optimizer<gradus::adam>;
  static_assert(std::is_same_v<opt::value_type, float> && std::is_same_v<opt::backend_type, gradus::default_backend>);
  static_assert(std::is_same_v<opt::recipe_type, gradus::adam>);
  gradus::optimizer deduced(gradus::adam{});
  static_assert(std::is_same_v<decltype(deduced), opt>);
}

TEST_CASE("move: tensors, groups and handles stay good")
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

TEST_CASE("move: an optimizer that is moved to itself keeps everything")
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

TEST_CASE("move: an optimizer that was moved from refuses every call")
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

TEST_CASE("step: refused where there is no tensor to move")
{
  const char* const message =
      "gradus: step() has no tensors; expected at least one add(parameters, gradients) before it";
  scalar_optimizer<gradus::adams> opt;
  CHECK_THROWS_WITH_AS(opt.step(), message, std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.step({.grad_norm_sq = 1}), message, std::invalid_argument);
  for (const auto state : {gradus::removed_state::dropped, gradus::removed_state::kept}) {
    scene<gradus::adams> s;
    s.opt.remove(s.w, state);
    s.opt.remove(s.b, state);
    CHECK_THROWS_WITH_AS(s.opt.step(), message, std::invalid_argument);
    CHECK(s.opt.parameter_count() == 0);
    s.w = s.opt.add("weight", s.weight, s.weight_gradient);
    CHECK_NOTHROW(s.opt.step());
    CHECK(s.opt.step_count(s.w) == (state == gradus::removed_state::kept ? 3 : 1));
  }
}

TEST_CASE("state: a tensor or a slot that is not there is refused")
{
  check_refused("gradus: name is \"weigth\"; expected the name of a tensor of this optimizer",
                [](auto& s) { s.opt.state("weigth", "exp_avg"); });
  check_refused("gradus: name is \"\"; expected the name of a tensor of this optimizer",
                [](auto& s) { s.opt.state("", "exp_avg"); });
  check_refused("gradus: slot of tensor \"weight\" is \"momentum_buffer\"; expected \"exp_avg\" or \"exp_avg_sq\"",
                [](auto& s) { s.opt.state("weight", "momentum_buffer"); });
  check_refused<gradus::sgd>("gradus: slot of tensor \"weight\" is \"exp_avg\"; expected \"momentum_buffer\"",
                             [](auto& s) { std::as_const(s.opt).state("weight", "exp_avg"); }, {.momentum = 0.9});
  check_refused<gradus::sgd>(
      "gradus: slot of tensor \"weight\" is \"momentum_buffer\"; expected none, because the tensor has no state",
      [](auto& s) { s.opt.state("weight", "momentum_buffer"); });
}
