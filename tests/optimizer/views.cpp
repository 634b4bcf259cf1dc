// What `add` and `rebind` take, and how they see it. Other libraries' classes are played here by classes of the same
// structure; views/libraries.cpp has the real ones, where they are installed.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <valarray>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/scene.hpp"
#include "support/spans_only.hpp"
#include "support/tensors.hpp"

namespace {

using front = spans_only<float>;
using gradus::storage_order;
using gradus::view_of;
using support::scalar_optimizer, support::tensor;

template <class R>
constexpr bool parameters = view_of<R, float>;
template <class R>
constexpr bool gradients = view_of<R, const float>;

/// Whether `opt` has been given n elements from that address on.
bool holds(const front& opt, const float* first, std::size_t n)
{
  return opt.parameters.data() == first && opt.parameters.size() == n;
}
bool holds_gradients(const front& opt, const float* first, std::size_t n)
{
  return opt.gradients && opt.gradients->data() == first && opt.gradients->size() == n;
}

template <class F>
void check_refused(front& opt, const F& call, const std::string& sentence)
{
  const int calls = opt.calls;
  CHECK_THROWS_WITH_AS(call(), ("gradus: " + sentence).c_str(), std::invalid_argument);
  CHECK(opt.calls == calls);
}

// ── classes of the structure of other libraries' ────────────────────────────────────────────────────────────────────

/// A view of a part of an array: data() is the whole array's, and so is size().
struct part {
  std::vector<float>* all;
  std::size_t first, count;

  float* data() const { return all->data(); }
  std::size_t size() const { return all->size(); }
  auto begin() const { return all->begin() + std::ptrdiff_t(first); }
  auto end() const { return begin() + std::ptrdiff_t(count); }
};

/// Rows that are not contiguous by their iterators.
struct by_rows {
  float elements[3][4];
  float* data() { return elements[0]; }
  std::size_t size() const { return 3; }
  auto begin() { return elements; }
  auto end() { return elements + 3; }
};

/// Eigen's matrices, maps and blocks.
template <bool RowMajor, bool Vector = false>
struct eigen {
  enum { Flags = 0x40, IsRowMajor = RowMajor, IsVectorAtCompileTime = Vector };
  float* first;
  long row_count, column_count, inner_stride = 1, outer_stride = RowMajor ? column_count : row_count;

  float* data() const { return first; }
  long size() const { return row_count * column_count; }
  long rows() const { return row_count; }
  long cols() const { return column_count; }
  long innerSize() const { return RowMajor ? column_count : row_count; }
  long outerSize() const { return RowMajor ? row_count : column_count; }
  long innerStride() const { return inner_stride; }
  long outerStride() const { return outer_stride; }
};

/// Eigen's tensors: one that owns is made of its extents, a map of a pointer too.
template <int Order>
struct eigen_tensor {
  using Scalar = float;
  enum { Layout = Order };
  static constexpr long NumIndices = 3;
  float* first = nullptr;
  std::array<long, 3> extents;

  explicit eigen_tensor(std::array<long, 3> e) : extents(e) {}
  float* data() const { return first; }
  long size() const { return extents[0] * extents[1] * extents[2]; }
  const std::array<long, 3>& dimensions() const { return extents; }
  long dimension(std::size_t k) const { return extents[k]; }
};

template <int Order>
struct eigen_tensor_map : eigen_tensor<Order> {
  eigen_tensor_map(float* p, std::array<long, 3> e) : eigen_tensor<Order>(e) { this->first = p; }
};

/// xtensor's arrays and views.
struct xtensor {
  static constexpr int static_layout = 0;
  float* whole;
  std::size_t offset;
  std::vector<std::size_t> extents;
  std::vector<std::ptrdiff_t> steps;

  float* data() const { return whole; }
  std::size_t data_offset() const { return offset; }
  std::size_t dimension() const { return extents.size(); }
  const std::vector<std::size_t>& shape() const { return extents; }
  const std::vector<std::ptrdiff_t>& strides() const { return steps; }
  std::size_t size() const
  {
    std::size_t n = 1;
    for (const std::size_t e : extents)
      n *= e;
    return n;
  }
  float* begin() const { return whole; }  // of the whole array: not to be looked at
  float* end() const { return whole + 100; }
};

/// std::mdspan, with strides that are known when the program runs.
struct mdspan {
  struct extents_type {
    std::array<int, 2> all;
    static constexpr std::size_t rank() { return 2; }
    int extent(std::size_t k) const { return all[k]; }
  };
  struct mapping_type {
    std::array<int, 2> all;
    int stride(std::size_t k) const { return all[k]; }
  };
  using reference = float&;
  float* first;
  extents_type e;
  mapping_type m;

  float* data_handle() const { return first; }
  const extents_type& extents() const { return e; }
  const mapping_type& mapping() const { return m; }
  bool is_exhaustive() const
  {
    return (e.all[0] - 1) * m.all[0] + (e.all[1] - 1) * m.all[1] + 1 == e.all[0] * e.all[1];
  }
};
/// With an accessor that makes values up, such as one that scales them.
struct scaled_mdspan : mdspan {
  using reference = float;
};

/// std::mdspan with std::layout_left or std::layout_right, whose order the type tells.
template <bool Right>
struct ordered_mdspan {
  using extents_type = mdspan::extents_type;
  struct mapping_type {
    extents_type e = {};
    constexpr int stride(std::size_t k) const { return Right ? (k ? 1 : e.all[1]) : (k ? e.all[0] : 1); }
  };
  using reference = float&;
  float* first;
  mapping_type m;

  static constexpr std::size_t rank() { return 2; }
  static constexpr bool is_always_exhaustive() { return true; }
  static constexpr bool is_always_strided() { return true; }
  float* data_handle() const { return first; }
  const extents_type& extents() const { return m.e; }
  const mapping_type& mapping() const { return m; }
  bool is_exhaustive() const { return true; }
  bool is_strided() const { return true; }
};

/// Armadillo's matrices; they have iterators too.
struct armadillo {
  static constexpr bool is_row = false, is_col = false;
  float* first;
  unsigned long n_rows, n_cols, n_elem = n_rows * n_cols;

  float* memptr() { return first; }
  const float* memptr() const { return first; }
  float* begin() { return first; }
  float* end() { return first + n_elem; }
};

/// A class of the user's own.
struct image {
  std::vector<float> pixels;
  std::size_t height, width, padding;
};

}  // namespace

template <>
struct gradus::view_traits<image> {
  static auto data(auto& i) -> decltype(i.pixels.data()) { return i.pixels.data(); }
  static std::size_t size(const image& i) { return i.height * i.width; }
  static bool lies_side_by_side(const image& i) { return i.padding == 0; }
  static view_shape shape(const image& i) { return view_shape(storage_order::row_major, i.height, i.width); }
  static constexpr storage_order order = storage_order::row_major;
};

// ── what is a view ──────────────────────────────────────────────────────────────────────────────────────────────────

static_assert(parameters<std::vector<float>&> && gradients<const std::vector<float>&> &&
              gradients<std::vector<float>&>);
static_assert(parameters<std::array<float, 3>&> && parameters<float (&)[3]> && gradients<const float (&)[3]>);
static_assert(parameters<std::span<float>&> && parameters<const std::span<float>&> && parameters<std::span<float, 3>>);
static_assert(gradients<std::initializer_list<float>&> && gradients<const std::initializer_list<float>&>);

// const, or of another type
static_assert(!parameters<const std::vector<float>&> && !parameters<std::span<const float>> &&
              !parameters<const float (&)[3]>);
static_assert(!parameters<std::vector<double>&> && !gradients<std::vector<int>&> && !gradients<std::vector<bool>&>);
static_assert(!parameters<std::string&> && !gradients<std::vector<float*>&> &&
              !gradients<std::vector<std::vector<float>>&>);
static_assert(!parameters<std::span<volatile float>>);
static_assert(view_of<std::vector<gradus::bfloat16>&, gradus::bfloat16> && !parameters<std::vector<gradus::bfloat16>&>);

// not known to lie side by side
static_assert(!parameters<float*> && !parameters<float*&> && !parameters<std::nullptr_t> && !parameters<float&>);
static_assert(!parameters<std::unique_ptr<float[]>&> && !parameters<std::shared_ptr<float[]>&>);
static_assert(!parameters<std::valarray<float>&> && !gradients<std::valarray<float>&>);
static_assert(!parameters<by_rows&> && !gradients<by_rows&> && !parameters<scaled_mdspan&>);

// temporaries: what owns its elements, or may
static_assert(!parameters<std::vector<float>> && !gradients<const std::vector<float>> &&
              !parameters<std::vector<float>&&>);
static_assert(!parameters<std::array<float, 3>> && !gradients<std::initializer_list<float>> && !parameters<float[3]>);
static_assert(!parameters<xtensor> && !parameters<armadillo> && !parameters<eigen_tensor<0>>);
static_assert(!parameters<image> && !parameters<part> && parameters<part&>);
// and what does not
static_assert(parameters<std::span<float>> && gradients<std::span<const float>> && gradients<const std::span<float>>);
static_assert(parameters<mdspan> && parameters<ordered_mdspan<true>> && parameters<eigen_tensor_map<0>>);

// The concept has a name that others can use.
template <view_of<float> W>
std::size_t length(W&& w)
{
  return std::size(w);
}
static_assert(
    std::is_invocable_v<decltype([](auto&& w) -> decltype(length(w)) { return length(w); }), std::vector<float>&>);

TEST_CASE("views: contiguous ranges of every kind, by address and length")
{
  front opt;
  std::vector<float> vector(5);
  const std::array<float, 5> array{};
  opt.add(vector, array);
  CHECK(holds(opt, vector.data(), 5));
  CHECK(holds_gradients(opt, array.data(), 5));
  float c_array[4];
  const std::initializer_list<float> list{1, 2, 3, 4};
  opt.add(c_array, list);
  CHECK(holds(opt, c_array, 4));
  CHECK(holds_gradients(opt, list.begin(), 4));
  opt.rebind({}, std::span(vector).subspan(1, 2), std::span<const float>(array).last(2));
  CHECK(holds(opt, vector.data() + 1, 2));
  CHECK(holds_gradients(opt, array.data() + 3, 2));
  std::vector<float> none;
  std::array<float, 0> nothing{};
  opt.add(none, nothing);
  CHECK(opt.parameters.empty());
}

TEST_CASE("views: iterators say where the elements lie, not a data() or a size() of something larger")
{
  front opt;
  std::vector<float> all(12), g(4);
  part row{&all, 4, 4};
  opt.add(row, g);
  CHECK(holds(opt, all.data() + 4, 4));
}

TEST_CASE("views: C arrays of several dimensions are all of their elements")
{
  front opt;
  float w[3][4];
  const float g[3][4] = {};
  opt.add(w, g);
  CHECK(holds(opt, &w[0][0], 12));
  CHECK(holds_gradients(opt, &g[0][0], 12));
  float other[4][3], cube[2][3][4], flat[24];
  check_refused(
      opt, [&] { opt.add("w", w, other); },
      "shape of gradients of tensor \"w\" is 4x3; expected 3x4, the shape of its parameters (a std::span(pointer, "
      "size) has no shape)");
  opt.add(cube, flat);
  CHECK(holds(opt, &cube[0][0][0], 24));
}

TEST_CASE("views: matrices of the same length and of other rows and columns are refused")
{
  front opt;
  float w[6], g[6];
  eigen<false> a{w, 2, 3}, same{g, 2, 3}, other{g, 3, 2};
  opt.add(a, same);
  CHECK(holds(opt, w, 6));
  CHECK(holds_gradients(opt, g, 6));
  const std::string sentence =
      " is 3x2; expected 2x3, the shape of its parameters (a std::span(pointer, size) has no shape)";
  check_refused(opt, [&] { opt.add(a, other); }, "shape of gradients" + sentence);
  check_refused(opt, [&] { opt.add("w", a, other); }, "shape of gradients of tensor \"w\"" + sentence);
  check_refused(opt, [&] { opt.rebind({}, a, other); }, "shape of gradients" + sentence);
  // Vectors and spans have a length alone.
  eigen<false, true> vector{g, 6, 1};
  eigen<true, true> row{g, 1, 6};
  opt.add(a, vector);
  opt.add(vector, row);
  opt.add(a, std::span(g));
  opt.rebind_gradients({}, other);
  CHECK(holds_gradients(opt, g, 6));
}

TEST_CASE("views: matrices of different storage orders are known by their types")
{
  using gradus::detail::orders_agree;
  static_assert(orders_agree<eigen<false>&, eigen<false>&> && !orders_agree<eigen<false>&, const eigen<true>&>);
  static_assert(orders_agree<eigen<false>&, eigen<true, true>&> && orders_agree<std::vector<float>&, eigen<true>&>);
  static_assert(orders_agree<eigen<true>&, float(&)[2][3]> && !orders_agree<eigen<false>&, float(&)[2][3]>);
  static_assert(orders_agree<eigen<false>&, float(&)[6]> && orders_agree<eigen<false>&, float(&)[1][6]>);
  static_assert(!orders_agree<eigen_tensor<0>&, eigen_tensor<1>&> && orders_agree<eigen_tensor<1>&, image&>);
  static_assert(!orders_agree<ordered_mdspan<false>, ordered_mdspan<true>> &&
                orders_agree<ordered_mdspan<true>, mdspan>);
  static_assert(!orders_agree<armadillo&, image&> && orders_agree<armadillo&, eigen<false>&>);
}

TEST_CASE(
    "views: different storage orders are refused where only the run tells, but not those of a single row or column")
{
  front opt;
  float w[6], g[6];
  const mdspan rows{w, {{2, 3}}, {{3, 1}}}, columns{g, {{2, 3}}, {{1, 2}}};
  check_refused(
      opt, [&] { opt.add("w", rows, columns); },
      "storage order of gradients of tensor \"w\" is column-major; expected row-major, the order of its parameters, or "
      "a "
      "copy in that order");
  check_refused(
      opt, [&] { opt.rebind({}, columns, rows); },
      "storage order of gradients is row-major; expected column-major, the order of its parameters, or a copy in that "
      "order");
  eigen<false> matrix{g, 2, 3};
  xtensor array{g, 0, {2, 3}, {3, 1}};
  check_refused(
      opt, [&] { opt.add(rows, matrix); },
      "storage order of gradients is column-major; expected row-major, the order of its parameters, or a copy in that "
      "order");
  opt.add(columns, matrix);
  opt.add(rows, array);
  const mdspan row{w, {{1, 6}}, {{6, 1}}}, also_row{g, {{1, 6}}, {{1, 1}}};
  opt.add(row, also_row);
  CHECK(holds(opt, w, 6));
}

TEST_CASE("views: gaps between elements are refused, the first element of a part is where the part begins")
{
  front opt;
  float all[12], g[12];
  const std::string gaps =
      " has gaps between its elements, or an order that is neither row-major nor column-major; expected "
      "elements that lie side by side (a whole matrix, or a copy)";
  SUBCASE("Eigen's blocks")
  {
    eigen<false> whole{all, 3, 4}, columns{all + 3, 3, 2}, rows{all, 2, 4, 1, 3}, single_row{all, 1, 4, 1, 3},
        element{all, 1, 1, 7, 9};
    opt.add(whole, std::span(g));
    opt.add(columns, std::span(g, 6));
    CHECK(holds(opt, all + 3, 6));
    opt.add(element, std::span(g, 1));
    check_refused(
        opt, [&] { opt.add(rows, std::span(g, 8)); },
        "parameters has inner stride 1 and outer stride 3; expected elements that lie side by side (a whole matrix, or "
        "a "
        "copy)");
    check_refused(
        opt, [&] { opt.add("w", std::span(g, 4), single_row); },
        "gradients of tensor \"w\" has inner stride 1 and outer stride 3; expected elements that lie side by side (a "
        "whole "
        "matrix, or a copy)");
    check_refused(
        opt, [&] { opt.rebind_gradients({}, single_row); },
        "gradients has inner stride 1 and outer stride 3; expected elements that lie side by side (a whole matrix, or "
        "a "
        "copy)");
  }
  SUBCASE("xtensor's views")
  {
    xtensor row{all, 4, {4}, {1}}, column{all, 1, {3}, {4}}, rows{all, 4, {2, 4}, {4, 1}},
        permuted{all, 0, {2, 3, 2}, {6, 1, 3}}, kept_axis{all, 8, {1, 4}, {0, 1}}, reversed{all, 11, {12}, {-1}};
    opt.add(row, std::span(g, 4));
    CHECK(holds(opt, all + 4, 4));
    opt.add(rows, std::span(g, 8));
    CHECK(holds(opt, all + 4, 8));
    opt.add(kept_axis, std::span(g, 4));
    CHECK(holds(opt, all + 8, 4));
    for (xtensor* x : {&column, &permuted, &reversed})
      check_refused(opt, [&] { opt.add(*x, std::span(g, x->size())); }, "parameters" + gaps);
    check_refused(opt, [&] { opt.rebind({}, std::span(all, 3), column); }, "gradients" + gaps);
  }
  SUBCASE("mdspan")
  {
    const mdspan padded{all, {{3, 3}}, {{4, 1}}}, overlapping{all, {{2, 2}}, {{0, 1}}};
    check_refused(opt, [&] { opt.add("w", padded, std::span(g, 9)); }, "parameters of tensor \"w\"" + gaps);
    check_refused(opt, [&] { opt.add(overlapping, std::span(g, 4)); }, "parameters" + gaps);
  }
  SUBCASE("a class of one's own")
  {
    image padded{std::vector<float>(12), 3, 3, 1}, whole{std::vector<float>(9), 3, 3, 0};
    check_refused(opt, [&] { opt.add(padded, whole); }, "parameters" + gaps);
  }
}

TEST_CASE("views: shapes of tensors, arrays and spans of several dimensions, and of classes of one's own")
{
  front opt;
  float w[24], g[24];
  const auto shapes = [](const std::string& given, const std::string& expected) {
    return "shape of gradients is " + given + "; expected " + expected +
           ", the shape of its parameters (a std::span(pointer, size) has no shape)";
  };
  eigen_tensor_map<0> t(w, {2, 3, 4}), u(g, {3, 2, 4});
  opt.add(t, t);
  CHECK(holds(opt, w, 24));
  check_refused(opt, [&] { opt.add(t, u); }, shapes("3x2x4", "2x3x4"));
  xtensor x{w, 0, {4, 6}, {6, 1}}, y{g, 0, {6, 4}, {4, 1}}, line{g, 0, {24}, {1}};
  check_refused(opt, [&] { opt.add(x, y); }, shapes("6x4", "4x6"));
  opt.add(x, line);
  armadillo a{w, 4, 6}, b{g, 6, 4};
  opt.add(a, a);
  CHECK(holds(opt, w, 24));
  check_refused(opt, [&] { opt.add(a, b); }, shapes("6x4", "4x6"));
  check_refused(opt, [&] { opt.add(t, a); }, shapes("4x6", "2x3x4"));
  check_refused(
      opt, [&] { opt.add(ordered_mdspan<true>{w, {{{4, 6}}}}, ordered_mdspan<true>{g, {{{6, 4}}}}); },
      shapes("6x4", "4x6"));
  image i{std::vector<float>(6), 2, 3, 0}, j{std::vector<float>(6), 3, 2, 0};
  check_refused(opt, [&] { opt.add(i, j); }, shapes("3x2", "2x3"));
  const image& read_only = i;
  opt.add(i, read_only);
  CHECK(holds(opt, i.pixels.data(), 6));
}

namespace {

// Eigen's block of a matrix, as far as gradus looks at it.
struct eigen_block {
  float* first;
  std::size_t count;
  std::ptrdiff_t inner_stride, outer_stride, inner_size, outer_size;

  float* data() const { return first; }
  std::size_t size() const { return count; }
  std::ptrdiff_t innerStride() const { return inner_stride; }
  std::ptrdiff_t outerStride() const { return outer_stride; }
  std::ptrdiff_t innerSize() const { return inner_size; }
  std::ptrdiff_t outerSize() const { return outer_size; }
};

}  // namespace

TEST_CASE("add, rebind: elements that do not lie side by side are refused")
{
  std::vector<float> memory(12, 1.0f);
  const eigen_block row{memory.data(), 4, 3, 1, 1, 4};
  const eigen_block corner{memory.data(), 4, 1, 3, 2, 2};
  const eigen_block column{memory.data(), 3, 1, 12, 3, 1};  // one column: where the next would begin is of no matter
  const eigen_block matrix{memory.data() + 6, 6, 1, 3, 3, 2};
  support::check_refused("gradus: parameters of tensor \"x\" has inner stride 3 and outer stride 1; expected elements "
                         "that lie side by side (a whole matrix, or a copy)",
                         [&](auto& s) { s.opt.add("x", row, s.spare_gradient); });
  support::check_refused("gradus: parameters has inner stride 1 and outer stride 3; expected elements that lie side by "
                         "side (a whole matrix, or a copy)",
                         [&](auto& s) { s.opt.add(corner, s.spare_gradient); });
  support::check_refused("gradus: gradients has inner stride 1 and outer stride 3; expected elements that lie side by "
                         "side (a whole matrix, or a copy)",
                         [&](auto& s) { s.opt.rebind(s.b, s.spare, corner); });
  scalar_optimizer<gradus::sgd> opt;
  std::vector<float> other(6, 1.0f), third(3, 1.0f);
  CHECK_NOTHROW(opt.add(column, third));
  CHECK_NOTHROW(opt.add(other, matrix));
}

// ── alignment ───────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

/// n elements that begin `offset` bytes after an address that suits all types; not to be read.
template <class T>
std::span<T> misaligned(std::byte* aligned, std::size_t offset, std::size_t n)
{
  return {reinterpret_cast<T*>(aligned + offset), n};
}

template <class T>
std::string not_aligned(const std::string& what, std::span<T> elements)
{
  return "address of " + what + " is " + std::to_string(reinterpret_cast<std::uintptr_t>(elements.data())) +
         "; expected a multiple of " + std::to_string(alignof(T)) + ", the alignment of its elements";
}

template <class T>
void check_alignment_of()
{
  alignas(16) std::byte memory[64];
  spans_only<T> opt;
  std::vector<T> good(2);
  for (std::size_t offset = 1; offset < alignof(T); ++offset) {
    const auto bad = misaligned<T>(memory, offset, 2);
    const auto refused = [&](const auto& call, const std::string& sentence) {
      CHECK_THROWS_WITH_AS(call(), ("gradus: " + sentence).c_str(), std::invalid_argument);
      CHECK(opt.calls == 0);
    };
    refused([&] { opt.add(bad, good); }, not_aligned("parameters", bad));
    refused([&] { opt.add("w", good, bad); }, not_aligned("gradients of tensor \"w\"", bad));
    refused([&] { opt.add("w", bad); }, not_aligned("parameters of tensor \"w\"", bad));
    refused([&] { opt.rebind({}, bad, good); }, not_aligned("parameters", bad));
    refused([&] { opt.rebind({}, good, bad); }, not_aligned("gradients", bad));
    refused([&] { opt.rebind_gradients({}, bad); }, not_aligned("gradients", bad));
  }
  opt.add(misaligned<T>(memory, alignof(T), 2), good);
  opt.add(misaligned<T>(memory, 1, 0), misaligned<T>(memory, 1, 0));  // nothing is there to be read
  CHECK(opt.calls == 2);
}

}  // namespace

TEST_CASE("views: elements at an address that their type cannot have are refused")
{
  check_alignment_of<float>();
  check_alignment_of<double>();
  check_alignment_of<gradus::bfloat16>();
}

TEST_CASE("views: spans that come straight to an optimizer are refused too at an address that their type cannot have")
{
  alignas(16) std::byte memory[64];
  const auto bad = misaligned<float>(memory, 2, 2);
  std::vector<float> w(2), g(2);
  gradus::optimizer<gradus::sgd> opt;
  CHECK_THROWS_WITH_AS(opt.add_spans("w", bad, g),
                       ("gradus: " + not_aligned("parameters of tensor \"w\"", bad)).c_str(), std::invalid_argument);
  const auto h = opt.add_spans("w", w, g);
  CHECK_THROWS_WITH_AS(opt.rebind_spans(h, w, bad),
                       ("gradus: " + not_aligned("gradients of tensor \"w\"", bad)).c_str(), std::invalid_argument);
  CHECK(opt.parameter_count() == 2);
}

TEST_CASE("copy_average: an address that its elements cannot have is refused")
{
  alignas(16) std::byte memory[64] = {};
  const auto bad = misaligned<float>(memory, 2, 2);
  std::vector<float> w(2), g(2);
  gradus::optimizer<gradus::schedule_free_adamw> opt;
  const auto h = opt.add("w", w, g);
  opt.step();
  CHECK_THROWS_WITH_AS(opt.copy_average(h, bad), ("gradus: " + not_aligned("to of tensor \"w\"", bad)).c_str(),
                       std::invalid_argument);
  CHECK(std::all_of(std::begin(memory), std::end(memory), [](std::byte b) { return b == std::byte(); }));
}

// ── tensors of frameworks ───────────────────────────────────────────────────────────────────────────────────────────

namespace {

/// A tensor whose element type is known only at run time, with a gradient that may be undefined, and padding at its end.
struct framework_tensor {
  std::vector<float>* elements = nullptr;
  std::string type = "float";
  std::size_t numbers = 0;
  int layout = 0;
};

/// Two libraries' images, whose channels may be last.
template <int library>
struct framework_image {
  std::vector<float>* elements;
  gradus::storage_order order;
};

}  // namespace

template <int library>
struct gradus::view_traits<framework_image<library>> {
  static auto data(auto& i) { return i.elements->data(); }
  static std::size_t size(const framework_image<library>& i) { return i.elements->size(); }
  static view_shape shape(const framework_image<library>& i) { return view_shape(i.order, 2, 2, 2); }
  static bool same_layout(const framework_image<library>&, const framework_image<library>&) { return true; }
  static std::string layout(const framework_image<library>&) { return "channels last"; }
};

TEST_CASE("view_traits: layouts of different libraries that cannot be compared are refused")
{
  std::vector<float> w(8), g(8);
  framework_image<1> weights{&w, gradus::storage_order::other};
  framework_image<2> gradients{&g, gradus::storage_order::other};
  front opt;
  check_refused(
      opt, [&] { opt.add("w", weights, gradients); },
      "storage order of gradients of tensor \"w\" is neither row-major nor column-major, nor is its parameters'; "
      "expected tensors whose layouts can be compared (view_traits::same_layout), or copies in row-major order");
  framework_image<1> own{&g, gradus::storage_order::other};
  opt.add(weights, own);
  weights.order = gradients.order = gradus::storage_order::row_major;
  opt.add(weights, gradients);
  opt.add(weights, g);
  CHECK(holds_gradients(opt, g.data(), 8));
}

template <>
struct gradus::view_traits<framework_tensor> {
  template <class Element>
    requires(std::is_same_v<std::remove_const_t<Element>, float>)
  static Element* data_as(const framework_tensor& t, const view_argument& of)
  {
    if (t.type != "float")
      gradus::refuse("type of " + of.text() + " is " + t.type + "; expected float");
    return t.elements->data();
  }
  static std::size_t size(const framework_tensor& t) { return t.elements->size(); }
  static bool is_undefined(const framework_tensor& t) { return t.elements == nullptr; }
  static bool same_layout(const framework_tensor& a, const framework_tensor& b) { return a.layout == b.layout; }
  static std::string layout(const framework_tensor& t) { return std::to_string(t.layout); }
  static auto padding(const framework_tensor& t)
  {
    const auto is_padding = [n = t.numbers](std::size_t i) { return i >= n; };
    return t.numbers < t.elements->size() ? std::optional(is_padding) : std::nullopt;
  }
};

TEST_CASE("view_traits: of tensors whose type is known at run time")
{
  std::vector<float> w(3), g(3);
  framework_tensor a{&w, "float", 3, 0}, b{&g, "float", 3, 0};
  front opt;
  opt.add("w", a, b);
  CHECK(holds(opt, w.data(), 3));
  CHECK(holds_gradients(opt, g.data(), 3));
  static_assert(parameters<framework_tensor&> && parameters<const framework_tensor&> && !parameters<framework_tensor>);
  static_assert(!view_of<framework_tensor&, double>);
  b.type = "int";
  check_refused(opt, [&] { opt.add("w", a, b); }, "type of gradients of tensor \"w\" is int; expected float");
  check_refused(opt, [&] { opt.rebind_gradients({}, b); }, "type of gradients is int; expected float");
  a.type = "double";
  check_refused(opt, [&] { opt.add(a); }, "type of parameters is double; expected float");
  a.type = b.type = "float";
  b.layout = 4;
  check_refused(
      opt, [&] { opt.add("w", a, b); },
      "layout of gradients of tensor \"w\" is 4; expected 0, the layout of its parameters, or a copy in that layout");
  check_refused(
      opt, [&] { opt.rebind({}, a, b); },
      "layout of gradients is 4; expected 0, the layout of its parameters, or a copy in that layout");
  opt.add(a, g);
  CHECK(holds_gradients(opt, g.data(), 3));
}

TEST_CASE("view_traits: without gradients, a tensor waits for them, and may lose them")
{
  std::vector<float> w(3), g(3, 1.0f), mask_memory(3);
  framework_tensor a{&w, "float", 3, 0}, b{&g, "float", 3, 0}, none;
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto h = opt.add("w", a, none);
  opt.step();
  CHECK(w == std::vector<float>(3, 0.0f));
  opt.rebind_gradients(h, b);
  opt.step();
  opt.rebind_gradients(h, none);
  opt.step();
  opt.rebind(h, a, none);
  opt.step();
  CHECK(w == std::vector<float>(3, -1.0f));
  CHECK(opt.step_count(h) == 1);
  opt.rebind(h, a, b);
  opt.step();
  CHECK(w == std::vector<float>(3, -2.0f));
  framework_tensor c{&mask_memory, "float", 3, 0};
  const std::vector<bool> mask{true, false, true};
  const auto masked = opt.add("masked", c, none, gradus::trained_mask(mask));
  opt.rebind_gradients(masked, b);
  opt.step();
  CHECK(mask_memory == std::vector<float>{-1, 0, -1});
}

TEST_CASE("view_traits: padding is marked by add")
{
  std::vector<float> w{1, 2, 0, 0}, g{3, 5, 0, 0};
  framework_tensor a{&w, "float", 2, 0}, b{&g, "float", 2, 0};
  gradus::optimizer<gradus::adams> opt;
  auto h = opt.add("w", a, b);
  CHECK(*opt.step().mean_square == doctest::Approx((9 + 25) / 2.0));
  opt.remove(h, gradus::removed_state::kept);
  opt.add("w", a, b);
  CHECK(*opt.step().mean_square == doctest::Approx((9 + 25) / 2.0));

  gradus::optimizer<gradus::yogi> started({.initial_accumulator = 1});
  started.add("w", a, b);
  CHECK(std::vector<float>(started.state("w", "exp_avg_sq").begin(), started.state("w", "exp_avg_sq").end()) ==
        std::vector<float>{1, 1, 0, 0});
  gradus::any_optimizer_of<float, gradus::adams> any("adams");
  any.add("w", a, b);
  CHECK(*any.step().mean_square == doctest::Approx((9 + 25) / 2.0));

  // A mask of trained elements speaks for itself.
  const std::vector<bool> mask{true, true, false, false};
  gradus::optimizer<gradus::adams> masked;
  const auto masked_tensor = masked.add("w", a, b, gradus::trained_mask(mask));
  CHECK(*masked.step().mean_square == doctest::Approx((9 + 25) / 2.0));
  masked.remove(masked_tensor, gradus::removed_state::kept);
  masked.add("w", a, b);  // with the mask that it had
  CHECK(*masked.step().mean_square == doctest::Approx((9 + 25) / 2.0));
}

// ── the forms of add ────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("add: contiguous ranges of every kind are viewed, never copied")
{
  tensor<float> a(4, 1);
  gradus::optimizer<gradus::adam> reference({.lr = 0.1});
  const std::vector<float> start = a.weights;
  reference.add(a.weights, a.gradients);
  reference.step();
  const auto check = [&](auto& weights, auto&& gradients) {
    gradus::optimizer<gradus::adam> opt({.lr = 0.1});
    opt.add(weights, gradients);
    CHECK(opt.parameter_count() == 4);
    opt.step();
    CHECK(std::memcmp(std::data(weights), a.weights.data(), 4 * sizeof(float)) == 0);
  };
  std::vector<float> vector = start;
  check(vector, std::as_const(a.gradients));
  std::array<float, 4> array{start[0], start[1], start[2], start[3]};
  const std::array<float, 4> const_array{a.gradients[0], a.gradients[1], a.gradients[2], a.gradients[3]};
  check(array, const_array);
  float c_array[] = {start[0], start[1], start[2], start[3]};
  const float const_c_array[] = {a.gradients[0], a.gradients[1], a.gradients[2], a.gradients[3]};
  check(c_array, const_c_array);
  std::vector<float> memory = start;
  std::span<float> span(memory);
  check(span, std::span<const float>(a.gradients));  // a temporary view of memory that stays is welcome
  memory = start;
  std::span<float, 4> fixed(memory);
  check(fixed, std::span<float>(a.gradients));
}

TEST_CASE("add: with and without a name, gradients and a group")
{
  front opt;
  std::vector<float> w(3), g(3);
  gradus::group_handle group;
  const std::string name = "layer";
  const auto check = [&](const char* expected_name, bool has_gradients, bool has_group) {
    CHECK(opt.name == expected_name);
    CHECK(holds(opt, w.data(), 3));
    CHECK(opt.gradients.has_value() == has_gradients);
    if (has_gradients)
      CHECK(holds_gradients(opt, g.data(), 3));
    CHECK(opt.group.has_value() == has_group);
  };
  opt.add(w, g), check("", true, false);
  opt.add(w, g, group), check("", true, true);
  opt.add(w, g, std::as_const(group)), check("", true, true);
  opt.add("w", w, g), check("w", true, false);
  opt.add("w", w, g, group), check("w", true, true);
  opt.add(w), check("", false, false);
  opt.add(w, group), check("", false, true);
  opt.add(w, std::as_const(group)), check("", false, true);
  opt.add(w, gradus::group_handle()), check("", false, true);
  opt.add("w", w), check("w", false, false);
  opt.add("w", w, group), check("w", false, true);
  opt.add("w", w, std::as_const(group)), check("w", false, true);
  opt.add(name, w), check("layer", false, false);
  opt.add(name, w, group), check("layer", false, true);
  opt.add(std::string("temporary"), w, g), check("temporary", true, false);
  opt.add(std::string_view("view"), w, g, group), check("view", true, true);
  opt.add(name.c_str(), std::span(w)), check("layer", false, false);
  CHECK(opt.calls == 17);
  opt.rebind_gradients({}, std::as_const(g));
  CHECK(holds_gradients(opt, g.data(), 3));
  for (const auto& nameless :
       {std::function<void()>([&] { opt.add("", w); }), std::function<void()>([&] { opt.add("", w, g); }),
        std::function<void()>([&] { opt.add("", w, group); })})
    CHECK_THROWS_WITH_AS(nameless(), "gradus: name is \"\"; expected at least one character, or no name at all",
                         std::invalid_argument);
  CHECK(opt.calls == 18);
}
