#pragma once
/// \file
/// An executor over oneTBB, in the calling thread's arena. Link TBB::tbb.

#include <tbb/parallel_for.h>

#include <gradus/backend/parallel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace executor {

/// Runs pieces on oneTBB's threads. oneTBB does not support a child of fork() whose parent has used it; use thread_pool
/// there, which starts its own threads.
struct tbb {
  /// Calls f(0), …, f(n−1) on the threads; returns when all have returned.
  void run(std::size_t n, work f) const noexcept
  {
    ::tbb::parallel_for(std::size_t(0), n, [f](std::size_t k) noexcept { f(k); });
  }
};

}  // namespace executor
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
