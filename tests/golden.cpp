// Trajectories recorded from PyTorch and from the papers' authors' code, replayed through the public API.

#include <doctest/doctest.h>

#include <cstdio>

#include <gradus/gradus.hpp>

#include "support/golden.hpp"

namespace {

#if !defined(GRADUS_TEST_DEVICE_VECTOR)  // as thrust_under_test.hpp has it
template <class Backend, class T>
using vector_for = std::vector<T>;
#endif

// What optimizer a recorded case stands for: the recipe with the longest name that the case's begins with, but for two that
// are compositions.
template <class Visit>
void with_recipe(const golden::recording& c, Visit&& visit)
{
  if (c.name == "adams_amsgrad") {
    const auto value = [&](const char* key) { return c.hyperparameters.at(key); };
    return visit(gradus::compose(value("lr"), gradus::first_moment::ema{.beta1 = value("beta1")},
                                 gradus::second_moment::ema_max{.beta2 = value("beta2")},
                                 gradus::step_size::adaptive{.eps = value("eps")},
                                 gradus::decay::scheduled{.weight_decay = value("weight_decay")}));
  }
  if (c.name == "adamw_cautious_decay") {
    const auto value = [&](const char* key) { return c.hyperparameters.at(key); };
    return visit(gradus::compose(value("lr"), gradus::first_moment::ema{.beta1 = value("beta1")},
                                 gradus::second_moment::ema{.beta2 = value("beta2")},
                                 gradus::step_size::adaptive{.eps = value("eps")},
                                 gradus::decay::cautious{.weight_decay = value("weight_decay")}));
  }
  std::string recipe_name;  // the longest
  gradus::for_each_recipe([&](std::string_view name, auto) {
    if ((c.name + '_').starts_with(std::string(name) + '_') && name.size() > recipe_name.size())
      recipe_name = name;
  });
  gradus::for_each_recipe([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    if (name != recipe_name)
      return;
    Recipe recipe;
    std::size_t used = 0;
    gradus::for_each_hyperparameter(recipe, [&](std::string_view field, auto& x, gradus::range) {
      if (const auto given = c.hyperparameters.find(std::string(field)); given != c.hyperparameters.end()) {
        x = static_cast<std::remove_reference_t<decltype(x)>>(given->second);
        ++used;
      }
    });
    REQUIRE(used == c.hyperparameters.size());
    if constexpr (requires { recipe.decoupled_weight_decay; })
      recipe.decoupled_weight_decay = recipe.decoupled_weight_decay || c.name == "radam_decoupled";
    visit(recipe);
  });
}

template <class Recipe>
Recipe without_decay(Recipe recipe)
{
  if constexpr (requires { recipe.weight_decay; })
    recipe.weight_decay = 0;
  else
    recipe.decay.weight_decay = 0;
  return recipe;
}

// The largest difference from what was recorded, relative to 1e-3 + |x|.
template <class T, class Backend, class Recipe>
double worst_difference(const golden::problem& p, const golden::recording& c, const Recipe& recipe)
{
  golden::model<T, vector_for<Backend, T>> model(p);
  gradus::optimizer<Recipe, T, Backend> opt(recipe);
  const auto undecayed = opt.add_group(without_decay(opt.hyperparameters()));
  for (auto& x : model.tensors)
    if (&x == &model.tensors.back())
      opt.add(x.weights, x.gradients, undecayed);
    else
      opt.add(x.weights, x.gradients);
  std::vector<double> milestones;
  for (const int drop : p.drops)
    milestones.push_back(drop - 1);  // schedules count from 0
  const gradus::schedule::multi_step schedule{.milestones = milestones, .gamma = 0.1};
  double worst = 0;
  std::size_t compared = 0;
  for (int t = 1; t <= p.steps; ++t) {
    model.compute_gradients(t);
    opt.step({.lr_scale = schedule(t - 1)});
    const auto recorded = c.at.find(t);
    if (recorded == c.at.end())
      continue;
    auto expected = recorded->second.begin();
    for (const auto& x : model.tensors)
      for (const T w : x.weights) {
        REQUIRE(expected != recorded->second.end());
        const double difference = std::fabs(double(w) - *expected) / (1e-3 + std::fabs(*expected));
        worst = difference > worst || std::isnan(difference) ? difference : worst;
        ++expected;
        ++compared;
      }
    CHECK(expected == recorded->second.end());
  }
  CHECK(compared == c.at.size() * 45);
  return worst;
}

// A file of recorded cases, and how near gradus comes to each.
struct recorded_file {
  golden::file file;
  std::size_t cases, points;  // how many cases there are, and at how many steps each is recorded
  double in_double, in_float;
};

const std::vector<recorded_file>& recorded()
{
  static const std::vector<recorded_file> files{
      {golden::read(GRADUS_TEST_DATA "/golden/trajectories.txt"), 15, 8, 1e-12, 5e-4},
      // In float the sign of an update that is almost 0 may differ from the sign in double.
      {golden::read(GRADUS_TEST_DATA "/golden/beyond.txt"), 19, 17, 1e-10, 5e-3}};
  return files;
}

}  // namespace

TEST_CASE("golden: all recorded trajectories are there")
{
  for (const recorded_file& r : recorded()) {
    CHECK(r.file.cases.size() == r.cases);
    CHECK(r.file.problem.steps == 200);
    for (const auto& c : r.file.cases)
      CHECK_MESSAGE(c.at.size() == r.points, c.name);
  }
  // Every optimizer that gradus lists has at least one.
  gradus::for_each_recipe([&](std::string_view name, auto) {
    bool found = false;
    for (const recorded_file& r : recorded())
      for (const auto& c : r.file.cases)
        found = found || c.name == name;
    CHECK_MESSAGE(found, name);
  });
}

// The other backends give the same bits (see backend/simd.cpp).
TEST_CASE("golden: every recipe follows the trajectories of PyTorch or the authors' code")
{
  using Backend = gradus::default_backend;
  for (const recorded_file& r : recorded())
    for (const auto& c : r.file.cases)
      with_recipe(c, [&](const auto& recipe) {
        const double in_double = worst_difference<double, Backend>(r.file.problem, c, recipe);
        std::printf("%-16s double %.1e", c.name.c_str(), in_double);
        CHECK_MESSAGE(in_double < r.in_double, c.name);
#if !defined(GRADUS_TEST_DOUBLE_ONLY)  // so tests/machines, to compile in half the time
        const double in_float = worst_difference<float, Backend>(r.file.problem, c, recipe);
        std::printf("  float %.1e", in_float);
        CHECK_MESSAGE(in_float < r.in_float, c.name);
#endif
        std::printf("\n");
      });
}
