#pragma once
// What libgradus_cuda adds to libgradus: optimizers on a device. Only declared here; device.cpp compiles the recipes, for
// one dtype at a time. On Thrust's systems for CPUs, which test it, memory of the device is memory of the host.

#include <span>
#include <string_view>
#include <variant>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/thrust.hpp>

#include <gradus_cuda.h>

namespace gradus::binding {

using stream = struct CUstream_st*;

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
inline auto policy_on(stream s) { return ::thrust::cuda::par_nosync.on(s); }

inline void check_cuda(cudaError_t error, const char* what)
{
  if (error != cudaSuccess) {
    cudaGetLastError();  // the sentence has it; later calls should not
    throw ::thrust::system_error(error, ::thrust::cuda_category(), what);
  }
}

// The device that an optimizer is on: the one that is current when it is made.
class place {
 public:
  static place current()
  {
    int devices = 0;
    place p;
    check_cuda(cudaGetDeviceCount(&devices), "gradus: no CUDA device can be used");
    if (devices == 0)
      check_cuda(cudaErrorNoDevice, "gradus: no CUDA device can be used");
    check_cuda(cudaGetDevice(&p.device_), "gradus: the current device");
    return p;
  }

  // Makes the device current for a call. Threads begin with device 0 as the current one.
  class visit {
   public:
    explicit visit(const place& p) : visit(p.device_) {}
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    ~visit()
    {
      if (before_ != none)
        cudaSetDevice(before_);
    }

   private:
    explicit visit(int device)
    {
      int before = none;
      if (device == none)
        return;
      check_cuda(cudaGetDevice(&before), "gradus: the current device");
      if (before != device) {
        check_cuda(cudaSetDevice(device), "gradus: the optimizer's device");
        before_ = before;
      }
    }
    int before_ = none;
  };

 private:
  static constexpr int none = -1;
  int device_ = none;  // none: on the host
};
#else
inline gradus::backend::thrust_policy policy_on(stream) { return {}; }
struct place {
  static place current() { return {}; }
  struct visit {
    explicit visit(const place&) {}
  };
};
#endif

using device = gradus::backend::thrust_device<decltype(policy_on(nullptr))>;

// The recipes on devices: those on the host, or those of GRADUS_C_CUDA_RECIPES, separated by commas.
#if defined(GRADUS_C_CUDA_RECIPES)
using device_recipes = recipe_list<GRADUS_C_CUDA_RECIPES>;
#else
using device_recipes = compiled_recipes;
#endif

template <class T>
using device_optimizer = any_optimizer<T, device, device_recipes>;

// An optimizer of precision T on the current device.
template <class T>
device_optimizer<T> make_on_device(std::string_view recipe, std::span<const named_number> numbers, stream s);

template <class A, class B>
struct join;
template <class... A, class... B>
struct join<std::variant<A...>, std::variant<B...>> {
  using type = std::variant<A..., B...>;
};
template <class A, class B>
using joined = typename join<A, B>::type;

}  // namespace gradus::binding
