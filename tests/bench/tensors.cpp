// The models that `./dev bench --model` takes: those with a name, and files of one's own.

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "../bench/tensors.hpp"

#include "support/checkpoint.hpp"

namespace {

using sizes = std::vector<std::size_t>;
using support::contains;
using support::refusal;

struct file {
  std::string path;
  file(const std::string& name, const std::string& bytes)
      : path((std::filesystem::temp_directory_path() / ("gradus_bench_" + name)).string())
  {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  file(const file&) = delete;
  ~file() { std::filesystem::remove(path); }
};

sizes sizes_of(const std::string& name, const std::string& bytes)
{
  const file f(name, bytes);
  return bench::model_shape(f.path).sizes;
}

std::string refusal_of(const std::string& name, const std::string& bytes)
{
  const file f(name, bytes);
  return refusal([&] { bench::read_model(f.path); });
}

}  // namespace

TEST_CASE("read_model: the named models have the published numbers of parameters and tensors")
{
  const auto check = [](const char* name, std::size_t parameters, std::size_t tensors) {
    CAPTURE(name);
    const bench::shape s = bench::model_shape(name);
    CHECK(s.name == name);
    CHECK(s.elements() == parameters);
    CHECK(s.tensors() == tensors);
  };
  check("gpt2", 124439808, 148);
  check("resnet18", 11689512, 62);
  check("vit", 86567656, 152);
  check("lstm", 19780400, 11);
  check("small", 500500, 1000);
}

TEST_CASE("read_model: a text has a tensor a line, a name and its dimensions")
{
  CHECK(sizes_of("lines.txt", "layer1.weight 768 3072\nlayer1.bias 3072\n") == sizes{768 * 3072, 3072});
  CHECK(sizes_of("lines.txt", "# a comment 5\n\n  a\t2 3 4 \r\nb 1") == sizes{24, 1});
  CHECK(sizes_of("lines.txt", "w 007\n") == sizes{7});
}

TEST_CASE("read_model: a safetensors file gives its floating-point tensors in the order of their bytes")
{
  const std::string json = R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
                           R"("a":{"dtype":"BF16","shape":[4],"data_offsets":[32,40]},)"
                           R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[40,40]},)"
                           R"("count":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})";
  const std::string bytes = support::file_of(json, std::string(40, 'x'));
  CHECK(sizes_of("model.safetensors", bytes) == sizes{6, 4});
  CHECK(sizes_of("model.bin", bytes) == sizes{6, 4});  // whatever its name
}

TEST_CASE("read_model: a name that is unknown and no file, a folder and an empty file are refused")
{
  CHECK(refusal([] { bench::read_model("gpt3"); }) ==
        "gradus: model is \"gpt3\", and no file has that name; expected gpt2, resnet18, vit, lstm, small, or a file");
  CHECK(contains(refusal([] { bench::read_model(std::filesystem::temp_directory_path().string()); }), "a folder"));
  CHECK(contains(refusal_of("empty.txt", ""), "has no tensors of floating-point numbers; expected at least one"));
  CHECK(contains(refusal_of("empty.txt", "# nothing\n"), "expected at least one"));
  CHECK(contains(refusal_of("empty.safetensors", support::file_of("{}")), "expected at least one"));
}

TEST_CASE("read_model: a line that is no name with dimensions is refused with its number")
{
  const auto check = [](const std::string& line, const char* found) {
    CAPTURE(line);
    const std::string said = refusal_of("lines.txt", "fine 3\n" + line + "\n");
    CHECK(contains(said, std::string(", line 2: ") + found + "; expected a name and whole numbers of at least 1"));
  };
  check("alone", "the tensor has no dimensions");
  check("w 3 x", "a dimension is \"x\"");
  check("w 3x4", "a dimension is \"3x4\"");
  check("w -3", "a dimension is \"-3\"");
  check("w 2.5", "a dimension is \"2.5\"");
  check("w 0", "a dimension is \"0\"");
  check("w 99999999999999999999999999", "the tensor is too large");
  check("w 4294967296 4294967296", "the tensor is too large");
  check("w 18014398509481983", "the tensors are too large");
}

TEST_CASE("read_model: a safetensors file with a wrong header is refused with its name")
{
  const std::string json = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const auto check = [](const std::string& bytes, const char* expected) {
    const std::string said = refusal_of("bad.safetensors", bytes);
    CAPTURE(said);
    CHECK(contains(said, "gradus_bench_bad.safetensors\""));
    CHECK(contains(said, expected));
  };
  check("short", "at least the 8 bytes");
  check(support::file_of(json), "within the 0 bytes there are");
  check(support::file_of("{\"a\":", "12345678"), "expected '{'");
  check(support::file_of(json, "123456789"), "the file's end");
}
