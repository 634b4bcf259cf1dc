#pragma once
// What the benchmark programs share: the measured steps, and their names. A benchmark's name has seven parts:
//
//     kind/recipe/variant/backend/executor/precision/shape
//
// kind is `step` (gradus), `twin` (the same step by hand, twins.hpp), `traffic` (the same bytes, no arithmetic) or
// `choice` (gradus with another choice than the shipped one); a part that does not apply is `-`. Every benchmark has the
// counters bytes_per_second, ns_per_parameter, bytes_per_parameter, state_bytes, tensors and parameters; report.py
// computes ratios. run.sh passes --benchmark_repetitions and --benchmark_enable_random_interleaving, so that compared
// benchmarks run side by side.

#include <benchmark/benchmark.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <cstring>
#include <string>
#include <utility>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

#include "model.hpp"
#include "twins.hpp"

namespace bench {

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
/// The precisions that are measured. A further one needs a line here, its `precision` above, and one in CMakeLists.txt.
using precisions = list<float, double, bf16_state, block8_state, bf16_master, bf16_remainder, bf16_all>;

// ── the measured bodies ──────────────────────────────────────────────────────────────────────────────────────────

inline void count(benchmark::State& state, const shape& s, double bytes_per_parameter, std::size_t state_bytes = 0)
{
  using benchmark::Counter;
  const double n = double(s.elements());
  state.counters["ns_per_parameter"] = Counter(n * 1e-9, Counter::kIsIterationInvariantRate | Counter::kInvert);
  state.counters["bytes_per_second"] = Counter(n * bytes_per_parameter, Counter::kIsIterationInvariantRate);
  state.counters["bytes_per_parameter"] = bytes_per_parameter;
  state.counters["state_bytes"] = double(state_bytes);
  state.counters["tensors"] = double(s.tensors());
  state.counters["parameters"] = n;
}

/// Bytes moved: θ and the state are read and written, g is read.
template <class T>
double bytes_per_parameter(std::size_t state_bytes, const shape& s)
{
  return 3.0 * sizeof(typename precision<T>::parameter) + 2 * double(state_bytes) / double(s.elements());
}

constexpr double given_mean_square = 0.01;

/// Measures the steps of an optimizer that has its tensors.
template <class T, class Optimizer>
void measure_steps(benchmark::State& state, const shape& s, Optimizer& opt, const gradus::step_options& o = {})
{
  for (auto _ : state) {
    opt.step(o);
    clobber();
  }
  count(state, s, bytes_per_parameter<T>(opt.state_bytes(), s), opt.state_bytes());
}

#if TWINS
/// The same model with the hand-written step.
template <class Recipe, class T>
class by_hand {
 public:
  by_hand(const shape& s, const Recipe& h) : x(s), recipe_(h)
  {
    const auto rule = h.rule();
    for (std::size_t k = 0; k < slots; ++k) {
      state_.emplace_back(x.length());
      for (std::size_t i = 0; i < x.length(); ++i)
        state_[k].data()[i] = T(gradus::initial_value(rule, k));
    }
  }
  void step()
  {
    const double n = double(x.s.elements());
    const auto c = twins::prepare<T>(recipe_, ++t_, sum_, given_mean_square * n, n);
    for (std::size_t k = 0; k < x.s.tensors(); ++k) {
      T* slot[slots + 1] = {};
      for (std::size_t j = 0; j < slots; ++j)
        slot[j] = state_[j].data() + x.starts[k];
      twins::step(recipe_, c, x.parameters(k), x.gradients(k), slot, x.s.sizes[k]);
    }
  }
  std::size_t state_bytes() const { return slots * x.s.elements() * sizeof(T); }

  model<T> x;

 private:
  static constexpr std::size_t slots = decltype(std::declval<Recipe>().rule())::slots;
  Recipe recipe_;
  std::vector<buffer<T>> state_;
  double t_ = 0, sum_ = 0;
};

/// Whether the twin gives the same bits as gradus.
template <class T, class Recipe>
bool same_bits(const Recipe& h)
{
  by_hand<Recipe, T> hand({3, 1000}, h);
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
  by_hand<Recipe, T> hand(s, h);
  for (auto _ : state) {
    hand.step();
    clobber();
  }
  count(state, s, bytes_per_parameter<T>(hand.state_bytes(), s));
}
#endif

template <class T, bool Prefetch, std::size_t Slots>
void traffic(benchmark::State& state, const shape& s)
{
  const model<T> x(s);
  std::vector<buffer<T>> slots;
  for (std::size_t k = 0; k < Slots; ++k) {
    slots.emplace_back(x.length());
    std::memset(slots[k].data(), 0, x.length() * sizeof(T));
  }
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    for (auto _ : state) {
      for (std::size_t k = 0; k < s.tensors(); ++k)
        twins::traffic<Prefetch>(s.sizes[k], x.gradients(k), x.parameters(k), slots[K].data() + x.starts[k]...);
      clobber();
    }
  }(std::make_index_sequence<Slots>{});
  count(state, s, double((3 + 2 * Slots) * sizeof(T)));
}

template <class T>
void read_gradients(benchmark::State& state, const shape& s)
{
  const model<T> x(s);
  for (auto _ : state)
    for (std::size_t k = 0; k < s.tensors(); ++k)
      benchmark::DoNotOptimize(twins::read(s.sizes[k], x.gradients(k)));
  count(state, s, sizeof(T));
}

// ── the benchmarks ───────────────────────────────────────────────────────────────────────────────────────────────

#if defined(GRADUS_HAS_SIMD)
inline const std::string default_name = "simd";
#else
inline const std::string default_name = "scalar";
#endif

/// One thread is measured by processor time, which other programs on the machine do not lengthen; several threads are
/// measured by wall-clock time.
enum class clock { processor, wall, manual };

template <class F>
void put(const std::string& name, const shape& s, const F& f, clock c = clock::processor)
{
  auto* const b = benchmark::RegisterBenchmark((name + "/" + s.name).c_str(), f);
  if (c == clock::wall)
    b->UseRealTime();
  if (c == clock::manual)
    b->UseManualTime();
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
  }(std::make_index_sequence<5>{});
  put(std::string("traffic/gradients/plain/-/-/") + precision<T>::name, s,
      [=](benchmark::State& state) { read_gradients<T>(state, s); });
}

/// The step by hand, of a recipe that has one.
template <class T, class Recipe>
void put_twin([[maybe_unused]] const char* name, [[maybe_unused]] const shape& s)
{
#if TWINS
  if constexpr (twins::exists<Recipe>)
    put("twin/" + std::string(name) + "/-/-/-/" + precision<T>::name, s,
        [s, h = measured<Recipe>()](benchmark::State& state) { twin<T>(state, s, h); });
#endif
}

/// Runs what was put. Takes Google Benchmark's options, and refuses others.
inline int run(int argc, char** argv)
{
#if defined(__GLIBC__)
  // Keeps freed memory for the next benchmark; otherwise page faults would take most of the time.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
  benchmark::AddCustomContext("compiler", BENCH_COMPILER);
  benchmark::AddCustomContext("flags", BENCH_FLAGS);
  benchmark::AddCustomContext("threads_from", std::to_string(gradus::backend::division{}.from));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace bench
