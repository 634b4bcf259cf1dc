// Errors: their sentences, and who hears of them.

#include <doctest/doctest.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include <gradus/gradus.hpp>

#include "support/locale.hpp"
#include "support/scene.hpp"

namespace {

using support::inf, support::not_a_number, support::scalar_optimizer, support::text;

}  // namespace

TEST_CASE("show: numbers are short in a sentence, and exact enough to recognise")
{
  CHECK(text(1e-3) == "0.001");
  CHECK(text(-1) == "-1");
  CHECK(text(not_a_number) == "nan");
  CHECK(text(inf) == "inf");
  CHECK(text(1.0000001) == "1.0000001");
}

TEST_CASE("with_point: a number in a sentence has a point, whatever the locale has")
{
  using gradus::detail::with_point;
  CHECK(with_point("-1,5") == "-1.5");
  CHECK(with_point("1,5e-07") == "1.5e-07");
  CHECK(with_point("1\xd9\xab"
                   "5") == "1.5");  // U+066B, as in Arabic
  CHECK(with_point("-1.5e+300") == "-1.5e+300");
  for (const char* whole : {"0", "-3", "1e+20", "inf", "-inf", "nan", "-nan", ""})
    CHECK(with_point(whole) == whole);

  const support::german german;
  if (!german.is_there())
    return;
  char printed[8];
  std::snprintf(printed, sizeof printed, "%.1f", 1.5);
  REQUIRE(std::string(printed) == "1,5");
  CHECK(gradus::detail::show(-1.5) == "-1.5");
  CHECK(gradus::detail::show(1.25e-300) == "1.25e-300");
  CHECK(gradus::detail::show(inf) == "inf");
  std::string said;
  try {
    scalar_optimizer<gradus::adam> refused({.beta1 = -1.5});
  } catch (const std::invalid_argument& e) {
    said = e.what();
  }
  CHECK(said == "gradus: beta1 is -1.5; expected a number in [0, 1)");
}

TEST_CASE("error_handler: hears of an error before it is thrown")
{
  static std::string heard;
  static bool thrown = false;
  heard.clear();
  thrown = false;
  struct reset {
    ~reset() { gradus::error_handler = nullptr; }
  } at_end;
  gradus::error_handler = [](const char* message) {
    CHECK_FALSE(thrown);
    heard = message;
  };
  try {
    scalar_optimizer<gradus::sgd> opt({.lr = -1});
  } catch (const std::invalid_argument& e) {
    thrown = true;
    CHECK(heard == e.what());
  }
  CHECK(thrown);
  CHECK(heard == "gradus: lr is -1; expected a finite number >= 0");
}
