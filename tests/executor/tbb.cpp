// oneTBB as an executor.

#include <doctest/doctest.h>

#include <gradus/executor/tbb.hpp>
#include <gradus/gradus.hpp>

#include "support/executor.hpp"

TEST_CASE("tbb: gives the bits of one thread") { support::check_executor(gradus::executor::tbb{}); }
