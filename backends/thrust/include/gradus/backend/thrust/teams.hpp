#pragma once
/// \file
/// Launches whose threads work together: a warp sums a page or encodes a block of 8-bit codes, and the last thread
/// block to finish decides. The same code runs on Thrust's systems for CPUs, where one thread is a whole warp or team.
///
/// A work is a function object that `thrust_device::launch_warps(n, work)` calls as work(k, warp) for all k < n, in any
/// order. If it has `finish`, these also run in the same launch, on a team of threads:
/// - `start(team)`, while the warps run or before;
/// - `finish(team)`, after `start` and all warps. It sees everything that they have written.
///
/// How CUDA gives this guarantee. No block waits for another, so nothing depends on which blocks run at the same time.
/// Each block takes a ticket when it is done, and the block with the last ticket runs `finish` (CUDA's sample
/// threadFenceReduction). `__syncthreads` puts the accesses of all threads of a block before the fence of its first
/// thread, and that fence puts them before its ticket, for all threads of the device (release). The fence after the
/// last ticket puts the reads of `finish` after all tickets (acquire), and `__syncthreads` passes this on to the other
/// threads of the last block. Sums are added with integer atomics, whose results do not depend on the order. The last
/// block sets the counter of tickets back to 0, so that the next launch, or a replay of a graph, finds it so.

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Calls f(k) for k = 0 … N − 1, each a constant of its own type, so that arrays indexed by k stay in registers.
template <std::size_t N, class F>
GRADUS_HOST_DEVICE inline void unrolled(const F& f) noexcept
{
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    (f(std::integral_constant<std::size_t, K>()), ...);
  }(std::make_index_sequence<N>());
}

/// Sets a flag; many threads may do so at once.
GRADUS_HOST_DEVICE inline void set_flag(std::uint32_t& flag) noexcept
{
#if defined(__CUDA_ARCH__)
  atomicExch(&flag, 1u);
#else
  __atomic_store_n(&flag, 1u, __ATOMIC_RELAXED);
#endif
}
GRADUS_HOST_DEVICE inline bool is_set(const std::uint32_t& flag) noexcept
{
#if defined(__CUDA_ARCH__)
  return *static_cast<const volatile std::uint32_t*>(&flag) != 0;
#else
  return __atomic_load_n(&flag, __ATOMIC_RELAXED) != 0;
#endif
}
/// Adds to a number; many threads may do so at once.
GRADUS_HOST_DEVICE inline void add_atomically(std::int64_t& sum, std::int64_t change) noexcept
{
#if defined(__CUDA_ARCH__)
  static_assert(sizeof(unsigned long long) == sizeof(std::int64_t));
  atomicAdd(reinterpret_cast<unsigned long long*>(&sum), static_cast<unsigned long long>(change));
#else
  __atomic_fetch_add(&sum, change, __ATOMIC_RELAXED);
#endif
}

// ── on a CPU ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The 32 lanes of a warp, run by one thread.
struct serial_warp {
  static constexpr std::size_t lanes = page_lanes;  ///< the lanes that one thread runs

  /// Calls f(lane, i) for the lanes of this thread; i < lanes is the lane's place in an array of this thread.
  template <class F>
  GRADUS_HOST_DEVICE void for_lanes(const F& f) const noexcept
  {
    for (std::size_t lane = 0; lane < lanes; ++lane)
      f(lane, lane);
  }
  /// The sum of all lanes' numbers by halves, in all lanes.
  GRADUS_HOST_DEVICE double sum(double (&x)[lanes]) const noexcept { return fold(x); }
  /// The largest of all lanes' numbers, in all lanes.
  GRADUS_HOST_DEVICE std::uint32_t largest(const std::uint32_t (&x)[lanes]) const noexcept
  {
    std::uint32_t most = 0;
    for (const std::uint32_t a : x)
      most = a > most ? a : most;
    return most;
  }
  /// Adds x, the same number in all lanes, to a sum once; many warps may do so at the same time.
  GRADUS_HOST_DEVICE void add(exact_sum& sum, double x) const noexcept
  {
    exact_sum::split(x, [&sum](std::size_t word, std::int64_t change) { add_atomically(sum.words[word], change); });
  }
};

/// A team of one thread.
struct serial_team {
  /// Calls f(k) for all k < n, in any order, and waits for all calls.
  template <class F>
  GRADUS_HOST_DEVICE void for_each(std::int64_t n, const F& f) const noexcept
  {
    for (std::int64_t k = 0; k < n; ++k)
      f(k);
  }
};

/// Runs one warp of a work.
template <class Work>
struct each_warp {
  Work work;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { work(k, serial_warp()); }
};

/// A work that decides at its end.
template <class Work>
concept finishing_work = requires(const Work& work) { work.finish(serial_team()); };

// ── on CUDA ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#if defined(__CUDACC__)

inline constexpr unsigned threads_of_block = 128;  // so few that blocks fill the registers at any number a thread
inline constexpr unsigned warps_of_block = threads_of_block / unsigned(page_lanes);
static_assert(page_lanes == 32, "a lane of a CUDA warp is a partial sum of a page");

// The functions of warps and teams are called by functions for host and device, so they are declared for both. They run
// only on the device.

/// The lane of a CUDA warp that this thread is. All 32 call the same functions.
struct cuda_warp {
  static constexpr std::size_t lanes = 1;
  static constexpr unsigned all = 0xffffffffu;

  template <class F>
  GRADUS_HOST_DEVICE void for_lanes(const F& f) const noexcept
  {
    f(lane(), std::size_t(0));
  }
  /// x[k] + x[k + half] for halves of 16, 8, …, as `fold` adds them. The exchange gives both lanes of a pair the same
  /// sum, because addition is commutative, so that all lanes have the result.
  GRADUS_HOST_DEVICE double sum([[maybe_unused]] double (&x)[1]) const noexcept
  {
    double s = 0;
#if defined(__CUDA_ARCH__)
    s = x[0];
    for (int half = 16; half > 0; half /= 2)
      s += __shfl_xor_sync(all, s, half);
#endif
    return s;
  }
  GRADUS_HOST_DEVICE std::uint32_t largest([[maybe_unused]] const std::uint32_t (&x)[1]) const noexcept
  {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_max_sync(all, x[0]);
#elif defined(__CUDA_ARCH__)
    std::uint32_t most = x[0];
    for (int half = 16; half > 0; half /= 2) {
      const std::uint32_t a = __shfl_xor_sync(all, most, half);
      most = a > most ? a : most;
    }
    return most;
#else
    return 0;
#endif
  }
  /// Each lane adds at most one word, so that the words, which are neighbours, go to memory as one access.
  GRADUS_HOST_DEVICE void add(exact_sum& sum, double x) const noexcept
  {
    std::size_t own_word = 0, turn = 0;
    std::int64_t own_change = 0;
    exact_sum::split(x, [&](std::size_t word, std::int64_t change) {
      if (turn++ == lane()) {
        own_word = word;
        own_change = change;
      }
    });
    if (own_change != 0)
      add_atomically(sum.words[own_word], own_change);
  }

 private:
  GRADUS_HOST_DEVICE static std::size_t lane() noexcept
  {
#if defined(__CUDA_ARCH__)
    return threadIdx.x % 32;
#else
    return 0;
#endif
  }
};

/// The threads of a CUDA block. All of them call the same functions.
struct cuda_team {
  template <class F>
  GRADUS_HOST_DEVICE void for_each([[maybe_unused]] std::int64_t n, [[maybe_unused]] const F& f) const noexcept
  {
#if defined(__CUDA_ARCH__)
    for (std::int64_t k = threadIdx.x; k < n; k += threads_of_block)
      f(k);
    __syncthreads();
#endif
  }
};

/// Whether this block is the last to call this in a launch. See the top of this file.
__device__ inline bool takes_last_ticket(std::uint32_t& tickets) noexcept
{
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(&tickets, 1u) + 1 == gridDim.x;
    if (is_last)
      atomicExch(&tickets, 0u);
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

/// One warp for each k < warps. If the work finishes, block 0 has no warps of these; it runs `start`.
template <class Work>
__global__ void __launch_bounds__(threads_of_block, Work::blocks_per_processor)
    run_warps(const Work work, const std::int64_t warps)
{
  std::int64_t block = blockIdx.x;
  if constexpr (finishing_work<Work>) {
    if (block == 0)
      work.start(cuda_team());
    --block;
  }
  const std::int64_t k = block * warps_of_block + threadIdx.x / 32;
  if (block >= 0 && k < warps)
    work(k, cuda_warp());
  if constexpr (finishing_work<Work>)
    if (takes_last_ticket(work.tickets()))
      work.finish(cuda_team());
}

#endif

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
