#pragma once
// A plain loop, compiled with several sets of flags (CMakeLists.txt).

#include <cstddef>

struct plain_coefficients {
  float beta1, beta2, numerator, eps, kept;
};

void plain_default(const plain_coefficients& c, float* theta, const float* g, float* m, float* v, std::size_t n);
void plain_no_math_errno(const plain_coefficients& c, float* theta, const float* g, float* m, float* v, std::size_t n);
void plain_openmp(const plain_coefficients& c, float* theta, const float* g, float* m, float* v, std::size_t n);
