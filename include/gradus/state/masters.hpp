#pragma once
/// \file
/// The memory of one tensor's master weights: none, floats, or the remainders that complete bfloat16 parameters.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include <gradus/kernel/arrays.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// Pointers to the remainders of one tensor, and to one bit for each of them.
struct remainders {
  remainder16* rest = nullptr;
  std::uint8_t* above = nullptr;
  /// The number of bytes of n bits, rounded up to words of 32 bits, because a GPU has no atomics on bytes.
  static constexpr std::size_t bytes(std::size_t n) noexcept { return (n / 32 + (n % 32 != 0)) * 4; }
};

/// The pointers by which a step finds the master weights; without any, a null pointer.
template <class Master>
using masters_pointer = std::conditional_t<std::is_same_v<Master, remainder16>, remainders, float*>;

/// Without master weights.
template <class Master, class Memory>
struct master_memory {
  static constexpr std::size_t bytes(std::size_t) noexcept { return 0; }
  float* get() const noexcept { return nullptr; }
};
/// Floats.
template <class Memory>
struct master_memory<float, Memory> : array_memory<float, Memory> {
  master_memory() = default;
  master_memory(std::size_t n, Memory memory) : array_memory<float, Memory>(n, 0, memory) {}

  static constexpr std::size_t bytes(std::size_t n) noexcept { return n * sizeof(float); }
  /// Sets the master weights to the parameters.
  template <class S, class Engine>
  void read(const S* parameters, std::size_t n, const Engine& engine)
  {
    engine.decode(parameters, this->get(), n);
  }
};
/// Remainders. While a tensor is removed, its parameters are kept too, because they are a part of the master weights.
template <class Memory>
class master_memory<remainder16, Memory> {
 public:
  master_memory() = default;
  master_memory(std::size_t n, Memory memory) : rest_(n, {}, memory), above_(remainders::bytes(n), 0, memory) {}

  static constexpr std::size_t bytes(std::size_t n) noexcept { return n * sizeof(remainder16) + remainders::bytes(n); }
  remainders get() const noexcept { return {rest_.get(), above_.get()}; }
  /// Sets the master weights to the parameters.
  template <class Engine>
  void read(const bfloat16*, std::size_t, const Engine&)
  {
    rest_.fill({});
  }

  /// Keeps a copy of the parameters.
  template <class Engine>
  void keep(const bfloat16* parameters, std::size_t n, Memory memory, const Engine& engine)
  {
    array_memory<bfloat16, Memory> copy(n, {}, memory);
    engine.copy(copy.get(), parameters, n * sizeof(bfloat16));
    kept_ = std::move(copy);
  }
  /// Writes the kept copy to the parameters.
  template <class Engine>
  void restore(bfloat16* parameters, std::size_t n, const Engine& engine)
  {
    engine.copy(parameters, kept_.get(), n * sizeof(bfloat16));
    kept_ = {};
  }
  bfloat16* kept() const noexcept { return kept_.get(); }

 private:
  array_memory<remainder16, Memory> rest_;
  array_memory<std::uint8_t, Memory> above_;
  array_memory<bfloat16, Memory> kept_;
};

/// The master weights of one tensor that has remainders, as floats that are read and written piece by piece. A piece
/// begins at a multiple of 32. \tparam Float  float, or const float if they may not be written
template <class Engine, class Float>
class joined_masters {
 public:
  using element_type = Float;

  joined_masters(const Engine& engine, bfloat16* parameters, const remainders& r, std::size_t n) noexcept
      : engine_(engine), parameters_(parameters), remainders_(r), n_(n)
  {}
  std::size_t size() const noexcept { return n_; }

  /// Copies n master weights to bytes.
  void read(std::size_t begin, std::size_t n, void* to) const
  {
    show(begin, n, true, [&](const completed& a) {
      for (std::size_t i = 0; i < n; ++i) {
        const float x = load<float>(a, i);
        std::memcpy(static_cast<unsigned char*>(to) + i * sizeof x, &x, sizeof x);
      }
    });
  }
  /// Sets n master weights, and with them the parameters.
  void write(std::size_t begin, std::size_t n, const void* from) const
    requires(!std::is_const_v<Float>)
  {
    show(begin, n, false, [&](const completed& a) {
      for (std::size_t i = 0; i < n; ++i) {
        float x;
        std::memcpy(&x, static_cast<const unsigned char*>(from) + i * sizeof x, sizeof x);
        store(a, i, x);
      }
    });
  }

 private:
  /// Calls f with a piece in host memory.
  template <class F>
  void show(std::size_t begin, std::size_t n, bool only_read, const F& f) const
  {
    const auto with_parameters = [&](std::span<bfloat16> p) {
      const auto with_rest = [&](std::span<remainder16> r) {
        const auto with_above = [&](std::span<std::uint8_t> a) { f(completed{p.data(), r.data(), a.data()}); };
        engine_.show(std::span(remainders_.above + begin / 8, remainders::bytes(n)), with_above, only_read);
      };
      engine_.show(std::span(remainders_.rest + begin, n), with_rest, only_read);
    };
    engine_.show(std::span(parameters_ + begin, n), with_parameters, only_read);
  }

  const Engine& engine_;
  bfloat16* parameters_;
  remainders remainders_;
  std::size_t n_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
