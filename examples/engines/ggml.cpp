// gradus in ggml: its graph computes the gradients, backward pass and all, and gradus takes the steps on the same tensors. Beside
// it, the same graph with ggml's own AdamW in it.

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <gradus/gradus.hpp>
#include <gradus/interop/ggml.hpp>

#include "images.hpp"

namespace {

constexpr std::int64_t inputs = 784, hidden = 24, outputs = 10, batch = 100;
constexpr std::size_t steps = 100, graph_size = 256;

/// A network of two layers, its graph, and all memory. With `steps_itself`, the graph ends with ggml's AdamW.
class network {
 public:
  std::vector<ggml_tensor*> parameters;
  ggml_cgraph* graph = nullptr;
  ggml_tensor* adamw = nullptr;  ///< the numbers of its step: lr, β₁, β₂, ε, decay, and the two bias corrections

  explicit network(bool steps_itself)
  {
    ggml_backend_cpu_set_n_threads(backend_, 1);  // more would mostly wait for each other
    const auto parameter = [&](const char* name, std::int64_t columns, std::int64_t rows) {
      ggml_tensor* const t = rows == 1 ? ggml_new_tensor_1d(kept_, GGML_TYPE_F32, columns)
                                       : ggml_new_tensor_2d(kept_, GGML_TYPE_F32, columns, rows);
      ggml_set_name(t, name);
      ggml_set_param(t);
      parameters.push_back(t);
      return t;
    };
    ggml_tensor *w1 = parameter("first.weight", inputs, hidden), *b1 = parameter("first.bias", hidden, 1),
                *w2 = parameter("second.weight", hidden, outputs), *b2 = parameter("second.bias", outputs, 1);
    x_ = ggml_new_tensor_2d(kept_, GGML_TYPE_F32, inputs, batch);
    label_ = ggml_new_tensor_2d(kept_, GGML_TYPE_F32, outputs, batch);
    adamw = ggml_new_tensor_1d(kept_, GGML_TYPE_F32, 7);

    ggml_tensor* const h = ggml_silu(made_, ggml_add(made_, ggml_mul_mat(made_, w1, x_), b1));
    ggml_tensor* const y = ggml_add(made_, ggml_mul_mat(made_, w2, h), b2);
    loss_ = ggml_cross_entropy_loss(made_, y, label_);
    ggml_set_loss(loss_);
    ggml_set_output(loss_);

    ggml_cgraph* const forward = ggml_new_graph_custom(made_, graph_size, true);
    ggml_build_forward_expand(forward, loss_);
    // Gradients that are to be read after the graph need memory of their own.
    std::vector<ggml_tensor*> sums(std::size_t(ggml_graph_n_nodes(forward)));
    for (int k = 0; k < ggml_graph_n_nodes(forward); ++k)
      if (ggml_tensor* const node = ggml_graph_node(forward, k);
          node->flags & (GGML_TENSOR_FLAG_PARAM | GGML_TENSOR_FLAG_LOSS))
        sums[std::size_t(k)] = ggml_dup_tensor(kept_, node);
    backward_ = ggml_graph_dup(made_, forward, true);
    ggml_build_backward_expand(made_, backward_, sums.data());

    graph = backward_;
    if (steps_itself) {
      graph = ggml_graph_dup(made_, backward_, true);
      for (ggml_tensor* const p : parameters) {
        moments_.push_back(ggml_dup_tensor(kept_, p));
        moments_.push_back(ggml_dup_tensor(kept_, p));
        ggml_build_forward_expand(graph, ggml_opt_step_adamw(made_, p, ggml_graph_get_grad_acc(graph, p),
                                                             moments_.end()[-2], moments_.end()[-1], adamw));
      }
    }
    memory_ = ggml_backend_alloc_ctx_tensors(kept_, backend_);
    ggml_gallocr_alloc_graph(allocator_, graph);
    for (ggml_tensor* const m : moments_)
      fill(m, std::vector<float>(std::size_t(ggml_nelements(m))));

    fashion_mnist::random_numbers random(1);
    for (ggml_tensor* const p : parameters)
      fill(p, p->ne[1] > 1 ? images::random_weights(random, std::size_t(p->ne[0]), std::size_t(ggml_nelements(p)))
                           : std::vector<float>(std::size_t(ggml_nelements(p))));
  }
  network(const network&) = delete;
  network& operator=(const network&) = delete;
  ~network()
  {
    ggml_gallocr_free(allocator_);
    ggml_backend_buffer_free(memory_);
    ggml_free(made_);
    ggml_free(kept_);
    ggml_backend_free(backend_);
  }

  /// Runs the graph on a batch; returns the loss.
  float compute(const images::batch& data)
  {
    fill(x_, data.pixels);
    std::vector<float> one_hot(std::size_t(batch * outputs));
    for (std::size_t i = 0; i < data.label.size(); ++i)
      one_hot[i * std::size_t(outputs) + data.label[i]] = 1;
    fill(label_, one_hot);
    ggml_graph_reset(backward_);  // gradients to 0, that of the loss to 1
    ggml_backend_graph_compute(backend_, graph);
    float loss = 0;
    ggml_backend_tensor_get(loss_, &loss, 0, sizeof loss);
    return loss;
  }
  void fill(ggml_tensor* t, std::span<const float> values)
  {
    ggml_backend_tensor_set(t, values.data(), 0, values.size_bytes());
  }
  std::vector<float> all_weights() const
  {
    std::vector<float> all;
    for (const ggml_tensor* p : parameters) {
      const auto* const first = static_cast<const float*>(p->data);
      all.insert(all.end(), first, first + ggml_nelements(p));
    }
    return all;
  }

 private:
  // Descriptions only: the backend has the memory.
  static ggml_context* context()
  {
    return ggml_init({16 * graph_size * ggml_tensor_overhead() + 4 * ggml_graph_overhead_custom(graph_size, true),
                      nullptr, true});
  }

  ggml_backend_t backend_ = ggml_backend_cpu_init();
  ggml_context *kept_ = context(), *made_ = context();
  ggml_gallocr_t allocator_ = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend_));
  ggml_backend_buffer_t memory_ = nullptr;
  ggml_cgraph* backward_ = nullptr;
  ggml_tensor *x_ = nullptr, *label_ = nullptr, *loss_ = nullptr;
  std::vector<ggml_tensor*> moments_;
};

}  // namespace

int main()
{
  const images::training_set data("ggml", 1000);
  const gradus::adamw recipe{.lr = 1e-3, .weight_decay = 0.1};

  network theirs(true), ours(false);
  gradus::optimizer opt(recipe);
  for (ggml_tensor* const p : ours.parameters)
    opt.add(ggml_get_name(p), p, ggml_graph_get_grad_acc(ours.graph, p));

  float loss = 0, their_loss = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    const auto batch_of_step = data.of_step(step, std::size_t(batch));
    loss = ours.compute(batch_of_step);
    opt.step();

    const double t = double(step + 1);
    const float numbers[] = {float(recipe.lr),
                             float(recipe.beta1),
                             float(recipe.beta2),
                             float(recipe.eps),
                             float(recipe.weight_decay),
                             float(1 / (1 - std::pow(recipe.beta1, t))),
                             float(1 / (1 - std::pow(recipe.beta2, t)))};
    theirs.fill(theirs.adamw, numbers);
    their_loss = theirs.compute(batch_of_step);
  }
  std::printf("ggml %s; loss after %zu steps: %.3f and %.3f\n", ggml_version(), steps, double(loss),
              double(their_loss));
  const bool good = images::report("AdamW and ggml's",
                                   images::largest_difference(ours.all_weights(), theirs.all_weights()), 1e-5);
  return good && loss < 1 ? 0 : 1;
}
