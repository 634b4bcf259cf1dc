#pragma once
// What the programs of this folder train on: the first images of Fashion-MNIST, in batches; and how they compare.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <vector>

#include "../fashion_mnist.hpp"

namespace images {

constexpr std::size_t inputs = 784, classes = 10;

struct batch {
  std::span<const float> pixels;         ///< rows of 784 numbers
  std::span<const unsigned char> label;  ///< a class for each row
};

/// The first images of the training set, with mean 0 and deviation 1. A program without them is skipped as a test.
class training_set {
 public:
  training_set(const char* program, std::size_t count) : pixels_(count * inputs)
  {
    try {
      const auto data = fashion_mnist::read_data(fashion_mnist::usual_folder, "train", fashion_mnist::train_count);
      labels_.assign(data.labels.begin(), data.labels.begin() + std::ptrdiff_t(count));
      for (std::size_t i = 0; i < pixels_.size(); ++i)
        pixels_[i] = (float(data.images[i]) / 255 - fashion_mnist::pixel_mean) / fashion_mnist::pixel_deviation;
    } catch (const std::runtime_error& error) {
      std::printf("%s: needs dataset-fashion-mnist: %s\n", program, error.what());
      std::exit(77);
    }
  }
  /// The batch of a step; after the last one the first follows.
  batch of_step(std::size_t step, std::size_t size) const
  {
    const std::size_t first = step % (labels_.size() / size) * size;
    return {std::span(pixels_).subspan(first * inputs, size * inputs), std::span(labels_).subspan(first, size)};
  }

 private:
  std::vector<float> pixels_;
  std::vector<unsigned char> labels_;
};

/// Starting weights, uniform in ±√(1/fan_in).
inline std::vector<float> random_weights(fashion_mnist::random_numbers& random, std::size_t fan_in, std::size_t count)
{
  std::vector<float> weights(count);
  for (float& w : weights)
    w = float((2 * random.uniform() - 1) / std::sqrt(double(fan_in)));
  return weights;
}

/// The largest absolute difference of two lists of the same length.
template <class A, class B>
double largest_difference(const A& a, const B& b)
{
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    largest = std::max(largest, std::fabs(double(a[i]) - double(b[i])));
  return largest;
}

/// Prints a difference, and whether it is small enough.
inline bool report(const char* what, double difference, double bound)
{
  const bool is_small = difference <= bound;  // NaN is not
  std::printf("%-60s %9.3g%s\n", what, difference, is_small ? "" : "  too large");
  return is_small;
}

}  // namespace images
