#include <memory>

#include "../support/spans_only.hpp"

std::unique_ptr<float[]> weights(new float[3]);

void add(spans_only<float>& opt)
{
#ifdef FIXED
  opt.add("weights", std::span(weights.get(), 3));
#else
  opt.add("weights", weights);
#endif
}
