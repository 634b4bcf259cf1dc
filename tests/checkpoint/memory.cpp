// The memory that a hostile header takes, as a multiple of the header's length.

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/scalar.hpp>
#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"

// ── the most memory that is allocated at one time ────────────────────────────────────────────────────────────────────

namespace {

std::size_t now = 0, most = 0;
constexpr std::size_t prefix = 16;  // keeps the alignment; has the size

// What glibc's malloc takes for n bytes.
std::size_t chunk(std::size_t n) { return n < 24 ? 32 : (n + 8 + 15) / 16 * 16; }

}  // namespace

void* operator new(std::size_t n)
{
  auto* const p = static_cast<unsigned char*>(std::malloc(n + prefix));
  if (!p)
    throw std::bad_alloc();
  *reinterpret_cast<std::size_t*>(p) = n;
  now += chunk(n);
  most = now > most ? now : most;
  return p + prefix;
}
[[gnu::noinline]] void operator delete(void* p) noexcept
{
  if (!p)
    return;
  unsigned char* const begin = static_cast<unsigned char*>(p) - prefix;
  now -= chunk(*reinterpret_cast<std::size_t*>(begin));
  std::free(begin);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { operator delete(p); }

namespace {

// The i-th of many different names, as short as they can be.
std::string short_name(std::size_t i)
{
  std::string name;
  for (++i; i > 0; i /= 90)
    name += char(
        "!#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~ "[i % 90]);
  return name;
}

// f(0), f(1), … of about that many bytes, joined by commas.
template <class F>
std::string many(std::size_t bytes, const F& f)
{
  std::string all;
  for (std::size_t i = 0; all.size() < bytes; ++i)
    all += (i == 0 ? "" : ",") + f(i);
  return all;
}

std::string times(std::size_t bytes, const std::string& part)
{
  std::string all;
  while (all.size() < bytes)
    all += part;
  return all;
}

struct hostile_file {
  const char* what;
  std::string bytes;
};

std::vector<hostile_file> hostile_files(std::size_t size)
{
  using support::file_of;
  std::vector<hostile_file> files;
  const auto put = [&](const char* what, const std::string& json, const std::string& data = {}) {
    files.push_back({what, file_of(json, data)});
  };
  const std::string format = R"("gradus/format":"1")";
  const auto metadata = [&](const std::string& pairs) { return "{\"__metadata__\":{" + format + "," + pairs + "}}"; };
  const auto empty_tensor = [](const std::string& name) {
    return '"' + name + R"(":{"dtype":"","shape":[],"data_offsets":[0,0]})";
  };
  put("pairs of metadata", metadata(many(size, [](std::size_t i) { return '"' + short_name(i) + "\":\"\""; })));
  put("pairs that look like gradus's",
      metadata(many(size, [](std::size_t i) { return "\"gradus/" + short_name(i) + "\":\"\""; })));
  put("tensors without elements", "{\"__metadata__\":{" + format + "}," +
                                      many(size, [&](std::size_t i) { return empty_tensor(short_name(i)); }) + '}');
  {
    std::size_t n = 0;
    const std::string tensors = many(size, [&](std::size_t i) {
      return '"' + short_name(i) + R"(":{"dtype":"U8","shape":[],"data_offsets":[)" + std::to_string(i) + ',' +
             std::to_string(n = i + 1) + "]}";
    });
    put("tensors of one byte", "{\"__metadata__\":{" + format + "}," + tensors + '}', std::string(n, 'x'));
    put("tensors of one byte, the last one missing", "{\"__metadata__\":{" + format + "}," + tensors + '}',
        std::string(n + 1, 'x'));
  }
  put("another format, many tensors",
      "{" + many(size, [&](std::size_t i) { return empty_tensor(short_name(i)); }) + '}');
  const std::string scalar = R"({"dtype":"U8","shape":[],"data_offsets":[0,1]})";
  for (const char* part : {"x", "\x7f", "\\u0001", "\\n", "\\ud83e\\udde0", "\xc3\xa9"}) {
    const std::string long_text = times(size, part);
    put("a tensor's name", "{\"" + long_text + "\":" + scalar + "}", "x");
    put("a tensor's name twice",
        "{\"" + times(size / 2, part) + "\":" + scalar + ",\"" + times(size / 2, part) + "\":" + scalar + "}", "x");
    put("the name of a damaged tensor", "{\"" + long_text + R"(":{"dtype":"U8","shape":[3],"data_offsets":[0,1]}})",
        "x");
    put("the name of a tensor outside", "{\"" + long_text + R"(":{"dtype":"U8","shape":[3],"data_offsets":[0,9]}})",
        "x");
    put("the name of a tensor without shape", "{\"" + long_text + R"(":{"dtype":"U8"}})", "x");
    put("a field's name", R"({"a":{")" + long_text + R"(":1}})", "x");
    put("a type's name", R"({"state/a/step":{"dtype":")" + long_text + R"(","shape":[],"data_offsets":[0,1]}})", "x");
    put("a name of metadata", metadata('"' + long_text + "\":\"\""));
    put("a value of metadata", metadata("\"a\":\"" + long_text + '"'));
    put("a name of metadata twice",
        metadata('"' + times(size / 2, part) + "\":\"\",\"" + times(size / 2, part) + "\":\"\""));
    put("the format", "{\"__metadata__\":{\"gradus/format\":\"" + long_text + "\"}}");
    put("the recipe", metadata("\"gradus/recipe\":\"" + long_text + '"'));
    put("the groups", metadata("\"gradus/recipe\":\"sgd\",\"gradus/groups\":\"" + long_text + '"'));
    put("a hyperparameter",
        metadata("\"gradus/recipe\":\"sgd\",\"gradus/groups\":\"1\",\"gradus/group/0/lr\":\"" + long_text + '"'));
    put("a factor",
        metadata(R"("gradus/recipe":"sgd","gradus/groups":"1","gradus/group/0/lr":"1","gradus/lr_scale/0":")" +
                 long_text + '"'));
    put("a group",
        metadata("\"gradus/recipe\":\"sgd\",\"gradus/groups\":\"1\",\"gradus/group_of/a\":\"" + long_text + '"'));
    put("an open string", "{\"" + long_text);
  }
  for (const char* part : {"[", "{", "{\"a\":", "{\"a\":[", "{\"a\":{\"shape\":["})
    put("nesting", "{\"a\":" + times(size, part));
  put("dimensions",
      R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)" +
          many(size, [](std::size_t) { return std::string("1"); }) + "]}}",
      "x");
  put("digits", R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)" + times(size, "1") + "]}}", "x");
  put("zeros", R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)" + times(size, "0") + "]}}", "x");
  put("spaces", "{" + times(size, " \n") + "}");
  put("spaces after", "{}" + times(size, " \t"));
  put("bytes", times(size, "\xff"));
  return files;
}

// The most memory that f takes for a file, as a multiple of the file's length.
template <class F>
double factor(const hostile_file& file, const F& f)
{
  const std::size_t before = now;
  most = now;
  f();
  return double(most - before) / double(file.bytes.size());
}

struct worst {
  double factor = 0;
  const char* what = "";
  void take(double x, const hostile_file& file)
  {
    if (x > factor)
      *this = {x, file.what};
  }
};

void check(const char* whose, const worst& found, double most_allowed)
{
  std::printf("%s: at most %.2f times the file (%s)\n", whose, found.factor, found.what);
  CHECK(found.factor < most_allowed);
}

// A strict load lists ten differences, and a lenient one all of them.
template <class Opt>
void check_load(const std::string& whose, Opt& opt, const std::vector<hostile_file>& files)
{
  worst strict, lenient;
  for (const hostile_file& file : files) {
    strict.take(factor(file, [&] { support::refusal([&] { support::load_bytes(opt, file.bytes); }); }), file);
    for (const bool convert : {false, true})
      lenient.take(factor(file,
                          [&] {
                            support::refusal([&] {
                              support::load_bytes(opt, file.bytes, {.lenient = true, .convert = convert});
                            });
                          }),
                   file);
  }
  check((whose + ", strict").c_str(), strict, 4);
  check((whose + ", lenient").c_str(), lenient, 5);
}

}  // namespace

TEST_CASE("load: hostile headers take a small multiple of their length in memory")
{
  const std::vector<hostile_file> files = hostile_files(300'000);
  std::vector<float> w(3, 0.5f), g(w);

  worst reader;
  for (const hostile_file& file : files)
    reader.take(factor(file, [&] { support::refusal([&] { support::header_in(file.bytes); }); }), file);
  check("reader", reader, 3);

  gradus::optimizer<gradus::sgd> opt(gradus::sgd{});
  opt.add("a", w, g);
  check_load("optimizer", opt, files);

  // As C and Python have it.
  gradus::any_optimizer<float, gradus::backend::scalar, gradus::recipe_list<gradus::sgd>> any("sgd");
  any.add("a", w, g);
  check_load("any_optimizer", any, files);
}

TEST_CASE("load: small headers and the caller's own strings take 2 MB more at most")
{
  std::vector<hostile_file> files = hostile_files(700);
  std::string pairs = R"({"__metadata__":{"gradus/format":"1")";
  for (std::size_t i = 0; i < 9'999; ++i)
    pairs += ",\"" + short_name(i) + "\":\"\"";
  files.push_back({"9999 strings", support::file_of(pairs + "}}", {})});
  std::vector<float> w(3, 0.5f), g(w);
  gradus::optimizer<gradus::sgd> opt(gradus::sgd{});
  opt.add("a", w, g);
  for (const hostile_file& file : files) {
    const double times = factor(file, [&] { support::refusal([&] { support::load_bytes(opt, file.bytes); }); });
    CHECK_MESSAGE((times - 4) * double(file.bytes.size()) < 2e6, file.what);
  }
}

TEST_CASE("save, load: the number of strings of the caller's own is limited")
{
  std::vector<float> w(3, 0.5f), g(w);
  gradus::optimizer<gradus::sgd> opt(gradus::sgd{});
  opt.add("a", w, g);
  gradus::save_options o;
  for (int i = 0; i < 10'000; ++i)
    o.metadata.emplace_back(std::to_string(i), "");
  const std::string bytes = support::checkpoint_of(opt, o);
  CHECK(support::load_bytes(opt, bytes).metadata.size() == 10'000);
  o.metadata.emplace_back("one", "more");
  CHECK(support::refusal([&] { support::checkpoint_of(opt, o); }) ==
        "gradus: metadata has 10001 strings; expected at most 10000; put many into one");
  const std::string begin = "{\"__metadata__\":{", pair = "\"one\":\"more\",";
  REQUIRE(bytes.find(begin) == 8);
  std::string more = support::with_length(bytes, support::header_in(bytes).data_start - 8 + pair.size());
  more.insert(8 + begin.size(), pair);
  CHECK(support::refusal([&] { support::load_bytes(opt, more); }) ==
        "gradus: checkpoint: __metadata__ has 10001 strings that are not gradus's; expected at most 10000");
}

TEST_CASE("load: the message shows the beginning of a long text, cut between characters")
{
  std::string text = "x";
  while (text.size() < 1000)
    text += "\xc3\xa9";
  const std::string said = support::refusal([&] { support::header_in(support::file_of("{\"" + text + "\":{}}")); });
  CHECK(said == "gradus: it: header, byte 1007: expected dtype, shape and data_offsets of tensor \"" +
                    text.substr(0, 399) + "\"… (1001 bytes)");
}
