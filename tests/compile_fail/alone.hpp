#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// A communicator of one rank.
struct alone {
  using request = int;
  std::size_t rank() const { return 0; }
  std::size_t size() const { return 1; }
  int exchange(const void*, void*, std::size_t) { return 0; }
  template <class X>
  int reduce_scatter(const X*, X*, std::size_t)
  {
    return 0;
  }
  int all_gather(void*, std::size_t) { return 0; }
  int sum(std::int64_t*, std::size_t) { return 0; }
  int broadcast(void*, std::size_t, std::size_t) { return 0; }
  bool test(int&) { return true; }
  void give_up(const std::string&) {}
};
