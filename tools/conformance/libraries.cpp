// The conformance suite on optimizers of C++ libraries. One program for each:
//
//   g++ -std=c++17 -O1 -DWITH_DLIB libraries.cpp -ldlib -o dlib_conformance             # libdlib-dev
//   g++ -std=c++17 -O1 -DWITH_ENSMALLEN -I ensmallen/include libraries.cpp -larmadillo -o ensmallen_conformance
//   g++ -std=c++20 -O1 -DWITH_LIBTORCH $(flags of LibTorch) libraries.cpp -ltorch -ltorch_cpu -lc10 -o libtorch_conformance

#include <cstdio>
#include <memory>

#include "conformance.hpp"

namespace {

using conformance::settings;

// Prints the verdict on an optimizer. \param make  returns the step of a fresh one
template <class T, class Make>
void examine(const char* name, const settings& s, const Make& make)
{
  std::printf("== %s\n%s", name, conformance::examine<T>(s, make(s)).text.c_str());
}

settings without_decay()
{
  settings s;
  s.weight_decay = 0;
  return s;
}

}  // namespace

#ifdef WITH_DLIB
#include <dlib/dnn.h>

namespace {

// What a solver asks of a layer.
struct layer {
  dlib::resizable_tensor parameters;
  double decay = 1;
  dlib::tensor& get_layer_params() { return parameters; }
  const dlib::tensor& get_layer_params() const { return parameters; }
  double get_weight_decay_multiplier() const { return decay; }
  double get_learning_rate_multiplier() const { return 1; }
};

template <class Solver>
auto step_of(const Solver& fresh)
{
  return [solvers = std::vector<Solver>(4, fresh)](std::vector<conformance::tensor<float>>& tensors, int,
                                                   double lr) mutable {
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      auto& x = tensors[k];
      layer l;
      l.parameters.set_size(long(x.size));
      std::copy(x.parameters, x.parameters + x.size, l.parameters.host());
      l.decay = x.weight_decay > 0;
      dlib::resizable_tensor g(long(x.size));
      std::copy(x.gradients, x.gradients + x.size, g.host());
      const dlib::tensor& delta = solvers[k](float(lr), l, g);
      for (std::size_t i = 0; i < x.size; ++i)
        x.parameters[i] += delta.host()[i];
    }
  };
}

void examine_all()
{
  const settings s;
  examine<float>("dlib::adam", s, [](const settings& h) {
    return step_of(dlib::adam(float(h.weight_decay), float(h.beta1), float(h.beta2)));
  });
  examine<float>("dlib::sgd", s,
                 [](const settings& h) { return step_of(dlib::sgd(float(h.weight_decay), float(h.momentum))); });
}

}  // namespace
#endif

#ifdef WITH_ENSMALLEN
#include <ensmallen.hpp>

namespace {

template <class Update>
auto step_of(const Update& update)
{
  using policy = typename Update::template Policy<arma::mat, arma::mat>;
  struct state {
    Update update;
    std::vector<std::unique_ptr<policy>> policies;
  };
  return [s = std::make_shared<state>(state{update, {}})](std::vector<conformance::tensor<double>>& tensors, int t,
                                                          double lr) {
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      const auto& x = tensors[k];
      if (t == 1)
        s->policies.push_back(std::make_unique<policy>(s->update, x.size, 1));
      arma::mat w(x.parameters, x.size, 1, false, true);
      s->policies[k]->Update(w, lr, arma::mat(x.gradients, x.size, 1));
    }
  };
}

void examine_all()
{
  const settings s = without_decay();
  examine<double>("ens::Adam", s, [](const settings& h) { return step_of(ens::AdamUpdate(h.eps, h.beta1, h.beta2)); });
  examine<double>("ens::AMSGrad", s,
                  [](const settings& h) { return step_of(ens::AMSGradUpdate(h.eps, h.beta1, h.beta2)); });
  examine<double>("ens::MomentumSGD", s, [](const settings& h) { return step_of(ens::MomentumUpdate(h.momentum)); });
  settings nesterov = s;
  nesterov.nesterov = true;
  examine<double>("ens::NesterovMomentumSGD", nesterov,
                  [](const settings& h) { return step_of(ens::NesterovMomentumUpdate(h.momentum)); });
  examine<double>("ens::RMSProp", s, [](const settings& h) { return step_of(ens::RMSPropUpdate(h.eps, h.beta2)); });
  examine<double>("ens::AdaGrad", s, [](const settings& h) { return step_of(ens::AdaGradUpdate(h.eps)); });
}

}  // namespace
#endif

#ifdef WITH_LIBTORCH
#include <torch/torch.h>

namespace {

template <class Optimizer, class Options>
auto step_of(const Options& options)
{
  struct state {
    std::vector<torch::Tensor> parameters;
    std::unique_ptr<Optimizer> optimizer;
  };
  return [s = std::make_shared<state>(), options](std::vector<conformance::tensor<double>>& tensors, int t, double lr) {
    if (t == 1) {
      std::vector<torch::optim::OptimizerParamGroup> groups;
      for (auto& x : tensors) {
        s->parameters.push_back(torch::from_blob(x.parameters, long(x.size), torch::kFloat64).requires_grad_());
        auto own = std::make_unique<Options>(options);
        own->weight_decay(x.weight_decay);
        groups.emplace_back(std::vector<torch::Tensor>{s->parameters.back()}, std::move(own));
      }
      s->optimizer = std::make_unique<Optimizer>(groups, options);
    }
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      const auto& x = tensors[k];
      s->parameters[k].mutable_grad() = torch::tensor(std::vector<double>(x.gradients, x.gradients + x.size),
                                                      torch::kFloat64);
      static_cast<Options&>(s->optimizer->param_groups()[k].options()).lr(lr);
    }
    s->optimizer->step();
  };
}

void examine_all()
{
  using namespace torch::optim;
  const settings s;
  const auto adam = [](const settings& h) { return AdamOptions(h.lr).betas({h.beta1, h.beta2}).eps(h.eps); };
  const auto adamw = [](const settings& h) { return AdamWOptions(h.lr).betas({h.beta1, h.beta2}).eps(h.eps); };
  examine<double>("torch::optim::Adam", s, [&](const settings& h) { return step_of<Adam>(adam(h)); });
  examine<double>("torch::optim::AdamW", s, [&](const settings& h) { return step_of<AdamW>(adamw(h)); });
  examine<double>("torch::optim::AdamW, amsgrad", s,
                  [&](const settings& h) { return step_of<AdamW>(adamw(h).amsgrad(true)); });
  examine<double>("torch::optim::SGD", s,
                  [](const settings& h) { return step_of<SGD>(SGDOptions(h.lr).momentum(h.momentum)); });
  examine<double>("torch::optim::RMSprop", s,
                  [](const settings& h) { return step_of<RMSprop>(RMSpropOptions(h.lr).alpha(h.beta2).eps(h.eps)); });
}

}  // namespace
#endif

int main() { examine_all(); }
