#pragma once
/// \file
/// The ranges that `add` and `rebind` accept: contiguous memory (vector, span, C array, Eigen matrix or map, …), as the
/// concept `view_of` requires. Knows how to turn a range into a checked span, and nothing about optimizers. Does not
/// include the standard ranges header, which takes longer to compile than all of gradus.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/error.hpp>
#include <gradus/optimizer/handles.hpp>
#include <gradus/optimizer/padding.hpp>
#include <gradus/optimizer/views/libraries.hpp>
#include <gradus/optimizer/views/shape.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// How `add` and `rebind` access the elements of a class R (without const or reference). Classes with contiguous
/// iterators are recognised by these; classes of Eigen, xtensor and Armadillo, and std::mdspan, by their members. For
/// your own class:
///
///     template <>
///     struct gradus::view_traits<my::matrix> {
///       static auto data(auto& m) -> decltype(m.first()) { return m.first(); }  // float*; const float* if m is const
///       static std::size_t size(const my::matrix& m) { return m.rows * m.columns; }
///     };
///
/// Optional members:
/// - `static constexpr bool is_view`: whether temporaries are accepted, because elements outlive them; default false.
/// - `static bool lies_side_by_side(const R&)`: whether the elements are contiguous; default true.
/// - `static view_shape shape(const R&)`: extents and storage order, such as
///   `view_shape(storage_order::row_major, m.rows, m.columns)`; if absent, only lengths are compared.
/// - `static constexpr storage_order order`: the storage order of every R with two or more dimensions. With it, wrong
///   orders are errors at compile time.
///
/// For tensors of frameworks (gradus/interop has adapters for some):
/// - `template <class Element> static Element* data_as(R&, const view_argument&)`, in place of `data`, for classes whose
///   element type is known only at run time; it refuses a tensor of another type, and memory that steps cannot read.
/// - `static bool is_undefined(const R&)`: whether there are no gradients, so that steps skip the tensor.
/// - `static bool same_layout(const R& parameters, const G& gradients)`: whether elements are paired by their addresses,
///   for layouts that shape and storage order do not describe; with `static std::string layout(const R&)` for the error.
///   Without it, parameters and gradients that both have storage_order::other are refused.
/// - `static std::optional<F> padding(const R&)`: a function of an index that says which elements are padding. `add`
///   hands it to `set_padding`.
template <class R>
struct view_traits : detail::known_view<R> {};

/// What `add` or `rebind` are being given, for the error messages of an adapter.
struct view_argument {
  const char* argument;     ///< "parameters" or "gradients"
  std::string_view tensor;  ///< the tensor's name, or nothing
  bool on_device;           ///< whether the backend accesses device memory (CUDA's) and not the host's

  /// Such as `gradients of tensor "w"`.
  std::string text() const { return tensor.empty() ? argument : argument + (" of tensor " + detail::quote(tensor)); }
};

namespace detail {

template <class Pointer, class Element>
concept pointer_to = std::is_pointer_v<std::remove_cvref_t<Pointer>> &&
                     std::is_convertible_v<std::remove_pointer_t<std::remove_cvref_t<Pointer>> (*)[], Element (*)[]>;

template <class R>
using traits_of = view_traits<std::remove_cvref_t<R>>;

template <class R, class Element>
concept seen_by_traits = requires(std::remove_reference_t<R>& r) {
  { traits_of<R>::data(r) } -> pointer_to<Element>;
  { traits_of<R>::size(r) } -> std::convertible_to<std::size_t>;
};

/// Classes whose element type is known only at run time.
template <class R, class Element>
concept typed_at_run_time = requires(std::remove_reference_t<R>& r, const view_argument& a) {
  { traits_of<R>::template data_as<Element>(r, a) } -> std::same_as<Element*>;
  { traits_of<R>::size(r) } -> std::convertible_to<std::size_t>;
};

/// A backend may accept further ranges, such as those whose data() is no plain pointer.
template <class R, class Element, class Backend>
concept seen_by_backend = requires(std::remove_reference_t<R>& r) {
  { Backend::data(r) } -> pointer_to<Element>;
  { std::size(r) } -> std::convertible_to<std::size_t>;
};

template <class R, class Element, class Backend>
concept viewable = seen_by_traits<R, Element> || typed_at_run_time<R, Element> || seen_by_backend<R, Element, Backend>;

/// Whether a backend's memory is a device's, which the host cannot read.
template <class Backend>
constexpr bool accesses_device = requires { requires Backend::on_device; };

/// A variable, or a temporary of a type that does not own its elements.
template <class R>
concept outlives_call = std::is_lvalue_reference_v<R> || requires { requires traits_of<R>::is_view; };

template <class R>
constexpr storage_order order_by_type = [] {
  if constexpr (requires { std::bool_constant<traits_of<R>::order == storage_order::any>(); })
    return traits_of<R>::order;
  else
    return storage_order::any;
}();

template <class W, class G>
constexpr bool orders_agree = order_by_type<W> == order_by_type<G> || order_by_type<W> == storage_order::any ||
                              order_by_type<G> == storage_order::any;

inline std::string of_tensor(std::string_view name)
{
  return name.empty() ? std::string() : " of tensor " + detail::quote(name);
}

template <class R>
concept may_be_undefined = requires(const std::remove_reference_t<R>& r) { traits_of<R>::is_undefined(r); };

/// Whether these are gradients that a framework has not made yet.
template <class R>
bool is_undefined([[maybe_unused]] const R& range)
{
  if constexpr (may_be_undefined<R>)
    return traits_of<R>::is_undefined(range);
  else
    return false;
}

/// Fails if the elements are misaligned, because reading them would be undefined and faults on some CPUs.
template <class Element>
void check_alignment(const char* argument, std::string_view tensor, std::span<Element> elements)
{
  const auto address = reinterpret_cast<std::uintptr_t>(elements.data());
  if (!elements.empty() && address % alignof(Element) != 0)
    detail::fail("address of " + (argument + of_tensor(tensor)) + " is " + std::to_string(address) +
                 "; expected a multiple of " + std::to_string(alignof(Element)) + ", the alignment of its elements");
}

/// Fails if there are gaps between the elements of a range.
template <class R>
void check_side_by_side([[maybe_unused]] const char* argument, [[maybe_unused]] std::string_view tensor,
                        [[maybe_unused]] R& range)
{
  using traits = traits_of<R>;
  if constexpr (requires { traits::lies_side_by_side(range); })
    if (!traits::lies_side_by_side(range)) {
      std::string layout = "gaps between its elements, or an order that is neither row-major nor column-major";
      if constexpr (requires { traits::layout(range); })
        layout = traits::layout(range);
      detail::fail(argument + of_tensor(tensor) + " has " + layout +
                   "; expected elements that lie side by side (a whole matrix, or a copy)");
    }
}

template <class Element, class Backend, class R>
std::span<Element> as_span(const char* argument, std::string_view tensor, R& range)
{
  std::span<Element> elements;
  using traits = traits_of<R>;
  if constexpr (seen_by_traits<R, Element>) {
    check_side_by_side(argument, tensor, range);
    elements = {traits::data(range), static_cast<std::size_t>(traits::size(range))};
  } else if constexpr (typed_at_run_time<R, Element>) {
    const view_argument of{argument, tensor, accesses_device<Backend>};
    Element* const first = traits::template data_as<Element>(range, of);
    check_side_by_side(argument, tensor, range);
    elements = {first, static_cast<std::size_t>(traits::size(range))};
  } else
    elements = {Backend::data(range), static_cast<std::size_t>(std::size(range))};
  check_alignment(argument, tensor, elements);
  return elements;
}

/// Fails if shapes or storage orders differ, because elements would be paired wrongly even if the lengths are the same.
template <class W, class G>
void check_shapes([[maybe_unused]] std::string_view tensor, [[maybe_unused]] const W& parameters,
                  [[maybe_unused]] const G& gradients)
{
  if constexpr (requires { traits_of<W>::shape(parameters), traits_of<G>::shape(gradients); }) {
    const view_shape expected = traits_of<W>::shape(parameters), given = traits_of<G>::shape(gradients);
    if (expected.rank() < 2 || given.rank() < 2)
      return;
    if (!given.same_extents(expected))
      detail::fail("shape of gradients" + of_tensor(tensor) + " is " + given.text() + "; expected " + expected.text() +
                   ", the shape of its parameters (a std::span(pointer, size) has no shape)");
    if (given.order() != expected.order() && given.order() != storage_order::any &&
        expected.order() != storage_order::any) {
      const auto name = [](storage_order o) {
        return o == storage_order::row_major      ? "row-major"
               : o == storage_order::column_major ? "column-major"
                                                  : "neither row-major nor column-major";
      };
      detail::fail(std::string("storage order of gradients") + of_tensor(tensor) + " is " + name(given.order()) +
                   "; expected " + name(expected.order()) + ", the order of its parameters, or a copy in that order");
    }
    // Neither row-major nor column-major can be two different orders.
    if constexpr (!requires { traits_of<W>::same_layout(parameters, gradients); })
      if (given.order() == storage_order::other && expected.order() == storage_order::other)
        detail::fail(
            "storage order of gradients" + of_tensor(tensor) +
            " is neither row-major nor column-major, nor is its parameters'; expected tensors whose layouts can "
            "be compared (view_traits::same_layout), or copies in row-major order");
  }
  if constexpr (requires { traits_of<W>::same_layout(parameters, gradients); })
    if (!traits_of<W>::same_layout(parameters, gradients))
      detail::fail("layout of gradients" + of_tensor(tensor) + " is " + traits_of<G>::layout(gradients) +
                   "; expected " + traits_of<W>::layout(parameters) +
                   ", the layout of its parameters, or a copy in that layout");
}

/// A first argument of `add` that is a name.
template <class R>
concept tensor_name = std::is_convertible_v<R, std::string_view>;

template <class R>
concept handle_of_group = std::is_same_v<std::remove_cvref_t<R>, group_handle>;

}  // namespace detail

/// The ranges that `add` and `rebind` accept: `view_of<float>` for parameters, `view_of<const float>` for gradients.
///
/// R is as deduced from a forwarding reference: X& for a variable, X for a temporary. It has contiguous iterators or
/// `view_traits`. A temporary is accepted only if its type does not own its elements (std::span or another borrowed
/// range, an Eigen map or block, std::mdspan). Eigen's `Ref<const X>` is not accepted, because it may own a copy. A
/// Backend may accept further ranges; backend::thrust accepts thrust::device_vector.
template <class R, class Element, class Backend = void>
concept view_of = detail::viewable<R, Element, Backend> && detail::outlives_call<R>;

/// Range overloads of `add` and `rebind`; they forward to Derived's span versions.
///
/// The ranges are viewed, never copied, so they must outlive the optimizer or be rebound. Parameters are a
/// `view_of<Parameter>`; gradients are a `view_of<const Gradient>` of the same length in other memory. If both have two
/// or more dimensions, shapes and storage orders must be the same. A tensor's name must be new. Without gradients a
/// tensor is frozen until `rebind` or `rebind_gradients` binds some. A first argument that converts to std::string_view
/// is a name.
/// \throws std::invalid_argument, with nothing added, for null, misaligned or overlapping memory, gaps between
///         elements, different lengths or shapes, a name in use, or a group of another optimizer
template <class Derived, class Parameter, class Gradient = Parameter, class Backend = void>
class range_front {
 public:
  /// Adds a tensor to the default group, under the next free name "tensor0", "tensor1", ….
  /// \param parameters  the weights, which steps write; viewed, not copied
  /// \param gradients   as many elements in other memory, read by each step; viewed, not copied
  /// \return the tensor's handle, for `rebind`, `freeze` and `remove`
  /// \throws std::invalid_argument, with nothing added, for memory that is unsuitable (see range_front)
  template <class W, class G>
    requires(!detail::tensor_name<W> && !detail::handle_of_group<G>)
  tensor_handle add(W&& parameters, G&& gradients)
  {
    return add_pair<W, G>({}, parameters, gradients, {});
  }
  /// Adds a tensor to a group, under the next free name "tensor0", "tensor1", ….
  /// \param parameters  the weights, which steps write; viewed, not copied
  /// \param gradients   as many elements in other memory, read by each step; viewed, not copied
  /// \param group       a handle from `add_group`; it selects the hyperparameters
  /// \return the tensor's handle, for `rebind`, `freeze` and `remove`
  /// \throws std::invalid_argument, with nothing added, for unsuitable memory (see range_front) or another optimizer's
  ///         group
  template <class W, class G>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, G&& gradients, const group_handle& group)
  {
    return add_pair<W, G>({}, parameters, gradients, group);
  }
  /// Adds a named tensor to the default group.
  /// \param name        not empty and not in use; it identifies the tensor in checkpoints, `state` and error messages
  /// \param parameters  the weights, which steps write; viewed, not copied
  /// \param gradients   as many elements in other memory, read by each step; viewed, not copied
  /// \return the tensor's handle, for `rebind`, `freeze` and `remove`
  /// \throws std::invalid_argument, with nothing added, for a bad name or unsuitable memory (see range_front)
  template <class W, class G>
    requires(!detail::handle_of_group<G>)
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, {});
  }
  /// Adds a named tensor to a group.
  /// \param name        not empty and not in use; it identifies the tensor in checkpoints, `state` and error messages
  /// \param parameters  the weights, which steps write; viewed, not copied
  /// \param gradients   as many elements in other memory, read by each step; viewed, not copied
  /// \param group       a handle from `add_group`; it selects the hyperparameters
  /// \return the tensor's handle, for `rebind`, `freeze` and `remove`
  /// \throws std::invalid_argument, with nothing added, for a bad name, unsuitable memory (see range_front) or another
  ///         optimizer's group
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients, const group_handle& group)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, group);
  }

  /// Adds a tensor of which some elements are trained. The others keep weight and state to the bit, and count neither in
  /// norms and clipping nor in the mean v̄ of a scheduled decay.
  /// \param parameters  the weights, which steps write; viewed, not copied
  /// \param gradients   as many elements in other memory; viewed, not copied
  /// \param trained     which elements are trained; copied
  /// \throws std::invalid_argument, with nothing added, for a mask of another length, for 8-bit state, and as above
  template <class W, class G>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, G&& gradients, const trained_mask& trained)
  {
    return add_pair<W, G>({}, parameters, gradients, {}, &trained);
  }
  /// The same in a group.
  template <class W, class G>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, G&& gradients, const group_handle& group, const trained_mask& trained)
  {
    return add_pair<W, G>({}, parameters, gradients, group, &trained);
  }
  /// The same with a name.
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients, const trained_mask& trained)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, {}, &trained);
  }
  /// The same with a name and in a group.
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients, const group_handle& group,
                    const trained_mask& trained)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, group, &trained);
  }

  /// Adds a tensor without gradients to the default group, under the next free name "tensor0", "tensor1", …. Steps skip
  /// it until `rebind` or `rebind_gradients` binds gradients.
  /// \param parameters  the weights; viewed, not copied
  /// \return the tensor's handle
  /// \throws std::invalid_argument, with nothing added, for unsuitable memory (see range_front)
  template <class W>
  tensor_handle add(W&& parameters)
  {
    return add_alone<W>({}, parameters, {});
  }
  /// Adds a tensor without gradients to a group, under the next free name "tensor0", "tensor1", …. Steps skip it until
  /// `rebind` or `rebind_gradients` binds gradients.
  /// \param parameters  the weights; viewed, not copied
  /// \param group       a handle from `add_group`; it selects the hyperparameters
  /// \return the tensor's handle
  /// \throws std::invalid_argument, with nothing added, for unsuitable memory (see range_front) or another optimizer's
  ///         group
  template <class W>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, const group_handle& group)
  {
    return add_alone<W>({}, parameters, group);
  }
  /// Adds a named tensor without gradients to the default group. Steps skip it until `rebind` or `rebind_gradients`
  /// binds gradients.
  /// \param name        not empty and not in use; it identifies the tensor in checkpoints, `state` and error messages
  /// \param parameters  the weights; viewed, not copied
  /// \return the tensor's handle
  /// \throws std::invalid_argument, with nothing added, for a bad name or unsuitable memory (see range_front)
  template <class W>
  tensor_handle add(std::string_view name, W&& parameters)
  {
    return add_alone<W>(checked(name), parameters, {});
  }
  /// Adds a named tensor without gradients to a group. Steps skip it until `rebind` or `rebind_gradients` binds
  /// gradients.
  /// \param name        not empty and not in use; it identifies the tensor in checkpoints, `state` and error messages
  /// \param parameters  the weights; viewed, not copied
  /// \param group       a handle from `add_group`; it selects the hyperparameters
  /// \return the tensor's handle
  /// \throws std::invalid_argument, with nothing added, for a bad name, unsuitable memory (see range_front) or another
  ///         optimizer's group
  template <class W>
  tensor_handle add(std::string_view name, W&& parameters, const group_handle& group)
  {
    return add_alone<W>(checked(name), parameters, group);
  }

  /// Points a tensor at new weights and gradients of the same length; its state stays.
  /// \param tensor      a handle from `add`
  /// \param parameters  the new weights; viewed, not copied
  /// \param gradients   the new gradients, of the same shape and storage order; viewed, not copied
  /// \throws std::invalid_argument, with nothing changed, for unsuitable memory (see range_front), a length other than
  ///         the tensor's, an invalid handle, or, where `set_shape` is, another shape than the tensor's
  template <class W, class G>
  void rebind(const tensor_handle& tensor, W&& parameters, G&& gradients)
  {
    if constexpr (accepts_pair<W, G>()) {
      const auto w = writable({}, parameters);
      const auto g = readable_or_none({}, gradients);
      if (g)
        detail::check_shapes({}, parameters, gradients);
      if constexpr (shape_is_read<std::remove_cvref_t<W>>)
        if (const view_shape shape = detail::traits_of<W>::shape(parameters); shape.rank() == 2 && w.size() > 0)
          self().expect_same_shape(tensor, shape);
      self().rebind_spans(tensor, w, g);
    }
  }

  /// Points a tensor at new gradients, or at its first ones, after which it takes part in steps unless it is frozen.
  /// Weights and state stay.
  /// \param tensor     a handle from `add`
  /// \param gradients  as many elements as the tensor has; only the length is compared, not the shape
  /// \throws std::invalid_argument, with nothing changed, for unsuitable memory (see range_front), a different length,
  ///         or an invalid handle
  template <class G>
  void rebind_gradients(const tensor_handle& tensor, G&& gradients)
  {
    if constexpr (accepts_gradients<G>()) {
      if constexpr (detail::may_be_undefined<G>)
        if (detail::is_undefined(gradients))
          return self().unbind_gradients(tensor);
      self().rebind_gradients_spans(tensor, readable({}, gradients));
    }
  }

 private:
  Derived& self() noexcept { return static_cast<Derived&>(*this); }

  static std::string_view checked(std::string_view name)
  {
    if (name.empty())
      detail::fail("name is \"\"; expected at least one character, or no name at all");
    return name;
  }

  // At most one of these assertions fails, and nothing is instantiated after it, so users see one error.
  template <class W>
  static constexpr bool accepts_parameters()
  {
    constexpr bool viewable = detail::viewable<W, Parameter, Backend>;
    constexpr bool stays = detail::outlives_call<W>;
    static_assert(
        viewable,
        "gradus: parameters must be a writable contiguous range of the optimizer's precision T (std::vector<T>, "
        "std::span<T>, an Eigen matrix of T, …), not const and not of another type; for other memory pass "
        "std::span(pointer, size).");
    static_assert(
        !viewable || stays,
        "gradus: parameters is a temporary container, or may be one, whose elements are gone after this call; pass "
        "a variable, or std::span(pointer, size) for memory that stays.");
    return viewable && stays;
  }
  template <class G>
  static constexpr bool accepts_gradients()
  {
    constexpr bool viewable = detail::viewable<G, const Gradient, Backend>;
    constexpr bool stays = detail::outlives_call<G>;
    static_assert(
        viewable,
        "gradus: gradients must be a contiguous range of the optimizer's precision T (std::vector<T>, "
        "std::span<const T>, an Eigen matrix of T, …), not of another type and not an expression; for other memory "
        "pass std::span(pointer, size).");
    static_assert(
        !viewable || stays,
        "gradus: gradients is a temporary container, or may be one, whose elements are gone after this call; pass a "
        "variable, or std::span(pointer, size) for memory that stays.");
    return viewable && stays;
  }
  template <class W, class G>
  static constexpr bool accepts_pair()
  {
    if constexpr (!accepts_parameters<W>())
      return false;
    else if constexpr (!accepts_gradients<G>())
      return false;
    else {
      constexpr bool agree = detail::orders_agree<W, G>;
      static_assert(
          agree,
          "gradus: parameters and gradients have different storage orders, one row-major and the other "
          "column-major, which would pair elements wrongly; pass matrices of the same order, such as a copy of a "
          "transposed gradient.");
      return agree;
    }
  }

  template <class W>
  static std::span<Parameter> writable(std::string_view name, W& range)
  {
    return detail::as_span<Parameter, Backend>("parameters", name, range);
  }
  template <class G>
  static std::span<const Gradient> readable(std::string_view name, G& range)
  {
    return detail::as_span<const Gradient, Backend>("gradients", name, range);
  }
  template <class G>
  static std::optional<std::span<const Gradient>> readable_or_none(std::string_view name, G& range)
  {
    return detail::is_undefined(range) ? std::nullopt : std::optional(readable(name, range));
  }

  /// \param trained  nothing, or the address of a mask
  template <class W, class G, class... Mask>
  tensor_handle add_pair(std::string_view name, std::remove_reference_t<W>& parameters,
                         std::remove_reference_t<G>& gradients, std::optional<group_handle> group,
                         const Mask*... trained)
  {
    if constexpr (accepts_pair<W, G>()) {
      const auto w = writable(name, parameters);
      const auto g = readable_or_none(name, gradients);
      if (g)
        detail::check_shapes(name, parameters, gradients);
      return with_shape(name, w.size(), group, parameters,
                        [&] { return add_padded(parameters, name, w, g, group, trained...); });
    } else
      return {};
  }
  /// Whether the optimizer reads the shapes of ranges of type W.
  template <class W>
  static constexpr bool shape_is_read = requires(const W& parameters) {
    requires Derived::reads_shapes;
    detail::traits_of<W>::shape(parameters);
  };
  /// Adds a tensor, and its shape if it has two dimensions and the optimizer reads shapes.
  template <class W, class Add>
  tensor_handle with_shape([[maybe_unused]] std::string_view name, [[maybe_unused]] std::size_t size,
                           [[maybe_unused]] const std::optional<group_handle>& group,
                           [[maybe_unused]] const W& parameters, const Add& add)
  {
    if constexpr (shape_is_read<W>)
      if (const view_shape shape = detail::traits_of<W>::shape(parameters); shape.rank() == 2 && size > 0) {
        self().expect_shape(name, size, group, shape);
        const tensor_handle added = add();
        self().set_shape(added, shape);
        return added;
      }
    return add();
  }
  template <class W>
  tensor_handle add_alone(std::string_view name, std::remove_reference_t<W>& parameters,
                          std::optional<group_handle> group)
  {
    if constexpr (accepts_parameters<W>()) {
      const auto w = writable(name, parameters);
      return with_shape(name, w.size(), group, parameters,
                        [&] { return add_padded(parameters, name, w, std::nullopt, group); });
    } else
      return {};
  }
  /// Adds a tensor, and marks its padding if its layout has some. A mask of trained elements speaks for itself.
  template <class W, class... Mask>
  tensor_handle add_padded([[maybe_unused]] const W& parameters, std::string_view name, std::span<Parameter> w,
                           std::optional<std::span<const Gradient>> g, std::optional<group_handle> group,
                           const Mask*... trained)
  {
    if constexpr (sizeof...(Mask) == 0 && requires { detail::traits_of<W>::padding(parameters); })
      if (const auto is_padding = detail::traits_of<W>::padding(parameters)) {
        const padding_mask padding(*is_padding);
        return self().add_spans(name, w, g, group, nullptr, &padding);
      }
    return self().add_spans(name, w, g, group, trained...);
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
