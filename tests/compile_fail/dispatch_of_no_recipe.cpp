#include <gradus/backend/dispatch.hpp>
#include <gradus/gradus.hpp>

#ifdef FIXED
constexpr gradus::amsgrad recipe;
#else
constexpr auto recipe = gradus::compose(1e-3, gradus::first_moment::none{}, gradus::second_moment::ema{},
                                        gradus::step_size::adaptive{}, gradus::decay::none{});
#endif

void step()
{
  gradus::optimizer opt(recipe, gradus::backend::dispatch());
  opt.step();
}
