#pragma once
/// \file
/// The keys of a checkpoint's tensors and metadata. docs/checkpoint.md lists them.

#include <cstddef>
#include <string>
#include <string_view>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The version of the layout, under "gradus/format".
inline constexpr std::string_view checkpoint_format = "1";
/// The beginning of the keys of parameters.
inline constexpr std::string_view parameters_prefix = "parameters/";
/// The beginning of the keys of our own metadata; the caller's metadata must not begin so.
inline constexpr std::string_view metadata_prefix = "gradus/";
/// The most strings of the caller's own. In load_report::metadata short ones take ten times the memory that they take in
/// the file.
inline constexpr std::size_t most_own_strings = 10'000;

/// The key of a slot. Slots have no slash in their names, so the last slash ends the tensor's name, which may contain
/// slashes.
inline std::string state_key(std::string_view tensor, std::string_view slot)
{
  return "state/" + std::string(tensor) + '/' + std::string(slot);
}

/// The key of a tensor's parameters.
inline std::string parameters_key(std::string_view tensor)
{
  return std::string(parameters_prefix) + std::string(tensor);
}

/// The key of one of our own metadata strings.
inline std::string metadata_key(std::string_view what, std::string_view which = {})
{
  return std::string(metadata_prefix) + std::string(what) + std::string(which);
}

/// The metadata key of a group's hyperparameter.
inline std::string hyperparameter_key(std::size_t group, std::string_view name)
{
  return metadata_key("group/" + std::to_string(group) + '/', name);
}

/// The metadata key of a group's factor on its learning rate, which the file has if it is not 1.
inline std::string lr_scale_key(std::size_t group) { return metadata_key("lr_scale/", std::to_string(group)); }

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
