#pragma once
/// \file
/// `add` and `rebind` over ggml's tensors, by pointer: `opt.add(ggml_get_name(w), w, ggml_graph_get_grad_acc(graph, w))`.
///
/// Tensors are in host memory, have no gaps, and are of type f32, f64, f16 or bf16, as the optimizer's parameters and
/// gradients are; ggml makes gradients in f32. Quantised types are refused, because a step is far smaller than their
/// steps. The graph must have its memory before tensors are added. Link ggml's library ggml-base.

#include <cstddef>
#include <string>
#include <type_traits>

#include <ggml-backend.h>
#include <ggml.h>

#include <gradus/interop/element.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace interop::ggml {

/// The element type of a tensor.
inline element element_in(const ggml_tensor& t) noexcept
{
  return t.type == GGML_TYPE_F32    ? element::float32
         : t.type == GGML_TYPE_F64  ? element::float64
         : t.type == GGML_TYPE_BF16 ? element::bfloat16
         : t.type == GGML_TYPE_F16  ? element::float16
                                    : element::other;
}

/// The order of a tensor's elements. ggml's first dimension varies fastest, so as a shape they are reversed: row-major.
inline strided_order order_of(const ggml_tensor& t)
{
  const std::size_t size = ggml_type_size(t.type);
  const auto from_last = [](std::size_t k) { return GGML_MAX_DIMS - 1 - k; };
  return order_of_strides(
      std::size_t(GGML_MAX_DIMS), [&](std::size_t k) { return t.ne[from_last(k)]; },
      [&](std::size_t k) { return t.nb[from_last(k)] % size == 0 ? t.nb[from_last(k)] / size : 0; });
}

/// How gradus sees a pointer to a tensor.
struct traits {
  /// A pointer owns nothing.
  static constexpr bool is_view = true;

  /// The first element, if type and memory are the optimizer's.
  template <element_type Element>
  static Element* data_as(const ggml_tensor* t, const view_argument& of)
  {
    if (t == nullptr)
      refuse(
          of.text() +
          " is null; expected a tensor (a gradient needs ggml_set_param and a backward graph that it takes part in)");
    if (element_in(*t) != element_of<Element>)
      refuse_tensor(of, "type", ggml_type_name(t->type),
                    std::string(name_of(element_of<Element>)) +
                        (ggml_is_quantized(t->type) ? ": steps cannot update quantised weights" : ""));
    if (t->buffer && !ggml_backend_buffer_is_host(t->buffer))
      refuse_tensor(of, "memory", ggml_backend_buffer_name(t->buffer), "host memory");
    if (t->data == nullptr)
      refuse(of.text() + " has no memory yet; expected a tensor of a graph that was allocated");
    return static_cast<Element*>(t->data);
  }
  /// The number of elements.
  static std::size_t size(const ggml_tensor* t) { return static_cast<std::size_t>(ggml_nelements(t)); }
  /// Whether there are no gaps.
  static bool lies_side_by_side(const ggml_tensor* t) { return order_of(*t).dense; }
  /// Extents and strides as ggml has them, as text.
  static std::string layout(const ggml_tensor* t)
  {
    const auto n = static_cast<std::size_t>(GGML_MAX_DIMS);
    return "ne " + list_of(n, [&](std::size_t k) { return t->ne[k]; }) + " and nb " +
           list_of(n, [&](std::size_t k) { return t->nb[k]; });
  }
  /// The dimensions from the last that is not 1 to the first.
  static view_shape shape(const ggml_tensor* t)
  {
    view_shape all(order_of(*t).order);
    for (int k = ggml_n_dims(t) - 1; k >= 0; --k)
      all.push_back(static_cast<std::size_t>(t->ne[k]));
    return all;
  }
  /// Whether two tensors in an order of their own have the same.
  static bool same_layout(const ggml_tensor* parameters, const ggml_tensor* gradients)
  {
    if (order_of(*parameters).order != storage_order::other)
      return true;  // shapes and storage orders say it all
    bool same = true;
    for (std::size_t k = 0; k < GGML_MAX_DIMS; ++k)
      same = same && (parameters->ne[k] == 1 || parameters->nb[k] * ggml_type_size(gradients->type) ==
                                                    gradients->nb[k] * ggml_type_size(parameters->type));
    return same;
  }
};

}  // namespace interop::ggml

/// A pointer to a tensor is a view of it.
template <>
struct view_traits<ggml_tensor*> : interop::ggml::traits {};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
