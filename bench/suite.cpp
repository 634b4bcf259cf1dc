// The microbenchmarks (measure.hpp), on one tensor of several sizes and on a thousand.
//
// Every recipe runs on the default backend, in float, serially, beside its twin. The other backends, executors and
// precisions (double beside its twin, too) run only with AdamW, AdamS and SGD, because they use the same loops and all
// combinations would take minutes to compile.

#include <gradus/executor/openmp.hpp>
#include <gradus/executor/thread_pool.hpp>
#if defined(BENCH_TBB)
#include <gradus/executor/tbb.hpp>
#endif
#if defined(BENCH_DISPATCH)
#include <gradus/backend/dispatch.hpp>
#endif

#include "measure.hpp"

namespace {

using bench::default_name;
using bench::model;
using bench::precision;
using bench::put;
using bench::shape;

const shape shapes[] = {{1, 1 << 12}, {1, 1 << 16}, {1, 1 << 20}, {1, 1 << 24}, {1, 1 << 26}, {1000, 64}, {1000, 1000}};

// ── the measured bodies ──────────────────────────────────────────────────────────────────────────────────────────

struct variant {
  const char* name = "-";
  gradus::step_options options = {};
  bool unaligned = false;
  bool denormal = false;    // gradients and state are denormal numbers
  bool norm_given = false;  // the caller passes ‖g‖²
};

template <class Recipe, class T, class Backend>
void step(benchmark::State& state, const shape& s, const Recipe& recipe, const Backend& backend, const variant& v)
{
  using parameter = typename precision<T>::parameter;
  const model<parameter> x(s, v.unaligned);
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  x.add_to(opt);
  if constexpr (std::is_same_v<T, float>)
    if (v.denormal) {
      for (std::size_t i = 0; i < x.length(); ++i)
        x.g.data()[i] = 1e-40f;
      opt.visit_state([]<class X>(std::string_view, std::string_view, std::span<X> values) {
        if constexpr (std::is_same_v<X, float>)
          for (float& value : values)
            value = 1e-40f;
      });
    }
  gradus::step_options o = v.options;
  if (v.norm_given)
    o.grad_norm_sq = bench::given_mean_square * double(s.elements());
  bench::measure_steps<T>(state, s, opt, o);
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
  bench::count(state, {tensors, 64}, 0);
}

// ── the benchmarks ───────────────────────────────────────────────────────────────────────────────────────────────

template <class T, class Recipe, class Backend>
void put_step(const char* recipe_name, const Recipe& recipe, const std::string& where, const Backend& backend,
              const shape& s, const variant& v = {})
{
  put(
      "step/" + std::string(recipe_name) + "/" + v.name + "/" + where + "/" + precision<T>::name, s,
      [=](benchmark::State& state) { step<Recipe, T, Backend>(state, s, recipe, backend, v); },
      requires { backend.executor; } ? bench::clock::wall : bench::clock::processor);
}

void put_every_recipe(const shape& s)
{
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    const Recipe h = bench::measured<Recipe>();
    put_step<float>(name, h, default_name + "/serial", gradus::default_backend{}, s);
    bench::put_twin<float, Recipe>(name, s);
  });
}

template <class T, class Recipe>
void put_backends_and_executors(const char* name, const shape& s)
{
  const Recipe h = bench::measured<Recipe>();
  if constexpr (!std::is_same_v<T, float>)  // put_every_recipe has float
    put_step<T>(name, h, default_name + "/serial", gradus::default_backend{}, s);
  if constexpr (std::is_same_v<T, double>)
    bench::put_twin<double, Recipe>(name, s);
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
  for (const shape& s : shapes) {
    put_every_recipe(s);
    put_variants(s);
    [&]<class... T>(bench::list<T...>) {
      (put_backends_and_executors<T, gradus::adamw>("adamw", s), ...);
      (put_backends_and_executors<T, gradus::adams>("adams", s), ...);
      (put_backends_and_executors<T, gradus::sgd>("sgd", s), ...);
    }(bench::precisions{});
    bench::put_traffic<float>(s);
    bench::put_traffic<double>(s);
  }
  for (const std::size_t n : {std::size_t(1000), std::size_t(10000), std::size_t(100000)})
    put("add/sgd/-/-/-/float", {n, 64}, [n](benchmark::State& state) { add(state, n); });

  return bench::run(argc, argv);
}
