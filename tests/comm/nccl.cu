// NCCL itself, which needs GPUs to run: a model that all GPUs of this machine share, a thread each. The weights must be
// those of the plain optimizer on the CPU, to the bit. With one GPU there is one rank, which sends nothing in a step, so
// NCCL's operations are also called by hand. Ends with 77 where there is no GPU.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/comm/nccl.hpp>
#include <gradus/distributed.hpp>
#include <gradus/gradus.hpp>

namespace {

constexpr std::size_t n = 1000000;
constexpr int steps = 3;
constexpr gradus::step_options options{.max_grad_norm = 1, .skip_nonfinite = true};

std::vector<float> gradients_of(int t, std::size_t rank, std::size_t ranks)
{
  std::vector<float> g(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto other = [&](std::size_t r) { return ranks == 1 ? 0.0f : float((i + 7 * (r % ranks)) % 41); };
    g[i] = (rank == 0 ? float((i * 7 + std::size_t(t)) % 101) - 50 : 0) + other(rank) - other(rank + 1);
  }
  return g;
}

// A rank's weights after some steps.
std::vector<float> train(ncclComm_t comm)
{
  cudaStream_t stream, own;
  cudaStreamCreate(&stream);
  cudaStreamCreate(&own);
  std::vector<float> weights(n);
  {
    gradus::backend::thrust_device backend(thrust::cuda::par_nosync.on(stream));
    gradus::comm::nccl world(comm, stream, own);  // on a stream of its own, so that it works beside the backend
    gradus::sharded opt(world, gradus::adamw{.lr = 0.1}, {.bucket = std::size_t(1) << 20}, backend);
    opt.add("a", n);
    opt.commit();
    for (int t = 0; t < steps; ++t) {
      const auto g = gradients_of(t, world.rank(), world.size());
      opt.copy_memory(opt.gradients("a").data(), g.data(), n * sizeof(float));
      opt.step(options);
    }
    opt.copy_memory(weights.data(), opt.parameters("a").data(), n * sizeof(float));
  }
  cudaStreamDestroy(stream);
  cudaStreamDestroy(own);
  return weights;
}

// The operations on one rank.
bool operations_work(ncclComm_t comm)
{
  gradus::comm::nccl world(comm);
  thrust::device_vector<std::int64_t> words(5, 3);
  thrust::device_vector<float> from(n, 2.0f), to(n), sum(n);
  const auto wait = [&](auto request, const char* what) {
    gradus::detail::wait_for(world, request, std::chrono::milliseconds(10000), "the test", what);
  };
  float* const source = thrust::raw_pointer_cast(from.data());
  wait(world.sum(thrust::raw_pointer_cast(words.data()), 5), "sum");
  wait(world.broadcast(source, n * sizeof(float), 0), "broadcast");
  wait(world.exchange(source, thrust::raw_pointer_cast(to.data()), n * sizeof(float)), "exchange");
  wait(world.reduce_scatter(source, thrust::raw_pointer_cast(sum.data()), n), "reduce-scatter");
  wait(world.all_gather(source, n * sizeof(float)), "all-gather");
  return words[4] == 3 && from[n - 1] == 2 && to[n - 1] == 2 && sum[n - 1] == 2;
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
  std::vector<ncclComm_t> comms(std::size_t(devices), nullptr);
  if (ncclCommInitAll(comms.data(), devices, nullptr) != ncclSuccess)
    return std::puts("ncclCommInitAll failed"), 1;
  std::vector<float> weights(n), gradients(n);
  gradus::optimizer<gradus::adamw, float, gradus::backend::scalar> plain(gradus::adamw{.lr = 0.1});
  plain.add("a", weights, gradients);
  for (int t = 0; t < steps; ++t) {
    gradients = gradients_of(t, 0, 1);
    plain.step(options);
  }
  std::vector<int> same(comms.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < comms.size(); ++r)
    threads.emplace_back([&, r] {
      cudaSetDevice(int(r));
      same[r] = std::memcmp(train(comms[r]).data(), weights.data(), n * sizeof(float)) == 0;
    });
  for (auto& t : threads)
    t.join();
  bool good = devices > 1 || operations_work(comms[0]);
  std::printf("NCCL's operations %s\n", devices > 1 ? "are those of the steps" : good ? "work" : "FAILED");
  for (std::size_t r = 0; r < same.size(); ++r) {
    std::printf("rank %zu of %d %s the plain optimizer's bits\n", r, devices, same[r] ? "has" : "DOES NOT have");
    good = good && same[r];
  }
  for (ncclComm_t c : comms)
    ncclCommDestroy(c);
  return good ? 0 : 1;
}
