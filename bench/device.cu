// Memory throughput of optimizers on a device, compared with a copy of the same number of bytes. For CUDA:
//
//     nvcc -std=c++20 -O3 -arch=native --expt-relaxed-constexpr -Iinclude -Ibackends/thrust/include bench/device.cu -o
//     device && ./device
//
// The same file with OpenMP threads; it then also compares backend::thrust with the CPU backend that it uses:
//
//     g++ -std=c++20 -O3 -march=native -fopenmp -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -Iinclude
//     -Ibackends/simd/include -Ibackends/thrust/include -x c++ bench/device.cu -o device
//
// The contenders are timed alternately, and the medians of their times and ratios are printed. `./device N` runs N
// rounds; `./device N MODEL` runs them on a model's tensors (tensors.hpp).

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#include "tensors.hpp"

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
#define BENCH_CUDA
#elif THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_OMP
#include <gradus/executor/openmp.hpp>
#endif

namespace {

using floats = thrust::device_vector<float>;

std::string device_name()
{
#if defined(BENCH_CUDA)
  cudaDeviceProp known;
  return cudaGetDeviceProperties(&known, 0) == cudaSuccess ? known.name : "";
#else
  return "the CPU, on Thrust's system for its threads";
#endif
}

void wait()
{
#if defined(BENCH_CUDA)
  cudaDeviceSynchronize();
#endif
}

void copy(floats& to, const floats& from, std::size_t bytes)
{
  float* const t = thrust::raw_pointer_cast(to.data());
  const float* const f = thrust::raw_pointer_cast(from.data());
#if defined(BENCH_CUDA)
  cudaMemcpyAsync(t, f, bytes, cudaMemcpyDeviceToDevice);
#else
  std::memcpy(t, f, bytes);
#endif
}

/// Seconds per call. Enqueues enough calls for 20 ms and waits once at the end.
double time_of(const std::function<void()>& f)
{
  using clock = std::chrono::steady_clock;
  for (std::size_t n = 1;; n *= 2) {
    wait();
    const auto start = clock::now();
    for (std::size_t i = 0; i < n; ++i)
      f();
    wait();
    const double seconds = std::chrono::duration<double>(clock::now() - start).count();
    if (seconds > 0.02)
      return seconds / double(n);
  }
}

struct contender {
  const char* name;
  std::function<void()> run;
  std::vector<double> seconds = {};
};

/// The median of each contender's times, and of its ratios to the first contender in the same round.
void race(const std::string& recipe, const std::string& shape, double bytes, std::vector<contender> contenders,
          int rounds)
{
  for (int round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < contenders.size(); ++i) {  // each round starts with a different contender
      contender& c = contenders[(i + std::size_t(round)) % contenders.size()];
      c.seconds.push_back(time_of(c.run));
    }
  const auto median = [](std::vector<double> x) {
    std::nth_element(x.begin(), x.begin() + std::ptrdiff_t(x.size() / 2), x.end());
    return x[x.size() / 2];
  };
  for (const contender& c : contenders) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < c.seconds.size(); ++i)
      ratios.push_back(contenders[0].seconds[i] / c.seconds[i]);
    const double seconds = median(c.seconds);
    std::printf("%-14s %10s  %-16s %12.2f us %9.2f GB/s %7.3f of the speed of: %s\n", recipe.c_str(), shape.c_str(),
                c.name, seconds * 1e6, bytes / seconds * 1e-9, median(ratios), contenders[0].name);
  }
  std::fflush(stdout);
}

/// The elements from one tensor's start to the next one's: each starts where an allocator would let it.
std::size_t stride(std::size_t size) { return (size + 63) / 64 * 64; }

template <class Recipe, class T, class Backend>
std::function<void()> stepper(floats& weights, floats& gradients, const bench::shape& s, const gradus::step_options& o)
{
  auto opt = std::make_shared<gradus::optimizer<Recipe, T, Backend>>();
  float* w = thrust::raw_pointer_cast(weights.data());
  const float* g = thrust::raw_pointer_cast(gradients.data());
  for (const std::size_t n : s.sizes) {
    opt->add(std::span(w, n), std::span(g, n));
    w += stride(n);
    g += stride(n);
  }
  return [opt, o] { opt->step(o); };
}

}  // namespace

int main(int count, char** arguments)
try {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 9;
  const std::string device = device_name();
  if (device.empty()) {
    std::puts("device: there is no GPU");
    return 0;
  }
  std::printf("%s\n", device.c_str());
  std::vector<bench::shape> shapes = {{1, 1 << 16}, {1, 1 << 20}, {1, 1 << 24}, {1000, 64}, {1000, 1000}};
#if defined(BENCH_CUDA)
  shapes.push_back(bench::model_shape("gpt2"));
#endif
  if (count > 2)
    shapes = {bench::model_shape(arguments[2])};
  for (const bench::shape& s : shapes) {
    const std::size_t n = s.elements();
    std::size_t length = 0;
    for (const std::size_t size : s.sizes)
      length += stride(size);
    floats weights(length, 1), gradients(length, 0.001f);
    // Per weight, adamw reads four floats and writes three; a norm reads the gradient once more; 8-bit moments take
    // two bytes read and written instead of eight. A copy of n bytes moves 2n bytes.
    floats from(n * 4), to(n * 4);
    const auto run = [&]<class Recipe, class T>(const char* name, std::type_identity<Recipe>, std::type_identity<T>,
                                                std::size_t bytes, const gradus::step_options& o = {}) {
      std::vector<contender> contenders;
      contenders.push_back({"copy", [&, moved = bytes * n / 2] { copy(to, from, moved); }});
      contenders.push_back({"backend::thrust", stepper<Recipe, T, gradus::backend::thrust>(weights, gradients, s, o)});
#if !defined(BENCH_CUDA) && THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_OMP
      using cpu = gradus::backend::parallel<gradus::default_backend, gradus::executor::openmp>;
      contenders.insert(contenders.begin(), {"simd and OpenMP", stepper<Recipe, T, cpu>(weights, gradients, s, o)});
#endif
      race(name, s.name, double(bytes * n), std::move(contenders), rounds);
    };
    const std::type_identity<float> single;
    const std::type_identity<gradus::precision<float, float, gradus::block8>> codes;
    const std::type_identity<gradus::adamw> adamw;
    const std::type_identity<gradus::adams> adams;
    run("sgd", std::type_identity<gradus::sgd>{}, single, 12);
    run("adamw", adamw, single, 28);
    run("adamw, clipped", adamw, single, 32, {.max_grad_norm = 1});
    run("adamw, skipping", adamw, single, 32, {.skip_nonfinite = true});
    run("adams", adams, single, 32);
    run("adams, clipped", adams, single, 32, {.max_grad_norm = 1});
    run("adamw, 8-bit", adamw, codes, 16);
  }
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
