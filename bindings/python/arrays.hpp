#pragma once
// The caller's arrays, as DLPack or the buffer protocol shows them: viewed, never copied, and checked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <gradus/error.hpp>

#include "optimizer.hpp"

namespace gradus::python {

namespace nb = nanobind;
using detail::fail, detail::quote;

#if defined(GRADUS_C_CUDA)
constexpr bool has_cuda = true;
#else
constexpr bool has_cuda = false;
#endif

constexpr std::int32_t cpu = 1, cuda = 2, cuda_managed = 13;  // DLPack's kDLCPU, kDLCUDA, kDLCUDAManaged

// Where an array is.
struct location {
  std::int32_t type = cpu, number = 0;
  location() = default;
  location(int t, int n) : type(t == cuda_managed ? cuda : t), number(n) {}
  explicit location(const nb::dlpack::device& d) : location(d.device_type, d.device_id) {}
  bool operator==(const location&) const = default;
};

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

inline std::string name_of(const location& at)
{
  if (at.type == cpu)
    return "the CPU";
  const char* const names[] = {"",      "", "CUDA", "pinned memory of CUDA", "OpenCL", "", "", "Vulkan",
                               "Metal", "", "ROCm"};
  const std::string known = std::size_t(at.type) < std::size(names) ? names[at.type] : "";
  return (known.empty() ? "device type " + std::to_string(at.type) : known) + " " + std::to_string(at.number);
}
// What a package takes.
inline std::string expected_place(const location& given)
{
  if (has_cuda)
    return "the CPU or a CUDA device";
  return given.type == cuda ? "the CPU, because this package was built without CUDA" : "the CPU";
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

// Where an array says that it is.
inline location place_of(nb::handle array)
{
  try {
    const nb::tuple pair(array.attr("__dlpack_device__")());
    return {nb::cast<int>(pair[0]), nb::cast<int>(pair[1])};
  } catch (nb::python_error&) {
    return {};
  } catch (const std::bad_cast&) {
    return {};  // what has no device that DLPack knows is refused later
  }
}

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
    nb::object shown = tensor.attr("detach")();
    if (has_cuda && place_of(shown).type == cuda)  // steps are in the order of the stream: nothing to wait for
      shown = shown.attr("__dlpack__")(nb::arg("stream") = -1);
    imported_.push_back(nb::cast<nb::ndarray<nb::ro>>(shown));
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
  nb::ndarray<nb::ro> view;  // keeps the memory alive, if the array was shown by DLPack or as a buffer
  void* memory = nullptr;
  location at;
  layout form;
  gradus_dtype dtype = GRADUS_FLOAT32;

  void* data() const { return memory; }
};

#if defined(GRADUS_C_CUDA)
// An array as __cuda_array_interface__ shows it. Sets is_writable. \param of  names it, for errors
template <class Of>
array import_cuda_interface(const nb::object& given, const Of& of, bool& is_writable)
{
  array a;
  a.given = given;
  const nb::dict shown(given.attr("__cuda_array_interface__"));
  const auto entry = [&](const char* key) -> nb::object {
    return shown.contains(key) ? nb::object(shown[key]) : nb::object(nb::none());
  };
  const auto type = nb::cast<std::string>(entry("typestr"));
  if (type == "<f4" || type == "=f4")
    a.dtype = GRADUS_FLOAT32;
  else if (type == "<f8" || type == "=f8")
    a.dtype = GRADUS_FLOAT64;
  else if (type == "<f2" || type == "=f2")
    a.dtype = GRADUS_FLOAT16;
  else
    fail(of() + " are " + type + "; expected float32, float64 or float16 (bfloat16 by DLPack)");
  if (!entry("mask").is_none())
    fail(of() + " have a mask; expected an array without one");
  std::vector<std::int64_t> shape, strides;
  for (const nb::handle n : nb::tuple(entry("shape")))
    shape.push_back(nb::cast<std::int64_t>(n));
  const std::int64_t size = type.back() - '0';
  if (!entry("strides").is_none())
    for (const nb::handle n : nb::tuple(entry("strides"))) {  // in bytes
      const auto bytes = nb::cast<std::int64_t>(n);
      strides.push_back(bytes % size == 0 ? bytes / size : -1);  // -1: not dense
    }
  a.form = layout(std::int32_t(shape.size()), shape.data(), entry("strides").is_none() ? nullptr : strides.data());
  const nb::tuple data(entry("data"));
  a.memory = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(data[0]));
  is_writable = !nb::cast<bool>(data[1]);
  a.at = {cuda, (a.memory ? binding::place::of(a.memory) : binding::place::current()).device()};
  if (!entry("stream").is_none())  // on which the array is still being computed
    binding::wait_for(reinterpret_cast<binding::stream>(nb::cast<std::uintptr_t>(entry("stream"))));
  return a;
}
#endif

// An array of a device's as DLPack shows it to a stream, on which it is then complete.
inline nb::object exported_to(const nb::object& source, std::uintptr_t stream)
{
  const nb::object of_dlpack = nb::int_(stream == 0 ? 1 : stream);  // 1: the default stream
  try {
    return source.attr("__dlpack__")(nb::arg("stream") = of_dlpack, nb::arg("max_version") = nb::make_tuple(1, 0));
  } catch (nb::python_error& e) {
    if (!e.matches(PyExc_TypeError))  // libraries of before DLPack 1.0 do not know max_version
      throw;
  }
  return source.attr("__dlpack__")(nb::arg("stream") = of_dlpack);
}

// \param what    "parameters" or "gradients", for errors
// \param stream  on which steps read arrays of a device
inline array import_array(nb::object given, const char* what, const std::string& tensor, bool writable,
                          std::uintptr_t stream)
{
  const auto of = [&] { return std::string(what) + " of tensor " + quote(tensor); };
  // Such as "list", or "ndarray of >f4", which no array library but NumPy can view.
  const auto type_of = [&] {
    const nb::object dtype = nb::getattr(given, "dtype", nb::none());
    return nb::cast<std::string>(given.type().attr("__name__")) +
           (dtype.is_none() ? "" : " of " + nb::cast<std::string>(nb::str(dtype)));
  };
  const auto check_place = [&](const location& at) {
    if (at.type != cpu && !(has_cuda && at.type == cuda))
      fail(of() + " are on " + name_of(at) + "; expected an array on " + expected_place(at));
  };

  array a;
  bool is_writable = false;
  // DLPack does not export what PyTorch differentiates, and does not have to: a step is no part of the graph.
  nb::object source = given;
  if (nb::bool_(nb::getattr(given, "requires_grad", nb::bool_(false))))
    source = given.attr("detach")();
  if (!nb::hasattr(source, "__dlpack__") && nb::hasattr(source, "__cuda_array_interface__")) {
#if defined(GRADUS_C_CUDA)
    a = import_cuda_interface(given, of, is_writable);
#else
    fail(of() + " are on a CUDA device; expected an array on " + expected_place({cuda, 0}));
#endif
  } else {
    const location said = nb::hasattr(source, "__dlpack_device__") ? place_of(source) : location();
    check_place(said);
    if (said.type == cuda)
      source = exported_to(source, stream);
    nb::ndarray<> mutable_view;
    if (nb::try_cast(source, mutable_view, false))
      a.view = nb::ndarray<nb::ro>(mutable_view);
    else if (!nb::try_cast(source, a.view, false))
      throw nb::type_error(("gradus: " + of() + " are of type " + type_of() +
                            "; expected an array of float32, float64, bfloat16 or float16: NumPy's, or one that DLPack "
                            "can view")
                               .c_str());
    a.given = given;
    a.at = {a.view.device_type(), a.view.device_id()};
    check_place(a.at);
    const auto dtype = dtype_of(a.view.dtype());
    if (!dtype)
      fail(of() + " are " + name_of(a.view.dtype()) + "; expected float32, float64, bfloat16 or float16");
    a.dtype = *dtype;
    a.memory = const_cast<void*>(static_cast<const void*>(a.view.data()));
    a.form = layout(std::int32_t(a.view.ndim()), a.view.shape_ptr(), a.view.stride_ptr());
    is_writable = mutable_view.is_valid();
  }
  if (writable && !is_writable)
    fail(of() + " are read-only; expected an array that steps can write to");
  if (!a.form.is_dense())
    fail(of() + ", of shape " + a.form.text() +
         ", are not contiguous; expected an array without gaps, because steps "
         "work on the array itself and not on a copy");
  return a;
}

// The stream that a caller names: a number, or an object of PyTorch, CuPy or another library that has one.
inline std::uintptr_t stream_of(nb::handle given)
{
  if (given.is_none())
    return 0;
  if (!has_cuda)
    fail("stream is " + nb::cast<std::string>(nb::repr(given)) +
         "; expected None, because this package was built without CUDA");
  nb::object number = nb::borrow(given);
  if (nb::hasattr(given, "__cuda_stream__"))
    number = nb::tuple(given.attr("__cuda_stream__")())[1];
  else if (nb::hasattr(given, "cuda_stream"))
    number = given.attr("cuda_stream");
  else if (nb::hasattr(given, "ptr"))
    number = given.attr("ptr");
  std::uintptr_t stream = 0;
  if (!nb::try_cast(number, stream, false))
    throw nb::type_error(("gradus: stream is " + nb::cast<std::string>(nb::repr(given)) +
                          "; expected the address of a CUDA stream, or a stream of PyTorch or CuPy")
                             .c_str());
  return stream;
}

}  // namespace gradus::python
