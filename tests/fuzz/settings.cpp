// Any text in the place of each string that a checkpoint has, and of each number in its data: a libFuzzer target for the
// comparison of a file with an optimizer, and for the text that it reads and writes. The bytes are split at 0xff, which no
// text has: first a type and a shape, then the strings.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/scalar.hpp>
#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"

namespace {

using any = gradus::any_optimizer<float, gradus::backend::scalar, gradus::recipe_list<gradus::sgd, gradus::adams>>;

struct model {
  std::vector<float> a = std::vector<float>(3, 0.5f), b = std::vector<float>(2, 0.25f), ga = a, gb = b;
  any opt;
  explicit model(const char* recipe) : opt(recipe, {{"lr", 0.01}})
  {
    opt.add("a", a, ga);
    opt.add("b", b, gb, opt.add_group({{"lr", 0.5}}));
    opt.step();
    opt.step();
  }
};

std::vector<std::string> pieces(const std::uint8_t* data, std::size_t size)
{
  std::vector<std::string> all(1);
  for (std::size_t i = 0; i < size; ++i)
    if (data[i] == 0xff)
      all.emplace_back();
    else
      all.back() += static_cast<char>(data[i]);
  return all;
}

void require(bool good)
{
  if (!good)
    std::abort();
}

// The two ways to read a number agree, and what is written reads back.
void check_text(const std::string& text)
{
  const auto x = gradus::detail::to_number(text), y = gradus::detail::to_number_by_strtod(text);
  // std::from_chars also takes other spellings of infinity and NaN.
  if (x && std::isfinite(*x))
    require(y && (*y == *x && std::signbit(*y) == std::signbit(*x)));
  else
    require(!y || !std::isfinite(*y));
  if (x && std::isfinite(*x)) {
    require(gradus::detail::to_number(gradus::detail::to_text(*x)) == x);
    require(gradus::detail::to_number(gradus::detail::to_text_by_printf(*x)) == x);
  }
  require(gradus::safetensors::excerpt(text).size() <= 6 * 400 + 40);
  if (gradus::safetensors::is_utf8(text)) {
    std::string json = gradus::safetensors::json_string(text);
    gradus::safetensors::json_reader reader("it", json.data(), json.data() + json.size());
    require(reader.string() == text && reader.at_end());
  }
}

const std::string prefixes[] = {"gradus/format",        "gradus/recipe",           "gradus/groups",
                                "gradus/group/0/lr",    "gradus/group/1/lr",       "gradus/group/0/weight_decay",
                                "gradus/group/0/beta1", "gradus/group/0/momentum", "gradus/lr_scale/0",
                                "gradus/group_of/a",    "gradus/frozen/b",         "own"};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv)
{
  for (int i = 1; i < *argc; ++i)
    if (const std::filesystem::path corpus = (*argv)[i]; std::filesystem::is_directory(corpus)) {
      const auto put = [&](const char* name, const std::string& bytes) {
        std::ofstream(corpus / name, std::ios::binary) << bytes;
      };
      put("sgd", "F32\xff"
                 "3\xff"
                 "1\xffsgd\xff"
                 "2\xff"
                 "0.01\xff"
                 "0.5\xff"
                 "0\xff"
                 "0.9\xff"
                 "0\xff"
                 "1\xff"
                 "0\xff"
                 "1\xffmine");
      put("adams", "F64\xff"
                   "3,1\xff"
                   "1\xff"
                   "adams\xff"
                   "2\xff"
                   "1e-3\xff"
                   "inf\xff"
                   "5e-4\xff"
                   "0.9\xff"
                   "0\xff"
                   "0.5\xff"
                   "1\xff\xff\"\\\n");
      put("unknown", "X\xff\xff"
                     "1\xff?\xff-1\xffnan\xff"
                     "0x1p3\xff"
                     "1e999\xff"
                     "1e-999\xff.5\xff"
                     "1,5\xff+1\xff");
    }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
  static model sgd("sgd"), adams("adams");
  const std::vector<std::string> text = pieces(data, size);
  for (const std::string& t : text)
    check_text(t);
  const auto at = [&](std::size_t i) { return i < text.size() ? text[i] : std::string(); };

  // A file with these strings. Its tensors are those of the model, of a type and shape from the text.
  const auto type = gradus::safetensors::find_dtype(at(0));
  const std::size_t bytes = 3 * (type ? type->bytes : 4);
  std::string json = "{\"__metadata__\":{", values;
  for (std::size_t i = 0; i < std::size(prefixes) && i + 2 < text.size(); ++i)
    json += (i == 0 ? "" : ",") + gradus::safetensors::json_string(prefixes[i]) + ':' +
            gradus::safetensors::json_string(at(i + 2));
  json += '}';
  for (const char* key : {"parameters/a", "state/a/momentum_buffer", "state/a/exp_avg", "state/a/exp_avg_sq"}) {
    json += ",\"" + std::string(key) + "\":{\"dtype\":" + gradus::safetensors::json_string(at(0)) + ",\"shape\":[" +
            at(1) + "],\"data_offsets\":[" + std::to_string(values.size()) + ',' +
            std::to_string(values.size() + bytes) + "]}";
    for (std::size_t i = 0; i < bytes; ++i)
      values += static_cast<char>(size ? data[(i + values.size()) % size] : 0);
  }
  const std::string file = support::file_of(json + '}', values);

  for (model* m : {&sgd, &adams})
    for (const bool convert : {false, true}) {
      const std::string before = support::checkpoint_of(m->opt);
      const gradus::load_options o{.parameters = false, .lenient = true, .convert = convert};
      const std::string said = support::refusal([&] { support::load_bytes(m->opt, file, o); });
      if (said.empty()) {
        m->opt.step();
        support::load_bytes(m->opt, before);
      }
      require(support::checkpoint_of(m->opt) == before);
    }
  return 0;
}
