#pragma once
// Counts every operator new of a program. One file of the program includes this.

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

long allocations = 0;

void* allocate(std::size_t n, std::size_t alignment)
{
  ++allocations;
  if (void* const p = std::aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment + (n == 0) * alignment))
    return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void release(void* p) noexcept { std::free(p); }

}  // namespace

void* operator new(std::size_t n) { return allocate(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate(n, std::size_t(a)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept
{
  return allocate(n, std::size_t(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
