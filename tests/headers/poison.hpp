#pragma once
// Macros that other headers are known to define, in the order of a user's includes: the libraries that gradus builds on
// are unharmed, gradus itself is not spared.

#include <algorithm>
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
#if __has_include(<tbb/parallel_for.h>)
#include <tbb/parallel_for.h>
#endif

// windows.h
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define hyper long long
#define interface struct
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define ERROR 0
#define DELETE 0x00010000L
// complex.h, termios.h, ctype.h of old
#define I _Complex_I
#define complex _Complex
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
// logging and test libraries
#define LOG(x) x
#define CHECK(x) x
#define ASSERT(x) x
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
// Qt
#define slots
#define signals public
#define emit
#define foreach(a, b) for (a : b)
#define slot(x) "1" #x
// Apple's AssertMacros.h, Objective-C, Unreal
#define check(x) ((x) ? void() : std::abort())
#define verify(x) ((x) ? void() : std::abort())
#define require(x, label) if (!(x)) goto label
#define ensure(x) (x)
#define nil nullptr
#define YES 1
#define NO 0
// Arduino, f2c
#define abs(x) ((x) > 0 ? (x) : -(x))
#define round(x) ((x) >= 0 ? long((x) + 0.5) : long((x)-0.5))
#define bit(b) (1UL << (b))
#define byte unsigned char
#define HIGH 0x1
#define LOW 0x0
// sockets and the C library of old, curses
#define select(a, b, c, d, e) lwip_select(a, b, c, d, e)
#define index strchr
#define move(y, x) wmove(stdscr, y, x)
#define clear() wclear(stdscr)
#define erase() werase(stdscr)
// R, Perl, Torch 7
#define length Rf_length
#define error Rf_error
#define seed PL_seed
#define real float
// numerical code, shaders, test libraries
#define sign(a, b) ((b) >= 0 ? std::fabs(a) : -std::fabs(a))
#define range(a, b) a, b
#define norm(x) ((x) * (x))
#define product(a, b) ((a) * (b))
#define step(edge, x) ((x) < (edge) ? 0 : 1)
#define group(x) x
#define sum(a, b) ((a) + (b))
#define fail(x) std::abort()
#define show(x) std::printf("%s", #x)
#define quote(x) #x
// names that game engines and old C use for their types, registers and constants
#define A 1
#define B 1
#define C 1
#define D 1
#define E 1
#define F(x) x
#define G 9.81
#define H 1
#define J 1
#define K(x) x
#define L 1
#define O 1
#define P 1
#define Q 1
#define R 8.314
#define S 1
#define T double
#define U 1
#define V 1
#define W 1
#define X 1
#define Y 1
#define Z 1
#define EI 1
