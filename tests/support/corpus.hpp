#pragma once
// Safetensors files that are to be accepted or refused: each rule of the format's description
// (https://github.com/huggingface/safetensors, "Format") kept and broken, the kinds of invalid files that its tests name,
// and what gradus once got wrong. All are made here.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/checkpoint.hpp"

namespace support {

struct corpus_file {
  std::string name;
  std::string bytes;
  std::string says;            // a part of the reader's refusal; empty if it accepts the file
  bool safetensors;            // whether the package safetensors (0.8.0) accepts it
  std::string load_says = {};  // where the reader accepts: a part of the refusal of a lenient load
};

// Of a model with the floats "a" of two elements, trained by sgd with momentum.
struct corpus_of_sgd {
  std::string recipe = "sgd", format = "1", groups = "1", lr = "0.1", momentum = "0.9", weight_decay = "0",
              group_of = "0", further = {};  // metadata
  std::uint64_t steps = 3;
  std::string step_type = "U64", step_shape = "1", buffer_type = "F32", buffer_shape = "2";

  std::string bytes() const
  {
    const auto number = [](const char* name, const std::string& value) {
      return std::string(",\"gradus/group/0/") + name + "\":\"" + value + '"';
    };
    const std::string json =
        R"({"__metadata__":{"gradus/format":")" + format + R"(","gradus/version":"0.1.0","gradus/recipe":")" + recipe +
        R"(","gradus/groups":")" + groups + '"' + number("lr", lr) + number("momentum", momentum) +
        number("dampening", "0") + number("nesterov", "0") + number("weight_decay", weight_decay) +
        R"(,"gradus/group_of/a":")" + group_of + '"' + further + R"(},"state/a/step":{"dtype":")" + step_type +
        R"(","shape":[)" + step_shape +
        R"(],"data_offsets":[0,8]},"parameters/a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)" +
        R"("state/a/momentum_buffer":{"dtype":")" + buffer_type + R"(","shape":[)" + buffer_shape +
        R"(],"data_offsets":[16,24]}})";
    std::string data;
    for (int i = 0; i < 8; ++i)
      data += char(static_cast<unsigned char>(steps >> 8 * i));
    return file_of(json, data + std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x80\x3e\0\0\0\x3f", 16));
  }
};

inline std::vector<corpus_file> corpus()
{
  std::vector<corpus_file> files;
  const auto put = [&](const char* name, const std::string& bytes, bool safetensors, const char* says = "",
                       const char* load_says = "") { files.push_back({name, bytes, says, safetensors, load_says}); };
  const std::string eight = "12345678";
  const auto tensor = [](const std::string& type, const std::string& shape, std::uint64_t begin, std::uint64_t end) {
    return "{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":[" + std::to_string(begin) + ',' +
           std::to_string(end) + "]}";
  };
  const std::string whole = tensor("U8", "[8]", 0, 8);
  // A file of one tensor of eight bytes.
  const auto one = [&](const std::string& t) { return file_of("{\"a\":" + t + '}', eight); };
  const auto two = [&](const std::string& a, const std::string& b) {
    return file_of("{\"a\":" + a + ",\"b\":" + b + '}', eight);
  };
  const auto key = [&](const std::string& k) { return file_of("{\"" + k + "\":" + whole + '}', eight); };
  const auto metadata = [&](const std::string& m) { return file_of("{\"__metadata__\":" + m + '}'); };

  // The length
  put("nothing", "", false, "size is 0; expected at least the 8 bytes of the header's length");
  put("seven_bytes", "1234567", false, "size is 7; expected at least the 8 bytes of the header's length");
  put("length_of_0", file_of(""), false, "byte 0: expected '{' as the header's first character");
  put("length_beyond_the_file", with_length(file_of("{}"), 3), false, "the header's length is 3; expected at most 2");
  put("length_over_100_MB", with_length(file_of("{}"), 100'000'001), false,
      "the header's length is 100000001; expected at most");
  put("length_of_63_bits", with_length(file_of("{}"), std::uint64_t(1) << 63), false,
      "the header's length is 9223372036854775808; expected at most");
  put("length_of_64_bits", with_length(file_of("{}"), std::uint64_t(-1)), false,
      "the header's length is 18446744073709551615; expected at most");
  put("length_that_overflows", with_length(file_of("{}"), std::uint64_t(-8)), false,
      "the header's length is 18446744073709551608; expected at most");
  put("length_big_endian", std::string(7, '\0') + "\x02{}", false,
      "the header's length is 144115188075855872; expected at most");

  // The header's beginning and end
  put("no_tensors", file_of("{}"), true);
  put("space_first", file_of(" {}"), true, "byte 0: expected '{' as the header's first character");
  put("line_first", file_of("\n{}"), true, "byte 0: expected '{' as the header's first character");
  put("byte_order_mark_first", file_of("\xef\xbb\xbf{}"), false,
      "byte 0: expected '{' as the header's first character");
  put("spaces_last", file_of("{}      "), true);
  put("white_space_last", file_of("{}\n\t\r "), true);
  put("zeros_last", file_of(std::string("{}\0\0", 4)), false, "byte 2: expected nothing after the header's last '}'");
  put("text_last", file_of("{}x"), false, "byte 2: expected nothing after the header's last '}'");
  put("two_objects", file_of("{}{}"), false, "byte 2: expected nothing after the header's last '}'");
  put("an_array", file_of("[]"), false, "byte 0: expected '{' as the header's first character");
  put("a_string", file_of("\"a\""), false, "byte 0: expected '{' as the header's first character");
  put("an_open_object", file_of("{"), false, "byte 1: expected '\"'");
  put("not_json", file_of("{hello}"), false, "byte 1: expected '\"'");
  put("not_utf8", file_of("\xff\xfe"), false, "byte 0: expected '{' as the header's first character");
  put("a_last_comma", file_of("{\"a\":" + whole + ",}", eight), false, "expected '\"'");
  put("a_comment", file_of("{/**/}"), false, "byte 1: expected '\"'");
  put("single_quotes", file_of("{'a':" + whole + '}', eight), false, "byte 1: expected '\"'");
  put("a_vertical_tab", file_of("{\v}"), false, "byte 1: expected '\"'");
  put("a_space_of_unicode", file_of("{\xc2\xa0}"), false, "byte 1: expected '\"'");
  put("white_space",
      file_of("{ \"a\" :\t{\r\"dtype\" : \"U8\" , \"shape\" : [ 8 ] ,\n\"data_offsets\" : [ 0 , 8 ] } }", eight), true);

  // Names
  put("a_name_of_no_characters", key(""), true);
  put("a_name_with_a_zero", key("\\u0000"), true);
  put("a_name_beyond_16_bits", key("\\ud83e\\udde0"), true);
  put("a_name_with_escapes", key("\\\"\\\\\\/\\b\\f\\n\\r\\t"), true);
  put("a_name_with_delete", key("\x7f"), true);
  put("a_name_with_a_control_character", key("\n"), false,
      "expected the rest of a string, in UTF-8 and without control characters");
  put("a_name_in_latin_1", key("\xff"), false, "expected the rest of a string, in UTF-8");
  put("a_name_overlong", key("\xc0\x80"), false, "expected the rest of a string, in UTF-8");
  put("a_name_with_a_surrogate", key("\xed\xa0\x80"), false, "expected the rest of a string, in UTF-8");
  put("a_name_beyond_unicode", key("\xf4\x90\x80\x80"), false, "expected the rest of a string, in UTF-8");
  put("a_name_with_half_a_pair", key("\\ud800"), false, "expected the second half of a surrogate pair");
  put("a_name_with_the_second_half", key("\\udc00"), false, "expected the first half of a surrogate pair");
  put("a_name_with_a_wrong_escape", key("\\x"), false, "expected an escape of JSON");
  put("a_name_with_a_short_escape", key("\\u12"), false, "expected four hexadecimal digits");
  put("a_name_twice",
      file_of("{\"a\":" + tensor("U8", "[4]", 0, 4) + ",\"a\":" + tensor("U8", "[4]", 4, 8) + '}', eight), false,
      "expected the tensor \"a\" once");
  put("a_name_twice_at_one_place", file_of("{\"a\":" + whole + ",\"a\":" + whole + '}', eight), true,
      "expected the tensor \"a\" once");
  put("a_name_twice_with_an_escape", file_of("{\"a\":" + whole + ",\"\\u0061\":" + whole + '}', eight), true,
      "expected the tensor \"a\" once");

  // __metadata__
  put("metadata", metadata(R"({"a":"b","":"","\u00e9":"\n"})"), true);
  put("metadata_last", file_of("{\"a\":" + whole + ",\"__metadata__\":{\"a\":\"b\"}}", eight), true);
  put("metadata_null", metadata("null"), true, "expected '{'");
  put("metadata_a_list", metadata("[\"a\",\"b\"]"), false, "expected '{'");
  put("metadata_a_string", metadata("\"a\""), false, "expected '{'");
  put("metadata_with_a_number", metadata("{\"a\":1}"), false, "expected '\"'");
  put("metadata_with_null", metadata("{\"a\":null}"), false, "expected '\"'");
  put("metadata_with_an_object", metadata("{\"a\":{}}"), false, "expected '\"'");
  put("metadata_with_a_list", metadata("{\"a\":[\"b\"]}"), false, "expected '\"'");
  put("metadata_like_a_tensor", metadata(tensor("U8", "[0]", 0, 0)), false, "expected '\"'");
  put("metadata_twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}"), false, "expected \"__metadata__\" once");
  put("metadata_with_a_name_twice", metadata("{\"a\":\"1\",\"a\":\"2\"}"), true, "expected the metadata \"a\" once");

  // A tensor's fields
  put("a_tensor_without_type", one("{\"shape\":[8],\"data_offsets\":[0,8]}"), false,
      "expected dtype, shape and data_offsets of tensor \"a\"");
  put("a_tensor_without_shape", one("{\"dtype\":\"U8\",\"data_offsets\":[0,8]}"), false,
      "expected dtype, shape and data_offsets of tensor \"a\"");
  put("a_tensor_without_offsets", one("{\"dtype\":\"U8\",\"shape\":[8]}"), false,
      "expected dtype, shape and data_offsets of tensor \"a\"");
  put("a_tensor_with_a_field_twice", one("{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}"),
      false, "expected each field of tensor \"a\" once");
  put("a_tensor_with_another_field", one("{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8],\"x\":1}"), true,
      "expected dtype, shape or data_offsets, not \"x\"");
  put("a_tensor_as_a_list", one("[\"U8\",[8],[0,8]]"), true, "expected '{'");
  put("a_tensor_as_null", one("null"), false, "expected '{'");
  put("fields_with_escapes", one("{\"\\u0064type\":\"\\u00558\",\"shape\":[8],\"data_offsets\":[0,8]}"), true);
  put("fields_in_another_order", one("{\"data_offsets\":[0,8],\"shape\":[8],\"dtype\":\"U8\"}"), true);

  // Types
  for (const char* type : {"BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "U16", "F16", "BF16", "I32", "U32", "F32",
                           "F64", "I64", "U64"}) {
    const std::size_t bytes = gradus::safetensors::find_dtype(type)->bytes;
    put((std::string("type_") + type).c_str(), one(tensor(type, '[' + std::to_string(8 / bytes) + ']', 0, 8)), true);
  }
  // Known to safetensors alone. gradus needs no such tensor, and ignores it.
  put("type_C64", one(tensor("C64", "[1]", 0, 8)), true);
  put("type_F8_E8M0", one(tensor("F8_E8M0", "[8]", 0, 8)), true);
  put("type_F8_E4M3FNUZ", one(tensor("F8_E4M3FNUZ", "[8]", 0, 8)), true);
  put("type_F4", one(tensor("F4", "[16]", 0, 8)), true);
  put("type_F4_of_half_a_byte", one(tensor("F4", "[15]", 0, 8)), false);
  put("type_unknown", one(tensor("X8", "[8]", 0, 8)), false);
  put("type_in_small_letters", one(tensor("u8", "[8]", 0, 8)), false);
  put("type_a_number", one("{\"dtype\":8,\"shape\":[8],\"data_offsets\":[0,8]}"), false, "expected '\"'");
  put("truth_values_of_2", one(tensor("BOOL", "[8]", 0, 8)), true);

  // Shapes
  put("shape_of_a_scalar", one(tensor("F64", "[]", 0, 8)), true);
  put("shape_with_0", file_of("{\"a\":" + tensor("F32", "[3,0,5]", 0, 0) + '}'), true);
  put("shape_of_many_dimensions",
      one(tensor("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,2,2]", 0,
                 8)),
      true);
  put("shape_negative", one(tensor("U8", "[-8]", 0, 8)), false,
      "expected a whole number without sign or leading zeros");
  put("shape_of_minus_0", file_of("{\"a\":" + tensor("U8", "[-0]", 0, 0) + '}'), false,
      "expected a whole number without sign or leading zeros");
  put("shape_with_a_point", one(tensor("U8", "[8.0]", 0, 8)), false, "expected ']'");
  put("shape_with_an_exponent", one(tensor("U8", "[8e0]", 0, 8)), false, "expected ']'");
  put("shape_with_a_leading_0", one(tensor("U8", "[08]", 0, 8)), false,
      "expected a whole number without sign or leading zeros");
  put("shape_of_a_string", one(tensor("U8", "[\"8\"]", 0, 8)), false, "expected a whole number");
  put("shape_null", one(tensor("U8", "null", 0, 8)), false, "expected '['");
  put("shape_a_number", one(tensor("U8", "8", 0, 8)), false, "expected '['");
  put("shape_with_a_last_comma", one(tensor("U8", "[8,]", 0, 8)), false, "expected a whole number");
  put("shape_too_small", one(tensor("U8", "[7]", 0, 8)), false,
      "expected as many bytes for tensor \"a\" as its dtype and shape take");
  put("shape_too_large", one(tensor("F32", "[3]", 0, 8)), false,
      "expected as many bytes for tensor \"a\" as its dtype and shape take");
  put("shape_of_2_to_64", one(tensor("U8", "[18446744073709551616]", 0, 8)), false, "expected a number below 2^64");
  put("shape_whose_elements_overflow", one(tensor("U8", "[18446744073709551615,2]", 0, 8)), false,
      "expected a shape of fewer than 2^64 bytes");
  put("shape_whose_bytes_overflow", one(tensor("F32", "[9223372036854775807]", 0, 8)), false,
      "expected a shape of fewer than 2^64 bytes");
  put("shape_whose_elements_overflow_to_8", one(tensor("U8", "[4611686018427387906,4]", 0, 8)), false,
      "expected a shape of fewer than 2^64 bytes");
  put("shape_that_overflows_before_a_0", file_of("{\"a\":" + tensor("U8", "[18446744073709551615,2,0]", 0, 0) + '}'),
      false, "expected a shape of fewer than 2^64 bytes");
  put("shape_that_overflows_after_a_0", file_of("{\"a\":" + tensor("U8", "[0,18446744073709551615,2]", 0, 0) + '}'),
      true);

  // Offsets
  put("offsets_in_any_order", two(tensor("U8", "[4]", 4, 8), tensor("U8", "[4]", 0, 4)), true);
  put("offsets_that_are_unaligned",
      file_of("{\"a\":" + tensor("U8", "[1]", 0, 1) + ",\"b\":" + tensor("F32", "[1]", 1, 5) + '}', "12345"), true);
  put("offsets_of_three_numbers", one("{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8,8]}"), false,
      "expected ']'");
  put("offsets_of_one_number", one("{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8]}"), false, "expected ','");
  put("offsets_negative", one("{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[-8,0]}"), false,
      "expected a whole number");
  put("offsets_reversed", one(tensor("U8", "[8]", 8, 0)), false,
      "expected data_offsets of tensor \"a\" in order and within the 8 bytes there are");
  put("offsets_outside", one(tensor("U8", "[9]", 0, 9)), false, "in order and within the 8 bytes there are");
  put("offsets_of_64_bits", one(tensor("U8", "[8]", std::uint64_t(-9), std::uint64_t(-1))), false,
      "in order and within the 8 bytes there are");
  put("a_hole_first", one(tensor("U8", "[4]", 4, 8)), false,
      "a tensor's bytes begin at 4; expected 0, where the one before it ends");
  put("a_hole_between", two(tensor("U8", "[3]", 0, 3), tensor("U8", "[4]", 4, 8)), false,
      "a tensor's bytes begin at 4; expected 3");
  put("a_hole_last", one(tensor("U8", "[4]", 0, 4)), false,
      "the tensors end at byte 4 of the data; expected 8, the file's end");
  put("data_of_no_tensor", file_of("{}", eight), false,
      "the tensors end at byte 0 of the data; expected 8, the file's end");
  put("a_missing_byte", file_of("{\"a\":" + whole + '}', "1234567"), false,
      "in order and within the 7 bytes there are");
  put("an_overlap", two(whole, tensor("U8", "[4]", 4, 8)), false, "a tensor's bytes begin at 4; expected 8");
  put("two_at_one_place", two(whole, whole), false, "a tensor's bytes begin at 0; expected 8");
  put("an_empty_tensor_first", two(whole, tensor("U8", "[0]", 0, 0)), true);
  put("an_empty_tensor_last", two(whole, tensor("U8", "[0]", 8, 8)), true);
  put("an_empty_tensor_inside_another", two(whole, tensor("U8", "[0]", 4, 4)), false,
      "a tensor's bytes begin at 4; expected 8");
  put("an_empty_tensor_outside", two(whole, tensor("U8", "[0]", 9, 9)), false,
      "in order and within the 8 bytes there are");

  // Deep
  put("deep_lists", file_of("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + '}'), false, "expected '{'");
  std::string objects = "{\"a\":";
  for (int i = 0; i < 5000; ++i)
    objects += "{\"a\":";
  put("deep_objects", file_of(objects), false, "expected dtype, shape or data_offsets, not \"a\"");

  // Checkpoints of gradus's
  const auto state = [&](const char* name, corpus_of_sgd c, const char* load_says = "") {
    put(name, c.bytes(), true, "", load_says);
  };
  state("checkpoint", {});
  state("checkpoint_of_another_format", {.format = "2"},
        "format is \"2\"; expected \"1\": another version of gradus wrote it");
  state("checkpoint_of_another_recipe", {.recipe = "adam"});
  state("checkpoint_of_many_groups", {.groups = "18446744073709551616"});
  state("checkpoint_of_another_group", {.group_of = "-1"});
  state("checkpoint_with_lr_below_0", {.lr = "-1"}, "group 0: lr is -1; expected a finite number >= 0");
  state("checkpoint_with_lr_nan", {.lr = "nan"}, "group 0: lr is nan; expected a finite number >= 0");
  state("checkpoint_with_lr_inf", {.lr = "inf"}, "group 0: lr is inf; expected a finite number >= 0");
  state("checkpoint_with_lr_of_text", {.lr = "fast"}, "\"gradus/group/0/lr\" is \"fast\"; expected a number");
  state("checkpoint_with_a_decimal_comma", {.lr = "0,1"}, "\"gradus/group/0/lr\" is \"0,1\"; expected a number");
  state("checkpoint_with_hexadecimal", {.lr = "0x1p-3"}, "expected a number");
  state("checkpoint_with_lr_too_large", {.lr = "1e999"}, "expected a number");
  state("checkpoint_with_lr_of_many_digits", {.lr = "0." + std::string(3000, '1')});
  state("checkpoint_with_momentum_1", {.momentum = "1"}, "group 0: momentum is 1; expected a number in [0, 1)");
  state("checkpoint_without_momentum", {.momentum = "0"});
  state("checkpoint_with_a_factor_below_0", {.further = R"(,"gradus/lr_scale/0":"-1")"},
        "\"gradus/lr_scale/0\" is \"-1\"; expected a finite number >= 0");
  state("checkpoint_with_steps_beyond_doubles", {.steps = std::uint64_t(1) << 53},
        "\"state/a/step\" is 9007199254740992; expected fewer than 2^53 steps");
  state("checkpoint_with_all_steps", {.steps = std::uint64_t(-1)}, "expected fewer than 2^53 steps");
  state("checkpoint_with_steps_in_double", {.step_type = "F64"});
  state("checkpoint_with_two_steps", {.step_type = "U32", .step_shape = "2"});
  state("checkpoint_with_a_buffer_in_half", {.buffer_type = "F16", .buffer_shape = "4"});
  state("checkpoint_with_a_buffer_of_bytes", {.buffer_type = "U8", .buffer_shape = "8"});
  state("checkpoint_with_a_foreign_tensor", {.buffer_type = "C64", .buffer_shape = "1"});
  state("checkpoint_frozen", {.further = R"(,"gradus/frozen/a":"1")"});
  state("checkpoint_with_own_strings", {.further = R"(,"epoch":"3")"});
  return files;
}

}  // namespace support
