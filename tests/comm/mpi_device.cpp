// Device memory over MPI for host memory: Thrust's host systems in place of a GPU. Run by mpi.sh with several numbers of
// ranks, whose weights must be the plain optimizer's, and whose steps allocate nothing once the buffers are there.

#include <cstdio>
#include <string>

#include <gradus/backend/thrust.hpp>
#include <gradus/comm/mpi.hpp>
#include <gradus/distributed.hpp>
#include <gradus/gradus.hpp>

#include "../bench/counted_allocations.hpp"

#include "support/sharded_model.hpp"

namespace {

using device = gradus::backend::thrust_device<>;

template <class T, class Recipe>
bool compare(gradus::comm::mpi& ranks, const Recipe& first, const Recipe& second, gradus::reduction reduction)
{
  const gradus::step_options o{.max_grad_norm = 10, .skip_nonfinite = true};
  support::whole_model<Recipe, T> plain(first, second);
  gradus::comm::staged world(ranks, device());
  gradus::sharded<Recipe, T, decltype(world), device> opt(world, first,
                                                          {.bucket = 32 * 4096 * sizeof(double),
                                                           .reduction = reduction});
  support::add_sharded_model(opt, second);
  bool good = true;
  for (int t = 0; t < 3; ++t) {
    plain.compute(t);
    support::compute_sharded(opt, world, t);
    const auto a = plain.opt.step(o);
    const long before = allocations;
    const auto b = opt.step(o);
    if (t == 2 && allocations != before) {
      std::fprintf(stderr, "rank %zu: a step allocates %ld times\n", world.rank(), allocations - before);
      good = false;
    }
    good = good && a.grad_norm == b.grad_norm && support::bytes_of_weights(opt) == plain.bytes();
  }
  if (!good)
    std::fprintf(stderr, "rank %zu of %zu differs from the plain optimizer\n", world.rank(), world.size());
  return good;
}

}  // namespace

int main()
{
  MPI_Init(nullptr, nullptr);
  bool good = true;
  {
    gradus::comm::mpi ranks(MPI_COMM_WORLD);
    good = compare<double>(ranks, gradus::adams{.weight_decay = 0.1}, gradus::adams{.beta2 = 0.9},
                           gradus::reduction::engine) &&
           good;
    good = compare<gradus::precision<gradus::bfloat16, gradus::bfloat16, float, float>>(
               ranks, gradus::lamb{.lr = 0.01, .weight_decay = 0.1}, gradus::lamb{.lr = 0.02},
               gradus::reduction::ranks_in_order) &&
           good;
    ranks.close();
  }
  MPI_Finalize();
  return good ? 0 : 1;
}
