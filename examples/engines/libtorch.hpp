#pragma once
// All recipes of gradus as optimizers of LibTorch, by name: a torch::optim::Optimizer, which its schedulers, torch::save and
// torch::load take.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/interop/libtorch.hpp>

/// What torch::optim's schedulers read and write of a group of parameters: the learning rate of gradus's group.
struct recipe_options : torch::optim::OptimizerCloneableOptions<recipe_options> {
  std::function<double()> get;
  std::function<void(double)> set;
  double get_lr() const override { return get(); }
  void set_lr(double lr) override { set(lr); }
};

/// \tparam T  float or double; or gradus::precision<bfloat16, bfloat16, float, float>, with float master weights
template <class T = float, class Recipes = gradus::all_recipes>
class recipe_optimizer final : public torch::optim::Optimizer {
 public:
  using numbers = std::vector<gradus::named_number>;
  using any_optimizer = gradus::any_optimizer<T, gradus::default_backend, Recipes>;

  /// A recipe by its name, with the hyperparameters that differ from its defaults.
  explicit recipe_optimizer(std::string_view recipe, const numbers& hyperparameters = {})
      : Optimizer(std::vector<torch::optim::OptimizerParamGroup>(), std::make_unique<recipe_options>()),
        opt_(std::make_unique<any_optimizer>(recipe, hyperparameters))
  {}

  /// Adds named parameters as a group, whose hyperparameters may differ. They need no gradients yet.
  void add(const torch::OrderedDict<std::string, torch::Tensor>& parameters, const numbers& changed = {})
  {
    const auto group = opt_->add_group(changed);
    for (const auto& p : parameters)
      tensors_.push_back({p.value(), opt_->add(p.key(), p.value(), group)});
    add_param_group(torch::optim::OptimizerParamGroup(parameters.values()));
    auto& options = static_cast<recipe_options&>(param_groups().back().options());
    options.get = [opt = opt_.get(), group] { return opt->lr(group); };
    options.set = [opt = opt_.get(), group](double lr) { opt->set_lr(lr, group); };
  }

  torch::Tensor step(LossClosure closure = nullptr) override { return step({}, closure); }

  /// A step with gradus's options, such as {.max_grad_norm = 1}.
  torch::Tensor step(const gradus::step_options& options, const LossClosure& closure = nullptr)
  {
    torch::Tensor loss;
    if (closure) {
      const torch::AutoGradMode on(true);
      loss = closure();
    }
    for (const auto& [p, handle] : tensors_)  // memory and gradients may be new; steps skip undefined gradients
      opt_->rebind(handle, p, p.grad());
    opt_->step(options);
    for (const auto& [p, handle] : tensors_) {
      if (p.grad().defined())
        p.unsafeGetTensorImpl()->bump_version();  // so that autograd notices a change of what it keeps
      opt_->unbind_gradients(handle);             // zero_grad may free them
    }
    return loss;
  }

  /// The optimizer itself, for reports and state.
  any_optimizer& recipe() { return *opt_; }

  /// Saves to a file of gradus's, with the parameters; loads one, after the same parameters were added.
  void save(const std::string& path) const
  {
    find_parameters();
    gradus::save(*opt_, path, {.parameters = true});
  }
  void load(const std::string& path)
  {
    find_parameters();
    gradus::load(*opt_, path);
  }

  /// A slot of a parameter's state, such as "exp_avg", as a tensor that views it.
  torch::Tensor state_of(std::string_view parameter, std::string_view slot)
  {
    const auto values = opt_->state(parameter, slot);
    return torch::from_blob(values.data(), {std::int64_t(values.size())},
                            torch::dtype<typename any_optimizer::state_type>());
  }

  /// For torch::save.
  void save(torch::serialize::OutputArchive& archive) const override
  {
    std::vector<unsigned char> all;
    gradus::save_to(*opt_, [&](const void* bytes, std::size_t count) {
      const auto* const first = static_cast<const unsigned char*>(bytes);
      return all.insert(all.end(), first, first + count), true;
    });
    archive.write("gradus", torch::tensor(all, torch::kUInt8), true);
  }
  /// For torch::load, after the same parameters were added.
  void load(torch::serialize::InputArchive& archive) override
  {
    torch::Tensor all;
    archive.read("gradus", all, true);
    gradus::load_from(*opt_, std::as_bytes(std::span(all.data_ptr<unsigned char>(), std::size_t(all.numel()))));
  }

 private:
  struct tensor {
    torch::Tensor value;
    gradus::tensor_handle handle;
  };

  /// Binds the parameters' memory, which may be new since the last step.
  void find_parameters() const
  {
    const torch::Tensor none;
    for (const auto& [p, handle] : tensors_)
      opt_->rebind(handle, p, none);
  }

  std::unique_ptr<any_optimizer> opt_;  // its address stays, for the options
  std::vector<tensor> tensors_;
};
