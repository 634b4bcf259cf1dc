// How a step's elements are cut into pieces.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <gradus/gradus.hpp>

namespace {

// A backend that moves nothing and notes the ranges of weights that it is given, piece by piece.
struct noting {
  struct range {
    const float* begin;
    std::size_t n;
  };
  std::vector<std::vector<range>>* pieces;

  template <class Kernel, class Slot>
  void sweep(const Kernel&, float* weights, const float*, const Slot*, std::size_t n) const noexcept
  {
    if (pieces->empty())
      pieces->emplace_back();
    pieces->back().push_back({weights, n});
  }
  template <class Term, class T>
  void accumulate(Term term, double (&partial)[gradus::page_lanes], const T* x, std::size_t n) const noexcept
  {
    gradus::backend::scalar{}.accumulate(term, partial, x, n);
  }
  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    for (std::size_t k = 0; k < n; ++k) {
      pieces->emplace_back();
      f(k);
    }
  }
};

struct dividing : noting {
  gradus::backend::division division;
};

// What a step gives the backend, for tensors of these sizes.
template <class Backend = noting, class... Division>
std::vector<std::vector<noting::range>> pieces_of(std::vector<std::vector<float>>& weights, const Division&... division)
{
  std::vector<std::vector<noting::range>> pieces;
  std::size_t most = 0;
  for (const auto& w : weights)
    most = std::max(most, w.size());
  const std::vector<float> gradients(most);
  gradus::optimizer<gradus::sgd, float, Backend> opt({}, Backend{{&pieces}, division...});
  for (auto& w : weights)
    opt.add(w, std::span(gradients).first(w.size()));
  opt.step();
  return pieces;
}

}  // namespace

TEST_CASE("work list: a small step is one piece")
{
  std::vector<std::vector<float>> weights{std::vector<float>(200'000), std::vector<float>(62'143)};
  CHECK(pieces_of(weights).size() == 1);
}

TEST_CASE("work list: a backend's division sets the smallest step that is divided, and the pieces")
{
  std::vector<std::vector<float>> weights{std::vector<float>(60'000), std::vector<float>(40'000)};
  const auto pieces = [&](const gradus::backend::division& d) { return pieces_of<dividing>(weights, d).size(); };
  CHECK(pieces({}) == 1);
  CHECK(pieces({.from = 100'001}) == 1);
  CHECK(pieces({.from = 100'000}) == 100'000 / 16'384);
  CHECK(pieces({.from = 0, .piece = 10'000}) == 10);
  CHECK(pieces({.from = 0, .piece = 10'000, .pieces = 3}) == 3);
  CHECK(pieces({.from = 0, .piece = 0, .pieces = 8}) == 8);
  CHECK(pieces({.from = 0, .pieces = 0}) == 1);
}

TEST_CASE("work list: the pieces of a large step have every element once, are alike, and begin at whole pages")
{
  const std::vector<std::size_t> sizes[] = {{300'000},
                                            {170'000, 5, 1, 4096, 0, 70'001, 4097, 33'333, 64},
                                            std::vector<std::size_t>(3000, 100),
                                            {6'000'000, 1}};
  for (const auto& lengths : sizes) {
    CAPTURE(lengths.size());
    std::vector<std::vector<float>> weights;
    std::size_t all = 0;
    for (const std::size_t n : lengths) {
      weights.emplace_back(n);
      all += n;
    }
    const auto pieces = pieces_of(weights);
    CHECK(pieces.size() == std::min<std::size_t>(256, all / 16384));
    std::size_t tensor = 0, element = 0, longest = 0;
    for (const auto& piece : pieces) {
      std::size_t length = 0;
      for (std::size_t i = 0; i < piece.size(); ++i) {
        while (element == weights[tensor].size()) {
          ++tensor;
          element = 0;
        }
        REQUIRE(piece[i].begin == weights[tensor].data() + element);
        if (i == 0)
          CHECK(element % gradus::page_size == 0);
        element += piece[i].n;
        length += piece[i].n;
        REQUIRE(element <= weights[tensor].size());
      }
      longest = std::max(longest, length);
    }
    while (tensor < weights.size() && element == weights[tensor].size()) {
      ++tensor;
      element = 0;
    }
    CHECK(tensor == weights.size());
    CHECK(longest <= all / pieces.size() + 2 * gradus::page_size);
  }
}
