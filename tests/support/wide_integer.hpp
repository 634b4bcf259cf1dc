#pragma once
// Exact sums of doubles by the plainest way there is: a two's complement integer, changed and read bit by bit.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace support {

// In units of 2^-1074. Its 2240 bits hold more than 2^80 times the largest double.
class wide_integer {
 public:
  // Adds a finite number.
  void add(double x)
  {
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(x), &exponent);  // |x| = fraction · 2^exponent, fraction in [1/2, 1)
    auto mantissa = std::uint64_t(std::ldexp(fraction, 53));
    int place = exponent - 53 + 1074;
    for (; place < 0; ++place)  // only zeros are lost, which are below the least denormal
      mantissa /= 2;
    for (std::size_t b = 0; b < 53; ++b)
      if (mantissa >> b & 1)
        change_bit(std::size_t(place) + b, std::signbit(x));
  }

  // The double that is nearest to it; of two, the one whose last bit is 0. Infinite from 2^1024 on, but for rounding.
  double nearest() const
  {
    if (bit(bits - 1)) {
      wide_integer opposite;  // 0 − this
      for (std::size_t i = 0; i < bits; ++i)
        if (bit(i))
          opposite.change_bit(i, true);
      return -opposite.nearest();
    }
    std::size_t length = bits;
    while (length > 0 && !bit(length - 1))
      --length;
    const std::size_t last = length > 53 ? length - 53 : 0;  // that is kept
    double mantissa = 0;
    for (std::size_t i = length; i-- > last;)
      mantissa = 2 * mantissa + bit(i);
    bool rest = false;
    for (std::size_t i = 0; i + 1 < last; ++i)
      rest = rest || bit(i);
    if (last > 0 && bit(last - 1) && (rest || bit(last)))
      mantissa += 1;
    return std::ldexp(mantissa, int(last) - 1074);
  }

 private:
  static constexpr std::size_t bits = 70 * 32;

  bool bit(std::size_t i) const { return digits_[i / 32] >> i % 32 & 1; }
  // Adds or subtracts 2^i.
  void change_bit(std::size_t i, bool subtracts)
  {
    while (i < bits) {
      digits_[i / 32] ^= std::uint32_t(1) << i % 32;
      if (bit(i) != subtracts)
        return;
      ++i;  // carried, or borrowed
    }
  }

  std::array<std::uint32_t, bits / 32> digits_{};
};

}  // namespace support
