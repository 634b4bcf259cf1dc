#pragma once
/// \file
/// The launches that update the elements: each thread takes one pack, or one block of 8-bit codes, and applies the same
/// formulas as the other backends.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gradus/backend/thrust/device_pack.hpp>
#include <gradus/backend/thrust/records.hpp>
#include <gradus/kernel.hpp>
#include <gradus/optimizer/sweep.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Updates the elements of one pack. If the tensor is aligned, it computes with a pack; otherwise, and at the end of a
/// tensor, with single numbers, which gives the same bits.
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
  GRADUS_HOST_DEVICE static void apply(const formula& f, const Tensor& x, std::uint64_t key, std::size_t begin,
                                       std::size_t n) noexcept
  {
    with_kernel<Pass>(f, [&](const auto& kernel, std::size_t skipped) { run<V>(kernel, x, key, skipped, begin, n); });
  }

  /// \param skipped  the number of slots that the kernel does not have, because the first moment is idle
  template <class V, class Kernel>
  GRADUS_HOST_DEVICE static void run(const Kernel& kernel, const Tensor& x, std::uint64_t key, std::size_t skipped,
                                     std::size_t begin, std::size_t n) noexcept
  {
    const auto theta = parameters_of<Precision, Tensor::slot_count>(x, key, begin);
    const auto g = gradients_of<Precision>(x, begin);
    using slot = decltype(slot_at(x, key, 0, begin));
    slot slots[Kernel::slots + 1] = {};
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slots[k] = slot_at(x, key, skipped + k, begin);
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // a pack needs no loop; single numbers are rare, and unrolling would take registers
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

/// Updates a block of elements with 8-bit codes. The scale follows from the largest new moment of the block, so the
/// moments are computed twice, first to find the largest and then to store them. This needs no memory between.
template <class Precision, class Tensor, class Cohort>
struct update_codes {
  const device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_pack, std::size_t(k))];
    const Cohort& c = cohorts[x.cohort];
    const std::uint64_t key = noise_key(x.name_hash, board->seed, c.t - 1);
    const std::size_t begin = (std::size_t(k) - x.first_pack) * block8::block;
    with_kernel<pass::whole>(c.prepared,
                             [&](const auto& kernel, std::size_t skipped) { run(kernel, x, key, skipped, begin); });
  }

 private:
  /// \param skipped  the number of slots that the kernel does not have, because the first moment is idle
  template <class Kernel>
  GRADUS_HOST_DEVICE static void run(const Kernel& kernel, const Tensor& x, std::uint64_t key, std::size_t skipped,
                                     std::size_t begin) noexcept
  {
    const std::size_t end = x.size - begin < block8::block ? x.size : begin + block8::block,
                      block = begin / block8::block;
    const auto theta = parameters_of<Precision, Tensor::slot_count>(x, key, begin);
    const auto g = gradients_of<Precision>(x, begin);
    float slot[Kernel::slots + 1];
    const auto compute = [&](std::size_t i) {
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        slot[k] = x.read_slot(skipped + k, i);
      float w = load<float>(theta, i - begin);
      kernel(w, load<float>(g, i - begin), slot);
      return w;
    };
    std::uint32_t largest[Kernel::slots + 1] = {};  // as bits, so that a NaN counts as larger than every number
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
