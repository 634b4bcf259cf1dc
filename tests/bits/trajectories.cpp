// Hashes of the bits of long trajectories, the same in every build of a family: g++ or clang++, AVX2 or AVX-512 are all
// "fused"; a target without fused multiply-add is "unfused". See README.md here, and support/fingerprint.hpp.

#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "support/compositions.hpp"
#include "support/fingerprint.hpp"

TEST_CASE("bits: every optimizer and the sums have the bits recorded for this family")
{
  const gradus::default_backend backend{};
  const auto expected = support::expected_hashes();
  std::size_t compared = 0;
  const auto check = [&](std::string_view name, const char* type, const std::string& hash) {
    const std::string key = std::string(GRADUS_FUSED ? "fused" : "unfused") + " " + std::string(name) + " " + type;
    std::printf("%s %s\n", key.c_str(), hash.c_str());
    const auto known = expected.find(key);
    CHECK_MESSAGE(known != expected.end(), "bits/expected.txt has no line for ", key);
    if (known != expected.end())
      CHECK_MESSAGE(known->second == hash, key);
    ++compared;
  };
  support::for_each_composition([&](std::string_view name, const auto& rule) {
    check(name, "float", support::fingerprint_of<float>(backend, rule));
    check(name, "double", support::fingerprint_of<double>(backend, rule));
  });
  check("sums", "float", support::fingerprint_of_sums<float>(backend));
  check("sums", "double", support::fingerprint_of_sums<double>(backend));
  CHECK(2 * compared == expected.size());
}
