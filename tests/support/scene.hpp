#pragma once
// An optimizer in the middle of its work, by which a refusal is seen to change nothing.

#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <gradus/gradus.hpp>

namespace support {

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
inline constexpr double inf = std::numeric_limits<double>::infinity();

// Refusals know no backend, so the one that compiles fastest serves.
template <class Recipe>
using scalar_optimizer = gradus::optimizer<Recipe, float, gradus::backend::scalar>;

// An optimizer in the middle of its work, with two tensors in two groups, and an image of all that can be seen of it.
template <class Recipe>
struct scene {
  std::vector<float> weight{1, -2, 3, 0.5f, 7}, weight_gradient{0.5f, 1, -1, 2, 0.25f};
  std::vector<float> bias{4, 5, -6}, bias_gradient{1, 0.125f, -3};
  std::vector<float> spare{1, 2, 3}, spare_gradient{3, 2, 1};
  scalar_optimizer<Recipe> opt;
  gradus::group_handle undecayed;
  gradus::tensor_handle w, b;

  explicit scene(Recipe r = {}) : opt(r)
  {
    r.weight_decay = 0;
    undecayed = opt.add_group(r);
    w = opt.add("weight", weight, weight_gradient);
    b = opt.add("bias", bias, bias_gradient, undecayed);
    opt.step();
    opt.step();
  }

  std::string image() const
  {
    std::string all;
    const auto put = [&](const auto* x, std::size_t n) {
      if (n > 0)
        all.append(reinterpret_cast<const char*>(x), n * sizeof *x);
      all += '|';
    };
    for (const auto* x : {&weight, &weight_gradient, &bias, &bias_gradient, &spare, &spare_gradient})
      put(x->data(), x->size());
    opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
      all.append(name).append(key);
      put(values.data(), values.size());
    });
    all += std::to_string(opt.step_count(w)) + ' ' + std::to_string(opt.step_count(b)) + ' ' +
           std::to_string(opt.parameter_count()) + ' ' + std::to_string(opt.state_bytes());
    for (const auto& g : {gradus::group_handle{}, undecayed}) {
      Recipe r = opt.hyperparameters(g);
      gradus::for_each_hyperparameter(r, [&](std::string_view, auto value, gradus::range) {
        all += ' ' + std::to_string(double(value));
      });
    }
    return all;
  }
};

// The call is refused in these words, nothing that can be seen has changed, and nothing that cannot: a twin that was
// never refused anything does the same afterwards.
template <class Recipe = gradus::adams, class Call>
void check_refused(const std::string& message, Call&& call, const Recipe& recipe = {})
{
  CAPTURE(message);
  scene<Recipe> s(recipe), twin(recipe);
  const std::string before = s.image();
  CHECK_THROWS_WITH_AS(call(s), message.c_str(), std::invalid_argument);
  CHECK((s.image() == before));
  for (auto* x : {&s, &twin}) {
    x->opt.step();
    x->opt.add("spare", x->spare, x->spare_gradient, x->opt.add_group(x->opt.hyperparameters(x->undecayed)));
    x->opt.step();
  }
  CHECK((s.image() == twin.image()));
}

inline std::string text(double x) { return gradus::detail::show(x); }

}  // namespace support
