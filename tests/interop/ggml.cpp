// `add` and `rebind` over ggml's tensors.

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

#include <ggml-cpu.h>

#include <gradus/interop/ggml.hpp>
#include <gradus/optimizer.hpp>

#include "support/refusal.hpp"
#include "support/spans_only.hpp"

namespace {

using support::refusal;

struct context {
  ggml_context* made = ggml_init({1 << 20, nullptr, false});
  context() = default;
  context(const context&) = delete;
  context& operator=(const context&) = delete;
  ~context() { ggml_free(made); }
  ggml_tensor* matrix(ggml_type type, std::int64_t columns, std::int64_t rows) const
  {
    return ggml_new_tensor_2d(made, type, columns, rows);
  }
};

}  // namespace

TEST_CASE("ggml: tensors of the four types are viewed, with rows as the first dimension of their shape")
{
  const context c;
  spans_only<float> of_float;
  spans_only<double> of_double;
  spans_only<gradus::bfloat16> of_bfloat;
  spans_only<gradus::float16> of_half;
  ggml_tensor *w = c.matrix(GGML_TYPE_F32, 3, 2), *g = c.matrix(GGML_TYPE_F32, 3, 2);
  ggml_set_name(w, "w");
  of_float.add(ggml_get_name(w), w, g);
  CHECK(of_float.name == "w");
  CHECK(of_float.parameters.data() == w->data);
  CHECK(of_float.parameters.size() == 6);
  CHECK(of_float.gradients->data() == g->data);
  of_double.add(c.matrix(GGML_TYPE_F64, 3, 2));
  of_bfloat.add(c.matrix(GGML_TYPE_BF16, 3, 2));
  of_half.add(c.matrix(GGML_TYPE_F16, 3, 2));
  CHECK(of_half.parameters.size() == 6);
  const auto shape = gradus::view_traits<ggml_tensor*>::shape(w);
  CHECK(shape.text() == "2x3");
  CHECK(shape.order() == gradus::storage_order::row_major);
}

TEST_CASE("ggml: what steps cannot update is refused")
{
  const context c;
  spans_only<float> opt;
  ggml_tensor* const w = c.matrix(GGML_TYPE_F32, 32, 2);
  CHECK(refusal([&] { opt.add("w", c.matrix(GGML_TYPE_Q4_0, 32, 2)); }) ==
        "gradus: type of parameters of tensor \"w\" is q4_0; expected float32: steps cannot update quantised weights");
  CHECK(refusal([&] { opt.add(w, c.matrix(GGML_TYPE_F16, 32, 2)); }) ==
        "gradus: type of gradients is f16; expected float32");
  CHECK(refusal([&] { opt.add("w", w, static_cast<ggml_tensor*>(nullptr)); }) ==
        "gradus: gradients of tensor \"w\" is null; expected a tensor (a gradient needs ggml_set_param and a backward "
        "graph that it takes part in)");
  CHECK(refusal([&] { opt.add(w, c.matrix(GGML_TYPE_F32, 2, 32)); }).starts_with("gradus: shape of gradients is 32x2"));
  CHECK(refusal([&] { opt.add(ggml_view_2d(c.made, w, 4, 2, w->nb[1], 0)); }) ==
        "gradus: parameters has ne [4, 2, 1, 1] and nb [4, 128, 256, 256]; expected elements that lie side by side (a "
        "whole matrix, or a copy)");
  CHECK(
      refusal([&] { opt.add(w, ggml_transpose(c.made, c.matrix(GGML_TYPE_F32, 2, 32))); }) ==
      "gradus: storage order of gradients is column-major; expected row-major, the order of its parameters, or a copy "
      "in that order");
  context no_memory;
  ggml_set_no_alloc(no_memory.made, true);
  CHECK(refusal([&] { opt.add(no_memory.matrix(GGML_TYPE_F32, 3, 2)); }) ==
        "gradus: parameters has no memory yet; expected a tensor of a graph that was allocated");
  CHECK(opt.calls == 0);
}
