#pragma once
/// \file
/// An optimizer chosen at run time by its name and named hyperparameters, for command lines, bindings and frameworks.
///
///     gradus::any_optimizer<float> opt("adamw", {{"lr", 1e-3}, {"weight_decay", 0.01}});
///
/// It compiles all recipes of gradus, which takes a while. With a list it compiles those of the list, which may be your
/// own:
///
///     gradus::any_optimizer_of<float, gradus::sgd, gradus::adamw> opt("sgd", {{"lr", 0.1}});

#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/any_optimizer/compiled.hpp>
#include <gradus/any_optimizer/names.hpp>
#include <gradus/optimizer.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The names of the recipes that any_optimizer accepts. \tparam Recipes  its list of recipes
template <class Recipes = all_recipes>
std::vector<std::string_view> recipe_names()
{
  std::vector<std::string_view> names;
  Recipes::for_each([&](std::string_view name, auto) { names.push_back(name); });
  return names;
}

/// The hyperparameters of a recipe with their defaults. \tparam Recipes  the list of recipes
/// \throws std::invalid_argument, with the nearest name, for an unknown recipe
template <class Recipes = all_recipes>
std::vector<named_number> recipe_hyperparameters(std::string_view recipe_name)
{
  std::vector<named_number> numbers;
  Recipes::for_each([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    if (name == recipe_name)
      numbers = detail::to_numbers(Recipe{});
  });
  if (numbers.empty())
    detail::fail_unknown("optimizer", recipe_name, recipe_names<Recipes>());
  return numbers;
}

/// `optimizer<Recipe, T, Backend>` with the recipe chosen by name. Its members are optimizer's, with the same meaning
/// and errors, but hyperparameters are lists of named numbers. A hyperparameter that is not named keeps its value; if a
/// name occurs twice, the later number counts, so put your own defaults first.
/// \tparam Recipes  all_recipes, a recipe_list<…>, or all_recipes_and<…>
template <class T, class Backend = default_backend, class Recipes = all_recipes>
class any_optimizer
    : public range_front<any_optimizer<T, Backend, Recipes>, detail::parameter_of<T>, detail::gradient_of<T>, Backend> {
  static_assert(precise<T>, "gradus: the precision T of an any_optimizer is float, double or a gradus::precision<…>.");
  static_assert(backend_type_of<Backend>,
                "gradus: the backend of an any_optimizer is backend::scalar, simd, dispatch, thrust or parallel, "
                "or your own class with sweep, and accumulate or page_sums, like backend::scalar.");
  // With another T or Backend no recipe is compiled, so that the sentence above is the only error.
  static constexpr bool compiles_recipes = precise<T> && backend_type_of<Backend>;

 public:
  using precision_type = typename detail::precision_or_float<T>::precision;        ///< the number types
  using value_type = typename precision_type::compute_type;                        ///< of the arithmetic
  using state_type = typename precision_type::state_type;                          ///< of the moments
  using parameters_span = std::span<typename precision_type::parameter_type>;      ///< a tensor's weights
  using gradients_span = std::span<const typename precision_type::gradient_type>;  ///< a tensor's gradients
  /// Whether the state is in memory of the backend's own, on a device.
  static constexpr bool on_device =
      optimizer<sgd, std::conditional_t<compiles_recipes, T, float>,
                std::conditional_t<compiles_recipes, Backend, default_backend>>::on_device;
  /// One tensor's new memory, for rebind_spans of several at once.
  using rebinding = detail::rebinding<parameters_span, gradients_span>;
  using numbers = std::span<const named_number>;            ///< hyperparameters
  using number_list = std::initializer_list<named_number>;  ///< hyperparameters, {{"lr", 1e-3}, …}

  /// \param recipe_name      one of `recipe_names<Recipes>()`
  /// \param hyperparameters  replace the recipe's defaults
  /// \throws std::invalid_argument for an unknown name, and for a value out of range
  explicit any_optimizer(std::string_view recipe_name, numbers hyperparameters = {}, Backend backend = Backend())
  {
    make(recipe_name, hyperparameters, backend, {});
  }
  /// The same with a list: any_optimizer<float>("adamw", {{"lr", 1e-3}}).
  any_optimizer(std::string_view recipe_name, number_list hyperparameters, Backend backend = Backend())
      : any_optimizer(recipe_name, span_of(hyperparameters), backend)
  {}

  /// Moves; the members of `other` then fail until it is assigned to.
  any_optimizer(any_optimizer&& other) noexcept : self_(std::exchange(other.self_, nullptr)) {}
  /// Moves; the members of `other` then fail until it is assigned to.
  any_optimizer& operator=(any_optimizer&& other) noexcept
  {
    if (this != &other)
      delete std::exchange(self_, std::exchange(other.self_, nullptr));
    return *this;
  }
  ~any_optimizer() { delete self_; }

  /// The recipe's name.
  std::string_view name() const { return model_of().name; }

  /// A group's hyperparameters, all of them.
  std::vector<named_number> hyperparameters(group_handle g = {}) const { return model_of().hyperparameters(g); }
  /// Adds a group with the default group's hyperparameters, except those named.
  group_handle add_group(numbers changed, const group_options& o = {}) { return model_of().add_group(changed, o); }
  /// The same with a list.
  group_handle add_group(number_list changed, const group_options& o = {}) { return add_group(span_of(changed), o); }
  /// Changes the named hyperparameters of a group from the next step on.
  void set_hyperparameters(numbers changed, group_handle g = {}) { model_of().set_hyperparameters(changed, g); }
  /// The same with a list.
  void set_hyperparameters(number_list changed, group_handle g = {}) { set_hyperparameters(span_of(changed), g); }

  /// A group's learning rate.
  double lr(group_handle g = {}) const { return model_of().lr(g); }
  /// Sets a group's learning rate from the next step on.
  void set_lr(double lr, group_handle g = {}) { model_of().set_lr(lr, g); }
  /// A group's factor on its learning rate.
  double lr_scale(group_handle g = {}) const { return model_of().lr_scale(g); }
  /// Sets a group's factor on its learning rate from the next step on.
  void set_lr_scale(double lr_scale, group_handle g = {}) { model_of().set_lr_scale(lr_scale, g); }

  /// Fails as set_hyperparameters would, and changes nothing.
  void check_hyperparameters(numbers changed, group_handle g = {}) const
  {
    model_of().check_hyperparameters(changed, g);
  }
  /// Copies bytes to or from the state's memory, for visitors of state that take device memory.
  void copy_memory(void* to, const void* from, std::size_t bytes) const { model_of().copy_memory(to, from, bytes); }
  /// The number of groups, the default group included.
  std::size_t group_count() const { return model_of().group_count(); }
  /// The handle of a group; 0 is the default group.
  group_handle group_at(std::size_t index) const { return model_of().group_at(index); }

  /// Adds a tensor by its spans; `add` forwards here. Without gradients it starts frozen.
  tensor_handle add_spans(std::string_view tensor_name, parameters_span parameters,
                          std::optional<gradients_span> gradients, std::optional<group_handle> in = {},
                          const trained_mask* trained = nullptr, const padding_mask* padding = nullptr)
  {
    return model_of().add_spans(tensor_name, parameters, gradients, in, trained, padding);
  }
  /// Points a tensor at new memory of the same length; its state stays.
  void rebind_spans(const tensor_handle& h, parameters_span parameters, std::optional<gradients_span> gradients)
  {
    const rebinding one{h, parameters, gradients};
    model_of().rebind_spans(std::span(&one, 1));
  }
  /// Points several tensors at new memory at once; they may take each other's places.
  void rebind_spans(std::span<const rebinding> all) { model_of().rebind_spans(all); }
  /// Points a tensor at new gradients of the same length.
  void rebind_gradients_spans(const tensor_handle& h, gradients_span gradients)
  {
    model_of().rebind_gradients_spans(h, gradients);
  }
  /// Takes a tensor's gradients away: steps skip the tensor until some are bound.
  void unbind_gradients(const tensor_handle& h) { model_of().unbind_gradients(h); }
  /// Freezes a tensor: steps skip it; its weights, state and step count stay unchanged.
  void freeze(const tensor_handle& h) { model_of().freeze(h); }
  /// Lets a frozen tensor take part in steps again.
  void unfreeze(const tensor_handle& h) { model_of().unfreeze(h); }
  /// Removes a tensor. Its state is dropped, or kept until a tensor of the same name and length is added.
  void remove(const tensor_handle& h, removed_state state) { model_of().remove(h, state); }
  /// Marks elements of a tensor as padding: they count in no mean, and their state stays 0.
  void set_padding(const tensor_handle& h, padding_mask is_padding) { model_of().set_padding(h, is_padding); }
  /// Says that a tensor is a matrix, for recipes that work on matrices.
  /// \throws std::invalid_argument if the recipe works on none
  void set_shape(const tensor_handle& h, const view_shape& shape) { model_of().set_shape(h, shape); }
  /// The number of steps that a tensor has taken.
  std::uint64_t step_count(const tensor_handle& h) const { return model_of().step_count(h); }
  /// The number of parameters in all tensors.
  std::size_t parameter_count() const { return model_of().parameter_count(); }
  /// The bytes of state of all tensors.
  std::size_t state_bytes() const { return model_of().state_bytes(); }

  /// A view of one slot of a tensor, such as state("layer1.weight", "exp_avg").
  std::span<state_type> state(std::string_view tensor_name, std::string_view slot_name)
    requires(!std::is_same_v<state_type, block8>)
  {
    return model_of().state(tensor_name, slot_name);
  }
  /// The same, read-only.
  std::span<const state_type> state(std::string_view tensor_name, std::string_view slot_name) const
    requires(!std::is_same_v<state_type, block8>)
  {
    return model_of().state(tensor_name, slot_name);
  }
  /// Writes the weights that the recipe averages to `to`: for schedule_free_adamw those to evaluate and to keep.
  /// \throws std::invalid_argument if the recipe averages no weights, or on a device
  void copy_average(const tensor_handle& h, parameters_span to) const { model_of().copy_average(h, to); }
  /// Calls visit(tensor, key, span) for each array of state (docs/algorithms.md#state); writes through the spans change
  /// it.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    model_of().visit_state(visitor(visit));
  }
  /// The same, read-only.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    auto readonly = [&]<class X>(std::string_view n, std::string_view k, std::span<X> x) {
      visit(n, k, std::span<const X>(x));
    };
    model_of().visit_state(visitor(readonly));
  }
  /// Calls visit(tensor, parameters, group, takes_part) for each tensor; `takes_part`, a bool&, may be changed.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    tensor_visitor_of<std::remove_reference_t<Visitor>> erased(visit);
    model_of().visit_tensors(erased);
  }
  /// The same, read-only.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    auto readonly = [&](std::string_view n, parameters_span w, std::size_t g, bool& takes_part) {
      visit(n, std::span<const typename precision_type::parameter_type>(w), g, std::as_const(takes_part));
    };
    tensor_visitor_of<decltype(readonly)> erased(readonly);
    model_of().visit_tensors(erased);
  }
  /// Recomputes Σv of a scheduled decay from v, after second moments were written without it.
  void recompute_second_moment_sum() { model_of().recompute_second_moment_sum(); }
  /// The seed of stochastic rounding.
  std::uint64_t seed() const
    requires(precision_type::stochastic)
  {
    return model_of().seed();
  }
  /// Sets the seed of stochastic rounding.
  void set_seed(std::uint64_t seed)
    requires(precision_type::stochastic)
  {
    model_of().set_seed(seed);
  }
  /// Reads a tensor's master weights from its parameters, after these were changed by other code.
  void reset_master(const tensor_handle& h)
    requires(precision_type::has_master)
  {
    model_of().reset_master(h);
  }

  /// One step of all tensors that are not frozen; allocates nothing. On a device it is enqueued, and the report is
  /// pending.
  step_report step(const step_options& o = {}) { return model_of().step(o); }
  /// The report of the last step; waits for a device.
  step_report report() const { return model_of().report(); }
  /// Sets the options of later replays of captured graphs, in stream order (docs/gpu.md#graphs).
  /// \throws std::invalid_argument if the optimizer is not on a device
  void set_options(const step_options& o) { model_of().set_options(o); }

 private:
  static numbers span_of(number_list l) noexcept { return {l.begin(), l.size()}; }

  /// A type-erased visitor for all types of spans that state consists of.
  template <class... X>
  struct visitor_of {
    void* visit;
    std::tuple<void (*)(void*, std::string_view, std::string_view, std::span<X>)...> calls;

    template <class Visitor>
    explicit visitor_of(Visitor& v) : visit(const_cast<std::remove_const_t<Visitor>*>(&v)), calls(call<Visitor, X>...)
    {}
    template <class Y>
    void operator()(std::string_view name, std::string_view key, std::span<Y> values) const
    {
      std::get<void (*)(void*, std::string_view, std::string_view, std::span<Y>)>(calls)(visit, name, key, values);
    }

   private:
    template <class Visitor, class Y>
    static void call(void* v, std::string_view name, std::string_view key, std::span<Y> values)
    {
      (*static_cast<Visitor*>(v))(name, key, values);
    }
  };
  static auto visitor_type()
  {
    using std::type_identity;
    if constexpr (std::is_same_v<state_type, double>)
      return type_identity<visitor_of<std::uint8_t, double, std::uint64_t>>{};
    else if constexpr (std::is_same_v<state_type, block8>)
      return type_identity<visitor_of<std::uint8_t, float, double, std::uint64_t>>{};
    else if constexpr (std::is_same_v<state_type, bfloat16>)
      return type_identity<visitor_of<std::uint8_t, bfloat16, float, double, std::uint64_t>>{};
    else
      return type_identity<visitor_of<std::uint8_t, float, double, std::uint64_t>>{};
  }
  using visitor = typename decltype(visitor_type())::type;

  struct tensor_visitor {
    virtual void operator()(std::string_view tensor_name, parameters_span parameters, std::size_t group,
                            bool& takes_part) = 0;

   protected:
    ~tensor_visitor() = default;
  };
  template <class Visit>
  struct tensor_visitor_of final : tensor_visitor {
    Visit& visit;
    explicit tensor_visitor_of(Visit& v) : visit(v) {}
    void operator()(std::string_view n, parameters_span w, std::size_t g, bool& takes_part) override
    {
      visit(n, w, g, takes_part);
    }
  };

  struct base {
    std::string_view name;
    explicit base(std::string_view recipe_name) : name(recipe_name) {}
    virtual ~base() = default;
    virtual std::vector<named_number> hyperparameters(group_handle) const = 0;
    virtual group_handle add_group(numbers, const group_options&) = 0;
    virtual void set_hyperparameters(numbers, group_handle) = 0;
    virtual void check_hyperparameters(numbers, group_handle) const = 0;
    virtual double lr(group_handle) const = 0;
    virtual void set_lr(double, group_handle) = 0;
    virtual double lr_scale(group_handle) const = 0;
    virtual void set_lr_scale(double, group_handle) = 0;
    virtual void copy_memory(void*, const void*, std::size_t) const = 0;
    virtual std::size_t group_count() const = 0;
    virtual group_handle group_at(std::size_t) const = 0;
    virtual tensor_handle add_spans(std::string_view, parameters_span, std::optional<gradients_span>,
                                    std::optional<group_handle>, const trained_mask*, const padding_mask*) = 0;
    virtual void rebind_spans(std::span<const rebinding>) = 0;
    virtual void rebind_gradients_spans(const tensor_handle&, gradients_span) = 0;
    virtual void unbind_gradients(const tensor_handle&) = 0;
    virtual void freeze(const tensor_handle&) = 0;
    virtual void unfreeze(const tensor_handle&) = 0;
    virtual void remove(const tensor_handle&, removed_state) = 0;
    virtual void set_padding(const tensor_handle&, padding_mask) = 0;
    virtual void set_shape(const tensor_handle&, const view_shape&) = 0;
    virtual std::uint64_t step_count(const tensor_handle&) const = 0;
    virtual std::size_t parameter_count() const = 0;
    virtual std::size_t state_bytes() const = 0;
    virtual std::span<state_type> state(std::string_view, std::string_view) = 0;
    virtual void copy_average(const tensor_handle&, parameters_span) const = 0;
    virtual void visit_state(const visitor&) = 0;
    virtual std::uint64_t seed() const = 0;
    virtual void set_seed(std::uint64_t) = 0;
    virtual void reset_master(const tensor_handle&) = 0;
    virtual void visit_tensors(tensor_visitor&) = 0;
    virtual void recompute_second_moment_sum() = 0;
    virtual step_report step(const step_options&) = 0;
    virtual step_report report() const = 0;
    virtual void set_options(const step_options&) = 0;
  };

  template <class Recipe>
  struct model final : base {
    static_assert(
        requires(Recipe r) { r.lr = 1.0; },
        "gradus: a recipe of any_optimizer has a member lr, the learning rate, and a default for each member.");
    optimizer<Recipe, T, Backend> opt;

    model(std::string_view recipe_name, const Recipe& recipe, Backend backend) : base(recipe_name), opt(recipe, backend)
    {}
    std::vector<named_number> hyperparameters(group_handle g) const override
    {
      return detail::to_numbers(opt.hyperparameters(g));
    }
    group_handle add_group(numbers changed, const group_options& o) override
    {
      return opt.add_group(detail::with_numbers(this->name, opt.hyperparameters(), changed), o);
    }
    void set_hyperparameters(numbers changed, group_handle g) override
    {
      opt.set_hyperparameters(detail::with_numbers(this->name, opt.hyperparameters(g), changed), g);
    }
    void check_hyperparameters(numbers changed, group_handle g) const override
    {
      opt.check_hyperparameters(detail::with_numbers(this->name, opt.hyperparameters(g), changed));
    }
    void copy_memory(void* to, const void* from, std::size_t bytes) const override { opt.copy_memory(to, from, bytes); }
    double lr(group_handle g) const override { return opt.lr(g); }
    void set_lr(double lr, group_handle g) override { opt.set_lr(lr, g); }
    double lr_scale(group_handle g) const override { return opt.lr_scale(g); }
    void set_lr_scale(double scale, group_handle g) override { opt.set_lr_scale(scale, g); }
    std::size_t group_count() const override { return opt.group_count(); }
    group_handle group_at(std::size_t index) const override { return opt.group_at(index); }
    tensor_handle add_spans(std::string_view n, parameters_span w, std::optional<gradients_span> g,
                            std::optional<group_handle> in, const trained_mask* trained,
                            const padding_mask* padding) override
    {
      return opt.add_spans(n, w, g, in, trained, padding);
    }
    void rebind_spans(std::span<const rebinding> all) override { opt.rebind_spans(all); }
    void rebind_gradients_spans(const tensor_handle& h, gradients_span g) override { opt.rebind_gradients_spans(h, g); }
    void unbind_gradients(const tensor_handle& h) override { opt.unbind_gradients(h); }
    void freeze(const tensor_handle& h) override { opt.freeze(h); }
    void unfreeze(const tensor_handle& h) override { opt.unfreeze(h); }
    void remove(const tensor_handle& h, removed_state s) override { opt.remove(h, s); }
    void set_padding(const tensor_handle& h, padding_mask is_padding) override { opt.set_padding(h, is_padding); }
    void set_shape(const tensor_handle& h, const view_shape& shape) override
    {
      if constexpr (requires { opt.set_shape(h, shape); })
        opt.set_shape(h, shape);
      else
        detail::fail("the optimizer is " + std::string(this->name) +
                     "; expected one that works on matrices, such as muon");
    }
    std::uint64_t step_count(const tensor_handle& h) const override { return opt.step_count(h); }
    std::size_t parameter_count() const override { return opt.parameter_count(); }
    std::size_t state_bytes() const override { return opt.state_bytes(); }
    std::span<state_type> state(std::string_view n, std::string_view s) override
    {
      if constexpr (!std::is_same_v<state_type, block8>)
        return opt.state(n, s);
      return {};
    }
    void copy_average(const tensor_handle& h, parameters_span to) const override
    {
      if constexpr (requires { opt.copy_average(h, to); })
        opt.copy_average(h, to);
      else
        detail::fail("the optimizer is " + std::string(this->name) +
                     "; expected one that averages weights, such as schedule_free_adamw, on the host");
    }
    void visit_state(const visitor& visit) override { opt.visit_state(visit); }
    std::uint64_t seed() const override
    {
      if constexpr (precision_type::stochastic)
        return opt.seed();
      return 0;
    }
    void set_seed([[maybe_unused]] std::uint64_t seed) override
    {
      if constexpr (precision_type::stochastic)
        opt.set_seed(seed);
    }
    void reset_master([[maybe_unused]] const tensor_handle& h) override
    {
      if constexpr (precision_type::has_master)
        opt.reset_master(h);
    }
    void visit_tensors(tensor_visitor& visit) override { opt.visit_tensors(visit); }
    void recompute_second_moment_sum() override { opt.recompute_second_moment_sum(); }
    step_report step(const step_options& o) override { return opt.step(o); }
    step_report report() const override { return opt.report(); }
    void set_options([[maybe_unused]] const step_options& o) override
    {
      if constexpr (requires { opt.set_options(o); })
        opt.set_options(o);
      else
        detail::fail("the optimizer is on the host, where no graph is captured; expected one on a device");
    }
  };

  /// Makes the model. All that compiles recipes is compiled with this function, which is not inline, so that a unit
  /// that has gradus::compiled declared leaves it to that library.
  void make(std::string_view recipe_name, numbers hyperparameters, Backend backend, detail::library_layout);
  /// What `make` does for each recipe; no lambda, because behind nvcc g++ 12 takes none with a template's parameters there.
  struct maker {
    any_optimizer& self;
    std::string_view wanted;
    const numbers& hyperparameters;
    const Backend& backend;

    template <class Recipe>
    void operator()(std::string_view name, std::type_identity<Recipe>) const
    {
      if (name == wanted)
        self.self_ = new model<Recipe>(name, detail::with_numbers(name, Recipe{}, hyperparameters), backend);
    }
  };

  base& model_of() const
  {
    if (!self_)
      detail::fail("this optimizer has been moved from; expected the one it was moved to");
    return *self_;
  }

  base* self_ = nullptr;
};

template <class T, class Backend, class Recipes>
void any_optimizer<T, Backend, Recipes>::make(std::string_view recipe_name, numbers hyperparameters, Backend backend,
                                              detail::library_layout)
{
  static_assert(detail::names_are_distinct<Recipes>(),
                "gradus: each recipe of any_optimizer has a name of its own: give yours a static constexpr "
                "std::string_view name = \"mine\", and list each once.");
  if constexpr (compiles_recipes)
    Recipes::for_each(maker{*this, recipe_name, hyperparameters, backend});
  if (!self_)
    detail::fail_unknown("optimizer", recipe_name, recipe_names<Recipes>());
}

/// any_optimizer on the default backend, of some recipes.
template <class T, class... Recipes>
using any_optimizer_of = any_optimizer<T, default_backend, recipe_list<Recipes...>>;

// What gradus::compiled has.
#if defined(GRADUS_COMPILED_FLOAT)
GRADUS_COMPILED_ANY_OPTIMIZER(extern, float)
#endif
#if defined(GRADUS_COMPILED_DOUBLE)
GRADUS_COMPILED_ANY_OPTIMIZER(extern, double)
#endif
#if defined(GRADUS_COMPILED_BFLOAT16)
GRADUS_COMPILED_ANY_OPTIMIZER(extern, detail::with_master<bfloat16>)
#endif
#if defined(GRADUS_COMPILED_FLOAT16)
GRADUS_COMPILED_ANY_OPTIMIZER(extern, detail::with_master<float16>)
#endif

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
