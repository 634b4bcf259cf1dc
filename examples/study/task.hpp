#pragma once
// What the study's runner trains: a model with its data, all parameters in one vector.

#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <Eigen/Core>

namespace study {

/// A row an example (an image's pixel, a character), a column a feature.
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Aligned, as Eigen takes the first and last elements of what is not one by one, with other bits: bits would depend on
/// where memory happened to lie.
using numbers = std::vector<float, Eigen::aligned_allocator<float>>;

struct measurement {
  double loss = 0;   ///< mean over examples, natural logarithm
  double error = 0;  ///< percent of examples
};

/// A parameter tensor's place in task::parameters and task::gradients.
struct tensor {
  std::string name;
  std::size_t begin, size;
};

/// All that is random comes from the seed, the epoch and the step, so that a run can go on from the end of any epoch.
class task {
 public:
  virtual ~task() = default;

  virtual std::size_t steps_per_epoch() const = 0;
  virtual std::size_t examples_per_step() const = 0;

  /// Called before each epoch (0, 1, …): the order of the data, and what is carried from step to step.
  virtual void start_epoch(std::size_t epoch) = 0;

  /// Fills `gradients` with those of the loss of the epoch's batch, no weight decay included; returns that loss.
  virtual double step_gradients(std::size_t step) = 0;

  /// The same of a fixed part of the training data, without augmentation and dropout; nothing else changes.
  virtual double probe_gradients() = 0;

  /// To what gradients are clipped.
  virtual double max_grad_norm() const { return std::numeric_limits<double>::infinity(); }

  /// Of the test data, as a trained model is used.
  virtual measurement test() = 0;

  /// What a model keeps besides its parameters and has to keep over a restart (running means).
  virtual std::span<float> buffers() { return {}; }

  std::vector<tensor> tensors;
  numbers parameters, gradients;

  /// For who makes the model; returns the tensor's begin.
  std::size_t add_tensor(std::string name, std::size_t size)
  {
    const std::size_t begin = parameters.size();
    tensors.push_back({std::move(name), begin, size});
    parameters.resize(begin + size);
    gradients.resize(begin + size);
    return begin;
  }
};

}  // namespace study
