#include "../support/spans_only.hpp"

// A transposed sum of Eigen's declares data(), and has none.
struct expression {
#ifdef FIXED
  enum { Flags = 0x40 };
#else
  enum { Flags = 0 };
#endif
  const float* data() const { return first; }
  long size() const { return 3; }
  long innerStride() const { return 1; }
  long outerStride() const { return 3; }
  long innerSize() const { return 3; }
  long outerSize() const { return 1; }

  const float* first;
};

float weights[3];
expression gradients{weights};

void add(spans_only<float>& opt) { opt.add(weights, gradients); }
