#pragma once
/// \file
/// What a unit and gradus::compiled, the library with any_optimizer's recipes, must agree on. CMake's target defines the
/// macros GRADUS_COMPILED_FLOAT, _DOUBLE, _BFLOAT16 and _FLOAT16 for the precisions that the library has; a unit then
/// does not compile the recipes for them.

#include <cstddef>

#include <gradus/backend/default.hpp>
#include <gradus/recipes.hpp>
#include <gradus/state/precision.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Stands in the name of the function that the library has, as do the namespace, with the instruction set and the other
/// flags that change code, and the default backend. If a unit is compiled with others, or with containers of another
/// layout, or from another version, the function is not found, and the program does not link.
template <int Major, int Minor, int Patch, int Abi, bool DebugContainers>
struct same_flags_as_gradus_compiled {};

#if defined(_GLIBCXX_USE_CXX11_ABI)
inline constexpr int library_abi = _GLIBCXX_USE_CXX11_ABI;
#elif defined(_LIBCPP_ABI_VERSION)
inline constexpr int library_abi = 100 + _LIBCPP_ABI_VERSION;
#else
inline constexpr int library_abi = -1;
#endif
#if defined(_GLIBCXX_DEBUG)
inline constexpr bool debug_containers = true;
#else
inline constexpr bool debug_containers = false;
#endif

using library_layout = same_flags_as_gradus_compiled<GRADUS_VERSION_MAJOR, GRADUS_VERSION_MINOR, GRADUS_VERSION_PATCH,
                                                     library_abi, debug_containers>;

/// 16-bit parameters and gradients with master weights in float.
template <class T>
using with_master = precision<T, T, float, float>;

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

/// The function of any_optimizer that compiles all recipes. \param word  `extern` to declare, nothing to define
#define GRADUS_COMPILED_ANY_OPTIMIZER(word, T)                                                                         \
  word template void any_optimizer<T, default_backend, all_recipes>::make(                                            \
      std::string_view, std::span<const named_number>, default_backend, detail::library_layout);

#include <gradus/macros_on.hpp>
