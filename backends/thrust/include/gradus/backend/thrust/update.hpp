#pragma once
/// \file
/// The launches that update the elements with the same formulas as the other backends: each thread takes one pack, or
/// each warp one block of 8-bit codes.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <gradus/backend/thrust/device_pack.hpp>
#include <gradus/backend/thrust/records.hpp>
#include <gradus/backend/thrust/teams.hpp>
#include <gradus/kernel.hpp>
#include <gradus/optimizer/sweep.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Updates the elements of one pack. If the tensor is aligned, it computes with a pack; otherwise, and at the end of a
/// tensor, with single numbers, which gives the same bits.
template <class Precision, class Tensor, class Cohort>
struct update_pack {
  const device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;
  list_of_own<Cohort> own;

  using T = typename Precision::compute_type;
  using pack = backend::device_pack<T>;
  using formula = decltype(Cohort::prepared);

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    const std::size_t number = last_from(tensors, n, &Tensor::first_pack, std::size_t(k));
    const Tensor& x = tensors[number];
    const Cohort& c = cohorts[x.cohort];
    const std::size_t begin = (std::size_t(k) - x.first_pack) * pack::size;
    std::uint64_t key = 0;
    if constexpr (Precision::stochastic)
      key = noise_key(x.name_hash, board->seed, c.t - 1);
    const formula prepared = formula_of_tensor(own, number, c.prepared);
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
    with_kernel<pass::whole>(f, [&](const auto& kernel, std::size_t skipped) {
      run<V>(kernel, x, key, skipped, begin, n);
    });
  }

  /// \param skipped  the number of the first slots that the kernel does not have, because the first moment is idle
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
      return stochastic<S>{x.slots[k] + begin, {key, k, index_in_whole(x, begin)}};
  }
};

/// Updates a block of elements with 8-bit codes, by one warp. The scale follows from the largest new moment of the
/// block: each lane keeps the moments of two packs until the warp knows it. Pack p of lane l begins at element
/// 128·p + 4·l, so that neighbouring lanes access neighbouring memory: 512 bytes of floats, 128 bytes of codes.
template <class Precision, class Tensor, class Cohort>
struct update_codes {
  const device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;
  list_of_own<Cohort> own;

  using pack = backend::device_pack<float>;
  /// So that a lane may have 96 registers, or 128 for a first moment with several slots.
  static constexpr unsigned blocks_per_processor = decltype(Cohort::prepared)::first_slots > 1 ? 4 : 5;
  static constexpr std::size_t packs = block8::block / page_lanes / pack::size;  // of a lane

  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t k, const Warp& warp) const noexcept
  {
    if (!board->applied)
      return;
    const std::size_t number = last_from(tensors, n, &Tensor::first_pack, std::size_t(k));
    const Tensor& x = tensors[number];
    const Cohort& c = cohorts[x.cohort];
    const std::uint64_t key = noise_key(x.name_hash, board->seed, c.t - 1);
    const std::size_t begin = (std::size_t(k) - x.first_pack) * block8::block;
    const std::size_t length = x.size - begin < block8::block ? x.size - begin : block8::block;
    with_kernel<pass::whole>(formula_of_tensor(own, number, c.prepared), [&](const auto& kernel, std::size_t) {
      if (x.aligned && length == block8::block)
        run<true>(warp, kernel, x, key, begin, length);
      else
        run<false>(warp, kernel, x, key, begin, length);
    });
  }

 private:
  /// Four codes, for one access.
  struct alignas(4) [[gnu::may_alias]] four_codes {
    std::uint8_t x[pack::size];
  };
  /// One lane's elements.
  template <std::size_t Slots>
  struct lane_values {
    pack theta[packs], gradient[packs], slot[packs][Slots + 1];
    four_codes codes[packs][Slots + 1];
  };

  /// \tparam Whole  whether all packs have all elements, and are aligned. Otherwise elements are accessed one by one
  template <bool Whole, class Warp, class Kernel>
  GRADUS_HOST_DEVICE static void run(const Warp& warp, const Kernel& kernel, const Tensor& x, std::uint64_t key,
                                     std::size_t begin, std::size_t length) noexcept
  {
    constexpr std::size_t slots = Kernel::slots;
    // The slots of a first moment that is idle.
    constexpr std::size_t skipped = decltype(Cohort::prepared)::first_slots - Kernel::first_slots;
    const auto theta = parameters_of<Precision, Tensor::slot_count>(x, key, begin);
    const auto g = gradients_of<Precision>(x, begin);
    const std::size_t block = begin / block8::block;
    lane_values<slots> values[Warp::lanes];
    std::uint32_t largest[slots + 1][Warp::lanes] = {};  // as bits, so that a NaN counts as larger than every number
    warp.for_lanes([&](std::size_t lane, std::size_t at) {
      lane_values<slots>& v = values[at];
      unrolled<packs>([&](auto p) {  // all loads before the first is used
        const std::size_t i = first_of(p, lane);
        v.theta[p] = load_pack<Whole>(theta, i, length);
        v.gradient[p] = load_pack<Whole>(g, i, length);
        unrolled<slots>([&](auto k) {
          v.codes[p][k] = load_codes<Whole>(on_device(x.slots[skipped + k]) + begin, i, length);
        });
      });
      unrolled<packs>([&](auto p) {
        unrolled<slots>([&](auto k) {
          const float scale = on_device(x.scales[skipped + k])[block];
          v.slot[p][k] = pack::make([&](std::size_t e) { return scale * x.decode(skipped + k, v.codes[p][k].x[e]); });
        });
        kernel(v.theta[p], v.gradient[p], v.slot[p]);
        unrolled<slots>([&](auto k) {
          unrolled<pack::size>([&](auto e) {
            const std::uint32_t a = std::bit_cast<std::uint32_t>(v.slot[p][k].x[e]) & 0x7fffffffu;
            const bool exists = Whole || first_of(p, lane) + e < length;
            largest[k][at] = exists && a > largest[k][at] ? a : largest[k][at];
          });
        });
      });
    });
    std::uint32_t of_block[slots + 1];
    unrolled<slots>([&](auto k) { of_block[k] = warp.largest(largest[k]); });
    warp.for_lanes([&](std::size_t lane, std::size_t at) {
      const lane_values<slots>& v = values[at];
      unrolled<packs>([&](auto p) {
        const std::size_t i = first_of(p, lane);
        store_pack<Whole>(theta, i, length, v.theta[p]);
        unrolled<slots>([&](auto k) {
          store_codes<Whole>(on_device(x.slots[skipped + k]) + begin, i, length,
                             encode<skipped + k>(v.slot[p][k], of_block[k],
                                                 noise(key, skipped + k, index_in_whole(x, begin)).from(i)));
        });
      });
      unrolled<slots>([&](auto k) {
        if (lane == 0)
          on_device(x.scales[skipped + k])[block] = scale_of_block(of_block[k]);
      });
    });
  }

  GRADUS_HOST_DEVICE static std::size_t first_of(std::size_t p, std::size_t lane) noexcept
  {
    return (p * page_lanes + lane) * pack::size;
  }
  /// The pack at i; elements that do not exist are 0.
  template <bool Whole, class A>
  GRADUS_HOST_DEVICE static pack load_pack(const A& a, std::size_t i, std::size_t length) noexcept
  {
    if constexpr (Whole)
      return load<pack>(a, i);
    else
      return pack::make([&](std::size_t e) { return i + e < length ? load<float>(a, i + e) : 0; });
  }
  template <bool Whole, class A>
  GRADUS_HOST_DEVICE static void store_pack(const A& a, std::size_t i, std::size_t length, const pack& x) noexcept
  {
    if constexpr (Whole)
      store(a, i, x);
    else
      unrolled<pack::size>([&](auto e) {
        if (i + e < length)
          store(a, i + e, x.x[e]);
      });
  }
  template <bool Whole>
  GRADUS_HOST_DEVICE static four_codes load_codes(const std::uint8_t* codes, std::size_t i, std::size_t length) noexcept
  {
    four_codes r = {};
    if constexpr (Whole)
      r = *reinterpret_cast<const four_codes*>(codes + i);
    else
      unrolled<pack::size>([&](auto e) {
        if (i + e < length)
          r.x[e] = codes[i + e];
      });
    return r;
  }
  template <bool Whole>
  GRADUS_HOST_DEVICE static void store_codes(std::uint8_t* codes, std::size_t i, std::size_t length,
                                             const four_codes& x) noexcept
  {
    if constexpr (Whole)
      *reinterpret_cast<four_codes*>(codes + i) = x;
    else
      unrolled<pack::size>([&](auto e) {
        if (i + e < length)
          codes[i + e] = x.x[e];
      });
  }
  template <std::size_t Slot>
  GRADUS_HOST_DEVICE static four_codes encode(const pack& x, std::uint32_t largest, const noise& random) noexcept
  {
    constexpr bool is_signed = !Tensor::is_nonnegative(Slot);
#if defined(__CUDA_ARCH__)
    constexpr dynamic_map<is_signed> map;  // its numbers become constants of the instructions
#else
    const dynamic_map<is_signed>& map = dynamic_map_of<is_signed>;
#endif
    four_codes r;
    unrolled<pack::size>([&](auto e) { r.x[e] = encode_one(map, x.x[e], largest, random(e)); });
    return r;
  }
};

/// An update of some packs or blocks: those from the first on.
template <class Update>
struct update_from {
  Update update;
  std::int64_t first;
  static constexpr unsigned blocks_per_processor = [] {
    if constexpr (requires { Update::blocks_per_processor; })
      return Update::blocks_per_processor;
    else
      return 0u;
  }();

  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { update(first + k); }
  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t k, const Warp& warp) const noexcept
  {
    update(first + k, warp);
  }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
