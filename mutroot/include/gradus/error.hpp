#pragma once
/// \file
/// How gradus refuses: one sentence that names the argument, its value and what was expected.
///
/// With exceptions, std::invalid_argument is thrown. With -fno-exceptions the sentence goes to stderr and the program
/// aborts. Either way `gradus::error_handler`, if set, is called first: the one place to log errors elsewhere, or to
/// leave a program that has no exceptions by another door (it may longjmp or exit; if it returns, abort follows).
/// A refused call has changed nothing.

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include <gradus/config.hpp>

namespace gradus {

/// Called with every error message before the throw or the abort; null by default. Not synchronised: set it at start.
inline void (*error_handler)(const char* message) = nullptr;

inline namespace GRADUS_ISA {

[[noreturn]] inline void fail(const std::string& sentence)
{
  const std::string message = "gradus: " + sentence;
  if (error_handler)
    error_handler(message.c_str());
#if GRADUS_EXCEPTIONS
  throw std::invalid_argument(message);
#else
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#endif
}

/// A number as an error message shows it: short, and exact enough to recognise.
inline std::string show(double x)
{
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", x);
  return text;
}

inline std::string quote(std::string_view text)
{
  return '"' + std::string(text) + '"';
}

}  // namespace GRADUS_ISA
}  // namespace gradus
