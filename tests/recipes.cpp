// Recipes: which composition each is, and its defaults.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/sums.hpp"

namespace {

constexpr std::size_t length = 19;

// Whether two compositions of one type hold the same numbers, by what a kernel does with them.
template <class A, class B>
bool same_steps(const A& a, const B& b)
{
  static_assert(std::is_same_v<A, B>, "a recipe's rule() and compose(...) give one type");
  const auto run = [](const A& rule) {
    std::vector<double> weights(length), gradients(length), memory(length * A::slots);
    for (std::size_t i = 0; i < length; ++i)
      weights[i] = double(i) - 9.5;
    std::array<std::span<double>, A::slots> slots;
    for (std::size_t k = 0; k < A::slots; ++k) {
      slots[k] = std::span(memory).subspan(length * k, length);
      for (double& x : slots[k])
        x = gradus::initial_value(rule, k);
    }
    gradus::step_scalars k;
    for (std::uint64_t t = 1; t <= 10; ++t) {
      for (std::size_t i = 0; i < length; ++i)
        gradients[i] = weights[i] / 3 + double(t);
      k = gradus::make_step_scalars(rule, t, 0.5, 0, k);
      k.mean_square = 0.1;
      if constexpr (A::sums)
        REQUIRE(support::step_with_sums<double>(gradus::default_backend{}, rule, k, 1, weights, gradients, slots));
      else
        REQUIRE(gradus::update(gradus::default_backend{}, gradus::prepare<double>(rule, k), weights, gradients, slots));
    }
    weights.insert(weights.end(), memory.begin(), memory.end());
    return weights;
  };
  return support::first_difference(run(a), run(b)) == -1;
}

}  // namespace

// docs and papers name these compositions; the numbers differ from the defaults on purpose.
TEST_CASE("rule: is the composition in the table of algorithms.md")
{
  using namespace gradus;
  const first_moment::momentum heavy{.momentum = 0.8, .dampening = 0.1, .nesterov = false};
  const first_moment::ema average{.beta1 = 0.8};
  const second_moment::ema square{.beta2 = 0.95};
  const second_moment::ema_max largest{.beta2 = 0.95};
  const second_moment::none none{};
  const step_size::constant constant{};
  const step_size::adaptive adaptive{.eps = 1e-4};
  constexpr double lr = 0.03, b1 = 0.8, b2 = 0.95, eps = 1e-4, wd = 0.2;

  CHECK(same_steps(sgd{lr, 0.8, 0.1, false, wd}.rule(), compose(lr, heavy, none, constant, decay::l2{wd})));
  CHECK(same_steps(sgds{lr, 0.8, 0.1, false, wd}.rule(), compose(lr, heavy, none, constant, decay::stable{wd})));
  CHECK(same_steps(adam{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::l2{wd})));
  CHECK(same_steps(adamw{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::decoupled{wd})));
  CHECK(same_steps(adams{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::scheduled{wd})));
  CHECK(same_steps(gradus::amsgrad{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, largest, adaptive, decay::l2{wd})));
  CHECK(same_steps(
      gradus::yogi{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .initial_accumulator = 0.3}
          .rule(),
      compose(lr, first_moment::ema{.beta1 = b1, .initial_accumulator = 0.3},
              second_moment::yogi{.beta2 = b2, .initial_accumulator = 0.3}, adaptive, decay::l2{wd})));
  CHECK(same_steps(
      adabound{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .final_lr = 0.3, .gamma = 0.1}
          .rule(),
      compose(lr, average, square, step_size::bounded{.eps = eps, .final_lr = 0.3, .gamma = 0.1}, decay::l2{wd})));
  CHECK(same_steps(padam{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .partial = 0.125}.rule(),
                   compose(lr, average, largest, step_size::partially_adaptive{.eps = eps, .partial = 0.125},
                           decay::l2{wd})));
  for (const bool decoupled : {false, true})
    CHECK(same_steps(radam{lr, b1, b2, eps, wd, decoupled}.rule(),
                     compose(lr, average, square, step_size::rectified{.eps = eps},
                             decay::l2_or_decoupled{wd, decoupled})));
  CHECK(same_steps(adagrad{lr, 0.1, wd, 0.3, eps}.rule(),
                   compose(lr, first_moment::none{}, second_moment::sum{.initial_accumulator = 0.3},
                           step_size::decaying{.eps = eps, .lr_decay = 0.1}, decay::l2{wd})));
  CHECK(same_steps(adadelta{lr, 0.8, eps, wd}.rule(),
                   compose(lr, first_moment::rms_ratio{.rho = 0.8, .eps = eps}, second_moment::ema{.beta2 = 0.8},
                           constant, decay::l2{wd})));
  CHECK(same_steps(adamax{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, second_moment::infinity_norm{.beta2 = b2, .eps = eps}, step_size::by_norm{},
                           decay::l2{wd})));
  for (const double mu : {0.0, 0.8})
    for (const bool centered : {false, true})
      CHECK(same_steps(rmsprop{lr, b2, eps, wd, mu, centered}.rule(),
                       compose(lr, first_moment::normalized_momentum{.momentum = mu, .eps = eps},
                               second_moment::ema_about_mean{.beta2 = b2, .centered = centered}, constant,
                               decay::l2{wd})));
  CHECK(same_steps(adabelief{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, second_moment::belief{.beta2 = b2}, step_size::adaptive_above{.eps = eps},
                           decay::decoupled{wd})));
  CHECK(same_steps(adopt{lr, b1, b2, eps, wd, 0.5}.rule(),
                   compose(lr, first_moment::normalized_ema{.beta1 = b1, .eps = eps, .clip_exponent = 0.5},
                           second_moment::ema_from_first{.beta2 = b2}, constant, decay::decoupled{wd})));
  CHECK(same_steps(ademamix{lr, b1, b2, 0.99, 3, 7, eps, wd}.rule(),
                   compose(lr, first_moment::two_emas{.beta1 = b1, .beta3 = 0.99, .alpha = 3, .t_alpha_beta3 = 7},
                           square, adaptive, decay::decoupled{wd})));
  for (const bool decoupled : {false, true})
    CHECK(same_steps(nadam{lr, b1, b2, eps, wd, 0.01, decoupled}.rule(),
                     compose(lr, first_moment::nesterov_ema{.beta1 = b1, .momentum_decay = 0.01}, square, adaptive,
                             decay::l2_or_decoupled{wd, decoupled})));
  CHECK(same_steps(adan{lr, b1, 0.7, b2, eps, wd}.rule(),
                   compose(lr, first_moment::ema_and_difference{.beta1 = b1, .beta2 = 0.7}, square, adaptive,
                           decay::proximal{wd})));
  CHECK(same_steps(lion{lr, b1, b2, wd}.rule(), compose(lr, first_moment::sign_of_ema{.beta1 = b1, .beta2 = b2}, none,
                                                        constant, decay::decoupled{wd})));
  CHECK(same_steps(
      schedule_free_adamw{lr, b1, b2, eps, wd, 5, 1, 3}.rule(),
      compose(lr,
              first_moment::schedule_free{
                  .beta1 = b1, .eps = eps, .weight_decay = wd, .warmup_steps = 5, .r = 1, .weight_lr_power = 3},
              square, step_size::one{}, decay::none{})));
  CHECK(same_steps(lamb{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, square, step_size::trust_ratio{.eps = eps}, decay::decoupled{wd})));
  CHECK(same_steps(stable_adamw{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, square, step_size::rms_clipped{.eps = eps}, decay::decoupled{wd})));
  CHECK(same_steps(cautious_adamw{lr, b1, b2, eps, wd}.rule(),
                   compose(lr, average, square, step_size::cautious{.eps = eps}, decay::decoupled{wd})));
  const first_moment::adaptive_inertia inertia{.beta0 = 0.2, .eps = eps};
  CHECK(same_steps(adai{lr, 0.2, b2, eps, wd}.rule(), compose(lr, inertia, square, constant, decay::l2{wd})));
  CHECK(same_steps(adais{lr, 0.2, b2, eps, wd}.rule(), compose(lr, inertia, square, constant, decay::decoupled{wd})));
}

TEST_CASE("recipes: the defaults are PyTorch's or the authors'")
{
  struct row {
    std::string_view recipe, hyperparameter;
    double value;
  };
  // clang-format off
  const std::vector<row> table{
      {"sgd", "lr", 1e-3},       {"sgd", "momentum", 0},       {"sgd", "dampening", 0},
      {"sgd", "nesterov", 0},    {"sgd", "weight_decay", 0},

      {"sgds", "lr", 1e-3},      {"sgds", "momentum", 0},      {"sgds", "dampening", 0},
      {"sgds", "nesterov", 0},   {"sgds", "weight_decay", 0},

      {"adam", "lr", 1e-3},      {"adam", "beta1", 0.9},       {"adam", "beta2", 0.999},
      {"adam", "eps", 1e-8},     {"adam", "weight_decay", 0},

      {"adamw", "lr", 1e-3},     {"adamw", "beta1", 0.9},      {"adamw", "beta2", 0.999},
      {"adamw", "eps", 1e-8},    {"adamw", "weight_decay", 1e-2},

      {"adams", "lr", 1e-3},     {"adams", "beta1", 0.9},      {"adams", "beta2", 0.999},
      {"adams", "eps", 1e-8},    {"adams", "weight_decay", 1e-4},

      {"amsgrad", "lr", 1e-3},   {"amsgrad", "beta1", 0.9},    {"amsgrad", "beta2", 0.999},
      {"amsgrad", "eps", 1e-8},  {"amsgrad", "weight_decay", 0},

      {"yogi", "lr", 1e-2},      {"yogi", "beta1", 0.9},       {"yogi", "beta2", 0.999},
      {"yogi", "eps", 1e-3},     {"yogi", "weight_decay", 0},  {"yogi", "initial_accumulator", 1e-6},

      {"adabound", "lr", 1e-3},  {"adabound", "beta1", 0.9},   {"adabound", "beta2", 0.999},
      {"adabound", "eps", 1e-8}, {"adabound", "weight_decay", 0},
      {"adabound", "final_lr", 0.1},                           {"adabound", "gamma", 1e-3},

      {"padam", "lr", 0.1},      {"padam", "beta1", 0.9},      {"padam", "beta2", 0.999},
      {"padam", "eps", 1e-8},    {"padam", "weight_decay", 0}, {"padam", "partial", 0.25},

      {"radam", "lr", 1e-3},     {"radam", "beta1", 0.9},      {"radam", "beta2", 0.999},
      {"radam", "eps", 1e-8},    {"radam", "weight_decay", 0}, {"radam", "decoupled_weight_decay", 0},

      {"adagrad", "lr", 1e-2},             {"adagrad", "lr_decay", 0},          {"adagrad", "weight_decay", 0},
      {"adagrad", "initial_accumulator", 0}, {"adagrad", "eps", 1e-10},

      {"adadelta", "lr", 1},               {"adadelta", "rho", 0.9},            {"adadelta", "eps", 1e-6},
      {"adadelta", "weight_decay", 0},

      {"adamax", "lr", 2e-3},              {"adamax", "beta1", 0.9},            {"adamax", "beta2", 0.999},
      {"adamax", "eps", 1e-8},             {"adamax", "weight_decay", 0},

      {"rmsprop", "lr", 1e-2},             {"rmsprop", "alpha", 0.99},          {"rmsprop", "eps", 1e-8},
      {"rmsprop", "weight_decay", 0},      {"rmsprop", "momentum", 0},          {"rmsprop", "centered", 0},

      {"adabelief", "lr", 1e-3},           {"adabelief", "beta1", 0.9},         {"adabelief", "beta2", 0.999},
      {"adabelief", "eps", 1e-16},         {"adabelief", "weight_decay", 0},

      {"adopt", "lr", 1e-3},               {"adopt", "beta1", 0.9},             {"adopt", "beta2", 0.9999},
      {"adopt", "eps", 1e-6},              {"adopt", "weight_decay", 0},        {"adopt", "clip_exponent", 0.25},

      {"ademamix", "lr", 1e-3},            {"ademamix", "beta1", 0.9},          {"ademamix", "beta2", 0.999},
      {"ademamix", "beta3", 0.9999},       {"ademamix", "alpha", 5},            {"ademamix", "t_alpha_beta3", 0},
      {"ademamix", "eps", 1e-8},           {"ademamix", "weight_decay", 0},

      {"nadam", "lr", 2e-3}, {"nadam", "beta1", 0.9}, {"nadam", "beta2", 0.999},
      {"nadam", "eps", 1e-8}, {"nadam", "weight_decay", 0}, {"nadam", "momentum_decay", 4e-3},
      {"nadam", "decoupled_weight_decay", 0},

      {"adan", "lr", 1e-3}, {"adan", "beta1", 0.98}, {"adan", "beta2", 0.92},
      {"adan", "beta3", 0.99}, {"adan", "eps", 1e-8}, {"adan", "weight_decay", 0},

      {"lion", "lr", 1e-4},                {"lion", "beta1", 0.9},              {"lion", "beta2", 0.99},
      {"lion", "weight_decay", 0},

      {"schedule_free_adamw", "lr", 2.5e-3}, {"schedule_free_adamw", "beta1", 0.9},
      {"schedule_free_adamw", "beta2", 0.999}, {"schedule_free_adamw", "eps", 1e-8},
      {"schedule_free_adamw", "weight_decay", 0}, {"schedule_free_adamw", "warmup_steps", 0},
      {"schedule_free_adamw", "r", 0}, {"schedule_free_adamw", "weight_lr_power", 2},

      {"lamb", "lr", 1e-3}, {"lamb", "beta1", 0.9}, {"lamb", "beta2", 0.999},
      {"lamb", "eps", 1e-6}, {"lamb", "weight_decay", 1e-2},

      {"stable_adamw", "lr", 1e-3}, {"stable_adamw", "beta1", 0.9}, {"stable_adamw", "beta2", 0.99},
      {"stable_adamw", "eps", 1e-8}, {"stable_adamw", "weight_decay", 1e-2},

      {"cautious_adamw", "lr", 1e-3}, {"cautious_adamw", "beta1", 0.9}, {"cautious_adamw", "beta2", 0.999},
      {"cautious_adamw", "eps", 1e-8}, {"cautious_adamw", "weight_decay", 1e-2},

      {"adai", "lr", 1}, {"adai", "beta0", 0.1}, {"adai", "beta2", 0.99},
      {"adai", "eps", 1e-3}, {"adai", "weight_decay", 0},

      {"adais", "lr", 1}, {"adais", "beta0", 0.1}, {"adais", "beta2", 0.99},
      {"adais", "eps", 1e-3}, {"adais", "weight_decay", 0},
  };
  // clang-format on
  std::size_t found = 0;
  gradus::for_each_recipe([&]<class Recipe>(std::string_view recipe, std::type_identity<Recipe>) {
    Recipe r;
    gradus::for_each_hyperparameter(r, [&](std::string_view hyperparameter, auto value, gradus::range allowed) {
      bool known = false;
      for (const row& x : table)
        if (x.recipe == recipe && x.hyperparameter == hyperparameter) {
          known = true;
          CHECK_MESSAGE(double(value) == x.value, std::string(recipe), " ", std::string(hyperparameter));
          CHECK(gradus::detail::contains(allowed, double(value)));
        }
      CHECK_MESSAGE(known, std::string(recipe), " ", std::string(hyperparameter));
      ++found;
    });
  });
  CHECK(found == table.size());
}

TEST_CASE("recipes: lr = 0 or lr_scale = 0 changes no weight")
{
  gradus::for_each_recipe([]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    CAPTURE(std::string(name));
    for (const double lr : {0.0, 0.5}) {
      Recipe h;
      h.lr = lr;
      h.weight_decay = 0.1;
      std::vector<float> w(length, 1.0f), g(length, 1.0f);
      gradus::optimizer<Recipe> opt(h);
      opt.add(w, g);
      for (int t = 1; t <= 100; ++t)
        opt.step({.lr_scale = lr == 0 ? 1.0 : 0.0});
      CHECK(w == std::vector<float>(length, 1.0f));
    }
  });
}
