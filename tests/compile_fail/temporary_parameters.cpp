#include <gradus/gradus.hpp>

std::vector<float> weights(3), gradients(3);

void add(gradus::optimizer<gradus::adam>& opt)
{
#ifdef FIXED
  opt.add(std::span<float>(weights), gradients);
#else
  opt.add(std::vector<float>(3), gradients);
#endif
}
