#pragma once
/// \file
/// The extents of a multidimensional view and its storage order. Knows no library and no memory.

#include <concepts>
#include <cstddef>
#include <string>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The order of a multidimensional view's elements in memory.
enum class storage_order {
  any,           ///< one dimension or unknown; agrees with both orders
  row_major,     ///< the last index varies fastest
  column_major,  ///< the first index varies fastest
  other,         ///< contiguous in neither order, such as images with their channels last, and blocked layouts
};

/// The extents and storage order of a view. Parameters and gradients with two or more dimensions must agree in both.
class view_shape {
 public:
  /// The number of dimensions that are compared; any further ones are only counted.
  static constexpr std::size_t most_extents = 16;

  /// The shape with this storage order and these extents, such as
  /// `view_shape(storage_order::row_major, rows, columns)`.
  template <std::integral... Extents>
  constexpr explicit view_shape(storage_order order, Extents... extents) noexcept : order_(order)
  {
    (push_back(static_cast<std::size_t>(extents)), ...);
  }
  /// Appends an extent, when the number of dimensions is known only at run time.
  constexpr void push_back(std::size_t extent) noexcept
  {
    if (rank_ < most_extents)
      extents_[rank_] = extent;
    ++rank_;
  }

  /// The number of dimensions.
  constexpr std::size_t rank() const noexcept { return rank_; }
  /// The k-th extent, k below the rank and most_extents.
  constexpr std::size_t extent(std::size_t k) const noexcept { return extents_[k]; }
  /// The storage order; `any` for an empty view or if at most one extent differs from 1, because both orders are then
  /// the same.
  constexpr storage_order order() const noexcept
  {
    std::size_t long_extents = 0;
    for (std::size_t k = 0; k < known(); ++k) {
      if (extents_[k] == 0)
        return storage_order::any;
      long_extents += extents_[k] > 1;
    }
    return long_extents > 1 ? order_ : storage_order::any;
  }
  /// Whether both have the same number of dimensions and the same extents.
  constexpr bool same_extents(const view_shape& other) const noexcept
  {
    bool same = rank_ == other.rank_;
    for (std::size_t k = 0; k < known() && same; ++k)
      same = extents_[k] == other.extents_[k];
    return same;
  }
  /// The extents as text for error messages, such as "2x3".
  std::string text() const
  {
    std::string all;
    for (std::size_t k = 0; k < known(); ++k) {
      if (k > 0)
        all += 'x';
      all += std::to_string(extents_[k]);
    }
    return all;
  }

 private:
  constexpr std::size_t known() const noexcept { return rank_ < most_extents ? rank_ : most_extents; }

  storage_order order_;
  std::size_t rank_ = 0;
  std::size_t extents_[most_extents] = {};
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
