#include "plain.hpp"

#include <cmath>

void PLAIN_LOOP(const plain_coefficients& coefficients, float* __restrict theta, const float* __restrict g,
                float* __restrict m, float* __restrict v, std::size_t n)
{
  const plain_coefficients c = coefficients;
#if defined(_OPENMP)
#pragma omp parallel for
#endif
  for (std::size_t i = 0; i < n; ++i) {
    m[i] = c.beta1 * m[i] + (1 - c.beta1) * g[i];
    v[i] = c.beta2 * v[i] + (1 - c.beta2) * g[i] * g[i];
    theta[i] = c.kept * theta[i] - c.numerator * m[i] / (std::sqrt(v[i]) + c.eps);
  }
}
