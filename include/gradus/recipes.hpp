#pragma once
/// \file
/// The ten named optimizers, as aggregates of hyperparameters. Names and defaults are PyTorch's where it has the
/// optimizer, otherwise the authors'. docs/algorithms.md has the equations. α is lr times the step's lr_scale, λ is
/// weight_decay, g the gradient, and m̂ and v̂ are the bias-corrected moments.

#include <gradus/rules/composition.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Stochastic gradient descent with momentum and L2: b ← μb + (1−dampening)g, θ ← θ − αb. State: `momentum_buffer`,
/// or none with momentum 0. Polyak 1964, Sutskever et al. 2013 (docs/first_moment.md); PyTorch's form and defaults.
struct sgd {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double momentum = 0;      ///< μ in [0, 1); 0 keeps no buffer
  double dampening = 0;     ///< in [0, 1]; gradients after the first enter the buffer times 1 − dampening
  bool nesterov = false;    ///< steps along g + μb instead of b; needs momentum > 0 and dampening = 0
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&sgd::lr), hyper::momentum(&sgd::momentum),
                                                hyper::dampening(&sgd::dampening), hyper::nesterov(&sgd::nesterov),
                                                hyper::weight_decay(&sgd::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::momentum{momentum, dampening, nesterov}, second_moment::none{},
                   step_size::constant{}, decay::l2{weight_decay});
  }
};

/// SGD with stable weight decay: as `sgd`, but θ shrinks by αλ(1−dampening)/(1−μ) instead of L2 (docs/decay.md).
/// SGDS in the code of Xie et al., NeurIPS 2023. State and defaults: as `sgd`.
struct sgds {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double momentum = 0;      ///< μ in [0, 1); 0 keeps no buffer
  double dampening = 0;     ///< in [0, 1]; gradients after the first enter the buffer times 1 − dampening
  bool nesterov = false;    ///< steps along g + μb instead of b; needs momentum > 0 and dampening = 0
  double weight_decay = 0;  ///< λ ≥ 0; decoupled, and scaled as the momentum buffer scales the gradient

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&sgds::lr), hyper::momentum(&sgds::momentum),
                                                hyper::dampening(&sgds::dampening), hyper::nesterov(&sgds::nesterov),
                                                hyper::weight_decay(&sgds::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::momentum{momentum, dampening, nesterov}, second_moment::none{},
                   step_size::constant{}, decay::stable{weight_decay});
  }
};

/// Adam with L2: θ ← θ − α·m̂/(√v̂ + eps). State: `exp_avg`, `exp_avg_sq`.
/// Kingma and Ba, ICLR 2015; PyTorch's defaults.
struct adam {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adam::lr), hyper::beta1(&adam::beta1),
                                                hyper::beta2(&adam::beta2), hyper::eps(&adam::eps),
                                                hyper::weight_decay(&adam::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps},
                   decay::l2{weight_decay});
  }
};

/// Adam with decoupled weight decay: θ ← (1 − αλ)θ − α·m̂/(√v̂ + eps). State: `exp_avg`, `exp_avg_sq`.
/// Loshchilov and Hutter, ICLR 2019 (docs/decay.md); PyTorch's defaults.
struct adamw {
  double lr = 1e-3;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 1e-2;  ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adamw::lr), hyper::beta1(&adamw::beta1),
                                                hyper::beta2(&adamw::beta2), hyper::eps(&adamw::eps),
                                                hyper::weight_decay(&adamw::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps},
                   decay::decoupled{weight_decay});
  }
};

/// Adam with scheduled weight decay: θ ← (1 − s)θ − α·m̂/(√v̂ + eps), where s = αλ/√v̄ ≤ 1 and v̄ is the mean of v̂
/// over the whole model. State: `exp_avg`, `exp_avg_sq`, one double Σv. Xie et al., NeurIPS 2023 (docs/decay.md); not
/// the AdamS of arXiv 2505.16363.
struct adams {
  double lr = 1e-3;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 1e-4;  ///< λ ≥ 0; the default is the authors' class's

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adams::lr), hyper::beta1(&adams::beta1),
                                                hyper::beta2(&adams::beta2), hyper::eps(&adams::eps),
                                                hyper::weight_decay(&adams::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps},
                   decay::scheduled{weight_decay});
  }
};

/// AMSGrad: Adam with L2 that divides by the root of the running maximum of v. State: `exp_avg`, `exp_avg_sq`,
/// `max_exp_avg_sq`. Reddi, Kale and Kumar, ICLR 2018, with PyTorch's bias correction (docs/second_moment.md).
struct amsgrad {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&amsgrad::lr), hyper::beta1(&amsgrad::beta1),
                                                hyper::beta2(&amsgrad::beta2), hyper::eps(&amsgrad::eps),
                                                hyper::weight_decay(&amsgrad::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema_max{beta2}, step_size::adaptive{eps},
                   decay::l2{weight_decay});
  }
};

/// Yogi: Adam with L2 and v ← v − (1−β₂)·sign(v − g²)·g². State: `exp_avg`, `exp_avg_sq`. Zaheer et al., NeurIPS 2018;
/// bias correction and defaults come from the torch_optimizer package (docs/second_moment.md).
struct yogi {
  double lr = 1e-2;                   ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;                 ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;               ///< β₂ in [0, 1): 1 − β₂ is the rate at which v follows g²
  double eps = 1e-3;                  ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;            ///< λ ≥ 0; L2, which adds λθ to g
  double initial_accumulator = 1e-6;  ///< ≥ 0; start value of both moments

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&yogi::lr), hyper::beta1(&yogi::beta1),
                                                hyper::beta2(&yogi::beta2), hyper::eps(&yogi::eps),
                                                hyper::weight_decay(&yogi::weight_decay),
                                                hyper::initial_accumulator(&yogi::initial_accumulator));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1, initial_accumulator}, second_moment::yogi{beta2, initial_accumulator},
                   step_size::adaptive{eps}, decay::l2{weight_decay});
  }
};

/// AdaBound: Adam with L2 whose step size lies between two bounds that close on final_lr, so Adam turns into SGD.
/// State: `exp_avg`, `exp_avg_sq`. Luo et al., ICLR 2019 (docs/step_size.md); the authors' defaults.
struct adabound {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v + eps away from 0 (v without bias correction)
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g
  double final_lr = 0.1;    ///< ≥ 0; step size that the bounds close on, also times `lr_scale`
  double gamma = 1e-3;      ///< γ in (0, 1): how fast the bounds close

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adabound::lr), hyper::beta1(&adabound::beta1),
                                                hyper::beta2(&adabound::beta2), hyper::eps(&adabound::eps),
                                                hyper::weight_decay(&adabound::weight_decay),
                                                hyper::final_lr(&adabound::final_lr), hyper::gamma(&adabound::gamma));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::bounded{eps, final_lr, gamma},
                   decay::l2{weight_decay});
  }
};

/// Padam: AMSGrad that divides by (√v + eps)^(2·partial). State: `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq`.
/// Chen et al., IJCAI 2020 (docs/step_size.md); the defaults are the authors' class's.
struct padam {
  double lr = 0.1;          ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v + eps away from 0 (v without bias correction)
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g
  double partial = 0.25;    ///< p in [0, 0.5]: 1/2 gives AMSGrad, 0 gives momentum; powers of two are fastest

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&padam::lr), hyper::beta1(&padam::beta1),
                                                hyper::beta2(&padam::beta2), hyper::eps(&padam::eps),
                                                hyper::weight_decay(&padam::weight_decay),
                                                hyper::partial(&padam::partial));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema_max{beta2},
                   step_size::partially_adaptive{eps, partial}, decay::l2{weight_decay});
  }
};

/// RAdam: Adam whose first steps are plain momentum, until the variance of its step size can be rectified (ρ_t > 5).
/// State: `exp_avg`, `exp_avg_sq`. Liu et al., ICLR 2020 (docs/step_size.md); PyTorch's form and defaults.
struct radam {
  double lr = 1e-3;                     ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;                   ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;                 ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;                    ///< ≥ 0; keeps the divisor √v + eps away from 0 (v without bias correction)
  double weight_decay = 0;              ///< λ ≥ 0; adds λθ to g, or shrinks θ by αλ if decoupled
  bool decoupled_weight_decay = false;  ///< decoupled weight decay instead of L2

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&radam::lr), hyper::beta1(&radam::beta1),
                                                hyper::beta2(&radam::beta2), hyper::eps(&radam::eps),
                                                hyper::weight_decay(&radam::weight_decay),
                                                hyper::decoupled_weight_decay(&radam::decoupled_weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::rectified{eps},
                   decay::l2_or_decoupled{weight_decay, decoupled_weight_decay});
  }
};

/// Calls f(name, std::type_identity<Recipe>) for each of the ten recipes. This is the only list of them.
template <class F>
constexpr void for_each_recipe(F&& f)
{
  f("sgd", std::type_identity<sgd>{});
  f("sgds", std::type_identity<sgds>{});
  f("adam", std::type_identity<adam>{});
  f("adamw", std::type_identity<adamw>{});
  f("adams", std::type_identity<adams>{});
  f("amsgrad", std::type_identity<amsgrad>{});
  f("yogi", std::type_identity<yogi>{});
  f("adabound", std::type_identity<adabound>{});
  f("padam", std::type_identity<padam>{});
  f("radam", std::type_identity<radam>{});
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
