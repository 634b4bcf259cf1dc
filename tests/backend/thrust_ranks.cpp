// A sharded optimizer over device memory beside the plain optimizer of the CPU, with threads in place of processes and
// Thrust's host systems in place of a GPU.

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include <thrust/device_vector.h>

#include "support/guarded_device.hpp"
#include "support/sharded_model.hpp"

extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

namespace {

using namespace support;
using gradus::sharded, gradus::sharded_options, gradus::step_options, gradus::step_report;

constexpr int steps = 4;
constexpr std::size_t small_bucket = 8 * gradus::page_size * sizeof(float);

bool same(const step_report& a, const step_report& b)
{
  return a.applied == b.applied && a.grad_norm == b.grad_norm && a.mean_square == b.mean_square &&
         a.decay_factor == b.decay_factor && a.decay_clamped == b.decay_clamped;
}

// Takes steps with several numbers of ranks, and compares weights and reports with the plain optimizer's.
// \param change(opt, t)     before step t; the plain optimizer is changed by plain_change
template <class T, class Recipe, class Change, class PlainChange>
void compare(const Recipe& first, const Recipe& second, const step_options& o, const sharded_options& exchange,
             const Change& change, const PlainChange& plain_change)
{
  whole_model<Recipe, T> plain(first, second);
  std::vector<std::string> expected;
  std::vector<step_report> reports;
  for (int t = 0; t < steps; ++t) {
    plain_change(plain, t);
    plain.compute(t);
    reports.push_back(plain.opt.step(o));
    expected.push_back(plain.bytes());
  }
  for (const std::size_t ranks : {1u, 2u, 4u}) {
    std::atomic<int> good = 0;
    const auto thrown = on_ranks(ranks, [&](thread_rank& threads) {
      guarded_memory memory;
      guarded_rank world(threads, memory);
      sharded<Recipe, T, guarded_rank, guarded_device> opt(world, first, exchange, guarded_device(memory));
      add_sharded_model(opt, second);
      for (int t = 0; t < steps; ++t) {
        change(opt, t);
        compute_sharded(opt, world, t);
        // In an order of each rank's own, and not all.
        for (std::size_t k = world.rank(); k < sharded_sizes.size(); k += 1 + world.rank())
          opt.ready(sharded_name(k));
        const step_report r = opt.step(o);
        good += same(r, reports[std::size_t(t)]) && same(opt.report(), r) &&
                bytes_of_weights(opt) == expected[std::size_t(t)];
      }
    });
    for (const auto& t : thrown)
      CHECK(t == "");
    CHECK(good == steps * int(ranks));
  }
}
template <class T = float, class Recipe>
void compare(const Recipe& first, const Recipe& second, const step_options& o = {},
             const sharded_options& exchange = {})
{
  compare<T>(first, second, o, exchange, [](auto&, int) {}, [](auto&, int) {});
}

}  // namespace

TEST_CASE("sharded on a device: weights and reports are the plain optimizer's, for every number of ranks")
{
  const step_options clipped{.max_grad_norm = 10};
  compare(gradus::adamw{}, gradus::adamw{.weight_decay = 0});
  compare(gradus::adamw{}, gradus::adamw{.weight_decay = 0}, clipped, {.bucket = small_bucket});
}
