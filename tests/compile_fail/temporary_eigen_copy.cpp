#include "../support/spans_only.hpp"

// Eigen's Ref, as far as gradus looks at it: of const, it keeps a copy of an expression; not of const, it never does.
struct sum {};
struct vector {
  float x[3];
};
struct reference {
  using PlainObject = vector;
  using ConstantReturnType = sum;
  enum { Flags = 0x40, IsRowMajor = 0, IsVectorAtCompileTime = 1 };
#ifdef FIXED
  reference(vector& v) : first(v.x) {}
#else
  reference(const sum&) : first(copy.x) {}
#endif
  const float* data() const { return first; }
  long size() const { return 3; }
  long innerStride() const { return 1; }
  long outerStride() const { return 3; }
  long innerSize() const { return 3; }
  long outerSize() const { return 1; }

  vector copy;
  const float* first;
};

float weights[3];
#ifdef FIXED
vector g;
#else
sum g;
#endif

void rebind(spans_only<float>& opt) { opt.rebind_gradients({}, reference(g)); }
