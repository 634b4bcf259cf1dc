#pragma once
/// \file
/// The header of a safetensors file, as data and as bytes to write. A file is eight bytes with the header's length, the
/// header in JSON, and the tensors' bytes side by side; all numbers are little-endian.
/// (https://github.com/huggingface/safetensors)

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/table.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// The format's limit on the length of a header, in bytes.
inline constexpr std::uint64_t longest_header = 100'000'000;
static_assert(longest_header < UINT32_MAX, "gradus: text_range has offsets of 32 bits.");

/// One tensor of a file: its type and where its bytes are.
struct entry {
  text_range key;               ///< its key
  text_range type_name;         ///< its type's name in the file
  const dtype* type = nullptr;  ///< null for a type that `dtypes` does not have
  std::uint64_t elements = 0;   ///< the number of elements
  std::uint64_t begin = 0;      ///< the offset of its first byte from the first tensor's first byte
  std::uint64_t end = 0;        ///< the offset after its last byte, likewise
  bool claimed = false;         ///< for the reader of the file to mark what it has used

  /// Whether `convert` can convert the elements to another type.
  bool is_float() const noexcept { return type && type->is_float; }
};

/// One string under "__metadata__".
struct named_string {
  text_range key;    ///< its name
  text_range value;  ///< the string
};

/// A file's header after parsing. Its entries lie within the file and cover it without overlaps or holes.
struct header {
  std::vector<char> text;        ///< the characters that the tables refer to; never changed, so that they stay in place
  table<entry> tensors;          ///< the tensors by their keys
  table<named_string> metadata;  ///< the strings under "__metadata__"
  std::uint64_t data_start = 0;  ///< the offset in the file of the first tensor's first byte

  /// An empty header of that many characters.
  explicit header(std::size_t length = 0) : text(length), tensors(text.data()), metadata(text.data()) {}

  /// A piece of the text.
  std::string_view view(text_range r) const noexcept { return r.of(text.data()); }
};

/// Composes a header: the metadata first, then the tensors in the order of their bytes.
class header_writer {
 public:
  /// Adds a string under "__metadata__". Name and value must be UTF-8.
  void metadata(std::string_view name, std::string_view value)
  {
    if (!metadata_.empty())
      metadata_ += ',';
    metadata_ += json_string(name) + ':' + json_string(value);
  }

  /// Adds a one-dimensional tensor. Its bytes follow the bytes of the tensor that was added before.
  void tensor(std::string_view key, const dtype& type, std::uint64_t elements)
  {
    const std::uint64_t end = data_size_ + elements * type.bytes;
    tensors_ += ',' + json_string(key) + R"(:{"dtype":")" + std::string(type.name) + R"(","shape":[)" +
                std::to_string(elements) + R"(],"data_offsets":[)" + std::to_string(data_size_) + ',' +
                std::to_string(end) + "]}";
    data_size_ = end;
  }

  /// All bytes that precede the data. Their number is a multiple of 8, so elements aligned in the data are aligned in
  /// the file.
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

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
