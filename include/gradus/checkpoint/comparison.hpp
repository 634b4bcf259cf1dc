#pragma once
/// \file
/// Compares a checkpoint with an optimizer, entry by entry, and collects the differences.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/checkpoint/decimal.hpp>
#include <gradus/checkpoint/keys.hpp>
#include <gradus/checkpoint/options.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/parser.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/checkpoint/settings.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// An error message lists this many differences and counts the others, because a model may have a hundred thousand
/// tensors.
inline constexpr std::size_t most_differences_shown = 10;

/// A checkpoint's header, and how the optimizer differs from it.
class comparison {
 public:
  /// Reads the header. Refuses a damaged one, and a version of the layout that is not ours.
  /// \param where_from  the beginning of every error message
  comparison(std::string where_from, const byte_source& bytes, const load_options& o)
      : where(std::move(where_from)), source(bytes), options(o),
        header(safetensors::read_header(where, source.size, [this](std::uint64_t offset, void* to, std::size_t count) {
          read(offset, to, count);
        }))
  {
    std::size_t own = 0;
    for (std::size_t i = 0; i < header.metadata.size(); ++i)
      own += !header.metadata.key(i).starts_with(metadata_prefix);
    if (own > most_own_strings)
      fail(where + ": __metadata__ has " + std::to_string(own) + " strings that are not gradus's; expected at most " +
           std::to_string(most_own_strings));
    for (std::size_t i = 0; i < header.metadata.size(); ++i)
      if (const std::string_view name = header.metadata.key(i); !name.starts_with(metadata_prefix))
        report.metadata.emplace(name, header.view(header.metadata[i].value));
    const std::size_t first = header.tensors.lower_bound(parameters_prefix);
    report.parameters = options.parameters.value_or(first < header.tensors.size() &&
                                                    header.tensors.key(first).starts_with(parameters_prefix));
    report.settings = options.settings;
    const auto format = metadata(metadata_key("format"));
    if (!format)
      differ(load_difference::missing, metadata_key("format"), "is missing; expected a file that gradus wrote");
    else if (*format != checkpoint_format)
      fail(where + ": format is " + safetensors::excerpt(*format) + "; expected \"" + std::string(checkpoint_format) +
           "\": another version of gradus wrote it");
  }

  const std::string where;     ///< the beginning of every error message
  const byte_source source;    ///< the checkpoint's bytes
  const load_options options;  ///< the caller's options
  safetensors::header header;  ///< the checkpoint's entries and metadata
  load_report report;          ///< the differences so far, and whether parameters and settings are to be loaded

  /// Reads bytes of the checkpoint while nothing has been changed yet.
  void read(std::uint64_t offset, void* to, std::size_t count) const
  {
    if (!source.read(source.self, offset, to, count))
      fail<io_error>(where + ": could not be read");
  }

  /// A metadata string of the checkpoint; none if it has no such key.
  std::optional<std::string_view> metadata(const std::string& key) const
  {
    const safetensors::named_string* const found = header.metadata.find(key);
    return found ? header.view(found->value) : std::optional<std::string_view>();
  }

  /// Notes a difference. \p rest  what was found and expected, without the key
  void differ(load_difference::kind kind, const std::string& key, const std::string& rest)
  {
    report.differences.push_back({kind, key, safetensors::excerpt(key) + ' ' + rest});
  }

  /// Finds the entry with this key, and marks it as used. Returns null and notes a difference if it does not fit.
  const safetensors::entry* claim(const std::string& key, const safetensors::dtype& type, std::uint64_t elements)
  {
    safetensors::entry* const found = header.tensors.find(key);
    if (!found) {
      differ(load_difference::missing, key,
             "is missing; expected " + std::to_string(elements) + " of " + std::string(type.name));
      return nullptr;
    }
    safetensors::entry& e = *found;
    e.claimed = true;
    const bool converts = options.convert && e.is_float() && type.is_float;
    if (e.type && e.elements != elements)
      differ(load_difference::misshapen, key,
             "has " + std::to_string(e.elements) + " elements; expected " + std::to_string(elements));
    else if (e.type != &type && !converts)
      differ(load_difference::mistyped, key,
             "is of type " + type_of(e) + "; expected " + std::string(type.name) +
                 (e.is_float() && type.is_float ? ", or convert = true" : ""));
    else
      return &e;
    return nullptr;
  }

  /// Compares the recipe and each group's hyperparameters with the optimizer's. Returns the hyperparameters to set, or
  /// an empty list if the optimizer keeps its own.
  std::vector<number_list> compare_settings(const std::string& recipe, const std::vector<number_list>& present)
  {
    const bool same_recipe = compare(load_difference::recipe, metadata_key("recipe"), recipe);
    report.settings = report.settings && same_recipe &&
                      compare(load_difference::groups, metadata_key("groups"), std::to_string(present.size()));
    if (!report.settings)
      return {};
    std::vector<number_list> loaded = present;
    for (std::size_t g = 0; g < present.size(); ++g)
      for (auto& [name, value] : loaded[g]) {
        const std::string key = hyperparameter_key(g, name);
        const auto text = metadata(key);
        const auto number = text ? to_number(*text) : std::nullopt;
        if (text && !number)
          fail(where + ": " + quote(key) + " is " + safetensors::excerpt(*text) + "; expected a number");
        if (!text)
          differ(load_difference::missing, key, "is missing; expected a number");
        // These decide which state exists, so the program must set them.
        else if (const bool is_momentum = name == "momentum" || name == "first_moment.momentum";
                 (is_momentum || name == "centered" || name == "second_moment.centered") &&
                 (value == 0) != (*number == 0)) {
          differ(load_difference::groups, key,
                 "is " + to_text(*number) + "; expected " +
                     (value == 0    ? "0"
                      : is_momentum ? "a number > 0"
                                    : "1") +
                     ", as here, where no " +
                     (is_momentum ? "buffer is kept for a momentum" : "grad_avg is kept for a centered") +
                     " of 0: set it before");
          report.settings = false;
        } else
          value = *number;
      }
    return report.settings ? loaded : std::vector<number_list>();
  }

  /// The groups' factors on their learning rates. \pre compare_settings returned hyperparameters to set
  std::vector<double> lr_scales(std::size_t groups) const
  {
    std::vector<double> scales(groups, 1.0);
    for (std::size_t g = 0; g < groups; ++g)
      if (const auto text = metadata(lr_scale_key(g))) {
        const auto number = to_number(*text);
        if (!number || !contains(range::at_least_zero, *number))
          fail(where + ": " + quote(lr_scale_key(g)) + " is " + safetensors::excerpt(*text) + "; expected " +
               expectation(range::at_least_zero));
        scales[g] = *number;
      }
    return scales;
  }

  /// Ends the comparison: notes the entries that nobody claimed and, unless lenient, refuses any difference.
  void finish()
  {
    const auto is_surplus = [&](std::size_t i) {
      const std::string_view key = header.tensors.key(i);
      return !header.tensors[i].claimed && !(options.parameters == false && key.starts_with(parameters_prefix)) &&
             !(options.convert && key == state_key({}, "seed"));
    };
    std::size_t surplus = 0;
    for (std::size_t i = 0; i < header.tensors.size(); ++i)
      surplus += is_surplus(i);
    const std::size_t count = report.differences.size() + surplus;
    const std::size_t shown = count < most_differences_shown ? count : most_differences_shown;
    const std::size_t listed = options.lenient ? count : shown;
    // All memory at once, because the file says how many there are.
    report.differences.reserve(listed);
    for (std::size_t i = 0; i < header.tensors.size() && report.differences.size() < listed; ++i)
      if (is_surplus(i))
        differ(load_difference::surplus, std::string(header.tensors.key(i)),
               "is in the file; expected nothing under this key");
    if (options.lenient || count == 0)
      return;
    std::string all;
    for (std::size_t i = 0; i < shown; ++i)
      all += "\n  " + report.differences[i].sentence;
    if (shown < count)
      all += "\n  and " + std::to_string(count - shown) +
             " more, which load_report::differences of a lenient load lists";
    fail(where + " and this optimizer differ in " + std::to_string(count) +
         "; expected the same (lenient = true loads what fits):" + all);
  }

 private:
  bool compare(load_difference::kind kind, const std::string& key, const std::string& expected)
  {
    const auto found = metadata(key);
    if (found == expected)
      return true;
    if (!found)
      differ(load_difference::missing, key, "is missing; expected \"" + expected + '"');
    else
      differ(kind, key, "is " + safetensors::excerpt(*found) + "; expected \"" + expected + '"');
    return false;
  }

  std::string type_of(const safetensors::entry& e) const
  {
    return e.type ? std::string(e.type->name) : safetensors::excerpt(header.view(e.type_name));
  }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
