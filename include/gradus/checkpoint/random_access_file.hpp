#pragma once
/// \file
/// Reads a file at any offset.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include <gradus/checkpoint/posix.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A regular file that is open for reading. Short reads go through a buffer.
class random_access_file {
 public:
  /// Opens a file. Refuses a path that cannot be read, and anything but a regular file.
  explicit random_access_file(const std::string& path) : path_(path)
  {
    if (path.empty() || path.find('\0') != std::string::npos)
      refuse(path.empty() ? "which is not a file name" : "followed by a zero byte");
#if GRADUS_POSIX
    static_assert(sizeof(off_t) >= 8, "gradus: define _FILE_OFFSET_BITS=64, or files over 2 GiB cannot be read.");
    const auto check = [this](int failed, const struct stat& status) {
      if (failed)
        refuse(std::strerror(errno));
      if (!S_ISREG(status.st_mode))
        refuse(S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
    };
    struct stat status = {};
    check(stat(path.c_str(), &status), status);  // first, because opening a device may do something
    // The path may have become something else: O_NONBLOCK, because opening a pipe would wait for a writer.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    check(descriptor_ < 0 || fstat(descriptor_, &status) != 0, status);
    size_ = static_cast<std::uint64_t>(status.st_size);
#else
    file_.reset(std::fopen(path.c_str(), "rb"));
    if (!file_ || !seek(0, SEEK_END))
      refuse(std::strerror(errno));
    size_ = static_cast<std::uint64_t>(tell());
#endif
  }
  random_access_file(const random_access_file&) = delete;
  random_access_file& operator=(const random_access_file&) = delete;
  ~random_access_file() { close(); }

  /// The size of the file when it was opened, in bytes.
  std::uint64_t size() const noexcept { return size_; }

  /// Reads `count` bytes from an offset. Returns false if it could not read all of them.
  bool read(std::uint64_t offset, void* bytes, std::size_t count) noexcept
  {
    if (count >= sizeof buffer_ || offset > size_ || count > size_ - offset)
      return read_directly(offset, bytes, count);
    if (offset < buffer_start_ || offset + count > buffer_end_) {
      const std::size_t n = size_ - offset < sizeof buffer_ ? static_cast<std::size_t>(size_ - offset) : sizeof buffer_;
      buffer_start_ = buffer_end_ = offset;
      if (!read_directly(offset, buffer_, n))
        return false;
      buffer_end_ += n;
    }
    std::memcpy(bytes, buffer_ + (offset - buffer_start_), count);
    return true;
  }

 private:
  bool read_directly(std::uint64_t offset, void* bytes, std::size_t count) noexcept
  {
#if GRADUS_POSIX
    constexpr std::size_t at_once = std::size_t(1) << 30;  // Linux reads at most 2 GiB in a call
    for (auto* to = static_cast<char*>(bytes); count > 0;) {
      const ssize_t n = ::pread(descriptor_, to, count < at_once ? count : at_once, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        return false;
      to += n;
      offset += static_cast<std::uint64_t>(n);
      count -= static_cast<std::size_t>(n);
    }
    return true;
#else
    return seek(static_cast<std::int64_t>(offset), SEEK_SET) && std::fread(bytes, 1, count, file_.get()) == count;
#endif
  }

  [[noreturn]] void refuse(const std::string& found)
  {
    close();
    detail::fail<io_error>("path is " + detail::quote(path_.c_str()) + ", " + found +
                           "; expected a file that can be read");
  }

#if GRADUS_POSIX
  void close() noexcept
  {
    if (descriptor_ >= 0)
      ::close(descriptor_);
    descriptor_ = -1;
  }
  int descriptor_ = -1;
#else
  void close() noexcept { file_.reset(); }
#if defined(_WIN32)
  bool seek(std::int64_t offset, int from) noexcept { return _fseeki64(file_.get(), offset, from) == 0; }
  std::int64_t tell() noexcept { return _ftelli64(file_.get()); }
#else
  bool seek(std::int64_t offset, int from) noexcept
  {
    return std::fseek(file_.get(), static_cast<long>(offset), from) == 0;
  }
  std::int64_t tell() noexcept { return std::ftell(file_.get()); }
#endif
  struct closer {
    void operator()(std::FILE* f) const noexcept { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, closer> file_;
#endif
  std::string path_;
  std::uint64_t size_ = 0;
  std::uint64_t buffer_start_ = 0, buffer_end_ = 0;  // the range of the file that the buffer holds
  char buffer_[32768];
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
