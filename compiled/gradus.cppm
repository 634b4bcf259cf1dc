// The module gradus: what gradus.hpp, checkpoint.hpp and the pool of threads declare. Experimental: clang++ 17, 18, 19 and 22 compile it.
//
//   clang++ -std=c++20 -O3 -I include --precompile compiled/gradus.cppm -o gradus.pcm
//   clang++ -std=c++20 -O3 -fmodule-file=gradus=gradus.pcm main.cpp gradus.pcm
//
// It has no backend::simd, because intrinsics have internal linkage, and templates that a module exports cannot use those. For
// steps with the machine's vectors, precompile it with -I backends/dispatch/include -DGRADUS_MODULE_DISPATCH, name
// backend::dispatch, and link with gradus::dispatch. A unit either imports gradus or includes its headers. Macros are not
// exported.
module;

#define GRADUS_NO_XSIMD

// All that the headers include of others, because what is included below becomes part of the interface.
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>
#include <gradus/checkpoint/posix.hpp>
#if GRADUS_POSIX
#include <pthread.h>
#endif

export module gradus;

#if defined(__clang__)
#pragma clang diagnostic ignored "-Winclude-angled-in-module-purview"
#endif
export {
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>
#if defined(GRADUS_MODULE_DISPATCH)
#include <gradus/backend/dispatch.hpp>
#endif
}
