#include "../support/spans_only.hpp"

#ifdef FIXED
std::span<float> weights;
#else
std::span<const float> weights;
#endif

void add(spans_only<float>& opt) { opt.add("weights", weights); }
