// Rules that read each other's numbers. Without a case, all of them fit together; each case joins two that do not.

#include <array>
#include <span>

#include <gradus/gradus.hpp>

namespace first_moment = gradus::first_moment;
namespace second_moment = gradus::second_moment;
namespace step_size = gradus::step_size;
namespace decay = gradus::decay;

#if defined(CASE_MEAN_BEFORE_ALL_MOMENTS)
struct by_mean : first_moment::ema {
  static constexpr bool reads_mean_square = true;
};
template class gradus::optimizer<gradus::composition<by_mean, second_moment::ema, step_size::constant, decay::none>>;
#elif defined(CASE_SUMS_AFTER_THE_DIRECTION)
template class gradus::optimizer<
    gradus::composition<first_moment::sign_of_ema, second_moment::ema, step_size::trust_ratio, decay::none>>;
#elif defined(CASE_SUMS_AFTER_A_MEAN)
template class gradus::optimizer<
    gradus::composition<first_moment::ema, second_moment::ema, step_size::trust_ratio, decay::scheduled>>;
#elif defined(CASE_SUMS_WITHOUT_AN_END)
struct endless : step_size::adaptive {
  static constexpr gradus::scope sums_over = gradus::scope::tensor;
  static constexpr std::array terms{gradus::summed::values};
};
template class gradus::optimizer<gradus::composition<first_moment::ema, second_moment::ema, endless, decay::none>>;
#elif defined(CASE_SUMS_IN_ONE_PASS)
bool whole_step_of_lamb(std::span<float> w, std::span<const float> g, std::span<float> m, std::span<float> v)
{
  const auto rule = gradus::lamb{}.rule();
  const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, 1, 1));
  return gradus::update(gradus::default_backend{}, formula, w, g, {m, v});
}
#elif defined(CASE_LR_TWICE)
template class gradus::optimizer<
    gradus::composition<first_moment::velocity, second_moment::none, step_size::constant, decay::none>>;
#elif defined(CASE_SCALED_VELOCITY)
template class gradus::optimizer<
    gradus::composition<first_moment::velocity, second_moment::none, step_size::one, decay::proximal>>;
#elif defined(CASE_ROOT_OF_A_NORM)
template class gradus::optimizer<
    gradus::composition<first_moment::ema, second_moment::infinity_norm, step_size::adaptive, decay::none>>;
#elif defined(CASE_SQUARE_AS_A_NORM)
template class gradus::optimizer<
    gradus::composition<first_moment::ema, second_moment::ema, step_size::by_norm, decay::none>>;
#elif defined(CASE_NOTHING_TO_NORMALIZE_BY)
template class gradus::optimizer<
    gradus::composition<first_moment::normalized_momentum, second_moment::none, step_size::constant, decay::none>>;
#elif defined(CASE_NORM_TO_NORMALIZE_BY)
template class gradus::optimizer<
    gradus::composition<first_moment::normalized_ema, second_moment::infinity_norm, step_size::constant, decay::none>>;
#elif defined(CASE_EACH_FROM_THE_OTHER)
template class gradus::optimizer<
    gradus::composition<first_moment::normalized_momentum, second_moment::belief, step_size::constant, decay::none>>;
#elif defined(CASE_SCHEDULED_BY_A_NORM)
template class gradus::optimizer<
    gradus::composition<first_moment::ema, second_moment::infinity_norm, step_size::by_norm, decay::scheduled>>;
#elif defined(CASE_DIRECTION_BEFORE_THE_MEAN)
template class gradus::optimizer<
    gradus::composition<first_moment::sign_of_ema, second_moment::yogi, step_size::adaptive, decay::scheduled>>;
#elif defined(CASE_TWO_PASSES)
bool weights_of_lion(std::span<float> w, std::span<const float> g, std::span<float> m)
{
  const auto rule = gradus::lion{}.rule();
  const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, 1, 1));
  return gradus::update_weights(gradus::default_backend{}, formula, w, g, {m});
}
#else
template class gradus::optimizer<
    gradus::composition<first_moment::ema, second_moment::infinity_norm, step_size::by_norm, decay::decoupled>>;
template class gradus::optimizer<
    gradus::composition<first_moment::sign_of_ema, second_moment::ema, step_size::adaptive, decay::scheduled>>;
template class gradus::optimizer<
    gradus::composition<first_moment::nesterov_ema, second_moment::belief, step_size::trust_ratio, decay::cautious>>;
template class gradus::optimizer<
    gradus::composition<first_moment::normalized_ema, second_moment::belief, step_size::constant, decay::scheduled>>;
#endif
