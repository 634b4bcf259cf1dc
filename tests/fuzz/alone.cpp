// Feeds a fuzzer random bytes, from fixed seeds, without libFuzzer: PROGRAM HISTORIES [LENGTH].

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "support/random.hpp"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv)
{
  LLVMFuzzerInitialize(&argc, &argv);
  const std::uint64_t histories = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100;
  const std::size_t longest = argc > 2 ? std::size_t(std::strtoull(argv[2], nullptr, 10)) : 1500;
  for (std::uint64_t seed = 0; seed < histories; ++seed) {
    support::random r(seed);
    std::vector<std::uint8_t> bytes(1 + r.below(longest));
    for (auto& byte : bytes)
      byte = std::uint8_t(r.below(256));
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
}
