#pragma once
/// \file
/// An executor over OpenMP: compile with -fopenmp, else it runs serially.
///
/// OpenMP knows no fork(): in a child whose parent has run it, GCC's waits for threads that the child does not have.
/// thread_pool starts its own there.

#include <gradus/backend/parallel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace executor {
// Units with and without -fopenmp may meet in one program: it is another type in each.
#if defined(_OPENMP)
inline namespace with_openmp {
#else
inline namespace without_openmp {
#endif

struct openmp {
  int threads = 0;  ///< how many; 0 leaves it to OpenMP (OMP_NUM_THREADS)

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
