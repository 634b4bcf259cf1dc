#pragma once
/// \file
/// The handles of what was added to an optimizer.

#include <cstddef>
#include <cstdint>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A parameter group of one optimizer; default-constructed, the default group of any.
class group_handle {
 public:
  group_handle() = default;

 private:
  group_handle(std::uint64_t owner, std::size_t index) : owner_(owner), index_(index) {}
  std::uint64_t owner_ = 0;
  std::size_t index_ = 0;
  template <class, class, class>
  friend class optimizer;
};

/// A tensor of one optimizer.
class tensor_handle {
 public:
  tensor_handle() = default;

 private:
  tensor_handle(std::uint64_t owner, std::size_t index, std::uint64_t generation)
      : owner_(owner), index_(index), generation_(generation)
  {
  }
  std::uint64_t owner_ = 0;
  std::size_t index_ = 0;
  std::uint64_t generation_ = 0;
  template <class, class, class>
  friend class optimizer;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
