#pragma once
/// \file
/// An executor over oneTBB, in the calling thread's arena. Link TBB::tbb.

#include <tbb/parallel_for.h>

#include <gradus/backend/parallel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace executor {

/// oneTBB promises nothing in a child of fork() whose parent has run it; thread_pool starts threads of its own there.
struct tbb {
  void run(std::size_t n, work f) const noexcept
  {
    ::tbb::parallel_for(std::size_t(0), n, [f](std::size_t k) noexcept { f(k); });
  }
};

}  // namespace executor
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
