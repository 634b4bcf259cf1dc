#pragma once
/// \file
/// Sums on a device, with the same bits as kernel/reduce.hpp: each lane of a warp computes one of the 32 partial sums
/// of a page, the warp folds them, and adds the page to exact sums with integer atomics.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gradus/backend/thrust/records.hpp>
#include <gradus/backend/thrust/teams.hpp>
#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Where the data of a step are on the device. \tparam OnePass  see model::one_pass
template <class Precision, class Tensor, class Cohort, bool OnePass>
struct device_data {
  using precision = Precision;
  using value_type = typename Precision::compute_type;
  using tensor = Tensor;
  using cohort = Cohort;
  static constexpr bool one_pass = OnePass;
  static constexpr bool scheduled = decltype(Cohort::rule)::scheduled;
  using step_size = decltype(Cohort::rule.step_size);
  static constexpr std::size_t terms = term_count<step_size>();
  static constexpr bool sums_over_model = decltype(Cohort::rule)::sums_over_model;
  static constexpr bool is_shared = requires(const Tensor& x) { x.is_counted; };  // by several ranks

  device_board* board;
  const Tensor* tensors;
  const std::uint32_t* tensor_of_page;
  Cohort* cohorts;
  device_sum* sums;
  exact_sum* exact;
  std::int64_t cohort_count, sum_count, tensor_count;
  list_of_own<Cohort> own;

  /// Squares of doubles may overflow or underflow. They are summed in three units at once, and `unit_for` then selects
  /// one, so that gradients are read once. Squares of floats need one unit.
  static constexpr std::size_t units = std::is_same_v<typename Precision::gradient_type, double> ? 3 : 1;
  GRADUS_HOST_DEVICE static constexpr double unit(std::size_t u) noexcept
  {
    return u == 0 ? 1 : u == 1 ? 0x1p600 : 0x1p-600;
  }
  GRADUS_HOST_DEVICE static constexpr std::size_t index_of_unit(double x) noexcept
  {
    return x == 1 ? 0 : x > 1 ? 1 : 2;
  }

  // The exact sums. They are 0 between steps.
  static constexpr std::size_t exact_sums(std::size_t sums, std::size_t tensors) noexcept
  {
    return units + 1 + (units + 1) * sums + terms * (sums_over_model ? 1 : tensors);
  }
  /// ‖g‖² of all gradients, in unit u.
  GRADUS_HOST_DEVICE exact_sum& norm(std::size_t u) const noexcept { return exact[u]; }
  /// n·v̄, if there are several sums of second moments.
  GRADUS_HOST_DEVICE exact_sum& mean() const noexcept { return exact[units]; }
  /// ‖g‖² of the tensors of sum k, if there are several sums of second moments.
  GRADUS_HOST_DEVICE exact_sum& norm(std::size_t u, std::size_t k) const noexcept
  {
    return exact[units + 1 + (units + 1) * k + u];
  }
  /// Term j of a step size with sums, of tensor k or of all.
  GRADUS_HOST_DEVICE exact_sum& term(std::size_t k, std::size_t j) const noexcept
  {
    return norm(terms * (sums_over_model ? 0 : k) + j, std::size_t(sum_count));
  }
  /// The second moments of the tensors of sum k.
  GRADUS_HOST_DEVICE exact_sum& moments(std::size_t k) const noexcept { return norm(units, k); }

  struct page {
    const Tensor& tensor;
    std::size_t begin, end;  // elements
  };
  GRADUS_HOST_DEVICE page page_at(std::int64_t k) const noexcept
  {
    const Tensor& x = tensors[tensor_of_page[k]];
    const std::size_t begin = (std::size_t(k) - x.first_page) * page_size;
    return {x, begin, x.size - begin < page_size ? x.size : begin + page_size};
  }
};

/// Whether a sum over all ranks has the pages of a tensor.
template <class Tensor>
GRADUS_HOST_DEVICE bool is_counted([[maybe_unused]] const Tensor& x) noexcept
{
  if constexpr (requires { x.is_counted; })
    return x.is_counted;
  else
    return true;
}
/// The same for a page whose sum is known: one that is not finite counts in any case.
template <class Tensor>
GRADUS_HOST_DEVICE bool counts(const Tensor& x, double page_sum) noexcept
{
  return is_counted(x) || !is_finite(page_sum);
}

// ── the terms of a sum: functions of tensor x and element i ──────────────────────────────────────────────────────────

/// The gradient.
template <class T>
struct gradient_element {
  template <class Tensor>
  GRADUS_HOST_DEVICE T operator()(const Tensor& x, std::size_t i) const noexcept
  {
    return load<T>(on_device(x.gradients) + i);
  }
};
/// An element of slot k.
struct slot_element {
  std::size_t k;
  template <class Tensor>
  GRADUS_HOST_DEVICE auto operator()(const Tensor& x, std::size_t i) const noexcept
  {
    return on_device(x.slots[k])[i];
  }
};
/// The next second moment, which is computed but not stored.
template <class Formula>
struct next_moment_element {
  const Formula& prepared;
  template <class Tensor>
  GRADUS_HOST_DEVICE auto operator()(const Tensor& x, std::size_t i) const noexcept
  {
    using T = typename Formula::value_type;
    T slot[Tensor::slot_count + 1] = {};
    x.read_slots(prepared, i, slot);
    T theta = x.template parameter<T>(i);
    const T g = load<T>(on_device(x.gradients) + i);
    with_kernel<pass::moments>(prepared,
                               [&](const auto& kernel, std::size_t skipped) { kernel(theta, g, slot + skipped); });
    return slot[Formula::value_slot];
  }
};

/// Computes the terms of one element for a step size with sums, from the next moments, which are not stored.
template <class Formula, class Tensor, class T>
GRADUS_HOST_DEVICE void compute_terms(const Formula& prepared, const Tensor& x, std::size_t i,
                                      T (&terms)[Formula::terms]) noexcept
{
  T slot[Tensor::slot_count + Formula::terms + 1] = {};
  x.read_slots(prepared, i, slot);
  T theta = x.template parameter<T>(i);
  const T g = load<T>(on_device(x.gradients) + i);
  with_kernel<pass::terms>(prepared, [&](const auto& kernel, std::size_t skipped) {
    constexpr std::size_t first = std::remove_cvref_t<decltype(kernel)>::slots - Formula::terms;
    kernel(theta, g, slot + skipped);
    for (std::size_t j = 0; j < Formula::terms; ++j)
      terms[j] = slot[skipped + first + j];
  });
}

// ── the sum of a page ────────────────────────────────────────────────────────────────────────────────────────────────

/// Calls add(x) for a lane's elements of a page in order, and for zeros after the end, which change no sum. Elements are
/// computed in batches before they are added, so that a lane has as many loads in flight. After the end, the last
/// element is loaded again: if loads were conditional, the tensor's pointers would be loaded before each.
template <std::size_t Batch, class Page, class Element, class Add>
GRADUS_HOST_DEVICE void for_lane_of_page(const Page& p, std::size_t lane, const Element& element,
                                         const Add& add) noexcept
{
  using T = decltype(element(p.tensor, lane));
  for (std::size_t first = p.begin + lane; first < p.end; first += Batch * page_lanes) {
    T x[Batch];
    unrolled<Batch>([&](auto r) {
      const std::size_t i = first + r * page_lanes;
      x[r] = element(p.tensor, i < p.end ? i : p.end - 1);
    });
    unrolled<Batch>([&](auto r) { add(first + r * page_lanes < p.end ? double(x[r]) : 0); });
  }
}

/// The sum of a page's terms, in all lanes.
template <class Term, std::size_t Batch, class Warp, class Page, class Element>
GRADUS_HOST_DEVICE double sum_of_page(const Warp& warp, const Page& p, const Element& element) noexcept
{
  double partial[Warp::lanes];
  warp.for_lanes([&](std::size_t lane, std::size_t own) {
    double sum = 0;
    for_lane_of_page<Batch>(p, lane, element, [&sum](double x) { sum = Term{}(sum, x); });
    partial[own] = sum;
  });
  return warp.sum(partial);
}

/// Adds a page's terms to the sums of tensor k, or of the model.
template <std::size_t Batch, class Data, class Warp, class Page, class Formula>
GRADUS_HOST_DEVICE void add_terms(const Data& data, const Warp& warp, std::size_t k, const Page& p,
                                  const Formula& prepared) noexcept
{
  using T = typename Formula::value_type;
  double partial[Formula::terms][Warp::lanes];
  warp.for_lanes([&](std::size_t lane, std::size_t own) {
    double sum[Formula::terms] = {};
    for (std::size_t first = p.begin + lane; first < p.end; first += Batch * page_lanes) {
      T x[Batch][Formula::terms];
      unrolled<Batch>([&](auto r) {
        const std::size_t i = first + r * page_lanes;
        compute_terms(prepared, p.tensor, i < p.end ? i : p.end - 1, x[r]);
      });
      unrolled<Batch>([&](auto r) {
        unrolled<Formula::terms>([&](auto j) {
          const double term = first + r * page_lanes < p.end ? double(x[r][j]) : 0;
          if constexpr (Data::step_size::terms[decltype(j)::value] == summed::squares)
            sum[j] = square_term{}(sum[j], term);
          else
            sum[j] = plain_term{}(sum[j], term);
        });
      });
    }
    unrolled<Formula::terms>([&](auto j) { partial[j][own] = sum[j]; });
  });
  if (Data::sums_over_model && !is_counted(p.tensor))
    return;
  for (std::size_t j = 0; j < Formula::terms; ++j)
    warp.add(data.term(k, j), warp.sum(partial[j]));
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
