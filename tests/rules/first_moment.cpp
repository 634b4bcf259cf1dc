// First moments: what the gradient g becomes as the direction d.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/scene.hpp"
#include "support/walk.hpp"

namespace {

using namespace gradus;
using support::check_refused, support::draw, support::scalar_optimizer, support::walk;

}  // namespace

TEST_CASE("momentum: nesterov without a momentum, or with dampening, is refused")
{
  const std::string expected = "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false";
  const gradus::sgd without_momentum{.nesterov = true};
  const gradus::sgds dampened{.momentum = 0.9, .dampening = 0.5, .nesterov = true};
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgd>{without_momentum},
                       ("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected).c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(scalar_optimizer<gradus::sgds>{dampened},
                       ("gradus: nesterov is 1 with momentum 0.9 and dampening 0.5" + expected).c_str(), std::invalid_argument);
  CHECK_NOTHROW(scalar_optimizer<gradus::sgd>({.momentum = 0.9, .nesterov = true}));
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.set_hyperparameters(without_momentum, s.undecayed); }, {.momentum = 0.5});
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.add_group(without_momentum); });
}
