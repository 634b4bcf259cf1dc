#pragma once
// A device without a GPU: the Thrust backend over memory that only its launches and copies, and its communicator, can
// access. Any other access to it ends the program, as an access of the host to a GPU's memory would.

#include <cstddef>
#include <cstdlib>

#include <sys/mman.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/distributed.hpp>

#include "support/thread_ranks.hpp"

namespace support {

// One device's memory. It is not given back before the end.
class guarded_memory {
 public:
  guarded_memory() : begin_(mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))
  {
    if (begin_ == MAP_FAILED)
      std::abort();
  }
  guarded_memory(const guarded_memory&) = delete;
  ~guarded_memory() { munmap(begin_, size); }

  void* allocate(std::size_t bytes)
  {
    void* const p = static_cast<char*>(begin_) + used_;
    used_ += (bytes + 63) / 64 * 64;
    if (used_ > size)
      std::abort();
    return p;
  }
  // Lets f access the memory.
  template <class F>
  decltype(auto) open(const F& f)
  {
    struct opened {
      guarded_memory& m;
      explicit opened(guarded_memory& of) : m(of)
      {
        if (m.depth_++ == 0)
          mprotect(m.begin_, size, PROT_READ | PROT_WRITE);
      }
      ~opened()
      {
        if (--m.depth_ == 0)
          mprotect(m.begin_, size, PROT_NONE);
      }
    } during(*this);
    return f();
  }

 private:
  static constexpr std::size_t size = std::size_t(256) << 20;
  void* begin_;
  std::size_t used_ = 0;
  int depth_ = 0;
};

struct guarded_device : gradus::backend::thrust_device<> {
  using base = gradus::backend::thrust_device<>;
  template <class Parts>
  using engine_type = gradus::detail::device_step<Parts, guarded_device>;

  guarded_memory* guarded = nullptr;

  guarded_device() = default;
  explicit guarded_device(guarded_memory& m) : guarded(&m) {}

  template <class F>
  void launch(std::size_t n, const F& f) const
  {
    guarded->open([&] { base::launch(n, f); });
  }
  template <class Work>
  void launch_warps(std::size_t n, const Work& work) const
  {
    guarded->open([&] { base::launch_warps(n, work); });
  }
  void copy(void* to, const void* from, std::size_t bytes) const
  {
    guarded->open([&] { base::copy(to, from, bytes); });
  }

  struct memory_type {
    guarded_memory* guarded = nullptr;

    void* allocate(std::size_t bytes) const { return guarded->allocate(bytes); }
    void release(void*, std::size_t) const noexcept {}
    template <class T>
    void fill(T* p, std::size_t n, T value) const
    {
      guarded->open([&] {
        for (std::size_t i = 0; i < n; ++i)
          p[i] = value;
      });
    }
  };
  memory_type memory() const { return {guarded}; }
};

// The communicator among threads, over such memory.
using guarded_rank = gradus::comm::staged<thread_rank, guarded_device>;

}  // namespace support
