#pragma once
/// \file
/// Checkpoints: an optimizer saved to a safetensors file and loaded again, to the bit. docs/checkpoint.md has the layout.
///
///     gradus::save(opt, "run.safetensors", {.parameters = true});
///     gradus::load(opt, "run.safetensors");  // after the same tensors have been added, in any order
///
/// Works with `optimizer` of any recipe, precision and backend, and with `any_optimizer`. A save replaces the file as a
/// whole or not at all; a load checks all that it needs of a file before it changes anything.

#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/checkpoint/random_access_file.hpp>
#include <gradus/checkpoint/replaced_file.hpp>
#include <gradus/checkpoint/safetensors/convert.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/checkpoint/safetensors/parser.hpp>
#include <gradus/checkpoint/safetensors/text.hpp>
#include <gradus/optimizer.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

struct save_options {
  bool parameters = false;                                          ///< the parameters too, so that one file resumes a run
  std::vector<std::pair<std::string, std::string>> metadata = {};  ///< the caller's own (epoch, seeds, …), in UTF-8
};

struct load_options {
  std::optional<bool> parameters = {};  ///< true insists on them, false ignores them; else they are loaded if there
  bool settings = true;                 ///< the groups' hyperparameters, and who is left out, as they were
  bool lenient = false;                 ///< load what fits and report the rest, instead of refusing
  bool convert = false;                 ///< accept floating-point numbers of another precision, rounded to nearest
};

/// In what a file and an optimizer differ.
struct load_difference {
  enum kind { missing, surplus, misshapen, mistyped, recipe, groups };
  kind what;
  std::string key;       ///< as in the file
  std::string sentence;  ///< what is so, and what was expected
};

struct load_report {
  std::vector<load_difference> differences = {};  ///< none after a strict load
  std::vector<std::string> afresh = {};           ///< tensors ("name") and slots ("name/slot") whose state is not the file's
  bool parameters = false;                        ///< whether they were loaded
  bool settings = false;                          ///< likewise
  std::map<std::string, std::string> metadata = {};  ///< the caller's own
};

/// What can be saved and loaded: optimizer and any_optimizer.
template <class Opt>
concept resumable = requires(Opt& opt) {
  typename Opt::value_type;
  opt.recompute_second_moment_sum();
  opt.group_count();
};

namespace detail {

// ── the file's keys ──────────────────────────────────────────────────────────────────────────────────────────────────

inline constexpr std::string_view checkpoint_format = "1";
inline constexpr std::string_view parameters_prefix = "parameters/", metadata_prefix = "gradus/";

/// A slot's name has no slash: the key's last one ends the tensor's name, whatever that has in it.
inline std::string state_key(std::string_view tensor, std::string_view slot)
{
  return "state/" + std::string(tensor) + '/' + std::string(slot);
}
inline std::string parameters_key(std::string_view tensor)
{
  return std::string(parameters_prefix) + std::string(tensor);
}
inline std::string metadata_key(std::string_view what, std::string_view which = {})
{
  return std::string(metadata_prefix) + std::string(what) + std::string(which);
}
inline std::string hyperparameter_key(std::size_t group, std::string_view name)
{
  return metadata_key("group/" + std::to_string(group) + '/', name);
}

/// What to_number and to_text do where the standard library cannot, as libc++ before 20: by the C library, and yet
/// without a locale. strtod is given the digits as a whole number and the power of ten that goes with it, so that no point
/// is to be understood.
inline std::optional<double> to_number_by_strtod(std::string_view text)
{
  std::size_t at = text.starts_with('-') ? 1 : 0;
  std::string digits(text.substr(0, at));
  if (text.substr(at) == "inf" || text.substr(at) == "nan")
    return std::strtod((digits += text.substr(at)).c_str(), nullptr);
  long exponent = 0;
  bool any = false, zero = true, after_point = false;
  for (; at < text.size() && ((text[at] >= '0' && text[at] <= '9') || (text[at] == '.' && !after_point)); ++at)
    if (text[at] == '.')
      after_point = true;
    else {
      digits += text[at];
      any = true;
      zero = zero && text[at] == '0';
      exponent -= after_point;
    }
  if (any && at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    const bool down = ++at < text.size() && text[at] == '-';
    at += at < text.size() && (text[at] == '-' || text[at] == '+');
    any = at < text.size();
    long power = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at)
      power = power < 100'000'000 ? 10 * power + (text[at] - '0') : power;
    exponent += down ? -power : power;
  }
  if (!any || at != text.size())
    return {};
  const double x = std::strtod((digits + 'e' + std::to_string(exponent)).c_str(), nullptr);
  if ((x == 0 && !zero) || !is_finite(x))  // out of range
    return {};
  return x;
}
inline std::string to_text_by_printf(double x)
{
  for (int digits = 1; digits < 17; ++digits)
    if (std::string text = number_text(x, digits); to_number_by_strtod(text) == x)
      return text;
  return number_text(x, 17);
}

/// The shortest decimal number that is read as the same double.
inline std::string to_text(double x)
{
#if defined(__cpp_lib_to_chars)
  char text[40];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
#else
  return to_text_by_printf(x);
#endif
}
inline std::optional<double> to_number(std::string_view text)
{
#if defined(__cpp_lib_to_chars)
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (error != std::errc() || end != text.data() + text.size())
    return {};
  return x;
#else
  return to_number_by_strtod(text);
#endif
}

// ── recipes and their hyperparameters, by name ───────────────────────────────────────────────────────────────────────

/// A recipe's name; of a composition, its rules' names.
template <class Opt>
std::string recipe_of(const Opt& opt)
{
  if constexpr (requires { opt.name(); })
    return std::string(opt.name());
  else {
    std::string found;
    for_each_recipe([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
      if (std::is_same_v<Recipe, typename Opt::recipe_type>)
        found = name;
    });
    using rule = typename Opt::rule_type;
    if (found.empty())
      for (const std::string_view kind : {decltype(rule::first_moment)::kind, decltype(rule::second_moment)::kind,
                                          decltype(rule::step_size)::kind, decltype(rule::decay)::kind})
        (found += found.empty() ? "" : " + ") += kind;
    return found;
  }
}

/// Calls f(name, field, range) for each number of a recipe; those of a composition's rules are called "decay.eps" and so on.
template <class Recipe, class F>
void for_each_number(Recipe& recipe, const F& f)
{
  for_each_hyperparameter(recipe, [&](std::string_view name, auto& field, range r) { f(std::string(name), field, r); });
  if constexpr (requires { recipe.first_moment, recipe.second_moment, recipe.step_size, recipe.decay; }) {
    const auto rule = [&](const std::string& prefix, auto& part) {
      for_each_hyperparameter(part, [&](std::string_view name, auto& field, range r) { f(prefix + std::string(name), field, r); });
    };
    rule("first_moment.", recipe.first_moment);
    rule("second_moment.", recipe.second_moment);
    rule("step_size.", recipe.step_size);
    rule("decay.", recipe.decay);
  }
}

using number_list = std::vector<std::pair<std::string, double>>;

template <class Opt>
number_list numbers_of(const Opt& opt, std::size_t group)
{
  number_list numbers;
  auto h = opt.hyperparameters(opt.group_at(group));
  if constexpr (requires { opt.name(); })
    for (const auto& [name, value] : h)
      numbers.emplace_back(name, value);
  else
    for_each_number(h, [&](const std::string& name, auto& field, range) { numbers.emplace_back(name, double(field)); });
  return numbers;
}

/// What set_hyperparameters is given so that a group has these numbers, which are in the order of numbers_of, and stay; checked.
template <class Opt>
auto checked_hyperparameters(const Opt& opt, std::size_t group, const number_list& numbers)
{
  const group_handle g = opt.group_at(group);
  if constexpr (requires { opt.name(); }) {
    std::vector<std::pair<std::string_view, double>> named(numbers.begin(), numbers.end());
    opt.check_hyperparameters(named, g);
    return named;
  } else {
    auto recipe = opt.hyperparameters(g);
    auto number = numbers.begin();
    for_each_number(recipe, [&](const std::string& name, auto& field, range r) {
      check(name, number->second, r);
      field = static_cast<std::remove_reference_t<decltype(field)>>(number++->second);
    });
    opt.check_hyperparameters(recipe);
    return recipe;
  }
}

// ── a device's memory ────────────────────────────────────────────────────────────────────────────────────────────────

template <class Opt>
inline constexpr bool is_on_device = requires(const Opt& opt, void* p) { opt.copy_memory(p, p, std::size_t()); };

/// A visitor of state that is shown a device's arrays themselves, not a copy of each.
template <class F>
struct in_place {
  const F& f;
  explicit in_place(const F& visitor) noexcept : f(visitor) {}
  static constexpr bool takes_device_memory = true;
  template <class X>
  void operator()(std::string_view tensor, std::string_view slot, std::span<X> values) const
  {
    f(tensor, slot, values);
  }
};
/// How many bytes of a device's memory, or of numbers that are converted, are on their way at a time.
inline constexpr std::size_t staging_bytes = std::size_t(1) << 20;

/// Calls put(bytes, count) for the bytes of a span: at once, or where they are in a device's memory, piece by piece.
template <class Opt, class X, class Put>
void put_values([[maybe_unused]] const Opt& opt, std::span<X> values, std::vector<unsigned char>& staging, const Put& put)
{
  if constexpr (is_on_device<Opt>) {
    staging.resize(staging_bytes);
    const auto* const from = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0, n; i < values.size_bytes(); i += n) {
      n = values.size_bytes() - i < staging_bytes ? values.size_bytes() - i : staging_bytes;
      opt.copy_memory(staging.data(), from + i, n);
      put(staging.data(), n);
    }
  } else if (!values.empty())
    put(values.data(), values.size_bytes());
}

// ── saving ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Calls f(key, span) for all that is saved, in the order of the file: the largest elements first, so that all are aligned.
template <class Opt, class F>
void for_each_saved(const Opt& opt, bool parameters, const F& f)
{
  for (const std::size_t bytes : {8u, 4u, 2u, 1u}) {
    const auto saved = [&]<class X>(std::string_view tensor, std::string_view slot, std::span<X> values) {
      if (sizeof(X) == bytes)
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

template <class Opt>
std::string header_of(const Opt& opt, const save_options& o)
{
  safetensors::header_writer header;
  header.metadata(metadata_key("format"), checkpoint_format);
  header.metadata(metadata_key("version"), std::to_string(GRADUS_VERSION_MAJOR) + '.' + std::to_string(GRADUS_VERSION_MINOR) +
                                               '.' + std::to_string(GRADUS_VERSION_PATCH));
  header.metadata(metadata_key("recipe"), recipe_of(opt));
  header.metadata(metadata_key("groups"), std::to_string(opt.group_count()));
  for (std::size_t g = 0; g < opt.group_count(); ++g)
    for (const auto& [name, value] : numbers_of(opt, g))
      header.metadata(hyperparameter_key(g, name), to_text(value));
  opt.visit_tensors([&](std::string_view tensor, auto, std::size_t group, bool takes_part) {
    if (!safetensors::is_utf8(tensor))
      detail::fail("name of a tensor is " + safetensors::json_string(tensor) + "; expected UTF-8, as the file's keys are");
    header.metadata(metadata_key("group_of/", tensor), std::to_string(group));
    if (!takes_part)
      header.metadata(metadata_key("left_out/", tensor), "1");
  });
  std::map<std::string_view, bool> own;
  for (const auto& [name, value] : o.metadata) {
    if (!safetensors::is_utf8(name) || !safetensors::is_utf8(value) || name.starts_with(metadata_prefix) || !own.emplace(name, true).second)
      detail::fail("metadata has " + safetensors::json_string(name) + " = " + safetensors::json_string(value) +
           "; expected UTF-8, and each name once and not to begin with " + detail::quote(metadata_prefix));
    header.metadata(name, value);
  }
  for_each_saved(opt, o.parameters, [&]<class X>(const std::string& key, std::span<X> values) {
    header.tensor(key, safetensors::dtype_of<std::remove_const_t<X>>(), values.size());
  });
  const std::string bytes = header.finish();
  if (bytes.size() - 8 > safetensors::longest_header) {
    std::size_t tensors = 0;
    opt.visit_tensors([&](std::string_view, auto, std::size_t, bool) { ++tensors; });
    detail::fail("the checkpoint's header has " + std::to_string(bytes.size() - 8) + " bytes, tensors " + std::to_string(tensors) +
         "; expected at most " + std::to_string(safetensors::longest_header) + " bytes, the format's limit: add small tensors that lie side by side as one, " +
         "give shorter names, or save to several files from several optimizers");
  }
  return bytes;
}

// ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A file's bytes, wherever they are. read(self, offset, bytes, count) is false where it could not read all of them.
struct byte_source {
  std::uint64_t size;
  void* self;
  bool (*read)(void* self, std::uint64_t offset, void* bytes, std::size_t count);
};

/// Where a device has the optimizer's memory, copy(self, to, from, bytes) brings a piece there; else copy is null.
struct memory_writer {
  const void* self;
  void (*copy)(const void* self, void* to, const void* from, std::size_t bytes);
};

/// A sentence lists so many differences, and counts the others: a model may have a hundred thousand tensors.
inline constexpr std::size_t most_differences_shown = 10;

/// What a load will do, found out before anything is done: which of the file's entries goes where, and what does not fit.
class load_plan {
 public:
  load_plan(std::string where, const byte_source& source, const memory_writer& memory, const load_options& o)
      : where_(std::move(where)), source_(source), memory_(memory), options_(o),
        header_(safetensors::read_header(where_, source.size, [this](std::uint64_t offset, void* bytes, std::size_t count) {
          if (!source_.read(source_.self, offset, bytes, count))
            detail::fail(where_ + ": could not be read");
        }))
  {
    for (const auto& [name, value] : header_.metadata)
      if (!name.starts_with(metadata_prefix))
        report_.metadata.emplace(name, value);
    const auto first = header_.tensors.lower_bound(parameters_prefix);
    report_.parameters = o.parameters.value_or(first != header_.tensors.end() && first->first.starts_with(parameters_prefix));
    report_.settings = o.settings;
    const auto format = metadata(metadata_key("format"));
    if (!format)
      differ(load_difference::missing, metadata_key("format"), "is missing; expected a file that gradus wrote");
    else if (*format != checkpoint_format)
      detail::fail(where_ + ": format is " + safetensors::json_string(*format) + "; expected \"" + std::string(checkpoint_format) +
           "\": another version of gradus wrote it");
  }

  /// What the optimizer is made of, as visit_state and visit_tensors tell it.
  void add_state(std::string_view tensor, std::string_view slot, const safetensors::dtype& type, std::uint64_t elements)
  {
    if (tensor.empty() || states_.empty() || states_.back().tensor != tensor)
      states_.push_back({std::string(tensor), slots_.size()});
    const std::string key = state_key(tensor, slot);
    // What only another precision has can be done without: master weights are made of the parameters, a seed stays as it is.
    const bool other_precision = options_.convert && !header_.tensors.contains(key) &&
                                 ((slot == "master" && report_.parameters) || (slot == "seed" && tensor.empty()));
    slots_.push_back({std::string(slot), &type, elements, other_precision ? nullptr : claim(key, type, elements), {}});
    if (slots_.back().from)
      check_count(key, slots_.back());
  }
  void add_tensor(std::string_view tensor, std::size_t group, bool takes_part, const safetensors::dtype& type, std::uint64_t elements)
  {
    const std::string key = metadata_key("group_of/", tensor);
    const auto recorded = metadata(key);
    if (options_.settings && recorded && *recorded != std::to_string(group)) {
      differ(load_difference::groups, key, "is " + safetensors::json_string(*recorded) + "; expected \"" + std::to_string(group) + '"');
      report_.settings = false;
    }
    const bool took_part = !metadata(metadata_key("left_out/", tensor));
    same_take_part_ = same_take_part_ && recorded && took_part == takes_part;
    const safetensors::entry* parameters = nullptr;
    if (report_.parameters && elements > 0) {
      parameters = claim(parameters_key(tensor), type, elements);
      // Master weights that have no slot here are the better parameters.
      const auto master = header_.tensors.find(state_key(tensor, "master"));
      if (options_.convert && parameters && master != header_.tensors.end() && !master->second.claimed &&
          master->second.elements == elements && master->second.is_float()) {
        master->second.claimed = true;
        parameters = &master->second;
      }
    }
    tensors_.push_back({recorded ? took_part : takes_part, &type, parameters});
  }
  void add_sum_is_shared(bool is) { sum_is_shared_ = sum_is_shared_ || is; }

  /// The groups' hyperparameters, given those that they have; empty where they stay as they are.
  std::vector<number_list> add_settings(const std::string& recipe, const std::vector<number_list>& present)
  {
    const auto compare = [&](load_difference::kind kind, const std::string& key, const std::string& expected) {
      const auto found = metadata(key);
      if (found == expected)
        return true;
      if (!found)
        differ(load_difference::missing, key, "is missing; expected \"" + expected + '"');
      else
        differ(kind, key, "is " + safetensors::json_string(*found) + "; expected \"" + expected + '"');
      return false;
    };
    const bool same_recipe = compare(load_difference::recipe, metadata_key("recipe"), recipe);
    report_.settings = report_.settings && same_recipe &&
                       compare(load_difference::groups, metadata_key("groups"), std::to_string(present.size()));
    if (!report_.settings)
      return {};
    std::vector<number_list> loaded = present;
    for (std::size_t g = 0; g < present.size(); ++g)
      for (auto& [name, value] : loaded[g]) {
        const std::string key = hyperparameter_key(g, name);
        const auto text = metadata(key);
        const auto number = text ? to_number(*text) : std::nullopt;
        if (text && !number)
          detail::fail(where_ + ": " + detail::quote(key) + " is " + safetensors::json_string(*text) + "; expected a number");
        if (!text)
          differ(load_difference::missing, key, "is missing; expected a number");
        // A momentum of 0 keeps no buffer: it decides what state there is, and so is the program's to set.
        else if ((name == "momentum" || name == "first_moment.momentum") && (value == 0) != (*number == 0)) {
          differ(load_difference::groups, key, "is " + to_text(*number) + "; expected " + (value == 0 ? "0" : "a number > 0") +
                                                   ", as here, where no buffer is kept for a momentum of 0: set it before");
          report_.settings = false;
        } else
          value = *number;
      }
    return report_.settings ? loaded : std::vector<number_list>();
  }

  /// After all has been added: refuses what a strict load refuses.
  void finish()
  {
    for (std::size_t i = 0; i < states_.size(); ++i)
      decide(states_[i].tensor, states_[i].first, i + 1 < states_.size() ? states_[i + 1].first : slots_.size());
    for (const auto& [key, e] : header_.tensors)
      if (!e.claimed && !(options_.parameters == false && key.starts_with(parameters_prefix)) &&
          !(options_.convert && key == state_key({}, "seed")))
        differ(load_difference::surplus, std::string(key), "is in the file; expected nothing under this key");
    if (options_.lenient || report_.differences.empty())
      return make_room();
    const std::size_t count = report_.differences.size(), shown = count < most_differences_shown ? count : most_differences_shown;
    std::string all;
    for (std::size_t i = 0; i < shown; ++i)
      all += "\n  " + report_.differences[i].sentence;
    if (shown < count)
      all += "\n  and " + std::to_string(count - shown) + " more, which load_report::differences of a lenient load lists";
    detail::fail(where_ + " and this optimizer differ in " + std::to_string(count) +
         "; expected the same (lenient = true loads what fits):" + all);
  }

  // ── what is then done; entries are asked for in the order in which they were added ──

  bool restores_settings() const noexcept { return report_.settings; }
  bool takes_part(std::size_t tensor) const { return tensors_[tensor].takes_part; }
  void read_parameters(std::size_t tensor, void* to) { read(tensors_[tensor].parameters, *tensors_[tensor].type, to); }
  void read_slot(std::size_t slot, void* to)
  {
    const planned_slot& s = slots_[slot];
    if (s.from && s.count)
      std::memcpy(to, &*s.count, sizeof *s.count);
    else
      read(s.from, *s.type, to);
  }

  /// A scheduled decay's sums have to be found anew where the file has none for the moments that were loaded, and where
  /// one sum is shared by tensors that are no longer the same.
  bool needs_resum() const noexcept
  {
    const bool others = !report_.differences.empty() || !(same_take_part_ || report_.settings);
    return sums_are_missing_ || (sum_is_shared_ && others);
  }
  load_report& report() noexcept { return report_; }

 private:
  struct planned_slot {
    std::string slot;
    const safetensors::dtype* type;
    std::uint64_t elements;
    const safetensors::entry* from;
    std::optional<std::uint64_t> count;  // a count's or sum's bits, which have been read already
  };
  struct planned_state {
    std::string tensor;  // empty for what belongs to no tensor
    std::size_t first;   // of its slots
  };
  struct planned_tensor {
    bool takes_part;
    const safetensors::dtype* type;
    const safetensors::entry* parameters;
  };

  std::optional<std::string_view> metadata(const std::string& key) const
  {
    const auto found = header_.metadata.find(key);
    return found == header_.metadata.end() ? std::optional<std::string_view>() : found->second;
  }

  void differ(load_difference::kind kind, const std::string& key, const std::string& rest)
  {
    report_.differences.push_back({kind, key, safetensors::json_string(key) + ' ' + rest});
  }

  static std::string type_of(const safetensors::entry& e)
  {
    return e.type ? std::string(e.type->name) : safetensors::json_string(e.type_name);
  }

  /// The file's entry of that key if it fits, null if not.
  const safetensors::entry* claim(const std::string& key, const safetensors::dtype& type, std::uint64_t elements)
  {
    const auto found = header_.tensors.find(key);
    if (found == header_.tensors.end()) {
      differ(load_difference::missing, key, "is missing; expected " + std::to_string(elements) + " of " + std::string(type.name));
      return nullptr;
    }
    safetensors::entry& e = found->second;
    e.claimed = true;
    const bool converts = options_.convert && e.is_float() && type.is_float;
    if (e.type && e.elements != elements)
      differ(load_difference::misshapen, key, "has " + std::to_string(e.elements) + " elements; expected " + std::to_string(elements));
    else if (e.type != &type && !converts)
      differ(load_difference::mistyped, key, "is of type " + type_of(e) + "; expected " + std::string(type.name) +
                                                 (e.is_float() && type.is_float ? ", or convert = true" : ""));
    else
      return &e;
    return nullptr;
  }

  /// Counts and sums that no run can have reached are refused, since a step computes with them.
  void check_count(const std::string& key, planned_slot& s)
  {
    const bool step = s.slot == "step", shared = s.slot == "exp_avg_sq_sum_is_shared", sum = s.slot == "exp_avg_sq_sum";
    if ((!step && !shared && !sum) || s.type->bytes != 8 || s.from->elements != 1)
      return;
    std::uint64_t count = 0;
    if (!source_.read(source_.self, header_.data_start + s.from->begin, &count, sizeof count))
      detail::fail(where_ + ": could not be read");
    s.count = count;
    const double value = sum ? std::bit_cast<double>(count) : 0;
    if ((step && count >= std::uint64_t(1) << 53) || (shared && count > 2) || (sum && value < 0))
      detail::fail(where_ + ": " + safetensors::json_string(key) + " is " + (sum ? detail::show(value) : std::to_string(count)) + "; expected " +
           (step ? "fewer than 2^53 steps" : shared ? "0, 1 or 2" : "a sum of squares"));
    sum_is_shared_ = sum_is_shared_ || (shared && count > 0);
    // A sum that is not finite is one that was not kept, or of moments that are not finite: it is found anew.
    if (sum && !is_finite(value))
      s.from = nullptr;
  }

  /// A tensor's state is loaded as a whole or not at all: moments are of no use without the step count that corrects their
  /// bias. Only a maximum, which can start from any step on, and a sum, which can be found anew, may be missing; and master
  /// weights, which go with the parameters: where these are loaded and those are not there, they are made of these.
  void decide(const std::string& tensor, std::size_t begin, std::size_t end)
  {
    const auto is_sum = [](const planned_slot& s) { return s.slot.starts_with("exp_avg_sq_sum"); };
    const auto is_master = [](const planned_slot& s) { return s.slot == "master"; };
    bool whole = true;
    for (std::size_t i = begin; i < end; ++i)
      whole = whole && (slots_[i].from || slots_[i].slot == "max_exp_avg_sq" || is_sum(slots_[i]) || is_master(slots_[i]));
    for (std::size_t i = begin; i < end; ++i) {
      planned_slot& s = slots_[i];
      if (is_master(s) && report_.parameters) {
        const auto parameters = header_.tensors.find(parameters_key(tensor));
        if (!s.from && parameters != header_.tensors.end() && parameters->second.elements == s.elements && parameters->second.is_float())
          s.from = &parameters->second;
      } else if (!whole)
        s.from = nullptr;
      if (!s.from && is_sum(s))
        sums_are_missing_ = sums_are_missing_ || whole;
      else if (!s.from && (whole || is_master(s)) && !tensor.empty())
        report_.afresh.push_back(tensor + '/' + s.slot);
    }
    if (!whole)
      report_.afresh.push_back(tensor.empty() ? '/' + slots_[begin].slot : tensor);
  }

  /// Room for all that `read` will stage.
  void make_room()
  {
    const auto reserve = [this](const safetensors::entry* e, const safetensors::dtype& type) {
      if (!e || !is_staged(*e, type))
        return;
      const std::uint64_t at_once = elements_at_once(*e);
      read_.reserve(static_cast<std::size_t>(at_once * e->type->bytes));
      converted_.reserve(static_cast<std::size_t>(at_once * type.bytes));
    };
    for (const planned_slot& s : slots_)
      reserve(s.from, *s.type);
    for (const planned_tensor& t : tensors_)
      reserve(t.parameters, *t.type);
  }
  bool is_staged(const safetensors::entry& e, const safetensors::dtype& type) const noexcept { return e.type != &type || memory_.copy; }
  static std::uint64_t elements_at_once(const safetensors::entry& e) noexcept
  {
    return e.elements < staging_bytes / 8 ? e.elements : staging_bytes / 8;
  }

  void read(const safetensors::entry* e, const safetensors::dtype& type, void* to)
  {
    if (!e)
      return;
    const std::uint64_t from = header_.data_start + e->begin;
    bool good = true;
    if (!is_staged(*e, type))
      good = source_.read(source_.self, from, to, static_cast<std::size_t>(e->end - e->begin));
    else {
      const std::uint64_t at_once = elements_at_once(*e);
      read_.resize(static_cast<std::size_t>(at_once * e->type->bytes));
      converted_.resize(static_cast<std::size_t>(at_once * type.bytes));
      auto* out = static_cast<unsigned char*>(to);
      for (std::uint64_t i = 0; good && i < e->elements; i += at_once) {
        const auto n = static_cast<std::size_t>(e->elements - i < at_once ? e->elements - i : at_once);
        good = source_.read(source_.self, from + i * e->type->bytes, read_.data(), n * e->type->bytes);
        if (!good)
          break;
        if (e->type != &type)
          safetensors::convert(*e->type, read_.data(), type, converted_.data(), n);
        const auto& piece = e->type == &type ? read_ : converted_;
        if (memory_.copy)
          memory_.copy(memory_.self, out + i * type.bytes, piece.data(), n * type.bytes);
        else
          std::memcpy(out + i * type.bytes, piece.data(), n * type.bytes);
      }
    }
    if (!good)
      detail::fail(where_ + ": could no longer be read; what was read until then is in the optimizer: expected to be loaded again");
  }

  std::string where_;
  byte_source source_;
  memory_writer memory_;
  std::vector<unsigned char> read_, converted_;
  load_options options_;
  safetensors::header header_;
  load_report report_;
  std::vector<planned_state> states_;
  std::vector<planned_slot> slots_;
  std::vector<planned_tensor> tensors_;
  bool same_take_part_ = true, sum_is_shared_ = false, sums_are_missing_ = false;
};

template <class Opt>
load_report load(Opt& opt, const std::string& where, const byte_source& source, const load_options& o)
{
  memory_writer memory{&opt, nullptr};
  if constexpr (is_on_device<Opt>)
    memory.copy = [](const void* self, void* to, const void* from, std::size_t bytes) {
      static_cast<const Opt*>(self)->copy_memory(to, from, bytes);
    };
  load_plan plan(where, source, memory, o);
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
  const auto add = [&]<class X>(std::string_view tensor, std::string_view slot, std::span<X> values) {
    plan.add_state(tensor, slot, safetensors::dtype_of<std::remove_const_t<X>>(), values.size());
    if constexpr (std::is_same_v<X, const std::uint64_t>)
      plan.add_sum_is_shared(slot == "exp_avg_sq_sum_is_shared" && values[0] != 0);
  };
  present.visit_state(in_place(add));
  present.visit_tensors([&]<class X>(std::string_view tensor, std::span<X> parameters, std::size_t group, bool takes_part) {
    plan.add_tensor(tensor, group, takes_part, safetensors::dtype_of<std::remove_const_t<X>>(), parameters.size());
  });
  plan.finish();
  // From here on nothing can fail but the reading itself; nor is anything allocated.
  if (plan.restores_settings())
    for (std::size_t g = 0; g < settings.size(); ++g)
      opt.set_hyperparameters(settings[g], opt.group_at(g));
  std::size_t i = 0;
  opt.visit_tensors([&](std::string_view, auto parameters, std::size_t, bool& takes_part) {
    if (plan.restores_settings())
      takes_part = plan.takes_part(i);
    plan.read_parameters(i++, parameters.data());
  });
  i = 0;
  const auto fill = [&](std::string_view, std::string_view, auto values) { plan.read_slot(i++, values.data()); };
  opt.visit_state(in_place(fill));
  if (plan.needs_resum())
    opt.recompute_second_moment_sum();
  return std::move(plan.report());
}

}  // namespace detail

/// Saves to a file, which is replaced as a whole or, if anything fails, not at all (replaced_file.hpp).
/// \throws std::invalid_argument  for a path that cannot be written, a full disk, a name that is not UTF-8
template <resumable Opt>
void save(const Opt& opt, const std::string& path, const save_options& o = {})
{
  const std::string where = "checkpoint " + detail::quote(path);
  std::string header;
  {
    const detail::fail_in context(where);
    header = detail::header_of(opt, o);
  }
  replaced_file file(path);
  file.write(header.data(), header.size());
  std::vector<unsigned char> staging;
  detail::for_each_saved(opt, o.parameters, [&](const std::string&, auto values) {
    detail::put_values(opt, values, staging, [&](const void* bytes, std::size_t count) { file.write(bytes, count); });
  });
  file.commit();
}

/// Saves through write(const void* bytes, std::size_t count), which is called with one piece after the other and says
/// whether it could take it.
template <resumable Opt, class Write>
void save_to(const Opt& opt, Write&& write, const save_options& o = {})
{
  const auto put = [&](const void* bytes, std::size_t count) {
    if (!write(bytes, count))
      detail::fail("write returned false for " + std::to_string(count) + " bytes of a checkpoint; expected them to be written");
  };
  const std::string header = detail::header_of(opt, o);
  put(header.data(), header.size());
  std::vector<unsigned char> staging;
  detail::for_each_saved(opt, o.parameters, [&](const std::string&, auto values) { detail::put_values(opt, values, staging, put); });
}

/// Loads a file that `save` or another program wrote, by the tensors' names, into the tensors that have been added.
///
/// Strict, as it is by default, it refuses a file that is not of the same recipe, groups, tensors and types, and lists the
/// first ten differences. Nothing has changed then, nor after any other refusal; only where the file turns unreadable half-way, after
/// all checks, may the state be in part the file's.
/// \throws std::invalid_argument  for a file that is damaged, does not fit or cannot be read
template <resumable Opt>
load_report load(Opt& opt, const std::string& path, const load_options& o = {})
{
  random_access_file file(path);
  return detail::load(opt, "checkpoint " + detail::quote(path),
                      {file.size(), &file,
                       [](void* self, std::uint64_t offset, void* bytes, std::size_t count) {
                         return static_cast<random_access_file*>(self)->read(offset, bytes, count);
                       }},
                      o);
}

/// Loads through read(std::uint64_t offset, void* bytes, std::size_t count), which fills the bytes from there and says
/// whether it could. The checkpoint has `size` bytes.
template <resumable Opt, class Read>
load_report load_from(Opt& opt, std::uint64_t size, Read&& read, const load_options& o = {})
{
  auto call = [&read](std::uint64_t offset, void* bytes, std::size_t count) -> bool { return read(offset, bytes, count); };
  return detail::load(opt, "checkpoint",
                      {size, &call,
                       [](void* self, std::uint64_t offset, void* bytes, std::size_t count) {
                         return (*static_cast<decltype(call)*>(self))(offset, bytes, count);
                       }},
                      o);
}

/// Loads from bytes in memory.
template <resumable Opt>
load_report load_from(Opt& opt, std::span<const std::byte> bytes, const load_options& o = {})
{
  return load_from(
      opt, bytes.size(),
      [bytes](std::uint64_t offset, void* to, std::size_t count) {
        if (count > 0)
          std::memcpy(to, bytes.data() + offset, count);
        return true;
      },
      o);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
