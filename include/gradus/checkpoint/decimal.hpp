#pragma once
/// \file
/// Writes doubles as decimal text and reads them back exactly, in any locale.

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <gradus/error.hpp>
#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// to_number for standard libraries without it, such as libc++ before version 20. It gives strtod the digits as a whole
/// number with an exponent, because strtod would expect the locale's decimal point.
inline std::optional<double> to_number_by_strtod(std::string_view text)
{
  std::size_t at = text.starts_with('-') ? 1 : 0;
  std::string digits(text.substr(0, at));
  if (text.substr(at) == "inf" || text.substr(at) == "nan")
    return std::strtod((digits += text.substr(at)).c_str(), nullptr);
  long exponent = 0;
  bool any = false, zero = true, after_point = false;
  for (; at < text.size() && ((text[at] >= '0' && text[at] <= '9') || (text[at] == '.' && !after_point)); ++at)
    if (text[at] == '.')
      after_point = true;
    else {
      digits += text[at];
      any = true;
      zero = zero && text[at] == '0';
      exponent -= after_point;
    }
  if (any && at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    const bool down = ++at < text.size() && text[at] == '-';
    at += at < text.size() && (text[at] == '-' || text[at] == '+');
    any = at < text.size();
    long power = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at)
      power = power < 100'000'000 ? 10 * power + (text[at] - '0') : power;
    exponent += down ? -power : power;
  }
  if (!any || at != text.size())
    return {};
  const double x = std::strtod((digits + 'e' + std::to_string(exponent)).c_str(), nullptr);
  if ((x == 0 && !zero) || !is_finite(x))  // out of range
    return {};
  return x;
}

/// to_text for standard libraries without it.
inline std::string to_text_by_printf(double x)
{
  for (int digits = 1; digits < 17; ++digits)
    if (std::string text = number_text(x, digits); to_number_by_strtod(text) == x)
      return text;
  return number_text(x, 17);
}

/// The shortest decimal text that reads back as x.
inline std::string to_text(double x)
{
#if defined(__cpp_lib_to_chars)
  char text[40];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
#else
  return to_text_by_printf(x);
#endif
}

/// The double nearest to a decimal text; none if the text is anything else or out of range.
inline std::optional<double> to_number(std::string_view text)
{
#if defined(__cpp_lib_to_chars)
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (error != std::errc() || end != text.data() + text.size())
    return {};
  return x;
#else
  return to_number_by_strtod(text);
#endif
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
