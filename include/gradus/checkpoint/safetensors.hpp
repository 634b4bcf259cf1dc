#pragma once
/// \file
/// The safetensors format, without a word about optimizers: eight bytes with the header's length, little-endian; the header,
/// which is JSON; and the tensors' bytes, little-endian, side by side. (https://github.com/huggingface/safetensors)
///
/// The reader takes the format as it is described and nothing more. A tensor of a type that it does not know is in the header
/// as the bytes that it takes, since it may be another program's. It works on any input: it does not recurse, does not go beyond the input, and what it allocates is a small multiple of the header's
/// length, which must fit into the file.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

static_assert(std::endian::native == std::endian::little, "gradus: checkpoints are little-endian, and so must the machine be.");

/// The longest header that a file may have, in bytes; the format's own limit.
inline constexpr std::uint64_t longest_header = 100'000'000;

/// A type of element, by the format's name for it.
struct dtype {
  std::string_view name;
  std::size_t bytes;
  bool is_float = false;  ///< can be converted to another one that is
};
inline constexpr dtype dtypes[] = {{"F32", 4, true}, {"F64", 8, true}, {"BF16", 2, true}, {"F16", 2, true}, {"U64", 8},
                                   {"I64", 8},       {"U32", 4},       {"I32", 4},        {"U16", 2},       {"I16", 2},
                                   {"U8", 1},        {"I8", 1},        {"BOOL", 1},       {"F8_E4M3", 1},   {"F8_E5M2", 1}};

inline constexpr std::size_t dtype_count = sizeof dtypes / sizeof dtypes[0];

/// The number of the type of that name in `dtypes`; dtype_count for one that is not there.
constexpr std::size_t dtype_index(std::string_view name) noexcept
{
  std::size_t i = 0;
  while (i < dtype_count && dtypes[i].name != name)
    ++i;
  return i;
}

/// The type of that name; null for one that is not in `dtypes`.
constexpr const dtype* find_dtype(std::string_view name) noexcept
{
  const std::size_t i = dtype_index(name);
  return i < dtype_count ? &dtypes[i] : nullptr;
}

/// The format's name for a C++ type of element: specialised for each type that state is kept in.
template <class X>
inline constexpr std::string_view dtype_name = {};
template <> inline constexpr std::string_view dtype_name<float> = "F32";
template <> inline constexpr std::string_view dtype_name<double> = "F64";
template <> inline constexpr std::string_view dtype_name<std::uint64_t> = "U64";
template <> inline constexpr std::string_view dtype_name<std::uint8_t> = "U8";

template <class X>
constexpr const dtype& dtype_of() noexcept
{
  // By number: under GCC's sanitizers an address is no constant to be compared with null.
  constexpr std::size_t i = dtype_index(dtype_name<X>);
  static_assert(i < dtype_count && dtypes[i % dtype_count].bytes == sizeof(X),
                "gradus: specialise safetensors::dtype_name for this type of element.");
  return dtypes[i];
}

/// Where a tensor lies in a file.
struct entry {
  const dtype* type = nullptr;  ///< null for a type that is not in `dtypes`
  std::string_view type_name;   ///< as in the file
  std::uint64_t elements = 0;
  std::uint64_t begin = 0, end = 0;  ///< bytes, from the first tensor's
  bool claimed = false;              ///< for the reader's own book-keeping

  bool is_float() const noexcept { return type && type->is_float; }
};

/// What a file's header says, checked: entries lie within the file and cover it, without overlaps and holes.
struct header {
  std::vector<char> text;  // what the views below look into
  std::map<std::string_view, entry> tensors;
  std::map<std::string_view, std::string_view> metadata;
  std::uint64_t data_start = 0;  ///< of the first tensor's bytes, in the file
};

/// How many bytes the UTF-8 character at p has; 0 where there is none, or not a valid one.
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
    return continues(1) && continues(2) && continues(3) && !(a == 0xf0 && b < 0x90) && !(a == 0xf4 && b >= 0x90) ? 4 : 0;
  return 0;
}

/// A text as a JSON string, in its quotes. Bytes that are not UTF-8 come out as question marks: check before, with is_utf8.
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

/// Reads the JSON of a header: an object of tensors, and of strings under "__metadata__". Strings are decoded in place,
/// since no escape is shorter than what it stands for.
class header_parser {
 public:
  /// \param where      what an error's sentence begins with
  /// \param data_size  the bytes that follow the header
  header_parser(std::string where, header& result, std::uint64_t data_size)
      : where_(std::move(where)), result_(result), data_size_(data_size), at_(result.text.data()), end_(at_ + result.text.size())
  {
  }

  void parse()
  {
    if (at_ == end_ || *at_ != '{')
      refuse("'{' as the header's first character");
    for_each_key([this](std::string_view key) {
      if (key == "__metadata__") {
        if (has_metadata_)
          refuse("\"__metadata__\" once");
        has_metadata_ = true;
        for_each_key([this](std::string_view name) {
          const std::string_view value = string();
          if (!result_.metadata.emplace(name, value).second)
            refuse("the metadata " + json_string(name) + " once");
        });
      } else {
        const entry e = tensor(key);
        if (!result_.tensors.emplace(key, e).second)
          refuse("the tensor " + json_string(key) + " once");
      }
    });
    skip_space();
    if (at_ != end_)
      refuse("nothing after the header's last '}'");
    check_cover();
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const
  {
    detail::fail(where_ + ": header, byte " + std::to_string(at_ - result_.text.data()) + ": expected " + expected);
  }

  void skip_space() noexcept
  {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t'))
      ++at_;
  }
  bool take(char c) noexcept
  {
    skip_space();
    const bool there = at_ != end_ && *at_ == c;
    at_ += there;
    return there;
  }
  void expect(char c)
  {
    if (!take(c))
      refuse({'\'', c, '\''});
  }

  /// Calls f(key) for each key of an object, at its value.
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

  std::uint64_t hex4()
  {
    std::uint64_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ != end_ ? *at_ : '\0';
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0)
        refuse("four hexadecimal digits");
      code = code * 16 + std::uint64_t(digit);
    }
    return code;
  }

  /// What follows a backslash, written to `out`.
  char* escaped(char* out)
  {
    const char c = at_ != end_ ? *at_++ : '\0';
    switch (c) {
    case '"': case '\\': case '/': *out++ = c; return out;
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

  std::string_view string()
  {
    expect('"');
    char* const first = at_;
    char* out = at_;
    for (;;) {
      const char c = at_ != end_ ? *at_ : '\0';
      if (c == '"')
        break;
      if (c == '\\') {
        ++at_;
        out = escaped(out);
        continue;
      }
      if (c >= 0x20 && c < 0x7f) {  // the most of them
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

  std::uint64_t times(std::uint64_t a, std::uint64_t b) const
  {
    if (b != 0 && a > UINT64_MAX / b)
      refuse("a shape of fewer than 2^64 bytes");
    return a * b;
  }

  entry tensor(std::string_view key)
  {
    entry e;
    bool has_type = false, has_shape = false, has_offsets = false;
    const auto first_time = [&](bool& has) {
      if (has)
        refuse("each field of tensor " + json_string(key) + " once");
      has = true;
    };
    for_each_key([&](std::string_view field) {
      if (field == "dtype") {
        first_time(has_type);
        e.type_name = string();
        e.type = find_dtype(e.type_name);
      } else if (field == "shape") {
        first_time(has_shape);
        e.elements = 1;
        expect('[');
        if (!take(']')) {
          do
            e.elements = times(e.elements, natural());
          while (take(','));
          expect(']');
        }
      } else if (field == "data_offsets") {
        first_time(has_offsets);
        expect('[');
        e.begin = natural();
        expect(',');
        e.end = natural();
        expect(']');
      } else
        refuse("dtype, shape or data_offsets, not " + json_string(field));
    });
    if (!has_type || !has_shape || !has_offsets)
      refuse("dtype, shape and data_offsets of tensor " + json_string(key));
    if (e.begin > e.end || e.end > data_size_)
      refuse("data_offsets of tensor " + json_string(key) + " in order and within the " + std::to_string(data_size_) + " bytes there are");
    if (e.type && times(e.elements, e.type->bytes) != e.end - e.begin)
      refuse("as many bytes for tensor " + json_string(key) + " as its dtype and shape take");
    return e;
  }

  /// Every byte of data belongs to one tensor: nothing hides between them.
  void check_cover() const
  {
    std::multimap<std::uint64_t, std::uint64_t> pieces;
    for (const auto& [key, e] : result_.tensors)
      if (e.begin != e.end)
        pieces.emplace(e.begin, e.end);
    std::uint64_t at = 0;
    for (const auto& [begin, end] : pieces) {
      if (begin != at)
        detail::fail(where_ + ": a tensor's bytes begin at " + std::to_string(begin) + "; expected " + std::to_string(at) +
             ", where the one before it ends");
      at = end;
    }
    if (at != data_size_)
      detail::fail(where_ + ": the tensors end at byte " + std::to_string(at) + " of the data; expected " + std::to_string(data_size_) +
           ", the file's end");
  }

  std::string where_;
  header& result_;
  std::uint64_t data_size_;
  char* at_;
  char* end_;
  bool has_metadata_ = false;
};

/// Reads and checks a header.
/// \param where  what an error's sentence begins with
/// \param size   the file's, in bytes
/// \param read   read(offset, bytes, count) fills the bytes from there, or does not return
template <class Read>
header read_header(const std::string& where, std::uint64_t size, const Read& read)
{
  if (size < 8)
    detail::fail(where + ": size is " + std::to_string(size) + "; expected at least the 8 bytes of the header's length");
  unsigned char bytes[8];
  read(0, bytes, sizeof bytes);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | bytes[i];
  if (length > size - 8 || length > longest_header)
    detail::fail(where + ": the header's length is " + std::to_string(length) + "; expected at most " +
         std::to_string(size - 8 < longest_header ? size - 8 : longest_header));
  header h;
  h.text.resize(static_cast<std::size_t>(length));
  read(8, h.text.data(), h.text.size());
  h.data_start = 8 + length;
  header_parser(where, h, size - h.data_start).parse();
  return h;
}

/// Puts a header together: metadata first, then the tensors in the order of their bytes.
class header_writer {
 public:
  /// Both in UTF-8.
  void metadata(std::string_view name, std::string_view value)
  {
    if (!metadata_.empty())
      metadata_ += ',';
    metadata_ += json_string(name) + ':' + json_string(value);
  }
  void tensor(std::string_view key, const dtype& type, std::uint64_t elements)
  {
    const std::uint64_t end = data_size_ + elements * type.bytes;
    tensors_ += ',' + json_string(key) + R"(:{"dtype":")" + std::string(type.name) + R"(","shape":[)" + std::to_string(elements) +
                R"(],"data_offsets":[)" + std::to_string(data_size_) + ',' + std::to_string(end) + "]}";
    data_size_ = end;
  }

  /// The bytes before the data: a multiple of 8, so that elements that are aligned in the data are so in the file.
  std::string finish() const
  {
    std::string json = R"({"__metadata__":{)" + metadata_ + '}' + tensors_ + '}';
    json.append((8 - json.size() % 8) % 8, ' ');
    std::string bytes;
    for (int i = 0; i < 8; ++i)
      bytes += static_cast<char>(static_cast<unsigned char>(std::uint64_t(json.size()) >> 8 * i));
    return bytes + json;
  }

 private:
  std::string metadata_, tensors_;
  std::uint64_t data_size_ = 0;
};

// ── floating-point types, converted ──────────────────────────────────────────────────────────────────────────────────

namespace detail {

/// How a floating-point type is laid out: so many bits of exponent and fraction, under the sign.
struct layout {
  int exponent, fraction;
};
inline layout layout_of(const dtype& t) noexcept
{
  return t.name == "F64" ? layout{11, 52} : t.name == "F32" ? layout{8, 23} : t.name == "BF16" ? layout{8, 7} : layout{5, 10};
}

/// Converts one number's bits from a layout to another, rounded to nearest, ties to even; too large a number to infinity.
inline std::uint64_t convert(std::uint64_t bits, layout from, layout to) noexcept
{
  const std::uint64_t sign = bits >> (from.exponent + from.fraction) & 1;
  const std::uint64_t magnitude = bits & ((std::uint64_t(1) << (from.exponent + from.fraction)) - 1);
  const std::uint64_t signed_zero = sign << (to.exponent + to.fraction);
  const std::uint64_t infinity = ((std::uint64_t(1) << to.exponent) - 1) << to.fraction;
  const std::uint64_t from_infinity = ((std::uint64_t(1) << from.exponent) - 1) << from.fraction;
  if (magnitude >= from_infinity)
    return signed_zero | infinity | (magnitude > from_infinity ? std::uint64_t(1) << (to.fraction - 1) : 0);
  if (magnitude == 0)
    return signed_zero;
  // The number is significand · 2^(exponent − 63), the significand's highest bit set.
  std::int64_t exponent = std::int64_t(magnitude >> from.fraction);
  std::uint64_t significand = magnitude & ((std::uint64_t(1) << from.fraction) - 1);
  if (exponent == 0)
    exponent = 1;
  else
    significand |= std::uint64_t(1) << from.fraction;
  const int shift = std::countl_zero(significand);
  significand <<= shift;
  exponent += 63 - from.fraction - shift - ((1 << (from.exponent - 1)) - 1);
  std::int64_t biased = exponent + ((1 << (to.exponent - 1)) - 1), drop = 63 - to.fraction;
  if (biased < 1) {  // a denormal number: an exponent of 1 without the highest bit, which is among those that are kept
    drop += 1 - biased;
    biased = 1;
  }
  if (drop > 64)
    return signed_zero;
  const std::uint64_t kept = drop == 64 ? 0 : significand >> drop, lost = significand << (64 - drop) % 64;
  const std::uint64_t tie = std::uint64_t(1) << 63;
  const bool up = lost > tie || (lost == tie && kept % 2 == 1);
  // Added, not put together: the highest bit kept, and a carry, count the exponent up.
  const std::uint64_t result = (std::uint64_t(biased - 1) << to.fraction) + kept + up;
  return signed_zero | (result > infinity ? infinity : result);
}

}  // namespace detail

/// Converts `count` elements, little-endian, between two floating-point types, rounding to nearest.
inline void convert(const dtype& from, const unsigned char* source, const dtype& to, unsigned char* target, std::size_t count) noexcept
{
  const detail::layout a = detail::layout_of(from), b = detail::layout_of(to);
  for (std::size_t i = 0; i < count; ++i, source += from.bytes, target += to.bytes) {
    std::uint64_t bits = 0;
    for (std::size_t k = from.bytes; k-- > 0;)
      bits = bits << 8 | source[k];
    bits = detail::convert(bits, a, b);
    for (std::size_t k = 0; k < to.bytes; ++k)
      target[k] = static_cast<unsigned char>(bits >> 8 * k);
  }
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
