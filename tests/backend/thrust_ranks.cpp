// A sharded optimizer over device memory beside the plain optimizer of the CPU, with threads in place of processes and
// Thrust's host systems in place of a GPU.

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <thrust/device_vector.h>

#include "../bench/counted.hpp"

#include "support/folder.hpp"
#include "support/guarded_device.hpp"
#include "support/own_rules.hpp"
#include "support/sharded_model.hpp"

extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp\nleak:libgomp\n"; }

namespace {

using namespace support;
using namespace std::chrono_literals;
using gradus::in_norm, gradus::sharded, gradus::sharded_options, gradus::step_options, gradus::step_report;

constexpr int steps = 4;
constexpr std::size_t small_bucket = 8 * gradus::page_size * sizeof(float);

// Takes steps with several numbers of ranks, and compares weights and reports with the plain optimizer's.
// \param change(opt, t)     before step t; the plain optimizer is changed by plain_change
template <class T, class Recipe, class Change, class PlainChange>
void compare(const Recipe& first, const Recipe& second, const step_options& o, const sharded_options& exchange,
             const Change& change, const PlainChange& plain_change)
{
  const plain_run<Recipe, T> plain(first, second, o, steps, plain_change);
  for (const std::size_t ranks : {1u, 2u, 4u}) {
    std::atomic<int> good = 0;
    const auto thrown = on_ranks(ranks, [&](thread_rank& threads) {
      guarded_memory memory;
      const guarded_device device(memory);
      guarded_rank world(threads, device);
      sharded<Recipe, T, guarded_rank, guarded_device> opt(world, first, exchange, device);
      add_sharded_model(opt, second);
      good += plain.steps_as_plain(opt, world, change);
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

// Runs f(world, device) on some ranks, each of which has a device.
template <class F>
std::vector<std::string> on_devices(std::size_t ranks, const F& f)
{
  return on_ranks(ranks, [&](thread_rank& threads) {
    guarded_memory memory;
    const guarded_device device(memory);
    guarded_rank world(threads, device);
    f(world, device);
  });
}

// A communicator that the device's work follows: the host tests an operation later.
class followed_rank {
 public:
  static constexpr bool on_device = true;
  struct request {
    guarded_rank::request r;
    bool is_done = false;
  };
  int followed = 0, tested = 0;  // the operations that were followed, and that were tested after that

  explicit followed_rank(guarded_rank& world) : world_(&world) {}
  std::size_t rank() const { return world_->rank(); }
  std::size_t size() const { return world_->size(); }
  request exchange(const void* from, void* to, std::size_t bytes) { return {world_->exchange(from, to, bytes)}; }
  template <class X>
  request reduce_scatter(const X* from, X* to, std::size_t n)
  {
    return {world_->reduce_scatter(from, to, n)};
  }
  request all_gather(void* all, std::size_t bytes) { return {world_->all_gather(all, bytes)}; }
  request sum(std::int64_t* words, std::size_t n) { return {world_->sum(words, n)}; }
  request broadcast(void* bytes, std::size_t n, std::size_t root) { return {world_->broadcast(bytes, n, root)}; }
  void follow(request& r)
  {
    ++followed;
    gradus::detail::wait_for(*world_, r.r, 10s, "a test", "operation");
    r.is_done = true;
  }
  bool test(request& r)
  {
    tested += r.is_done;
    return r.is_done || world_->test(r.r);
  }
  void give_up(const std::string& sentence) { world_->give_up(sentence); }

 private:
  guarded_rank* world_;
};

using small = sharded<gradus::adamw, float, guarded_rank, guarded_device>;

// A small model that all ranks agree on.
template <class Opt>
void add_two(Opt& opt)
{
  opt.add("a", 5000);
  opt.add("b", 100);
  opt.commit();
}
template <class Opt>
void set_gradients(Opt& opt, double to)
{
  set_values(opt, opt.all_gradients(), [to](std::size_t) { return to; });
}

}  // namespace

TEST_CASE("sharded on a device: weights and reports are the plain optimizer's, for every number of ranks")
{
  const step_options clipped{.max_grad_norm = 10};
  compare(gradus::adamw{}, gradus::adamw{.weight_decay = 0});
  compare<double>(gradus::adams{.weight_decay = 0.1}, gradus::adams{.weight_decay = 0}, clipped,
                  {.bucket = small_bucket});
  const auto two_passes = [](double beta2) {
    return gradus::compose(1e-2, gradus::first_moment::ema{}, gradus::second_moment::yogi{.beta2 = beta2},
                           gradus::step_size::adaptive{.eps = 1e-3}, gradus::decay::scheduled{.weight_decay = 0.1});
  };
  compare(two_passes(0.999), two_passes(0.9), {.max_grad_norm = 10, .skip_nonfinite = true}, {.bucket = small_bucket});
}

TEST_CASE("sharded on a device: several sums of second moments, a given mean, and the engine's own reduction")
{
  const gradus::adams first{.weight_decay = 0.1}, second{.beta2 = 0.9, .weight_decay = 0.1};
  compare<double>(first, second, {.skip_nonfinite = true});
  compare<double>(first, second, {.mean_square = 1e-4}, {.reduction = gradus::reduction::engine});
}

TEST_CASE("sharded on a device: 16-bit gradients with masters, remainders, and 8-bit state")
{
  using gradus::bfloat16, gradus::block8, gradus::precision, gradus::remainder16;
  const gradus::adamw first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.01};
  compare<precision<float, float, block8>>(first, second, {}, {.bucket = small_bucket});
  compare<precision<bfloat16, bfloat16, float, float>>(first, second, {.max_grad_norm = 10}, {.bucket = small_bucket});
  compare<precision<bfloat16, bfloat16, bfloat16>>(first, second, {}, {.bucket = small_bucket});
  compare<precision<bfloat16, float, bfloat16, remainder16>>(gradus::adams{.weight_decay = 0.1}, gradus::adams{});
}

TEST_CASE("sharded on a device: sums over tensors that several ranks have, and over the model")
{
  const sharded_options buckets{.bucket = small_bucket};
  compare<double>(gradus::lamb{.lr = 0.01, .weight_decay = 0.1}, gradus::lamb{.lr = 0.02},
                  {.max_grad_norm = 10, .skip_nonfinite = true}, buckets);
  compare<double>(gradus::stable_adamw{.lr = 0.01, .weight_decay = 0.1}, gradus::stable_adamw{.lr = 0.001}, {},
                  buckets);
  compare<double>(own::descent(0.5), own::descent(0.25), {}, buckets);
}

TEST_CASE("sharded on a device: frozen tensors, new hyperparameters and padding are followed")
{
  const gradus::adams first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02, .weight_decay = 0.1};
  const gradus::adams third{.lr = 0.03, .beta2 = 0.99, .weight_decay = 0.1};
  const auto is_padding = [](std::size_t i) { return i % 11 == 3; };
  compare<double>(
      first, second, {.max_grad_norm = 10}, {.bucket = small_bucket},
      [&](auto& opt, int t) {
        if (t == 1)
          for (const std::size_t k : {1u, 4u, 5u, 9u})
            opt.freeze(sharded_name(k));
        if (t == 2)
          opt.set_hyperparameters(third, opt.group_at(1));
        if (t == 3)
          opt.unfreeze(sharded_name(5));
        opt.set_padding(sharded_name(7), is_padding);
      },
      [&](auto& plain, int t) {
        if (t == 1)
          for (const std::size_t k : {1u, 4u, 5u, 9u})
            plain.opt.freeze(plain.handles[k]);
        if (t == 2)
          plain.opt.set_hyperparameters(third, plain.opt.group_at(1));
        if (t == 3)
          plain.opt.unfreeze(plain.handles[5]);
        plain.opt.set_padding(plain.handles[7], is_padding);
      });
}

TEST_CASE("sharded on a device: the order in which gradients are added is the CPU's")
{
  // Sums that are rounded, of which every order has another.
  const auto values = [](std::size_t rank, std::size_t i) { return std::sin(double(i * 12 + rank) * 0.7); };
  for (const auto order : {gradus::reduction::ranks_in_order, gradus::reduction::tree})
    for (const std::size_t ranks : {2u, 5u, 7u}) {
      std::string cpu;
      on_ranks(ranks, [&](thread_rank& world) {
        sharded<gradus::adamw, float, thread_rank> opt(world, {}, {.reduction = order});
        add_two(opt);
        set_values(opt, opt.gradients("a"), [&](std::size_t i) { return values(world.rank(), i); });
        opt.step();
        if (world.rank() == 0)
          cpu.assign(reinterpret_cast<const char*>(opt.parameters("a").data()), opt.parameters("a").size_bytes());
      });
      std::atomic<int> good = 0;
      const auto thrown = on_devices(ranks, [&](guarded_rank& world, const guarded_device& device) {
        small opt(world, {}, {.reduction = order}, device);
        add_two(opt);
        set_values(opt, opt.gradients("a"), [&](std::size_t i) { return values(world.rank(), i); });
        opt.step();
        std::string bytes(5000 * sizeof(float), '\0');
        opt.copy_memory(bytes.data(), opt.parameters("a").data(), bytes.size());
        good += bytes == cpu;
      });
      CHECK(thrown == std::vector<std::string>(ranks));
      CHECK(good == int(ranks));
    }
}

TEST_CASE("sharded on a device: microbatches in a tree give the bits of any number of ranks")
{
  const auto end_of = [](std::size_t ranks, std::size_t each) {
    std::string end;
    const auto thrown = on_devices(ranks, [&](guarded_rank& world, const guarded_device& device) {
      small opt(world, {}, {.bucket = small_bucket, .reduction = gradus::reduction::tree, .microbatches = each},
                device);
      add_two(opt);
      for (int t = 0; t < 3; ++t) {
        for (std::size_t m = 0; m < each; ++m) {
          set_values(opt, opt.gradients("a"),
                     [&](std::size_t i) { return std::sin(double(i * 12 + world.rank() * each + m) * 0.7 + t); });
          opt.accumulate();
        }
        opt.step({.grad_scale = 1.0 / 12, .max_grad_norm = 1});
      }
      if (world.rank() == 0)
        end = bytes_of(opt, opt.parameters("a"));
    });
    CHECK(thrown == std::vector<std::string>(ranks));
    return end;
  };
  const std::string three = end_of(3, 4);
  CHECK((three == end_of(6, 2)));
  CHECK((three == end_of(12, 1)));
  CHECK(three.size() == 20000);
}

TEST_CASE("sharded on a device: the device follows operations, which the host tests before the step returns")
{
  std::string ends[2];
  for (const bool follows : {false, true}) {
    const auto run = [&](auto& world, const guarded_device& device) {
      sharded<gradus::adamw, float, std::remove_reference_t<decltype(world)>, guarded_device> opt(
          world, {}, {.bucket = 2 * gradus::page_size * sizeof(float)}, device);
      opt.add("a", 30000);
      opt.commit();
      for (int t = 0; t < 2; ++t) {
        set_values(opt, opt.gradients("a"), [&](std::size_t i) { return double(i % 7) + double(world.rank()); });
        if (t == 1)
          opt.ready("a");
        opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
        if constexpr (requires { world.followed; }) {
          CHECK(world.followed >= (t + 1) * 2);  // two sums a step, and what buckets were waited for
          CHECK(world.tested == world.followed);
        }
      }
      if (world.rank() == 1)
        ends[follows] = bytes_of(opt, opt.parameters("a"));
    };
    const auto thrown = on_devices(2, [&](guarded_rank& world, const guarded_device& device) {
      followed_rank followed(world);
      follows ? run(followed, device) : run(world, device);
    });
    CHECK(thrown == std::vector<std::string>(2));
  }
  CHECK(ends[0].size() == 120000);
  CHECK((ends[0] == ends[1]));
}

TEST_CASE("sharded on a device: what a rank sends in a step")
{
  for (const std::size_t ranks : {1u, 2u, 4u}) {
    const std::size_t n = 100 * ranks * gradus::page_size + 1;  // a page too many for equal shards
    const auto thrown = on_devices(ranks, [&](guarded_rank& guarded, const guarded_device& device) {
      bench::counted world(guarded);
      sharded<gradus::adams, float, bench::counted<guarded_rank>, guarded_device> opt(world, {.weight_decay = 0.1}, {},
                                                                                      device);
      opt.add("w", n);
      opt.commit();
      opt.step();
      world.sent = {};
      opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
      const double ideal = double(n) * sizeof(float) * double(ranks - 1) / double(ranks);
      for (const std::uint64_t way : {world.sent.gradients, world.sent.parameters}) {
        CHECK(double(way) >= ideal);
        CHECK(double(way) <= 1.01 * ideal);
      }
      CHECK(world.sent.scalars == (ranks > 1 ? 624 + 8 : 0));
      CHECK(world.sent.calls == (ranks > 1 ? 4 : 0));
      CHECK(opt.state_bytes() <= opt.elements_of_rank() * 2 * sizeof(float));
    });
    CHECK(thrown == std::vector<std::string>(ranks));
  }
}

TEST_CASE("sharded on a device: checkpoints are the plain optimizer's, and are gone on with")
{
  using precision = gradus::precision<gradus::bfloat16, float, gradus::bfloat16, gradus::remainder16>;
  const gradus::adamw first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02};
  const folder files("thrust_ranks");
  whole_model<gradus::adamw, precision> plain(first, second);
  for (int t = 0; t < steps; ++t) {
    plain.compute(t);
    plain.opt.step();
    if (t == 1)
      gradus::save(plain.opt, files / "half.0", {.parameters = true});
  }
  std::string from = "half.0";
  for (const std::size_t ranks : {3u, 2u, 1u}) {
    const std::string middle = "half." + std::to_string(ranks);
    const auto thrown = on_devices(ranks, [&](guarded_rank& world, const guarded_device& device) {
      using opt_type = sharded<gradus::adamw, precision, guarded_rank, guarded_device>;
      {
        opt_type opt(world, first, {.bucket = small_bucket}, device);
        add_sharded_model(opt, second);
        for (int t = 0; t < 2; ++t) {
          compute_sharded(opt, world, t);
          opt.step();
        }
        gradus::save(opt, files / middle, {.parameters = true});
      }
      opt_type opt(world, {}, {}, device);
      add_sharded_model(opt, second);
      set_values(opt, opt.parameters(sharded_name(1)), [](std::size_t) { return 0.0; });
      gradus::load(opt, files / from);
      for (int t = 2; t < steps; ++t) {
        compute_sharded(opt, world, t);
        opt.step();
      }
      CHECK((bytes_of_weights(opt) == plain.bytes()));
    });
    CHECK(thrown == std::vector<std::string>(ranks));
    CHECK((content(files / middle) == content(files / "half.0")));
    from = middle;
  }
}

TEST_CASE("sharded on a device: a NaN on one rank skips the step on all, and later steps are as if it had not been")
{
  std::atomic<int> skipped = 0;
  const auto thrown = on_devices(3, [&](guarded_rank& world, const guarded_device& device) {
    small opt(world, {}, {}, device);
    add_two(opt);
    for (int t = 0; t < 3; ++t) {
      set_gradients(opt, 0.5);
      if (t == 1 && world.rank() == 2)
        set_values(opt, opt.gradients("b"), [](std::size_t) { return std::numeric_limits<double>::quiet_NaN(); });
      skipped += !opt.step({.skip_nonfinite = true}).applied;
      CHECK(opt.step_count("b") == std::uint64_t(t == 0 ? 1 : t));
      CHECK(opt.replicas_agree());
    }
    if (world.rank() == 1)
      set_values(opt, opt.parameters("b"), [](std::size_t) { return 7.0; });
    CHECK(!opt.replicas_agree());
    opt.broadcast_parameters(1);
    CHECK(opt.replicas_agree());
    CHECK(bytes_of(opt, opt.parameters("b")) ==
          std::string(reinterpret_cast<const char*>(std::vector<float>(100, 7).data()), 400));
  });
  CHECK(thrown == std::vector<std::string>(3));
  CHECK(skipped == 3);
}

TEST_CASE("sharded on a device: a tensor that is counted elsewhere is not in the norm")
{
  for (const bool is_known : {true, false}) {
    const auto thrown = on_devices(2, [&](guarded_rank& world, const guarded_device& device) {
      sharded<gradus::adams, double, guarded_rank, guarded_device> opt(world, {.weight_decay = 0.1}, {}, device);
      opt.add("a", 5000);
      opt.add("copy", 9000, in_norm::counted_elsewhere);
      opt.commit();
      for (int t = 0; t < 2; ++t) {
        set_values(opt, opt.gradients("a"), [](std::size_t) { return 0.5; });
        set_values(opt, opt.gradients("copy"), [](std::size_t) { return 7.0; });
        if (!is_known)
          opt.recompute_sums();
        const step_report r = opt.step({.max_grad_norm = 1});
        CHECK(*r.grad_norm == doctest::Approx(std::sqrt(5000.0)));
        const double scale = 1 / (*r.grad_norm + 1e-6);
        CHECK(*r.mean_square == doctest::Approx(scale * scale));
      }
      // Where all that counts is 0, squares are summed in a small unit.
      set_values(opt, opt.gradients("a"), [](std::size_t) { return 0.0; });
      set_values(opt, opt.gradients("copy"), [](std::size_t) { return 7.0; });
      const step_report r = opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
      CHECK(r.applied);
      CHECK(*r.grad_norm == 0);
    });
    CHECK(thrown == std::vector<std::string>(2));
  }
}

TEST_CASE("sharded on a device: ranks that disagree in a step get the same error, and nothing changes")
{
  for (const int what : {0, 1, 2, 3, 4, 5}) {
    const auto thrown = on_devices(3, [&](guarded_rank& world, const guarded_device& device) {
      small opt(world, {}, {}, device);
      add_two(opt);
      set_gradients(opt, 1);
      opt.step();
      const std::string before = bytes_of(opt, opt.parameters("a"));
      set_gradients(opt, 1);
      step_options o;
      if (world.rank() == 2) {
        if (what == 0)
          o.lr_scale = 0.5;
        if (what == 1)
          opt.freeze("b");
        if (what == 2)
          opt.set_hyperparameters({.lr = 7});
        if (what == 3)
          o.max_grad_norm = 1;
        if (what == 4)
          o.skip_nonfinite = true;
        if (what == 5)
          opt.set_lr_scale(0.5);
      }
      try {
        opt.step(o);
      } catch (...) {
        CHECK((bytes_of(opt, opt.parameters("a")) == before));
        CHECK(opt.step_count("a") == 1);
        throw;
      }
    });
    for (const auto& t : thrown)
      CHECK(t == "gradus: the ranks disagree in step 2: expected every rank to make the same calls with the same "
                 "options, hyperparameters and frozen tensors; nothing was changed on any rank");
  }
}

TEST_CASE("sharded on a device: an option that one rank refuses ends the step on all, and the next step is taken")
{
  const auto thrown = on_devices(3, [&](guarded_rank& world, const guarded_device& device) {
    small opt(world, {}, {}, device);
    add_two(opt);
    std::string said;
    try {
      opt.step({.lr_scale = world.rank() == 1 ? -1.0 : 1.0});
    } catch (const std::invalid_argument& e) {
      said = e.what();
    }
    CHECK(said.starts_with(world.rank() == 1 ? "gradus: lr_scale is -1; expected"
                                             : "gradus: step 1 failed on rank 1, whose error"));
    CHECK(opt.step().applied);
    CHECK(opt.step_count("a") == 1);
  });
  CHECK(thrown == std::vector<std::string>(3));
}

TEST_CASE("sharded on a device: the sums of second moments survive a step that was refused")
{
  for (const bool refuses : {true, false}) {
    const auto thrown = on_devices(2, [&](guarded_rank& world, const guarded_device& device) {
      sharded<gradus::adams, float, guarded_rank, guarded_device> opt(world, {.weight_decay = 0.1}, {}, device);
      add_two(opt);
      set_gradients(opt, 1);
      opt.step();
      opt.recompute_sums();
      set_gradients(opt, 1);
      step_options odd;
      if (world.rank() == 1 && refuses)
        odd.lr_scale = -1;
      else if (world.rank() == 1)
        odd.max_grad_norm = 1;
      CHECK_THROWS_AS(opt.step(odd), std::invalid_argument);
      for (int t = 0; t < 2; ++t) {
        set_gradients(opt, 1);
        CHECK(opt.step().mean_square == doctest::Approx(4));  // the ranks' gradients are added
      }
    });
    CHECK(thrown == std::vector<std::string>(2));
  }
}

TEST_CASE("sharded on a device: what one rank alone wanted to look for is forgotten")
{
  const auto thrown = on_devices(2, [&](guarded_rank& world, const guarded_device& device) {
    small opt(world, {}, {}, device);
    add_two(opt);
    const step_options looks{.grad_norm_sq = std::numeric_limits<double>::infinity(), .skip_nonfinite = true};
    set_gradients(opt, std::numeric_limits<double>::quiet_NaN());
    CHECK_THROWS_AS(opt.step(world.rank() == 0 ? looks : step_options{}), std::invalid_argument);
    set_gradients(opt, 1);
    CHECK(opt.step(looks).applied);
  });
  CHECK(thrown == std::vector<std::string>(2));
}

TEST_CASE("sharded on a device: ranks without parts of several cut tensors")
{
  const auto thrown = on_devices(20, [&](guarded_rank& world, const guarded_device& device) {
    sharded<gradus::lamb, float, guarded_rank, guarded_device> opt(world, {.lr = 0.01}, {}, device);
    for (int k = 0; k < 6; ++k)
      opt.add("", 8192);
    opt.commit();
    for (int t = 0; t < 2; ++t) {
      set_gradients(opt, 1);
      opt.step();
    }
    CHECK(opt.replicas_agree());
  });
  CHECK(thrown == std::vector<std::string>(20));
}

TEST_CASE("sharded on a device: a rank that is missing is noticed after the timeout")
{
  const auto thrown = on_devices(3, [&](guarded_rank& world, const guarded_device& device) {
    small opt(world, {}, {.timeout = 300ms}, device);
    add_two(opt);
    opt.step();
    if (world.rank() == 1)
      throw std::runtime_error("left");
    opt.step();
  });
  CHECK(thrown[1] == "left");
  for (const std::size_t r : {0u, 2u})
    CHECK(thrown[r].starts_with("rank " + std::to_string(r) + " of 3 waited 300 ms in step 2 for the others"));
}

TEST_CASE("sharded on a device: what is not there is refused when it is given")
{
  const auto thrown = on_devices(1, [&](guarded_rank& world, const guarded_device& device) {
    small opt(world, {}, {}, device);
    const std::vector<bool> three(3, true);
    opt.add("a", 3, gradus::trained_mask(three));
  });
  CHECK(thrown[0] == "gradus: the mask of tensor \"a\" is given; expected none on a device: set the gradients of the "
                     "other elements to 0, or choose a CPU backend");
}
