#pragma once
// The rule that a page teaches, in every precision on every backend: whether it moves the weights, in the same bits.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#if defined(__CUDACC__)
#include <gradus/backend/thrust.hpp>

template <class Rule, class Decay, class T>
void instantiate()
{
  gradus::optimizer opt(gradus::compose(1e-3, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                        Decay{.weight_decay = 0.1}));
  gradus::optimizer<std::remove_cvref_t<decltype(opt.hyperparameters())>, T, gradus::backend::thrust> of_device(
      opt.hyperparameters());
  of_device.step();
}
#else
template <class T>
struct parameter_of {
  using type = T;
};
template <class Parameter, class... Rest>
struct parameter_of<gradus::precision<Parameter, Rest...>> {
  using type = Parameter;
};

template <class T, class Recipe, class Backend>
std::vector<float> train(const Recipe& recipe, Backend backend)
{
  using parameter = typename parameter_of<T>::type;
  std::vector<parameter> weights(300), gradients(300);
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = parameter(0.01f * float(i % 50) - 0.2f);
  gradus::optimizer<Recipe, T, Backend> opt(recipe, backend);
  opt.add(weights, gradients);
  for (int step = 0; step < 30; ++step) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = parameter(float(weights[i]) - 0.1f);
    opt.step();
  }
  std::vector<float> result;
  for (const parameter w : weights)
    result.push_back(float(w));
  return result;
}

template <class Rule, class Decay, class T>
bool good(const char* precision)
{
  const auto recipe = gradus::compose(1e-2, gradus::first_moment::ema{}, Rule{}, gradus::step_size::adaptive{},
                                      Decay{.weight_decay = 1e-3});
  const auto x = train<T>(recipe, gradus::backend::scalar{}), y = train<T>(recipe, gradus::default_backend{});
  double far = 0;
  for (const float w : x)
    far = std::fmax(far, std::fabs(double(w) - 0.1));
  const bool same = std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  if (same && far < 0.35)  // 0.3 and more at first
    return true;
  std::printf("%s, %s: largest distance %g, %s bits\n", precision, std::string(Decay::kind).c_str(), far,
              same ? "the same" : "DIFFERENT");
  return false;
}
#endif

template <class Rule, class Decay>
int faults_under()
{
  using namespace gradus;
#if defined(__CUDACC__)
  instantiate<Rule, Decay, float>();
  instantiate<Rule, Decay, double>();
  instantiate<Rule, Decay, precision<float, float, bfloat16>>();
  instantiate<Rule, Decay, precision<float, float, block8>>();
  instantiate<Rule, Decay, precision<bfloat16>>();
  instantiate<Rule, Decay, precision<bfloat16, bfloat16, float, float>>();
  return 0;
#else
  return !good<Rule, Decay, float>("float") + !good<Rule, Decay, double>("double") +
         !good<Rule, Decay, precision<float, float, bfloat16>>("precision<float, float, bfloat16>") +
         !good<Rule, Decay, precision<float, float, block8>>("precision<float, float, block8>") +
         !good<Rule, Decay, precision<bfloat16, bfloat16, float, float>>(
             "precision<bfloat16, bfloat16, float, float>") +
         !good<Rule, Decay, precision<bfloat16>>("precision<bfloat16>");
#endif
}

/// How many of them fail.
template <class Rule>
int faults_of()
{
#if defined(__CUDACC__)
  return faults_under<Rule, gradus::decay::scheduled>();  // the two are told apart before the device, and nvcc is slow
#else
  return faults_under<Rule, gradus::decay::decoupled>() + faults_under<Rule, gradus::decay::scheduled>();
#endif
}
