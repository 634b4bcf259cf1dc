// A step of a sharded optimizer over MPI, beside the plain loop that an MPI program would write: MPI_Reduce_scatter_block, a
// step of this rank's slice, MPI_Allgather. AdamW in float, one tensor, and the bytes that a rank sends and
// keeps, which follow from the layout.
//
//   mpirun -n 4 sharded [MILLIONS OF PARAMETERS]

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include <gradus/comm/mpi.hpp>
#include <gradus/distributed.hpp>

namespace {

constexpr int repeats = 9;

// The median over some repeats, in milliseconds; each lasts as long as the slowest rank.
template <class F>
double median_of(const F& step)
{
  std::vector<double> times;
  for (int k = 0; k <= repeats; ++k) {
    MPI_Barrier(MPI_COMM_WORLD);
    const auto begin = std::chrono::steady_clock::now();
    step();
    double mine = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count(), all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    if (k > 0)  // the first one warms up
      times.push_back(all);
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[repeats / 2];
}

void print(const gradus::comm::mpi& world, const char* what, double ms, double sent, double state, double ideal_bytes,
           double ideal_state)
{
  if (world.rank() == 0)
    std::printf("%-44s %9.1f ms  sent %8.2f MB (%.4f of the ideal)  state %8.2f MB (%.4f)\n", what, ms, sent / 1e6,
                ideal_bytes > 0 ? sent / ideal_bytes : 1, state / 1e6, state / ideal_state);
}

void run(std::size_t n)
{
  gradus::comm::mpi world;
  const double ranks = double(world.size()), ideal = 2 * double(n) * sizeof(float) * (ranks - 1) / ranks,
               ideal_state = 2 * double(n) * sizeof(float) / ranks;
  {
    const std::size_t slice = (n + world.size() - 1) / world.size(), padded = slice * world.size();
    std::vector<float> weights(padded, 1), gradients(padded, 0.1f), sum(slice);
    gradus::optimizer<gradus::adamw> opt;
    opt.add(std::span(weights).subspan(world.rank() * slice, slice), sum);
    const double ms = median_of([&] {
      MPI_Reduce_scatter_block(gradients.data(), sum.data(), int(slice), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      opt.step();
      MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, weights.data(), int(slice), MPI_FLOAT, MPI_COMM_WORLD);
    });
    print(world, "reduce-scatter, step, all-gather by hand", ms, ideal, double(opt.state_bytes()), ideal, ideal_state);
  }
  const auto sharded = [&](const char* what, gradus::reduction order, std::size_t bucket,
                           const gradus::step_options& o) {
    gradus::sharded opt(world, gradus::adamw{}, {.bucket = bucket, .reduction = order});
    opt.add("w", n);
    opt.commit();
    for (float& g : opt.all_gradients())
      g = 0.1f;
    const double ms = median_of([&] { opt.step(o); });
    // Gradients and parameters, and 616 bytes of scalars.
    const double sent = 2 * double(opt.elements_of_rank()) * sizeof(float) * (ranks - 1) + (ranks > 1 ? 616 : 0);
    print(world, what, ms, sent, double(opt.state_bytes()), ideal, ideal_state);
  };
  const std::size_t whole = n * sizeof(float), eighth = whole / 8;
  const gradus::step_options clipped{.max_grad_norm = 1, .skip_nonfinite = true};
  sharded("sharded, ranks_in_order, one bucket", gradus::reduction::ranks_in_order, whole, {});
  sharded("sharded, ranks_in_order, eight buckets", gradus::reduction::ranks_in_order, eighth, {});
  sharded("the same, clipped, non-finite steps skipped", gradus::reduction::ranks_in_order, eighth, clipped);
  sharded("sharded, tree, eight buckets", gradus::reduction::tree, eighth, {});
  sharded("sharded, engine, eight buckets", gradus::reduction::engine, eighth, {});
}

}  // namespace

int main(int argc, char** argv)
{
  MPI_Init(&argc, &argv);
  const double millions = argc > 1 ? std::atof(argv[1]) : 16;
  if (millions >= 0.1 && millions <= 1000)
    run(std::size_t(millions * 1e6));
  else
    std::fprintf(stderr, "sharded: %g million parameters; expected 0.1 to 1000\n", millions);
  MPI_Finalize();
  return 0;
}
