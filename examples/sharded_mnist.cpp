// Data-parallel training over MPI: a small network on Fashion-MNIST, whose curve has the same bits for 1, 2, 4 and 8 ranks.
//
//   mpirun -n 4 sharded_mnist [EPOCHS [IMAGES [FOLDER]]]
//
// A step sees 64 images in eight microbatches, which the ranks share. Each rank has all weights, and the optimizer state
// of its part of them.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <Eigen/Core>

#include <gradus/comm/mpi.hpp>
#include <gradus/distributed.hpp>
#include <gradus/schedule.hpp>

#include "fashion_mnist.hpp"

namespace {

using namespace fashion_mnist;
using matrix = Eigen::MatrixXf;
using matrix_view = Eigen::Map<matrix>;

constexpr Index hidden = 128, microbatches = 8, of_microbatch = 8;

// The network's weights or gradients, where the optimizer has them.
struct tensors {
  matrix_view weight1, bias1, weight2, bias2;

  template <class View>  // view("layer1.weight") is a span
  explicit tensors(const View& view)
      : weight1(view("layer1.weight").data(), hidden, pixels), bias1(view("layer1.bias").data(), hidden, 1),
        weight2(view("layer2.weight").data(), classes, hidden), bias2(view("layer2.bias").data(), classes, 1)
  {}
};

// The sum of the cross entropies of some images, and the gradients of that sum; how many are classified wrongly.
struct evaluation {
  double loss = 0;
  Index wrong = 0;
  matrix x, h, z;

  void run(const tensors& w, tensors* g, const data_set& from, std::span<const Index> which)
  {
    x.resize(pixels, Index(which.size()));
    for (Index j = 0; j < x.cols(); ++j) {
      const auto* image = &from.images[std::size_t(which[std::size_t(j)] * pixels)];
      x.col(j) = (Eigen::Map<const Eigen::Array<unsigned char, pixels, 1>>(image).cast<float>() / 255 - pixel_mean) /
                 pixel_deviation;
    }
    h = ((w.weight1 * x).colwise() + w.bias1.col(0)).cwiseMax(0.0f);
    z = (w.weight2 * h).colwise() + w.bias2.col(0);
    for (Index j = 0; j < z.cols(); ++j) {
      const Index label = from.labels[std::size_t(which[std::size_t(j)])];
      Index guess = 0;
      auto column = z.col(j).array();
      column -= column.maxCoeff(&guess);
      wrong += guess != label;
      loss -= double(column(label));
      column = column.exp();
      loss += std::log(double(column.sum()));
      column /= column.sum();
      column(label) -= 1;
    }
    if (!g)
      return;
    g->weight2 = z * h.transpose();
    g->bias2 = z.rowwise().sum();
    const matrix h_gradient = (h.array() > 0).select(w.weight2.transpose() * z, 0);
    g->weight1 = h_gradient * x.transpose();
    g->bias1 = h_gradient.rowwise().sum();
  }
};

int train(int epochs, Index images, const std::string& folder)
{
  gradus::comm::mpi world;
  if (microbatches % Index(world.size()) != 0) {
    std::fprintf(stderr, "sharded_mnist: %zu ranks; expected 1, 2, 4 or 8\n", world.size());
    return 1;
  }
  const std::size_t each = std::size_t(microbatches) / world.size();
  const data_set training = read_data(folder, "train", train_count), test = read_data(folder, "t10k", test_count);

  gradus::sharded opt(world, gradus::adamw{.lr = 1e-3, .weight_decay = 1e-2},
                      {.reduction = gradus::reduction::tree, .microbatches = each});
  const auto undecayed = opt.add_group({.lr = 1e-3, .weight_decay = 0});
  opt.add("layer1.weight", hidden * pixels);
  opt.add("layer1.bias", hidden, undecayed);
  opt.add("layer2.weight", classes * hidden);
  opt.add("layer2.bias", classes, undecayed);
  opt.commit();
  const tensors weights([&](const char* name) { return opt.parameters(name); });
  tensors gradients([&](const char* name) { return opt.gradients(name); });
  random_numbers random(1);  // the same on all ranks
  for (float& w : opt.parameters("layer1.weight"))
    w = float((random.uniform() - 0.5) * 0.17);
  for (float& w : opt.parameters("layer2.weight"))
    w = float((random.uniform() - 0.5) * 0.4);

  std::vector<Index> order(static_cast<std::size_t>(images));
  std::iota(order.begin(), order.end(), Index(0));
  const std::size_t of_step = microbatches * of_microbatch, steps = order.size() / of_step;
  const gradus::schedule::cosine schedule{.t_max = double(epochs)};
  evaluation e;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    random.shuffle(order);
    double norm = 0;
    for (std::size_t step = 0; step < steps; ++step) {
      for (std::size_t m = 0; m < each; ++m) {
        const std::size_t first = step * of_step + (world.rank() * each + m) * of_microbatch;
        e.run(weights, &gradients, training, std::span(order).subspan(first, of_microbatch));
        opt.accumulate();
      }
      const auto report = opt.step({.lr_scale = schedule(epoch + double(step) / double(steps)),
                                    .grad_scale = 1.0 / double(of_step),
                                    .max_grad_norm = 10});
      norm += *report.grad_norm;
    }
    if (world.rank() == 0) {
      evaluation of_test;
      std::vector<Index> all(test_count);
      std::iota(all.begin(), all.end(), Index(0));
      for (std::size_t i = 0; i < all.size(); i += 500)
        of_test.run(weights, nullptr, test, std::span(all).subspan(i, 500));
      // In hexadecimal, so that two curves can be compared to the bit.
      std::printf("epoch %2d  test loss %.4f (%a)  test error %.2f %%  gradient norm %.4f (%a)\n", epoch + 1,
                  of_test.loss / double(test_count), of_test.loss, 100 * double(of_test.wrong) / double(test_count),
                  norm / double(steps), norm);
      std::fflush(stdout);
    }
  }
  return opt.replicas_agree() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv)
{
  MPI_Init(&argc, &argv);
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 5;
  const long images = argc > 2 ? std::atol(argv[2]) : long(train_count);
  int result = 1;
  try {
    if (epochs < 1 || images < microbatches * of_microbatch || images > train_count)
      std::fprintf(stderr, "sharded_mnist: %d epochs of %ld images; expected at least 1, and 64 to 60000\n", epochs,
                   images);
    else
      result = train(epochs, images, argc > 3 ? argv[3] : usual_folder);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sharded_mnist: %s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return result;
}
