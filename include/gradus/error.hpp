#pragma once
/// \file
/// How gradus reports errors: with one sentence that names the argument, its value and what was expected.
///
/// With exceptions, it throws std::invalid_argument, or io_error, which is one. With -fno-exceptions, it writes the sentence to stderr and aborts.
/// In both cases it first calls `gradus::error_handler`, if one is set. A call that fails has changed nothing.

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

/// First-order optimizers, composed of rules.
namespace gradus {

/// Called with each error message before the throw or abort; null by default. Use it to log errors, or to leave a
/// program without exceptions by longjmp or exit; if it returns, throw or abort follows. Not synchronised; set it at
/// start.
inline void (*error_handler)(const char* message) = nullptr;

/// Thrown if a file or stream cannot be opened, read or written, whatever its content.
struct io_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace gradus

GRADUS_OPEN_NAMESPACE

namespace detail {
/// While a file is being read or written, the prefix that names it in error messages; null otherwise.
inline constinit thread_local const std::string* fail_context = nullptr;

/// Names a file in all error messages during its lifetime.
struct fail_in {
  explicit fail_in(const std::string& where) noexcept { fail_context = &where; }
  explicit fail_in(std::string&&) = delete;
  fail_in(const fail_in&) = delete;
  fail_in& operator=(const fail_in&) = delete;
  ~fail_in() { fail_context = nullptr; }
};

template <class Error = std::invalid_argument>
[[noreturn]] void fail(const std::string& sentence)
{
  const std::string message = "gradus: " + (fail_context ? *fail_context + ": " : std::string()) + sentence;
  fail_context = nullptr;  // the handler may call longjmp
  if (error_handler)
    error_handler(message.c_str());
#if GRADUS_EXCEPTIONS
  throw Error(message);
#else
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#endif
}

/// printf's text of a number, with a point in place of the locale's decimal separator, which may be several bytes.
inline std::string with_point(std::string_view text)
{
  const auto is_digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  std::size_t point = text.starts_with('-') ? 1 : 0;
  if (!is_digit(point))
    return std::string(text);  // infinity or NaN
  while (is_digit(point))
    ++point;
  std::size_t end = point;
  while (end < text.size() && text[end] != 'e' && !is_digit(end))
    ++end;
  return std::string(text.substr(0, point)) + (end == point ? "" : ".") + std::string(text.substr(end));
}
inline std::string number_text(double x, int digits)
{
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, x);
  return with_point(text);
}

/// A number as text for error messages, with 9 digits.
inline std::string show(double x) { return number_text(x, 9); }

inline std::string quote(std::string_view text) { return '"' + std::string(text) + '"'; }

}  // namespace detail

/// Reports an error as gradus does; call it from a rule's or recipe's `validate()`.
/// \param sentence  names the argument, its value and what was expected
/// \throws std::invalid_argument, or aborts without exceptions
[[noreturn]] inline void refuse(const std::string& sentence) { detail::fail(sentence); }

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
