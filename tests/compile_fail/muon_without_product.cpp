#include <gradus/muon.hpp>

#ifdef FIXED
gradus::muon_optimizer<> opt;
#else
gradus::optimizer<gradus::muon> opt;
#endif
