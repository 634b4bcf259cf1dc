// Files damaged at random: an error, and an optimizer as it was. One build runs this under the sanitizers.

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

using support::with_length;

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

}  // namespace

TEST_CASE("load: ten thousand damaged files are refused, or loaded without harm")
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
