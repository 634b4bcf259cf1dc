// Each file of the corpus is accepted or refused as its row says. Where GRADUS_TEST_CORPUS names a folder, writes the
// files and their verdicts there, for corpus.py.

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint.hpp"
#include "support/corpus.hpp"

namespace {

struct model {
  std::vector<float> a = std::vector<float>(2, 0.5f), ga = a;
  gradus::optimizer<gradus::sgd> opt{gradus::sgd{.lr = 0.1, .momentum = 0.9}};
  model()
  {
    opt.add("a", a, ga);
    opt.step();
  }
};

void write_to(const std::filesystem::path& folder)
{
  std::filesystem::create_directories(folder);
  std::ofstream verdicts(folder / "verdicts.tsv");
  for (const support::corpus_file& f : support::corpus()) {
    std::ofstream(folder / (f.name + ".safetensors"), std::ios::binary) << f.bytes;
    const std::string said = support::refusal([&] { support::header_in(f.bytes); });
    verdicts << f.name << '\t' << (f.safetensors ? "accepted" : "refused") << '\t'
             << (said.empty() ? "accepted" : "refused") << '\n';
  }
}

}  // namespace

TEST_CASE("corpus: each file is accepted, or refused in the right words")
{
  std::set<std::string> names;
  int accepted = 0, refused = 0;
  for (const support::corpus_file& f : support::corpus()) {
    INFO(f.name);
    CHECK(names.insert(f.name).second);
    const std::string said = support::refusal([&] { support::header_in(f.bytes); });
    ++(said.empty() ? accepted : refused);
    CHECK_MESSAGE((said.empty() == f.says.empty() && support::contains(said, f.says)), "expected \"", f.says,
                  "\" in: ", said);

    for (const bool lenient : {false, true})
      for (const bool convert : {false, true}) {
        model m;
        const std::string before = support::checkpoint_of(m.opt);
        const std::string loaded = support::refusal([&] {
          support::load_bytes(m.opt, f.bytes, {.lenient = lenient, .convert = convert});
        });
        const std::string expected = f.says.empty() ? f.load_says : f.says;
        if (lenient)
          CHECK_MESSAGE((loaded.empty() == expected.empty() && support::contains(loaded, expected)), "expected \"",
                        expected, "\" in: ", loaded);
        else
          CHECK((!loaded.empty() || expected.empty()));
        if (loaded.empty())
          m.opt.step();
        else
          CHECK(support::checkpoint_of(m.opt) == before);
      }
  }
  std::printf("%d files accepted, %d refused\n", accepted, refused);
}

TEST_CASE("corpus: written for corpus.py")
{
  if (const char* const folder = std::getenv("GRADUS_TEST_CORPUS"))
    write_to(folder);
}
