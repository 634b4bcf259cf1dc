#pragma once
/// \file
/// The handles of an optimizer's groups and tensors, small values that own nothing; and how an optimizer recognises its
/// own.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

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

/// What `remove` does with a tensor's state.
enum class removed_state {
  kept,     ///< kept until a tensor of the same name and length is added, which continues with it; for remainder16 with
            ///< the parameters, which are then written to the new memory
  dropped,  ///< deleted, and the name is free again
};

/// Whether the gradients' norm and the mean v̄ of a scheduled decay include a tensor.
enum class in_norm {
  counted,            ///< they do
  counted_elsewhere,  ///< they do not, because another process counts its own copy; an infinite or NaN gradient is
                      ///< still noticed
};

namespace detail {

/// Identifies an optimizer, so that it recognises its own handles, even after it was moved. A moved-from optimizer has
/// the number 0.
class owner_number {
 public:
  owner_number() noexcept : value_(++last_) {}
  owner_number(owner_number&& other) noexcept : value_(std::exchange(other.value_, 0)) {}
  std::uint64_t value() const noexcept { return value_; }

 private:
  static inline std::atomic<std::uint64_t> last_ = 0;
  std::uint64_t value_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
