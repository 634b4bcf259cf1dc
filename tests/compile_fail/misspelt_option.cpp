#include <gradus/gradus.hpp>

#ifdef FIXED
void step(gradus::optimizer<gradus::adamw>& opt) { opt.step(gradus::step_options{.max_grad_norm = 1}); }
#else
void step(gradus::optimizer<gradus::adamw>& opt) { opt.step(gradus::step_options{.max_grad_nrm = 1}); }
#endif
