// Compiled once for each pair of BENCH_PRECISION and BENCH_BACKEND (CMakeLists.txt).

#include <algorithm>
#include <functional>
#include <thread>

#include <unistd.h>

#include <gradus/executor/openmp.hpp>
#include <gradus/executor/thread_pool.hpp>
#if defined(BENCH_TBB)
#include <gradus/executor/tbb.hpp>
#endif

#include "own_model.hpp"

namespace bench {
namespace {

/// An executor chosen at run time, so that the steps are compiled once for all.
struct any_executor {
  std::function<void(std::size_t, gradus::executor::work)> executor;
  void run(std::size_t n, gradus::executor::work f) const { executor(n, f); }
};

double memory_bytes() { return double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE)); }

template <class T, class Recipe, class Backend>
void step(benchmark::State& state, const shape& s, const Backend& backend)
{
  using parameter = typename precision<T>::parameter;
  // Other precisions' parameters and gradients stay in memory, too.
  const std::size_t shared = 2 * (sizeof(float) + sizeof(double) + sizeof(gradus::bfloat16));
  const std::size_t own = decltype(Recipe{}.rule())::slots * sizeof(typename gradus::precision_of<T>::state_type) +
                          sizeof(float);  // perhaps master weights
  if (double(s.elements()) * double(shared + own) > 0.9 * memory_bytes()) {
    state.SkipWithError("the machine has too little memory");
    return;
  }
  static const model<parameter> x(s);  // there is only one shape, and filling it takes longer than a step
  gradus::optimizer<Recipe, T, Backend> opt(measured<Recipe>(), backend);
  x.add_to(opt);
  measure_steps<T>(state, s, opt);
}

}  // namespace

template <class T, class Cpu>
void put_own_model(const shape& s, const std::string& backend_name, bool threads)
{
  const auto put_steps = [&](const std::string& name, const auto& executor, clock c, gradus::backend::division d = {}) {
    const any_executor any{[=](std::size_t n, gradus::executor::work f) { executor.run(n, f); }};
    gradus::for_each_recipe([&]<class Recipe>(const char* recipe_name, std::type_identity<Recipe>) {
      put(
          std::string("step/") + recipe_name + "/-/" + backend_name + "/" + name + "/" + precision<T>::name, s,
          [=](benchmark::State& state) { step<T, Recipe>(state, s, gradus::backend::parallel(Cpu{}, any, d)); }, c);
    });
  };
  put_steps("serial", gradus::executor::serial{}, clock::processor, {.from = s.elements() + 1});
  if (!threads)
    return;
  const unsigned all = std::thread::hardware_concurrency();
  for (unsigned n = 2; n < 2 * all; n *= 2) {
    const unsigned count = std::min(n, all);
    put_steps("thread_pool(" + std::to_string(count) + ")", gradus::executor::thread_pool(count), clock::wall);
  }
#if defined(_OPENMP)
  put_steps("openmp", gradus::executor::openmp{}, clock::wall);
#endif
#if defined(BENCH_TBB)
  put_steps("tbb", gradus::executor::tbb{}, clock::wall);
#endif
}

template void put_own_model<BENCH_PRECISION, BENCH_BACKEND>(const shape&, const std::string&, bool);

}  // namespace bench
