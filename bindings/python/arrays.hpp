#pragma once
// The caller's arrays, as DLPack or the buffer protocol shows them: viewed, never copied, and checked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <gradus/error.hpp>

#include <gradus.h>

namespace gradus::python {

namespace nb = nanobind;
using detail::fail, detail::quote;

constexpr std::int32_t cpu = 1;  // DLPack's kDLCPU

inline std::optional<gradus_dtype> dtype_of(nb::dlpack::dtype t) noexcept
{
  const auto is = [t](nb::dlpack::dtype_code code, std::uint8_t bits) {
    return t.code == std::uint8_t(code) && t.bits == bits && t.lanes == 1;
  };
  using code = nb::dlpack::dtype_code;
  if (is(code::Float, 32))
    return GRADUS_FLOAT32;
  if (is(code::Float, 64))
    return GRADUS_FLOAT64;
  if (is(code::Bfloat, 16))
    return GRADUS_BFLOAT16;
  if (is(code::Float, 16))
    return GRADUS_FLOAT16;
  return std::nullopt;
}

inline const char* name_of(gradus_dtype t) noexcept
{
  constexpr const char* names[] = {"float32", "float64", "bfloat16", "float16"};
  return names[t];
}
inline std::string name_of(nb::dlpack::dtype t)
{
  if (const auto known = dtype_of(t))
    return name_of(*known);
  const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex"};
  if (t.code == std::uint8_t(nb::dlpack::dtype_code::Bool))
    return "bool";
  return (t.code < std::size(kinds) ? kinds[t.code] : "unknown") + std::to_string(t.bits);
}

inline std::string name_of_device(int type, int number)
{
  const std::string names[] = {"",      "the CPU", "CUDA", "pinned memory of CUDA", "OpenCL", "", "", "Vulkan",
                               "Metal", "",        "ROCm"};
  const std::string known = std::size_t(type) < std::size(names) ? names[type] : "";
  return (known.empty() ? "device type " + std::to_string(type) : known) + " " + std::to_string(number);
}

// The extents and strides of an array, in elements.
struct layout {
  std::vector<std::int64_t> shape, strides;

  // \param strides  may be null for the order of C
  layout() = default;
  layout(std::int32_t dimensions, const std::int64_t* extents, const std::int64_t* steps)
      : shape(extents, extents + dimensions), strides(std::size_t(dimensions), 1)
  {
    for (std::size_t d = shape.size(); d-- > 1;)
      strides[d - 1] = strides[d] * shape[d];
    if (steps)
      strides.assign(steps, steps + dimensions);
  }

  std::size_t size() const noexcept
  {
    std::size_t n = 1;
    for (const std::int64_t extent : shape)
      n *= std::size_t(extent);
    return n;
  }

  // Whether the elements fill one stretch of memory, in some order of the dimensions.
  bool is_dense() const
  {
    std::vector<std::pair<std::int64_t, std::int64_t>> dimensions;  // stride and extent
    for (std::size_t d = 0; d < shape.size(); ++d)
      if (shape[d] != 1)
        dimensions.emplace_back(strides[d], shape[d]);
    std::sort(dimensions.begin(), dimensions.end());
    std::int64_t filled = 1;
    for (const auto& [stride, extent] : dimensions) {
      if (stride != filled)
        return size() == 0;
      filled *= extent;
    }
    return true;
  }

  // Whether the elements of both lie in the same order.
  bool matches(const layout& other) const noexcept
  {
    return matches(std::int32_t(other.shape.size()), other.shape.data(), other.strides.data());
  }
  bool matches(std::int32_t dimensions, const std::int64_t* extents, const std::int64_t* steps) const noexcept
  {
    if (std::size_t(dimensions) != shape.size())
      return false;
    std::int64_t filled = 1;  // the stride of the order of C
    for (std::size_t d = shape.size(); d-- > 0;) {
      if (extents[d] != shape[d] || (shape[d] > 1 && (steps ? steps[d] : filled) != strides[d]))
        return false;
      filled *= shape[d];
    }
    return true;
  }

  std::string text() const
  {
    std::string all = "(";
    for (std::size_t d = 0; d < shape.size(); ++d)
      all += (d > 0 ? ", " : "") + std::to_string(shape[d]);
    return all + (shape.size() == 1 ? ",)" : ")");
  }
};

// DLPack's table of C functions, version 1.3, which a class of arrays may have as __dlpack_c_exchange_api__.
struct exchange_table {
  std::uint32_t major, minor;
  const exchange_table* previous;  // of an earlier version
  void* owning[3];                 // functions that make and take objects
  int (*view)(void* array, nb::dlpack::dltensor* out);
  void* stream;
};

// Shows tensors without making an object for each, where their class has the table.
class tensor_viewer {
 public:
  // The tensor's memory, valid while the tensor lives and `forget` is not called. Raises Python's errors.
  nb::dlpack::dltensor view(nb::handle tensor)
  {
    if (Py_TYPE(tensor.ptr()) != reinterpret_cast<PyTypeObject*>(type_.ptr()))
      find_table(tensor.type());
    nb::dlpack::dltensor seen;
    if (view_) {
      if (view_(tensor.ptr(), &seen) != 0)
        throw nb::python_error();
      return seen;
    }
    imported_.push_back(nb::cast<nb::ndarray<nb::ro>>(tensor.attr("detach")()));
    const auto& a = imported_.back();
    seen.data = a.data_handle();
    seen.device = {a.device_type(), a.device_id()};
    seen.ndim = std::int32_t(a.ndim());
    seen.dtype = a.dtype();
    seen.shape = const_cast<std::int64_t*>(a.shape_ptr());
    seen.strides = const_cast<std::int64_t*>(a.stride_ptr());
    seen.byte_offset = a.byte_offset();
    return seen;
  }
  void forget() noexcept { imported_.clear(); }

 private:
  void find_table(nb::handle type)
  {
    type_ = nb::borrow(type);
    view_ = nullptr;
    const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api"))
      return;
    const auto* table = static_cast<const exchange_table*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (table && table->major != 1)
      table = table->previous;
    view_ = table ? table->view : nullptr;
  }

  nb::object type_;
  int (*view_)(void*, nb::dlpack::dltensor*) = nullptr;
  std::vector<nb::ndarray<nb::ro>> imported_;
};

// An array of the caller's.
struct array {
  nb::object given;          // as it came: it is pickled with the optimizer
  nb::ndarray<nb::ro> view;  // keeps the memory alive
  layout form;
  gradus_dtype dtype = GRADUS_FLOAT32;

  void* data() const { return const_cast<void*>(static_cast<const void*>(view.data())); }
};

// \param what  "parameters" or "gradients", for errors
inline array import_array(nb::object given, const char* what, const std::string& tensor, bool writable)
{
  const auto of = [&] { return std::string(what) + " of tensor " + quote(tensor); };
  // Such as "list", or "ndarray of >f4", which no array library but NumPy can view.
  const auto type_of = [&] {
    const nb::object dtype = nb::getattr(given, "dtype", nb::none());
    return nb::cast<std::string>(given.type().attr("__name__")) +
           (dtype.is_none() ? "" : " of " + nb::cast<std::string>(nb::str(dtype)));
  };

  array a;
  a.given = given;
  // DLPack does not export what PyTorch differentiates, and does not have to: a step is no part of the graph.
  nb::object source = given;
  if (nb::bool_(nb::getattr(given, "requires_grad", nb::bool_(false))))
    source = given.attr("detach")();
  if (nb::hasattr(source, "__dlpack_device__")) {
    std::pair<int, int> device{cpu, 0};
    try {
      const nb::tuple pair(source.attr("__dlpack_device__")());
      device = {nb::cast<int>(pair[0]), nb::cast<int>(pair[1])};
    } catch (nb::python_error&) {
    }  // what has no device that DLPack knows is refused below
    if (device.first != cpu)
      fail(of() + " are on " + name_of_device(device.first, device.second) + "; expected an array on the CPU");
  }
  nb::ndarray<> mutable_view;
  if (nb::try_cast(source, mutable_view, false))
    a.view = nb::ndarray<nb::ro>(mutable_view);
  else if (!nb::try_cast(source, a.view, false))
    throw nb::type_error(("gradus: " + of() + " are of type " + type_of() +
                          "; expected an array of float32, float64, bfloat16 or float16: NumPy's, or one that DLPack "
                          "can view")
                             .c_str());
  if (a.view.device_type() != cpu)
    fail(of() + " are on " + name_of_device(a.view.device_type(), a.view.device_id()) +
         "; expected an array on the CPU");
  const auto dtype = dtype_of(a.view.dtype());
  if (!dtype)
    fail(of() + " are " + name_of(a.view.dtype()) + "; expected float32, float64, bfloat16 or float16");
  a.dtype = *dtype;
  if (writable && !mutable_view.is_valid())
    fail(of() + " are read-only; expected an array that steps can write to");
  a.form = layout(std::int32_t(a.view.ndim()), a.view.shape_ptr(), a.view.stride_ptr());
  if (!a.form.is_dense())
    fail(of() + ", of shape " + a.form.text() +
         ", are not contiguous; expected an array without gaps, because steps "
         "work on the array itself and not on a copy");
  return a;
}

}  // namespace gradus::python
