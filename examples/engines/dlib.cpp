// gradus in dlib: a solver for dnn_trainer that takes the steps of any recipe, and one optimizer for a whole net that is
// trained without the trainer. Both train a small convolutional network on Fashion-MNIST.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <dlib/dnn.h>

#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>
#include <gradus/presets.hpp>

#include "images.hpp"

namespace {

// ── the glue ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// How many of a layer's parameters, the last ones, are biases. dlib gives them multipliers of their own, and by default
/// no weight decay.
template <class Layer>
std::size_t bias_count(const Layer& layer)
{
  if constexpr (requires { layer.get_bias_mode(); })  // fc_
    return layer.get_bias_mode() == dlib::FC_HAS_BIAS && !layer.bias_is_disabled() ? layer.get_num_outputs() : 0;
  else if constexpr (requires { layer.num_filters(); })  // con_ and cont_
    return layer.bias_is_disabled() ? 0 : std::size_t(layer.num_filters());
  else if constexpr (requires { layer.get_bias_weight_decay_multiplier(); })  // bn_
    return layer.get_layer_params().size() / 2;
  else
    return 0;
}

/// A solver of dlib's. The trainer makes one for each layer by copying the first, calls it with the layer's gradients,
/// adds what it returns to the parameters, and serializes it. An optimizer cannot be copied, so a copy starts from its
/// checkpoint, and so does a solver that was deserialized.
/// \tparam Recipe  with defaults and a weight_decay, as all recipes have
template <class Recipe>
class solver {
 public:
  explicit solver(const Recipe& recipe = Recipe{}) : recipe_(recipe) {}
  solver(const solver& other) : recipe_(other.recipe_), saved_(other.checkpoint()) {}
  solver(solver&&) = default;
  solver& operator=(solver other)
  {
    recipe_ = other.recipe_;
    saved_ = std::move(other.saved_);
    running_ = std::move(other.running_);
    return *this;
  }

  template <class Layer>
  const dlib::tensor& operator()(float learning_rate, const Layer& layer, const dlib::tensor& gradients)
  {
    const dlib::tensor& weights = layer.get_layer_params();
    const std::size_t n = weights.size(), at = n - bias_count(layer);
    if (!running_)
      start(weights, at);
    running& r = *running_;

    // dlib's layers may change their multipliers between steps.
    double bias_lr = 1, bias_decay = 1;
    if constexpr (requires { layer.get_bias_weight_decay_multiplier(); }) {
      bias_lr = layer.get_bias_learning_rate_multiplier();
      bias_decay = layer.get_bias_weight_decay_multiplier();
    }
    const double lr = get_learning_rate_multiplier(layer), decay = get_weight_decay_multiplier(layer);
    multiply(r.optimizer.group_at(0), lr, decay);
    multiply(r.optimizer.group_at(1), lr * bias_lr, decay * bias_decay);

    std::copy_n(weights.host(), n, r.moved.begin());
    const std::span<const float> g(gradients.host(), n);
    r.optimizer.rebind_gradients(r.weights, g.first(at));
    r.optimizer.rebind_gradients(r.biases, g.last(n - at));
    r.optimizer.step({.lr = learning_rate});
    float* const step = r.step.host();
    for (std::size_t i = 0; i < n; ++i)
      step[i] = r.moved[i] - weights.host()[i];
    return r.step;
  }

  friend void serialize(const solver& s, std::ostream& out)
  {
    Recipe recipe = s.recipe_;
    gradus::for_each_hyperparameter(recipe, [&](auto, auto value, auto) { dlib::serialize(value, out); });
    dlib::serialize(s.checkpoint(), out);
  }
  friend void deserialize(solver& s, std::istream& in)
  {
    gradus::for_each_hyperparameter(s.recipe_, [&](auto, auto& value, auto) { dlib::deserialize(value, in); });
    dlib::deserialize(s.saved_, in);
    s.running_.reset();
  }
  friend std::ostream& operator<<(std::ostream& out, const solver& s)
  {
    out << "gradus:";
    gradus::for_each_hyperparameter(s.recipe_,
                                    [&](auto name, auto value, auto) { out << ' ' << name << '=' << value; });
    return out;
  }

 private:
  struct running {
    std::vector<float> moved;     // a copy of the parameters, on which the step is taken
    dlib::resizable_tensor step;  // by how much it moved
    gradus::optimizer<Recipe> optimizer;
    gradus::tensor_handle weights, biases;
  };

  void start(const dlib::tensor& parameters, std::size_t at)
  {
    const std::size_t n = parameters.size();
    auto r = std::make_unique<running>(running{std::vector<float>(n), {}, gradus::optimizer<Recipe>(recipe_), {}, {}});
    r->step.copy_size(parameters);
    const std::span<float> moved(r->moved);
    r->weights = r->optimizer.add("weights", moved.first(at));
    r->biases = r->optimizer.add("biases", moved.last(n - at), r->optimizer.add_group(recipe_));
    if (!saved_.empty())
      gradus::load_from(r->optimizer, std::as_bytes(std::span(saved_)), {.settings = false});
    saved_.clear();
    running_ = std::move(r);
  }

  void multiply(gradus::group_handle group, double lr, double decay)
  {
    Recipe r = recipe_;
    r.weight_decay *= decay;
    running_->optimizer.set_hyperparameters(r, group);
    running_->optimizer.set_lr_scale(lr, group);
  }

  std::string checkpoint() const
  {
    std::string bytes = saved_;
    if (running_)
      gradus::save_to(running_->optimizer, [&](const void* p, std::size_t count) {
        bytes.append(static_cast<const char*>(p), count);
        return true;
      });
    return bytes;
  }

  Recipe recipe_;
  std::string saved_;
  std::unique_ptr<running> running_;
};

// ── the training ─────────────────────────────────────────────────────────────────────────────────────────────────────

using image = dlib::matrix<float>;
using network = dlib::loss_multiclass_log<
    dlib::fc<10, dlib::relu<dlib::fc<32, dlib::relu<dlib::con<4, 5, 5, 2, 2, dlib::input<image>>>>>>>;

constexpr std::size_t batch = 50, train_images = 2000, test_images = 1000;
std::vector<image> pictures;
std::vector<unsigned long> labels;

void read_pictures()
{
  const images::training_set set("dlib", train_images + test_images);
  for (std::size_t i = 0; i < train_images + test_images; ++i) {
    const images::batch one = set.of_step(i, 1);
    pictures.push_back(dlib::mat(one.pixels.data(), 28, 28));
    labels.push_back(one.label[0]);
  }
}

/// Calls step(first image, end, first label) for each batch of so many epochs.
template <class Step>
void for_each_batch(int epochs, const Step& step)
{
  for (int e = 0; e < epochs; ++e)
    for (std::size_t i = 0; i < train_images; i += batch) {
      const auto from = std::ptrdiff_t(i), to = std::ptrdiff_t(i + batch);
      step(pictures.begin() + from, pictures.begin() + to, labels.begin() + from);
    }
}

/// Trains a copy of a net by dlib's trainer.
template <class Solver>
network trained(network net, const Solver& s, double learning_rate, int epochs = 2)
{
  dlib::dnn_trainer<network, Solver> trainer(net, s);
  trainer.set_learning_rate(learning_rate);
  for_each_batch(epochs, [&](auto... range) { trainer.train_one_step(range...); });
  trainer.get_net();  // waits for the trainer's thread
  return net;
}

std::vector<std::span<float>> parameters(network& net)
{
  std::vector<std::span<float>> all;
  dlib::visit_layer_parameters(net, [&](std::size_t, dlib::tensor& t) { all.emplace_back(t.host(), t.size()); });
  return all;
}

/// The largest difference of two nets' parameters, relative to the largest parameter of the layer.
double largest_difference(network a, network b)
{
  double largest = 0;
  const auto wa = parameters(a), wb = parameters(b);
  for (std::size_t k = 0; k < wa.size(); ++k) {
    double difference = 0, size = 1e-30;
    for (std::size_t i = 0; i < wa[k].size(); ++i) {
      difference = std::fmax(difference, std::fabs(double(wa[k][i]) - wb[k][i]));
      size = std::fmax(size, std::fabs(double(wa[k][i])));
    }
    largest = std::fmax(largest, difference / size);
  }
  return largest;
}

double test_error(network net)
{
  const auto from = std::ptrdiff_t(train_images);
  const auto found = net(std::vector<image>(pictures.begin() + from, pictures.end()));
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < test_images; ++i)
    wrong += found[i] != labels[train_images + i];
  return 100.0 * double(wrong) / double(test_images);
}

bool report(const char* what, double value, double limit, const char* unit = "")
{
  std::printf("%-52s %.3g%s%s\n", what, value, unit, value <= limit ? "" : "  TOO LARGE");
  return value <= limit;
}

}  // namespace

int main()
{
  read_pictures();
  std::srand(1);  // dlib draws the first weights with it
  network start;
  start.compute_loss(pictures.begin(), pictures.begin() + 1, labels.begin());  // a net has no parameters before
  bool good = true;

  // The trainer with dlib's solvers, and with gradus's.
  const network adam = trained(start, dlib::adam(5e-4f, 0.9f, 0.999f), 1e-3);
  good &= report("largest difference from dlib::adam, 80 steps:",
                 largest_difference(adam, trained(start, solver(gradus::presets::dlib::adam{}), 1e-3)), 1e-5);
  const network sgd = trained(start, dlib::sgd(5e-4f, 0.9f), 0.05);
  good &= report("largest difference from dlib::sgd, 80 steps:",
                 largest_difference(sgd, trained(start, solver(gradus::presets::dlib::sgd{}), 0.05)), 1e-5);
  good &= report("test error with dlib::adam:", test_error(adam), 40, " %");

  // The net's own step, without a trainer. The solvers are saved and loaded half-way.
  {
    using solvers = std::vector<solver<gradus::adamw>>;
    network once = start, twice = start;
    solvers all(network::num_computational_layers, solver(gradus::adamw{.weight_decay = 0.1})), first = all, second;
    const auto step = [](network& net, solvers& with) {
      return [&](auto from, auto to, auto label) {
        net.compute_parameter_gradients(from, to, label);
        net.update_parameters(with, 1e-3);
      };
    };
    for_each_batch(2, step(once, all));
    for_each_batch(1, step(twice, first));
    std::stringstream file;
    dlib::serialize(first, file);
    dlib::deserialize(second, file);
    for_each_batch(1, step(twice, second));
    good &= report("difference after saving and loading the solvers:", largest_difference(once, twice), 0);
    good &= report("test error with adamw:", test_error(once), 40, " %");
  }

  // One optimizer for the net: clipping and a scheduled decay then see the whole model.
  network net = start;
  gradus::optimizer opt(gradus::adams{.lr = 2e-3, .weight_decay = 1e-3});
  net.compute_parameter_gradients(pictures.begin(), pictures.begin() + batch, labels.begin());
  std::vector<std::span<const float>> gradients;
  dlib::visit_layer_parameter_gradients(net, [&](std::size_t, dlib::tensor& t) {
    gradients.emplace_back(t.host(), t.size());  // stays there, as long as no batch is larger
  });
  std::size_t layer = 0;
  for (const std::span<float> weights : parameters(net)) {
    const std::span<const float> g = gradients[layer++];
    if (!weights.empty())
      opt.add("layer" + std::to_string(layer), weights, g);
  }
  const gradus::schedule::cosine schedule{.t_max = 3.0 * train_images / batch};
  int t = 0;
  for_each_batch(3, [&](auto from, auto to, auto label) {
    net.compute_parameter_gradients(from, to, label);
    opt.step({.lr_scale = schedule(t++), .max_grad_norm = 1});
  });
  good &= report("test error with adams on the whole net:", test_error(net), 30, " %");
  return good ? 0 : 1;
}
