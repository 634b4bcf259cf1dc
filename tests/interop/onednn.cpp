// `add` and `rebind` over oneDNN's memory, in plain and in blocked layouts.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gradus/interop/onednn.hpp>
#include <gradus/optimizer.hpp>

#include "support/refusal.hpp"
#include "support/spans_only.hpp"

namespace {

using dnnl::memory;
using support::refusal;
using tag = memory::format_tag;
using type = memory::data_type;

const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);

memory::desc floats(const memory::dims& extents, tag t) { return {extents, type::f32, t}; }
std::span<float> all(const memory& m)
{
  return {static_cast<float*>(m.get_data_handle()), m.get_desc().get_size() / sizeof(float)};
}
memory reordered(const memory& from, const memory::desc& to)
{
  memory copy(to, cpu), source = from;
  dnnl::stream s(cpu);
  dnnl::reorder(source, copy).execute(s, source, copy);
  s.wait();
  return copy;
}
/// 1, 2, 3, … in row-major order.
memory counted(const memory::dims& extents, tag plain)
{
  memory m(floats(extents, plain), cpu);
  float x = 0;
  for (float& e : all(m))
    e = ++x;
  return m;
}

struct layout_case {
  memory::dims extents;
  tag plain, blocked;
};
const layout_case cases[] = {
    {{10, 784}, tag::ab, tag::AB16b16a},      {{20, 30}, tag::ab, tag::BA16a16b},
    {{10, 20}, tag::ab, tag::BA16a64b},       {{5, 7, 3, 3}, tag::abcd, tag::ABcd8b8a},
    {{17, 3, 3, 3}, tag::abcd, tag::Acdb16a}, {{33, 18, 3, 2}, tag::abcd, tag::aBcd16b},
    {{16, 32}, tag::ab, tag::AB16b16a},       {{12, 6, 4}, tag::abc, tag::ABc4b16a4b},
};

}  // namespace

TEST_CASE("onednn: the padding of blocked layouts is where a reorder writes no number")
{
  for (const auto& c : cases) {
    const memory blocked = reordered(counted(c.extents, c.plain), floats(c.extents, c.blocked));
    const gradus::interop::onednn::blocked_layout layout(blocked.get_desc());
    CAPTURE(layout.text());
    CHECK(layout.is_dense());
    REQUIRE(layout.size() == all(blocked).size());
    std::size_t wrong = 0, numbers = 0;
    for (std::size_t i = 0; i < layout.size(); ++i) {
      wrong += layout(i) != (all(blocked)[i] == 0);
      numbers += !layout(i);
    }
    CHECK(wrong == 0);
    CHECK(numbers == std::size_t(memory::desc(floats(c.extents, c.plain)).get_size()) / sizeof(float));
    CHECK(layout.is_padded() == (numbers != layout.size()));
  }
}

namespace {

/// Twenty steps of the same numbers in a plain and in a blocked layout.
template <class Recipe>
void check_padded(const Recipe& recipe, const layout_case& c)
{
  const memory plain = counted(c.extents, c.plain);
  memory w[] = {plain, reordered(plain, floats(c.extents, c.blocked))};
  memory g[] = {memory(w[0].get_desc(), cpu), memory(w[1].get_desc(), cpu)};
  gradus::optimizer<Recipe> opt[] = {gradus::optimizer<Recipe>(recipe), gradus::optimizer<Recipe>(recipe)};
  for (const int k : {0, 1})
    opt[k].add("w", w[k], g[k]);
  CHECK(opt[1].parameter_count() == all(w[1]).size());
  for (int step = 1; step <= 20; ++step) {
    for (std::size_t i = 0; i < all(g[0]).size(); ++i)
      all(g[0])[i] = float(std::sin(double(i + 1) * step));
    std::ranges::copy(all(reordered(g[0], g[1].get_desc())), all(g[1]).begin());
    const auto first = opt[0].step(), second = opt[1].step();
    REQUIRE(first.mean_square.has_value() == second.mean_square.has_value());
    if (first.mean_square)
      CHECK(*second.mean_square == doctest::Approx(*first.mean_square).epsilon(1e-14));
  }
  const memory back = reordered(w[1], w[0].get_desc());
  double largest = 0;
  for (std::size_t i = 0; i < all(back).size(); ++i)
    largest = std::max(largest, std::fabs(double(all(back)[i]) - double(all(w[0])[i])));
  if constexpr (Recipe{}.rule().scheduled)
    CHECK(largest < 1e-4);
  else
    CHECK(largest == 0);
  const gradus::interop::onednn::blocked_layout layout(w[1].get_desc());
  for (std::size_t i = 0; i < layout.size(); ++i)
    if (layout(i))
      REQUIRE(all(w[1])[i] == 0);
}

}  // namespace

TEST_CASE("onednn: padding stays 0, and counts in no mean")
{
  for (const auto& c : {cases[0], cases[3]}) {
    check_padded(gradus::adamw{.lr = 1e-2}, c);
    check_padded(gradus::adams{.lr = 1e-2}, c);
    check_padded(gradus::yogi{.lr = 1e-2}, c);  // its state starts from another number than 0
  }
}

TEST_CASE("onednn: a tensor that is removed and added again keeps its state, and its padding")
{
  memory w = reordered(counted({10, 20}, tag::ab), floats({10, 20}, tag::AB16b16a)), g(w.get_desc(), cpu);
  std::ranges::fill(all(g), 0.0f);
  gradus::optimizer<gradus::yogi> opt;
  const auto h = opt.add("w", w, g);
  opt.step();
  const std::vector<float> before(opt.state("w", "exp_avg_sq").begin(), opt.state("w", "exp_avg_sq").end());
  opt.remove(h, gradus::removed_state::kept);
  opt.add("w", w, g);
  CHECK(std::ranges::equal(opt.state("w", "exp_avg_sq"), before));
  CHECK(std::ranges::count(before, 0.0f) == 16 * 32 - 10 * 20);
}

TEST_CASE("onednn: only memory of the same layout makes a pair")
{
  const memory plain = counted({10, 20}, tag::ab), columns = counted({10, 20}, tag::ba),
               blocked = reordered(plain, floats({10, 20}, tag::AB16b16a)),
               otherwise = reordered(plain, floats({10, 20}, tag::BA16a16b)), other = counted({20, 10}, tag::ab);
  spans_only<float> opt;
  opt.add(plain, plain);
  CHECK(opt.parameters.data() == all(plain).data());
  CHECK(opt.parameters.size() == 200);
  opt.add(columns, columns);
  CHECK(refusal([&] { opt.add("w", plain, other); }) ==
        "gradus: shape of gradients of tensor \"w\" is 20x10; expected 10x20, the shape of its parameters (a "
        "std::span(pointer, size) has no shape)");
  CHECK(
      refusal([&] { opt.add(plain, columns); }) ==
      "gradus: storage order of gradients is column-major; expected row-major, the order of its parameters, or a copy "
      "in that order");
  CHECK(
      refusal([&] { opt.add(blocked, plain); }) ==
      "gradus: storage order of gradients is row-major; expected neither row-major nor column-major, the order of its "
      "parameters, or a copy in that order");
  CHECK(
      refusal([&] { opt.add("w", blocked, otherwise); }) ==
      "gradus: layout of gradients of tensor \"w\" is [10, 20] padded to [16, 32], strides [256, 256], blocks of 16 of "
      "dimension 0, blocks of 16 of dimension 1; expected [10, 20] padded to [16, 32], strides [512, 256], blocks of "
      "16 "
      "of dimension 1, blocks of 16 of dimension 0, the layout of its parameters, or a copy in that layout");
  CHECK(opt.calls == 2);
  static_assert(gradus::view_of<memory&, float> && gradus::view_of<const memory&, const float>);
  static_assert(!gradus::view_of<memory, float>);  // it may be the last handle
}

TEST_CASE("onednn: parts of a memory, other element types, and empty memory")
{
  memory whole = counted({10, 20}, tag::ab);
  const memory::desc rows = whole.get_desc().submemory_desc({4, 20}, {2, 0}),
                     part = whole.get_desc().submemory_desc({10, 4}, {0, 2});
  memory some(rows, cpu, whole.get_data_handle()), gaps(part, cpu, whole.get_data_handle());
  spans_only<float> opt;
  opt.add(some);
  CHECK(opt.parameters.data() == all(whole).data() + 40);
  CHECK(opt.parameters.size() == 80);
  CHECK(refusal([&] { opt.add("w", gaps); }) == "gradus: parameters of tensor \"w\" has [10, 4], strides [20, 1]; "
                                                "expected elements that lie side by side (a whole "
                                                "matrix, or a copy)");

  memory integers(memory::desc({10}, type::s8, tag::a), cpu), shorts(memory::desc({10}, type::bf16, tag::a), cpu), none;
  CHECK(refusal([&] { opt.add("w", integers); }) ==
        "gradus: data type of parameters of tensor \"w\" is s8; expected float32");
  CHECK(refusal([&] { opt.add(whole, shorts); }) == "gradus: data type of gradients is bf16; expected float32");
  CHECK(refusal([&] { opt.add(none); }) ==
        "gradus: parameters is an empty memory; expected one with a descriptor and an engine");
  CHECK(opt.calls == 1);
  spans_only<gradus::bfloat16> of_shorts;
  of_shorts.add(shorts);
  CHECK(of_shorts.parameters.size() == 10);
}

TEST_CASE("onednn: recipes that multiply matrices refuse blocked layouts")
{
  CHECK(gradus::view_traits<memory>::shape(counted({10, 20}, tag::ab)).order() == gradus::storage_order::row_major);
  CHECK(gradus::view_traits<memory>::shape(counted({10, 20}, tag::ba)).order() == gradus::storage_order::column_major);
  const memory blocked = reordered(counted({16, 16}, tag::ab), floats({16, 16}, tag::AB16b16a));
  CHECK(gradus::view_traits<memory>::shape(blocked).order() == gradus::storage_order::other);
}
