#pragma once
/// \file
/// The tensors of an optimizer: names, handles, state, and the memory that they view, checked for overlap. Does no
/// arithmetic.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gradus/optimizer/handles.hpp>
#include <gradus/optimizer/model.hpp>
#include <gradus/optimizer/tables.hpp>
#include <gradus/optimizer/views.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A tensor and its new memory. Without gradients, steps skip the tensor until some are bound.
template <class Parameters, class Gradients>
struct rebinding {
  tensor_handle tensor;                ///< from `add`
  Parameters parameters;               ///< as many elements as the tensor has
  std::optional<Gradients> gradients;  ///< as many elements, or nothing
};

/// An address range.
struct place {
  std::uintptr_t begin = 0, end = 0;
};
template <class X>
place place_of(std::span<X> x) noexcept
{
  const auto begin = reinterpret_cast<std::uintptr_t>(x.data());
  return {begin, begin + x.size_bytes()};
}
template <class X>
place place_of(const std::optional<std::span<X>>& x) noexcept
{
  return x ? place_of(*x) : place{};
}

/// The list of tensors, their names, and the memory that they view.
template <class Model>
class tensor_table {
 public:
  using tensor = typename Model::tensor;
  using parameters_span = typename Model::parameters_span;
  using gradients_span = typename Model::gradients_span;
  using optional_gradients = std::optional<gradients_span>;
  using rebinding_type = rebinding<parameters_span, gradients_span>;

  std::vector<tensor>& all() noexcept { return tensors_; }  ///< including free places
  const std::vector<tensor>& all() const noexcept { return tensors_; }
  tensor& operator[](std::size_t i) noexcept { return tensors_[i]; }
  const tensor& operator[](std::size_t i) const noexcept { return tensors_[i]; }

  std::size_t attached() const noexcept { return attached_; }  ///< the number of tensors, without removed ones
  std::size_t elements() const noexcept { return elements_; }  ///< of attached tensors
  std::size_t pages() const noexcept { return pages_; }        ///< of attached tensors

  /// The index of the tensor with this name, or no_place.
  std::size_t find(std::string_view name) const
  {
    const auto known = names_.find(std::string(name));
    return known == names_.end() ? no_place : known->second;
  }
  /// Whether the handle's tensor is in the table and not removed.
  bool has(const handle_key& key) const noexcept
  {
    return key.index < tensors_.size() && tensors_[key.index].generation == key.generation &&
           tensors_[key.index].attached;
  }

  /// The name for a new tensor: `name`, or if that is empty, the next free one of "tensor0", "tensor1", ….
  std::string name_for(std::string_view name) const
  {
    std::string own(name);
    for (std::size_t number = free_place(); own.empty() || (name.empty() && names_.contains(own)); ++number)
      own = "tensor" + std::to_string(number);
    return own;
  }

  // ── checks: error messages are built only when a check fails, so that valid calls allocate nothing

  /// Fails for memory that does not suit one tensor: different sizes, null, misaligned, gradients over parameters.
  void check_memory(std::string_view name, parameters_span parameters, const optional_gradients& gradients) const
  {
    const std::size_t n = parameters.size(),
                      most = std::size_t(PTRDIFF_MAX) / sizeof(typename Model::value_type) - elements_;
    const auto of = [&] { return " of tensor " + quote(name); };
    if (gradients && gradients->size() != n)
      fail("size of gradients" + of() + " is " + std::to_string(gradients->size()) + "; expected " + std::to_string(n) +
           ", the size of its parameters");
    if (n > most)
      fail("size of parameters" + of() + " is " + std::to_string(n) + "; expected at most " + std::to_string(most) +
           ", or the bytes of all tensors would overflow");
    if (n > 0 && !parameters.data())
      fail("parameters" + of() + " is null; expected " + std::to_string(n) + " elements");
    if (n > 0 && gradients && !gradients->data())
      fail("gradients" + of() + " is null; expected " + std::to_string(n) + " elements");
    check_alignment("parameters", name, parameters);
    if (gradients)
      check_alignment("gradients", name, *gradients);
    if (n > 0 && gradients) {
      const place p = place_of(parameters), g = place_of(*gradients);
      if (p.begin < g.end && g.begin < p.end)
        fail("gradients" + of() + " overlap its parameters; expected memory of their own");
    }
  }

  static void check_length(const tensor& x, parameters_span parameters)
  {
    if (parameters.size() != x.size)
      fail("size of parameters of tensor " + quote(x.name) + " is " + std::to_string(parameters.size()) +
           "; expected " + std::to_string(x.size) + ", the size of its state");
  }

  /// Fails if the parameters overlap another tensor's memory, or the gradients another tensor's parameters.
  void check_overlap(std::string_view name, place parameters, place gradients)
  {
    const auto refuse = [&](const char* new_one, const char* old_one, std::size_t other) {
      if (other != no_place)
        fail(std::string(new_one) + " of tensor " + quote(name) + " overlap the " + old_one + " of tensor " +
             quote(tensors_[other].name) + "; expected memory of their own");
    };
    refuse("parameters", "parameters", parameter_places_.meeting(0, parameters.begin, parameters.end));
    refuse("parameters", "gradients", gradient_places_.meeting(0, parameters.begin, parameters.end));
    refuse("gradients", "parameters", parameter_places_.meeting(1, gradients.begin, gradients.end));
  }

  // ── adding and removing: `reserve_one` and `reserve_name` may run out of memory; the calls after them cannot

  /// Makes room for one more tensor.
  void reserve_one()
  {
    make_room(tensors_, tensors_.size() + 1);
    parameter_places_.reserve(tensors_.size() + 1);
    gradient_places_.reserve(tensors_.size() + 1);
  }

  /// Inserts a tensor with a new name. \pre reserve_one() and reserve_name(name) \return its index
  std::size_t insert(tensor&& added) noexcept
  {
    const std::size_t index = free_place();
    if (index == tensors_.size())
      tensors_.push_back(std::move(added));
    else {
      first_free_ = tensors_[index].next_free;
      tensors_[index] = std::move(added);
    }
    return index;
  }
  /// Registers the name of the next tensor that is inserted.
  void reserve_name(const std::string& name) { names_.emplace(name, free_place()); }

  /// Binds a tensor to memory. \return the contents of its handle
  handle_key attach(std::size_t index, parameters_span parameters, const optional_gradients& gradients,
                    std::uint64_t owner) noexcept
  {
    tensor& x = tensors_[index];
    const place p = place_of(parameters), g = place_of(gradients);
    parameter_places_.insert(index, p.begin, p.end);
    gradient_places_.insert(index, g.begin, g.end);
    x.parameters = parameters.data();
    x.gradients = gradients ? gradients->data() : nullptr;
    x.has_gradients = gradients.has_value();
    x.generation = ++generations_;
    x.attached = true;
    x.is_frozen = false;
    elements_ += x.size;
    pages_ += page_count(x.size);
    ++attached_;
    return {owner, index, generations_};
  }

  /// Unbinds a tensor from its memory; its state stays.
  void detach(std::size_t index) noexcept
  {
    tensor& x = tensors_[index];
    elements_ -= x.size;
    pages_ -= page_count(x.size);
    --attached_;
    parameter_places_.erase(index);
    gradient_places_.erase(index);
    x.attached = x.has_gradients = false;
  }
  /// Drops a detached tensor's state and name.
  void erase(std::size_t index)
  {
    names_.erase(tensors_[index].name);
    tensors_[index] = tensor{};
    tensors_[index].next_free = first_free_;
    first_free_ = index;
  }

  /// Moves several tensors to other memory, all or none. They may exchange memory, which single moves would reject as
  /// an overlap.
  void move(std::span<const rebinding_type> all)
  {
    journey way{*this, all};
    way.try_places();
    way.done = true;
    for (const rebinding_type& r : all) {
      tensor& x = tensors_[r.tensor.key().index];
      x.parameters = r.parameters.data();
      x.gradients = r.gradients ? r.gradients->data() : nullptr;
      x.has_gradients = r.gradients.has_value();
    }
  }

 private:
  std::size_t free_place() const noexcept { return first_free_ == no_place ? tensors_.size() : first_free_; }

  /// Moves the intervals of several tensors. The destructor moves them back unless try_places succeeded and `done` is
  /// set.
  struct journey {
    tensor_table& table;
    std::span<const rebinding_type> all;
    std::size_t left = 0, placed = 0;  // how many have left their old intervals, and how many have new ones
    bool done = false;

    tensor& moved(std::size_t k) const noexcept { return table.tensors_[all[k].tensor.key().index]; }
    bool moves_parameters(std::size_t k) const noexcept { return moved(k).parameters != all[k].parameters.data(); }
    bool moves_gradients(std::size_t k) const noexcept
    {
      return moved(k).gradients != (all[k].gradients ? all[k].gradients->data() : nullptr);
    }
    void leave(std::size_t k) const noexcept
    {
      const std::size_t i = all[k].tensor.key().index;
      if (moves_parameters(k))
        table.parameter_places_.erase(i);
      if (moves_gradients(k))
        table.gradient_places_.erase(i);
    }
    void put(std::size_t k, place parameters, place gradients) const noexcept
    {
      const std::size_t i = all[k].tensor.key().index;
      if (moves_parameters(k))
        table.parameter_places_.insert(i, parameters.begin, parameters.end);
      if (moves_gradients(k))
        table.gradient_places_.insert(i, gradients.begin, gradients.end);
    }

    /// Removes all old intervals before it inserts any new one. Tensors are detached meanwhile, so that one that is in
    /// the list twice is detected.
    void try_places()
    {
      for (; left < all.size(); ++left) {
        if (!std::exchange(moved(left).attached, false))
          fail("tensor " + quote(moved(left).name) + " occurs twice in the list; expected each tensor once");
        leave(left);
      }
      for (; placed < all.size(); ++placed) {
        const place p = moves_parameters(placed) ? place_of(all[placed].parameters) : place{};
        const place g = moves_gradients(placed) ? place_of(all[placed].gradients) : place{};
        table.check_overlap(moved(placed).name, p, g);
        put(placed, p, g);
      }
    }
    ~journey()
    {
      for (std::size_t k = 0; !done && k < placed; ++k)
        leave(k);
      for (std::size_t k = 0; k < left; ++k) {
        tensor& x = moved(k);
        x.attached = true;
        if (!done)
          put(k, place_of(parameters_span(x.parameters, x.size)),
              place_of(gradients_span(x.gradients, x.gradients ? x.size : 0)));
      }
    }
  };

  std::vector<tensor> tensors_;
  std::unordered_map<std::string, std::size_t> names_;
  std::size_t first_free_ = no_place;                // in tensors_; a linked list, by next_free
  interval_set parameter_places_, gradient_places_;  // of attached tensors, numbered as in tensors_
  std::uint64_t generations_ = 0;
  std::size_t attached_ = 0, elements_ = 0, pages_ = 0;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
