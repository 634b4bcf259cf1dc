// Records the C++ peers of peers.txt (README.md); peers.py runs it. One program for each peer:
//
//   g++ -std=c++17 -O1 -I.. -DRECORD_DLIB peers.cpp -ldlib -o dlib_recorder        # libdlib-dev
//   g++ -std=c++17 -O1 -I.. -I ensmallen/include -DRECORD_ENSMALLEN peers.cpp -larmadillo -o ensmallen_recorder
//   g++ -std=c++20 -O1 -w -I.. -I DeepSpeed/csrc/includes -I DeepSpeed/csrc/adam $(LibTorch's flags) $(Python's flags)
//     -DRECORD_DEEPSPEED '-DDEEPSPEED_VERSION="0.19.5"' peers.cpp -o deepspeed_recorder
//
// The second wants ensmallen's source, the third DeepSpeed's, and LibTorch and libpython, which its source includes and links
// with and does not use otherwise.

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "support/golden.hpp"

namespace {

template <class T>
using stepper = std::function<void(std::size_t tensor, std::vector<T>& weights, const std::vector<T>& gradients,
                                   bool decays, double lr, int t)>;

// Prints a case. \param hyperparameters  as in the file, the learning rate first
template <class T>
void record(const golden::problem& p, const std::string& name, const std::string& who,
            const std::vector<std::pair<std::string, double>>& hyperparameters, const stepper<T>& step)
{
  std::printf("case %s oracle \"%s, %s\"", name.c_str(), who.c_str(), sizeof(T) == 4 ? "float32" : "float64");
  for (const auto& [key, value] : hyperparameters)
    std::printf(" %s=%g", key.c_str(), value);
  std::printf(sizeof(T) == 4 ? " float=1\n" : "\n");
  golden::model<T> model(p);
  double lr = hyperparameters.front().second;
  for (int t = 1; t <= p.steps; ++t) {
    for (const int drop : p.drops)
      lr *= t == drop ? 0.1 : 1;
    model.compute_gradients(t);
    for (std::size_t k = 0; k < model.tensors.size(); ++k)
      step(k, model.tensors[k].weights, model.tensors[k].gradients, k + p.undecayed < model.tensors.size(), lr, t);
    if (t > 3 && t % 10 != 0 && t != 41 && t != 51)
      continue;
    std::printf("at %d", t);
    for (const auto& x : model.tensors)
      for (const T w : x.weights)
        std::printf(" %a", double(w));
    std::printf("\n");
  }
}

}  // namespace

#ifdef RECORD_DLIB
#include <dlib/dnn.h>
#include <dlib/revision.h>

namespace {

struct layer {
  dlib::resizable_tensor parameters;
  double decay = 1;
  dlib::tensor& get_layer_params() { return parameters; }
  const dlib::tensor& get_layer_params() const { return parameters; }
  double get_weight_decay_multiplier() const { return decay; }
  double get_learning_rate_multiplier() const { return 1; }
};

template <class Solver>
stepper<float> solver(const Solver& fresh)
{
  auto solvers = std::make_shared<std::vector<Solver>>(16, fresh);
  return [solvers](std::size_t k, std::vector<float>& weights, const std::vector<float>& gradients, bool decays,
                   double lr, int) {
    layer l;
    l.parameters.set_size(long(weights.size()));
    std::copy(weights.begin(), weights.end(), l.parameters.host());
    l.decay = decays ? 1 : 0;
    dlib::resizable_tensor g;
    g.set_size(long(weights.size()));
    std::copy(gradients.begin(), gradients.end(), g.host());
    const dlib::tensor& delta = (*solvers)[k](float(lr), l, g);
    for (std::size_t i = 0; i < weights.size(); ++i)
      weights[i] += delta.host()[i];
  };
}

void record_all(const golden::problem& p)
{
  const std::string who = "dlib " + std::to_string(DLIB_MAJOR_VERSION) + "." + std::to_string(DLIB_MINOR_VERSION);
  record<float>(p, "dlib/adam", who + " dlib::adam",
                {{"learning_rate", 0.02}, {"weight_decay", 0.1}, {"momentum1", 0.9}, {"momentum2", 0.95}},
                solver(dlib::adam(0.1f, 0.9f, 0.95f)));
  record<float>(p, "dlib/sgd", who + " dlib::sgd", {{"learning_rate", 0.02}, {"weight_decay", 0.1}, {"momentum", 0.9}},
                solver(dlib::sgd(0.1f, 0.9f)));
  const dlib::adam adam;
  std::printf("defaults dlib/adam weight_decay=%g momentum1=%g momentum2=%g\n", adam.get_weight_decay(),
              adam.get_momentum1(), adam.get_momentum2());
  const dlib::sgd sgd;
  std::printf("defaults dlib/sgd weight_decay=%g momentum=%g\n", sgd.get_weight_decay(), sgd.get_momentum());
}

}  // namespace
#endif

#ifdef RECORD_ENSMALLEN
#include <memory>

#include <ensmallen.hpp>

namespace {

template <class Update>
stepper<double> policy(const Update& update)
{
  using policy_type = typename Update::template Policy<arma::mat, arma::mat>;
  struct state {
    Update update;
    std::vector<std::unique_ptr<policy_type>> policies;
  };
  auto s = std::make_shared<state>(state{update, {}});
  return [s](std::size_t k, std::vector<double>& weights, const std::vector<double>& gradients, bool, double lr, int) {
    if (k == s->policies.size())
      s->policies.push_back(std::make_unique<policy_type>(s->update, weights.size(), 1));
    arma::mat w(weights), g(gradients);
    s->policies[k]->Update(w, lr, g);
    std::copy(w.begin(), w.end(), weights.begin());
  };
}

void record_all(const golden::problem& p)
{
  const std::string who = "ensmallen " + std::to_string(ENS_VERSION_MAJOR) + "." + std::to_string(ENS_VERSION_MINOR) +
                          "." + std::to_string(ENS_VERSION_PATCH) + " ens::";
  const std::vector<std::pair<std::string, double>> adam{{"step_size", 0.02},
                                                         {"beta1", 0.9},
                                                         {"beta2", 0.95},
                                                         {"eps", 1e-8}};
  record<double>(p, "ensmallen/adam", who + "AdamUpdate", adam, policy(ens::AdamUpdate(1e-8, 0.9, 0.95)));
  record<double>(p, "ensmallen/amsgrad", who + "AMSGradUpdate", adam, policy(ens::AMSGradUpdate(1e-8, 0.9, 0.95)));
  record<double>(p, "ensmallen/nadam", who + "NadamUpdate", adam, policy(ens::NadamUpdate(1e-8, 0.9, 0.95)));
  record<double>(p, "ensmallen/yogi", who + "YogiUpdate", adam, policy(ens::YogiUpdate(1e-8, 0.9, 0.95)));
  record<double>(p, "ensmallen/adabelief", who + "AdaBeliefUpdate",
                 {{"step_size", 0.02}, {"beta1", 0.9}, {"beta2", 0.95}, {"eps", 1e-12}},
                 policy(ens::AdaBeliefUpdate(1e-12, 0.9, 0.95)));
  record<double>(p, "ensmallen/momentum_sgd", who + "MomentumUpdate", {{"step_size", 0.05}, {"momentum", 0.9}},
                 policy(ens::MomentumUpdate(0.9)));
  record<double>(p, "ensmallen/momentum_sgd:nesterov", who + "NesterovMomentumUpdate",
                 {{"step_size", 0.05}, {"momentum", 0.9}, {"nesterov", 1}}, policy(ens::NesterovMomentumUpdate(0.9)));
  record<double>(p, "ensmallen/rmsprop", who + "RMSPropUpdate", {{"step_size", 0.01}, {"alpha", 0.9}, {"eps", 1e-8}},
                 policy(ens::RMSPropUpdate(1e-8, 0.9)));
  const ens::Adam defaults;
  std::printf("defaults ensmallen/adam step_size=%g beta1=%g beta2=%g eps=%g\n", defaults.StepSize(), defaults.Beta1(),
              defaults.Beta2(), defaults.Epsilon());
  const ens::AdaBelief adabelief;
  std::printf("defaults ensmallen/adabelief step_size=%g beta1=%g beta2=%g eps=%g\n", adabelief.StepSize(),
              adabelief.Beta1(), adabelief.Beta2(), adabelief.Epsilon());
  const ens::RMSProp rmsprop;
  std::printf("defaults ensmallen/rmsprop step_size=%g alpha=%g eps=%g\n", rmsprop.StepSize(), rmsprop.Alpha(),
              rmsprop.Epsilon());
  const ens::MomentumSGD sgd;
  std::printf("defaults ensmallen/momentum_sgd step_size=%g momentum=%g\n", sgd.StepSize(),
              sgd.UpdatePolicy().Momentum());
}

}  // namespace
#endif

#ifdef RECORD_DEEPSPEED
#include <cpu_adam_impl.cpp>

namespace {

stepper<float> cpu_adam(bool adamw, bool bias_correction)
{
  struct tensor {
    Adam_Optimizer optimizer;
    std::vector<float> m, v;
  };
  auto tensors = std::make_shared<std::vector<tensor>>();
  return [=](std::size_t k, std::vector<float>& weights, const std::vector<float>& gradients, bool decays, double lr,
             int t) {
    if (k == tensors->size())
      tensors->push_back({Adam_Optimizer(0.02f, 0.9f, 0.95f, 1e-8f, 0.1f, adamw), std::vector<float>(weights.size()),
                          std::vector<float>(weights.size())});
    tensor& x = (*tensors)[k];
    std::vector<float> g = gradients;
    x.optimizer.IncrementStep(std::size_t(t), 0.9f, 0.95f);
    x.optimizer.update_state(float(lr), 1e-8f, decays ? 0.1f : 0.0f, bias_correction);
    x.optimizer.Step_8(weights.data(), g.data(), x.m.data(), x.v.data(), weights.size(), false);
  };
}

void record_all(const golden::problem& p)
{
  const auto settings = [](double adamw_mode, double bias_correction) {
    return std::vector<std::pair<std::string, double>>{{"lr", 0.02},
                                                       {"beta1", 0.9},
                                                       {"beta2", 0.95},
                                                       {"eps", 1e-8},
                                                       {"weight_decay", 0.1},
                                                       {"adamw_mode", adamw_mode},
                                                       {"bias_correction", bias_correction}};
  };
  const std::string who = "DeepSpeed " DEEPSPEED_VERSION " Adam_Optimizer";
  record<float>(p, "deepspeed/adam", who, settings(0, 1), cpu_adam(false, true));
  record<float>(p, "deepspeed/adam:adamw", who, settings(1, 1), cpu_adam(true, true));
  record<float>(p, "deepspeed/adam:uncorrected", who, settings(1, 0), cpu_adam(true, false));
}

}  // namespace
#endif

int main(int, char** argv) { record_all(golden::read(argv[1]).problem); }
