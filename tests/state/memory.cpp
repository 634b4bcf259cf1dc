// The memory of state: aligned, filled, moved and released.

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <new>
#include <type_traits>
#include <utility>

#include <gradus/state/memory.hpp>

namespace {

using gradus::detail::array_memory;

// Memory of one's own, which knows what was allocated and may be out.
struct counted {
  std::map<void*, std::size_t>* all = nullptr;
  bool is_out = false;
  void* allocate(std::size_t bytes)
  {
    if (is_out)
      return nullptr;
    void* p = ::operator new(bytes);
    (*all)[p] = bytes;
    return p;
  }
  void release(void* p, std::size_t bytes)
  {
    CHECK((*all)[p] == bytes);
    all->erase(p);
    ::operator delete(p);
  }
  template <class T>
  void fill(T* p, std::size_t n, T value)
  {
    for (std::size_t i = 0; i < n; ++i)
      p[i] = value;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("array_memory: at a cache line, filled, and nothing for no elements", T, float, double, std::uint8_t)
{
  for (const std::size_t n : {1u, 15u, 1000u}) {
    const array_memory<T> x(n, T(3));
    CHECK(reinterpret_cast<std::uintptr_t>(x.get()) % 64 == 0);
    for (std::size_t i = 0; i < n; ++i)
      REQUIRE(x.get()[i] == T(3));
  }
  CHECK(array_memory<T>(0, T(3)).get() == nullptr);
  CHECK(array_memory<T>().get() == nullptr);
}

TEST_CASE("array_memory: moves its elements, and releases each array once, with its size")
{
  std::map<void*, std::size_t> there;
  using memory = array_memory<float, counted>;
  {
    memory a(10, 1.0f, {&there}), b(20, 2.0f, {&there});
    CHECK(there[a.get()] == 40);
    CHECK(there[b.get()] == 80);
    float* const first = a.get();
    memory c = std::move(a);
    CHECK(c.get() == first);
    CHECK(a.get() == nullptr);
    c = std::move(b);  // what it had is the other's to release
    CHECK(c.get()[19] == 2.0f);
    memory empty(0, 0.0f, {&there});
    c = std::move(empty);
    CHECK(c.get() == nullptr);
    CHECK(there.size() == 2);
  }
  CHECK(there.empty());
}

TEST_CASE("array_memory: memory that is out is an error, and nothing is released")
{
  std::map<void*, std::size_t> there;
  CHECK_THROWS_AS((array_memory<float, counted>(10, 1.0f, {&there, true})), std::bad_alloc);
  CHECK(there.empty());
}

TEST_CASE("memory_of: the host's, or the backend's own")
{
  struct plain {};
  struct with_memory {
    using memory_type = counted;
    counted own;
    counted memory() const { return own; }
  };
  using gradus::detail::memory_of;
  static_assert(std::is_same_v<memory_of<plain>::type, gradus::detail::host_memory>);
  static_assert(std::is_same_v<memory_of<with_memory>::type, counted>);
  std::map<void*, std::size_t> there;
  CHECK(memory_of<with_memory>::get({{&there}}).all == &there);
}
