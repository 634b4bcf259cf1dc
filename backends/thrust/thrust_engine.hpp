#pragma once
/// \file
/// How an optimizer steps over a device's memory (backend::thrust_device; included by <gradus/backend/thrust.hpp>).
///
/// All that a step reads lies on the device: a list of the tensors, a record for each cohort of them (group and step count),
/// and a board with the scalars. A step is a fixed row of launches, with no allocation and no wait: it can be captured as a
/// graph, and replayed it goes on with t as it is then, and with the lr_scale that set_options has left.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/backend/scalar.hpp>
#include <gradus/precision.hpp>

namespace gradus::inline GRADUS_ISA {
namespace detail {

/// The scalars of a step: what it is told, and what it did.
struct device_board {
  double lr_scale = 1, grad_scale = 1, max_grad_norm = std::numeric_limits<double>::infinity();
  double given_norm_sq = 0;
  bool is_given = false, is_measured = false, skips = false;
  std::uint64_t seed = 0;
  double elements = 0;  // without padding
  double eps = 0;  // of the default group's scheduled decay

  bool applied = false, has_norm = false, has_mean = false, clamped = false;
  double norm = 0, scale = 1, mean_square = 0, decay_factor = 0;
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
  Rule rule;
  std::uint64_t t;
  tick scalars;
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

/// What is summed: a gradient or a slot of each tensor, or sums.
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
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    const std::size_t block = std::size_t(k) / reduce_lanes, lane = std::size_t(k) % reduce_lanes;
    const std::size_t list = last_from(lists, n, &device_list::first_block, block);
    const device_list l = lists[list];
    const std::size_t begin = (block - l.first_block) * reduce_block;
    const std::size_t end = l.count - begin < reduce_block ? l.count : begin + reduce_block;
    double sum = 0;
    for (std::size_t i = begin + lane; i < end; i += reduce_lanes)
      sum = Term{}(sum, read(l, list, i));
    partial[k] = sum;
  }
};
struct fold_block {
  const double* partial;
  double* sums;
  GRADUS_HOST_DEVICE void operator()(std::int64_t block) const noexcept
  {
    double p[reduce_lanes];
    for (std::size_t k = 0; k < reduce_lanes; ++k)
      p[k] = partial[std::size_t(block) * reduce_lanes + k];
    sums[block] = fold(p);
  }
};

// ── the parts of a step ──────────────────────────────────────────────────────────────────────────────────────────────

/// Of one cohort: whether the step is taken, and its coefficients. \p n  cohorts, or none  \p total  ‖g‖²
template <class Cohort, class T>
struct prepare_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  const double* total;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    const double grad_scale = board->grad_scale, limit = board->max_grad_norm;
    // A graph captured without a norm has none, whatever it is told later.
    const bool known = board->is_given || (board->is_measured && (total || board->elements == 0));
    const double norm_sq = board->is_given ? board->given_norm_sq : board->is_measured && total ? *total : 0;
    const double norm = product(std::sqrt(norm_sq), grad_scale);
    // Squares of floats do not overflow in double; where an infinity may be an overflow, the gradients were counted.
    const bool bad = board->skips && !is_finite(norm_sq) && (is_nan(norm_sq) || board->not_finite > 0);
    double scale = grad_scale;
    if (known && is_finite(limit)) {
      const double clip = limit / (norm + 1e-6);
      scale *= clip > 1 ? 1 : clip;
    }
    if (!bad && k < n && cohorts[k].active) {
      Cohort& c = cohorts[k];
      c.t += 1;
      c.scalars = make_tick(c.rule, c.t, board->lr_scale, 0);
      c.prepared = prepare<T>(c.rule, c.scalars, scale);
    }
    if (k == 0) {
      board->applied = !bad;
      board->has_norm = known;
      board->norm = norm;
      board->scale = scale;
      board->has_mean = board->clamped = false;
    }
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
      sum = x.second_moment_sum = next_second_moment_sum<T>(c.rule.second_moment, x.second_moment_sum, sum, board->scale);
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
    const double norm_sq = board->is_given ? board->given_norm_sq : *total;
    board->shared_sum =
        next_second_moment_sum<T>(common->rule.second_moment, board->shared_sum, norm_sq, board->scale);
    board->shared_total = board->shared_sum / common->scalars.bc2;
  }
};

template <class Cohort, class T>
struct schedule_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  const double* total;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const double mean = total && board->elements > 0 ? *total / board->elements : 0;
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

/// The parameters and gradients of a tensor from an element on, as a kernel takes them.
template <class Precision, class Tensor>
GRADUS_HOST_DEVICE auto parameters_of(const Tensor& x, [[maybe_unused]] std::uint64_t key, std::size_t begin) noexcept
{
  using parameter = typename Precision::parameter_type;
  if constexpr (Precision::has_master)
    return mirrored<parameter>{x.master + begin, x.parameters + begin};
  else if constexpr (short_float<parameter>)
    return stochastic<parameter>{x.parameters + begin, noise(key, Tensor::slot_count, begin)};
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
      return stochastic<S>{x.slots[k] + begin, noise(key, k, begin)};
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
    const std::size_t blocks = n / reduce_block + (n % reduce_block != 0);
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
    const std::size_t sums = b + most_levels * (b / reduce_block + 3 * n + 2);
    array<tensor> next_tensors(n, tensor{}, device_.memory());
    array<cohort> next_cohorts(n, cohort{}, device_.memory());
    array<device_list> next_lists(most_levels * (n + 2), device_list{}, device_.memory());
    array<double> next_partials((b > n ? b : n) * reduce_lanes, 0.0, device_.memory());
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
      fail("flush_denormals is 1; expected 0, as on a device it is the compiler that decides (nvcc -ftz=true)");
    device_board told;
    told.lr_scale = o.lr_scale;
    told.grad_scale = o.grad_scale;
    if (o.max_grad_norm)
      told.max_grad_norm = *o.max_grad_norm;
    told.is_given = o.grad_norm_sq.has_value();
    told.given_norm_sq = o.grad_norm_sq.value_or(0.0);
    told.is_measured = !told.is_given && (o.max_grad_norm || o.skip_nonfinite || Optimizer::one_pass);
    told.skips = o.skip_nonfinite;
    if (knows_options_ && told.lr_scale == told_.lr_scale && told.grad_scale == told_.grad_scale &&
        told.max_grad_norm == told_.max_grad_norm && told.is_given == told_.is_given &&
        told.given_norm_sq == told_.given_norm_sq && told.is_measured == told_.is_measured && told.skips == told_.skips)
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
    if constexpr (Optimizer::one_pass) {
      if (opt.sum_is_shared_ && !opt.common_cohort())
        opt.resum_now();
      if (!opt.sum_is_shared_ && o.grad_norm_sq && has_elements(opt) && !(o.skip_nonfinite && is_bad(opt, *o.grad_norm_sq))) {
        settle(opt);
        opt.share_sum();
        opt.flat_is_current_ = false;
      }
    }
    if (!uploaded_ || !opt.flat_is_current_)
      upload(opt);
    const std::size_t n = host_tensors_.size();
    const double* total = nullptr;
    if (o.skip_nonfinite && n > 0 && (o.grad_norm_sq || std::is_same_v<gradient, double>)) {
      sum_tensors<not_finite_term>(gradient_of_tensor<tensor>{tensors_.get()});
      device_.launch(1, store_not_finite{board_.get(), sum_list(of_tensors_)});
    }
    if (told_.is_measured && n > 0) {
      sum_tensors<square_term>(gradient_of_tensor<tensor>{tensors_.get()});
      total = sum_list(of_tensors_);
    }
    const std::int64_t cohorts = std::int64_t(host_cohorts_.size());
    const std::size_t each_cohort = cohorts > 0 ? std::size_t(cohorts) : 1;  // the board has to be written even for none
    device_.launch(each_cohort, prepare_cohort<cohort, value_type>{board_.get(), cohorts_.get(), cohorts, total});
    if constexpr (rule_type::scheduled) {
      if constexpr (!Optimizer::one_pass) {
        if constexpr (Optimizer::keeps_exactly)
          update<pass::moments>();
        if (n > 0) {
          if constexpr (Optimizer::keeps_exactly)
            sum_tensors<plain_term>(slot_of_tensor<tensor>{tensors_.get(), formula::value_slot});
          else
            sum_tensors<plain_term>(next_moment_of_tensor<tensor, cohort>{tensors_.get(), cohorts_.get()});
        }
      }
      const double* mean = nullptr;
      if (n > 0 && opt.sum_is_shared_) {
        if constexpr (Optimizer::one_pass)
          device_.launch(1, advance_shared<cohort, value_type>{board_.get(), cohorts_.get() + (opt.common_cohort() - opt.cohorts_.data()), total});
        mean = &board_.get()->shared_total;
      }
      else if (n > 0) {
        device_.launch(n, mean_part<Optimizer::one_pass, tensor, cohort, value_type>{
                              board_.get(), tensors_.get(), cohorts_.get(), sums_.get() + of_tensors_.begin,
                              sums_.get() + of_parts_.begin});
        mean = sum_list(of_parts_);
      }
      device_.launch(each_cohort, schedule_cohort<cohort, value_type>{board_.get(), cohorts_.get(), cohorts, mean});
      device_.launch(1, gather_clamped<cohort>{board_.get(), cohorts_.get(), cohorts});
    }
    update<rule_type::scheduled && !Optimizer::one_pass && Optimizer::keeps_exactly ? pass::weights : pass::whole>();
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

  static bool has_elements(const Optimizer& opt) noexcept
  {
    for (const auto& x : opt.tensors_)
      if (x.active && x.size > 0)
        return true;
    return false;
  }
  /// Whether skip_nonfinite will refuse the step. Waits for the device, but only where the given norm is infinite.
  bool is_bad(Optimizer& opt, double norm_sq)
  {
    if (is_finite(norm_sq) || is_nan(norm_sq))
      return is_nan(norm_sq);
    if (!uploaded_ || !opt.flat_is_current_)
      upload(opt);
    sum_tensors<not_finite_term>(gradient_of_tensor<tensor>{tensors_.get()});
    double count;
    device_.copy(&count, sum_list(of_tensors_), sizeof count);
    return count > 0;
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
  void sum_blocks(std::size_t lists, std::size_t n, std::size_t blocks, std::size_t to, const Read& read) const
  {
    device_.launch(blocks * reduce_lanes, sum_lane<Term, Read>{lists_.get() + lists, n, read, partials_.get()});
    device_.launch(blocks, fold_block{partials_.get(), sums_.get() + to});
  }
  /// Sums of each tensor's elements, which are then `of_tensors_`.
  template <class Term, class Read>
  void sum_tensors(const Read& read) const
  {
    const chain& c = elements_;
    sum_blocks<Term>(c.lists[0], host_tensors_.size(), c.blocks[0], c.sums[0], read);
    for (std::size_t l = 1; l < c.levels; ++l)
      sum_blocks<plain_term>(c.lists[l], host_tensors_.size(), c.blocks[l], c.sums[l], sum_of_sums{sums_.get()});
  }
  const double* sum_list(const chain& c) const
  {
    for (std::size_t l = 0; l < c.levels; ++l)
      sum_blocks<plain_term>(c.lists[l], 1, c.blocks[l], c.sums[l], sum_of_sums{sums_.get()});
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
        count = count / reduce_block + (count % reduce_block != 0);
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
      count = count / reduce_block + (count % reduce_block != 0);
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
}  // namespace gradus::inline GRADUS_ISA
