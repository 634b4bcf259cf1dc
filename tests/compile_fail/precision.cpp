#include <gradus/gradus.hpp>

#ifdef FIXED
gradus::optimizer<gradus::adam, double> opt;
#else
gradus::optimizer<gradus::adam, int> opt;
#endif
