#pragma once
/// \file
/// The views that gradus recognises without an adapter: contiguous ranges, C arrays, std::mdspan, and the arrays of
/// Eigen, xtensor and Armadillo. It includes no header of these libraries; it recognises each class by its members.

#include <concepts>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <gradus/optimizer/views/shape.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

// data() and size() alone do not identify a contiguous range, because data() may be the start of the whole array in a
// view of a part (xtensor), and size() may be the first extent (Boost.MultiArray).

/// Classes with contiguous iterators: std::vector, std::array, std::span, std::initializer_list, …
template <class R>
concept contiguous_range = requires(R& r) {
  { r.begin() } -> std::contiguous_iterator;
  { r.end() } -> std::sized_sentinel_for<decltype(r.begin())>;
};

/// Matrices, arrays, maps, blocks and other expressions of Eigen that have memory. They have its DirectAccessBit
/// (0x40); data() is not enough, because a transposed sum declares it too.
template <class R>
concept eigen_matrix = requires(R& r) {
  r.data();
  r.size();
  r.innerStride() + r.outerStride() + r.innerSize() + r.outerSize();
} && !requires { requires(unsigned(R::Flags) & 0x40u) == 0; };

/// Eigen's TensorMap, the only one of its tensors that is constructed from a pointer.
template <class R>
concept eigen_tensor_map = requires(R& r) { R(r.data(), r.dimensions()); };

/// Tensor, TensorFixedSize and TensorMap of Eigen's unsupported module. TensorRef is not included, because its data()
/// may be null or not yet computed.
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

/// std::mdspan (C++23) and its predecessors, over plain pointers.
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

/// The storage order if elements with these extents and strides are contiguous, otherwise nothing.
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

/// Contiguous iterators are tested last, because Armadillo's matrices have them too, and their shape would be lost.
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
  // From the iterators, because a class's data() may be a different pointer.
  static constexpr auto data(auto& r) noexcept { return std::to_address(r.begin()); }
  static constexpr std::size_t size(auto& r) noexcept { return static_cast<std::size_t>(r.end() - r.begin()); }
};

/// A span's size may exceed the difference type of its iterators, so it is read directly; error messages then show it.
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

/// Eigen's matrices, and its `Ref<const X>`, which may own a copy because it converts from expressions without memory.
template <class R>
concept eigen_owner = std::is_same_v<typename R::PlainObject, R> ||
                      std::is_convertible_v<typename R::ConstantReturnType, R>;

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

/// An index that converts to any integer type, because Eigen's tensors differ in the type of their indices.
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
  static constexpr storage_order order = std::size_t(R::NumIndices) < 2     ? storage_order::any
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

/// Whether a view of xtensor stores a reference to its array (view<Array&, slices…>) instead of the array itself.
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

/// Stride k of a default-constructed mapping, which has the extents fixed by its type, and 0 for the others.
template <class Mapping>
constexpr std::size_t stride_by_type(std::size_t k)
{
  return static_cast<std::size_t>(Mapping().stride(k));
}

/// Views whose type determines the storage order: layout_left and layout_right, but not layout_stride.
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

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
