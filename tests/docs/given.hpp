#pragma once
// What the fragments of code in the pages take as given; the page's own `compute`, `weights` and so on.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

inline constexpr std::size_t n = 1000;
inline std::vector<float> weights(n, 1.0f), gradients(n, 0.1f), bias(8, 1.0f), bias_gradients(8, 0.1f);
inline std::vector<float> exp_avg(n), exp_avg_sq(n), max_exp_avg_sq(n);
inline std::uint64_t t = 1, size = 0;
inline int epoch = 3, steps = 3;
inline double lr_scale = 1, loss_scale = 1024;

/// True three times.
struct countdown {
  int left = 3;
  explicit operator bool() { return left-- > 0; }
};
inline countdown training;

template <class W, class G>
void compute(const W&, G&)
{}

/// A class that views.md teaches gradus to view.
namespace my {
struct matrix {
  std::size_t rows, columns;
  std::vector<float> elements;
  float* first() { return elements.data(); }
  const float* first() const { return elements.data(); }
};
}  // namespace my
