#pragma once
/// \file
/// The optimizer: parameter groups, tensors, and one step over all of them. It checks every argument and hands the work
/// to its parts (optimizer/) and its engine (step_engine.hpp); it does no arithmetic itself.

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
#include <gradus/optimizer/tensor_state.hpp>
#include <gradus/optimizer/views.hpp>
#include <gradus/optimizer/visit.hpp>
#include <gradus/recipes.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Runs one recipe over any number of tensors. It views their weights and gradients and never copies them.
///
/// \tparam Recipe   sgd, adam, … (recipes.hpp), or the type that compose(lr, …) returns
/// \tparam T        float or double, the type of weights, gradients, state and arithmetic; or a `precision<…>`
/// \tparam Backend  backend::simd, scalar, dispatch, thrust, or parallel
///
/// Errors throw std::invalid_argument (error.hpp). A member that throws this or std::bad_alloc has changed nothing.
/// `step` and `rebind` allocate nothing. Move-only; handles stay valid after a move, and every call on a moved-from
/// optimizer fails. Not synchronised.
///
/// Weights must not overlap another tensor's weights or any gradients; tensors may share gradients. `add` and `rebind`
/// check this in O(log n) for n tensors.
template <class Recipe, class T = float, class Backend = default_backend>
class optimizer
    : public range_front<optimizer<Recipe, T, Backend>, detail::parameter_of<T>, detail::gradient_of<T>, Backend> {
  static_assert(detail::gives_composition<Recipe>,
                "gradus: the recipe of an optimizer is sgd, adam, …, the result of compose(lr, …), or an aggregate "
                "of your own whose rule() returns one.");
  static_assert(
      detail::listed<Recipe> || !recipe<Recipe>,
      "gradus: the recipe has members that its `fields` does not list (or lists one name twice); list each: static "
      "constexpr auto fields = gradus::fields(gradus::hyper::lr(&recipe::lr), …).");
  static_assert(backend_type_of<Backend>,
                "gradus: the backend of an optimizer is backend::scalar, simd, dispatch, thrust or parallel, "
                "or your own class with sweep, and accumulate or page_sums, like backend::scalar.");
  static_assert(
      !detail::is_without_matrices<Recipe, Backend>,
      "gradus: this recipe multiplies matrices, as muon does; its backend is backend::with_product<Product>, with "
      "gemm::eigen, gemm::blas or gemm::plain (gradus::muon_optimizer<Product>).");
  static_assert(
      !detail::averages_in_8_bits<Recipe, T>,
      "gradus: averages of weights are not kept in 8 bits, in which they would not move; take a precision with "
      "another state type.");
  static_assert(precise<T>, "gradus: the precision T of an optimizer is float, double or a gradus::precision<…>.");

  using model = detail::model<Recipe, T, Backend>;
  using parts_type = detail::parts<model>;
  using engine_type = typename detail::engine_of<parts_type, Backend>::type;
  using tensor = typename model::tensor;

 public:
  /// The `precision<…>` that T stands for: the types of weights, gradients, state, master weights and arithmetic.
  using precision_type = typename model::precision_type;
  /// The type of a weight: float, double, bfloat16 or float16.
  using parameter_type = typename model::parameter_type;
  /// The type of a gradient's element: float, double, bfloat16 or float16.
  using gradient_type = typename model::gradient_type;
  /// The type in which moments are stored: float, double, bfloat16 or block8.
  using state_type = typename model::state_type;
  /// The type of the master weights: float, remainder16, or void if there are none.
  using master_type = typename model::master_type;
  /// The type of the hyperparameters, such as adamw.
  using recipe_type = Recipe;
  /// The composition of rules that Recipe::rule() returns.
  using rule_type = typename model::rule_type;
  /// The type of the arithmetic: float or double.
  using value_type = typename model::value_type;
  /// The backend, as given.
  using backend_type = Backend;
  /// Whether the state is in memory of the backend's own, on a device. Only the backend then accesses elements.
  static constexpr bool on_device = engine_type::on_device;

  /// Whether the recipe works on matrices, whose shapes `set_shape` sets.
  static constexpr bool reads_shapes = requires(engine_type& e, const rule_type& r) { e.reserve_matrix(r, {}, {}); };

  /// A tensor's weights: std::span<parameter_type>.
  using parameters_span = typename model::parameters_span;
  /// A tensor's gradients: std::span<const gradient_type>.
  using gradients_span = typename model::gradients_span;

  /// A tensor's handle and its new memory, for `rebind_spans` of several tensors at once.
  using rebinding = detail::rebinding<parameters_span, gradients_span>;

  /// An optimizer whose default group has these hyperparameters.
  /// \throws std::invalid_argument for a hyperparameter that is out of range
  explicit optimizer(Recipe hyperparameters, Backend backend = Backend()) : engine_(backend)
  {
    add_group(hyperparameters);
  }
  /// An optimizer with the recipe's default hyperparameters.
  template <class R = Recipe>  // a template, so that the class can be instantiated for a recipe without defaults
  optimizer() : optimizer(R{})
  {
    if constexpr (!requires { R::has_no_default; })
      static_assert(
          !requires { requires(R{}.rule().lr == 0); },
          "gradus: lr was not given, and the recipe's default of 0 would learn nothing; pass a recipe with an lr.");
  }
  /// Moves; handles then belong to the new optimizer, and every call on the old one fails.
  optimizer(optimizer&&) noexcept = default;
  /// Moves, after dropping this optimizer's tensors and state; every call on `other` then fails.
  optimizer& operator=(optimizer&& other) noexcept
  {
    if (this != &other) {
      this->~optimizer();
      ::new (static_cast<void*>(this)) optimizer(std::move(other));
    }
    return *this;
  }

  // ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /// A copy of a group's hyperparameters. To change some, change the copy and pass it to `set_hyperparameters`, or to
  /// `add_group` for a new group. For the learning rate alone, use `set_lr`.
  /// \param g  the default group, or a handle from `add_group`
  Recipe hyperparameters(group_handle g = {}) const { return parts_.groups[checked(g)].recipe; }

  /// Adds a group with its own hyperparameters. Pass the returned handle to `add`.
  /// \param o  such as {.lr_scale = 0.1}, a factor on the group's learning rate
  /// \throws std::invalid_argument for a hyperparameter or option that is out of range
  group_handle add_group(const Recipe& hyperparameters, const group_options& o = {})
  {
    check_may_change();
    detail::check("lr_scale", o.lr_scale, range::at_least_zero);
    typename model::group added = detail::checked_group<model>(hyperparameters);
    added.lr_scale = o.lr_scale;
    parts_.groups.push_back(added);
    return group_at_place(parts_.groups.size() - 1);
  }

  /// A group's learning rate, without the lr_scale of steps.
  double lr(group_handle g = {}) const
    requires(requires(Recipe r) { r.lr; })
  {
    return parts_.groups[checked(g)].recipe.lr;
  }
  /// Sets a group's learning rate, ≥ 0, from the next step on. For a schedule, pass lr_scale to `step` instead.
  void set_lr(double lr, group_handle g = {})
    requires(requires(Recipe r) { r.lr = 1.0; })
  {
    Recipe next = parts_.groups[checked(g)].recipe;
    next.lr = lr;
    set_hyperparameters(next, g);
  }

  /// A group's factor on its learning rate, 1 unless `add_group` or `set_lr_scale` set it.
  double lr_scale(group_handle g = {}) const { return parts_.groups[checked(g)].lr_scale; }
  /// Sets a group's factor on its learning rate, ≥ 0, from the next step on. It also acts on step_options::lr.
  void set_lr_scale(double lr_scale, group_handle g = {})
  {
    begin_change();
    detail::check("lr_scale", lr_scale, range::at_least_zero);
    parts_.groups[checked(g)].lr_scale = lr_scale;
    parts_.work.outdate();
  }

  /// Throws std::invalid_argument if add_group or set_hyperparameters would; does nothing else.
  static void check_hyperparameters(const Recipe& hyperparameters) { detail::checked_group<model>(hyperparameters); }

  /// Sets a group's hyperparameters from the next step on. State is kept, but lowering momentum to 0 frees the momentum
  /// buffers, and raising it from 0 creates them with zeros; so does rmsprop's `centered` with `grad_avg`.
  /// \throws std::invalid_argument for a hyperparameter that is out of range
  void set_hyperparameters(const Recipe& hyperparameters, group_handle g = {})
  {
    begin_change();
    const std::size_t index = checked(g);
    typename model::group next = detail::checked_group<model>(hyperparameters);
    next.lr_scale = parts_.groups[index].lr_scale;
    const rule_type& rule = parts_.groups[index].rule;
    std::vector<std::pair<tensor*, typename model::state_memory>> refitted;
    if (!model::keep_the_same(rule, next.rule))
      for (tensor& x : parts_.table.all())
        if (x.group == index && !x.name.empty()) {
          reserve_matrix(next.rule, x.extents, x.name);
          refitted.emplace_back(&x, new_state(next.rule, x.size, &rule));
        }
    for (auto& [x, state] : refitted)
      detail::change_slots<model>(*x, rule, next.rule, state);
    parts_.replace_group(index, next);
  }

  /// The number of groups, including the default group.
  std::size_t group_count() const
  {
    check_not_moved_from();
    return parts_.groups.size();
  }
  /// The handle of a group by its index; 0 is the default group, and the others follow in the order of `add_group`.
  group_handle group_at(std::size_t index) const
  {
    check_not_moved_from();
    const group_handle g = group_at_place(index);
    return checked(g), g;
  }

  // ── tensors: range_front (views.hpp) has `add` and `rebind` for vectors, matrices and other ranges ─────────────

  /// Adds a tensor given as spans; every `add` calls this. The memory must outlive the optimizer or be rebound.
  /// \param name       new, or the name of a tensor that was removed with its state kept; "" picks a free one of
  ///                   "tensor0", "tensor1", …
  /// \param gradients  as many as parameters; without gradients, steps skip the tensor until some are bound
  /// \param in         the group; if absent, the default group, or a removed tensor's own
  /// \param trained    which elements are trained; if null, all, or a removed tensor's own. It is state: visit_state
  ///                   shows it, and checkpoints keep it
  /// \param padding    which elements are padding, as `set_padding` marks them; null for none. Not with `trained`; a
  ///                   mask that a removed tensor kept speaks for itself, and padding is not marked
  /// \throws std::invalid_argument for a name in use, null, misaligned or overlapping memory, different lengths, or a
  ///         mask with 8-bit state, whose blocks are encoded as a whole
  tensor_handle add_spans(std::string_view name, parameters_span parameters, std::optional<gradients_span> gradients,
                          std::optional<group_handle> in = {}, const trained_mask* trained = nullptr,
                          const padding_mask* padding = nullptr)
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
    tensor added;
    added.size = parameters.size();
    if (trained)
      set_mask(added, own, *trained);
    std::vector<std::uint8_t> padded;
    if (padding && (known == detail::no_place || table[known].trained.empty()))
      padded = detail::checked_padding(own, added.size, trained != nullptr, *padding);
    if (known != detail::no_place)
      return add_again(known, parameters, gradients, in ? g : table[known].group, trained ? &added : nullptr, padded);

    added.group = g;
    added.name_hash = detail::hash(own);
    added.state = new_state(parts_.groups[g].rule, added.size);
    if constexpr (precision_type::has_master) {
      added.master = {added.size, model::memory_source::get(engine_.backend())};
      added.master.read(parameters.data(), added.size, engine_);
    }
    if (padding)
      detail::clear_padding(added, padded, engine_);
    added.name = own;
    reserve_one(added.size);
    table.reserve_name(own);
    // Nothing below this line can fail.
    return attach(table.insert(std::move(added)), parameters, gradients);
  }

  /// `rebind` for spans: points a tensor at new memory of the same length; its state stays. Without gradients, steps
  /// skip the tensor until some are bound.
  void rebind_spans(const tensor_handle& h, parameters_span parameters, std::optional<gradients_span> gradients)
  {
    const rebinding one{h, parameters, gradients};
    rebind_spans(std::span(&one, 1));
  }
  /// Rebinds several tensors at once, all or none. Tensors may exchange memory, which single calls would reject as an
  /// overlap.
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
  /// `rebind_gradients` for a span: points a tensor at new gradients of the same length, or at its first ones. It then
  /// takes part in steps, unless it is frozen.
  void rebind_gradients_spans(const tensor_handle& h, gradients_span gradients)
  {
    begin_change();
    const tensor& x = checked(h);
    rebind_spans(h, parameters_span(x.parameters, x.size), gradients);
  }

  /// Takes a tensor's gradients away, so that they need not outlive this call: steps skip the tensor until some are bound.
  void unbind_gradients(const tensor_handle& h)
  {
    begin_change();
    const tensor& x = checked(h);
    rebind_spans(h, parameters_span(x.parameters, x.size), std::nullopt);
  }

  /// Freezes a tensor: steps skip it; its weights, state and step count stay unchanged.
  void freeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    x.is_frozen = true;
    parts_.update_membership(x);
  }

  /// Lets a frozen tensor take part in steps again, with its old state and step count.
  /// \throws std::invalid_argument if the tensor has no gradients
  void unfreeze(const tensor_handle& h)
  {
    begin_change();
    tensor& x = checked(h);
    if (!x.has_gradients)
      detail::fail("tensor " + detail::quote(x.name) +
                   " has no gradients; expected rebind_gradients(tensor, gradients) before unfreeze(tensor)");
    x.is_frozen = false;
    parts_.update_membership(x);
  }

  /// Removes a tensor. Its memory is no longer viewed, and the handle becomes invalid. Its state is dropped, or kept
  /// until a tensor of the same name and length is added.
  void remove(const tensor_handle& h, removed_state state)
  {
    begin_change();
    tensor& x = checked(h);
    if constexpr (model::has_remainders)
      if (state == removed_state::kept)
        x.master.keep(x.parameters, x.size, model::memory_source::get(engine_.backend()), engine_);
    parts_.table.detach(h.key().index);
    parts_.update_membership(x);
    if (state == removed_state::dropped)
      parts_.table.erase(h.key().index);
  }

  /// Marks elements of a tensor as padding, for blocked layouts such as oneDNN's. Their state becomes 0, even if the
  /// rule starts from another number, and they do not count in the mean v̄ of a scheduled decay. Their gradients must be
  /// 0 in every step; then padding weights that are 0 stay 0 under every rule, and norms and v̄ are those without
  /// padding. Padding is not saved, so set it again after a resume.
  /// \throws std::invalid_argument for a range whose length differs from the tensor's
  void set_padding(const tensor_handle& h, padding_mask is_padding)
  {
    begin_change();
    tensor& x = checked(h);
    detail::clear_padding(x, detail::checked_padding(x.name, x.size, !x.trained.empty(), is_padding), engine_);
    parts_.work.outdate();
    if (parts_.steps_of(x) > 0)
      parts_.forget_sum_of(x);
  }

  /// Says that a tensor is a matrix, for recipes that work on matrices (muon). `add` does it for ranges that know that they
  /// have two dimensions. Not saved, so set it again after a resume.
  /// \param shape  two extents above 0, and how they lie in memory: `view_shape(storage_order::row_major, rows, columns)`
  /// \throws std::invalid_argument for a shape of another size
  void set_shape(const tensor_handle& h, const view_shape& shape)
    requires(reads_shapes)
  {
    begin_change();
    tensor& x = checked(h);
    const detail::matrix_extents extents = matrix_of(x.name, x.size, shape);
    reserve_matrix(parts_.groups[x.group].rule, extents, x.name);
    x.extents = extents;
    parts_.work.outdate();
  }

  /// Fails where set_shape would after `add`, before anything is added. `add` calls it for ranges that know their shapes.
  void expect_shape(std::string_view name, std::size_t size, std::optional<group_handle> in, const view_shape& shape)
    requires(reads_shapes)
  {
    begin_change();
    const std::size_t g = checked(in.value_or(group_handle{})), known = parts_.table.find(name);
    const bool keeps_group = !in && known != detail::no_place;
    reserve_matrix(parts_.groups[keeps_group ? parts_.table[known].group : g].rule, matrix_of(name, size, shape), name);
  }
  /// Fails for a shape other than the tensor's, if that has one: its state would lie otherwise than its elements. `rebind`
  /// calls it for ranges that know their shapes.
  void expect_same_shape(const tensor_handle& h, const view_shape& shape) const
    requires(reads_shapes)
  {
    const tensor& x = checked(h);
    const auto& had = x.extents;
    const auto text = [](const view_shape& s) {
      const char* const order = s.order() == storage_order::row_major      ? ", row-major"
                                : s.order() == storage_order::column_major ? ", column-major"
                                                                           : "";
      return s.text() + order;
    };
    if (const view_shape expected(had.is_column_major ? storage_order::column_major : storage_order::row_major,
                                  had.rows, had.columns);
        had.rows != 0 &&
        (!shape.same_extents(expected) || (shape.order() != storage_order::any && shape.order() != expected.order())))
      detail::fail("shape of parameters of tensor " + detail::quote(x.name) + " is " + text(shape) + "; expected " +
                   text(expected) + ", its shape so far (a std::span(pointer, size) has no shape)");
  }

  /// Says that a tensor is a part of a larger one, as in an optimizer that has only a range of each tensor. Stochastic
  /// rounding then uses the random bits that these elements have in the whole tensor, so the results are the same.
  /// Not saved, so set it again after a resume. Host only.
  /// \param whole  the larger tensor's name  \param first  the index of the first element in it, a multiple of page_size
  ///               (4096), so that sums have the same bits too
  void set_part(const tensor_handle& h, std::string_view whole, std::uint64_t first)
    requires(!on_device || detail::shares_steps<Backend>)
  {
    begin_change();
    tensor& x = checked(h);
    if (rule_type::sums && !detail::shares_tensors<Backend>)
      detail::fail("tensor " + detail::quote(x.name) +
                   " is to be a part of a larger one; expected a whole tensor, because this step size needs sums over "
                   "all its elements");
    if (first % page_size != 0)
      detail::fail("first of tensor " + detail::quote(x.name) + " is " + std::to_string(first) +
                   "; expected a multiple of " + std::to_string(page_size) + ", the number of elements in a page");
    change_member(x, [&] {
      x.name_hash = detail::hash(whole);
      x.first_in_whole = first;
    });
  }
  /// Says whether the norm and v̄ include a tensor, by default yes: a copy that several processes have must count once.
  /// Not saved, so set it again after a resume. Host only.
  void set_in_norm(const tensor_handle& h, in_norm counts)
    requires(!on_device || detail::shares_steps<Backend>)
  {
    begin_change();
    tensor& x = checked(h);
    if (x.is_counted == (counts == in_norm::counted))
      return;
    x.is_counted = counts == in_norm::counted;
    parts_.work.outdate();
    if (parts_.steps_of(x) > 0)
      parts_.forget_sum_of(x);
  }

  /// The number of steps that a tensor has taken; waits for a device.
  std::uint64_t step_count(const tensor_handle& h) const
  {
    begin_read();
    return parts_.steps_of(checked(h));
  }

  /// The number of weights in all tensors, including frozen tensors and padding.
  std::size_t parameter_count() const
  {
    check_not_moved_from();
    return parts_.table.elements();
  }

  /// The bytes of all tensors' moments and master weights, including removed tensors whose state is kept.
  std::size_t state_bytes() const
  {
    check_not_moved_from();
    std::size_t bytes = 0;
    for (const tensor& x : parts_.table.all())
      bytes += detail::state_bytes<model>(x);
    return bytes;
  }

  // ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /// A view of one slot of a tensor, such as state("layer1.weight", "exp_avg"); on a device, a span of device memory.
  /// Float master weights beside float moments are the slot "master".
  /// After writing to a second moment, call `recompute_second_moment_sum`.
  /// \throws std::invalid_argument for an unknown tensor or slot, or a slot that the tensor does not have
  std::span<state_type> state(std::string_view name, std::string_view slot_name)
    requires(!std::is_same_v<state_type, block8>)
  {
    return state_of(name, slot_name);
  }
  /// The same, read-only.
  std::span<const state_type> state(std::string_view name, std::string_view slot_name) const
    requires(!std::is_same_v<state_type, block8>)
  {
    return state_of(name, slot_name);
  }

  /// Calls visit(tensor's name, key, span) for all state that a resumed run needs, tensor by tensor:
  /// - "trained": which elements are trained, one std::uint8_t each, if `add` was given a mask;
  /// - each slot under its name, such as "exp_avg", as state_type. For block8 it is std::uint8_t, and the scales follow
  ///   as float under the name with "_scale" appended;
  /// - "master": the master weights as float, if there are any. For remainder16 it is a copy, which is written back after
  ///   `visit`, with the parameters;
  /// - "step": the tensor's step count, one std::uint64_t;
  /// - each scalar of the rule under its name, such as nadam's "mu_product", one double;
  /// - "exp_avg_sq_sum", for a scheduled decay that follows Σv from step to step (adams with unrounded moments): Σv of
  ///   all tensors with the same β₂ and step count, one double. If it is NaN, the next step that needs it recomputes it
  ///   from the moments.
  ///
  /// Then, with an empty tensor name, one std::uint64_t each:
  /// - "seed", with stochastic rounding;
  /// - "exp_avg_sq_sum_is_of_model", with "exp_avg_sq_sum": 1 if Σv is the whole model's (step_options::model_size),
  ///   else 0.
  ///
  /// Values written through the spans become the state, and a run restored this way continues with the same bits.
  /// Hyperparameters, schedules and frozen tensors are not included. `visit` may read the optimizer, but calls that
  /// would change it fail.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    begin_change();
    const detail::changing_visit during(parts_, visits_);
    detail::visit_state(parts_, engine_, visit);
  }
  /// The same, read-only: `visit` gets spans of const.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    begin_read();
    const detail::visit_count::visit during(visits_);
    detail::visit_state(std::as_const(parts_), engine_, visit);
  }

  /// Writes the weights that a recipe averages to `to`, rounded to nearest: for schedule_free_adamw those to evaluate and to
  /// keep. Of elements that are not trained, and before the first step, they are the parameters.
  /// \param to  as many as the tensor has; may be its parameters. Host only
  void copy_average(const tensor_handle& h, std::span<parameter_type> to) const
    requires(averages_weights<decltype(rule_type::first_moment)> && !on_device)
  {
    begin_read();
    const tensor& x = checked(h);
    if (to.size() != x.size)
      detail::fail("size of `to` is " + std::to_string(to.size()) + "; expected " + std::to_string(x.size) +
                   ", the size of the parameters of tensor " + detail::quote(x.name));
    detail::check_alignment("to", x.name, to);
    if constexpr (averages_weights<decltype(rule_type::first_moment)>)
      detail::average_weights<model>(parts_.groups[x.group].rule.first_moment, x, parts_.steps_of(x), to);
  }

  /// The seed of stochastic rounding, initially 0; it is part of the state. The same seed gives the same bits.
  std::uint64_t seed() const
    requires(precision_type::stochastic)
  {
    check_not_moved_from();
    return parts_.seed;
  }
  /// Sets the seed of stochastic rounding from the next step on.
  void set_seed(std::uint64_t seed)
    requires(precision_type::stochastic)
  {
    begin_change();
    parts_.seed = seed;
    parts_.work.outdate();
  }

  /// Reads a tensor's master weights from its parameters; call it after other code has changed these.
  void reset_master(const tensor_handle& h)
    requires(precision_type::has_master)
  {
    check_may_change();
    tensor& x = checked(h);
    // clang 14 compiles this for every precision if the class is instantiated explicitly.
    if constexpr (precision_type::has_master)
      x.master.read(x.parameters, x.size, engine_);
  }

  /// Copies bytes to or from the state's memory, which may be a device's. It is for visitors of state with a
  /// `static constexpr bool takes_device_memory = true`, which get spans of device memory instead of copies (but copies
  /// of master weights in remainder16).
  void copy_memory(void* to, const void* from, std::size_t bytes) const
  {
    check_not_moved_from();
    engine_.copy(to, from, bytes);
  }

  /// Calls visit(name, parameters, index of the group, takes_part) for each tensor. `parameters` is empty for a removed
  /// tensor whose state is kept. `takes_part`, a bool&, is false for a frozen tensor; writing it freezes or unfreezes
  /// the tensor, as freeze and unfreeze do. To restore a run, call it before visit_state, which restores Σv.
  /// `visit` may read the optimizer, but calls that would change it fail.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    begin_change();
    const detail::changing_visit during(parts_, visits_);
    detail::visit_tensors(parts_, visit);
  }
  /// The same, read-only: `visit` gets a span of const and a const bool&.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    check_not_moved_from();
    const detail::visit_count::visit during(visits_);
    detail::visit_tensors(std::as_const(parts_), visit);
  }

  /// Makes the next step recompute Σv of a scheduled decay from the second moments. Call it after you wrote second
  /// moments without "exp_avg_sq_sum".
  void recompute_second_moment_sum()
  {
    begin_change();
    parts_.forget_sums();
  }

  // ── the step ───────────────────────────────────────────────────────────────────────────────────────────────────

  /// Takes one step of every tensor that has gradients and is not frozen; allocates nothing. On a device the step is
  /// enqueued, and the returned report is pending; `report()` waits for its result.
  /// \throws std::invalid_argument for an option out of range, or if no tensor was added; and, on the host, if clipping
  ///         needs a factor that value_type cannot hold
  step_report step(const step_options& o = {})
  {
    check_may_change();
    check_options(o);
    return engine_.step(parts_, o);
  }

  /// The report of the last step; waits for a device. Before the first step, `applied` is false.
  step_report report() const
  {
    check_not_moved_from();
    return engine_.report();
  }

  /// Sets lr_scale, grad_scale and max_grad_norm for later replays of captured graphs, in stream order
  /// (docs/gpu.md#graphs).
  template <class Engine = engine_type>  // a template, so that the class can be instantiated for other engines
    requires(Engine::on_device)
  void set_options(const step_options& o)
  {
    check_may_change();
    check_options(o);
    engine_.set_options(o);
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
      detail::fail(
          "this optimizer is being visited; expected no change to it until visit_state or visit_tensors has returned");
  }
  /// Called before the parts change, or step counts or sums are read, because a device may have newer ones.
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

  /// Whether model_size is valid depends on the steps so far, which a device may know better.
  void check_options(const step_options& o)
  {
    if (rule_type::scheduled && o.model_size && !parts_.sums.is_of_model())
      engine_.settle(parts_);
    parts_.check(o);
  }

  std::size_t checked(const group_handle& g) const
  {
    check_not_moved_from();
    if ((g.key().owner != 0 && g.key().owner != owner_.value()) || g.key().index >= parts_.groups.size())
      detail::fail("group is of another optimizer; expected one that add_group of this optimizer returned");
    return g.key().index;
  }
  group_handle group_at_place(std::size_t index) const
  {
    return group_handle(detail::handle_key{owner_.value(), index, 0});
  }

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

  static detail::matrix_extents matrix_of(std::string_view name, std::size_t size, const view_shape& shape)
  {
    if (shape.rank() != 2 || shape.extent(0) == 0 || shape.extent(1) == 0 ||
        size / shape.extent(0) != shape.extent(1) || size % shape.extent(0) != 0)
      detail::fail("shape of tensor " + detail::quote(name) + " is " + shape.text() +
                   "; expected rows and columns of " + std::to_string(size) + " elements");
    if (shape.order() == storage_order::other)
      detail::fail("storage order of tensor " + detail::quote(name) +
                   " is neither row-major nor column-major; expected one of them, because this recipe multiplies "
                   "matrices");
    return {shape.extent(0), shape.extent(1), shape.order() == storage_order::column_major};
  }
  /// Allocates the memory in which steps with a rule work on a matrix, if the tensor is one.
  void reserve_matrix([[maybe_unused]] const rule_type& rule, [[maybe_unused]] const detail::matrix_extents& extents,
                      [[maybe_unused]] std::string_view name)
  {
    if constexpr (reads_shapes)
      if (extents.rows != 0)
        engine_.reserve_matrix(rule, extents, name);
  }

  void check_memory(std::string_view name, parameters_span parameters,
                    const std::optional<gradients_span>& gradients) const
  {
    parts_.table.check_memory(name, parameters, gradients);
    if (parameters.size() > 0)
      engine_.check_place(parameters.data(), gradients ? gradients->data() : nullptr, name);
  }

  typename model::state_memory new_state(const rule_type& rule, std::size_t n, const rule_type* had = nullptr) const
  {
    return detail::make_state<model>(rule, n, had, model::memory_source::get(engine_.backend()));
  }
  void set_mask(tensor& x, const std::string& name, const trained_mask& is_trained) const
  {
    if (on_device)
      detail::fail(
          "the mask of tensor " + detail::quote(name) +
          " is given; expected none on a device: set the gradients of the other elements to 0, or choose a CPU "
          "backend");
    detail::set_mask<model>(x, name, is_trained);
  }

  /// Allocates all memory that steps need for one more tensor of n elements, so that `step` allocates nothing.
  void reserve_one(std::size_t n)
  {
    parts_.reserve_one();
    engine_.reserve(parts_.table.all().size() + 1, parts_.table.pages() + page_count(n));
  }
  tensor_handle attach(std::size_t index, parameters_span parameters,
                       const std::optional<gradients_span>& gradients) noexcept
  {
    const detail::handle_key key = parts_.table.attach(index, parameters, gradients, owner_.value());
    parts_.update_membership(parts_.table[index]);
    return tensor_handle(key);
  }
  /// Adds a tensor that was removed with its state kept.
  /// \param masked  null, or a tensor whose mask replaces the old one
  /// \param padded  1 for padding, an element each, or nothing
  tensor_handle add_again(std::size_t index, parameters_span parameters, const std::optional<gradients_span>& gradients,
                          std::size_t g, tensor* masked, const std::vector<std::uint8_t>& padded)
  {
    reserve_one(parts_.table[index].size);  // which may move the table
    tensor& x = parts_.table[index];
    const rule_type &from = parts_.groups[x.group].rule, &to = parts_.groups[g].rule;
    reserve_matrix(to, x.extents, x.name);
    if (!model::keep_the_same(from, to)) {
      auto state = new_state(to, x.size, &from);
      detail::change_slots<model>(x, from, to, state);
    }
    if constexpr (model::has_remainders)
      x.master.restore(parameters.data(), x.size, engine_);
    if (masked) {
      x.trained = std::move(masked->trained);
      x.uncounted = masked->uncounted;
    }
    if (!padded.empty())
      detail::clear_padding(x, padded, engine_);
    x.group = g;
    const tensor_handle handle = attach(index, parameters, gradients);
    if (masked || !padded.empty())
      parts_.forget_sum_of(x);  // it covered other elements
    return handle;
  }

  /// Changes what identifies a tensor, while the tensor takes no part in steps.
  template <class F>
  void change_member(tensor& x, const F& change)
  {
    const bool was_frozen = std::exchange(x.is_frozen, true);
    parts_.update_membership(x);
    change();
    x.is_frozen = was_frozen;
    parts_.update_membership(x);
  }

  /// A slot's values. They may be written only if the optimizer is not const.
  std::span<state_type> state_of(std::string_view name, std::string_view slot_name) const
  {
    check_not_moved_from();
    const std::size_t place = parts_.table.find(name);
    if (place == detail::no_place)
      detail::fail("name is " + detail::quote(name) + "; expected the name of a tensor of this optimizer");
    // 8-bit codes have no such span, and `state` does not exist; an explicit instantiation comes here nevertheless.
    if constexpr (!std::is_same_v<state_type, block8>) {
      const tensor& x = parts_.table[place];
      return detail::slot_of<model>(x, parts_.groups[x.group].rule, slot_name);
    }
    return {};
  }

  detail::owner_number owner_;
  mutable detail::visit_count visits_;
  // Mutable, because const members may have to wait for a device and copy step counts and sums from it.
  mutable parts_type parts_;
  mutable engine_type engine_;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
