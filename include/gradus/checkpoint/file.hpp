#pragma once
/// \file
/// Files as checkpoints need them: read at any offset, and replaced as a whole or not at all.
///
/// On POSIX systems a written file is flushed to the disk, and then takes the old one's place in one move: whatever
/// happens meanwhile, a kill or a power cut, either the old file is there or the new one. On others, plain stdio stands in:
/// nothing is flushed to the disk, and a kill between two moves can leave the new file under its temporary name alone.

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <gradus/error.hpp>

#if defined(__unix__) || defined(__APPLE__)
#define GRADUS_POSIX 1
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#else
#define GRADUS_POSIX 0
#endif

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// A file whose bytes are read at offsets, small pieces through a buffer. Its size is that at opening.
class random_access_file {
 public:
  explicit random_access_file(const std::string& path) : path_(path)
  {
    if (path.empty() || path.find('\0') != std::string::npos)
      refuse(path.empty() ? "which is no name" : "followed by a zero byte");
#if GRADUS_POSIX
    static_assert(sizeof(off_t) >= 8, "gradus: define _FILE_OFFSET_BITS=64, or files over 2 GiB cannot be read.");
    // Not blocking: the opening of a pipe would wait for somebody who writes.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status = {};
    if (descriptor_ < 0 || fstat(descriptor_, &status) != 0)
      refuse(std::strerror(errno));
    if (!S_ISREG(status.st_mode))
      refuse(S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
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

  std::uint64_t size() const noexcept { return size_; }

  /// Fills `bytes` from there; false if not all could be read.
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
    detail::fail("path is " + detail::quote(path_.c_str()) + ", " + found + "; expected a file that can be read");
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
  bool seek(std::int64_t offset, int from) noexcept { return std::fseek(file_.get(), static_cast<long>(offset), from) == 0; }
  std::int64_t tell() noexcept { return std::ftell(file_.get()); }
#endif
  struct closer {
    void operator()(std::FILE* f) const noexcept { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, closer> file_;
#endif
  std::string path_;
  std::uint64_t size_ = 0;
  std::uint64_t buffer_start_ = 0, buffer_end_ = 0;  // which of the file's bytes are in the buffer
  char buffer_[32768];
};

/// Writes a new file beside an old one, under the name PATH.partial, and puts it in the old one's place by `commit`.
///
/// A link is followed: what it points to is replaced. The new file has the old one's permissions, and where there was none,
/// those that the umask gives. Without `commit` the partial file is deleted; one that a killed process of the same user has
/// left behind is deleted by the next save to the same path, and two saves to one path at once are refused. Whatever else
/// has the name PATH.partial is left alone, and where the file system takes no name so long, a short one is found: the
/// partial file is then called .gradus-….partial, in the same folder.
class replaced_file {
 public:
  explicit replaced_file(const std::string& path) : given_(path), path_(path)
  {
    if (path.empty() || path.find('\0') != std::string::npos)
      refuse(path.empty() ? "which is no name" : "followed by a zero byte");
#if GRADUS_POSIX
    struct stat old = {};
    if (lstat(path.c_str(), &old) == 0 && S_ISLNK(old.st_mode)) {
      char* const target = ::realpath(path.c_str(), nullptr);
      if (!target)
        refuse("a link that leads nowhere");
      path_ = target;
      std::free(target);
    }
    const bool exists = stat(path_.c_str(), &old) == 0;
    if (!exists && errno == ENAMETOOLONG)
      refuse(std::strerror(errno));
    if (exists && !S_ISREG(old.st_mode))
      refuse(S_ISDIR(old.st_mode) ? "a folder" : "not a regular file");
    const int descriptor = create(exists ? old.st_mode & 0777u : 0666u);
    if (exists)
      (void)!fchmod(descriptor, old.st_mode & 07777);
    file_ = fdopen(descriptor, "wb");
    if (!file_) {
      std::remove(partial_.c_str());
      ::close(descriptor);
    }
#else
    partial_ = path_ + ".partial";
    file_ = std::fopen(partial_.c_str(), "wb");
#endif
    if (!file_)
      refuse_error("could not be created");
  }
  replaced_file(const replaced_file&) = delete;
  replaced_file& operator=(const replaced_file&) = delete;
  ~replaced_file()
  {
    if (file_) {
      std::remove(partial_.c_str());
      std::fclose(file_);
    }
  }

  void write(const void* bytes, std::size_t count)
  {
    if (count > 0 && std::fwrite(bytes, 1, count, file_) != count)
      refuse_error("could not be written");
  }

  /// Makes the new file the only one.
  void commit()
  {
    bool good = std::fflush(file_) == 0;
#if GRADUS_POSIX
    good = good && fsync(fileno(file_)) == 0;
    if (!good || std::rename(partial_.c_str(), path_.c_str()) != 0)
      refuse_error("could not be written");
    std::fclose(file_);
    file_ = nullptr;
    // The new name is on the disk when the folder is.
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (descriptor >= 0) {
      (void)!fsync(descriptor);  // not every file system can, and the file is there in any case
      ::close(descriptor);
    }
#else
    good = std::fclose(file_) == 0 && good;
    file_ = nullptr;
    if (good)
      std::remove(path_.c_str());  // rename does not replace a file everywhere
    if (!good || std::rename(partial_.c_str(), path_.c_str()) != 0)
      refuse_error("could not be written");
#endif
  }

 private:
#if GRADUS_POSIX
  /// Creates the partial file, so that nobody else has it, and locks it. \param mode  its permissions, before the umask
  int create(unsigned mode)
  {
    const std::size_t slash = path_.rfind('/'), name = slash == std::string::npos ? 0 : slash + 1;
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a, of the name and, from the third try on, of what no other process has
    const auto take = [&hash](const void* bytes, std::size_t count) {
      for (std::size_t i = 0; i < count; ++i)
        hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
    };
    take(path_.data() + name, path_.size() - name);
    for (int tries = 0;; ++tries) {
      partial_ = path_ + ".partial";
      if (tries > 0) {
        partial_ = path_.substr(0, name) + ".gradus-";
        for (int shift = 60; shift >= 0; shift -= 4)
          partial_ += "0123456789abcdef"[hash >> shift & 15];
        partial_ += ".partial";
        const pid_t process = getpid();
        const void* const self = this;
        struct timespec now = {};
        clock_gettime(CLOCK_MONOTONIC, &now);
        take(&process, sizeof process);
        take(&self, sizeof self);
        take(&now.tv_nsec, sizeof now.tv_nsec);
      }
      for (bool again = true; again;) {
        const int descriptor = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
        if (descriptor >= 0) {
          // Another save may have taken it for one that was left behind, before it was locked.
          const bool locked = flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
          if (locked && is_at(descriptor, partial_))
            return descriptor;
          ::close(descriptor);
        } else if (errno == EEXIST && tries < 100)
          again = remove_left_behind();
        else if (errno == ENAMETOOLONG && tries == 0)
          again = false;
        else
          refuse_error("could not be created");
      }
    }
  }

  /// Deletes a partial file of a process that was killed; false where it is something else, which stays.
  bool remove_left_behind()
  {
    struct stat found = {};
    if (lstat(partial_.c_str(), &found) != 0)
      return errno == ENOENT;
    if (!S_ISREG(found.st_mode) || found.st_nlink != 1 || found.st_uid != geteuid())
      return false;
    // It is opened for reading where its permissions do not let it be written.
    int descriptor = ::open(partial_.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0 && errno == EACCES)
      descriptor = ::open(partial_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0)
      return errno == ENOENT;
    const bool mine = flock(descriptor, LOCK_EX | LOCK_NB) == 0, is_written = !mine && errno == EWOULDBLOCK;
    const bool gone = !is_at(descriptor, partial_);  // renamed meanwhile by a save that has finished, or deleted
    const bool removed = mine && !gone && ::unlink(partial_.c_str()) == 0;
    ::close(descriptor);
    if (is_written && !gone)
      refuse("which another save is writing");
    return gone || removed;
  }

  /// Whether the open file is the one that has this name.
  static bool is_at(int descriptor, const std::string& name) noexcept
  {
    struct stat mine = {}, there = {};
    return fstat(descriptor, &mine) == 0 && lstat(name.c_str(), &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
  }
#endif

  [[noreturn]] void refuse(const std::string& found)
  {
    detail::fail("path is " + detail::quote(given_.c_str()) + ", " + found + "; expected a file that can be written");
  }
  /// With the reason that errno gives. The old file is as it was, and the partial one is gone.
  [[noreturn]] void refuse_error(const std::string& what)
  {
    const std::string reason = std::strerror(errno);
    if (file_) {
      std::remove(partial_.c_str());
      std::fclose(file_);
      file_ = nullptr;
    }
    detail::fail("path is " + detail::quote(given_) + ", and " + partial_ + " " + what + ": " + reason + "; expected room and the right to write there");
  }

  std::string given_, path_, partial_;
  std::FILE* file_ = nullptr;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
