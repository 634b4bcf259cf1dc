#include <gradus/gradus.hpp>

gradus::optimizer<gradus::adam> copy(gradus::optimizer<gradus::adam>& opt)
{
#ifdef FIXED
  return std::move(opt);
#else
  return opt;
#endif
}
