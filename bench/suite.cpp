// The microbenchmarks. A benchmark's name has seven parts:
//
//     kind/recipe/variant/backend/executor/precision/shape
//
// kind is `step` (gradus), `twin` (the same step by hand, twins.hpp) or `traffic` (the same bytes, no arithmetic); a
// part that does not apply is `-`; a shape is a number of elements, or tensors x elements. Every benchmark has the
// counters bytes_per_second, ns_per_parameter, bytes_per_parameter and tensors; report.py computes ratios. run.sh
// passes --benchmark_repetitions and --benchmark_enable_random_interleaving, so that compared benchmarks run side by
// side.
//
// Every recipe runs on the default backend, in float, serially, beside its twin. The other backends, executors and
// precisions (double beside its twin, too) run only with AdamW, AdamS and SGD, because they use the same loops and all
// combinations would take minutes to compile.

#include <benchmark/benchmark.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <cstring>

#include <gradus/executor/openmp.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>
#if defined(BENCH_TBB)
#include <gradus/executor/tbb.hpp>
#endif
#if defined(BENCH_DISPATCH)
#include <gradus/backend/dispatch.hpp>
#endif

#include "model.hpp"
#include "twins.hpp"

namespace {

using bench::model;
using bench::shape;

constexpr shape one_tensor[] = {{1, 1 << 12}, {1, 1 << 16}, {1, 1 << 20}, {1, 1 << 24}, {1, 1 << 26}};
constexpr shape many_tensors[] = {{1000, 64}, {1000, 1000}};

template <class F>
void for_each_shape(const F& f)
{
  for (const shape& s : one_tensor)
    f(s);
  for (const shape& s : many_tensors)
    f(s);
}

// ── precisions ───────────────────────────────────────────────────────────────────────────────────────────────────

/// The name of a precision, and the number types of its parameters and gradients.
template <class T>
struct precision;
template <>
struct precision<float> {
  static constexpr const char* name = "float";
  using parameter = float;
};
template <>
struct precision<double> {
  static constexpr const char* name = "double";
  using parameter = double;
};

using bf16_state = gradus::precision<float, float, gradus::bfloat16>;
template <>
struct precision<bf16_state> {
  static constexpr const char* name = "bf16_state";
  using parameter = float;
};
using block8_state = gradus::precision<float, float, gradus::block8>;
template <>
struct precision<block8_state> {
  static constexpr const char* name = "8bit_state";
  using parameter = float;
};
using bf16_master = gradus::precision<gradus::bfloat16, gradus::bfloat16, float, float>;
template <>
struct precision<bf16_master> {
  static constexpr const char* name = "bf16_with_master";
  using parameter = gradus::bfloat16;
};
using bf16_remainder = gradus::precision<gradus::bfloat16, gradus::bfloat16, float, gradus::remainder16>;
template <>
struct precision<bf16_remainder> {
  static constexpr const char* name = "bf16_with_remainder";
  using parameter = gradus::bfloat16;
};
using bf16_all = gradus::precision<gradus::bfloat16, gradus::bfloat16, gradus::bfloat16>;
template <>
struct precision<bf16_all> {
  static constexpr const char* name = "bf16_all";
  using parameter = gradus::bfloat16;
};

template <class... T>
struct list {};
/// The precisions that are measured. A further one needs a line here and its `precision` above.
using precisions = list<float, double, bf16_state, block8_state, bf16_master, bf16_remainder, bf16_all>;

// ── the measured bodies ──────────────────────────────────────────────────────────────────────────────────────────

void count(benchmark::State& state, const shape& s, double bytes_per_parameter)
{
  using benchmark::Counter;
  const double n = double(s.elements());
  state.counters["ns_per_parameter"] = Counter(n * 1e-9, Counter::kIsIterationInvariantRate | Counter::kInvert);
  state.counters["bytes_per_second"] = Counter(n * bytes_per_parameter, Counter::kIsIterationInvariantRate);
  state.counters["bytes_per_parameter"] = bytes_per_parameter;
  state.counters["tensors"] = double(s.tensors);
}

/// Bytes moved: θ and the state are read and written, g is read.
template <class T>
double bytes_per_parameter(std::size_t state_bytes, const shape& s)
{
  return 3.0 * sizeof(typename precision<T>::parameter) + 2 * double(state_bytes) / double(s.elements());
}

struct variant {
  const char* name = "-";
  gradus::step_options options = {};
  bool unaligned = false;
  bool denormal = false;    // gradients and state are denormal numbers
  bool norm_given = false;  // the caller passes ‖g‖²
};

constexpr double given_mean_square = 0.01;

template <class Recipe, class T, class Backend>
void step(benchmark::State& state, const shape& s, const Recipe& recipe, const Backend& backend, const variant& v)
{
  using parameter = typename precision<T>::parameter;
  const model<parameter> x(s, v.unaligned);
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  x.add_to(opt);
  if constexpr (std::is_same_v<T, float>)
    if (v.denormal) {
      for (std::size_t i = 0; i < s.tensors * x.stride; ++i)
        x.g.data()[i] = 1e-40f;
      opt.visit_state([]<class X>(std::string_view, std::string_view, std::span<X> values) {
        if constexpr (std::is_same_v<X, float>)
          for (float& value : values)
            value = 1e-40f;
      });
    }
  gradus::step_options o = v.options;
  if (v.norm_given)
    o.grad_norm_sq = given_mean_square * double(s.elements());
  for (auto _ : state) {
    opt.step(o);
    bench::clobber();
  }
  count(state, s, bytes_per_parameter<T>(opt.state_bytes(), s));
}

#if TWINS
/// The same model with the hand-written step.
template <class T, class Recipe>
class by_hand {
 public:
  by_hand(const shape& s, const Recipe& h) : x(s), recipe_(h)
  {
    const auto rule = h.rule();
    for (std::size_t k = 0; k < slots; ++k) {
      state_.emplace_back(s.tensors * x.stride);
      for (std::size_t i = 0; i < s.tensors * x.stride; ++i)
        state_[k].data()[i] = T(gradus::initial_value(rule, k));
    }
  }
  void step()
  {
    const double n = double(x.s.elements());
    const auto c = twins::prepare<T>(recipe_, ++t_, sum_, given_mean_square * n, n);
    for (std::size_t k = 0; k < x.s.tensors; ++k) {
      T* slot[slots + 1] = {};
      for (std::size_t j = 0; j < slots; ++j)
        slot[j] = state_[j].data() + k * x.stride;
      twins::step(recipe_, c, x.parameters(k), x.gradients(k), slot, x.s.size);
    }
  }
  std::size_t state_bytes() const { return slots * x.s.elements() * sizeof(T); }

  model<T> x;

 private:
  static constexpr std::size_t slots = decltype(std::declval<Recipe>().rule())::slots;
  Recipe recipe_;
  std::vector<bench::buffer<T>> state_;
  double t_ = 0, sum_ = 0;
};

/// Whether the twin gives the same bits as gradus.
template <class T, class Recipe>
bool same_bits(const Recipe& h)
{
  by_hand<T, Recipe> hand({3, 1000}, h);
  const model<T> x({3, 1000});
  gradus::optimizer<Recipe, T> opt(h);
  x.add_to(opt);
  for (int i = 0; i < 7; ++i) {
    hand.step();
    opt.step({.grad_norm_sq = given_mean_square * 3000});
  }
  for (std::size_t k = 0; k < 3; ++k)
    if (std::memcmp(hand.x.parameters(k), x.parameters(k), 1000 * sizeof(T)) != 0)
      return false;
  return true;
}

template <class T, class Recipe>
void twin(benchmark::State& state, const shape& s, const Recipe& h)
{
  if (!same_bits<T>(h)) {
    state.SkipWithError("the twin's results are not gradus's");
    return;
  }
  by_hand<T, Recipe> hand(s, h);
  for (auto _ : state) {
    hand.step();
    bench::clobber();
  }
  count(state, s, bytes_per_parameter<T>(hand.state_bytes(), s));
}
#endif

template <class T, bool Prefetch, std::size_t Slots>
void traffic(benchmark::State& state, const shape& s)
{
  const model<T> x(s);
  std::vector<bench::buffer<T>> slots;
  for (std::size_t k = 0; k < Slots; ++k) {
    slots.emplace_back(s.tensors * x.stride);
    std::memset(slots[k].data(), 0, s.tensors * x.stride * sizeof(T));
  }
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    for (auto _ : state) {
      for (std::size_t k = 0; k < s.tensors; ++k)
        twins::traffic<Prefetch>(s.size, x.gradients(k), x.parameters(k), slots[K].data() + k * x.stride...);
      bench::clobber();
    }
  }(std::make_index_sequence<Slots>{});
  count(state, s, double((3 + 2 * Slots) * sizeof(T)));
}

/// The time to add one of many tensors; it must not grow with their number.
void add(benchmark::State& state, std::size_t tensors)
{
  const model<float> x({tensors, 64});
  for (auto _ : state) {
    gradus::optimizer<gradus::sgd> opt;
    x.add_to(opt);
    benchmark::DoNotOptimize(opt.parameter_count());
  }
  count(state, {tensors, 64}, 0);
}

// ── the benchmarks ───────────────────────────────────────────────────────────────────────────────────────────────

/// One thread is measured by processor time, which other programs on the machine do not lengthen; several threads are
/// measured by wall-clock time.
template <class F>
void put(const std::string& name, const shape& s, const F& f, bool threaded = false)
{
  auto* const b = benchmark::RegisterBenchmark((name + "/" + s.name()).c_str(), f);
  if (threaded)
    b->UseRealTime();
}

template <class T, class Recipe, class Backend>
void put_step(const char* recipe_name, const Recipe& recipe, const std::string& where, const Backend& backend,
              const shape& s, const variant& v = {})
{
  put(
      "step/" + std::string(recipe_name) + "/" + v.name + "/" + where + "/" + precision<T>::name, s,
      [=](benchmark::State& state) { step<Recipe, T, Backend>(state, s, recipe, backend, v); },
      requires { backend.executor; });
}

#if defined(GRADUS_HAS_SIMD)
const std::string default_name = "simd";
#else
const std::string default_name = "scalar";
#endif

template <class T, class Recipe>
void put_twin([[maybe_unused]] const char* name, [[maybe_unused]] const Recipe& h, [[maybe_unused]] const shape& s)
{
#if TWINS
  if constexpr (twins::exists<Recipe>)
    put("twin/" + std::string(name) + "/-/-/-/" + precision<T>::name, s,
        [=](benchmark::State& state) { twin<T>(state, s, h); });
#endif
}

void put_every_recipe(const shape& s)
{
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    const Recipe h = bench::measured<Recipe>();
    put_step<float>(name, h, default_name + "/serial", gradus::default_backend{}, s);
    put_twin<float>(name, h, s);
  });
}

template <class T>
void put_traffic(const shape& s)
{
  [&]<std::size_t... Slots>(std::index_sequence<Slots...>) {
    const auto one = [&](const char* variant, auto body) {
      put("traffic/" + std::string(variant) + "/-/-/" + precision<T>::name, s,
          [=](benchmark::State& state) { body(state, s); });
    };
    (one((std::to_string(Slots) + "_slots/plain").c_str(), traffic<T, false, Slots>), ...);
    (one((std::to_string(Slots) + "_slots/prefetch").c_str(), traffic<T, true, Slots>), ...);
  }(std::make_index_sequence<4>{});
}

template <class T, class Recipe>
void put_backends_and_executors(const char* name, const shape& s)
{
  const Recipe h = bench::measured<Recipe>();
  if constexpr (!std::is_same_v<T, float>)  // put_every_recipe has float
    put_step<T>(name, h, default_name + "/serial", gradus::default_backend{}, s);
  if constexpr (std::is_same_v<T, double>)
    put_twin<T>(name, h, s);
#if defined(GRADUS_HAS_SIMD)
  if constexpr (gradus::real<T>)
    put_step<T>(name, h, "scalar/serial", gradus::backend::scalar{}, s);
#endif
#if defined(BENCH_DISPATCH)
  if constexpr (gradus::real<T>)
    put_step<T>(name, h, "dispatch/serial", gradus::backend::dispatch{}, s);
#endif
  if constexpr (std::is_same_v<T, float>) {
    const auto on_threads = [&](const char* executor_name, const auto& executor) {
      put_step<T>(name, h, default_name + "/" + executor_name,
                  gradus::backend::parallel(gradus::default_backend{}, executor), s);
    };
    static const gradus::executor::thread_pool pool;
    on_threads("thread_pool", pool);
#if defined(_OPENMP)
    on_threads("openmp", gradus::executor::openmp{});
#endif
#if defined(BENCH_TBB)
    on_threads("tbb", gradus::executor::tbb{});
#endif
  }
}

void put_variants(const shape& s)
{
  const auto put_variant = [&](const char* name, const auto& recipe, const variant& v) {
    put_step<float>(name, recipe, default_name + "/serial", gradus::default_backend{}, s, v);
  };
  const gradus::adamw adamw = bench::measured<gradus::adamw>();
  const gradus::adams adams = bench::measured<gradus::adams>();
  put_variant("adams", adams, {.name = "norm_given", .norm_given = true});
  put_variant("adams", adams, {.name = "clipped", .options = {.max_grad_norm = 1.0}});
  put_variant("adamw", adamw, {.name = "clipped", .options = {.max_grad_norm = 1.0}});
  put_variant("adamw", adamw, {.name = "unaligned", .unaligned = true});
  put_variant("adamw", adamw, {.name = "denormals", .denormal = true});
  put_variant("adamw", adamw, {.name = "denormals_flushed", .options = {.flush_denormals = true}, .denormal = true});
  put_variant("sgd", gradus::sgd{}, {.name = "no_momentum"});
  gradus::padam padam = bench::measured<gradus::padam>();
  padam.partial = 0.3;  // no power of two, so pow is used
  put_variant("padam", padam, {.name = "pow"});
}

}  // namespace

int main(int argc, char** argv)
{
#if defined(__GLIBC__)
  // Keeps freed memory for the next benchmark; otherwise page faults would take most of the time.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
  for_each_shape([](const shape& s) {
    put_every_recipe(s);
    put_variants(s);
    [&]<class... T>(list<T...>) {
      (put_backends_and_executors<T, gradus::adamw>("adamw", s), ...);
      (put_backends_and_executors<T, gradus::adams>("adams", s), ...);
      (put_backends_and_executors<T, gradus::sgd>("sgd", s), ...);
    }(precisions{});
    put_traffic<float>(s);
    put_traffic<double>(s);
  });
  for (const std::size_t n : {std::size_t(1000), std::size_t(10000), std::size_t(100000)})
    put("add/sgd/-/-/-/float", {n, 64}, [n](benchmark::State& state) { add(state, n); });

  benchmark::AddCustomContext("compiler", BENCH_COMPILER);
  benchmark::AddCustomContext("flags", BENCH_FLAGS);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
}
