#pragma once
// The optimizers that tests of the kernel layer run: the ten recipes, each with all it can do switched on, their
// variants, and the scheduled decay over every second moment.

#include <string_view>

#include <gradus/recipes.hpp>

namespace support {

// Calls f(name, composition) for each.
template <class F>
void for_each_composition(F&& f)
{
  using namespace gradus;
  const auto run = [&](std::string_view name, const auto& recipe) { f(name, recipe.rule()); };
  run("sgd", sgd{.lr = 0.05, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.01});
  run("sgd_plain", sgd{.lr = 0.05, .weight_decay = 0.01});
  run("sgd_nesterov", sgd{.lr = 0.05, .momentum = 0.9, .nesterov = true});
  run("sgds", sgds{.lr = 0.05, .momentum = 0.9, .weight_decay = 0.01});
  run("adam", adam{.lr = 0.01, .weight_decay = 0.01});
  run("adamw", adamw{.lr = 0.01, .weight_decay = 0.1});
  run("adams", adams{.lr = 0.01, .weight_decay = 0.01});
  run("amsgrad", amsgrad{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.01});
  run("yogi", yogi{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.01});
  run("adabound", adabound{.lr = 0.01, .weight_decay = 0.01, .final_lr = 0.1, .gamma = 0.1});
  run("padam", padam{.lr = 0.05, .weight_decay = 0.01, .partial = 0.125});
  run("padam_pow", padam{.lr = 0.05, .weight_decay = 0.01, .partial = 0.3});
  run("radam", radam{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.01});
  run("radam_decoupled", radam{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.1, .decoupled_weight_decay = true});
  run("amsgrad_scheduled", compose(0.01, first_moment::ema{}, second_moment::ema_max{.beta2 = 0.99},
                                   step_size::adaptive{}, decay::scheduled{.weight_decay = 0.01}));
  run("yogi_scheduled", compose(0.01, first_moment::ema{.initial_accumulator = 1e-6}, second_moment::yogi{.beta2 = 0.9},
                                step_size::adaptive{.eps = 1e-3}, decay::scheduled{.weight_decay = 0.01}));
}

}  // namespace support
