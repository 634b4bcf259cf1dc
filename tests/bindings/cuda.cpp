// libgradus_cuda through gradus_cuda.h. With GRADUS_TEST_CUDA on a GPU, if there is one; without, the same library's sources
// over Thrust's system for one CPU, where memory of the device is memory of the host.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/dispatch.hpp>
#include <gradus/checkpoint.hpp>

#include <gradus_cuda.h>

#include "bindings/support.hpp"

#include <dlfcn.h>
#if defined(GRADUS_TEST_CUDA)
#include <cuda_runtime_api.h>
#endif

using namespace bindings;

namespace {

#if defined(GRADUS_TEST_CUDA)
template <class T>
class device_array {
 public:
  explicit device_array(const std::vector<T>& values) : size_(values.size())
  {
    REQUIRE(cudaMalloc(&memory_, sizeof(T) * size_) == cudaSuccess);
    write(values);
  }
  device_array(device_array&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)), size_(other.size_) {}
  ~device_array() { cudaFree(memory_); }
  T* data() { return static_cast<T*>(memory_); }
  void write(const std::vector<T>& values)
  {
    REQUIRE(cudaMemcpy(memory_, values.data(), sizeof(T) * size_, cudaMemcpyDefault) == cudaSuccess);
  }
  std::vector<T> read() const
  {
    std::vector<T> values(size_);
    REQUIRE(cudaMemcpy(values.data(), memory_, sizeof(T) * size_, cudaMemcpyDefault) == cudaSuccess);
    return values;
  }

 private:
  void* memory_ = nullptr;
  std::size_t size_;
};
bool there_is_a_device()
{
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
}
#else
template <class T>
using device_array = host_array<T>;
bool there_is_a_device() { return true; }
#endif

// The recipes that the library under test has on devices.
using recipes = gradus::recipe_list<GRADUS_TEST_RECIPES>;
const std::vector<std::string> subset = [] {
  std::vector<std::string> names;
  for (const std::string_view name : gradus::recipe_names<recipes>())
    names.emplace_back(name);
  return names;
}();

gradus_status create_cuda(const char* recipe, const gradus_number* n, std::size_t count, gradus_dtype dtype,
                          gradus_optimizer** out)
{
  return gradus_create_cuda(recipe, n, count, dtype, nullptr, out);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), sizeof(T) * a.size()) == 0;
}

// Whether numbers agree: on CUDA, whose pow may differ in the last bit, nearly; elsewhere in their bits.
template <class T>
bool agree(const std::vector<T>& a, const std::vector<T>& b)
{
#if defined(GRADUS_TEST_CUDA)
  const double tolerance = sizeof(T) == 8 ? 1e-12 : sizeof(T) == 4 ? 1e-5 : 1e-2;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::fabs(double(float(a[i])) - double(float(b[i]))) <= tolerance * (1e-3 + std::fabs(double(float(b[i]))))))
      return false;
  return a.size() == b.size();
#else
  return same_bits(a, b);
#endif
}

using reference_backend = gradus::backend::dispatch;
reference_backend reference()
{
#if defined(GRADUS_TEST_CUDA)
  return {};  // with fma, as a GPU
#else
  return reference_backend(gradus::backend::instruction_set::baseline);  // as this library's code was compiled
#endif
}

}  // namespace

#define NEEDS_A_DEVICE      \
  if (!there_is_a_device()) \
  return std::puts("left out, as there is no GPU"), void()

TEST_CASE("gradus_create_cuda: without a device it fails with a sentence")
{
  if (there_is_a_device())
    return;
  gradus_optimizer* none = reinterpret_cast<gradus_optimizer*>(16);
  check_refused(gradus_create_cuda("adamw", nullptr, 0, GRADUS_FLOAT32, nullptr, &none),
                "gradus: no CUDA device can be used", GRADUS_DEVICE);
  CHECK(none == nullptr);
  std::puts(gradus_last_error());
}

TEST_CASE("gradus_create_cuda: null pointers, unknown names and wrong numbers are refused by a sentence")
{
  NEEDS_A_DEVICE;
  gradus_optimizer* none = reinterpret_cast<gradus_optimizer*>(16);
  check_refused(create_cuda("adamm", nullptr, 0, GRADUS_FLOAT32, &none),
                "optimizer is \"adamm\"; expected one of sgd, ");
  CHECK(none == nullptr);
  check_refused(create_cuda(nullptr, nullptr, 0, GRADUS_FLOAT32, &none), "recipe is null");
  check_refused(create_cuda("adamw", nullptr, 2, GRADUS_FLOAT32, &none), "numbers is null");
  check_refused(create_cuda("adamw", nullptr, 0, GRADUS_FLOAT32, nullptr), "out is null");
  const volatile int unknown_dtype = 9;
  check_refused(create_cuda("adamw", nullptr, 0, gradus_dtype(int(unknown_dtype)), &none), "dtype is 9");
  const gradus_number wrong = {"beta1", 1.5};
  check_refused(create_cuda("adamw", &wrong, 1, GRADUS_FLOAT32, &none), "beta1 is 1.5");
}

TEST_CASE("gradus_create: the library has the host's optimizers, too")
{
  std::vector<float> w{1, 2}, g{1, -1};
  const owned opt("adamw");
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 2, 0, nullptr) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK((w[0] < 1 && w[1] > 1.999f));
  check_refused(gradus_set_options(opt, nullptr), "the optimizer is on the host");
  check_refused(gradus_set_stream(opt, nullptr), "the optimizer is on the host");
}

TEST_CASE_TEMPLATE("gradus_step on a device: recipes of each kind agree with C++, in groups, clipped", T, float, double,
                   gradus::bfloat16, gradus::float16)
{
  NEEDS_A_DEVICE;
  for (const std::string& name : subset) {
    CAPTURE(name);
    const char* const recipe = name.c_str();
    two_tensors<T, gradus::any_optimizer<typename precision_for<T>::type, reference_backend, recipes>> model(
        recipe, reference());
    device_array<T> weights(model.w), gradients(model.g);
    const owned opt(recipe, {{"lr", model.lr}}, dtype_of<T>, create_cuda);
    CHECK(std::string(gradus_recipe(opt)) == recipe);
    CHECK(gradus_set_threads(opt, 3) == GRADUS_OK);
    model.add_to(opt, weights.data(), gradients.data());
    for (int t = 0; t < 5; ++t)
      model.step(t, [&](const gradus_step_options& o, gradus_step_report& report) {
        if (t % 2)
          CHECK(gradus_step(opt, &o, &report) == GRADUS_OK);
        else {
          CHECK(gradus_step(opt, &o, nullptr) == GRADUS_OK);
          CHECK(gradus_report(opt, &report) == GRADUS_OK);
        }
      });
    CHECK(agree(weights.read(), model.w));
    std::uint64_t steps = 0;
    CHECK(gradus_step_count(opt, 1, &steps) == GRADUS_OK);
    CHECK(steps == 5);
  }
}

TEST_CASE("gradus_step on a device: follows the recorded trajectories")
{
  NEEDS_A_DEVICE;
  check_trajectories<device_array>(create_cuda, subset);
}

TEST_CASE("gradus_step on a device: skip_nonfinite skips; flush_denormals and averages are refused")
{
  NEEDS_A_DEVICE;
  const std::vector<float> start{1, 2, 3};
  std::vector<float> g{1, float(infinity), 1};
  device_array<float> w(start), dw(g);
  const owned opt("adamw", {}, GRADUS_FLOAT32, create_cuda);
  std::size_t tensor = 0;
  CHECK(gradus_add(opt, "w", w.data(), dw.data(), 3, 0, &tensor) == GRADUS_OK);
  gradus_step_options o = gradus_default_step_options();
  o.skip_nonfinite = 1;
  gradus_step_report report{};
  report.size = sizeof report;
  CHECK(gradus_step(opt, &o, &report) == GRADUS_OK);
  CHECK(report.applied == 0);
  CHECK(w.read() == start);
  o.skip_nonfinite = 0;
  o.flush_denormals = 1;
  check_refused(gradus_step(opt, &o, nullptr), "flush_denormals is 1; expected 0");
  o.flush_denormals = 0;
  o.lr_scale = -1;
  check_refused(gradus_set_options(opt, &o), "lr_scale is -1");
  check_refused(gradus_set_options(nullptr, &o), "optimizer is null");
  check_refused(gradus_copy_average(opt, tensor, w.data(), 3), "expected one that averages weights");
  check_refused(gradus_add(opt, "w", w.data(), dw.data(), 3, 0, nullptr), "\"w\"");
}

TEST_CASE("a device's tensor: rebind, freeze, state, remove")
{
  NEEDS_A_DEVICE;
  const auto start = numbers<float>(10, 1), g = numbers<float>(10, 2);
  device_array<float> w(start), moved(start), dw(g);
  const owned opt("adamw", {}, GRADUS_FLOAT32, create_cuda);
  std::size_t tensor = 0;
  CHECK(gradus_add(opt, nullptr, w.data(), nullptr, 10, 0, &tensor) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(gradus_rebind(opt, tensor, moved.data(), dw.data(), 10) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(w.read() == start);
  const auto once = moved.read();
  CHECK(once != start);
  CHECK(gradus_freeze(opt, tensor) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(moved.read() == once);
  CHECK(gradus_unfreeze(opt, tensor) == GRADUS_OK);
  void* values = nullptr;
  std::size_t n = 0;
  gradus_dtype dtype = GRADUS_FLOAT64;
  CHECK(gradus_state(opt, "tensor0", "exp_avg", &values, &n, &dtype) == GRADUS_OK);
  CHECK((n == 10 && dtype == GRADUS_FLOAT32));
  std::vector<float> state(10);
#if defined(GRADUS_TEST_CUDA)
  REQUIRE(cudaMemcpy(state.data(), values, 40, cudaMemcpyDefault) == cudaSuccess);
#else
  std::memcpy(state.data(), values, 40);
#endif
  CHECK(state[3] == doctest::Approx(0.1f * g[3]));
  std::vector<std::string> slots;
  const auto note = [](void* self, const char* t, const char* slot) {
    static_cast<std::vector<std::string>*>(self)->push_back(std::string(t) + "/" + slot);
  };
  CHECK(gradus_for_each_slot(opt, note, &slots) == GRADUS_OK);
  CHECK(slots == std::vector<std::string>{"tensor0/exp_avg", "tensor0/exp_avg_sq"});
  CHECK(gradus_remove(opt, tensor, 0) == GRADUS_OK);
  CHECK(gradus_parameter_count(opt) == 0);
}

TEST_CASE_TEMPLATE("a device's checkpoint: goes on bit-identically, and to the host and back", T, float, double,
                   gradus::bfloat16)
{
  NEEDS_A_DEVICE;
  const auto start = numbers<T>(300, 1), g = numbers<T>(300, 2);
  device_array<T> w(start), dw(g), again(start);
  std::vector<T> on_host = start;
  const auto add = [&](gradus_optimizer* opt, T* weights, const T* gradients) {
    CHECK(gradus_add(opt, "w", weights, gradients, 300, 0, nullptr) == GRADUS_OK);
  };
  const auto saved = [](gradus_optimizer* opt) {
    std::string bytes;
    const auto append = [](void* self, const void* from, std::size_t count) {
      static_cast<std::string*>(self)->append(static_cast<const char*>(from), count);
      return 1;
    };
    CHECK(gradus_save_to(opt, append, &bytes, 1) == GRADUS_OK);
    return bytes;
  };
  const auto load = [](gradus_optimizer* opt, const std::string& bytes) {
    CHECK(gradus_load_from(opt, bytes.data(), bytes.size(), nullptr) == GRADUS_OK);
  };
  const owned opt("adams", {{"weight_decay", 0.01}}, dtype_of<T>, create_cuda);
  add(opt, w.data(), dw.data());
  for (int t = 0; t < 3; ++t)
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  const std::string bytes = saved(opt);
  const owned host("adams", {}, dtype_of<T>), resumed("adams", {}, dtype_of<T>, create_cuda);
  add(host, on_host.data(), g.data());
  load(host, bytes);
  CHECK(same_bits(on_host, w.read()));
  CHECK(saved(host) == bytes);
  add(resumed, again.data(), dw.data());
  load(resumed, saved(host));
  for (int t = 0; t < 2; ++t) {
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
    CHECK(gradus_step(resumed, nullptr, nullptr) == GRADUS_OK);
  }
  CHECK(same_bits(again.read(), w.read()));
  CHECK_FALSE(same_bits(again.read(), on_host));
  CHECK(saved(resumed) == saved(opt));
}

TEST_CASE("gradus_set_stream: steps continue on another stream")
{
  NEEDS_A_DEVICE;
  struct CUstream_st* other = nullptr;
#if defined(GRADUS_TEST_CUDA)
  REQUIRE(cudaStreamCreate(&other) == cudaSuccess);
#endif
  const auto start = numbers<float>(100, 1), g = numbers<float>(100, 2);
  device_array<float> w(start), twin(start), dw(g);
  {
    const owned opt("adamw", {}, GRADUS_FLOAT32, create_cuda), same("adamw", {}, GRADUS_FLOAT32, create_cuda);
    CHECK(gradus_add(opt, "w", w.data(), dw.data(), 100, 0, nullptr) == GRADUS_OK);
    CHECK(gradus_add(same, "w", twin.data(), dw.data(), 100, 0, nullptr) == GRADUS_OK);
    for (int t = 0; t < 4; ++t) {
      CHECK(gradus_set_stream(opt, t % 2 ? other : nullptr) == GRADUS_OK);
      gradus_step_report report{};
      report.size = sizeof report;
      CHECK(gradus_step(opt, nullptr, &report) == GRADUS_OK);  // waits, so that the streams are ordered
      CHECK(gradus_step(same, nullptr, nullptr) == GRADUS_OK);
    }
    std::uint64_t steps = 0;
    CHECK(gradus_step_count(same, 0, &steps) == GRADUS_OK);
    CHECK(same_bits(w.read(), twin.read()));
    CHECK(gradus_set_stream(opt, nullptr) == GRADUS_OK);
  }
#if defined(GRADUS_TEST_CUDA)
  cudaStreamDestroy(other);
#endif
  check_refused(gradus_set_stream(nullptr, nullptr), "optimizer is null");
}

#if defined(GRADUS_TEST_CUDA)
TEST_CASE("gradus_set_options: replays of a captured step continue as steps do")
{
  NEEDS_A_DEVICE;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  const auto start = numbers<float>(1003, 1), g = numbers<float>(1003, 2);
  device_array<float> w(start), twin(start), dw(g);
  {
    gradus_optimizer* opt = nullptr;
    REQUIRE(gradus_create_cuda("adamw", nullptr, 0, GRADUS_FLOAT32, stream, &opt) == GRADUS_OK);
    const owned same("adamw", {}, GRADUS_FLOAT32, create_cuda);
    CHECK(gradus_add(opt, "w", w.data(), dw.data(), 1003, 0, nullptr) == GRADUS_OK);
    CHECK(gradus_add(same, "w", twin.data(), dw.data(), 1003, 0, nullptr) == GRADUS_OK);
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
    CHECK(gradus_step(same, nullptr, nullptr) == GRADUS_OK);
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&replay, graph, 0) == cudaSuccess);
    gradus_step_options o = gradus_default_step_options();
    for (int t = 2; t <= 20; ++t) {
      o.lr_scale = 1.0 / t;
      CHECK(gradus_set_options(opt, &o) == GRADUS_OK);
      REQUIRE(cudaGraphLaunch(replay, stream) == cudaSuccess);
      CHECK(gradus_step(same, &o, nullptr) == GRADUS_OK);
    }
    std::uint64_t steps = 0;
    CHECK(gradus_step_count(opt, 0, &steps) == GRADUS_OK);
    CHECK(steps == 20);
    CHECK(w.read() == twin.read());
    gradus_destroy(opt);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_CASE("gradus_add on a device: host memory is refused unless the device can access it")
{
  NEEDS_A_DEVICE;
  int reaches = 0;
  cudaDeviceGetAttribute(&reaches, cudaDevAttrPageableMemoryAccess, 0);
  if (reaches)
    return;
  std::vector<float> w(10), g(10);
  const owned opt("adamw", {}, GRADUS_FLOAT32, create_cuda);
  check_refused(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr), "is in host memory");
}
#endif

TEST_CASE("libgradus refuses an optimizer of libgradus_cuda, and the other way round")
{
  void* const other = dlopen(GRADUS_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  REQUIRE(other);
  const auto create = reinterpret_cast<decltype(&gradus_create)>(dlsym(other, "gradus_create"));
  const auto step = reinterpret_cast<decltype(&gradus_step)>(dlsym(other, "gradus_step"));
  const auto destroy = reinterpret_cast<decltype(&gradus_destroy)>(dlsym(other, "gradus_destroy"));
  CHECK(dlsym(other, "gradus_create_cuda") == nullptr);
  const owned mine("adamw");
  gradus_optimizer* its = nullptr;
  REQUIRE(create("adamw", nullptr, 0, GRADUS_FLOAT32, &its) == GRADUS_OK);
  CHECK(step(mine, nullptr, nullptr) == GRADUS_INVALID_ARGUMENT);
  check_refused(gradus_step(its, nullptr, nullptr), "optimizer is none; expected one from gradus_create");
  destroy(its);
}
