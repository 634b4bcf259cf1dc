// What the Thrust backend adds: ranges in Thrust's memory, the caller's policy. That every optimizer runs over it, with
// the same bits, is for the suites that are compiled with support/thrust_under_test.hpp.

#include <doctest/doctest.h>

#include <span>
#include <vector>

#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/own_rules.hpp"

// OpenMP's runtime keeps its threads until the program has ended, which the leak sanitizer takes for a leak.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

namespace {

constexpr std::size_t length = 150'001;  // enough for several pieces

float start(std::size_t i) { return float(i % 19) * 0.1f - 0.9f; }

template <class Optimizer, class W, class G>
void train(Optimizer& opt, W& weights, G& gradients)
{
  for (int t = 1; t <= 4; ++t) {
    std::vector<float> g(length);
    for (std::size_t i = 0; i < length; ++i)
      g[i] = start(i) + float(i * std::size_t(t) % 23) * 0.01f;
    thrust::copy(g.begin(), g.end(), gradients.begin());
    opt.step();
  }
  (void)weights;
}

std::vector<float> expected()
{
  std::vector<float> weights(length), gradients(length);
  for (std::size_t i = 0; i < length; ++i)
    weights[i] = start(i);
  gradus::optimizer<gradus::adams, float, gradus::backend::scalar> opt({.weight_decay = 0.1});
  opt.add(weights, gradients);
  train(opt, weights, gradients);
  return weights;
}

thrust::device_vector<float> start_on_device()
{
  thrust::host_vector<float> h(length);
  for (std::size_t i = 0; i < length; ++i)
    h[i] = start(i);
  return h;
}

std::vector<float> to_host(const thrust::device_vector<float>& d)
{
  std::vector<float> h(d.size());
  thrust::copy(d.begin(), d.end(), h.begin());
  return h;
}

}  // namespace

TEST_CASE("add, rebind: device_vectors and spans of one")
{
  auto weights = start_on_device();
  thrust::device_vector<float> gradients(length);
  gradus::optimizer<gradus::adams, float, gradus::backend::thrust> opt({.weight_decay = 0.1});
  const thrust::device_vector<float>& read_only = gradients;
  const auto tensor = opt.add("weights", weights, read_only);
  CHECK(opt.parameter_count() == length);
  opt.rebind(tensor, std::span(thrust::raw_pointer_cast(weights.data()), length),
             std::span<const float>(thrust::raw_pointer_cast(gradients.data()), length));
  train(opt, weights, gradients);
  CHECK(support::first_difference(to_host(weights), expected()) == -1);
}

TEST_CASE("thrust_host: takes the caller's policy and CPU backend")
{
  using policy = std::remove_cv_t<decltype(thrust::device)>;
  auto weights = start_on_device();
  thrust::device_vector<float> gradients(length);
  using backend = gradus::backend::thrust_host<policy, gradus::backend::scalar>;
  gradus::optimizer<gradus::adams, float, backend> opt({.weight_decay = 0.1}, backend(thrust::device));
  opt.add(weights, gradients);
  train(opt, weights, gradients);
  CHECK(support::first_difference(to_host(weights), expected()) == -1);
}

TEST_CASE("add: unusable Thrust memory is refused like any other")
{
  thrust::device_vector<float> weights(5), gradients(4);
  gradus::optimizer<gradus::adam, float, gradus::backend::thrust> opt;
  CHECK_THROWS_WITH_AS(opt.add("w", weights, gradients),
                       "gradus: size of gradients of tensor \"w\" is 4; expected 5, the size of its parameters",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.add("w", weights, weights),
                       "gradus: gradients of tensor \"w\" overlap its parameters; expected memory of their own",
                       std::invalid_argument);
  CHECK(opt.parameter_count() == 0);
  thrust::device_vector<float> none;
  opt.add("empty", none, none);
  CHECK(opt.step().applied);
}

TEST_CASE("thrust: a custom rule with qualified function names has the bits of the built-in rule")
{
  std::vector<float> expected(length), gradients(length);
  for (std::size_t i = 0; i < length; ++i)
    expected[i] = start(i);
  gradus::optimizer scalar(own::built_in(), gradus::backend::scalar());
  scalar.add(expected, gradients);
  train(scalar, expected, gradients);

  thrust::device_vector<float> w = start_on_device(), g(length);
  gradus::optimizer opt(own::spelled_out(), gradus::backend::thrust());
  opt.add(w, g);
  train(opt, w, g);
  std::vector<float> actual(length);
  thrust::copy(w.begin(), w.end(), actual.begin());
  CHECK(support::first_difference(actual, expected) == -1);
}
