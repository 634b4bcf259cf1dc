#pragma once
/// \file
/// Optimizers of other libraries, to the place of eps, decay and bias correction, for runs that must match theirs:
///
///     gradus::optimizer opt(gradus::presets::dlib::adam{.learning_rate = 1e-3, .weight_decay = 5e-4});
///
/// A preset is a recipe whose fields and defaults are the other library's. Where that library has no default for the
/// learning rate, it is 1e-3 here. docs/presets.md has a table, with the largest difference from recorded runs.
///
/// A schedule acts through `lr_scale` or `lr` of a step; `set_lr` needs a field of the name `lr`.

#include <gradus/recipes.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Recipes that reproduce other libraries' optimizers.
namespace presets {

/// PyTorch. gradus's recipes have its names, defaults and equations; here are also the ones with `amsgrad=True`.
namespace torch {

using gradus::adadelta;
using gradus::adagrad;
using gradus::adam;
using gradus::adamax;
using gradus::adamw;
using gradus::nadam;
using gradus::radam;
using gradus::rmsprop;
using gradus::sgd;
/// `Adam(amsgrad=True)`.
using adam_amsgrad = gradus::amsgrad;

/// `AdamW(amsgrad=True)`.
struct adamw_amsgrad {
  double lr = 1e-3;            ///< learning rate, ≥ 0
  double beta1 = 0.9;          ///< β₁ in [0, 1)
  double beta2 = 0.999;        ///< β₂ in [0, 1)
  double eps = 1e-8;           ///< ≥ 0; beside the corrected root
  double weight_decay = 1e-2;  ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adamw_amsgrad::lr), hyper::beta1(&adamw_amsgrad::beta1),
                                                hyper::beta2(&adamw_amsgrad::beta2), hyper::eps(&adamw_amsgrad::eps),
                                                hyper::weight_decay(&adamw_amsgrad::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema_max{beta2}, step_size::adaptive{eps},
                   decay::decoupled{weight_decay});
  }
};

}  // namespace torch

/// optax. `None` of a momentum is 0 here.
namespace optax {

/// `optax.adam`: as PyTorch's Adam, and eps_root inside the root.
struct adam {
  double learning_rate = 1e-3;  ///< ≥ 0
  double b1 = 0.9;              ///< β₁ in [0, 1)
  double b2 = 0.999;            ///< β₂ in [0, 1)
  double eps = 1e-8;            ///< ≥ 0; beside the corrected root
  double eps_root = 0;          ///< ≥ 0; inside the corrected root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adam::learning_rate, range::at_least_zero},
                                                field{"b1", &adam::b1, range::zero_to_below_one},
                                                field{"b2", &adam::b2, range::zero_to_below_one},
                                                hyper::eps(&adam::eps),
                                                field{"eps_root", &adam::eps_root, range::at_least_zero});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{b1}, second_moment::ema{b2},
                   step_size::adaptive_eps_root{eps, eps_root}, decay::none{});
  }
};

/// `optax.adamw`: the same with decoupled decay.
struct adamw {
  double learning_rate = 1e-3;  ///< ≥ 0
  double b1 = 0.9;              ///< β₁ in [0, 1)
  double b2 = 0.999;            ///< β₂ in [0, 1)
  double eps = 1e-8;            ///< ≥ 0; beside the corrected root
  double eps_root = 0;          ///< ≥ 0; inside the corrected root
  double weight_decay = 1e-4;   ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adamw::learning_rate, range::at_least_zero},
                                                field{"b1", &adamw::b1, range::zero_to_below_one},
                                                field{"b2", &adamw::b2, range::zero_to_below_one},
                                                hyper::eps(&adamw::eps),
                                                field{"eps_root", &adamw::eps_root, range::at_least_zero},
                                                hyper::weight_decay(&adamw::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{b1}, second_moment::ema{b2},
                   step_size::adaptive_eps_root{eps, eps_root}, decay::decoupled{weight_decay});
  }
};

/// `optax.amsgrad`: the maximum is of bias-corrected averages.
struct amsgrad {
  double learning_rate = 1e-3;  ///< ≥ 0
  double b1 = 0.9;              ///< β₁ in [0, 1)
  double b2 = 0.999;            ///< β₂ in [0, 1)
  double eps = 1e-8;            ///< ≥ 0; beside the root
  double eps_root = 0;          ///< ≥ 0; inside the root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &amsgrad::learning_rate, range::at_least_zero},
                                                field{"b1", &amsgrad::b1, range::zero_to_below_one},
                                                field{"b2", &amsgrad::b2, range::zero_to_below_one},
                                                hyper::eps(&amsgrad::eps),
                                                field{"eps_root", &amsgrad::eps_root, range::at_least_zero});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{b1}, second_moment::ema_max_corrected{b2},
                   step_size::adaptive_eps_root{eps, eps_root}, decay::none{});
  }
};

/// `optax.rmsprop`: eps inside the root, and the learning rate inside the momentum.
struct rmsprop {
  double learning_rate = 1e-3;  ///< ≥ 0
  double decay = 0.9;           ///< β₂ in [0, 1)
  double eps = 1e-8;            ///< ≥ 0; inside the root
  bool centered = false;        ///< v is the average of the squared distance to the average gradient
  double momentum = 0;          ///< μ in [0, 1)
  bool nesterov = false;        ///< needs momentum > 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &rmsprop::learning_rate, range::at_least_zero},
                                                field{"decay", &rmsprop::decay, range::zero_to_below_one},
                                                hyper::eps(&rmsprop::eps), hyper::centered(&rmsprop::centered),
                                                hyper::momentum(&rmsprop::momentum),
                                                hyper::nesterov(&rmsprop::nesterov));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::normalized_velocity{momentum, eps, nesterov},
                   second_moment::ema_about_mean{decay, centered}, step_size::one{}, gradus::decay::none{});
  }
};

/// `optax.sgd`: as PyTorch's.
struct sgd {
  double learning_rate = 1e-3;  ///< ≥ 0
  double momentum = 0;          ///< μ in [0, 1); 0 keeps no buffer
  bool nesterov = false;        ///< needs momentum > 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &sgd::learning_rate, range::at_least_zero},
                                                hyper::momentum(&sgd::momentum), hyper::nesterov(&sgd::nesterov));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::momentum{momentum, 0, nesterov}, second_moment::none{},
                   step_size::constant{}, decay::none{});
  }
};

/// `optax.adagrad`: eps inside the root.
struct adagrad {
  double learning_rate = 1e-3;             ///< ≥ 0
  double initial_accumulator_value = 0.1;  ///< ≥ 0; start value of the sum
  double eps = 1e-7;                       ///< ≥ 0; inside the root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adagrad::learning_rate, range::at_least_zero},
                                                field{"initial_accumulator_value", &adagrad::initial_accumulator_value,
                                                      range::at_least_zero},
                                                hyper::eps(&adagrad::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::none{}, second_moment::sum{initial_accumulator_value},
                   step_size::adaptive_eps_root{0, eps}, decay::none{});
  }
};

/// `optax.yogi`: as gradus's.
struct yogi {
  double learning_rate = 1e-3;  ///< ≥ 0
  double b1 = 0.9;              ///< β₁ in [0, 1)
  double b2 = 0.999;            ///< β₂ in [0, 1)
  double eps = 1e-3;            ///< ≥ 0; beside the corrected root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &yogi::learning_rate, range::at_least_zero},
                                                field{"b1", &yogi::b1, range::zero_to_below_one},
                                                field{"b2", &yogi::b2, range::zero_to_below_one},
                                                hyper::eps(&yogi::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{b1, 1e-6}, second_moment::yogi{b2, 1e-6}, step_size::adaptive{eps},
                   decay::none{});
  }
};

/// `optax.lion`: as gradus's.
struct lion {
  double learning_rate = 1e-3;  ///< ≥ 0
  double b1 = 0.9;              ///< β₁ in [0, 1)
  double b2 = 0.99;             ///< β₂ in [0, 1)
  double weight_decay = 1e-3;   ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &lion::learning_rate, range::at_least_zero},
                                                field{"b1", &lion::b1, range::zero_to_below_one},
                                                field{"b2", &lion::b2, range::zero_to_below_one},
                                                hyper::weight_decay(&lion::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::sign_of_ema{b1, b2}, second_moment::none{}, step_size::constant{},
                   decay::decoupled{weight_decay});
  }
};

}  // namespace optax

/// TensorFlow, which is Keras 3. Every optimizer has `weight_decay`, which is decoupled; `None` is 0 here.
namespace tensorflow {

/// `Adam(amsgrad=False)`: eps beside the uncorrected root √v.
struct adam {
  double learning_rate = 1e-3;  ///< ≥ 0
  double beta_1 = 0.9;          ///< β₁ in [0, 1)
  double beta_2 = 0.999;        ///< β₂ in [0, 1)
  double epsilon = 1e-7;        ///< ≥ 0; beside the uncorrected root
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adam::learning_rate, range::at_least_zero},
                                                field{"beta_1", &adam::beta_1, range::zero_to_below_one},
                                                field{"beta_2", &adam::beta_2, range::zero_to_below_one},
                                                field{"epsilon", &adam::epsilon, range::at_least_zero},
                                                hyper::weight_decay(&adam::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{beta_1}, second_moment::ema{beta_2},
                   step_size::partially_adaptive{epsilon, 0.5}, decay::decoupled{weight_decay});
  }
};

/// `AdamW`: the same with another default.
struct adamw {
  double learning_rate = 1e-3;  ///< ≥ 0
  double beta_1 = 0.9;          ///< β₁ in [0, 1)
  double beta_2 = 0.999;        ///< β₂ in [0, 1)
  double epsilon = 1e-7;        ///< ≥ 0; beside the uncorrected root
  double weight_decay = 4e-3;   ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adamw::learning_rate, range::at_least_zero},
                                                field{"beta_1", &adamw::beta_1, range::zero_to_below_one},
                                                field{"beta_2", &adamw::beta_2, range::zero_to_below_one},
                                                field{"epsilon", &adamw::epsilon, range::at_least_zero},
                                                hyper::weight_decay(&adamw::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{beta_1}, second_moment::ema{beta_2},
                   step_size::partially_adaptive{epsilon, 0.5}, decay::decoupled{weight_decay});
  }
};

/// `Adam(amsgrad=True)`: the maximum is of uncorrected averages, eps beside its root.
struct amsgrad {
  double learning_rate = 1e-3;  ///< ≥ 0
  double beta_1 = 0.9;          ///< β₁ in [0, 1)
  double beta_2 = 0.999;        ///< β₂ in [0, 1)
  double epsilon = 1e-7;        ///< ≥ 0; beside the uncorrected root
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &amsgrad::learning_rate, range::at_least_zero},
                                                field{"beta_1", &amsgrad::beta_1, range::zero_to_below_one},
                                                field{"beta_2", &amsgrad::beta_2, range::zero_to_below_one},
                                                field{"epsilon", &amsgrad::epsilon, range::at_least_zero},
                                                hyper::weight_decay(&amsgrad::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{beta_1}, second_moment::ema_max{beta_2},
                   step_size::partially_adaptive{epsilon, 0.5}, decay::decoupled{weight_decay});
  }
};

/// `SGD`: the learning rate is inside the velocity.
struct sgd {
  double learning_rate = 1e-2;  ///< ≥ 0
  double momentum = 0;          ///< μ in [0, 1)
  bool nesterov = false;        ///< needs momentum > 0
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &sgd::learning_rate, range::at_least_zero},
                                                hyper::momentum(&sgd::momentum), hyper::nesterov(&sgd::nesterov),
                                                hyper::weight_decay(&sgd::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::velocity{momentum, nesterov}, second_moment::none{}, step_size::one{},
                   decay::decoupled{weight_decay});
  }
};

/// `RMSprop`: eps inside the root, and the learning rate inside the momentum.
struct rmsprop {
  double learning_rate = 1e-3;  ///< ≥ 0
  double rho = 0.9;             ///< β₂ in [0, 1)
  double momentum = 0;          ///< μ in [0, 1)
  double epsilon = 1e-7;        ///< ≥ 0; inside the root
  bool centered = false;        ///< v is the average of the squared distance to the average gradient
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &rmsprop::learning_rate, range::at_least_zero},
                                                hyper::rho(&rmsprop::rho), hyper::momentum(&rmsprop::momentum),
                                                field{"epsilon", &rmsprop::epsilon, range::at_least_zero},
                                                hyper::centered(&rmsprop::centered),
                                                hyper::weight_decay(&rmsprop::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::normalized_velocity{momentum, epsilon},
                   second_moment::ema_about_mean{rho, centered}, step_size::one{}, decay::decoupled{weight_decay});
  }
};

/// `Adagrad`: eps inside the root.
struct adagrad {
  double learning_rate = 1e-3;             ///< ≥ 0
  double initial_accumulator_value = 0.1;  ///< ≥ 0; start value of the sum
  double epsilon = 1e-7;                   ///< ≥ 0; inside the root
  double weight_decay = 0;                 ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adagrad::learning_rate, range::at_least_zero},
                                                field{"initial_accumulator_value", &adagrad::initial_accumulator_value,
                                                      range::at_least_zero},
                                                field{"epsilon", &adagrad::epsilon, range::at_least_zero},
                                                hyper::weight_decay(&adagrad::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::none{}, second_moment::sum{initial_accumulator_value},
                   step_size::adaptive_eps_root{0, epsilon}, decay::decoupled{weight_decay});
  }
};

/// `Nadam`: PyTorch's with a momentum_decay of 1, and decoupled decay.
struct nadam {
  double learning_rate = 1e-3;  ///< ≥ 0
  double beta_1 = 0.9;          ///< β₁ in [0, 1)
  double beta_2 = 0.999;        ///< β₂ in [0, 1)
  double epsilon = 1e-7;        ///< ≥ 0; beside the corrected root
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &nadam::learning_rate, range::at_least_zero},
                                                field{"beta_1", &nadam::beta_1, range::zero_to_below_one},
                                                field{"beta_2", &nadam::beta_2, range::zero_to_below_one},
                                                field{"epsilon", &nadam::epsilon, range::at_least_zero},
                                                hyper::weight_decay(&nadam::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::nesterov_ema{beta_1, 1}, second_moment::ema{beta_2},
                   step_size::adaptive{epsilon}, decay::decoupled{weight_decay});
  }
};

}  // namespace tensorflow
/// Keras 3.
namespace keras = tensorflow;

/// dlib's solvers. A layer's multipliers of learning rate and decay are groups here.
namespace dlib {

/// `dlib::adam`: L2, and an eps of 1e-8 beside the uncorrected root √v. The learning rate is the trainer's.
struct adam {
  double learning_rate = 1e-2;  ///< ≥ 0
  double weight_decay = 5e-4;   ///< λ ≥ 0; L2
  double momentum1 = 0.9;       ///< β₁ in [0, 1)
  double momentum2 = 0.999;     ///< β₂ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &adam::learning_rate, range::at_least_zero},
                                                hyper::weight_decay(&adam::weight_decay),
                                                field{"momentum1", &adam::momentum1, range::zero_to_below_one},
                                                field{"momentum2", &adam::momentum2, range::zero_to_below_one});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::ema{momentum1}, second_moment::ema{momentum2},
                   step_size::partially_adaptive{1e-8, 0.5}, decay::l2{weight_decay});
  }
};

/// `dlib::sgd`: L2, and the learning rate inside the velocity.
struct sgd {
  double learning_rate = 1e-2;  ///< ≥ 0
  double weight_decay = 5e-4;   ///< λ ≥ 0; L2
  double momentum = 0.9;        ///< μ in [0, 1)

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"learning_rate", &sgd::learning_rate, range::at_least_zero},
                                                hyper::weight_decay(&sgd::weight_decay),
                                                hyper::momentum(&sgd::momentum));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(learning_rate, first_moment::velocity{momentum}, second_moment::none{}, step_size::one{},
                   decay::l2{weight_decay});
  }
};

}  // namespace dlib

/// ensmallen's update policies, none of which has weight decay. `step_size` is its stepSize.
namespace ensmallen {

/// `ens::Adam`: eps beside the uncorrected root √v.
struct adam {
  double step_size = 1e-3;  ///< ≥ 0
  double beta1 = 0.9;       ///< β₁ in [0, 1)
  double beta2 = 0.999;     ///< β₂ in [0, 1)
  double eps = 1e-8;        ///< ≥ 0; beside the uncorrected root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &adam::step_size, range::at_least_zero},
                                                hyper::beta1(&adam::beta1), hyper::beta2(&adam::beta2),
                                                hyper::eps(&adam::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::ema{beta1}, second_moment::ema{beta2},
                   gradus::step_size::partially_adaptive{eps, 0.5}, decay::none{});
  }
};

/// `ens::AMSGrad`: the maximum is of uncorrected averages, eps beside its root.
struct amsgrad {
  double step_size = 1e-3;  ///< ≥ 0
  double beta1 = 0.9;       ///< β₁ in [0, 1)
  double beta2 = 0.999;     ///< β₂ in [0, 1)
  double eps = 1e-8;        ///< ≥ 0; beside the uncorrected root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &amsgrad::step_size, range::at_least_zero},
                                                hyper::beta1(&amsgrad::beta1), hyper::beta2(&amsgrad::beta2),
                                                hyper::eps(&amsgrad::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::ema{beta1}, second_moment::ema_max{beta2},
                   gradus::step_size::partially_adaptive{eps, 0.5}, decay::none{});
  }
};

/// `ens::Nadam`: eps beside the uncorrected root √v. The last field is its policy's scheduleDecay.
struct nadam {
  double step_size = 1e-3;       ///< ≥ 0
  double beta1 = 0.9;            ///< β₁ in [0, 1)
  double beta2 = 0.999;          ///< β₂ in [0, 1)
  double eps = 1e-8;             ///< ≥ 0; beside the uncorrected root
  double schedule_decay = 4e-3;  ///< ≥ 0; how fast the weight of m rises

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &nadam::step_size, range::at_least_zero},
                                                hyper::beta1(&nadam::beta1), hyper::beta2(&nadam::beta2),
                                                hyper::eps(&nadam::eps),
                                                field{"schedule_decay", &nadam::schedule_decay, range::at_least_zero});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::nesterov_ema{beta1, schedule_decay}, second_moment::ema{beta2},
                   gradus::step_size::partially_adaptive{eps, 0.5}, decay::none{});
  }
};

/// `ens::AdaBelief`: as gradus's, with another default of eps.
struct adabelief {
  double step_size = 1e-3;  ///< ≥ 0
  double beta1 = 0.9;       ///< β₁ in [0, 1)
  double beta2 = 0.999;     ///< β₂ in [0, 1)
  double eps = 1e-12;       ///< ≥ 0; in each step added to v, and added to its root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &adabelief::step_size, range::at_least_zero},
                                                hyper::beta1(&adabelief::beta1), hyper::beta2(&adabelief::beta2),
                                                hyper::eps(&adabelief::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::ema{beta1}, second_moment::belief{beta2},
                   gradus::step_size::adaptive_above{eps}, decay::none{});
  }
};

/// `ens::Yogi`: both moments from 0, and no bias correction.
struct yogi {
  double step_size = 1e-3;  ///< ≥ 0
  double beta1 = 0.9;       ///< β₁ in [0, 1)
  double beta2 = 0.999;     ///< β₂ in [0, 1)
  double eps = 1e-8;        ///< ≥ 0; beside the root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &yogi::step_size, range::at_least_zero},
                                                hyper::beta1(&yogi::beta1), hyper::beta2(&yogi::beta2),
                                                hyper::eps(&yogi::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::ema{beta1}, second_moment::yogi{beta2, 0},
                   gradus::step_size::adaptive_eps_root{eps, 0, false}, decay::none{});
  }
};

/// `ens::MomentumSGD` and, with nesterov, `ens::NesterovMomentumSGD`: the learning rate inside the velocity.
struct momentum_sgd {
  double step_size = 1e-2;  ///< ≥ 0
  double momentum = 0.5;    ///< μ in [0, 1)
  bool nesterov = false;    ///< needs momentum > 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &momentum_sgd::step_size, range::at_least_zero},
                                                hyper::momentum(&momentum_sgd::momentum),
                                                hyper::nesterov(&momentum_sgd::nesterov));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::velocity{momentum, nesterov}, second_moment::none{},
                   gradus::step_size::one{}, decay::none{});
  }
};

/// `ens::RMSProp`: as PyTorch's, without momentum.
struct rmsprop {
  double step_size = 1e-2;  ///< ≥ 0
  double alpha = 0.99;      ///< β₂ in [0, 1)
  double eps = 1e-8;        ///< ≥ 0; beside the root

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"step_size", &rmsprop::step_size, range::at_least_zero},
                                                field{"alpha", &rmsprop::alpha, range::zero_to_below_one},
                                                hyper::eps(&rmsprop::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(step_size, first_moment::normalized{eps}, second_moment::ema{alpha}, gradus::step_size::constant{},
                   decay::none{});
  }
};

}  // namespace ensmallen

/// ggml's optimizers, of its `ggml_opt_optimizer_params`.
namespace ggml {

/// `GGML_OPT_OPTIMIZER_TYPE_ADAMW`: as PyTorch's AdamW.
struct adamw {
  double alpha = 1e-3;   ///< learning rate, ≥ 0
  double beta1 = 0.9;    ///< β₁ in [0, 1)
  double beta2 = 0.999;  ///< β₂ in [0, 1)
  double eps = 1e-8;     ///< ≥ 0; beside the corrected root
  double wd = 0;         ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"alpha", &adamw::alpha, range::at_least_zero},
                                                hyper::beta1(&adamw::beta1), hyper::beta2(&adamw::beta2),
                                                hyper::eps(&adamw::eps), field{"wd", &adamw::wd, range::at_least_zero});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(alpha, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps},
                   decay::decoupled{wd});
  }
};

/// `GGML_OPT_OPTIMIZER_TYPE_SGD`: no momentum, decoupled decay.
struct sgd {
  double alpha = 1e-3;  ///< learning rate, ≥ 0
  double wd = 0;        ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(field{"alpha", &sgd::alpha, range::at_least_zero},
                                                field{"wd", &sgd::wd, range::at_least_zero});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(alpha, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay::decoupled{wd});
  }
};

}  // namespace ggml

/// DeepSpeed.
namespace deepspeed {

/// `DeepSpeedCPUAdam`: as PyTorch's Adam or AdamW, with a bias correction that can be switched off.
struct adam {
  double lr = 1e-3;             ///< learning rate, ≥ 0
  bool bias_correction = true;  ///< whether both moments are corrected
  double beta1 = 0.9;           ///< β₁ in [0, 1)
  double beta2 = 0.999;         ///< β₂ in [0, 1)
  double eps = 1e-8;            ///< ≥ 0; beside the root
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ, or L2 without adamw_mode
  bool adamw_mode = true;       ///< decoupled weight decay instead of L2

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adam::lr),
                                                field{"bias_correction", &adam::bias_correction, range::yes_or_no},
                                                hyper::beta1(&adam::beta1), hyper::beta2(&adam::beta2),
                                                hyper::eps(&adam::eps), hyper::weight_decay(&adam::weight_decay),
                                                field{"adamw_mode", &adam::adamw_mode, range::yes_or_no});
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2},
                   step_size::adaptive_eps_root{eps, 0, bias_correction},
                   decay::l2_or_decoupled{weight_decay, adamw_mode});
  }
};

}  // namespace deepspeed
}  // namespace presets
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
