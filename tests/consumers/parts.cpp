// A second unit of the consumer: what stands beside the optimizer. Prints weights as bits, which are the same in every way in.

#include <bit>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#if defined(CONSUMER_HEADER)
#include CONSUMER_HEADER
#else
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>
#endif

int parts(const char* path);

namespace {

using any = gradus::any_optimizer_of<float, gradus::adams>;

void train(any& opt, std::span<const float> weights, std::span<float> gradients)
{
  for (int step = 0; step < 20; ++step) {
    for (std::size_t j = 0; j < weights.size(); ++j)
      gradients[j] = 2 * weights[j] - float(j % 7);
    opt.step({.lr_scale = gradus::schedule::cosine{.t_max = 20}(step), .max_grad_norm = 1});
  }
}

}  // namespace

// Trains, saves, loads into another optimizer and goes on; 0 if both end with the same bits.
int parts(const char* path)
{
  std::vector<float> weights(37, 1.0f), gradients(37), resumed(37), resumed_gradients(37);
  any opt("adams", {{"lr", 0.05}, {"weight_decay", 1e-3}});
  opt.add("w", weights, gradients);
  train(opt, weights, gradients);
  gradus::save(opt, path, {.parameters = true});

  any other("adams");
  other.add("w", resumed, resumed_gradients);
  gradus::load(other, path);
  train(opt, weights, gradients);
  train(other, resumed, resumed_gradients);

  gradus::backend::parallel threads(gradus::default_backend{}, gradus::executor::thread_pool(2));
  std::vector<float> large(300000, 0.5f), large_gradients(300000, 0.25f);
  gradus::optimizer threaded(gradus::sgd{.lr = 0.1}, threads);
  threaded.add(large, large_gradients);
  threaded.step();

  for (const float w : {weights[0], weights[18], weights[36], large[0], large[299999]})
    std::printf("%08x ", unsigned(std::bit_cast<std::uint32_t>(w)));
  std::printf("\n");
  return weights == resumed ? 0 : 1;
}

#if defined(CONSUMER_PARTS_ALONE)
int main(int argc, char** argv) { return argc == 2 ? parts(argv[1]) : 1; }
#endif
