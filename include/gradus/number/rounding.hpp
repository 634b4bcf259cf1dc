#pragma once
/// \file
/// How numbers are rounded that are kept in fewer bits than they are computed in.
///
/// A moment moves by a small part of itself in a step: by (1−β₂) = 1/1000 of it, where bfloat16 has three decimal digits. Rounded
/// to nearest, such moves are lost and the moment stands still. So what is kept between steps in fewer bits is rounded
/// stochastically: up with the probability that makes the expected value exact. The random bits are a hash of seed, tensor,
/// step, array and element, and no generator's state: they are the same for any number of threads and any SIMD width.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The finalizer of splitmix64 (Steele, Lea and Flood 2014).
GRADUS_HOST_DEVICE constexpr std::uint64_t mix(std::uint64_t x) noexcept
{
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// FNV-1a of a name.
constexpr std::uint64_t hash(std::string_view name) noexcept
{
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name)
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// What noise is keyed by. \p steps  the tensor's, before this one
GRADUS_HOST_DEVICE constexpr std::uint64_t noise_key(std::uint64_t name_hash, std::uint64_t seed, std::uint64_t steps) noexcept
{
  return mix(name_hash + mix(mix(seed) + steps));
}

/// Sixteen random bits for each element of one array in one step, in 32-bit arithmetic alone, which every SIMD set has. Each
/// range of 2³² elements, from a multiple of that, has words a and b of its own: these are of the range that `begin` is in, and
/// a loop that leaves it needs others (for_noise_ranges).
struct noise {
  std::uint32_t a = 0, b = 0, first = 0, shift = 0;

  noise() = default;
  /// \param key  of the tensor and step  \param array  which of the tensor's arrays; two share the halves of a word
  /// \param begin  the array's element that index 0 stands for
  GRADUS_HOST_DEVICE noise(std::uint64_t key, std::size_t array, std::uint64_t begin) noexcept
      : first(std::uint32_t(begin)), shift(array % 2 ? 16 : 0)
  {
    const std::uint64_t h = mix(key + 0x9e3779b97f4a7c15u * (array / 2 + 1) + mix(begin >> 32));
    a = std::uint32_t(h);
    b = std::uint32_t(h >> 32);
  }
  GRADUS_HOST_DEVICE noise from(std::size_t i) const noexcept
  {
    noise moved = *this;
    moved.first += std::uint32_t(i);
    return moved;
  }
  static constexpr std::uint32_t weyl = 0x9e3779b1u, multiplier = 0x846ca68bu;  // the odd one next to 2³²/φ; Wellons's hash's
  GRADUS_HOST_DEVICE std::uint32_t operator()(std::size_t i) const noexcept
  {
    std::uint32_t x = (first + std::uint32_t(i)) * weyl + a;
    x = (x ^ (x >> 15) ^ b) * multiplier;
    x ^= x >> 16;
    return (x >> shift) & 0xffffu;
  }
};

/// Calls f(first, last) on the parts of [begin, end), elements of an array, that are each in one range of noise.
template <class F>
inline void for_noise_ranges(std::uint64_t begin, std::uint64_t end, const F& f) noexcept
{
  while (begin < end) {
    const std::uint64_t left = (std::uint64_t(1) << 32) - std::uint32_t(begin), next = end - begin < left ? end : begin + left;
    f(std::size_t(begin), std::size_t(next));
    begin = next;
  }
}

/// to[i] = f(from[i], i) for all n elements, by rows of fixed length in memory that nothing else can name: of such loops
/// compilers make SIMD code even at -O2, and the last row, padded, is computed as all others are.
template <class From, class To, class F>
inline void transform(const From* from, To* to, std::size_t n, const F f) noexcept
{
  constexpr std::size_t row = 64;
  From in[row];
  To out[row];
  std::size_t i = 0;
  for (; n - i >= row; i += row) {
    std::memcpy(in, from + i, sizeof in);
    for (std::size_t k = 0; k < row; ++k)
      out[k] = f(in[k], i + k);
    std::memcpy(to + i, out, sizeof out);
  }
  if (i == n)
    return;
  std::memset(in, 0, sizeof in);
  std::memcpy(in, from + i, (n - i) * sizeof(From));
  for (std::size_t k = 0; k < row; ++k)
    out[k] = f(in[k], i + k);
  std::memcpy(to + i, out, (n - i) * sizeof(To));
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
