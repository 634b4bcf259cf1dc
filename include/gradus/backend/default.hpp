#pragma once
/// \file
/// The default backend: simd if xsimd is installed and supports the target, otherwise scalar. Define GRADUS_NO_XSIMD,
/// in every translation unit, to not use an installed xsimd; nvcc never uses it.

#include <gradus/backend/scalar.hpp>

#if !defined(GRADUS_NO_XSIMD) && __has_include(<xsimd/xsimd.hpp>)
#if __has_include(<gradus/backend/simd.hpp>)
#include <gradus/backend/simd.hpp>
#else
// clang-format off
#pragma message("gradus: xsimd is installed, but gradus's SIMD backend is not on the include path, so steps are taken element by element: add -I GRADUS/backends/simd/include, or define GRADUS_NO_XSIMD to use the scalar backend without this message")
// clang-format on
#endif
#endif

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

#if defined(GRADUS_HAS_SIMD)
/// The backend of an `optimizer` that names none.
using default_backend = backend::simd;
/// The default backend's name in namespace gradus::backend: "simd" or "scalar".
constexpr const char* default_backend_name() noexcept { return "simd"; }
#else
/// The backend of an `optimizer` that names none.
using default_backend = backend::scalar;
/// The default backend's name in namespace gradus::backend: "simd" or "scalar".
constexpr const char* default_backend_name() noexcept { return "scalar"; }
#endif

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
