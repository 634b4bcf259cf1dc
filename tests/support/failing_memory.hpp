#pragma once
// Every operator new of a program, counted, and failing where a test wants it to. For one unit of a program.

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace support {

inline std::atomic<long> allocations = 0, living = 0, failed_allocations = 0;
inline std::atomic<long> until_failure = -1;  // how many more succeed; -1: all

inline void* allocate(std::size_t size, std::size_t alignment) noexcept
{
  ++allocations;
  if (until_failure == 0) {
    ++failed_allocations;
    return nullptr;
  }
  if (until_failure > 0)
    --until_failure;
  ++living;
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment + (size == 0) * alignment);
}
inline void* allocate_or_throw(std::size_t size, std::size_t alignment = alignof(std::max_align_t))
{
  if (void* const p = allocate(size, alignment))
    return p;
  throw std::bad_alloc();
}
// Not inlined: GCC 12 takes a free that it sees in a delete for a mistake.
[[gnu::noinline]] inline void release(void* p) noexcept
{
  living -= p != nullptr;
  std::free(p);
}

struct count_at_end {
  ~count_at_end()
  {
    if (const long n = failed_allocations; n > 0)
      std::printf("%ld allocations failed\n", n);
  }
};
inline const count_at_end says_it;

}  // namespace support

void* operator new(std::size_t n) { return support::allocate_or_throw(n); }
void* operator new[](std::size_t n) { return support::allocate_or_throw(n); }
void* operator new(std::size_t n, std::align_val_t a) { return support::allocate_or_throw(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return support::allocate_or_throw(n, std::size_t(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept
{
  return support::allocate(n, alignof(std::max_align_t));
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept
{
  return support::allocate(n, alignof(std::max_align_t));
}
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept
{
  return support::allocate(n, std::size_t(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept
{
  return support::allocate(n, std::size_t(a));
}

void operator delete(void* p) noexcept { support::release(p); }
void operator delete[](void* p) noexcept { support::release(p); }
void operator delete(void* p, std::size_t) noexcept { support::release(p); }
void operator delete[](void* p, std::size_t) noexcept { support::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { support::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { support::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { support::release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { support::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { support::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { support::release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { support::release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { support::release(p); }
