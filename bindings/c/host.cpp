// The recipes on the host, of libgradus and libgradus_cuda.

#include <span>
#include <string_view>
#include <utility>

#include "optimizer.hpp"

namespace gradus::binding {

of_any_dtype<backend> make_on_host(std::string_view recipe, std::span<const named_number> numbers, gradus_dtype dtype,
                                   const adjustable& executor)
{
  using any = of_any_dtype<backend>;
  const backend on(gradus::backend::dispatch(), executor);
  switch (int(dtype)) {
  case GRADUS_FLOAT32: return any(std::in_place_index<0>, recipe, numbers, on);
  case GRADUS_FLOAT64: return any(std::in_place_index<1>, recipe, numbers, on);
  case GRADUS_BFLOAT16: return any(std::in_place_index<2>, recipe, numbers, on);
  case GRADUS_FLOAT16: return any(std::in_place_index<3>, recipe, numbers, on);
  }
  fail_unknown_dtype(dtype);
}

}  // namespace gradus::binding
