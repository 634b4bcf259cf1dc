#pragma once
/// \file
/// `add` and `rebind` over oneDNN's dnnl::memory (2.6 or later), in plain and in blocked layouts.
///
/// Blocked layouts have more elements than the tensor: `add` finds their padding from the memory descriptor, and marks it
/// as `set_padding` does, so that it counts in no mean and stays 0. oneDNN itself keeps the padding of weights and of their
/// gradients 0. Parameters and gradients must have the same layout: the one that the primitive of the forward pass chose
/// for the weights; reorder the gradients into it if that of the backward pass chose another. A tensor that has a mask
/// of trained elements needs one that leaves out the padding, too.

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>

#include <oneapi/dnnl/dnnl.hpp>
#include <oneapi/dnnl/dnnl_debug.h>

#include <gradus/interop/element.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace interop::onednn {

/// The element type of a memory.
inline element element_in(dnnl::memory::data_type type) noexcept
{
  switch (static_cast<dnnl_data_type_t>(type)) {
  case dnnl_f32: return element::float32;
  case dnnl_bf16: return element::bfloat16;
  case dnnl_f16: return element::float16;
#if DNNL_VERSION_MAJOR >= 3
  case dnnl_f64: return element::float64;
#endif
  default: return element::other;
  }
}

/// Where the elements of a tensor lie in memory. The outer index of a dimension has a stride; its inner indices, if it is
/// blocked, are in a block that is contiguous.
class blocked_layout {
 public:
  /// Reads a descriptor.
  explicit blocked_layout(const dnnl::memory::desc& desc)
  {
#if DNNL_VERSION_MAJOR >= 3
    is_blocked_ = desc.get_format_kind() == dnnl::memory::format_kind::blocked;
    const auto fill = [](auto& to, const auto& from) {
      for (std::size_t k = 0; k < from.size(); ++k)
        to[k] = static_cast<std::size_t>(from[k]);
    };
    rank_ = static_cast<std::size_t>(desc.get_ndims());
    fill(extent_, desc.get_dims());
    fill(padded_, desc.get_padded_dims());
    fill(before_, desc.get_padded_offsets());
    if (is_blocked_) {
      fill(stride_, desc.get_strides());
      blocks_ = static_cast<std::size_t>(desc.get_inner_nblks());
      fill(block_, desc.get_inner_blks());
      fill(blocked_, desc.get_inner_idxs());
    }
    offset_ = static_cast<std::size_t>(desc.get_submemory_offset());
    const std::size_t element_size = dnnl::memory::data_type_size(desc.get_data_type());
#else
    const dnnl_memory_desc_t& d = desc.data;
    is_blocked_ = d.format_kind == dnnl_blocked;
    const auto fill = [](auto& to, const auto& from, int n) {
      for (int k = 0; k < n; ++k)
        to[static_cast<std::size_t>(k)] = static_cast<std::size_t>(from[k]);
    };
    rank_ = static_cast<std::size_t>(d.ndims);
    fill(extent_, d.dims, d.ndims);
    fill(padded_, d.padded_dims, d.ndims);
    fill(before_, d.padded_offsets, d.ndims);
    if (is_blocked_) {
      const dnnl_blocking_desc_t& b = d.format_desc.blocking;
      fill(stride_, b.strides, d.ndims);
      blocks_ = static_cast<std::size_t>(b.inner_nblks);
      fill(block_, b.inner_blks, b.inner_nblks);
      fill(blocked_, b.inner_idxs, b.inner_nblks);
    }
    offset_ = static_cast<std::size_t>(d.offset0);
    const std::size_t element_size = dnnl::memory::data_type_size(desc.data_type());
#endif
    outer_ = padded_;
    for (std::size_t k = 0; k < blocks_; ++k) {
      outer_[blocked_[k]] /= block_[k];
      block_size_ *= block_[k];
    }
    // Beyond the elements, some layouts have sums. A part of a memory has no size of its own.
    dense_ = is_blocked_ && sort_dimensions() && (offset_ > 0 || desc.get_size() == size() * element_size);
  }

  /// The number of dimensions.
  std::size_t rank() const noexcept { return rank_; }
  /// A dimension's extent.
  std::size_t extent(std::size_t k) const noexcept { return extent_[k]; }
  /// The elements before the first.
  std::size_t offset() const noexcept { return offset_; }
  /// The number of elements with padding.
  std::size_t size() const noexcept
  {
    std::size_t n = 1;
    for (std::size_t k = 0; k < rank_; ++k)
      n *= padded_[k];
    return n;
  }
  /// Whether elements and padding lie side by side.
  bool is_dense() const noexcept { return dense_; }
  /// Whether there is padding.
  bool is_padded() const noexcept { return padded_ != extent_; }

  /// The order of the elements.
  storage_order order() const
  {
    if (!is_blocked_ || blocks_ > 0)
      return storage_order::other;
    return order_of_strides(
               rank_, [&](std::size_t k) { return extent_[k]; }, [&](std::size_t k) { return stride_[k]; })
        .order;
  }

  /// Whether the element at place i, below size(), is padding.
  bool operator()(std::size_t i) const noexcept
  {
    dims index{}, step;
    step.fill(1);
    std::size_t inside = i % block_size_;
    for (std::size_t k = blocks_; k-- > 0;) {  // the last block is the innermost
      index[blocked_[k]] += inside % block_[k] * step[blocked_[k]];
      inside /= block_[k];
      step[blocked_[k]] *= block_[k];
    }
    for (std::size_t k = 0; k < long_; ++k) {
      const std::size_t d = by_stride_[k];
      index[d] += i / stride_[d] % outer_[d] * step[d];
    }
    for (std::size_t d = 0; d < rank_; ++d)
      if (index[d] < before_[d] || index[d] - before_[d] >= extent_[d])
        return true;
    return false;
  }

  /// Whether elements have the same places in both.
  bool operator==(const blocked_layout& other) const noexcept
  {
    bool same = rank_ == other.rank_ && is_blocked_ == other.is_blocked_ && blocks_ == other.blocks_ &&
                block_ == other.block_ && blocked_ == other.blocked_ && extent_ == other.extent_ &&
                padded_ == other.padded_ && before_ == other.before_;
    for (std::size_t k = 0; k < rank_ && same; ++k)
      same = outer_[k] == 1 || stride_[k] == other.stride_[k];
    return same;
  }

  /// The layout as text, such as "[10, 784] padded to [16, 784], strides [12544, 16], blocks of 16 of dimension 0".
  std::string text() const
  {
    const auto list = [&](const dims& all) { return list_of(rank_, [&](std::size_t k) { return all[k]; }); };
    std::string all = list(extent_);
    if (is_padded())
      all += " padded to " + list(padded_);
    if (!is_blocked_)
      return all + ", not a blocked layout";
    all += ", strides " + list(stride_);
    for (std::size_t k = 0; k < blocks_; ++k)
      all += ", blocks of " + std::to_string(block_[k]) + " of dimension " + std::to_string(blocked_[k]);
    return all;
  }

 private:
  using dims = std::array<std::size_t, DNNL_MAX_NDIMS>;

  /// The outer dimensions longer than 1, by their strides; whether they are those of a dense layout.
  bool sort_dimensions() noexcept
  {
    std::size_t left = 0, step = block_size_;
    for (std::size_t d = 0; d < rank_; ++d)
      left += outer_[d] != 1;
    for (; long_ < left; ++long_) {
      std::size_t next = rank_;
      for (std::size_t d = 0; d < rank_; ++d)
        if (outer_[d] != 1 && stride_[d] == step)
          next = d;
      if (next == rank_)
        return false;
      by_stride_[long_] = next;
      step *= outer_[next];
    }
    return true;
  }

  std::size_t rank_ = 0, blocks_ = 0, block_size_ = 1, offset_ = 0, long_ = 0;
  dims extent_{}, padded_{}, before_{}, stride_{}, outer_{}, block_{}, blocked_{}, by_stride_{};
  bool is_blocked_ = false, dense_ = false;
};

/// The layout of a memory.
inline blocked_layout layout_of(const dnnl::memory& m) { return blocked_layout(m.get_desc()); }

}  // namespace interop::onednn

/// A memory is a handle: a temporary one may be the last, so it is refused; pass a variable.
template <>
struct view_traits<dnnl::memory> {
  /// The first element, if type and memory are the optimizer's.
  template <interop::element_type Element>
  static Element* data_as(const dnnl::memory& m, const view_argument& of)
  {
    if (!m)
      refuse(of.text() + " is an empty memory; expected one with a descriptor and an engine");
    const auto desc = m.get_desc();
#if DNNL_VERSION_MAJOR >= 3
    const auto type = desc.get_data_type();
#else
    const auto type = desc.data_type();
#endif
    if (interop::onednn::element_in(type) != interop::element_of<Element>)
      interop::refuse_tensor(of, "data type", dnnl_dt2str(static_cast<dnnl_data_type_t>(type)),
                             interop::name_of(interop::element_of<Element>));
    if (m.get_engine().get_kind() != dnnl::engine::kind::cpu)
      interop::refuse_tensor(of, "engine", "a GPU's", "one of the CPU");
    auto* const first = static_cast<Element*>(m.get_data_handle());
    return first ? first + interop::onednn::blocked_layout(desc).offset() : nullptr;
  }
  /// The number of elements with padding.
  static std::size_t size(const dnnl::memory& m) { return interop::onednn::layout_of(m).size(); }
  /// Whether elements and padding lie side by side.
  static bool lies_side_by_side(const dnnl::memory& m) { return interop::onednn::layout_of(m).is_dense(); }
  /// The layout as text.
  static std::string layout(const dnnl::memory& m) { return interop::onednn::layout_of(m).text(); }
  /// Dimensions and storage order, without padding.
  static view_shape shape(const dnnl::memory& m)
  {
    const auto layout = interop::onednn::layout_of(m);
    view_shape all(layout.order());
    for (std::size_t k = 0; k < layout.rank(); ++k)
      all.push_back(layout.extent(k));
    return all;
  }
  /// Whether elements have the same places in both.
  static bool same_layout(const dnnl::memory& parameters, const dnnl::memory& gradients)
  {
    return interop::onednn::layout_of(parameters) == interop::onednn::layout_of(gradients);
  }
  /// Which places are padding.
  static std::optional<interop::onednn::blocked_layout> padding(const dnnl::memory& m)
  {
    auto layout = interop::onednn::layout_of(m);
    return layout.is_padded() ? std::optional(layout) : std::nullopt;
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
