#pragma once
/// \file
/// An executor over std::thread, for programs without a thread pool. Compile with -pthread.

#include <atomic>
#include <condition_variable>  // has durations and clocks too; <chrono> with its calendars takes long to compile
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include <gradus/backend/parallel.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace executor {

/// A handle to a pool of threads. Copies share the pool, and so does a handle that was moved from; the last handle
/// joins the threads. Calls of `run` from several threads take turns. A `run` inside work of a pool runs its pieces on
/// its own thread if the threads are busy, because waiting could deadlock; the results have the same bits.
///
/// Waking a sleeping thread takes some 20 µs, as long as a step of a few hundred thousand parameters. So the threads
/// spin for a while after a run before they sleep, and so does the caller at the end of a run. After that time an idle
/// pool takes no processor time. While they spin, smaller steps use them too (`is_awake`). If there are more threads
/// than processors, they sleep at once. A thread that has finished its share takes over pieces of threads that are late.
///
/// After fork(), the child's first run starts new threads; if the system has none left, the child runs serially. A
/// child that was forked inside work of a pool can use the pool, but must end with exec or _exit.
class thread_pool {
 public:
  /// \param threads  number of threads, the caller's included, at most 4096; 0: as many as the machine has
  /// \param spin     how long a thread spins before it sleeps, 0 to 1 s. Choose the time between two steps if cores are
  ///                 free meanwhile.
  /// \throws std::invalid_argument for arguments out of range; std::system_error if the system cannot start that many
  explicit thread_pool(unsigned threads = 0, std::chrono::microseconds spin = std::chrono::microseconds(50))
      : pool_(std::make_shared<pool>(checked(threads), checked(spin)))
  {}
  /// Shares the pool; also serves as move constructor.
  thread_pool(const thread_pool&) noexcept = default;
  /// Shares the pool; also serves as move assignment.
  thread_pool& operator=(const thread_pool&) noexcept = default;
  ~thread_pool() = default;

  /// The number of threads, the caller's included.
  unsigned threads() const noexcept { return pool_->count; }

  /// Whether all threads are awake, so that a run starts without delay. Asked often in a row, less than four times
  /// `spin` apart, it wakes them for the runs to come. False in a pool of one thread, and in a child of fork() before
  /// its first run.
  bool is_awake() const noexcept { return pool_->is_awake(); }

  /// Calls f(0), …, f(n−1) on the pool's threads and the caller's; returns when all have returned.
  void run(std::size_t n, work f) const noexcept
  {
    const std::shared_ptr<pool> kept = pool_;  // f may destroy every handle, and a thread cannot join itself
    kept->run(n, f);
  }

 private:
  static unsigned checked(unsigned threads)
  {
    if (threads > 4096)
      detail::fail("threads is " + std::to_string(threads) + "; expected at most 4096");
    const unsigned n = threads ? threads : std::thread::hardware_concurrency();
    return n ? n : 1;
  }

  static std::chrono::microseconds checked(std::chrono::microseconds spin)
  {
    if (spin < std::chrono::microseconds(0) || spin > std::chrono::seconds(1))
      detail::fail("spin is " + std::to_string(spin.count()) + " us; expected 0 to 1000000 us");
    return spin;
  }

  // Returns true once ready() is, and false after `spin`.
  template <class Ready>
  static bool spins_until(const Ready& ready, std::chrono::microseconds spin) noexcept
  {
    if (ready())
      return true;
    if (spin.count() == 0)
      return false;
    const auto end = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < 16; ++i) {
        if (ready())
          return true;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
        __builtin_ia32_pause();
#elif defined(__GNUC__) && defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
      }
      std::this_thread::yield();  // the thread that this one waits for may have been put on the same processor
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  // The number of forks between the program's first process and this one.
  static inline std::atomic<unsigned> forks{0};
#if defined(__unix__) || defined(__APPLE__)
  static inline const bool watches_forks = ::pthread_atfork(nullptr, nullptr,
                                                            [] { forks.fetch_add(1, std::memory_order_relaxed); }) == 0;
#endif

  static inline constinit thread_local bool inside = false;  // whether this thread runs work of any pool

  // The threads of one process. No wake is lost: a thread increments `sleeping` under the mutex before it checks for
  // work and sleeps, and the caller publishes work before it reads `sleeping`. This needs sequentially consistent
  // atomics.
  struct crew {
    const unsigned process = forks.load(std::memory_order_relaxed);
    const std::size_t count;  // threads, the caller's included
    const std::chrono::microseconds spin;
    std::mutex guard;
    std::condition_variable turn, start, finished;
    bool taken = false;  // during a whole run
    const work* job = nullptr;
    std::size_t pieces = 0;
    std::atomic<std::uint64_t> round{0};
    std::atomic<std::size_t> unfinished{0};  // pieces
    std::atomic<std::size_t> sleeping{0};
    std::atomic<bool> caller_sleeps{false}, leaving{false};
    // Steps that follow one another ask within this multiple of `spin`, because on one thread they take longer.
    static constexpr int next_within = 4;
    std::atomic<unsigned> calls_to_spin{0};  // without work
    std::atomic<std::chrono::steady_clock::rep> asked{0};
    std::atomic<unsigned> asked_in_a_row{0};
    std::vector<std::thread> threads;
    // Each thread has a contiguous range of pieces, the same in every step, so that its caches stay warm. A thread that
    // has run its own range takes pieces of the others', because a thread may take longer to wake than the whole step.
    // A thread that takes a piece need not know the round: no piece is left between two rounds.
    struct alignas(64) range {
      std::atomic<std::size_t> left{0};  // the pieces that nobody has taken, at the range's end
    };
    std::unique_ptr<range[]> ranges;

    crew(std::size_t n, std::chrono::microseconds s) : count(n), spin(s), ranges(std::make_unique<range[]>(n)) {}
    crew(const crew&) = delete;

    bool is_here() const noexcept { return process == forks.load(std::memory_order_relaxed); }

    void launch()
    {
      threads.reserve(count - 1);
      for (std::size_t i = 1; i < count; ++i)
        threads.emplace_back([this, i] { serve(i); });
    }
    ~crew()
    {
      leaving = true;
      wake();
      for (std::thread& t : threads)
        t.join();
    }

    void wake() noexcept
    {
      if (sleeping == 0)
        return;
      {
        const std::lock_guard lock(guard);
      }
      start.notify_all();
    }

    bool is_awake() noexcept
    {
      if (count == 1 || spin.count() == 0)
        return false;
      if (sleeping == 0) {
        asked_in_a_row.store(0, std::memory_order_relaxed);
        return true;
      }
      // A step asks a few times. Only many steps in a row say that others will follow.
      constexpr unsigned many = 16;
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      const std::chrono::steady_clock::duration since(now.count() -
                                                      asked.exchange(now.count(), std::memory_order_relaxed));
      if (since > next_within * spin)
        asked_in_a_row.store(0, std::memory_order_relaxed);
      else if (asked_in_a_row.fetch_add(1, std::memory_order_relaxed) + 1 == many) {
        ++calls_to_spin;
        wake();
      }
      return false;
    }

    std::size_t begin_of(std::size_t i) const noexcept { return pieces * i / count; }

    // Thread i's part of a round.
    void work_as(std::size_t i) noexcept
    {
      const bool outer = inside;
      inside = true;
      std::size_t done = 0;
      for (std::size_t k = 0; k < count; ++k) {
        const std::size_t at = (i + k) % count;
        for (std::size_t left = ranges[at].left; left > 0;)
          if (ranges[at].left.compare_exchange_weak(left, left - 1)) {
            (*job)(begin_of(at + 1) - left);
            ++done;
            --left;
          }
      }
      inside = outer;
      if (done > 0 && (unfinished -= done) == 0 && caller_sleeps) {
        {
          const std::lock_guard lock(guard);
        }
        finished.notify_one();
      }
    }

    // Returns false, with nothing done, if it would have to wait inside work.
    bool run(std::size_t n, const work& f) noexcept
    {
      {
        std::unique_lock lock(guard);
        if (taken && inside)
          return false;
        turn.wait(lock, [this] { return !taken; });
        taken = true;
      }
      job = &f;
      pieces = n;
      unfinished = n;
      for (std::size_t i = 0; i < count; ++i)
        ranges[i].left = begin_of(i + 1) - begin_of(i);
      ++round;
      wake();
      work_as(0);
      const auto all_done = [this] { return unfinished == 0; };
      const bool is_done = spins_until(all_done, spin);
      {
        std::unique_lock lock(guard);
        if (!is_done) {
          caller_sleeps = true;
          finished.wait(lock, all_done);
          caller_sleeps = false;
        }
        taken = false;
      }
      turn.notify_one();
      return true;
    }

    void serve(std::size_t i) noexcept
    {
      std::uint64_t seen = 0;
      unsigned called = 0;
      for (;;) {
        const auto has_work = [&] { return leaving || round != seen; };
        for (auto patience = spin; !spins_until(has_work, patience); patience = next_within * spin) {
          std::unique_lock lock(guard);
          ++sleeping;
          start.wait(lock, [&] { return has_work() || calls_to_spin != called; });
          --sleeping;
          called = calls_to_spin;
        }
        if (leaving)
          return;
        seen = round;
        work_as(i);
      }
    }
  };

  struct pool {
    const unsigned count;
    const std::chrono::microseconds spin;
    std::atomic<crew*> current{nullptr};

    pool(unsigned n, std::chrono::microseconds s)
        : count(n), spin(n > std::thread::hardware_concurrency() ? s.zero() : s)
    {
      current = hire().release();
    }
    pool(const pool&) = delete;
    ~pool()
    {
      // A parent's crew is not deleted, because the child has none of its threads, and its mutex may be locked.
      if (crew* const c = current; c->is_here())
        delete c;
    }

    // If a thread does not start, those that did are joined.
    std::unique_ptr<crew> hire() const
    {
      auto fresh = std::make_unique<crew>(count, spin);
      fresh->launch();
      return fresh;
    }

    crew* of_this_process() noexcept
    {
      crew* c = current;
      if (c->is_here())
        return c;
      std::unique_ptr<crew> fresh;
#if GRADUS_EXCEPTIONS
      try {
        fresh = hire();
      } catch (...) {
        return nullptr;
      }
#else
      fresh = hire();
#endif
      if (!current.compare_exchange_strong(c, fresh.get()))
        return c;  // another thread of the child was first
      return fresh.release();
    }

    bool is_awake() noexcept
    {
      crew* const c = current;
      return c->is_here() && c->is_awake();
    }

    void run(std::size_t n, const work& f) noexcept
    {
      crew* const c = of_this_process();
      if (!c || !c->run(n, f))
        for (std::size_t k = 0; k < n; ++k)
          f(k);
    }
  };

  std::shared_ptr<pool> pool_;
};

}  // namespace executor
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
