#pragma once
/// \file
/// The masks of elements: which are padding (`set_padding`), and which are trained (`add`). Knows no tensor; a mask only
/// answers for an index.

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

template <class Mask>
concept index_mask = requires(const Mask& mask) { static_cast<bool>(mask(std::size_t())); };
template <class Mask>
concept mask_range = requires(const Mask& mask) {
  static_cast<bool>(mask[std::size_t()]);
  std::size(mask);
};

}  // namespace detail

/// Says which elements of a tensor are padding. Converts from a function of an index, or from a range of bool with one
/// element per element of the tensor. It views the function or range, which must outlive it.
///
///     opt.set_padding(h, [n](std::size_t i) { return i >= n; });  // n numbers, then padding
class padding_mask {
 public:
  /// Views a function object or a range of bool.
  template <class Mask>
    requires(!std::is_function_v<Mask> && (detail::index_mask<Mask> || detail::mask_range<Mask>))
  padding_mask(const Mask& mask) noexcept : mask_(std::addressof(mask))
  {
    if constexpr (detail::index_mask<Mask>)
      call_ = [](const padding_mask& m, std::size_t i) {
        return static_cast<bool>((*static_cast<const Mask*>(m.mask_))(i));
      };
    else {
      size_ = static_cast<std::size_t>(std::size(mask));
      call_ = [](const padding_mask& m, std::size_t i) {
        return static_cast<bool>((*static_cast<const Mask*>(m.mask_))[i]);
      };
    }
  }
  /// Stores a pointer to a function.
  padding_mask(bool (*function)(std::size_t)) noexcept : function_(function)
  {
    call_ = [](const padding_mask& m, std::size_t i) { return m.function_(i); };
  }
  /// Whether element i is padding.
  bool operator()(std::size_t i) const { return call_(*this, i); }
  /// The length of a range; nothing for a function.
  std::optional<std::size_t> size() const noexcept { return size_; }

 private:
  const void* mask_ = nullptr;
  bool (*function_)(std::size_t) = nullptr;
  bool (*call_)(const padding_mask&, std::size_t) = nullptr;
  std::optional<std::size_t> size_ = {};
};

/// Says which elements of a tensor are trained; the others keep weight and state to the bit. From a function of an
/// index, or from a range of bool or bytes (0: not trained) with one element per element of the tensor. `add` copies
/// the answers; function and range must outlive only that call.
///
///     opt.add("layer1.weight", weights, gradients, gradus::trained_mask(mask));
class trained_mask : padding_mask {
 public:
  /// Views a function object, a range of bool or bytes, or a pointer to a function.
  template <class Mask>
    requires std::is_constructible_v<padding_mask, const Mask&>
  explicit trained_mask(const Mask& mask) noexcept : padding_mask(mask)
  {}
  using padding_mask::operator();  ///< whether element i is trained
  using padding_mask::size;        ///< the length of a range; nothing for a function
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
