// PyTorch's fused AdamW kernel, called through its C++ library to save the cost of a call from Python. peers.py
// compiles this file against the headers and libraries of the installed wheel.

#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

namespace {

struct raw {
  std::vector<at::Tensor> theta, g, m, v, none, t;
  double weight_decay;
};

}  // namespace

/// Views the memory of another implementation's model.
extern "C" raw* torch_raw_open(std::size_t tensors, const std::size_t* sizes, float* const* theta, float* const* g,
                               double weight_decay)
{
  const c10::InferenceMode guard;
  raw* const r = new raw;
  r->weight_decay = weight_decay;
  for (std::size_t k = 0; k < tensors; ++k) {
    const auto length = static_cast<std::int64_t>(sizes[k]);
    r->theta.push_back(at::from_blob(theta[k], {length}));
    r->g.push_back(at::from_blob(g[k], {length}));
    r->m.push_back(at::zeros_like(r->theta[k]));
    r->v.push_back(at::zeros_like(r->theta[k]));
    r->t.push_back(at::zeros({}));
  }
  return r;
}
extern "C" void torch_raw_run(raw* r, std::size_t steps)
{
  const c10::InferenceMode guard;
  for (std::size_t i = 0; i < steps; ++i) {
    for (const at::Tensor& t : r->t)
      ++*static_cast<float*>(t.data_ptr());
    at::_fused_adamw_(r->theta, r->g, r->m, r->v, r->none, r->t, 1e-3, 0.9, 0.999, r->weight_decay, 1e-8, false, false);
  }
}
extern "C" void torch_raw_close(raw* r) { delete r; }
