// The optimizers of the study on a GPU, for train.py: gradus on Thrust, over memory of PyTorch's. For CUDA:
//
//     nvcc -shared -std=c++20 -O3 --expt-relaxed-constexpr -diag-suppress 186 -Xcompiler -fPIC -arch=native
//          -Iinclude -Ibackends/thrust/include examples/study/gpu/steps.cu -o steps.so
//
// The tests compile it as C++ for Thrust's system of one CPU. Functions return 0, or 1 with a message in study_error().

#include <cstddef>
#include <exception>
#include <span>
#include <string>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/thrust.hpp>
#include <gradus/checkpoint.hpp>

namespace {

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
using stream = cudaStream_t;
auto policy_on(stream s) { return thrust::cuda::par_nosync.on(s); }
#else
using stream = void*;
gradus::backend::thrust_policy policy_on(stream) { return {}; }
#endif
using device = gradus::backend::thrust_device<decltype(policy_on(nullptr))>;
using optimizer =
    gradus::any_optimizer<float, device, gradus::recipe_list<gradus::sgd, gradus::adam, gradus::adamw, gradus::adams>>;

std::string error;

template <class F>
int guarded(const F& f)
{
  try {
    f();
    return 0;
  } catch (const std::exception& e) {
    error = e.what();
    return 1;
  }
}

}  // namespace

extern "C" {

const char* study_error() { return error.c_str(); }

/// \param momentum  of SGD alone
int study_create(const char* recipe, double lr, double weight_decay, double momentum, void* s, void** out)
{
  return guarded([&] {
    std::vector<gradus::named_number> numbers = {{"lr", lr}, {"weight_decay", weight_decay}};
    if (std::string(recipe) == "sgd")
      numbers.emplace_back("momentum", momentum);
    *out = new optimizer(recipe, numbers, device(policy_on(static_cast<stream>(s))));
  });
}

void study_destroy(void* opt) { delete static_cast<optimizer*>(opt); }

int study_add(void* opt, const char* name, float* parameters, const float* gradients, std::size_t n)
{
  return guarded([&] { static_cast<optimizer*>(opt)->add(name, std::span(parameters, n), std::span(gradients, n)); });
}

int study_step(void* opt, double lr_scale)
{
  return guarded([&] { static_cast<optimizer*>(opt)->step({.lr_scale = lr_scale}); });
}

/// The last step's 1/√v̄, 0 without a scheduled decay. Waits for the step.
int study_decay_factor(void* opt, double* factor)
{
  return guarded([&] { *factor = static_cast<optimizer*>(opt)->report().decay_factor.value_or(0); });
}

int study_save(void* opt, const char* file)
{
  return guarded([&] { gradus::save(*static_cast<optimizer*>(opt), file, {.parameters = true}); });
}

int study_load(void* opt, const char* file)
{
  return guarded([&] { gradus::load(*static_cast<optimizer*>(opt), file, {.parameters = true}); });
}
}
