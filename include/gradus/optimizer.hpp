#pragma once
/// \file
/// The optimizer: parameter groups, tensors, and one step over all of them. It owns its parts (optimizer/) and does no
/// arithmetic itself.

#include <atomic>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/backend/default.hpp>
#include <gradus/optimizer/handles.hpp>
#include <gradus/optimizer/host_step.hpp>
#include <gradus/optimizer/options.hpp>
#include <gradus/optimizer/padding.hpp>
#include <gradus/optimizer/parts.hpp>
#include <gradus/optimizer/step_engine.hpp>
#include <gradus/optimizer/views.hpp>
#include <gradus/optimizer/visit.hpp>
#include <gradus/recipes.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// What becomes of a removed tensor's state: it is kept for the tensor that is next added under the same name, or dropped.
enum class removed_state { kept, dropped };

namespace detail {

/// An optimizer's number, by which it knows its handles, also after it was moved. One that was moved from has none.
class owner_number {
 public:
  owner_number() noexcept : value_(++last_) {}
  owner_number(owner_number&& other) noexcept : value_(std::exchange(other.value_, 0)) {}
  std::uint64_t value() const noexcept { return value_; }

 private:
  static inline std::atomic<std::uint64_t> last_ = 0;
  std::uint64_t value_;
};

template <class Backend>
concept has_own_memory = requires { typename Backend::memory_type; };

/// Who takes the steps on a backend.
template <class Parts, class Backend>
struct engine_of {
  using type = host_step<Parts, Backend>;
};
template <class Parts, has_own_memory Backend>
struct engine_of<Parts, Backend> {
  using type = device_step<Parts, typename Backend::device_type>;
};

}  // namespace detail

/// Runs one recipe over any number of tensors, which it views and never copies.
///
/// \tparam Recipe   adam, sgd, … (recipes.hpp), or what compose(…) gives
/// \tparam T        float or double: of parameters, gradients, state and arithmetic; or a `precision` that names several
/// \tparam Backend  backend::simd, scalar, dispatch, thrust, or parallel
///
/// Move-only; handles stay valid when it moves, and an optimizer that was moved from refuses every call. Not synchronised.
/// `step` and rebinding allocate nothing. Every refusal throws std::invalid_argument (see error.hpp) and changes nothing; nor
/// does any member change anything where memory runs out.
///
/// A tensor's parameters may not overlap another tensor's parameters, or any gradients; tensors may share gradients. `add` and
/// `rebind` refuse overlap, in O(log n) for n tensors.
template <class Recipe, class T = float, class Backend = default_backend>
class optimizer
    : public range_front<optimizer<Recipe, T, Backend>, detail::parameter_of<T>, detail::gradient_of<T>, Backend> {
  static_assert(detail::gives_composition<Recipe>, "gradus: the recipe of an optimizer is sgd, adam, …, what compose(lr, …) returns, or an aggregate "
                                "of your own whose rule() returns such.");
  static_assert(detail::listed<Recipe> || !recipe<Recipe>,
                "gradus: the recipe has members that its `fields` does not list (or lists one name twice); list each: static "
                "constexpr auto fields = gradus::fields(gradus::hyper::lr(&recipe::lr), …).");
  static_assert(backend_type_of<Backend>, "gradus: the backend of an optimizer is backend::scalar, simd, dispatch, thrust or parallel, "
                                          "or has a sweep and an accumulate or page_sum of its own, as backend::scalar has.");
  static_assert(precise<T>, "gradus: the precision T of an optimizer is float, double or a gradus::precision<…>.");

  using model = detail::model<Recipe, T, Backend>;
  using parts_type = detail::parts<model>;
  using engine_type = typename detail::engine_of<parts_type, Backend>::type;
  using tensor = typename model::tensor;

 public:
  using precision_type = typename model::precision_type;
  using parameter_type = typename model::parameter_type;
  using gradient_type = typename model::gradient_type;
  using state_type = typename model::state_type;
  using master_type = typename model::master_type;
  using recipe_type = Recipe;
  using rule_type = typename model::rule_type;
  using value_type = typename model::value_type;  ///< of the arithmetic
  using backend_type = Backend;
  /// Whether the state lies in memory of the backend's own. Then only its engine touches elements.
  static constexpr bool on_device = detail::has_own_memory<Backend>;

  using parameters_span = typename model::parameters_span;
  using gradients_span = typename model::gradients_span;

  /// One tensor's new memory, for rebind_spans of several at once.
  using rebinding = detail::rebinding<parameters_span, gradients_span>;

  /// An optimizer whose default group has these hyperparameters.
  explicit optimizer(Recipe hyperparameters, Backend backend = Backend()) : engine_(backend) { add_group(hyperparameters); }
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
  /// set_hyperparameters. To change the learning rate alone, use set_lr.
  Recipe hyperparameters(group_handle g = {}) const { return parts_.groups[checked(g)].recipe; }

  /// A further group, with hyperparameters of its own.
  group_handle add_group(const Recipe& hyperparameters)
  {
    check_may_change();
    parts_.groups.push_back(detail::checked_group<model>(hyperparameters));
    return group_at_place(parts_.groups.size() - 1);
  }

  /// A group's learning rate.
  double lr(group_handle g = {}) const
    requires(requires(Recipe r) { r.lr; })
  {
    return parts_.groups[checked(g)].recipe.lr;
  }
  /// Sets a group's learning rate, from the next step on. A schedule is better passed to `step` as lr_scale.
  void set_lr(double lr, group_handle g = {})
    requires(requires(Recipe r) { r.lr = 1.0; })
  {
    Recipe next = parts_.groups[checked(g)].recipe;
    next.lr = lr;
    set_hyperparameters(next, g);
  }

  /// Refuses what add_group and set_hyperparameters would refuse, and does nothing else.
  static void check_hyperparameters(const Recipe& hyperparameters) { detail::checked_group<model>(hyperparameters); }

  /// Sets a group's hyperparameters, from the next step on. State is kept; a momentum raised from 0 starts from zeros.
  void set_hyperparameters(const Recipe& hyperparameters, group_handle g = {})
  {
    begin_change();
    const std::size_t index = checked(g);
    const typename model::group next = detail::checked_group<model>(hyperparameters);
    const bool refits = model::is_idle(parts_.groups[index].rule) != model::is_idle(next.rule);
    std::vector<std::pair<tensor*, typename model::state_memory>> refitted;
    if (refits)
      for (tensor& x : parts_.table.all())
        if (x.group == index && !x.name.empty())
          refitted.emplace_back(&x, new_state(next.rule, x.size, model::first_slots));
    for (auto& [x, state] : refitted)
      replace_first_moment(*x, state);
    parts_.replace_group(index, next);
  }

  /// How many groups there are: the default one, and those of add_group.
  std::size_t group_count() const
  {
    check_not_moved_from();
    return parts_.groups.size();
  }
  /// The handle of a group: 0 is the default one, the others follow in the order of add_group.
  group_handle group_at(std::size_t index) const
  {
    check_not_moved_from();
    const group_handle g = group_at_place(index);
    return checked(g), g;
  }

  // ── tensors: `add` and `rebind`, for ranges of any kind, are range_front's ─────────────────────────────────────

  /// Adds a tensor given as spans; every `add` calls this. An empty name stands for a free one of "tensor0", "tensor1", ….
  /// Without gradients, a tensor takes part in no step until some are bound to it.
  tensor_handle add_spans(std::string_view name, parameters_span parameters, std::optional<gradients_span> gradients,
                          std::optional<group_handle> in = {})
  {
    begin_change();
    detail::tensor_table<model>& table = parts_.table;
    const std::size_t g = checked(in.value_or(group_handle{}));
    const std::string own = table.name_for(name);
    const std::size_t known = table.find(own);
    if (known != detail::no_place && table[known].attached)
      detail::fail("name is " + detail::quote(own) + ", which another tensor has; expected a name of its own");
    check_memory(own, parameters, gradients);
    if (known != detail::no_place)
      table.check_length(table[known], parameters);
    table.check_overlap(own, detail::place_of(parameters), detail::place_of(gradients));
    if (known != detail::no_place)
      return add_again(known, parameters, gradients, in ? g : table[known].group);

    tensor added;
    added.size = parameters.size();
    added.group = g;
    added.name_hash = detail::hash(own);
    added.state = new_state(parts_.groups[g].rule, added.size, model::slots);
    if constexpr (precision_type::has_master) {
      added.master = {added.size, 0, model::memory_source::get(engine_.backend())};
      engine_.decode(parameters.data(), added.master.get(), added.size);
    }
    added.name = own;
    reserve_one(added.size);
    table.reserve_name(own);
    // From here on nothing can fail.
    return attach(table.insert(std::move(added)), parameters, gradients);
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
      parts_.table.check_length(x, r.parameters);
    }
    parts_.table.move(all);
    for (const rebinding& r : all)
      parts_.update_membership(parts_.table[r.tensor.key().index]);
  }
  /// `rebind_gradients` for a span. A tensor that has had no gradients yet takes part in steps from then on, unless it is frozen.
  void rebind_gradients_spans(const tensor_handle& h, gradients_span gradients)
  {
    begin_change();
    const tensor& x = checked(h);
    rebind_spans(h, parameters_span(x.parameters, x.size), gradients);
  }

  /// Freezes a tensor: steps skip it; its weights, state and step count stay unchanged.
  void freeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    x.is_frozen = true;
    parts_.update_membership(x);
  }

  /// Lets a frozen tensor take part in steps again, with the state and step count that it had.
  void unfreeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    if (!x.has_gradients)
      detail::fail("tensor " + detail::quote(x.name) + " has no gradients, and so cannot be taken in; expected rebind_gradients(tensor, gradients) before it");
    x.is_frozen = false;
    parts_.update_membership(x);
  }

  /// Removes a tensor, and with it every view of its memory. Its state is dropped, or kept until a tensor of the same name and
  /// length is added.
  void remove(const tensor_handle& h, removed_state state)
  {
    begin_change();
    tensor& x = checked(h);
    parts_.table.detach(h.key().index);
    parts_.update_membership(x);
    if (state == removed_state::dropped)
      parts_.table.erase(h.key().index);
  }

  /// Says which elements of a tensor are padding, as the blocked layouts of oneDNN have it. Their state becomes 0, also
  /// where a rule starts from another number, and they do not count in a scheduled decay's v̄. If the caller keeps weights
  /// and gradients there at 0, they stay 0, whatever the rule. Padding is not saved: set it again after resuming a run.
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
    for (const auto& slot : x.state)
      if (slot.view())
        slot.visit("", x.size, [&]<class X>(std::string_view, std::span<X> values) {
          if (values.size() == mask.size())  // and not a block's scales
            engine_.show(values, [&](std::span<X> readable) { clear(readable, mask); }, false);
        });
    x.padding = count;
    parts_.work.outdate();
    if (x.t > 0)
      parts_.forget_sum_of(x);
  }

  /// How many steps a tensor has taken.
  std::uint64_t step_count(const tensor_handle& h) const
  {
    begin_read();
    return checked(h).t;
  }

  /// The number of parameters in all tensors, frozen ones and padding included.
  std::size_t parameter_count() const
  {
    check_not_moved_from();
    return parts_.table.elements();
  }

  /// The bytes of state that all tensors keep together.
  std::size_t state_bytes() const
  {
    check_not_moved_from();
    std::size_t bytes = 0;
    for (const tensor& x : parts_.table.all()) {
      for (const auto& slot : x.state)
        bytes += slot.view() ? slot.bytes(x.size) : 0;
      bytes += precision_type::has_master ? x.size * sizeof(float) : 0;
    }
    return bytes;
  }

  // ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /// The elements of one slot of the tensor of that name: state("layer1.weight", "exp_avg").
  /// After writing to a second moment, call recompute_second_moment_sum().
  std::span<state_type> state(std::string_view name, std::string_view slot_name)
    requires(!std::is_same_v<state_type, block8>)
  {
    return state_of(name, slot_name);
  }
  /// The same, to read only.
  std::span<const state_type> state(std::string_view name, std::string_view slot_name) const
    requires(!std::is_same_v<state_type, block8>)
  {
    return state_of(name, slot_name);
  }

  /// Calls visit(tensor's name, key, span) for all that a resumed run needs, in the order of the tensors: for each slot a
  /// span of the state's type under the slot's name (block8: of std::uint8_t, and of float under "…_scale"); the master
  /// weights under "master", where there are any; a span of one std::uint64_t under "step"; and where a scheduled decay
  /// works in one pass, Σv of the tensors that share this one's β₂ and step count, a span of one double under
  /// "exp_avg_sq_sum". With an empty tensor name comes a span of one std::uint64_t, "exp_avg_sq_sum_is_of_model": 1 where that
  /// sum is a whole model's (step_options::model_size); and where something is rounded stochastically, likewise "seed". A sum
  /// that is NaN is computed anew from the moments in the next step that needs it. Whatever is written through the spans is the
  /// state from then on: a run restored this way goes on with the same bits. Hyperparameters, schedules and frozen tensors are
  /// the caller's to restore. Until it returns, `visit` may read the optimizer, and no more: calls that would change it refuse.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    begin_change();
    const detail::changing_visit during(parts_, visits_);
    detail::visit_state(parts_, engine_, visit);
  }
  /// The same, with spans of const.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    begin_read();
    const detail::visit_count::visit during(visits_);
    detail::visit_state(std::as_const(parts_), engine_, visit);
  }

  /// The seed of stochastic rounding, 0 at first; part of the state. Steps from the same seed have the same bits.
  std::uint64_t seed() const
    requires(precision_type::stochastic)
  {
    check_not_moved_from();
    return parts_.seed;
  }
  /// Sets the seed of stochastic rounding, from the next step on.
  void set_seed(std::uint64_t seed)
    requires(precision_type::stochastic)
  {
    begin_change();
    parts_.seed = seed;
    parts_.work.outdate();
  }

  /// Reads the master weights anew from the parameters, for when these were changed by other than steps.
  void reset_master(const tensor_handle& h)
    requires(precision_type::has_master)
  {
    check_may_change();
    tensor& x = checked(h);
    engine_.decode(x.parameters, x.master.get(), x.size);
  }

  /// Copies to or from a device's memory, for visitors of state that have a `static constexpr bool takes_device_memory = true`:
  /// they are shown the arrays themselves and not copies.
  template <detail::has_own_memory B = Backend>
  void copy_memory(void* to, const void* from, std::size_t bytes) const
  {
    check_not_moved_from();
    engine_.backend().copy(to, from, bytes);
  }

  /// Calls visit(name, parameters, index of its group, takes_part) for each tensor; one that was removed, its state kept,
  /// has no parameters. takes_part is a bool& that says whether the tensor is in the steps to come (one that has no gradients
  /// yet: once it has), and may be written. Unlike freeze and unfreeze that leaves a scheduled decay's sums alone: whoever
  /// restores the ones restores the others. Until it returns, `visit` may read the optimizer, and no more.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    begin_change();
    const detail::changing_visit during(parts_, visits_);
    detail::visit_tensors(parts_, visit);
  }
  /// The same, with a span of const and a const bool.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    check_not_moved_from();
    const detail::visit_count::visit during(visits_);
    detail::visit_tensors(std::as_const(parts_), visit);
  }

  /// Has the next step recompute a scheduled decay's sums from the second moments themselves, for when these were written by
  /// hand or come from a source that has no such sums.
  void recompute_second_moment_sum()
  {
    begin_change();
    parts_.forget_sums();
  }

  // ── the step ───────────────────────────────────────────────────────────────────────────────────────────────────

  /// Moves every tensor that takes part one step along its gradient; if none does, it does nothing.
  /// On a device the step is enqueued and the report that is returned is `pending`; report() waits for its result.
  step_report step(const step_options& o = {})
  {
    check_may_change();
    parts_.check(o);
    return engine_.step(parts_, o);
  }

  /// What the last step did, on every backend; waits for a device. Before the first step: that none was applied.
  step_report report() const
  {
    check_not_moved_from();
    return engine_.report();
  }

  /// Sets a device's lr_scale, grad_scale and max_grad_norm for the steps of captured graphs, in the order of the stream.
  template <detail::has_own_memory B = Backend>
  void set_options(const step_options& o)
  {
    check_may_change();
    parts_.check(o);
    engine_.template set_options<model::one_pass>(o);
  }

 private:
  static_assert(detail::step_engine<engine_type, parts_type>);

  void check_not_moved_from() const
  {
    if (owner_.value() == 0)
      detail::fail("this optimizer has been moved from; expected the one it was moved to");
  }
  void check_may_change() const
  {
    check_not_moved_from();
    if (visits_.any())
      detail::fail("this optimizer is being visited; expected no change to it until visit_state or visit_tensors has returned");
  }
  /// Whoever changes the parts, or reads step counts or sums, first learns what the engine's steps have left on a device.
  void begin_change()
  {
    check_may_change();
    engine_.settle(parts_);
  }
  void begin_read() const
  {
    check_not_moved_from();
    engine_.settle(parts_);
  }

  std::size_t checked(const group_handle& g) const
  {
    check_not_moved_from();
    if ((g.key().owner != 0 && g.key().owner != owner_.value()) || g.key().index >= parts_.groups.size())
      detail::fail("group is of another optimizer; expected one that add_group of this optimizer returned");
    return g.key().index;
  }
  group_handle group_at_place(std::size_t index) const { return group_handle(detail::handle_key{owner_.value(), index, 0}); }

  void check_handle(const tensor_handle& h) const
  {
    check_not_moved_from();
    if (h.key().owner != owner_.value() || !parts_.table.has(h.key()))
      detail::fail("tensor is removed, or of another optimizer; expected one that add of this optimizer returned");
  }
  tensor& checked(const tensor_handle& h)
  {
    check_handle(h);
    return parts_.table[h.key().index];
  }
  const tensor& checked(const tensor_handle& h) const
  {
    check_handle(h);
    return parts_.table[h.key().index];
  }

  void check_memory(std::string_view name, parameters_span parameters, const std::optional<gradients_span>& gradients) const
  {
    parts_.table.check_memory(name, parameters, gradients);
    if (parameters.size() > 0)
      engine_.check_place(parameters.data(), gradients ? gradients->data() : nullptr, name);
  }

  typename model::state_memory new_state(const rule_type& rule, std::size_t n, std::size_t count) const
  {
    return detail::make_state<model>(rule, n, count, model::memory_source::get(engine_.backend()));
  }
  static void replace_first_moment(tensor& x, typename model::state_memory& state) noexcept
  {
    for (std::size_t k = 0; k < model::first_slots; ++k)
      x.state[k] = std::move(state[k]);
  }
  template <class X>
  static void clear(std::span<X> values, const std::vector<unsigned char>& mask)
  {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (mask[i])
        values[i] = X{};
  }

  /// All that a step over one more tensor of n elements may need, so that `step` allocates nothing.
  void reserve_one(std::size_t n)
  {
    parts_.reserve_one();
    engine_.reserve(parts_.table.all().size() + 1, parts_.table.pages() + page_count(n));
  }
  tensor_handle attach(std::size_t index, parameters_span parameters, const std::optional<gradients_span>& gradients) noexcept
  {
    const detail::handle_key key = parts_.table.attach(index, parameters, gradients, owner_.value());
    parts_.update_membership(parts_.table[index]);
    return tensor_handle(key);
  }
  /// A tensor that was removed with its state kept, come back.
  tensor_handle add_again(std::size_t index, parameters_span parameters, const std::optional<gradients_span>& gradients, std::size_t g)
  {
    tensor& x = parts_.table[index];
    reserve_one(x.size);
    if (model::is_idle(parts_.groups[g].rule) != model::is_idle(parts_.groups[x.group].rule)) {
      auto state = new_state(parts_.groups[g].rule, x.size, model::first_slots);
      replace_first_moment(x, state);
    }
    x.group = g;
    return attach(index, parameters, gradients);
  }

  /// \return to be written only if the optimizer may be
  std::span<state_type> state_of(std::string_view name, std::string_view slot_name) const
  {
    check_not_moved_from();
    const std::size_t place = parts_.table.find(name);
    if (place == detail::no_place)
      detail::fail("name is " + detail::quote(name) + "; expected that of a tensor of this optimizer");
    const tensor& x = parts_.table[place];
    std::string names;
    for (std::size_t k = 0; k < model::slots; ++k) {
      if (!model::keeps(parts_.groups[x.group].rule, k))
        continue;
      if (model::slot_list[k].name == slot_name)
        return {x.state[k].view().values, x.size};
      names += (names.empty() ? "" : " or ") + detail::quote(model::slot_list[k].name);
    }
    detail::fail("slot of tensor " + detail::quote(name) + " is " + detail::quote(slot_name) + "; expected " +
         (names.empty() ? "none, as the tensor keeps no state" : names));
  }

  detail::owner_number owner_;
  mutable detail::visit_count visits_;
  // Mutable, because whoever reads may have to wait for a device and take over what its steps have done.
  mutable parts_type parts_;
  mutable engine_type engine_;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
