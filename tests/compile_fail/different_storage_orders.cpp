#include "../support/spans_only.hpp"

// The first index runs fastest.
struct matrix {
  float* first;
  std::size_t rows, columns;
};

template <>
struct gradus::view_traits<matrix> {
  static float* data(matrix& m) { return m.first; }
  static std::size_t size(const matrix& m) { return m.rows * m.columns; }
  static constexpr storage_order order = storage_order::column_major;
};

float memory[3][2], gradients[2][3];
matrix weights{memory[0], 2, 3};

void add(spans_only<float>& opt)
{
#ifdef FIXED
  opt.add(weights, std::span(gradients[0], 6));
#else
  opt.add(weights, gradients);
#endif
}
