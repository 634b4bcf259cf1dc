// gradus in LibTorch: its recipes, by name, beside torch::optim's own optimizers.

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libtorch.hpp"

#include "images.hpp"

namespace {

using torch::Tensor;
using optimizer = torch::optim::Optimizer;
constexpr std::size_t batch = 50, steps = 60;

/// A network with a part that takes part from half-way on only, and so has no gradients before.
struct network : torch::nn::Module {
  torch::nn::Linear first{nullptr}, second{nullptr}, late{nullptr};
  explicit network(torch::Dtype type = torch::kFloat32)
  {
    torch::manual_seed(1);
    first = register_module("first", torch::nn::Linear(784, 24));
    second = register_module("second", torch::nn::Linear(24, 10));
    late = register_module("late", torch::nn::Linear(24, 10));
    to(type);
  }
  Tensor forward(const Tensor& x, bool with_late)
  {
    const Tensor h = torch::tanh(first(x));
    return with_late ? second(h) + late(h) : second(h);
  }
  std::vector<float> all() const
  {
    std::vector<float> all;
    for (const Tensor& p : parameters()) {
      const Tensor flat = p.detach().to(torch::kFloat32).reshape({-1}).contiguous();
      all.insert(all.end(), flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
    }
    return all;
  }
};

const images::training_set& data()
{
  static const images::training_set all("libtorch", 500);
  return all;
}

/// The gradients of one step, in memory of their own: zero_grad forgets those of the step before.
double compute_gradients(network& net, std::size_t step)
{
  const auto [pixels, label] = data().of_step(step, batch);
  const auto type = net.parameters().front().scalar_type();
  const Tensor x = torch::from_blob(const_cast<float*>(pixels.data()), {std::int64_t(batch), 784}).to(type);
  const Tensor y = torch::tensor(std::vector<std::int64_t>(label.begin(), label.end()));
  net.zero_grad();
  Tensor loss = torch::nn::functional::cross_entropy(net.forward(x, step >= steps / 2).to(torch::kFloat32), y);
  loss.backward();
  return loss.item<double>();
}
double train(network& net, optimizer& opt, std::size_t from = 0, std::size_t to = steps)
{
  torch::optim::StepLR schedule(opt, 20, 0.5);
  double loss = 0;
  for (std::size_t step = from; step < to; ++step) {
    loss = compute_gradients(net, step);
    opt.step();
    schedule.step();
  }
  return loss;
}

/// Trains one network with LibTorch's optimizer and one with gradus's; the largest difference of their weights.
template <class Theirs, class Options>
bool compare(const char* name, const Options& theirs, const char* recipe, const recipe_optimizer<>::numbers& numbers)
{
  network a, b;
  Theirs their_opt(a.parameters(), theirs);
  recipe_optimizer<> our_opt(recipe, numbers);
  our_opt.add(b.named_parameters());
  const double loss = train(a, their_opt);
  train(b, our_opt);
  return images::report(name, images::largest_difference(a.all(), b.all()), 1e-5) && loss < 2;
}

/// Weights in 16 bits, with float master weights, beside LibTorch's AdamW on float copies, given the same gradients.
template <class T>
bool compare_short(const char* name, torch::Dtype type, double bound)
{
  network net(type);
  std::vector<Tensor> copies;
  for (const Tensor& p : net.parameters())
    copies.push_back(p.detach().to(torch::kFloat32).requires_grad_());
  torch::optim::AdamW their_opt(copies, torch::optim::AdamWOptions(1e-3));
  recipe_optimizer<gradus::precision<T, T, float, float>, gradus::recipe_list<gradus::sgd, gradus::adamw>> our_opt(
      "adamw");
  our_opt.add(net.named_parameters());

  for (std::size_t step = 0; step < steps; ++step) {
    compute_gradients(net, step);
    for (std::size_t k = 0; k < copies.size(); ++k)
      if (const Tensor g = net.parameters()[k].grad(); g.defined())
        copies[k].mutable_grad() = g.to(torch::kFloat32);
    their_opt.step();
    our_opt.step();
  }
  std::vector<float> expected;
  for (const Tensor& c : copies) {
    const Tensor rounded = c.detach().to(type).to(torch::kFloat32).reshape({-1});
    expected.insert(expected.end(), rounded.data_ptr<float>(), rounded.data_ptr<float>() + rounded.numel());
  }
  return images::report(name, images::largest_difference(net.all(), expected), bound);
}

/// Gives parameters new memory, and zeros the old.
void move_parameters(const network& net)
{
  for (const Tensor& p : net.parameters()) {
    const Tensor old = p.detach();
    p.set_data(old.clone());
    old.zero_();
  }
}

/// A run that is saved half-way, with gradus or with torch::save, and resumed; the difference from one that went on.
bool resumes()
{
  network whole;
  recipe_optimizer<> opt("adams", {{"weight_decay", 0.01}});
  opt.add(whole.named_parameters());
  train(whole, opt, 0, 40);
  move_parameters(whole);
  opt.save("libtorch.safetensors");
  {
    torch::serialize::OutputArchive archive;
    opt.save(archive);
    archive.save_to("libtorch.pt");
  }
  network a, b;
  recipe_optimizer<> from_gradus("adams"), from_torch("adams");
  from_gradus.add(a.named_parameters());
  from_torch.add(b.named_parameters());
  move_parameters(a);
  from_gradus.load("libtorch.safetensors");  // with the parameters
  {
    const torch::NoGradGuard off;
    for (std::size_t k = 0; k < b.parameters().size(); ++k)
      b.parameters()[k].copy_(whole.parameters()[k]);
    torch::serialize::InputArchive archive;
    archive.load_from("libtorch.pt");
    from_torch.load(archive);
  }
  std::filesystem::remove("libtorch.safetensors");
  std::filesystem::remove("libtorch.pt");
  const auto exp_avg = from_torch.state_of("first.weight", "exp_avg");
  bool good = images::largest_difference(whole.all(), network().all()) > 0.01 &&
              exp_avg.abs().sum().item<float>() > 0 && exp_avg.equal(opt.state_of("first.weight", "exp_avg"));
  train(whole, opt, 40);
  train(a, from_gradus, 40);
  train(b, from_torch, 40);
  good &= images::report("adams, resumed from gradus::save", images::largest_difference(whole.all(), a.all()), 0);
  good &= images::report("adams, resumed from torch::save", images::largest_difference(whole.all(), b.all()), 0);
  return good;
}

/// A few steps of every recipe, with a weight decay for weights but not for biases where the recipe has one.
bool every_recipe()
{
  for (const auto name : gradus::recipe_names()) {
    network net;
    recipe_optimizer<> opt(name);
    opt.add(net.named_parameters());
    const auto before = net.all();
    const double first = compute_gradients(net, 0);
    for (int k = 0; k < 5; ++k) {
      compute_gradients(net, 0);
      opt.step({.max_grad_norm = 1});
    }
    const double last = compute_gradients(net, 0);
    if (!(last < first) || images::largest_difference(before, net.all()) == 0) {
      std::printf("%s: the loss went from %g to %g\n", std::string(name).c_str(), first, last);
      return false;
    }
  }
  std::printf("%zu recipes lower the loss\n", gradus::recipe_names().size());
  return true;
}

}  // namespace

int main()
{
  using namespace torch::optim;
  std::printf("LibTorch %s\n", TORCH_VERSION);
  torch::set_num_threads(1);
  bool good = true;
  good &= compare<AdamW>("AdamW", AdamWOptions(1e-3).weight_decay(0.1), "adamw", {{"lr", 1e-3}, {"weight_decay", 0.1}});
  good &= compare<Adam>("Adam with L2", AdamOptions(1e-3).weight_decay(0.01), "adam",
                        {{"lr", 1e-3}, {"weight_decay", 0.01}});
  good &= compare<Adam>("Adam with amsgrad", AdamOptions(1e-3).amsgrad(true), "amsgrad", {{"lr", 1e-3}});
  good &= compare<SGD>("SGD with Nesterov's momentum", SGDOptions(1e-2).momentum(0.9).nesterov(true).weight_decay(0.01),
                       "sgd", {{"lr", 1e-2}, {"momentum", 0.9}, {"nesterov", 1}, {"weight_decay", 0.01}});
  good &= compare<RMSprop>("RMSprop, centered, with momentum", RMSpropOptions(1e-3).centered(true).momentum(0.5),
                           "rmsprop", {{"lr", 1e-3}, {"centered", 1}, {"momentum", 0.5}});
  good &= compare<Adagrad>("Adagrad", AdagradOptions(1e-2).lr_decay(0.01), "adagrad",
                           {{"lr", 1e-2}, {"lr_decay", 0.01}});
  good &= compare_short<gradus::bfloat16>("AdamW in bfloat16, and LibTorch's in float, rounded", torch::kBFloat16,
                                          0x1p-8);
  good &= compare_short<gradus::float16>("AdamW in float16, and LibTorch's in float, rounded", torch::kFloat16,
                                         0x1p-11);
  good &= resumes();
  good &= every_recipe();
  return good ? 0 : 1;
}
