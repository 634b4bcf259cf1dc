#pragma once
// What the tests of checkpoints share: checkpoints in memory, their headers, and the sentence of a refusal.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include <gradus/checkpoint.hpp>

#include "support/refusal.hpp"

namespace support {

// All that a checkpoint of an optimizer says, its parameters included: what must not change where something is refused.
template <class Opt>
std::string checkpoint_of(const Opt& opt, const gradus::save_options& o = {.parameters = true})
{
  std::string bytes;
  gradus::save_to(
      opt, [&](const void* p, std::size_t n) { return bytes.append(static_cast<const char*>(p), n), true; }, o);
  return bytes;
}

template <class Opt>
gradus::load_report load_bytes(Opt& opt, std::string_view bytes, const gradus::load_options& o = {})
{
  return gradus::load_from(opt, std::as_bytes(std::span(bytes.data(), bytes.size())), o);
}

// A safetensors file of that header and data.
inline std::string file_of(const std::string& json, const std::string& data = {})
{
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += char(static_cast<unsigned char>(json.size() >> 8 * i));
  return bytes + json + data;
}

// The file with another number as its header's length.
inline std::string with_length(std::string bytes, std::uint64_t length)
{
  for (std::size_t i = 0; i < 8; ++i)
    bytes[i] = char(static_cast<unsigned char>(length >> 8 * i));
  return bytes;
}

// The header of a safetensors file.
inline gradus::safetensors::header header_in(const std::string& bytes)
{
  return gradus::safetensors::read_header("it", bytes.size(), [&](std::uint64_t at, void* to, std::size_t n) {
    std::memcpy(to, bytes.data() + at, n);
  });
}

// Keys of tensors, with their types and sizes.
inline std::map<std::string, std::string> entries_of(const std::string& bytes)
{
  std::map<std::string, std::string> entries;
  const auto header = header_in(bytes);
  for (std::size_t i = 0; i < header.tensors.size(); ++i)
    entries[std::string(header.tensors.key(i))] = std::string(header.tensors[i].type->name) + ' ' +
                                                  std::to_string(header.tensors[i].elements);
  return entries;
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace support
