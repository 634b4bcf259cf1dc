#pragma once
// Comparison to the bit, and the instruction sets whose results are compared.

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"

namespace support {

template <class T>
bits_of<T> bits(T x)
{
  return __builtin_bit_cast(bits_of<T>, x);
}

// −0 is not 0. One NaN is as good as another: IEEE 754 leaves open which of two is handed on, and compilers swap
// operands.
template <class T>
bool same_bits(T a, T b)
{
  return bits(a) == bits(b) || (std::isnan(a) && std::isnan(b));
}

// A number with all its digits.
template <class T>
std::string hexadecimal(T x)
{
  char text[64];
  std::snprintf(text, sizeof text, "%a", double(x));
  return text;
}

// Where two lists first differ; -1 if nowhere.
template <class T>
std::ptrdiff_t first_difference(const std::vector<T>& a, const std::vector<T>& b)
{
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    if (!same_bits(a[i], b[i]))
      return std::ptrdiff_t(i);
  return a.size() == b.size() ? -1 : std::ptrdiff_t(a.size() < b.size() ? a.size() : b.size());
}

#if defined(GRADUS_HAS_SIMD)
// Every instruction set of xsimd's that this build's flags allow.
using architectures = xsimd::supported_architectures;

// One for each width of register: the first of the list, which is the best.
template <class Taken, class... Archs>
struct widths_among {
  using type = Taken;
};
template <class... Taken, class Arch, class... Archs>
struct widths_among<xsimd::arch_list<Taken...>, Arch, Archs...> {
  static constexpr bool known = ((xsimd::batch<float, Taken>::size == xsimd::batch<float, Arch>::size) || ...);
  using type = typename widths_among<
      std::conditional_t<known, xsimd::arch_list<Taken...>, xsimd::arch_list<Taken..., Arch>>, Archs...>::type;
};
template <class List>
struct widths_of;
template <class... Archs>
struct widths_of<xsimd::arch_list<Archs...>> : widths_among<xsimd::arch_list<>, Archs...> {};
using widths = typename widths_of<architectures>::type;

// Calls f(instruction set, its name) for each of a list.
template <class F, template <class...> class List, class... Archs>
void for_each_architecture(List<Archs...>, F&& f)
{
  const auto call = [&]<class Arch>(Arch a) {
    if constexpr (gradus::backend::pack<double, Arch>::size > 0)  // 64-bit Arm lists the NEON without doubles too
      f(a, Arch::name());
  };
  (call(Archs{}), ...);
}
#endif

}  // namespace support
