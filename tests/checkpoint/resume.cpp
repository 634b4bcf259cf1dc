// Nothing is lost: a run that is saved at any step and gone on with in another process ends with the same bytes as one
// that never stopped. The first test case saves, the second, which ctest runs as a process of its own, resumes.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/recipes.hpp>

namespace {

constexpr int last_step = 110;
constexpr int stops[] = {0, 1, 5, 6, 100};  // RAdam begins to rectify at step 6

// The ten recipes of the first version, with all they can do switched on, and what has no name: in every precision, and one
// also on the scalar backend.
template <class F>
void for_each_optimizer(const F& f)
{
  using namespace gradus;
  const auto in_precisions = [&](std::string name, const auto& recipe) {
    f(name + "_float", recipe, float{}, default_backend{});
    f(name + "_double", recipe, double{}, default_backend{});
    f(name + "_8bit", recipe, precision<float, float, block8>{}, default_backend{});
    f(name + "_masters", recipe, precision<bfloat16, float16, float, float>{}, default_backend{});
    f(name + "_bf16", recipe, precision<bfloat16, bfloat16, bfloat16>{}, default_backend{});
  };
  in_precisions("sgd", sgd{.lr = 0.05, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.01});
  in_precisions("sgds", sgds{.lr = 0.05, .momentum = 0.9, .nesterov = true, .weight_decay = 0.01});
  in_precisions("adam", adam{.lr = 0.01, .weight_decay = 0.01});
  in_precisions("adamw", adamw{.lr = 0.01, .weight_decay = 0.1});
  in_precisions("adams", adams{.lr = 0.01, .weight_decay = 0.01});
  in_precisions("amsgrad", amsgrad{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.01});
  in_precisions("yogi", yogi{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.01});
  in_precisions("adabound", adabound{.lr = 0.01, .weight_decay = 0.01, .final_lr = 0.1, .gamma = 0.1});
  in_precisions("padam", padam{.lr = 0.05, .weight_decay = 0.01, .partial = 0.125});
  in_precisions("radam", radam{.lr = 0.01, .beta2 = 0.95, .weight_decay = 0.1, .decoupled_weight_decay = true});
  f("adams_scalar", adams{.lr = 0.01, .weight_decay = 0.01}, float{}, backend::scalar{});
  f("sgd_without_state", sgd{.lr = 0.05}, float{}, default_backend{});
  f("composed",
    compose(0.01, first_moment::ema{}, second_moment::ema_max{.beta2 = 0.99}, step_size::adaptive{},
            decay::scheduled{.weight_decay = 0.01, .eps = 1e-30}),
    float{}, default_backend{});
}

template <class X>
X as(double x)
{
  if constexpr (gradus::real<X>)
    return X(x);
  else
    return X(float(x));
}
template <class X>
double value(X x)
{
  return double(static_cast<std::conditional_t<gradus::real<X>, X, float>>(x));
}

// A run through all that can happen to tensors. One of a name that asks for trouble is of a group of its own, one comes
// late, one is left out for a while; a step is skipped; learning rates follow a schedule; and hyperparameters change.
template <class Recipe, class T, class Backend>
struct run {
  using parameter = typename gradus::precision_of<T>::parameter_type;
  using gradient = typename gradus::precision_of<T>::gradient_type;
  struct tensor {
    std::string name;
    std::vector<parameter> weights;
    std::vector<gradient> gradients;
  };
  std::vector<tensor> tensors;
  gradus::optimizer<Recipe, T, Backend> opt;
  gradus::group_handle group;
  std::vector<gradus::tensor_handle> handles{3};

  // As the program would start at that step: its weights are `start` times what they were, before anything is loaded.
  run(const Recipe& recipe, int step, double start) : opt(recipe)
  {
    if constexpr (gradus::precision_of<T>::stochastic)
      opt.set_seed(start == 1 ? 17 : 0);  // which the file restores
    const char* const names[] = {"layer/1 \"weight\"\n", "späte 层", "state/x/exp_avg"};
    const std::size_t sizes[] = {7, 45, 130};
    for (std::size_t k = 0; k < 3; ++k) {
      tensor x{names[k], std::vector<parameter>(sizes[k]), std::vector<gradient>(sizes[k])};
      for (std::size_t i = 0; i < sizes[k]; ++i)
        x.weights[i] = as<parameter>((k == 1 && step <= 3 ? 1 : start) * std::cos(double(i + k)));
      tensors.push_back(std::move(x));
    }
    Recipe other = recipe;
    other.lr *= 0.5;
    group = opt.add_group(other);
    add(0);
    add(2, group);
    if (step > 3)
      add(1);
  }
  template <class... Group>
  void add(std::size_t k, Group... g)
  {
    handles[k] = opt.add(tensors[k].name, tensors[k].weights, tensors[k].gradients, g...);
  }

  void go(int from, int to)
  {
    for (int t = from; t < to; ++t) {
      if (t == 3)
        add(1);
      if (t == 4)
        opt.freeze(handles[2]);
      if (t == 8)
        opt.unfreeze(handles[2]);
      if (t == 50) {
        Recipe h = opt.hyperparameters(group);
        h.lr *= 1.0 / 3;
        opt.set_hyperparameters(h, group);
        opt.freeze(handles[0]);
      }
      for (tensor& x : tensors)
        for (std::size_t i = 0; i < x.weights.size(); ++i)
          x.gradients[i] = as<gradient>(value(x.weights[i]) + std::sin(double(i) + 0.1 * t));
      if (t == 5)
        tensors[0].gradients[3] = as<gradient>(HUGE_VAL);
      const auto report = opt.step({.lr_scale = 1 / (1 + 0.01 * t),
                                    .max_grad_norm = t % 3 == 0 ? std::optional(2.0) : std::nullopt,
                                    .skip_nonfinite = true});
      REQUIRE(report.applied == (t != 5));
    }
  }
};

// Where the norm is given now and then, a scheduled decay's sum is shared by tensors of one age: so none comes late.
template <class Recipe, class T, class Backend>
struct shared_run : run<Recipe, T, Backend> {
  shared_run(const Recipe& recipe, int, double start) : run<Recipe, T, Backend>(recipe, 0, start) {}
  void go(int from, int to)
  {
    for (int t = from; t < to; ++t) {
      double norm_sq = 0;
      for (auto* x : {&this->tensors[0], &this->tensors[2]})
        for (std::size_t i = 0; i < x->weights.size(); ++i) {
          x->gradients[i] = as<typename run<Recipe, T, Backend>::gradient>(value(x->weights[i]) +
                                                                           std::sin(double(i) + 0.1 * t));
          norm_sq += value(x->gradients[i]) * value(x->gradients[i]);
        }
      this->opt.step({.grad_norm_sq = t % 2 ? std::optional(norm_sq) : std::nullopt});
    }
  }
};

const std::filesystem::path folder = "checkpoint_resume";

std::string file_of(const std::string& name, int step)
{
  return (folder / (name + '_' + std::to_string(step) + ".safetensors")).string();
}

template <class Run, class Recipe>
int save_at_stops(const std::string& name, const Recipe& recipe)
{
  Run uninterrupted(recipe, 0, 1.0);
  int t = 0;
  for (const int stop : stops) {
    uninterrupted.go(t, stop);
    t = stop;
    gradus::save(uninterrupted.opt, file_of(name, stop), {.parameters = true});
  }
  uninterrupted.go(t, last_step);
  gradus::save(uninterrupted.opt, file_of(name, last_step), {.parameters = true});
  return int(std::size(stops));
}

template <class Run, class Recipe>
int resume_from_stops(const std::string& name, const Recipe& recipe)
{
  std::ifstream in(file_of(name, last_step), std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(in), {}};
  REQUIRE_MESSAGE(expected.size() > 1000, name);
  for (const int stop : stops) {
    Run resumed(recipe, stop, 0.123);
    const gradus::load_report report = gradus::load(resumed.opt, file_of(name, stop));
    CHECK((report.parameters && report.settings && report.differences.empty() && report.afresh.empty()));
    resumed.go(stop, last_step);
    std::string bytes;
    gradus::save_to(resumed.opt,
                    [&](const void* p, std::size_t n) { return bytes.append(static_cast<const char*>(p), n), true; },
                    {.parameters = true});
    CHECK_MESSAGE(bytes == expected, name, " resumed at ", stop);
  }
  return int(std::size(stops));
}

}  // namespace

TEST_CASE("save: runs are saved half-way")
{
  std::filesystem::create_directories(folder);
  int cases = 0;
  for_each_optimizer([&]<class Recipe, class T, class Backend>(const std::string& name, const Recipe& recipe, T,
                                                               Backend) {
    cases += save_at_stops<run<Recipe, T, Backend>>(name, recipe);
    if constexpr (std::is_same_v<Recipe, gradus::adams>)
      cases += save_at_stops<shared_run<Recipe, T, Backend>>(name + "_shared", recipe);
  });
  std::printf("%d checkpoints saved\n", cases);
}

TEST_CASE("load: runs resume and end with the same bytes")
{
  int cases = 0;
  for_each_optimizer([&]<class Recipe, class T, class Backend>(const std::string& name, const Recipe& recipe, T,
                                                               Backend) {
    cases += resume_from_stops<run<Recipe, T, Backend>>(name, recipe);
    if constexpr (std::is_same_v<Recipe, gradus::adams>)
      cases += resume_from_stops<shared_run<Recipe, T, Backend>>(name + "_shared", recipe);
  });
  std::printf("%d runs resumed\n", cases);
  std::filesystem::remove_all(folder);
}
