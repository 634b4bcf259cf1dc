#pragma once
/// \file
/// The extents of a view of several dimensions, and the order of its elements.

#include <concepts>
#include <cstddef>
#include <string>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// How the elements of a view of several dimensions follow one another in memory.
enum class storage_order {
  any,           ///< one dimension, or nothing known: there is no order to compare
  row_major,     ///< the last index runs fastest
  column_major,  ///< the first index runs fastest
};

/// The extents of a view and its storage order. Parameters and gradients of two or more dimensions each must agree in both.
class view_shape {
 public:
  /// Of more dimensions than this, the first ones are compared.
  static constexpr std::size_t most_extents = 16;

  template <std::integral... Extents>
  constexpr explicit view_shape(storage_order order, Extents... extents) noexcept : order_(order)
  {
    (push_back(static_cast<std::size_t>(extents)), ...);
  }
  constexpr void push_back(std::size_t extent) noexcept
  {
    if (rank_ < most_extents)
      extents_[rank_] = extent;
    ++rank_;
  }

  constexpr std::size_t rank() const noexcept { return rank_; }
  /// `any` where at most one extent differs from 1, since the order is then the same either way.
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
  constexpr bool same_extents(const view_shape& other) const noexcept
  {
    bool same = rank_ == other.rank_;
    for (std::size_t k = 0; k < known() && same; ++k)
      same = extents_[k] == other.extents_[k];
    return same;
  }
  /// "2x3", for sentences.
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
