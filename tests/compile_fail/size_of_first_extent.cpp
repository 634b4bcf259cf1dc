#include "../support/spans_only.hpp"

// Boost's multi_array, as far as gradus looks at it: size() is the number of rows, and iterators run over rows.
struct table {
  float elements[3][4];
  float* data() { return elements[0]; }
  std::size_t size() const { return 3; }
  float (*begin())[4] { return elements; }
  float (*end())[4] { return elements + 3; }
};

table weights;
float gradients[12];

void add(spans_only<float>& opt)
{
#ifdef FIXED
  opt.add(std::span(weights.data(), 12), gradients);
#else
  opt.add(weights, gradients);
#endif
}
