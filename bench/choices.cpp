// The library's own choices that change speed and no bits, each beside other choices, in benchmarks with the names
//
//     choice/recipe/what is chosen/option/executor/float/shape
//
// The option `shipped` is there twice, as `shipped` and as `shipped again`: how far they differ is the noise of the run.

#include <chrono>

#include <gradus/executor/thread_pool.hpp>

#include "measure.hpp"

namespace {

using namespace std::chrono_literals;
using bench::shape;

template <class Recipe, class Backend>
void put_option(const char* recipe, const char* what, const std::string& option, const shape& s, const Backend& backend)
{
  constexpr bool threaded = requires { backend.executor; };
  bench::put(
      std::string("choice/") + recipe + "/" + what + "/" + option + (threaded ? "/thread_pool" : "/serial") + "/float",
      s,
      [=](benchmark::State& state) {
        const bench::model<float> x(s);
        gradus::optimizer<Recipe, float, Backend> opt(bench::measured<Recipe>(), backend);
        x.add_to(opt);
        bench::measure_steps<float>(state, s, opt);
      },
      threaded ? bench::clock::wall : bench::clock::processor);
}

#if defined(GRADUS_HAS_SIMD)

using gradus::backend::prefetching;
using gradus::backend::simd_tuning;

/// The shipped choices but one.
template <prefetching simd_tuning::* Of>
constexpr simd_tuning with(const prefetching& p)
{
  simd_tuning t;
  t.*Of = p;
  return t;
}

/// Prefetching so many bytes ahead, into the first-level cache (t0) or the second-level cache (t1).
template <class Recipe, prefetching simd_tuning::* Of>
void put_prefetching(const char* recipe, const char* what)
{
  for (const shape& s : {shape(1, 1 << 12), shape(1, 1 << 16), shape(1, 1 << 18), shape(1, 1 << 20), shape(1, 1 << 22),
                         shape(1, 1 << 24), shape(1000, 64), shape(1000, 1000)}) {
    const auto put = [&]<simd_tuning Tuning>(const char* option) {
      put_option<Recipe>(recipe, what, option, s, gradus::backend::basic_simd<xsimd::default_arch, Tuning>{});
    };
    put.template operator()<simd_tuning{}>("shipped");
    put.template operator()<simd_tuning{}>("shipped again");
    put.template operator()<with<Of>({.bytes = 0})>("none");
    put.template operator()<with<Of>({.bytes = 2048})>("2048 t0");
    put.template operator()<with<Of>({.bytes = 4096})>("4096 t0");
    put.template operator()<with<Of>({.bytes = 8192})>("8192 t0");
    put.template operator()<with<Of>({.bytes = 16384})>("16384 t0");
    put.template operator()<with<Of>({.bytes = 8192, .level = 2})>("8192 t1");
  }
}

#endif

using parallel = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;

/// One thread or all, by the size of a step.
void put_threads(const gradus::executor::thread_pool& pool)
{
  for (std::size_t n = 1 << 14; n <= 1 << 20; n *= 2) {
    const auto put = [&](const char* option, const gradus::backend::division& d) {
      put_option<gradus::adamw>("adamw", "threads", option, {1, n}, parallel({}, pool, d));
    };
    put("shipped", {});
    put("shipped again", {});
    put("one", {.from = std::size_t(-1)});
    put("all", {.from = 0});
  }
}

/// The pieces of a step.
void put_pieces(const gradus::executor::thread_pool& pool)
{
  for (const shape& s : {shape(1, 1 << 18), shape(1, 1 << 20), shape(1, 1 << 24), shape(1000, 1000)}) {
    const auto put = [&](const char* option, const gradus::backend::division& d) {
      put_option<gradus::adamw>("adamw", "pieces", option, s, parallel({}, pool, d));
    };
    put("shipped", {});
    put("shipped again", {});
    put("of 4096 at least", {.piece = 1 << 12});
    put("of 65536 at least", {.piece = 1 << 16});
    put("64 at most", {.pieces = 64});
    put("1024 at most", {.pieces = 1024});
  }
}

/// How long the pool's threads spin before they sleep, for steps one after another and with something else in between.
void put_spin(std::chrono::microseconds gap, const char* what)
{
  using gradus::executor::thread_pool;
  for (const std::size_t n : {std::size_t(1) << 18, std::size_t(1) << 20}) {
    const shape s(1, n);
    const auto put = [&](const char* option, const thread_pool& pool) {
      bench::put(
          std::string("choice/adamw/") + what + "/" + option + "/thread_pool/float", s,
          [=](benchmark::State& state) {
            const bench::model<float> x(s);
            gradus::optimizer<gradus::adamw, float, parallel> opt(bench::measured<gradus::adamw>(), parallel({}, pool));
            x.add_to(opt);
            for (auto _ : state) {
              using clock = std::chrono::steady_clock;
              for (const auto end = clock::now() + gap; clock::now() < end;)
                continue;
              const auto start = clock::now();
              opt.step();
              state.SetIterationTime(std::chrono::duration<double>(clock::now() - start).count());
            }
            bench::count(state, s, 28);
          },
          bench::clock::manual);
    };
    const thread_pool shipped;
    put("shipped", shipped);
    put("shipped again", shipped);
    put("0 us", thread_pool(0, 0us));
    put("20 us", thread_pool(0, 20us));
    put("200 us", thread_pool(0, 200us));
    put("5000 us", thread_pool(0, 5000us));
  }
}

}  // namespace

int main(int argc, char** argv)
{
#if defined(GRADUS_HAS_SIMD)
  put_prefetching<gradus::adamw, &simd_tuning::update>("adamw", "prefetching in updates");
  put_prefetching<gradus::sgd, &simd_tuning::light_update>("sgd", "prefetching in updates with one slot");
  put_prefetching<gradus::adams, &simd_tuning::sum>("adams", "prefetching in sums");
#endif
  const gradus::executor::thread_pool pool;
  if (pool.threads() > 1) {
    put_threads(pool);
    put_pieces(pool);
    put_spin(0us, "spin");
    put_spin(2ms, "spin, steps 2 ms apart");
  }
  return bench::run(argc, argv);
}
