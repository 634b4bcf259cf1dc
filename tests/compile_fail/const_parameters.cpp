#include <gradus/gradus.hpp>

#ifdef FIXED
std::vector<float> weights(3);
#else
const std::vector<float> weights(3);
#endif
const std::vector<float> gradients(3);

void add(gradus::optimizer<gradus::adam>& opt) { opt.add(weights, gradients); }
