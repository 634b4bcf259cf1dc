// conformance.h over conformance.hpp.

#include "conformance.h"

#include "conformance.hpp"

namespace {

template <class T, class Tensor, class Step>
int examine(const conformance_settings* given, Step step, void* user, char* text, std::size_t capacity)
{
  if (!text)
    capacity = 0;
  if (!given || !step) {
    std::snprintf(text, capacity, "The %s is NULL.\n", given ? "step" : "pointer to the settings");
    return -1;
  }
  const conformance_settings& c = *given;
  const conformance::settings s{c.lr,        c.beta1,         c.beta2,
                                c.eps,       c.weight_decay,  c.momentum,
                                c.dampening, c.nesterov != 0, c.initial_accumulator};
  const conformance::verdict v = conformance::examine<T>(s, [&](std::vector<conformance::tensor<T>>& tensors, int t,
                                                                double lr) {
    std::vector<Tensor> passed;
    for (const auto& x : tensors)
      passed.push_back({x.parameters, x.gradients, x.size, x.weight_decay});
    step(user, passed.data(), passed.size(), t, lr);
  });
  std::snprintf(text, capacity, "%s", v.text.c_str());
  return v.follows ? v.mistakes : -1;
}

}  // namespace

conformance_settings conformance_default_settings()
{
  const conformance::settings s;
  return {s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, s.momentum, s.dampening, s.nesterov, s.initial_accumulator};
}

int conformance_examine_float(const conformance_settings* settings, conformance_step_float step, void* user, char* text,
                              size_t capacity)
{
  return examine<float, conformance_tensor_float>(settings, step, user, text, capacity);
}

int conformance_examine_double(const conformance_settings* settings, conformance_step_double step, void* user,
                               char* text, size_t capacity)
{
  return examine<double, conformance_tensor_double>(settings, step, user, text, capacity);
}
