#pragma once
/// \file
/// The ten optimizers: which rules, which hyperparameters, which defaults. Names and defaults are PyTorch's where it has
/// the optimizer, else the authors'.

#include <gradus/rules/composition.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Stochastic gradient descent with momentum. Momentum 0, the default, keeps no state.
struct sgd {
  double lr = 1e-3, momentum = 0, dampening = 0;
  bool nesterov = false;
  double weight_decay = 0;
  static constexpr auto fields = gradus::fields(hyper::lr(&sgd::lr), hyper::momentum(&sgd::momentum),
                                                hyper::dampening(&sgd::dampening), hyper::nesterov(&sgd::nesterov),
                                                hyper::weight_decay(&sgd::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::momentum{momentum, dampening, nesterov}, second_moment::none{}, step_size::constant{}, decay::l2{weight_decay});
  }
};

/// SGD with stable weight decay (Xie et al. 2023, the authors' SGDS).
struct sgds {
  double lr = 1e-3, momentum = 0, dampening = 0;
  bool nesterov = false;
  double weight_decay = 0;
  static constexpr auto fields = gradus::fields(hyper::lr(&sgds::lr), hyper::momentum(&sgds::momentum),
                                                hyper::dampening(&sgds::dampening), hyper::nesterov(&sgds::nesterov),
                                                hyper::weight_decay(&sgds::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::momentum{momentum, dampening, nesterov}, second_moment::none{}, step_size::constant{}, decay::stable{weight_decay});
  }
};

/// Adam with L2 regularisation (Kingma and Ba, ICLR 2015).
struct adam {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  static constexpr auto fields = gradus::fields(hyper::lr(&adam::lr), hyper::beta1(&adam::beta1),
                                                hyper::beta2(&adam::beta2), hyper::eps(&adam::eps),
                                                hyper::weight_decay(&adam::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps}, decay::l2{weight_decay});
  }
};

/// Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).
struct adamw {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2;
  static constexpr auto fields = gradus::fields(hyper::lr(&adamw::lr), hyper::beta1(&adamw::beta1),
                                                hyper::beta2(&adamw::beta2), hyper::eps(&adamw::eps),
                                                hyper::weight_decay(&adamw::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps}, decay::decoupled{weight_decay});
  }
};

/// Adam with Scheduled Weight Decay (Xie et al., NeurIPS 2023); not the AdamS of arXiv 2505.16363.
struct adams {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-4;
  static constexpr auto fields = gradus::fields(hyper::lr(&adams::lr), hyper::beta1(&adams::beta1),
                                                hyper::beta2(&adams::beta2), hyper::eps(&adams::eps),
                                                hyper::weight_decay(&adams::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::adaptive{eps}, decay::scheduled{weight_decay});
  }
};

/// AMSGrad (Reddi, Kale and Kumar, ICLR 2018).
struct amsgrad {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  static constexpr auto fields = gradus::fields(hyper::lr(&amsgrad::lr), hyper::beta1(&amsgrad::beta1),
                                                hyper::beta2(&amsgrad::beta2), hyper::eps(&amsgrad::eps),
                                                hyper::weight_decay(&amsgrad::weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema_max{beta2}, step_size::adaptive{eps}, decay::l2{weight_decay});
  }
};

/// Yogi (Zaheer et al., NeurIPS 2018), both moments from initial_accumulator.
struct yogi {
  double lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-3, weight_decay = 0, initial_accumulator = 1e-6;
  static constexpr auto fields = gradus::fields(hyper::lr(&yogi::lr), hyper::beta1(&yogi::beta1),
                                                hyper::beta2(&yogi::beta2), hyper::eps(&yogi::eps),
                                                hyper::weight_decay(&yogi::weight_decay),
                                                hyper::initial_accumulator(&yogi::initial_accumulator));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1, initial_accumulator}, second_moment::yogi{beta2, initial_accumulator}, step_size::adaptive{eps}, decay::l2{weight_decay});
  }
};

/// AdaBound (Luo et al., ICLR 2019).
struct adabound {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, final_lr = 0.1, gamma = 1e-3;
  static constexpr auto fields = gradus::fields(hyper::lr(&adabound::lr), hyper::beta1(&adabound::beta1),
                                                hyper::beta2(&adabound::beta2), hyper::eps(&adabound::eps),
                                                hyper::weight_decay(&adabound::weight_decay),
                                                hyper::final_lr(&adabound::final_lr), hyper::gamma(&adabound::gamma));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::bounded{eps, final_lr, gamma}, decay::l2{weight_decay});
  }
};

/// Padam (Chen et al., IJCAI 2020); partial 1/2 is AMSGrad, 0 is momentum.
struct padam {
  double lr = 0.1, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, partial = 0.25;
  static constexpr auto fields = gradus::fields(hyper::lr(&padam::lr), hyper::beta1(&padam::beta1),
                                                hyper::beta2(&padam::beta2), hyper::eps(&padam::eps),
                                                hyper::weight_decay(&padam::weight_decay), hyper::partial(&padam::partial));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema_max{beta2}, step_size::partially_adaptive{eps, partial}, decay::l2{weight_decay});
  }
};

/// RAdam (Liu et al., ICLR 2020); L2 or, on request, decoupled decay, as in PyTorch.
struct radam {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled_weight_decay = false;
  static constexpr auto fields = gradus::fields(hyper::lr(&radam::lr), hyper::beta1(&radam::beta1),
                                                hyper::beta2(&radam::beta2), hyper::eps(&radam::eps),
                                                hyper::weight_decay(&radam::weight_decay),
                                                hyper::decoupled_weight_decay(&radam::decoupled_weight_decay));
  constexpr auto rule() const noexcept
  {
    return compose(lr, first_moment::ema{beta1}, second_moment::ema{beta2}, step_size::rectified{eps}, decay::l2_or_decoupled{weight_decay, decoupled_weight_decay});
  }
};

/// Calls f(name, type_identity<Recipe>) for each of the ten: the one list of what there is.
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
