// `add` and `rebind` over DLPack's tensors.

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <dlpack/dlpack.h>

// Debian 12's DLPack is older than versioned tensors; this is as much of DLPack 1.0.
#if !defined(DLPACK_FLAG_BITMASK_READ_ONLY)
#define DLPACK_FLAG_BITMASK_READ_ONLY (1UL << 0UL)
#define DLPACK_MAJOR_VERSION 1
struct DLManagedTensorVersioned {
  struct {
    std::uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};
#endif

#include <gradus/any_optimizer.hpp>
#include <gradus/interop/dlpack.hpp>

#include "support/refusal.hpp"
#include "support/spans_only.hpp"

namespace {

using support::refusal;

/// A tensor with memory.
template <class T = float>
struct owned {
  std::vector<T> elements;
  std::vector<std::int64_t> shape, strides;
  DLTensor tensor{};

  explicit owned(std::vector<std::int64_t> extents, std::vector<std::int64_t> steps = {}, std::size_t more = 0)
      : shape(std::move(extents)), strides(std::move(steps))
  {
    std::size_t n = 1;
    for (const auto e : shape)
      n *= std::size_t(e);
    elements.resize(n + more);
    tensor.data = elements.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = int(shape.size());
    tensor.dtype = {kDLFloat, std::uint8_t(8 * sizeof(T)), 1};
    tensor.shape = shape.data();
    tensor.strides = strides.empty() ? nullptr : strides.data();
  }
  owned(const owned&) = delete;
  owned& operator=(const owned&) = delete;
};

template <class Front>
bool holds(const Front& opt, const void* first, std::size_t n)
{
  return opt.parameters.data() == first && opt.parameters.size() == n;
}

}  // namespace

TEST_CASE("dlpack: tensors are viewed from their byte_offset on, with or without strides")
{
  owned w({2, 3}), g({2, 3}, {3, 1}, 4);
  g.tensor.byte_offset = 4 * sizeof(float);
  spans_only<float> opt;
  opt.add("w", w.tensor, g.tensor);
  CHECK(holds(opt, w.elements.data(), 6));
  CHECK(opt.gradients->data() == g.elements.data() + 4);
  opt.add("w", DLTensor(w.tensor), g.tensor);  // a view, so temporaries are fine
  opt.rebind({}, w.tensor, g.tensor);
  opt.rebind_gradients({}, g.tensor);
  CHECK(opt.gradients->data() == g.elements.data() + 4);

  DLManagedTensor managed{w.tensor, nullptr, nullptr};
  opt.add("w", managed, g.tensor);
  CHECK(holds(opt, w.elements.data(), 6));
  static_assert(gradus::view_of<DLTensor, float> && gradus::view_of<DLManagedTensor&, float>);
  static_assert(!gradus::view_of<DLManagedTensor, float>);
  static_assert(!gradus::view_of<DLTensor&, int>);

  owned scalar({});
  opt.add("scalar", scalar.tensor);
  CHECK(holds(opt, scalar.elements.data(), 1));
  owned none({2, 0});
  opt.add("none", none.tensor);
  CHECK(opt.parameters.empty());
}

TEST_CASE("dlpack: a step with any_optimizer moves the tensor")
{
  owned w({4, 4}), g({4, 4});
  g.elements.assign(16, 1.0f);
  gradus::any_optimizer_of<float, gradus::sgd> opt("sgd", {{"lr", 0.5}});
  opt.add("w", w.tensor, g.tensor);
  opt.step();
  for (const float x : w.elements)
    CHECK(x == -0.5f);
}

TEST_CASE("dlpack: element types are checked at run time")
{
  owned<float> f({3});
  owned<double> d({3});
  owned<gradus::float16> h({3});
  owned<gradus::bfloat16> b({3});
  b.tensor.dtype.code = kDLBfloat;
  spans_only<float> of_float;
  spans_only<double> of_double;
  spans_only<gradus::float16> of_half;
  spans_only<gradus::bfloat16> of_bfloat;
  of_float.add(f.tensor);
  of_double.add(d.tensor);
  of_half.add(h.tensor);
  of_bfloat.add(b.tensor);
  CHECK(holds(of_bfloat, b.elements.data(), 3));

  CHECK(refusal([&] { of_float.add("w", d.tensor); }) ==
        "gradus: dtype of parameters of tensor \"w\" is float64; expected float32");
  CHECK(refusal([&] { of_float.add(f.tensor, d.tensor); }) ==
        "gradus: dtype of gradients is float64; expected float32");
  CHECK(refusal([&] { of_half.add(b.tensor); }) == "gradus: dtype of parameters is bfloat16; expected float16");
  CHECK(refusal([&] { of_bfloat.add(h.tensor); }) == "gradus: dtype of parameters is float16; expected bfloat16");
  f.tensor.dtype.lanes = 4;
  CHECK(refusal([&] { of_float.add(f.tensor); }) == "gradus: dtype of parameters is float32x4; expected float32");
  f.tensor.dtype = {kDLInt, 32, 1};
  CHECK(refusal([&] { of_float.add(f.tensor); }) == "gradus: dtype of parameters is int32; expected float32");
  f.tensor.dtype = {99, 8, 1};
  CHECK(refusal([&] { of_float.add(f.tensor); }) ==
        "gradus: dtype of parameters is type code 99 of 8; expected float32");
  CHECK(of_float.calls == 1);
}

TEST_CASE("dlpack: memory of another device, and read-only parameters, are refused")
{
  owned w({3}), g({3});
  spans_only<float> opt;
  w.tensor.device = {kDLCUDA, 1};
  CHECK(refusal([&] { opt.add("w", w.tensor, g.tensor); }) ==
        "gradus: device of parameters of tensor \"w\" is cuda:1; expected cpu");
  w.tensor.device = {kDLMetal, 0};
  CHECK(refusal([&] { opt.add(w.tensor, g.tensor); }) ==
        "gradus: device of parameters is device type 8:0; expected cpu");
  w.tensor.device = {kDLCUDAHost, 0};  // pinned memory of the host
  opt.add(w.tensor, g.tensor);
  CHECK(holds(opt, w.elements.data(), 3));

  DLManagedTensorVersioned versioned{};
  versioned.version = {DLPACK_MAJOR_VERSION, 0};
  versioned.dl_tensor = w.tensor;
  versioned.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  CHECK(refusal([&] { opt.add("w", versioned, g.tensor); }) ==
        "gradus: parameters of tensor \"w\" is read-only; expected a tensor that steps may write");
  opt.add(g.tensor, versioned);  // gradients are only read
  CHECK(opt.gradients->data() == w.elements.data());
  versioned.flags = 0;
  opt.add(versioned, g.tensor);
  CHECK(holds(opt, w.elements.data(), 3));
  versioned.version = {DLPACK_MAJOR_VERSION + 1, 2};
  CHECK(refusal([&] { opt.add("w", versioned, g.tensor); }) ==
        "gradus: DLPack version of parameters of tensor \"w\" is 2.2; expected 1.x");
}

TEST_CASE("dlpack: extents whose product overflows are refused")
{
  owned w({3}), g({3});
  spans_only<float> opt;
  w.shape = {std::int64_t(1) << 33, std::int64_t(1) << 31};
  w.tensor.shape = w.shape.data();
  w.tensor.ndim = 2;
  w.tensor.strides = nullptr;
  CHECK(refusal([&] { opt.add("w", w.tensor, g.tensor); }) ==
        "gradus: shape of parameters of tensor \"w\" is [8589934592, 2147483648]; expected as many elements as memory "
        "can "
        "have");
}

namespace {
struct on_a_device {
  static constexpr bool on_device = true;
};
}  // namespace

TEST_CASE("dlpack: with a backend on a device, elements are in device memory")
{
  owned w({3}), g({3});
  spans_only<float, float, on_a_device> opt;
  CHECK(refusal([&] { opt.add(w.tensor, g.tensor); }) == "gradus: device of parameters is cpu:0; expected cuda");
  w.tensor.device = g.tensor.device = {kDLCUDA, 0};
  opt.add(w.tensor, g.tensor);
  CHECK(holds(opt, w.elements.data(), 3));
}

TEST_CASE("dlpack: gaps, other shapes and other orders are refused")
{
  owned rows({2, 3}), columns({2, 3}, {1, 2}), other({3, 2}), gaps({2, 3}, {4, 1}, 2), repeated({2, 3}, {0, 1});
  spans_only<float> opt;
  opt.add(columns.tensor, columns.tensor);
  CHECK(refusal([&] { opt.add(gaps.tensor); }) ==
        "gradus: parameters has shape [2, 3] and strides [4, 1]; expected elements that lie side by side (a whole "
        "matrix, or a copy)");
  CHECK(
      refusal([&] { opt.add("w", rows.tensor, repeated.tensor); }) ==
      "gradus: gradients of tensor \"w\" has shape [2, 3] and strides [0, 1]; expected elements that lie side by side "
      "(a whole matrix, or a copy)");
  CHECK(
      refusal([&] { opt.add(rows.tensor, other.tensor); }) ==
      "gradus: shape of gradients is 3x2; expected 2x3, the shape of its parameters (a std::span(pointer, size) has no "
      "shape)");
  CHECK(
      refusal([&] { opt.add(rows.tensor, columns.tensor); }) ==
      "gradus: storage order of gradients is column-major; expected row-major, the order of its parameters, or a copy "
      "in that order");
  owned back({2, 3}, {-3, 1});
  CHECK(refusal([&] { opt.add(back.tensor); }).find("strides [-3, 1]") != std::string::npos);
  owned negative({0});
  negative.shape[0] = -1;
  CHECK(refusal([&] { opt.add(negative.tensor); }) ==
        "gradus: shape of parameters is [-1]; expected no negative extent");
  owned unshaped({1});
  unshaped.tensor.shape = nullptr;
  CHECK(refusal([&] { opt.add(unshaped.tensor); }) ==
        "gradus: ndim of parameters is 1; expected 0, or more with a shape");
  CHECK(opt.calls == 1);
}

TEST_CASE("dlpack: dense tensors in another order pair with the same order only")
{
  // channels last: batch, channels, height, width
  owned w({2, 3, 4, 5}, {60, 1, 15, 3}), same({2, 3, 4, 5}, {60, 1, 15, 3}), otherwise({2, 3, 4, 5}, {60, 4, 1, 12}),
      rows({2, 3, 4, 5});
  spans_only<float> opt;
  opt.add(w.tensor, same.tensor);
  CHECK(holds(opt, w.elements.data(), 120));
  DLManagedTensor managed{same.tensor, nullptr, nullptr};
  opt.add(w.tensor, managed);
  CHECK(refusal([&] { opt.add(w.tensor, otherwise.tensor); }) ==
        "gradus: layout of gradients is shape [2, 3, 4, 5] and strides [60, 4, 1, 12]; expected shape [2, 3, 4, 5] and "
        "strides [60, 1, 15, 3], the layout of its parameters, or a copy in that layout");
  CHECK(
      refusal([&] { opt.add(w.tensor, rows.tensor); }) ==
      "gradus: storage order of gradients is row-major; expected neither row-major nor column-major, the order of its "
      "parameters, or a copy in that order");
  opt.add(w.tensor, std::span(rows.elements));  // on purpose
  CHECK(opt.calls == 3);
}

TEST_CASE("dlpack: a refused tensor leaves the optimizer as it was")
{
  owned w({3}), g({3});
  owned<double> d({3});
  gradus::optimizer<gradus::adamw> opt;
  const auto h = opt.add("w", w.tensor, g.tensor);
  g.elements.assign(3, 1.0f);
  opt.step();
  CHECK(!refusal([&] { opt.rebind_gradients(h, d.tensor); }).empty());
  CHECK(!refusal([&] { opt.add("v", d.tensor, g.tensor); }).empty());
  CHECK(opt.parameter_count() == 3);
  opt.step();
  CHECK(opt.step_count(h) == 2);
}
