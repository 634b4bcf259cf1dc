#pragma once
/// \file
/// Replaces a file as a whole or not at all.
///
/// On POSIX systems and Windows the new file is flushed to the disk and takes the old file's place in one move, so one of
/// the two survives a kill or a power cut at any moment. On other systems nothing is flushed, and a kill between two
/// moves can leave only the new file, under its temporary name.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include <gradus/checkpoint/posix.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Writes a new file under the name PATH.partial; `commit` renames it to PATH.
///
/// A symbolic link is followed, and its target is replaced, unless another user may have planted it: in a folder that
/// everybody may write to, only links of this user and of the folder's owner are followed.
///
/// The new file gets the permissions that the umask allows. If it replaces a file, it gets that file's permissions and
/// group instead; if the group cannot be kept, the other group gets no more than everybody had. From another user's file
/// it takes no permission that the umask forbids. It never sets user or group ids when it is executed.
///
/// Without `commit` the partial file is deleted. If a process
/// was killed and left a partial file, the same user's next save to that path deletes it. Of two saves to one path at
/// the same time, one is refused. If PATH.partial is anything else, or too long a name, the partial file is called
/// .gradus-….partial, in the same folder.
///
/// On Windows a path is in the process's code page, links are replaced, not followed, and PATH.partial is the only name.
class replaced_file {
 public:
  /// Creates the partial file. Refuses a path that cannot be written, and anything but a regular file or a link to one.
  explicit replaced_file(const std::string& path) : given_(path), path_(path)
  {
    if (path.empty() || path.find('\0') != std::string::npos)
      refuse(path.empty() ? "which is not a file name" : "followed by a zero byte");
#if GRADUS_POSIX
    follow_links();
    struct stat old = {};
    const bool exists = stat(path_.c_str(), &old) == 0;
    if (!exists && errno == ENAMETOOLONG)
      refuse(std::strerror(errno));
    if (exists && !S_ISREG(old.st_mode))
      refuse(S_ISDIR(old.st_mode) ? "a folder" : "not a regular file");
    const int descriptor = create(!exists                   ? 0666u
                                  : old.st_uid == geteuid() ? old.st_mode & 0700u
                                                            : for_another_group(old.st_mode & 0666u));
    if (exists && old.st_uid == geteuid())
      keep_permissions(descriptor, old);
    file_ = fdopen(descriptor, "wb");
    if (!file_) {
      std::remove(partial_.c_str());
      ::close(descriptor);
    }
#else
    partial_ = path_ + ".partial";
#if defined(_WIN32)
    constexpr unsigned long none = ~0ul, folder = 0x10;
    const unsigned long attributes = GetFileAttributesA(path.c_str());
    if (attributes != none && attributes & folder)
      refuse("a folder");
    // A killed process's partial file can be deleted; one that is open cannot.
    if (std::remove(partial_.c_str()) != 0 && errno == EACCES && (GetFileAttributesA(partial_.c_str()) & folder) == 0)
      refuse("which another save is writing");
    file_ = std::fopen(partial_.c_str(), "wbx");
#else
    file_ = std::fopen(partial_.c_str(), "wb");
#endif
#endif
    if (!file_)
      refuse_error("could not be created");
  }
  replaced_file(const replaced_file&) = delete;
  replaced_file& operator=(const replaced_file&) = delete;
  ~replaced_file()
  {
    if (file_)
      abandon();
  }

  /// The partial file's name, for other processes that write parts of it before `commit`.
  const std::string& partial() const noexcept { return partial_; }

  /// Appends bytes to the partial file.
  void write(const void* bytes, std::size_t count)
  {
    if (count > 0 && std::fwrite(bytes, 1, count, file_) != count)
      refuse_error("could not be written");
  }

  /// Replaces the old file by the new one. On POSIX systems and Windows the new file is on the disk when this returns.
  void commit()
  {
#if GRADUS_POSIX
    // Before the old file is gone, because memory may run out.
    const std::string folder = path_.substr(0, name_begin());
#endif
    bool good = std::fflush(file_) == 0;
#if GRADUS_POSIX
    good = good && fsync(fileno(file_)) == 0;
    if (!good || std::rename(partial_.c_str(), path_.c_str()) != 0)
      refuse_error("could not be written");
    std::fclose(file_);
    file_ = nullptr;
    // The new name is stored in the folder, so the folder must be flushed too.
    const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (descriptor >= 0) {
      (void)!fsync(descriptor);  // some file systems cannot, and the file is complete anyway
      ::close(descriptor);
    }
#else
#if defined(_WIN32)
    good = good && _commit(_fileno(file_)) == 0;
    if (!good)
      refuse_error("could not be written");
    good = std::fclose(file_) == 0;  // or it could not be renamed
    file_ = nullptr;
    constexpr unsigned long replace_existing = 1, write_through = 8;
    if (!good || !MoveFileExA(partial_.c_str(), path_.c_str(), replace_existing | write_through)) {
      const unsigned long error = good ? GetLastError() : 0;
      const int reason = errno;
      std::remove(partial_.c_str());
      errno = !good                         ? reason
              : error == 5 || error == 32   ? EACCES  // access denied, sharing violation
              : error == 39 || error == 112 ? ENOSPC
              : error == 2 || error == 3    ? ENOENT
                                            : EIO;
      refuse_error("could not be written");
    }
#else
    good = std::fclose(file_) == 0 && good;
    file_ = nullptr;
    if (good)
      std::remove(path_.c_str());  // rename does not replace files on every system
    if (!good || std::rename(partial_.c_str(), path_.c_str()) != 0)
      refuse_error("could not be written");
#endif
#endif
  }

 private:
#if GRADUS_POSIX
  /// The position after the path's last slash: its folder ends there.
  std::size_t name_begin() const noexcept
  {
    const std::size_t slash = path_.rfind('/');
    return slash == std::string::npos ? 0 : slash + 1;
  }

  /// Replaces the path by where it leads.
  void follow_links()
  {
    struct stat found = {}, folder = {};
    for (int links = 0; lstat(path_.c_str(), &found) == 0 ? S_ISLNK(found.st_mode) : links > 0; ++links) {
      char target[4096];
      const ssize_t length = links < 40 ? ::readlink(path_.c_str(), target, sizeof target) : 0;
      if (length <= 0 || static_cast<std::size_t>(length) == sizeof target)
        refuse("a link that leads nowhere");
      const std::string in = path_.substr(0, name_begin());
      if (found.st_uid != geteuid() && stat(in.empty() ? "." : in.c_str(), &folder) == 0 &&
          (folder.st_mode & S_IWOTH) && found.st_uid != folder.st_uid)
        refuse("a link of another user in a folder that everybody may write to");
      path_ = (target[0] == '/' ? std::string() : in) + std::string(target, static_cast<std::size_t>(length));
    }
  }

  /// Permissions for a file of another group: its members get what everybody gets.
  static unsigned for_another_group(unsigned mode) noexcept { return mode & (0707u | (mode & 07u) << 3); }

  /// Gives the new file the old one's group and permissions, or fewer.
  static void keep_permissions(int descriptor, const struct stat& old) noexcept
  {
    struct stat mine = {};
    const bool same_group = (fstat(descriptor, &mine) == 0 && mine.st_gid == old.st_gid) ||
                            fchown(descriptor, static_cast<uid_t>(-1), old.st_gid) == 0;
    const unsigned mode = old.st_mode & 0777u;
    (void)!fchmod(descriptor, same_group ? mode : for_another_group(mode));
  }

  /// Creates and locks the partial file, which no other process may have. \param mode  its permissions, before the
  /// umask
  int create(unsigned mode)
  {
    const std::size_t name = name_begin();
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a of the name; later tries add what only this process has
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
          // Before it was locked, another save may have deleted it as left behind.
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

  /// Deletes the partial file of a process that was killed. Returns false if it is something else, and leaves that
  /// alone.
  bool remove_left_behind()
  {
    struct stat found = {};
    if (lstat(partial_.c_str(), &found) != 0)
      return errno == ENOENT;
    if (!S_ISREG(found.st_mode) || found.st_nlink != 1 || found.st_uid != geteuid())
      return false;
    // If its permissions forbid writing, it is opened for reading.
    int descriptor = ::open(partial_.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0 && errno == EACCES)
      descriptor = ::open(partial_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0)
      return errno == ENOENT;
    const bool mine = flock(descriptor, LOCK_EX | LOCK_NB) == 0, is_written = !mine && errno == EWOULDBLOCK;
    const bool gone = !is_at(descriptor, partial_);  // another save has finished and renamed it, or has deleted it
    const bool removed = mine && !gone && ::unlink(partial_.c_str()) == 0;
    ::close(descriptor);
    if (is_written && !gone)
      refuse("which another save is writing");
    return gone || removed;
  }

  /// Whether this name belongs to the open file.
  static bool is_at(int descriptor, const std::string& name) noexcept
  {
    struct stat mine = {}, there = {};
    return fstat(descriptor, &mine) == 0 && lstat(name.c_str(), &there) == 0 && mine.st_ino == there.st_ino &&
           mine.st_dev == there.st_dev;
  }
#endif

  /// Closes and deletes the partial file.
  void abandon() noexcept
  {
#if GRADUS_POSIX
    std::remove(partial_.c_str());  // before another save can lock it
    std::fclose(file_);
#else
    std::fclose(file_);  // Windows deletes no open file
    std::remove(partial_.c_str());
#endif
    file_ = nullptr;
  }

  [[noreturn]] void refuse(const std::string& found)
  {
    detail::fail<io_error>("path is " + detail::quote(given_.c_str()) + ", " + found +
                           "; expected a file that can be written");
  }
  /// Refuses with the reason in errno. Deletes the partial file and leaves the old file unchanged.
  [[noreturn]] void refuse_error(const std::string& what)
  {
    const std::string reason = std::strerror(errno);
    if (file_)
      abandon();
    detail::fail<io_error>("path is " + detail::quote(given_) + ", and " + partial_ + " " + what + ": " + reason +
                           "; expected free space and write permission there");
  }

  std::string given_, path_, partial_;
  std::FILE* file_ = nullptr;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
