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

#include <gradus/checkpoint/safetensors/byte_order.hpp>
#include <gradus/checkpoint/safetensors/convert.hpp>
#include <gradus/checkpoint/safetensors/dtype.hpp>
#include <gradus/checkpoint/safetensors/header.hpp>
#include <gradus/error.hpp>
#include <gradus/state/masters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The most bytes that pass through a buffer at a time.
inline constexpr std::size_t staging_bytes = std::size_t(1) << 20;

/// Whether the optimizer says that its memory is on a device.
template <class Opt>
inline constexpr bool is_on_device = requires { requires Opt::on_device; };

/// Wraps a visitor of state so that it sees a device's arrays themselves, and master weights that are stored as
/// remainders piece by piece, not copies.
template <class F>
struct in_place {
  const F& f;
  explicit in_place(const F& visitor) noexcept : f(visitor) {}
  static constexpr bool takes_device_memory = true, takes_masters_in_pieces = true;
  template <class Values>
  void operator()(std::string_view tensor, std::string_view slot, const Values& values) const
  {
    f(tensor, slot, values);
  }
};

/// Calls put(bytes, count) for the bytes that n elements in host memory have in a file: once if they have them in memory
/// too, else piece by piece.
template <class X, class Put>
void put_elements(const X* elements, std::size_t n, [[maybe_unused]] std::vector<unsigned char>& staging,
                  const Put& put)
{
  if constexpr (safetensors::has_file_order || sizeof(X) == 1)
    put(elements, n * sizeof(X));
  else {
    staging.resize(staging_bytes);
    constexpr std::size_t at_once = staging_bytes / sizeof(X);
    for (std::size_t i = 0, count; i < n; i += count) {
      count = n - i < at_once ? n - i : at_once;
      std::memcpy(staging.data(), elements + i, count * sizeof(X));
      safetensors::change_order(staging.data(), count, sizeof(X));
      put(staging.data(), count * sizeof(X));
    }
  }
}

/// Calls put(bytes, count) for the bytes of a span in a file: once if they are in host memory, else piece by piece.
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
      safetensors::change_order(staging.data(), n / sizeof(X), sizeof(X));
      put(staging.data(), n);
    }
  } else if (!values.empty())
    put_elements(values.data(), values.size(), staging, put);
}

/// The same for master weights that are stored as remainders.
template <class Opt, class Engine, class Put>
void put_values(const Opt&, const joined_masters<Engine, const float>& values, std::vector<unsigned char>& staging,
                const Put& put)
{
  staging.resize(staging_bytes);
  constexpr std::size_t at_once = staging_bytes / sizeof(float);
  for (std::size_t i = 0, n; i < values.size(); i += n) {
    n = values.size() - i < at_once ? values.size() - i : at_once;
    values.read(i, n, staging.data());
    safetensors::change_order(staging.data(), n, sizeof(float));
    put(staging.data(), n * sizeof(float));
  }
}

/// A checkpoint's bytes, in a file or elsewhere. read(self, offset, bytes, count) returns whether it could read all of
/// them; it is called for at least one byte.
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

/// Writes n values from the begin-th on that are not simply in memory: master weights that are stored as remainders, or an
/// array of which a process has some ranges.
struct piece_writer {
  const void* self;
  void (*write)(const void* self, std::size_t begin, std::size_t n, const void* from);
  /// Whether it needs any of these values, so that the others are not read; null if it needs all.
  bool (*needs)(const void* self, std::size_t begin, std::size_t n) = nullptr;
};
/// The piece_writer of master weights.
template <class Engine>
piece_writer piece_writer_of(const joined_masters<Engine, float>& values)
{
  return {&values, [](const void* self, std::size_t begin, std::size_t n, const void* from) {
            static_cast<const joined_masters<Engine, float>*>(self)->write(begin, n, from);
          }};
}

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
  /// \param in_pieces  whether it is read to a piece_writer
  void reserve(const safetensors::entry* e, const safetensors::dtype& type, bool in_pieces)
  {
    if (!e || !(in_pieces || is_staged(*e, type)))
      return;
    const std::uint64_t at_once = elements_at_once(*e);
    read_.reserve(static_cast<std::size_t>(at_once * e->type->bytes));
    converted_.reserve(static_cast<std::size_t>(at_once * type.bytes));
  }

  /// Reads an entry into `to` as elements of `type`. Does nothing for a null or an empty entry.
  void read(const safetensors::entry* e, const safetensors::dtype& type, void* to)
  {
    if (!e || e->elements == 0)
      return;
    if (!is_staged(*e, type)) {
      check(source_.read(source_.self, data_start_ + e->begin, to, static_cast<std::size_t>(e->end - e->begin)));
      return safetensors::change_order(to, static_cast<std::size_t>(e->elements), type.bytes);
    }
    auto* const out = static_cast<unsigned char*>(to);
    const auto put = [&](std::size_t begin, std::size_t n, const void* piece) {
      if (memory_.copy)
        memory_.copy(memory_.self, out + begin * type.bytes, piece, n * type.bytes);
      else
        std::memcpy(out + begin * type.bytes, piece, n * type.bytes);
    };
    read_pieces(*e, type, put, [](std::size_t, std::size_t) { return true; });
  }
  /// Reads an entry to a piece_writer. Does nothing for a null entry.
  void read(const safetensors::entry* e, const safetensors::dtype& type, const piece_writer& to)
  {
    if (e)
      read_pieces(
          *e, type, [&](std::size_t begin, std::size_t n, const void* piece) { to.write(to.self, begin, n, piece); },
          [&](std::size_t begin, std::size_t n) { return !to.needs || to.needs(to.self, begin, n); });
  }

 private:
  /// Calls put(begin, n, values) for the elements of an entry, converted to `type`, piece by piece. Pieces for which
  /// needs(begin, n) is false are left out.
  template <class Put, class Needs>
  void read_pieces(const safetensors::entry& e, const safetensors::dtype& type, const Put& put, const Needs& needs)
  {
    const std::uint64_t at_once = elements_at_once(e);
    read_.resize(static_cast<std::size_t>(at_once * e.type->bytes));
    converted_.resize(static_cast<std::size_t>(at_once * type.bytes));
    for (std::uint64_t i = 0; i < e.elements; i += at_once) {
      const auto n = static_cast<std::size_t>(e.elements - i < at_once ? e.elements - i : at_once);
      if (!needs(static_cast<std::size_t>(i), n))
        continue;
      check(source_.read(source_.self, data_start_ + e.begin + i * e.type->bytes, read_.data(), n * e.type->bytes));
      if (e.type != &type)
        safetensors::convert(*e.type, read_.data(), type, converted_.data(), n);
      unsigned char* const values = e.type == &type ? read_.data() : converted_.data();
      safetensors::change_order(values, n, type.bytes);
      put(static_cast<std::size_t>(i), n, values);
    }
  }
  void check(bool good) const
  {
    if (!good)
      fail<io_error>(
          where_ + ": became unreadable during the load; the optimizer is loaded in part, so load a checkpoint again");
  }
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
