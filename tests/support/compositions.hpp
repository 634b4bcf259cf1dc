#pragma once
// The optimizers that tests of the kernel layer run: the recipes, each with all it can do switched on, their
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
  run("adamw_cautious", compose(0.01, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{},
                                decay::cautious{.weight_decay = 0.1}));
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
  run("adagrad", adagrad{.lr = 0.05, .lr_decay = 0.01, .weight_decay = 0.01});
  run("adadelta", adadelta{.weight_decay = 0.01});
  run("adamax", adamax{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.01});
  run("rmsprop", rmsprop{.lr = 0.01, .weight_decay = 0.01});
  run("rmsprop_momentum", rmsprop{.lr = 0.01, .weight_decay = 0.01, .momentum = 0.5});
  run("rmsprop_centered", rmsprop{.lr = 0.01, .alpha = 0.9, .weight_decay = 0.01, .centered = true});
  run("rmsprop_all", rmsprop{.lr = 0.01, .alpha = 0.9, .weight_decay = 0.01, .momentum = 0.5, .centered = true});
  run("adabelief", adabelief{.lr = 0.01, .weight_decay = 0.1});
  // These four, and schedule_free_adamw, compute powers once a step. Such exponents and bases make them exact in every C library.
  run("nadam", nadam{.lr = 0.01, .weight_decay = 0.01, .momentum_decay = 0});
  run("adopt", adopt{.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.1, .clip_exponent = 1});
  run("ademamix", ademamix{.lr = 0.01, .beta1 = 0.5, .beta3 = 0.99, .weight_decay = 0.1});
  run("adan", adan{.lr = 0.01, .beta1 = 0.5, .beta2 = 0.5, .weight_decay = 0.1});
  run("lion", lion{.lr = 0.01, .weight_decay = 0.1});
  run("schedule_free_adamw", schedule_free_adamw{.lr = 0.0625, .weight_decay = 0.1, .warmup_steps = 4});
  run("lamb", lamb{.lr = 0.01, .weight_decay = 0.1});
  run("lamb_adapting", compose(0.01, first_moment::momentum{.momentum = 0}, second_moment::ema{},
                               step_size::trust_ratio{.always_adapt = true}, decay::l2{.weight_decay = 0.01}));
  run("stable_adamw", stable_adamw{.lr = 0.01, .weight_decay = 0.1});
  run("cautious_adamw", cautious_adamw{.lr = 0.01, .weight_decay = 0.1});
  run("adai", adai{.lr = 0.05, .weight_decay = 0.1});
  run("adais", adais{.lr = 0.05, .weight_decay = 0.1});
  const decay::scheduled scheduled{.weight_decay = 0.01};
  run("adagrad_scheduled",
      compose(0.05, first_moment::none{}, second_moment::sum{}, step_size::decaying{.lr_decay = 0.01}, scheduled));
  run("adadelta_scheduled",
      compose(1, first_moment::rms_ratio{}, second_moment::ema{.beta2 = 0.9}, step_size::constant{}, scheduled));
  run("rmsprop_scheduled",
      compose(0.01, first_moment::normalized_momentum{.momentum = 0.5},
              second_moment::ema_about_mean{.beta2 = 0.9, .centered = true}, step_size::constant{}, scheduled));
  run("adabelief_scheduled",
      compose(0.01, first_moment::ema{}, second_moment::belief{}, step_size::adaptive_above{}, scheduled));
  run("adopt_scheduled", compose(0.01, first_moment::normalized_ema{.clip_exponent = 1},
                                 second_moment::ema_from_first{.beta2 = 0.99}, step_size::constant{}, scheduled));
  run("nadam_scheduled", compose(0.01, first_moment::nesterov_ema{.momentum_decay = 0}, second_moment::ema{},
                                 step_size::adaptive{}, scheduled));
  run("adan_scheduled", compose(0.01, first_moment::ema_and_difference{.beta1 = 0.5, .beta2 = 0.5},
                                second_moment::ema{}, step_size::adaptive{}, scheduled));
  run("ademamix_scheduled", compose(0.01, first_moment::two_emas{.beta1 = 0.5, .beta3 = 0.99}, second_moment::ema{},
                                    step_size::adaptive{}, scheduled));
  run("adais_scheduled",
      compose(0.05, first_moment::adaptive_inertia{}, second_moment::ema{}, step_size::constant{}, scheduled));
}

}  // namespace support
