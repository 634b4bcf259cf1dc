#include <gradus/gradus.hpp>

#ifdef FIXED
using parameter = gradus::bfloat16;
#else
using parameter = gradus::float16;
#endif
gradus::optimizer<gradus::adam, gradus::precision<parameter, parameter, float, gradus::remainder16>> opt;
