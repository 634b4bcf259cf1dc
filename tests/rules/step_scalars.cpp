// The scalars of a step.

#include <doctest/doctest.h>

#include <cmath>

#include <gradus/gradus.hpp>

namespace {

using gradus::one_minus_power;

}  // namespace

// By Python's decimal in 80 digits: 1 - Decimal(beta)**t.
TEST_CASE("one_minus_power: rounded to nearest, for a beta near 1 too")
{
  struct row {
    double beta, t, correction;
  };
  // clang-format off
  for (const row& x : {row{0.9, 2, 1.89999999999999960e-1},
                       row{0.9, 7, 5.21703099999999917e-1},
                       row{0.95, 2, 9.75000000000000844e-2},
                       row{0.99, 3, 2.97010000000000261e-2},
                       row{0.999, 1, 1.00000000000000089e-3},
                       row{0.999, 2, 1.99900000000000177e-3},
                       row{0.999, 10, 9.95511979025179892e-3},
                       row{0.999, 64, 6.20250361741545028e-2},
                       row{0.999, 65, 6.29630111379803491e-2},
                       row{0.999, 1000, 6.32304575229036282e-1},
                       row{0.99999, 2, 1.99998999999089804e-5},
                       row{0.99999999, 2, 2.00000000004951845e-8},
                       row{0.99999999, 1000, 9.99995010041325737e-6},
                       row{0.999999999, 3, 2.99999991215420578e-9},
                       row{0.999999999, 2e9, 8.64664709243635965e-1},
                       row{0.9999999999999999, 7, 7.77156117237609319e-16}})
  // clang-format on
  {
    CHECK(std::fabs(one_minus_power(x.beta, x.t) / x.correction - 1) < 3e-15);
    CHECK((one_minus_power(x.beta, x.t) == x.correction || x.beta > 1 - 1e-10));
  }
  CHECK(one_minus_power(0, 1) == 1);
  CHECK(one_minus_power(0, 1000) == 1);
  CHECK(one_minus_power(0.999, 1) == 1 - 0.999);
  CHECK(one_minus_power(0.999, 0) == 0);
  CHECK(one_minus_power(1, 1e9) == 0);
  CHECK(one_minus_power(1e-300, 3) == 1);
  CHECK(one_minus_power(0.5, 1e18) == 1);
  // Not a step count.
  CHECK(std::fabs(one_minus_power(0.25, 0.5) - 0.5) < 1e-15);
  CHECK(one_minus_power(0.5, 1e300) == 1);
  CHECK(std::isnan(one_minus_power(0.5, std::nan(""))));
}
