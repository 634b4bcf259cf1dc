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
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/mean_square.hpp>
#include <gradus/state/masters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The scalars of a step. lr is negative if lr_scale counts.
struct device_board {
  // The options.
  double lr_scale = 1, lr = -1, decay_scale = 1, grad_scale = 1, max_grad_norm = no_limit<double>();
  double given_norm_sq = 0, given_mean_square = 0, model_size = 0;
  bool is_given = false, is_measured = false, skips = false, has_given_mean = false, maximizes = false;

  // Facts about the list of tensors.
  std::uint64_t seed = 0;
  double elements = 0;    // without padding
  double eps = 0;         // of the default group's scheduled decay
  bool of_model = false;  // whether the sums of second moments are a whole model's

  // Of a step that several ranks take together: whether they disagree, or one of them refuses it.
  bool is_refused = false;

  // The report.
  bool applied = false, has_norm = false, has_mean = false;
  std::uint32_t clamped = 0;  // flag
  double norm = 0, mean_square = 0, decay_factor = 0;

  // Results that one part of a step passes to the next.
  double scale = 1;                               // the factor on the gradients
  square_sum squares;                             // of all gradients
  sums_plan plan = {true, false, false};          // for the sums of second moments
  std::uint32_t may_overflow = 0, overflows = 0;  // flags: the step must be tried on the elements; an element overflows
  std::uint32_t has_nonfinite = 0;                // flag: a gradient is infinite or NaN
  std::uint32_t tickets = 0;                      // blocks that are done; 0 between launches (teams.hpp)
};

/// The values of 8-bit codes, in device memory because device code cannot read the host's constants.
struct device_maps {
  float nonnegative[256], any_sign[256];
  device_maps() noexcept
  {
    for (std::size_t k = 0; k < 256; ++k) {
      nonnegative[k] = dynamic_map_of<false>.value[k];
      any_sign[k] = dynamic_map_of<true>.value[k];
    }
  }
};

/// Tells the device's compiler that p points to device memory, which it does not always find out. It would otherwise
/// emit generic accesses, which look first which kind of memory it is.
template <class X>
GRADUS_HOST_DEVICE inline X* on_device(X* p) noexcept
{
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(p));
#endif
  return p;
}

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
  masters_pointer<typename Precision::master_type> master;
  std::size_t size, first_pack, first_page, cohort, sum;
  std::uint64_t name_hash;
  bool aligned;  // whether all arrays are aligned to whole packs

  GRADUS_HOST_DEVICE static constexpr bool is_nonnegative(std::size_t k) noexcept { return Nonnegative >> k & 1; }
  /// The share of its block's scale that a code of slot k stands for.
  GRADUS_HOST_DEVICE float decode(std::size_t k, std::uint8_t code) const noexcept
  {
    return on_device(is_nonnegative(k) ? maps->nonnegative : maps->any_sign)[code];
  }
  /// Element i of slot k, converted from its stored type.
  template <class T>
  GRADUS_HOST_DEVICE T read_slot(std::size_t k, std::size_t i) const noexcept
  {
    if constexpr (in_codes)
      return on_device(scales[k])[i / block8::block] * decode(k, on_device(slots[k])[i]);
    else
      return load<T>(on_device(slots[k]) + i);
  }
  /// Element i of every slot that the tensor has. \param c  the formulas; an idle moment has fewer slots
  template <class Prepared, class T>
  GRADUS_HOST_DEVICE void read_slots(const Prepared& c, std::size_t i, T* to) const noexcept
  {
    for (std::size_t k = 0; k < Slots; ++k)  // from 0, so that a device unrolls it and `to` stays in registers
      if (c.keeps(k))
        to[k] = read_slot<T>(k, i);
  }
  /// Parameter i, or its master weight.
  template <class T>
  GRADUS_HOST_DEVICE T parameter(std::size_t i) const noexcept
  {
    if constexpr (std::is_same_v<typename Precision::master_type, remainder16>)
      return load<T>(completed{on_device(parameters), on_device(master.rest), on_device(master.above)}, i);
    else if constexpr (Precision::has_master)
      return T(on_device(master)[i]);
    else
      return load<T>(on_device(parameters) + i);
  }
};

/// A part of a tensor, of which other ranks may have others.
template <class Precision, std::size_t Slots, unsigned Nonnegative>
struct device_part : device_tensor<Precision, Slots, Nonnegative> {
  std::size_t first_in_whole;  // the index of its first element in the whole tensor
  std::size_t counted;         // the number of elements without padding
  std::size_t cut;             // the index of the tensor among those that have several parts, or no_place
  bool is_counted;             // in the norm
};

/// The tensors with the same group and step count: their rule, and this step's coefficients.
template <class Rule, class Formula>
struct device_cohort {
  Rule rule = Rule(0, {}, {}, {}, {});
  std::uint64_t t;
  double kept[step_scalars::most_state];  // the rule's scalars after the last step that was taken
  step_scalars scalars;
  Formula prepared;
  bool active;          // whether it has members
  double lr_scale = 1;  // the group's

  GRADUS_HOST_DEVICE void count_step() noexcept
  {
    t += 1;
    for (std::size_t i = 0; i < step_scalars::most_state; ++i)
      kept[i] = scalars.state[i];
  }
};

/// What each tensor has of its own under a step size with sums.
template <class Formula>
struct device_own {
  Formula prepared;    // with the factors from its sums
  double counted = 0;  // the number of elements without padding
};
/// Stands for a list of these where there is none.
struct nothing_of_its_own {};
/// The list of what each tensor has of its own.
template <class Cohort>
using list_of_own =
    std::conditional_t<decltype(Cohort::rule)::sums, device_own<decltype(Cohort::prepared)>*, nothing_of_its_own>;
/// The formulas that update tensor k. \param shared  by its cohort
template <class Own, class Formula>
GRADUS_HOST_DEVICE const Formula& formula_of_tensor(const Own& own, [[maybe_unused]] std::size_t k,
                                                    const Formula& shared) noexcept
{
  if constexpr (std::is_pointer_v<Own>)
    return own[k].prepared;
  else
    return shared;
}

/// An entry of second_moment_sums.
struct device_sum {
  double sum = 0;
  double beta2 = 0;
  std::size_t cohort = 0;  // any of its cohorts, because all have the same bias correction
  bool active = false;     // whether it has members
  double part = 0;         // of n·v̄ in this step
};

/// The index of the last of n records whose member `first` is at most k.
template <class X>
GRADUS_HOST_DEVICE std::size_t last_from(const X* list, std::size_t n, std::size_t std::type_identity_t<X>::* first,
                                         std::size_t k) noexcept
{
  std::size_t low = 0, high = n;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (list[middle].*first <= k ? low : high) = middle;
  }
  return low;
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
