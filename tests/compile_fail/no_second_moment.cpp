#include <gradus/gradus.hpp>

#ifdef FIXED
using second_moment = gradus::second_moment::ema;
#else
using second_moment = gradus::second_moment::none;
#endif

gradus::optimizer opt(gradus::compose(1e-3, gradus::first_moment::momentum{}, second_moment{},
                                      gradus::step_size::adaptive{}, gradus::decay::none{}));
