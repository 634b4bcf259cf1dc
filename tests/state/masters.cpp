// The memory of master weights that are stored as remainders.

#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <gradus/state/masters.hpp>

#include "support/random.hpp"

namespace {

using gradus::bfloat16, gradus::remainder16;
using memory = gradus::detail::master_memory<remainder16, gradus::detail::host_memory>;

// An engine whose memory is the host's.
struct engine {
  template <class X, class F>
  void show(std::span<X> values, const F& f, bool) const
  {
    f(values);
  }
  void copy(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
};

const engine host;

}  // namespace

TEST_CASE("master_memory: remainders take 2 bytes and a bit, floats 4 bytes, void none")
{
  CHECK(memory::bytes(0) == 0);
  CHECK(memory::bytes(1) == 2 + 4);
  CHECK(memory::bytes(64) == 64 * 2 + 8);
  CHECK(memory::bytes(65) == 65 * 2 + 12);
  CHECK(gradus::detail::master_memory<float, gradus::detail::host_memory>::bytes(65) == 65 * 4);
  CHECK(gradus::detail::master_memory<void, gradus::detail::host_memory>::bytes(65) == 0);
}

TEST_CASE("joined_masters: what is written in pieces is read in others, with the parameters rounded to nearest")
{
  constexpr std::size_t n = 1001;
  std::vector<bfloat16> parameters(n);
  memory m(n, {});
  const gradus::detail::joined_masters<engine, float> joined(host, parameters.data(), m.get(), n);
  support::random r(3);
  std::vector<float> x(n), y(n);
  for (float& e : x)
    e = r.chance(0.5) ? float(r.uniform(-1, 1)) : std::bit_cast<float>(std::uint32_t(r.below(0x7f80)) << 16 | 0x8000u);
  joined.write(0, 32, x.data());
  joined.write(32, n - 32, x.data() + 32);
  for (std::size_t i = 0; i < n; i += 96)
    joined.read(i, n - i < 96 ? n - i : 96, y.data() + i);
  CHECK(x == y);
  for (std::size_t i = 0; i < n; ++i)
    CHECK(parameters[i].bits == bfloat16(x[i]).bits);
}

TEST_CASE("master_memory: reading the parameters makes them the master weights; a kept copy is restored")
{
  constexpr std::size_t n = 40;
  std::vector<bfloat16> parameters(n, bfloat16(1.5f)), elsewhere(n, bfloat16(0.0f));
  const std::vector<float> some(n, 1.2345678f);
  memory m(n, {});
  const gradus::detail::joined_masters<engine, float> joined(host, parameters.data(), m.get(), n),
      moved(host, elsewhere.data(), m.get(), n);
  std::vector<float> x(n);
  joined.write(0, n, some.data());
  m.keep(parameters.data(), n, {}, host);
  m.restore(elsewhere.data(), n, host);
  CHECK(m.kept() == nullptr);
  moved.read(0, n, x.data());
  CHECK(x == some);
  m.read(parameters.data(), n, host);
  joined.read(0, n, x.data());
  CHECK(x == std::vector<float>(n, float(bfloat16(1.2345678f))));
}
