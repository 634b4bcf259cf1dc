#pragma once
/// \file
/// Reads and checks the header of a safetensors file, whatever its bytes are. Memory use is a small multiple of the
/// header's length, which must fit into the file.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/json_reader.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// Parses the JSON of a header: an object of tensors, with an object of strings under "__metadata__".
///
/// It accepts the format as specified and nothing else, but a tensor of an unknown type is kept with its bytes, because
/// another program may have written it.
class header_parser {
 public:
  /// \param where      the beginning of every error message
  /// \param result     its `text` is parsed in place, and what was found is stored in the other members
  /// \param data_size  the number of bytes after the header
  header_parser(std::string where, header& result, std::uint64_t data_size)
      : where_(std::move(where)), result_(result), data_size_(data_size),
        json_(where_, result.text.data(), result.text.data() + result.text.size())
  {}

  /// Parses and checks the whole text.
  void parse()
  {
    if (json_.peek() != '{')
      json_.refuse("'{' as the header's first character");
    json_.for_each_key([this](std::string_view key) {
      if (key == "__metadata__")
        parse_metadata();
      else {
        const entry e = parse_tensor(key);
        if (!result_.tensors.emplace(key, e).second)
          json_.refuse("the tensor " + json_string(key) + " once");
      }
    });
    json_.skip_space();
    if (!json_.at_end())
      json_.refuse("nothing after the header's last '}'");
    check_cover();
  }

 private:
  void parse_metadata()
  {
    if (has_metadata_)
      json_.refuse("\"__metadata__\" once");
    has_metadata_ = true;
    json_.for_each_key([this](std::string_view name) {
      const std::string_view value = json_.string();
      if (!result_.metadata.emplace(name, value).second)
        json_.refuse("the metadata " + json_string(name) + " once");
    });
  }

  std::uint64_t times(std::uint64_t a, std::uint64_t b) const
  {
    if (b != 0 && a > UINT64_MAX / b)
      json_.refuse("a shape of fewer than 2^64 bytes");
    return a * b;
  }

  entry parse_tensor(std::string_view key)
  {
    entry e;
    bool has_type = false, has_shape = false, has_offsets = false;
    const auto first_time = [&](bool& has) {
      if (has)
        json_.refuse("each field of tensor " + json_string(key) + " once");
      has = true;
    };
    json_.for_each_key([&](std::string_view field) {
      if (field == "dtype") {
        first_time(has_type);
        e.type_name = json_.string();
        e.type = find_dtype(e.type_name);
      } else if (field == "shape") {
        first_time(has_shape);
        e.elements = 1;
        json_.expect('[');
        if (!json_.take(']')) {
          do
            e.elements = times(e.elements, json_.natural());
          while (json_.take(','));
          json_.expect(']');
        }
      } else if (field == "data_offsets") {
        first_time(has_offsets);
        json_.expect('[');
        e.begin = json_.natural();
        json_.expect(',');
        e.end = json_.natural();
        json_.expect(']');
      } else
        json_.refuse("dtype, shape or data_offsets, not " + json_string(field));
    });
    if (!has_type || !has_shape || !has_offsets)
      json_.refuse("dtype, shape and data_offsets of tensor " + json_string(key));
    if (e.begin > e.end || e.end > data_size_)
      json_.refuse("data_offsets of tensor " + json_string(key) + " in order and within the " +
                   std::to_string(data_size_) + " bytes there are");
    if (e.type && times(e.elements, e.type->bytes) != e.end - e.begin)
      json_.refuse("as many bytes for tensor " + json_string(key) + " as its dtype and shape take");
    return e;
  }

  /// Checks that every byte of data belongs to exactly one tensor, so that nothing hides between tensors.
  void check_cover() const
  {
    std::multimap<std::uint64_t, std::uint64_t> pieces;
    for (const auto& [key, e] : result_.tensors)
      if (e.begin != e.end)
        pieces.emplace(e.begin, e.end);
    std::uint64_t at = 0;
    for (const auto& [begin, end] : pieces) {
      if (begin != at)
        detail::fail(where_ + ": a tensor's bytes begin at " + std::to_string(begin) + "; expected " +
                     std::to_string(at) + ", where the one before it ends");
      at = end;
    }
    if (at != data_size_)
      detail::fail(where_ + ": the tensors end at byte " + std::to_string(at) + " of the data; expected " +
                   std::to_string(data_size_) + ", the file's end");
  }

  std::string where_;
  header& result_;
  std::uint64_t data_size_;
  json_reader json_;
  bool has_metadata_ = false;
};

/// Reads and checks a header.
/// \param where  the beginning of every error message
/// \param size   the size of the file in bytes
/// \param read   read(offset, bytes, count) fills `bytes` from the file, and does not return if it cannot; count is at
///               least 1
template <class Read>
header read_header(const std::string& where, std::uint64_t size, const Read& read)
{
  if (size < 8)
    detail::fail(where + ": size is " + std::to_string(size) +
                 "; expected at least the 8 bytes of the header's length");
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
  if (length > 0)
    read(8, h.text.data(), h.text.size());
  h.data_start = 8 + length;
  header_parser(where, h, size - h.data_start).parse();
  return h;
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
