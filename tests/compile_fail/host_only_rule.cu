// A rule of a program's own, of which one function is not marked GRADUS_HOST_DEVICE: GRADUS_TEST_UNMARKED says which.

#include <array>
#include <string_view>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#if GRADUS_TEST_UNMARKED == 1
#define CORRECTION
#else
#define CORRECTION GRADUS_HOST_DEVICE
#endif
#if GRADUS_TEST_UNMARKED == 2
#define PREPARE
#else
#define PREPARE GRADUS_HOST_DEVICE
#endif
#if GRADUS_TEST_UNMARKED == 3
#define UPDATE
#else
#define UPDATE GRADUS_HOST_DEVICE
#endif

struct belief {
  double beta2 = 0.999;

  static constexpr std::string_view kind = "belief";
  static constexpr auto fields = gradus::fields(gradus::hyper::beta2(&belief::beta2));
  static constexpr std::array slots{gradus::slot{"exp_avg_var", gradus::slot::nonnegative}};
  static constexpr std::size_t value_slot = 0;
  static constexpr bool linear = false;
  CORRECTION double correction(double t) const noexcept { return gradus::one_minus_power(beta2, t); }

  template <class T>
  struct formula {
    T beta2, one_minus_beta2;
    template <class V>
    UPDATE void update(V* s, V g, V m) const noexcept
    {
      const V surprise = g - m;
      s[0] = gradus::fma(V(one_minus_beta2), surprise * surprise, V(beta2) * s[0]);
    }
  };
  template <class T>
  PREPARE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta2), T(1 - beta2)};
  }
};

void step(thrust::device_vector<float>& weights, thrust::device_vector<float>& gradients)
{
  gradus::optimizer opt(gradus::compose(1e-3, gradus::first_moment::ema{}, belief{}, gradus::step_size::adaptive{},
                                        gradus::decay::decoupled{}),
                        gradus::backend::thrust());
  opt.add(weights, gradients);
  opt.step();
}
