#pragma once
/// \file
/// The named optimizers, as aggregates of hyperparameters. Names and defaults are PyTorch's where it has the
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

/// Adagrad: divides by the root of the sum of all g². State: `sum`. Duchi, Hazan and Singer, JMLR 2011; PyTorch's form
/// and defaults.
struct adagrad {
  double lr = 1e-2;                ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double lr_decay = 0;             ///< ≥ 0; step t has the learning rate lr/(1 + (t−1)·lr_decay)
  double weight_decay = 0;         ///< λ ≥ 0; L2, which adds λθ to g
  double initial_accumulator = 0;  ///< ≥ 0; start value of the sum
  double eps = 1e-10;              ///< ≥ 0; keeps the divisor √v + eps away from 0

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adagrad::lr), hyper::lr_decay(&adagrad::lr_decay),
                                                hyper::weight_decay(&adagrad::weight_decay),
                                                hyper::initial_accumulator(&adagrad::initial_accumulator),
                                                hyper::eps(&adagrad::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::none{}, second_moment::sum{initial_accumulator},
                   step_size::decaying{eps, lr_decay}, decay::l2{weight_decay});
  }
};

/// Adadelta: multiplies g by the ratio of two root mean squares, of earlier steps and of gradients. State: `acc_delta`,
/// `exp_avg_sq`. Zeiler, arXiv 1212.5701 (2012); PyTorch's form and defaults.
struct adadelta {
  double lr = 1;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double rho = 0.9;         ///< ρ in [0, 1): decay rate of both averages
  double eps = 1e-6;        ///< ≥ 0; added to both means of squares; with 0 no weight ever moves
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adadelta::lr), hyper::rho(&adadelta::rho),
                                                hyper::eps(&adadelta::eps),
                                                hyper::weight_decay(&adadelta::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::rms_ratio{rho, eps}, second_moment::ema{rho}, step_size::constant{},
                   decay::l2{weight_decay});
  }
};

/// Adamax: Adam with the maximum norm, v ← max(β₂v, |g| + eps), without a root. State: `exp_avg`, `exp_inf`. Kingma and
/// Ba, ICLR 2015; PyTorch's form and defaults.
struct adamax {
  double lr = 2e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the norm v of g
  double eps = 1e-8;        ///< ≥ 0; keeps v away from 0
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adamax::lr), hyper::beta1(&adamax::beta1),
                                                hyper::beta2(&adamax::beta2), hyper::eps(&adamax::eps),
                                                hyper::weight_decay(&adamax::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::infinity_norm{beta2, eps}, step_size::by_norm{},
                   decay::l2{weight_decay});
  }
};

/// RMSprop: g/(√v + eps), through a momentum buffer. State: `exp_avg_sq`; `grad_avg` if centered, `momentum_buffer` with
/// momentum. Tieleman and Hinton 2012 (docs/first_moment.md); PyTorch's form and defaults.
struct rmsprop {
  double lr = 1e-2;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double alpha = 0.99;      ///< in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v + eps away from 0
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g
  double momentum = 0;      ///< μ in [0, 1); 0 keeps no buffer
  bool centered = false;    ///< v is the average of the squared distance to the average gradient

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&rmsprop::lr),
                                                field{"alpha", &rmsprop::alpha, range::zero_to_below_one},
                                                hyper::eps(&rmsprop::eps), hyper::weight_decay(&rmsprop::weight_decay),
                                                hyper::momentum(&rmsprop::momentum),
                                                hyper::centered(&rmsprop::centered));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::normalized_momentum{momentum, eps}, second_moment::ema_about_mean{alpha, centered},
                   step_size::constant{}, decay::l2{weight_decay});
  }
};

/// AdaBelief: AdamW whose v averages (g − m)² in place of g². State: `exp_avg`, `exp_avg_var`. Zhuang et al., NeurIPS
/// 2020; the authors' form without rectification.
struct adabelief {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;     ///< β₂ in [0, 1): decay rate of the average v of (g − m)²
  double eps = 1e-16;       ///< ≥ 0; in each step added to v, and added to its root
  double weight_decay = 0;  ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adabelief::lr), hyper::beta1(&adabelief::beta1),
                                                hyper::beta2(&adabelief::beta2), hyper::eps(&adabelief::eps),
                                                hyper::weight_decay(&adabelief::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::belief{beta2}, step_size::adaptive_above{eps},
                   decay::decoupled{weight_decay});
  }
};

/// ADOPT: momentum of g/max(√v, eps), where v is of the step before. The first step only fills v. State: `exp_avg`,
/// `exp_avg_sq`. Taniguchi et al., NeurIPS 2024 (docs/first_moment.md); the authors' defaults and clipping.
struct adopt {
  double lr = 1e-3;             ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;           ///< β₁ in [0, 1): decay rate of the average m of the normalized g
  double beta2 = 0.9999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-6;            ///< ≥ 0; the least divisor
  double weight_decay = 0;      ///< λ ≥ 0; shrinks θ by αλ
  double clip_exponent = 0.25;  ///< ≥ 0; the normalized g is clipped to ±(t−1)^clip_exponent

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adopt::lr), hyper::beta1(&adopt::beta1),
                                                hyper::beta2(&adopt::beta2), hyper::eps(&adopt::eps),
                                                hyper::weight_decay(&adopt::weight_decay),
                                                hyper::clip_exponent(&adopt::clip_exponent));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::normalized_ema{beta1, eps, clip_exponent}, second_moment::ema_from_first{beta2},
                   step_size::constant{}, decay::decoupled{weight_decay});
  }
};

/// AdEMAMix: AdamW along m̂ + α·n, where n is a slower average of g. State: `exp_avg`, `exp_avg_slow`, `exp_avg_sq`.
/// Pagliardini, Ablin and Grangier, ICLR 2025 (docs/first_moment.md); the authors' defaults.
struct ademamix {
  double lr = 1e-3;          ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;        ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;      ///< β₂ in [0, 1): decay rate of the average v of g²
  double beta3 = 0.9999;     ///< β₃ in [0, 1): decay rate of the slow average n of g
  double alpha = 5;          ///< ≥ 0; the weight of n
  double t_alpha_beta3 = 0;  ///< ≥ 0; the steps in which alpha and β₃ warm up; 0 for none
  double eps = 1e-8;         ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;   ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&ademamix::lr), hyper::beta1(&ademamix::beta1),
                                                hyper::beta2(&ademamix::beta2), hyper::beta3(&ademamix::beta3),
                                                field{"alpha", &ademamix::alpha, range::at_least_zero},
                                                hyper::t_alpha_beta3(&ademamix::t_alpha_beta3),
                                                hyper::eps(&ademamix::eps),
                                                hyper::weight_decay(&ademamix::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::two_emas{beta1, beta3, alpha, t_alpha_beta3}, second_moment::ema{beta2},
                   step_size::adaptive{eps}, decay::decoupled{weight_decay});
  }
};

/// NAdam: Adam along a Nesterov direction, a mean of m and g whose weights change with t. State: `exp_avg`,
/// `exp_avg_sq`, one double `mu_product`. Dozat, ICLR workshop 2016 (docs/first_moment.md); PyTorch's form and defaults.
struct nadam {
  double lr = 2e-3;                     ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;                   ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;                 ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;                    ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;              ///< λ ≥ 0; adds λθ to g, or shrinks θ by αλ if decoupled
  double momentum_decay = 4e-3;         ///< ≥ 0; how fast the weight of m rises
  bool decoupled_weight_decay = false;  ///< decoupled weight decay instead of L2

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&nadam::lr), hyper::beta1(&nadam::beta1),
                                                hyper::beta2(&nadam::beta2), hyper::eps(&nadam::eps),
                                                hyper::weight_decay(&nadam::weight_decay),
                                                hyper::momentum_decay(&nadam::momentum_decay),
                                                hyper::decoupled_weight_decay(&nadam::decoupled_weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::nesterov_ema{beta1, momentum_decay}, second_moment::ema{beta2},
                   step_size::adaptive{eps}, decay::l2_or_decoupled{weight_decay, decoupled_weight_decay});
  }
};

/// Adan: Adam along m̂ + β₂n̂, where n averages the difference of successive gradients. State: `exp_avg`, `exp_avg_diff`,
/// `previous_grad`, `exp_avg_sq`. Xie et al., TPAMI 2024 (docs/first_moment.md); the authors' defaults and decay.
struct adan {
  double lr = 1e-3;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.98;      ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.92;      ///< β₂ in [0, 1): decay rate of the average n of the difference of gradients
  double beta3 = 0.99;      ///< β₃ in [0, 1): decay rate of the average v of squares
  double eps = 1e-8;        ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;  ///< λ ≥ 0; divides θ by 1 + αλ after the step

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adan::lr), hyper::beta1(&adan::beta1),
                                                hyper::beta2(&adan::beta2), hyper::beta3(&adan::beta3),
                                                hyper::eps(&adan::eps), hyper::weight_decay(&adan::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema_and_difference{beta1, beta2}, second_moment::ema{beta3},
                   step_size::adaptive{eps}, decay::proximal{weight_decay});
  }
};

/// Lion: θ ← (1 − αλ)θ − α·sign(β₁m + (1−β₁)g), and then m ← β₂m + (1−β₂)g. State: `exp_avg`. Chen et al., NeurIPS
/// 2023; the authors' defaults.
struct lion {
  double lr = 1e-4;         ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;       ///< β₁ in [0, 1): the weight of m in the direction
  double beta2 = 0.99;      ///< β₂ in [0, 1): decay rate of the average m of g
  double weight_decay = 0;  ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&lion::lr), hyper::beta1(&lion::beta1),
                                                hyper::beta2(&lion::beta2), hyper::weight_decay(&lion::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::sign_of_ema{beta1, beta2}, second_moment::none{}, step_size::constant{},
                   decay::decoupled{weight_decay});
  }
};

/// Schedule-Free AdamW: AdamW at weights between fast ones, z, and their average, x, in place of a schedule. Gradients are
/// taken at the parameters, and `copy_average` gives x, the weights to evaluate and to keep. State: `z_minus_y`,
/// `exp_avg_sq`, two doubles `lr_max` and `weight_sum`. Defazio et al., NeurIPS 2024 (docs/first_moment.md); the authors'
/// defaults.
struct schedule_free_adamw {
  double lr = 2.5e-3;          ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in (0, 1): how near the parameters are to the average
  double beta2 = 0.999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 0;     ///< λ ≥ 0; shrinks z by αλ times the parameters
  double warmup_steps = 0;     ///< ≥ 0; the steps in which α rises linearly
  double r = 0;                ///< ≥ 0; a step counts in the average with t^r
  double weight_lr_power = 2;  ///< ≥ 0; and with this power of the largest α so far

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(
      hyper::lr(&schedule_free_adamw::lr), field{"beta1", &schedule_free_adamw::beta1, range::above_zero_below_one},
      hyper::beta2(&schedule_free_adamw::beta2), hyper::eps(&schedule_free_adamw::eps),
      hyper::weight_decay(&schedule_free_adamw::weight_decay), hyper::warmup_steps(&schedule_free_adamw::warmup_steps),
      hyper::weight_power(&schedule_free_adamw::r), hyper::weight_lr_power(&schedule_free_adamw::weight_lr_power));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::schedule_free{beta1, eps, weight_decay, warmup_steps, r, weight_lr_power},
                   second_moment::ema{beta2}, step_size::one{}, decay::none{});
  }
};

/// LAMB: AdamW whose step, decay included, is scaled by ‖θ‖/‖step/α‖ of each tensor. A tensor without decay takes Adam's
/// step. State: `exp_avg`, `exp_avg_sq`. You et al., ICLR 2020 (docs/step_size.md); timm's form and defaults, without its
/// clipping, which is `max_grad_norm` of a step.
struct lamb {
  double lr = 1e-3;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-6;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 1e-2;  ///< λ ≥ 0; shrinks θ by αλ times the ratio; 0 turns the ratio off

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&lamb::lr), hyper::beta1(&lamb::beta1),
                                                hyper::beta2(&lamb::beta2), hyper::eps(&lamb::eps),
                                                hyper::weight_decay(&lamb::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::trust_ratio{eps},
                   decay::decoupled{weight_decay});
  }
};

/// StableAdamW: AdamW whose α is divided by the root mean square of g/√v̂ over each tensor, where that is above 1. State:
/// `exp_avg`, `exp_avg_sq`. Wortsman et al., NeurIPS 2023 (docs/step_size.md); pytorch_optimizer's form and defaults.
struct stable_adamw {
  double lr = 1e-3;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.99;         ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 1e-2;  ///< λ ≥ 0; shrinks θ by αλ, with the α of the step

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&stable_adamw::lr), hyper::beta1(&stable_adamw::beta1),
                                                hyper::beta2(&stable_adamw::beta2), hyper::eps(&stable_adamw::eps),
                                                hyper::weight_decay(&stable_adamw::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::rms_clipped{eps},
                   decay::decoupled{weight_decay});
  }
};

/// AdamW that moves only the weights whose m and g have one sign, the further the fewer they are in their tensor. State:
/// `exp_avg`, `exp_avg_sq`. Liang et al. 2024 (docs/step_size.md); timm's form, PyTorch's defaults.
struct cautious_adamw {
  double lr = 1e-3;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta1 = 0.9;          ///< β₁ in [0, 1): decay rate of the average m of g
  double beta2 = 0.999;        ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-8;           ///< ≥ 0; keeps the divisor √v̂ + eps away from 0
  double weight_decay = 1e-2;  ///< λ ≥ 0; shrinks θ by αλ, also of weights that do not move

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&cautious_adamw::lr), hyper::beta1(&cautious_adamw::beta1),
                                                hyper::beta2(&cautious_adamw::beta2), hyper::eps(&cautious_adamw::eps),
                                                hyper::weight_decay(&cautious_adamw::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::cautious{eps},
                   decay::decoupled{weight_decay});
  }
};

/// Adai: momentum whose β₁ is each element's own, 1 − β₀·v̂/v̄, where v̄ is the mean of v̂ over the whole model. State:
/// `exp_avg`, `exp_avg_weight`, `exp_avg_sq`. Xie et al., ICML 2022 (docs/first_moment.md); the authors' defaults, but lr,
/// for which they have none.
struct adai {
  double lr = 1;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta0 = 0.1;       ///< β₀ ≥ 0: how much less inertia an element has where v̂ is large
  double beta2 = 0.99;      ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-3;        ///< in (0, 1): the inertia is at most 1 − eps
  double weight_decay = 0;  ///< λ ≥ 0; L2, which adds λθ to g

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adai::lr), hyper::beta0(&adai::beta0),
                                                hyper::beta2(&adai::beta2),
                                                field{"eps", &adai::eps, range::above_zero_below_one},
                                                hyper::weight_decay(&adai::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::adaptive_inertia{beta0, eps}, second_moment::ema{beta2}, step_size::constant{},
                   decay::l2{weight_decay});
  }
};

/// Adai with decoupled weight decay, in one pass: v̄ follows from the gradient norm. State as `adai`, and one double Σv.
/// Xie et al., NeurIPS 2023; defaults as `adai`.
struct adais {
  double lr = 1;            ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double beta0 = 0.1;       ///< β₀ ≥ 0: how much less inertia an element has where v̂ is large
  double beta2 = 0.99;      ///< β₂ in [0, 1): decay rate of the average v of g²
  double eps = 1e-3;        ///< in (0, 1): the inertia is at most 1 − eps
  double weight_decay = 0;  ///< λ ≥ 0; shrinks θ by αλ

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&adais::lr), hyper::beta0(&adais::beta0),
                                                hyper::beta2(&adais::beta2),
                                                field{"eps", &adais::eps, range::above_zero_below_one},
                                                hyper::weight_decay(&adais::weight_decay));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::adaptive_inertia{beta0, eps}, second_moment::ema{beta2}, step_size::constant{},
                   decay::decoupled{weight_decay});
  }
};

/// Calls f(name, std::type_identity<Recipe>) for each recipe. This is the only list of them.
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
  f("adagrad", std::type_identity<adagrad>{});
  f("adadelta", std::type_identity<adadelta>{});
  f("adamax", std::type_identity<adamax>{});
  f("rmsprop", std::type_identity<rmsprop>{});
  f("adabelief", std::type_identity<adabelief>{});
  f("adopt", std::type_identity<adopt>{});
  f("ademamix", std::type_identity<ademamix>{});
  f("lion", std::type_identity<lion>{});
  f("nadam", std::type_identity<nadam>{});
  f("adan", std::type_identity<adan>{});
  f("schedule_free_adamw", std::type_identity<schedule_free_adamw>{});
  f("lamb", std::type_identity<lamb>{});
  f("stable_adamw", std::type_identity<stable_adamw>{});
  f("cautious_adamw", std::type_identity<cautious_adamw>{});
  f("adai", std::type_identity<adai>{});
  f("adais", std::type_identity<adais>{});
}

namespace detail {

/// A recipe's name: its own `name`, or that of gradus's list; empty if it has none.
template <class Recipe>
constexpr std::string_view name_of_recipe() noexcept
{
  std::string_view found;
  if constexpr (requires { std::string_view(Recipe::name); })
    found = Recipe::name;
  else
    for_each_recipe([&found]<class R>(std::string_view name, std::type_identity<R>) {
      if (std::is_same_v<R, Recipe>)
        found = name;
    });
  return found;
}

/// Whether each recipe of a list has a name of its own.
template <class Recipes>
constexpr bool names_are_distinct() noexcept
{
  bool good = true;
  Recipes::for_each([&good](std::string_view name, auto) {
    int count = 0;
    Recipes::for_each([&](std::string_view other, auto) { count += name == other; });
    good = good && count == 1 && !name.empty();
  });
  return good;
}

}  // namespace detail

/// All recipes of gradus, the default of any_optimizer.
struct all_recipes {
  /// Calls f(name, std::type_identity<Recipe>) for each.
  template <class F>
  static constexpr void for_each(const F& f)
  {
    for_each_recipe(f);
  }
};

/// The recipes that an any_optimizer chooses from; it compiles only these. A recipe of your own has a name, also in
/// checkpoints: `static constexpr std::string_view name = "mine"`.
template <class... Recipes>
struct recipe_list {
  /// Calls f(name, std::type_identity<Recipe>) for each.
  template <class F>
  static constexpr void for_each(const F& f)
  {
    (f(detail::name_of_recipe<Recipes>(), std::type_identity<Recipes>{}), ...);
  }
};

/// All recipes of gradus, and your own.
template <class... Recipes>
struct all_recipes_and {
  /// Calls f(name, std::type_identity<Recipe>) for each.
  template <class F>
  static constexpr void for_each(const F& f)
  {
    for_each_recipe(f);
    recipe_list<Recipes...>::for_each(f);
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
