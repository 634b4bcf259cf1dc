#pragma once
/// \file
/// Checkpoints of a sharded optimizer: one file, which all ranks write at once and which is the plain optimizer's, to the
/// byte. Any number of ranks, and the plain optimizer, load it.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/checkpoint/posix.hpp>
#include <gradus/distributed/agreement.hpp>
#include <gradus/distributed/sharded.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// A file that several processes write to, each at offsets of its own. It must exist.
class shared_file {
 public:
  explicit shared_file(const std::string& path) : path_(path)
  {
#if GRADUS_POSIX
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor_ < 0)
      refuse("opened");
#else
    fail("save of a sharded optimizer needs a POSIX system");
#endif
  }
  shared_file(const shared_file&) = delete;
  shared_file& operator=(const shared_file&) = delete;
  ~shared_file() { close(); }

  void write(std::uint64_t offset, const void* bytes, std::size_t count)
  {
#if GRADUS_POSIX
    constexpr std::size_t at_once = std::size_t(1) << 30;
    for (const auto* from = static_cast<const char*>(bytes); count > 0;) {
      const ssize_t n = ::pwrite(descriptor_, from, count < at_once ? count : at_once, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        refuse("written");
      from += n;
      offset += static_cast<std::uint64_t>(n);
      count -= static_cast<std::size_t>(n);
    }
#else
    (void)offset, (void)bytes, (void)count;
#endif
  }
  /// Flushes to the disk.
  void flush()
  {
#if GRADUS_POSIX
    if (fsync(descriptor_) != 0)
      refuse("written");
#endif
  }

 private:
  void close() noexcept
  {
#if GRADUS_POSIX
    if (descriptor_ >= 0)
      ::close(descriptor_);
    descriptor_ = -1;
#endif
  }
  [[noreturn]] void refuse(const char* what)
  {
    const std::string reason = std::strerror(errno);
    close();
    fail("path is " + quote(path_) + ", which could not be " + what + ": " + reason +
         "; expected a file that every rank can write, with space");
  }

  std::string path_;
  int descriptor_ = -1;
};

/// Writes this rank's ranges. \param header  the file's first bytes, after which the arrays follow
template <class Opt>
void write_ranges(const Opt& opt, bool parameters, std::size_t rank, std::uint64_t header, shared_file& file)
{
  std::uint64_t offset = header;
  std::vector<unsigned char> staging;
  const auto put = [&]<class X>(std::uint64_t at, const X* elements, std::size_t n) {
    put_elements(elements, n, staging, [&](const void* bytes, std::size_t count) {
      file.write(at, bytes, count);
      at += count;
    });
  };
  const auto put_ranges = [&]<class X>(const sharded_values<X>& values) {
    for (const values_of_part& p : values.parts()) {
      if (p.data) {
        put(offset + p.first * sizeof(X), static_cast<const X*>(p.data), p.n);
        continue;
      }
      constexpr std::size_t at_once = staging_bytes / sizeof(X);
      staging.resize(staging_bytes);
      for (std::size_t i = 0, n; i < p.n; i += n) {
        n = p.n - i < at_once ? p.n - i : at_once;
        p.read(i, n, staging.data());
        safetensors::change_order(staging.data(), n, sizeof(X));
        file.write(offset + (p.first + i) * sizeof(X), staging.data(), n * sizeof(X));
      }
    }
    offset += values.size() * sizeof(X);
  };
  // In the order of for_each_saved.
  for (const std::size_t bytes : {8u, 4u, 2u, 1u}) {
    const auto state = [&]<class Values>(std::string_view, std::string_view, const Values& values) {
      using element = typename Values::element_type;
      if (sizeof(element) != bytes)
        return;
      if constexpr (requires { values.parts(); })
        put_ranges(values);
      else if constexpr (requires { values.data(); }) {
        if (rank == 0)  // counts and sums, which all ranks have
          put(offset, values.data(), values.size());
        offset += values.size_bytes();
      }
    };
    opt.visit_state(state);
    std::size_t tensor = 0;
    if (parameters)
      opt.visit_tensors([&]<class X>(std::string_view, std::span<X> values, std::size_t, bool) {
        const std::size_t index = tensor++;
        if (sizeof(X) != bytes || values.empty())
          return;
        opt.for_ranges(index, [&](const element_range& r) {
          std::uint64_t at = offset + r.begin * sizeof(X);
          put_values(opt, values.subspan(r.begin, r.size()), staging, [&](const void* data, std::size_t n) {
            file.write(at, data, n);
            at += n;
          });
        });
        offset += values.size_bytes();
      });
  }
}

}  // namespace detail

/// Saves a sharded optimizer to the file that the plain optimizer would write, to the byte. Collective; every rank writes
/// its own ranges, so all must reach the same file system. If anything fails on any rank, an old file of this name stays
/// as it is, and every rank throws.
/// \throws std::invalid_argument  as `save` of an optimizer; and if the ranks give different paths or options
template <class Recipe, class T, class Comm, class Backend>
void save(sharded<Recipe, T, Comm, Backend>& opt, const std::string& path, const save_options& o = {})
{
  auto& talk = opt.talk();
  std::string problem, header;
  std::exception_ptr thrown;
  std::optional<replaced_file> file;
  const std::string where = "checkpoint " + detail::quote(path);
  opt.guarded(problem, thrown, [&] {
    const detail::fail_in context(where);
    header = detail::header_of(opt, o);
  });
  talk.begin("save()", detail::running_hash().add(opt.settings()).add(path).add(header).add(o.parameters).value());
  opt.speak(problem, thrown);
  opt.guarded(problem, thrown, [&] {
    if (talk.rank() != 0)
      return;
    file.emplace(path);
    file->write(header.data(), header.size());
  });
  opt.speak(problem, thrown);
  // The partial file's name is chosen by rank 0.
  std::string partial = file ? file->partial() : std::string();
  std::uint64_t length = partial.size();
  const auto broadcast = [&](void* bytes, std::size_t n) {
    if (talk.ranks() == 1)
      return;
    talk.broadcast(bytes, n, 0, "name of the file");
  };
  broadcast(&length, sizeof length);
  partial.resize(std::size_t(length));
  broadcast(partial.data(), partial.size());
  opt.guarded(problem, thrown, [&] {
    detail::shared_file mine(partial);
    detail::write_ranges(std::as_const(opt), o.parameters, talk.rank(), header.size(), mine);
    mine.flush();
  });
  opt.speak(problem, thrown);
  opt.guarded(problem, thrown, [&] {
    if (file)
      file->commit();
  });
  opt.speak(problem, thrown);
}

/// Loads a file that `save` wrote for any number of ranks, or for the plain optimizer. Collective; a rank reads all
/// parameters and its own ranges of the state. Otherwise as `load` of an optimizer.
/// \throws std::invalid_argument  on every rank, if the file is damaged, does not fit or cannot be read on any; then
///         nothing has changed. If memory runs out on a rank, or the file becomes unreadable, after all checks, a part of
///         the state may already be loaded
template <class Recipe, class T, class Comm, class Backend>
load_report load(sharded<Recipe, T, Comm, Backend>& opt, const std::string& path, const load_options& o = {})
{
  auto& talk = opt.talk();
  std::optional<random_access_file> file;
  std::string problem;
  std::exception_ptr thrown;
  opt.guarded(problem, thrown, [&] { file.emplace(path); });
  talk.begin("load()", detail::running_hash()
                           .add(opt.settings())
                           .add(path)
                           .add(o.parameters)
                           .add(o.settings)
                           .add(o.lenient)
                           .add(o.convert)
                           .value());
  opt.speak(problem, thrown);
  const std::string where = "checkpoint " + detail::quote(path);
  const detail::byte_source source{file->size(), &*file,
                                   [](void* self, std::uint64_t offset, void* bytes, std::size_t count) {
                                     return static_cast<random_access_file*>(self)->read(offset, bytes, count);
                                   }};
  load_report report;
  // load_checkpoint calls before_load after its last check and before its first change. There the ranks agree.
  bool others_failed = false;
  opt.begin_load(others_failed);
  opt.guarded(problem, thrown, [&] { report = detail::load_checkpoint(opt, where, source, o); });
#if GRADUS_EXCEPTIONS
  if (others_failed)
    std::rethrow_exception(thrown);
#endif
  // Fails on all ranks, either in place of before_load or, if the file became unreadable, after it.
  opt.speak(problem, thrown);
  opt.after_load();
  return report;
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
