// gradus in tiny-dnn: an optimizer of its interface, with which `fit` takes the steps of any recipe. Trains two layers on
// Fashion-MNIST, beside tiny-dnn's own optimizers.

#include <cmath>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

#include <tiny_dnn/tiny_dnn.h>

#include <gradus/gradus.hpp>

#include "images.hpp"

namespace {

// ── the glue ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// An optimizer of tiny-dnn's. A net calls `update` for each of its vectors of weights, one after the other, and the
/// address of the vector says which one it is. So each gets an optimizer of its own, and sums over the model, as for
/// clipping and AdamS, are sums over the vector.
template <class Recipe>
class gradus_optimizer : public tiny_dnn::optimizer {
 public:
  explicit gradus_optimizer(const Recipe& recipe) : alpha(recipe.lr), recipe_(recipe) {}

  void update(const tiny_dnn::vec_t& gradient, tiny_dnn::vec_t& weights, bool) override
  {
    const auto [found, is_new] = all_.try_emplace(&weights, recipe_);
    auto& [opt, tensor] = found->second;
    if (is_new)
      tensor = opt.add(weights, gradient);
    else
      opt.rebind(tensor, weights, gradient);
    opt.step({.lr = alpha});
  }
  /// `fit` calls it before the first step.
  void reset() override { all_.clear(); }

  double alpha;  // the learning rate, under tiny-dnn's name, for its callbacks to change

 private:
  struct part {
    explicit part(const Recipe& recipe) : optimizer(recipe) {}
    gradus::optimizer<Recipe> optimizer;
    gradus::tensor_handle tensor;
  };
  Recipe recipe_;
  std::unordered_map<const tiny_dnn::vec_t*, part> all_;
};

// ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────

using network = tiny_dnn::network<tiny_dnn::sequential>;

constexpr std::size_t batch = 50, train_images = 1000, test_images = 500;
std::vector<tiny_dnn::vec_t> pictures, test;
std::vector<tiny_dnn::label_t> labels, test_labels;

void read_pictures()
{
  const images::training_set set("tiny_dnn", train_images + test_images);
  for (std::size_t i = 0; i < train_images + test_images; ++i) {
    const images::batch one = set.of_step(i, 1);
    (i < train_images ? pictures : test).emplace_back(one.pixels.begin(), one.pixels.end());
    (i < train_images ? labels : test_labels).push_back(one.label[0]);
  }
}

/// A net with the same weights each time, trained for two epochs.
template <class Optimizer>
network trained(Optimizer& optimizer)
{
  using namespace tiny_dnn;
  set_random_seed(1);
  network net;
  net << fully_connected_layer<activation::tan_h>(784, 32) << fully_connected_layer<activation::softmax>(32, 10);
  net.template train<cross_entropy_multiclass>(optimizer, pictures, labels, batch, 2);
  return net;
}

/// The largest difference of two nets' weights, relative to the largest weight of the layer's vector.
double largest_difference(const network& a, const network& b)
{
  double largest = 0;
  for (std::size_t layer = 0; layer < a.layer_size(); ++layer) {
    const auto wa = a[layer]->weights(), wb = b[layer]->weights();
    for (std::size_t k = 0; k < wa.size(); ++k) {
      double difference = 0, size = 1e-30;
      for (std::size_t i = 0; i < wa[k]->size(); ++i) {
        difference = std::fmax(difference, std::fabs(double((*wa[k])[i]) - (*wb[k])[i]));
        size = std::fmax(size, std::fabs(double((*wa[k])[i])));
      }
      largest = std::fmax(largest, difference / size);
    }
  }
  return largest;
}

}  // namespace

int main()
{
  read_pictures();
  bool good = true;
  const auto report = [&](const char* what, double value, double limit, const char* unit = "") {
    std::printf("%-48s %.3g%s%s\n", what, value, unit, value <= limit ? "" : "  TOO LARGE");
    good &= value <= limit;
  };

  tiny_dnn::adagrad adagrad;
  gradus_optimizer ours_adagrad(gradus::adagrad{.lr = 0.01, .eps = 1e-8});
  report("largest difference from adagrad, 40 steps:", largest_difference(trained(adagrad), trained(ours_adagrad)),
         1e-4);

  tiny_dnn::momentum momentum;
  momentum.lambda = 1e-3f;
  gradus_optimizer ours_momentum(gradus::sgd{.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-3});
  report("largest difference from momentum, 40 steps:", largest_difference(trained(momentum), trained(ours_momentum)),
         1e-4);

  // tiny-dnn's Adam has no equal here: its powers of beta advance once for each vector of weights instead of once a step,
  // and begin with the second. After one step of four vectors, b1_t should be b1.
  tiny_dnn::adam adam;
  tiny_dnn::vec_t w(3, 1.0f), dw(3, 0.5f), more[3] = {w, w, w};
  adam.update(dw, w, false);
  for (tiny_dnn::vec_t& other : more)
    adam.update(dw, other, false);
  std::printf("%-48s %.3f, which is %.3f to the power %.0f\n",
              "tiny-dnn's adam after its first step: b1_t =", adam.b1_t, adam.b1,
              std::round(std::log(adam.b1_t) / std::log(adam.b1)));

  gradus_optimizer ours_adamw(gradus::adamw{.lr = 1e-3});
  network net = trained(ours_adamw);
  const auto result = net.test(test, test_labels);
  report("test error with adamw:", 100.0 * (1 - double(result.num_success) / result.num_total), 40, " %");
  return good ? 0 : 1;
}
