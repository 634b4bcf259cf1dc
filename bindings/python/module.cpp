// The Python module gradus._gradus: gradus_optimizer over the caller's arrays. It keeps the arrays alive, releases the
// GIL during steps, and turns errors into exceptions.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <gradus/checkpoint.hpp>
#include <gradus/recipes.hpp>

#include "arrays.hpp"
#include "optimizer.hpp"

namespace gradus::python {

namespace c = gradus::binding;

// Makes an optimizer's device current.
#if defined(GRADUS_C_CUDA)
struct on_its_device {
  explicit on_its_device(const gradus_optimizer& o) : there_(o.place) {}

 private:
  c::place::visit there_;
};
#else
struct on_its_device {
  explicit on_its_device(const gradus_optimizer&) {}
};
#endif

// ── hyperparameters ────────────────────────────────────────────────────────────────────────────────────────────────

using numbers = std::vector<named_number>;

// The keyword arguments of a call. The names live as long as `given`.
numbers numbers_of(const nb::kwargs& given)
{
  numbers all;
  for (const auto& [key, value] : given) {
    const double x = PyFloat_AsDouble(value.ptr());
    if (x == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      throw nb::type_error(("gradus: " + nb::cast<std::string>(key) + " is " + nb::cast<std::string>(nb::repr(value)) +
                            "; expected a number")
                               .c_str());
    }
    all.emplace_back(nb::cast<const char*>(key), x);
  }
  return all;
}

// Calls f(name of the recipe, name of the hyperparameter, default) for all; a switch's default is a bool.
template <class F>
void for_each_default(const F& f)
{
  compiled_recipes::for_each([&]<class Recipe>(std::string_view recipe, std::type_identity<Recipe>) {
    Recipe defaults;
    for_each_hyperparameter(defaults, [&](std::string_view name, auto value, range) { f(recipe, name, value); });
  });
}

nb::str text(std::string_view s) { return nb::str(s.data(), s.size()); }

nb::dict recipes()
{
  nb::dict all;
  for_each_default([&](std::string_view recipe, std::string_view name, auto value) {
    if (!all.contains(text(recipe)))
      all[text(recipe)] = nb::dict();
    all[text(recipe)][text(name)] = nb::cast(value);
  });
  return all;
}

nb::dict to_dict(std::string_view recipe, const numbers& from)
{
  nb::dict all;
  for (const auto& [name, number] : from)
    all[text(name)] = nb::float_(number);
  for_each_default([&](std::string_view r, std::string_view name, auto value) {
    if constexpr (std::is_same_v<decltype(value), bool>)
      if (r == recipe)
        all[text(name)] = nb::bool_(nb::cast<double>(all[text(name)]) != 0);
  });
  return all;
}

// ── state on a device ────────────────────────────────────────────────────────────────────────────────────────────

// A slot of a tensor's state in the memory of a device, for array libraries to view.
struct device_array {
  nb::object shown;      // nanobind's array, which speaks DLPack and holds the optimizer
  nb::object optimizer;  // in whose stream's order it is computed
  location at;
  layout form;
  gradus_dtype dtype = GRADUS_FLOAT32;
  const void* memory = nullptr;

  nb::tuple shape() const { return to_tuple(form.shape, 1); }
  nb::object dlpack(const nb::kwargs& options) const
  {
    const nb::object stream = options.contains("stream") ? nb::object(options["stream"]) : nb::object(nb::none());
    if (!nb::isinstance<nb::int_>(stream) || nb::cast<long long>(stream) != -1)  // -1: as it is
      optimizer.attr("report")();                                                // waits for the stream
    return shown.attr("__dlpack__")(**options);
  }
  nb::dict cuda_interface() const
  {
    const auto stream = nb::cast<std::uintptr_t>(optimizer.attr("stream"));
    const bool is_double = dtype == GRADUS_FLOAT64;
    nb::dict all;
    all["shape"] = shape();
    all["typestr"] = is_double ? "<f8" : "<f4";
    all["data"] = nb::make_tuple(reinterpret_cast<std::uintptr_t>(memory), false);
    all["strides"] = to_tuple(form.strides, is_double ? 8 : 4);
    all["stream"] = stream == 0 ? 1 : stream;
    all["version"] = 3;
    return all;
  }
  std::string repr() const
  {
    return "gradus.DeviceArray(shape=" + form.text() + ", dtype=" + name_of(dtype) + ", on " + name_of(at) + ")";
  }

 private:
  static nb::tuple to_tuple(const std::vector<std::int64_t>& from, std::int64_t factor)
  {
    nb::list all;
    for (const std::int64_t x : from)
      all.append(x * factor);
    return nb::tuple(all);
  }
};

// ── the optimizer ──────────────────────────────────────────────────────────────────────────────────────────────────

class optimizer {
 public:
  optimizer(const std::string& recipe, unsigned threads, std::uintptr_t stream, const numbers& given)
      : recipe_(recipe), stream_(stream), self_(new gradus_optimizer(recipe, given, GRADUS_FLOAT32))
  {
    set_threads(threads);
  }

  const std::string& recipe() const noexcept { return recipe_; }
  unsigned threads() const noexcept { return threads_; }
  void set_threads(unsigned threads)
  {
    const in_use now(*this);
    self_->executor.set_threads(threads);
    threads_ = threads;
  }
  std::optional<std::string> dtype() const
  {
    return has_dtype_ ? std::optional<std::string>(name_of(current_dtype())) : std::nullopt;
  }
  std::optional<std::string> device() const
  {
    if (!has_dtype_)
      return std::nullopt;
    return at_.type == cpu ? "cpu" : "cuda:" + std::to_string(at_.number);
  }
  std::uintptr_t stream() const noexcept { return stream_; }
  void set_stream(std::uintptr_t stream)
  {
    const in_use now(*this);
    stream_ = stream;
#if defined(GRADUS_C_CUDA)
    self_->stream = reinterpret_cast<c::stream>(stream);
#endif
  }
  std::size_t size() const noexcept { return tensors_.size(); }
  nb::list names() const
  {
    nb::list all;
    for (const tensor& x : tensors_)
      all.append(x.name);
    return all;
  }
  std::size_t parameter_count() const
  {
    const in_use now(*this);
    return self_->visit([](const auto& o) { return o.parameter_count(); });
  }
  std::size_t state_bytes() const
  {
    const in_use now(*this);
    return self_->visit([](const auto& o) { return o.state_bytes(); });
  }

  // ── groups

  std::size_t add_group(const numbers& changed)
  {
    const in_use now(*this);
    return self_->visit([&](auto& o) {
      o.add_group(changed);
      return o.group_count() - 1;
    });
  }
  std::size_t group_count() const
  {
    const in_use now(*this);
    return self_->visit([](const auto& o) { return o.group_count(); });
  }
  nb::dict hyperparameters(std::size_t group) const
  {
    const in_use now(*this);
    return to_dict(recipe_, self_->visit([&](const auto& o) { return o.hyperparameters(c::group_at(o, group)); }));
  }
  void set_hyperparameters(std::size_t group, const numbers& changed)
  {
    const in_use now(*this);
    self_->visit([&](auto& o) {
      const auto g = c::group_at(o, group);
      if (views_ > 0)
        for (const auto& [name, before] : o.hyperparameters(g))
          for (const auto& [other, after] : changed)
            if (name == other && before != 0 && after == 0 && (name == "momentum" || name == "centered"))
              throw nb::buffer_error(("gradus: " + std::string(name) +
                                      " is 0, which frees state that arrays from state() still view; expected those "
                                      "arrays to be deleted first")
                                         .c_str());
      o.set_hyperparameters(changed, g);
    });
  }

  // ── tensors

  void add(const std::string& name, nb::object parameters, nb::object gradients, std::size_t group)
  {
    if (name.empty())
      fail("name is \"\"; expected a name, by which state is found in checkpoints");
    array p = import_array(std::move(parameters), "parameters", name, true, stream_);
    std::optional<array> g = import_gradients(name, p, std::move(gradients));
    const in_use now(*this);
    if (places_.contains(name))
      fail("name is " + quote(name) + ", which another tensor has; expected a name of its own");
    if (tensors_.empty())
      choose(p.dtype, p.at);
    else
      check_dtype(name, p);
    const on_its_device there(*self_);
    tensor added;
    added.name = name;
    added.group = group;
    self_->visit([&]<class Opt>(Opt& o) {
      added.handle = o.add_spans(name, c::parameters_at<Opt>(p.data(), p.form.size()),
                                 c::gradients_at<Opt>(g ? g->data() : nullptr, p.form.size()), c::group_at(o, group));
    });
    added.parameters = std::move(p);
    added.gradients = std::move(g);
    places_.emplace(name, tensors_.size());
    tensors_.push_back(std::move(added));
    has_dtype_ = true;
  }

  void rebind(const std::string& name, nb::object parameters, nb::object gradients)
  {
    array p = import_array(std::move(parameters), "parameters", name, true, stream_);
    std::optional<array> g = import_gradients(name, p, std::move(gradients));
    const in_use now(*this);
    tensor& x = at(name);
    check_dtype(name, p);
    if (x.parameters.form.shape != p.form.shape)
      fail("parameters of tensor " + quote(name) + " have shape " + p.form.text() + "; expected " +
           x.parameters.form.text() + ", as its state");
    if (!x.parameters.form.matches(p.form))
      fail("parameters of tensor " + quote(name) +
           " have another order of dimensions in memory than before; expected "
           "the same, as its state");
    self_->visit([&]<class Opt>(Opt& o) {
      o.rebind_spans(x.handle, c::parameters_at<Opt>(p.data(), p.form.size()),
                     c::gradients_at<Opt>(g ? g->data() : nullptr, p.form.size()));
    });
    std::swap(x.parameters, p);  // the old arrays are released at the end, after all is in place
    std::swap(x.gradients, g);
  }

  void freeze(const std::string& name)
  {
    const in_use now(*this);
    self_->visit([&](auto& o) { o.freeze(at(name).handle); });
  }
  void unfreeze(const std::string& name)
  {
    const in_use now(*this);
    self_->visit([&](auto& o) { o.unfreeze(at(name).handle); });
  }
  void remove(const std::string& name)
  {
    const in_use now(*this);
    tensor& x = at(name);
    if (views_ > 0)
      throw nb::buffer_error(("gradus: tensor " + quote(name) +
                              " cannot be removed while arrays from state() live, "
                              "because its state would be freed; expected those arrays to be deleted first")
                                 .c_str());
    self_->visit([&](auto& o) { o.remove(x.handle, removed_state::dropped); });
    const tensor removed = std::move(x);  // its arrays are released after all is in place
    tensors_.erase(tensors_.begin() + std::ptrdiff_t(places_.at(name)));
    places_.clear();
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      places_.emplace(tensors_[i].name, i);
  }
  void reset_master(const std::string& name)
  {
    const in_use now(*this);
    const tensor& x = at(name);
    self_->visit([&]<class Opt>(Opt& o) {
      if constexpr (Opt::precision_type::has_master)
        o.reset_master(x.handle);
      else
        fail("dtype is " + std::string(name_of(current_dtype())) +
             ", which has no master weights; expected bfloat16 "
             "or float16");
    });
  }
  // Writes the weights that the recipe averages.
  void copy_average(const std::string& name, nb::object to) const
  {
    const array a = import_array(std::move(to), "averages", name, true, stream_);
    const in_use now(*this);
    const tensor& x = at(name);
    if (a.at != x.parameters.at)
      fail("averages of tensor " + quote(name) + " are on " + name_of(a.at) + "; expected " + name_of(x.parameters.at) +
           ", as its parameters");
    if (a.dtype != x.parameters.dtype)
      fail("averages of tensor " + quote(name) + " are " + name_of(a.dtype) + "; expected " +
           name_of(x.parameters.dtype) + ", as its parameters");
    if (!x.parameters.form.matches(a.form))
      fail("averages of tensor " + quote(name) + " have shape " + a.form.text() + "; expected " +
           x.parameters.form.text() + ", in the parameters' order of dimensions in memory");
    self_->visit([&]<class Opt>(const Opt& o) {
      o.copy_average(x.handle, c::parameters_at<Opt>(a.data(), a.form.size()));
    });
  }
  std::uint64_t step_count(const std::string& name) const
  {
    const in_use now(*this);
    return self_->visit([&](const auto& o) { return o.step_count(at(name).handle); });
  }

  // A tensor's slots as NumPy arrays of its shape.
  nb::dict state(nb::handle myself, const std::string& name)
  {
    const in_use now(*this);
    at(name);
    const nb::dict all = slots(myself, &name);
    return nb::dict(all[name.c_str()]);
  }
  // The same of all tensors, by their names.
  nb::dict states(nb::handle myself)
  {
    const in_use now(*this);
    return slots(myself, nullptr);
  }

  // ── steps

  step_report step(const step_options& o)
  {
    const in_use now(*this);
    const nb::gil_scoped_release other_threads_run;
    return self_->visit([&](auto& x) { return x.step(o); });
  }

  // The last step's report; waits for a device.
  step_report report() const
  {
    const in_use now(*this);
    const nb::gil_scoped_release other_threads_run;
    return self_->visit([](const auto& x) { return x.report(); });
  }
  void set_options(const step_options& o)
  {
    const in_use now(*this);
    self_->visit([&](auto& x) { x.set_options(o); });
  }

  // ── for gradus.torch, whose parameters have their gradients as attributes that change from step to step

  // Adds a parameter of PyTorch's, without gradients yet.
  void add_parameter(const std::string& name, nb::object parameter, std::size_t group)
  {
    add(name, parameter, nb::none(), group);
    parameters_.emplace(parameter.ptr(), tensors_.size() - 1);
    tensors_.back().bound = {tensors_.back().parameters.data(), nullptr};
    tensors_.back().parameters.view = {};  // the parameter may be given other memory, and this would keep the old one
  }

  // Binds all parameters' memory as it is now, and takes a step. Returns its report; or a list of (parameter, group) that
  // have gradients and are not known yet, without a step.
  // \param groups     a list of parameters for each group
  // \param same_form  same_form(parameter, gradient): the gradient in the parameter's order of dimensions
  // \param steps      false: only binds, and returns None
  // \param captures   whether the step is captured for a graph, which cannot take other memory than the step before
  nb::object step_parameters(const nb::list& groups, const nb::callable& same_form, const step_options& o, bool steps,
                             bool captures)
  {
    const in_use now(*this);
    const struct forgotten {
      optimizer& self;
      ~forgotten()
      {
        self.held_.clear();
        self.parameter_viewer_.forget();
        self.gradient_viewer_.forget();
      }
    } at_the_end{*this};
    nb::list unknown;
    std::vector<std::pair<std::size_t, binding>> moved;
    std::size_t next = 0, seen = 0;
    ++round_;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const nb::object parameters = groups[g];
      const Py_ssize_t count = PyList_Size(parameters.ptr());
      for (Py_ssize_t i = 0; i < count; ++i) {
        const auto p = nb::borrow(PyList_GetItem(parameters.ptr(), i));
        auto gradient = nb::steal(PyObject_GetAttr(p.ptr(), grad_.ptr()));
        if (!gradient.is_valid())
          throw nb::python_error();
        // Parameters mostly come in the order in which they were added.
        if (next >= tensors_.size() || !tensors_[next].parameters.given.is(p)) {
          const auto known = parameters_.find(p.ptr());
          if (known == parameters_.end()) {
            if (!gradient.is_none())
              unknown.append(nb::make_tuple(p, g));
            continue;
          }
          next = known->second;
        }
        tensor& x = tensors_[next];
        binding bound{parameter_memory(x, p), nullptr};
        if (!gradient.is_none()) {
          bound.gradients = gradient_memory(x, gradient);
          if (!bound.gradients && x.parameters.form.size() > 0) {
            gradient = same_form(p, gradient);
            bound.gradients = gradient_memory(x, gradient);
          }
          held_.push_back(std::move(gradient));
        }
        if (x.round == round_)
          fail("parameter " + x.name + " occurs twice in the groups; expected each parameter once");
        if (x.group != g)
          move(x, g);
        if (bound.parameters != x.bound.parameters || bound.gradients != x.bound.gradients)
          moved.emplace_back(next, bound);
        x.round = round_;
        ++seen;
        ++next;
      }
    }
    if (unknown.size() > 0)
      return unknown;
    for (std::size_t k = 0; seen < tensors_.size() && k < tensors_.size(); ++k)  // those that are in no group any more
      if (tensors_[k].round != round_ && tensors_[k].bound.gradients)
        moved.emplace_back(k, binding{tensors_[k].bound.parameters, nullptr});
    if (captures && !moved.empty())
      fail("parameter " + tensors_[moved[0].first].name +
           " or its gradient has other memory than in the step before, which a graph cannot capture; expected the same "
           "memory (zero_grad(set_to_none=False)), and a step before the capture");
    if (!moved.empty())
      rebind_all(moved);
    if (!steps)
      return nb::none();
    const step_report report = [&] {
      const nb::gil_scoped_release other_threads_run;
      return self_->visit([&](auto& x) { return x.step(o); });
    }();
    return nb::cast(report);
  }

  // The tensors' numbers beside their slots: "step", and those that the recipe has.
  nb::dict numbers() const
  {
    const in_use now(*this);
    nb::dict all;
    self_->visit([&](const auto& o) {
      nb::dict of_tensor;
      std::string_view before;
      bool after_slots = false;
      o.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<const X> values) {
        if (std::exchange(before, name) != name)
          after_slots = false;
        if (!name.empty() && std::is_same_v<X, std::uint64_t>) {
          after_slots = true;
          of_tensor = nb::dict();
          all[text(name)] = of_tensor;
        }
        if constexpr (std::is_same_v<X, std::uint64_t> || std::is_same_v<X, double>)
          if (after_slots)
            of_tensor[text(key)] = values[0];
      });
    });
    return all;
  }
  // Sets them for tensors by name, after their slots were written. Numbers that are not given stay; a sum of second
  // moments that is not given is computed anew.
  void set_numbers(const std::map<std::string, std::map<std::string, double>>& given)
  {
    const in_use now(*this);
    self_->visit([&](auto& o) {
      bool after_slots = false, sums = false;
      o.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<X> values) {
        const auto wanted = given.find(std::string(name));
        after_slots = wanted != given.end() && (after_slots || std::is_same_v<X, std::uint64_t>);
        if constexpr (std::is_same_v<X, std::uint64_t> || std::is_same_v<X, double>)
          if (after_slots) {
            const auto number = wanted->second.find(std::string(key));
            sums = sums || (key == "exp_avg_sq_sum" && number == wanted->second.end());
            if (number != wanted->second.end())
              values[0] = X(number->second);
          }
      });
      if (sums)
        o.recompute_second_moment_sum();
    });
  }

  // ── checkpoints

  void save(const std::string& path, const save_options& o) const
  {
    const in_use now(*this);
    const nb::gil_scoped_release other_threads_run;
    self_->visit([&](const auto& x) { gradus::save(x, path, o); });
  }
  load_report load(const std::string& path, const load_options& o)
  {
    const in_use now(*this);
    const nb::gil_scoped_release other_threads_run;
    return self_->visit([&](auto& x) { return gradus::load(x, path, o); });
  }
  nb::bytes dumps(const save_options& o) const
  {
    const in_use now(*this);
    std::string all;
    self_->visit([&](const auto& x) {
      gradus::save_to(
          x, [&](const void* bytes, std::size_t n) { return all.append(static_cast<const char*>(bytes), n), true; }, o);
    });
    return nb::bytes(all.data(), all.size());
  }
  load_report loads(const nb::bytes& data, const load_options& o)
  {
    const in_use now(*this);
    const std::span bytes(static_cast<const std::byte*>(data.data()), data.size());
    return self_->visit([&](auto& x) { return gradus::load_from(x, bytes, o); });
  }

  // ── pickling, by way of a checkpoint

  nb::tuple pickled() const
  {
    nb::list groups, tensors;
    for (std::size_t g = 0; g < group_count(); ++g)
      groups.append(hyperparameters(g));
    for (const tensor& x : tensors_)
      tensors.append(nb::make_tuple(x.name, x.parameters.given, x.gradients ? x.gradients->given : nb::none(),
                                    x.group));
    return nb::make_tuple(recipe_, threads_, groups, tensors, dumps({}));
  }
  static void unpickle(optimizer* place, const nb::tuple& from)
  {
    constexpr const char* what = "the state is not what a pickled optimizer has; expected what __getstate__ returns";
    if (from.size() != 5)
      fail(what);
    bool made = false;
    try {
      const auto groups = nb::cast<nb::list>(from[2]), tensors = nb::cast<nb::list>(from[3]);
      if (groups.size() == 0)
        fail(what);
      const auto numbers_at = [&](std::size_t g) {
        return numbers_of(nb::borrow<nb::kwargs>(nb::cast<nb::dict>(groups[g])));
      };
      new (place) optimizer(nb::cast<std::string>(from[0]), nb::cast<unsigned>(from[1]), 0, numbers_at(0));
      made = true;
      for (std::size_t g = 1; g < groups.size(); ++g)
        place->add_group(numbers_at(g));
      for (const nb::handle t : tensors) {
        if (nb::len(t) != 4)
          fail(what);
        place->add(nb::cast<std::string>(t[0]), t[1], t[2], nb::cast<std::size_t>(t[3]));
      }
      place->loads(nb::cast<nb::bytes>(from[4]), {});
    } catch (...) {
      if (made)
        place->~optimizer();
      try {
        throw;
      } catch (const std::bad_cast&) {
        fail(what);
      }
    }
  }

  // ── cycles, such as a parameter with the optimizer as an attribute

  int traverse(visitproc visit, void* arg) const
  {
    for (const tensor& x : tensors_) {
      Py_VISIT(x.parameters.given.ptr());
      if (x.gradients)
        Py_VISIT(x.gradients->given.ptr());
    }
    return 0;
  }
  void clear() noexcept
  {
    if (views_ > 0)
      return;
    try {
      const on_its_device there(*self_);
      for (const tensor& x : tensors_)
        self_->visit([&](auto& o) { o.remove(x.handle, removed_state::dropped); });
    } catch (...) {
      return;  // a device that does not answer any more
    }
    parameters_.clear();
    places_.clear();
    const std::vector<tensor> cleared = std::move(tensors_);  // released after all is in place
    tensors_.clear();
  }

  std::string repr() const
  {
    std::string all = "gradus.Optimizer(" + quote(recipe_);
    for (const auto& [name, value] : hyperparameters(0))
      all += ", " + nb::cast<std::string>(name) + "=" + nb::cast<std::string>(nb::repr(value));
    return all + ", threads=" + std::to_string(threads_) + ") of " + std::to_string(tensors_.size()) + " tensors, " +
           std::to_string(parameter_count()) + " parameters" + (has_dtype_ ? std::string(" in ") + *dtype() : "") +
           (at_.type == cpu ? "" : " on " + name_of(at_));
  }

 private:
  struct binding {
    void* parameters = nullptr;
    const void* gradients = nullptr;
  };
  struct tensor {
    std::string name;
    tensor_handle handle;
    std::size_t group = 0;
    array parameters;
    std::optional<array> gradients;
    binding bound;            // of step_parameters
    std::uint64_t round = 0;  // the last call of step_parameters that saw it
  };

  // Refuses a call that meets another thread's, or that comes from code which a call runs. Makes the device current.
  class in_use {
    struct claim {
      std::atomic<bool>& busy;
      explicit claim(std::atomic<bool>& b) : busy(b)
      {
        if (busy.exchange(true, std::memory_order_acquire))
          throw std::runtime_error("gradus: the optimizer is in use by another thread; expected one call at a time");
      }
      claim(const claim&) = delete;
      ~claim() { busy.store(false, std::memory_order_release); }
    };

   public:
    explicit in_use(const optimizer& o) : claim_(o.busy_), there_(*o.self_) {}

   private:
    claim claim_;
    on_its_device there_;
  };
  struct destroyer {
    void operator()(gradus_optimizer* o) const noexcept { gradus_destroy(o); }
  };

  // The slots of one tensor, or of all, by the tensors' names.
  nb::dict slots(nb::handle myself, const std::string* only)
  {
    nb::dict all, of_tensor;
    const nb::object owner = lease(myself);
    const tensor* x = nullptr;
    std::vector<std::size_t> shape;
    for (const tensor& t : tensors_)
      if (!only || t.name == *only)
        all[t.name.c_str()] = nb::dict();
    const auto show = [&]<class X>(std::string_view name, std::string_view key, std::span<X> values) {
      if (!x || x->name != name) {
        x = &at(std::string(name));
        shape.assign(x->parameters.form.shape.begin(), x->parameters.form.shape.end());
        of_tensor = nb::dict(all[x->name.c_str()]);
      }
      const layout& form = x->parameters.form;
      if (at_.type == cpu) {
        of_tensor[text(key)] =
            nb::ndarray<nb::numpy, X>(values.data(), shape.size(), shape.data(), owner, form.strides.data()).cast();
        return;
      }
      device_array a{{},           nb::borrow(myself), at_, form, sizeof(X) == 8 ? GRADUS_FLOAT64 : GRADUS_FLOAT32,
                     values.data()};
      a.shown = nb::ndarray<nb::array_api, X>(values.data(), shape.size(), shape.data(), owner, form.strides.data(),
                                              nb::dtype<X>(), at_.type, at_.number)
                    .cast();
      of_tensor[text(key)] = nb::cast(std::move(a));
    };
    self_->visit([&](auto& o) {
      std::vector<std::pair<std::string, std::string>> on_device;  // the visit shows copies of these
      c::for_each_slot(std::as_const(o),
                       [&]<class X>(std::string_view name, std::string_view key, std::span<const X> values) {
                         if (only && name != *only)
                           return;
                         if (at_.type == cpu)
                           show(name, key, std::span(const_cast<X*>(values.data()), values.size()));
                         else
                           on_device.emplace_back(name, key);
                       });
      for (const auto& [name, key] : on_device)
        show(name, key, o.state(name, key));
    });
    return all;
  }

  // Counts the arrays of state() while they live, in whose memory they are.
  nb::object lease(nb::handle myself)
  {
    struct held {
      nb::object owner;
      std::size_t& views;
      held(nb::handle o, std::size_t& v) : owner(nb::borrow(o)), views(v) { ++views; }
      ~held() { --views; }
    };
    return nb::capsule(new held(myself, views_), [](void* p) noexcept { delete static_cast<held*>(p); });
  }

  gradus_dtype current_dtype() const noexcept { return gradus_dtype(self_->self.index() % 4); }

  // Makes the optimizer anew in another precision, or on another device; there are no tensors yet.
  void choose(gradus_dtype dtype, const location& at)
  {
    if (current_dtype() == dtype && at_ == at && at.type == cpu)
      return;
    self_->visit([&](const auto& o) {
      std::unique_ptr<gradus_optimizer, destroyer> next;
#if defined(GRADUS_C_CUDA)
      std::optional<c::place::visit> there;
      if (at.type == cuda) {
        there.emplace(c::place(at.number));
        next.reset(new gradus_optimizer(recipe_, o.hyperparameters(), dtype, reinterpret_cast<c::stream>(stream_)));
      } else
#endif
        next.reset(new gradus_optimizer(recipe_, o.hyperparameters(), dtype));
      for (std::size_t g = 1; g < o.group_count(); ++g)
        next->visit([&](auto& n) { n.add_group(o.hyperparameters(o.group_at(g))); });
      next->executor.set_threads(threads_);
      std::swap(self_, next);
    });
    at_ = at;
  }
  void check_dtype(const std::string& name, const array& p) const
  {
    if (p.at != at_)
      fail("parameters of tensor " + quote(name) + " are on " + name_of(p.at) + "; expected " + name_of(at_) +
           ", as the first tensor's");
    if (p.dtype != current_dtype())
      fail("parameters of tensor " + quote(name) + " are " + name_of(p.dtype) + "; expected " +
           name_of(current_dtype()) + ", as the first tensor's");
  }
  std::optional<array> import_gradients(const std::string& name, const array& p, nb::object gradients) const
  {
    if (gradients.is_none())
      return std::nullopt;
    array g = import_array(std::move(gradients), "gradients", name, false, stream_);
    const auto of = [&] { return "gradients of tensor " + quote(name); };
    if (g.at != p.at)
      fail(of() + " are on " + name_of(g.at) + "; expected " + name_of(p.at) + ", as its parameters");
    if (g.dtype != p.dtype)
      fail(of() + " are " + name_of(g.dtype) + "; expected " + name_of(p.dtype) + ", as its parameters");
    if (g.form.shape != p.form.shape)
      fail(of() + " have shape " + g.form.text() + "; expected " + p.form.text() + ", as its parameters");
    if (!g.form.matches(p.form))
      fail(of() + " have another order of dimensions in memory than its parameters; expected the same");
    return g;
  }

  // ── the parts of step_parameters

  // Whether a tensor looks as the parameter x did when it was added.
  bool fits(const tensor& x, const nb::dlpack::dltensor& t) const noexcept
  {
    return location(t.device) == at_ && dtype_of(t.dtype) == current_dtype() &&
           x.parameters.form.matches(t.ndim, t.shape, t.strides);
  }
  static void* memory_of(const nb::dlpack::dltensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }

  // Where a gradient lies. Null if it is sparse, has another order of dimensions, or is otherwise not for this parameter.
  void* gradient_memory(const tensor& x, nb::handle gradient)
  {
    try {
      const nb::dlpack::dltensor t = gradient_viewer_.view(gradient);
      return fits(x, t) ? memory_of(t) : nullptr;
    } catch (nb::python_error&) {
      return nullptr;
    } catch (const std::bad_cast&) {
      return nullptr;
    }
  }
  void* parameter_memory(const tensor& x, nb::handle parameter)
  {
    const nb::dlpack::dltensor t = parameter_viewer_.view(parameter);
    if (fits(x, t))
      return memory_of(t);
    const std::string of = "parameter " + x.name;
    if (location(t.device) != at_)
      fail(of + " is on " + name_of(location(t.device)) + "; expected " + name_of(at_) + ", as its state was made for");
    if (dtype_of(t.dtype) != current_dtype())
      fail(of + " is " + name_of(t.dtype) + "; expected " + name_of(current_dtype()) + ", as its state was made for");
    fail(of + " has shape " + layout(t.ndim, t.shape, t.strides).text() + "; expected " + x.parameters.form.text() +
         " in the order of dimensions that its state was made for");
  }
  void rebind_all(const std::vector<std::pair<std::size_t, binding>>& moved)
  {
    self_->visit([&]<class Opt>(Opt& o) {
      std::vector<typename Opt::rebinding> all;
      for (const auto& [k, to] : moved) {
        const std::size_t n = tensors_[k].parameters.form.size();
        all.push_back({tensors_[k].handle, c::parameters_at<Opt>(to.parameters, n),
                       c::gradients_at<Opt>(to.gradients, n)});
      }
      o.rebind_spans(all);
    });
    for (const auto& [k, to] : moved)
      tensors_[k].bound = to;
  }
  // Moves a tensor to another group; its state stays.
  void move(tensor& x, std::size_t group)
  {
    self_->visit([&]<class Opt>(Opt& o) {
      const auto g = c::group_at(o, group);
      o.remove(x.handle, removed_state::kept);
      x.handle = o.add_spans(x.name, c::parameters_at<Opt>(x.bound.parameters, x.parameters.form.size()), std::nullopt,
                             g);
    });
    x.group = group;
    x.bound.gradients = nullptr;
  }

  tensor& at(const std::string& name)
  {
    const auto found = places_.find(name);
    if (found == places_.end())
      fail("tensor is " + quote(name) + "; expected the name of one that was added");
    return tensors_[found->second];
  }
  const tensor& at(const std::string& name) const { return const_cast<optimizer&>(*this).at(name); }

  std::string recipe_;
  unsigned threads_ = 1;
  bool has_dtype_ = false;  // whether there has been an array, which decides the precision and the device
  location at_;
  std::uintptr_t stream_ = 0;
  std::unique_ptr<gradus_optimizer, destroyer> self_;
  std::vector<tensor> tensors_;
  std::unordered_map<std::string, std::size_t> places_;    // in tensors_, by names
  std::unordered_map<PyObject*, std::size_t> parameters_;  // in tensors_, of add_parameter
  std::size_t views_ = 0;
  std::uint64_t round_ = 0;                           // of step_parameters
  std::vector<nb::object> held_;                      // gradients, during a step
  tensor_viewer parameter_viewer_, gradient_viewer_;  // one each, because the classes differ
  nb::str grad_ = nb::str("grad");
  mutable std::atomic<bool> busy_ = false;
};

// ── what Python sees ───────────────────────────────────────────────────────────────────────────────────────────────

std::string path_of(nb::handle path)
{
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &bytes))
    throw nb::python_error();
  const auto owned = nb::steal<nb::bytes>(bytes);
  return {owned.c_str(), owned.size()};
}

save_options save_options_of(bool parameters, const nb::dict& metadata)
{
  save_options o{.parameters = parameters};
  const auto string_of = [](nb::handle x) {
    if (!nb::isinstance<nb::str>(x))
      throw nb::type_error(
          ("gradus: metadata has " + nb::cast<std::string>(nb::repr(x)) + "; expected strings for strings").c_str());
    return nb::cast<std::string>(x);
  };
  for (const auto& [key, value] : metadata)
    o.metadata.emplace_back(string_of(key), string_of(value));
  return o;
}

step_options step_options_of(double lr_scale, std::optional<double> lr, double decay_scale, double grad_scale,
                             std::optional<double> max_grad_norm, std::optional<double> grad_norm_sq,
                             bool skip_nonfinite, bool flush_denormals, bool maximize)
{
  return {.lr_scale = lr_scale,
          .lr = lr,
          .decay_scale = decay_scale,
          .grad_scale = grad_scale,
          .max_grad_norm = max_grad_norm,
          .grad_norm_sq = grad_norm_sq,
          .skip_nonfinite = skip_nonfinite,
          .flush_denormals = flush_denormals,
          .maximize = maximize};
}

int traverse(PyObject* self, visitproc visit, void* arg)
{
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<optimizer>(self)->traverse(visit, arg) : 0;
}
int clear(PyObject* self)
{
  if (nb::inst_ready(self))
    nb::inst_ptr<optimizer>(self)->clear();
  return 0;
}
PyType_Slot cycles[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                        {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                        {0, nullptr}};

std::string repr_of(const step_report& r)
{
  const auto number = [](const std::optional<double>& x) {
    return x ? nb::cast<std::string>(nb::repr(nb::float_(*x))) : "None";
  };
  const auto yes = [](bool b) { return b ? "True" : "False"; };
  return std::string("StepReport(applied=") + yes(r.applied) + ", grad_norm=" + number(r.grad_norm) +
         ", mean_square=" + number(r.mean_square) + ", decay_factor=" + number(r.decay_factor) +
         ", decay_clamped=" + yes(r.decay_clamped) + (r.pending ? ", pending=True" : "") + ")";
}

}  // namespace gradus::python

NB_MODULE(_gradus, m)
{
  using namespace gradus::python;
  using gradus::step_report, gradus::load_report, gradus::load_options;
  using nb::literals::operator""_a;

  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const gradus::io_error& e) {
      PyErr_SetString(PyExc_OSError, e.what());
    }
  });

  // What the program itself keeps alive in a cycle at its end, such as a parameter's hook that steps, is no news to it.
  nb::set_leak_warnings(false);

  m.doc() = "The compiled part of gradus.";
  m.attr("version") = gradus_version();
  m.attr("has_cuda") = has_cuda;
  m.def("recipes", &recipes, nb::sig("def recipes() -> dict[str, dict[str, float]]"),
        "The recipes by their names, each with its hyperparameters and their defaults; a switch's default is a bool.");
  m.def(
      "instruction_set", [] { return std::string(gradus::backend::dispatch().name()); },
      "The instruction set that steps use: \"baseline\", \"avx2_fma\", \"avx512\" or \"neon\".");

  nb::class_<step_report>(m, "StepReport", "What a step did. Numbers that were not computed are None.")
      .def_ro("applied", &step_report::applied, "False if skip_nonfinite skipped the step.")
      .def_ro(
          "grad_norm", &step_report::grad_norm,
          "The norm of all gradients after grad_scale and before clipping, if max_grad_norm or the recipe needs it.")
      .def_ro("mean_square", &step_report::mean_square,
              "The mean of the second moments over the whole model, with a scheduled weight decay.")
      .def_ro("decay_factor", &step_report::decay_factor, "The factor of a scheduled weight decay.")
      .def_ro("decay_clamped", &step_report::decay_clamped,
              "Whether a scheduled decay's rate exceeded 1 and was lowered to 1.")
      .def_ro("pending", &step_report::pending,
              "True if the step was only enqueued on a device, and nothing else is known yet; report() waits for it.")
      .def("__repr__", &repr_of);

  nb::class_<device_array>(m, "DeviceArray",
                           R"(A view of state in a device's memory, as Optimizer.state gives it.

torch.from_dlpack, cupy.from_dlpack and others make arrays of it, without a copy. Writes through them change the state.)")
      .def_prop_ro("shape", &device_array::shape, nb::sig("def shape(self) -> tuple[int, ...]"), "The extents.")
      .def_prop_ro(
          "dtype", [](const device_array& a) { return std::string(name_of(a.dtype)); }, "\"float32\" or \"float64\".")
      .def_prop_ro("__cuda_array_interface__", &device_array::cuda_interface,
                   nb::sig("def __cuda_array_interface__(self) -> dict[str, typing.Any]"))
      .def("__dlpack__", &device_array::dlpack, nb::sig("def __dlpack__(self, **options: typing.Any) -> typing.Any"))
      .def(
          "__dlpack_device__", [](const device_array& a) { return nb::make_tuple(a.at.type, a.at.number); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"))
      .def("__repr__", &device_array::repr);

  nb::class_<load_report>(m, "LoadReport", "What a load did.")
      .def_prop_ro(
          "differences",
          [](const load_report& r) {
            nb::list all;
            for (const auto& d : r.differences)
              all.append(d.sentence);
            return all;
          },
          nb::sig("def differences(self) -> list[str]"),
          "A sentence for each difference between the checkpoint and the optimizer; none after a strict load.")
      .def_prop_ro(
          "afresh",
          [](const load_report& r) {
            nb::list all;
            for (const auto& name : r.afresh)
              all.append(name);
            return all;
          },
          nb::sig("def afresh(self) -> list[str]"), "The tensors and slots (\"name/slot\") whose state was not loaded.")
      .def_ro("parameters", &load_report::parameters, "Whether parameters were loaded.")
      .def_ro("settings", &load_report::settings, "Whether hyperparameters and frozen tensors were loaded.")
      .def_prop_ro(
          "metadata",
          [](const load_report& r) {
            nb::dict all;
            for (const auto& [key, value] : r.metadata)
              all[text(key)] = text(value);
            return all;
          },
          nb::sig("def metadata(self) -> dict[str, str]"), "The strings that were given to save.");

  nb::class_<optimizer>(m, "Optimizer", nb::is_weak_referenceable(), nb::type_slots(cycles),
                        R"(An optimizer by the name of its recipe, over arrays of the caller's.

    opt = gradus.Optimizer("adamw", lr=1e-3, weight_decay=0.01)
    opt.add("w", w, dw)
    while training:
        compute(w, dw)
        opt.step()

Arrays are viewed, never copied, and kept alive while they are bound. They may be NumPy's, or anything else on the CPU
that DLPack can view, such as PyTorch's; all of one dtype: float32, float64, bfloat16 or float16. 16-bit parameters have
master weights in float32, the state "master". A package that was built with CUDA (gradus.has_cuda) also takes arrays of
one CUDA device, by DLPack or __cuda_array_interface__. Their steps are enqueued on a stream.

recipe   one of gradus.recipes()
threads  runs steps of more than 262144 parameters on this many threads; 0: as many as the machine has. The results have
         the same bits. Without effect on a device
stream   the CUDA stream that steps are enqueued on: its address, or a stream of PyTorch or CuPy, which has to live as
         long; None: the default stream
numbers  hyperparameters that replace the recipe's defaults

Every method checks its arguments, and raises ValueError (TypeError for an object of another kind) with a sentence that
names the argument, its value and what was expected; the optimizer is then as before. A call that meets another
thread's raises RuntimeError. Pickling goes by way of a checkpoint; the arrays are pickled with it.)")
      .def(
          "__init__",
          [](optimizer* place, const std::string& recipe, unsigned threads, nb::handle stream,
             const nb::kwargs& given) { new (place) optimizer(recipe, threads, stream_of(stream), numbers_of(given)); },
          "recipe"_a, nb::kw_only(), "threads"_a = 1, "stream"_a = nb::none(), "numbers"_a,
          nb::sig(
              "def __init__(self, recipe: str, *, threads: int = 1, stream: typing.Any = None, **numbers: float) -> "
              "None"))
      .def_prop_ro("recipe", &optimizer::recipe, "The name of the recipe.")
      .def_prop_ro("dtype", &optimizer::dtype,
                   "\"float32\", \"float64\", \"bfloat16\" or \"float16\", the first array's; None before that.")
      .def_prop_ro("device", &optimizer::device, "\"cpu\", or such as \"cuda:0\"; None before the first array.")
      .def_prop_rw(
          "stream", &optimizer::stream, [](optimizer& o, nb::handle stream) { o.set_stream(stream_of(stream)); },
          nb::for_getter(nb::sig("def stream(self) -> int")),
          nb::for_setter(nb::sig("def stream(self, stream: typing.Any, /) -> None")),
          R"(The address of the CUDA stream that steps are enqueued on.

Another stream is used from the next call on, and does not wait for what was enqueued on the one before.)")
      .def_prop_rw("threads", &optimizer::threads, &optimizer::set_threads, "The number of threads.")
      .def_prop_ro("parameter_count", &optimizer::parameter_count, "The number of parameters in all tensors.")
      .def_prop_ro("state_bytes", &optimizer::state_bytes, "The bytes of state of all tensors.")
      .def_prop_ro("group_count", &optimizer::group_count, "The number of groups, the default group 0 included.")
      .def("__len__", &optimizer::size, "The number of tensors.")
      .def("__repr__", &optimizer::repr)
      .def("names", &optimizer::names, nb::sig("def names(self) -> list[str]"), "The tensors' names.")
      .def(
          "add_group", [](optimizer& o, const nb::kwargs& given) { return o.add_group(numbers_of(given)); },
          nb::sig("def add_group(self, **numbers: float) -> int"),
          "Adds a group with group 0's hyperparameters except those that are named. Returns its number, for add.")
      .def("hyperparameters", &optimizer::hyperparameters, "group"_a = 0,
           nb::sig("def hyperparameters(self, group: int = 0) -> dict[str, float]"), "A group's hyperparameters.")
      .def(
          "set_hyperparameters",
          [](optimizer& o, std::size_t group, const nb::kwargs& given) {
            o.set_hyperparameters(group, numbers_of(given));
          },
          "group"_a = 0, "numbers"_a,
          nb::sig("def set_hyperparameters(self, group: int = 0, **numbers: float) -> None"),
          R"(Changes hyperparameters of a group from the next step on; those that are not named stay.

A momentum of 0 keeps no buffers; while arrays from state() live, lowering it to 0 raises BufferError.)")
      .def(
          "add", &optimizer::add, "name"_a, "parameters"_a.none(), "gradients"_a = nb::none(), nb::kw_only(),
          "group"_a = 0,
          nb::sig("def add(self, name: str, parameters: gradus.SupportsDLPack | gradus.SupportsCudaArrayInterface, "
                  "gradients: gradus.SupportsDLPack | gradus.SupportsCudaArrayInterface | None = None, *, group: int = "
                  "0) -> None"),
          R"(Adds a tensor.

name        unlike all other tensors', for checkpoints and state()
parameters  of any shape, contiguous and writable; steps change it
gradients   of the same shape and dtype; None: the tensor is frozen until it is rebound with gradients. Tensors may share
            gradients, but no parameters
group       0, or a number from add_group

Raises TypeError for what is no array, and ValueError for one that is read-only, not contiguous, on another device, or of
another dtype or shape.)")
      .def("rebind", &optimizer::rebind, "name"_a, "parameters"_a.none(), "gradients"_a = nb::none(),
           nb::sig("def rebind(self, name: str, parameters: gradus.SupportsDLPack | gradus.SupportsCudaArrayInterface, "
                   "gradients: gradus.SupportsDLPack | gradus.SupportsCudaArrayInterface | None = None) -> None"),
           R"(Points a tensor at other arrays of the same shape and dtype; its state stays.

gradients  None: the tensor is frozen until it is rebound with gradients)")
      .def("freeze", &optimizer::freeze, "name"_a,
           "Lets steps skip a tensor; weights, state and step count stay as they are.")
      .def("unfreeze", &optimizer::unfreeze, "name"_a, "Lets a frozen tensor take part in steps again.")
      .def("remove", &optimizer::remove, "name"_a,
           "Removes a tensor and its state. Raises BufferError while arrays from state() live.")
      .def("reset_master", &optimizer::reset_master, "name"_a,
           "Reads 16-bit parameters into their master weights, after other code has changed them.")
      .def("copy_average", &optimizer::copy_average, "name"_a, "to"_a,
           R"(Writes the weights that the recipe averages, for schedule_free_adamw those to evaluate and to keep.

to  an array of the parameters' shape and dtype; may be the parameters themselves
Raises ValueError for a recipe that averages no weights.)")
      .def("step_count", &optimizer::step_count, "name"_a, "The number of steps that a tensor has taken.")
      .def(
          "state",
          [](nb::handle self, const std::string& name) { return nb::cast<optimizer&>(self).state(self, name); },
          "name"_a, nb::sig("def state(self, name: str) -> dict[str, typing.Any]"),
          R"(A tensor's state by slots, such as "exp_avg": arrays of the parameters' shape that view it.

They are NumPy's, and gradus.DeviceArray on a device; float64 for float64, and otherwise float32. Writes through them
change the state.)")
      .def(
          "step",
          [](optimizer& o, double lr_scale, std::optional<double> lr, double decay_scale, double grad_scale,
             std::optional<double> max_grad_norm, std::optional<double> grad_norm_sq, bool skip_nonfinite,
             bool flush_denormals, bool maximize) {
            return o.step(step_options_of(lr_scale, lr, decay_scale, grad_scale, max_grad_norm, grad_norm_sq,
                                          skip_nonfinite, flush_denormals, maximize));
          },
          nb::kw_only(), "lr_scale"_a = 1.0, "lr"_a = nb::none(), "decay_scale"_a = 1.0, "grad_scale"_a = 1.0,
          "max_grad_norm"_a = nb::none(), "grad_norm_sq"_a = nb::none(), "skip_nonfinite"_a = false,
          "flush_denormals"_a = false, "maximize"_a = false,
          R"(Takes one step with all tensors that are not frozen. Other Python threads run meanwhile.

On a device the step is enqueued on the stream, and its report is pending.

lr_scale         >= 0; a schedule's factor on the learning rate
lr               >= 0; a learning rate in place of every group's; lr_scale must then be 1
decay_scale      >= 0; a schedule's factor on the weight decay
grad_scale       > 0; factor on every gradient, such as 1/loss scale
max_grad_norm    > 0; clips the norm of all scaled gradients to this; infinity only measures it
grad_norm_sq     the sum of squares of all gradients before grad_scale, if known; saves the pass that computes it
skip_nonfinite   changes nothing if a gradient is infinite or NaN, or if a weight would become so
flush_denormals  treats denormal numbers as zeros
maximize         ascends

Raises ValueError for a number out of range.)")
      .def("report", &optimizer::report, "The last step's report. Waits for a device.")
      .def(
          "set_options",
          [](optimizer& o, double lr_scale, std::optional<double> lr, double decay_scale, double grad_scale,
             std::optional<double> max_grad_norm, std::optional<double> grad_norm_sq, bool skip_nonfinite,
             bool flush_denormals, bool maximize) {
            o.set_options(step_options_of(lr_scale, lr, decay_scale, grad_scale, max_grad_norm, grad_norm_sq,
                                          skip_nonfinite, flush_denormals, maximize));
          },
          nb::kw_only(), "lr_scale"_a = 1.0, "lr"_a = nb::none(), "decay_scale"_a = 1.0, "grad_scale"_a = 1.0,
          "max_grad_norm"_a = nb::none(), "grad_norm_sq"_a = nb::none(), "skip_nonfinite"_a = false,
          "flush_denormals"_a = false, "maximize"_a = false,
          R"(Sets the options of later replays of a CUDA graph of step, in the order of the stream.

The options are those of step. Raises ValueError for an optimizer on the CPU.)")
      .def(
          "_step_parameters",
          [](optimizer& o, const nb::list& groups, const nb::callable& same_form, double grad_scale,
             std::optional<double> max_grad_norm, bool skip_nonfinite, bool maximize, bool steps, bool captures) {
            return o.step_parameters(groups, same_form,
                                     {.grad_scale = grad_scale,
                                      .max_grad_norm = max_grad_norm,
                                      .skip_nonfinite = skip_nonfinite,
                                      .maximize = maximize},
                                     steps, captures);
          },
          nb::sig(
              "def _step_parameters(self, groups: list[list[typing.Any]], same_form: typing.Any, grad_scale: float, "
              "max_grad_norm: float | None, skip_nonfinite: bool, maximize: bool, steps: bool, captures: bool) -> "
              "StepReport | "
              "list[tuple[typing.Any, int]] | None"),
          "groups"_a, "same_form"_a, "grad_scale"_a, "max_grad_norm"_a.none(), "skip_nonfinite"_a, "maximize"_a,
          "steps"_a, "captures"_a)
      .def("_add_parameter", &optimizer::add_parameter, "name"_a, "parameter"_a, "group"_a,
           nb::sig("def _add_parameter(self, name: str, parameter: typing.Any, group: int) -> None"))
      .def(
          "_slots", [](nb::handle self) { return nb::cast<optimizer&>(self).states(self); },
          nb::sig("def _slots(self) -> dict[str, dict[str, typing.Any]]"))
      .def("_numbers", &optimizer::numbers, nb::sig("def _numbers(self) -> dict[str, dict[str, float]]"))
      .def("_set_numbers", &optimizer::set_numbers, "numbers"_a,
           nb::sig("def _set_numbers(self, numbers: dict[str, dict[str, float]]) -> None"))
      .def(
          "save",
          [](const optimizer& o, nb::handle path, bool parameters, const nb::dict& metadata) {
            o.save(path_of(path), save_options_of(parameters, metadata));
          },
          "path"_a, nb::kw_only(), "parameters"_a = false, "metadata"_a = nb::dict(),
          nb::sig(
              "def save(self, path: str | os.PathLike[str], *, parameters: bool = False, metadata: dict[str, str] = "
              "{}) -> None"),
          R"(Saves to a safetensors file, which is replaced as a whole or not at all; C and C++ read and write the same.

parameters  also the parameters
metadata    strings of your own, such as the epoch

Raises OSError for a path that cannot be written.)")
      .def(
          "load",
          [](optimizer& o, nb::handle path, std::optional<bool> parameters, bool settings, bool lenient, bool convert) {
            return o.load(path_of(path), {parameters, settings, lenient, convert});
          },
          "path"_a, nb::kw_only(), "parameters"_a = nb::none(), "settings"_a = true, "lenient"_a = false,
          "convert"_a = false,
          nb::sig("def load(self, path: str | os.PathLike[str], *, parameters: bool | None = None, settings: bool = "
                  "True, lenient: bool = False, convert: bool = False) -> LoadReport"),
          R"(Loads a checkpoint into the tensors that have been added, by their names.

parameters  True: also the parameters; False: not; None: if the checkpoint has them
settings    also hyperparameters, and which tensors are frozen
lenient     loads what fits, instead of refusing a checkpoint that does not fit in everything
convert     also accepts numbers of another precision, rounded to nearest

Raises OSError for a file that cannot be read, and ValueError for one that is damaged or does not fit; nothing has then
changed.)")
      .def(
          "dumps",
          [](const optimizer& o, bool parameters, const nb::dict& metadata) {
            return o.dumps(save_options_of(parameters, metadata));
          },
          nb::kw_only(), "parameters"_a = false, "metadata"_a = nb::dict(),
          nb::sig("def dumps(self, *, parameters: bool = False, metadata: dict[str, str] = {}) -> bytes"),
          "Returns what save writes.")
      .def(
          "loads",
          [](optimizer& o, const nb::bytes& data, std::optional<bool> parameters, bool settings, bool lenient,
             bool convert) { return o.loads(data, {parameters, settings, lenient, convert}); },
          "data"_a, nb::kw_only(), "parameters"_a = nb::none(), "settings"_a = true, "lenient"_a = false,
          "convert"_a = false, "Loads what dumps returned, or the bytes of a file, as load does.")
      .def("__getstate__", &optimizer::pickled, nb::sig("def __getstate__(self) -> tuple[object, ...]"))
      .def("__setstate__", &optimizer::unpickle, nb::sig("def __setstate__(self, state: tuple[object, ...]) -> None"));
}
