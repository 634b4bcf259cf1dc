// Logistic regression with data, weights, gradients and state in device memory. For CUDA:
//
//     nvcc -std=c++20 -O3 --expt-relaxed-constexpr -Iinclude -Ibackends/thrust/include examples/device_training.cu
//
// The same file with OpenMP threads instead of a GPU:
//
//     g++ -std=c++20 -O3 -march=native -fopenmp -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -Iinclude
//     -Ibackends/simd/include -Ibackends/thrust/include -x c++ examples/device_training.cu

#include <cmath>
#include <cstdio>
#include <vector>

#include <thrust/count.h>
#include <thrust/device_vector.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

namespace {

constexpr std::size_t samples = 4000, features = 50;

// Computes the residual of sample i: prediction minus label.
struct residual {
  const float *x, *y, *w;
  float* r;
  GRADUS_HOST_DEVICE void operator()(std::size_t i) const
  {
    float z = 0;
    for (std::size_t j = 0; j < features; ++j)
      z += x[j * samples + i] * w[j];
    r[i] = 1 / (1 + std::exp(-z)) - y[i];
  }
};

// Computes the derivative of the mean loss with respect to weight j.
struct gradient {
  const float *x, *r;
  float* g;
  GRADUS_HOST_DEVICE void operator()(std::size_t j) const
  {
    float sum = 0;
    for (std::size_t i = 0; i < samples; ++i)
      sum += x[j * samples + i] * r[i];
    g[j] = sum / samples;
  }
};

struct is_right {
  GRADUS_HOST_DEVICE bool operator()(float r) const { return r > -0.5f && r < 0.5f; }
};

template <class F>
void for_each(std::size_t count, const F& f)
{
  thrust::for_each_n(thrust::device, thrust::counting_iterator<std::size_t>(0), count, f);
}

}  // namespace

int main()
{
  // Random points; the label is 1 on one side of a plane and 0 on the other.
  std::vector<float> points(samples * features), truth(samples);
  unsigned state = 1;
  const auto draw = [&] { return float((state = state * 1664525u + 1013904223u) >> 8) / float(1 << 23) - 1; };
  for (float& value : points)
    value = draw();
  for (std::size_t i = 0; i < samples; ++i) {
    float side = 0;
    for (std::size_t j = 0; j < features; ++j)
      side += points[j * samples + i] * (j % 2 ? 1.0f : -1.0f);
    truth[i] = side > 0;
  }

  const thrust::device_vector<float> x(points.begin(), points.end()), y(truth.begin(), truth.end());
  thrust::device_vector<float> weights(features), gradients(features), residuals(samples);
  const auto raw = [](auto& v) { return thrust::raw_pointer_cast(v.data()); };

  gradus::optimizer<gradus::adams, float, gradus::backend::thrust> opt({.lr = 0.1, .weight_decay = 1e-4});
  opt.add("weights", weights, gradients);
  const gradus::schedule::cosine schedule{.t_max = 200};
  for (int step = 0; step < 200; ++step) {
    for_each(samples, residual{raw(x), raw(y), raw(weights), raw(residuals)});
    for_each(features, gradient{raw(x), raw(residuals), raw(gradients)});
    opt.step({.lr_scale = schedule(step)});
  }
  const auto right = thrust::count_if(residuals.begin(), residuals.end(), is_right{});
  std::printf("%.1f %% of %zu points are on the right side\n", 100.0 * double(right) / samples, samples);
  return double(right) > 0.97 * samples ? 0 : 1;
}
