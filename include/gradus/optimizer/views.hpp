#pragma once
/// \file
/// What `add` and `rebind` take: views of memory that lies side by side (vector, span, C array, Eigen matrix or map, …),
/// as the concept `view_of` says, without <ranges>, which costs more compile time than all of gradus.

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

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// How the elements of a view of several dimensions follow one another in memory.
enum class storage_order {
  any,           ///< one dimension, or nothing known: there is no order to compare
  row_major,     ///< the last index runs fastest
  column_major,  ///< the first index runs fastest
};

/// The extents of a view and its storage order. Parameters and gradients of two or more dimensions each must agree in both.
class view_shape {
 public:
  /// Of more dimensions than this, the first ones are compared.
  static constexpr std::size_t most_extents = 16;

  template <std::integral... Extents>
  constexpr explicit view_shape(storage_order order, Extents... extents) noexcept : order_(order)
  {
    (push_back(static_cast<std::size_t>(extents)), ...);
  }
  constexpr void push_back(std::size_t extent) noexcept
  {
    if (rank_ < most_extents)
      extents_[rank_] = extent;
    ++rank_;
  }

  constexpr std::size_t rank() const noexcept { return rank_; }
  /// `any` where at most one extent differs from 1, since the order is then the same either way.
  constexpr storage_order order() const noexcept
  {
    std::size_t long_extents = 0;
    for (std::size_t k = 0; k < known(); ++k) {
      if (extents_[k] == 0)
        return storage_order::any;
      long_extents += extents_[k] > 1;
    }
    return long_extents > 1 ? order_ : storage_order::any;
  }
  constexpr bool same_extents(const view_shape& other) const noexcept
  {
    bool same = rank_ == other.rank_;
    for (std::size_t k = 0; k < known() && same; ++k)
      same = extents_[k] == other.extents_[k];
    return same;
  }
  /// "2x3", for sentences.
  std::string text() const
  {
    std::string all;
    for (std::size_t k = 0; k < known(); ++k) {
      if (k > 0)
        all += 'x';
      all += std::to_string(extents_[k]);
    }
    return all;
  }

 private:
  constexpr std::size_t known() const noexcept { return rank_ < most_extents ? rank_ : most_extents; }

  storage_order order_;
  std::size_t rank_ = 0;
  std::size_t extents_[most_extents] = {};
};

namespace detail {

// What gradus knows by itself, each by its structure: no header of another library is included. A class that has data()
// and size() is not known by these: they are the whole array's in a view of its part (xtensor), or the first extent
// (Boost.MultiArray).

/// Whatever has contiguous iterators: std::vector, std::array, std::span, std::initializer_list, …
template <class R>
concept contiguous_range = requires(R& r) {
  { r.begin() } -> std::contiguous_iterator;
  { r.end() } -> std::sized_sentinel_for<decltype(r.begin())>;
};

/// Matrices, arrays, maps, blocks and other expressions of Eigen that have memory: those with its DirectAccessBit, since a
/// transposed sum declares data() too.
template <class R>
concept eigen_matrix = requires(R& r) {
  r.data();
  r.size();
  r.innerStride() + r.outerStride() + r.innerSize() + r.outerSize();
} && !requires { requires (unsigned(R::Flags) & 0x40u) == 0; };

/// Eigen's TensorMap, the one of its tensors that is made of a pointer.
template <class R>
concept eigen_tensor_map = requires(R& r) { R(r.data(), r.dimensions()); };

/// Tensors of Eigen's unsupported module, fixed ones, and maps; not a TensorRef, whose data() may be null or yet to come.
template <class R>
concept eigen_tensor = requires(R& r) {
  { *r.data() } -> std::same_as<typename R::Scalar&>;
  r.size();
  r.dimension(0);
  R::Layout;
  R::NumIndices;
} || (eigen_tensor_map<R> && requires {
  R::Layout;
  R::NumIndices;
});

/// xtensor's containers, adaptors and strided views; data() + data_offset() is the first element.
template <class R>
concept xtensor_expression = requires(R& r) {
  r.data() + r.data_offset();
  r.size();
  r.shape()[r.dimension() - 1];
  r.strides()[r.dimension() - 1];
  R::static_layout;
};

/// std::mdspan, of C++23, and its forerunners, over plain pointers.
template <class R>
concept multidimensional_span = requires(R& r) {
  r.data_handle();
  r.extents().extent(r.extents().rank() - 1);
  r.mapping().stride(r.extents().rank() - 1);
  { r.is_exhaustive() } -> std::convertible_to<bool>;
} && !requires { requires !std::is_reference_v<typename R::reference>; };

/// Armadillo's vectors, matrices and cubes.
template <class R>
concept armadillo_matrix = requires(R& r) {
  r.memptr();
  r.n_elem + r.n_rows + r.n_cols;
};

/// The order in which elements of these extents and strides lie side by side, or nothing where they do not.
template <class Extent, class Stride>
constexpr std::optional<storage_order> side_by_side(std::size_t rank, const Extent& extent, const Stride& stride)
{
  bool rows = true, columns = true;
  std::size_t row_step = 1, column_step = 1;
  for (std::size_t k = 0; k < rank; ++k) {
    const std::size_t last = rank - 1 - k;
    if (extent(k) == 0)
      return storage_order::any;
    rows = rows && (extent(last) == 1 || stride(last) == row_step);
    columns = columns && (extent(k) == 1 || stride(k) == column_step);
    row_step *= extent(last);
    column_step *= extent(k);
  }
  if (rows)
    return columns ? storage_order::any : storage_order::row_major;
  return columns ? std::optional(storage_order::column_major) : std::nullopt;
}

enum class view_kind { unknown, c_array, eigen_matrix, eigen_tensor, xtensor, mdspan, armadillo, range };

/// Contiguous iterators come last: Armadillo's matrices have them too, and a shape besides.
template <class R>
constexpr view_kind kind_of()
{
  if constexpr (std::is_bounded_array_v<R>)
    return view_kind::c_array;
  else if constexpr (eigen_matrix<R>)
    return view_kind::eigen_matrix;
  else if constexpr (eigen_tensor<R>)
    return view_kind::eigen_tensor;
  else if constexpr (xtensor_expression<R>)
    return view_kind::xtensor;
  else if constexpr (multidimensional_span<R>)
    return view_kind::mdspan;
  else if constexpr (armadillo_matrix<R>)
    return view_kind::armadillo;
  else if constexpr (contiguous_range<R>)
    return view_kind::range;
  else
    return view_kind::unknown;
}

template <class R, view_kind = kind_of<R>()>
struct known_view {};

template <class R>
struct known_view<R, view_kind::range> {
  static constexpr bool is_view = std::ranges::enable_borrowed_range<R>;
  // A span of the iterators reads the pointer from them; data() of a class may be another one.
  static constexpr auto data(auto& r) noexcept
  {
    return std::span<std::remove_reference_t<decltype(*r.begin())>>(r.begin(), size(r)).data();
  }
  static constexpr std::size_t size(auto& r) noexcept { return static_cast<std::size_t>(r.end() - r.begin()); }
};

/// A span may have any size, of which the refusal speaks, even one that a difference of iterators cannot hold.
template <class Element, std::size_t Extent>
struct known_view<std::span<Element, Extent>, view_kind::range> {
  static constexpr bool is_view = true;
  static constexpr Element* data(const std::span<Element, Extent>& s) noexcept { return s.data(); }
  static constexpr std::size_t size(const std::span<Element, Extent>& s) noexcept { return s.size(); }
};

template <class R>
struct known_view<R, view_kind::c_array> {
  using element = std::remove_all_extents_t<R>;
  static constexpr bool is_view = false;
  static element* data(R& r) noexcept { return reinterpret_cast<element*>(&r); }
  static const element* data(const R& r) noexcept { return reinterpret_cast<const element*>(&r); }
  static constexpr std::size_t size(const R&) noexcept { return sizeof(R) / sizeof(element); }
  static constexpr view_shape extents()
  {
    return []<std::size_t... Dimension>(std::index_sequence<Dimension...>) {
      return view_shape(storage_order::row_major, std::extent_v<R, Dimension>...);
    }(std::make_index_sequence<std::rank_v<R>>());
  }
  static constexpr view_shape shape(const R&) noexcept { return extents(); }
  static constexpr storage_order order = extents().order();
};

/// Eigen's matrices, and its `Ref<const X>`, which owns a copy of what has no memory: it converts from such expressions.
template <class R>
concept eigen_owner = std::is_same_v<typename R::PlainObject, R> || std::is_convertible_v<typename R::ConstantReturnType, R>;

template <class R>
struct known_view<R, view_kind::eigen_matrix> {
  static constexpr bool is_view = requires { requires !eigen_owner<R>; };
  static constexpr bool is_vector = requires { requires bool(R::IsVectorAtCompileTime); };
  static constexpr storage_order order = [] {
    if constexpr (requires { R::IsRowMajor; })
      if (!is_vector)
        return R::IsRowMajor ? storage_order::row_major : storage_order::column_major;
    return storage_order::any;
  }();

  static auto data(auto& r) -> decltype(r.data()) { return r.data(); }
  static std::size_t size(const R& r) { return static_cast<std::size_t>(r.size()); }
  static bool lies_side_by_side(const R& r)
  {
    return r.size() <= 1 || (r.innerStride() == 1 && (r.outerSize() == 1 || r.outerStride() == r.innerSize()));
  }
  static std::string layout(const R& r)
  {
    return "inner stride " + std::to_string(r.innerStride()) + " and outer stride " + std::to_string(r.outerStride());
  }
  static view_shape shape(const R& r)
    requires(!is_vector && order != storage_order::any && requires { r.rows() + r.cols(); })
  {
    return view_shape(order, r.rows(), r.cols());
  }
};

/// An index of whatever type is asked for: Eigen's tensors take one or the other.
struct any_index {
  std::size_t value;
  template <std::integral Index>
  constexpr operator Index() const noexcept
  {
    return static_cast<Index>(value);
  }
};

template <class R>
struct known_view<R, view_kind::eigen_tensor> {
  static constexpr bool is_view = eigen_tensor_map<R>;
  static constexpr storage_order order = std::size_t(R::NumIndices) < 2    ? storage_order::any
                                         : static_cast<int>(R::Layout) == 1 ? storage_order::row_major
                                                                            : storage_order::column_major;

  static auto data(auto& r) -> decltype(r.data()) { return r.data(); }
  static std::size_t size(const R& r) { return static_cast<std::size_t>(r.size()); }
  static view_shape shape(const R& r)
  {
    view_shape all(order);
    for (std::size_t k = 0; k < std::size_t(R::NumIndices); ++k)
      all.push_back(static_cast<std::size_t>(r.dimension(any_index{k})));
    return all;
  }
};

/// Whether a view keeps a reference to its array, and not the array itself: xtensor's view<Array&, slices…>.
template <class R>
constexpr bool refers_to_array = false;
template <template <class, class...> class View, class Array, class... Slices>
constexpr bool refers_to_array<View<Array, Slices...>> = refers_to_array<Array>;
template <template <class, class...> class View, class Array, class... Slices>
constexpr bool refers_to_array<View<Array&, Slices...>> = true;

template <class R>
struct known_view<R, view_kind::xtensor> {
  static constexpr bool is_view = refers_to_array<R>;
  static constexpr storage_order order = [] {
    if constexpr (requires { requires std::tuple_size<typename R::shape_type>::value >= 2; }) {
      if (static_cast<int>(R::static_layout) == 1)
        return storage_order::row_major;
      if (static_cast<int>(R::static_layout) == 2)
        return storage_order::column_major;
    }
    return storage_order::any;
  }();

  static auto data(auto& r) -> decltype(r.data() + r.data_offset()) { return r.data() + r.data_offset(); }
  static std::size_t size(const R& r) { return static_cast<std::size_t>(r.size()); }
  static bool lies_side_by_side(const R& r) { return order_of(r).has_value(); }
  static view_shape shape(const R& r)
  {
    view_shape all(order_of(r).value_or(storage_order::any));
    for (std::size_t k = 0; k < r.dimension(); ++k)
      all.push_back(static_cast<std::size_t>(r.shape()[k]));
    return all;
  }

 private:
  static std::optional<storage_order> order_of(const R& r)
  {
    return side_by_side(
        r.dimension(), [&](std::size_t k) { return static_cast<std::size_t>(r.shape()[k]); },
        [&](std::size_t k) { return static_cast<std::size_t>(r.strides()[k]); });
  }
};

/// The stride of a mapping whose extents are those that its type fixes, and 0 for others.
template <class Mapping>
constexpr std::size_t stride_by_type(std::size_t k)
{
  return static_cast<std::size_t>(Mapping().stride(k));
}

/// Layouts whose order the type tells: left and right, and not a strided one.
template <class R>
concept ordered_by_type = requires {
  requires R::is_always_exhaustive() && R::is_always_strided() && (R::rank() > 1);
  std::bool_constant<(stride_by_type<typename R::mapping_type>(0) > 0)>();
};

template <class R>
struct known_view<R, view_kind::mdspan> {
  static constexpr bool is_view = true;
  static constexpr storage_order order = [] {
    if constexpr (ordered_by_type<R>) {
      using mapping = typename R::mapping_type;
      constexpr bool rows = stride_by_type<mapping>(R::rank() - 1) == 1, columns = stride_by_type<mapping>(0) == 1;
      if (rows != columns)
        return rows ? storage_order::row_major : storage_order::column_major;
    }
    return storage_order::any;
  }();

  static auto data(auto& r) -> decltype(r.data_handle()) { return r.data_handle(); }
  static std::size_t size(const R& r)
  {
    std::size_t product = 1;
    for (std::size_t k = 0; k < r.extents().rank(); ++k)
      product *= extent(r, k);
    return product;
  }
  static bool lies_side_by_side(const R& r) { return r.is_exhaustive() && order_of(r).has_value(); }
  static view_shape shape(const R& r)
  {
    view_shape all(order_of(r).value_or(storage_order::any));
    for (std::size_t k = 0; k < r.extents().rank(); ++k)
      all.push_back(extent(r, k));
    return all;
  }

 private:
  static std::size_t extent(const R& r, std::size_t k) { return static_cast<std::size_t>(r.extents().extent(k)); }
  static std::optional<storage_order> order_of(const R& r)
  {
    if constexpr (requires { r.is_strided(); })
      if (!r.is_strided())
        return std::nullopt;
    return side_by_side(
        r.extents().rank(), [&](std::size_t k) { return extent(r, k); },
        [&](std::size_t k) { return static_cast<std::size_t>(r.mapping().stride(k)); });
  }
};

template <class R>
struct known_view<R, view_kind::armadillo> {
  static constexpr bool is_view = false;
  static constexpr bool is_vector = requires { requires R::is_col || R::is_row; };
  static constexpr storage_order order = is_vector ? storage_order::any : storage_order::column_major;

  static auto data(auto& r) -> decltype(r.memptr()) { return r.memptr(); }
  static std::size_t size(const R& r) { return static_cast<std::size_t>(r.n_elem); }
  static view_shape shape(const R& r)
    requires(!is_vector)
  {
    if constexpr (requires { r.n_slices; })
      return view_shape(order, r.n_rows, r.n_cols, r.n_slices);
    else
      return view_shape(order, r.n_rows, r.n_cols);
  }
};

}  // namespace detail

/// How `add` and `rebind` see the elements of a class R (without const or reference). What has contiguous iterators is
/// known by them; Eigen's, xtensor's and Armadillo's classes and std::mdspan by their members. For a class of one's own:
///
///     template <>
///     struct gradus::view_traits<my::matrix> {
///       static auto data(auto& m) -> decltype(m.first()) { return m.first(); }   // float*, or const float* of a const one
///       static std::size_t size(const my::matrix& m) { return m.rows * m.columns; }
///     };
///
/// Further members, each optional:
/// - `static constexpr bool is_view`: whether a temporary may be passed, since the elements outlive it; false if absent.
/// - `static bool lies_side_by_side(const R&)`: whether data() … data() + size() are the elements; true if absent.
/// - `static view_shape shape(const R&)`: extents and storage order, such as
///   `view_shape(storage_order::row_major, m.rows, m.columns)`; if absent, lengths alone are compared.
/// - `static constexpr storage_order order`: the order that every R of two dimensions or more has, for errors at compile time.
template <class R>
struct view_traits : detail::known_view<R> {};

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

/// A Backend may know ranges of its own, whose data() is no plain pointer.
template <class R, class Element, class Backend>
concept seen_by_backend = requires(std::remove_reference_t<R>& r) {
  { Backend::data(r) } -> pointer_to<Element>;
  { std::size(r) } -> std::convertible_to<std::size_t>;
};

template <class R, class Element, class Backend>
concept viewable = seen_by_traits<R, Element> || seen_by_backend<R, Element, Backend>;

/// A variable, or a temporary that is known not to own its elements.
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

/// Refuses elements at an address that their type cannot have: to read them there is undefined, and a fault on some CPUs.
template <class Element>
void check_alignment(const char* argument, std::string_view tensor, std::span<Element> elements)
{
  const auto address = reinterpret_cast<std::uintptr_t>(elements.data());
  if (!elements.empty() && address % alignof(Element) != 0)
    detail::fail("address of " + (argument + of_tensor(tensor)) + " is " + std::to_string(address) + "; expected a multiple of " +
         std::to_string(alignof(Element)) + ", the alignment of its elements");
}

template <class Element, class Backend, class R>
std::span<Element> as_span(const char* argument, std::string_view tensor, R& range)
{
  std::span<Element> elements;
  if constexpr (seen_by_traits<R, Element>) {
    using traits = traits_of<R>;
    if constexpr (requires { traits::lies_side_by_side(range); })
      if (!traits::lies_side_by_side(range)) {
        std::string layout = "gaps between its elements, or an order that is neither row-major nor column-major";
        if constexpr (requires { traits::layout(range); })
          layout = traits::layout(range);
        detail::fail(argument + of_tensor(tensor) + " has " + layout +
             "; expected elements that lie side by side (a whole matrix, or a copy)");
      }
    elements = {traits::data(range), static_cast<std::size_t>(traits::size(range))};
  }
  else
    elements = {Backend::data(range), static_cast<std::size_t>(std::size(range))};
  check_alignment(argument, tensor, elements);
  return elements;
}

/// Refuses parameters and gradients that would be paired wrongly, though their lengths may be the same.
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
    if (given.order() != expected.order() && given.order() != storage_order::any && expected.order() != storage_order::any) {
      const auto name = [](storage_order o) { return o == storage_order::row_major ? "row-major" : "column-major"; };
      detail::fail(std::string("storage order of gradients") + of_tensor(tensor) + " is " + name(given.order()) + "; expected " +
           name(expected.order()) + ", the order of its parameters, or a copy in that order");
    }
  }
}

/// A first argument that is a name.
template <class R>
concept tensor_name = std::is_convertible_v<R, std::string_view>;

template <class R>
concept handle_of_group = std::is_same_v<std::remove_cvref_t<R>, group_handle>;

}  // namespace detail

/// What `add` and `rebind` take for elements of a type: `view_of<float>` for parameters, `view_of<const float>` for gradients.
///
/// R is as a forwarding reference deduces it: X& for a variable, X for a temporary. Its elements lie side by side, as its
/// contiguous iterators say, or its `view_traits`. A temporary must be known to view memory that it does not own (a
/// std::span or another borrowed range, an Eigen map or block, std::mdspan): others, Eigen's `Ref<const X>` among them, may
/// own their elements, which would be gone after the call. A Backend may take further ranges: backend::thrust takes
/// thrust::device_vector.
template <class R, class Element, class Backend = void>
concept view_of = detail::viewable<R, Element, Backend> && detail::outlives_call<R>;

/// Range overloads of `add` and `rebind`; they forward to Derived's span versions.
///
/// The ranges are viewed, never copied: they must outlive the optimizer or be rebound. Parameters are a
/// `view_of<Parameter>`; gradients, a `view_of<const Gradient>` of the same length in other memory. Where both have two or
/// more dimensions, shapes and storage orders must be the same. A tensor's name must be new. Without gradients a tensor is
/// frozen until `rebind` or `rebind_gradients` binds them. A first argument that converts to std::string_view is a name.
/// \throws std::invalid_argument, with nothing added, for null, misaligned or overlapping memory, gaps between elements,
///         lengths or shapes that differ, a name used twice, a group of another optimizer
template <class Derived, class Parameter, class Gradient = Parameter, class Backend = void>
class range_front {
 public:
  template <class W, class G>
    requires(!detail::tensor_name<W> && !detail::handle_of_group<G>)
  tensor_handle add(W&& parameters, G&& gradients)
  {
    return add_pair<W, G>({}, parameters, gradients, {});
  }
  template <class W, class G>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, G&& gradients, const group_handle& group)
  {
    return add_pair<W, G>({}, parameters, gradients, group);
  }
  template <class W, class G>
    requires(!detail::handle_of_group<G>)
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, {});
  }
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients, const group_handle& group)
  {
    return add_pair<W, G>(checked(name), parameters, gradients, group);
  }

  template <class W>
  tensor_handle add(W&& parameters)
  {
    return add_alone<W>({}, parameters, {});
  }
  template <class W>
    requires(!detail::tensor_name<W>)
  tensor_handle add(W&& parameters, const group_handle& group)
  {
    return add_alone<W>({}, parameters, group);
  }
  template <class W>
  tensor_handle add(std::string_view name, W&& parameters)
  {
    return add_alone<W>(checked(name), parameters, {});
  }
  template <class W>
  tensor_handle add(std::string_view name, W&& parameters, const group_handle& group)
  {
    return add_alone<W>(checked(name), parameters, group);
  }

  /// Points a tensor at other memory of the same length; its state stays. The new parameters and gradients are compared
  /// with one another; of the old ones only the length is known.
  template <class W, class G>
  void rebind(const tensor_handle& tensor, W&& parameters, G&& gradients)
  {
    if constexpr (accepts_pair<W, G>()) {
      const auto w = writable({}, parameters);
      const auto g = readable({}, gradients);
      detail::check_shapes({}, parameters, gradients);
      self().rebind_spans(tensor, w, g);
    }
  }

  /// Points a tensor at other gradients of the same length, or at its first ones; parameters and state stay. Only the
  /// length is compared with theirs.
  template <class G>
  void rebind_gradients(const tensor_handle& tensor, G&& gradients)
  {
    if constexpr (accepts_gradients<G>())
      self().rebind_gradients_spans(tensor, readable({}, gradients));
  }

 private:
  Derived& self() noexcept { return static_cast<Derived&>(*this); }

  static std::string_view checked(std::string_view name)
  {
    if (name.empty())
      detail::fail("name is \"\"; expected at least one character, or no name at all");
    return name;
  }

  // Of these assertions one fails at most, and nothing is instantiated after it.
  template <class W>
  static constexpr bool accepts_parameters()
  {
    constexpr bool viewable = detail::viewable<W, Parameter, Backend>;
    constexpr bool stays = detail::outlives_call<W>;
    static_assert(viewable,
                  "gradus: parameters must be a writable contiguous range of the optimizer's precision T (std::vector<T>, "
                  "std::span<T>, an Eigen matrix of T, …), not const and not of another type; for other memory pass "
                  "std::span(pointer, size).");
    static_assert(!viewable || stays,
                  "gradus: parameters is a temporary container, or may be one, whose elements are gone after this call; pass "
                  "a variable, or std::span(pointer, size) for memory that stays.");
    return viewable && stays;
  }
  template <class G>
  static constexpr bool accepts_gradients()
  {
    constexpr bool viewable = detail::viewable<G, const Gradient, Backend>;
    constexpr bool stays = detail::outlives_call<G>;
    static_assert(viewable,
                  "gradus: gradients must be a contiguous range of the optimizer's precision T (std::vector<T>, "
                  "std::span<const T>, an Eigen matrix of T, …), not of another type and not an expression; for other memory "
                  "pass std::span(pointer, size).");
    static_assert(!viewable || stays,
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
      static_assert(agree,
                    "gradus: parameters and gradients have different storage orders, one row-major and the other "
                    "column-major, so that elements would be paired wrongly; pass matrices of the same order, a transposed "
                    "gradient as a copy.");
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

  template <class W, class G>
  tensor_handle add_pair(std::string_view name, std::remove_reference_t<W>& parameters, std::remove_reference_t<G>& gradients,
                         std::optional<group_handle> group)
  {
    if constexpr (accepts_pair<W, G>()) {
      const auto w = writable(name, parameters);
      const auto g = readable(name, gradients);
      detail::check_shapes(name, parameters, gradients);
      return self().add_spans(name, w, g, group);
    }
    else
      return {};
  }
  template <class W>
  tensor_handle add_alone(std::string_view name, std::remove_reference_t<W>& parameters, std::optional<group_handle> group)
  {
    if constexpr (accepts_parameters<W>())
      return self().add_spans(name, writable(name, parameters), std::nullopt, group);
    else
      return {};
  }
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
