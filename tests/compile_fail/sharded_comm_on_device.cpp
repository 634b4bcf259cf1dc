#include <gradus/distributed.hpp>

#include "alone.hpp"

// Over device memory unless it is fixed.
struct device : alone {
#ifndef FIXED
  static constexpr bool on_device = true;
#endif
};

void step(device& world)
{
  gradus::sharded opt(world, gradus::adamw{});
  opt.step();
}
