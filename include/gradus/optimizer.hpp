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
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gradus/backend/default.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/kernel/denormals.hpp>
#include <gradus/state/precision.hpp>
#include <gradus/state/slots.hpp>
#include <gradus/optimizer/views.hpp>
#include <gradus/recipes.hpp>
#include <gradus/optimizer/tables.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The first field of a struct of options: as nothing converts to it, values without names do not compile.
struct every_option_is_named {
  explicit every_option_is_named() = default;
  template <class X>
  every_option_is_named(X) = delete;
};

}  // namespace detail

/// What one step may be told; every field is optional, and named: step({.lr_scale = 0.5}).
struct step_options {
  detail::every_option_is_named named_fields_only = detail::every_option_is_named();
  double lr_scale = 1;                       ///< a schedule's factor on the recipe's lr
  double grad_scale = 1;                     ///< factor on every gradient: 1/loss scale, 1/accumulated batches, …
  std::optional<double> max_grad_norm = {};  ///< clip the scaled gradients' global norm to this, as PyTorch does
  std::optional<double> grad_norm_sq = {};   ///< ‖g‖² of all raw gradients that take part, if the caller has it
  /// Change nothing if a gradient is infinite or NaN, or if the step would make a moment or a weight so.
  /// (Not seen: an L2 decay's λθ, and weights kept in 16 bits, that leave their type's range by their own size.)
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
  bool applied = true;                      ///< false where skip_nonfinite found something, a device cannot clip so far, or while `pending`
  std::optional<double> grad_norm = {};     ///< after grad_scale, before clipping; if it was computed or given
  std::optional<double> mean_square = {};   ///< v̄, where the decay is scheduled
  std::optional<double> decay_factor = {};  ///< the default group's 1/√(v̄ + eps), 0 for v̄ + eps = 0; likewise
  bool decay_clamped = false;               ///< a scheduled decay would have taken more than the whole weight
  bool pending = false;                     ///< the step is only enqueued on a device; report() waits for what it did
};

/// Which elements of a tensor are padding: a function that tells it of an index, or a range of bool as long as the tensor.
/// It views what it is made of.
///
///     opt.set_padding(h, [n](std::size_t i) { return i >= n; });  // n numbers, and then padding
class padding_mask {
 public:
  template <class Mask>
    requires(!std::is_function_v<Mask> && (requires(const Mask& m) { static_cast<bool>(m(std::size_t())); } ||
                                           requires(const Mask& m) { static_cast<bool>(m[std::size_t()]); std::size(m); }))
  padding_mask(const Mask& mask) noexcept : mask_(std::addressof(mask))
  {
    if constexpr (requires { static_cast<bool>(mask(std::size_t())); })
      call_ = [](const padding_mask& m, std::size_t i) { return static_cast<bool>((*static_cast<const Mask*>(m.mask_))(i)); };
    else {
      size_ = static_cast<std::size_t>(std::size(mask));
      call_ = [](const padding_mask& m, std::size_t i) { return static_cast<bool>((*static_cast<const Mask*>(m.mask_))[i]); };
    }
  }
  padding_mask(bool (*function)(std::size_t)) noexcept : function_(function)
  {
    call_ = [](const padding_mask& m, std::size_t i) { return m.function_(i); };
  }
  bool operator()(std::size_t i) const { return call_(*this, i); }
  std::optional<std::size_t> size() const noexcept { return size_; }  ///< of a range

 private:
  const void* mask_ = nullptr;
  bool (*function_)(std::size_t) = nullptr;
  bool (*call_)(const padding_mask&, std::size_t) = nullptr;
  std::optional<std::size_t> size_ = {};
};

/// What becomes of a removed tensor's state: kept for the tensor that is next added under its name, or dropped.
enum class removed_state { kept, dropped };

namespace detail {

/// How an optimizer steps over a backend's own memory.
template <class Optimizer, class Backend>
class device_engine;

/// Numbers for optimizers, by which a handle is known again even after its optimizer has moved.
inline std::uint64_t next_owner() noexcept
{
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// An optimizer's number; one that has been moved from has none.
struct owner_number {
  std::uint64_t value = next_owner();

  owner_number() = default;
  owner_number(owner_number&& other) noexcept : value(std::exchange(other.value, 0)) {}
};

/// How many visitors are in the optimizer: an atomic, since of constant optimizers several threads may be visitors.
struct visit_count {
  std::atomic<unsigned> value = 0;

  visit_count() = default;
  visit_count(visit_count&&) noexcept {}
};

/// A recipe's rule; another in place of what is no recipe, so that the sentence on it is the only error.
template <class R>
constexpr auto rule_of(const R& r) noexcept
{
  if constexpr (recipe<R>)
    return r.rule();
  else
    return some_composition(0, {}, {}, {}, {});
}

template <class Parameters, class Gradients>
struct rebinding {
  tensor_handle tensor;
  Parameters parameters;
  std::optional<Gradients> gradients;  ///< none: as of a tensor that is added without
};

/// Room for n, so that a push_back cannot fail; grows by doubling, which reserve(n) would not.
template <class X>
void make_room(std::vector<X>& v, std::size_t n)
{
  if (v.capacity() < n)
    v.reserve(2 * n);
}

}  // namespace detail

/// Runs one recipe over any number of tensors, which it views and never copies.
///
/// \tparam Recipe   adam, sgd, … (recipes.hpp), or what compose(…) gives
/// \tparam T        float or double: of parameters, gradients, state and arithmetic; or a `precision` that names several
/// \tparam Backend  backend::simd or backend::scalar
///
/// Move-only; handles stay good when it moves, and what was moved from refuses every call. Not synchronised. `step` and
/// rebinding allocate nothing. Every refusal throws std::invalid_argument (see error.hpp) and changes nothing; nor does any
/// member change anything where memory runs out.
///
/// No tensor's parameters may lie in another's parameters or in any gradients; tensors may share gradients. `add` and
/// `rebind` refuse it, in O(log n) for n tensors.
template <class Recipe, class T = float, class Backend = default_backend>
class optimizer
    : public range_front<optimizer<Recipe, T, Backend>, detail::parameter_of<T>, detail::gradient_of<T>, Backend> {
  static_assert(detail::gives_composition<Recipe>, "gradus: the recipe of an optimizer is sgd, adam, …, what compose(lr, …) returns, or an aggregate "
                                "of your own whose rule() returns such.");
  static_assert(detail::listed<Recipe> || !recipe<Recipe>,
                "gradus: the recipe has members that its `fields` does not list (or lists one name twice); list each: static "
                "constexpr auto fields = gradus::fields(gradus::hyper::lr(&recipe::lr), …).");
  static_assert(backend_type_of<Backend>, "gradus: the backend of an optimizer is backend::scalar, simd, dispatch, thrust or parallel, "
                                          "or has a sweep and an accumulate or block_sum of its own, as backend::scalar has.");
  static_assert(precise<T>, "gradus: the precision T of an optimizer is float, double or a gradus::precision<…>.");

 public:
  using precision_type = typename detail::precision_or_float<T>::precision;
  using parameter_type = typename precision_type::parameter_type;
  using gradient_type = typename precision_type::gradient_type;
  using state_type = typename precision_type::state_type;
  using master_type = typename precision_type::master_type;
  using recipe_type = Recipe;
  using rule_type = decltype(detail::rule_of(std::declval<const Recipe&>()));
  using value_type = typename precision_type::compute_type;  ///< of the arithmetic
  using backend_type = Backend;
  /// Whether the state lies in memory of the backend's own. Then only its engine touches elements.
  static constexpr bool on_device = requires { typename Backend::memory_type; };

  using parameters_span = std::span<parameter_type>;
  using gradients_span = std::span<const gradient_type>;

  /// One tensor's new memory, for rebind_spans of several at once.
  using rebinding = detail::rebinding<parameters_span, gradients_span>;

  explicit optimizer(Recipe hyperparameters, Backend backend = Backend()) : backend_(backend) { add_group(hyperparameters); }
  /// With the recipe's defaults. (A template, so that the class can be instantiated where a recipe has none.)
  template <class R = Recipe>
  optimizer() : optimizer(R{})
  {
    if constexpr (!requires { R::has_no_default; })
      static_assert(!requires { requires R{}.rule().lr == 0; },
                    "gradus: lr was not given, and the recipe's own is 0, with which nothing is learnt; pass a recipe with its lr.");
  }
  optimizer(optimizer&&) noexcept = default;
  optimizer& operator=(optimizer&& other) noexcept
  {
    if (this != &other) {
      this->~optimizer();
      ::new (static_cast<void*>(this)) optimizer(std::move(other));
    }
    return *this;
  }

  // ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /// A copy of a group's hyperparameters: change the copy (auto h = opt.hyperparameters();), and give it to add_group or
  /// set_hyperparameters. A new learning rate alone is set by set_lr.
  Recipe hyperparameters(group_handle g = {}) const { return groups_[checked(g)].recipe; }

  /// A further group, with hyperparameters of its own.
  group_handle add_group(const Recipe& hyperparameters)
  {
    check_may_change();
    groups_.push_back(checked(hyperparameters));
    return {owner_.value, groups_.size() - 1};
  }

  /// A group's learning rate, and a new one from the next step on.
  double lr(group_handle g = {}) const
    requires(requires(Recipe r) { r.lr; })
  {
    return groups_[checked(g)].recipe.lr;
  }
  void set_lr(double lr, group_handle g = {})
    requires(requires(Recipe r) { r.lr = 1.0; })
  {
    Recipe next = groups_[checked(g)].recipe;
    next.lr = lr;
    set_hyperparameters(next, g);
  }

  /// Refuses what add_group and set_hyperparameters would refuse, and does nothing else.
  static void check_hyperparameters(const Recipe& hyperparameters) { checked(hyperparameters); }

  /// New hyperparameters for a group, from the next step on. State is kept; a momentum raised from 0 starts from zeros.
  void set_hyperparameters(const Recipe& hyperparameters, group_handle g = {})
  {
    begin_change();
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
  /// Without gradients, a tensor takes part in no step until some are bound to it.
  tensor_handle add_spans(std::string_view name, parameters_span parameters, std::optional<gradients_span> gradients,
                          std::optional<group_handle> in = {})
  {
    begin_change();
    const std::size_t index = first_free_ == detail::no_place ? tensors_.size() : first_free_;
    const std::size_t g = checked(in.value_or(group_handle{}));
    std::string own(name);
    for (std::size_t number = index; own.empty() || (name.empty() && names_.contains(own)); ++number)
      own = "tensor" + std::to_string(number);
    const auto known = names_.find(own);
    if (known != names_.end() && tensors_[known->second].attached)
      detail::fail("name is " + detail::quote(own) + ", which another tensor has; expected a name of its own");
    check_memory(own, parameters, gradients);
    if (known != names_.end())
      check_length(tensors_[known->second], parameters);
    if (const conflict c = conflict_of(place_of(parameters), place_of(gradients)))
      fail_overlap(own, c);
    if (known != names_.end())
      return add_again(known->second, parameters, gradients, in ? g : tensors_[known->second].group);

    tensor added;
    added.size = parameters.size();
    added.group = g;
    added.state = make_state(groups_[g].rule, added.size, slots);
    if constexpr (precision_type::has_master) {
      added.master = {added.size, 0, memory_source::get(backend_)};
      decode_master(added.master.get(), parameters.data(), added.size);
    }
    detail::make_room(tensors_, tensors_.size() + 1);
    make_room_for_step(added.size);
    names_.emplace(own, index);
    // From here on nothing can fail.
    added.name_hash = detail::hash(own);
    added.name = std::move(own);
    if (index == tensors_.size())
      tensors_.push_back(std::move(added));
    else {
      first_free_ = tensors_[index].next_free;
      tensors_[index] = std::move(added);
    }
    attach(index, parameters, gradients);
    return {owner_.value, index, generations_};
  }

  /// `rebind` for spans. Without gradients, the tensor has none from then on, and takes part in no step until some are bound.
  void rebind_spans(const tensor_handle& h, parameters_span parameters, std::optional<gradients_span> gradients)
  {
    const rebinding one{h, parameters, gradients};
    rebind_spans(std::span(&one, 1));
  }
  /// Rebinds several tensors at once, all or none: they may take each other's places, where one after the other they would
  /// overlap on the way.
  void rebind_spans(std::span<const rebinding> all)
  {
    begin_change();
    for (const rebinding& r : all) {
      const tensor& x = checked(r.tensor);
      check_memory(x.name, r.parameters, r.gradients);
      check_length(x, r.parameters);
    }
    move_between_places move{*this, all};
    move.try_places();
    bool someone_comes = false, someone_goes = false;
    for (const rebinding& r : all) {
      const tensor& x = tensors_[r.tensor.index_];
      someone_goes = someone_goes || (x.active && !r.gradients);
      someone_comes = someone_comes || (!x.active && !x.is_frozen && r.gradients && x.t > 0);
    }
    if (sum_is_shared_ && (someone_comes || someone_goes))
      recompute_sums();
    move.done = true;
    for (std::size_t k = 0; k < all.size(); ++k) {
      if (move.moves_parameters(k) || move.moves_gradients(k))
        flat_is_current_ = false;
      tensor& x = tensors_[all[k].tensor.index_];
      x.parameters = all[k].parameters.data();
      bind_gradients(x, all[k].gradients);
    }
  }
  /// Points a tensor at other gradients; one that has had none yet takes part in steps from then on, unless it is left out.
  void rebind_gradients_spans(const tensor_handle& h, gradients_span gradients)
  {
    begin_change();
    const tensor& x = checked(h);
    rebind_spans(h, parameters_span(x.parameters, x.size), gradients);
  }

  /// Leaves a tensor out of the steps to come: its weights, state and step count stand still.
  void freeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    if (x.active) {
      if (sum_is_shared_)
        recompute_sums();
      drop(x);
    }
    x.is_frozen = true;
  }

  /// Takes a tensor in again that was left out.
  void unfreeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    if (!x.has_gradients)
      detail::fail("tensor " + detail::quote(x.name) + " has no gradients, and so cannot be taken in; expected rebind_gradients(tensor, gradients) before it");
    if (!x.active) {
      unshare_sum_before_return_of(x);
      enlist(x);
    }
    x.is_frozen = false;
  }

  /// Lets go of a tensor's memory. Its state is dropped, or kept until a tensor of the same name and length is added.
  void remove(const tensor_handle& h, removed_state state)
  {
    freeze(h);
    tensor& x = tensors_[h.index_];
    elements_ -= x.size;
    blocks_ -= block_count(x.size);
    parameter_places_.erase(h.index_);
    gradient_places_.erase(h.index_);
    x.attached = x.has_gradients = false;
    if (state == removed_state::dropped) {
      names_.erase(x.name);
      x = tensor{};
      x.next_free = first_free_;
      first_free_ = h.index_;
    }
  }

  /// Says which elements of a tensor are padding, as the blocked layouts of oneDNN have it. Their state becomes 0, also
  /// where a rule starts from another number, and they do not count in a scheduled decay's v̄. Where the caller keeps
  /// weights and gradients there at 0, they stay 0, whatever the rule. Nothing of it is saved: a resumed run says it anew.
  void set_padding(const tensor_handle& h, padding_mask is_padding)
  {
    begin_change();
    tensor& x = checked(h);
    if (is_padding.size().value_or(x.size) != x.size)
      detail::fail("size of the padding mask of tensor " + detail::quote(x.name) + " is " + std::to_string(*is_padding.size()) + "; expected " +
           std::to_string(x.size) + ", the size of its parameters");
    std::vector<unsigned char> mask(x.size);  // a mask that throws does so before anything has changed
    std::size_t count = 0;
    for (std::size_t i = 0; i < x.size; ++i) {
      mask[i] = is_padding(i);
      count += mask[i];
    }
    clear_state(x, mask);
    x.padding = count;
    flat_is_current_ = false;
    if (x.t > 0 || sum_is_shared_)
      recompute_sums();
  }

  /// How many steps a tensor has taken.
  std::uint64_t step_count(const tensor_handle& h) const
  {
    begin_read();
    return const_cast<optimizer*>(this)->checked(h).t;
  }

  /// The number of parameters in all tensors, those left out and padding included.
  std::size_t parameter_count() const
  {
    check_not_moved_from();
    return elements_;
  }

  /// The bytes of state that all tensors keep together.
  std::size_t state_bytes() const
  {
    check_not_moved_from();
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
  /// Whoever overwrites a second moment by hand calls recompute_second_moment_sum() after it.
  std::span<state_type> state(std::string_view name, std::string_view slot_name)
    requires(!std::is_same_v<state_type, block8>)
  {
    check_not_moved_from();
    const auto known = names_.find(std::string(name));
    if (known == names_.end())
      detail::fail("name is " + detail::quote(name) + "; expected that of a tensor of this optimizer");
    const tensor& x = tensors_[known->second];
    std::string names;
    for (std::size_t k = 0; k < slots; ++k) {
      if (!keeps(groups_[x.group].rule, k))
        continue;
      if (slot_list[k].name == slot_name)
        return {x.state[k].view().values, x.size};
      names += (names.empty() ? "" : " or ") + detail::quote(slot_list[k].name);
    }
    detail::fail("slot of tensor " + detail::quote(name) + " is " + detail::quote(slot_name) + "; expected " +
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
  /// "exp_avg_sq_sum" and a span of one std::uint64_t, "exp_avg_sq_sum_is_shared" (0; 1 for one sum of all tensors, 2 for
  /// that of a model_size); and where something is rounded stochastically, likewise "seed". A sum that is NaN is found anew
  /// from the moments, in the next step that needs it. What is written through the spans is the state from then on: a run
  /// restored so goes on with the same bits. Hyperparameters, schedules and who is left out are the caller's. Until it
  /// returns, `visit` may read the optimizer, and no more: what would change it refuses.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    begin_read();
    const changing_visit during(*this);
    visit_all(*this, visit);
  }
  /// The same, with spans of const.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    begin_read();
    const reading_visit during(*this);
    visit_all(*this, visit);
  }

  /// The seed of stochastic rounding, 0 at first; part of the state. Steps from the same seed have the same bits.
  std::uint64_t seed() const
    requires(precision_type::stochastic)
  {
    check_not_moved_from();
    return seed_;
  }
  void set_seed(std::uint64_t seed)
    requires(precision_type::stochastic)
  {
    begin_change();
    seed_ = seed;
    flat_is_current_ = false;
  }

  /// Reads the master weights anew from the parameters, for when these were changed by other than steps.
  void reset_master(const tensor_handle& h)
    requires(precision_type::has_master)
  {
    check_may_change();
    tensor& x = checked(h);
    decode_master(x.master.get(), x.parameters, x.size);
  }

  /// Copies to or from a device's memory, for visitors of state that have a `static constexpr bool takes_device_memory = true`:
  /// they are shown the arrays themselves and not copies.
  void copy_memory([[maybe_unused]] void* to, [[maybe_unused]] const void* from, [[maybe_unused]] std::size_t bytes) const
    requires(on_device)
  {
    check_not_moved_from();
    if constexpr (on_device)  // Clang 14 instantiates what the requirement excludes
      backend_.copy(to, from, bytes);
  }

  /// How many groups there are, and the handle of each: the default one first, then in the order of add_group.
  std::size_t group_count() const
  {
    check_not_moved_from();
    return groups_.size();
  }
  group_handle group_at(std::size_t index) const
  {
    check_not_moved_from();
    const group_handle g(owner_.value, index);
    return checked(g), g;
  }

  /// Calls visit(name, parameters, index of its group, takes_part) for each tensor; one that was removed, its state kept,
  /// has no parameters. takes_part is a bool& that says whether it is in the steps to come (one that has no gradients yet:
  /// in those from when it has), and may be written. Unlike freeze and unfreeze that leaves a scheduled decay's sums
  /// alone: whoever restores the ones restores the others. Until it returns, `visit` may read the optimizer, and no more.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    begin_read();
    const changing_visit during(*this);
    visit_all_tensors(*this, visit);
  }
  /// The same, with a span of const and a const bool.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    check_not_moved_from();
    const reading_visit during(*this);
    visit_all_tensors(*this, visit);
  }

  /// Recomputes a scheduled decay's sums from the second moments themselves, for when these were written by hand or come
  /// from a source that has no such sums.
  void recompute_second_moment_sum()
  {
    begin_change();
    recompute_sums();
  }

  // ── the step ───────────────────────────────────────────────────────────────────────────────────────────────────

  /// Moves every tensor that takes part one step along its gradient; where none does, nothing.
  /// Over memory of a device it is only ordered there: the report it returns is `pending`, and report() waits for the one
  /// that is not.
  step_report step(const step_options& o = {})
  {
    check_may_change();
    check_options(o);
    if constexpr (on_device) {
      engine_->step(*this, o);
      if constexpr (Backend::synchronous)
        return report();
      step_report unknown;
      unknown.applied = false;
      unknown.pending = true;
      return unknown;
    }
    else
      return last_report_ = step_here(o);
  }

  /// What the last step did, on every backend; waits for a device. Before the first step: that none was applied.
  step_report report() const
  {
    check_not_moved_from();
    if constexpr (on_device)
      if (engine_)
        return engine_->report(*this);
    return last_report_;
  }

  /// Sets a device's lr_scale, grad_scale and max_grad_norm for the steps of captured graphs, in the order of the stream.
  void set_options(const step_options& o)
    requires(on_device)
  {
    check_may_change();
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
          detail::fail("max_grad_norm is " + detail::show(*o.max_grad_norm) + " and the gradients' norm " + detail::show(*report.grad_norm) +
               "; expected a factor on the gradients of at least " + detail::show(detail::smallest_normal<value_type>) + ", the smallest " +
               detail::name_of<value_type> + " that has all digits: skip_nonfinite = true leaves such steps out");
        report.applied = false;
        return report;
      }
    }
    for (cohort& c : cohorts_)
      if (c.members > 0) {
        const rule_type& rule = groups_[c.group].rule;
        c.scalars = make_step_scalars(rule, c.t + 1, o.lr_scale, 0);
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
      for_ranges(o.flush_denormals, [&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept { run<Pass>(x, begin, end); });
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
    ++steps_;
    return report;
  }

  /// Whether a step computes the gradient's norm, where it is not given.
  static bool measures(const step_options& o) noexcept
  {
    return o.max_grad_norm || o.skip_nonfinite || (one_pass && !o.mean_square);
  }
  static bool clips(const step_options& o) noexcept { return o.max_grad_norm && is_finite(*o.max_grad_norm); }

  static constexpr std::size_t slots = rule_type::slots;
  using formula = decltype(prepare<value_type>(std::declval<const rule_type&>(), step_scalars{}));
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
    std::size_t padding = 0;  // how many of the elements
    std::size_t next_free = detail::no_place;
    bool attached = false;
    bool has_gradients = false;
    bool is_frozen = false;
    bool active = false;  // takes part in steps: attached, with gradients, and not left out
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
    std::size_t next = detail::no_place;  // of no members: the next such; else where compact_cohorts moves it
    step_scalars scalars = {};
    formula prepared = {};
  };

  // ── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────

  static group checked(const Recipe& hyperparameters)
  {
    const rule_type rule = detail::rule_of(hyperparameters);
    validate(hyperparameters);
    validate(rule);
    double largest = 0;
    for_each_number(hyperparameters, rule, [&](std::string_view name, double value) {
      if (value > detail::largest<value_type>)
        detail::fail(std::string(name) + " is " + detail::show(value) + "; expected at most " + detail::show(detail::largest<value_type>) +
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

  void check_not_moved_from() const
  {
    if (owner_.value == 0)
      detail::fail("this optimizer has been moved from; expected the one it was moved to");
  }
  void check_may_change() const
  {
    check_not_moved_from();
    if (visitors_.value.load(std::memory_order_relaxed) > 0)
      detail::fail("this optimizer is being visited; expected no change to it until visit_state or visit_tensors has returned");
  }
  void begin_change()
  {
    check_may_change();
    settle();
  }
  void begin_read() const
  {
    check_not_moved_from();
    settle();
  }

  std::size_t checked(const group_handle& g) const
  {
    check_not_moved_from();
    if ((g.owner_ != 0 && g.owner_ != owner_.value) || g.index_ >= groups_.size())
      detail::fail("group is of another optimizer; expected one that add_group of this optimizer returned");
    return g.index_;
  }

  tensor& checked(const tensor_handle& h)
  {
    check_not_moved_from();
    if (h.owner_ != owner_.value || h.index_ >= tensors_.size() || tensors_[h.index_].generation != h.generation_ ||
        !tensors_[h.index_].attached)
      detail::fail("tensor is removed, or of another optimizer; expected one that add of this optimizer returned");
    return tensors_[h.index_];
  }

  /// Sentences are made where one is needed, and not before: a call that is not refused allocates nothing here.
  void check_memory(std::string_view name, parameters_span parameters, const std::optional<gradients_span>& gradients) const
  {
    const std::size_t n = parameters.size(), most = std::size_t(PTRDIFF_MAX) / sizeof(value_type) - elements_;
    const auto of = [&] { return " of tensor " + detail::quote(name); };
    if (gradients && gradients->size() != n)
      detail::fail("size of gradients" + of() + " is " + std::to_string(gradients->size()) + "; expected " + std::to_string(n) +
           ", the size of its parameters");
    if (n > most)
      detail::fail("size of parameters" + of() + " is " + std::to_string(n) + "; expected at most " + std::to_string(most) +
           ", or the bytes of all tensors would overflow");
    if (n > 0 && !parameters.data())
      detail::fail("parameters" + of() + " is null; expected " + std::to_string(n) + " elements");
    if (n > 0 && gradients && !gradients->data())
      detail::fail("gradients" + of() + " is null; expected " + std::to_string(n) + " elements");
    detail::check_alignment("parameters", name, parameters);
    if (gradients)
      detail::check_alignment("gradients", name, *gradients);
    if constexpr (on_device)
      if (n > 0)
        engine::check_place(backend_, parameters.data(), gradients ? gradients->data() : nullptr, name);
    if (n > 0 && gradients) {
      const place p = place_of(parameters), g = place_of(*gradients);
      if (p.begin < g.end && g.begin < p.end)
        detail::fail("gradients" + of() + " overlap its parameters; expected memory of their own");
    }
  }

  static void check_length(const tensor& x, parameters_span parameters)
  {
    if (parameters.size() != x.size)
      detail::fail("size of parameters of tensor " + detail::quote(x.name) + " is " + std::to_string(parameters.size()) + "; expected " +
           std::to_string(x.size) + ", as when its state was made");
  }

  void check_options(const step_options& o) const
  {
    detail::check("lr_scale", o.lr_scale, range::at_least_zero);
    if (!is_finite(o.grad_scale) || o.grad_scale <= 0)
      detail::fail("grad_scale is " + detail::show(o.grad_scale) + "; expected a finite number > 0");
    if constexpr (!std::is_same_v<value_type, double>)
      if (o.grad_scale < detail::smallest_normal<value_type> || o.grad_scale > detail::largest<value_type>)
        detail::fail("grad_scale is " + detail::show(o.grad_scale) + "; expected a number from " + detail::show(detail::smallest_normal<value_type>) +
             " to " + detail::show(detail::largest<value_type>) + ", the range of " + detail::name_of<value_type>);
    if (o.max_grad_norm && (is_nan(*o.max_grad_norm) || *o.max_grad_norm <= 0))
      detail::fail("max_grad_norm is " + detail::show(*o.max_grad_norm) + "; expected a number > 0 (infinity only measures)");
    if (o.grad_norm_sq && (*o.grad_norm_sq < 0 || (is_nan(*o.grad_norm_sq) && !o.skip_nonfinite)))
      detail::fail("grad_norm_sq is " + detail::show(*o.grad_norm_sq) + "; expected the sum of the squares of all raw gradients");
    if (o.grad_norm_sq && !is_finite(*o.grad_norm_sq) && clips(o) && !o.skip_nonfinite)
      detail::fail("grad_norm_sq is " + detail::show(*o.grad_norm_sq) + "; expected a finite number with max_grad_norm, which divides by "
           "its root: leave it out and it is computed, or set skip_nonfinite");
    if (o.mean_square && !detail::contains(range::at_least_zero, *o.mean_square))
      detail::fail("mean_square is " + detail::show(*o.mean_square) + "; expected " + detail::expectation(range::at_least_zero));
    bool any = false;
    for (const tensor& x : tensors_)
      any = any || x.attached;
    if (!any)
      detail::fail("step() has 0 tensors to move; expected at least one add(parameters, gradients) before it");
    const std::uint64_t elements = o.model_size ? active_elements() : 0;
    if (o.model_size && *o.model_size < elements)
      detail::fail("model_size is " + std::to_string(*o.model_size) + "; expected at least " + std::to_string(elements) +
           ", the number of parameters of this part");
    for (const group& g : groups_)
      check_coefficients(g.rule, g.is_tame, o.lr_scale);
    if constexpr (rule_type::scheduled) {
      if (o.mean_square)
        return;
      if (o.grad_norm_sq && any_active() && !common_cohort())
        detail::fail("grad_norm_sq is " + detail::show(*o.grad_norm_sq) +
             "; expected none, as a scheduled decay needs the norm of each tensor where the tensors differ in beta2 or in "
             "the number of steps taken: leave it out and it is computed");
      if (o.model_size && *o.model_size != elements)
        check_model_size(o);
    }
  }

  void check_model_size(const step_options& o) const
  {
    const auto refuse = [&](const char* reason) {
      detail::fail("model_size is " + std::to_string(*o.model_size) + "; expected none, as " + reason);
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
      detail::fail("lr_scale is " + detail::show(lr_scale) + " with lr " + detail::show(rule.lr) + "; expected a product of at most " + detail::show(most) + as);
    // Corrections of bias are largest in the first step, or grow towards the last.
    for (const std::uint64_t t : {std::uint64_t(1), std::uint64_t(1) << 53})
      if (!detail::coefficients_are_finite<value_type>(rule, t, lr_scale)) {
        if constexpr (requires { rule.decay.weight_decay; })
          if (!(lr * rule.decay.weight_decay <= most))
            detail::fail("weight_decay is " + detail::show(rule.decay.weight_decay) + " with lr " + detail::show(rule.lr) + " and lr_scale " +
                 detail::show(lr_scale) + "; expected a product of at most " + detail::show(most) + as);
        detail::fail("lr is " + detail::show(rule.lr) + " and lr_scale " + detail::show(lr_scale) +
             "; expected a step whose coefficients, of these and of the other hyperparameters, are at most " + detail::show(most) + as);
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

  // ── where tensors lie ──────────────────────────────────────────────────────────────────────────────────────────

  struct place {
    std::uintptr_t begin, end;
  };
  template <class X>
  static place place_of(std::span<X> x) noexcept
  {
    const auto begin = reinterpret_cast<std::uintptr_t>(x.data());
    return {begin, begin + x.size_bytes()};
  }
  static place place_of(const std::optional<gradients_span>& x) noexcept { return x ? place_of(*x) : place{0, 0}; }

  /// Which tensor's memory new memory meets, and of which kinds the two are.
  struct conflict {
    const char* new_one = nullptr;
    const char* old_one = nullptr;
    std::size_t tensor = detail::no_place;
    explicit operator bool() const noexcept { return tensor != detail::no_place; }
  };
  conflict conflict_of(place parameters, place gradients) noexcept
  {
    if (const std::size_t i = parameter_places_.meeting(0, parameters.begin, parameters.end); i != detail::no_place)
      return {"parameters", "parameters", i};
    if (const std::size_t i = gradient_places_.meeting(0, parameters.begin, parameters.end); i != detail::no_place)
      return {"parameters", "gradients", i};
    if (const std::size_t i = parameter_places_.meeting(1, gradients.begin, gradients.end); i != detail::no_place)
      return {"gradients", "parameters", i};
    return {};
  }
  [[noreturn]] void fail_overlap(std::string_view name, const conflict& c) const
  {
    detail::fail(std::string(c.new_one) + " of tensor " + detail::quote(name) + " overlap the " + c.old_one + " of tensor " +
         detail::quote(tensors_[c.tensor].name) + "; expected memory of their own");
  }

  /// Tensors on their way from where they lie to where they are to lie: there once try_places has returned and `done` is set,
  /// else back again at the end.
  struct move_between_places {
    optimizer& self;
    std::span<const rebinding> all;
    std::size_t left = 0, placed = 0;  // so many have left, so many are placed anew
    bool done = false;

    tensor& moved(std::size_t k) const noexcept { return self.tensors_[all[k].tensor.index_]; }
    bool moves_parameters(std::size_t k) const noexcept { return moved(k).parameters != all[k].parameters.data(); }
    bool moves_gradients(std::size_t k) const noexcept
    {
      return moved(k).gradients != (all[k].gradients ? all[k].gradients->data() : nullptr);
    }
    void leave(std::size_t k) const noexcept
    {
      const std::size_t i = all[k].tensor.index_;
      if (moves_parameters(k))
        self.parameter_places_.erase(i);
      if (moves_gradients(k))
        self.gradient_places_.erase(i);
    }
    void put(std::size_t k, place parameters, place gradients) const noexcept
    {
      const std::size_t i = all[k].tensor.index_;
      if (moves_parameters(k))
        self.parameter_places_.insert(i, parameters.begin, parameters.end);
      if (moves_gradients(k))
        self.gradient_places_.insert(i, gradients.begin, gradients.end);
    }

    /// All leave their places before any takes a new one. A tensor on its way is not attached, by which one that is on the
    /// list twice is found.
    void try_places()
    {
      for (; left < all.size(); ++left) {
        if (!std::exchange(moved(left).attached, false))
          detail::fail("tensor " + detail::quote(moved(left).name) + " is to be rebound twice at once; expected each tensor once");
        leave(left);
      }
      for (; placed < all.size(); ++placed) {
        const place p = moves_parameters(placed) ? place_of(all[placed].parameters) : place{0, 0};
        const place g = moves_gradients(placed) ? place_of(all[placed].gradients) : place{0, 0};
        if (const conflict c = self.conflict_of(p, g))
          self.fail_overlap(moved(placed).name, c);
        put(placed, p, g);
      }
    }
    ~move_between_places()
    {
      for (std::size_t k = 0; !done && k < placed; ++k)
        leave(k);
      for (std::size_t k = 0; k < left; ++k) {
        tensor& x = moved(k);
        x.attached = true;
        if (!done)
          put(k, place_of(parameters_span(x.parameters, x.size)), place_of(gradients_span(x.gradients, x.gradients ? x.size : 0)));
      }
    }
  };

  void bind_gradients(tensor& x, const std::optional<gradients_span>& gradients) noexcept
  {
    x.gradients = gradients ? gradients->data() : nullptr;
    x.has_gradients = gradients.has_value();
    const bool takes_part = x.has_gradients && !x.is_frozen;
    if (takes_part && !x.active)
      enlist(x);
    else if (!takes_part && x.active)
      drop(x);
  }

  /// Sets an element's state to 0 where the mask says so. A slot of codes has 0 as its code for 0.
  void clear_state(const tensor& x, const std::vector<unsigned char>& mask)
  {
    [[maybe_unused]] std::vector<unsigned char> staging(on_device ? x.size * sizeof(value_type) : 0);
    for (const auto& slot : x.state) {
      const auto view = slot.view();
      if (!view)
        continue;
      auto* const values = [&] {
        if constexpr (std::is_same_v<state_type, block8>)
          return view.codes;
        else
          return view.values;
      }();
      using element = std::remove_reference_t<decltype(*values)>;
      const auto clear = [&](unsigned char* bytes) {
        for (std::size_t i = 0; i < x.size; ++i)
          for (std::size_t k = 0; mask[i] && k < sizeof(element); ++k)
            bytes[i * sizeof(element) + k] = 0;
      };
      if constexpr (on_device) {
        backend_.copy(staging.data(), values, x.size * sizeof(element));
        clear(staging.data());
        backend_.copy(values, staging.data(), x.size * sizeof(element));
      }
      else
        clear(reinterpret_cast<unsigned char*>(values));
    }
  }

  /// Learns what the engine's steps have left on the device: step counts and sums. Whoever reads or changes these calls it first.
  void settle() const
  {
    if constexpr (on_device)
      if (engine_)
        engine_->settle(const_cast<optimizer&>(*this));
  }

  /// A tensor that was removed with its state kept, come back.
  tensor_handle add_again(std::size_t index, parameters_span parameters, const std::optional<gradients_span>& gradients, std::size_t g)
  {
    tensor& x = tensors_[index];
    make_room_for_step(x.size);
    memory state;
    const bool is_refitted = is_idle(groups_[g].rule) != is_idle(groups_[x.group].rule);
    if (is_refitted)
      state = make_state(groups_[g].rule, x.size, first_slots);
    unshare_sum_before_return_of(x);
    if (is_refitted)
      replace_first_moment(x, state);
    x.group = g;
    attach(index, parameters, gradients);
    return {owner_.value, index, generations_};
  }

  /// A shared Σv knows only the tensors that were there, and one that comes back brings a second moment with it.
  void unshare_sum_before_return_of(const tensor& x) noexcept
  {
    if (sum_is_shared_ && x.t > 0)
      recompute_sums();
  }

  void attach(std::size_t index, parameters_span parameters, const std::optional<gradients_span>& gradients) noexcept
  {
    tensor& x = tensors_[index];
    const place p = place_of(parameters), g = place_of(gradients);
    parameter_places_.insert(index, p.begin, p.end);
    gradient_places_.insert(index, g.begin, g.end);
    x.parameters = parameters.data();
    x.generation = ++generations_;
    x.attached = true;
    x.is_frozen = false;
    elements_ += x.size;
    blocks_ += block_count(x.size);
    bind_gradients(x, gradients);
  }

  void recompute_sums() noexcept(!on_device)
  {
    if constexpr (one_pass) {
      settle();
      for (tensor& x : tensors_) {
        const auto* const v = x.state[formula::value_slot].view().values;
        if constexpr (on_device)
          x.second_moment_sum = engine_->sum(v, x.size);
        else
          x.second_moment_sum = reduce<plain_term>(backend_, v, x.size);
      }
      shared_sum_ = 0;
      sum_is_shared_ = 0;
      sums_are_stale_ = false;
      if constexpr (on_device)
        flat_is_current_ = false;
    }
  }

  /// All that a step over one more tensor of n elements may need, so that `step` allocates nothing.
  void make_room_for_step(std::size_t n)
  {
    const std::size_t blocks = blocks_ + block_count(n);
    const std::size_t tensors = tensors_.size() + 1;
    detail::make_room(flat_, tensors);
    // Cohorts that have no members are used again, so that there are never more than tensors.
    detail::make_room(cohorts_, tensors);
    cohort_places_.reserve(tensors, [this](std::size_t i) { return cohort_hash(i); });
    parameter_places_.reserve(tensors);
    gradient_places_.reserve(tensors);
    if constexpr (on_device) {
      if (!engine_)
        engine_.reset(new engine(backend_));
      engine_->reserve(tensors, blocks);
    }
    else if (block_sums_.size() < blocks)
      block_sums_.resize(blocks + blocks / 2);
  }

  /// Brings the flat list up to date, in the memory that it has.
  void flatten() noexcept
  {
    if (flat_is_current_)
      return;
    compact_cohorts();
    flat_.clear();
    std::size_t element = 0, block = 0, padding = 0;
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
      padding += x.padding;
    }
    flat_elements_ = element;
    counted_elements_ = element - padding;
    flat_is_current_ = true;
  }

  /// What a cohort is found by. All cohorts step together, so the number of steps that the optimizer had taken when a cohort's
  /// t was 0 stays the same while its t does not.
  std::uint64_t cohort_hash(std::size_t group, std::uint64_t t) const noexcept
  {
    return detail::mix(detail::mix(group) + (steps_ - t));
  }
  std::uint64_t cohort_hash(std::size_t i) const noexcept { return cohort_hash(cohorts_[i].group, cohorts_[i].t); }

  /// Takes a tensor into its cohort. There is room for a new one, since every `add` made some.
  void enlist(tensor& x) noexcept
  {
    flat_is_current_ = false;
    const std::uint64_t hash = cohort_hash(x.group, x.t);
    std::size_t i = cohort_places_.find(hash, [&](std::size_t k) { return cohorts_[k].group == x.group && cohorts_[k].t == x.t; });
    if (i == detail::no_place) {
      i = first_empty_cohort_;
      if (i == detail::no_place) {
        i = cohorts_.size();
        cohorts_.push_back({});
      }
      else
        first_empty_cohort_ = cohorts_[i].next;
      cohorts_[i].group = x.group;
      cohorts_[i].t = x.t;
      cohort_places_.insert(hash, i);
      ++live_cohorts_;
    }
    ++cohorts_[i].members;
    x.cohort = i;
    x.active = true;
  }

  /// Takes a tensor out of its cohort.
  void drop(tensor& x) noexcept
  {
    flat_is_current_ = false;
    x.active = false;
    cohort& c = cohorts_[x.cohort];
    if (--c.members > 0)
      return;
    cohort_places_.erase(x.cohort, [this](std::size_t i) { return cohort_hash(i); });
    c.next = first_empty_cohort_;
    first_empty_cohort_ = x.cohort;
    --live_cohorts_;
  }

  /// Once most cohorts have no members, these make way, so that a step does not go over them for ever.
  void compact_cohorts() noexcept
  {
    if (cohorts_.size() - live_cohorts_ <= live_cohorts_ + 8)
      return;
    std::size_t next = 0;
    for (cohort& c : cohorts_)
      if (c.members > 0)
        c.next = next++;
    for (tensor& x : tensors_)
      if (x.active)
        x.cohort = cohorts_[x.cohort].next;
    for (const cohort& c : cohorts_)
      if (c.members > 0)
        cohorts_[c.next] = cohort(c);
    cohorts_.resize(next);
    first_empty_cohort_ = detail::no_place;
    cohort_places_.clear();
    for (std::size_t i = 0; i < next; ++i)
      cohort_places_.insert(cohort_hash(i), i);
  }

  void enlist_all() noexcept
  {
    flat_is_current_ = false;  // even where no tensor is left
    cohorts_.clear();
    cohort_places_.clear();
    first_empty_cohort_ = detail::no_place;
    live_cohorts_ = 0;
    for (tensor& x : tensors_)
      if (x.active)
        enlist(x);
  }

  /// Visitors may read the optimizer and not change it; those that are shown what they may write, by what they are shown.
  struct reading_visit {
    const optimizer& self;
    explicit reading_visit(const optimizer& o) noexcept : self(o) { self.visitors_.value.fetch_add(1, std::memory_order_relaxed); }
    reading_visit(const reading_visit&) = delete;
    ~reading_visit() { self.visitors_.value.fetch_sub(1, std::memory_order_relaxed); }
  };
  struct changing_visit : reading_visit {
    optimizer& changed;
    explicit changing_visit(optimizer& o) noexcept : reading_visit(o), changed(o)
    {
      o.flat_is_current_ = false;  // nothing that a device still knows may take the place of what the visitor writes
    }
    ~changing_visit()  // step counts and sums may have changed, even where the visitor threw half-way
    {
      changed.enlist_all();
      changed.find_stale_sums();
    }
  };

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
      std::conditional_t<std::is_const_v<Self>, const bool, bool> takes_part = x.attached && !x.is_frozen;
      visit(std::string_view(x.name), std::span<element>(x.parameters, x.attached ? x.size : 0), x.group, takes_part);
      if constexpr (!std::is_const_v<Self>) {
        x.is_frozen = !takes_part;
        x.active = takes_part && x.has_gradients;
      }
    }
  }

  // ── the parts of a step ────────────────────────────────────────────────────────────────────────────────────────

  static constexpr std::size_t block_count(std::size_t n) noexcept { return (n + reduce_block - 1) / reduce_block; }

  /// Calls f(tensor, begin, end) on ranges of elements that together are all that takes part: in pieces that the backend
  /// may run at the same time, cut through the flat list so that all are about as long, whatever the tensors' sizes. They
  /// begin at whole blocks of a tensor, and depend on the list alone. \param flush_denormals  while f runs
  template <class F>
  void for_ranges(bool flush_denormals, const F& f) noexcept
  {
    const std::size_t pieces = flat_elements_ < smallest_parallel_step
                                   ? 1
                                   : (flat_elements_ / smallest_piece < most_pieces ? flat_elements_ / smallest_piece
                                                                                    : most_pieces);
    if constexpr (requires { backend_.for_pieces(pieces, [](std::size_t) noexcept {}); })
      if (pieces > 1)
        return backend_.for_pieces(pieces, [&](std::size_t k) noexcept {
          const denormal_guard guard(flush_denormals);
          for_ranges_between(cut(k, pieces), cut(k + 1, pieces), f);
        });
    const denormal_guard guard(flush_denormals);
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
      const auto run_part = [&](std::size_t first, std::size_t last) noexcept {
        std::array<decltype(x.state[0].at(key, 0, 0)), slots + 1> state{};
        for (std::size_t k = 0; k < slots; ++k)
          if (x.state[k])
            state[k] = x.state[k].at(key, k, first);
        detail::run<Pass>(backend_, prepared, parameters_of(x, key, first), gradients_of(x, first), state.data(), last - first);
      };
      if constexpr (precision_type::stochastic)
        detail::for_noise_ranges(begin, end, run_part);
      else
        run_part(begin, end);
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
  void sum_blocks(bool flush_denormals, const F& f, const G& g) noexcept
  {
    for_ranges(flush_denormals, [&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end; i += reduce_block)
        block_sums_[x.first_block + i / reduce_block] = f(x, i, end - i < reduce_block ? end - i : reduce_block);
    });
    for (const flat_tensor& x : flat_) {
      const double* const sums = &block_sums_[x.first_block];
      g(x, x.size <= reduce_block ? *sums : reduce<plain_term>(backend_, sums, block_count(x.size)));
    }
  }

  /// ‖g‖² by of_block(tensor, begin, length), which gives the sum of a block.
  template <class F>
  double sum_squares(const F& of_block) noexcept
  {
    running_sum total;
    sum_blocks(false, of_block, [&](const flat_tensor& x, double sum) {
      tensors_[x.index].norm_sq = sum;
      total.add(sum);
    });
    return total.finish();
  }

  /// ‖g‖² of all that takes part, and each tensor's share in norm_sq.
  detail::square_sum measure_gradients() noexcept
  {
    const double plain =
        sum_squares([this](const flat_tensor& x, std::size_t i, std::size_t n) { return block_sum<square_term>(backend_, x.gradients + i, n); });
    if constexpr (std::is_same_v<gradient_type, double>)
      if (const double unit = detail::unit_for(plain); unit != 1)
        return {sum_squares([this, unit](const flat_tensor& x, std::size_t i, std::size_t n) {
                  return scaled_square_sum(backend_, x.gradients + i, n, 1 / unit);
                }),
                unit};
    return {plain, 1};
  }

  /// Whether the step that the cohorts are prepared for would make something infinite or NaN. \param size  the norm of the
  /// gradients as they are used. As a rule that is enough to know; otherwise it is tried, element by element.
  bool step_overflows(double size, bool flush_denormals) noexcept
  {
    bool possible = false;
    for (const cohort& c : cohorts_)
      possible = possible || (c.members > 0 && detail::may_overflow<value_type>(size, c.scalars.lr));
    if (!possible)
      return false;
    std::atomic<bool> found{false};
    for_ranges(flush_denormals, [&](const flat_tensor& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end && !found.load(std::memory_order_relaxed); i += reduce_block) {
        const std::size_t n = end - i < reduce_block ? end - i : reduce_block;
        if (block_overflows(x, i, n))
          found.store(true, std::memory_order_relaxed);
      }
    });
    return found.load(std::memory_order_relaxed);
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
                       groups_[c.group].rule.second_moment.beta() != groups_[common->group].rule.second_moment.beta()))
          return nullptr;
      common = &c;
    }
    return common;
  }

  /// Of what one sum of second moments is: of each tensor, of all that take part, or of a whole model that this optimizer
  /// has a part of.
  enum sum_of : std::uint64_t { of_tensor, of_part, of_model };

  /// How many elements take part, without padding.
  std::uint64_t active_elements() const noexcept
  {
    if (flat_is_current_)
      return counted_elements_;
    std::uint64_t n = 0;
    for (const tensor& x : tensors_)
      n += x.active ? x.size - x.padding : 0;
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
    if (must_recompute_sums(o))
      recompute_sums();
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
    return must_recompute_sums(o) || (o.grad_norm_sq && (sum_is_shared_ != wanted_sum(o) || !is_finite(*o.grad_norm_sq)));
  }
  /// Beside a mean, a norm may be the whole model's, and the model's size be unknown.
  bool advances_beside_mean(const step_options& o) const noexcept
  {
    return sum_is_shared_ == of_model ? is_of_model(o) && common_cohort() : !o.grad_norm_sq && measures(o);
  }
  bool must_recompute_sums(const step_options& o) const noexcept
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
    const double n = sum_is_shared_ == of_model ? double(o.model_size.value_or(0)) : double(counted_elements_);
    if (counted_elements_ == 0)
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
        flush_denormals,
        [&](const flat_tensor& x, std::size_t i, std::size_t n) {
          if constexpr (!keeps_exactly)
            return sum_of_next_moments(x, i, n);
          else {
            run<pass::moments>(x, i, i + n);
            return block_sum<plain_term>(backend_, x.state[formula::value_slot].values + i, n);
          }
        },
        [&](const flat_tensor& x, double sum) { total.add(sum / cohorts_[x.cohort].scalars.bc2); });
    return counted_elements_ == 0 ? 0 : total.finish() / double(counted_elements_);
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
  detail::owner_number owner_;
  mutable detail::visit_count visitors_;
  std::uint64_t seed_ = 0;
  std::uint64_t generations_ = 0;
  std::size_t elements_ = 0;
  std::vector<group> groups_;
  std::vector<tensor> tensors_;
  std::size_t first_free_ = detail::no_place;  // of tensors_, and so on by next_free
  detail::interval_set parameter_places_, gradient_places_;  // of attached tensors, by their places in tensors_
  std::vector<cohort> cohorts_;
  detail::place_table cohort_places_;  // of those with members, by cohort_hash
  std::size_t first_empty_cohort_ = detail::no_place;  // and so on by next
  std::size_t live_cohorts_ = 0;
  std::uint64_t steps_ = 0;
  std::vector<flat_tensor> flat_;
  bool flat_is_current_ = false;
  std::size_t flat_elements_ = 0;
  std::size_t counted_elements_ = 0;  // without padding
  std::vector<double> block_sums_;
  std::size_t blocks_ = 0;  // of all attached tensors
  std::unordered_map<std::string, std::size_t> names_;
  step_report last_report_ = [] {
    step_report none;
    none.applied = false;
    return none;
  }();
  double shared_sum_ = 0;            // Σv of all that takes part, while sum_is_shared_
  std::uint64_t sum_is_shared_ = 0;  // a sum_of, as a number so that it can be visited
  bool sums_are_stale_ = false;      // as steps have been taken that did not advance them
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
