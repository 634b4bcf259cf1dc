#pragma once
// Macros that other headers are known to define, in the order of a user's includes: the libraries that gradus builds on
// are unharmed, gradus itself is not spared.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif
#if __has_include(<xsimd/xsimd.hpp>)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
#if __has_include(<tbb/parallel_for.h>)
#include <tbb/parallel_for.h>
#endif

// windows.h
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define interface struct
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define ERROR 0
#define DELETE 0x00010000L
// complex.h, termios.h, ctype.h of old
#define I _Complex_I
#define B0 0000000
#define _B 1
#define _N 04
// Xlib.h
#define None 0L
#define Status int
#define Bool int
#define True 1
#define False 0
#define Success 0
#define Always 2
// numerical code
#define N 1000
#define M 1000
#define E_ 2.718281828
#define PI 3.14159265
#define EPS 1e-8
#define SIZE 4096
#define sq(x) ((x) * (x))
#define square(x) ((x) * (x))
#define swap(a, b) std::swap(a, b)
// logging and test libraries
#define LOG(x) x
#define CHECK(x) x
#define ASSERT(x) x
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
