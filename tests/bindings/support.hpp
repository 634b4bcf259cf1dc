#pragma once
// What the tests of the C libraries share.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/number/half.hpp>
#include <gradus/state/precision.hpp>

#include <gradus.h>

#include "support/golden.hpp"

namespace bindings {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

using create_function = gradus_status (*)(const char*, const gradus_number*, std::size_t, gradus_dtype,
                                          gradus_optimizer**);

// An optimizer that is destroyed at the end.
struct owned {
  gradus_optimizer* self = nullptr;
  explicit owned(const char* recipe, std::vector<gradus_number> numbers = {}, gradus_dtype dtype = GRADUS_FLOAT32,
                 create_function create = gradus_create)
  {
    CHECK(create(recipe, numbers.data(), numbers.size(), dtype, &self) == GRADUS_OK);
  }
  owned(const owned&) = delete;
  owned& operator=(const owned&) = delete;
  ~owned() { gradus_destroy(self); }
  operator gradus_optimizer*() const { return self; }
};

// The call fails with this status, and its sentence has this part.
inline void check_refused(gradus_status got, std::string_view part, gradus_status expected = GRADUS_INVALID_ARGUMENT)
{
  CHECK(got == expected);
  CHECK_MESSAGE(std::string_view(gradus_last_error()).find(part) != std::string_view::npos, "expected \"",
                std::string(part), "\" in: ", std::string(gradus_last_error()));
}

template <class T>
constexpr gradus_dtype dtype_of = std::is_same_v<T, float>              ? GRADUS_FLOAT32
                                  : std::is_same_v<T, double>           ? GRADUS_FLOAT64
                                  : std::is_same_v<T, gradus::bfloat16> ? GRADUS_BFLOAT16
                                                                        : GRADUS_FLOAT16;
template <class T>
struct precision_for {
  using type = gradus::precision<T, T, float, float>;
};
template <>
struct precision_for<float> {
  using type = float;
};
template <>
struct precision_for<double> {
  using type = double;
};

template <class T>
std::vector<T> numbers(std::size_t n, int seed)
{
  std::vector<T> x(n);
  for (std::size_t i = 0; i < n; ++i)
    x[i] = T(float((i * 2654435761u + unsigned(seed) * 40503u) % 2048) / 1024 - 1);
  return x;
}

// 5000 weights as two tensors, the second in a group with twice the lr: in C++, the reference, and in C.
// \tparam Any  an any_optimizer
template <class T, class Any>
class two_tensors {
 public:
  static constexpr std::size_t first = 4097, second = 903;
  static constexpr double lr = 0.01;
  std::vector<T> w = numbers<T>(first + second, 1);
  const std::vector<T> g = numbers<T>(first + second, 2);

  template <class... Backend>
  explicit two_tensors(const char* recipe, Backend... on) : expected_(recipe, {{"lr", lr}}, on...)
  {
    const auto group = expected_.add_group({{"lr", 2 * lr}});
    expected_.add_spans("a", std::span(w).first(first), std::span(g).first(first));
    expected_.add_spans("b", std::span(w).subspan(first), std::span(g).subspan(first), group);
  }
  // Adds weights and gradients that are equal to w and g to an optimizer in C, whose lr is lr.
  void add_to(gradus_optimizer* opt, T* weights, const T* gradients) const
  {
    const gradus_number twice = {"lr", 2 * lr};
    std::size_t group = 0, tensor = 7;
    CHECK(gradus_add_group(opt, &twice, 1, &group) == GRADUS_OK);
    CHECK(group == 1);
    CHECK(gradus_add(opt, "a", weights, gradients, first, 0, nullptr) == GRADUS_OK);
    CHECK(gradus_add(opt, "b", weights + first, gradients + first, second, group, &tensor) == GRADUS_OK);
    CHECK(tensor == 1);
    CHECK(gradus_parameter_count(opt) == first + second);
    CHECK(gradus_state_bytes(opt) == expected_.state_bytes());
  }
  // Takes step t, clipped, in C++, and by take(options, report) in C, and compares the reports.
  template <class Take>
  void step(int t, const Take& take)
  {
    const auto expected = expected_.step({.lr_scale = 0.5, .decay_scale = 2, .max_grad_norm = 1.0, .maximize = t == 3});
    gradus_step_options o = gradus_default_step_options();
    o.lr_scale = 0.5;
    o.decay_scale = 2;
    o.max_grad_norm = 1;
    o.maximize = t == 3;
    gradus_step_report report{};
    report.size = sizeof report;
    take(o, report);
    CHECK(report.applied == 1);
    CHECK(report.grad_norm == expected.grad_norm.value());
    CHECK(std::isnan(report.mean_square) == !expected.mean_square.has_value());
  }

 private:
  Any expected_;
};

// Numbers in the memory that an optimizer works on.
template <class T>
struct host_array {
  std::vector<T> memory;
  explicit host_array(const std::vector<T>& values) : memory(values) {}
  T* data() { return memory.data(); }
  void write(const std::vector<T>& values) { memory = values; }
  std::vector<T> read() const { return memory; }
};

// Takes the steps of a recorded case in double, and returns the largest difference from it, relative to 1e-3 + |x|.
template <template <class> class Array>
double worst_difference(const golden::problem& p, const golden::recording& c, const std::string& recipe,
                        create_function create)
{
  std::vector<gradus_number> given;
  for (const auto& [name, value] : c.hyperparameters)
    given.push_back({name.c_str(), value});
  if (c.name == "radam_decoupled")
    given.push_back({"decoupled_weight_decay", 1});
  const owned opt(recipe.c_str(), given, GRADUS_FLOAT64, create);
  const gradus_number no_decay = {"weight_decay", 0};
  std::size_t undecayed = 0;
  CHECK(gradus_add_group(opt, &no_decay, 1, &undecayed) == GRADUS_OK);
  golden::model<double> model(p);
  std::vector<Array<double>> weights, gradients;
  for (auto& x : model.tensors) {
    weights.emplace_back(x.weights);
    gradients.emplace_back(x.gradients);
  }
  for (std::size_t k = 0; k < weights.size(); ++k)
    CHECK(gradus_add(opt, nullptr, weights[k].data(), gradients[k].data(), model.tensors[k].weights.size(),
                     k + 1 == weights.size() ? undecayed : 0, nullptr) == GRADUS_OK);
  double worst = 0;
  gradus_step_options o = gradus_default_step_options();
  for (int t = 1; t <= p.steps; ++t) {
    model.compute_gradients(t);
    for (std::size_t k = 0; k < gradients.size(); ++k)
      gradients[k].write(model.tensors[k].gradients);
    for (const int drop : p.drops)
      o.lr_scale *= t == drop ? 0.1 : 1;
    CHECK(gradus_step(opt, &o, nullptr) == GRADUS_OK);
    for (std::size_t k = 0; k < weights.size(); ++k)
      model.tensors[k].weights = weights[k].read();
    const auto recorded = c.at.find(t);
    if (recorded == c.at.end())
      continue;
    std::size_t i = 0;
    for (const auto& x : model.tensors)
      for (const double w : x.weights) {
        const double expected = recorded->second.at(i++);
        const double difference = std::fabs(w - expected) / (1e-3 + std::fabs(expected));
        worst = difference > worst || std::isnan(difference) ? difference : worst;
      }
    CHECK(i == recorded->second.size());
  }
  return worst;
}

// Every recorded case of a recipe. \param subset  of all recipes, if they are not all to be found
template <template <class> class Array>
void check_trajectories(create_function create, const std::vector<std::string>& subset = {})
{
  std::size_t compared = 0;
  for (const auto& [name, tolerance] : {std::pair("trajectories", 1e-12), std::pair("beyond", 1e-10)}) {
    const golden::file file = golden::read(GRADUS_TEST_DATA "/golden/" + std::string(name) + ".txt");
    for (const golden::recording& c : file.cases) {
      if (c.name == "adams_amsgrad" || c.name == "adamw_cautious_decay")  // compositions, which are no recipes
        continue;
      std::string recipe;  // the longest whose name the case's begins with
      for (std::size_t r = 0; r < gradus_recipe_count(); ++r) {
        const std::string one = gradus_recipe_name(r);
        if ((c.name + '_').starts_with(one + '_') && one.size() > recipe.size())
          recipe = one;
      }
      if (!subset.empty() && std::find(subset.begin(), subset.end(), recipe) == subset.end())
        continue;
      CHECK_MESSAGE(worst_difference<Array>(file.problem, c, recipe, create) < tolerance, c.name);
      ++compared;
    }
  }
  CHECK(compared >= (subset.empty() ? gradus_recipe_count() : subset.size()));
}

}  // namespace bindings
