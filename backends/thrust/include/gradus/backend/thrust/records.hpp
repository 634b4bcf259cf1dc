#pragma once
/// \file
/// The data of a step in device memory, apart from the arrays: a board with the step's scalars, and a record for each
/// tensor, each cohort (tensors with the same group and step count) and each sum of second moments. Data only.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gradus/kernel/kernel.hpp>
#include <gradus/number/block8.hpp>
#include <gradus/number/half.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The scalars of a step.
struct device_board {
  // The options.
  double lr_scale = 1, grad_scale = 1, max_grad_norm = no_limit<double>();
  double given_norm_sq = 0, given_mean_square = 0, model_size = 0;
  bool is_given = false, is_measured = false, skips = false, has_given_mean = false;

  // Facts about the list of tensors.
  std::uint64_t seed = 0;
  double elements = 0;    // without padding
  double eps = 0;         // of the default group's scheduled decay
  bool of_model = false;  // whether the sums of second moments are a whole model's

  // The report.
  bool applied = false, has_norm = false, has_mean = false, clamped = false;
  double norm = 0, mean_square = 0, decay_factor = 0;

  // Results that one launch passes to the next.
  double scale = 1;                               // the factor on the gradients
  double unit = 1;                                // of the sums of squares
  bool has_unit = false;                          // whether the unit is not 1, so that the squares are summed again
  bool advances = false;                          // whether the step advances the sums of second moments
  std::uint32_t may_overflow = 0, overflows = 0;  // flags: the step must be tried on the elements; an element overflows
  std::uint32_t has_nonfinite = 0;                // flag: a gradient is infinite or NaN
};

/// The values of 8-bit codes, in device memory because device code cannot read the host's constants.
struct device_maps {
  dynamic_map<false> nonnegative;
  dynamic_map<true> any_sign;
};

/// A tensor that takes part in steps. \tparam Nonnegative  bit k is set if slot k is never negative
template <class Precision, std::size_t Slots, unsigned Nonnegative>
struct device_tensor {
  static constexpr bool in_codes = std::is_same_v<typename Precision::state_type, block8>;
  static constexpr std::size_t slot_count = Slots;

  typename Precision::parameter_type* parameters;
  const typename Precision::gradient_type* gradients;
  std::conditional_t<in_codes, std::uint8_t, typename Precision::state_type>* slots[Slots + 1];
  float* scales[in_codes ? Slots + 1 : 1];
  const device_maps* maps;
  float* master;
  std::size_t size, first_pack, first_page, cohort, sum;
  std::uint64_t name_hash;
  bool aligned;  // whether all arrays are aligned to whole packs

  /// Calls f with the map of slot k's codes.
  template <class F>
  GRADUS_HOST_DEVICE auto with_map(std::size_t k, const F& f) const noexcept
  {
    return Nonnegative >> k & 1 ? f(maps->nonnegative) : f(maps->any_sign);
  }
  /// Element i of slot k, converted from its stored type.
  GRADUS_HOST_DEVICE float read_slot(std::size_t k, std::size_t i) const noexcept
  {
    if constexpr (in_codes)
      return scales[k][i / block8::block] * with_map(k, [&](const auto& map) { return map.value[slots[k][i]]; });
    else
      return load<float>(slots[k] + i);
  }
};

/// The tensors with the same group and step count: their rule, and this step's coefficients.
template <class Rule, class Formula>
struct device_cohort {
  Rule rule = Rule(0, {}, {}, {}, {});
  std::uint64_t t;
  step_scalars scalars;
  Formula prepared;
  bool active;   // whether it has members
  bool clamped;  // whether a scheduled decay's rate exceeded 1 and was lowered to 1
};

/// An entry of second_moment_sums.
struct device_sum {
  double sum = 0;
  double beta2 = 0;
  std::size_t cohort = 0;  // any of its cohorts, because all have the same bias correction
  bool active = false;     // whether it has members
};

/// The index of the last of n records whose member `first` is at most k.
template <class X>
GRADUS_HOST_DEVICE std::size_t last_from(const X* list, std::size_t n, std::size_t X::* first, std::size_t k) noexcept
{
  std::size_t low = 0, high = n;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (list[middle].*first <= k ? low : high) = middle;
  }
  return low;
}

/// Sets a flag; many threads may do so at once.
GRADUS_HOST_DEVICE inline void set_flag(std::uint32_t& flag) noexcept
{
#if defined(__CUDA_ARCH__)
  atomicExch(&flag, 1u);
#else
  __atomic_store_n(&flag, 1u, __ATOMIC_RELAXED);
#endif
}
GRADUS_HOST_DEVICE inline bool is_set(const std::uint32_t& flag) noexcept
{
#if defined(__CUDA_ARCH__)
  return *static_cast<const volatile std::uint32_t*>(&flag) != 0;
#else
  return __atomic_load_n(&flag, __ATOMIC_RELAXED) != 0;
#endif
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
