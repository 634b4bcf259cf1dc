// The guard under which the processor treats denormal numbers as zeros.

#include <doctest/doctest.h>

#include <limits>

#include <gradus/kernel/denormals.hpp>

#if (defined(__GNUC__) && defined(__SSE__)) || defined(__aarch64__)

namespace {

// Whether half of the smallest normal number is 0.
bool flushes()
{
  volatile float smallest = std::numeric_limits<float>::min();
  const volatile float half = smallest * 0.5f;
  return half == 0;
}

}  // namespace

TEST_CASE("denormal_guard: flushes denormals until its end, and restores the mode before it")
{
  CHECK_FALSE(flushes());
  {
    const gradus::denormal_guard guard(true);
    CHECK(flushes());
    {
      const gradus::denormal_guard inner(true);
      CHECK(flushes());
    }
    CHECK(flushes());
  }
  CHECK_FALSE(flushes());
}

TEST_CASE("denormal_guard: does nothing if it is not wanted")
{
  {
    const gradus::denormal_guard guard(false);
    CHECK_FALSE(flushes());
  }
  const gradus::denormal_guard outer(true);
  {
    const gradus::denormal_guard guard(false);
    CHECK(flushes());
  }
  CHECK(flushes());
}

#endif
