#pragma once
/// \file
/// Reads the JSON values that a safetensors header may contain: objects, strings and whole numbers.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// Reads JSON from front to back. It accepts any bytes, never reads beyond them, and does not recurse.
///
/// Strings are decoded in place, because no escape sequence is shorter than the character it encodes.
class json_reader {
 public:
  /// \param where  the beginning of every error message
  json_reader(std::string where, char* begin, char* end)
      : where_(std::move(where)), begin_(begin), at_(begin), end_(end)
  {}

  /// Rejects the input at the current byte. \p expected says what should have been there.
  [[noreturn]] void refuse(const std::string& expected) const { refuse_at(at_, expected); }
  /// Rejects the input at a byte that has been read.
  [[noreturn]] void refuse_at(const char* at, const std::string& expected) const
  {
    detail::fail(where_ + ": header, byte " + std::to_string(at - begin_) + ": expected " + expected);
  }

  /// Whether all bytes have been read.
  bool at_end() const noexcept { return at_ == end_; }

  /// The next byte, which stays unread; a zero byte at the end.
  char peek() const noexcept { return at_ != end_ ? *at_ : '\0'; }

  /// Skips white space.
  void skip_space() noexcept
  {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t'))
      ++at_;
  }

  /// Skips white space, then reads c if it comes next. Returns whether it did.
  bool take(char c) noexcept
  {
    skip_space();
    const bool there = at_ != end_ && *at_ == c;
    at_ += there;
    return there;
  }

  /// Skips white space, then reads c; rejects anything else.
  void expect(char c)
  {
    if (!take(c))
      refuse({'\'', c, '\''});
  }

  /// Reads an object. Calls f(key) for each key; f reads the value.
  template <class F>
  void for_each_key(const F& f)
  {
    expect('{');
    if (take('}'))
      return;
    do {
      const std::string_view key = string();
      expect(':');
      f(key);
    } while (take(','));
    expect('}');
  }

  /// Reads a string. The result refers to the input's memory, where the decoded characters replace the encoded ones.
  std::string_view string()
  {
    expect('"');
    char* const first = at_;
    char* out = at_;
    for (;;) {
      const char c = peek();
      if (c == '"')
        break;
      if (c == '\\') {
        ++at_;
        out = escaped(out);
        continue;
      }
      if (c >= 0x20 && c < 0x7f) {  // the common case
        *out++ = *at_++;
        continue;
      }
      const std::size_t length = utf8_length(at_, end_);
      if (length == 0 || static_cast<unsigned char>(*at_) < 0x20)
        refuse("the rest of a string, in UTF-8 and without control characters");
      for (std::size_t i = 0; i < length; ++i)
        *out++ = *at_++;
    }
    ++at_;
    return {first, static_cast<std::size_t>(out - first)};
  }

  /// Reads a whole number of at least 0.
  std::uint64_t natural()
  {
    skip_space();
    const char* const first = at_;
    std::uint64_t n = 0;
    for (; at_ != end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
      const auto digit = std::uint64_t(*at_ - '0');
      if (n > (UINT64_MAX - digit) / 10)
        refuse("a number below 2^64");
      n = n * 10 + digit;
    }
    if (at_ == first || (*first == '0' && at_ - first > 1))
      refuse("a whole number without sign or leading zeros");
    return n;
  }

 private:
  std::uint64_t hex4()
  {
    std::uint64_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0)
        refuse("four hexadecimal digits");
      code = code * 16 + std::uint64_t(digit);
    }
    return code;
  }

  /// Reads an escape sequence after its backslash and writes the character to `out`. Returns the place after it.
  char* escaped(char* out)
  {
    const char c = at_ != end_ ? *at_++ : '\0';
    switch (c) {
    case '"':
    case '\\':
    case '/': *out++ = c; return out;
    case 'b': *out++ = '\b'; return out;
    case 'f': *out++ = '\f'; return out;
    case 'n': *out++ = '\n'; return out;
    case 'r': *out++ = '\r'; return out;
    case 't': *out++ = '\t'; return out;
    case 'u': break;
    default: refuse("an escape of JSON");
    }
    std::uint64_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00) {
      const bool pair = end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u';
      at_ += pair ? 2 : 0;
      const std::uint64_t low = pair ? hex4() : 0;
      if (low < 0xdc00 || low >= 0xe000)
        refuse("the second half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000)
      refuse("the first half of a surrogate pair");
    return put_utf8(code, out);
  }

  static char* put_utf8(std::uint64_t code, char* out) noexcept
  {
    const auto put = [&](std::uint64_t byte) { *out++ = static_cast<char>(static_cast<unsigned char>(byte)); };
    const auto put_low = [&](int shift) { put(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
      put(code);
      return out;
    }
    if (code < 0x800)
      put(0xc0 | code >> 6);
    else {
      if (code < 0x10000)
        put(0xe0 | code >> 12);
      else {
        put(0xf0 | code >> 18);
        put_low(12);
      }
      put_low(6);
    }
    put_low(0);
    return out;
  }

  std::string where_;
  char* begin_;
  char* at_;
  char* end_;
};

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
