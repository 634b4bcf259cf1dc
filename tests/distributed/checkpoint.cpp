// Checkpoints of a sharded optimizer are the plain optimizer's files.

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/folder.hpp"
#include "support/sharded_model.hpp"

namespace {

using namespace std::chrono_literals;
using namespace support;
using gradus::sharded;

constexpr int steps = 4, half = 2;
constexpr std::size_t small_bucket = 8 * gradus::page_size * sizeof(float);

// Saves a run half-way with several numbers of ranks, and goes on with others and with the plain optimizer.
template <class T, class Recipe>
void resume(const Recipe& first, const Recipe& second, const gradus::step_options& o = {}, bool has_masks = false)
{
  const folder files("sharded");
  whole_model<Recipe, T> plain(first, second, has_masks);
  for (int t = 0; t < steps; ++t) {
    plain.compute(t);
    plain.opt.step(o);
    if (t + 1 == half)
      gradus::save(plain.opt, files / "half.0", {.parameters = true, .metadata = {{"epoch", "3"}}});
  }
  gradus::save(plain.opt, files / "end.0", {.parameters = true});
  // 0 is the plain optimizer.
  std::string from = "0";
  for (const std::size_t ranks : {3u, 2u, 5u, 1u}) {
    const std::string mine = std::to_string(ranks);
    const auto thrown = on_ranks(ranks, [&](thread_rank& world) {
      {
        sharded<Recipe, T, thread_rank> opt(world, first, {.bucket = small_bucket});
        add_sharded_model(opt, second, has_masks);
        for (int t = 0; t < half; ++t) {
          compute_sharded(opt, world, t);
          opt.step(o);
        }
        gradus::save(opt, files / ("half." + mine), {.parameters = true, .metadata = {{"epoch", "3"}}});
      }
      Recipe other = first;
      other.lr *= 10;  // which the file replaces
      sharded<Recipe, T, thread_rank> opt(world, other);
      add_sharded_model(opt, second, has_masks);
      for (auto& p : opt.parameters(sharded_name(1)))
        p = {};
      const auto report = gradus::load(opt, files / ("half." + from));
      CHECK(report.metadata.at("epoch") == "3");
      CHECK(opt.replicas_agree());
      for (int t = half; t < steps; ++t) {
        compute_sharded(opt, world, t);
        opt.step(o);
      }
      gradus::save(opt, files / ("end." + mine), {.parameters = true});
    });
    CHECK(thrown == std::vector<std::string>(ranks));
    CHECK(content(files / ("half." + mine)) == content(files / "half.0"));
    CHECK(content(files / ("end." + mine)) == content(files / "end.0"));
    from = mine;
    whole_model<Recipe, T> resumed(first, second, has_masks);
    gradus::load(resumed.opt, files / ("half." + mine));
    for (int t = half; t < steps; ++t) {
      resumed.compute(t);
      resumed.opt.step(o);
    }
    CHECK(resumed.bytes() == plain.bytes());
  }
  CHECK(files.files() == 10);  // nothing partial is left
}

using small = sharded<gradus::adams, float, thread_rank>;

void add_two(small& opt)
{
  opt.add("a", 9000);
  opt.add("b", 100);
  opt.commit();
}

}  // namespace

TEST_CASE("save, load: any number of ranks writes and goes on with the plain optimizer's file")
{
  using gradus::bfloat16, gradus::block8, gradus::precision, gradus::remainder16;
  resume<double>(gradus::adams{.lr = 0.01, .weight_decay = 0.1}, gradus::adams{.lr = 0.02, .weight_decay = 0.1},
                 {.max_grad_norm = 10});
  resume<float>(gradus::nadam{.lr = 0.01}, gradus::nadam{.lr = 0.02});
  const gradus::adamw first{.lr = 0.01, .weight_decay = 0.1}, second{.lr = 0.02};
  resume<precision<bfloat16, float, block8, float>>(first, second);
  resume<precision<bfloat16, float, bfloat16, remainder16>>(first, second);
  // Masks are state, too.
  resume<precision<bfloat16, float, bfloat16, remainder16>>(first, second, {}, true);
  resume<double>(gradus::adams{.lr = 0.01, .weight_decay = 0.1}, gradus::adams{.lr = 0.02, .weight_decay = 0.1}, {},
                 true);
}

TEST_CASE("load: frozen tensors are frozen again, on all ranks")
{
  const folder files("sharded_frozen");
  const auto thrown = on_ranks(3, [&](thread_rank& world) {
    small opt(world, {.weight_decay = 0.1}), other(world, {.weight_decay = 0.1});
    add_two(opt);
    add_two(other);
    opt.step();
    opt.freeze("a");
    gradus::save(opt, files / "a");
    gradus::load(other, files / "a");
    for (float& g : other.all_gradients())
      g = 1;
    other.step();
    CHECK(other.step_count("a") == 1);
    CHECK(other.step_count("b") == 2);
    CHECK(other.parameters("a")[8999] == 0);
    CHECK(other.parameters("b")[99] != 0);
  });
  CHECK(thrown == std::vector<std::string>(3));
}

TEST_CASE("save: what fails on one rank fails on all, and an old file stays")
{
  const folder files("sharded_failures");
  const auto thrown = on_ranks(3, [&](thread_rank& world) {
    small opt(world, {});
    add_two(opt);
    gradus::save(opt, files / "a");
    opt.step();
    const auto fails = [&](const std::string& text, const auto& f) {
      std::string said;
      try {
        f();
      } catch (const std::invalid_argument& e) {
        said = e.what();
      }
      CHECK_MESSAGE(said.find(text) != said.npos, said);
    };
    fails(world.rank() == 0 ? "no/such/folder" : "save() failed on rank 0",
          [&] { gradus::save(opt, files / "no/such/folder"); });
    fails("the ranks disagree in save()", [&] { gradus::save(opt, files / (world.rank() == 1 ? "b" : "c")); });
    fails("the ranks disagree in save()", [&] { gradus::save(opt, files / "b", {.parameters = world.rank() == 1}); });
    fails(world.rank() == 2 ? "a file that can be read" : "load() failed on rank 2",
          [&] { gradus::load(opt, world.rank() == 2 ? files / "missing" : files / "a"); });
    CHECK(opt.step_count("a") == 1);
    gradus::load(opt, files / "a");
    CHECK(opt.step_count("a") == 0);
  });
  CHECK(thrown == std::vector<std::string>(3));
  CHECK(files.files() == 1);
}

TEST_CASE("load: a file that does not fit is refused on all ranks before anything changes")
{
  const folder files("sharded_misfits");
  const auto thrown = on_ranks(2, [&](thread_rank& world) {
    small opt(world, {.weight_decay = 0.1}), other(world, {.weight_decay = 0.1});
    add_two(opt);
    other.add("a", 9000);
    other.commit();
    opt.step();
    other.step();
    other.step();
    gradus::save(opt, files / "a", {.parameters = true});
    std::string said;
    try {
      gradus::load(other, files / "a");
    } catch (const std::invalid_argument& e) {
      said = e.what();
    }
    CHECK_MESSAGE(said.find("and this optimizer differ in") != said.npos, said);
    CHECK(other.step_count("a") == 2);
    const auto report = gradus::load(other, files / "a", {.lenient = true});
    CHECK(!report.differences.empty());
    CHECK(other.step_count("a") == 1);
    other.step();
  });
  CHECK(thrown == std::vector<std::string>(2));
}
