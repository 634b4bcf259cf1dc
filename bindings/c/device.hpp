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
// Launches on a stream that can be changed while an optimizer and its memory have copies of this.
class on_stream : public ::thrust::cuda::execution_policy<on_stream> {
 public:
  explicit on_stream(const stream* s) : stream_(s) {}

 private:
  friend __host__ __device__ stream get_stream(const on_stream& p) { return *p.stream_; }
  friend __host__ __device__ bool must_perform_optional_stream_synchronization(const on_stream&) { return false; }
  const stream* stream_;
};
inline on_stream policy_on(const stream* s) { return on_stream(s); }

inline void check_cuda(cudaError_t error, const char* what)
{
  if (error != cudaSuccess) {
    cudaGetLastError();  // the sentence has it; later calls should not
    throw ::thrust::system_error(error, ::thrust::cuda_category(), what);
  }
}

inline void wait_for(stream s) { check_cuda(cudaStreamSynchronize(s), "gradus: a stream"); }

// The device that an optimizer is on.
class place {
 public:
  place() = default;  // on the host
  explicit place(int device) : device_(device) {}
  // Where memory of a device is.
  static place of(const void* memory)
  {
    cudaPointerAttributes known{};
    check_cuda(cudaPointerGetAttributes(&known, memory), "gradus: the device of an array");
    return place(known.device);
  }
  int device() const noexcept { return device_; }

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
inline gradus::backend::thrust_policy policy_on(const stream*) { return {}; }
inline void wait_for(stream) {}
class place {
 public:
  place() = default;
  explicit place(int device) : device_(device) {}
  static place of(const void*) { return place(0); }
  static place current() { return place(0); }
  int device() const noexcept { return device_; }
  struct visit {
    explicit visit(const place&) {}
  };

 private:
  int device_ = -1;
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

// An optimizer of precision T on the current device. \param s  where its stream is read, as long as it lives
template <class T>
device_optimizer<T> make_on_device(std::string_view recipe, std::span<const named_number> numbers, const stream* s);

template <class A, class B>
struct join;
template <class... A, class... B>
struct join<std::variant<A...>, std::variant<B...>> {
  using type = std::variant<A..., B...>;
};
template <class A, class B>
using joined = typename join<A, B>::type;

}  // namespace gradus::binding
