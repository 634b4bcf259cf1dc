#pragma once
/// \file
/// Plans a load: decides what is loaded from where before anything changes, and then loads it.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/checkpoint/comparison.hpp>
#include <gradus/checkpoint/keys.hpp>
#include <gradus/checkpoint/options.hpp>
#include <gradus/checkpoint/safetensors/byte_order.hpp>
#include <gradus/checkpoint/safetensors/convert.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/checkpoint/settings.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/error.hpp>
#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The plan of one load.
///
/// The caller first adds what the optimizer has. Then `finish` accepts the file or refuses it. After that the plan says
/// and reads what to load, by the order of adding.
class load_plan {
 public:
  /// Reads the file's header, and refuses a damaged one.
  /// \param where  the beginning of every error message
  load_plan(std::string where, const byte_source& source, const memory_writer& memory, const load_options& o)
      : file_(std::move(where), source, o), values_(file_.where, source, file_.header.data_start, memory)
  {}

  // ── adding what the optimizer has ──────────────────────────────────────────────────────────────────────────────────

  /// Adds the recipe and each group's hyperparameters. Returns the hyperparameters to set, or an empty list if none are
  /// loaded.
  std::vector<number_list> add_settings(const std::string& recipe, const std::vector<number_list>& present)
  {
    has_one_group_ = present.size() == 1 && file_.metadata(metadata_key("groups")) == "1";
    return file_.compare_settings(recipe, present);
  }

  /// The groups' factors on their learning rates, if add_settings returned hyperparameters.
  std::vector<double> lr_scales(std::size_t groups) const { return file_.lr_scales(groups); }

  /// Adds a slot. A tensor's slots must follow one another. An empty tensor name stands for state of the whole model.
  /// \param in_pieces  whether the slot is read to a piece_writer
  void add_state(std::string_view tensor, std::string_view slot, const safetensors::dtype& type, std::uint64_t elements,
                 bool in_pieces)
  {
    if (tensor.empty() || states_.empty() || states_.back().tensor != tensor)
      states_.push_back({std::string(tensor), slots_.size()});
    const std::string key = state_key(tensor, slot);
    // A file of another precision may lack two slots: the parameters replace master weights, and the seed stays as it
    // is.
    const bool other_precision = file_.options.convert && !file_.header.tensors.find(key) &&
                                 ((slot == "master" && file_.report.parameters) || (slot == "seed" && tensor.empty()));
    slots_.push_back({std::string(slot),
                      &type,
                      elements,
                      in_pieces,
                      other_precision ? nullptr : file_.claim(key, type, elements),
                      {}});
    if (slots_.back().from)
      check_count(key, slots_.back());
  }

  /// Adds a tensor's parameters, its group, and whether it takes part in steps.
  void add_tensor(std::string_view tensor, std::size_t group, bool takes_part, const safetensors::dtype& type,
                  std::uint64_t elements)
  {
    const std::string key = metadata_key("group_of/", tensor);
    const auto recorded = file_.metadata(key);
    if (file_.options.settings && recorded && *recorded != std::to_string(group)) {
      file_.differ(load_difference::groups, key,
                   "is " + safetensors::excerpt(*recorded) + "; expected \"" + std::to_string(group) + '"');
      file_.report.settings = false;
    }
    const bool took_part = !file_.metadata(metadata_key("frozen/", tensor));
    // A removed tensor, which has no parameters, does not take part even if settings are loaded.
    const bool loads = file_.report.settings && (takes_part || elements > 0);
    same_take_part_ = same_take_part_ && recorded && (loads || took_part == takes_part);
    const safetensors::entry* parameters = nullptr;
    if (file_.report.parameters && elements > 0) {
      parameters = file_.claim(parameters_key(tensor), type, elements);
      // If the file has master weights and the optimizer has none, they become the parameters, because they are more
      // exact.
      safetensors::entry* const master = file_.header.tensors.find(state_key(tensor, "master"));
      if (file_.options.convert && parameters && master && !master->claimed && master->elements == elements &&
          master->is_float()) {
        master->claimed = true;
        parameters = master;
      }
    }
    tensors_.push_back({recorded ? took_part : takes_part, &type, parameters});
  }

  /// Ends the adding. Unless lenient, refuses the file if anything differs. Afterwards reading allocates nothing.
  void finish()
  {
    for (std::size_t i = 0; i < states_.size(); ++i)
      decide(states_[i].tensor, states_[i].first, i + 1 < states_.size() ? states_[i + 1].first : slots_.size());
    file_.finish();
    for (const planned_slot& s : slots_)
      values_.reserve(s.from, *s.type, s.in_pieces);
    for (const planned_tensor& t : tensors_)
      values_.reserve(t.parameters, *t.type, false);
  }

  // ── loading; tensors and slots are numbered in the order in which they were added ──────────────────────────────────

  /// Whether hyperparameters and frozen tensors are loaded.
  bool restores_settings() const noexcept { return file_.report.settings; }

  /// Whether a tensor takes part in steps.
  bool takes_part(std::size_t tensor) const { return tensors_[tensor].takes_part; }

  /// Reads a tensor's parameters, if they are loaded.
  void read_parameters(std::size_t tensor, void* to)
  {
    values_.read(tensors_[tensor].parameters, *tensors_[tensor].type, to);
  }

  /// Reads a slot, if it is loaded.
  void read_slot(std::size_t slot, void* to)
  {
    const planned_slot& s = slots_[slot];
    if (s.from && s.count)
      std::memcpy(to, &*s.count, sizeof *s.count);
    else
      values_.read(s.from, *s.type, to);
  }
  /// The same for a slot that is read to a piece_writer.
  void read_slot(std::size_t slot, const piece_writer& to) { values_.read(slots_[slot].from, *slots_[slot].type, to); }

  /// Whether a scheduled decay's sums must be recomputed. A sum belongs to all tensors that share β₂ and the step
  /// count, so it is of no use if other tensors share them here. (A sum that the file lacks is one of the differences.)
  bool needs_new_sums() const noexcept
  {
    return !file_.report.differences.empty() || !same_take_part_ || !same_groups();
  }

  /// The report for the caller.
  load_report& report() noexcept { return file_.report; }

 private:
  struct planned_slot {
    std::string slot;
    const safetensors::dtype* type;
    std::uint64_t elements;
    bool in_pieces;                      // whether it is read to a piece_writer
    const safetensors::entry* from;      // null if it is not loaded
    std::optional<std::uint64_t> count;  // the bits of a count or sum, which check_count has already read
  };
  struct planned_state {
    std::string tensor;  // empty for state of the whole model
    std::size_t first;   // index of its first slot
  };
  struct planned_tensor {
    bool takes_part;
    const safetensors::dtype* type;
    const safetensors::entry* parameters;  // null if they are not loaded
  };

  /// Whether tensors that shared β₂ still do: with the file's groups, with one group there and here, or with a whole
  /// model's sum, of which there is only one.
  bool same_groups() const noexcept { return file_.report.settings || sum_is_of_model_ || has_one_group_; }

  /// Refuses counts and sums that no run can reach, because a step computes with them.
  void check_count(const std::string& key, planned_slot& s)
  {
    const bool step = s.slot == "step", sum = s.slot == "exp_avg_sq_sum",
               of_model = s.slot == "exp_avg_sq_sum_is_of_model";
    if ((!step && !of_model && !sum) || s.type->bytes != 8 || s.from->elements != 1)
      return;
    std::uint64_t count = 0;
    unsigned char bytes[sizeof count] = {};
    file_.read(file_.header.data_start + s.from->begin, bytes, s.from->type->bytes);
    if (s.from->type == s.type)
      std::memcpy(&count, bytes, sizeof count);
    else
      safetensors::convert(*s.from->type, bytes, *s.type, reinterpret_cast<unsigned char*>(&count), 1);
    safetensors::change_order(&count, 1, sizeof count);
    s.count = count;
    const double value = sum ? __builtin_bit_cast(double, count) : 0;
    const auto check = [&](bool good, const char* expected) {
      if (!good)
        fail(file_.where + ": " + safetensors::excerpt(key) + " is " + (sum ? show(value) : std::to_string(count)) +
             "; expected " + expected);
    };
    check(!step || count < std::uint64_t(1) << 53, "fewer than 2^53 steps");
    check(!of_model || count <= 1, "0 or 1");
    // A sum that is NaN or infinite is unknown, and the optimizer recomputes it from the moments.
    check(!sum || is_nan(value) || value >= 0, "a sum of squares");
    sum_is_of_model_ = sum_is_of_model_ || (of_model && count == 1);
  }

  /// Decides whether a tensor's state, the slots from `begin` to `end`, is loaded. It is loaded whole or not at all,
  /// because moments are useless without the step count that corrects their bias. Three slots are exceptions: a maximum
  /// can start at any step, a sum can be recomputed, and master weights go with the parameters, from which they can be
  /// made.
  void decide(const std::string& tensor, std::size_t begin, std::size_t end)
  {
    const auto is_sum = [](const planned_slot& s) { return s.slot.starts_with("exp_avg_sq_sum"); };
    const auto is_master = [](const planned_slot& s) { return s.slot == "master"; };
    load_report& report = file_.report;
    bool whole = true;
    for (std::size_t i = begin; i < end; ++i)
      whole = whole && (slots_[i].from || slots_[i].slot == "max_exp_avg_sq" || slots_[i].slot == "trained" ||
                        is_sum(slots_[i]) || is_master(slots_[i]));
    for (std::size_t i = begin; i < end; ++i) {
      planned_slot& s = slots_[i];
      if (is_master(s) && report.parameters) {
        const safetensors::entry* const parameters = file_.header.tensors.find(parameters_key(tensor));
        if (!s.from && parameters && parameters->elements == s.elements && parameters->is_float())
          s.from = parameters;
      } else if (!whole)
        s.from = nullptr;
      if (!s.from && !is_sum(s) && (whole || is_master(s)) && !tensor.empty())
        report.afresh.push_back(tensor + '/' + s.slot);
    }
    if (!whole)
      report.afresh.push_back(tensor.empty() ? '/' + slots_[begin].slot : tensor);
  }

  comparison file_;
  value_reader values_;
  std::vector<planned_state> states_;
  std::vector<planned_slot> slots_;
  std::vector<planned_tensor> tensors_;
  bool same_take_part_ = true, has_one_group_ = false, sum_is_of_model_ = false;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
