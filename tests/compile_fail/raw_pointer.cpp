#include "../support/spans_only.hpp"

float memory[3];
float *weights = memory, gradients[3];

void add(spans_only<float>& opt)
{
#ifdef FIXED
  opt.add(std::span(weights, 3), gradients);
#else
  opt.add(weights, gradients);
#endif
}
