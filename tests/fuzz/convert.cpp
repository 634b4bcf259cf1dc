// Any bytes as numbers of each floating-point type, converted into each other: a libFuzzer target. The hardware's
// conversions are the judge.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <gradus/checkpoint/safetensors/convert.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/number/half.hpp>

namespace {

template <class X>
X number_at(const std::vector<unsigned char>& bytes, std::size_t i)
{
  X x;
  std::memcpy(&x, bytes.data() + i * sizeof(X), sizeof x);
  return x;
}

template <class From, class To>
void check(const std::uint8_t* data, std::size_t size)
{
  using gradus::safetensors::dtype_of;
  const std::size_t n = size / sizeof(From);
  const std::vector<unsigned char> source(data, data + n * sizeof(From));
  std::vector<unsigned char> target(n * sizeof(To));
  gradus::safetensors::convert(dtype_of<From>(), source.data(), dtype_of<To>(), target.data(), n);
  for (std::size_t i = 0; i < n; ++i) {
    const From x = number_at<From>(source, i);
    const To y = number_at<To>(target, i);
    const double exact = static_cast<double>(static_cast<std::conditional_t<sizeof(From) == 8, double, float>>(x));
    const double got = static_cast<double>(static_cast<std::conditional_t<sizeof(To) == 8, double, float>>(y));
    if (std::isnan(exact) != std::isnan(got) || (!std::isnan(exact) && std::signbit(exact) != std::signbit(got)))
      std::abort();
    if (std::isnan(exact))
      continue;
    // The nearest: no other number of this type, one step up or down, is nearer.
    if constexpr (sizeof(To) == 8) {
      if (got != exact)
        std::abort();
    } else if constexpr (sizeof(To) == 4) {
      if (got != static_cast<double>(static_cast<float>(exact)))
        std::abort();
    } else if (std::isfinite(got)) {
      std::uint16_t bits;
      std::memcpy(&bits, &y, sizeof bits);
      for (const int step : {-1, 1}) {
        if (step < 0 && (bits & 0x7fff) == 0)
          continue;
        To other;
        const auto moved = static_cast<std::uint16_t>(bits + step);
        std::memcpy(&other, &moved, sizeof other);
        const double next = static_cast<double>(static_cast<float>(other));
        const double distance = std::fabs(got - exact), farther = std::fabs(next - exact);
        if (std::isfinite(next) && (farther < distance || (farther == distance && bits % 2 == 1)))
          std::abort();
      }
    } else if (std::isfinite(exact)) {  // beyond the largest number and half a step
      const double largest = std::is_same_v<To, gradus::float16> ? 65520.0 : std::ldexp(511.0, 119);
      if (std::fabs(exact) < largest)
        std::abort();
    }
  }
}

template <class From>
void check_from(const std::uint8_t* data, std::size_t size)
{
  check<From, double>(data, size);
  check<From, float>(data, size);
  check<From, gradus::bfloat16>(data, size);
  check<From, gradus::float16>(data, size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
  check_from<double>(data, size);
  check_from<float>(data, size);
  check_from<gradus::bfloat16>(data, size);
  check_from<gradus::float16>(data, size);
  return 0;
}
