// Sharded steps over MPI, run by mpi.sh with several numbers of ranks.
//
//   mpi bits FOLDER [FROM]   compares with the plain optimizer, writes hashes and checkpoints of this number of ranks to the
//                            folder, and resumes from the checkpoints of FROM: another number of ranks, or plain
//   mpi plain FOLDER FROM    the plain optimizer resumes from the checkpoints of so many ranks
//   mpi fail KIND            a rank does something that the others do not expect
//   mpi fail full|kill FILE  a rank cannot write its part of a checkpoint, or is killed meanwhile

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include <sys/resource.h>

#include <gradus/comm/mpi.hpp>
#include <gradus/distributed.hpp>
#include <gradus/gradus.hpp>

#include "../bench/counted.hpp"
#include "../bench/counted_allocations.hpp"

#include "support/folder.hpp"
#include "support/random.hpp"
#include "support/tensors.hpp"

namespace {

using namespace std::chrono_literals;
using support::content, support::number;
using world_type = gradus::comm::mpi;

int failures = 0;

void expect(bool good, const std::string& what)
{
  if (good)
    return;
  ++failures;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
}

// ── a model ──────────────────────────────────────────────────────────────────────────────────────────────────────────

// Some hundred tensors: most of them small, some empty, some of whole pages, one larger than a shard of several ranks.
const std::vector<std::size_t>& sizes()
{
  static const std::vector<std::size_t> all = [] {
    std::vector<std::size_t> n = {40000, 0, 4096, 8192, 4097, 1};
    support::random r(5);
    for (int k = 0; k < 250; ++k)
      n.push_back(k % 20 == 7 ? 0 : r.below(k % 25 == 0 ? 9000 : 500));
    return n;
  }();
  return all;
}
std::string name_of(std::size_t k) { return "layer" + std::to_string(k) + "/weight"; }
double start(std::size_t k, std::size_t i) { return std::cos(double(k) + 0.1 * double(i)); }

std::uint64_t mixed(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d)
{
  return gradus::detail::mix(a * 0x9e3779b97f4a7c15u + gradus::detail::mix(b + gradus::detail::mix(c * 3 + 1)) + d * 7);
}

// How gradients are made up of those of the ranks.
enum class kind {
  exact,  // their sum is exact and the same for every number of ranks
  any     // every sum is rounded, and so depends on the order
};

// One rank's gradient. Small multiples of 1/64 if exact.
double gradient(kind what, std::size_t k, std::size_t i, int t, std::size_t rank, std::size_t ranks)
{
  if (what == kind::any)
    return (double(mixed(k, i, std::uint64_t(t), rank + 100) >> 40) - 0x1p23) * 0x1p-24;
  // Each rank adds a number, and the next one subtracts it.
  const auto other = [&](std::size_t r) { return double(mixed(k, i, std::uint64_t(t), r + 1) % 41) - 20; };
  const double g = rank == 0 ? double(mixed(k, i, std::uint64_t(t), 0) % 201) - 100 : 0;
  return ranks == 1 ? g / 64 : (g + other(rank) - other((rank + 1) % ranks)) / 64;
}

// What the ranks' gradients give together, by loops of its own.
template <class Sum, class G>
Sum reduced(gradus::reduction order, kind what, std::size_t k, std::size_t i, int t, std::size_t first,
            std::size_t last, std::size_t ranks)
{
  const auto of = [&](std::size_t r) {
    const G g = number<G>(gradient(what, k, i, t, r, ranks));
    if constexpr (gradus::real<G>)
      return Sum(g);
    else
      return Sum(float(g));
  };
  if (what == kind::exact)
    return Sum(gradient(what, k, i, t, 0, 1));
  if (order == gradus::reduction::tree && last - first > 1) {
    std::size_t half = 1;
    while (2 * half < last - first)
      half *= 2;
    return reduced<Sum, G>(order, what, k, i, t, first, first + half, ranks) +
           reduced<Sum, G>(order, what, k, i, t, first + half, last, ranks);
  }
  Sum sum = of(first);
  for (std::size_t r = first + 1; r < last; ++r)
    sum += of(r);
  return sum;
}

// ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

constexpr int steps = 4, half = 2;

struct run_options {
  std::string name;
  gradus::sharded_options exchange = {};
  kind what = kind::exact;
  bool nan_in_step_2 = false;
  gradus::step_options step = {};
  bool writes = false;
};

gradus::step_options options_of(const run_options& o, int t)
{
  gradus::step_options s = o.step;
  s.lr_scale = 1 - 0.1 * t;
  return s;
}

// The groups: every third tensor has other hyperparameters.
template <class Recipe>
Recipe second(Recipe r)
{
  if constexpr (requires { r.weight_decay; })
    r.weight_decay = 0;
  r.lr *= 2;
  return r;
}
bool in_second(std::size_t k) { return k % 3 == 1; }

template <class Recipe, class T>
using sharded = gradus::sharded<Recipe, T, world_type>;

template <class Opt>
void add_all(Opt& opt)
{
  const auto g = opt.add_group(second(opt.hyperparameters()));
  for (std::size_t k = 0; k < sizes().size(); ++k)
    opt.add(name_of(k), sizes()[k], in_second(k) ? std::optional(g) : std::nullopt);
  opt.commit();
}
template <class Opt>
void set_start(Opt& opt)
{
  using P = typename Opt::parameter_type;
  for (std::size_t k = 0; k < sizes().size(); ++k) {
    const auto p = opt.parameters(name_of(k));
    for (std::size_t i = 0; i < p.size(); ++i)
      p[i] = number<P>(start(k, i));
  }
}

// One step of a sharded optimizer: gradients from the last tensor to the first, or in an order of this rank's own.
template <class Opt>
gradus::step_report step(Opt& opt, const world_type& world, const run_options& o, int t)
{
  using G = typename Opt::gradient_type;
  const std::size_t n = sizes().size();
  for (std::size_t j = 0; j < n; ++j) {
    const std::size_t k = (n - 1 - j + 17 * world.rank()) % n;
    const auto g = opt.gradients(name_of(k));
    for (std::size_t i = 0; i < g.size(); ++i)
      g[i] = number<G>(gradient(o.what, k, i, t, world.rank(), world.size()));
    if (o.nan_in_step_2 && t == 2 && k == 0 && world.rank() == world.size() - 1)
      g[39999] = number<G>(std::numeric_limits<double>::quiet_NaN());
    if (k % 7 != 3)  // some are never said to be ready
      opt.ready(name_of(k));
  }
  return opt.step(options_of(o, t));
}

// The plain optimizer of the same model, given the reduced gradients.
template <class Recipe, class T>
struct plain {
  using P = typename gradus::precision_of<T>::parameter_type;
  using given = typename gradus::precision_of<T>::gradient_type;
  using sum = gradus::detail::sum_of<given>;
  using precision = gradus::precision<P, sum, typename gradus::precision_of<T>::state_type,
                                      typename gradus::precision_of<T>::master_type>;
  std::vector<std::vector<P>> weights;
  std::vector<std::vector<sum>> gradients;
  gradus::optimizer<Recipe, precision> opt;

  explicit plain(const Recipe& recipe) : opt(recipe)
  {
    const auto g = opt.add_group(second(recipe));
    for (std::size_t k = 0; k < sizes().size(); ++k) {
      weights.emplace_back();
      for (std::size_t i = 0; i < sizes()[k]; ++i)
        weights.back().push_back(number<P>(start(k, i)));
      gradients.emplace_back(sizes()[k]);
    }
    for (std::size_t k = 0; k < sizes().size(); ++k)
      opt.add_spans(name_of(k), std::span(weights[k]), std::span<const sum>(gradients[k]),
                    in_second(k) ? std::optional(g) : std::nullopt);
  }
  gradus::step_report step(const run_options& o, int t, std::size_t ranks)
  {
    for (std::size_t k = 0; k < sizes().size(); ++k)
      for (std::size_t i = 0; i < sizes()[k]; ++i)
        gradients[k][i] = reduced<sum, given>(o.exchange.reduction, o.what, k, i, t, 0, ranks, ranks);
    if (o.nan_in_step_2 && t == 2)
      gradients[0][39999] = std::numeric_limits<sum>::quiet_NaN();
    return opt.step(options_of(o, t));
  }
};

template <class Opt>
std::uint64_t hash_of(Opt& opt)
{
  gradus::detail::running_hash h;
  for (std::size_t k = 0; k < sizes().size(); ++k)
    h.add_bytes(opt.parameters(name_of(k)).data(), opt.parameters(name_of(k)).size_bytes());
  return h.value();
}

bool same(const gradus::step_report& a, const gradus::step_report& b)
{
  const auto bits = [](const std::optional<double>& x) { return x && std::isfinite(*x) ? *x : x ? -1 : -2; };
  return a.applied == b.applied && bits(a.grad_norm) == bits(b.grad_norm) && bits(a.mean_square) == bits(b.mean_square);
}

// Waits for rank 0, which has more to do, without taking its core.
void rest()
{
  MPI_Request request;
  int done = 0;
  for (MPI_Ibarrier(MPI_COMM_WORLD, &request); !done; MPI_Test(&request, &done, MPI_STATUS_IGNORE))
    std::this_thread::sleep_for(1ms);
}

std::string hashes;  // what all numbers of ranks must agree on

template <class T, class Recipe>
void compare(world_type& world, const std::string& folder, const std::string& from, const Recipe& recipe,
             const run_options& o)
{
  const std::string what = o.name + ", " + std::to_string(world.size()) + " ranks: ",
                    mine = folder + '/' + o.name + '.' + std::to_string(world.size());
  sharded<Recipe, T> opt(world, recipe, o.exchange);
  add_all(opt);
  set_start(opt);
  // The reference is run by rank 0 alone, after the others have their results.
  std::vector<gradus::step_report> reports;
  std::vector<std::uint64_t> after;
  for (int t = 0; t < steps; ++t) {
    reports.push_back(step(opt, world, o, t));
    after.push_back(hash_of(opt));
    expect(opt.replicas_agree(), what + "the replicas agree after step " + std::to_string(t));
    if (o.writes && t + 1 == half)
      gradus::save(opt, mine + ".half", {.parameters = true});
  }
  if (o.writes)
    gradus::save(opt, mine, {.parameters = true});
  if (world.rank() == 0) {
    plain<Recipe, T> reference(recipe);
    for (int t = 0; t < steps; ++t) {
      const auto r = reference.step(o, t, world.size());
      expect(same(r, reports[std::size_t(t)]),
             what + "the report of step " + std::to_string(t) + " is the plain optimizer's");
      gradus::detail::running_hash h;
      for (const auto& w : reference.weights)
        h.add_bytes(w.data(), w.size() * sizeof w[0]);
      expect(h.value() == after[std::size_t(t)],
             what + "the weights after step " + std::to_string(t) + " are the plain optimizer's");
      if (o.writes && t + 1 == half && world.size() == 1)
        gradus::save(reference.opt, folder + '/' + o.name + ".plain.half", {.parameters = true});
    }
    expect(o.nan_in_step_2 != reports[2].applied, what + "a NaN skips the step");
    if (o.writes) {
      gradus::save(reference.opt, folder + '/' + o.name + ".plain", {.parameters = true});
      expect(content(mine) == content(folder + '/' + o.name + ".plain"),
             what + "the checkpoint is the plain optimizer's");
    }
    if (o.what == kind::exact)
      hashes += o.name + ' ' + std::to_string(after.back()) + '\n';
  }
  rest();
  if (o.writes && !from.empty()) {
    sharded<Recipe, T> resumed(world, recipe, o.exchange);
    add_all(resumed);
    gradus::load(resumed, folder + '/' + o.name + '.' + from + ".half");
    expect(hash_of(resumed) == after[half - 1], what + "loaded weights");
    for (int t = half; t < steps; ++t)
      step(resumed, world, o, t);
    expect(hash_of(resumed) == after.back(), what + "resumed from " + from + ", the end is the same");
  }
}

// The plain optimizer goes on from a checkpoint of several ranks.
template <class T, class Recipe>
void resume_plain(const std::string& folder, const std::string& from, const Recipe& recipe, const run_options& o)
{
  plain<Recipe, T> one(recipe);
  gradus::load(one.opt, folder + '/' + o.name + '.' + from + ".half");
  for (int t = half; t < steps; ++t)
    one.step(o, t, 1);
  gradus::save(one.opt, folder + '/' + o.name + ".resumed", {.parameters = true});
  expect(content(folder + '/' + o.name + ".resumed") == content(folder + '/' + o.name + ".plain"),
         o.name + ": the plain optimizer, resumed from " + from + " ranks, ends the same");
}

constexpr std::size_t small_bucket = 100000;

// Calls f(T, recipe, run) for each case.
template <class F>
void for_each_case(const F& f)
{
  using namespace gradus;
  const sharded_options many{.bucket = small_bucket, .timeout = 60s};
  const step_options clipped{.max_grad_norm = 10}, skips{.max_grad_norm = 10, .skip_nonfinite = true};
  f(float(), adamw{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adamw", .exchange = many, .step = clipped, .writes = true});
  f(double(), adamw{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adamw_double", .exchange = {.timeout = 60s}, .nan_in_step_2 = true, .step = skips});
  f(float(), adams{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adams", .exchange = {.timeout = 60s}, .step = clipped});
  f(double(), adams{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adams_double", .exchange = many, .nan_in_step_2 = true, .step = skips, .writes = true});
  const auto two_passes = compose(0.01, first_moment::ema{}, second_moment::yogi{}, step_size::adaptive{.eps = 1e-3},
                                  decay::scheduled{.weight_decay = 0.1});
  f(float(), two_passes,
    run_options{.name = "yogi_scheduled", .exchange = many, .nan_in_step_2 = true, .step = skips, .writes = true});
  f(double(), two_passes, run_options{.name = "yogi_scheduled_double", .exchange = many});
  f(precision<bfloat16, bfloat16, block8, float>(), adamw{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adamw_16_8", .exchange = many, .step = clipped, .writes = true});
  f(precision<bfloat16, bfloat16, bfloat16, remainder16>(), adams{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "adams_remainders", .exchange = many, .writes = true});
  f(double(), lamb{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "lamb", .exchange = many, .nan_in_step_2 = true, .step = skips, .writes = true});
  // Sums that are rounded: in the order of the ranks, with any bucket, and in the order of a tree.
  f(double(), adamw{.lr = 0.01}, run_options{.name = "in_order", .exchange = many, .what = kind::any, .step = clipped});
  f(double(), adamw{.lr = 0.01},
    run_options{.name = "in_order_whole", .exchange = {.timeout = 60s}, .what = kind::any, .step = clipped});
  f(precision<float, bfloat16>(), sgd{.lr = 0.01, .momentum = 0.9},
    run_options{.name = "in_order_16", .exchange = many, .what = kind::any});
  f(double(), adamw{.lr = 0.01},
    run_options{.name = "tree",
                .exchange = {.bucket = small_bucket, .reduction = reduction::tree, .timeout = 60s},
                .what = kind::any,
                .step = clipped});
  f(float(), adamw{.lr = 0.01, .weight_decay = 0.1},
    run_options{.name = "engine",
                .exchange = {.bucket = small_bucket, .reduction = reduction::engine, .timeout = 60s},
                .step = clipped});
}

// Microbatches, of which the ranks share eight: the same bits for 1, 2, 4 and 8 ranks.
void microbatches(world_type& world)
{
  if (8 % world.size() != 0)
    return;
  const std::size_t each = 8 / world.size();
  sharded<gradus::adamw, double> opt(
      world, {}, {.bucket = small_bucket, .reduction = gradus::reduction::tree, .timeout = 60s, .microbatches = each});
  add_all(opt);
  set_start(opt);
  for (int t = 0; t < steps; ++t) {
    for (std::size_t m = 0; m < each; ++m) {
      for (std::size_t k = 0; k < sizes().size(); ++k) {
        const auto g = opt.gradients(name_of(k));
        for (std::size_t i = 0; i < g.size(); ++i)
          g[i] = gradient(kind::any, k, i, t, world.rank() * each + m, 8);
      }
      opt.accumulate();
    }
    opt.step({.grad_scale = 0.125, .max_grad_norm = 1});
  }
  if (world.rank() == 0)
    hashes += "microbatches " + std::to_string(hash_of(opt)) + '\n';
}

// A step allocates nothing, but in MPI.
template <class Recipe>
void allocations_of_steps(world_type& world, const Recipe& recipe)
{
  sharded<Recipe, float> opt(world, recipe, {.bucket = small_bucket, .timeout = 60s});
  add_all(opt);
  set_start(opt);
  std::vector<std::string> names;
  for (std::size_t k = 0; k < sizes().size(); ++k)
    names.push_back(name_of(k));
  for (int t = 0; t < 4; ++t) {
    for (auto& g : opt.all_gradients())
      g = 0.5f;
    const long before = allocations;
    opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
    const long made = allocations - before;
    expect(t < 2 || made == 0, "a step allocates nothing, and not " + std::to_string(made) + " times");
  }
}

// The bytes that a rank sends in a step and keeps, against the least possible.
void bytes_of_a_step(world_type& world)
{
  const std::size_t ranks = world.size(), n = 100 * ranks * gradus::page_size + 1;
  bench::counted counting(world);
  gradus::sharded<gradus::adamw, float, bench::counted<world_type>> opt(counting, {},
                                                                        {.bucket = n / 2, .timeout = 60s});
  opt.add("w", n);
  opt.commit();
  counting.sent = {};
  opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
  const double share = double(n) * sizeof(float) / double(ranks), ideal = share * double(ranks - 1);
  for (const std::uint64_t way : {counting.sent.gradients, counting.sent.parameters})
    expect(double(way) >= ideal && double(way) <= 1.01 * ideal, "a rank sends " + std::to_string(way) +
                                                                    " bytes each way, of which " +
                                                                    std::to_string(ideal) + " are needed");
  expect(counting.sent.scalars <= 700, "scalars of " + std::to_string(counting.sent.scalars) + " bytes");
  expect(double(opt.state_bytes()) <= 1.03 * 2 * share,
         "a rank's state of " + std::to_string(opt.state_bytes()) + " bytes");
}

// Collective calls that are cut, because an MPI call counts in int.
void cut_calls()
{
  world_type world(MPI_COMM_WORLD, 1000);
  sharded<gradus::adamw, float> cut(world, {}, {.bucket = small_bucket, .timeout = 60s});
  add_all(cut);
  set_start(cut);
  world_type other;
  sharded<gradus::adamw, float> whole(other, {}, {.bucket = small_bucket, .timeout = 60s});
  add_all(whole);
  set_start(whole);
  run_options o;
  o.what = kind::any;
  step(cut, world, o, 0);
  step(whole, other, o, 0);
  expect(hash_of(cut) == hash_of(whole), "calls that are cut give the same bits");
  if (world.rank() > 0)
    cut.all_gradients()[0] = 3, cut.parameters(name_of(0))[7] = 3;
  expect(world.size() == 1 || !cut.replicas_agree(), "replicas that differ are noticed");
  cut.broadcast_parameters();
  expect(cut.replicas_agree() && hash_of(cut) == hash_of(whole), "broadcast");
  other.close();
}

// ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

using small = sharded<gradus::adamw, float>;

// A rank whose disk is full, or that is killed while it saves: the old file stays.
int fail_in_save(world_type& world, const std::string& how, const std::string& path)
{
  small opt(world, {}, {.timeout = 2s});
  opt.add("w", 100000);
  opt.commit();
  opt.step();
  gradus::save(opt, path);
  opt.step();
  if (world.rank() == world.size() - 1) {
    if (how == "full") {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit most{100000, 100000};
      setrlimit(RLIMIT_FSIZE, &most);
    } else
      std::thread([] {
        std::this_thread::sleep_for(2ms);
        std::raise(SIGKILL);
      }).detach();
  }
  for (;;)
    gradus::save(opt, path);
}

int fail(world_type& world, const std::string& how)
{
  const bool odd = world.rank() == world.size() - 1;
  small opt(world, {.lr = odd && how == "hyperparameters" ? 2e-3 : 1e-3}, {.bucket = 32768, .timeout = 2s});
  opt.add("a", 5000);
  opt.add(odd && how == "names" ? "c" : "b", odd && how == "sizes" ? 101u : 100u);
  if (odd && how == "lists")
    opt.add("d", 3);
  opt.commit();
  for (int t = 0; t < 3; ++t) {
    if (t == 1 && odd) {
      if (how == "throw")
        throw std::runtime_error("a rank throws");
      if (how == "die")
        std::abort();
      if (how == "stall")
        std::this_thread::sleep_for(1h);
      if (how == "quit")
        std::_Exit(3);
      if (how == "skip")
        continue;
      if (how == "other_call") {
        opt.replicas_agree();
        continue;
      }
      if (how == "freeze")
        opt.freeze("b");
    }
    opt.step({.lr_scale = odd && how == "options" && t == 1   ? 0.5
                          : odd && how == "refused" && t == 1 ? -1.0
                                                              : 1.0,
              .max_grad_norm = 1});
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv)
{
  const std::vector<std::string> words(argv + 1, argv + argc);
  MPI_Init(&argc, &argv);
  int result = 0;
  try {
    world_type world;
    if (words.size() == 3 && words[0] == "fail")
      result = fail_in_save(world, words[1], words[2]);
    else if (words.size() == 2 && words[0] == "fail")
      result = fail(world, words[1]);
    else if (words.size() == 3 && words[0] == "plain")
      for_each_case([&]<class T>(T, const auto& recipe, const run_options& o) {
        if (o.writes)
          resume_plain<T>(words[1], words[2], recipe, o);
      });
    else if (words.size() >= 2 && words[0] == "bits") {
      for_each_case([&]<class T>(T, const auto& recipe, const run_options& o) {
        compare<T>(world, words[1], words.size() > 2 ? words[2] : "", recipe, o);
      });
      microbatches(world);
      allocations_of_steps(world, gradus::adams{.weight_decay = 0.1});
      allocations_of_steps(world, gradus::lamb{});
      bytes_of_a_step(world);
      cut_calls();
      if (world.rank() == 0)
        std::ofstream(words[1] + "/hashes." + std::to_string(world.size())) << hashes;
    } else
      result = 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    result = 1;
    // A rank that goes on without the others. (In MPI_Finalize, which waits for them, mpirun of Open MPI 4.1 may crash or
    // hang when they abort.)
    if (std::string_view(e.what()) == "a rank throws")
      std::this_thread::sleep_for(1h);
  }
  MPI_Finalize();
  return result ? result : failures > 0;
}
