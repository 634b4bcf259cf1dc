#pragma once
// A communicator among threads of one process: what a sharded optimizer does, without MPI.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace support {

// What a rank throws that gives up.
struct gave_up : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What the ranks share. Operations match by their number, as collectives match by their order.
struct thread_group {
  struct operation {
    std::string kind;
    std::size_t size = 0;
    std::vector<std::vector<unsigned char>> sent;  // by each rank
    std::size_t arrived = 0, left = 0;
    bool mismatched = false;
  };
  explicit thread_group(std::size_t n) : ranks(n) {}
  std::size_t ranks;
  std::mutex guard;
  std::map<std::size_t, operation> operations;
};

class thread_rank {
 public:
  struct request {
    std::size_t number = 0;
    std::function<void(const thread_group::operation&)> finish;
  };

  thread_rank(thread_group& g, std::size_t rank) : group_(&g), rank_(rank) {}
  std::size_t rank() const { return rank_; }
  std::size_t size() const { return group_->ranks; }

  request exchange(const void* from, void* to, std::size_t bytes)
  {
    return start("exchange", bytes, from, bytes * size(), [=, this](const thread_group::operation& o) {
      for (std::size_t r = 0; r < size(); ++r)
        std::memcpy(static_cast<char*>(to) + r * bytes, o.sent[r].data() + rank_ * bytes, bytes);
    });
  }
  template <class X>
  request reduce_scatter(const X* from, X* to, std::size_t n)
  {
    return start("reduce_scatter", n * sizeof(X), from, n * sizeof(X) * size(),
                 [=, this](const thread_group::operation& o) {
                   for (std::size_t i = 0; i < n; ++i) {
                     X sum = 0;  // from the last rank to the first: an order of its own
                     for (std::size_t r = size(); r-- > 0;) {
                       X x;
                       std::memcpy(&x, o.sent[r].data() + (rank_ * n + i) * sizeof(X), sizeof(X));
                       sum += x;
                     }
                     to[i] = sum;
                   }
                 });
  }
  request all_gather(void* all, std::size_t bytes)
  {
    auto* const to = static_cast<char*>(all);
    return start("all_gather", bytes, to + rank_ * bytes, bytes, [=, this](const thread_group::operation& o) {
      for (std::size_t r = 0; r < size(); ++r)
        if (r != rank_)
          std::memcpy(to + r * bytes, o.sent[r].data(), bytes);
    });
  }
  request sum(std::int64_t* words, std::size_t n)
  {
    return start("sum", 8 * n, words, 8 * n, [=, this](const thread_group::operation& o) {
      for (std::size_t i = 0; i < n; ++i) {
        std::int64_t total = 0;
        for (std::size_t r = 0; r < size(); ++r) {
          std::int64_t x;
          std::memcpy(&x, o.sent[r].data() + 8 * i, 8);
          total += x;
        }
        words[i] = total;
      }
    });
  }
  request broadcast(void* bytes, std::size_t n, std::size_t root)
  {
    return start("broadcast", n, bytes, n, [=](const thread_group::operation& o) {
      if (n > 0)
        std::memcpy(bytes, o.sent[root].data(), n);
    });
  }
  bool test(request& r)
  {
    const std::lock_guard lock(group_->guard);
    auto& o = group_->operations[r.number];
    if (o.mismatched)
      throw gave_up("different operations at the same time");
    if (o.arrived < size())
      return false;
    r.finish(o);
    if (++o.left == size())
      group_->operations.erase(r.number);
    return true;
  }
  [[noreturn]] void give_up(const std::string& sentence) { throw gave_up(sentence); }

 private:
  request start(const std::string& kind, std::size_t size_of_it, const void* from, std::size_t bytes,
                std::function<void(const thread_group::operation&)> finish)
  {
    const std::lock_guard lock(group_->guard);
    auto& o = group_->operations[next_];
    if (o.arrived == 0) {
      o.kind = kind;
      o.size = size_of_it;
      o.sent.resize(size());
    }
    o.mismatched = o.mismatched || o.kind != kind || o.size != size_of_it;
    const auto* const b = static_cast<const unsigned char*>(from);
    o.sent[rank_].assign(b, b + bytes);
    ++o.arrived;
    return {next_++, std::move(finish)};
  }

  thread_group* group_;
  std::size_t rank_, next_ = 0;
};

// Runs f(communicator) on so many threads, and returns what each threw ("" for nothing).
template <class F>
std::vector<std::string> on_ranks(std::size_t n, const F& f)
{
  thread_group g(n);
  std::vector<std::string> thrown(n);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < n; ++r)
    threads.emplace_back([&, r] {
      thread_rank world(g, r);
      try {
        f(world);
      } catch (const std::exception& e) {
        thrown[r] = e.what();
      }
    });
  for (auto& t : threads)
    t.join();
  return thrown;
}

}  // namespace support
