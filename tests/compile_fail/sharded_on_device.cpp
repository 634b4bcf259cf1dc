#include <gradus/distributed.hpp>

#include "alone.hpp"

// A backend with an engine of its own, as one on a device has.
struct device : gradus::backend::scalar {
#ifndef FIXED
  template <class Parts>
  using engine_type = gradus::detail::host_step<Parts, device>;
#endif
};

void step(alone& world)
{
  gradus::sharded opt(world, gradus::adamw{}, {}, device());
  opt.step();
}
