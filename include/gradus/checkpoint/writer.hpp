#pragma once
/// \file
/// Decides what `save` writes: the header, and the arrays in the order of the file.

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/checkpoint/decimal.hpp>
#include <gradus/checkpoint/keys.hpp>
#include <gradus/checkpoint/options.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/checkpoint/settings.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/config.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Calls f(key, span) for each array that is saved, in the order of the file. Larger elements come first, so all are
/// aligned.
template <class Opt, class F>
void for_each_saved(const Opt& opt, bool parameters, const F& f)
{
  for (const std::size_t bytes : {8u, 4u, 2u, 1u}) {
    const auto saved = [&]<class Values>(std::string_view tensor, std::string_view slot, const Values& values) {
      if (sizeof(typename Values::element_type) == bytes)
        f(state_key(tensor, slot), values);
    };
    opt.visit_state(in_place(saved));
    if (parameters)
      opt.visit_tensors([&]<class X>(std::string_view tensor, std::span<X> values, std::size_t, bool) {
        if (sizeof(X) == bytes && !values.empty())
          f(parameters_key(tensor), values);
      });
  }
}

/// The file's bytes before the arrays. Refuses names and metadata that the format cannot hold, and too many tensors.
template <class Opt>
std::string header_of(const Opt& opt, const save_options& o)
{
  const auto check_utf8 = [](const char* what, std::string_view text) {
    if (!safetensors::is_utf8(text))
      fail(std::string(what) + " is " + safetensors::excerpt(text) + "; expected UTF-8, as the file's keys are");
  };
  const std::string recipe = recipe_of(opt);
  check_utf8("name of the recipe", recipe);
  safetensors::header_writer header;
  header.metadata(metadata_key("format"), checkpoint_format);
  header.metadata(metadata_key("version"), std::to_string(GRADUS_VERSION_MAJOR) + '.' +
                                               std::to_string(GRADUS_VERSION_MINOR) + '.' +
                                               std::to_string(GRADUS_VERSION_PATCH));
  header.metadata(metadata_key("recipe"), recipe);
  header.metadata(metadata_key("groups"), std::to_string(opt.group_count()));
  for (std::size_t g = 0; g < opt.group_count(); ++g)
    for (const auto& [name, value] : numbers_of(opt, g)) {
      check_utf8("name of a hyperparameter", name);
      header.metadata(hyperparameter_key(g, name), to_text(value));
    }
  for (std::size_t g = 0; g < opt.group_count(); ++g)
    if (const double lr_scale = opt.lr_scale(opt.group_at(g)); lr_scale != 1)
      header.metadata(lr_scale_key(g), to_text(lr_scale));
  opt.visit_tensors([&](std::string_view tensor, auto, std::size_t group, bool takes_part) {
    check_utf8("name of a tensor", tensor);
    header.metadata(metadata_key("group_of/", tensor), std::to_string(group));
    if (!takes_part)
      header.metadata(metadata_key("frozen/", tensor), "1");
  });
  if (o.metadata.size() > most_own_strings)
    fail("metadata has " + std::to_string(o.metadata.size()) + " strings; expected at most " +
         std::to_string(most_own_strings) + "; put many into one");
  std::map<std::string_view, bool> own;
  for (const auto& [name, value] : o.metadata) {
    if (!safetensors::is_utf8(name) || !safetensors::is_utf8(value) || name.starts_with(metadata_prefix) ||
        !own.emplace(name, true).second)
      fail("metadata has " + safetensors::excerpt(name) + " = " + safetensors::excerpt(value) +
           "; expected UTF-8, each name once, and no name that begins with " + quote(metadata_prefix));
    header.metadata(name, value);
  }
  for_each_saved(opt, o.parameters, [&]<class Values>(const std::string& key, const Values& values) {
    check_utf8("key of a slot", key);
    header.tensor(key, safetensors::dtype_of<std::remove_const_t<typename Values::element_type>>(), values.size());
  });
  std::string bytes = header.finish();
  if (bytes.size() - 8 > safetensors::longest_header) {
    std::size_t tensors = 0;
    opt.visit_tensors([&](std::string_view, auto, std::size_t, bool) { ++tensors; });
    fail("the checkpoint's header for " + std::to_string(tensors) + (tensors == 1 ? " tensor" : " tensors") + " has " +
         std::to_string(bytes.size() - 8) + " bytes; expected at most " + std::to_string(safetensors::longest_header) +
         ", the format's limit; add adjacent small tensors as one, give shorter names, or save several optimizers to "
         "several files");
  }
  return bytes;
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
