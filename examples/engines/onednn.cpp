// gradus in oneDNN: a small network whose weights stay in oneDNN's own memory, in a plain layout, and in the blocked and padded
// one that its primitives prefer. oneDNN has no optimizer, so AdamW is compared with a loop written by hand.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include <gradus/gradus.hpp>
#include <gradus/interop/onednn.hpp>

#include "images.hpp"

namespace {

using dnnl::memory;
using tag = memory::format_tag;

constexpr memory::dim inputs = 784, hidden = 20, outputs = 10, batch = 100;
constexpr std::size_t steps = 60;

const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
const dnnl::stream stream(cpu);

// oneDNN 2 and 3 describe a primitive in different ways.
template <class Primitive, class... Arguments>
auto described(const Arguments&... arguments)
{
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(cpu, arguments...);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), cpu);
#endif
}
template <class Primitive, class Hint, class... Arguments>
auto described_for(const Hint& hint, const Arguments&... arguments)
{
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(cpu, arguments..., hint);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), cpu, hint);
#endif
}

memory::desc floats(const memory::dims& extents, tag layout) { return {extents, memory::data_type::f32, layout}; }
memory filled(const memory::desc& desc, std::span<const float> values)
{
  memory m(desc, cpu);
  std::copy(values.begin(), values.end(), static_cast<float*>(m.get_data_handle()));
  return m;
}
std::span<float> numbers(const memory& m, memory::dim n)
{
  return {static_cast<float*>(m.get_data_handle()), std::size_t(n)};
}

void copy(memory from, memory to) { dnnl::reorder(from, to).execute(stream, from, to), dnnl::stream(stream).wait(); }
memory in_layout(const memory& m, const memory::desc& wanted)
{
  if (m.get_desc() == wanted)
    return m;
  memory other(wanted, cpu);
  copy(m, other);
  return other;
}

enum class layout { plain, blocked };

/// y = x·Wᵀ + b, with W and its gradient in the layout that they are kept in.
struct layer {
  using forward_primitive = dnnl::inner_product_forward;
  using weights_primitive = dnnl::inner_product_backward_weights;
  using data_primitive = dnnl::inner_product_backward_data;

  memory::dim in, out;
  forward_primitive::primitive_desc forward_desc;
  weights_primitive::primitive_desc weights_desc;
  data_primitive::primitive_desc data_desc;
  memory weights, weights_gradient, bias, bias_gradient;

  layer(memory::dim n_in, memory::dim n_out, layout kept, fashion_mnist::random_numbers& random) : in(n_in), out(n_out)
  {
    const auto x = floats({batch, in}, tag::ab), w = floats({out, in}, tag::any), b = floats({out}, tag::a),
               y = floats({batch, out}, tag::ab);
    forward_desc = described<forward_primitive>(dnnl::prop_kind::forward_training, x, w, b, y);
    weights_desc = described_for<weights_primitive>(forward_desc, x, w, b, y);
    data_desc = described_for<data_primitive>(forward_desc, x, w, y);

    const auto start = images::random_weights(random, std::size_t(in), std::size_t(in * out));
    const memory plain = filled(floats({out, in}, tag::ab), start);
    auto chosen = forward_desc.weights_desc();
    if (chosen == plain.get_desc())  // on a processor where oneDNN prefers the plain layout
      chosen = floats({out, in}, tag::AB16b16a);
    weights = kept == layout::plain ? plain : in_layout(plain, chosen);
    weights_gradient = memory(weights.get_desc(), cpu);
    bias = filled(b, std::vector<float>(std::size_t(out)));
    bias_gradient = memory(b, cpu);
  }

  memory forward(const memory& x) const
  {
    memory y(forward_desc.dst_desc(), cpu);
    forward_primitive(forward_desc)
        .execute(stream, {{DNNL_ARG_SRC, x},
                          {DNNL_ARG_WEIGHTS, in_layout(weights, forward_desc.weights_desc())},
                          {DNNL_ARG_BIAS, bias},
                          {DNNL_ARG_DST, y}});
    return dnnl::stream(stream).wait(), y;
  }
  void backward_weights(const memory& x, const memory& dy)
  {
    memory dw(weights_desc.diff_weights_desc(), cpu);
    weights_primitive(weights_desc)
        .execute(stream, {{DNNL_ARG_SRC, x},
                          {DNNL_ARG_DIFF_DST, dy},
                          {DNNL_ARG_DIFF_WEIGHTS, dw},
                          {DNNL_ARG_DIFF_BIAS, bias_gradient}});
    copy(dw, weights_gradient);  // the backward pass may prefer another layout
  }
  memory backward_data(const memory& dy) const
  {
    memory dx(data_desc.diff_src_desc(), cpu);
    data_primitive(data_desc).execute(stream, {{DNNL_ARG_DIFF_DST, dy},
                                               {DNNL_ARG_WEIGHTS, in_layout(weights, data_desc.weights_desc())},
                                               {DNNL_ARG_DIFF_SRC, dx}});
    return dnnl::stream(stream).wait(), dx;
  }
  std::vector<float> plain_weights() const
  {
    const memory plain = in_layout(weights, floats({out, in}, tag::ab));
    const auto all = numbers(plain, in * out);
    return {all.begin(), all.end()};
  }
};

struct network {
  fashion_mnist::random_numbers random{1};
  layer first, second;

  explicit network(layout kept) : first(inputs, hidden, kept, random), second(hidden, outputs, kept, random) {}

  /// Computes all gradients; returns the mean cross-entropy.
  double compute_gradients(const images::batch& data)
  {
    const memory x = filled(floats({batch, inputs}, tag::ab), data.pixels);
    const memory h = first.forward(x);
    for (float& v : numbers(h, batch * hidden))
      v = std::tanh(v);
    const memory y = second.forward(h);
    double loss = 0;
    for (std::size_t i = 0; i < std::size_t(batch); ++i) {  // y becomes dy
      const auto row = numbers(y, batch * outputs).subspan(i * outputs, outputs);
      double sum = 0;
      for (const float v : row)
        sum += std::exp(double(v));
      loss += std::log(sum) - double(row[data.label[i]]);
      for (std::size_t k = 0; k < row.size(); ++k)
        row[k] = float((std::exp(double(row[k])) / sum - (k == data.label[i])) / double(batch));
    }
    second.backward_weights(h, y);
    const memory dh = second.backward_data(y);
    for (std::size_t i = 0; i < std::size_t(batch * hidden); ++i) {
      const float v = numbers(h, batch * hidden)[i];
      numbers(dh, batch * hidden)[i] *= 1 - v * v;
    }
    first.backward_weights(x, dh);
    return loss / double(batch);
  }
  std::vector<float> all_weights() const
  {
    std::vector<float> all = first.plain_weights();
    for (const auto& part :
         {second.plain_weights(),
          std::vector<float>(numbers(first.bias, hidden).begin(), numbers(first.bias, hidden).end()),
          std::vector<float>(numbers(second.bias, outputs).begin(), numbers(second.bias, outputs).end())})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }
};

struct result {
  std::vector<float> weights;
  double loss = 0, mean_square = 0;
};

/// Trains with gradus. These are all lines that it takes.
template <class Recipe>
result train(const images::training_set& data, layout kept, const Recipe& recipe)
{
  network net(kept);
  gradus::optimizer opt(recipe);
  opt.add("first.weight", net.first.weights, net.first.weights_gradient);  // padding is found in the descriptor
  opt.add("first.bias", net.first.bias, net.first.bias_gradient);
  opt.add("second.weight", net.second.weights, net.second.weights_gradient);
  opt.add("second.bias", net.second.bias, net.second.bias_gradient);

  result r;
  for (std::size_t step = 0; step < steps; ++step) {
    r.loss = net.compute_gradients(data.of_step(step, batch));
    r.mean_square = opt.step().mean_square.value_or(0);
  }
  std::printf("%zu weights in %zu floats\n", std::size_t((inputs + 1) * hidden + (hidden + 1) * outputs),
              opt.parameter_count());
  r.weights = net.all_weights();
  return r;
}

/// Trains with AdamW written by hand.
result train_by_hand(const images::training_set& data, const gradus::adamw& a)
{
  network net(layout::plain);
  result r;
  std::array<std::vector<std::array<double, 2>>, 4> moments;
  for (std::size_t step = 0; step < steps; ++step) {
    r.loss = net.compute_gradients(data.of_step(step, batch));
    const std::array tensors{std::pair(numbers(net.first.weights, inputs * hidden),
                                       numbers(net.first.weights_gradient, inputs * hidden)),
                             std::pair(numbers(net.first.bias, hidden), numbers(net.first.bias_gradient, hidden)),
                             std::pair(numbers(net.second.weights, hidden * outputs),
                                       numbers(net.second.weights_gradient, hidden * outputs)),
                             std::pair(numbers(net.second.bias, outputs), numbers(net.second.bias_gradient, outputs))};
    const double m_scale = 1 - std::pow(a.beta1, double(step + 1)), v_scale = 1 - std::pow(a.beta2, double(step + 1));
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      const auto& [w, g] = tensors[k];
      moments[k].resize(w.size());
      for (std::size_t i = 0; i < w.size(); ++i) {
        auto& [m, v] = moments[k][i];
        m = a.beta1 * m + (1 - a.beta1) * double(g[i]);
        v = a.beta2 * v + (1 - a.beta2) * double(g[i]) * double(g[i]);
        w[i] = float(double(w[i]) * (1 - a.lr * a.weight_decay) -
                     a.lr * (m / m_scale) / (std::sqrt(v / v_scale) + a.eps));
      }
    }
  }
  r.weights = net.all_weights();
  return r;
}

}  // namespace

int main()
{
  const images::training_set data("onednn", 1000);
  const gradus::adamw adamw{.lr = 1e-3, .weight_decay = 0.1};
  const gradus::adams adams{.lr = 1e-3, .weight_decay = 0.1};

  std::printf("oneDNN %d.%d.%d\n", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
  const result plain = train(data, layout::plain, adamw), blocked = train(data, layout::blocked, adamw);
  const result by_hand = train_by_hand(data, adamw);
  const result plain_s = train(data, layout::plain, adams), blocked_s = train(data, layout::blocked, adams);
  std::printf("loss after %zu steps: %.3f\n", steps, plain.loss);

  using images::largest_difference, images::report;
  bool good = plain.loss < 1.2;  // from 2.3, of ten classes at random
  good &= report("AdamW, plain and a loop by hand", largest_difference(plain.weights, by_hand.weights), 1e-5);
  good &= report("AdamW, plain and blocked", largest_difference(plain.weights, blocked.weights), 0);
  good &= report("AdamS, plain and blocked", largest_difference(plain_s.weights, blocked_s.weights), 1e-6);
  good &= report("AdamS, relative difference of the mean of squares",
                 std::fabs(plain_s.mean_square / blocked_s.mean_square - 1), 1e-6);
  return good ? 0 : 1;
}
