// A step of a sharded optimizer over MPI, beside the plain loop that an MPI program would write: MPI_Reduce_scatter_block, a
// step of this rank's slice, MPI_Allgather. AdamW in float on one tensor. Also what a rank sends and keeps, in bytes and as
// a multiple of the least possible, and how often gradus allocates memory in a step. `./dev bench --ranks` runs it.
//
//   mpirun -n 4 sharded [MILLIONS OF PARAMETERS]

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

#include <gradus/comm/mpi.hpp>
#include <gradus/distributed.hpp>

#include "counted.hpp"
#include "counted_allocations.hpp"

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

struct row {
  const char* what;
  double ms;
  bench::traffic sent;
  double state;
  long allocations;
};

// \param n  the number of parameters
void print(std::size_t ranks, std::size_t n, const row& x)
{
  const double share = double(n) * sizeof(float) / double(ranks), ideal = share * double(ranks - 1);
  const auto times = [](double bytes, double of) { return of > 0 ? bytes / of : 1; };
  std::printf("%-46s %8.1f %9.2f %7.4f %9.2f %7.4f %8llu %9.2f %7.4f %5ld\n", x.what, x.ms,
              double(x.sent.gradients) / 1e6, times(double(x.sent.gradients), ideal), double(x.sent.parameters) / 1e6,
              times(double(x.sent.parameters), ideal), static_cast<unsigned long long>(x.sent.scalars), x.state / 1e6,
              times(x.state, 2 * share), x.allocations);
}

void run(std::size_t n)
{
  gradus::comm::mpi world;
  const std::size_t ranks = world.size();
  const bool speaks = world.rank() == 0;
  if (speaks) {
    std::printf("%zu ranks, %g million parameters; what rank 0 sends, in MB and as a multiple of the least possible\n",
                ranks, double(n) / 1e6);
    std::printf("%-46s %8s %17s %17s %8s %17s %5s\n", "", "ms", "gradients", "parameters", "scalars", "state", "new");
  }
  {
    const std::size_t slice = (n + ranks - 1) / ranks, padded = slice * ranks;
    std::vector<float> weights(padded, 1), gradients(padded, 0.1f), sum(slice);
    gradus::optimizer<gradus::adamw> opt;
    opt.add(std::span(weights).subspan(world.rank() * slice, slice), sum);
    const double ms = median_of([&] {
      MPI_Reduce_scatter_block(gradients.data(), sum.data(), int(slice), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      opt.step();
      MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, weights.data(), int(slice), MPI_FLOAT, MPI_COMM_WORLD);
    });
    const std::size_t sent = slice * sizeof(float) * (ranks - 1);
    if (speaks)
      print(ranks, n,
            {"reduce-scatter, step, all-gather by hand",
             ms,
             {.gradients = sent, .parameters = sent},
             double(opt.state_bytes()),
             0});
  }
  const auto sharded = [&](const char* what, gradus::reduction order, std::size_t bucket,
                           const gradus::step_options& o) {
    bench::counted counting(world);
    gradus::sharded opt(counting, gradus::adamw{}, {.bucket = bucket, .reduction = order});
    opt.add("w", n);
    opt.commit();
    for (float& g : opt.all_gradients())
      g = 0.1f;
    const double ms = median_of([&] { opt.step(o); });
    counting.sent = {};
    const long before = allocations;
    opt.step(o);
    if (speaks)
      print(ranks, n, {what, ms, counting.sent, double(opt.state_bytes()), allocations - before});
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
  const bool is_known = millions >= 0.1 && millions <= 1000;
  if (is_known)
    run(std::size_t(millions * 1e6));
  else
    std::fprintf(stderr, "sharded: %g million parameters; expected 0.1 to 1000\n", millions);
  MPI_Finalize();
  return is_known ? 0 : 1;
}
