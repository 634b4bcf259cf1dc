#pragma once
/// \file
/// Where each tensor of a sharded optimizer is in one long array, and which rank has which part. Knows sizes only.
///
/// The array consists of pages of 4096 elements. A tensor of at least a page begins a page; smaller ones lie in what is
/// left of a page and never cross its end. So every page of the array has whole pages of tensors, and sums by pages
/// (kernel/reduce.hpp) do not depend on how pages are dealt out. The array is cut into buckets, which are reduced and
/// gathered one by one, and each bucket into as many equal slices as there are ranks.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <gradus/kernel/reduce.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Elements from `begin` on and before `end`.
struct element_range {
  std::size_t begin = 0, end = 0;
  std::size_t size() const noexcept { return end - begin; }
};

/// The part of one tensor that is in one slice.
struct tensor_part {
  std::size_t tensor;  // its index
  std::size_t first;   // the index of the part's first element in the tensor
  std::size_t size;
  std::size_t place;  // of this element in the array
  std::size_t bucket;
};

/// The layout of one model for a number of ranks.
class page_layout {
 public:
  page_layout() = default;
  /// \param sizes            of the tensors, in elements
  /// \param bucket_elements  the length of a bucket; it is rounded to a page a rank, or several
  page_layout(const std::vector<std::size_t>& sizes, std::size_t ranks, std::size_t bucket_elements) : ranks_(ranks)
  {
    std::size_t end = 0;
    for (const std::size_t n : sizes) {
      const std::size_t begin = (end + small_step - 1) / small_step * small_step, left = page_size - begin % page_size;
      const bool crosses = n >= page_size || n > left;
      tensors_.push_back({crosses ? page_count(begin) * page_size : begin, 0});
      tensors_.back().end = tensors_.back().begin + n;
      end = n > 0 ? tensors_.back().end : end;
    }
    const std::size_t unit = ranks * page_size, units = end / unit + (end % unit != 0);
    const std::size_t in_bucket = bucket_elements / unit > 0 ? bucket_elements / unit : 1;
    for (std::size_t u = 0; u < units; u += in_bucket)
      buckets_.push_back({u * unit, (u + in_bucket < units ? u + in_bucket : units) * unit});
    elements_ = units * unit;
  }

  std::size_t ranks() const noexcept { return ranks_; }
  std::size_t elements() const noexcept { return elements_; }  ///< of the array, with the gaps between tensors
  const std::vector<element_range>& tensors() const noexcept { return tensors_; }  ///< in the array
  const std::vector<element_range>& buckets() const noexcept { return buckets_; }
  /// A rank's slice of a bucket.
  element_range slice(std::size_t bucket, std::size_t rank) const noexcept
  {
    const std::size_t n = buckets_[bucket].size() / ranks_, begin = buckets_[bucket].begin + rank * n;
    return {begin, begin + n};
  }
  /// Whether a tensor has several parts.
  bool is_cut(std::size_t tensor) const noexcept
  {
    const element_range& x = tensors_[tensor];
    if (x.size() == 0)
      return false;
    const element_range& bucket = buckets_[x.begin / buckets_[0].size()];
    const std::size_t n = bucket.size() / ranks_;
    return (x.begin - bucket.begin) / n != (x.end - 1 - bucket.begin) / n;
  }
  /// The number of elements of a rank's slices together.
  std::size_t of_rank() const noexcept { return elements_ / ranks_; }

  /// The parts of tensors that a rank has, in the order of the array. Empty tensors have none.
  std::vector<tensor_part> parts(std::size_t rank) const
  {
    std::vector<tensor_part> all;
    std::size_t i = 0;
    for (std::size_t b = 0; b < buckets_.size(); ++b) {
      const element_range mine = slice(b, rank);
      while (i < tensors_.size() && (tensors_[i].size() == 0 || tensors_[i].end <= mine.begin))
        ++i;
      for (std::size_t k = i; k < tensors_.size(); ++k) {
        const element_range& x = tensors_[k];
        if (x.size() == 0)
          continue;
        if (x.begin >= mine.end)
          break;
        const std::size_t begin = x.begin > mine.begin ? x.begin : mine.begin,
                          end = x.end < mine.end ? x.end : mine.end;
        if (begin < end)
          all.push_back({k, begin - x.begin, end - begin, begin, b});
      }
    }
    return all;
  }

 private:
  // Small tensors begin at multiples of this, so that they are aligned for vectors.
  static constexpr std::size_t small_step = 32;

  std::size_t ranks_ = 1, elements_ = 0;
  std::vector<element_range> tensors_, buckets_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
