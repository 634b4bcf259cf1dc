// The extents of views of several dimensions, and the order of their elements.

#include <doctest/doctest.h>

#include <cstddef>

#include <gradus/optimizer/views/shape.hpp>

using gradus::storage_order, gradus::view_shape;

TEST_CASE("view_shape: an order, unless at most one extent is longer than 1")
{
  for (const storage_order order : {storage_order::row_major, storage_order::column_major, storage_order::other}) {
    CHECK(view_shape(order, 2, 3).order() == order);
    CHECK(view_shape(order, 1, 2, 1, 3).order() == order);
    CHECK(view_shape(order, 1, 3).order() == storage_order::any);
    CHECK(view_shape(order, 3, 1).order() == storage_order::any);
    CHECK(view_shape(order, 1, 1).order() == storage_order::any);
    CHECK(view_shape(order, 7).order() == storage_order::any);
    CHECK(view_shape(order).order() == storage_order::any);
    CHECK(view_shape(order, 2, 0, 3).order() == storage_order::any);  // no element, no order
  }
}

TEST_CASE("view_shape: extents are the same, each and in number")
{
  const view_shape a(storage_order::row_major, 2, 3);
  CHECK(a.same_extents(view_shape(storage_order::column_major, 2, 3)));
  CHECK_FALSE(a.same_extents(view_shape(storage_order::row_major, 3, 2)));
  CHECK_FALSE(a.same_extents(view_shape(storage_order::row_major, 2, 3, 1)));
  CHECK_FALSE(a.same_extents(view_shape(storage_order::row_major, 6)));
  CHECK(a.rank() == 2);
  CHECK(a.text() == "2x3");
  CHECK(view_shape(storage_order::any, 5).text() == "5");
  CHECK(view_shape(storage_order::any).text().empty());
}

TEST_CASE("view_shape: of more dimensions than it keeps, the first are compared, and the number of all")
{
  view_shape a(storage_order::row_major), b(storage_order::row_major);
  for (std::size_t k = 0; k < view_shape::most_extents + 3; ++k) {
    a.push_back(k + 1);
    b.push_back(k < view_shape::most_extents ? k + 1 : 99);
  }
  CHECK(a.rank() == view_shape::most_extents + 3);
  CHECK(a.same_extents(b));
  CHECK(a.order() == storage_order::row_major);
  b.push_back(1);
  CHECK_FALSE(a.same_extents(b));
}
