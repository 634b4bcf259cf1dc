#pragma once
/// \file
/// Macros that follow from the compiler's flags: instruction set, family of bits, host-device mark, inline namespace.

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "gradus needs C++20: compile with -std=c++20 or later (with old compilers -std=c++2a)."
#include "gradus needs C++20"  // no such file, so that compilers stop here instead of reporting every line after #error
#endif
#include <version>
#if !defined(__cpp_lib_bit_cast)
#error "gradus needs a standard library with std::bit_cast: libstdc++ 11, libc++ 14 or later."
#include "gradus needs std::bit_cast"  // as above
#endif

#define GRADUS_VERSION_MAJOR 0  ///< raised by changes that break code, from 1.0.0 on
#define GRADUS_VERSION_MINOR 1  ///< raised by new features; while MAJOR is 0, also by changes that break code
#define GRADUS_VERSION_PATCH 0  ///< raised by fixes

/// Marks functions that also run on a CUDA device; empty for compilers other than nvcc. nvcc cannot pass SIMD registers
/// to such functions, even on the host, so code that it compiles does not use xsimd.
#if defined(__CUDACC__)
#define GRADUS_HOST_DEVICE __host__ __device__
#if !defined(GRADUS_NO_XSIMD)
#define GRADUS_NO_XSIMD
#endif
#else
#define GRADUS_HOST_DEVICE
#endif

#if defined(__GNUC__)
#define GRADUS_MAY_ALIAS __attribute__((may_alias))   ///< marks types that may alias other types with the same bits
#define GRADUS_INLINE __attribute__((always_inline))  ///< marks functions that must be inlined even at -O2
#else
#define GRADUS_MAY_ALIAS
#define GRADUS_INLINE
#endif

// How `rounded` (math.hpp) keeps compilers from reassociating. clang++ defines no macro for -funsafe-math-optimizations
// and -fassociative-math, but has a fence, which is no code without these flags. g++ defines a macro from version 12
// on; its own barrier is lost in some vectorised loops.
#define GRADUS_BY_NOTHING 0
#define GRADUS_BY_ASSEMBLY 1
#define GRADUS_BY_FENCE 2
#if defined(__CUDA_ARCH__) || !defined(__GNUC__)
#define GRADUS_ROUNDED_BY GRADUS_BY_NOTHING
#elif defined(__clang__) && (defined(__x86_64__) || defined(__i386__)) && defined(__SSE2__)
#if __has_builtin(__arithmetic_fence)
#define GRADUS_ROUNDED_BY GRADUS_BY_FENCE
#endif
#elif !defined(__clang__) && __GNUC__ >= 12 && !defined(__ASSOCIATIVE_MATH__) && defined(__FLT_EVAL_METHOD__) &&       \
    __FLT_EVAL_METHOD__ == 0
#define GRADUS_ROUNDED_BY GRADUS_BY_NOTHING
#endif
#if !defined(GRADUS_ROUNDED_BY)
#define GRADUS_ROUNDED_BY GRADUS_BY_ASSEMBLY
#endif

/// 1 if the target has fused multiply-add in hardware, so that `fma` is fused; 0 if `fma` is a product and a sum. These
/// are the two families of bits; within a family, every backend and width gives the same results.
#if defined(__FMA__) || defined(__FMA4__) || defined(__AVX512F__) || defined(__aarch64__) ||                           \
    defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA) || defined(__CUDA_ARCH__)
#define GRADUS_FUSED 1
#else
#define GRADUS_FUSED 0
#endif

/// 1 if exceptions are enabled. Without them, errors are written to stderr and the program aborts (error.hpp).
#if defined(__cpp_exceptions)
#define GRADUS_EXCEPTIONS 1
#else
#define GRADUS_EXCEPTIONS 0
#endif

// One program may contain translation units compiled for different instruction sets. If the linker merged their inline
// functions, a machine could run instructions that it does not have. Everything is therefore in an inline namespace
// named after the instruction set, so that such functions have different names.
#define GRADUS_JOIN_(a, b) a##b
#define GRADUS_JOIN(a, b) GRADUS_JOIN_(a, b)
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define GRADUS_ISA_NAME avx512
#elif defined(__AVX512F__)
#define GRADUS_ISA_NAME avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define GRADUS_ISA_NAME avx2_fma
#elif defined(__AVX2__)
#define GRADUS_ISA_NAME avx2
#elif defined(__FMA__) || defined(__FMA4__)
#define GRADUS_ISA_NAME avx_fma
#elif defined(__AVX__)
#define GRADUS_ISA_NAME avx
#elif defined(__SSE4_2__)
#define GRADUS_ISA_NAME sse4_2
#elif defined(__ARM_FEATURE_SVE)
#define GRADUS_ISA_NAME sve
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define GRADUS_ISA_NAME neon
#else
#define GRADUS_ISA_NAME baseline
#endif
#if defined(GRADUS_DISPATCH_UNIT)  // gradus::dispatch shares no names with any program
#define GRADUS_ISA GRADUS_JOIN(GRADUS_ISA_NAME, _dispatch)
#else
// Likewise for each flag that changes the code of inline functions, because the linker would keep one version for all.
// Flags of clang++ that define no macro do not change what the functions promise (see `rounded` in math.hpp).
#if !GRADUS_EXCEPTIONS
#define GRADUS_ISA_1_ GRADUS_JOIN(GRADUS_ISA_NAME, _noexcept)
#else
#define GRADUS_ISA_1_ GRADUS_ISA_NAME
#endif
#if defined(GRADUS_NO_XSIMD) && !defined(__CUDACC__)
#define GRADUS_ISA_2_ GRADUS_JOIN(GRADUS_ISA_1_, _scalar)
#else
#define GRADUS_ISA_2_ GRADUS_ISA_1_
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 2
#define GRADUS_ISA_3_ GRADUS_JOIN(GRADUS_ISA_2_, _x87)
#else
#define GRADUS_ISA_3_ GRADUS_ISA_2_
#endif
#if defined(__FAST_MATH__)
#define GRADUS_ISA GRADUS_JOIN(GRADUS_ISA_3_, _fast_math)
#else
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#define GRADUS_ISA_4_ GRADUS_JOIN(GRADUS_ISA_3_, _finite)
#else
#define GRADUS_ISA_4_ GRADUS_ISA_3_
#endif
#if defined(__ASSOCIATIVE_MATH__)
#define GRADUS_ISA_5_ GRADUS_JOIN(GRADUS_ISA_4_, _associative)
#else
#define GRADUS_ISA_5_ GRADUS_ISA_4_
#endif
#if defined(__RECIPROCAL_MATH__)
#define GRADUS_ISA_6_ GRADUS_JOIN(GRADUS_ISA_5_, _reciprocal)
#else
#define GRADUS_ISA_6_ GRADUS_ISA_5_
#endif
#if defined(__NO_SIGNED_ZEROS__)
#define GRADUS_ISA_7_ GRADUS_JOIN(GRADUS_ISA_6_, _no_signed_zeros)
#else
#define GRADUS_ISA_7_ GRADUS_ISA_6_
#endif
#if defined(__NO_TRAPPING_MATH__)
#define GRADUS_ISA GRADUS_JOIN(GRADUS_ISA_7_, _no_trapping)
#else
#define GRADUS_ISA GRADUS_ISA_7_
#endif
#endif
#endif

// Every header's declarations are between these two. For tools that do not know inline namespaces (ctags, Doxygen),
// define them as `namespace gradus {` and `}`.
#if !defined(GRADUS_OPEN_NAMESPACE)
#define GRADUS_OPEN_NAMESPACE namespace gradus::inline GRADUS_ISA {
#define GRADUS_CLOSE_NAMESPACE }
#endif
