#pragma once
/// \file
/// The contract between a sharded optimizer and the library that moves its bytes between processes (comm/mpi.hpp), and
/// waiting with a deadline. Knows no library.

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include <gradus/checkpoint/posix.hpp>
#include <gradus/config.hpp>
#if GRADUS_POSIX
#include <sched.h>
#endif

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A group of processes, the ranks 0 to size() − 1. Every operation is collective: all ranks call the same operations in
/// the same order, with the same sizes. An operation is started and returns a request; its memory must stay as it is
/// until `test` of the request has returned true. Several operations may be running.
///
/// Memory is the host's, or a device's if the class has `static constexpr bool on_device = true`. An operation on device
/// memory happens after what has been enqueued on the backend's stream. If the class has `follow(request)`, what is enqueued
/// there after it happens after the operation, which is still to be tested; without it, the host waits.
///
/// - `exchange(from, to, bytes)` sends piece r of `from`, of so many bytes, to rank r, and puts the piece that rank r sent
///   to piece r of `to`.
/// - `reduce_scatter(from, to, n)` adds the ranks' `from`, size()·n floats or doubles, and gives piece r of the sum, n
///   numbers, to rank r.
/// - `all_gather(all, bytes)` gives every rank each rank's piece of `all`: piece r, of so many bytes, is rank r's.
/// - `sum(words, n)` replaces each of n integers by its sum over all ranks.
/// - `broadcast(bytes, count, root)` copies bytes from the rank `root` to all others.
/// - `test(request)` makes progress, and returns whether the operation is complete.
/// - `give_up(sentence)` reports an error that the ranks cannot agree on any more, ends all ranks, and never returns.
template <class C>
concept communicator = requires(C& c, const C& known, const void* from, void* to, std::size_t n, const float* numbers,
                                float* sums, const double* long_numbers, double* long_sums, std::int64_t* words,
                                const std::string& sentence) {
  typename C::request;
  { known.rank() } -> std::convertible_to<std::size_t>;
  { known.size() } -> std::convertible_to<std::size_t>;
  { c.exchange(from, to, n) } -> std::same_as<typename C::request>;
  { c.reduce_scatter(numbers, sums, n) } -> std::same_as<typename C::request>;
  { c.reduce_scatter(long_numbers, long_sums, n) } -> std::same_as<typename C::request>;
  { c.all_gather(to, n) } -> std::same_as<typename C::request>;
  { c.sum(words, n) } -> std::same_as<typename C::request>;
  { c.broadcast(to, n, n) } -> std::same_as<typename C::request>;
  requires requires(typename C::request& r) {
    { c.test(r) } -> std::same_as<bool>;
  };
  c.give_up(sentence);
};

namespace detail {

/// A communicator whose memory is a device's.
template <class C>
concept moves_device_memory = requires { requires C::on_device; };
/// A communicator whose operations the device's work can wait for.
template <class C>
concept orders_device_work = requires(C& c, typename C::request& r) { c.follow(r); };

/// Waits until an operation is complete. After `timeout` it gives up, because a rank is missing.
/// \param in  says in which call, such as "step 7"  \param what  the operation
template <class C>
void wait_for(C& c, typename C::request& r, std::chrono::milliseconds timeout, const std::string& in, const char* what)
{
  using clock = std::chrono::steady_clock;
  const clock::time_point begin = clock::now();
  for (unsigned tries = 1; !c.test(r); ++tries) {
    if (tries % 16 != 0)
      continue;
#if GRADUS_POSIX
    sched_yield();  // several ranks may share a core
#endif
    if (clock::now() - begin > timeout)
      c.give_up("rank " + std::to_string(c.rank()) + " of " + std::to_string(c.size()) + " waited " +
                std::to_string(timeout.count()) + " ms in " + in + " for the others (" + what +
                "); expected every rank to call it: one has left, has failed, stands still, or called something else");
  }
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
