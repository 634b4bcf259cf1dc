// Sharded steps on a GPU: threads in place of processes, all on one card, whose bytes go through host memory. Weights,
// reports and checkpoints must be those of the plain optimizer on the CPU, to the bit. Compiled by nvcc as CUDA, and for
// one of Thrust's host systems; as CUDA it ends with 77 where there is no GPU.
//
//   thrust_ranks_gpu [time]   time also compares the time of a step with the plain optimizer's on the card

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/distributed.hpp>
#include <gradus/gradus.hpp>

#include "support/folder.hpp"
#include "support/sharded_model.hpp"

namespace {

using namespace support;

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
auto backend_on(cudaStream_t stream) { return gradus::backend::thrust_device(thrust::cuda::par_nosync.on(stream)); }
// Each rank has a stream.
class rank_stream {
 public:
  using backend_type = decltype(backend_on(nullptr));

  rank_stream() { cudaStreamCreate(&stream_); }
  rank_stream(const rank_stream&) = delete;
  ~rank_stream() { cudaStreamDestroy(stream_); }
  backend_type backend() const { return backend_on(stream_); }
  void wait() const { cudaStreamSynchronize(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};
#else
class rank_stream {
 public:
  using backend_type = gradus::backend::thrust_device<>;
  backend_type backend() const { return {}; }
  void wait() const {}
};
#endif

using device = rank_stream::backend_type;
using communicator = gradus::comm::staged<thread_rank, device>;
template <class Recipe, class T>
using sharded = gradus::sharded<Recipe, T, communicator, device>;

int failures = 0;
void expect(bool good, const std::string& what)
{
  failures += !good;
  std::printf("%s: %s\n", good ? "good" : "FAILED", what.c_str());
  std::fflush(stdout);
}

// Also if both are NaN.
bool same(const std::optional<double>& a, const std::optional<double>& b)
{
  return a == b || (a && b && *a != *a && *b != *b);
}
bool same(const gradus::step_report& a, const gradus::step_report& b)
{
  return a.applied == b.applied && same(a.grad_norm, b.grad_norm) && a.mean_square == b.mean_square &&
         a.decay_factor == b.decay_factor && a.decay_clamped == b.decay_clamped;
}

constexpr int steps = 4;

// \param o  of every step; in step 2 of 4 a gradient is NaN
template <class T, class Recipe>
void compare(const char* name, const Recipe& first, const Recipe& second, const gradus::step_options& o)
{
  const folder files("thrust_ranks_gpu");
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  whole_model<Recipe, T> plain(first, second);
  using G = typename whole_model<Recipe, T>::G;
  std::vector<gradus::step_report> reports;
  for (int t = 0; t < steps; ++t) {
    plain.compute(t);
    if (t == 2 && o.skip_nonfinite)
      plain.gradients[5][29999] = as_number<G>(nan);
    reports.push_back(plain.opt.step(o));
  }
  gradus::save(plain.opt, files / "plain", {.parameters = true});
  const std::string saved = plain.bytes();
  plain.compute(steps);
  plain.opt.step(o);
  for (const std::size_t ranks : {1u, 2u, 4u}) {
    const std::string file = files / std::to_string(ranks);
    std::vector<std::string> faults(ranks);
    const auto thrown = on_ranks(ranks, [&](thread_rank& threads) {
      const rank_stream stream;
      communicator world(threads, stream.backend());
      sharded<Recipe, T> opt(world, first, {.bucket = 8 * gradus::page_size * sizeof(G)}, stream.backend());
      add_sharded_model(opt, second);
      for (int t = 0; t < steps; ++t) {
        compute_sharded(opt, world, t);
        if (t == 2 && o.skip_nonfinite && world.rank() + 1 == ranks)
          set_values(opt, opt.gradients(sharded_name(5)).subspan(29999), [nan](std::size_t) { return nan; });
        const auto r = opt.step(o);
        if (!same(r, reports[std::size_t(t)]))
          faults[world.rank()] += " report " + std::to_string(t);
      }
      if (bytes_of_weights(opt) != saved)
        faults[world.rank()] += " weights";
      if (!opt.replicas_agree())
        faults[world.rank()] += " replicas";
      gradus::save(opt, file, {.parameters = true});
      gradus::load(opt, files / "plain");
      compute_sharded(opt, world, steps);
      opt.step(o);
      if (bytes_of_weights(opt) != plain.bytes())
        faults[world.rank()] += " weights after a load";
    });
    std::string all;
    for (std::size_t r = 0; r < ranks; ++r)
      all += faults[r] + (thrown[r].empty() ? "" : " " + thrown[r]);
    if (content(file) != content(files / "plain"))
      all += " checkpoint";
    expect(all.empty(), std::string(name) + " on " + std::to_string(ranks) + " ranks" + all);
  }
}

// Ranks whose options differ all get the same error, and one that refuses a step ends it on all.
void disagree()
{
  const auto thrown = on_ranks(3, [&](thread_rank& threads) {
    const rank_stream stream;
    communicator world(threads, stream.backend());
    sharded<gradus::adamw, float> opt(world, {}, {}, stream.backend());
    opt.add("a", 100000);
    opt.commit();
    try {
      opt.step({.lr_scale = world.rank() == 1 ? -1.0 : 1.0});
    } catch (const std::invalid_argument&) {
      opt.step();
      opt.step({.skip_nonfinite = world.rank() == 2});
    }
  });
  for (const auto& t : thrown)
    expect(t.starts_with("gradus: the ranks disagree in step 3"), "options that differ: " + t);
}

// The time of a step of n parameters, in ms.
template <class Step>
double time_of(const Step& step, const rank_stream& stream)
{
  using clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity();
  for (int t = 0; t < 12; ++t) {
    stream.wait();
    const auto begin = clock::now();
    step();
    stream.wait();
    const double ms = std::chrono::duration<double, std::milli>(clock::now() - begin).count();
    best = ms < best ? ms : best;
  }
  return best;
}
void measure()
{
  constexpr std::size_t n = std::size_t(1) << 27;
  const rank_stream stream;
  const gradus::step_options o{.max_grad_norm = 1};
  {
    thrust::device_vector<float> weights(n, 1.0f), gradients(n, 0.5f);
    gradus::optimizer<gradus::adamw, float, device> opt(gradus::adamw{}, stream.backend());
    opt.add("a", std::span(thrust::raw_pointer_cast(weights.data()), n),
            std::span<const float>(thrust::raw_pointer_cast(gradients.data()), n));
    std::printf("plain, %zu parameters: %.3f ms\n", n, time_of([&] { opt.step(o); }, stream));
  }
  thread_group group(1);
  thread_rank threads(group, 0);
  communicator world(threads, stream.backend());
  sharded<gradus::adamw, float> opt(world, {}, {}, stream.backend());
  opt.add("a", n);
  opt.commit();
  std::printf("sharded on one rank, %zu parameters: %.3f ms\n", n, time_of([&] { opt.step(o); }, stream));
}

}  // namespace

int main(int argc, char** argv)
{
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("thrust_ranks_gpu: skipped, as there is no GPU");
    return 77;
  }
#endif
  const gradus::step_options clipped{.max_grad_norm = 10, .skip_nonfinite = true};
  compare<float>("adamw", gradus::adamw{}, gradus::adamw{.weight_decay = 0}, clipped);
  compare<double>("adams in double", gradus::adams{.weight_decay = 0.1}, gradus::adams{.beta2 = 0.9}, clipped);
  compare<gradus::precision<gradus::bfloat16, gradus::bfloat16, float, float>>(
      "lamb with masters", gradus::lamb{.lr = 0.01, .weight_decay = 0.1}, gradus::lamb{.lr = 0.02}, clipped);
  compare<gradus::precision<float, float, gradus::block8>>("adamw in 8 bits", gradus::adamw{.lr = 0.01},
                                                           gradus::adamw{.lr = 0.02}, {});
  disagree();
  if (argc > 1 && std::strcmp(argv[1], "time") == 0)
    measure();
  return failures == 0 ? 0 : 1;
}
