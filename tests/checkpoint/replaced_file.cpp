// Saving to a file: after a kill or on a full disk, either the old file is there or the new one, as a whole.

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/mount.h>
#endif

#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"
#include "support/folder.hpp"
#include "support/random.hpp"

namespace fs = std::filesystem;
using support::contains, support::content, support::folder, support::refusal;

namespace {

struct model {
  std::vector<float> w, g;
  gradus::optimizer<gradus::adam> opt{gradus::adam{.lr = 0.01}};
  explicit model(int steps, std::size_t n = 1000) : w(n, 0.5f), g(n, 0.25f)
  {
    opt.add("w", w, g);
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

// Runs f in a process of its own; its exit status, or minus the signal that ended it.
template <class F>
int in_child(const F& f)
{
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0)
    _exit(f());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

TEST_CASE("save, load: by a path")
{
  const folder here("path");
  model m(3), n(0);
  gradus::save(m.opt, here / "a.safetensors", {.parameters = true});
  CHECK(content(here / "a.safetensors") == support::checkpoint_of(m.opt));
  gradus::load(n.opt, here.path / "a.safetensors");  // a std::filesystem::path serves too
  CHECK(support::checkpoint_of(n.opt) == support::checkpoint_of(m.opt));
  n.opt.step();
  gradus::save(n.opt, here / "a.safetensors");
  CHECK(content(here / "a.safetensors") == support::checkpoint_of(n.opt, {}));
  CHECK(here.files() == 1);
}

TEST_CASE("replaced_file: whole after each of two hundred kills at random moments of a save")
{
  const folder here("kills");
  const std::string path = here / "run.safetensors";
  // The two that take turns, of 600 kB.
  model even(2, 50'000), odd(3, 50'000), loaded(0, 50'000);
  const std::string contents[] = {support::checkpoint_of(even.opt), support::checkpoint_of(odd.opt)};
  const gradus::save_options o{.parameters = true};
  gradus::save(even.opt, path, o);
  const auto start = std::chrono::steady_clock::now();
  gradus::save(even.opt, path, o);
  const double one_save = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  support::random r(3);
  int kills = 0, partial = 0, turns = 0;
  std::string last = contents[0];
  for (int k = 0; k < 200; ++k) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0)
      for (int i = 0;; ++i)
        gradus::save((i % 2 ? even : odd).opt, path, o);
    usleep(useconds_t(r.uniform(0,
                                one_save < 1e4 ? 3 * one_save : 3e4)));  // it may be in the first save, or a later one
    REQUIRE(kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    partial += fs::exists(path + ".partial");
    const std::string now = content(path);
    REQUIRE((now == contents[0] || now == contents[1]));
    turns += now != last;
    last = now;
    gradus::load(loaded.opt, path);
  }
  CHECK(kills == 200);
  CHECK(partial > 0);  // or the moments were none
  // What a killed save has left is written over, and then gone.
  gradus::save(even.opt, path, o);
  CHECK(content(path) == contents[0]);
  CHECK(here.files() == 1);
  std::printf("%d kills, %d of them within a save, %d after which the file was another one\n", kills, partial, turns);
}

TEST_CASE("replaced_file: unchanged if the disk is full, at any byte")
{
  const folder here("full");
  const std::string path = here / "run.safetensors";
  model old(1, 20'000), next(2, 20'000);
  gradus::save(old.opt, path, {.parameters = true});
  const std::string before = content(path), after = support::checkpoint_of(next.opt);
  support::random r(5);
  for (int k = 0; k < 20; ++k) {
    const std::size_t room = k == 0 ? 0 : k == 1 ? after.size() - 1 : k == 2 ? after.size() : r.below(after.size());
    CHECK(in_child([&] {
            std::signal(SIGXFSZ, SIG_IGN);
            const rlimit limit{room, room};
            setrlimit(RLIMIT_FSIZE, &limit);
            const std::string said = refusal([&] { gradus::save(next.opt, path, {.parameters = true}); });
            if (room == after.size())
              return said.empty() ? 0 : 1;
            return contains(said,
                            "could not be written: File too large; expected free space and write permission there")
                       ? 0
                       : 2;
          }) == 0);
    CHECK(content(path) == (k >= 2 ? after : before));
    CHECK(here.files() == 1);
  }

#if defined(__linux__)
  // A small file system of our own, where we may have one.
  const int status = in_child([&] {
    const folder mounted("tmpfs");
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", mounted.path.c_str(), "tmpfs", 0, "size=400k") != 0)
      return 77;
    gradus::save(old.opt, mounted / "run", {.parameters = true});  // 240 kB: one, but not a second
    const std::string was = content(mounted / "run");
    const std::string said = refusal([&] { gradus::save(next.opt, mounted / "run", {.parameters = true}); });
    const bool good = contains(said, "could not be written: No space left on device") &&
                      content(mounted / "run") == was && mounted.files() == 1;
    umount(mounted.path.c_str());
    return good ? 0 : 1;
  });
  if (status == 77)
    std::printf("no tmpfs can be mounted here: a full disk is tried by a limit on the file's size alone\n");
  else
    CHECK(status == 0);
#endif
}

TEST_CASE("replaced_file: paths that cannot be written are refused")
{
  const folder here("paths");
  model m(1), other(2);
  fs::create_directory(here / "folder");
  CHECK(refusal([&] { gradus::save(m.opt, here / "folder"); }) ==
        "gradus: path is \"" + here / "folder" + "\", a folder; expected a file that can be written");
  CHECK(contains(
      refusal([&] { gradus::save(m.opt, here / "nowhere/run"); }),
      "run.partial could not be created: No such file or directory; expected free space and write permission there"));
  CHECK(refusal([&] { gradus::save(m.opt, ""); }) ==
        "gradus: path is \"\", which is not a file name; expected a file that can be written");
  const std::string with_zero = here / std::string("a\0b", 3);
  CHECK(contains(refusal([&] { gradus::save(m.opt, with_zero); }),
                 "/a\", followed by a zero byte; expected a file that can be written"));
  CHECK_FALSE(fs::exists(here / "a"));
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / std::string(300, 'x')); }),
                 ", File name too long; expected a file that can be written"));

  // A pipe: nobody is waited for.
  REQUIRE(mkfifo((here / "pipe").c_str(), 0600) == 0);
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / "pipe"); }), "not a regular file"));
  CHECK(contains(refusal([&] { gradus::save(m.opt, "/dev/null"); }), "not a regular file"));

  // A folder that is not to be written into; root may all the same, so we become somebody else.
  fs::create_directory(here / "locked");
  gradus::save(m.opt, here / "locked/run");
  const std::string before = content(here / "locked/run");
  fs::permissions(here / "locked",
                  fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  const int status = in_child([&] {
    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
      return 77;
    if (access((here / "locked/run").c_str(), R_OK) != 0)
      return 77;  // a folder above is closed to others
    const std::string said = refusal([&] { gradus::save(other.opt, here / "locked/run"); });
    return contains(said, "could not be created: Permission denied") ? 0 : 1;
  });
  fs::permissions(here / "locked", fs::perms::owner_all);
  if (status == 77)
    std::printf("nobody but root can come here: a folder that cannot be written is not tried\n");
  else
    CHECK(status == 0);
  CHECK(content(here / "locked/run") == before);
  CHECK(fs::exists(here / "locked/run.partial") == false);
}

TEST_CASE("replaced_file: links are followed, and a file keeps its permissions")
{
  const folder here("links");
  model m(1), other(2);
  fs::create_directory(here / "sub");
  gradus::save(m.opt, here / "sub/run");
  fs::permissions(here / "sub/run", fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("sub/run", here / "link");
  fs::create_symlink("link", here / "second");
  gradus::save(other.opt, here / "second");
  CHECK(fs::is_symlink(here / "second"));
  CHECK(fs::is_symlink(here / "link"));
  CHECK(content(here / "sub/run") == support::checkpoint_of(other.opt, {}));
  CHECK(fs::status(here / "sub/run").permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  gradus::load(m.opt, here / "second");
  CHECK(support::checkpoint_of(m.opt, {}) == support::checkpoint_of(other.opt, {}));
  CHECK(here.files() == 3);

  fs::create_symlink("nothing", here / "dangling");
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / "dangling"); }),
                 "a link that leads nowhere; expected a file that can be written"));
  fs::create_symlink("round", here / "round");
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / "round"); }), "a link that leads nowhere"));
}

TEST_CASE("replaced_file: links lead to regular files, and a file with two names keeps the other")
{
  const folder here("kinds");
  model m(1), other(2);
  fs::create_directory(here / "folder");
  REQUIRE(mkfifo((here / "pipe").c_str(), 0600) == 0);
  const auto says = [&](const char* target, const char* part) {
    fs::remove(here / "link");
    fs::create_symlink(target, here / "link");
    CHECK(contains(refusal([&] { gradus::save(m.opt, here / "link"); }), part));
    CHECK(fs::read_symlink(here / "link") == target);
    CHECK(here.files() == 3);
  };
  says("/dev/null", "not a regular file");
  says("/dev/zero", "not a regular file");
  says("pipe", "not a regular file");
  says("folder", "a folder");
  says("folder/nothing", "a link that leads nowhere");
  says("link", "a link that leads nowhere");
  says("/", "a folder");

  gradus::save(m.opt, here / "run");
  const std::string before = content(here / "run");
  fs::create_hard_link(here / "run", here / "second");
  gradus::save(other.opt, here / "run");
  CHECK(content(here / "second") == before);
  CHECK(content(here / "run") == support::checkpoint_of(other.opt, {}));
}

TEST_CASE("replaced_file: links that other users may have planted are not followed")
{
  if (getuid() != 0) {
    std::printf("not root: other users' links are not tried\n");
    return;
  }
  const folder here("shared");
  model m(1);
  fs::create_directory(here / "shared");
  const std::string link = here / "shared/link", target = here / "target";
  for (const mode_t mode : {01777u, 0777u, 0755u})
    for (const uid_t owner : {0u, 1234u, 65534u}) {
      std::ofstream(target) << "precious";
      fs::remove(link);
      fs::create_symlink("../target", link);
      REQUIRE(lchown(link.c_str(), owner, owner) == 0);
      REQUIRE(chmod((here / "shared").c_str(), mode) == 0);
      REQUIRE(chown((here / "shared").c_str(), 1234, 1234) == 0);
      const std::string said = refusal([&] { gradus::save(m.opt, link); });
      const bool planted = mode != 0755 && owner == 65534;
      CHECK(said == (planted
                         ? "gradus: path is \"" + link +
                               "\", a link of another user in a folder that everybody may write to; expected a file "
                               "that can be written"
                         : ""));
      CHECK((content(target) == "precious") == planted);
      CHECK(fs::is_symlink(link));
      CHECK(here.files() == 2);
    }
}

TEST_CASE("replaced_file: a new file is never open to more than the old one")
{
  const folder here("wider");
  const std::string path = here / "run";
  model m(1);
  struct stat status = {};
  const auto saved_mode = [&] {
    gradus::save(m.opt, path);
    REQUIRE(stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  const auto old_file = [&](mode_t mode, uid_t user, gid_t group) {
    fs::remove(path);
    std::ofstream(path) << "old";
    return chown(path.c_str(), user, group) == 0 && chmod(path.c_str(), mode) == 0;
  };
  const mode_t before = umask(077);
  // It sets no ids. The umask does not matter, as it is the user's own file.
  REQUIRE(old_file(06755, uid_t(-1), gid_t(-1)));
  CHECK(saved_mode() == 0755);
  REQUIRE(old_file(01644, uid_t(-1), gid_t(-1)));
  CHECK(saved_mode() == 0644);
  if (getuid() == 0) {
    // Its group stays.
    REQUIRE(old_file(0640, 0, 1234));
    CHECK(saved_mode() == 0640);
    CHECK(status.st_gid == 1234);
    // What another user planted opens nothing.
    for (const mode_t mask : {077u, 022u, 0u}) {
      umask(mask);
      REQUIRE(old_file(06777, 1234, 1234));
      CHECK(saved_mode() == (0666u & ~mask));
      REQUIRE(old_file(0660, 1234, 1234));
      CHECK(saved_mode() == 0600);
      CHECK((status.st_uid == 0 && status.st_gid == getegid()));
    }
    // A group that the user is not in cannot be kept, and the user's own gets no more than everybody had.
    umask(0);
    REQUIRE(chmod(here.path.c_str(), 0777) == 0);
    for (const auto& [old, wanted] :
         {std::pair<mode_t, mode_t>{0660, 0600}, {0664, 0644}, {0666, 0666}, {0646, 0646}}) {
      const mode_t expected = wanted;  // clang 14 captures no structured bindings
      REQUIRE(old_file(old, 1234, 5678));
      const int failed = in_child([&] {
        if (setgroups(0, nullptr) != 0 || setgid(1234) != 0 || setuid(1234) != 0 || access(path.c_str(), R_OK) != 0)
          return 255;
        gradus::save(m.opt, path);
        const bool good = stat(path.c_str(), &status) == 0 && status.st_gid == 1234 &&
                          (status.st_mode & 07777) == expected;
        return good ? 0 : 1;
      });
      if (failed == 255)
        std::printf("nobody but root can come here: another group is not tried\n");
      else
        CHECK(failed == 0);
    }
  } else
    std::printf("not root: files of other users are not tried\n");
  umask(before);
}

TEST_CASE("replaced_file: a foreign file with the partial file's name is left alone")
{
  const folder here("planted");
  const std::string path = here / "run", partial = path + ".partial";
  model m(1), other(2);
  const std::string expected = support::checkpoint_of(m.opt, {});
  const auto saves = [&](std::size_t files) {
    fs::remove(path);
    for (model* saved : {&other, &m})  // a new file, and one that replaces another
      CHECK(refusal([&] { gradus::save(saved->opt, path); }) == "");
    CHECK(content(path) == expected);
    CHECK(fs::is_regular_file(fs::symlink_status(path)));
    CHECK(here.files() == files);
  };
  std::ofstream(here / "precious") << "precious";
  fs::create_symlink("precious", partial);
  saves(3);
  CHECK(fs::read_symlink(partial) == "precious");
  fs::remove(partial);
  fs::create_symlink("nothing", partial);
  saves(3);
  fs::remove(partial);
  fs::create_hard_link(here / "precious", partial);
  saves(3);
  CHECK(content(here / "precious") == "precious");
  fs::remove(partial);
  fs::create_directory(partial);
  saves(3);
  fs::remove(partial);
  REQUIRE(mkfifo(partial.c_str(), 0666) == 0);
  saves(3);
  fs::remove(partial);

  // Somebody else's: neither the owner nor the permissions are taken over, whether it is locked or not.
  if (getuid() != 0) {
    std::printf("not root: another user's partial file is not tried\n");
    return;
  }
  for (const bool locked : {false, true}) {
    std::ofstream(partial) << "planted";
    REQUIRE(chmod(partial.c_str(), 0666) == 0);
    REQUIRE(chown(partial.c_str(), 65534, 65534) == 0);
    const int held = open(partial.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE((!locked || flock(held, LOCK_EX) == 0));
    saves(3);
    CHECK(content(partial) == "planted");
    struct stat status = {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK(status.st_uid == geteuid());
    CHECK(status.st_gid == getegid());
    close(held);
    fs::remove(partial);
  }
}

TEST_CASE(
    "replaced_file: a new file has the umask's permissions, whatever was left behind, and a replaced one keeps its own")
{
  const folder here("modes");
  const std::string path = here / "run", partial = path + ".partial";
  model m(1);
  const auto mode_of = [&] {
    struct stat status = {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  const mode_t before = umask(0);
  for (const mode_t mask : {022u, 077u, 0u}) {
    umask(mask);
    for (const mode_t left : {0u, 0400u, 0200u, 0600u, 0777u, 01777u}) {
      for (const bool replaces : {false, true}) {
        fs::remove(path);
        if (replaces) {
          std::ofstream(path) << "old";
          REQUIRE(chmod(path.c_str(), 0640) == 0);
        }
        std::ofstream(partial) << "left behind";
        REQUIRE(chmod(partial.c_str(), left) == 0);
        gradus::save(m.opt, path);
        CHECK(mode_of() == (replaces ? 0640u : 0666u & ~mask));
        // Where nothing may be done with it, which root always may, it stays.
        CHECK(here.files() == (left == 0 && fs::exists(partial) ? 2 : 1));
        fs::remove(partial);
      }
    }
  }
  umask(before);
}

TEST_CASE("replaced_file: names as long as the file system allows, or nearly")
{
  const folder here("long");
  model m(1), other(2);
  for (const std::size_t length : {1u, 246u, 247u, 248u, 249u, 254u, 255u}) {
    const std::string path = here / std::string(length, 'x');
    gradus::save(other.opt, path);
    gradus::save(m.opt, path);
    CHECK(content(path) == support::checkpoint_of(m.opt, {}));
    CHECK(here.files() == 1);
    // A killed process's partial file is gone after the next save, whatever it is called.
    CHECK(in_child([&] {
            gradus::replaced_file file(path);
            file.write("x", 1);
            std::raise(SIGKILL);
            return 0;
          }) == -SIGKILL);
    CHECK(here.files() == 2);
    gradus::save(m.opt, path);
    CHECK(here.files() == 1);
    // Two at once: one is refused.
    {
      gradus::replaced_file file(path);
      CHECK(contains(refusal([&] { gradus::save(other.opt, path); }), "which another save is writing"));
    }
    CHECK(here.files() == 1);
    gradus::load(other.opt, path);
    fs::remove(path);
  }
}

TEST_CASE("replaced_file: many processes save to one path at once, and each is refused or saves the whole")
{
  const folder here("crowd");
  const std::string path = here / "run";
  model even(2, 20'000), odd(3, 20'000);
  const std::string contents[] = {support::checkpoint_of(even.opt, {}), support::checkpoint_of(odd.opt, {})};
  gradus::save(even.opt, path);
  std::vector<pid_t> children;
  for (int k = 0; k < 4; ++k) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      // A refusal takes no time, so no number of tries is sure to meet the moment at which nobody else saves.
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      for (int saved = 0; saved < 15;) {
        const std::string said = refusal([&] { gradus::save((k % 2 ? even : odd).opt, path); });
        if (!said.empty() && !contains(said, "which another save is writing"))
          _exit(1);
        saved += said.empty();
        const std::string now = content(path);
        if (now != contents[0] && now != contents[1])
          _exit(2);
        if (std::chrono::steady_clock::now() > end)
          _exit(3);
      }
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK(here.files() == 1);
}

TEST_CASE("replaced_file: of two saves to one path at once, one is refused")
{
  const folder here("twice");
  const std::string path = here / "run";
  model m(1);
  gradus::save(m.opt, path);
  const int other = open((path + ".partial").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  REQUIRE(flock(other, LOCK_EX) == 0);
  CHECK(contains(refusal([&] { gradus::save(m.opt, path); }), "which another save is writing"));
  close(other);
  // A killed save's file, whatever is in it, is written over.
  std::ofstream(path + ".partial") << std::string(1'000'000, 'x');
  gradus::save(m.opt, path);
  CHECK(content(path) == support::checkpoint_of(m.opt, {}));
  CHECK(here.files() == 1);
}
