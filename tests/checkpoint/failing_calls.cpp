// Every system call of a save and of a load fails once, with each of several errors, and writes and reads are cut short: the
// old file is there or the new one, as a whole, nothing is left behind, and what fails says so in a sentence with the path.
// The process that saves is traced, so that the calls inside the C library fail too.

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/distributed.hpp>

#include "support/checkpoint.hpp"
#include "support/folder.hpp"
#include "support/thread_ranks.hpp"

#if defined(__linux__) && defined(__x86_64__)

#include <csignal>

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using support::content, support::folder;

// The calls that go to the file system.
const std::map<long, const char*> file_calls = {{SYS_open, "open"},
                                                {SYS_openat, "openat"},
                                                {SYS_close, "close"},
                                                {SYS_read, "read"},
                                                {SYS_pread64, "pread"},
                                                {SYS_write, "write"},
                                                {SYS_pwrite64, "pwrite"},
                                                {SYS_writev, "writev"},
                                                {SYS_fsync, "fsync"},
                                                {SYS_fdatasync, "fdatasync"},
                                                {SYS_rename, "rename"},
                                                {SYS_renameat, "renameat"},
                                                {SYS_renameat2, "renameat2"},
                                                {SYS_unlink, "unlink"},
                                                {SYS_unlinkat, "unlinkat"},
                                                {SYS_rmdir, "rmdir"},
                                                {SYS_stat, "stat"},
                                                {SYS_lstat, "lstat"},
                                                {SYS_fstat, "fstat"},
                                                {SYS_newfstatat, "newfstatat"},
                                                {SYS_statx, "statx"},
                                                {SYS_flock, "flock"},
                                                {SYS_fchmod, "fchmod"},
                                                {SYS_chmod, "chmod"},
                                                {SYS_ftruncate, "ftruncate"},
                                                {SYS_fcntl, "fcntl"},
                                                {SYS_lseek, "lseek"},
                                                {SYS_readlink, "readlink"},
                                                {SYS_readlinkat, "readlinkat"},
                                                {SYS_getcwd, "getcwd"}};

bool moves_bytes(long call)
{
  return call == SYS_read || call == SYS_pread64 || call == SYS_write || call == SYS_pwrite64;
}

// What happens to a call.
struct fault {
  long at;             // its number, from 0; -1 for none
  int error;           // 0: it is cut short instead, and with `ends` it moves nothing
  bool ends = false;   // a read finds the end of the file
  bool lasts = false;  // all calls after it fail too
};

struct outcome {
  int status = -1;        // what the process returned, or minus its signal
  long calls = 0;         // how many there were
  std::string name = {};  // of the call that failed
};

// Runs f in a traced process of its own, whose calls fail as told. Nothing of it where tracing is forbidden.
template <class F>
outcome run(const F& f, const fault& wanted)
{
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0)
      _exit(77);
    std::raise(SIGSTOP);
    _exit(f());
  }
  outcome found;
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) {
    found.status = WEXITSTATUS(status);
    return found;
  }
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  bool enters = true, spoils = false;
  for (long signal = 0;;) {
    if (ptrace(PTRACE_SYSCALL, child, nullptr, signal) != 0 || waitpid(child, &status, 0) != child)
      break;
    signal = 0;
    if (WIFEXITED(status) || WIFSIGNALED(status))
      break;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      signal = WSTOPSIG(status);
      continue;
    }
    user_regs_struct registers = {};
    ptrace(PTRACE_GETREGS, child, nullptr, &registers);
    if (enters) {
      const auto call = file_calls.find(long(registers.orig_rax));
      spoils = false;
      if (call != file_calls.end()) {
        spoils = wanted.at >= 0 && (found.calls == wanted.at || (wanted.lasts && found.calls > wanted.at));
        if (spoils && wanted.error == 0) {
          spoils = false;
          if (moves_bytes(call->first)) {
            found.name = call->second;
            registers.rdx = wanted.ends ? 0 : (registers.rdx + 1) / 2;
            ptrace(PTRACE_SETREGS, child, nullptr, &registers);
          }
        } else if (spoils) {
          if (found.name.empty())
            found.name = call->second;
          if (call->first != SYS_close) {  // a close that fails has closed
            registers.orig_rax = static_cast<unsigned long long>(-1);
            ptrace(PTRACE_SETREGS, child, nullptr, &registers);
          }
        }
        ++found.calls;
      }
    } else if (spoils) {
      registers.rax = static_cast<unsigned long long>(-wanted.error);
      ptrace(PTRACE_SETREGS, child, nullptr, &registers);
    }
    enters = !enters;
  }
  found.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return found;
}

constexpr int errors[] = {ENOSPC, EIO, EINTR, EACCES, EDQUOT, ENOMEM};

struct model {
  std::vector<float> w, g, v, h;
  gradus::optimizer<gradus::adams, float, gradus::backend::scalar> opt{gradus::adams{.lr = 0.01, .weight_decay = 0.1}};
  explicit model(int steps, std::size_t n = 20'000) : w(n, 0.5f), g(n, 0.25f), v(10, 0.5f), h(10, 0.125f)
  {
    opt.add("w", w, g);
    opt.add("v", v, h);
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

// 0 if f succeeds, 1 if it is refused with a sentence about the path, else more.
template <class F>
int verdict(const std::string& path, const F& f)
{
  try {
    f();
  } catch (const std::invalid_argument& e) {
    const std::string said = e.what();
    const bool good = said.starts_with("gradus: ") &&
                      support::contains(said, std::filesystem::path(path).filename().string()) &&
                      (support::contains(said, "expected") || support::contains(said, "could not be read") ||
                       support::contains(said, "load a checkpoint again"));
    if (!good)
      std::fprintf(stderr, "%s\n", said.c_str());
    return good ? 1 : 2;
  } catch (...) {
    return 3;
  }
  return 0;
}

struct tally {
  long tried = 0, refused = 0, went_well = 0, half_loaded = 0;
};

bool may_trace()
{
  const bool may = run([] { return 0; }, {-1, 0}).status == 0;
  if (!may)
    std::printf("a process may not be traced here: no call fails\n");
  return may;
}

// Lets every call of a save fail in every way. \param save  saves the new contents to a path
template <class Save>
void try_saves(const char* what, const Save& save, const std::string& old, const std::string& next, bool replaces)
{
  const folder here("failing_save");
  const std::string path = here / "run.safetensors";
  const auto prepare = [&] {
    for (const auto& entry : std::filesystem::directory_iterator(here.path))
      std::filesystem::remove_all(entry);
    if (replaces)
      std::ofstream(path, std::ios::binary) << old;
  };
  const auto child = [&] { return verdict(path, [&] { save(path); }); };
  prepare();
  const outcome plain = run(child, {-1, 0});
  REQUIRE(plain.status == 0);
  REQUIRE(content(path) == next);
  REQUIRE(plain.calls > 5);
  tally all;
  const auto check = [&](const fault& f) {
    prepare();
    const outcome found = run(child, f);
    ++all.tried;
    const std::string now = std::filesystem::exists(path) ? content(path) : std::string();
    const bool is_old = replaces ? now == old : now.empty() && !std::filesystem::exists(path), is_new = now == next;
    CAPTURE(what);
    CAPTURE(found.name);
    CAPTURE(f.at);
    CAPTURE(f.error);
    CAPTURE(f.lasts);
    CHECK((found.status == 0 || found.status == 1));
    CHECK((found.status == 0 ? is_new : is_old));
    // Where everything fails from then on, the partial file cannot be deleted either; the next save does it.
    const std::size_t left = here.files() - (is_old && !replaces ? 0 : 1);
    CHECK((left == 0 || (f.lasts && left == 1)));
    ++(found.status == 0 ? all.went_well : all.refused);
    if (left == 1) {
      CHECK(verdict(path, [&] { save(path); }) == 0);
      CHECK(here.files() == 1);
      CHECK(content(path) == next);
    }
  };
  for (long at = 0; at < plain.calls; ++at) {
    for (const int error : errors)
      check({at, error});
    check({at, EIO, false, true});
    check({at, 0});
  }
  std::printf("%s: each of %ld calls failed in %ld ways: %ld saves refused, %ld went well\n", what, plain.calls,
              all.tried / plain.calls, all.refused, all.went_well);
}

}  // namespace

TEST_CASE("save: whatever call fails, the old file is there or the new one")
{
  if (!may_trace())
    return;
  model before(1), after(2);
  const gradus::save_options o{.parameters = true};
  const std::string old = support::checkpoint_of(before.opt, o), next = support::checkpoint_of(after.opt, o);
  const auto save = [&](const std::string& path) { gradus::save(after.opt, path, o); };
  try_saves("save", save, old, next, true);
  try_saves("save of a new file", save, old, next, false);
}

TEST_CASE("save of a sharded optimizer: whatever call fails, the old file is there or the new one")
{
  if (!may_trace())
    return;
  support::thread_group group(1);
  support::thread_rank world(group, 0);
  gradus::sharded<gradus::adamw, float, support::thread_rank, gradus::backend::scalar> opt(world, {.lr = 0.01});
  opt.add("w", 20'000);
  opt.commit();
  const gradus::save_options o{.parameters = true};
  const folder here("failing_save_of_ranks");
  const auto bytes = [&] {
    for (float& x : opt.gradients("w"))
      x = 0.25f;
    opt.step();
    gradus::save(opt, here / "run", o);
    return content(here / "run");
  };
  const std::string old = bytes(), next = bytes();
  try_saves(
      "save of a sharded optimizer", [&](const std::string& path) { gradus::save(opt, path, o); }, old, next, true);
}

TEST_CASE("load: whatever call fails, it is refused and nothing has changed, or the file is loaded")
{
  if (!may_trace())
    return;
  const folder here("failing_load");
  const std::string path = here / "run.safetensors";
  model saved(2), into(1);
  gradus::save(saved.opt, path, {.parameters = true});
  const std::string before = support::checkpoint_of(into.opt), after = support::checkpoint_of(saved.opt);
  // 4: refused, and changed in part: the file became unreadable after all checks (docs/checkpoint.md).
  const auto child = [&] {
    const int status = verdict(path, [&] { gradus::load(into.opt, path); });
    const std::string now = support::checkpoint_of(into.opt);
    return status == 0 ? (now == after ? 0 : 5) : status == 1 && now != before ? 4 : status;
  };
  const outcome plain = run(child, {-1, 0});
  REQUIRE(plain.status == 0);
  tally all;
  const auto check = [&](const fault& f) {
    const outcome found = run(child, f);
    ++all.tried;
    CAPTURE(found.name);
    CAPTURE(f.at);
    CAPTURE(f.error);
    CAPTURE(f.lasts);
    CHECK((found.status == 0 || found.status == 1 || (found.status == 4 && found.name == "pread")));
    if (f.error == EINTR && found.name == "pread")
      CHECK(found.status == 0);
    if (f.error == 0 && !f.ends)
      CHECK(found.status == 0);
    ++(found.status == 0 ? all.went_well : all.refused);
    all.half_loaded += found.status == 4;
  };
  for (long at = 0; at < plain.calls; ++at) {
    for (const int error : errors)
      check({at, error});
    check({at, EIO, false, true});
    check({at, 0});
    check({at, 0, true});
  }
  CHECK(content(path) == after);
  CHECK(here.files() == 1);
  std::printf("load: each of %ld calls failed in %ld ways: %ld loads refused, %ld of them half-way, %ld went well\n",
              plain.calls, all.tried / plain.calls, all.refused, all.half_loaded, all.went_well);
}

#else

TEST_CASE("save and load: failing calls") { std::printf("calls are made to fail only on x86-64 Linux\n"); }

#endif
