// remainder16: a bfloat16 and 16 bits, with one more bit for a few numbers, are a float.

#include <bit>
#include <cstdint>
#include <map>

#include <doctest/doctest.h>

#include <gradus/number/remainder.hpp>

namespace {

using gradus::bfloat16, gradus::remainder16;

float from_bits(std::uint32_t u) { return std::bit_cast<float>(u); }

std::uint32_t joined(float x)
{
  const bfloat16 p(x);
  return std::bit_cast<std::uint32_t>(gradus::completed_float(p, remainder16(x), gradus::lies_above(x, p)));
}

}  // namespace

TEST_CASE("completed_float: gives back every float of an exponent, for denormal, usual, largest and non-finite numbers")
{
  std::uint64_t wrong = 0;
  for (const std::uint32_t sign : {0u, 1u})
    for (const std::uint32_t exponent : {0u, 1u, 127u, 254u, 255u})
      for (std::uint32_t fraction = 0; fraction < 1u << 23; ++fraction) {
        const std::uint32_t u = sign << 31 | exponent << 23 | fraction;
        const bool signals = exponent == 255 && fraction > 0 && fraction < 1u << 22;
        wrong += joined(from_bits(u)) != (signals ? u | 1u << 22 : u);
      }
  CHECK(wrong == 0);
}

TEST_CASE("completed_float: the largest float rounds to infinity and comes back")
{
  CHECK(bfloat16(from_bits(0x7f7fffffu)).bits == 0x7f80u);
  CHECK(joined(from_bits(0x7f7fffffu)) == 0x7f7fffffu);
  CHECK(joined(from_bits(0xff7fffffu)) == 0xff7fffffu);
}

TEST_CASE("lies_above: tells apart the two floats that lie halfway to an even bfloat16, and is false for most others")
{
  const float below = from_bits(0x3f7f8000u), above = from_bits(0x3f808000u);  // around 1
  CHECK((bfloat16(below).bits == 0x3f80u && bfloat16(above).bits == 0x3f80u));
  CHECK(remainder16(below).bits == remainder16(above).bits);
  CHECK_FALSE(gradus::lies_above(below, bfloat16(below)));
  CHECK(gradus::lies_above(above, bfloat16(above)));
  std::uint64_t set = 0;
  for (std::uint32_t u = 0x3f800000u; u < 0x40000000u; ++u)
    set += gradus::lies_above(from_bits(u), bfloat16(from_bits(u)));
  CHECK(set == 64);  // one for each even bfloat16 from 1 to 2
}

TEST_CASE("remainder16: has one value too few for the floats that round to an even bfloat16")
{
  std::map<std::uint16_t, std::uint32_t> floats;
  for (std::uint32_t u = 0x3f7f0000u; u < 0x3f830000u; ++u)
    ++floats[bfloat16(from_bits(u)).bits];
  CHECK(floats[0x3f80u] == 65537);
  CHECK(floats[0x3f81u] == 65535);
  CHECK(floats[0x3f82u] == 65537);
}
