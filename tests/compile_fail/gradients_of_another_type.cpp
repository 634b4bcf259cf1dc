#include <gradus/gradus.hpp>

#ifdef FIXED
std::vector<float> gradients(3);
#else
std::vector<double> gradients(3);
#endif
std::vector<float> weights(3);

void add(gradus::optimizer<gradus::adam>& opt) { opt.add(weights, gradients); }
