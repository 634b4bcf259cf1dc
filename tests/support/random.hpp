#pragma once
// Random numbers that are the same with every standard library: its distributions are not, this is.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace support {

template <class T>
using bits_of = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// The generator of tests/golden/README.md.
class random {
 public:
  explicit random(std::uint64_t seed) : state_(seed)
  {
    for (int i = 0; i < 4; ++i)  // small seeds give small first numbers
      word();
  }

  // In [low, high).
  double uniform(double low = 0, double high = 1) { return low + (high - low) * (double(word() >> 11) / 0x1p53); }
  // In [low, high), each order of magnitude as likely as the next.
  double magnitude(double low, double high) { return low * std::pow(high / low, uniform()); }
  std::size_t below(std::size_t n) { return std::size_t(uniform() * double(n)); }
  bool chance(double p) { return uniform() < p; }
  // Any number there is: every bit is random, and so infinities, NaN and denormals occur.
  template <class T>
  T any()
  {
    const std::uint64_t high = word() >> 32, low = word() >> 32;  // the lower bits of a word are less random
    return __builtin_bit_cast(T, bits_of<T>(high << 32 | low));
  }

 private:
  std::uint64_t word() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
  std::uint64_t state_;
};

// Numbers at which arithmetic changes its ways.
template <class T>
std::vector<T> special_numbers()
{
  using limits = std::numeric_limits<T>;
  std::vector<T> numbers;
  for (const T x : {T(0), limits::denorm_min(), T(limits::min() - limits::denorm_min()), limits::min(), T(1),
                    T(1 + limits::epsilon()), T(1.5), limits::max(), limits::infinity(), limits::quiet_NaN()}) {
    numbers.push_back(x);
    numbers.push_back(-x);
  }
  return numbers;
}

// A gradient as an optimizer may meet it: of any size up to where squares overflow, often zero, sometimes denormal.
template <class T>
T awkward(random& r)
{
  const double sign = r.chance(0.5) ? 1 : -1;
  switch (r.below(8)) {
  case 0: return T(sign * 0);
  case 1: return T(sign * double(r.below(1000)) * double(std::numeric_limits<T>::denorm_min()));
  case 2: return T(sign * r.uniform(0.1, 1) * double(std::numeric_limits<T>::max()));
  case 3: return T(sign * std::ldexp(r.uniform(1, 2), -60));
  default: return T(sign * r.uniform());
  }
}

}  // namespace support
