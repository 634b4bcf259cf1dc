#pragma once
/// \file
/// How ranks find out that they disagree: each sends the hash of what it believes, and compares the sum of all hashes
/// with its own. Also the hashes.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include <gradus/number/rounding.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A hash of everything that was added, in order.
class running_hash {
 public:
  std::uint64_t value() const noexcept { return value_; }
  running_hash& add(std::uint64_t x) noexcept
  {
    value_ = mix(value_ + 0x9e3779b97f4a7c15u + mix(x));
    return *this;
  }
  running_hash& add(double x) noexcept { return add(__builtin_bit_cast(std::uint64_t, x)); }
  running_hash& add(bool x) noexcept { return add(std::uint64_t(x)); }
  running_hash& add(std::string_view text) noexcept { return add(hash(text)).add(std::uint64_t(text.size())); }
  running_hash& add(const char* text) noexcept { return add(std::string_view(text)); }
  template <class X>
  running_hash& add(const std::optional<X>& x) noexcept
  {
    return x ? add(true).add(*x) : add(false);
  }
  /// Bytes, eight at a time.
  running_hash& add_bytes(const void* bytes, std::size_t n) noexcept
  {
    const auto* p = static_cast<const unsigned char*>(bytes);
    add(std::uint64_t(n));
    std::uint64_t word = 0, lanes[4] = {1, 2, 3, 4};
    for (; n >= 32; p += 32, n -= 32)
      for (std::size_t k = 0; k < 4; ++k) {
        std::memcpy(&word, p + 8 * k, 8);
        lanes[k] = (lanes[k] ^ word) * 0x9e3779b97f4a7c15u;
        lanes[k] ^= lanes[k] >> 29;
      }
    for (const std::uint64_t lane : lanes)
      add(lane);
    for (; n > 0; p += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
      word = 0;
      std::memcpy(&word, p, n < 8 ? n : 8);
      add(word);
    }
    return *this;
  }

 private:
  std::uint64_t value_ = 0;
};

/// What one rank says and all ranks add up: the hash of what it believes, in halves so that the sum of 2³¹ ranks is exact,
/// and its problem, if it has one.
struct statement {
  static constexpr std::size_t word_count = 6;

  /// \param words  word_count of them
  GRADUS_HOST_DEVICE static void write(std::int64_t* words, std::uint64_t hash, std::uint64_t counted, bool has_problem,
                                       std::size_t rank) noexcept
  {
    words[0] = std::int64_t(hash & 0xffffffffu);
    words[1] = std::int64_t(hash >> 32);
    words[2] = std::int64_t(counted & 0xffffffffu);
    words[3] = std::int64_t(counted >> 32);
    words[4] = has_problem;
    words[5] = has_problem ? std::int64_t(rank) : 0;
  }
  /// From the sums over all ranks: whether all said the same hash.
  GRADUS_HOST_DEVICE static bool agrees(const std::int64_t* words, std::uint64_t hash, std::size_t ranks) noexcept
  {
    return words[0] == std::int64_t((hash & 0xffffffffu) * ranks) && words[1] == std::int64_t((hash >> 32) * ranks);
  }
  GRADUS_HOST_DEVICE static std::uint64_t counted(const std::int64_t* words) noexcept
  {
    return std::uint64_t(words[2]) + (std::uint64_t(words[3]) << 32);
  }
  GRADUS_HOST_DEVICE static std::size_t problems(const std::int64_t* words) noexcept { return std::size_t(words[4]); }
  /// The rank with the problem, if there is one.
  static std::size_t rank_with_problem(const std::int64_t* words) noexcept { return std::size_t(words[5]); }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
