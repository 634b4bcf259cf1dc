#pragma once
/// \file
/// Checks UTF-8 and writes JSON strings. Safetensors headers consist of both.

#include <cstddef>
#include <string>
#include <string_view>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// The length in bytes of the UTF-8 character at p; 0 at the end or for an invalid character.
inline std::size_t utf8_length(const char* p, const char* end) noexcept
{
  const auto byte = [&](std::ptrdiff_t i) { return i < end - p ? static_cast<unsigned char>(p[i]) : 0u; };
  const unsigned a = byte(0), b = byte(1);
  const auto continues = [&](std::ptrdiff_t i) { return (byte(i) & 0xc0) == 0x80; };
  if (p == end)
    return 0;
  if (a < 0x80)
    return 1;
  if (a >= 0xc2 && a < 0xe0)
    return continues(1) ? 2 : 0;
  if (a >= 0xe0 && a < 0xf0)  // neither overlong nor a surrogate
    return continues(1) && continues(2) && !(a == 0xe0 && b < 0xa0) && !(a == 0xed && b >= 0xa0) ? 3 : 0;
  if (a >= 0xf0 && a < 0xf5)  // neither overlong nor beyond U+10FFFF
    return continues(1) && continues(2) && continues(3) && !(a == 0xf0 && b < 0x90) && !(a == 0xf4 && b >= 0x90) ? 4
                                                                                                                 : 0;
  return 0;
}

/// Whether the whole text is valid UTF-8.
inline bool is_utf8(std::string_view text) noexcept
{
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const std::size_t length = utf8_length(p, end);
    if (length == 0)
      return false;
    p += length;
  }
  return true;
}

/// The text as a JSON string, with its quotes. Each byte that is not UTF-8 becomes a question mark; check with is_utf8
/// first.
inline std::string json_string(std::string_view text)
{
  std::string json = "\"";
  for (const char *p = text.data(), *const end = p + text.size(); p != end;) {
    const std::size_t length = utf8_length(p, end);
    const auto c = static_cast<unsigned char>(*p);
    if (c == '"' || c == '\\')
      json += '\\';
    if (c < 0x20 || c == 0x7f)
      json += {'\\', 'u', '0', '0', "0123456789abcdef"[c / 16], "0123456789abcdef"[c % 16]};
    else if (length == 0)
      json += '?';
    else
      json.append(p, length);
    p += length == 0 ? 1 : length;
  }
  return json + '"';
}

/// The text as a JSON string for an error message. A long text is cut, because a hostile file's may have 100 MB.
inline std::string excerpt(std::string_view text)
{
  constexpr std::size_t most = 400;
  if (text.size() <= most)
    return json_string(text);
  std::size_t length = most;
  while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80)
    --length;  // to the beginning of a character
  return json_string(text.substr(0, length)) + "… (" + std::to_string(text.size()) + " bytes)";
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
