#pragma once
/// \file
/// The optimizer: parameter groups, state, and one step over all tensors.

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gradus/backend/default.hpp>
#include <gradus/decisions.hpp>
#include <gradus/denormals.hpp>
#include <gradus/precision.hpp>
#include <gradus/range.hpp>
#include <gradus/recipes.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// GCC takes a lambda's names in a template for shadows of globals that the user declares after this header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

namespace gradus::inline GRADUS_ISA {

/// What one step may be told; every field is optional.
struct step_options {
  double lr_scale = 1;                       ///< a schedule's factor on the recipe's lr
  double grad_scale = 1;                     ///< factor on every gradient: 1/loss scale, 1/accumulated batches, …
  std::optional<double> max_grad_norm = {};  ///< clip the scaled gradients' global norm to this, as PyTorch does
  std::optional<double> grad_norm_sq = {};   ///< ‖g‖² of all raw gradients that take part, if the caller has it
  /// Change nothing if a gradient is infinite or NaN, or if the step would make a moment or a weight so.
  bool skip_nonfinite = false;
  bool flush_denormals = false;              ///< take denormal numbers for zeros within the step (see denormals.hpp)
  /// v̄ of the whole model for a scheduled decay, from a caller whose optimizers are parts of one model. No norm is then
  /// computed for it. Other decays do not look at it.
  std::optional<double> mean_square = {};
  /// The number of parameters of the whole model, where this optimizer has a part of them and grad_norm_sq is the whole
  /// model's: a scheduled decay's v̄ is then the whole model's too, in every part to the bit. For models whose tensors all
  /// have taken the same number of steps, from the first step on; in other cases, and where the second moment is not linear
  /// in g² or is kept rounded, give mean_square. Other decays do not look at it.
  std::optional<std::uint64_t> model_size = {};
};

/// What one step did.
struct step_report {
  bool applied = true;                      ///< false where skip_nonfinite found something, or a device cannot clip so far
  std::optional<double> grad_norm = {};     ///< after grad_scale, before clipping; if it was computed or given
  std::optional<double> mean_square = {};   ///< v̄, where the decay is scheduled
  std::optional<double> decay_factor = {};  ///< the default group's 1/√(v̄ + eps), 0 for v̄ + eps = 0; likewise
  bool decay_clamped = false;               ///< a scheduled decay would have taken more than the whole weight
};

/// What becomes of a removed tensor's state: kept for the tensor that is next added under its name, or dropped.
enum class removed_state { kept, dropped };

namespace detail {

/// Numbers for optimizers, by which a handle is known again even after its optimizer has moved.
inline std::uint64_t next_owner() noexcept
{
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// Room for one more, so that a push_back cannot fail; grows by doubling, which reserve(size + 1) would not.
template <class X>
void make_room(std::vector<X>& v)
{
  if (v.size() == v.capacity())
    v.reserve(2 * v.size() + 1);
}

}  // namespace detail

/// Runs one recipe over any number of tensors, which it views and never copies.
///
/// \tparam Recipe   adam, sgd, … (recipes.hpp), or what compose(…) gives
/// \tparam T        float or double: of parameters, gradients, state and arithmetic; or a `precision` that names several
/// \tparam Backend  backend::simd or backend::scalar
///
/// Move-only; handles stay good when it moves. Not synchronised. `step` allocates nothing. Every refusal throws
/// std::invalid_argument (see error.hpp) and changes nothing.
template <class Recipe, class T = float, class Backend = default_backend>
class optimizer
    : public range_front<optimizer<Recipe, T, Backend>, detail::parameter_of<T>, detail::gradient_of<T>, Backend> {
  static_assert(precise<T>, "gradus: the precision T of an optimizer is float, double or a gradus::precision<…>.");

 public:
  using precision_type = precision_of<T>;
  using parameter_type = typename precision_type::parameter_type;
  using gradient_type = typename precision_type::gradient_type;
  using state_type = typename precision_type::state_type;
  using master_type = typename precision_type::master_type;
  using recipe_type = Recipe;
  using rule_type = decltype(std::declval<const Recipe&>().rule());
  using value_type = typename precision_type::compute_type;  ///< of the arithmetic
  using backend_type = Backend;
  /// Whether the state lies in memory of the backend's own. Then only its engine touches elements.
  static constexpr bool on_device = requires { typename Backend::memory_type; };

  using parameters_span = std::span<parameter_type>;
  using gradients_span = std::span<const gradient_type>;

  explicit optimizer(Recipe hyperparameters = {}, Backend backend = Backend()) : backend_(backend), owner_(detail::next_owner())
  {
    add_group(hyperparameters);
  }
  optimizer(optimizer&&) noexcept = default;
  optimizer& operator=(optimizer&&) noexcept = default;

  // ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /// A group's hyperparameters, to change in a copy that is then added as a group or set.
  Recipe hyperparameters(group_handle g = {}) const { return groups_[checked(g)].recipe; }

  /// A further group, with hyperparameters of its own.
  group_handle add_group(const Recipe& hyperparameters)
  {
    groups_.push_back(checked(hyperparameters));
    return {owner_, groups_.size() - 1};
  }

  /// Refuses what add_group and set_hyperparameters would refuse, and does nothing else.
  static void check_hyperparameters(const Recipe& hyperparameters) { checked(hyperparameters); }

  /// New hyperparameters for a group, from the next step on. State is kept; a momentum raised from 0 starts from zeros.
  void set_hyperparameters(const Recipe& hyperparameters, group_handle g = {})
  {
    settle();
    const std::size_t index = checked(g);
    const group next = checked(hyperparameters);
    std::vector<std::pair<tensor*, memory>> refitted;
    if (is_idle(groups_[index].rule) != is_idle(next.rule))
      for (tensor& x : tensors_)
        if (x.group == index)
          refitted.emplace_back(&x, make_state(next.rule, x.size, first_slots));
    for (auto& [x, state] : refitted)
      replace_first_moment(*x, state);
    flat_is_current_ = false;
    groups_[index] = next;
  }

  // ── tensors: `add` and `rebind`, for ranges of any kind, are range_front's ─────────────────────────────────────

  /// Adds a tensor given as spans; every `add` comes down to this. An empty name stands for a free one of "tensor0", "tensor1", ….
  tensor_handle add_spans(std::string_view name, parameters_span parameters, gradients_span gradients,
                          std::optional<group_handle> in = {})
  {
    settle();
    const std::size_t index = free_.empty() ? tensors_.size() : free_.back();
    const std::size_t g = checked(in.value_or(group_handle{}));
    std::string own(name);
    for (std::size_t number = index; own.empty() || (name.empty() && names_.contains(own)); ++number)
      own = "tensor" + std::to_string(number);
    check_memory(own, parameters, gradients);
    if (const auto known = names_.find(own); known != names_.end())
      return add_again(known->second, parameters, gradients, in ? g : tensors_[known->second].group);

    tensor added;
    added.size = parameters.size();
    added.group = g;
    added.state = make_state(groups_[g].rule, added.size, slots);
    if constexpr (precision_type::has_master) {
      added.master = {added.size, 0, memory_source::get(backend_)};
      decode_master(added.master.get(), parameters.data(), added.size);
    }
    detail::make_room(tensors_);
    detail::make_room(free_);
    make_room_for_step(added.size);
    names_.emplace(own, index);
    // From here on nothing can fail.
    added.name_hash = detail::hash(own);
    added.name = std::move(own);
    added.generation = ++generations_;
    attach(added, parameters, gradients);
    if (index == tensors_.size())
      tensors_.push_back(std::move(added));
    else {
      tensors_[index] = std::move(added);
      free_.pop_back();
    }
    return {owner_, index, generations_};
  }

  /// `rebind` for spans.
  void rebind_spans(const tensor_handle& h, parameters_span parameters, gradients_span gradients)
  {
    settle();
    tensor& x = checked(h);
    check_memory(x.name, parameters, gradients);
    check_length(x, parameters);
    x.parameters = parameters.data();
    x.gradients = gradients.data();
    flat_is_current_ = false;
  }

  /// Leaves a tensor out of the steps to come: its weights, state and step count stand still.
  void leave_out(const tensor_handle& h)
  {
    settle();
    tensor& x = checked(h);
    if (x.active) {
      if (sum_is_shared_)
        resum();
      x.active = false;
      --cohorts_[x.cohort].members;
      flat_is_current_ = false;
    }
  }

  /// Takes a tensor in again that was left out.
  void take_in(const tensor_handle& h)
  {
    settle();
    tensor& x = checked(h);
    if (!x.active) {
      detail::make_room(cohorts_);
      unshare_sum_before_return_of(x);
      enlist(x);
    }
  }

  /// Lets go of a tensor's memory. Its state is dropped, or kept until a tensor of the same name and length is added.
  void remove(const tensor_handle& h, removed_state state)
  {
    tensor& x = checked(h);
    leave_out(h);
    elements_ -= x.size;
    blocks_ -= block_count(x.size);
    x.attached = false;
    if (state == removed_state::dropped) {
      names_.erase(x.name);
      x = tensor{};
      free_.push_back(h.index_);  // cannot fail: add_spans made room
    }
  }

  /// How many steps a tensor has taken.
  std::uint64_t step_count(const tensor_handle& h) const
  {
    settle();
    return const_cast<optimizer*>(this)->checked(h).t;
  }

  /// The number of parameters in all tensors, those left out included.
  std::size_t parameter_count() const noexcept { return elements_; }

  /// The bytes of state that all tensors keep together.
  std::size_t state_bytes() const noexcept
  {
    std::size_t bytes = 0;
    for (const tensor& x : tensors_) {
      for (const auto& slot : x.state)
        bytes += slot.view() ? slot.bytes(x.size) : 0;
      bytes += precision_type::has_master ? x.size * sizeof(float) : 0;
    }
    return bytes;
  }

  // ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /// The elements of one slot of the tensor of that name: state("layer1.weight", "exp_avg").
  /// Whoever overwrites a second moment by hand calls resum() after it.
  std::span<state_type> state(std::string_view name, std::string_view slot_name)
    requires(!std::is_same_v<state_type, block8>)
  {
    const auto known = names_.find(std::string(name));
    if (known == names_.end())
      fail("name is " + quote(name) + "; expected that of a tensor of this optimizer");
    const tensor& x = tensors_[known->second];
    std::string names;
    for (std::size_t k = 0; k < slots; ++k) {
      if (!keeps(groups_[x.group].rule, k))
        continue;
      if (slot_list[k].name == slot_name)
        return {x.state[k].view().values, x.size};
      names += (names.empty() ? "" : " or ") + quote(slot_list[k].name);
    }
    fail("slot of tensor " + quote(name) + " is " + quote(slot_name) + "; expected " +
         (names.empty() ? "none, as the tensor keeps no state" : names));
  }
  std::span<const state_type> state(std::string_view name, std::string_view slot_name) const
    requires(!std::is_same_v<state_type, block8>)
  {
    return const_cast<optimizer*>(this)->state(name, slot_name);
  }

  /// Calls visit(tensor's name, key, span) for all that a resumed run needs, in the order of the tensors: for each slot a
  /// span of the state's type under the slot's name (block8: of std::uint8_t, and of float under "…_scale"); the master
  /// weights under "master", where there are any; a span of one std::uint64_t under "step"; and where a scheduled decay
  /// works in one pass, its running sums, spans of one double under "exp_avg_sq_sum". With an empty tensor name come
  /// "exp_avg_sq_sum" and a span of one std::uint64_t, "exp_avg_sq_sum_is_shared" (0; 1 for one sum of all tensors, 2 for that of a model_size); and where something is rounded
  /// stochastically, likewise "seed". A sum that is NaN is found anew from the moments, in the next step that needs it. What is written through the spans is the state from then on: a run restored so goes
  /// on with the same bits. Hyperparameters, schedules and who is left out are the caller's.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    settle();
    cohorts_.reserve(tensors_.size());
    struct on_exit {
      optimizer& self;
      ~on_exit()  // step counts and sums may have changed, even where `visit` threw half-way
      {
        self.enlist_all();
        self.find_stale_sums();
      }
    } relist{*this};
    visit_all(*this, visit);
  }
  /// The same, with spans of const.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    settle();
    visit_all(*this, visit);
  }

  /// The seed of stochastic rounding, 0 at first; part of the state. Steps from the same seed have the same bits.
  std::uint64_t seed() const noexcept
    requires(precision_type::stochastic)
  {
    return seed_;
  }
  void set_seed(std::uint64_t seed) noexcept(!on_device)
    requires(precision_type::stochastic)
  {
    settle();
    seed_ = seed;
    flat_is_current_ = false;
  }

  /// Reads the master weights anew from the parameters, for when these were changed by other than steps.
  void reset_master(const tensor_handle& h)
    requires(precision_type::has_master)
  {
    tensor& x = checked(h);
    decode_master(x.master.get(), x.parameters, x.size);
  }

  /// Copies to or from a device's memory, for visitors of state that have a `static constexpr bool takes_device_memory = true`:
  /// they are shown the arrays themselves and not copies.
  void copy_memory([[maybe_unused]] void* to, [[maybe_unused]] const void* from, [[maybe_unused]] std::size_t bytes) const
    requires(on_device)
  {
    if constexpr (on_device)  // Clang 14 instantiates what the requirement excludes
      backend_.copy(to, from, bytes);
  }

  /// How many groups there are, and the handle of each: the default one first, then in the order of add_group.
  std::size_t group_count() const noexcept { return groups_.size(); }
  group_handle group_at(std::size_t index) const
  {
    const group_handle g(owner_, index);
    return checked(g), g;
  }

  /// Calls visit(name, parameters, index of its group, takes_part) for each tensor; one that was removed, its state kept,
  /// has no parameters. takes_part is a bool& that says whether it is in the steps to come, and may be written. Unlike
  /// leave_out and take_in that leaves a scheduled decay's sums alone: whoever restores the ones restores the others.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    settle();
    cohorts_.reserve(tensors_.size());
    struct on_exit {
      optimizer& self;
      ~on_exit() { self.enlist_all(); }
    } relist{*this};
    visit_all_tensors(*this, visit);
  }
  /// The same, with a span of const and a const bool.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    visit_all_tensors(*this, visit);
  }

  /// Recomputes a scheduled decay's sums from the second moments themselves, for when these were written by hand or come
  /// from a source that has no such sums.
  void resum() noexcept(!on_device)
  {
    if constexpr (one_pass && on_device) {
      settle();
      for (tensor& x : tensors_)
        x.second_moment_sum = engine_->sum(x.state[formula::value_slot].view().values, x.size);
      flat_is_current_ = false;
    }
    else if constexpr (one_pass)
      for (tensor& x : tensors_)
        x.second_moment_sum = reduce<plain_term>(backend_, x.state[formula::value_slot].view().values, x.size);
    shared_sum_ = 0;
    sum_is_shared_ = 0;
    sums_are_stale_ = false;
  }

  // ── the step ───────────────────────────────────────────────────────────────────────────────────────────────────

  /// Moves every tensor that takes part one step along its gradient.
  /// Over memory of a device it is only ordered there: nothing is known yet, and what it did is asked for with report().
  step_report step(const step_options& o = {})
  {
    check_options(o);
    if constexpr (on_device) {
      engine_->step(*this, o);
      if constexpr (Backend::synchronous)
        return report();
      return {};
    }
    else
      return step_here(o);
  }

  /// What the last step on a device did: waits for it.
  step_report report() const
    requires(on_device)
  {
    if constexpr (on_device)  // again: Clang 14 instantiates what the requirement excludes
      if (engine_)
        return engine_->report(*this);
    return {};
  }

  /// Sets a device's lr_scale, grad_scale and max_grad_norm for the steps of captured graphs, in the order of the stream.
  void set_options(const step_options& o)
    requires(on_device)
  {
    check_options(o);
    if constexpr (on_device)
      engine_->set_options(o);
  }

 private:
  step_report step_here(const step_options& o)
  {
    flatten();
    step_report report;
    const bool given = o.grad_norm_sq.has_value(), measured = !given && measures(o);
    detail::square_sum norm_sq;
    if (given)
      norm_sq.sum = *o.grad_norm_sq;
    else if (measured)
      norm_sq = measure_gradients();
    if (given || measured)
      report.grad_norm = detail::root_of(norm_sq, o.grad_scale);
    // A finite sum of squares has finite terms. One that was computed has no others if it is not; one that is given and
    // infinite may be an overflow.
    if (o.skip_nonfinite && !is_finite(norm_sq.sum) &&
        (measured || is_nan(norm_sq.sum) || clips(o) || !gradients_are_finite())) {
      report.applied = false;
      return report;
    }
    double scale = o.grad_scale;
    if (clips(o)) {
      scale = detail::clipped_scale(norm_sq, o.grad_scale, *o.max_grad_norm);
      if (detail::underflows<value_type>(norm_sq, scale, o.grad_scale)) {
        if (!o.skip_nonfinite)
          fail("max_grad_norm is " + show(*o.max_grad_norm) + " and the gradients' norm " + show(*report.grad_norm) +
               "; expected a factor on the gradients of at least " + show(detail::smallest_normal<value_type>) + ", the smallest " +
               detail::name_of<value_type> + " that has all digits: skip_nonfinite = true leaves such steps out");
        report.applied = false;
        return report;
      }
    }
    for (cohort& c : cohorts_)
      if (c.members > 0) {
        const rule_type& rule = groups_[c.group].rule;
        c.scalars = make_tick(rule, c.t + 1, o.lr_scale);
        c.prepared = prepare<value_type>(rule, c.scalars, scale);
      }
    if (o.skip_nonfinite && step_overflows(detail::root_of(norm_sq, scale), o.flush_denormals)) {
      report.applied = false;
      return report;
    }
    bool in_two_passes = false;
    if constexpr (rule_type::scheduled) {
      if constexpr (one_pass) {
        if (arrange_sums(o))
          report.mean_square = mean_square_by_norm(norm_sq, scale, o);
      } else if (!o.mean_square) {
        in_two_passes = keeps_exactly;
        report.mean_square = mean_square_by_moments(o.flush_denormals);
      }
      if (o.mean_square)
        report.mean_square = *o.mean_square;
      schedule_decay(report);
    }
    const auto move = [&]<pass Pass>(std::integral_constant<pass, Pass>) {
      for_ranges([&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept {
        const denormal_guard guard(o.flush_denormals);
        run<Pass>(x, begin, end);
      });
    };
    if constexpr (rule_type::scheduled && !one_pass && keeps_exactly) {
      if (in_two_passes)
        move(std::integral_constant<pass, pass::weights>{});
      else
        move(std::integral_constant<pass, pass::whole>{});
    } else
      move(std::integral_constant<pass, pass::whole>{});
    for (tensor& x : tensors_)
      x.t += x.active;
    for (cohort& c : cohorts_)
      c.t += c.members > 0;
    return report;
  }

  /// Whether a step computes the gradient's norm, where it is not given.
  static bool measures(const step_options& o) noexcept
  {
    return o.max_grad_norm || o.skip_nonfinite || (one_pass && !o.mean_square);
  }
  static bool clips(const step_options& o) noexcept { return o.max_grad_norm && is_finite(*o.max_grad_norm); }

  static constexpr std::size_t slots = rule_type::slots;
  using formula = decltype(prepare<value_type>(std::declval<const rule_type&>(), tick{}));
  static constexpr std::size_t first_slots = formula::first_slots;
  using memory_source = detail::memory_of<Backend>;
  using engine = detail::device_engine<optimizer, Backend>;
  friend engine;
  using memory = std::array<detail::slot_memory<state_type, typename memory_source::type>, slots>;
  using masters = detail::array_memory<std::conditional_t<precision_type::has_master, master_type, float>, typename memory_source::type>;
  // The recursion that Σv obeys is v's own, not that of a v that is rounded to fewer bits at each step.
  static constexpr bool keeps_exactly = std::is_same_v<state_type, value_type>;
  static constexpr bool one_pass = rule_type::scheduled_in_one_pass && keeps_exactly;

  static constexpr auto slot_list = [] {
    std::array<slot, slots + 1> list{};
    std::size_t k = 0;
    for (const slot& s : decltype(rule_type::first_moment)::slots)
      list[k++] = s;
    for (const slot& s : decltype(rule_type::second_moment)::slots)
      list[k++] = s;
    return list;
  }();

  struct group {
    Recipe recipe;
    rule_type rule;
    bool is_tame;  // no hyperparameter is so large that a product of several may overflow
  };

  /// A tensor with no name is a free place in the list. One that is not attached has been removed, its state kept.
  struct tensor {
    std::string name = {};
    parameter_type* parameters = nullptr;
    const gradient_type* gradients = nullptr;
    std::size_t size = 0;
    std::size_t group = 0;
    std::uint64_t generation = 0;
    memory state = {};
    masters master = {};
    std::uint64_t name_hash = 0;
    std::uint64_t t = 0;
    double second_moment_sum = 0;  // Σv, where a scheduled decay works in one pass and the sum is not shared
    double norm_sq = 0;            // ‖g‖², as last measured, in the unit of the whole
    std::size_t cohort = 0;
    bool attached = false;
    bool active = false;  // takes part in steps
  };

  /// What a step reads of a tensor that takes part. In the list of these, elements and blocks (of reduce_block elements,
  /// from each tensor's start) are counted through.
  struct flat_tensor {
    parameter_type* parameters;
    const gradient_type* gradients;
    std::array<detail::slot_view<state_type>, slots + 1> state;
    std::size_t size;
    std::size_t first_element;
    std::size_t first_block;
    std::size_t cohort;
    std::size_t index;  // in tensors_
  };

  /// The tensors that take part and share a group and a step count, and so one set of coefficients.
  struct cohort {
    std::size_t group = 0;
    std::uint64_t t = 0;
    std::size_t members = 0;
    tick scalars = {};
    formula prepared = {};
  };

  // ── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────

  static group checked(const Recipe& hyperparameters)
  {
    const rule_type rule = hyperparameters.rule();
    validate(hyperparameters);
    validate(rule);
    double largest = 0;
    for_each_number(hyperparameters, rule, [&](std::string_view name, double value) {
      if (value > detail::largest<value_type>)
        fail(std::string(name) + " is " + show(value) + "; expected at most " + show(detail::largest<value_type>) +
             ", the largest " + detail::name_of<value_type>);
      largest = value > largest ? value : largest;
    });
    return {hyperparameters, rule, largest <= most_tame};
  }

  static constexpr double most_tame = 0x1p20, most_tame_lr_scale = 0x1p10;  // over 1 − β too, far from the largest float

  /// Calls f(name, value) for every hyperparameter of a recipe and of its rules.
  template <class F>
  static void for_each_number(const Recipe& recipe, const rule_type& rule, const F& f)
  {
    const auto each = [&](const auto& of) {
      for_each_hyperparameter(of, [&](std::string_view name, auto value, range) { f(name, double(value)); });
    };
    each(recipe);
    each(rule);
    each(rule.first_moment);
    each(rule.second_moment);
    each(rule.step_size);
    each(rule.decay);
  }

  std::size_t checked(const group_handle& g) const
  {
    if ((g.owner_ != 0 && g.owner_ != owner_) || g.index_ >= groups_.size())
      fail("group is of another optimizer; expected one that add_group of this optimizer returned");
    return g.index_;
  }

  tensor& checked(const tensor_handle& h)
  {
    if (h.owner_ != owner_ || h.index_ >= tensors_.size() || tensors_[h.index_].generation != h.generation_ ||
        !tensors_[h.index_].attached)
      fail("tensor is removed, or of another optimizer; expected one that add of this optimizer returned");
    return tensors_[h.index_];
  }

  void check_memory(const std::string& name, parameters_span parameters, gradients_span gradients) const
  {
    const std::string of = " of tensor " + quote(name);
    const std::size_t n = parameters.size(), most = std::size_t(PTRDIFF_MAX) / sizeof(value_type) - elements_;
    if (gradients.size() != n)
      fail("size of gradients" + of + " is " + std::to_string(gradients.size()) + "; expected " + std::to_string(n) +
           ", the size of its parameters");
    if (n > most)
      fail("size of parameters" + of + " is " + std::to_string(n) + "; expected at most " + std::to_string(most) +
           ", or the bytes of all tensors would overflow");
    if (n > 0 && !parameters.data())
      fail("parameters" + of + " is null; expected " + std::to_string(n) + " elements");
    if (n > 0 && !gradients.data())
      fail("gradients" + of + " is null; expected " + std::to_string(n) + " elements");
    if constexpr (on_device)
      if (n > 0)
        engine::check_place(backend_, parameters.data(), gradients.data(), of);
    const auto p = reinterpret_cast<std::uintptr_t>(parameters.data());
    const auto g = reinterpret_cast<std::uintptr_t>(gradients.data());
    if (n > 0 && p < g + n * sizeof(gradient_type) && g < p + n * sizeof(parameter_type))
      fail("gradients" + of + " overlap its parameters; expected memory of their own");
  }

  static void check_length(const tensor& x, parameters_span parameters)
  {
    if (parameters.size() != x.size)
      fail("size of parameters of tensor " + quote(x.name) + " is " + std::to_string(parameters.size()) + "; expected " +
           std::to_string(x.size) + ", as when its state was made");
  }

  void check_options(const step_options& o) const
  {
    check("lr_scale", o.lr_scale, range::at_least_zero);
    if (!is_finite(o.grad_scale) || o.grad_scale <= 0)
      fail("grad_scale is " + show(o.grad_scale) + "; expected a finite number > 0");
    if constexpr (!std::is_same_v<value_type, double>)
      if (o.grad_scale < detail::smallest_normal<value_type> || o.grad_scale > detail::largest<value_type>)
        fail("grad_scale is " + show(o.grad_scale) + "; expected a number from " + show(detail::smallest_normal<value_type>) +
             " to " + show(detail::largest<value_type>) + ", the range of " + detail::name_of<value_type>);
    if (o.max_grad_norm && (is_nan(*o.max_grad_norm) || *o.max_grad_norm <= 0))
      fail("max_grad_norm is " + show(*o.max_grad_norm) + "; expected a number > 0 (infinity only measures)");
    if (o.grad_norm_sq && (*o.grad_norm_sq < 0 || (is_nan(*o.grad_norm_sq) && !o.skip_nonfinite)))
      fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected the sum of the squares of all raw gradients");
    if (o.grad_norm_sq && !is_finite(*o.grad_norm_sq) && clips(o) && !o.skip_nonfinite)
      fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected a finite number with max_grad_norm, which divides by "
           "its root: leave it out and it is computed, or set skip_nonfinite");
    if (o.mean_square && !contains(range::at_least_zero, *o.mean_square))
      fail("mean_square is " + show(*o.mean_square) + "; expected " + expectation(range::at_least_zero));
    bool any = false;
    for (const tensor& x : tensors_)
      any = any || x.attached;
    if (!any)
      fail("step() has 0 tensors to move; expected at least one add(parameters, gradients) before it");
    const std::uint64_t elements = o.model_size ? active_elements() : 0;
    if (o.model_size && *o.model_size < elements)
      fail("model_size is " + std::to_string(*o.model_size) + "; expected at least " + std::to_string(elements) +
           ", the number of parameters of this part");
    for (const group& g : groups_)
      check_coefficients(g.rule, g.is_tame, o.lr_scale);
    if constexpr (rule_type::scheduled) {
      if (o.mean_square)
        return;
      if (o.grad_norm_sq && any_active() && !common_cohort())
        fail("grad_norm_sq is " + show(*o.grad_norm_sq) +
             "; expected none, as a scheduled decay needs the norm of each tensor where the tensors differ in beta2 or in "
             "the number of steps taken: leave it out and it is computed");
      if (o.model_size && *o.model_size != elements)
        check_model_size(o);
    }
  }

  void check_model_size(const step_options& o) const
  {
    const auto refuse = [&](const char* reason) {
      fail("model_size is " + std::to_string(*o.model_size) + "; expected none, as " + reason);
    };
    if (!one_pass)
      refuse("this second moment's mean does not follow from a norm: give mean_square, the whole model's, instead");
    if (!o.grad_norm_sq)
      refuse("the norm of this part is not the whole model's: give grad_norm_sq, the whole model's, with it, or mean_square");
    if (sum_is_shared_ == of_model && !sums_are_stale_)
      return;
    settle();
    for (const tensor& x : tensors_)
      if (x.active && x.t > 0)
        refuse("the sum of the whole model's second moments is known only where it was given from the first step on, with "
               "the same tensors: give mean_square instead");
  }

  static void check_coefficients(const rule_type& rule, bool is_tame, double lr_scale)
  {
    if (is_tame && lr_scale <= most_tame_lr_scale)
      return;
    const auto as = std::string(", the largest ") + detail::name_of<value_type>;
    constexpr double most = detail::largest<value_type>;
    const double lr = rule.lr * lr_scale;
    if (!(lr <= most))
      fail("lr_scale is " + show(lr_scale) + " with lr " + show(rule.lr) + "; expected a product of at most " + show(most) + as);
    // Corrections of bias are largest in the first step, or grow towards the last.
    for (const std::uint64_t t : {std::uint64_t(1), std::uint64_t(1) << 53})
      if (!detail::coefficients_are_finite<value_type>(rule, t, lr_scale)) {
        if constexpr (requires { rule.decay.weight_decay; })
          if (!(lr * rule.decay.weight_decay <= most))
            fail("weight_decay is " + show(rule.decay.weight_decay) + " with lr " + show(rule.lr) + " and lr_scale " +
                 show(lr_scale) + "; expected a product of at most " + show(most) + as);
        fail("lr is " + show(rule.lr) + " and lr_scale " + show(lr_scale) +
             "; expected a step whose coefficients, of these and of the other hyperparameters, are at most " + show(most) + as);
      }
  }

  // ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────

  static bool is_idle(const rule_type& rule) noexcept
  {
    if constexpr (requires { rule.first_moment.idle(); })
      return rule.first_moment.idle();
    return false;
  }
  static bool keeps(const rule_type& rule, std::size_t k) noexcept { return k >= first_slots || !is_idle(rule); }

  /// The first `count` slots for n elements, as the rule starts them.
  memory make_state(const rule_type& rule, std::size_t n, std::size_t count) const
  {
    memory state;
    for (std::size_t k = 0; k < count; ++k)
      if (keeps(rule, k))
        state[k] = {n, initial_value(rule, k), slot_list[k], memory_source::get(backend_)};
    return state;
  }

  static void replace_first_moment(tensor& x, memory& state) noexcept
  {
    for (std::size_t k = 0; k < first_slots; ++k)
      x.state[k] = std::move(state[k]);
  }

  template <class Parameter>
  void decode_master(float* master, const Parameter* parameters, std::size_t n)
  {
    if constexpr (!short_float<Parameter>)
      return;
    else if constexpr (on_device)
      engine::decode(backend_, parameters, master, n);
    else
      decode(parameters, master, n);
  }

  /// Learns what the engine's steps have left on the device: step counts and sums. Whoever reads or changes these calls it first.
  void settle() const
  {
    if constexpr (on_device)
      if (engine_)
        engine_->settle(const_cast<optimizer&>(*this));
  }

  /// A tensor that was removed with its state kept, come back.
  tensor_handle add_again(std::size_t index, parameters_span parameters, gradients_span gradients, std::size_t g)
  {
    tensor& x = tensors_[index];
    if (x.attached)
      fail("name is " + quote(x.name) + ", which another tensor has; expected a name of its own");
    check_length(x, parameters);
    make_room_for_step(x.size);
    if (is_idle(groups_[g].rule) != is_idle(groups_[x.group].rule)) {
      memory state = make_state(groups_[g].rule, x.size, first_slots);
      replace_first_moment(x, state);
    }
    unshare_sum_before_return_of(x);
    x.group = g;
    x.generation = ++generations_;
    attach(x, parameters, gradients);
    return {owner_, index, x.generation};
  }

  /// A shared Σv knows only the tensors that were there, and one that comes back brings a second moment with it.
  void unshare_sum_before_return_of(const tensor& x) noexcept
  {
    if (sum_is_shared_ && x.t > 0)
      resum();
  }

  void attach(tensor& x, parameters_span parameters, gradients_span gradients) noexcept
  {
    x.parameters = parameters.data();
    x.gradients = gradients.data();
    x.attached = true;
    elements_ += x.size;
    blocks_ += block_count(x.size);
    enlist(x);
  }

  /// All that a step over one more tensor of n elements may need, so that `step` allocates nothing.
  void make_room_for_step(std::size_t n)
  {
    const std::size_t blocks = blocks_ + block_count(n);
    detail::make_room(cohorts_);
    if (flat_.capacity() <= tensors_.size())
      flat_.reserve(2 * tensors_.size() + 1);
    if constexpr (on_device) {
      if (!engine_)
        engine_.reset(new engine(backend_));
      engine_->reserve(tensors_.size() + 1, blocks);
    }
    else if (block_sums_.size() < blocks)
      block_sums_.resize(blocks + blocks / 2);
  }

  /// Brings the flat list up to date, in the memory that it has.
  void flatten() noexcept
  {
    if (flat_is_current_)
      return;
    flat_.clear();
    std::size_t element = 0, block = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const tensor& x = tensors_[i];
      if (!x.active || x.size == 0)
        continue;
      flat_tensor flat{x.parameters, x.gradients, {}, x.size, element, block, x.cohort, i};
      for (std::size_t k = 0; k < slots; ++k)
        flat.state[k] = x.state[k].view();
      flat_.push_back(flat);
      element += x.size;
      block += block_count(x.size);
    }
    flat_elements_ = element;
    flat_is_current_ = true;
  }

  /// Finds a tensor its cohort; the caller has made room for a new one.
  void enlist(tensor& x) noexcept
  {
    flat_is_current_ = false;
    if (last_cohort_ < cohorts_.size() && cohorts_[last_cohort_].members > 0 &&
        cohorts_[last_cohort_].group == x.group && cohorts_[last_cohort_].t == x.t)
      return join(x, last_cohort_);
    std::size_t i = 0, empty = cohorts_.size();
    for (; i < cohorts_.size(); ++i) {
      if (cohorts_[i].members == 0)
        empty = i;
      else if (cohorts_[i].group == x.group && cohorts_[i].t == x.t)
        break;
    }
    if (i == cohorts_.size()) {
      i = empty;
      if (i == cohorts_.size())
        cohorts_.push_back({});
      cohorts_[i].group = x.group;
      cohorts_[i].t = x.t;
    }
    join(x, i);
  }
  void join(tensor& x, std::size_t i) noexcept
  {
    ++cohorts_[i].members;
    x.cohort = last_cohort_ = i;
    x.active = true;
  }

  void enlist_all() noexcept
  {
    flat_is_current_ = false;  // even where no tensor is left
    cohorts_.clear();
    for (tensor& x : tensors_)
      if (x.active)
        enlist(x);
  }

  template <class Self, class Visitor>
  static void visit_all(Self& self, Visitor& visit)
  {
    for (auto& x : self.tensors_) {
      if (x.name.empty())
        continue;
      const std::string_view name = x.name;
      const auto show = [&]<class X>(std::string_view key, std::span<X> values) {
        using shown = std::span<std::conditional_t<std::is_const_v<Self>, const X, X>>;
        if constexpr (on_device && !requires { requires Visitor::takes_device_memory; })
          engine::show_copy(self.backend_, values, [&](std::span<X> copy) { visit(name, key, shown(copy)); }, std::is_const_v<Self>);
        else
          visit(name, key, shown(values));
      };
      for (std::size_t k = 0; k < slots; ++k)
        if (keeps(self.groups_[x.group].rule, k))
          x.state[k].visit(slot_list[k].name, x.size, show);
      if constexpr (precision_type::has_master)
        show("master", std::span<master_type>(x.master.get(), x.size));
      visit(name, std::string_view("step"), std::span(&x.t, 1));
      if constexpr (one_pass)
        visit(name, std::string_view("exp_avg_sq_sum"), std::span(&x.second_moment_sum, 1));
    }
    if constexpr (precision_type::stochastic)
      visit(std::string_view(), std::string_view("seed"), std::span(&self.seed_, 1));
    if constexpr (one_pass) {
      visit(std::string_view(), std::string_view("exp_avg_sq_sum"), std::span(&self.shared_sum_, 1));
      visit(std::string_view(), std::string_view("exp_avg_sq_sum_is_shared"), std::span(&self.sum_is_shared_, 1));
    }
  }

  template <class Self, class Visitor>
  static void visit_all_tensors(Self& self, Visitor& visit)
  {
    using element = std::conditional_t<std::is_const_v<Self>, const parameter_type, parameter_type>;
    for (auto& x : self.tensors_) {
      if (x.name.empty())
        continue;
      std::conditional_t<std::is_const_v<Self>, const bool, bool> takes_part = x.active;
      visit(std::string_view(x.name), std::span<element>(x.parameters, x.attached ? x.size : 0), x.group, takes_part);
      if constexpr (!std::is_const_v<Self>)
        x.active = takes_part && x.attached;
    }
  }

  // ── the parts of a step ────────────────────────────────────────────────────────────────────────────────────────

  static constexpr std::size_t block_count(std::size_t n) noexcept { return (n + reduce_block - 1) / reduce_block; }

  /// Calls f(tensor, begin, end) on ranges of elements that together are all that takes part: in pieces that the backend
  /// may run at the same time, cut through the flat list so that all are about as long, whatever the tensors' sizes. They
  /// begin at whole blocks of a tensor, and depend on the list alone.
  template <class F>
  void for_ranges(const F& f) noexcept
  {
    const std::size_t pieces = flat_elements_ < smallest_parallel_step
                                   ? 1
                                   : (flat_elements_ / smallest_piece < most_pieces ? flat_elements_ / smallest_piece
                                                                                    : most_pieces);
    if constexpr (requires { backend_.for_pieces(pieces, [](std::size_t) noexcept {}); })
      if (pieces > 1)
        return backend_.for_pieces(pieces, [&](std::size_t k) noexcept {
          for_ranges_between(cut(k, pieces), cut(k + 1, pieces), f);
        });
    for_ranges_between({0, 0}, {flat_.size(), 0}, f);
  }

  static constexpr std::size_t smallest_parallel_step = 1 << 18;  // under this, waking threads costs more than they save
  static constexpr std::size_t smallest_piece = 1 << 14;
  static constexpr std::size_t most_pieces = 256;

  /// An element's place in the flat list.
  struct position {
    std::size_t tensor, element;
  };

  /// Where piece k of n starts.
  position cut(std::size_t k, std::size_t n) const noexcept
  {
    if (k == n)
      return {flat_.size(), 0};
    const std::size_t element = flat_elements_ / n * k;
    std::size_t low = 0, high = flat_.size();  // the last tensor that starts at or before the element
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      (flat_[middle].first_element <= element ? low : high) = middle;
    }
    return {low, (element - flat_[low].first_element) / reduce_block * reduce_block};
  }

  template <class F>
  void for_ranges_between(position begin, position end, const F& f) noexcept
  {
    for (std::size_t i = begin.tensor; i <= end.tensor && i < flat_.size(); ++i) {
      const std::size_t first = i == begin.tensor ? begin.element : 0;
      const std::size_t last = i == end.tensor ? end.element : flat_[i].size;
      if (first < last)
        f(flat_[i], first, last);
    }
  }

  /// The parameters and gradients of a tensor from an element on, as a kernel takes them.
  auto parameters_of(const flat_tensor& x, [[maybe_unused]] std::uint64_t key, std::size_t i) noexcept
  {
    if constexpr (precision_type::has_master)
      return mirrored<parameter_type>{tensors_[x.index].master.get() + i, x.parameters + i};
    else if constexpr (short_float<parameter_type>)
      return stochastic<parameter_type>{x.parameters + i, {key, slots, i}};
    else
      return x.parameters + i;
  }
  static auto gradients_of(const flat_tensor& x, std::size_t i) noexcept
  {
    if constexpr (short_float<gradient_type>)
      return readable<gradient_type>{x.gradients + i};
    else
      return x.gradients + i;
  }

  /// The key of a tensor's random bits in this step.
  std::uint64_t noise_key(const flat_tensor& x) const noexcept
  {
    if constexpr (precision_type::stochastic)
      return detail::noise_key(tensors_[x.index].name_hash, seed_, cohorts_[x.cohort].t);
    return 0;
  }

  /// One pass over a range of a tensor's elements, which begins at a whole block.
  template <pass Pass>
  void run(const flat_tensor& x, std::size_t begin, std::size_t end) noexcept
  {
    const formula& prepared = cohorts_[x.cohort].prepared;
    const std::uint64_t key = noise_key(x);
    if constexpr (std::is_same_v<state_type, block8>)
      for (std::size_t i = begin; i < end; i += detail::stage) {
        const std::size_t n = end - i < detail::stage ? end - i : detail::stage;
        float decoded[slots + 1][detail::stage];
        float* pointers[slots + 1] = {};
        for (std::size_t k = 0; k < slots; ++k)
          if (x.state[k])
            x.state[k].from(i).read(pointers[k] = decoded[k], n, slot_list[k]);
        detail::run<Pass>(backend_, prepared, parameters_of(x, key, i), gradients_of(x, i), pointers, n);
        for (std::size_t k = 0; k < slots; ++k)
          if (x.state[k])
            x.state[k].from(i).write(decoded[k], n, slot_list[k], {key, k, i});
      }
    else {
      std::array<decltype(x.state[0].at(key, 0, 0)), slots + 1> state{};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          state[k] = x.state[k].at(key, k, begin);
      detail::run<Pass>(backend_, prepared, parameters_of(x, key, begin), gradients_of(x, begin), state.data(), end - begin);
    }
  }

  /// The sum over a block of the second moment to come, computed and not kept: what is rounded when kept is not what the
  /// weights are divided by.
  template <class Formula = formula>  // a template, lest an instantiation of all members takes it in where nothing is rounded
  double sum_of_next_moments(const flat_tensor& x, std::size_t begin, std::size_t n) noexcept
  {
    return detail::decoded_block_sum<plain_term>(backend_, n, [&](std::size_t i, float* to, std::size_t m) {
      float decoded[slots + 1][detail::stage];
      float* pointers[slots + 1] = {};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          x.state[k].from(begin + i).read(pointers[k] = k == Formula::value_slot ? to : decoded[k], m, slot_list[k]);
      detail::run<pass::moments>(backend_, cohorts_[x.cohort].prepared, parameters_of(x, 0, begin + i),
                                 gradients_of(x, begin + i), pointers, m);
    });
  }

  /// Calls f(tensor, begin, length), which gives a block's sum, on every block, and then g(tensor, sum) in their order.
  template <class F, class G>
  void sum_blocks(const F& f, const G& g) noexcept
  {
    for_ranges([&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end; i += reduce_block)
        block_sums_[x.first_block + i / reduce_block] = f(x, i, end - i < reduce_block ? end - i : reduce_block);
    });
    for (const flat_tensor& x : flat_) {
      const double* const sums = &block_sums_[x.first_block];
      g(x, x.size <= reduce_block ? *sums : reduce<plain_term>(backend_, sums, block_count(x.size)));
    }
  }

  /// ‖g‖² of all that takes part, and each tensor's share in norm_sq.
  detail::square_sum measure_gradients() noexcept
  {
    const auto measure = [&](const auto& square_sum_of) {
      running_sum total;
      sum_blocks(
          [&](const flat_tensor& x, std::size_t i, std::size_t n) { return square_sum_of(x.gradients + i, n); },
          [&](const flat_tensor& x, double sum) {
            tensors_[x.index].norm_sq = sum;
            total.add(sum);
          });
      return total.finish();
    };
    const double plain = measure(
        [this](const gradient_type* g, std::size_t n) { return block_sum<square_term>(backend_, g, n); });
    if constexpr (std::is_same_v<gradient_type, double>)
      if (const double unit = detail::unit_for(plain); unit != 1)
        return {measure([this, unit](const double* g, std::size_t n) { return scaled_square_sum(backend_, g, n, 1 / unit); }), unit};
    return {plain, 1};
  }

  /// Whether the step that the cohorts are prepared for would make something infinite or NaN. \param size  the norm of the
  /// gradients as they are used. As a rule that is enough to know; otherwise it is tried, element by element.
  bool step_overflows(double size, bool flush_denormals) noexcept
  {
    bool possible = false;
    for (const cohort& c : cohorts_)
      possible = possible || (c.members > 0 && (detail::may_overflow<value_type>(size, c.scalars.lr) || detail::gradient_decay(c.prepared) != 0));
    if (!possible)
      return false;
    std::atomic<bool> found{false};
    for_ranges([&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept {
      const denormal_guard guard(flush_denormals);
      const cohort& c = cohorts_[x.cohort];
      const double decay = detail::gradient_decay(c.prepared);
      for (std::size_t i = begin; i < end && !found.load(std::memory_order_relaxed); i += reduce_block) {
        const std::size_t n = end - i < reduce_block ? end - i : reduce_block;
        const double decayed = decay > 0 ? decay * std::sqrt(square_sum_of_weights(x, i, n)) : 0;
        if ((decay < 0 || detail::may_overflow<value_type>(size + decayed, c.scalars.lr)) && block_overflows(x, i, n))
          found.store(true, std::memory_order_relaxed);
      }
    });
    return found.load(std::memory_order_relaxed);
  }

  double square_sum_of_weights(const flat_tensor& x, std::size_t begin, std::size_t n) noexcept
  {
    if constexpr (precision_type::has_master)
      return block_sum<square_term>(backend_, tensors_[x.index].master.get() + begin, n);
    else
      return block_sum<square_term>(backend_, x.parameters + begin, n);
  }

  bool block_overflows(const flat_tensor& x, std::size_t begin, std::size_t length) noexcept
  {
    for (std::size_t i = begin; i < begin + length; i += detail::stage) {
      const std::size_t n = begin + length - i < detail::stage ? begin + length - i : detail::stage;
      value_type decoded[slots + 1][detail::stage];
      for (std::size_t k = 0; k < slots; ++k) {
        if (!x.state[k])
          continue;
        if constexpr (keeps_exactly)
          for (std::size_t j = 0; j < n; ++j)
            decoded[k][j] = x.state[k].values[i + j];
        else
          x.state[k].from(i).read(decoded[k], n, slot_list[k]);
      }
      const auto parameters = parameters_of(x, 0, i);
      const auto gradients = gradients_of(x, i);
      for (std::size_t j = 0; j < n; ++j) {
        value_type slot[slots + 1] = {};
        for (std::size_t k = 0; k < slots; ++k)
          if (x.state[k])
            slot[k] = decoded[k][j];
        if (detail::element_overflows(cohorts_[x.cohort].prepared, load<value_type>(parameters, j), load<value_type>(gradients, j), slot))
          return true;
      }
    }
    return false;
  }

  bool gradients_are_finite() const noexcept
  {
    for (const flat_tensor& x : flat_)
      if (!all_finite(x.gradients, x.size))
        return false;
    return true;
  }

  bool any_active() const noexcept
  {
    for (const cohort& c : cohorts_)
      if (c.members > 0)
        return true;
    return false;
  }

  /// Some cohort, if all have one β₂ and step count: then one sum of squares serves the whole model.
  const cohort* common_cohort() const noexcept
  {
    const cohort* common = nullptr;
    for (const cohort& c : cohorts_) {
      if (c.members == 0)
        continue;
      if constexpr (one_pass)
        if (common && (c.t != common->t ||
                       groups_[c.group].rule.second_moment.beta2 != groups_[common->group].rule.second_moment.beta2))
          return nullptr;
      common = &c;
    }
    return common;
  }

  /// Of what one sum of second moments is: of each tensor, of all that take part, or of a whole model that this optimizer
  /// has a part of.
  enum sum_of : std::uint64_t { of_tensor, of_part, of_model };

  std::uint64_t active_elements() const noexcept
  {
    std::uint64_t n = 0;
    for (const tensor& x : tensors_)
      n += x.active ? x.size : 0;
    return n;
  }
  /// Whether a step's norm is that of more than this optimizer has.
  bool is_of_model(const step_options& o) const noexcept
  {
    return o.grad_norm_sq && o.model_size && *o.model_size != active_elements();
  }

  /// Makes a scheduled decay's sums such as this step advances them, or, where it does not know by how much, forgets them
  /// until the moments are summed. Each tensor has a sum of its own until a norm is given for all; from then on one sum is
  /// shared, for as long as the same tensors take part. \return whether the step advances them
  bool arrange_sums(const step_options& o) noexcept(!on_device)
  {
    if (active_elements() == 0)
      return !o.mean_square;
    if (o.mean_square && (sums_are_stale_ || !advances_beside_mean(o))) {
      if (!sums_are_stale_)
        forget_sums();
      return false;
    }
    if (must_resum(o))
      resum();
    if (o.grad_norm_sq && sum_is_shared_ != wanted_sum(o)) {
      settle();
      share_sum(wanted_sum(o));
    }
    if (o.grad_norm_sq && !is_finite(*o.grad_norm_sq))
      sums_are_stale_ = true;  // from the next step on
    return true;
  }
  /// Whether it will change anything.
  bool rearranges_sums(const step_options& o) const noexcept
  {
    if (active_elements() == 0)
      return false;
    if (o.mean_square && (sums_are_stale_ || !advances_beside_mean(o)))
      return !sums_are_stale_;
    return must_resum(o) || (o.grad_norm_sq && (sum_is_shared_ != wanted_sum(o) || !is_finite(*o.grad_norm_sq)));
  }
  /// Beside a mean, a norm may be the whole model's, and the model's size be unknown.
  bool advances_beside_mean(const step_options& o) const noexcept
  {
    return sum_is_shared_ == of_model ? is_of_model(o) && common_cohort() : !o.grad_norm_sq && measures(o);
  }
  bool must_resum(const step_options& o) const noexcept
  {
    return sums_are_stale_ || (sum_is_shared_ == of_model && !is_of_model(o)) || (sum_is_shared_ && !common_cohort());
  }
  /// The sum that serves a norm that is given.
  sum_of wanted_sum(const step_options& o) const noexcept { return is_of_model(o) ? of_model : of_part; }

  /// Σv is to be found anew. What says so is NaN in the sums, so that it is saved and loaded with them.
  void forget_sums() noexcept(!on_device)
  {
    settle();
    const double none = std::bit_cast<double>(std::uint64_t(0x7ff8000000000000u));  // NaN, also under -ffast-math
    for (tensor& x : tensors_)
      x.second_moment_sum = none;
    shared_sum_ = sum_is_shared_ ? none : 0;
    sums_are_stale_ = true;
    if constexpr (on_device)
      flat_is_current_ = false;
  }

  void find_stale_sums() noexcept
  {
    sums_are_stale_ = sum_is_shared_ && !is_finite(shared_sum_);
    for (const tensor& x : tensors_)
      sums_are_stale_ = sums_are_stale_ || (!sum_is_shared_ && !is_finite(x.second_moment_sum));
  }

  /// v̄ by the recursion that Σv obeys.
  double mean_square_by_norm(const detail::square_sum& norm_sq, double scale, const step_options& o) noexcept
  {
    const double n = sum_is_shared_ == of_model ? double(o.model_size.value_or(0)) : double(flat_elements_);
    if (flat_elements_ == 0)
      return 0;
    const auto next = [&](const cohort& c, double sum, double squares) {
      return detail::next_sum<value_type>(groups_[c.group].rule.second_moment, sum, {squares, norm_sq.unit}, scale);
    };
    if (sum_is_shared_) {
      const cohort& common = *common_cohort();
      shared_sum_ = next(common, shared_sum_, norm_sq.sum);
      return shared_sum_ / common.scalars.bc2 / n;
    }
    running_sum total;
    for (const flat_tensor& flat : flat_) {
      tensor& x = tensors_[flat.index];
      const cohort& c = cohorts_[x.cohort];
      x.second_moment_sum = next(c, x.second_moment_sum, x.norm_sq);
      total.add(x.second_moment_sum / c.scalars.bc2);
    }
    return total.finish() / n;
  }

  void share_sum(sum_of what) noexcept
  {
    shared_sum_ = 0;
    for (tensor& x : tensors_) {
      shared_sum_ += x.active ? x.second_moment_sum : 0;
      x.second_moment_sum = 0;
    }
    sum_is_shared_ = what;
    if constexpr (on_device)
      flat_is_current_ = false;
  }

  /// v̄ by the moments themselves: a pass of its own over them, each block summed while it is in the cache. It leaves the new
  /// moments behind, or, where they are kept rounded, nothing.
  double mean_square_by_moments(bool flush_denormals) noexcept
  {
    if (flat_elements_ == 0)
      return 0;
    running_sum total;
    sum_blocks(
        [&](const flat_tensor& x, std::size_t i, std::size_t n) {
          const denormal_guard guard(flush_denormals);
          if constexpr (!keeps_exactly)
            return sum_of_next_moments(x, i, n);
          else {
            run<pass::moments>(x, i, i + n);
            return block_sum<plain_term>(backend_, x.state[formula::value_slot].values + i, n);
          }
        },
        [&](const flat_tensor& x, double sum) { total.add(sum / cohorts_[x.cohort].scalars.bc2); });
    return total.finish() / double(flat_elements_);
  }

  void schedule_decay(step_report& report) noexcept
  {
    for (cohort& c : cohorts_)
      if (c.members > 0) {
        const auto& decay = groups_[c.group].rule.decay;
        c.scalars.mean_square = *report.mean_square;
        c.prepared.decay = decay.template prepare<value_type>(c.scalars);
        report.decay_clamped = report.decay_clamped || decay.rate(c.scalars) > 1;
      }
    const double v = *report.mean_square + groups_[0].rule.decay.eps;
    report.decay_factor = v == 0 ? 0 : 1 / std::sqrt(v);
  }

  struct no_engine {};
  Backend backend_;
  std::unique_ptr<std::conditional_t<on_device, engine, no_engine>> engine_;
  std::uint64_t owner_;
  std::uint64_t seed_ = 0;
  std::uint64_t generations_ = 0;
  std::size_t elements_ = 0;
  std::vector<group> groups_;
  std::vector<tensor> tensors_;
  std::vector<std::size_t> free_;
  std::vector<cohort> cohorts_;
  std::size_t last_cohort_ = 0;
  std::vector<flat_tensor> flat_;
  bool flat_is_current_ = false;
  std::size_t flat_elements_ = 0;
  std::vector<double> block_sums_;
  std::size_t blocks_ = 0;  // of all attached tensors
  std::unordered_map<std::string, std::size_t> names_;
  double shared_sum_ = 0;            // Σv of all that takes part, while sum_is_shared_
  std::uint64_t sum_is_shared_ = 0;  // a sum_of, as a number so that it can be visited
  bool sums_are_stale_ = false;      // as steps have been taken that did not advance them
};

}  // namespace gradus::inline GRADUS_ISA

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
