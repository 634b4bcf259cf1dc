// Every executor and thread count gives the bits of one thread.

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#if defined(__unix__) || defined(__APPLE__)
#include <csignal>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <gradus/executor/openmp.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>
#if defined(GRADUS_TEST_TBB)
#include <gradus/executor/tbb.hpp>
#endif

// OpenMP's runtime keeps its threads until the program has ended, which the leak sanitizer takes for a leak.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

// The thread sanitizer would end a child of fork() at its first thread.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

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

namespace {

using gradus::executor::thread_pool;
using gradus::executor::work;

/// Each of n pieces once.
bool runs(const thread_pool& pool, std::size_t n = 1000)
{
  std::vector<int> count(n);
  pool.run(n, work([&](std::size_t k) noexcept { ++count[k]; }));
  return count == std::vector<int>(n, 1);
}

#if defined(__unix__) || defined(__APPLE__)
/// f() in a child, which ends by _exit, or is killed after ten seconds. Whether f gave true.
bool in_child(const std::function<bool()>& f)
{
  const pid_t child = fork();
  if (child == 0)
    _exit(f() ? 0 : 1);
  int status = 0;
  for (int ms = 0; ms < 10'000; ms += 5) {
    if (waitpid(child, &status, WNOHANG) == child)
      return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return false;
}

// The address space is the sanitizers' own to limit.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif
#endif

}  // namespace

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("a pool works in a child of fork(), and its destructor ends there")
{
  std::optional<thread_pool> pool(4);
  const gradus::adams adams{.weight_decay = 0.1};
  const auto expected = train(adams, gradus::default_backend{});
  const auto trains = [&] { return same(expected, train(adams, gradus::backend::parallel(gradus::default_backend{}, *pool))); };
  for (const bool used : {false, true}) {
    if (used)
      REQUIRE(trains());
    CHECK(in_child([&] { return trains(); }));
    CHECK(in_child([&] { return pool.reset(), true; }));
    CHECK(in_child([&] { return trains() && (pool.reset(), true); }));
    CHECK(in_child([&] {
      const thread_pool copy = *pool;
      pool.reset();
      return copy.threads() == 4 && runs(copy) && runs(thread_pool(3));
    }));
    CHECK(in_child([&] { return in_child(trains) && trains() && in_child(trains); }));  // and in theirs
    CHECK(trains());                                                                    // and goes on in the parent
  }
}

TEST_CASE("several threads of a child of fork() use the pool at once")
{
  const thread_pool pool(3);
  REQUIRE(runs(pool));
  CHECK(in_child([&] {
    std::vector<std::thread> callers;
    std::atomic<int> good = 0;
    for (int caller = 0; caller < 4; ++caller)
      callers.emplace_back([&] { good += runs(pool); });
    for (std::thread& t : callers)
      t.join();
    return good == 4;
  }));
}

TEST_CASE("a pool works in a child that was forked while another thread was in the middle of a run")
{
  const thread_pool pool(3);
  std::atomic<bool> begun = false, leave = false;
  std::thread other([&] {
    pool.run(3, work([&](std::size_t) noexcept {
      begun = true;
      while (!leave)
        std::this_thread::yield();
    }));
  });
  while (!begun)
    std::this_thread::yield();
  CHECK(in_child([&] { return runs(pool); }));
  CHECK(in_child([copy = pool] { return runs(copy); }));
  leave = true;
  other.join();
  CHECK(runs(pool));
}

TEST_CASE("a child of fork() that gets no threads runs its steps alone")
{
  const thread_pool pool(8);
  if (sanitized)
    return;
  CHECK(in_child([&] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_AS, &none);  // no stack for a thread
    std::size_t sum = 0;
    std::mutex guard;
    pool.run(100, work([&](std::size_t k) noexcept {
      const std::lock_guard lock(guard);
      sum += k;
    }));
    return sum == 4950;
  }));
  // And a pool that gets some of its threads throws, with those joined.
  CHECK(in_child([] {
    const rlimit little{rlim_t(1) << 30, rlim_t(1) << 30};
    setrlimit(RLIMIT_AS, &little);
    try {
      thread_pool refused(4096);
    } catch (const std::system_error&) {
      return runs(thread_pool(2));
    } catch (const std::bad_alloc&) {
      return runs(thread_pool(2));
    }
    return false;
  }));
}
#endif

TEST_CASE("a run inside a pool's own work goes through, with the same bits")
{
  const thread_pool pool(4), other(3);
  const gradus::adams adams{.weight_decay = 0.1};
  const auto expected = train(adams, gradus::default_backend{});
  for (const thread_pool& inner : {pool, other}) {
    std::atomic<int> good = 0;
    pool.run(5, work([&](std::size_t) noexcept {
      good += same(expected, train(adams, gradus::backend::parallel(gradus::default_backend{}, inner)));
    }));
    CHECK(good == 5);
  }
  // Through another pool's threads and back again.
  std::atomic<int> good = 0;
  pool.run(4, work([&](std::size_t) noexcept {
    other.run(3, work([&](std::size_t) noexcept { good += runs(pool) && runs(other); }));
  }));
  CHECK(good == 12);
}

TEST_CASE("two pools may run in each other's work, from two threads")
{
  const thread_pool a(3), b(3);
  std::atomic<int> good = 0;
  const auto nested = [&good](const thread_pool& outer, const thread_pool& inner) {
    for (int round = 0; round < 200; ++round)
      outer.run(3, work([&](std::size_t) noexcept { good += runs(inner, 50); }));
  };
  std::thread one([&] { nested(a, b); }), two([&] { nested(b, a); });
  one.join();
  two.join();
  CHECK(good == 1200);
}

TEST_CASE("the last handle of a pool may be dropped in its work, by any of its threads")
{
  for (std::size_t dropper = 0; dropper < 4; ++dropper) {
    auto pool = std::make_unique<thread_pool>(4);
    std::atomic<int> calls = 0;
    pool->run(4, work([&](std::size_t k) noexcept {
      if (k == dropper)
        pool.reset();
      ++calls;
    }));
    CHECK(calls == 4);
  }
}

TEST_CASE("a handle that was moved from still names its pool")
{
  thread_pool first(3), second = std::move(first);
  CHECK(first.threads() == 3);
  CHECK(runs(first));
  CHECK(runs(second));
  thread_pool third(2);
  third = std::move(second);
  CHECK(second.threads() == 3);
  CHECK(third.threads() == 3);
  CHECK(runs(second));
  thread_pool& self = third;
  third = std::move(self);
  CHECK(runs(third));
  gradus::backend::parallel backend(gradus::default_backend{}, third);
  const auto taken = std::move(backend);
  const gradus::adams adams;
  CHECK(same(train(adams, gradus::default_backend{}), train(adams, backend)));
  static_assert(std::is_nothrow_move_constructible_v<thread_pool> && std::is_nothrow_move_assignable_v<thread_pool>);
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
