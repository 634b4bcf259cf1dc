#include "../support/spans_only.hpp"

float weights[3];

void add(spans_only<float>& opt)
{
#ifdef FIXED
  const std::initializer_list<float> gradients{1, 2, 3};
  opt.add(weights, gradients);
#else
  opt.add(weights, std::initializer_list<float>{1, 2, 3});
#endif
}
