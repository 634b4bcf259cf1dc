#pragma once
// Reads the text that the language model learns.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace study {

/// Undoes the LZW of compress(1), without its three bytes of header: codes of 9 to 16 bits, lowest bit first, whose
/// width grows only between groups of eight.
inline std::string expand_lzw(std::string_view in)
{
  constexpr std::size_t first_free = 257, none = 65'536;
  std::vector<std::uint16_t> prefix(none);
  std::vector<char> last(none);
  for (std::size_t i = 0; i < 256; ++i)
    last[i] = static_cast<char>(i);
  std::string out, reversed;
  std::size_t next = first_free, width = 9, at = 0, group = 0, previous = none;
  while (true) {
    if (next == std::size_t(1) << width && width < 16) {
      at = group += (at - group + 8 * width - 1) / (8 * width) * (8 * width);
      ++width;
    }
    if (at + width > 8 * in.size())
      return out;
    std::size_t code = 0;
    for (std::size_t i = 0; i < width; ++i, ++at)
      code |= std::size_t(static_cast<unsigned char>(in[at / 8]) >> at % 8 & 1) << i;
    if (code == 256 && at + 8 * width > 8 * in.size())  // "clear", and padding: closes a window
      return out;
    if (code == 256 || code > next || (previous == none && code > 255))
      throw std::runtime_error("a compressed text is damaged");
    const bool unfinished = code == next;  // the entry that this very code completes
    reversed.clear();
    for (std::size_t c = unfinished ? previous : code;; c = prefix[c]) {
      reversed += last[c];
      if (c < 256)
        break;
    }
    const char head = reversed.back();
    out.append(reversed.rbegin(), reversed.rend());
    if (unfinished)
      out += head;
    if (previous != none && next < none) {
      prefix[next] = static_cast<std::uint16_t>(previous);
      last[next++] = head;
    }
    previous = code;
  }
}

/// A plain text, or the data file of Debian's bible-kjv-text (windows of 64 KiB, each compressed by itself), of which
/// it returns the verses, one a line, without their numbers.
inline std::string read_text(const std::string& path)
{
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf()))  // false for a folder and an empty file, too
    throw std::runtime_error("cannot read the text " + path +
                             "; /usr/lib/bible.data comes with Debian's package bible-kjv-text");
  const std::string raw = content.str();
  if (!raw.starts_with("EC02Compressed Data File"))
    return raw;
  const auto number = [&](std::size_t at) {
    if (at + 4 > raw.size())
      throw std::runtime_error(path + " is cut short");
    std::size_t n = 0;
    for (std::size_t i = 0; i < 4; ++i)
      n = n << 8 | static_cast<unsigned char>(raw[at + i]);
    return n;
  };
  constexpr std::size_t window_count_at = 0x58, windows_at = 0x5c;
  std::string lines, text;
  for (std::size_t w = 0, count = number(window_count_at); w < count; ++w) {
    const std::size_t begin = number(windows_at + 4 * w), end = number(windows_at + 4 * (w + 1));
    if (begin > end || end > raw.size())
      throw std::runtime_error(path + " is cut short");
    lines += expand_lzw(std::string_view(raw).substr(begin, end - begin));
  }
  for (std::size_t at = lines.find('\n') + 1; at < lines.size();) {  // after the title: "Ge1:1 In the beginning …"
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::size_t verse = std::min(lines.find(' ', at) + 1, end);
    text.append(lines, verse, end - verse) += '\n';
    at = end + 1;
  }
  return text;
}

}  // namespace study
