// Every recipe's step on the tensors of one model: `own_model NAME|FILE [OPTION...]`, with Google Benchmark's options.
// On the default backend in every precision, on one thread and on more; on the other backends in float on one thread.

#include <cstdio>
#include <exception>

#include "own_model.hpp"

int main(int argc, char** argv)
try {
  if (argc < 2)
    gradus::refuse("the first argument is missing; expected a model's name or a file");
  const bench::shape s = bench::model_shape(argv[1]);
  argv[1] = argv[0];
  [&]<class... T>(bench::list<T...>) {
    (bench::put_own_model<T, gradus::default_backend>(s, bench::default_name, true), ...);
  }(bench::precisions{});
#if defined(GRADUS_HAS_SIMD)
  // A plain loop, whose square roots are not vectorised: with large models it would take most of the time.
  if (s.elements() <= 1 << 24)
    bench::put_own_model<float, gradus::backend::scalar>(s, "scalar", false);
#endif
#if defined(BENCH_DISPATCH)
  bench::put_own_model<float, gradus::backend::dispatch>(s, "dispatch", false);
#endif
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    bench::put_twin<float, Recipe>(name, s);
    bench::put_twin<double, Recipe>(name, s);
  });
  bench::put_traffic<float>(s);
  bench::put_traffic<double>(s);
  return bench::run(argc - 1, argv + 1);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
