// The pool of threads: the bits of one thread, in children of fork(), within its own work, and moved.

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <csignal>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/executor.hpp"

// The thread sanitizer would end a child of fork() at its first thread.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

namespace {

using gradus::executor::thread_pool;
using gradus::executor::work;
using support::check_executor, support::same, support::train;

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

TEST_CASE("thread_pool: 1 to 8 threads give the bits of one thread")
{
  for (unsigned threads = 1; threads <= 8; ++threads) {
    gradus::executor::thread_pool pool(threads);
    CHECK(pool.threads() == threads);
    check_executor(pool);
  }
  CHECK(gradus::executor::thread_pool().threads() >= 1);
  CHECK_THROWS_WITH_AS(gradus::executor::thread_pool(5000), "gradus: threads is 5000; expected at most 4096",
                       std::invalid_argument);
}

TEST_CASE("thread_pool: runs each piece once, and takes turns between callers")
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

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("thread_pool: works in a child of fork(), and its destructor returns there")
{
  std::optional<thread_pool> pool(4);
  const gradus::adams adams{.weight_decay = 0.1};
  const auto expected = train(adams, gradus::default_backend{});
  const auto trains = [&] {
    return same(expected, train(adams, gradus::backend::parallel(gradus::default_backend{}, *pool)));
  };
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

TEST_CASE("thread_pool: several threads of a child of fork() use it at once")
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

TEST_CASE("thread_pool: works in a child that was forked during another thread's run")
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

TEST_CASE("thread_pool: a child of fork() that cannot start threads runs all pieces itself")
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

TEST_CASE("thread_pool: a run inside its own work completes with the same bits")
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

TEST_CASE("thread_pool: runs each piece once for any spinning time, and refuses invalid times")
{
  using std::chrono::microseconds;
  for (const microseconds spin : {microseconds(0), microseconds(1), microseconds(2000), microseconds(1'000'000)}) {
    const thread_pool pool(4, spin);
    for (int round = 0; round < 20; ++round)
      CHECK(runs(pool, 100));
  }
  for (const long long spin : {-1, 1'000'001})
    CHECK_THROWS_WITH_AS(thread_pool(2, microseconds(spin)),
                         ("gradus: spin is " + std::to_string(spin) + " us; expected 0 to 1000000 us").c_str(),
                         std::invalid_argument);
}

TEST_CASE("thread_pool: a thread that is late leaves its pieces to the others")
{
  const thread_pool pool(2);
  // The first piece of either thread waits for all other pieces.
  for (const std::size_t late : {std::size_t(0), std::size_t(50)}) {
    std::atomic<int> others = 0;
    bool all_came = false;
    pool.run(100, work([&](std::size_t k) noexcept {
               if (k != late) {
                 ++others;
                 return;
               }
               const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
               while (others < 99 && std::chrono::steady_clock::now() < end)
                 std::this_thread::yield();
               all_came = others == 99;
             }));
    CHECK(all_came);
  }
}

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("thread_pool: an idle pool takes no processor time after its spin")
{
  const auto processor_time = [] {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
  };
  const thread_pool pool;
  CHECK(runs(pool));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = processor_time();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  CHECK(processor_time() - before < 0.1);
}
#endif

TEST_CASE("thread_pool: its threads are awake after a run, asleep after their spin, and wake for those who often ask")
{
  if (std::thread::hardware_concurrency() < 2)
    return;
  using namespace std::chrono_literals;
  const auto is_once = [](const thread_pool& pool, bool awake, auto pause) {
    for (int i = 0; i < 2000; ++i) {
      if (pool.is_awake() == awake)
        return true;
      std::this_thread::sleep_for(pause);
    }
    return false;
  };
  const thread_pool pool(2, 20ms);
  CHECK(runs(pool));
  CHECK(pool.is_awake());
  std::this_thread::sleep_for(100ms);
  CHECK(is_once(pool, false, 100ms));
  for (int i = 0; i < 20; ++i) {  // asked seldom, they sleep on
    std::this_thread::sleep_for(85ms);
    CHECK_FALSE(pool.is_awake());
  }
  CHECK(is_once(pool, true, 1ms));  // Windows does not sleep for less
  CHECK(runs(pool));

  CHECK_FALSE(thread_pool(1).is_awake());
  const thread_pool sleeps_at_once(2, 0us);
  CHECK(runs(sleeps_at_once));
  CHECK_FALSE(is_once(sleeps_at_once, true, 0us));
}

TEST_CASE("thread_pool: two pools can run in each other's work, from two threads")
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

TEST_CASE("thread_pool: its last handle may be destroyed in its work, by any of its threads")
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

TEST_CASE("thread_pool: a handle that was moved from still refers to its pool")
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
