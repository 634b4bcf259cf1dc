#pragma once
// A character-level LSTM language model (Zaremba, Sutskever, Vinyals: Recurrent Neural Network Regularization, 2014)
// as a task: embedding, LSTM layers, softmax; dropout on the connections that do not run along time.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "task.hpp"
#include "text.hpp"

namespace study {

struct language_config {
  std::size_t train = 200'000, test = 60'000;  ///< characters: the text's first, and those that follow them
  std::size_t window = 35;                     ///< characters that a step's gradients go back over
  std::size_t embedding = 64, hidden = 128, layers = 2;
  float dropout = 0.1f;    ///< part of the non-recurrent connections that a step leaves out
  std::size_t probe = 70;  ///< characters of each stream that probe_gradients() reads
};

/// The training text is cut into `batch` streams that are read side by side, `window` characters a step; the state is
/// carried from step to step and is zero when an epoch starts. The steps of an epoch have to be taken in order.
class language_model final : public task {
 public:
  /// path: see read_text.
  language_model(const std::string& path, std::size_t batch, std::uint64_t seed, language_config config = {})
      : config_(config), batch_(Index(batch)), seed_(seed)
  {
    if (std::min({batch, config.window, config.embedding, config.hidden, config.layers, config.probe}) == 0)
      throw std::invalid_argument("batch, window, embedding, hidden, layers and probe have to be 1 or more");
    if (!(config.dropout >= 0 && config.dropout < 1))
      throw std::invalid_argument("dropout is " + std::to_string(config.dropout) + "; expected 0 to below 1");
    const std::string text = read_text(path);
    if (text.size() < config.test || text.size() - config.test < config.train)
      throw std::invalid_argument(path + " has " + std::to_string(text.size()) + " characters; expected " +
                                  std::to_string(config.train) + " to train on and " + std::to_string(config.test) +
                                  " to test on");
    const std::size_t longest = std::max(config.window, config.probe);
    if (config.train / batch <= longest || config.test <= test_streams)
      throw std::invalid_argument(std::to_string(config.train) + " characters to train on and " +
                                  std::to_string(config.test) + " to test on are too few: expected more than " +
                                  std::to_string(longest) + " for each of " + std::to_string(batch) + " streams, and " +
                                  std::to_string(test_streams));
    encode(text);
    add_parameters();
  }

  /// Distinct characters of the training text, and one symbol for all others.
  std::size_t vocabulary() const { return std::size_t(vocabulary_); }

  std::size_t steps_per_epoch() const override { return (train_.size() - 1) / std::size_t(batch_) / config_.window; }
  std::size_t examples_per_step() const override { return std::size_t(batch_) * config_.window; }

  void start_epoch(std::size_t epoch) override
  {
    epoch_ = epoch;
    carried_ = zero_state(batch_);
  }

  double step_gradients(std::size_t step) override
  {
    dropping_ = config_.dropout > 0;
    noise_ = mix(mix(mix(seed_) + epoch_) + step);
    const measurement m = forward(train_, Index(step * config_.window), Index(config_.window), carried_);
    backward();
    return m.loss;
  }

  double probe_gradients() override
  {
    dropping_ = false;
    state zero = zero_state(batch_);
    const measurement m = forward(train_, 0, Index(config_.probe), zero);
    backward();
    return m.loss;
  }

  double max_grad_norm() const override { return 1; }

  measurement test() override
  {
    dropping_ = false;
    state s = zero_state(test_streams);
    const Index length = (Index(test_.size()) - 1) / test_streams;
    measurement sum;
    for (Index first = 0; first < length; first += test_window) {
      const Index n = std::min(length - first, test_window);
      const measurement m = forward(test_, first, n, s);
      sum.loss += m.loss * double(n);
      sum.error += m.error * double(n);
    }
    return {sum.loss / double(length), sum.error / double(length)};
  }

 private:
  using Index = Eigen::Index;
  using map = Eigen::Map<matrix>;
  using symbols = std::vector<std::uint8_t>;

  static constexpr Index test_streams = 32, test_window = 100;

  /// What a layer keeps of a pass; a row is a character of a stream, the streams of one moment side by side.
  struct layer {
    std::size_t input, recurrent, bias;  ///< where in parameters
    matrix x, mask;                      ///< what comes from below, after dropout; the factors of dropout
    matrix gates;                        ///< input, forget, output, candidate; backward: gradients before their tanh
    matrix h, c, tanh_c;                 ///< h and c: the rows of the moment before the first come first
  };

  using state = std::vector<std::array<matrix, 2>>;  ///< h and c of each layer

  state zero_state(Index streams) const
  {
    const matrix zero = matrix::Zero(streams, Index(config_.hidden));
    return state(config_.layers, {zero, zero});
  }

  /// The finaliser of splitmix64 (Steele, Lea, Flood 2014): a number's random bits.
  static std::uint64_t mix(std::uint64_t x)
  {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }

  /// The symbols are numbered in the order of their bytes; the last one is for those that training does not have.
  void encode(const std::string& text)
  {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    std::array<bool, 256> seen{};
    for (std::size_t i = 0; i < config_.train; ++i)
      seen[byte(i)] = true;
    const auto distinct = std::count(seen.begin(), seen.end(), true);
    if (distinct == 256)
      throw std::invalid_argument("the text to train on has all 256 bytes; expected characters");
    std::array<std::uint8_t, 256> symbol{};
    for (std::size_t c = 0, next = 0; c < 256; ++c)
      symbol[c] = static_cast<std::uint8_t>(seen[c] ? next++ : std::size_t(distinct));
    for (std::size_t i = 0; i < config_.train + config_.test; ++i)
      (i < config_.train ? train_ : test_).push_back(symbol[byte(i)]);
    vocabulary_ = distinct + 1;
  }

  /// Uniform in ±1/sqrt(hidden); biases 0, but the forget gates' 1, so that memory lasts from the start.
  void add_parameters()
  {
    const std::size_t e = config_.embedding, h = config_.hidden, v = vocabulary();
    const auto uniform = [&](std::string name, std::size_t size) {
      const std::size_t begin = add_tensor(std::move(name), size);
      for (std::size_t i = begin; i < begin + size; ++i)
        parameters[i] = (float(mix(mix(~seed_) + i) >> 40) * 0x1p-23f - 1) / std::sqrt(float(h));
      return begin;
    };
    embedding_ = uniform("embedding", v * e);
    layers_.resize(config_.layers);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const std::string name = "lstm" + std::to_string(l);
      layers_[l].input = uniform(name + ".input", (l == 0 ? e : h) * 4 * h);
      layers_[l].recurrent = uniform(name + ".recurrent", h * 4 * h);
      layers_[l].bias = add_tensor(name + ".bias", 4 * h);
      std::fill_n(parameters.begin() + std::ptrdiff_t(layers_[l].bias + h), h, 1.0f);
    }
    output_ = uniform("output", h * v);
    output_bias_ = add_tensor("output.bias", v);
  }

  static map at(numbers& in, std::size_t begin, Index rows, Index cols) { return {in.data() + begin, rows, cols}; }

  /// Multiplies x by factors that are 0 or 1 / (1 - dropout), each step's and each place's own.
  void drop(matrix& x, matrix& mask, std::uint64_t place) const
  {
    if (!dropping_)
      return;
    mask.resize(x.rows(), x.cols());
    const std::uint64_t key = mix(noise_ + place);
    const auto below = static_cast<std::uint32_t>(double(config_.dropout) * 0x1p32);
    const float keep = 1 / (1 - config_.dropout);
    for (Index i = 0; i < mask.size(); ++i)
      mask.data()[i] = static_cast<std::uint32_t>(mix(key + std::uint64_t(i)) >> 32) < below ? 0.0f : keep;
    x.array() *= mask.array();
  }

  void undrop(matrix& dx, const matrix& mask) const
  {
    if (dropping_)
      dx.array() *= mask.array();
  }

  /// Reads `length` characters of each of the text's streams (as many as s has) from the first one on, and predicts
  /// each one's successor. s goes in as the state before them and comes out as the one after them.
  measurement forward(const symbols& text, Index first, Index length, state& s)
  {
    const Index streams = s[0][0].rows(), rows = streams * length, stride = (Index(text.size()) - 1) / streams;
    const Index e = Index(config_.embedding), h = Index(config_.hidden);
    read_.resize(std::size_t(rows)), next_.resize(std::size_t(rows));
    layers_[0].x.resize(rows, e);
    const map embedding = at(parameters, embedding_, vocabulary_, e);
    for (Index r = 0; r < rows; ++r) {
      const auto position = std::size_t(r % streams * stride + first + r / streams);
      read_[std::size_t(r)] = text[position], next_[std::size_t(r)] = text[position + 1];
      layers_[0].x.row(r) = embedding.row(text[position]);
    }
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      layer& a = layers_[l];
      drop(a.x, a.mask, l);
      a.gates.noalias() = a.x * at(parameters, a.input, a.x.cols(), 4 * h);
      a.gates.rowwise() += at(parameters, a.bias, 1, 4 * h).row(0);
      a.h.resize(rows + streams, h), a.c.resize(rows + streams, h), a.tanh_c.resize(rows, h);
      a.h.topRows(streams) = s[l][0], a.c.topRows(streams) = s[l][1];
      for (Index r = 0; r < rows; r += streams) {
        auto z = a.gates.middleRows(r, streams);
        z.noalias() += a.h.middleRows(r, streams) * at(parameters, a.recurrent, h, 4 * h);
        z.leftCols(3 * h) = z.leftCols(3 * h).array().logistic();
        z.rightCols(h) = z.rightCols(h).array().tanh();
        const auto i = z.leftCols(h).array(), f = z.middleCols(h, h).array(), o = z.middleCols(2 * h, h).array();
        a.c.middleRows(r + streams, streams) = f * a.c.middleRows(r, streams).array() + i * z.rightCols(h).array();
        a.tanh_c.middleRows(r, streams) = a.c.middleRows(r + streams, streams).array().tanh();
        a.h.middleRows(r + streams, streams) = o * a.tanh_c.middleRows(r, streams).array();
      }
      s[l] = {a.h.bottomRows(streams), a.c.bottomRows(streams)};
      (l + 1 < layers_.size() ? layers_[l + 1].x : top_) = a.h.bottomRows(rows);
    }
    drop(top_, top_mask_, layers_.size());
    softmax_.noalias() = top_ * at(parameters, output_, h, vocabulary_);
    softmax_.rowwise() += at(parameters, output_bias_, 1, vocabulary_).row(0);
    double loss = 0, wrong = 0;
    for (Index r = 0; r < rows; ++r) {
      auto z = softmax_.row(r).array();
      Index guess = 0;
      z -= float(z.maxCoeff(&guess));
      const Index truth = next_[std::size_t(r)];
      const float logit = z(truth);
      z = z.exp();
      const float sum = z.sum();
      z /= sum;
      loss += std::log(double(sum)) - double(logit);
      wrong += guess != truth;
    }
    return {loss / double(rows), 100 * wrong / double(rows)};
  }

  /// The gradients of the last forward's loss; those that come from after its end are not known and count as zero.
  void backward()
  {
    const Index rows = top_.rows(), h = Index(config_.hidden);
    for (Index r = 0; r < rows; ++r)
      softmax_(r, next_[std::size_t(r)]) -= 1;
    softmax_ /= float(rows);
    at(gradients, output_, h, vocabulary_).noalias() = top_.transpose() * softmax_;
    at(gradients, output_bias_, 1, vocabulary_) = softmax_.colwise().sum();
    dy_.noalias() = softmax_ * at(parameters, output_, h, vocabulary_).transpose();
    undrop(dy_, top_mask_);
    for (std::size_t l = layers_.size(); l-- > 0;) {
      layer& a = layers_[l];
      const Index streams = a.h.rows() - rows;
      dc_ = matrix::Zero(streams, h);
      for (Index r = rows - streams; r >= 0; r -= streams) {
        auto z = a.gates.middleRows(r, streams);
        const auto dh = dy_.middleRows(r, streams).array(), tanh_c = a.tanh_c.middleRows(r, streams).array();
        auto i = z.leftCols(h).array(), f = z.middleCols(h, h).array(), o = z.middleCols(2 * h, h).array();
        auto g = z.rightCols(h).array();
        auto dc = dc_.array();
        dc += dh * o * (1 - tanh_c.square());
        o = dh * tanh_c * o * (1 - o);
        di_ = dc * g * i * (1 - i);
        g = dc * i * (1 - g.square());
        i = di_.array();
        di_ = dc * f;
        f = dc * a.c.middleRows(r, streams).array() * f * (1 - f);
        dc_.swap(di_);
        if (r > 0)
          dy_.middleRows(r - streams, streams).noalias() += z * at(parameters, a.recurrent, h, 4 * h).transpose();
      }
      at(gradients, a.input, a.x.cols(), 4 * h).noalias() = a.x.transpose() * a.gates;
      at(gradients, a.recurrent, h, 4 * h).noalias() = a.h.topRows(rows).transpose() * a.gates;
      at(gradients, a.bias, 1, 4 * h) = a.gates.colwise().sum();
      dy_.noalias() = a.gates * at(parameters, a.input, a.x.cols(), 4 * h).transpose();
      undrop(dy_, a.mask);
    }
    map embedding = at(gradients, embedding_, vocabulary_, Index(config_.embedding));
    embedding.setZero();
    for (Index r = 0; r < rows; ++r)
      embedding.row(read_[std::size_t(r)]) += dy_.row(r);
  }

  language_config config_;
  Index batch_, vocabulary_ = 0;
  std::uint64_t seed_, noise_ = 0;
  std::size_t epoch_ = 0, embedding_ = 0, output_ = 0, output_bias_ = 0;
  bool dropping_ = false;
  symbols train_, test_, read_, next_;  ///< read_, next_: a row's character and its successor
  std::vector<layer> layers_;
  matrix top_, top_mask_, softmax_, dy_, dc_, di_;  ///< softmax_: backward: gradients of the logits
  state carried_;
};

}  // namespace study
