#pragma once
/// \file
/// What the adapters for tensors of other libraries share: the names of element types, and shapes with strides. Includes
/// no other library.

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>

#include <gradus/number/half.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace interop {

/// The element types of tensors that steps can update.
enum class element {
  float32,   ///< float
  float64,   ///< double
  bfloat16,  ///< gradus::bfloat16
  float16,   ///< gradus::float16
  other,     ///< any other
};

/// The element type of a C++ type.
template <class T>
constexpr element element_of = std::is_same_v<std::remove_cv_t<T>, float>      ? element::float32
                               : std::is_same_v<std::remove_cv_t<T>, double>   ? element::float64
                               : std::is_same_v<std::remove_cv_t<T>, bfloat16> ? element::bfloat16
                               : std::is_same_v<std::remove_cv_t<T>, float16>  ? element::float16
                                                                               : element::other;

/// A C++ type of elements that tensors can have.
template <class T>
concept element_type = element_of<T> != element::other;

/// The name of an element type, as NumPy and PyTorch write it.
constexpr const char* name_of(element e) noexcept
{
  switch (e) {
  case element::float32: return "float32";
  case element::float64: return "float64";
  case element::bfloat16: return "bfloat16";
  case element::float16: return "float16";
  case element::other: break;
  }
  return "another type";
}

/// Fails with a sentence about one property of a tensor.
/// \param property  such as "dtype"  \param value  what it is
[[noreturn]] inline void refuse_tensor(const view_argument& of, const char* property, const std::string& value,
                                       const std::string& expected)
{
  refuse(property + (" of " + of.text()) + " is " + value + "; expected " + expected);
}

/// Numbers as "[2, 3]". \param at  at(k) is the k-th of n numbers
template <class At>
std::string list_of(std::size_t n, const At& at)
{
  std::string all = "[";
  for (std::size_t k = 0; k < n; ++k)
    all += (k > 0 ? ", " : "") + std::to_string(at(k));
  return all + "]";
}

/// The strides of a tensor in elements, as far as the order of its elements is concerned.
/// \param extent  extent(k) is the k-th extent, ≥ 0  \param stride  stride(k), the k-th stride in elements
struct strided_order {
  bool dense;           ///< the elements lie side by side, whatever their order
  storage_order order;  ///< their order; `other` if they are dense in neither
};

/// Sorts out which order n extents and strides describe.
template <class Extent, class Stride>
strided_order order_of_strides(std::size_t n, const Extent& extent, const Stride& stride)
{
  if (const auto known = detail::side_by_side(
          n, [&](std::size_t k) { return static_cast<std::size_t>(extent(k)); },
          [&](std::size_t k) { return static_cast<std::size_t>(stride(k)); }))
    return {true, *known};
  // A dimension at a time, that with the next stride: quadratic in the few dimensions, and without memory.
  std::size_t step = 1, left = 0;
  for (std::size_t k = 0; k < n; ++k)
    left += extent(k) != 1;
  while (left > 0) {
    std::size_t next = n;
    for (std::size_t k = 0; k < n; ++k)
      if (extent(k) != 1 && static_cast<std::size_t>(stride(k)) == step)
        next = k;
    if (next == n)
      return {false, storage_order::other};
    step *= static_cast<std::size_t>(extent(next));
    --left;
  }
  return {true, storage_order::other};
}

}  // namespace interop
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
