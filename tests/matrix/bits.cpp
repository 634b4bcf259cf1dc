// What matrix.py compiles with every compiler and set of flags, alone or as a unit of use.cpp's program: the bits
// recorded in bits/expected.txt. Without doctest, which not every compiler finds.

#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/gradus.hpp>

#include "support/compositions.hpp"
#include "support/fingerprint.hpp"

bool has_recorded_bits();

bool has_recorded_bits()
{
  const auto expected = support::expected_hashes();
  const std::string family = GRADUS_FUSED ? "fused " : "unfused ";
  bool good = true;
  const auto check = [&](std::string_view name, const char* type, const std::string& hash) {
    const auto known = expected.find(family + std::string(name) + " " + type);
    if (known != expected.end() && known->second == hash)
      return;
    std::printf("failed: %s%.*s %s has %s, expected %s\n", family.c_str(), int(name.size()), name.data(), type,
                hash.c_str(), known == expected.end() ? "a line in bits/expected.txt" : known->second.c_str());
    good = false;
  };
  const gradus::default_backend backend{};
  support::for_each_composition([&](std::string_view name, const auto& rule) {
    check(name, "float", support::fingerprint_of<float>(backend, rule));
    // Its formulas are all in the others, and each takes its time to compile.
    if constexpr (!std::remove_cvref_t<decltype(rule)>::scheduled)
      check(name, "double", support::fingerprint_of<double>(backend, rule));
  });
  check("sums", "float", support::fingerprint_of_sums<float>(backend));
  check("sums", "double", support::fingerprint_of_sums<double>(backend));
  return good;
}

#if defined(ALONE)
int main() { return has_recorded_bits() ? 0 : 1; }
#endif
