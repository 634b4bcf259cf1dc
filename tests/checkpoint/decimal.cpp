// Doubles as decimal text: the shortest text that reads back exactly, by the standard library and without it.

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include <gradus/checkpoint/decimal.hpp>

#include "support/locale.hpp"
#include "support/random.hpp"

TEST_CASE("to_text, to_number: exact and with a decimal point, whatever the locale has")
{
  using gradus::detail::to_number, gradus::detail::to_number_by_strtod, gradus::detail::to_text,
      gradus::detail::to_text_by_printf;
  const auto compare = [] {
    support::random r(9);
    for (int i = 0; i < 4000; ++i) {
      const double x = i == 0   ? 5e-324
                       : i == 1 ? 1.7976931348623157e308
                       : i == 2 ? 0.0
                       : i == 3 ? -0.0015
                       : i % 2  ? r.uniform(-2, 2)
                                : r.any<double>();
      if (!std::isfinite(x))
        continue;
      const std::string text = to_text(x), other = to_text_by_printf(x);
      REQUIRE(text.find(',') == std::string::npos);
      REQUIRE(other.find(',') == std::string::npos);
      REQUIRE(other.size() <= text.size() + 6);  // no digits but those that are needed
      for (const std::string& t : {text, other}) {
        REQUIRE(std::bit_cast<std::uint64_t>(*to_number(t)) == std::bit_cast<std::uint64_t>(x));
        REQUIRE(std::bit_cast<std::uint64_t>(*to_number_by_strtod(t)) == std::bit_cast<std::uint64_t>(x));
      }
    }
    for (const char* text :
         {"",    "-",     "+1",   " 1",     "1 ",   ".",     "-.",     "e5",     "1e",       "1e+",
          "1e-", "1.5.2", "0,5",  "1.5e3x", "0x10", "1e400", "-1e400", "1e-400", "infinite", "1e99999999999999999999",
          "1_0", "--1",   "1e--2"}) {
      CHECK_MESSAGE(!to_number_by_strtod(text), text);
      CHECK_MESSAGE(!to_number(text), text);
    }
    for (const char* text : {"1", "1.", ".5", "-.5e1", "1E3", "1e+3", "001", "0e99999999999",
                             "0.000000000000000000000000000000000000000001e42"})
      CHECK_MESSAGE(to_number_by_strtod(text) == to_number(text), text);
    CHECK(*to_number_by_strtod("-inf") == -INFINITY);
    CHECK(std::isnan(*to_number_by_strtod("nan")));
  };
  compare();
  const support::german german;
  if (german.is_there())
    compare();
}
