#include <valarray>

#include "../support/spans_only.hpp"

float weights[3];
std::valarray<float> gradients(3);

void add(spans_only<float>& opt)
{
#ifdef FIXED
  opt.add("weights", weights, std::span(&gradients[0], gradients.size()));
#else
  opt.add("weights", weights, gradients);
#endif
}
