#pragma once
/// \file
/// The SIMD backend, over xsimd 8.1 or later. The formulas run on packs (simd/pack.hpp).

#include <cstddef>
#include <cstdint>

#include <gradus/backend/simd/codes.hpp>
#include <gradus/backend/simd/pack.hpp>
#include <gradus/kernel.hpp>

#include <gradus/macros_off.hpp>

#if defined(GRADUS_HAS_SIMD)

GRADUS_OPEN_NAMESPACE
namespace backend {

/// Whether the processor is Intel's. Reads a variable that the compiler's library sets before main.
inline bool is_intel() noexcept
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

/// Whether a loop prefetches, and how.
struct prefetching {
  std::size_t bytes = 0;    ///< so far ahead in each stream; 0: never
  std::size_t from = 0;     ///< only in arrays of at least so many bytes, except with 8-bit state
  bool intel_only = false;  ///< only on Intel's processors
  int level = 1;            ///< into the cache of this level, 1 or 2
};

/// The choices of the SIMD backend that change its speed, and no bits. The defaults are for the processors that were
/// measured (docs/performance.md); `basic_simd` takes others.
struct simd_tuning {
  /// Of updates with two or more slots, and with 8-bit state. On Intel's processors they gain from memory and from the third-level cache, and
  /// lose nothing in the caches below. On AMD's Zen 5 they lose at every size. The distance is short because in five
  /// streams a long one would fill the first-level cache.
  prefetching update = {.bytes = 2048, .from = 4096, .intel_only = true};
  /// Of updates with one slot or none. They have no square root and division to hide the instructions, so they lose in
  /// the caches; from memory Zen 5 gains, and Intel's processors lose nothing.
  prefetching light_update = {.bytes = 16384, .from = std::size_t(1) << 23};
  prefetching sum = {.bytes = 4096};  ///< of sums
};

/// The backend for one of xsimd's instruction sets.
/// \tparam Tuning  for example simd_tuning{.update = {.bytes = 16384}}
template <class Arch, simd_tuning Tuning = simd_tuning{}>
struct basic_simd {
  /// Applies a kernel to n elements. Inlined, because passing the kernel would store it piecewise and load it back in
  /// packs, which costs 15 ns, as much as a small tensor.
  template <class Kernel, class Theta, class G, class Slot>
  GRADUS_INLINE void sweep(const Kernel& kernel, const Theta theta, const G g, const Slot* slots,
                           std::size_t n) const noexcept
  {
    using T = typename Kernel::value_type;
    using V = pack<T, Arch>;
    Slot slot[Kernel::slots + 1];
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slot[k] = slots[k];
    std::size_t i = 0;
    // 8-bit state comes in stages of a longer array, and its decoding hides the instructions.
    constexpr bool in_stages = std::is_same_v<Slot, coded>;
    constexpr prefetching ahead = Kernel::slots > 1 || in_stages ? Tuning.update : Tuning.light_update;
    if constexpr (ahead.bytes > 0)
      if ((in_stages || n * sizeof(T) >= ahead.from) && (!ahead.intel_only || is_intel()))
        for (; n - i >= V::size; i += V::size) {
          prefetch<ahead.level>(theta, i, ahead.bytes);
          prefetch<ahead.level>(g, i, ahead.bytes);
          for (std::size_t k = 0; k < Kernel::slots; ++k)
            prefetch<ahead.level>(slot[k], i, ahead.bytes);
          apply_at<V>(kernel, theta, g, slot, i);
        }
    for (; n - i >= V::size; i += V::size)
      apply_at<V>(kernel, theta, g, slot, i);
    if (i == n)
      return;
    // The tail runs in the same V, padded with ones, because zeros would divide 0 by 0 and raise floating-point flags.
    const std::size_t rest = n - i;
    V part[Kernel::slots + 1], x = load_part<V>(theta, i, rest);
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      part[k] = load_part<V>(slot[k], i, rest);
    kernel(x, load_part<V>(g, i, rest), part);
    if constexpr (Kernel::writes_slots)
      for (std::size_t k = 0; k < Kernel::slots; ++k)
        store_part(slot[k], i, part[k], rest);
    if constexpr (Kernel::writes_parameters)
      store_part(theta, i, x, rest);
  }

  /// Encodes 8-bit state, for sweeps whose slots are `coded`.
  template <bool Signed>
  void encode(const float* from, std::uint8_t* codes, float* scales, std::size_t n,
              detail::noise_words random) const noexcept
  {
    using registers = detail::code_registers<sizeof(typename pack<float, Arch>::batch)>;
    if constexpr (requires { registers::size; })
      detail::encode_in_registers<registers, Signed>(from, codes, scales, n, random);
    else
      gradus::encode<Signed>(from, codes, scales, n, random);
  }

  /// The sums of the pages of n elements. Inlined to save the call for small tensors. Two pages are summed side by
  /// side if there are registers for it, because each partial sum waits for its own last addition, and because memory
  /// delivers two streams faster than one.
  template <class Term, class T>
  GRADUS_INLINE void page_sums(Term term, const T* x, std::size_t n, double* sums) const noexcept
  {
    if constexpr (sum_packs <= 4)
      for (; n >= 2 * page_size; n -= 2 * page_size, x += 2 * page_size, sums += 2)
        add_pages<2>(term, x, page_size, sums);
    for (; n >= page_size; n -= page_size, x += page_size, ++sums)
      add_pages<1>(term, x, page_size, sums);
    if (n > 0)
      add_pages<1>(term, x, n, sums);
  }

 private:
  using sum_pack = pack<double, Arch>;
  static constexpr std::size_t sum_packs = page_lanes / sum_pack::size;

  /// The sums of `Pages` pages of n ≤ page_size elements each, a page's size apart. The partial sums (element i goes to
  /// number i % 32) stay in registers.
  template <std::size_t Pages, class Term, class T>
  static GRADUS_INLINE void add_pages(Term term, const T* x, std::size_t n, double* sums) noexcept
  {
    using V = sum_pack;
    V sum[Pages][sum_packs];
    for (auto& page : sum)
      for (V& s : page)
        s = V(0.0);
    std::size_t i = 0;
    for (; n - i >= page_lanes; i += page_lanes)
      for (std::size_t p = 0; p < Pages; ++p) {
        const T* const row = x + p * page_size + i;
        if constexpr (Tuning.sum.bytes > 0)
          for (std::size_t byte = 0; byte < page_lanes * sizeof(T); byte += 64)
            prefetch<Tuning.sum.level>(row, Tuning.sum.bytes + byte);
        for (std::size_t k = 0; k < sum_packs; ++k)
          sum[p][k] = term(sum[p][k], V::load(row + k * V::size));
      }
    // Missing elements are zeros, which change no sum.
    for (std::size_t k = 0, rest = n - i; k < sum_packs && rest > 0; ++k) {
      const std::size_t m = rest < V::size ? rest : V::size;
      sum[0][k] = term(sum[0][k], V::load_part(x + i + k * V::size, m, T(0)));
      rest -= m;
    }
    for (std::size_t p = 0; p < Pages; ++p) {
      for (std::size_t half = sum_packs / 2; half > 0; half /= 2)
        for (std::size_t k = 0; k < half; ++k)
          sum[p][k] = sum[p][k] + sum[p][k + half];
      sums[p] = folded(sum[p][0]);
    }
  }
};

/// The SIMD backend for the instruction set of the compiler's flags.
using simd = basic_simd<xsimd::default_arch>;

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#endif

#include <gradus/macros_on.hpp>
