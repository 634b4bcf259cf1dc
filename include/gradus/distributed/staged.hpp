#pragma once
/// \file
/// A communicator for device memory over one for host memory, such as comm::mpi.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gradus/distributed/communicator.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace comm {

/// Passes bytes through host memory: an operation copies what it sends from the device, and what it received back when it
/// is complete. The copies are in the order of the backend's stream, and wait. The buffers grow as operations need them.
///
///     gradus::comm::mpi ranks(MPI_COMM_WORLD);
///     gradus::comm::staged world(ranks, gradus::backend::thrust());
///     gradus::sharded opt(world, gradus::adamw{}, {}, gradus::backend::thrust());
///
/// \tparam Host     the communicator, which must outlive this one
/// \tparam Backend  copies to and from the device
template <communicator Host, class Backend>
class staged {
 public:
  static constexpr bool on_device = true;  ///< pointers are to device memory

  /// An operation that runs.
  class request {
   public:
    request() = default;

   private:
    friend staged;
    std::size_t number = 0;
  };

  /// Views a communicator, and copies the backend.
  explicit staged(Host& host, Backend backend = Backend()) : host_(&host), backend_(std::move(backend)) {}

  std::size_t rank() const { return std::size_t(host_->rank()); }  ///< of this process, from 0
  std::size_t size() const { return std::size_t(host_->size()); }  ///< the number of ranks

  // ── see `communicator` ─────────────────────────────────────────────────────────────────────────────────────────────

  request exchange(const void* from, void* to, std::size_t bytes)
  {
    return start(from, size() * bytes, to, size() * bytes,
                 [&](void* sent, void* received) { return host_->exchange(sent, received, bytes); });
  }
  request reduce_scatter(const float* from, float* to, std::size_t n) { return add_up(from, to, n); }
  request reduce_scatter(const double* from, double* to, std::size_t n) { return add_up(from, to, n); }
  request all_gather(void* all, std::size_t bytes)
  {
    auto* const pieces = static_cast<unsigned char*>(all);
    const std::size_t mine = rank() * bytes;
    const request r = begin(0, size() * bytes);
    running& o = running_[r.number];
    backend_.copy(o.received.get() + mine, pieces + mine, bytes);
    o.operation = host_->all_gather(o.received.get(), bytes);
    // This rank's piece is there; those before it and after it come.
    o.parts[0] = {pieces, 0, mine};
    o.parts[1] = {pieces + mine + bytes, mine + bytes, size() * bytes - mine - bytes};
    return r;
  }
  request sum(std::int64_t* words, std::size_t n)
  {
    return in_place(words, n * sizeof *words,
                    [&](void* bytes) { return host_->sum(static_cast<std::int64_t*>(bytes), n); });
  }
  request broadcast(void* bytes, std::size_t n, std::size_t root)
  {
    return in_place(bytes, n, [&](void* staging) { return host_->broadcast(staging, n, root); });
  }
  bool test(request& r)
  {
    running& o = running_[r.number];
    if (!host_->test(o.operation))
      return false;
    for (const part& p : o.parts)
      backend_.copy(p.to, o.received.get() + p.begin, p.bytes);
    o.is_free = true;
    return true;
  }
  void give_up(const std::string& sentence) { host_->give_up(sentence); }

 private:
  /// Received bytes, and where they go.
  struct part {
    void* to = nullptr;
    std::size_t begin = 0, bytes = 0;
  };
  struct running {
    typename Host::request operation = {};
    detail::array_memory<unsigned char> sent, received;
    std::size_t sent_room = 0, received_room = 0;
    part parts[2] = {};
    bool is_free = true;
  };

  /// A place for an operation, with buffers. There are as many as ever run at a time.
  request begin(std::size_t sent, std::size_t received)
  {
    request r;
    while (r.number < running_.size() && !running_[r.number].is_free)
      ++r.number;
    if (r.number == running_.size())
      running_.emplace_back();
    running& o = running_[r.number];
    grow(o.sent, o.sent_room, sent);
    grow(o.received, o.received_room, received);
    o.parts[0] = o.parts[1] = {};
    o.is_free = false;
    return r;
  }
  static void grow(detail::array_memory<unsigned char>& buffer, std::size_t& room, std::size_t bytes)
  {
    if (bytes <= room)
      return;
    buffer = {bytes, 0};
    room = bytes;
  }
  template <class Start>
  request start(const void* from, std::size_t sent, void* to, std::size_t received, const Start& operation)
  {
    const request r = begin(sent, received);
    running& o = running_[r.number];
    backend_.copy(o.sent.get(), from, sent);
    o.operation = operation(o.sent.get(), o.received.get());
    o.parts[0] = {to, 0, received};
    return r;
  }
  template <class Start>
  request in_place(void* bytes, std::size_t n, const Start& operation)
  {
    const request r = begin(0, n);
    running& o = running_[r.number];
    backend_.copy(o.received.get(), bytes, n);
    o.operation = operation(o.received.get());
    o.parts[0] = {bytes, 0, n};
    return r;
  }
  template <class X>
  request add_up(const X* from, X* to, std::size_t n)
  {
    return start(from, size() * n * sizeof(X), to, n * sizeof(X), [&](void* sent, void* received) {
      return host_->reduce_scatter(static_cast<const X*>(sent), static_cast<X*>(received), n);
    });
  }

  Host* host_;
  Backend backend_;
  std::vector<running> running_;
};

}  // namespace comm
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
