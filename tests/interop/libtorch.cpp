// `add` and `rebind` over LibTorch's tensors.

#include <ATen/ATen.h>
// LibTorch has a macro of this name, which would take the place of doctest's.
#undef CHECK

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include <gradus/interop/libtorch.hpp>
#include <gradus/optimizer.hpp>

#include "support/refusal.hpp"
#include "support/spans_only.hpp"

namespace {

using at::Tensor;
using support::refusal;

template <class T>
bool holds(const spans_only<T>& opt, const Tensor& t)
{
  return static_cast<void*>(opt.parameters.data()) == t.data_ptr() && std::int64_t(opt.parameters.size()) == t.numel();
}

}  // namespace

TEST_CASE("libtorch: tensors of the four types are viewed")
{
  spans_only<float> of_float;
  spans_only<double> of_double;
  spans_only<gradus::bfloat16> of_bfloat;
  spans_only<gradus::float16> of_half;
  Tensor f = at::zeros({2, 3}), d = at::zeros({2, 3}, at::kDouble), b = at::zeros({2, 3}, at::kBFloat16),
         h = at::zeros({2, 3}, at::kHalf);
  of_float.add("w", f, f);
  CHECK(holds(of_float, f));
  of_double.add("w", d, d);
  CHECK(holds(of_double, d));
  of_bfloat.add("w", b, b);
  CHECK(holds(of_bfloat, b));
  of_half.add("w", h, h);
  CHECK(holds(of_half, h));
  const Tensor part = f[1];
  of_float.add(part);
  CHECK(of_float.parameters.data() == static_cast<float*>(f.data_ptr()) + 3);
  static_assert(gradus::view_of<const Tensor&, float> && !gradus::view_of<Tensor, float>);

  CHECK(refusal([&] { of_float.add("w", d); }) ==
        "gradus: dtype of parameters of tensor \"w\" is Double; expected float32");
  CHECK(refusal([&] { of_bfloat.add(b, f); }) == "gradus: dtype of gradients is Float; expected bfloat16");
  const Tensor integers = at::zeros({3}, at::kLong);
  CHECK(refusal([&] { of_float.add(integers); }) == "gradus: dtype of parameters is Long; expected float32");
}

TEST_CASE("libtorch: an undefined gradient is none yet")
{
  Tensor w = at::zeros({3}), g, none;
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto h = opt.add("w", w, g);
  g = at::ones({3});
  opt.step();
  CHECK(opt.step_count(h) == 0);
  opt.rebind_gradients(h, g);
  opt.step();
  CHECK(w.equal(at::full({3}, -1.0)));
  opt.rebind_gradients(h, none);  // zero_grad
  opt.step();
  CHECK(opt.step_count(h) == 1);
  Tensor moved = w.clone();
  opt.rebind(h, moved, none);
  opt.rebind(h, moved, g);
  opt.step();
  CHECK(moved.equal(at::full({3}, -2.0)));
  CHECK(w.equal(at::full({3}, -1.0)));
  CHECK(refusal([&] { opt.add("none", none); }) ==
        "gradus: parameters of tensor \"none\" is an undefined tensor; expected one with elements");
}

TEST_CASE("libtorch: gaps and other layouts are refused; channels_last pairs with itself")
{
  spans_only<float> opt;
  const Tensor w = at::zeros({4, 6}), column = w.slice(1, 0, 2), expanded = at::zeros({1}).expand({5}), t = w.t();
  CHECK(
      refusal([&] { opt.add("w", column); }) ==
      "gradus: parameters of tensor \"w\" has sizes [4, 2] and strides [6, 1]; expected elements that lie side by side "
      "(a whole matrix, or a copy)");
  CHECK(
      refusal([&] { opt.add(expanded); }) ==
      "gradus: parameters has sizes [5] and strides [0]; expected elements that lie side by side (a whole matrix, or a "
      "copy)");
  CHECK(refusal([&] { opt.add(w, t); }).starts_with("gradus: shape of gradients is 6x4"));
  opt.add(t, t);

  const Tensor images = at::zeros({2, 3, 4, 5}), last = images.contiguous(at::MemoryFormat::ChannelsLast),
               permuted = at::zeros({2, 5, 3, 4}).permute({0, 2, 3, 1});
  opt.add(last, last);
  CHECK(opt.parameters.size() == 120);
  CHECK(
      refusal([&] { opt.add(last, images); }) ==
      "gradus: storage order of gradients is row-major; expected neither row-major nor column-major, the order of its "
      "parameters, or a copy in that order");
  CHECK(refusal([&] { opt.add(last, permuted); }) ==
        "gradus: layout of gradients is sizes [2, 3, 4, 5] and strides [60, 4, 1, 12]; expected sizes [2, 3, 4, 5] and "
        "strides [60, 1, 15, 3], the layout of its parameters, or a copy in that layout");
  CHECK(opt.calls == 2);
}

TEST_CASE("libtorch: sparse tensors, and those of other devices, are refused")
{
  spans_only<float> opt;
  const Tensor sparse = at::eye(3).to_sparse(), meta = at::zeros({3}, at::device(at::kMeta)),
               complex = at::ones({3}, at::kComplexFloat), negated = at::imag(at::conj(complex));
  CHECK(refusal([&] { opt.add("w", sparse); }) ==
        "gradus: parameters of tensor \"w\" is sparse, or has another layout without strides; expected a dense tensor");
  CHECK(refusal([&] { opt.add(meta); }) == "gradus: device of parameters is meta; expected cpu");
  CHECK(refusal([&] { opt.add(negated); }) ==
        "gradus: parameters is a negated view, whose elements have the other sign; expected a copy (resolve_neg())");
  CHECK(opt.calls == 0);
}
