#pragma once
/// \file
/// Which elements of a tensor are padding.

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Which elements of a tensor are padding: a function that tells it of an index, or a range of bool as long as the tensor.
/// It views what it is made of.
///
///     opt.set_padding(h, [n](std::size_t i) { return i >= n; });  // n numbers, and then padding
class padding_mask {
 public:
  template <class Mask>
    requires(!std::is_function_v<Mask> && (requires(const Mask& m) { static_cast<bool>(m(std::size_t())); } ||
                                           requires(const Mask& m) { static_cast<bool>(m[std::size_t()]); std::size(m); }))
  padding_mask(const Mask& mask) noexcept : mask_(std::addressof(mask))
  {
    if constexpr (requires { static_cast<bool>(mask(std::size_t())); })
      call_ = [](const padding_mask& m, std::size_t i) { return static_cast<bool>((*static_cast<const Mask*>(m.mask_))(i)); };
    else {
      size_ = static_cast<std::size_t>(std::size(mask));
      call_ = [](const padding_mask& m, std::size_t i) { return static_cast<bool>((*static_cast<const Mask*>(m.mask_))[i]); };
    }
  }
  padding_mask(bool (*function)(std::size_t)) noexcept : function_(function)
  {
    call_ = [](const padding_mask& m, std::size_t i) { return m.function_(i); };
  }
  bool operator()(std::size_t i) const { return call_(*this, i); }
  std::optional<std::size_t> size() const noexcept { return size_; }  ///< of a range

 private:
  const void* mask_ = nullptr;
  bool (*function_)(std::size_t) = nullptr;
  bool (*call_)(const padding_mask&, std::size_t) = nullptr;
  std::optional<std::size_t> size_ = {};
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
