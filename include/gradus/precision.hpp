#pragma once
/// \file
/// Which number types an optimizer's parameters, gradients and state have, where they are not all the same.
///
///     using gradus::bfloat16, gradus::block8, gradus::precision;
///     gradus::optimizer<gradus::adamw, precision<float, float, bfloat16>> a;            // moments in bfloat16
///     gradus::optimizer<gradus::adamw, precision<float, float, block8>> b;              // moments in 8-bit codes
///     gradus::optimizer<gradus::adamw, precision<bfloat16, bfloat16, float, float>> c;  // float master weights
///     gradus::optimizer<gradus::adamw, precision<bfloat16>> d;                          // none: weights rounded by chance
///
/// Nothing of this reaches a rule or a backend's loop: they work on a stretch of decoded numbers in the first-level cache.

#include <new>
#include <span>
#include <utility>

#include <gradus/error.hpp>
#include <gradus/kernel.hpp>
#include <gradus/storage.hpp>

#include <gradus/macros_off.hpp>

namespace gradus::inline GRADUS_ISA {

/// The types of an optimizer's numbers. The arithmetic is in float, or in double where the state is.
///
/// \tparam Parameter  float, double, bfloat16 or float16. Short ones are rounded to nearest from their master, or
///                    stochastically where there is none
/// \tparam Gradient   one of the same
/// \tparam State      of the moments: float, double, bfloat16 (rounded stochastically) or block8 (likewise). Not float16,
///                    in which squares of gradients under 2e-4 vanish
/// \tparam Master     float: short parameters have masters in float, a slot named "master", which is what steps move; void: none
template <class Parameter, class Gradient = Parameter, class State = float, class Master = void>
struct precision {
  using parameter_type = Parameter;
  using gradient_type = Gradient;
  using state_type = State;
  using master_type = Master;
  using compute_type = std::conditional_t<__is_same(State, double), double, float>;

  static constexpr bool has_master = !__is_same(Master, void);
  /// Whether everything is stored as it is computed.
  static constexpr bool uniform =
      __is_same(Parameter, compute_type) && __is_same(Gradient, compute_type) && __is_same(State, compute_type);
  /// Whether something is rounded stochastically, and so depends on a seed.
  static constexpr bool stochastic = !__is_same(State, compute_type) || (short_float<Parameter> && !has_master);

  static_assert(real<State> || __is_same(State, bfloat16) || __is_same(State, block8),
                "gradus: the state of a precision is float, double, bfloat16 or block8 (float16 cannot hold the squares of "
                "small gradients).");
  static_assert(__is_same(Parameter, compute_type) || (short_float<Parameter> && __is_same(compute_type, float)),
                "gradus: the parameters of a precision are bfloat16, float16 or float; or double, with state in double.");
  static_assert(__is_same(Gradient, compute_type) || (short_float<Gradient> && __is_same(compute_type, float)),
                "gradus: the gradients of a precision are bfloat16, float16 or float; or double, with state in double.");
  static_assert(!has_master || (__is_same(Master, float) && short_float<Parameter>),
                "gradus: the master weights of a precision are float, and its parameters bfloat16 or float16.");
};

namespace detail {

template <class T>
struct to_precision;
template <real T>
struct to_precision<T> {
  using type = precision<T, T, T>;
};
template <class Parameter, class Gradient, class State, class Master>
struct to_precision<precision<Parameter, Gradient, State, Master>> {
  using type = precision<Parameter, Gradient, State, Master>;
};

}  // namespace detail

/// What may stand as an optimizer's precision: float, double, or a `precision`.
template <class T>
concept precise = requires { typename detail::to_precision<T>::type; };
template <precise T>
using precision_of = typename detail::to_precision<T>::type;

namespace detail {

/// float where T is no precision, so that an optimizer of it is refused by its own sentence alone.
template <class T>
struct precision_or_float {
  using precision = gradus::precision<float>;
};
template <precise T>
struct precision_or_float<T> {
  using precision = precision_of<T>;
};
template <class T>
using parameter_of = typename precision_or_float<T>::precision::parameter_type;
template <class T>
using gradient_of = typename precision_or_float<T>::precision::gradient_type;

/// So many elements are decoded, computed and encoded at a time: few enough for the first-level cache.
inline constexpr std::size_t stage = 512;
static_assert(stage % block8::block == 0 && stage % reduce_lanes == 0 && reduce_block % stage == 0);

/// Where state lies, unless a backend has memory of its own: from a cache line's start. (xsimd's aligned allocator needs
/// exceptions.)
struct host_memory {
  static void* allocate(std::size_t bytes) noexcept { return ::operator new(bytes, std::align_val_t(64), std::nothrow); }
  static void release(void* p, std::size_t) noexcept { ::operator delete(p, std::align_val_t(64)); }
  template <class T>
  static void fill(T* p, std::size_t n, T value) noexcept
  {
    for (std::size_t i = 0; i < n; ++i)
      p[i] = value;
  }
};

/// \tparam Memory  with `allocate`, which throws or gives null where there is none left, `release` and `fill`
template <class T, class Memory = host_memory>
class array_memory {
 public:
  array_memory() = default;
  array_memory(std::size_t length, T value, Memory memory = Memory()) : array_memory()  // so that a throw below releases
  {
    if (length == 0)
      return;
    void* p = memory.allocate(length * sizeof(T));
    if (!p) {
#if GRADUS_EXCEPTIONS
      throw std::bad_alloc();
#else
      fail("size of parameters is " + std::to_string(length) + "; expected as much memory for each slot of state");
#endif
    }
    memory_ = memory;
    bytes_ = length * sizeof(T);
    data_ = static_cast<T*>(p);
    memory.fill(data_, length, value);
  }
  array_memory(array_memory&& other) noexcept : array_memory() { *this = std::move(other); }
  array_memory& operator=(array_memory&& other) noexcept
  {
    memory_ = std::exchange(other.memory_, memory_);
    bytes_ = std::exchange(other.bytes_, bytes_);
    data_ = std::exchange(other.data_, data_);
    return *this;
  }
  ~array_memory()
  {
    if (data_)
      memory_.release(data_, bytes_);
  }
  T* get() const noexcept { return data_; }

 private:
  [[no_unique_address]] Memory memory_ = Memory();
  std::size_t bytes_ = 0;
  T* data_ = nullptr;  // no unique_ptr: <memory> alone takes a quarter of a second to compile
};

/// A backend's own memory. With it comes a `device_engine`, which takes the steps that the optimizer takes elsewhere.
template <class Backend>
struct memory_of {
  using type = host_memory;
  static type get(const Backend&) noexcept { return {}; }
};
template <class Backend>
  requires(requires { typename Backend::memory_type; })
struct memory_of<Backend> {
  using type = typename Backend::memory_type;
  static type get(const Backend& b) { return b.memory(); }
};
template <class Optimizer, class Backend>
class device_engine;

/// A slot's elements from some element on, which for block8 is the first of a block.
template <class S>
struct slot_view {
  S* values = nullptr;

  explicit operator bool() const noexcept { return values; }
  slot_view from(std::size_t i) const noexcept { return {values + i}; }
  /// As a kernel takes it, from element i on. \param key  of the tensor and step  \param k  the slot's number
  auto at([[maybe_unused]] std::uint64_t key, [[maybe_unused]] std::size_t k, std::size_t i) const noexcept
  {
    if constexpr (real<S>)
      return values + i;
    else
      return stochastic<S>{values + i, {key, k, i}};
  }
  void read(float* to, std::size_t n, const slot&) const noexcept
    requires(short_float<S>)
  {
    decode(values, to, n);
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
  void write(const float* x, std::size_t n, const slot& s, noise random) const noexcept
  {
    s.is_nonnegative ? encode<false>(x, codes, scales, n, random) : encode<true>(x, codes, scales, n, random);
  }
};

/// The memory of one slot of one tensor.
template <class S, class Memory = host_memory>
class slot_memory {
 public:
  slot_memory() = default;
  slot_memory(std::size_t n, double value, const slot&, Memory memory = Memory()) : values_(n, convert(value), memory) {}

  slot_view<S> view() const noexcept { return {values_.get()}; }
  static std::size_t bytes(std::size_t n) noexcept { return n * sizeof(S); }
  /// Calls visit(key, span) on each of its arrays.
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
      : codes_(n, std::uint8_t(value == 0 ? 0u : s.is_nonnegative ? dynamic_map<false>::last : dynamic_map<true>::last), memory),
        scales_(blocks(n), float(value), memory)
  {
  }

  slot_view<block8> view() const noexcept { return {codes_.get(), scales_.get()}; }
  static std::size_t bytes(std::size_t n) noexcept { return n + blocks(n) * sizeof(float); }
  template <class Visit>
  void visit(std::string_view name, std::size_t n, const Visit& visit) const
  {
    visit(name, std::span<std::uint8_t>(codes_.get(), n));
    // In place for all but very long names: where state is written, memory must not run out half-way.
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

/// A block's sum of numbers that read(i, to, n) decodes.
template <class Term, class Backend, class Read>
double decoded_block_sum(const Backend& backend, std::size_t n, const Read& read) noexcept
{
  float decoded[reduce_block];
  for (std::size_t i = 0; i < n; i += stage)
    read(i, decoded + i, n - i < stage ? n - i : stage);
  return block_sum<Term>(backend, decoded, n);
}

}  // namespace detail

/// Of numbers in a shorter format.
template <class Term, class Backend, short_float S>
double block_sum(const Backend& backend, const S* x, std::size_t n) noexcept
{
  return detail::decoded_block_sum<Term>(backend, n, [x](std::size_t i, float* to, std::size_t m) { decode(x + i, to, m); });
}

}  // namespace gradus::inline GRADUS_ISA

#include <gradus/macros_on.hpp>
