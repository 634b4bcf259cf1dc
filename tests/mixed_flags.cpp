// Two units of one program, compiled from this file with different flags and linked in both orders (CMakeLists.txt):
// each has the code that its flags ask for. MIXED_PLAIN is the one with exceptions, OpenMP (where it is found) and
// without
// -funsafe-math-optimizations; it has main, and looks at both.

#include <cstddef>
#include <cstdio>
#include <string_view>
#include <vector>
#if defined(MIXED_PLAIN)
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#endif

#include <gradus/executor/openmp.hpp>
#include <gradus/gradus.hpp>

namespace {

// Calls what both units call, so that the linker has the same functions from each.
double one_step(double lr)
{
  gradus::optimizer<gradus::padam, double> opt({.lr = lr, .partial = 0.45});
  std::vector<double> w(5, 1.0), g(5, 0.5);
  opt.add("w", w, g);
  for (int t = 0; t < 3; ++t)
    opt.step();
  return w[4];
}

template <class F>
void in_parallel(const F& f)
{
  gradus::executor::openmp{.threads = 4}.run(400, gradus::executor::work(f));
}

}  // namespace

double other_unit();

#if defined(MIXED_PLAIN)
int main()
{
  bool good = true;
  const auto check = [&](bool condition, const char* what) {
    if (!condition)
      std::printf("failed: %s\n", what);
    good = good && condition;
  };
  const double here = one_step(0.1), there = other_unit(), expected = 0.795785004534339635;
  check(here - expected < 1e-12 && expected - here < 1e-12, "the plain unit's step is right");
  check(there - expected < 1e-12 && expected - there < 1e-12, "the other unit's step is right");
  bool caught = false;
  try {
    one_step(-1);
  } catch (const std::invalid_argument&) {
    caught = true;
  }
  check(caught, "a unit with exceptions sees the exception");
#if defined(_OPENMP)
  std::mutex lock;
  std::set<std::thread::id> threads;
  in_parallel([&](std::size_t) {
    const std::lock_guard guard(lock);
    threads.insert(std::this_thread::get_id());
  });
  check(threads.size() == 4, "a unit with OpenMP runs in parallel");
#endif
  return good ? 0 : 1;
}
#else
double other_unit()
{
  int calls = 0;
  in_parallel([&](std::size_t) { ++calls; });  // one after another: this unit is without OpenMP
  return calls == 400 ? one_step(0.1) : 0;
}
#endif
