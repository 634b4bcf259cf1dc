#pragma once
/// \file
/// `add` and `rebind` over the tensors of LibTorch, PyTorch's C++ library (1.13 or later): at::Tensor, torch::Tensor.
///
/// `opt.add(name, p, p.grad())` also takes a gradient that is not defined yet: the tensor is then added without gradients, and
/// `opt.rebind_gradients(handle, p.grad())` binds them after `backward()`, or takes them away if there are none. Steps
/// write the elements, and tell autograd nothing: see docs/engines.md. Elements are on the CPU; with `backend::thrust` on
/// CUDA they are on the GPU. Parameters and gradients may lie in any order without gaps, such as channels_last, if both
/// lie in the same.

#include <cstddef>
#include <string>
#include <type_traits>

#include <ATen/core/Tensor.h>

#include <gradus/interop/element.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace interop::libtorch {

/// The element type of a tensor.
inline element element_in(const at::Tensor& t)
{
  switch (t.scalar_type()) {
  case at::ScalarType::Float: return element::float32;
  case at::ScalarType::Double: return element::float64;
  case at::ScalarType::BFloat16: return element::bfloat16;
  case at::ScalarType::Half: return element::float16;
  default: return element::other;
  }
}

/// The address of a tensor's first element. A copy-on-write tensor is copied if it is to be written.
template <class Element, class Tensor>
Element* first_of(const Tensor& t)
{
  if constexpr (!requires { t.mutable_data_ptr(); })
    return static_cast<Element*>(t.data_ptr());
  else if constexpr (std::is_const_v<Element>)
    return static_cast<Element*>(t.const_data_ptr());
  else
    return static_cast<Element*>(t.mutable_data_ptr());
}

/// The order of a tensor's elements.
inline strided_order order_of(const at::Tensor& t)
{
  return order_of_strides(
      t.sizes().size(), [&](std::size_t k) { return t.sizes()[k]; }, [&](std::size_t k) { return t.strides()[k]; });
}

}  // namespace interop::libtorch

/// A tensor is a handle: a temporary one may be the last, so it is refused; pass a variable.
template <>
struct view_traits<at::Tensor> {
  /// No gradient yet.
  static bool is_undefined(const at::Tensor& t) { return !t.defined(); }
  /// The first element, if type and memory are the optimizer's.
  template <interop::element_type Element>
  static Element* data_as(const at::Tensor& t, const view_argument& of)
  {
    namespace here = interop::libtorch;
    if (!t.defined())
      refuse(of.text() + " is an undefined tensor; expected one with elements");
    if (here::element_in(t) != interop::element_of<Element>)
      interop::refuse_tensor(of, "dtype", std::string(c10::toString(t.scalar_type())),
                             interop::name_of(interop::element_of<Element>));
    if (!(of.on_device ? t.is_cuda() : t.is_cpu()))
      interop::refuse_tensor(of, "device", t.device().str(), of.on_device ? "cuda" : "cpu");
    if (t.layout() != at::kStrided)
      refuse(of.text() + " is sparse, or has another layout without strides; expected a dense tensor");
    if (t.is_neg())
      refuse(of.text() + " is a negated view, whose elements have the other sign; expected a copy (resolve_neg())");
    return here::first_of<Element>(t);
  }
  /// The number of elements.
  static std::size_t size(const at::Tensor& t) { return static_cast<std::size_t>(t.numel()); }
  /// Whether there are no gaps.
  static bool lies_side_by_side(const at::Tensor& t) { return interop::libtorch::order_of(t).dense; }
  /// Sizes and strides as text.
  static std::string layout(const at::Tensor& t)
  {
    const auto text = [](const at::IntArrayRef& list) {
      return interop::list_of(list.size(), [&](std::size_t k) { return list[k]; });
    };
    return "sizes " + text(t.sizes()) + " and strides " + text(t.strides());
  }
  /// Sizes and storage order.
  static view_shape shape(const at::Tensor& t)
  {
    view_shape all(interop::libtorch::order_of(t).order);
    for (const auto extent : t.sizes())
      all.push_back(static_cast<std::size_t>(extent));
    return all;
  }
  /// Whether two tensors in an order of their own, such as channels_last, have the same.
  static bool same_layout(const at::Tensor& parameters, const at::Tensor& gradients)
  {
    const auto n = parameters.sizes().size();
    if (interop::libtorch::order_of(parameters).order != storage_order::other || gradients.sizes().size() != n)
      return true;  // shapes and storage orders say it all
    bool same = true;
    for (std::size_t k = 0; k < n; ++k)
      same = same && (parameters.sizes()[k] == 1 || parameters.strides()[k] == gradients.strides()[k]);
    return same;
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
