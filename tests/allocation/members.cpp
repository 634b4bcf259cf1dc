// Memory that runs out at every allocation of what allocation.cpp does not call: construction, saving, files, refusals, muon,
// averages, schedules, a pool of threads, a sharded optimizer. Nothing has changed then, and nothing leaks.

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/average.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/backend/scalar.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/distributed.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gemm/plain.hpp>
#include <gradus/gradus.hpp>
#include <gradus/muon.hpp>
#include <gradus/schedule.hpp>

#include "support/checkpoint.hpp"
#include "support/starve.hpp"
#include "support/folder.hpp"
#include "support/thread_ranks.hpp"

namespace {

using namespace gradus;
using support::living, support::starve;

// `starve` for a call that is refused: with too little memory for the sentence it throws bad_alloc.
template <class Call, class Same>
int starve_refusal(Call&& call, const Same& same)
{
  bool refused = false;
  const int n = starve(
      [&] {
        try {
          call();
        } catch (const std::invalid_argument&) {
          refused = true;
        }
      },
      same);
  CHECK(refused);
  CHECK(same());
  return n;
}

// An object that is made with ever more memory; what was made before memory ran out is given back.
template <class Make>
int starve_construction(const Make& make)
{
  const long before = living;
  const int n = starve([&] { (void)make(); }, [&] { return living == before; });
  CHECK(living.load() == before);
  return n;
}

// Two tensors of an optimizer, with some steps behind them.
template <class Optimizer>
struct model {
  std::vector<float> w = std::vector<float>(300, 1.0f), g = std::vector<float>(300, 0.5f), v = w, h = g, other = w;
  Optimizer opt;
  tensor_handle first, second;
  template <class... Arguments>
  explicit model(Arguments&&... arguments) : opt(std::forward<Arguments>(arguments)...)
  {
    first = opt.add("a tensor with a name that is too long to be kept in place", w, g);
    second = opt.add("another tensor with a name that is too long", v, h);
    opt.step();
  }
};

// All that can be done with an optimizer and a file.
template <class Optimizer>
void starve_files(model<Optimizer>& m)
{
  const long before = living;
  {
    Optimizer& opt = m.opt;
    const support::folder here("allocation");
    const std::string path = here / "a run whose name is too long to be kept in place.safetensors";
    const save_options o{.parameters = true, .metadata = {{"a key that is long enough for memory", "7"}}};
    save(opt, path, o);
    const std::string old = support::content(path);
    opt.step();
    const std::string bytes = support::checkpoint_of(opt);
    const auto as_before = [&] { return support::checkpoint_of(opt) == bytes && here.files() == 1; };
    CHECK(starve([&] { (void)support::checkpoint_of(opt, o); }, as_before) > 0);
    CHECK(starve([&] { save(opt, path, o); }, [&] { return as_before() && support::content(path) == old; }) > 0);
    const std::string made = support::content(path);
    CHECK(made != old);
    opt.step();
    const std::string later = support::checkpoint_of(opt);
    CHECK(starve([&] { (void)load(opt, path); }, [&] { return support::checkpoint_of(opt) == later; }) > 0);
    CHECK(support::checkpoint_of(opt, o) == made);
    const auto back = [&] { return support::checkpoint_of(opt, o) == made && here.files() == 1; };
    // What is refused changes nothing, whether there is memory to say why or not.
    CHECK(starve_refusal([&] { save(opt, here / "nowhere/run"); }, back) > 0);
    CHECK(starve_refusal([&] { save(opt, path, {.metadata = {{"gradus/of another", "x"}}}); }, back) > 0);
    CHECK(starve_refusal([&] { (void)load(opt, here / "nothing"); }, back) > 0);
    CHECK(starve_refusal([&] { support::load_bytes(opt, made.substr(0, made.size() / 2)); }, back) > 0);
    CHECK(starve_refusal([&] { (void)opt.add("another tensor with a name that is too long", m.other, m.g); }, back) >
          0);
    CHECK(starve_refusal([&] { (void)opt.add("overlapping", m.w, m.g); }, back) > 0);
    CHECK(starve_refusal([&] { opt.rebind(m.second, m.w, m.h); }, back) > 0);
    CHECK(starve_refusal([&] { opt.step({.grad_scale = 0}); }, back) > 0);
    CHECK(starve_refusal([&] { opt.freeze(tensor_handle()); }, back) > 0);
    // A lenient load of a file that fits in part.
    const auto handle = opt.add("a third", m.other, m.g);
    const std::string three = support::checkpoint_of(opt);
    CHECK(starve([&] { support::load_bytes(opt, made, {.lenient = true}); },
                 [&] { return support::checkpoint_of(opt) == three; }) > 0);
    opt.remove(handle, removed_state::dropped);
  }
  CHECK(living <= before + 40);  // what was reserved for a third tensor
}

}  // namespace

TEST_CASE("construction: an optimizer, by type and by name")
{
  CHECK(starve_construction([] { return optimizer<adamw, float, backend::scalar>(adamw{.lr = 0.1}); }) > 0);
  using any = any_optimizer<float, backend::scalar, recipe_list<sgd, adams>>;
  CHECK(starve_construction([] { return any("adams", {{"lr", 0.125}, {"weight_decay", 0.5}}); }) > 0);
  const long before = living;
  const auto same = [&] { return living == before; };
  CHECK(starve_refusal([] { any("adems"); }, same) > 0);
  CHECK(starve_refusal([] { any("adams", {{"momentum", 0.5}}); }, same) > 0);
  CHECK(starve_refusal([] { any("sgd", {{"momentum", 1.5}}); }, same) > 0);
  CHECK(starve_refusal([] { optimizer<adamw, float, backend::scalar>(adamw{.lr = -1}); }, same) > 0);
}

TEST_CASE("save and load: files and refusals")
{
  {
    model<optimizer<adams, float, backend::scalar>> m(adams{.lr = 0.1, .weight_decay = 0.1});
    starve_files(m);
  }
  model<any_optimizer<float, backend::scalar, recipe_list<sgd, adams>>> m("sgd",
                                                                          std::vector<named_number>{{"lr", 0.125}});
  starve_files(m);
}

TEST_CASE("averages: copies of averaged weights need no memory, and an average is saved and loaded")
{
  using averaged_adamw = averaged<adamw, average::ema>;
  model<optimizer<averaged_adamw, float, backend::scalar>> m;
  std::vector<float> copy(300);
  CHECK(starve([&] { m.opt.copy_average(m.first, copy); }, [] { return true; }) == 0);
  starve_files(m);
}

TEST_CASE("muon: matrices, and the memory for their products")
{
  const long before = living;
  {
    std::vector<float> w(300, 1.0f), g(300, 0.5f), v = w;
    muon_optimizer<gemm::plain> opt({.lr = 0.01});
    const std::string name = "a matrix with a name that is too long to be kept in place";
    tensor_handle h, twin;
    const std::string nothing = support::checkpoint_of(opt);
    CHECK(starve([&] { h = opt.add(name, w, g); }, [&] { return support::checkpoint_of(opt) == nothing; }) > 0);
    const std::string one = support::checkpoint_of(opt);
    const auto same = [&] { return support::checkpoint_of(opt) == one; };
    CHECK(starve([&] { opt.set_shape(h, view_shape(storage_order::row_major, 30, 10)); }, same) > 0);
    CHECK(starve_refusal([&] { opt.set_shape(h, view_shape(storage_order::row_major, 31, 10)); }, same) > 0);
    CHECK(starve([&] { opt.step(); }, same) == 0);
    // The same as with all memory from the start.
    muon_optimizer<gemm::plain> plenty({.lr = 0.01});
    twin = plenty.add(name, v, g);
    plenty.set_shape(twin, view_shape(storage_order::row_major, 30, 10));
    plenty.step();
    CHECK((v == w));
    CHECK(support::checkpoint_of(plenty) == support::checkpoint_of(opt));
    CHECK(starve([&] { opt.remove(h, removed_state::kept); }, [] { return true; }) == 0);
    const std::string kept = support::checkpoint_of(opt);
    starve([&] { h = opt.add(name, w, g); }, [&] { return support::checkpoint_of(opt) == kept; });
    opt.set_shape(h, view_shape(storage_order::row_major, 30, 10));
    opt.step();
    plenty.step();
    CHECK((v == w));
  }
  CHECK(living.load() == before);
}

TEST_CASE("schedules: construction and copies")
{
  const long before = living;
  {
    const auto same = [&, now = living.load()] { return living == now; };
    std::optional<schedule::multi_step> steps;
    CHECK(starve([&] { steps.emplace(schedule::multi_step{{10, 20, 30}, 0.5}); }, same) > 0);
    CHECK((*steps)(15) == 0.5);
    const long now = living;
    CHECK(starve([&] { (void)schedule::multi_step(*steps); }, [&] { return living == now; }) > 0);
    CHECK(starve_refusal([&] { (void)schedule::multi_step{{10, -1}, 0.5}(3); }, [&] { return living == now; }) > 0);
  }
  CHECK(living.load() == before);
}

TEST_CASE("thread_pool: threads that cannot be started leave none behind")
{
  const long before = living;
  CHECK(starve_construction([] { return executor::thread_pool(4); }) > 3);
  CHECK(starve_refusal([] { (void)executor::thread_pool(5000); }, [&] { return living == before; }) > 0);
  {
    std::optional<model<optimizer<adamw, float, backend::parallel<backend::scalar, executor::thread_pool>>>> m;
    m.emplace(adamw{.lr = 0.1}, backend::parallel(backend::scalar{}, executor::thread_pool(3)));
    starve_files(*m);
    CHECK(starve([&] { m->opt.step(); }, [] { return true; }) == 0);
  }
  CHECK(living.load() == before);
}

TEST_CASE("sharded: a rank that runs out of memory can call again")
{
  const long before = living;
  {
    support::thread_group group(1);
    support::thread_rank world(group, 0);
    using type = sharded<adams, float, support::thread_rank, backend::scalar>;
    CHECK(starve_construction([&] {
            (void)type(world, adams{.lr = 0.1});
            return 0;
          }) > 0);
    type opt(world, adams{.lr = 0.1, .weight_decay = 0.1}), plenty(world, adams{.lr = 0.1, .weight_decay = 0.1});
    const std::string name = "a tensor with a name that is too long to be kept in place";
    const support::folder here("allocation_sharded"), there("allocation_sharded_too");
    const auto bytes_of = [&](type& of) {
      save(of, there / "run", {.parameters = true});
      return support::content(there / "run");
    };
    group_handle g, twin;
    CHECK(starve([&] { g = opt.add_group({.lr = 0.5}); }, [&] { return opt.group_count() == 1; }) > 0);
    CHECK(starve([&] { opt.add(name, 10000); }, [&] { return opt.parameter_count() == 0; }) > 0);
    CHECK(starve([&] { opt.add("", 77, g); }, [&] { return opt.parameter_count() == 10000; }) > 0);
    CHECK(starve([&] { opt.commit(); }, [] { return true; }) > 0);
    twin = plenty.add_group({.lr = 0.5});
    plenty.add(name, 10000);
    plenty.add("", 77, twin);
    plenty.commit();
    for (type* each : {&opt, &plenty}) {
      for (float& x : each->parameters(name))
        x = 0.5f;
      for (float& x : each->gradients(name))
        x = 0.25f;
    }
    CHECK(starve([&] { opt.step(); }, [] { return true; }) == 0);
    plenty.step();
    CHECK(bytes_of(opt) == bytes_of(plenty));
    const std::string path = here / "a run whose name is too long to be kept in place.safetensors";
    save(opt, path, {.parameters = true});
    const std::string old = support::content(path);
    opt.step();
    plenty.step();
    const auto as_saved = [&] { return support::content(path) == old && here.files() == 1; };
    CHECK(starve([&] { save(opt, path, {.parameters = true}); }, as_saved) > 0);
    opt.step();
    plenty.step();
    CHECK(bytes_of(opt) == bytes_of(plenty));
  }
  CHECK(living.load() == before);
}
