#include <gradus/gradus.hpp>

#ifdef FIXED
using state = float;
#else
using state = gradus::block8;
#endif

gradus::optimizer<gradus::averaged<gradus::adamw, gradus::average::ema>, gradus::precision<float, float, state>> opt;
