#include "../support/spans_only.hpp"

// It may own its elements or not: nothing says.
struct list {
  float* first;
  float* begin() const { return first; }
  float* end() const { return first + 3; }
};
#ifdef FIXED
template <>
constexpr bool std::ranges::enable_borrowed_range<list> = true;
#endif

float weights[3], gradients[3];

void rebind(spans_only<float>& opt) { opt.rebind({}, list{weights}, gradients); }
