// `add` and `rebind` over the arrays of other libraries, of those that are installed.

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>
#endif
// Debian 12's xtensor and Boost do not compile with libc++ 19.
#if __has_include(<xtensor/xarray.hpp>) && !defined(_LIBCPP_VERSION)
#define GRADUS_TEST_XTENSOR
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#endif
#if __has_include(<armadillo>)
#define ARMA_DONT_USE_WRAPPER
#include <armadillo>
#endif
#if __has_include(<boost/multi_array.hpp>) && !defined(_LIBCPP_VERSION)
#include <boost/multi_array.hpp>
#endif
#if __has_include(<mdspan>)
#include <mdspan>
#endif

#include "support/spans_only.hpp"

namespace {

using front = spans_only<float>;
using gradus::view_of;
using gradus::detail::orders_agree;

template <class R>
[[maybe_unused]] constexpr bool parameters = view_of<R, float>;
template <class R>
[[maybe_unused]] constexpr bool gradients = view_of<R, const float>;

[[maybe_unused]] bool holds(const front& opt, const float* first, std::size_t n)
{
  return opt.parameters.data() == first && opt.parameters.size() == n;
}

template <class F>
[[maybe_unused]] void check_refused(const F& call, const std::string& sentence)
{
  CHECK_THROWS_WITH_AS(call(), ("gradus: " + sentence).c_str(), std::invalid_argument);
}

[[maybe_unused]] const std::string gaps = " has gaps between its elements, or an order that is neither row-major nor "
                                          "column-major; expected elements that lie side by "
                                          "side (a whole matrix, or a copy)";

[[maybe_unused]] std::string shapes(const std::string& given, const std::string& expected)
{
  return "shape of gradients is " + given + "; expected " + expected +
         ", the shape of its parameters (a std::span(pointer, size) has no shape)";
}

}  // namespace

#if __has_include(<Eigen/Core>)

namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::MatrixXf, Eigen::VectorXf, Eigen::Ref, Eigen::Map;

template <class R>
using transposed = decltype(std::declval<R>().transpose());
template <class R>
using column = decltype(std::declval<R>().col(0));
template <class R>
using rows_only = decltype(std::declval<R>().topRows(1));
template <class R>
using reshaped = decltype(std::declval<R>().reshaped(3, 2));
using sum = decltype(std::declval<MatrixXf&>() + std::declval<MatrixXf&>());

static_assert(parameters<MatrixXf&> && parameters<row_major&> && parameters<VectorXf&> && parameters<Eigen::Array33f&>);
static_assert(gradients<const MatrixXf&> && !parameters<const MatrixXf&> && !parameters<Eigen::MatrixXd&>);
static_assert(parameters<Map<MatrixXf>> && gradients<Map<const MatrixXf>> && !parameters<Map<const MatrixXf>>);
static_assert(parameters<Ref<MatrixXf>> && parameters<Ref<VectorXf>> && parameters<Ref<Eigen::ArrayXf>>);
static_assert(parameters<column<MatrixXf&>> && parameters<rows_only<MatrixXf&>> && gradients<column<const MatrixXf&>>);
static_assert(parameters<transposed<MatrixXf&>> && gradients<transposed<const MatrixXf&>>);
static_assert(parameters<reshaped<MatrixXf&>> && gradients<reshaped<const MatrixXf&>>);
static_assert(parameters<decltype(std::declval<MatrixXf&>().array())> && parameters<column<Map<MatrixXf>&>>);

// temporaries that own, or may: a Ref of const copies what has no memory
static_assert(!parameters<MatrixXf> && !gradients<const VectorXf> && !gradients<decltype(std::declval<sum>().eval())>);
static_assert(!gradients<Ref<const MatrixXf>> && !gradients<Ref<const VectorXf>> &&
              !gradients<Ref<const Eigen::ArrayXf>>);
static_assert(gradients<Ref<const MatrixXf>&> && gradients<const Ref<const VectorXf>&>);
// expressions, some of which declare data()
static_assert(!gradients<sum> && !gradients<sum&> && !gradients<transposed<sum>> && !gradients<column<sum>>);
static_assert(!gradients<decltype(2 * std::declval<VectorXf&>())> && !gradients<decltype(std::declval<sum>().array())>);

static_assert(!orders_agree<row_major&, MatrixXf&> && !orders_agree<MatrixXf&, transposed<MatrixXf&>>);
static_assert(orders_agree<MatrixXf&, transposed<row_major&>> &&
              orders_agree<transposed<MatrixXf&>, transposed<MatrixXf&>>);
static_assert(!orders_agree<Map<row_major>, Ref<MatrixXf>> && orders_agree<VectorXf&, row_major&>);
static_assert(!orders_agree<Eigen::Matrix<float, 2, 3, Eigen::RowMajor>&, const Eigen::Matrix<float, 2, 3>&>);
static_assert(orders_agree<Eigen::RowVectorXf&, MatrixXf&> && !orders_agree<MatrixXf&, float (&)[2][3]>);

template <int Options = 0>
using tensor = Eigen::Tensor<float, 3, Options>;
static_assert(parameters<tensor<>&> && gradients<const tensor<>&> && !parameters<tensor<>> && !gradients<tensor<>>);
static_assert(parameters<Eigen::TensorMap<tensor<>>> && gradients<Eigen::TensorMap<const tensor<>>>);
static_assert(!parameters<Eigen::TensorMap<const tensor<>>> && !gradients<Eigen::TensorRef<tensor<>>&>);
static_assert(parameters<Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3>>&>);
static_assert(!parameters<Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3>>>);
static_assert(!gradients<decltype(std::declval<tensor<>&>() + std::declval<tensor<>&>())>);
static_assert(!orders_agree<tensor<>&, tensor<Eigen::RowMajor>&>);
static_assert(!orders_agree<tensor<>&, Eigen::TensorMap<tensor<Eigen::RowMajor>>>);

}  // namespace

TEST_CASE("Eigen: matrices, maps, blocks and transposed matrices")
{
  front opt;
  MatrixXf w = MatrixXf::Zero(2, 3), g = w;
  row_major r(3, 2);
  opt.add(w, g);
  CHECK(holds(opt, w.data(), 6));
  opt.add(w.col(1), g.col(2));
  CHECK(holds(opt, w.data() + 2, 2));
  CHECK(opt.gradients->data() == g.data() + 4);
  opt.add(w.transpose(), g.transpose());
  opt.add(w, r.transpose());
  opt.add(w.rightCols(2), g.leftCols(2));
  CHECK(holds(opt, w.data() + 2, 4));
  opt.add(w.row(0).segment(1, 1), g.block(1, 1, 1, 1));
  CHECK(holds(opt, w.data() + 2, 1));
  VectorXf v(6);
  opt.add(w, v);
  const Ref<const VectorXf> kept(2 * v);
  opt.add(v, kept);
  CHECK(opt.gradients->data() == kept.data());
  check_refused([&] { opt.add(w, g.reshaped(3, 2)); }, shapes("3x2", "2x3"));
  check_refused([&] { opt.add(w, MatrixXf::Map(v.data(), 3, 2)); }, shapes("3x2", "2x3"));
  check_refused(
      [&] { opt.add(w.row(0), v.head(3)); },
      "parameters has inner stride 2 and outer stride 1; expected elements that lie side by side (a whole matrix, or a "
      "copy)");
  check_refused(
      [&] { opt.add(v.head(6), Map<VectorXf, 0, Eigen::InnerStride<>>(v.data(), 6, Eigen::InnerStride<>(2))); },
      "gradients has inner stride 2 and outer stride 12; expected elements that lie side by side (a whole matrix, or a "
      "copy)");
}

TEST_CASE("Eigen: tensors and their maps")
{
  front opt;
  tensor<> w(2, 3, 4), g(2, 3, 4), other(4, 3, 2);
  opt.add(w, g);
  CHECK(holds(opt, w.data(), 24));
  opt.add(Eigen::TensorMap<tensor<>>(w.data(), 2, 3, 4), g);
  check_refused([&] { opt.add(w, other); }, shapes("4x3x2", "2x3x4"));
  Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3>> fixed;
  MatrixXf matrix(3, 2);
  check_refused([&] { opt.add(fixed, matrix); }, shapes("3x2", "2x3"));
}

#endif

#if defined(GRADUS_TEST_XTENSOR)

TEST_CASE("xtensor: whole arrays, and views of parts from where the part begins")
{
  using array = xt::xarray<float>;
  using columns_first = xt::xarray<float, xt::layout_type::column_major>;
  using matrix = xt::xtensor<float, 2>;
  using matrix_columns_first = xt::xtensor<float, 2, xt::layout_type::column_major>;
  static_assert(parameters<array&> && gradients<const array&> && !parameters<const array&> && !gradients<array>);
  static_assert(parameters<matrix&> && !gradients<matrix> && !orders_agree<matrix&, matrix_columns_first&>);

  front opt;
  array a = xt::zeros<float>({3, 4}), b = a;
  columns_first c = a;
  matrix m = a;
  static_assert(!gradients<decltype(a + b)> && !gradients<decltype(2 * a)&> &&
                !gradients<decltype(xt::view(array(a), 1))>);
  opt.add(a, b);
  CHECK(holds(opt, a.data(), 12));
  opt.add(a, m);
  opt.add(xt::view(a, 1), xt::view(b, 2));
  CHECK(holds(opt, a.data() + 4, 4));
  CHECK(opt.gradients->data() == b.data() + 8);
  opt.add(xt::view(a, xt::range(1, 3)), xt::view(b, xt::range(0, 2)));
  CHECK(holds(opt, a.data() + 4, 8));
  opt.add(xt::view(xt::view(a, xt::range(1, 3)), 1), xt::view(b, 0));
  CHECK(holds(opt, a.data() + 8, 4));
  opt.add(xt::view(c, xt::all(), 1), std::span(b.data(), 3));
  CHECK(holds(opt, c.data() + 3, 3));
  auto strided = xt::strided_view(a, {2, xt::all()});
  opt.add(strided, strided);
  CHECK(holds(opt, a.data() + 8, 4));
  auto adapted = xt::adapt(m.data(), 12, xt::no_ownership(), std::array<std::size_t, 2>{3, 4});
  opt.add(adapted, a);
  CHECK(holds(opt, m.data(), 12));

  check_refused([&] { opt.add(xt::view(a, xt::all(), 1), xt::view(b, xt::all(), 1)); }, "parameters" + gaps);
  check_refused([&] { opt.rebind({}, xt::view(a, 1), xt::view(c, 1)); }, "gradients" + gaps);
  check_refused([&] { opt.add(a, c); },
                "storage order of gradients is column-major; expected row-major, the order of its "
                "parameters, or a copy in that order");
  array d = xt::zeros<float>({4, 3});
  check_refused([&] { opt.add(a, d); }, shapes("4x3", "3x4"));
  auto transposed = xt::transpose(m);
  check_refused([&] { opt.add(d, transposed); },
                "storage order of gradients is column-major; expected row-major, the order of its "
                "parameters, or a copy in that order");
}

#endif

#if __has_include(<armadillo>)

TEST_CASE("Armadillo: vectors, matrices and cubes")
{
  using arma::fcube, arma::fmat, arma::fvec;
  static_assert(parameters<fmat&> && gradients<const fvec&> && !parameters<const fmat&> && !parameters<arma::mat&>);
  static_assert(!gradients<fmat> && !gradients<fvec> && parameters<fcube&>);
  front opt;
  fmat w(2, 3), g(2, 3), other(3, 2);
  fvec v(6);
  fcube cube(1, 2, 3);
  static_assert(!gradients<decltype(w + g)> && !gradients<decltype(w.row(0))&> && !orders_agree<fmat&, float(&)[2][3]>);
  opt.add(w, g);
  CHECK(holds(opt, w.memptr(), 6));
  opt.add(w, v);
  opt.add(cube, v);
  check_refused([&] { opt.add(w, other); }, shapes("3x2", "2x3"));
  check_refused([&] { opt.add(cube, w); }, shapes("2x3", "1x2x3"));
}

#endif

#if __has_include(<boost/multi_array.hpp>) && !defined(_LIBCPP_VERSION)

TEST_CASE("Boost: a multi_array, whose size() is its first extent, is passed as a span")
{
  using boost::multi_array, boost::multi_array_ref;
  static_assert(!parameters<multi_array<float, 2>&> && !gradients<const multi_array<float, 3>&>);
  static_assert(!parameters<multi_array<float, 1>&> && !parameters<multi_array_ref<float, 2>&>);
  front opt;
  multi_array<float, 2> w(boost::extents[3][4]);
  static_assert(!parameters<decltype(w[0])> && !parameters<decltype(w[0])&>);
  opt.add(std::span(w.data(), w.num_elements()));
  CHECK(holds(opt, w.data(), 12));
}

#endif

#if defined(__cpp_lib_mdspan)

TEST_CASE("std::mdspan: where it is exhaustive, and in the same order")
{
  using extents = std::dextents<int, 2>;
  using rows = std::mdspan<float, extents>;
  using columns = std::mdspan<float, extents, std::layout_left>;
  using strided = std::mdspan<float, extents, std::layout_stride>;
  static_assert(parameters<rows> && parameters<const rows&> && parameters<strided> &&
                !parameters<std::mdspan<const float, extents>>);
  static_assert(gradients<std::mdspan<const float, std::extents<int, 2, 3>>>);
  static_assert(!orders_agree<rows, columns> && orders_agree<rows, strided>);
  static_assert(!orders_agree<std::mdspan<float, std::extents<int, 2, 3>>, columns>);
  front opt;
  float w[6], g[6];
  opt.add(rows(w, 2, 3), rows(g, 2, 3));
  CHECK(holds(opt, w, 6));
  check_refused([&] { opt.add(rows(w, 2, 3), rows(g, 3, 2)); }, shapes("3x2", "2x3"));
  const auto with = [&](int rows, int columns, int down, int right) {
    return strided(g, strided::mapping_type(extents(rows, columns), std::array<int, 2>{down, right}));
  };
  opt.add(rows(w, 2, 3), with(2, 3, 3, 1));
  check_refused(
      [&] { opt.add(rows(w, 2, 3), with(2, 3, 1, 2)); },
      "storage order of gradients is column-major; expected row-major, the order of its parameters, or a copy in that "
      "order");
  check_refused([&] { opt.add(rows(w, 2, 2), with(2, 2, 3, 1)); }, "gradients" + gaps);
}

#endif
