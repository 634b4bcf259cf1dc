#pragma once
/// \file
/// `add` and `rebind` over DLPack's tensors: DLTensor, DLManagedTensor and, from DLPack 1.0 on, DLManagedTensorVersioned.
///
/// The optimizer only views a tensor. Its owner calls the deleter when the optimizer no longer uses it. Elements are on
/// the CPU; with `backend::thrust` on CUDA they are in device memory. Refused are other element types than the optimizer's,
/// gaps between elements, memory of other devices, and parameters that are marked as read-only.
///
/// Include DLPack's header before this one if it has another place than <dlpack/dlpack.h>, such as PyTorch's
/// <ATen/dlpack.h>.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <type_traits>

#if !defined(DLPACK_DLPACK_H_)
#include <dlpack/dlpack.h>
#endif

#include <gradus/interop/element.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace interop::dlpack {

/// The tensor itself.
inline const DLTensor& plain(const DLTensor& tensor) noexcept { return tensor; }
/// The tensor in a managed one.
template <class Managed>
  requires(requires(const Managed& m) {
    { m.dl_tensor } -> std::same_as<const DLTensor&>;
  })
const DLTensor& plain(const Managed& managed) noexcept
{
  return managed.dl_tensor;
}

/// A type of DLPack as text, such as "int64" or "float32x4".
inline std::string name_of(const DLDataType& type)
{
  const char* const codes[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  std::string text = type.code < std::size(codes) ? codes[type.code]
                                                  : "type code " + std::to_string(type.code) + " of ";
  text += std::to_string(type.bits);
  return type.lanes == 1 ? text : text + "x" + std::to_string(type.lanes);
}
/// A device as text, such as "cuda:1".
inline std::string name_of(const DLDevice& device)
{
  const auto type = static_cast<int>(device.device_type);
  const char* const name = type == 1    ? "cpu"
                           : type == 2  ? "cuda"
                           : type == 3  ? "cuda_host"
                           : type == 13 ? "cuda_managed"
                                        : nullptr;
  return (name ? name : "device type " + std::to_string(type)) + ":" + std::to_string(device.device_id);
}

/// The element type of a tensor.
inline element element_in(const DLDataType& type) noexcept
{
  if (type.lanes != 1)
    return element::other;
  if (type.code == 2)  // kDLFloat
    return type.bits == 32   ? element::float32
           : type.bits == 64 ? element::float64
           : type.bits == 16 ? element::float16
                             : element::other;
  return type.code == 4 && type.bits == 16 ? element::bfloat16 : element::other;  // kDLBfloat
}

/// The number of dimensions.
inline std::size_t rank(const DLTensor& t) noexcept { return t.ndim > 0 ? static_cast<std::size_t>(t.ndim) : 0; }

/// The order of a tensor's elements; without strides it is row-major.
inline strided_order order_of(const DLTensor& t)
{
  if (t.strides == nullptr)
    return {true, storage_order::row_major};
  return order_of_strides(
      rank(t), [&](std::size_t k) { return t.shape[k]; }, [&](std::size_t k) { return t.strides[k]; });
}

/// How gradus sees DLPack's tensors.
template <class Tensor>
struct traits {
  /// A DLTensor owns nothing.
  static constexpr bool is_view = std::is_same_v<Tensor, DLTensor>;

  /// The first element, if type and memory are the optimizer's.
  template <element_type Element>
  static Element* data_as(const Tensor& tensor, const view_argument& of)
  {
#if defined(DLPACK_MAJOR_VERSION)
    if constexpr (requires { tensor.version.major; })
      if (tensor.version.major != DLPACK_MAJOR_VERSION)  // its other members may lie elsewhere
        refuse_tensor(of, "DLPack version",
                      std::to_string(tensor.version.major) + "." + std::to_string(tensor.version.minor),
                      std::to_string(DLPACK_MAJOR_VERSION) + ".x");
#endif
    const DLTensor& t = plain(tensor);
    if (element_in(t.dtype) != element_of<Element>)
      refuse_tensor(of, "dtype", dlpack::name_of(t.dtype), interop::name_of(element_of<Element>));
    const auto device = static_cast<int>(t.device.device_type);
    const bool pinned = device == 3 || device == 13;  // kDLCUDAHost and kDLCUDAManaged: both sides read it
    if (device != (of.on_device ? 2 : 1) && !pinned)
      refuse_tensor(of, "device", dlpack::name_of(t.device), of.on_device ? "cuda" : "cpu");
    if constexpr (!std::is_const_v<Element>)
      if constexpr (requires { tensor.flags; })
        if (tensor.flags & 1)  // DLPACK_FLAG_BITMASK_READ_ONLY
          refuse(of.text() + " is read-only; expected a tensor that steps may write");
    if (t.ndim < 0 || (t.ndim > 0 && t.shape == nullptr))
      refuse_tensor(of, "ndim", std::to_string(t.ndim), "0, or more with a shape");
    const auto refuse_shape = [&](const char* expected) {
      refuse_tensor(of, "shape", list_of(rank(t), [&](std::size_t i) { return t.shape[i]; }), expected);
    };
    std::size_t most = PTRDIFF_MAX / sizeof(Element);
    for (std::size_t k = 0; k < rank(t); ++k) {
      if (t.shape[k] < 0)
        refuse_shape("no negative extent");
      if (static_cast<std::uint64_t>(t.shape[k]) > most)
        refuse_shape("as many elements as memory can have");
      most /= t.shape[k] > 0 ? static_cast<std::size_t>(t.shape[k]) : 1;
    }
    if (t.data == nullptr)
      return nullptr;
    return reinterpret_cast<Element*>(static_cast<char*>(t.data) + t.byte_offset);
  }
  /// The number of elements.
  static std::size_t size(const Tensor& tensor) noexcept
  {
    const DLTensor& t = plain(tensor);
    std::size_t n = 1;
    for (std::size_t k = 0; k < rank(t); ++k)
      n *= static_cast<std::size_t>(t.shape[k]);
    return n;
  }
  /// Whether there are no gaps.
  static bool lies_side_by_side(const Tensor& tensor) { return order_of(plain(tensor)).dense; }
  /// Shape and strides as text.
  static std::string layout(const Tensor& tensor)
  {
    const DLTensor& t = plain(tensor);
    const std::string shape = "shape " + list_of(rank(t), [&](std::size_t k) { return t.shape[k]; });
    return t.strides ? shape + " and strides " + list_of(rank(t), [&](std::size_t k) { return t.strides[k]; })
                     : shape + " and no strides, which is row-major";
  }
  /// Shape and storage order.
  static view_shape shape(const Tensor& tensor)
  {
    const DLTensor& t = plain(tensor);
    view_shape all(order_of(t).order);
    for (std::size_t k = 0; k < rank(t); ++k)
      all.push_back(static_cast<std::size_t>(t.shape[k]));
    return all;
  }
  /// Whether two tensors in an order of their own, such as channels_last, have the same.
  template <class Other>
    requires(requires(const Other& o) { plain(o); })
  static bool same_layout(const Tensor& parameters, const Other& gradients)
  {
    const DLTensor &w = plain(parameters), &g = plain(gradients);
    if (order_of(w).order != storage_order::other || rank(w) != rank(g))
      return true;  // shapes and storage orders say it all
    bool same = true;
    for (std::size_t k = 0; k < rank(w); ++k)
      same = same && (w.shape[k] == 1 || (g.strides && w.strides[k] == g.strides[k]));
    return same;
  }
};

}  // namespace interop::dlpack

/// A DLTensor is a view, so temporaries are accepted.
template <>
struct view_traits<DLTensor> : interop::dlpack::traits<DLTensor> {};
/// The caller keeps the managed tensor, and calls its deleter.
template <>
struct view_traits<DLManagedTensor> : interop::dlpack::traits<DLManagedTensor> {};
#if defined(DLPACK_FLAG_BITMASK_READ_ONLY)
/// The caller keeps the managed tensor, and calls its deleter. A read-only one can be gradients, but not parameters.
template <>
struct view_traits<DLManagedTensorVersioned> : interop::dlpack::traits<DLManagedTensorVersioned> {};
#endif

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
