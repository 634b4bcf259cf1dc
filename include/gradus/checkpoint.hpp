#pragma once
/// \file
/// Checkpoints: saves an optimizer to a safetensors file and loads it again, bit for bit. docs/checkpoint.md has the
/// layout.
///
///     gradus::save(opt, "run.safetensors", {.parameters = true});
///     gradus::load(opt, "run.safetensors");  // after adding the same tensors, in any order
///
/// Works with `optimizer` of any recipe, precision and backend, and with `any_optimizer`. A save replaces the file as a
/// whole or not at all. A load checks everything that it needs from a file before it changes anything. The options and
/// the report are in checkpoint/options.hpp.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <gradus/checkpoint/loader.hpp>
#include <gradus/checkpoint/options.hpp>
#include <gradus/checkpoint/random_access_file.hpp>
#include <gradus/checkpoint/replaced_file.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/checkpoint/writer.hpp>
#include <gradus/error.hpp>
#include <gradus/optimizer.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// What can be saved and loaded: an `optimizer` or an `any_optimizer`.
template <class Opt>
concept resumable = requires(Opt& opt) {
  typename Opt::value_type;
  opt.recompute_second_moment_sum();
  opt.group_count();
};

/// Saves an optimizer to a file. If anything fails, an old file of this name stays as it is (see replaced_file).
/// \throws io_error               for a path that cannot be written, and a full disk
/// \throws std::invalid_argument  for a name that is not UTF-8
template <resumable Opt>
void save(const Opt& opt, const std::string& path, const save_options& o = {})
{
  const std::string where = "checkpoint " + detail::quote(path);
  std::string header;
  {
    const detail::fail_in context(where);
    header = detail::header_of(opt, o);
  }
  replaced_file file(path);
  file.write(header.data(), header.size());
  std::vector<unsigned char> staging;
  detail::for_each_saved(opt, o.parameters, [&](const std::string&, const auto& values) {
    detail::put_values(opt, values, staging, [&](const void* bytes, std::size_t count) { file.write(bytes, count); });
  });
  file.commit();
}

/// Saves an optimizer to anywhere. Calls write(const void* bytes, std::size_t count) with one piece after the other;
/// write returns whether it succeeded.
/// \throws io_error               if write returns false
/// \throws std::invalid_argument  for a name that is not UTF-8
template <resumable Opt, class Write>
void save_to(const Opt& opt, Write&& write, const save_options& o = {})
{
  const auto put = [&](const void* bytes, std::size_t count) {
    if (!write(bytes, count))
      detail::fail<io_error>("write returned false for " + std::to_string(count) +
                             " bytes of a checkpoint; expected them to be written");
  };
  const std::string header = detail::header_of(opt, o);
  put(header.data(), header.size());
  std::vector<unsigned char> staging;
  detail::for_each_saved(opt, o.parameters, [&](const std::string&, const auto& values) {
    detail::put_values(opt, values, staging, put);
  });
}

/// Loads a file that `save` or another program wrote into the tensors that have been added. Names decide which goes
/// where.
///
/// By default a load is strict: it refuses a file with another recipe, other groups, tensors or types, and lists the
/// first ten differences. A load that refuses has changed nothing. There is one exception: if the file becomes
/// unreadable half-way, after all checks, part of the state may already be loaded.
/// \throws io_error               for a file that cannot be read
/// \throws std::invalid_argument  for a file that is damaged or does not fit
template <resumable Opt>
load_report load(Opt& opt, const std::string& path, const load_options& o = {})
{
  random_access_file file(path);
  return detail::load_checkpoint(opt, "checkpoint " + detail::quote(path),
                                 {file.size(), &file,
                                  [](void* self, std::uint64_t offset, void* bytes, std::size_t count) {
                                    return static_cast<random_access_file*>(self)->read(offset, bytes, count);
                                  }},
                                 o);
}

/// Loads a checkpoint of `size` bytes from anywhere; otherwise as `load`. Calls read(std::uint64_t offset, void* bytes,
/// std::size_t count), which reads from that offset and returns whether it succeeded; count is at least 1.
/// \throws io_error               if read returns false
/// \throws std::invalid_argument  for a checkpoint that is damaged or does not fit
template <resumable Opt, class Read>
load_report load_from(Opt& opt, std::uint64_t size, Read&& read, const load_options& o = {})
{
  auto call = [&read](std::uint64_t offset, void* bytes, std::size_t count) -> bool {
    return read(offset, bytes, count);
  };
  return detail::load_checkpoint(opt, "checkpoint",
                                 {size, &call,
                                  [](void* self, std::uint64_t offset, void* bytes, std::size_t count) {
                                    return (*static_cast<decltype(call)*>(self))(offset, bytes, count);
                                  }},
                                 o);
}

/// Loads a checkpoint from memory; otherwise as `load`.
/// \throws std::invalid_argument  for a checkpoint that is damaged or does not fit
template <resumable Opt>
load_report load_from(Opt& opt, std::span<const std::byte> bytes, const load_options& o = {})
{
  return load_from(
      opt, bytes.size(),
      [bytes](std::uint64_t offset, void* to, std::size_t count) {
        std::memcpy(to, bytes.data() + offset, count);
        return true;
      },
      o);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
