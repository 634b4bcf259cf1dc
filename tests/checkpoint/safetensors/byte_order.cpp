// Byte order of elements. tests/machines runs checkpoints on a big-endian machine.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstring>

#include <gradus/checkpoint/safetensors/byte_order.hpp>

using gradus::safetensors::change_order, gradus::safetensors::reverse_bytes;

TEST_CASE("byte_order: reverses each element's bytes, of every size")
{
  std::array<std::uint16_t, 3> shorts{0x0102, 0xfffe, 0x8000};
  reverse_bytes(shorts.data(), 2, 2);  // not the third
  CHECK(shorts == std::array<std::uint16_t, 3>{0x0201, 0xfeff, 0x8000});
  std::array<std::uint32_t, 2> words{0x01020304, 0xfffefdfc};
  reverse_bytes(words.data(), 2, 4);
  CHECK(words == std::array<std::uint32_t, 2>{0x04030201, 0xfcfdfeff});
  std::uint64_t wide = 0x0102030405060708;
  reverse_bytes(&wide, 1, 8);
  CHECK(wide == 0x0807060504030201);
  unsigned char byte = 0x12;
  reverse_bytes(&byte, 1, 1);
  CHECK(byte == 0x12);
  reverse_bytes(nullptr, 0, 8);
}

TEST_CASE("byte_order: the lowest byte comes first in a file")
{
  const std::uint32_t x = 0x01020304;
  unsigned char bytes[4], expected[] = {4, 3, 2, 1};
  std::memcpy(bytes, &x, 4);
  change_order(bytes, 1, 4);
  CHECK(std::memcmp(bytes, expected, 4) == 0);
  change_order(bytes, 1, 4);  // and back
  CHECK(std::memcmp(bytes, &x, 4) == 0);
}
