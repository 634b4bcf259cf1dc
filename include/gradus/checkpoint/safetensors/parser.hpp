#pragma once
/// \file
/// Reads and checks the header of a safetensors file, whatever its bytes are. It takes at most three times the header's
/// length and a few kilobytes in memory, and the header must fit into the file.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/json_reader.hpp>
#include <gradus/checkpoint/safetensors/table.hpp>
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
        result_.tensors.add(e);
      }
    });
    json_.skip_space();
    if (!json_.at_end())
      json_.refuse("nothing after the header's last '}'");
    const std::string gap = first_gap();
    sort(result_.tensors, "the tensor ");
    sort(result_.metadata, "the metadata ");
    if (!gap.empty())
      detail::fail(where_ + ": " + gap);
  }

 private:
  void parse_metadata()
  {
    if (has_metadata_)
      json_.refuse("\"__metadata__\" once");
    has_metadata_ = true;
    json_.for_each_key([this](std::string_view name) {
      const std::string_view value = json_.string();
      result_.metadata.add({range_of(name), range_of(value)});
    });
  }

  text_range range_of(std::string_view piece) const noexcept
  {
    return {static_cast<std::uint32_t>(piece.data() - result_.text.data()), static_cast<std::uint32_t>(piece.size())};
  }

  /// Sorts a table, and refuses a key that it has twice.
  template <class X>
  void sort(table<X>& t, const char* what) const
  {
    t.sort();
    for (std::size_t i = 1; i < t.size(); ++i)
      if (const std::string_view a = t.key(i - 1), b = t.key(i); a == b)
        json_.refuse_at(a.data() < b.data() ? b.data() : a.data(), what + excerpt(a) + " once");
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
    e.key = range_of(key);
    bool has_type = false, has_shape = false, has_offsets = false;
    const auto first_time = [&](bool& has) {
      if (has)
        json_.refuse("each field of tensor " + excerpt(key) + " once");
      has = true;
    };
    json_.for_each_key([&](std::string_view field) {
      if (field == "dtype") {
        first_time(has_type);
        const std::string_view name = json_.string();
        e.type_name = range_of(name);
        e.type = find_dtype(name);
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
        json_.refuse("dtype, shape or data_offsets, not " + excerpt(field));
    });
    if (!has_type || !has_shape || !has_offsets)
      json_.refuse("dtype, shape and data_offsets of tensor " + excerpt(key));
    if (e.begin > e.end || e.end > data_size_)
      json_.refuse("data_offsets of tensor " + excerpt(key) + " in order and within the " + std::to_string(data_size_) +
                   " bytes there are");
    if (e.type && times(e.elements, e.type->bytes) != e.end - e.begin)
      json_.refuse("as many bytes for tensor " + excerpt(key) + " as its dtype and shape take");
    return e;
  }

  /// Every byte of data must belong to exactly one tensor, so that nothing hides between tensors. Says where that is not
  /// so; empty if it is. Sorts the tensors by their bytes.
  std::string first_gap()
  {
    sort_in_place(result_.tensors, [](const entry& a, const entry& b) {
      return a.begin < b.begin || (a.begin == b.begin && a.end < b.end);
    });
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < result_.tensors.size(); ++i) {
      const entry& e = result_.tensors[i];
      if (e.begin != at)
        return "a tensor's bytes begin at " + std::to_string(e.begin) + "; expected " + std::to_string(at) +
               ", where the one before it ends";
      at = e.end;
    }
    return at == data_size_ ? ""
                            : "the tensors end at byte " + std::to_string(at) + " of the data; expected " +
                                  std::to_string(data_size_) + ", the file's end";
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
  header h(static_cast<std::size_t>(length));
  if (length > 0)
    read(8, h.text.data(), h.text.size());
  h.data_start = 8 + length;
  header_parser(where, h, size - h.data_start).parse();
  return h;
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
