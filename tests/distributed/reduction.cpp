// The order of the additions.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <gradus/distributed/reduction.hpp>

#include "support/random.hpp"

namespace {

using gradus::reduction;

template <class G>
std::vector<G> random_pieces(std::size_t count, std::size_t length)
{
  support::random r(count);
  std::vector<G> all(count * length);
  for (G& x : all)
    if constexpr (gradus::real<G>)
      x = G(r.uniform(-1, 1));
    else
      x = G(float(r.uniform(-1, 1)));
  return all;
}

// By recursion: the left side is the largest power of two.
template <class T, class G>
T tree(const G* pieces, std::size_t length, std::size_t i, std::size_t first, std::size_t last)
{
  if (last - first == 1)
    return T(pieces[first * length + i]);
  std::size_t half = 1;
  while (2 * half < last - first)
    half *= 2;
  return tree<T>(pieces, length, i, first, first + half) + tree<T>(pieces, length, i, first + half, last);
}

template <class G, class T>
void check_orders()
{
  constexpr std::size_t length = 700;  // several blocks and a rest
  for (std::size_t count = 1; count <= 20; ++count) {
    const auto pieces = random_pieces<G>(count, length);
    std::vector<T> in_order(length), by_tree(length);
    gradus::detail::add_pieces(pieces.data(), count, length, reduction::ranks_in_order, in_order.data());
    gradus::detail::add_pieces(pieces.data(), count, length, reduction::tree, by_tree.data());
    for (std::size_t i = 0; i < length; ++i) {
      T sum = T(pieces[i]);
      for (std::size_t r = 1; r < count; ++r)
        sum += T(pieces[r * length + i]);
      REQUIRE(in_order[i] == sum);
      REQUIRE(by_tree[i] == tree<T>(pieces.data(), length, i, 0, count));
    }
  }
}

}  // namespace

TEST_CASE("add_pieces: in the order of the ranks, and as a tree; 16-bit numbers in float")
{
  check_orders<float, float>();
  check_orders<double, double>();
  check_orders<gradus::bfloat16, float>();
  check_orders<gradus::float16, float>();
}

TEST_CASE("add_pieces: one piece is itself, with the sign of its zeros")
{
  const std::vector<float> x{-0.0f, 1, -2};
  std::vector<float> sum(3);
  for (const auto order : {reduction::ranks_in_order, reduction::tree}) {
    gradus::detail::add_pieces(x.data(), 1, 3, order, sum.data());
    CHECK(std::signbit(sum[0]));
    CHECK(sum[2] == -2);
  }
}

TEST_CASE("add_pieces: the sum may overwrite a piece")
{
  auto pieces = random_pieces<double>(5, 600), twin = pieces;
  std::vector<double> sum(600);
  gradus::detail::add_pieces(twin.data(), 5, 600, reduction::tree, sum.data());
  gradus::detail::add_pieces(pieces.data(), 5, 600, reduction::tree, pieces.data() + 1200);
  for (std::size_t i = 0; i < 600; ++i)
    CHECK(pieces[1200 + i] == sum[i]);
}
