#pragma once
/// \file
/// The memory of one slot of one tensor, and the view of it that a step uses.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/kernel/arrays.hpp>
#include <gradus/kernel/reduce.hpp>
#include <gradus/number/block8.hpp>
#include <gradus/rules/slot.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// Elements decoded, computed and encoded at a time; few enough for the first-level cache.
inline constexpr std::size_t stage = 512;
static_assert(stage % block8::block == 0 && stage % page_lanes == 0 && page_size % stage == 0);

/// A backend that reads and writes 8-bit codes itself; for others they are decoded to floats.
template <class Backend>
concept runs_codes = requires(const Backend& b, const float* from, std::uint8_t* codes, float* scales) {
  b.template encode<true>(from, codes, scales, std::size_t(), noise_words());
};
/// The arrays of 8-bit state that a backend's kernels take.
template <class Backend>
using code_array = std::conditional_t<runs_codes<Backend>, coded, float*>;

/// A slot's elements from some element on; for block8, from the start of a block.
template <class S>
struct slot_view {
  S* values = nullptr;

  explicit operator bool() const noexcept { return values; }
  slot_view from(std::size_t i) const noexcept { return {values + i}; }
  /// The form that a kernel takes, from element i on. \param key  from noise_key  \param k  the slot's number
  /// \param first_in_whole  the index of element 0 in the whole tensor
  auto at([[maybe_unused]] std::uint64_t key, [[maybe_unused]] std::size_t k, std::size_t i,
          [[maybe_unused]] std::uint64_t first_in_whole = 0) const noexcept
  {
    if constexpr (real<S>)
      return values + i;
    else
      return stochastic<S>{values + i, {key, k, first_in_whole + i}};
  }
  void read(float* to, std::size_t n, const slot&) const noexcept
    requires(short_float<S>)
  {
    decode(values, to, n);
  }
  /// The first n elements as an array for kernels, which write to `next`. \tparam Backend  see slot_view<block8>
  template <class Backend>
  float* open(float* next, std::size_t n, const slot& s) const noexcept
    requires(short_float<S>)
  {
    read(next, n, s);
    return next;
  }
};
template <>
struct slot_view<block8> {
  std::uint8_t* codes = nullptr;
  float* scales = nullptr;

  explicit operator bool() const noexcept { return codes; }
  slot_view from(std::size_t i) const noexcept { return {codes + i, scales + i / block8::block}; }
  void read(float* to, std::size_t n, const slot& s) const noexcept
  {
    s.is_nonnegative ? decode<false>(codes, scales, to, n) : decode<true>(codes, scales, to, n);
  }
  /// The first n ≤ stage elements as an array for kernels, which write to `next`.
  template <class Backend>
  code_array<Backend> open(float* next, std::size_t n, const slot& s) const noexcept
  {
    if constexpr (runs_codes<Backend>) {
      const code_values* const map = s.is_nonnegative ? static_cast<const code_values*>(&dynamic_map_of<false>)
                                                      : &dynamic_map_of<true>;
      return {codes, scales, map, next};
    } else {
      read(next, n, s);
      return next;
    }
  }
  /// Encodes what kernels wrote.
  template <class Backend>
  void close(const Backend& backend, const float* next, std::size_t n, const slot& s, noise_words random) const noexcept
  {
    const auto write = [&]<bool Signed>() {
      if constexpr (runs_codes<Backend>)
        backend.template encode<Signed>(next, codes, scales, n, random);
      else
        encode<Signed>(next, codes, scales, n, random);
    };
    s.is_nonnegative ? write.template operator()<false>() : write.template operator()<true>();
  }
};

/// The memory of one slot of one tensor.
template <class S, class Memory = host_memory>
class slot_memory {
 public:
  slot_memory() = default;
  slot_memory(std::size_t n, double value, const slot&, Memory memory = Memory()) : values_(n, convert(value), memory)
  {}

  slot_view<S> view() const noexcept { return {values_.get()}; }
  static std::size_t bytes(std::size_t n) noexcept { return n * sizeof(S); }
  /// Calls visit(key, span) for each array of the slot.
  template <class Visit>
  void visit(std::string_view name, std::size_t n, const Visit& visit) const
  {
    visit(name, std::span<S>(values_.get(), n));
  }

 private:
  static S convert(double value) noexcept
  {
    if constexpr (real<S>)
      return S(value);
    else
      return S(float(value));
  }
  array_memory<S, Memory> values_;
};
template <class Memory>
class slot_memory<block8, Memory> {
 public:
  slot_memory() = default;
  slot_memory(std::size_t n, double value, const slot& s, Memory memory = Memory())
      : codes_(n,
               std::uint8_t(value == 0         ? 0u
                            : s.is_nonnegative ? dynamic_map<false>::last
                                               : dynamic_map<true>::last),
               memory),
        scales_(blocks(n), float(value), memory)
  {}

  slot_view<block8> view() const noexcept { return {codes_.get(), scales_.get()}; }
  static std::size_t bytes(std::size_t n) noexcept { return n + blocks(n) * sizeof(float); }
  template <class Visit>
  void visit(std::string_view name, std::size_t n, const Visit& visit) const
  {
    visit(name, std::span<std::uint8_t>(codes_.get(), n));
    // No allocation unless the name is very long, because memory must not run out while state is being written.
    constexpr std::string_view suffix = "_scale";
    char text[64];
    std::string long_text;
    char* key = text;
    if (name.size() + suffix.size() > sizeof text) {
      long_text.resize(name.size() + suffix.size());
      key = long_text.data();
    }
    name.copy(key, name.size());
    suffix.copy(key + name.size(), suffix.size());
    visit(std::string_view(key, name.size() + suffix.size()), std::span<float>(scales_.get(), blocks(n)));
  }

 private:
  static std::size_t blocks(std::size_t n) noexcept { return n / block8::block + (n % block8::block != 0); }
  array_memory<std::uint8_t, Memory> codes_;
  array_memory<float, Memory> scales_;
};

/// The sum of a block of numbers that read(i, to, n) decodes.
template <class Term, class Backend, class Read>
double decoded_page_sum(const Backend& backend, std::size_t n, const Read& read) noexcept
{
  float decoded[page_size];
  for (std::size_t i = 0; i < n; i += stage)
    read(i, decoded + i, n - i < stage ? n - i : stage);
  return page_sum<Term>(backend, decoded, n);
}

}  // namespace detail

/// The sum of one page of 16-bit numbers, n ≤ page_size.
template <class Term, class Backend, short_float S>
double page_sum(const Backend& backend, const S* x, std::size_t n) noexcept
{
  return detail::decoded_page_sum<Term>(backend, n,
                                        [x](std::size_t i, float* to, std::size_t m) { decode(x + i, to, m); });
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
