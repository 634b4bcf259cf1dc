// Where tensors are, and who has which part.

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

#include <gradus/distributed/layout.hpp>

#include "support/random.hpp"

namespace {

using gradus::page_size, gradus::detail::element_range, gradus::detail::page_layout, gradus::detail::tensor_part;

std::vector<std::size_t> uneven(std::size_t n, std::uint64_t seed)
{
  support::random r(seed);
  std::vector<std::size_t> sizes;
  for (std::size_t k = 0; k < n; ++k)
    sizes.push_back(k % 11 == 3 ? 0 : r.below(k % 4 == 0 ? 30000 : 2000));
  return sizes;
}

}  // namespace

TEST_CASE("page_layout: tensors of a page begin one, small ones cross none, and none overlap")
{
  for (const std::size_t ranks : {1u, 2u, 3u, 8u}) {
    const auto sizes = uneven(200, ranks);
    const page_layout l(sizes, ranks, 100000);
    std::size_t end = 0;
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      const element_range x = l.tensors()[k];
      CHECK(x.size() == sizes[k]);
      if (sizes[k] == 0)
        continue;
      CHECK(x.begin >= end);
      if (sizes[k] >= page_size)
        CHECK(x.begin % page_size == 0);
      else
        CHECK(x.begin / page_size == (x.end - 1) / page_size);
      end = x.end;
    }
    CHECK(l.elements() >= end);
  }
}

TEST_CASE("page_layout: the parts of all ranks are the tensors, cut at pages")
{
  for (const std::size_t ranks : {1u, 2u, 3u, 8u, 100u})
    for (const std::size_t bucket : {std::size_t(1), std::size_t(100000), std::size_t(1) << 40}) {
      const auto sizes = uneven(100, 7);
      const page_layout l(sizes, ranks, bucket);
      std::vector<std::vector<int>> seen;
      for (const std::size_t n : sizes)
        seen.emplace_back(n);
      for (std::size_t r = 0; r < ranks; ++r) {
        std::size_t place = 0;
        for (const tensor_part& p : l.parts(r)) {
          CHECK(l.is_cut(p.tensor) == (p.size < sizes[p.tensor]));
          CHECK(p.first % page_size == 0);
          CHECK(p.place == l.tensors()[p.tensor].begin + p.first);
          CHECK(p.place >= place);
          CHECK(p.place >= l.slice(p.bucket, r).begin);
          CHECK(p.place + p.size <= l.slice(p.bucket, r).end);
          place = p.place + p.size;
          for (std::size_t i = p.first; i < p.first + p.size; ++i)
            ++seen[p.tensor][i];
        }
      }
      for (const auto& tensor : seen)
        for (const int times : tensor)
          REQUIRE(times == 1);
    }
}

TEST_CASE("page_layout: buckets are cut into equal slices, and together are the array")
{
  const page_layout l(uneven(100, 3), 3, 5 * page_size);
  std::size_t end = 0;
  for (std::size_t b = 0; b < l.buckets().size(); ++b) {
    CHECK(l.buckets()[b].begin == end);
    end = l.buckets()[b].end;
    for (std::size_t r = 0; r < 3; ++r) {
      CHECK(l.slice(b, r).size() == page_size);
      CHECK(l.slice(b, r).begin == l.buckets()[b].begin + r * page_size);
    }
  }
  CHECK(end == l.elements());
  CHECK(l.of_rank() == l.elements() / 3);
}

TEST_CASE(
    "page_layout: a shard is a page larger than the mean at most, 3 % from 34 pages a rank on, whatever the buckets")
{
  // The sizes of a transformer's tensors.
  std::vector<std::size_t> sizes{50257 * 64, 1024 * 64};
  for (int layer = 0; layer < 4; ++layer)
    for (const std::size_t n :
         {64u, 64u, 3 * 64u * 64, 3 * 64u, 64u * 64, 64u, 64u, 64u, 256u * 64, 256u, 256u * 64, 64u})
      sizes.push_back(n);
  std::size_t elements = 0;
  for (const std::size_t n : sizes)
    elements += n;
  for (const std::size_t ranks : {1u, 2u, 3u, 8u, 25u})
    for (const std::size_t bucket : {std::size_t(1) << 18, std::size_t(1) << 40}) {
      const page_layout l(sizes, ranks, bucket);
      REQUIRE(elements / ranks >= 34 * page_size);
      CHECK(double(l.of_rank()) <= 1.03 * double(elements) / double(ranks));
    }
}

TEST_CASE("page_layout: nothing, and empty tensors")
{
  CHECK(page_layout({}, 4, 1000).elements() == 0);
  const page_layout l({0, 0}, 4, 1000);
  CHECK(l.elements() == 0);
  CHECK(l.buckets().empty());
  CHECK(l.parts(2).empty());
}
