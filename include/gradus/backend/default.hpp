#pragma once
/// \file
/// The default backend: simd where xsimd can be included and knows the target, else scalar.
/// Define GRADUS_NO_XSIMD (in every translation unit alike) to do without xsimd where it is installed; nvcc always does.

#include <gradus/backend/scalar.hpp>

#if !defined(GRADUS_NO_XSIMD) && __has_include(<xsimd/xsimd.hpp>)
#include <gradus/backend/simd.hpp>
#endif

#include <gradus/macros_off.hpp>

namespace gradus::inline GRADUS_ISA {
#if defined(GRADUS_HAS_SIMD)
using default_backend = backend::simd;
#else
using default_backend = backend::scalar;
#endif
}  // namespace gradus::inline GRADUS_ISA

#include <gradus/macros_on.hpp>
