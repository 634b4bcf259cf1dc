// Reading from a file: of any size, and only from regular files.

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/stat.h>

#include <gradus/checkpoint/random_access_file.hpp>

#include "support/folder.hpp"
#include "support/refusal.hpp"

using support::folder, support::refusal;

namespace {

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("random_access_file: paths that cannot be read are refused")
{
  const folder here("unreadable");
  std::filesystem::create_directory(here / "folder");
  const std::string with_zero = here / std::string("a\0b", 3);
  REQUIRE(mkfifo((here / "pipe").c_str(), 0600) == 0);  // which is not waited for
  CHECK(refusal([&] { gradus::random_access_file file(here / "folder"); }) ==
        "gradus: path is \"" + here / "folder" + "\", a folder; expected a file that can be read");
  CHECK(refusal([&] { gradus::random_access_file file(""); }) ==
        "gradus: path is \"\", which is not a file name; expected a file that can be read");
  CHECK(contains(refusal([&] { gradus::random_access_file file(with_zero); }),
                 "/a\", followed by a zero byte; expected a file that can be read"));
  CHECK(contains(refusal([&] { gradus::random_access_file file(here / "missing"); }),
                 ", No such file or directory; expected a file that can be read"));
  CHECK(contains(refusal([&] { gradus::random_access_file file(here / "pipe"); }), "not a regular file"));
  CHECK(contains(refusal([&] { gradus::random_access_file file("/dev/zero"); }), "not a regular file"));
}

TEST_CASE("random_access_file: reads any bytes of a file of more than 4 GiB, and none after its end")
{
  const folder here("offsets");
  const std::string path = here / "hole";
  const std::uint64_t hole = std::uint64_t(5) << 30;
  std::FILE* const out = std::fopen(path.c_str(), "wb");
  REQUIRE(fseeko(out, off_t(hole), SEEK_SET) == 0);
  REQUIRE(std::fputs("end", out) >= 0);
  std::fclose(out);
  gradus::random_access_file file(path);
  CHECK(file.size() == hole + 3);
  char bytes[4] = "xxx";
  CHECK(file.read(hole, bytes, 3));
  CHECK(std::string(bytes) == "end");
  CHECK(file.read(1, bytes, 3));
  CHECK(std::string(bytes).empty());
  CHECK(file.read(hole + 1, bytes, 2));
  CHECK(std::string(bytes) == "nd");
  CHECK_FALSE(file.read(hole + 1, bytes, 3));
  CHECK_FALSE(file.read(hole + 4, bytes, 1));
  std::vector<char> many(1 << 20, 'x');  // more than is buffered
  CHECK(file.read(hole + 3 - many.size(), many.data(), many.size()));
  CHECK(std::string(many.end() - 3, many.end()) == "end");
  CHECK_FALSE(file.read(hole + 4 - many.size(), many.data(), many.size()));
}
