#pragma once
/// \file
/// Stochastic rounding of numbers that are stored in fewer bits than they are computed in.
///
/// In a step, a second moment changes by about 1−β₂ = 1/1000 of itself, but bfloat16 has only three decimal digits.
/// Rounding to nearest would lose such changes, and the moment would never move. Such numbers are therefore rounded up
/// with the probability that makes the expected value exact. The random bits are a hash of seed, tensor, step, array
/// and element, so they are the same for any number of threads and any SIMD width, and there is no generator state.

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

/// The FNV-1a hash of a name.
constexpr std::uint64_t hash(std::string_view name) noexcept
{
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name)
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// The key of the noise of one tensor in one step. \param steps  the tensor's step count before this step
GRADUS_HOST_DEVICE constexpr std::uint64_t noise_key(std::uint64_t name_hash, std::uint64_t seed,
                                                     std::uint64_t steps) noexcept
{
  return mix(name_hash + mix(mix(seed) + steps));
}

/// Sixteen random bits for each element of one array in one step. Uses only 32-bit arithmetic, which every SIMD
/// instruction set has. Each range of 2³² elements, aligned to 2³², has its own words a and b. An object serves the
/// range that contains `begin`; for_noise_ranges cuts a loop at the ranges' ends.
struct noise {
  std::uint32_t a = 0, b = 0, first = 0, shift = 0;

  noise() = default;
  /// \param key  from noise_key  \param array  the number of the array in the tensor; two arrays share a word
  /// \param begin  the element of the array that has index 0
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
  static constexpr std::uint32_t weyl = 0x9e3779b1u,
                                 multiplier = 0x846ca68bu;  // the odd one next to 2³²/φ; Wellons's hash's
  GRADUS_HOST_DEVICE std::uint32_t operator()(std::size_t i) const noexcept { return (word(i) >> shift) & 0xffffu; }
  /// 32 random bits: 16 for each of the two arrays.
  GRADUS_HOST_DEVICE std::uint32_t word(std::size_t i) const noexcept
  {
    std::uint32_t x = (first + std::uint32_t(i)) * weyl + a;
    scramble(x);
    return x;
  }
  /// The words of the first n elements, with n rounded up to a multiple of 64, the length of a row of `transform`.
  void words(std::uint32_t* to, std::size_t n) const noexcept
  {
    n = (n + 63) / 64 * 64;
#if defined(__GNUC__) && !defined(__CUDACC__)
    using row [[gnu::vector_size(64)]] = std::uint32_t;
    row x = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    x = (first + x) * weyl + a;
    for (std::size_t i = 0; i < n; i += 16, x += 16 * weyl) {
      row w = x;
      scramble(w);
      std::memcpy(to + i, &w, sizeof w);
    }
#else
    for (std::size_t i = 0; i < n; ++i)
      to[i] = word(i);
#endif
  }

 private:
  template <class U>  // a number or a vector, which by value would need an instruction set
  GRADUS_HOST_DEVICE void scramble(U& x) const noexcept
  {
    x = (x ^ (x >> 15) ^ b) * multiplier;
    x ^= x >> 16;
  }
};

/// The random bits of a `noise` whose words lie in memory, as `words` writes them, so that two arrays need them computed
/// only once.
struct noise_words {
  const std::uint32_t* words = nullptr;
  std::uint32_t shift = 0;

  noise_words from(std::size_t i) const noexcept { return {words + i, shift}; }
  std::uint32_t operator()(std::size_t i) const noexcept { return (words[i] >> shift) & 0xffffu; }
};

/// Cuts the elements [begin, end) of an array at the ends of noise ranges, and calls f(first, last) for each part.
template <class F>
inline void for_noise_ranges(std::uint64_t begin, std::uint64_t end, const F& f) noexcept
{
  while (begin < end) {
    const std::uint64_t left = (std::uint64_t(1) << 32) - std::uint32_t(begin),
                        next = end - begin < left ? end : begin + left;
    f(std::size_t(begin), std::size_t(next));
    begin = next;
  }
}

/// to[i] = f(from[i], i) for all n elements. Copies rows of fixed length to local arrays, because compilers vectorise
/// such loops even at -O2. The last row is padded and computed like the others.
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
