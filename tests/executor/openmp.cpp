// OpenMP as an executor.

#include <doctest/doctest.h>

#include <gradus/executor/openmp.hpp>
#include <gradus/gradus.hpp>

#include "support/executor.hpp"

// OpenMP's runtime keeps its threads until the program has ended, which the leak sanitizer takes for a leak.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

TEST_CASE("openmp: gives the bits of one thread, for every number of threads")
{
  for (const int threads : {0, 1, 2, 3, 8})
    support::check_executor(gradus::executor::openmp{threads});
}
