// Files that are damaged, or made to do damage: a sentence, and an optimizer as it was. The sanitizers look on in one
// build.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"
#include "support/random.hpp"

using support::contains;
using support::file_of;

// ── the largest piece of memory that is asked for ────────────────────────────────────────────────────────────────────

namespace {
std::size_t largest = 0;
}

void* operator new(std::size_t n)
{
  largest = n > largest ? n : largest;
  if (void* const p = std::malloc(n ? n : 1))
    return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

struct model {
  std::vector<float> a = std::vector<float>(3, 0.5f), b = std::vector<float>(20, 0.25f), ga = a, gb = b;
  gradus::optimizer<gradus::adams> opt{gradus::adams{.lr = 0.01, .weight_decay = 0.1}};
  model()
  {
    opt.add("a", a, ga);
    opt.add("b\n\"", b, gb, opt.add_group({.lr = 0.5}));
    for (int t = 0; t < 3; ++t)
      opt.step();
  }
};

// Loads from memory that ends where the file does, so that the sanitizer sees a byte too far.
template <class Opt>
gradus::load_report load_exactly(Opt& opt, const std::string& bytes, const gradus::load_options& o)
{
  const std::unique_ptr<std::byte[]> exact(new std::byte[bytes.size()]);
  std::memcpy(exact.get(), bytes.data(), bytes.size());
  return gradus::load_from(opt, std::span<const std::byte>(exact.get(), bytes.size()), o);
}

std::string with_length(std::string bytes, std::uint64_t length)
{
  for (std::size_t i = 0; i < 8; ++i)
    bytes[i] = char(static_cast<unsigned char>(length >> 8 * i));
  return bytes;
}

// One of many ways to damage a file.
std::string mutate(std::string bytes, support::random& r)
{
  const std::size_t length = static_cast<unsigned char>(bytes[0]) | std::size_t(static_cast<unsigned char>(bytes[1]))
                                                                        << 8;
  const std::size_t header = length > 0 && length <= bytes.size() - 8 ? 8 + length : bytes.size();
  const auto at = [&] { return r.chance(0.9) ? r.below(header) : r.below(bytes.size()); };
  const auto digits = [&](const std::string& put) {  // in some number's place
    std::size_t i = at();
    while (i < header && !(bytes[i] >= '0' && bytes[i] <= '9'))
      ++i;
    std::size_t j = i;
    while (j < header && bytes[j] >= '0' && bytes[j] <= '9')
      ++j;
    return with_length(bytes.substr(0, i) + put + bytes.substr(j), header - 8 - (j - i) + put.size());
  };
  const auto insert = [&](const std::string& put, std::size_t i) {
    return with_length(bytes.substr(0, i) + put + bytes.substr(i), header - 8 + put.size());
  };
  const auto any_key = [&] {
    const char* const keys[] = {"\"state/a/step\"", "\"__metadata__\"",  "\"dtype\"", "\"shape\"",
                                "\"data_offsets\"", "\"gradus/format\"", "\"F32\""};
    return std::string(keys[r.below(std::size(keys))]);
  };
  switch (r.below(14)) {
  case 0: bytes[at()] ^= char(1 << r.below(8)); return bytes;
  case 1:
    for (std::size_t n = 1 + r.below(8); n > 0; --n)
      bytes[at()] = char(r.below(256));
    return bytes;
  case 2: return bytes.substr(0, r.below(bytes.size()));
  case 3: return bytes + std::string(1 + r.below(20), char(r.below(256)));
  case 4: return with_length(bytes, r.any<double>() > 0 ? r.below(1000) : std::uint64_t(r.magnitude(1, 1.8e19)));
  case 5: return digits(std::to_string(std::uint64_t(r.magnitude(1, 1.8e19))));
  case 6:
    return digits(r.chance(0.5)   ? "-1"
                  : r.chance(0.5) ? "18446744073709551615"
                  : r.chance(0.5) ? "18446744073709551616"
                                  : "9223372036854775807");
  case 7: return digits(r.chance(0.5) ? "1e3" : r.chance(0.5) ? "1.0" : r.chance(0.5) ? "007" : "null");
  case 8:
    return insert(std::string(1 + r.below(3000), "[{\"(-\\"[r.below(6)]), 8 + r.below(header - 8));  // deep, and deeper
  case 9: {                                                                                          // one entry twice
    const std::size_t from = bytes.find("},\"", r.below(header)),
                      to = from < header ? bytes.find("},\"", from + 1) : header;
    return to < header ? insert(bytes.substr(from + 1, to - from), from + 1) : bytes;
  }
  case 10: {  // a piece cut out
    const std::size_t i = 8 + r.below(header - 8), n = std::min(1 + r.below(40), header - i);
    return with_length(bytes.substr(0, i) + bytes.substr(i + n), header - 8 - n);
  }
  case 11: {  // two keys exchanged
    const std::string x = any_key(), y = any_key();
    const std::size_t i = bytes.find(x, r.below(header));
    return i < header
               ? with_length(bytes.substr(0, i) + y + bytes.substr(i + x.size()), header - 8 - x.size() + y.size())
               : bytes;
  }
  case 12:
    return insert(r.chance(0.5)   ? "\\ud800"
                  : r.chance(0.5) ? "\\u00"
                  : r.chance(0.5) ? "\\udc00\\ud800"
                                  : "\xc3",
                  8 + r.below(header - 8));
  default: return insert(std::string(1, char(r.below(256))), 8 + r.below(header - 8));
  }
}

std::string refusal_of(const std::string& bytes, const gradus::load_options& o = {})
{
  model m;
  const std::string before = support::checkpoint_of(m.opt);
  const std::string said = support::refusal([&] { load_exactly(m.opt, bytes, o); });
  CHECK((said.empty() || support::checkpoint_of(m.opt) == before));
  return said;
}

}  // namespace

TEST_CASE("ten thousand damaged files")
{
  support::random r(2024);
  model m, clean;
  const std::string good = support::checkpoint_of(clean.opt);
  clean.opt.step();
  const std::string before = support::checkpoint_of(m.opt);
  int refused = 0, loaded = 0;
  std::size_t most = 0;
  for (int i = 0; i < 10000; ++i) {
    std::string bytes = good;
    for (std::size_t n = r.chance(0.8) ? 1 : 1 + r.below(4); n > 0; --n)
      if (bytes.size() > 20)
        bytes = mutate(bytes, r);
    const gradus::load_options o{.lenient = r.chance(0.3), .convert = r.chance(0.2)};
    largest = 0;
    const std::string said = support::refusal([&] { load_exactly(m.opt, bytes, o); });
    // Sentences are made of the file's text, and escape it; six bytes for one at most.
    most = std::max(most, largest > bytes.size() ? largest - bytes.size() : 0);
    REQUIRE(largest <= 16 * bytes.size() + 4096);
    if (said.empty()) {  // what was changed was of no matter, as a space is, or a weight
      ++loaded;
      load_exactly(m.opt, good, {});
    } else {
      ++refused;
      REQUIRE(said.starts_with("gradus: "));
    }
    if (i % 10 == 0 || !said.empty())
      REQUIRE(support::checkpoint_of(m.opt) == before);
  }
  std::printf("%d damaged files refused, %d loaded\n", refused, loaded);
  CHECK(refused > 7000);
  CHECK(loaded > 100);
}

TEST_CASE("what is wrong with a header is said")
{
  const auto check = [](const std::string& bytes, const std::string& part) {
    const std::string said = refusal_of(bytes);
    CHECK_MESSAGE(contains(said, part), "expected \"", part, "\" in: ", said);
  };
  check("", "checkpoint: size is 0; expected at least the 8 bytes of the header's length");
  check("1234567", "size is 7; expected at least the 8 bytes");
  check(with_length(std::string(8, '\0'), 1), "the header's length is 1; expected at most 0");
  check(with_length(std::string(20, ' '), std::uint64_t(-1)),
        "the header's length is 18446744073709551615; expected at most 12");
  check(with_length(std::string(20, ' '), std::uint64_t(-8)),
        "the header's length is 18446744073709551608; expected at most 12");
  check(file_of(""), "header, byte 0: expected '{' as the header's first character");
  check(file_of(" {}"), "expected '{' as the header's first character");
  check(file_of("{"), "header, byte 1: expected '\"'");
  check(file_of("{}x"), "header, byte 2: expected nothing after the header's last '}'");
  check(file_of("{}", "x"), "the tensors end at byte 0 of the data; expected 1, the file's end");
  check(file_of("{\"a"), "expected the rest of a string, in UTF-8 and without control characters");
  check(file_of("{\"a\n\""), "without control characters");
  check(file_of("{\"\xff\""), "in UTF-8");
  check(file_of("{\"\\x\""), "expected an escape of JSON");
  check(file_of("{\"\\u12g4\""), "expected four hexadecimal digits");
  check(file_of("{\"\\ud800\""), "expected the second half of a surrogate pair");
  check(file_of("{\"\\ud800\\u0041\""), "expected the second half of a surrogate pair");
  check(file_of("{\"\\udc00\""), "expected the first half of a surrogate pair");
  const auto entry = [](const std::string& fields) { return file_of("{\"a\":{" + fields + "}}", "12345678"); };
  const std::string type = "\"dtype\":\"U8\"", shape = "\"shape\":[8]", offsets = "\"data_offsets\":[0,8]";
  check(entry(""), "expected dtype, shape and data_offsets of tensor \"a\"");
  check(entry(type + "," + shape), "expected dtype, shape and data_offsets of tensor \"a\"");
  check(entry(type + "," + shape + "," + offsets + "," + type), "expected each field of tensor \"a\" once");
  check(entry(type + "," + shape + "," + offsets + ",\"x\":1"), "expected dtype, shape or data_offsets, not \"x\"");
  check(entry("\"dtype\":\"F33\""), "expected dtype, shape and data_offsets of tensor \"a\"");
  check(entry("\"shape\":[-1]"), "expected a whole number without sign or leading zeros");
  check(entry("\"shape\":[01]"), "expected a whole number without sign or leading zeros");
  check(entry("\"shape\":[1,]"), "expected a whole number without sign or leading zeros");
  check(entry("\"shape\":[18446744073709551616]"), "expected a number below 2^64");
  check(entry("\"shape\":[4294967296,4294967296]"), "expected a shape of fewer than 2^64 bytes");
  check(entry("\"shape\":[9223372036854775808]," + offsets + ",\"dtype\":\"F32\""),
        "expected a shape of fewer than 2^64 bytes");
  check(entry(type + ",\"shape\":[7]," + offsets),
        "expected as many bytes for tensor \"a\" as its dtype and shape take");
  check(entry(type + "," + shape + ",\"data_offsets\":[8,0]"),
        "expected data_offsets of tensor \"a\" in order and within the 8 bytes there are");
  check(entry(type + "," + shape + ",\"data_offsets\":[1,9]"), "in order and within the 8 bytes there are");
  check(entry(type + ",\"shape\":[2,3],\"data_offsets\":[0,6]"),
        "the tensors end at byte 6 of the data; expected 8, the file's end");
  check(entry(type + ",\"shape\":[6],\"data_offsets\":[2,8]"),
        "a tensor's bytes begin at 2; expected 0, where the one before it ends");
  const std::string ab = type + "," + shape + "," + offsets;
  check(file_of("{\"a\":{" + ab + "},\"b\":{" + ab + "}}", "12345678"),
        "a tensor's bytes begin at 0; expected 8, where the one before it ends");
  check(file_of("{\"a\":{" + ab + "},\"a\":{" + ab + "}}", "12345678"), "expected the tensor \"a\" once");
  check(file_of("{\"a\":{" + ab + "},\"\\u0061\":{" + ab + "}}", "12345678"), "expected the tensor \"a\" once");
  check(file_of("{\"__metadata__\":{},\"__metadata__\":{}}"), "expected \"__metadata__\" once");
  check(file_of("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}"), "expected the metadata \"a\" once");
  check(file_of("{\"__metadata__\":{\"a\":1}}"), "expected '\"'");
  check(file_of("{\"__metadata__\":{\"gradus/format\":\"2\"}}"),
        "format is \"2\"; expected \"1\": another version of gradus wrote it");
  check(file_of("{}"), "\"gradus/format\" is missing; expected a file that gradus wrote");
  for (const char* deep : {"[", "{", "{\"a\":", "{\"a\":[", "\"", "\\"}) {
    std::string all = "{\"a\":";
    for (int i = 0; i < 1000000; ++i)
      all += deep;
    CHECK(!refusal_of(file_of(all)).empty());
  }
}

TEST_CASE("what safetensors allows and gradus does not write is read")
{
  std::vector<float> w(2), g(2);
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5});
  opt.add("w", w, g);
  const std::string metadata =
      R"("__metadata__" : {"gradus/format":"1", "gradus/recipe":"sgd", "gradus/groups":"1", "gradus/group/0/lr":"1e0",
    "gradus/group/0/momentum":"0", "gradus/group/0/dampening":"0", "gradus/group/0/nesterov":"0", "gradus/group/0/weight_decay":"0"})";
  // White space, escapes, fields and tensors in any order, scalars and shapes of several dimensions.
  const std::string json = " \t\r\n\"\\u0070arameters\\/w\" :{ \"data_offsets\": [ 8 , 16 ] , \"shape\" : [ 1 ,2, 1 "
                           "],\"dtype\":\"F32\" } ,\n"
                           "\"state/w/step\":{\"dtype\":\"U64\",\"shape\":[],\"data_offsets\":[0,8]} , " +
                           metadata + "}    ";
  const float values[] = {3, 4};
  const std::uint64_t step = 7;
  std::string data(16, '\0');
  std::memcpy(data.data(), &step, 8);
  std::memcpy(data.data() + 8, values, 8);
  CHECK(support::load_bytes(opt, file_of("{" + json, data)).settings);
  CHECK(w[1] == 4);
  CHECK(opt.hyperparameters().lr == 1);
  std::uint64_t seen = 0;
  opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> x) {
    if (key == "step")
      seen = std::uint64_t(x[0]);
  });
  CHECK(seen == 7);
}

TEST_CASE("a tensor of a type that is not known needs only its offsets, unless it is wanted")
{
  std::vector<float> w(2), g(2);
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5});
  opt.add("w", w, g);
  const std::string start = "{\"__metadata__\":{\"gradus/format\":\"1\"},\"state/w/"
                            "step\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]}";
  const std::string seven("\7\0\0\0\0\0\0\0", 8);
  const auto foreign = [&](const std::string& key, const std::string& type, const std::string& offsets) {
    return start + ",\"" + key + "\":{\"dtype\":\"" + type + "\",\"shape\":[3],\"data_offsets\":" + offsets + "}}";
  };
  for (const char* type :
       {"C64", "C128", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2", "", "\\\"\\u00e9"})
    for (const std::size_t bytes : {0u, 1u, 2u, 24u}) {
      const std::string file = file_of(foreign("other", type, "[8," + std::to_string(8 + bytes) + "]"),
                                       seven + std::string(bytes, 'x'));
      const auto report = support::load_bytes(opt, file, {.lenient = true});
      CHECK(report.differences.back().what == gradus::load_difference::surplus);
      CHECK(report.differences.back().key == "other");
      gradus::optimizer<gradus::sgd> strict({.lr = 0.5});
      strict.add("w", w, g);
      CHECK(contains(support::refusal([&] { support::load_bytes(strict, file); }),
                     "\"other\" is in the file; expected nothing under this key"));
    }
  // Its bytes still have a place of their own.
  const auto refused = [&](const std::string& offsets, const std::string& part) {
    const std::string said = refusal_of(file_of(foreign("other", "C64", offsets), seven + "123456"), {.lenient = true});
    CHECK_MESSAGE(contains(said, part), said);
  };
  refused("[8,15]", "in order and within the 14 bytes there are");
  refused("[9,14]", "begin at 9; expected 8");
  refused("[8,13]", "end at byte 13 of the data; expected 14");
  // What is wanted as floats is of another type, however many bytes it has; nor are master weights or moments made of
  // it.
  for (const char* type : {"C64", "F4", ""}) {
    gradus::optimizer<gradus::sgd> wants({.lr = 0.5});
    wants.add("w", w, g);
    w = {1, 2};
    const std::string file = file_of(foreign("parameters/w", type, "[8,16]"), seven + "12345678");
    for (const bool convert : {false, true}) {
      const auto report = support::load_bytes(wants, file, {.lenient = true, .convert = convert});
      CHECK(report.differences.back().what == gradus::load_difference::mistyped);
      CHECK(report.differences.back().sentence ==
            "\"parameters/w\" is of type \"" + std::string(type) + "\"; expected F32");
      CHECK((w == std::vector<float>{1, 2}));
    }
  }
}

TEST_CASE("counts and sums that no run can have reached")
{
  model m;
  const std::string good = support::checkpoint_of(m.opt);
  const auto check = [&](const std::string& key, auto value, const std::string& part) {
    const auto header = gradus::safetensors::read_header("it", good.size(),
                                                         [&](std::uint64_t at, void* to, std::size_t n) {
                                                           std::memcpy(to, good.data() + at, n);
                                                         });
    std::string bytes = good;
    std::memcpy(bytes.data() + header.data_start + header.tensors.at(key).begin, &value, 8);
    for (const bool lenient : {false, true})
      CHECK_MESSAGE(contains(refusal_of(bytes, {.lenient = lenient}), part), key);
  };
  check("state/a/step", std::uint64_t(-1), "\"state/a/step\" is 18446744073709551615; expected fewer than 2^53 steps");
  check("state//exp_avg_sq_sum_is_of_model", std::uint64_t(2),
        "\"state//exp_avg_sq_sum_is_of_model\" is 2; expected 0 or 1");
  check("state//exp_avg_sq_sum_is_of_model", std::uint64_t(-1), "is 18446744073709551615; expected 0 or 1");
  check("state/a/exp_avg_sq_sum", -1.0, "\"state/a/exp_avg_sq_sum\" is -1; expected a sum of squares");
  check("state/b\n\"/exp_avg_sq_sum", -std::numeric_limits<double>::infinity(), "is -inf; expected a sum of squares");
}

TEST_CASE("a sum of another type is converted, and checked like any other")
{
  model m;
  std::string bytes = support::checkpoint_of(m.opt);
  const auto header = gradus::safetensors::read_header("it", bytes.size(),
                                                       [&](std::uint64_t at, void* to, std::size_t n) {
                                                         std::memcpy(to, bytes.data() + at, n);
                                                       });
  // The same place is two floats: the first is the sum.
  const std::string key = "\"state/a/exp_avg_sq_sum\":{\"dtype\":\"F64\",\"shape\":[1],";
  const std::size_t at = bytes.find(key),
                    begin = static_cast<std::size_t>(header.tensors.at("state/a/exp_avg_sq_sum").begin);
  REQUIRE(at != std::string::npos);
  const auto offsets = [](std::size_t from, std::size_t to) {
    return "\"data_offsets\":[" + std::to_string(from) + ',' + std::to_string(to) + "]}";
  };
  std::string two = "\"state/a/exp_avg_sq_sum\":{\"dtype\":\"F32\",\"shape\":[1]," + offsets(begin, begin + 4) +
                    ",\"rest\":{\"dtype\":\"F32\",\"shape\":[1]," + offsets(begin + 4, begin + 8);
  const std::size_t end = bytes.find('}', at) + 1, length = header.data_start - 8 + two.size() - (end - at);
  bytes = bytes.substr(0, at) + two + bytes.substr(end);
  const auto with = [&](float sum) {
    std::string changed = with_length(bytes, length);
    std::memcpy(changed.data() + 8 + length + begin, &sum, sizeof sum);
    return changed;
  };
  CHECK(contains(refusal_of(with(-1), {.lenient = true, .convert = true}),
                 "\"state/a/exp_avg_sq_sum\" is -1; expected a sum of squares"));
  CHECK(refusal_of(with(1), {.lenient = true, .convert = true}).empty());
}

TEST_CASE("hyperparameters that are none")
{
  model m;
  const std::string good = support::checkpoint_of(m.opt);
  const auto check = [&](const std::string& put, const std::string& part) {
    std::string bytes = good;
    bytes.replace(bytes.find("\"0.01\""), 6, "\"" + put + "\"");
    for (const bool lenient : {false, true}) {
      const std::string said = refusal_of(bytes, {.lenient = lenient});
      CHECK_MESSAGE(contains(said, part), said);
    }
  };
  check("-.01", "gradus: checkpoint: group 0: lr is -0.01; expected a finite number >= 0");
  check("0,01", "\"gradus/group/0/lr\" is \"0,01\"; expected a number");
  check("0.1 ", "\"gradus/group/0/lr\" is \"0.1 \"; expected a number");
  check("    ", "expected a number");
  check("+inf", "expected a number");
  check("-inf", "lr is -inf; expected a finite number >= 0");
  check("-nan", "expected a finite number >= 0");
}
