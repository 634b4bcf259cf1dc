#pragma once
/// \file
/// An executor over std::thread, for programs that have no pool of their own. Link the system's threads (-pthread).

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

namespace gradus::inline GRADUS_ISA {
namespace executor {

/// A handle to a pool of threads: copies share it, the last one joins its threads. Calls of `run` from several threads
/// take turns.
class thread_pool {
 public:
  /// \param threads  how many work at a time, the caller's included; 0 stands for as many as the machine runs at once
  explicit thread_pool(unsigned threads = 0) : pool_(std::make_shared<pool>())
  {
    pool_->launch(threads ? threads : hardware());
  }

  unsigned threads() const noexcept { return unsigned(pool_->threads.size()) + 1; }

  void run(std::size_t n, work f) const noexcept { pool_->run(n, f); }

 private:
  static unsigned hardware() noexcept
  {
    const unsigned n = std::thread::hardware_concurrency();
    return n ? n : 1;
  }

  struct pool {
    std::mutex caller;  // held through a whole run
    std::mutex guard;   // of all below
    std::condition_variable start, done;
    const work* job = nullptr;
    std::size_t pieces = 0;
    std::uint64_t round = 0;
    std::size_t busy = 0;
    bool leaving = false;
    std::vector<std::thread> threads;

    pool() = default;
    pool(const pool&) = delete;

    /// Where the system has no more threads to give, std::system_error goes through, and those there are, are joined.
    void launch(unsigned count)
    {
      if (count > 4096)
        fail("threads is " + std::to_string(count) + "; expected at most 4096");
      threads.reserve(count - 1);
      for (unsigned i = 1; i < count; ++i)
        threads.emplace_back([this, i, count] { serve(i, count); });
    }
    ~pool()
    {
      {
        const std::lock_guard lock(guard);
        leaving = true;
      }
      start.notify_all();
      for (std::thread& t : threads)
        t.join();
    }

    // Each thread has one run of pieces that lie side by side, the same in every step: its caches stay warm.
    static void share(const work& f, std::size_t n, std::size_t i, std::size_t count) noexcept
    {
      for (std::size_t k = n * i / count; k < n * (i + 1) / count; ++k)
        f(k);
    }

    void run(std::size_t n, const work& f) noexcept
    {
      const std::lock_guard turn(caller);
      {
        const std::lock_guard lock(guard);
        job = &f;
        pieces = n;
        busy = threads.size();
        ++round;
      }
      start.notify_all();
      share(f, n, 0, threads.size() + 1);
      std::unique_lock lock(guard);
      done.wait(lock, [this] { return busy == 0; });
    }

    void serve(std::size_t i, std::size_t count) noexcept
    {
      std::uint64_t seen = 0;
      for (;;) {
        const work* f;
        std::size_t n;
        {
          std::unique_lock lock(guard);
          start.wait(lock, [&] { return leaving || round != seen; });
          if (leaving)
            return;
          seen = round;
          f = job;
          n = pieces;
        }
        share(*f, n, i, count);
        const std::lock_guard lock(guard);
        if (--busy == 0)
          done.notify_one();
      }
    }
  };

  std::shared_ptr<pool> pool_;
};

}  // namespace executor
}  // namespace gradus::inline GRADUS_ISA

#include <gradus/macros_on.hpp>
