#pragma once
/// \file
/// Moves values between a checkpoint and the optimizer's memory, which may be on a device. Values that go to or come
/// from a device, or are converted, pass through a buffer piece by piece.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/checkpoint/safetensors/convert.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The most bytes that pass through a buffer at a time.
inline constexpr std::size_t staging_bytes = std::size_t(1) << 20;

/// Whether the optimizer says that its memory is on a device.
template <class Opt>
inline constexpr bool is_on_device = requires { requires Opt::on_device; };

/// Wraps a visitor of state so that it sees a device's arrays themselves, not copies.
template <class F>
struct in_place {
  const F& f;
  explicit in_place(const F& visitor) noexcept : f(visitor) {}
  static constexpr bool takes_device_memory = true;
  template <class X>
  void operator()(std::string_view tensor, std::string_view slot, std::span<X> values) const
  {
    f(tensor, slot, values);
  }
};

/// Calls put(bytes, count) for the bytes of a span: once if they are in host memory, else piece by piece.
template <class Opt, class X, class Put>
void put_values([[maybe_unused]] const Opt& opt, std::span<X> values, std::vector<unsigned char>& staging,
                const Put& put)
{
  if constexpr (is_on_device<Opt>) {
    staging.resize(staging_bytes);
    const auto* const from = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0, n; i < values.size_bytes(); i += n) {
      n = values.size_bytes() - i < staging_bytes ? values.size_bytes() - i : staging_bytes;
      opt.copy_memory(staging.data(), from + i, n);
      put(staging.data(), n);
    }
  } else if (!values.empty())
    put(values.data(), values.size_bytes());
}

/// A checkpoint's bytes, in a file or elsewhere. read(self, offset, bytes, count) returns whether it could read all of
/// them.
struct byte_source {
  std::uint64_t size;
  void* self;
  bool (*read)(void* self, std::uint64_t offset, void* bytes, std::size_t count);
};

/// Writes to the optimizer's memory. copy(self, to, from, bytes) copies to a device; copy is null for host memory.
struct memory_writer {
  const void* self;
  void (*copy)(const void* self, void* to, const void* from, std::size_t bytes);
};

/// The memory_writer of an optimizer.
template <class Opt>
memory_writer memory_writer_of(const Opt& opt)
{
  memory_writer memory{&opt, nullptr};
  if constexpr (is_on_device<Opt>)
    memory.copy = [](const void* self, void* to, const void* from, std::size_t bytes) {
      static_cast<const Opt*>(self)->copy_memory(to, from, bytes);
    };
  return memory;
}

/// Reads a checkpoint's tensors into the optimizer's memory, and converts them if the types differ.
class value_reader {
 public:
  /// \param where       the beginning of every error message
  /// \param data_start  the offset of the first tensor's first byte
  value_reader(std::string where, const byte_source& source, std::uint64_t data_start, const memory_writer& memory)
      : where_(std::move(where)), source_(source), data_start_(data_start), memory_(memory)
  {}

  /// Allocates the buffers that `read` needs for this entry, so that `read` allocates nothing. A null entry needs none.
  void reserve(const safetensors::entry* e, const safetensors::dtype& type)
  {
    if (!e || !is_staged(*e, type))
      return;
    const std::uint64_t at_once = elements_at_once(*e);
    read_.reserve(static_cast<std::size_t>(at_once * e->type->bytes));
    converted_.reserve(static_cast<std::size_t>(at_once * type.bytes));
  }

  /// Reads an entry into `to` as elements of `type`. Does nothing for a null entry.
  void read(const safetensors::entry* e, const safetensors::dtype& type, void* to)
  {
    if (!e)
      return;
    const std::uint64_t from = data_start_ + e->begin;
    bool good = true;
    if (!is_staged(*e, type))
      good = source_.read(source_.self, from, to, static_cast<std::size_t>(e->end - e->begin));
    else {
      const std::uint64_t at_once = elements_at_once(*e);
      read_.resize(static_cast<std::size_t>(at_once * e->type->bytes));
      converted_.resize(static_cast<std::size_t>(at_once * type.bytes));
      auto* out = static_cast<unsigned char*>(to);
      for (std::uint64_t i = 0; good && i < e->elements; i += at_once) {
        const auto n = static_cast<std::size_t>(e->elements - i < at_once ? e->elements - i : at_once);
        good = source_.read(source_.self, from + i * e->type->bytes, read_.data(), n * e->type->bytes);
        if (!good)
          break;
        if (e->type != &type)
          safetensors::convert(*e->type, read_.data(), type, converted_.data(), n);
        const auto& piece = e->type == &type ? read_ : converted_;
        if (memory_.copy)
          memory_.copy(memory_.self, out + i * type.bytes, piece.data(), n * type.bytes);
        else
          std::memcpy(out + i * type.bytes, piece.data(), n * type.bytes);
      }
    }
    if (!good)
      fail(where_ + ": became unreadable during the load; the optimizer is loaded in part, so load a checkpoint again");
  }

 private:
  bool is_staged(const safetensors::entry& e, const safetensors::dtype& type) const noexcept
  {
    return e.type != &type || memory_.copy;
  }
  static std::uint64_t elements_at_once(const safetensors::entry& e) noexcept
  {
    return e.elements < staging_bytes / 8 ? e.elements : staging_bytes / 8;
  }

  std::string where_;
  byte_source source_;
  std::uint64_t data_start_;
  memory_writer memory_;
  std::vector<unsigned char> read_, converted_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
