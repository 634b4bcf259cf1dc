// Every recipe over short numbers.

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/any_optimizer.hpp>
#include <gradus/gradus.hpp>

#include "support/precision_model.hpp"

using namespace support;

// With master weights, remainder16.cpp runs every recipe.
TEST_CASE_TEMPLATE("precision: every recipe agrees with float up to rounding", T, bf16_all, block8_state)
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
    h.lr = std::string_view(name) == "adadelta" ? 1 : 1e-2;  // the steps of adadelta are small
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

TEST_CASE_TEMPLATE("any_optimizer: has the precisions too", T, block8_state, bf16_remainder)
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
