// NCCL itself, which needs a GPU to run: a step of a model that several GPUs share, by hand. Each rank adds the gradients of
// its slice, steps it with the Thrust backend, and gathers the weights. Here with one rank, whose weights must be the plain
// optimizer's to the bit. Ends with 77 where there is no GPU.

#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/comm/nccl.hpp>
#include <gradus/gradus.hpp>

namespace {

template <class X>
X* raw(thrust::device_vector<X>& x)
{
  return thrust::raw_pointer_cast(x.data());
}

// Without clipping, skip_nonfinite and a scheduled decay, whose norm would be that of the slice.
template <class Opt>
void step(gradus::comm::nccl& world, Opt& opt, thrust::device_vector<float>& weights,
          thrust::device_vector<float>& gradients, thrust::device_vector<float>& sum)
{
  world.reduce_scatter(raw(gradients), raw(sum), sum.size());
  opt.step({.grad_scale = 1.0 / double(world.size())});
  world.all_gather(raw(weights), sum.size() * sizeof(float));
}

}  // namespace

int main()
{
  int devices = 0, version = 0;
  ncclGetVersion(&version);
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("NCCL %d is linked with, and not run, as there is no GPU\n", version);
    return 77;
  }
  ncclComm_t comm;
  if (ncclCommInitAll(&comm, 1, nullptr) != ncclSuccess)
    return std::puts("ncclCommInitAll failed"), 1;
  gradus::comm::nccl world(comm);
  const std::size_t slice = 100000, n = slice * world.size();
  thrust::device_vector<float> weights(n, 1.0f), gradients(n), sum(slice), twin(n, 1.0f), twin_gradients(n);
  gradus::optimizer opt(gradus::adamw{.lr = 0.1}, gradus::backend::thrust{}),
      plain(gradus::adamw{.lr = 0.1}, gradus::backend::thrust{});
  opt.add(std::span(raw(weights) + world.rank() * slice, slice), std::span<const float>(raw(sum), slice));
  plain.add(twin, twin_gradients);
  for (int t = 0; t < 3; ++t) {
    std::vector<float> g(n);
    for (std::size_t i = 0; i < n; ++i)
      g[i] = float((i * 7 + std::size_t(t)) % 101) - 50;
    gradients = twin_gradients = g;
    step(world, opt, weights, gradients, sum);
    plain.step();
  }
  // The other operations, on one rank.
  thrust::device_vector<std::int64_t> words(5, 3);
  world.sum(reinterpret_cast<std::int64_t*>(raw(words)), 5);
  world.broadcast(raw(weights), n * sizeof(float), 0);
  auto r = world.exchange(raw(weights), raw(gradients), n * sizeof(float));
  gradus::detail::wait_for(world, r, std::chrono::milliseconds(10000), "the test", "exchange");
  const thrust::host_vector<float> a = gradients, b = twin;
  const bool same = std::memcmp(a.data(), b.data(), n * sizeof(float)) == 0 && words[4] == 3;
  ncclCommDestroy(comm);
  std::puts(same ? "one rank has the plain optimizer's bits" : "one rank differs from the plain optimizer");
  return same ? 0 : 1;
}
