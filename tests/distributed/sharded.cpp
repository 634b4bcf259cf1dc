// A sharded optimizer beside the plain one, with threads in place of processes. tests/comm runs it over MPI.

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "../bench/counted.hpp"

#include "support/own_rules.hpp"
#include "support/sharded_model.hpp"

namespace {

using namespace std::chrono_literals;
using namespace support;
using gradus::in_norm, gradus::sharded, gradus::sharded_options, gradus::step_options, gradus::step_report;

constexpr int steps = 4;
constexpr std::size_t small_bucket = 8 * gradus::page_size * sizeof(float);

// Takes steps with several numbers of ranks, and compares weights and reports with the plain optimizer's.
// \param change(opt, t)     before step t; the plain optimizer is changed by plain_change
template <class T, class Recipe, class Change, class PlainChange>
void compare(const Recipe& first, const Recipe& second, const step_options& o, const sharded_options& exchange,
             const Change& change, const PlainChange& plain_change, bool has_masks = false)
{
  const plain_run<Recipe, T> plain(first, second, o, steps, plain_change, has_masks);
  for (const std::size_t ranks : {1u, 2u, 3u, 5u}) {
    std::atomic<int> good = 0;
    const auto thrown = on_ranks(ranks, [&](thread_rank& world) {
      sharded<Recipe, T, thread_rank> opt(world, first, exchange);
      add_sharded_model(opt, second, has_masks);
      good += plain.steps_as_plain(opt, world, change);
    });
    for (const auto& t : thrown)
      CHECK(t == "");
    CHECK(good == steps * int(ranks));
  }
}
template <class T = float, class Recipe>
void compare(const Recipe& first, const Recipe& second, const step_options& o = {},
             const sharded_options& exchange = {}, bool has_masks = false)
{
  compare<T>(first, second, o, exchange, [](auto&, int) {}, [](auto&, int) {}, has_masks);
}

using small = sharded<gradus::adamw, float, thread_rank>;

// A small model that all ranks agree on.
void add_two(small& opt)
{
  opt.add("a", 5000);
  opt.add("b", 100);
}

}  // namespace

TEST_CASE("sharded: weights and reports are the plain optimizer's, for every number of ranks")
{
  const step_options clipped{.max_grad_norm = 10};
  compare(gradus::adamw{}, gradus::adamw{.weight_decay = 0});
  compare<double>(gradus::adamw{}, gradus::adamw{.weight_decay = 0}, clipped, {.bucket = small_bucket});
  compare<double>(gradus::adams{.weight_decay = 0.1}, gradus::adams{.weight_decay = 0}, clipped,
                  {.bucket = small_bucket});
  compare(gradus::sgd{.lr = 0.1}, gradus::sgd{.lr = 0.01, .momentum = 0.9}, clipped);
  const auto two_passes = [](double beta2) {
    return gradus::compose(1e-2, gradus::first_moment::ema{}, gradus::second_moment::yogi{.beta2 = beta2},
                           gradus::step_size::adaptive{.eps = 1e-3}, gradus::decay::scheduled{.weight_decay = 0.1});
  };
  compare<double>(two_passes(0.999), two_passes(0.9), clipped, {.bucket = small_bucket});
}

TEST_CASE("sharded: several sums of second moments, and the engine's own reduction")
{
  compare<double>(gradus::adams{.weight_decay = 0.1}, gradus::adams{.beta2 = 0.9, .weight_decay = 0.1});
  compare(gradus::adams{.weight_decay = 0.1}, gradus::adams{}, {.mean_square = 1e-4},
          {.reduction = gradus::reduction::engine});
}

TEST_CASE("sharded: every precision")
{
  using gradus::bfloat16, gradus::block8, gradus::float16, gradus::precision, gradus::remainder16;
  const gradus::adamw first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.01};
  compare<precision<float, float, block8>>(first, second, {}, {.bucket = small_bucket});
  compare<precision<bfloat16>>(first, second, {.max_grad_norm = 10});
  compare<precision<bfloat16, bfloat16, float, float>>(first, second, {}, {.bucket = small_bucket});
  compare<precision<bfloat16, float, bfloat16, remainder16>>(gradus::adams{.weight_decay = 0.1}, gradus::adams{});
  compare<precision<float16, float16, float, float>>(first, second, {}, {.bucket = small_bucket});
}

TEST_CASE("sharded: frozen tensors, new hyperparameters and the seed are followed")
{
  const gradus::adams first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02, .weight_decay = 0.1};
  const auto freeze_here = [](int t, const auto& freeze, const auto& unfreeze, const auto& set) {
    if (t == 1)
      for (const std::size_t k : {1u, 4u, 5u, 9u})
        freeze(k);
    if (t == 2)
      set();
    if (t == 3)
      unfreeze(5u);
  };
  const auto change = [&](auto& opt, int t) {
    freeze_here(
        t, [&](std::size_t k) { opt.freeze(sharded_name(k)); }, [&](std::size_t k) { opt.unfreeze(sharded_name(k)); },
        [&] { opt.set_hyperparameters({.lr = 0.03, .beta2 = 0.99, .weight_decay = 0.1}, opt.group_at(1)); });
  };
  const auto plain_change = [&](auto& plain, int t) {
    freeze_here(
        t, [&](std::size_t k) { plain.opt.freeze(plain.handles[k]); },
        [&](std::size_t k) { plain.opt.unfreeze(plain.handles[k]); },
        [&] {
          plain.opt.set_hyperparameters({.lr = 0.03, .beta2 = 0.99, .weight_decay = 0.1}, plain.opt.group_at(1));
        });
  };
  compare<double>(first, second, {.max_grad_norm = 10}, {.bucket = small_bucket}, change, plain_change);
  compare<gradus::precision<float, float, gradus::bfloat16>>(
      first, second, {}, {}, [](auto& opt, int t) { opt.set_seed(std::uint64_t(t)); },
      [](auto& plain, int t) { plain.opt.set_seed(std::uint64_t(t)); });
}

TEST_CASE("sharded: sums over tensors that several ranks have, and over the model")
{
  using gradus::bfloat16, gradus::block8, gradus::precision;
  const step_options clipped{.max_grad_norm = 10, .skip_nonfinite = true};
  const sharded_options buckets{.bucket = small_bucket};
  const gradus::lamb first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02};
  compare<double>(first, second, clipped, buckets);
  compare<float>(first, second);
  compare<double>(first, second, {}, {}, true);
  compare<precision<bfloat16, float, block8, float>>(first, second, {}, buckets);
  const gradus::stable_adamw stable{.lr = 0.01, .weight_decay = 0.1}, slower{.lr = 0.001};
  compare<double>(stable, slower, clipped, buckets, true);
  compare<float>(gradus::cautious_adamw{.lr = 0.01}, gradus::cautious_adamw{.lr = 0.001}, {}, buckets);
  compare<double>(own::descent(0.5), own::descent(0.25), {}, buckets);
  compare<double>(own::descent(0.5), own::descent(0.25), {}, {}, true);
  compare<double>(
      first, second, {}, buckets,
      [](auto& opt, int t) { t % 2 ? opt.freeze(sharded_name(5)) : opt.unfreeze(sharded_name(5)); },
      [](auto& plain, int t) { t % 2 ? plain.opt.freeze(plain.handles[5]) : plain.opt.unfreeze(plain.handles[5]); });
}

TEST_CASE("sharded: what sums over tensors cost, and a refused step between others")
{
  const auto thrown = on_ranks(3, [&](thread_rank& threads) {
    bench::counted world(threads);
    sharded<gradus::lamb, double, bench::counted<thread_rank>> opt(world, {});
    opt.add("cut", 9 * gradus::page_size);
    opt.add("whole", 100);
    opt.commit();
    for (double& x : opt.parameters("cut"))
      x = 1;
    for (int t = 0; t < 3; ++t) {
      for (double& g : opt.all_gradients())
        g = 0.5;
      if (t == 1) {
        CHECK_THROWS_AS(opt.step({.lr_scale = world.rank() == 1 ? -1.0 : 1.0}), std::invalid_argument);
        continue;
      }
      world.sent = {};
      CHECK(opt.step({.max_grad_norm = 1}).applied);
      CHECK(opt.step_count("whole") == std::uint64_t(t == 0 ? 1 : 2));
      // Two terms and a count of one tensor, beside the usual scalars.
      CHECK(world.sent.scalars == 616 + 3 * 568 + 48);
      CHECK(world.sent.calls == 4);
    }
  });
  CHECK(thrown == std::vector<std::string>(3));
}

TEST_CASE("sharded: elements that are not trained, and padding")
{
  using gradus::bfloat16, gradus::precision, gradus::remainder16;
  const gradus::adams first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02, .weight_decay = 0.1};
  const step_options clipped{.max_grad_norm = 10, .skip_nonfinite = true};
  compare<double>(first, second, clipped, {.bucket = small_bucket}, true);
  compare<precision<bfloat16, float, bfloat16, remainder16>>(first, second, {}, {}, true);
  // Padding, also of a tensor that has taken steps.
  const auto is_padding = [](std::size_t i) { return i % 11 == 3; };
  const auto when = [](int t) { return t == 0 ? 1u : t == 2 ? 5u : 7u; };
  compare<double>(
      first, second, clipped, {}, [&](auto& opt, int t) { opt.set_padding(sharded_name(when(t)), is_padding); },
      [&](auto& plain, int t) { plain.opt.set_padding(plain.handles[when(t)], is_padding); });
}

TEST_CASE("sharded: masks that differ, or do not fit")
{
  for (const int what : {0, 1, 2}) {
    const auto thrown = on_ranks(2, [&](thread_rank& world) {
      small opt(world, {});
      const bool odd = world.rank() == 1;
      const auto is_trained = [&](std::size_t i) { return i > 5 || (odd && what == 0); };
      if (odd && what == 1)
        opt.add("a", 5000);
      else
        opt.add("a", 5000, gradus::trained_mask(is_trained));
      opt.add("b", 100);
      opt.commit();
      if (what == 2 && odd)
        opt.set_padding("b", [](std::size_t i) { return i > 5; });
      opt.step();
    });
    for (const auto& t : thrown)
      CHECK(t.starts_with(what == 2 ? "gradus: the ranks disagree in step 1"
                                    : "gradus: the ranks have the same tensors in commit(), and different "
                                      "hyperparameters, options, masks or frozen tensors"));
  }
  thread_group group(1);
  thread_rank world(group, 0);
  const auto refused = [](const std::string& expected, const auto& f) {
    CHECK_THROWS_WITH_AS(f(), ("gradus: " + expected).c_str(), std::invalid_argument);
  };
  small opt(world, {});
  const std::vector<bool> three(3, true);
  refused("size of the mask of tensor \"a\" is 3; expected 5, the size of its parameters",
          [&] { opt.add("a", 5, gradus::trained_mask(three)); });
  CHECK(opt.add("a", 3, gradus::trained_mask(three)) == "a");
  opt.add("b", 5);
  refused("commit() was not called; expected it after the last add()", [&] { opt.set_padding("b", three); });
  opt.commit();
  refused("size of the padding mask of tensor \"b\" is 3; expected 5, the size of its parameters",
          [&] { opt.set_padding("b", three); });
  refused("tensor \"a\" has a mask of trained elements; expected none with set_padding: let the mask leave out padding",
          [&] { opt.set_padding("a", three); });
  sharded<gradus::adamw, gradus::precision<float, float, gradus::block8>, thread_rank> codes(world, {});
  refused("the mask of tensor \"a\" is given; expected none with 8-bit state, because a block is encoded as a whole; "
          "choose a precision with another state",
          [&] { codes.add("a", 3, gradus::trained_mask(three)); });
}

TEST_CASE("sharded: a NaN on one rank skips the step on all, and later steps are as if it had not been")
{
  for (const std::size_t bad : {0u, 2u}) {
    std::atomic<int> skipped = 0;
    const auto thrown = on_ranks(3, [&](thread_rank& world) {
      small opt(world, {});
      add_two(opt);
      opt.commit();
      for (float& x : opt.parameters("a"))
        x = 1;
      for (int t = 0; t < 3; ++t) {
        for (float& g : opt.all_gradients())
          g = 0.5f;
        if (t == 1 && world.rank() == bad)
          opt.gradients("b")[99] = std::numeric_limits<float>::quiet_NaN();
        skipped += !opt.step({.skip_nonfinite = true}).applied;
        CHECK(opt.step_count("b") == std::uint64_t(t == 0 ? 1 : t));
        CHECK(opt.replicas_agree());
      }
    });
    CHECK(thrown == std::vector<std::string>(3));
    CHECK(skipped == 3);
  }
}

TEST_CASE("sharded: a tensor that is counted elsewhere is not in the norm")
{
  const auto thrown = on_ranks(2, [&](thread_rank& world) {
    sharded<gradus::adams, double, thread_rank> opt(world, {.weight_decay = 0.1});
    opt.add("a", 5000);
    opt.add("copy", 9000, in_norm::counted_elsewhere);
    opt.commit();
    for (double& g : opt.gradients("a"))
      g = 0.5;
    for (double& g : opt.gradients("copy"))
      g = 7;
    const step_report r = opt.step({.max_grad_norm = 1});
    CHECK(*r.grad_norm == doctest::Approx(std::sqrt(5000.0)));
    const double scale = 1 / (*r.grad_norm + 1e-6);
    CHECK(*r.mean_square == doctest::Approx(scale * scale));
    CHECK(opt.parameters("copy")[8999] != 0);
  });
  CHECK(thrown == std::vector<std::string>(2));
}

TEST_CASE("sharded: microbatches in a tree give the bits of one rank")
{
  const auto end_of = [](std::size_t ranks, std::size_t each) {
    std::string end;
    const auto thrown = on_ranks(ranks, [&](thread_rank& world) {
      small opt(world, {}, {.bucket = small_bucket, .reduction = gradus::reduction::tree, .microbatches = each});
      add_two(opt);
      opt.commit();
      for (int t = 0; t < 3; ++t) {
        for (std::size_t m = 0; m < each; ++m) {
          for (std::size_t i = 0; i < 5000; ++i)
            opt.gradients("a")[i] += float(std::sin(double(i * 12 + world.rank() * each + m) * 0.7 + t));
          opt.accumulate();
        }
        opt.step({.grad_scale = 1.0 / 12, .max_grad_norm = 1});
      }
      if (world.rank() == 0)
        end.assign(reinterpret_cast<const char*>(opt.parameters("a").data()), opt.parameters("a").size_bytes());
    });
    CHECK(thrown == std::vector<std::string>(ranks));
    return end;
  };
  // Twelve microbatches: each rank has 4, 2 or 1 of them.
  const std::string three = end_of(3, 4);
  CHECK((three == end_of(6, 2)));
  CHECK((three == end_of(12, 1)));
  CHECK(three.size() == 20000);
}

TEST_CASE("sharded: the bytes that a rank sends in a step, in three collectives")
{
  for (const std::size_t ranks : {1u, 2u, 4u, 8u}) {
    const std::size_t n = 100 * ranks * gradus::page_size + 1;  // a page too many for equal shards
    const auto thrown = on_ranks(ranks, [&](thread_rank& threads) {
      bench::counted world(threads);
      sharded<gradus::adams, float, bench::counted<thread_rank>> opt(world, {.weight_decay = 0.1});
      opt.add("w", n);
      opt.commit();
      opt.step();  // also adds up the sums of moments
      world.sent = {};
      opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
      const double ideal = double(n) * sizeof(float) * double(ranks - 1) / double(ranks);
      for (const std::uint64_t way : {world.sent.gradients, world.sent.parameters}) {
        CHECK(double(way) >= ideal);
        CHECK(double(way) <= 1.01 * ideal);
      }
      CHECK(world.sent.scalars == (ranks > 1 ? 616 : 0));
      CHECK(world.sent.calls == (ranks > 1 ? 3 : 0));
    });
    CHECK(thrown == std::vector<std::string>(ranks));
  }
}

TEST_CASE("sharded: the scalars of a step are at most 700 bytes for each cohort, and one call")
{
  for (const std::size_t groups : {1u, 2u, 5u}) {
    const auto thrown = on_ranks(2, [&](thread_rank& threads) {
      bench::counted world(threads);
      sharded<gradus::adams, float, bench::counted<thread_rank>> opt(world, {.weight_decay = 0.1});
      opt.add("w0", 5000);
      for (std::size_t k = 1; k < groups; ++k)
        opt.add("w" + std::to_string(k), 5000, opt.add_group({.beta2 = 0.9 + 0.01 * double(k), .weight_decay = 0.1}));
      opt.commit();
      opt.step();
      world.sent = {};
      opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
      CHECK(world.sent.scalars <= 700 * groups);
      CHECK(world.sent.calls == 3);
    });
    CHECK(thrown == std::vector<std::string>(2));
  }
}

TEST_CASE("sharded: a rank's memory is its share, or a page more")
{
  for (const std::size_t ranks : {1u, 2u, 4u, 8u})
    for (const std::size_t more : {0u, 7u}) {
      const std::size_t n = 32 * ranks * gradus::page_size + more;
      std::atomic<std::size_t> state = 0;
      const auto thrown = on_ranks(ranks, [&](thread_rank& world) {
        small opt(world, {});
        opt.add("a", 5 * gradus::page_size);
        opt.add("b", n - 5 * gradus::page_size);
        opt.commit();
        CHECK(opt.elements_of_rank() == (more > 0 ? 33 : 32) * gradus::page_size);
        CHECK(opt.state_bytes() <= opt.elements_of_rank() * 2 * sizeof(float));
        state += opt.state_bytes();
      });
      CHECK(thrown == std::vector<std::string>(ranks));
      CHECK(state == n * 2 * sizeof(float));
    }
}

TEST_CASE("sharded: a rank that alone has another number of sums gets the same error as the others")
{
  const gradus::adams usual{.weight_decay = 0.1}, other{.beta2 = 0.9, .weight_decay = 0.1};
  for (const bool alone : {true, false}) {
    const auto thrown = on_ranks(2, [&](thread_rank& world) {
      sharded<gradus::adams, float, thread_rank> opt(world, usual);
      const auto group = opt.add_group(usual);
      opt.add("a", 9000);
      opt.add("b", 100, group);
      opt.commit();
      opt.step();
      if (!alone || world.rank() == 1)
        opt.set_hyperparameters(other, group);
      opt.step();
      opt.step();
      CHECK(opt.step_count("b") == 3);
    });
    for (const auto& t : thrown)
      CHECK(t.starts_with(alone ? "gradus: the ranks disagree in step 2: " : ""));
    CHECK(thrown[0].empty() != alone);
  }
}

TEST_CASE("sharded: ranks that disagree get the same error, and nothing changes")
{
  const auto fails = [](const std::string& expected, const auto& f) {
    const auto thrown = on_ranks(3, f);
    for (const auto& t : thrown)
      CHECK(t == "gradus: " + expected);
  };
  const auto odd = [](const thread_rank& world) { return world.rank() == 2; };
  fails("the ranks' lists differ in commit(): tensor 1 is \"b\" of 100 elements on rank 0, and another, or in another "
        "group, on rank 2; expected every rank to add the same tensors in the same order",
        [&](thread_rank& world) {
          small opt(world, {});
          opt.add("a", 5000);
          opt.add("b", odd(world) ? 101u : 100u);
          opt.commit();
        });
  fails("the ranks' lists differ in commit(): tensor 2 is missing on rank 0, and another, or in another group, on rank "
        "2; expected every rank to add the same tensors in the same order",
        [&](thread_rank& world) {
          small opt(world, {});
          add_two(opt);
          if (odd(world))
            opt.add("c", 3);
          opt.commit();
        });
  fails("the ranks have the same tensors in commit(), and different hyperparameters, options, masks or frozen tensors; "
        "expected the same on every rank",
        [&](thread_rank& world) {
          small opt(world, {.lr = odd(world) ? 0.1 : 0.2});
          add_two(opt);
          opt.commit();
        });
  fails("commit() has no tensors on 1 ranks; expected at least one add() before it on every rank",
        [&](thread_rank& world) {
          small opt(world, {});
          if (!odd(world))
            add_two(opt);
          opt.commit();
        });
  for (const int what : {0, 1, 2, 3, 4, 5, 6, 7})
    fails("the ranks disagree in step 2: expected every rank to make the same calls with the same options, "
          "hyperparameters and frozen tensors; nothing was changed on any rank",
          [&](thread_rank& world) {
            small opt(world, {});
            add_two(opt);
            opt.commit();
            opt.step();
            const std::vector<float> before(opt.parameters("a").begin(), opt.parameters("a").end());
            for (float& g : opt.all_gradients())
              g = 1;
            if (odd(world) && what == 1)
              opt.freeze("b");
            if (odd(world) && what == 2)
              opt.set_hyperparameters({.lr = 7});
            step_options o;
            if (odd(world) && what == 0)
              o.lr_scale = 0.5;
            if (odd(world) && what == 3)
              o.max_grad_norm = 1;
            if (odd(world) && what == 4)
              o.lr = 0.1;
            if (odd(world) && what == 5)
              o.decay_scale = 0.5;
            if (odd(world) && what == 6)
              o.maximize = true;
            if (odd(world) && what == 7)
              opt.set_lr_scale(0.5);
            try {
              opt.step(o);
            } catch (...) {
              CHECK(std::vector<float>(opt.parameters("a").begin(), opt.parameters("a").end()) == before);
              CHECK(opt.step_count("a") == 1);
              throw;
            }
          });
}

TEST_CASE("sharded: an option that one rank refuses ends the step on all, and the next step is taken")
{
  const auto thrown = on_ranks(3, [&](thread_rank& world) {
    small opt(world, {});
    add_two(opt);
    opt.commit();
    std::string said;
    try {
      opt.step({.lr_scale = world.rank() == 1 ? -1.0 : 1.0});
    } catch (const std::invalid_argument& e) {
      said = e.what();
    }
    CHECK(said.starts_with(world.rank() == 1 ? "gradus: lr_scale is -1; expected"
                                             : "gradus: step 1 failed on rank 1, whose error"));
    CHECK(opt.step().applied);
  });
  CHECK(thrown == std::vector<std::string>(3));
}

TEST_CASE("sharded: a rank that is missing is noticed after the timeout")
{
  const auto thrown = on_ranks(3, [&](thread_rank& world) {
    small opt(world, {}, {.timeout = 300ms});
    add_two(opt);
    opt.commit();
    opt.step();
    if (world.rank() == 1)
      throw std::runtime_error("left");
    opt.step();
  });
  CHECK(thrown[1] == "left");
  for (const std::size_t r : {0u, 2u})
    CHECK(thrown[r] ==
          "rank " + std::to_string(r) +
              " of 3 waited 300 ms in step 2 for the others (exchange of the gradients); expected every rank to "
              "call it: one has left, has failed, stands still, or called something else");
}

TEST_CASE("sharded: replicas that differ are noticed, and a broadcast makes them equal")
{
  const auto thrown = on_ranks(3, [&](thread_rank& world) {
    small opt(world, {});
    add_two(opt);
    opt.commit();
    CHECK(opt.replicas_agree());
    opt.parameters("b")[99] = float(world.rank() == 1);
    CHECK(!opt.replicas_agree());
    opt.broadcast_parameters(1);
    CHECK(opt.replicas_agree());
    CHECK(opt.parameters("b")[99] == 1);
  });
  CHECK(thrown == std::vector<std::string>(3));
}

TEST_CASE("sharded: calls that make no sense are refused, and name the argument")
{
  thread_group group(1);
  thread_rank world(group, 0);
  const auto refused = [](const std::string& expected, const auto& f) {
    CHECK_THROWS_WITH_AS(f(), ("gradus: " + expected).c_str(), std::invalid_argument);
  };
  refused("timeout is 0 ms; expected more than 0", [&] { small(world, {}, {.timeout = 0ms}); });
  refused("microbatches is 0; expected at least 1", [&] { small(world, {}, {.microbatches = 0}); });
  refused(
      "reduction is engine, and the gradients have 16 bits, which communicators cannot add; expected ranks_in_order "
      "or tree, which add in float",
      [&] {
        sharded<gradus::adamw, gradus::precision<gradus::bfloat16>, thread_rank>(
            world, {}, {.reduction = gradus::reduction::engine});
      });
  refused("microbatches is 2, and the gradients have 16 bits; expected 1, because sums of microbatches need float: add "
          "them in arrays of your own",
          [&] {
            sharded<gradus::adamw, gradus::precision<gradus::bfloat16>, thread_rank>(world, {}, {.microbatches = 2});
          });
  small opt(world, {});
  refused("commit() has no tensors; expected at least one add() before it", [&] { opt.commit(); });
  CHECK(opt.add("", 5) == "tensor0");
  CHECK(opt.add("tensor1", 5) == "tensor1");
  CHECK(opt.add("", 5) == "tensor2");
  refused("name is \"tensor1\", which another tensor has; expected a name of its own", [&] { opt.add("tensor1", 3); });
  refused("name of a tensor has a zero byte; expected none", [&] { opt.add(std::string("a\0b", 3), 3); });
  refused("commit() was not called; expected it after the last add()", [&] { opt.step(); });
  refused("commit() was not called; expected it after the last add()", [&] { opt.parameters("tensor1"); });
  opt.commit();
  refused("commit() was called twice; expected one call", [&] { opt.commit(); });
  refused("tensor \"late\" is added after commit(); expected all tensors before it", [&] { opt.add("late", 5); });
  refused("name is \"tensor9\"; expected the name of a tensor of this optimizer", [&] { opt.gradients("tensor9"); });
  opt.ready("tensor1");
  refused("ready(\"tensor1\") is called twice; expected once before each step", [&] { opt.ready("tensor1"); });
  refused("model_size is 15; expected none, because a sharded optimizer has the whole model",
          [&] { opt.step({.model_size = 15}); });
  opt.step();
  CHECK_NOTHROW(opt.ready("tensor1"));
  refused("accumulate() is called 2 times; expected 1, the microbatches of a step", [&] {
    opt.accumulate();
    opt.accumulate();
  });
  refused("root is 1; expected a rank below 1", [&] { opt.broadcast_parameters(1); });
}
