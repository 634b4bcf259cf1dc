#include <gradus/muon.hpp>

#ifdef FIXED
using decay = gradus::decay::decoupled;
#else
using decay = gradus::decay::l2;
#endif

auto rule = gradus::compose(0.1, gradus::first_moment::orthogonal_ema{}, gradus::second_moment::none{},
                            gradus::step_size::constant{}, decay{});
gradus::optimizer<decltype(rule), float, gradus::backend::with_product<gradus::gemm::plain>> opt(rule);
