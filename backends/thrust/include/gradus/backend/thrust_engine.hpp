#pragma once
/// \file
/// How an optimizer steps over a device's memory (backend::thrust_device; included by <gradus/backend/thrust.hpp>).
///
/// All that a step reads lies on the device: a list of the tensors, a record for each cohort of them (group and step count),
/// and a board with the scalars. A step is a fixed row of launches, with no allocation and no wait: it can be captured as a
/// graph, and replayed it goes on with t as it is then, and with the lr_scale that set_options has left.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/backend/scalar.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/state/precision.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The scalars of a step: what it is told, and what it did.
struct device_board {
  double lr_scale = 1, grad_scale = 1, max_grad_norm = detail::no_limit<double>();
  double given_norm_sq = 0, given_mean_square = 0, model_size = 0;
  bool is_given = false, is_measured = false, skips = false, has_given_mean = false;
  std::uint64_t seed = 0;
  double elements = 0;  // without padding
  double eps = 0;  // of the default group's scheduled decay

  bool applied = false, has_norm = false, has_mean = false, clamped = false;
  double norm = 0, scale = 1, mean_square = 0, decay_factor = 0;
  double unit = 1;                          // of the sums of squares that were computed
  bool has_unit = false;                    // other than 1
  std::uint32_t may_overflow = 0, overflows = 0;  // whether the step must be tried on each element, and what that found
  double not_finite = 0;                     // gradients, where they were counted
  double shared_sum = 0, shared_total = 0;  // Σv and n·v̄, where one sum serves all tensors
};

/// What 8-bit codes stand for. A device reads no constants of the host's.
struct device_maps {
  dynamic_map<false> nonnegative;
  dynamic_map<true> any_sign;
};

/// \tparam Nonnegative  bit k is that of slot k
template <class Precision, std::size_t Slots, unsigned Nonnegative>
struct device_tensor {
  static constexpr bool in_codes = std::is_same_v<typename Precision::state_type, block8>;

  typename Precision::parameter_type* parameters;
  const typename Precision::gradient_type* gradients;
  std::conditional_t<in_codes, std::uint8_t, typename Precision::state_type>* slots[Slots + 1];
  float* scales[in_codes ? Slots + 1 : 1];
  const device_maps* maps;
  float* master;
  std::size_t size, first_pack, cohort;
  std::uint64_t name_hash;
  double second_moment_sum;
  bool aligned;  // to whole packs

  static constexpr std::size_t slot_count = Slots;

  /// Calls f with the map of slot k's codes.
  template <class F>
  GRADUS_HOST_DEVICE auto with_map(std::size_t k, const F& f) const noexcept
  {
    return Nonnegative >> k & 1 ? f(maps->nonnegative) : f(maps->any_sign);
  }
  /// Slot k's element i, which is not stored in T.
  GRADUS_HOST_DEVICE float read_slot(std::size_t k, std::size_t i) const noexcept
  {
    if constexpr (in_codes)
      return scales[k][i / block8::block] * with_map(k, [&](const auto& map) { return map.value[slots[k][i]]; });
    else
      return load<float>(slots[k] + i);
  }
};

template <class Rule, class Formula>
struct device_cohort {
  Rule rule = Rule(0, {}, {}, {}, {});
  std::uint64_t t;
  step_scalars scalars;
  Formula prepared;
  bool active;   // has members
  bool clamped;  // a scheduled decay would have taken more than the whole weight
};

// ── sums, by the scheme of reduce.hpp ────────────────────────────────────────────────────────────────────────────────

/// A list to be summed: its blocks' sums go to places from first_block on. \p begin  where it lies among sums, if it does
struct device_list {
  std::size_t first_block, count, begin;
};

/// The last of n whose `first` is at most k.
template <class X>
GRADUS_HOST_DEVICE std::size_t last_from(const X* list, std::size_t n, std::size_t X::*first, std::size_t k) noexcept
{
  std::size_t low = 0, high = n;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (list[middle].*first <= k ? low : high) = middle;
  }
  return low;
}

/// Sets a flag, which many may do at once.
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

/// What is summed: a gradient or a slot of each tensor, or sums.
template <class Tensor>
struct scaled_gradient_of_tensor {
  const Tensor* tensors;
  const device_board* board;
  GRADUS_HOST_DEVICE double operator()(const device_list&, std::size_t list, std::size_t i) const noexcept
  {
    return double(tensors[list].gradients[i]) * (1 / board->unit);
  }
};
template <class Tensor>
struct gradient_of_tensor {
  const Tensor* tensors;
  GRADUS_HOST_DEVICE double operator()(const device_list&, std::size_t list, std::size_t i) const noexcept
  {
    using T = std::remove_cvref_t<decltype(*tensors->gradients)>;
    if constexpr (real<T>)
      return double(tensors[list].gradients[i]);
    else
      return double(float(tensors[list].gradients[i]));
  }
};
/// The second moment to come, computed and not kept: where what is kept is rounded, that is not what weights are divided by.
template <class Tensor, class Cohort>
struct next_moment_of_tensor {
  const Tensor* tensors;
  const Cohort* cohorts;
  GRADUS_HOST_DEVICE double operator()(const device_list&, std::size_t list, std::size_t i) const noexcept
  {
    const Tensor& x = tensors[list];
    return next(cohorts[x.cohort].prepared, x, i);
  }

 private:
  template <class F, class S, class P, class D>
  GRADUS_HOST_DEVICE static double next(const prepared<F, S, P, D, float>& f, const Tensor& x, std::size_t i) noexcept
  {
    float slot[Tensor::slot_count + 1] = {};
    for (std::size_t k = f.idle_first_moment ? F::slots.size() : 0; k < Tensor::slot_count; ++k)
      slot[k] = x.read_slot(k, i);
    float theta = x.master ? x.master[i] : load<float>(x.parameters + i);
    const float g = load<float>(x.gradients + i);
    if constexpr (requires { typename F::idle_form; }) {
      if (f.idle_first_moment) {
        using idle = prepared<typename F::idle_form, S, P, D, float>;
        kernel<pass::moments, idle>{{{}, f.second_moment, f.step_size, f.decay, f.grad_scale, false}}(theta, g, slot + F::slots.size());
        return double(slot[prepared<F, S, P, D, float>::value_slot]);
      }
    }
    kernel<pass::moments, prepared<F, S, P, D, float>>{f}(theta, g, slot);
    return double(slot[prepared<F, S, P, D, float>::value_slot]);
  }
};
template <class Tensor>
struct slot_of_tensor {
  const Tensor* tensors;
  std::size_t k;
  GRADUS_HOST_DEVICE double operator()(const device_list&, std::size_t list, std::size_t i) const noexcept
  {
    using T = std::remove_cvref_t<decltype(*tensors->slots[0])>;
    if constexpr (real<T>)
      return double(tensors[list].slots[k][i]);
    else
      return double(float(tensors[list].slots[k][i]));
  }
};
template <class S>
struct plain_number {
  const S* values;
  GRADUS_HOST_DEVICE double operator()(const device_list&, std::size_t, std::size_t i) const noexcept { return double(values[i]); }
};
struct sum_of_sums {
  const double* sums;
  GRADUS_HOST_DEVICE double operator()(const device_list& l, std::size_t, std::size_t i) const noexcept
  {
    return sums[l.begin + i];
  }
};

/// Counts what is not finite.
struct not_finite_term {
  GRADUS_HOST_DEVICE double operator()(double sum, double x) const noexcept { return sum + (is_finite(x) ? 0.0 : 1.0); }
};

/// One partial sum of one block: neighbours read neighbours.
template <class Term, class Read>
struct sum_lane {
  const device_list* lists;
  std::size_t n;
  Read read;
  double* partial;
  const bool* only_if;  // null: always
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (only_if && !*only_if)
      return;
    const std::size_t block = std::size_t(k) / page_lanes, lane = std::size_t(k) % page_lanes;
    const std::size_t list = last_from(lists, n, &device_list::first_block, block);
    const device_list l = lists[list];
    const std::size_t begin = (block - l.first_block) * page_size;
    const std::size_t end = l.count - begin < page_size ? l.count : begin + page_size;
    double sum = 0;
    for (std::size_t i = begin + lane; i < end; i += page_lanes)
      sum = Term{}(sum, read(l, list, i));
    partial[k] = sum;
  }
};
struct fold_block {
  const double* partial;
  double* sums;
  const bool* only_if;
  GRADUS_HOST_DEVICE void operator()(std::int64_t block) const noexcept
  {
    if (only_if && !*only_if)
      return;
    double p[page_lanes];
    for (std::size_t k = 0; k < page_lanes; ++k)
      p[k] = partial[std::size_t(block) * page_lanes + k];
    sums[block] = fold(p);
  }
};

// ── the parts of a step ──────────────────────────────────────────────────────────────────────────────────────────────

/// In which unit the squares must be summed, given their plain sum.
struct choose_unit {
  device_board* board;
  const double* total;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->unit = unit_for(*total);
    board->has_unit = board->unit != 1;
  }
};

/// Of one cohort: whether the step is taken, and its coefficients. \p n  cohorts, or none  \p total  ‖g‖²
template <class Cohort, class T>
struct prepare_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  const double* total;
  bool is_tried;  // on the elements, before it is taken
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    const double grad_scale = board->grad_scale, limit = board->max_grad_norm;
    // A graph captured without a norm has none, whatever it is told later.
    const bool known = board->is_given || (board->is_measured && (total || board->elements == 0)), clips = known && is_finite(limit);
    square_sum norm_sq;
    if (board->is_given)
      norm_sq.sum = board->given_norm_sq;
    else if (board->is_measured && total)
      norm_sq = {*total, board->unit};
    // A sum that was computed is finite where the gradients are; where a given infinity may be an overflow, they were counted.
    bool bad = board->skips && !is_finite(norm_sq.sum) &&
               (!board->is_given || is_nan(norm_sq.sum) || clips || board->not_finite > 0);
    const double scale = clips ? clipped_scale(norm_sq, grad_scale, limit) : grad_scale;
    bad = bad || (clips && underflows<T>(norm_sq, scale, grad_scale));
    const double size = root_of(norm_sq, scale);
    if (!bad && k < n && cohorts[k].active) {
      Cohort& c = cohorts[k];
      c.scalars = make_step_scalars(c.rule, c.t + 1, board->lr_scale, 0);
      c.prepared = prepare<T>(c.rule, c.scalars, scale);
      if (!is_tried)
        c.t += 1;
      else if (board->skips && may_overflow<T>(size, c.scalars.lr))
        set_flag(board->may_overflow);
    }
    if (k == 0) {
      board->applied = !bad;
      board->has_norm = known;
      board->norm = root_of(norm_sq, grad_scale);
      board->scale = scale;
      board->has_mean = board->clamped = false;
    }
  }
};

/// Where steps may be skipped: tries the step on the elements that it could make infinite or NaN, and keeps nothing of it.
template <class Precision, class Tensor, class Cohort>
struct try_elements {
  device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;
  std::size_t packs, unit, lanes;

  using T = typename Precision::compute_type;

  GRADUS_HOST_DEVICE void operator()(std::int64_t lane) const noexcept
  {
    if (!board->applied || !is_set(board->may_overflow))
      return;
    for (std::size_t k = std::size_t(lane); k < packs && !is_set(board->overflows); k += lanes) {
      const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_pack, k)];
      const Cohort& c = cohorts[x.cohort];
      const std::size_t begin = (k - x.first_pack) * unit, end = x.size - begin < unit ? x.size : begin + unit;
      for (std::size_t i = begin; i < end; ++i) {
        const T theta = x.master ? T(x.master[i]) : load<T>(x.parameters + i);
        if (overflows(c, x, i, theta))
          set_flag(board->overflows);
      }
    }
  }

 private:
  GRADUS_HOST_DEVICE static bool overflows(const Cohort& c, const Tensor& x, std::size_t i, T theta) noexcept
  {
    T slot[Tensor::slot_count + 1] = {};
    for (std::size_t k = c.prepared.idle_first_moment ? decltype(c.prepared)::first_slots : 0; k < Tensor::slot_count; ++k)
      if constexpr (real<typename Precision::state_type>)
        slot[k] = x.slots[k][i];
      else
        slot[k] = x.read_slot(k, i);
    return element_overflows(c.prepared, theta, load<T>(x.gradients + i), slot);
  }
};

/// And then takes it or not.
template <class Cohort>
struct commit_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (k < n && cohorts[k].active && board->applied && !is_set(board->overflows))
      cohorts[k].t += 1;
  }
};
struct close_verdict {
  device_board* board;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->applied = board->applied && board->overflows == 0;
    board->may_overflow = board->overflows = 0;
  }
};

/// One tensor's part of n·v̄: by the recursion that Σv obeys, or from the sum of v itself.
template <bool OnePass, class Tensor, class Cohort, class T>
struct mean_part {
  const device_board* board;
  Tensor* tensors;
  const Cohort* cohorts;
  const double* sums;
  double* parts;
  GRADUS_HOST_DEVICE void operator()(std::int64_t i) const noexcept
  {
    if (!board->applied)
      return;
    Tensor& x = tensors[i];
    const Cohort& c = cohorts[x.cohort];
    double sum = sums[i];
    if constexpr (OnePass)
      sum = x.second_moment_sum = next_sum<T>(c.rule.second_moment, x.second_moment_sum, {sum, board->unit}, board->scale);
    parts[i] = sum / c.scalars.bc2;
  }
};

/// n·v̄ from the one Σv of a model whose norm is given.
template <class Cohort, class T>
struct advance_shared {
  device_board* board;
  const Cohort* common;
  const double* total;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    if (!board->applied)
      return;
    const square_sum norm_sq = board->is_given ? square_sum{board->given_norm_sq, 1} : square_sum{*total, board->unit};
    board->shared_sum = next_sum<T>(common->rule.second_moment, board->shared_sum, norm_sq, board->scale);
    board->shared_total = board->shared_sum / common->scalars.bc2;
  }
};

template <class Cohort, class T>
struct schedule_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  const double* total;
  bool was_given;  // v̄, when the step was ordered
  bool of_model;   // the sum is a whole model's
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const double mean = was_given || board->has_given_mean  ? board->given_mean_square
                        : total && board->elements > 0      ? *total / (of_model ? board->model_size : board->elements)
                                                            : 0;
    if (k < n) {
      Cohort& c = cohorts[k];
      c.scalars.mean_square = mean;
      c.prepared.decay = c.rule.decay.template prepare<T>(c.scalars);
      c.clamped = c.active && c.rule.decay.rate(c.scalars) > 1;
    }
    if (k == 0) {
      const double v = mean + board->eps;
      board->has_mean = true;
      board->mean_square = mean;
      board->decay_factor = v == 0 ? 0 : 1 / std::sqrt(v);
    }
  }
};

/// Apart from schedule_cohort, where cohorts would race for the one flag.
template <class Cohort>
struct gather_clamped {
  device_board* board;
  const Cohort* cohorts;
  std::int64_t n;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    for (std::int64_t k = 0; board->applied && k < n; ++k)
      board->clamped = board->clamped || cohorts[k].clamped;
  }
};

struct store_not_finite {
  device_board* board;
  const double* count;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept { board->not_finite = *count; }
};
struct store_options {
  device_board* board;
  device_board told;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->lr_scale = told.lr_scale;
    board->grad_scale = told.grad_scale;
    board->max_grad_norm = told.max_grad_norm;
    board->given_norm_sq = told.given_norm_sq;
    board->is_given = told.is_given;
    board->is_measured = told.is_measured;
    board->skips = told.skips;
    board->has_given_mean = told.has_given_mean;
    if (told.has_given_mean)  // a graph that was captured with a mean keeps the last
      board->given_mean_square = told.given_mean_square;
    if (told.model_size > 0)
      board->model_size = told.model_size;
    board->unit = 1;        // unless the sum of squares asks for another
    board->not_finite = 1;  // unless they are counted
  }
};
struct store_list_facts {
  device_board* board;
  device_board known;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->seed = known.seed;
    board->elements = known.elements;
    board->eps = known.eps;
    board->shared_sum = known.shared_sum;
  }
};
template <class S>
struct decode_one {
  const S* from;
  float* to;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { to[k] = float(from[k]); }
};

template <class F>
concept can_idle = requires { typename F::idle_form; };

/// The parameters and gradients of a tensor from an element on, as a kernel takes them: no more than a block of them, whose
/// random bits are of one range.
template <class Precision, class Tensor>
GRADUS_HOST_DEVICE auto parameters_of(const Tensor& x, [[maybe_unused]] std::uint64_t key, std::size_t begin) noexcept
{
  using parameter = typename Precision::parameter_type;
  if constexpr (Precision::has_master)
    return mirrored<parameter>{x.master + begin, x.parameters + begin};
  else if constexpr (short_float<parameter>)
    return stochastic<parameter>{x.parameters + begin, {key, Tensor::slot_count, begin}};
  else
    return x.parameters + begin;
}
template <class Precision, class Tensor>
GRADUS_HOST_DEVICE auto gradients_of(const Tensor& x, std::size_t begin) noexcept
{
  using gradient = typename Precision::gradient_type;
  if constexpr (short_float<gradient>)
    return readable<gradient>{x.gradients + begin};
  else
    return x.gradients + begin;
}

/// The elements of one pack: all that a step does to them, from the very formulas of the other backends. Where a tensor is
/// aligned it is one pack, else (and at a tensor's end) one number after another, with the same bits.
template <pass Pass, class Precision, class Tensor, class Cohort>
struct update_pack {
  const device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;

  using T = typename Precision::compute_type;
  using pack = backend::device_pack<T>;
  using formula = decltype(Cohort::prepared);

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_pack, std::size_t(k))];
    const Cohort& c = cohorts[x.cohort];
    const std::size_t begin = (std::size_t(k) - x.first_pack) * pack::size;
    std::uint64_t key = 0;
    if constexpr (Precision::stochastic)
      key = noise_key(x.name_hash, board->seed, c.t - 1);
    const formula prepared = c.prepared;
    if (x.aligned && begin + pack::size <= x.size)
      apply<pack>(prepared, x, key, begin, 1);
    else
      apply<T>(prepared, x, key, begin, x.size - begin < pack::size ? x.size - begin : pack::size);
  }

 private:
  template <class V>
  GRADUS_HOST_DEVICE static void apply(const formula& f, const Tensor& x, std::uint64_t key, std::size_t begin, std::size_t n) noexcept
  {
    using momentum = typename formula::first_moment_type;
    if constexpr (can_idle<momentum>) {
      if (f.idle_first_moment) {
        apply_idle<V, typename momentum::idle_form>(f, x, key, begin, n);
        return;
      }
    }
    run<V>(kernel<Pass, formula>{f}, x, key, 0, begin, n);
  }

  template <class V, class Idle, class F, class S, class P, class D>
  GRADUS_HOST_DEVICE static void apply_idle(const gradus::prepared<F, S, P, D, T>& f, const Tensor& x, std::uint64_t key,
                                            std::size_t begin, std::size_t n) noexcept
  {
    using idle = gradus::prepared<Idle, S, P, D, T>;
    run<V>(kernel<Pass, idle>{{{}, f.second_moment, f.step_size, f.decay, f.grad_scale, false}}, x, key, F::slots.size(), begin, n);
  }

  /// \param skipped  slots that the kernel knows nothing of
  template <class V, class Kernel>
  GRADUS_HOST_DEVICE static void run(const Kernel& kernel, const Tensor& x, std::uint64_t key, std::size_t skipped,
                                     std::size_t begin, std::size_t n) noexcept
  {
    const auto theta = parameters_of<Precision>(x, key, begin);
    const auto g = gradients_of<Precision>(x, begin);
    using slot = decltype(slot_at(x, key, 0, begin));
    slot slots[Kernel::slots + 1] = {};
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slots[k] = slot_at(x, key, skipped + k, begin);
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // of one pack nothing is left of the loop; of numbers it is seldom run, and should cost no registers
#endif
    for (std::size_t i = 0; i < n; ++i)
      apply_at<V>(kernel, theta, g, slots, i);
  }

  GRADUS_HOST_DEVICE static auto slot_at(const Tensor& x, std::uint64_t key, std::size_t k, std::size_t begin) noexcept
  {
    using S = typename Precision::state_type;
    if constexpr (real<S>)
      return x.slots[k] + begin;
    else
      return stochastic<S>{x.slots[k] + begin, {key, k, begin}};
  }
};

/// As update_pack, a block of 8-bit codes. The scale is known only when all of the block's new moments are: so they are
/// computed twice, once for the largest and once to be kept, which needs no memory to keep them in meanwhile.
template <class Precision, class Tensor, class Cohort>
struct update_codes {
  const device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;

  using formula = decltype(Cohort::prepared);

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_pack, std::size_t(k))];
    const Cohort& c = cohorts[x.cohort];
    apply(c.prepared, x, noise_key(x.name_hash, board->seed, c.t - 1), (std::size_t(k) - x.first_pack) * block8::block);
  }

 private:
  template <class F, class S, class P, class D>
  GRADUS_HOST_DEVICE static void apply(const gradus::prepared<F, S, P, D, float>& f, const Tensor& x, std::uint64_t key, std::size_t begin) noexcept
  {
    if constexpr (can_idle<F>) {
      if (f.idle_first_moment) {
        using idle = gradus::prepared<typename F::idle_form, S, P, D, float>;
        run(kernel<pass::whole, idle>{{{}, f.second_moment, f.step_size, f.decay, f.grad_scale, false}}, x, key, F::slots.size(), begin);
        return;
      }
    }
    run(kernel<pass::whole, gradus::prepared<F, S, P, D, float>>{f}, x, key, 0, begin);
  }

  /// \param skipped  slots that the kernel knows nothing of
  template <class Kernel>
  GRADUS_HOST_DEVICE static void run(const Kernel& kernel, const Tensor& x, std::uint64_t key, std::size_t skipped, std::size_t begin) noexcept
  {
    const std::size_t end = x.size - begin < block8::block ? x.size : begin + block8::block, block = begin / block8::block;
    const auto theta = parameters_of<Precision>(x, key, begin);
    const auto g = gradients_of<Precision>(x, begin);
    float slot[Kernel::slots + 1];
    const auto compute = [&](std::size_t i) {
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        slot[k] = x.read_slot(skipped + k, i);
      float w = load<float>(theta, i - begin);
      kernel(w, load<float>(g, i - begin), slot);
      return w;
    };
    std::uint32_t largest[Kernel::slots + 1] = {};  // as bits, among which a NaN's are the largest of all
    for (std::size_t i = begin; i < end; ++i) {
      compute(i);
      for (std::size_t k = 0; k < Kernel::slots; ++k) {
        const std::uint32_t a = std::bit_cast<std::uint32_t>(slot[k]) & 0x7fffffffu;
        largest[k] = a > largest[k] ? a : largest[k];
      }
    }
    for (std::size_t i = begin; i < end; ++i) {
      store(theta, i - begin, compute(i));
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        x.slots[skipped + k][i] = x.with_map(skipped + k, [&](const auto& map) {
          return encode_one(map, slot[k], largest[k], noise(key, skipped + k, begin)(i - begin));
        });
    }
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      x.scales[skipped + k][block] = scale_of_block(largest[k]);
  }
};

// ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────

template <class Optimizer, class Backend>
class device_engine {
  using device = typename Backend::device_type;
  using memory = typename device::memory_type;
  template <class X>
  using array = array_memory<X, memory>;
  using precision = typename Optimizer::precision_type;
  using gradient = typename precision::gradient_type;
  using value_type = typename Optimizer::value_type;
  using rule_type = typename Optimizer::rule_type;
  using formula = typename Optimizer::formula;
  static constexpr unsigned nonnegative = [] {
    unsigned bits = 0;
    for (std::size_t k = 0; k < Optimizer::slots; ++k)
      bits |= unsigned(Optimizer::slot_list[k].is_nonnegative) << k;
    return bits;
  }();
  using tensor = device_tensor<precision, Optimizer::slots, nonnegative>;
  using cohort = device_cohort<rule_type, formula>;
  using pack = backend::device_pack<value_type>;
  static constexpr bool in_codes = tensor::in_codes;
  static constexpr std::size_t unit = in_codes ? block8::block : pack::size;  // elements of one launched piece of work
  static_assert(std::is_trivially_copyable_v<rule_type> && std::is_trivially_copyable_v<formula>);

  static constexpr std::size_t most_levels = 6;  // of 4096 times as many each

 public:
  explicit device_engine(const device& d) : device_(d), board_(1, device_board{}, d.memory()), maps_(in_codes, device_maps{}, d.memory()) {}

  // ── what the optimizer asks for outside of steps ─────────────────────────────────────────────────────────────────

  template <class S>
  static void decode(const device& d, const S* from, float* to, std::size_t n)
  {
    d.launch(n, decode_one<S>{from, to});
  }

  /// Calls f on a copy of device memory; what f leaves there goes back, unless it is only to be read.
  template <class X, class F>
  static void show_copy(const device& d, std::span<X> values, const F& f, bool only_read)
  {
    std::vector<X> copy(values.size());
    d.copy(copy.data(), values.data(), values.size_bytes());
    f(std::span<X>(copy));
    if (!only_read)
      d.copy(values.data(), copy.data(), values.size_bytes());
  }

  /// The sum of one slot of one tensor, by the memory that steps have: the optimizer's list is then to be uploaded anew.
  template <class S>
  double sum(const S* values, std::size_t n)
  {
    if (n == 0)
      return 0;
    uploaded_ = false;
    host_lists_.clear();
    host_lists_.push_back({0, n, 0});
    const std::size_t blocks = n / page_size + (n % page_size != 0);
    std::size_t free = blocks;
    const chain rest = chain_of(0, blocks, free);
    device_.copy(lists_.get(), host_lists_.data(), host_lists_.size() * sizeof(device_list));
    sum_blocks<plain_term>(0, 1, blocks, 0, plain_number<S>{values});
    double total;
    device_.copy(&total, sum_list(rest), sizeof total);
    return total;
  }

  /// \param gradients  may be null
  static void check_place(const device& d, const void* parameters, const void* gradients, std::string_view name)
  {
    d.check_reachable(parameters, "parameters", name);
    if (gradients)
      d.check_reachable(gradients, "gradients", name);
  }

  /// Memory for the steps of so many tensors, with so many blocks together.
  void reserve(std::size_t tensors, std::size_t blocks)
  {
    if (tensors <= tensor_room_ && blocks <= block_room_)
      return;
    const std::size_t n = tensors > tensor_room_ ? 2 * tensors : tensor_room_;
    const std::size_t b = blocks > block_room_ ? blocks + blocks / 2 : block_room_;
    // Level after level is 4096 times as short, but has at least one sum for each tensor; then the tensors' own.
    const std::size_t sums = b + most_levels * (b / page_size + 3 * n + 2);
    array<tensor> next_tensors(n, tensor{}, device_.memory());
    array<cohort> next_cohorts(n, cohort{}, device_.memory());
    array<device_list> next_lists(most_levels * (n + 2), device_list{}, device_.memory());
    array<double> next_partials((b > n ? b : n) * page_lanes, 0.0, device_.memory());
    array<double> next_sums(sums, 0.0, device_.memory());
    host_tensors_.reserve(n);
    host_cohorts_.reserve(n);
    host_counts_.reserve(n);
    host_lists_.reserve(most_levels * (n + 2));
    tensors_ = std::move(next_tensors);
    cohorts_ = std::move(next_cohorts);
    lists_ = std::move(next_lists);
    partials_ = std::move(next_partials);
    sums_ = std::move(next_sums);
    tensor_room_ = n;
    block_room_ = b;
    uploaded_ = false;
  }

  /// Takes back what steps have changed, where the device knows more than the host.
  void settle(Optimizer& opt)
  {
    if (!uploaded_ || !opt.flat_is_current_ || !stepped_)
      return;
    device_.copy(host_tensors_.data(), tensors_.get(), host_tensors_.size() * sizeof(tensor));
    device_.copy(host_cohorts_.data(), cohorts_.get(), host_cohorts_.size() * sizeof(cohort));
    for (std::size_t i = 0; i < host_tensors_.size(); ++i)
      opt.tensors_[opt.flat_[i].index].second_moment_sum = host_tensors_[i].second_moment_sum;
    std::uint64_t steps = opt.steps_;
    for (std::size_t c = 0; c < host_cohorts_.size(); ++c) {
      if (host_cohorts_[c].active)
        steps = opt.steps_ + (host_cohorts_[c].t - opt.cohorts_[c].t);
      opt.cohorts_[c].t = host_cohorts_[c].t;
    }
    opt.steps_ = steps;
    if (opt.sum_is_shared_) {
      device_board b;
      device_.copy(&b, board_.get(), sizeof b);
      opt.shared_sum_ = b.shared_sum;
    }
    for (auto& x : opt.tensors_)
      if (x.active)
        x.t = opt.cohorts_[x.cohort].t;
  }

  template <class Options>
  void set_options(const Options& o)
  {
    if (o.flush_denormals)
      detail::fail("flush_denormals is 1; expected 0, as on a device it is the compiler that decides (nvcc -ftz=true)");
    device_board told;
    told.lr_scale = o.lr_scale;
    told.grad_scale = o.grad_scale;
    if (o.max_grad_norm)
      told.max_grad_norm = *o.max_grad_norm;
    told.is_given = o.grad_norm_sq.has_value();
    told.given_norm_sq = o.grad_norm_sq.value_or(0.0);
    told.is_measured = !told.is_given && Optimizer::measures(o);
    told.skips = o.skip_nonfinite;
    told.has_given_mean = o.mean_square.has_value();
    told.given_mean_square = o.mean_square.value_or(0.0);
    told.model_size = double(o.model_size.value_or(0));
    if (knows_options_ && told.lr_scale == told_.lr_scale && told.grad_scale == told_.grad_scale &&
        told.max_grad_norm == told_.max_grad_norm && told.is_given == told_.is_given &&
        told.given_norm_sq == told_.given_norm_sq && told.is_measured == told_.is_measured && told.skips == told_.skips &&
        told.has_given_mean == told_.has_given_mean && told.given_mean_square == told_.given_mean_square &&
        told.model_size == told_.model_size)
      return;
    device_.launch(1, store_options{board_.get(), told});
    told_ = told;
    knows_options_ = true;
  }

  // ── the step ─────────────────────────────────────────────────────────────────────────────────────────────────────

  template <class Options>
  void step(Optimizer& opt, const Options& o)
  {
    set_options(o);
    [[maybe_unused]] bool advances = false;
    if constexpr (Optimizer::one_pass) {
      // To change what the sums are of is to wait for the device anyway; and a step that is skipped changes nothing.
      if (o.skip_nonfinite && opt.rearranges_sums(o) && !will_apply(opt, o))
        return;
      advances = opt.arrange_sums(o);
    }
    if (!uploaded_ || !opt.flat_is_current_)
      upload(opt);
    const std::size_t n = host_tensors_.size();
    const std::int64_t cohorts = std::int64_t(host_cohorts_.size());
    const std::size_t each_cohort = cohorts > 0 ? std::size_t(cohorts) : 1;  // the board has to be written even for none
    const double* const total = judge(o);
    bool in_two_passes = false;
    if constexpr (rule_type::scheduled) {
      const double* mean = nullptr;
      if constexpr (Optimizer::one_pass) {
        if (n > 0 && advances && opt.sum_is_shared_) {
          device_.launch(1, advance_shared<cohort, value_type>{board_.get(), cohorts_.get() + (opt.common_cohort() - opt.cohorts_.data()), total});
          mean = &board_.get()->shared_total;
        }
        else if (n > 0 && advances)
          mean = sum_parts();
      } else if (!o.mean_square) {
        in_two_passes = Optimizer::keeps_exactly;
        if constexpr (Optimizer::keeps_exactly)
          update<pass::moments>();
        if (n > 0) {
          if constexpr (Optimizer::keeps_exactly)
            sum_tensors<plain_term>(slot_of_tensor<tensor>{tensors_.get(), formula::value_slot});
          else
            sum_tensors<plain_term>(next_moment_of_tensor<tensor, cohort>{tensors_.get(), cohorts_.get()});
          mean = sum_parts();
        }
      }
      device_.launch(each_cohort, schedule_cohort<cohort, value_type>{board_.get(), cohorts_.get(), cohorts, mean, o.mean_square.has_value(),
                                                                      opt.sum_is_shared_ == Optimizer::of_model});
      device_.launch(1, gather_clamped<cohort>{board_.get(), cohorts_.get(), cohorts});
    }
    if constexpr (rule_type::scheduled && !Optimizer::one_pass && Optimizer::keeps_exactly) {
      if (in_two_passes)
        update<pass::weights>();
      else
        update<pass::whole>();
    } else
      update<pass::whole>();
    stepped_ = true;
  }

  auto report(const Optimizer&) const
  {
    std::remove_cvref_t<decltype(std::declval<Optimizer&>().step({}))> r;
    device_board b;
    device_.copy(&b, board_.get(), sizeof b);
    r.applied = b.applied;
    if (b.has_norm)
      r.grad_norm = b.norm;
    if (b.has_mean) {
      r.mean_square = b.mean_square;
      r.decay_factor = b.decay_factor;
    }
    r.decay_clamped = b.clamped;
    return r;
  }

 private:
  /// A list of sums that is summed to one: its levels among lists_ and sums_.
  struct chain {
    std::size_t begin = 0, count = 0;
    std::size_t levels = 0;
    std::size_t lists[most_levels], blocks[most_levels], sums[most_levels];
  };

  /// Measures and judges the step, and prepares its coefficients. \return where ‖g‖² lies, if it is computed
  template <class Options>
  const double* judge(const Options& o) const
  {
    const double* const total = try_step(o);
    if (o.skip_nonfinite) {
      const std::int64_t cohorts = std::int64_t(host_cohorts_.size());
      device_.launch(host_cohorts_.size(), commit_cohort<cohort>{board_.get(), cohorts_.get(), cohorts});
      device_.launch(1, close_verdict{board_.get()});
    }
    return total;
  }

  template <class Options>
  const double* try_step(const Options& o) const
  {
    const std::size_t n = host_tensors_.size();
    const double* total = nullptr;
    if (o.skip_nonfinite && n > 0 && o.grad_norm_sq) {
      sum_tensors<not_finite_term>(gradient_of_tensor<tensor>{tensors_.get()});
      device_.launch(1, store_not_finite{board_.get(), sum_list(of_tensors_)});
    }
    if (told_.is_measured && n > 0) {
      sum_tensors<square_term>(gradient_of_tensor<tensor>{tensors_.get()});
      total = sum_list(of_tensors_);
      if constexpr (std::is_same_v<gradient, double>) {
        device_.launch(1, choose_unit{board_.get(), total});
        const bool* const only_if = &board_.get()->has_unit;
        sum_tensors<square_term>(scaled_gradient_of_tensor<tensor>{tensors_.get(), board_.get()}, only_if);
        sum_list(of_tensors_, only_if);
      }
    }
    const std::int64_t cohorts = std::int64_t(host_cohorts_.size());
    const std::size_t each_cohort = cohorts > 0 ? std::size_t(cohorts) : 1;  // the board has to be written even for none
    device_.launch(each_cohort, prepare_cohort<cohort, value_type>{board_.get(), cohorts_.get(), cohorts, total, o.skip_nonfinite});
    if (o.skip_nonfinite && packs_ > 0) {
      const std::size_t lanes = packs_ < most_tries ? packs_ : most_tries;
      device_.launch(lanes, try_elements<precision, tensor, cohort>{board_.get(), tensors_.get(), n, cohorts_.get(), packs_, unit, lanes});
    }
    return total;
  }
  static constexpr std::size_t most_tries = std::size_t(1) << 17;  // threads that as a rule return at once

  /// Whether skip_nonfinite will let the step be applied. Waits for the device.
  template <class Options>
  bool will_apply(Optimizer& opt, const Options& o)
  {
    if (!uploaded_ || !opt.flat_is_current_)
      upload(opt);
    try_step(o);
    device_.launch(1, close_verdict{board_.get()});
    device_board b;
    device_.copy(&b, board_.get(), sizeof b);
    return b.applied;
  }

  const double* sum_parts() const
  {
    device_.launch(host_tensors_.size(), mean_part<Optimizer::one_pass, tensor, cohort, value_type>{
                                             board_.get(), tensors_.get(), cohorts_.get(), sums_.get() + of_tensors_.begin,
                                             sums_.get() + of_parts_.begin});
    return sum_list(of_parts_);
  }

  template <pass Pass>
  void update() const
  {
    if constexpr (in_codes)
      device_.launch(packs_, update_codes<precision, tensor, cohort>{board_.get(), tensors_.get(), host_tensors_.size(), cohorts_.get()});
    else
      device_.launch(packs_, update_pack<Pass, precision, tensor, cohort>{board_.get(), tensors_.get(), host_tensors_.size(),
                                                                          cohorts_.get()});
  }

  template <class Term, class Read>
  void sum_blocks(std::size_t lists, std::size_t n, std::size_t blocks, std::size_t to, const Read& read, const bool* only_if = nullptr) const
  {
    device_.launch(blocks * page_lanes, sum_lane<Term, Read>{lists_.get() + lists, n, read, partials_.get(), only_if});
    device_.launch(blocks, fold_block{partials_.get(), sums_.get() + to, only_if});
  }
  /// Sums of each tensor's elements, which are then `of_tensors_`. \param only_if  a flag on the device
  template <class Term, class Read>
  void sum_tensors(const Read& read, const bool* only_if = nullptr) const
  {
    const chain& c = elements_;
    sum_blocks<Term>(c.lists[0], host_tensors_.size(), c.blocks[0], c.sums[0], read, only_if);
    for (std::size_t l = 1; l < c.levels; ++l)
      sum_blocks<plain_term>(c.lists[l], host_tensors_.size(), c.blocks[l], c.sums[l], sum_of_sums{sums_.get()}, only_if);
  }
  const double* sum_list(const chain& c, const bool* only_if = nullptr) const
  {
    for (std::size_t l = 0; l < c.levels; ++l)
      sum_blocks<plain_term>(c.lists[l], 1, c.blocks[l], c.sums[l], sum_of_sums{sums_.get()}, only_if);
    return sums_.get() + (c.levels == 0 ? c.begin : c.sums[c.levels - 1]);
  }

  void upload(Optimizer& opt)
  {
    uploaded_ = false;
    opt.flatten();
    host_tensors_.clear();
    host_cohorts_.clear();
    packs_ = 0;
    for (const auto& flat : opt.flat_) {
      const auto& x = opt.tensors_[flat.index];
      tensor d{};
      d.parameters = flat.parameters;
      d.gradients = flat.gradients;
      d.size = flat.size;
      d.first_pack = packs_;
      d.cohort = flat.cohort;
      d.name_hash = x.name_hash;
      d.second_moment_sum = x.second_moment_sum;
      d.aligned = whole(d.parameters) && whole(d.gradients);
      if constexpr (precision::has_master) {
        d.master = x.master.get();
        d.aligned = d.aligned && whole(d.master);
      }
      d.maps = maps_.get();
      for (std::size_t k = 0; k < Optimizer::slots; ++k)
        if constexpr (in_codes) {
          d.slots[k] = flat.state[k].codes;
          d.scales[k] = flat.state[k].scales;
        }
        else {
          d.slots[k] = flat.state[k].values;
          d.aligned = d.aligned && whole(d.slots[k]);
        }
      packs_ += flat.size / unit + (flat.size % unit != 0);
      host_tensors_.push_back(d);
    }
    for (const auto& c : opt.cohorts_)
      host_cohorts_.push_back({opt.groups_[c.group].rule, c.t, {}, {}, c.members > 0, false});
    plan();
    device_board b;
    b.seed = opt.seed_;
    b.elements = double(opt.counted_elements_);
    if constexpr (rule_type::scheduled)
      b.eps = opt.groups_[0].rule.decay.eps;
    b.shared_sum = opt.shared_sum_;
    device_.launch(1, store_list_facts{board_.get(), b});
    device_.copy(tensors_.get(), host_tensors_.data(), host_tensors_.size() * sizeof(tensor));
    device_.copy(cohorts_.get(), host_cohorts_.data(), host_cohorts_.size() * sizeof(cohort));
    device_.copy(lists_.get(), host_lists_.data(), host_lists_.size() * sizeof(device_list));
    uploaded_ = true;
    stepped_ = false;
  }

  template <class X>
  static bool whole(const X* p) noexcept
  {
    return reinterpret_cast<std::uintptr_t>(p) % (pack::size * sizeof(X)) == 0;
  }

  /// Which sums are made of which, and where they lie.
  void plan()
  {
    host_lists_.clear();
    const std::size_t n = host_tensors_.size();
    std::size_t free = 0;
    elements_ = {};
    std::vector<std::size_t>& counts = host_counts_;
    counts.clear();
    for (const tensor& x : host_tensors_)
      counts.push_back(x.size);
    std::size_t longest, begin = 0;
    do {
      const std::size_t l = elements_.levels++;
      elements_.lists[l] = host_lists_.size();
      elements_.sums[l] = free;
      std::size_t block = 0, in = begin;
      longest = 0;
      for (std::size_t& count : counts) {
        host_lists_.push_back({block, count, in});
        in += count;
        count = count / page_size + (count % page_size != 0);
        block += count;
        longest = count > longest ? count : longest;
      }
      elements_.blocks[l] = block;
      begin = free;
      free += block;
    } while (longest > 1);
    of_tensors_ = chain_of(elements_.sums[elements_.levels - 1], n, free);
    const std::size_t parts = free;
    free += n;
    of_parts_ = chain_of(parts, n, free);
  }
  chain chain_of(std::size_t begin, std::size_t count, std::size_t& free)
  {
    chain c;
    c.begin = begin;
    c.count = count;
    while (count > 1) {
      c.lists[c.levels] = host_lists_.size();
      host_lists_.push_back({0, count, begin});
      count = count / page_size + (count % page_size != 0);
      c.blocks[c.levels] = count;
      begin = c.sums[c.levels] = free;
      free += count;
      ++c.levels;
    }
    return c;
  }

  device device_;
  array<device_board> board_;
  array<device_maps> maps_;
  array<tensor> tensors_;
  array<cohort> cohorts_;
  array<device_list> lists_;
  array<double> partials_, sums_;
  std::vector<tensor> host_tensors_;
  std::vector<cohort> host_cohorts_;
  std::vector<device_list> host_lists_;
  std::vector<std::size_t> host_counts_;
  chain elements_, of_tensors_, of_parts_;
  std::size_t tensor_room_ = 0, block_room_ = 0, packs_ = 0;
  bool uploaded_ = false;  // the device has the optimizer's list
  bool stepped_ = false;   // and may since know more
  device_board told_;
  bool knows_options_ = false;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
