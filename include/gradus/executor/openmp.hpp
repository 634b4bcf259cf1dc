#pragma once
/// \file
/// An executor over OpenMP. Without -fopenmp it runs serially.
///
/// OpenMP does not support fork(): in a child whose parent has used it, GCC's OpenMP waits for threads that the child
/// does not have. Use thread_pool there, which starts its own threads.

#include <gradus/backend/parallel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace executor {
// One program may contain translation units with and without -fopenmp, so the type differs between them.
#if defined(_OPENMP)
inline namespace with_openmp {
#else
inline namespace without_openmp {
#endif

/// Runs pieces on OpenMP's threads.
struct openmp {
  int threads = 0;  ///< number of threads; 0 lets OpenMP decide (OMP_NUM_THREADS)

  /// Calls f(0), …, f(n−1) on the threads; returns when all have returned.
  void run(std::size_t n, work f) const noexcept
  {
#if defined(_OPENMP)
    if (threads > 0) {
#pragma omp parallel for schedule(static) num_threads(threads)
      for (std::size_t k = 0; k < n; ++k)
        f(k);
      return;
    }
#pragma omp parallel for schedule(static)
#endif
    for (std::size_t k = 0; k < n; ++k)
      f(k);
  }
};

}  // inline namespace
}  // namespace executor
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
