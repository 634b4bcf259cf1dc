// The header of a safetensors file: what is refused, and in which words, and what is read.

#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include <gradus/checkpoint/safetensors/parser.hpp>

#include "support/checkpoint.hpp"

using support::contains, support::file_of, support::header_in, support::refusal, support::with_length;

TEST_CASE("parser: the message says what is wrong with a header")
{
  const auto check = [](const std::string& bytes, const std::string& part) {
    const std::string said = refusal([&] { header_in(bytes); });
    CHECK_MESSAGE(contains(said, part), "expected \"", part, "\" in: ", said);
  };
  check("", "it: size is 0; expected at least the 8 bytes of the header's length");
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
  // The bytes of a tensor of an unknown type are checked as well.
  const std::string unknown = "\"dtype\":\"C64\"," + shape;
  check(entry(unknown + ",\"data_offsets\":[0,9]"), "in order and within the 8 bytes there are");
  check(entry(unknown + ",\"data_offsets\":[1,8]"), "begin at 1; expected 0");
  check(entry(unknown + ",\"data_offsets\":[0,7]"), "end at byte 7 of the data; expected 8");
  for (const char* deep : {"[", "{", "{\"a\":", "{\"a\":[", "\"", "\\"}) {
    std::string all = "{\"a\":";
    for (int i = 0; i < 1000000; ++i)
      all += deep;
    CHECK_THROWS_AS(header_in(file_of(all)), std::invalid_argument);
  }
}

TEST_CASE("parser: reads what safetensors allows and gradus does not write")
{
  const std::string metadata =
      R"("__metadata__" : {"gradus/format":"1", "gradus/recipe":"sgd", "gradus/groups":"1", "gradus/group/0/lr":"1e0",
    "gradus/group/0/momentum":"0", "gradus/group/0/dampening":"0", "gradus/group/0/nesterov":"0", "gradus/group/0/weight_decay":"0"})";
  // White space, escapes, fields and tensors in any order, scalars and shapes of several dimensions.
  const std::string json = " \t\r\n\"\\u0070arameters\\/w\" :{ \"data_offsets\": [ 8 , 16 ] , \"shape\" : [ 1 ,2, 1 "
                           "],\"dtype\":\"F32\" } ,\n"
                           "\"state/w/step\":{\"dtype\":\"U64\",\"shape\":[],\"data_offsets\":[0,8]} , " +
                           metadata + "}    ";
  const auto header = header_in(file_of("{" + json, std::string(16, '\0')));
  REQUIRE(header.tensors.size() == 2);
  const auto& parameters = *header.tensors.find("parameters/w");
  CHECK(parameters.type->name == "F32");
  CHECK(parameters.elements == 2);
  CHECK(parameters.begin == 8);
  CHECK(parameters.end == 16);
  CHECK(header.tensors.find("state/w/step")->elements == 1);
  CHECK(header.view(header.metadata.find("gradus/group/0/lr")->value) == "1e0");
}
