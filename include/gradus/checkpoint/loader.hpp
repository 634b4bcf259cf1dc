#pragma once
/// \file
/// Loads a checkpoint into an optimizer: shows the optimizer to a load_plan, then carries the plan out.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/checkpoint/load_plan.hpp>
#include <gradus/checkpoint/options.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/settings.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Loads from any source of bytes. \p where  the beginning of every error message
template <class Opt>
load_report load_checkpoint(Opt& opt, const std::string& where, const byte_source& source, const load_options& o)
{
  load_plan plan(where, source, memory_writer_of(opt), o);
  const Opt& present = opt;
  std::vector<number_list> numbers;
  for (std::size_t g = 0; g < opt.group_count(); ++g)
    numbers.push_back(numbers_of(present, g));
  numbers = plan.add_settings(recipe_of(present), numbers);
  std::vector<decltype(checked_hyperparameters(present, 0, numbers[0]))> settings;
  for (std::size_t g = 0; g < numbers.size(); ++g) {
    const std::string in_group = where + ": group " + std::to_string(g);
    const fail_in context(in_group);
    settings.push_back(checked_hyperparameters(present, g, numbers[g]));
  }
  const std::vector<double> lr_scales = plan.lr_scales(numbers.size());
  const auto add = [&]<class Values>(std::string_view tensor, std::string_view slot, const Values& values) {
    using element = std::remove_const_t<typename Values::element_type>;
    plan.add_state(tensor, slot, safetensors::dtype_of<element>(), values.size(), !requires { values.data(); });
  };
  present.visit_state(in_place(add));
  present.visit_tensors([&]<class X>(std::string_view tensor, std::span<X> parameters, std::size_t group,
                                     bool takes_part) {
    plan.add_tensor(tensor, group, takes_part, safetensors::dtype_of<std::remove_const_t<X>>(), parameters.size());
  });
  plan.finish();
  if constexpr (requires { opt.before_load(); })
    opt.before_load();  // several processes load together, or none
  // From here on nothing is allocated, and nothing can fail except reading.
  if (plan.restores_settings())
    for (std::size_t g = 0; g < settings.size(); ++g) {
      opt.set_hyperparameters(settings[g], opt.group_at(g));
      opt.set_lr_scale(lr_scales[g], opt.group_at(g));
    }
  std::size_t i = 0;
  opt.visit_tensors([&](std::string_view, auto parameters, std::size_t, bool& takes_part) {
    if (plan.restores_settings())
      takes_part = plan.takes_part(i);
    plan.read_parameters(i++, parameters.data());
  });
  i = 0;
  const auto fill = [&](std::string_view, std::string_view, const auto& values) {
    if constexpr (requires { values.data(); })
      plan.read_slot(i++, values.data());
    else
      plan.read_slot(i++, piece_writer_of(values));
  };
  opt.visit_state(in_place(fill));
  if (plan.needs_new_sums()) {
    if constexpr (requires { opt.recompute_sums(); })
      opt.recompute_sums();
    else
      opt.recompute_second_moment_sum();
  }
  return std::move(plan.report());
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
