#include <gradus/gradus.hpp>

std::vector<float> weights(3), gradients(3);

void add(gradus::optimizer<gradus::adam>& opt)
{
#ifdef FIXED
  opt.add("weights", weights, std::span<const float>(gradients));
#else
  opt.add("weights", weights, std::vector<float>(3));
#endif
}
