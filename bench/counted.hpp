#pragma once
// A communicator that counts what it is asked to move, and leaves the moving to another.

#include <cstddef>
#include <cstdint>
#include <string>

#include <gradus/distributed/communicator.hpp>

namespace bench {

// What one rank sent to others; it received as much. An all-gather and a reduce-scatter count as what any algorithm for
// long arrays sends: a piece for each other rank.
struct traffic {
  std::uint64_t gradients = 0, parameters = 0;  // in bytes
  std::uint64_t scalars = 0;                    // bytes in sums, however many messages these take
  std::uint64_t calls = 0;
};

template <gradus::communicator Comm>
class counted {
 public:
  using request = typename Comm::request;
  static constexpr bool on_device = gradus::detail::moves_device_memory<Comm>;

  explicit counted(Comm& comm) : comm_(&comm) {}
  traffic sent;

  std::size_t rank() const { return std::size_t(comm_->rank()); }
  std::size_t size() const { return std::size_t(comm_->size()); }

  request exchange(const void* from, void* to, std::size_t bytes)
  {
    count(sent.gradients, bytes * (size() - 1));
    return comm_->exchange(from, to, bytes);
  }
  template <class X>
  request reduce_scatter(const X* from, X* to, std::size_t n)
  {
    count(sent.gradients, n * sizeof(X) * (size() - 1));
    return comm_->reduce_scatter(from, to, n);
  }
  request all_gather(void* all, std::size_t bytes)
  {
    count(sent.parameters, bytes * (size() - 1));
    return comm_->all_gather(all, bytes);
  }
  request sum(std::int64_t* words, std::size_t n)
  {
    count(sent.scalars, n * sizeof *words);
    return comm_->sum(words, n);
  }
  request broadcast(void* bytes, std::size_t n, std::size_t root)
  {
    ++sent.calls;
    return comm_->broadcast(bytes, n, root);
  }
  bool test(request& r) { return comm_->test(r); }
  void give_up(const std::string& sentence) { comm_->give_up(sentence); }

 private:
  void count(std::uint64_t& of, std::size_t bytes)
  {
    of += bytes;
    ++sent.calls;
  }

  Comm* comm_;
};

}  // namespace bench
