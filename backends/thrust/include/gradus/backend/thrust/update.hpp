#pragma once
/// \file
/// The elements of one thread: all that a step does to them, by the same formulas as on the other backends.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gradus/backend/thrust/device_pack.hpp>
#include <gradus/backend/thrust/records.hpp>
#include <gradus/kernel.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

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

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
