#include <gradus/distributed.hpp>

#include "alone.hpp"

// A backend over device memory unless it is fixed.
struct device : gradus::backend::scalar {
#ifndef FIXED
  using memory_type = gradus::detail::host_memory;
  memory_type memory() const { return {}; }
  void copy(void*, const void*, std::size_t) const {}
  template <class F>
  void launch(std::size_t, const F&) const
  {}
#endif
};

void step(alone& world)
{
  gradus::sharded opt(world, gradus::adamw{}, {}, device());
  opt.step();
}
