#pragma once
/// \file
/// Sums on a device, with the same bits as kernel/reduce.hpp. One launch computes the 32 partial sums of each page; a
/// second launch folds them and adds the page to exact sums with integer atomics.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gradus/backend/thrust/records.hpp>
#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Adds x to a sum; many threads may do so at once.
GRADUS_HOST_DEVICE inline void add_atomically(exact_sum& sum, double x) noexcept
{
  exact_sum::split(x, [&sum](std::size_t word, std::int64_t change) {
#if defined(__CUDA_ARCH__)
    static_assert(sizeof(unsigned long long) == sizeof(std::int64_t));
    atomicAdd(reinterpret_cast<unsigned long long*>(&sum.words[word]), static_cast<unsigned long long>(change));
#else
    __atomic_fetch_add(&sum.words[word], change, __ATOMIC_RELAXED);
#endif
  });
}

// ── the terms of a sum: functions of tensor x and element i ──────────────────────────────────────────────────────────

/// The gradient.
struct gradient_element {
  template <class Tensor>
  GRADUS_HOST_DEVICE double operator()(const Tensor& x, std::size_t i) const noexcept
  {
    if constexpr (std::is_same_v<decltype(x.gradients), const double*>)
      return x.gradients[i];
    else
      return double(float(x.gradients[i]));
  }
};
/// The gradient in the board's unit.
struct scaled_gradient_element {
  const device_board* board;
  template <class Tensor>
  GRADUS_HOST_DEVICE double operator()(const Tensor& x, std::size_t i) const noexcept
  {
    return double(x.gradients[i]) * (1 / board->unit);
  }
};
/// An element of slot k.
struct slot_element {
  std::size_t k;
  template <class Tensor>
  GRADUS_HOST_DEVICE double operator()(const Tensor& x, std::size_t i) const noexcept
  {
    return double(x.slots[k][i]);
  }
};
/// The next second moment, which is computed but not stored. For moments that are stored rounded, because weights are
/// divided by the unrounded values.
template <class Cohort>
struct next_moment_element {
  const Cohort* cohorts;
  template <class Tensor>
  GRADUS_HOST_DEVICE double operator()(const Tensor& x, std::size_t i) const noexcept
  {
    float slot[Tensor::slot_count + 1] = {};
    float theta = x.master ? x.master[i] : load<float>(x.parameters + i);
    const float g = load<float>(x.gradients + i);
    const auto& formulas = cohorts[x.cohort].prepared;
    with_kernel<pass::moments>(formulas, [&](const auto& kernel, std::size_t skipped) {
      for (std::size_t k = skipped; k < Tensor::slot_count; ++k)
        slot[k] = x.read_slot(k, i);
      kernel(theta, g, slot + skipped);
    });
    return double(slot[decltype(Cohort::prepared)::value_slot]);
  }
};

// ── the tensors of a sum ─────────────────────────────────────────────────────────────────────────────────────────────

struct every_tensor {
  template <class Tensor>
  GRADUS_HOST_DEVICE bool operator()(const Tensor&) const noexcept
  {
    return true;
  }
};
/// All tensors if the squares must be summed again in another unit, otherwise none.
struct tensors_in_other_unit {
  const device_board* board;
  template <class Tensor>
  GRADUS_HOST_DEVICE bool operator()(const Tensor&) const noexcept
  {
    return board->has_unit;
  }
};
/// The tensors whose sum of second moments is needed and unknown.
struct tensors_of_unknown_sum {
  const device_board* board;
  const device_sum* sums;
  template <class Tensor>
  GRADUS_HOST_DEVICE bool operator()(const Tensor& x) const noexcept
  {
    return board->applied && board->advances && board->elements > 0 && !is_finite(sums[x.sum].sum);
  }
};

// ── the launches ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Computes one partial sum of one page. Neighbouring threads read neighbouring elements.
template <class Term, class Tensor, class Element, class Which>
struct sum_lane {
  const Tensor* tensors;
  std::size_t n;
  Element element;
  Which which;
  double* partial;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    const std::size_t page = std::size_t(k) / page_lanes, lane = std::size_t(k) % page_lanes;
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_page, page)];
    if (!which(x))
      return;
    const std::size_t begin = (page - x.first_page) * page_size;
    const std::size_t end = x.size - begin < page_size ? x.size : begin + page_size;
    double sum = 0;
    for (std::size_t i = begin + lane; i < end; i += page_lanes)
      sum = Term{}(sum, element(x, i));
    partial[k] = sum;
  }
};

/// Adds a page to the sum of all tensors, to the sum of its entry of second_moment_sums, or to both.
template <class Tensor, class Which>
struct add_page {
  const Tensor* tensors;
  std::size_t n;
  Which which;
  const double* partial;
  exact_sum* total;     // or null
  exact_sum* of_entry;  // or null
  GRADUS_HOST_DEVICE void operator()(std::int64_t page) const noexcept
  {
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_page, std::size_t(page))];
    if (!which(x))
      return;
    double p[page_lanes];
    for (std::size_t k = 0; k < page_lanes; ++k)
      p[k] = partial[std::size_t(page) * page_lanes + k];
    const double sum = fold(p);
    if (total)
      add_atomically(*total, sum);
    if (of_entry)
      add_atomically(of_entry[x.sum], sum);
  }
};

/// Sets exact sums to 0, one word per thread, unless the flag `only_if` on the device is false; `only_if` may be null.
struct clear_sums {
  exact_sum* sums;
  const bool* only_if;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!only_if || *only_if)
      sums[std::size_t(k) / exact_sum::word_count].words[std::size_t(k) % exact_sum::word_count] = 0;
  }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
