#pragma once
/// \file
/// The handles of groups and tensors of an optimizer.

#include <cstddef>
#include <cstdint>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// What a handle knows: the number of its optimizer, a place in that optimizer's list, and how often the place has been taken.
struct handle_key {
  std::uint64_t owner = 0;
  std::size_t index = 0;
  std::uint64_t generation = 0;
};

}  // namespace detail

/// A parameter group of one optimizer, from `add_group`. A default-constructed handle is the default group of any optimizer.
class group_handle {
 public:
  group_handle() = default;
  explicit group_handle(const detail::handle_key& key) noexcept : key_(key) {}
  const detail::handle_key& key() const noexcept { return key_; }  ///< for the optimizer

 private:
  detail::handle_key key_;
};

/// A tensor of one optimizer, from `add`. It stays valid when the optimizer is moved, until the tensor is removed.
class tensor_handle {
 public:
  tensor_handle() = default;
  explicit tensor_handle(const detail::handle_key& key) noexcept : key_(key) {}
  const detail::handle_key& key() const noexcept { return key_; }  ///< for the optimizer

 private:
  detail::handle_key key_;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
