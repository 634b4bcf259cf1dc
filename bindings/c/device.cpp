// The recipes on a device, in one precision: compiled by nvcc, once for each value of GRADUS_C_PRECISION.

#include <span>
#include <string_view>

#include "optimizer.hpp"

namespace gradus::binding {

template <class T>
device_optimizer<T> make_on_device(std::string_view recipe, std::span<const named_number> numbers, const stream* s)
{
  return device_optimizer<T>(recipe, numbers, device(policy_on(s)));
}
template device_optimizer<GRADUS_C_PRECISION> make_on_device<GRADUS_C_PRECISION>(std::string_view recipe,
                                                                                 std::span<const named_number> numbers,
                                                                                 const stream* s);

}  // namespace gradus::binding
