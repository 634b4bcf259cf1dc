#include <gradus/gradus.hpp>

#ifdef FIXED
using decay = gradus::decay::stable;
#else
using decay = gradus::decay::scheduled;
#endif

gradus::optimizer opt(gradus::compose(1e-3, gradus::first_moment::momentum{}, gradus::second_moment::none{},
                                      gradus::step_size::constant{}, decay{}));
