#pragma once
// Lets memory run out at every allocation of a call. For one unit of a program, as failing_memory.hpp is.

#include <new>

#include <doctest/doctest.h>

#include "support/failing_memory.hpp"

namespace support {

// Makes a call with memory for no allocation, for one, for two, … until it is enough; gives how often it was not.
// \param same  whether all is as it was before the call
template <class Call, class Same>
int starve(Call&& call, const Same& same)
{
  for (int n = 0;; ++n) {
    bool failed = false;
    until_failure = n;
    try {
      call();
    } catch (const std::bad_alloc&) {
      failed = true;
    } catch (...) {
      until_failure = -1;
      throw;
    }
    until_failure = -1;
    if (!failed)
      return n;
    CHECK(same());
    REQUIRE(n < 10000);
  }
}

}  // namespace support
