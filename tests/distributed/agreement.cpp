// Hashes, and how ranks compare them.

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <gradus/distributed/agreement.hpp>

namespace {

using gradus::detail::running_hash, gradus::detail::statement;

// The sum of what ranks with these hashes say.
std::vector<std::int64_t> said(const std::vector<std::uint64_t>& hashes, std::size_t with_problem = 99)
{
  std::vector<std::int64_t> sum(statement::word_count);
  for (std::size_t r = 0; r < hashes.size(); ++r) {
    std::int64_t words[statement::word_count];
    statement::write(words, hashes[r], 5000000000u + r, r == with_problem, r);
    for (std::size_t k = 0; k < sum.size(); ++k)
      sum[k] += words[k];
  }
  return sum;
}

}  // namespace

TEST_CASE("statement: ranks agree only if all say the same")
{
  const std::uint64_t a = 0xfedcba9876543210u, b = a + 1, c = a ^ (std::uint64_t(1) << 63);
  CHECK(statement::agrees(said({a, a, a}).data(), a, 3));
  CHECK(statement::agrees(said({a}).data(), a, 1));
  for (const std::uint64_t other : {b, c}) {
    const auto sum = said({a, other, a});
    CHECK(!statement::agrees(sum.data(), a, 3));
    CHECK(!statement::agrees(sum.data(), other, 3));
  }
  CHECK(statement::counted(said({a, a, a}).data()) == 15000000003u);
  CHECK(statement::problems(said({a, a, a}).data()) == 0);
  CHECK(statement::problems(said({a, a, a}, 2).data()) == 1);
  CHECK(statement::rank_with_problem(said({a, a, a}, 2).data()) == 2);
}

TEST_CASE("running_hash: every bit and every order counts")
{
  std::set<std::uint64_t> all;
  std::vector<unsigned char> bytes(100);
  const auto add = [&](std::uint64_t h) { CHECK(all.insert(h).second); };
  for (std::size_t n = 0; n <= bytes.size(); ++n)
    add(running_hash().add_bytes(bytes.data(), n).value());
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<unsigned char>(1 << bit);
      add(running_hash().add_bytes(bytes.data(), bytes.size()).value());
      bytes[i] = 0;
    }
  add(running_hash().add(1.0).add(2.0).value());
  add(running_hash().add(2.0).add(1.0).value());
  add(running_hash().add("a").add("bc").value());
  add(running_hash().add("ab").add("c").value());
  add(running_hash().add(std::optional<double>()).value());
  add(running_hash().add(std::optional<double>(0.0)).value());
  add(running_hash().add(-0.0).value());
}
