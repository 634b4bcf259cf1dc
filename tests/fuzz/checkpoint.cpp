// Any bytes at all, loaded as a checkpoint: a libFuzzer target. Refused or loaded, an optimizer must be usable after
// it, and one that refused, unchanged. `./dev test --fuzz` runs it; the first files of the corpus are written here.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"
#include "support/corpus.hpp"

namespace {

template <class T = float>
struct model {
  std::vector<T> a = std::vector<T>(3, T(0.5)), b, ga = a, gb;
  gradus::optimizer<gradus::adams, T> opt{gradus::adams{.lr = 0.01, .weight_decay = 0.1}};
  explicit model(int steps, std::size_t n = 8) : b(n, T(0.25)), gb(b)
  {
    opt.add("a", a, ga);
    opt.add("b\n", b, gb, opt.add_group({.lr = 0.5}));
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv)
{
  for (int i = 1; i < *argc; ++i)
    if (const std::filesystem::path corpus = (*argv)[i]; std::filesystem::is_directory(corpus)) {
      const auto put = [&](const char* name, const std::string& bytes) {
        std::ofstream(corpus / name, std::ios::binary) << bytes;
      };
      const model<> m(3), longer(3, 9);
      const model<double> in_double(3);
      put("whole", support::checkpoint_of(m.opt));
      put("longer", support::checkpoint_of(longer.opt));
      put("double", support::checkpoint_of(in_double.opt));
      put("state", support::checkpoint_of(m.opt, {}));
      for (const support::corpus_file& f : support::corpus())
        put(f.name.c_str(), f.bytes);
      put("escapes",
          support::file_of(R"({"__metadata__":{"gradus/format":"1","\ud83e\udde0\u00e9\\\/\b":"\t\n\f\r\""}})"));
      put("spaces",
          support::file_of(
              "{ \"x\" : { \"shape\" : [ 2 , 2 ] ,\t\"dtype\" : \"BF16\" , \"data_offsets\" : [ 0 , 8 ] } }  ",
              "12345678"));
    }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
  static const std::string whole = support::checkpoint_of(model<>(3).opt);
  static model<> m(3);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const gradus::load_options modes[] = {{},
                                        {.lenient = true},
                                        {.parameters = false, .settings = false, .lenient = true, .convert = true}};
  for (const gradus::load_options& o : modes) {
    const bool refused = !support::refusal([&] { gradus::load_from(m.opt, bytes, o); }).empty();
    if (refused) {
      if (support::checkpoint_of(m.opt) != whole)
        std::abort();
    } else {
      m.opt.step();  // with whatever numbers there are now
      support::load_bytes(m.opt, whole);
    }
  }
  return 0;
}
