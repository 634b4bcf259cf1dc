#pragma once
/// \file
/// The handles of an optimizer's groups and tensors. They are small values that own nothing; only their optimizer can
/// interpret them.

#include <cstddef>
#include <cstdint>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The contents of a handle.
struct handle_key {
  std::uint64_t owner = 0;       // the optimizer's number
  std::size_t index = 0;         // in the optimizer's list
  std::uint64_t generation = 0;  // distinguishes tensors that had the same index one after the other
};

}  // namespace detail

/// A parameter group of one optimizer, from `add_group`. It stays valid when the optimizer is moved.
class group_handle {
 public:
  /// The default group of any optimizer.
  group_handle() = default;
  /// Used by the optimizer.
  explicit group_handle(const detail::handle_key& key) noexcept : key_(key) {}
  /// Used by the optimizer.
  const detail::handle_key& key() const noexcept { return key_; }

 private:
  detail::handle_key key_;
};

/// A tensor of one optimizer, from `add`. It stays valid until the tensor is removed, even if the optimizer is moved.
class tensor_handle {
 public:
  /// No tensor; every call with it fails.
  tensor_handle() = default;
  /// Used by the optimizer.
  explicit tensor_handle(const detail::handle_key& key) noexcept : key_(key) {}
  /// Used by the optimizer.
  const detail::handle_key& key() const noexcept { return key_; }

 private:
  detail::handle_key key_;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
