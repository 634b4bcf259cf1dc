// Every executor and thread count gives the bits of one thread.

#include <doctest/doctest.h>

#include <cstring>
#include <mutex>
#include <thread>

#include <gradus/executor/openmp.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>
#if defined(GRADUS_TEST_TBB)
#include <gradus/executor/tbb.hpp>
#endif

// OpenMP's runtime keeps its threads until the program has ended, which the leak sanitizer takes for a leak.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

namespace {

// Sizes around the cuts: a tensor of many pieces, many in one piece, some that end within a block.
constexpr std::size_t sizes[] = {170'000, 5, 1, 4096, 70'001, 4097, 0, 33'333, 64, 64, 64};

template <class T = float, class Recipe, class Backend>
std::vector<float> train(const Recipe& recipe, Backend backend)
{
  std::vector<std::vector<float>> weights, gradients;
  for (const std::size_t n : sizes) {
    weights.emplace_back(n);
    gradients.emplace_back(n);
  }
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    for (std::size_t i = 0; i < weights[k].size(); ++i)
      weights[k][i] = float((i + k) % 19) * 0.1f - 0.9f;
    opt.add(weights[k], gradients[k]);
  }
  for (int t = 1; t <= 6; ++t) {
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i)
        gradients[k][i] = weights[k][i] + float((i * std::size_t(t)) % 23) * 0.01f - 0.11f;
    const auto report = t % 2 ? opt.step({.max_grad_norm = 10, .skip_nonfinite = true}) : opt.step();
    if (report.grad_norm)  // and the reductions
      weights[0][0] += float(*report.grad_norm) * 1e-3f;
  }
  std::vector<float> all;
  for (const auto& w : weights)
    all.insert(all.end(), w.begin(), w.end());
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const auto two_passes = gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                        gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});

template <class Executor>
void check(Executor executor)
{
  using gradus::backend::parallel;
  const gradus::default_backend cpu;
  const gradus::adams adams{.weight_decay = 0.1};
  CHECK(same(train(adams, cpu), train(adams, parallel(cpu, executor))));
  CHECK(same(train(two_passes, cpu), train(two_passes, parallel(cpu, executor))));
  using short_state = gradus::precision<float, float, gradus::block8>;
  CHECK(same(train<short_state>(adams, cpu), train<short_state>(adams, parallel(cpu, executor))));
}

// An engine's own: its calls in reverse order, to show that none relies on another.
struct backwards {
  static inline int runs = 0;
  void run(std::size_t n, gradus::executor::work f) const
  {
    CHECK(n > 1);
    ++runs;
    while (n > 0)
      f(--n);
  }
};

}  // namespace

TEST_CASE("one thread, and the caller's own executor")
{
  check(gradus::executor::serial{});
  check(backwards{});
  CHECK(backwards::runs > 0);  // the model is large enough to be cut
  const gradus::adams adams{.weight_decay = 0.1};
  CHECK(same(train(adams, gradus::default_backend{}),
             train(adams, gradus::backend::parallel(gradus::backend::scalar{}, backwards{}))));
}

TEST_CASE("a pool of 1 to 8 threads")
{
  for (unsigned threads = 1; threads <= 8; ++threads) {
    gradus::executor::thread_pool pool(threads);
    CHECK(pool.threads() == threads);
    check(pool);
  }
  CHECK(gradus::executor::thread_pool().threads() >= 1);
  CHECK_THROWS_WITH_AS(gradus::executor::thread_pool(5000), "gradus: threads is 5000; expected at most 4096",
                       std::invalid_argument);
}

TEST_CASE("a pool runs each piece once, and takes turns between callers")
{
  gradus::executor::thread_pool pool(4);
  std::vector<std::thread> callers;
  std::vector<std::vector<int>> counts(3, std::vector<int>(1000));
  for (std::size_t caller = 0; caller < counts.size(); ++caller)
    callers.emplace_back([&counts, &pool, caller] {
      for (int round = 0; round < 20; ++round)
        pool.run(1000, gradus::executor::work([&](std::size_t k) noexcept { ++counts[caller][k]; }));
    });
  for (std::thread& t : callers)
    t.join();
  for (const auto& of_caller : counts)
    for (const int n : of_caller)
      REQUIRE(n == 20);
}

TEST_CASE("OpenMP")
{
  for (const int threads : {0, 1, 2, 3, 8})
    check(gradus::executor::openmp{threads});
}

#if defined(GRADUS_TEST_TBB)
TEST_CASE("TBB")
{
  check(gradus::executor::tbb{});
}
#endif
