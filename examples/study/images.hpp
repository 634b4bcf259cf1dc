#pragma once
// Small networks on Fashion-MNIST: a perceptron, and convolutional ones with and without batch normalisation.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../fashion_mnist.hpp"
#include "task.hpp"

namespace study {

using Eigen::Index;
using fashion_mnist::random_numbers;

/// They differ for batch normalisation alone: `training` and `probe` normalise by the batch's own means, and `training`
/// remembers them; `evaluation` normalises by what was remembered.
enum class mode { training, probe, evaluation };

/// An image is height × width rows of a matrix, a row its channels.
struct shape {
  Index height, width, channels;
  Index rows() const { return height * width; }
};

/// Activations are matrices of images × rows, the images one below the other.
class layer {
 public:
  virtual ~layer() = default;
  virtual void forward(const matrix& x, matrix& y, mode) = 0;

  /// What the last forward was given and gave, and dy, which it may overwrite. dx is null where nobody asks for it.
  virtual void backward(const matrix& x, const matrix& y, matrix& dy, matrix* dx) = 0;
};

/// Weights (fan_in × outputs), and a bias or none, uniform in ±√(6/fan_in) and 0 at first (He et al., ICCV 2015).
class affine {
 public:
  affine(task& owner, random_numbers& random, const std::string& name, Index fan_in, Index outputs, bool biased)
      : owner_(owner), in_(fan_in), out_(outputs), biased_(biased),
        weight_(owner.add_tensor(name + ".weight", std::size_t(fan_in * outputs))),
        bias_(biased ? owner.add_tensor(name + ".bias", std::size_t(outputs)) : 0)
  {
    const double limit = std::sqrt(6 / double(fan_in));
    for (Index i = 0; i < fan_in * outputs; ++i)
      owner.parameters[weight_ + std::size_t(i)] = float(limit * (2 * random.uniform() - 1));
  }

  template <class X, class Y>
  void forward(const X& x, Y&& y) const
  {
    y.noalias() = x * weight(owner_.parameters);
    if (biased_)
      y.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(owner_.parameters.data() + bias_, out_);
  }
  template <class X, class Y>
  void add_gradients(const X& x, const Y& dy)
  {
    weight(owner_.gradients).noalias() += x.transpose() * dy;
    if (biased_)
      Eigen::Map<Eigen::RowVectorXf>(owner_.gradients.data() + bias_, out_) += dy.colwise().sum();
  }
  template <class Y, class X>
  void backward(const Y& dy, X&& dx) const
  {
    dx.noalias() = dy * weight(owner_.parameters).transpose();
  }

 private:
  Eigen::Map<matrix> weight(numbers& of) const { return {of.data() + weight_, in_, out_}; }

  task& owner_;
  Index in_, out_;
  bool biased_;
  std::size_t weight_, bias_;
};

/// A fully connected layer; all of an image's rows are its inputs.
class dense final : public layer {
 public:
  dense(task& owner, random_numbers& random, const std::string& name, Index inputs, Index outputs)
      : inputs_(inputs), outputs_(outputs), affine_(owner, random, name, inputs, outputs, true)
  {}
  void forward(const matrix& x, matrix& y, mode) override
  {
    const Eigen::Map<const matrix> flat(x.data(), x.size() / inputs_, inputs_);
    y.resize(flat.rows(), outputs_);
    affine_.forward(flat, y);
  }
  void backward(const matrix& x, const matrix&, matrix& dy, matrix* dx) override
  {
    affine_.add_gradients(Eigen::Map<const matrix>(x.data(), dy.rows(), inputs_), dy);
    if (dx) {
      dx->resize(x.rows(), x.cols());
      affine_.backward(dy, Eigen::Map<matrix>(dx->data(), dy.rows(), inputs_));
    }
  }

 private:
  Index inputs_, outputs_;
  affine affine_;
};

/// A 3×3 convolution with a border of zeros, as a product of matrices: a row of `columns_` has a pixel's 9 neighbours.
class convolution final : public layer {
 public:
  convolution(task& owner, random_numbers& random, const std::string& name, shape in, Index outputs, bool biased)
      : in_(in), outputs_(outputs), affine_(owner, random, name, 9 * in.channels, outputs, biased),
        padded_(std::size_t((in.height + 2) * (in.width + 2) * in.channels)), d_padded_(padded_.size())
  {}
  void forward(const matrix& x, matrix& y, mode) override
  {
    y.resize(x.rows(), outputs_);
    for_parts(x, [&](Index row, Index rows) { affine_.forward(columns_, y.middleRows(row, rows)); });
  }
  void backward(const matrix& x, const matrix&, matrix& dy, matrix* dx) override
  {
    if (dx)
      dx->resize(x.rows(), x.cols());
    for_parts(x, [&](Index row, Index rows) {
      const auto part = dy.middleRows(row, rows);
      affine_.add_gradients(columns_, part);
      if (!dx)
        return;
      affine_.backward(part, columns_);
      for (Index r = 0; r < rows; r += in_.rows())
        scatter(r, dx->data() + (row + r) * in_.channels);
    });
  }

 private:
  /// Calls f with columns_ filled, for as many images at a time as stay in the cache.
  template <class F>
  void for_parts(const matrix& x, const F& f)
  {
    const Index most = std::max<Index>(1, 1024 / in_.rows()) * in_.rows();
    for (Index row = 0; row < x.rows(); row += most) {
      const Index rows = std::min(most, x.rows() - row);
      columns_.resize(rows, 9 * in_.channels);
      for (Index r = 0; r < rows; r += in_.rows())
        gather(x.data() + (row + r) * in_.channels, r);
      f(row, rows);
    }
  }

  /// Calls f(a pixel's three neighbours in the padded image, their place in the pixel's row of columns_).
  template <class F>
  void for_neighbours(numbers& padded, Index row, const F& f)
  {
    const Index stride = (in_.width + 2) * in_.channels, three = 3 * in_.channels;
    for (Index i = 0; i < in_.rows(); ++i)
      for (Index k = 0; k < 3; ++k)
        f(padded.data() + (i / in_.width + k) * stride + i % in_.width * in_.channels,
          columns_.data() + (row + i) * 3 * three + k * three, three);
  }
  Index padded_line(Index i) const { return ((i + 1) * (in_.width + 2) + 1) * in_.channels; }

  void gather(const float* image, Index row)
  {
    const Index line = in_.width * in_.channels;
    for (Index i = 0; i < in_.height; ++i)
      std::copy_n(image + i * line, line, padded_.data() + padded_line(i));  // the border stays 0
    for_neighbours(padded_, row, [](const float* pixel, float* column, Index n) { std::copy_n(pixel, n, column); });
  }
  void scatter(Index row, float* image)
  {
    const Index line = in_.width * in_.channels;
    std::fill(d_padded_.begin(), d_padded_.end(), 0.0f);
    for_neighbours(d_padded_, row, [](float* pixel, const float* column, Index n) {
      for (Index i = 0; i < n; ++i)
        pixel[i] += column[i];
    });
    for (Index i = 0; i < in_.height; ++i)
      std::copy_n(d_padded_.data() + padded_line(i), line, image + i * line);
  }

  shape in_;
  Index outputs_;
  affine affine_;
  numbers padded_, d_padded_;
  matrix columns_;
};

/// Ioffe and Szegedy, ICML 2015, with the numbers of PyTorch: eps 1e-5, a tenth of each batch into the running means.
class batch_norm final : public layer {
 public:
  batch_norm(task& owner, numbers& buffers, const std::string& name, Index channels)
      : owner_(owner), buffers_(buffers), channels_(channels),
        scale_(owner.add_tensor(name + ".weight", std::size_t(channels))),
        shift_(owner.add_tensor(name + ".bias", std::size_t(channels))), running_(buffers.size())
  {
    std::fill_n(owner.parameters.begin() + std::ptrdiff_t(scale_), channels, 1.0f);
    buffers.resize(running_ + std::size_t(channels), 0.0f);        // means
    buffers.resize(buffers.size() + std::size_t(channels), 1.0f);  // variances
  }
  void forward(const matrix& x, matrix& y, mode m) override
  {
    row running_mean(buffers_.data() + running_, channels_),
        running_variance(running_mean.data() + channels_, channels_);
    Eigen::ArrayXf variance;
    if (m == mode::evaluation) {
      mean_ = running_mean;
      variance = running_variance;
    } else {
      mean_ = sum(x.rows(), [&](Index i) { return x.row(i).transpose().array(); }) / float(x.rows());
      variance = sum(x.rows(), [&](Index i) { return (x.row(i).transpose().array() - mean_).square(); }) /
                 float(x.rows());
    }
    if (m == mode::training) {
      running_mean += 0.1f * (mean_ - running_mean);
      running_variance += 0.1f * (variance * (float(x.rows()) / float(x.rows() - 1)) - running_variance);
    }
    inverse_deviation_ = (variance + 1e-5f).sqrt().inverse();
    const Eigen::ArrayXf slope = of(owner_.parameters, scale_) * inverse_deviation_;
    const Eigen::ArrayXf offset = of(owner_.parameters, shift_) - mean_ * slope;
    y.resize(x.rows(), x.cols());
    for (Index i = 0; i < x.rows(); ++i)
      y.row(i).transpose().array() = x.row(i).transpose().array() * slope + offset;
  }
  void backward(const matrix& x, const matrix&, matrix& dy, matrix* dx) override
  {
    const auto normalised = [&](Index i) { return (x.row(i).transpose().array() - mean_) * inverse_deviation_; };
    const Eigen::ArrayXf d_shift = sum(x.rows(), [&](Index i) { return dy.row(i).transpose().array(); });
    const Eigen::ArrayXf d_scale = sum(x.rows(),
                                       [&](Index i) { return dy.row(i).transpose().array() * normalised(i); });
    of(owner_.gradients, shift_) += d_shift;
    of(owner_.gradients, scale_) += d_scale;
    if (!dx)
      return;
    const float n = float(x.rows());
    const Eigen::ArrayXf slope = of(owner_.parameters, scale_) * inverse_deviation_;
    dx->resize(x.rows(), x.cols());
    for (Index i = 0; i < x.rows(); ++i)
      dx->row(i).transpose().array() = slope *
                                       (dy.row(i).transpose().array() - d_shift / n - normalised(i) * (d_scale / n));
  }

 private:
  using row = Eigen::Map<Eigen::ArrayXf>;
  row of(numbers& all, std::size_t begin) const { return {all.data() + begin, channels_}; }

  /// The sum over rows, in parts, as a float holds no sum of a hundred thousand numbers.
  template <class F>
  Eigen::ArrayXf sum(Index rows, const F& f) const
  {
    Eigen::ArrayXd total = Eigen::ArrayXd::Zero(channels_);
    Eigen::ArrayXf part(channels_);
    for (Index i = 0; i < rows;) {
      part.setZero();
      for (const Index end = std::min<Index>(rows, i + 256); i < end; ++i)
        part += f(i);
      total += part.cast<double>();
    }
    return total.cast<float>();
  }

  task& owner_;
  numbers& buffers_;
  Index channels_;
  std::size_t scale_, shift_, running_;
  Eigen::ArrayXf mean_, inverse_deviation_;
};

class relu final : public layer {
 public:
  void forward(const matrix& x, matrix& y, mode) override { y = x.cwiseMax(0.0f); }
  void backward(const matrix&, const matrix& y, matrix& dy, matrix* dx) override
  {
    if (dx)
      *dx = (y.array() > 0.0f).select(dy, 0.0f);
  }
};

/// The largest of each 2×2 pixels; an odd last row or column is left out.
class max_pool final : public layer {
 public:
  explicit max_pool(shape in) : in_(in) {}
  void forward(const matrix& x, matrix& y, mode) override
  {
    y.resize(x.rows() / in_.rows() * out_rows(), in_.channels);
    for_squares(y.rows(), [&](Index o, const Index(&i)[4]) {
      y.row(o) = x.row(i[0]).cwiseMax(x.row(i[1])).cwiseMax(x.row(i[2])).cwiseMax(x.row(i[3]));
    });
  }
  void backward(const matrix& x, const matrix& y, matrix& dy, matrix* dx) override
  {
    if (!dx)
      return;
    dx->resize(x.rows(), x.cols());
    if (in_.height % 2 != 0 || in_.width % 2 != 0)
      dx->setZero();
    for_squares(y.rows(), [&](Index o, const Index(&i)[4]) {
      for (const Index k : i) {  // the first of equals takes all
        dx->row(k) = (x.row(k).array() == y.row(o).array()).select(dy.row(o), 0.0f);
        dy.row(o) -= dx->row(k);
      }
    });
  }

 private:
  Index out_rows() const { return in_.height / 2 * (in_.width / 2); }

  /// Calls f(output row, its four input rows).
  template <class F>
  void for_squares(Index outputs, const F& f) const
  {
    const Index width = in_.width / 2;
    for (Index o = 0; o < outputs; ++o) {
      const Index at = o % out_rows();
      const Index i = o / out_rows() * in_.rows() + at / width * 2 * in_.width + at % width * 2;
      f(o, {i, i + 1, i + in_.width, i + in_.width + 1});
    }
  }

  shape in_;
};

class sequence : public layer {
 public:
  void add(std::unique_ptr<layer> next) { layers_.push_back(std::move(next)); }
  void forward(const matrix& x, matrix& y, mode m) override
  {
    between_.resize(layers_.size() - 1);
    for (std::size_t i = 0; i < layers_.size(); ++i)
      layers_[i]->forward(i == 0 ? x : between_[i - 1], i + 1 == layers_.size() ? y : between_[i], m);
  }
  void backward(const matrix& x, const matrix& y, matrix& dy, matrix* dx) override
  {
    for (std::size_t i = layers_.size(); i-- > 0;) {
      const bool last = i + 1 == layers_.size();
      layers_[i]->backward(i == 0 ? x : between_[i - 1], last ? y : between_[i], last ? dy : d_[(i + 1) % 2],
                           i == 0 ? dx : &d_[i % 2]);
    }
  }

 private:
  std::vector<std::unique_ptr<layer>> layers_;
  std::vector<matrix> between_;
  matrix d_[2];
};

/// x + f(x) (He et al., CVPR 2016).
class residual final : public layer {
 public:
  explicit residual(std::unique_ptr<layer> f) : f_(std::move(f)) {}
  void forward(const matrix& x, matrix& y, mode m) override
  {
    f_->forward(x, inner_, m);
    y = x + inner_;
  }
  void backward(const matrix& x, const matrix&, matrix& dy, matrix* dx) override
  {
    d_inner_ = dy;
    f_->backward(x, inner_, d_inner_, dx);
    if (dx)
      *dx += dy;
  }

 private:
  std::unique_ptr<layer> f_;
  matrix inner_, d_inner_;
};

/// Fashion-MNIST and a network of the name:
///   mlp      784-128-10
///   vgg      three times a convolution (16, 32, 64 channels), pooling and ReLU; a fully connected layer
///   vgg_bn   the same with batch normalisation, which takes the place of the convolutions' biases
///   resnet   a convolution of 16 channels, two residual blocks of 16 and 32, with batch normalisation
/// It trains on the first `count` images, each shifted by up to 3 pixels and mirrored or not at random.
class images final : public task {
 public:
  images(const std::string& model, const std::string& folder, Index count, Index batch, std::uint64_t seed)
      : batch_(batch), seed_(seed), train_(fashion_mnist::read_data(folder, "train", fashion_mnist::train_count)),
        test_(fashion_mnist::read_data(folder, "t10k", fashion_mnist::test_count))
  {
    if (batch < 2 || count < batch || count > fashion_mnist::train_count)
      throw std::invalid_argument("images is " + std::to_string(count) + " and batch " + std::to_string(batch) +
                                  "; expected 2 <= batch <= images <= " + std::to_string(fashion_mnist::train_count));
    order_.resize(std::size_t(count));
    random_numbers random(seed);
    make(model, random);
  }

  std::size_t steps_per_epoch() const override { return order_.size() / std::size_t(batch_); }
  std::size_t examples_per_step() const override { return std::size_t(batch_); }

  void start_epoch(std::size_t epoch) override
  {
    random_numbers random(seed_ * 1'000'003 + epoch);
    std::iota(order_.begin(), order_.end(), 0);
    random.shuffle(order_);
    moves_.resize(order_.size());
    for (move& m : moves_) {
      m.down = Index(random.uniform() * 7) - 3;
      m.right = Index(random.uniform() * 7) - 3;
      m.mirrored = random.uniform() < 0.5;
    }
  }

  double step_gradients(std::size_t step) override
  {
    const std::size_t first = step * std::size_t(batch_);
    fill(
        train_, batch_, [&](Index j) { return order_[first + std::size_t(j)]; },
        [&](Index j) { return moves_[first + std::size_t(j)]; });
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    return add_gradients(mode::training, 1);
  }

  double probe_gradients() override
  {
    constexpr Index parts = 4;
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    double loss = 0;
    for (Index part = 0; part < parts; ++part) {
      const Index n = std::min<Index>(128, Index(order_.size()) / parts);
      fill(train_, n, [&](Index j) { return part * n + j; }, [](Index) { return move(); });
      loss += add_gradients(mode::probe, parts);
    }
    return loss / parts;
  }

  measurement test() override
  {
    constexpr Index n = 200;
    measurement sum;
    for (Index first = 0; first < fashion_mnist::test_count; first += n) {
      fill(test_, n, [&](Index j) { return first + j; }, [](Index) { return move(); });
      net_.forward(x_, y_, mode::evaluation);
      const measurement m = softmax();
      sum.loss += m.loss;
      sum.error += m.error;
    }
    return {sum.loss * n / fashion_mnist::test_count, sum.error * n / fashion_mnist::test_count};
  }

  std::span<float> buffers() override { return buffers_; }

 private:
  struct move {
    Index down = 0, right = 0;
    bool mirrored = false;
  };

  void make(const std::string& model, random_numbers& random)
  {
    const Index side = fashion_mnist::side, classes = fashion_mnist::classes;
    shape at{side, side, 1};
    const auto convolve = [&](sequence& to, const std::string& name, Index channels, bool normalise) {
      to.add(std::make_unique<convolution>(*this, random, name, at, channels, !normalise));
      at.channels = channels;
      if (normalise)
        to.add(std::make_unique<batch_norm>(*this, buffers_, name + ".norm", channels));
    };
    // Before the ReLU, with which it commutes: that has then a quarter of the work.
    const auto pool = [&](sequence& to) {
      to.add(std::make_unique<max_pool>(at));
      at = {at.height / 2, at.width / 2, at.channels};
    };
    const auto rectify = [](sequence& to) { to.add(std::make_unique<relu>()); };
    const auto connect = [&](sequence& to, const std::string& name, Index outputs) {
      to.add(std::make_unique<dense>(*this, random, name, at.rows() * at.channels, outputs));
      at = {1, 1, outputs};
    };

    if (model == "mlp") {
      connect(net_, "hidden", 128);
      rectify(net_);
    } else if (model == "vgg" || model == "vgg_bn") {
      for (const Index channels : {16, 32, 64}) {
        convolve(net_, "convolution" + std::to_string(channels), channels, model == "vgg_bn");
        pool(net_);
        rectify(net_);
      }
    } else if (model == "resnet") {
      for (const Index channels : {16, 32}) {
        const std::string name = "stage" + std::to_string(channels);
        convolve(net_, name, channels, true);
        pool(net_);
        rectify(net_);
        auto block = std::make_unique<sequence>();
        convolve(*block, name + ".first", channels, true);
        rectify(*block);
        convolve(*block, name + ".second", channels, true);
        net_.add(std::make_unique<residual>(std::move(block)));
        rectify(net_);
      }
      pool(net_);
    } else {
      throw std::invalid_argument("model is \"" + model + "\"; expected one of mlp, vgg, vgg_bn, resnet, lstm");
    }
    connect(net_, "output", classes);
  }

  /// Fills x_ and labels_ with the images whose numbers which(j) gives, moved by how(j).
  template <class Which, class How>
  void fill(const fashion_mnist::data_set& from, Index n, const Which& which, const How& how)
  {
    using namespace fashion_mnist;
    x_.resize(n * pixels, 1);
    labels_.resize(std::size_t(n));
    const auto scaled = [](unsigned char pixel) { return (float(pixel) / 255 - pixel_mean) / pixel_deviation; };
    for (Index j = 0; j < n; ++j) {
      const unsigned char* image = &from.images[std::size_t(which(j) * pixels)];
      const move m = how(j);
      float* to = x_.data() + j * pixels;
      for (Index r = 0; r < side; ++r)
        for (Index c = 0; c < side; ++c) {
          const Index row = r + m.down, column = (m.mirrored ? side - 1 - c : c) + m.right;
          const bool inside = row >= 0 && row < side && column >= 0 && column < side;
          to[r * side + c] = scaled(inside ? image[row * side + column] : static_cast<unsigned char>(0));
        }
      labels_[std::size_t(j)] = from.labels[std::size_t(which(j))];
    }
  }

  /// Adds a `parts`-th of the gradients of the loss of x_; returns the loss.
  double add_gradients(mode m, Index parts)
  {
    net_.forward(x_, y_, m);
    const double loss = softmax().loss;
    dy_ /= float(parts);
    net_.backward(x_, y_, dy_, nullptr);
    return loss;
  }

  /// The cross-entropy of y_'s rows, whose gradient becomes dy_.
  measurement softmax()
  {
    measurement sum;
    dy_.resize(y_.rows(), y_.cols());
    for (Index j = 0; j < y_.rows(); ++j) {
      const Index label = labels_[std::size_t(j)];
      Index guess = 0;
      const float largest = y_.row(j).maxCoeff(&guess);
      dy_.row(j) = (y_.row(j).array() - largest).exp();
      const float total = dy_.row(j).sum();
      sum.loss += std::log(double(total)) - double(y_(j, label) - largest);
      sum.error += guess == label ? 0 : 100;
      dy_.row(j) /= total;
      dy_(j, label) -= 1;
    }
    dy_ /= float(y_.rows());
    return {sum.loss / double(y_.rows()), sum.error / double(y_.rows())};
  }

  Index batch_;
  std::uint64_t seed_;
  fashion_mnist::data_set train_, test_;
  std::vector<Index> order_;
  std::vector<move> moves_;
  numbers buffers_;
  sequence net_;
  matrix x_, y_, dy_;
  std::vector<Index> labels_;
};

}  // namespace study
