#pragma once
// What the tests of checkpoints share: checkpoints in memory, and the sentence of a refusal.

#include <cstddef>
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

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace support
