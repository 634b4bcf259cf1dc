// Saving to a file on Windows: after a kill, either the old file is there or the new one, as a whole.
//
// windows "save" PATH saves until it is killed.

#include <windows.h>  // first, as it agrees with what gradus declares, and its macros harm nothing

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

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
  explicit model(int steps, std::size_t n = 50'000) : w(n, 0.5f), g(n, 0.25f)
  {
    opt.add("w", w, g);
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

const gradus::save_options with_parameters{.parameters = true};
std::string program;

}  // namespace

TEST_CASE("replaced_file: saved, replaced and loaded")
{
  const folder here("path");
  const std::string path = here / "a.safetensors";
  model m(3), n(0);
  gradus::save(m.opt, path, with_parameters);
  CHECK(content(path) == support::checkpoint_of(m.opt));
  gradus::load(n.opt, path);
  CHECK(support::checkpoint_of(n.opt) == support::checkpoint_of(m.opt));
  n.opt.step();
  gradus::save(n.opt, path, with_parameters);
  CHECK(content(path) == support::checkpoint_of(n.opt));
  CHECK(here.files() == 1);
}

TEST_CASE("replaced_file: paths that cannot be written are refused, and nothing changes")
{
  const folder here("refused");
  model m(1), other(2);
  CHECK(contains(refusal([&] { gradus::save(m.opt, ""); }), "which is not a file name"));
  fs::create_directory(here / "folder");
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / "folder"); }), ", a folder; expected"));
  CHECK(contains(refusal([&] { gradus::save(m.opt, here / "nowhere\\run"); }),
                 "could not be created: No such file or directory"));
  CHECK(here.files() == 1);
  const std::string path = here / "in_use";
  gradus::save(m.opt, path);
  const std::string before = content(path);
  const HANDLE alone = CreateFileA(path.c_str(), GENERIC_READ, 0, nullptr, OPEN_EXISTING, 0, nullptr);
  REQUIRE(alone != INVALID_HANDLE_VALUE);
  CHECK(contains(refusal([&] { gradus::save(other.opt, path); }), "could not be written: Permission denied"));
  CloseHandle(alone);
  CHECK(content(path) == before);
  CHECK(here.files() == 2);
}

TEST_CASE("replaced_file: of two saves at the same time one is refused, and what a kill left is deleted")
{
  const folder here("two");
  const std::string path = here / "run";
  model m(1), other(2);
  gradus::save(m.opt, path);
  const std::string before = content(path);
  {
    gradus::replaced_file file(path);
    file.write("x", 1);
    CHECK(contains(refusal([&] { gradus::save(other.opt, path); }), "which another save is writing"));
    CHECK(content(path) == before);
    CHECK(here.files() == 2);
  }
  CHECK(here.files() == 1);
  std::ofstream(path + ".partial") << "left behind";
  gradus::save(other.opt, path);
  CHECK(content(path) == support::checkpoint_of(other.opt, {}));
  CHECK(here.files() == 1);
}

TEST_CASE("replaced_file: whole after each of thirty kills at random moments of a save")
{
  const folder here("kills");
  const std::string path = here / "run";
  model even(2), odd(3), loaded(0);
  const std::string contents[] = {support::checkpoint_of(even.opt), support::checkpoint_of(odd.opt)};
  gradus::save(even.opt, path, with_parameters);
  support::random r(3);
  int partial = 0, turns = 0;
  std::string last = contents[0];
  for (int k = 0; k < 30; ++k) {
    std::string command = '"' + program + "\" save \"" + path + '"';
    STARTUPINFOA start = {};
    start.cb = sizeof start;
    PROCESS_INFORMATION child = {};
    REQUIRE(CreateProcessA(nullptr, command.data(), nullptr, nullptr, FALSE, 0, nullptr, nullptr, &start, &child));
    // It has begun when its partial file is there.
    for (int ms = 0; ms < 20'000 && !fs::exists(path + ".partial"); ++ms)
      Sleep(1);
    Sleep(DWORD(r.uniform(0, 30)));
    REQUIRE(TerminateProcess(child.hProcess, 9));
    WaitForSingleObject(child.hProcess, INFINITE);
    DWORD status = 0;
    GetExitCodeProcess(child.hProcess, &status);
    REQUIRE(status == 9);
    CloseHandle(child.hProcess);
    CloseHandle(child.hThread);
    partial += fs::exists(path + ".partial");
    const std::string now = content(path);
    REQUIRE((now == contents[0] || now == contents[1]));
    turns += now != last;
    last = now;
    gradus::load(loaded.opt, path);
    fs::remove(path + ".partial");
  }
  CHECK(partial > 0);  // or the moments were none
  CHECK(turns > 0);
  gradus::save(even.opt, path, with_parameters);
  CHECK(content(path) == contents[0]);
  CHECK(here.files() == 1);
  std::printf("30 kills, %d of them within a save, %d after which the file was another one\n", partial, turns);
}

int main(int argc, char** argv)
{
  program = argv[0];
  if (argc == 3 && std::strcmp(argv[1], "save") == 0) {
    model even(2), odd(3);
    for (int i = 0;; ++i)
      gradus::save((i % 2 ? even : odd).opt, argv[2], with_parameters);
  }
  return doctest::Context(argc, argv).run();
}
