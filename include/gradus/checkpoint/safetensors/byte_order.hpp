#pragma once
/// \file
/// Byte order: files are little-endian, whatever the machine is.

#include <bit>
#include <cstddef>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace safetensors {

/// Whether elements have the same bytes in memory as in a file.
inline constexpr bool has_file_order = std::endian::native == std::endian::little;

/// Reverses the bytes of each of `count` elements that have `size` bytes.
inline void reverse_bytes(void* elements, std::size_t count, std::size_t size) noexcept
{
  auto* const bytes = static_cast<unsigned char*>(elements);
  for (std::size_t i = 0; i < count * size; i += size)
    for (std::size_t low = i, high = i + size - 1; low < high; ++low, --high) {
      const unsigned char kept = bytes[low];
      bytes[low] = bytes[high];
      bytes[high] = kept;
    }
}

/// Converts elements in memory between the machine's byte order and a file's. Does nothing on little-endian machines.
inline void change_order([[maybe_unused]] void* elements, [[maybe_unused]] std::size_t count,
                         [[maybe_unused]] std::size_t size) noexcept
{
  if constexpr (!has_file_order)
    reverse_bytes(elements, count, size);
}

}  // namespace safetensors
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
