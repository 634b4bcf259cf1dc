// Which rules go together.

#include <doctest/doctest.h>

#include <gradus/rules/composition.hpp>

namespace {

namespace first_moment = gradus::first_moment;
namespace second_moment = gradus::second_moment;
namespace step_size = gradus::step_size;
namespace decay = gradus::decay;

}  // namespace

TEST_CASE("concepts: step sizes and decays accept only the moments that they can read")
{
  static_assert(!gradus::step_size_is_served<second_moment::none, step_size::adaptive>);
  static_assert(!gradus::step_size_is_served<second_moment::none, step_size::rectified>);
  static_assert(gradus::step_size_is_served<second_moment::none, step_size::constant>);
  static_assert(!gradus::scheduled_decay_is_served<second_moment::none, decay::scheduled>);
  static_assert(gradus::scheduled_decay_is_served<second_moment::yogi, decay::scheduled>);
  static_assert(!gradus::stable_decay_is_served<first_moment::ema, decay::stable>);
  static_assert(!gradus::stable_decay_is_served<first_moment::none, decay::stable>);
  static_assert(gradus::stable_decay_is_served<first_moment::momentum, decay::stable>);
  static_assert(gradus::unit_is_served<second_moment::infinity_norm, step_size::by_norm>);
  static_assert(gradus::unit_is_served<second_moment::infinity_norm, step_size::constant>);
  static_assert(!gradus::unit_is_served<second_moment::infinity_norm, step_size::adaptive>);
  static_assert(!gradus::unit_is_served<second_moment::ema, step_size::by_norm>);
}

TEST_CASE("concepts: a moment that reads the other accepts only one that it can read")
{
  static_assert(gradus::v_is_served<first_moment::ema, second_moment::none>);
  static_assert(gradus::v_is_served<first_moment::normalized_momentum, second_moment::ema>);
  static_assert(!gradus::v_is_served<first_moment::normalized_momentum, second_moment::none>);
  static_assert(!gradus::v_is_served<first_moment::normalized_ema, second_moment::infinity_norm>);
  static_assert(gradus::direction_is_served<first_moment::normalized_ema, second_moment::belief>);
  static_assert(!gradus::direction_is_served<first_moment::rms_ratio, second_moment::belief>);
  static_assert(gradus::two_passes_are_served<first_moment::sign_of_ema, second_moment::ema, decay::scheduled>);
  static_assert(gradus::two_passes_are_served<first_moment::sign_of_ema, second_moment::yogi, decay::decoupled>);
  static_assert(!gradus::two_passes_are_served<first_moment::sign_of_ema, second_moment::yogi, decay::scheduled>);
}
