#pragma once
/// \file
/// How the gradients of several ranks are added: the order of the additions, on which the bits of a sum depend.

#include <cstddef>
#include <cstring>
#include <type_traits>

#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// In which order the gradients of the ranks are added.
enum class reduction {
  /// ((g₀ + g₁) + g₂) + …, by the rank that needs the sum, in float even for 16-bit gradients. The same bits with every
  /// communicator and every bucket, for one number of ranks.
  ranks_in_order,
  /// (g₀ + g₁) + (g₂ + g₃), …, likewise. The same bits for every number of ranks if each rank adds its share of the
  /// microbatches in the same way, and their number a rank is a power of two (see sharded::accumulate).
  tree,
  /// By the communicator's own reduce-scatter. Nothing is promised about its bits. Not for 16-bit gradients.
  engine
};

namespace detail {

/// The type in which gradients of type G are added: 16-bit ones in float.
template <class G>
using sum_of = std::conditional_t<std::is_same_v<G, double>, double, float>;

/// to[i] = from[i] as the type of a sum.
template <class G>
void read_gradients(const G* from, sum_of<G>* to, std::size_t n) noexcept
{
  if constexpr (std::is_same_v<G, sum_of<G>>)
    std::memcpy(to, from, n * sizeof(G));
  else
    decode(from, to, n);
}

/// to[i] += from[i].
template <class T>
void add_to(T* to, const T* from, std::size_t n) noexcept
{
  for (std::size_t i = 0; i < n; ++i)
    to[i] += from[i];
}

/// to[i] = left[i] + to[i].
template <class T>
void add_pairwise(const T* left, T* to, std::size_t n) noexcept
{
  for (std::size_t i = 0; i < n; ++i)
    to[i] = T(left[i] + to[i]);
}

/// to[i] = the sum of n elements of each of so many pieces, which lie one after the other, `length` elements apart. `to`
/// may be one of them.
template <class G>
void add_pieces(const G* pieces, std::size_t count, std::size_t length, reduction order, sum_of<G>* to) noexcept
{
  using T = sum_of<G>;
  constexpr std::size_t block = 256, most_levels = 20;
  T sums[most_levels][block];  // a binary counter: level k is the sum of 2^k pieces, or free
  T next[block];
  for (std::size_t i = 0; i < length; i += block) {
    const std::size_t n = length - i < block ? length - i : block;
    if (order == reduction::tree) {
      for (std::size_t r = 0; r < count; ++r) {
        std::size_t level = 0;
        read_gradients(pieces + r * length + i, next, n);
        for (; r >> level & 1; ++level) {
          add_to(sums[level], next, n);
          std::memcpy(next, sums[level], n * sizeof(T));
        }
        std::memcpy(sums[level], next, n * sizeof(T));
      }
      // The sums that are left are added up from the smallest on. The larger sum stands on the left of each addition.
      std::size_t level = 0;
      while (!(count >> level & 1))
        ++level;
      std::memcpy(next, sums[level], n * sizeof(T));
      for (++level; count >> level; ++level)
        if (count >> level & 1) {
          add_to(sums[level], next, n);
          std::memcpy(next, sums[level], n * sizeof(T));
        }
    } else {
      read_gradients(pieces + i, next, n);
      for (std::size_t r = 1; r < count; ++r) {
        if constexpr (std::is_same_v<G, T>)
          add_to(next, pieces + r * length + i, n);
        else {
          read_gradients(pieces + r * length + i, sums[0], n);
          add_to(next, sums[0], n);
        }
      }
    }
    std::memcpy(to + i, next, n * sizeof(T));
  }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
