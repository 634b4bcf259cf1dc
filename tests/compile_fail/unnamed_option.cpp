#include <gradus/gradus.hpp>

#ifdef FIXED
void step(gradus::optimizer<gradus::adam>& opt) { opt.step({.lr_scale = 0.5}); }
#else
void step(gradus::optimizer<gradus::adam>& opt) { opt.step({0.5}); }
#endif
