// What a GPU does, held against the scalar backend. thrust_cuda.sh compiles it with nvcc (-x cu) and runs it; without a
// GPU it then finds only that CUDA's errors come out as documented. Compiled as C++, it runs on one of Thrust's systems
// for CPUs.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/fill.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
#define GRADUS_TEST_CUDA
#endif

namespace {

using device = gradus::backend::thrust_device<>;
using gradus::bfloat16, gradus::precision;

bool there_is_a_device()
{
#if defined(GRADUS_TEST_CUDA)
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
#else
  return true;
#endif
}

// Numbers in memory of the backend's, written and read from the host.
template <class X, class Backend>
struct buffer {
  std::conditional_t<requires { typename Backend::memory_type; }, thrust::device_vector<X>, std::vector<X>> memory;

  explicit buffer(std::size_t n) : memory(n) {}
  X* data() { return thrust::raw_pointer_cast(memory.data()); }
  void write(const std::vector<X>& from) { thrust::copy(from.begin(), from.end(), memory.begin()); }
  std::vector<X> read() const
  {
    std::vector<X> to(memory.size());
    thrust::copy(memory.begin(), memory.end(), to.begin());
    return to;
  }
};

template <class X>
X number(std::size_t i, std::size_t t)
{
  return X(float((i * 7919 + t * 104729) % 1000) / 500 - 1);
}

template <class P>
struct outcome {
  std::vector<P> weights;
  std::vector<gradus::step_report> reports;
};

// Some steps of five tensors: one that begins between two packs, an empty one, one longer than a block, one in a group
// of its own; clipped or not, one of them refused.
template <class T, class Backend, class Recipe>
outcome<gradus::detail::parameter_of<T>> train(const Recipe& recipe)
{
  using P = gradus::detail::parameter_of<T>;
  using G = gradus::detail::gradient_of<T>;
  constexpr std::size_t sizes[] = {1001, 0, 3, 9001, 64}, length = 10'080;
  buffer<P, Backend> weights(length);
  buffer<G, Backend> gradients(length);
  std::vector<P> start;
  for (std::size_t i = 0; i < length; ++i)
    start.push_back(number<P>(i, 0));
  weights.write(start);
  gradus::optimizer<Recipe, T, Backend> opt(recipe);
  const auto group = opt.add_group(recipe);
  std::size_t begin = 1;
  for (const std::size_t n : sizes) {
    opt.add(std::span(weights.data() + begin, n), std::span<const G>(gradients.data() + begin, n),
            n == 64 ? group : gradus::group_handle());
    begin = n == 1001 ? 1004 : begin + n;
  }
  outcome<P> o;
  for (std::size_t t = 1; t <= 6; ++t) {
    std::vector<G> g;
    for (std::size_t i = 0; i < length; ++i)
      g.push_back(number<G>(i, t));
    if (t == 4)
      g[5000] = G(std::numeric_limits<float>::infinity());
    gradients.write(g);
    gradus::step_options options{.lr_scale = 1 / double(t), .grad_scale = 0.5, .skip_nonfinite = t == 4};
    if (t % 2)
      options.max_grad_norm = 3;
    const auto report = opt.step(options);
    if constexpr (requires { opt.report(); })
      o.reports.push_back(opt.report());
    else
      o.reports.push_back(report);
  }
  o.weights = weights.read();
  return o;
}

bool near(double a, double b, double tolerance) { return std::fabs(a - b) <= tolerance * (1e-3 + std::fabs(b)); }

// Prints how many weights differ at all: on CUDA where pow does, elsewhere none may.
template <class T, class Recipe>
void check_same_as_scalar(const std::string& name, const Recipe& recipe, double tolerance)
{
  const auto got = train<T, device>(recipe);
  const auto expected = train<T, gradus::backend::scalar>(recipe);
  std::size_t different = 0, far = 0;
  for (std::size_t i = 0; i < got.weights.size(); ++i) {
    const double a = double(float(got.weights[i])), b = double(float(expected.weights[i]));
    different += a != b;
    far += !near(a, b, tolerance);
  }
  for (std::size_t t = 0; t < got.reports.size(); ++t) {
    const auto &a = got.reports[t], &b = expected.reports[t];
    CHECK(a.applied == b.applied);
    CHECK(a.grad_norm == b.grad_norm);
    CHECK(a.mean_square.has_value() == b.mean_square.has_value());
    CHECK(near(a.mean_square.value_or(0), b.mean_square.value_or(0), 1e-12));
    CHECK(near(a.decay_factor.value_or(0), b.decay_factor.value_or(0), 1e-12));
    CHECK(a.decay_clamped == b.decay_clamped);
  }
  std::printf("%-24s %zu of %zu weights differ in bits from the scalar backend's\n", name.c_str(), different,
              got.weights.size());
  CHECK_MESSAGE(far == 0, name);
#if !defined(GRADUS_TEST_CUDA)
  CHECK_MESSAGE(different == 0, name);
#endif
}

}  // namespace

#define NEEDS_A_DEVICE      \
  if (!there_is_a_device()) \
  return std::puts("left out, as there is no GPU"), void()

TEST_CASE("thrust_device: every recipe agrees with the CPU")
{
  NEEDS_A_DEVICE;
#if !defined(GRADUS_TEST_NO_GPU)  // many kernels to compile for none to run
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    Recipe recipe;
    recipe.weight_decay = 0.1;
    check_same_as_scalar<float>(std::string(name), recipe, 1e-5);
  });
  check_same_as_scalar<double>("adams, double", gradus::adams{.weight_decay = 0.1}, 1e-12);
  using masters = precision<bfloat16, bfloat16, float, float>;
  check_same_as_scalar<masters>("adamw, bfloat16, masters", gradus::adamw{}, 1e-2);
  using remainders = precision<bfloat16, bfloat16, float, gradus::remainder16>;
  check_same_as_scalar<remainders>("adamw, bfloat16, remainders", gradus::adamw{}, 1e-2);
  check_same_as_scalar<precision<float, float, bfloat16>>("adams, bfloat16 moments", gradus::adams{.weight_decay = 0.1},
                                                          1e-2);
  check_same_as_scalar<precision<float, float, gradus::block8>>("amsgrad, 8-bit moments", gradus::amsgrad{}, 1e-2);
  check_same_as_scalar<precision<float, float, gradus::block8>>("sgd, 8-bit moments", gradus::sgd{.momentum = 0.9},
                                                                1e-2);
#endif
  check_same_as_scalar<precision<float, float, gradus::block8>>("adams, 8-bit moments",
                                                                gradus::adams{.weight_decay = 0.1}, 1e-2);
}

#if defined(GRADUS_TEST_CUDA)
namespace {

struct captured {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  std::size_t nodes = 0;

  captured() { REQUIRE(cudaStreamCreate(&stream) == cudaSuccess); }
  ~captured()
  {
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
  auto backend() const { return gradus::backend::thrust_device(thrust::cuda::par_nosync.on(stream)); }
  template <class Step>
  void capture(const Step& step)
  {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    step();
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&replay, graph, 0) == cudaSuccess);
    REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
  }
};

// Captures a step, replays it with a changing lr, and compares every step with the scalar backend's.
template <class T, class Recipe>
void check_replays(const char* name, const Recipe& recipe, gradus::step_options o, std::size_t nodes,
                   std::size_t tensors = 1, double tolerance = 1e-5)
{
  using P = gradus::detail::parameter_of<T>;
  using G = gradus::detail::gradient_of<T>;
  const std::size_t n = 1003, length = tensors * n;
  captured graph;
  auto backend = graph.backend();
  buffer<P, decltype(backend)> weights(length);
  buffer<G, decltype(backend)> gradients(length);
  std::vector<P> start(length, number<P>(999, 0)), twin_weights = start;
  std::vector<G> g(length);
  weights.write(start);
  gradus::optimizer<Recipe, T, decltype(backend)> opt(recipe, backend);
  gradus::optimizer<Recipe, T, gradus::backend::scalar> twin(recipe);
  for (std::size_t k = 0; k < tensors; ++k) {
    opt.add(std::span(weights.data() + k * n, n), std::span<const G>(gradients.data() + k * n, n));
    twin.add(std::span(twin_weights.data() + k * n, n), std::span<const G>(g.data() + k * n, n));
  }
  const auto move = [&](std::size_t t) {
    for (std::size_t i = 0; i < length; ++i)
      g[i] = number<G>(i, t);
    if (o.skip_nonfinite && t % 5 == 0)
      g[length / 2] = G(t % 2 ? 1e30f : std::numeric_limits<float>::infinity());
    gradients.write(g);
  };
  move(1);
  opt.step(o);
  twin.step(o);
  graph.capture([&] { opt.step(o); });
  std::printf("%-32s %zu nodes\n", name, graph.nodes);
  CHECK_MESSAGE(graph.nodes == nodes, name);
  for (std::size_t t = 2; t <= 20; ++t) {
    move(t);
    o.lr_scale = 1 / double(t);
    opt.set_options(o);
    REQUIRE(cudaGraphLaunch(graph.replay, graph.stream) == cudaSuccess);
    const auto report = opt.report(), expected = twin.step(o);
    CHECK_MESSAGE(report.applied == expected.applied, name);
    CHECK_MESSAGE(report.grad_norm == expected.grad_norm, name);
    CHECK_MESSAGE(near(report.mean_square.value_or(0), expected.mean_square.value_or(0), 1e-12), name);
  }
  const std::vector<P> got = weights.read();
  std::size_t far = 0;
  for (std::size_t i = 0; i < length; ++i)
    far += !near(double(float(got[i])), double(float(twin_weights[i])), tolerance);
  CHECK_MESSAGE(far == 0, name);
}

}  // namespace

TEST_CASE("graph: replays with a changing lr continue as steps do; a step has two nodes, or three")
{
  NEEDS_A_DEVICE;
  using gradus::block8;
  const gradus::adams adams{.weight_decay = 0.1};
  [[maybe_unused]] const gradus::step_options plain, clipped{.max_grad_norm = 5}, skipping{.skip_nonfinite = true};
  check_replays<float>("adams, clipped, 1000 tensors", adams, clipped, 2, 1000);
#if !defined(GRADUS_TEST_NO_GPU)
  check_replays<float>("adams, clipped", adams, clipped, 2);
  check_replays<float>("adams", adams, plain, 2);
  check_replays<float>("adamw", gradus::adamw{}, plain, 2);
  check_replays<float>("adamw, clipped", gradus::adamw{}, clipped, 2);
  check_replays<float>("adamw, skip_nonfinite", gradus::adamw{}, skipping, 3);
  check_replays<float>("adams, skip_nonfinite", adams, skipping, 3);
  check_replays<double>("adams, double, clipped", adams, clipped, 3, 10, 1e-12);
  check_replays<precision<float, float, bfloat16>>("adams, bfloat16 moments", adams, clipped, 3, 10, 1e-2);
  check_replays<precision<float, float, block8>>("adamw, 8-bit moments", gradus::adamw{}, clipped, 2, 10, 1e-2);
#endif
}

TEST_CASE("grad_norm: many pages have the same bits in every step")
{
  NEEDS_A_DEVICE;
  const std::size_t n = (std::size_t(1) << 24) + 1234;
  std::vector<float> g(n), w(n);
  for (std::size_t i = 0; i < n; ++i)
    g[i] = number<float>(i, i / 1000);
  gradus::optimizer<gradus::sgd, float, gradus::backend::scalar> twin;
  twin.add(w, std::span<const float>(g));
  const double expected = *twin.step({.max_grad_norm = 1}).grad_norm;
  buffer<float, device> weights(n), gradients(n);
  gradients.write(g);
  gradus::optimizer<gradus::sgd, float, device> opt;
  opt.add(std::span(weights.data(), n), std::span<const float>(gradients.data(), n));
  for (int t = 0; t < 100; ++t) {
    opt.step({.max_grad_norm = 1});
    CHECK(*opt.report().grad_norm == expected);
  }
}

TEST_CASE("add: host memory is refused unless the device can access it")
{
  NEEDS_A_DEVICE;
  int reaches = 0;
  cudaDeviceGetAttribute(&reaches, cudaDevAttrPageableMemoryAccess, 0);
  std::vector<float> host(100);
  thrust::device_vector<float> weights(100);
  gradus::optimizer<gradus::adam, float, device> opt;
  if (reaches)
    opt.add("w", weights, host);
  else {
    CHECK_THROWS_WITH_AS(
        opt.add("w", weights, host),
        "gradus: gradients of tensor \"w\" is in host memory; expected memory that the device can access",
        std::invalid_argument);
    CHECK(opt.parameter_count() == 0);
  }
}

TEST_CASE("thrust_device: without a device, CUDA's error is reported and nothing has changed")
{
  if (there_is_a_device())
    return;
  gradus::optimizer<gradus::adam, float, device> opt;
  std::vector<float> weights(100), gradients(100);
  CHECK_THROWS_AS(opt.add(weights, gradients), std::bad_alloc);
  CHECK(opt.parameter_count() == 0);
  CHECK_THROWS_AS(device().copy(weights.data(), gradients.data(), 4), thrust::system_error);
}
#endif

TEST_CASE("thrust_device: more elements than 32 bits can count")
{
  NEEDS_A_DEVICE;
#if defined(GRADUS_TEST_CUDA)
  const std::size_t n = (std::size_t(1) << 32) / sizeof(bfloat16) + 5;
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  if (free < 2 * n * sizeof(bfloat16) + n / 4) {
    std::puts("left out, as the GPU has too little memory free");
    return;
  }
#else
  const std::size_t n = 100'005;  // on a CPU it is only tried whether the test is right
#endif
  using narrow = precision<bfloat16, bfloat16, bfloat16>;
  thrust::device_vector<bfloat16> weights(n, bfloat16(1.0f)), gradients(n, bfloat16(0.5f));
  gradus::optimizer<gradus::sgd, narrow, device> opt({.lr = 1});
  opt.add(weights, gradients);
  opt.step({.max_grad_norm = std::numeric_limits<double>::infinity()});
  CHECK(opt.report().grad_norm == std::sqrt(double(n) * 0.25));
  for (const std::size_t i : {std::size_t(0), n / 2, n - 5, n - 1})
    CHECK(float(bfloat16(weights[i])) == 0.5f);
}
