// A whole step over the host's memory: the scale and the norm of the gradients, and memory that starts anywhere.

#include <doctest/doctest.h>

#include <cstring>
#include <span>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/tensors.hpp"

namespace {

using support::same, support::scheduled, support::tensor, support::tensors;

}  // namespace

TEST_CASE("grad_scale: as good as gradients that are scaled")
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

TEST_CASE_TEMPLATE("grad_norm_sq: a norm that is given is as good as one that is computed", Recipe, gradus::adam,
                   gradus::adams)
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

TEST_CASE("step: parameters and gradients may start at any element")
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
