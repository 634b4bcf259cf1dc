#include <gradus/gradus.hpp>

#ifdef FIXED
using first_moment = gradus::first_moment::momentum;
#else
using first_moment = gradus::first_moment::ema;
#endif

gradus::optimizer opt(gradus::compose(1e-3, first_moment{}, gradus::second_moment::none{},
                                      gradus::step_size::constant{}, gradus::decay::stable{}));
