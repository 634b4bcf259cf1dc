#pragma once
/// \file
/// The element types of the safetensors format, and the C++ types that correspond to them.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <gradus/config.hpp>
#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// An element type of the format.
struct dtype {
  std::string_view name;  ///< its name in a file
  std::size_t bytes;      ///< the size of one element
  bool is_float = false;  ///< whether `convert` can convert it to and from other such types
};

/// All element types that the reader knows.
inline constexpr dtype dtypes[] = {{"F32", 4, true}, {"F64", 8, true}, {"BF16", 2, true}, {"F16", 2, true},
                                   {"U64", 8},       {"I64", 8},       {"U32", 4},        {"I32", 4},
                                   {"U16", 2},       {"I16", 2},       {"U8", 1},         {"I8", 1},
                                   {"BOOL", 1},      {"F8_E4M3", 1},   {"F8_E5M2", 1}};

/// The length of `dtypes`.
inline constexpr std::size_t dtype_count = sizeof dtypes / sizeof dtypes[0];

/// The index in `dtypes` of the type with this name; dtype_count if there is none.
constexpr std::size_t dtype_index(std::string_view name) noexcept
{
  std::size_t i = 0;
  while (i < dtype_count && dtypes[i].name != name)
    ++i;
  return i;
}

/// The type with this name; null if `dtypes` does not have it.
constexpr const dtype* find_dtype(std::string_view name) noexcept
{
  const std::size_t i = dtype_index(name);
  return i < dtype_count ? &dtypes[i] : nullptr;
}

/// The format's name for the C++ element type X. Specialise it to save state of another type.
template <class X>
inline constexpr std::string_view dtype_name = {};
template <> inline constexpr std::string_view dtype_name<float> = "F32";
template <> inline constexpr std::string_view dtype_name<double> = "F64";
template <> inline constexpr std::string_view dtype_name<bfloat16> = "BF16";
template <> inline constexpr std::string_view dtype_name<float16> = "F16";
template <> inline constexpr std::string_view dtype_name<std::uint64_t> = "U64";
template <> inline constexpr std::string_view dtype_name<std::uint8_t> = "U8";

/// The element type of the format that the C++ type X corresponds to.
template <class X>
constexpr const dtype& dtype_of() noexcept
{
  // By index, because under GCC's sanitizers comparing an address with null is not a constant expression.
  constexpr std::size_t i = dtype_index(dtype_name<X>);
  static_assert(i < dtype_count && dtypes[i % dtype_count].bytes == sizeof(X),
                "gradus: specialise safetensors::dtype_name for this type of element.");
  return dtypes[i];
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
