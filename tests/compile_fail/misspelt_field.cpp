#include <gradus/gradus.hpp>

#ifdef FIXED
gradus::optimizer opt(gradus::adamw{.lr = 1e-3, .weight_decay = 0.1});
#else
gradus::optimizer opt(gradus::adamw{.lr = 1e-3, .weight_deacy = 0.1});
#endif
