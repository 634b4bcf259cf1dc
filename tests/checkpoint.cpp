// save and load as a whole: files of other programs, optimizers chosen by name, and runs that went wrong.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace support;
using gradus::any_optimizer;
using gradus::optimizer;

TEST_CASE("load: a file that Python's safetensors wrote, after eight steps of PyTorch's Adam with amsgrad")
{
  const std::string file = GRADUS_TEST_DATA "/checkpoint/recorded.safetensors";
  const golden::problem problem{.seed = 11, .sizes = {3, 12, 30}, .steps = 8, .drops = {}};
  golden::model<double> recorded(problem), here(problem);
  const auto add = [](auto& opt, auto& tensors) {
    const auto group = opt.add_group({});
    opt.add("layer.weight", tensors[1].weights, tensors[1].gradients);
    opt.add("other.weight", tensors[2].weights, tensors[2].gradients);
    opt.add("layer.bias", tensors[0].weights, tensors[0].gradients, group);
  };
  optimizer<gradus::amsgrad, double> loaded({.lr = 7}), opt({.lr = 0.01, .beta1 = 0.9, .beta2 = 0.9});
  add(loaded, recorded.tensors);
  add(opt, here.tensors);
  opt.set_hyperparameters(opt.hyperparameters(), opt.group_at(1));
  const auto report = gradus::load(loaded, file);
  CHECK((report.metadata == std::map<std::string, std::string>{{"note", "written by Python's safetensors"}}));
  CHECK((report.parameters && report.settings && report.differences.empty()));
  CHECK(loaded.hyperparameters().lr == 0.01);
  opt.set_hyperparameters(loaded.hyperparameters(), opt.group_at(1));
  for (int t = 0; t < problem.steps; ++t) {
    here.compute_gradients(t);
    opt.step();
  }
  double worst = 0;
  const auto compare = [&](double x, double y) { worst = std::fmax(worst, std::fabs(x - y) / (1e-3 + std::fabs(y))); };
  for (std::size_t k = 0; k < 3; ++k)
    for (std::size_t i = 0; i < problem.sizes[k]; ++i)
      compare(here.tensors[k].weights[i], recorded.tensors[k].weights[i]);
  for (const char* name : {"layer.weight", "other.weight", "layer.bias"})
    for (const char* slot : {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"})
      for (std::size_t i = 0; i < opt.state(name, slot).size(); ++i)
        compare(opt.state(name, slot)[i], loaded.state(name, slot)[i]);
  CHECK(worst < 1e-12);
  // What gradus writes has the same keys; the tensors, the same types and sizes.
  std::string bytes;
  std::FILE* const in = std::fopen(file.c_str(), "rb");
  for (int c; (c = std::fgetc(in)) != EOF;)
    bytes += char(c);
  std::fclose(in);
  CHECK((entries_of(checkpoint_of(loaded)) == entries_of(bytes)));
}

TEST_CASE("save, load: any_optimizer writes the same bytes as optimizer, and each loads the other's")
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    Recipe h;
    if constexpr (requires { h.momentum; })
      h.momentum = 0.5;
    std::vector<gradus::named_number> numbers;
    if constexpr (requires { h.momentum; })
      numbers.emplace_back("momentum", 0.5);
    model<optimizer<Recipe>> typed(3, h), other(1, h);
    model<any_optimizer<float>> named(3, name, numbers), fresh(0, name, numbers);
    const std::string bytes = checkpoint_of(typed.opt);
    CHECK_MESSAGE(checkpoint_of(named.opt) == bytes, name);
    load_bytes(other.opt, checkpoint_of(named.opt));
    CHECK_MESSAGE(checkpoint_of(other.opt) == bytes, name);
    load_bytes(fresh.opt, bytes);
    CHECK_MESSAGE(checkpoint_of(fresh.opt) == bytes, name);
    typed.opt.step();
    fresh.opt.step();
    CHECK_MESSAGE(checkpoint_of(fresh.opt) == checkpoint_of(typed.opt), name);
  });
}

TEST_CASE("load: any_optimizer restores groups and frozen tensors, and refuses invalid numbers")
{
  using any = any_optimizer<float>;
  model<any> m(2, "adams"), n(0, "adams");
  m.opt.add_group({{"lr", 0.125}});
  n.opt.add_group({});
  m.opt.freeze(m.hb);
  load_bytes(n.opt, checkpoint_of(m.opt));
  CHECK(n.opt.hyperparameters(n.opt.group_at(1))[0].second == 0.125);
  m.opt.step();
  n.opt.step();
  CHECK(n.opt.step_count(n.hb) == 2);
  CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  m.opt.set_lr_scale(0.75, m.opt.group_at(1));  // a file says nothing of a factor of 1
  const std::string scaled = checkpoint_of(m.opt);
  n.opt.set_lr_scale(0.5);
  load_bytes(n.opt, scaled);
  CHECK(n.opt.lr_scale() == 1);
  CHECK(n.opt.lr_scale(n.opt.group_at(1)) == 0.75);
  CHECK(checkpoint_of(n.opt) == scaled);
  load_bytes(n.opt, checkpoint_of(n.opt), {.settings = false});
  CHECK(n.opt.lr_scale(n.opt.group_at(1)) == 0.75);
  std::string bad = scaled;
  bad.replace(bad.find("\"0.75\""), 6, "\"-.75\"");
  check_refused(n.opt, bad, {"gradus: checkpoint: \"gradus/lr_scale/1\" is \"-.75\"; expected a finite number >= 0"});
  m.opt.set_lr_scale(1, m.opt.group_at(1));
  n.opt.set_lr_scale(1, n.opt.group_at(1));
  bad = checkpoint_of(m.opt);
  bad.replace(bad.find("\"0.125\""), 7, "\"-.125\"");
  check_refused(n.opt, bad, {"gradus: checkpoint: group 1: lr is -0.125; expected a finite number >= 0"});
  bad.replace(bad.find("\"-.125\""), 7, "\"1e39\" ");
  check_refused(n.opt, bad, {"lr is 1e+39; expected at most 3.40282347e+38, the largest float"});
}

namespace {

// The bits of all numbers in an optimizer's state and of its weights, but for which NaN is one.
template <class M>
std::vector<double> numbers_of(const M& m)
{
  std::vector<double> all;
  const auto add = [&](auto values) {
    for (const auto& x : values)
      if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(x)>>)
        all.push_back(std::isnan(double(x)) ? -12345.0 : double(x));
  };
  add(std::span(m.b.weights));
  m.opt.visit_state([&](std::string_view, std::string_view key, auto values) {
    if (key != "exp_avg_sq_sum")
      add(values);
  });
  return all;
}

template <class Opt, class... Arguments>
void check_broken_state_resumes(double gradient, const gradus::step_options& o, const Arguments&... arguments)
{
  using T = typename Opt::parameter_type;
  model<Opt> m(2, arguments...), n(0, arguments...);
  m.b.gradients[7] = T(gradient);
  m.opt.step(o);
  m.b.gradients[7] = T(0.5);
  for (const bool lenient : {false, true}) {
    CHECK(refusal([&] { CHECK(load_bytes(n.opt, checkpoint_of(m.opt), {.lenient = lenient}).differences.empty()); }) ==
          "");
    n.a = m.a, n.b = m.b, n.c = m.c;
    n.opt.rebind(n.ha, n.a.weights, n.a.gradients);
    n.opt.rebind(n.hb, n.b.weights, n.b.gradients);
    n.opt.rebind(n.hc, n.c.weights, n.c.gradients);
    CHECK((numbers_of(n) == numbers_of(m)));
    m.opt.step();
    n.opt.step();
    const auto broken = numbers_of(m), resumed = numbers_of(n);
    REQUIRE(broken.size() == resumed.size());
    for (std::size_t i = 0; i < broken.size(); ++i)
      CHECK((broken[i] == resumed[i] || std::fabs(broken[i] - resumed[i]) < 1e-6 * std::fabs(broken[i])));
  }
}

}  // namespace

TEST_CASE("save, load: runs with infinite, NaN or overflowing gradients resume, too")
{
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {infinity, -infinity, nan, 3e38, 1e200}) {
    gradus::for_each_recipe([&]<class R>(const char*, std::type_identity<R>) {
      if (bad != 1e200)
        check_broken_state_resumes<optimizer<R, float>>(bad, {});
    });
    check_broken_state_resumes<optimizer<gradus::adam, double>>(bad, {});
    const auto composed = gradus::compose(0.01, gradus::first_moment::none{}, gradus::second_moment::ema{.beta2 = 0.9},
                                          gradus::step_size::rectified{},
                                          gradus::decay::scheduled{.weight_decay = 0.1, .eps = 1e-8});
    check_broken_state_resumes<optimizer<std::remove_const_t<decltype(composed)>, double>>(bad, {.max_grad_norm = 1},
                                                                                           composed);
    check_broken_state_resumes<optimizer<gradus::adams, gradus::precision<float, float, gradus::block8>>>(
        bad == 1e200 ? infinity : bad, {}, scheduled);
  }
  check_broken_state_resumes<optimizer<gradus::adams, double>>(1e200, {.max_grad_norm = 1}, scheduled);
  check_broken_state_resumes<optimizer<gradus::adams, float>>(1, {.mean_square = 2}, scheduled);
}

TEST_CASE("save, load: remainders write the checkpoints of float master weights, and read them")
{
  using gradus::bfloat16;
  std::vector<bfloat16> w(300001, bfloat16(1.0f)), g(w.size()), w2 = w;
  support::random r(4);
  optimizer<gradus::adamw, gradus::precision<bfloat16, bfloat16, float, float>> floats({.lr = 0.1});
  optimizer<gradus::adamw, gradus::precision<bfloat16, bfloat16, float, gradus::remainder16>> remainders, other;
  floats.add("w", w, g);
  remainders.add("w", w2, g);
  for (int t = 0; t < 3; ++t) {
    for (auto& x : g)
      x = bfloat16(float(r.uniform(-1, 1)));
    floats.step();
  }
  const auto report = load_bytes(remainders, checkpoint_of(floats));
  CHECK((report.differences.empty() && report.afresh.empty()));
  CHECK(checkpoint_of(remainders) == checkpoint_of(floats));
  // Without parameters in the file, the master weights bring them along.
  std::vector<bfloat16> w3(w.size());
  other.add("w", w3, g);
  load_bytes(other, checkpoint_of(remainders, {}));
  CHECK(checkpoint_of(other) == checkpoint_of(floats));
  floats.step(), remainders.step();
  CHECK(checkpoint_of(remainders) == checkpoint_of(floats));
  optimizer<gradus::adamw, gradus::precision<bfloat16, bfloat16, float, float>> back;
  std::vector<bfloat16> w4(w.size());
  back.add("w", w4, g);
  load_bytes(back, checkpoint_of(remainders));
  CHECK(checkpoint_of(back) == checkpoint_of(floats));
}

#if !defined(GRADUS_TEST_THRUST_DEVICE)  // a device has no masks
TEST_CASE("save, load: a mask of trained elements")
{
  std::vector<float> w(9, 1), v = w;
  const std::vector<float> g(9, 0.5f);
  const auto even = [](std::size_t i) { return i % 2 == 0; };
  any_optimizer<float> opt("adams"), resumed("adams"), whole("adams");
  opt.add("w", w, g, gradus::trained_mask(even));
  opt.step();
  const std::string bytes = checkpoint_of(opt);
  resumed.add("w", v, g, gradus::trained_mask([](std::size_t i) { return i == 0; }));
  load_bytes(resumed, bytes);
  CHECK(checkpoint_of(resumed) == bytes);
  opt.step();
  resumed.step();
  CHECK(v == w);
  CHECK(w[1] == 1);
  std::vector<float> u(9, 1);
  whole.add("w", u, g);
  check_refused(whole, bytes, {"\"state/w/trained\" is in the file; expected nothing under this key"});
  check_refused(opt, checkpoint_of(whole), {"\"state/w/trained\" is missing; expected 9 of U8"});
  const auto report = load_bytes(opt, checkpoint_of(whole), {.lenient = true});  // the mask stays
  CHECK(report.afresh == std::vector<std::string>{"w/trained"});
  CHECK(checkpoint_of(opt).find("trained") != std::string::npos);
}
#endif

TEST_CASE("save, load: an empty optimizer, and empty tensors")
{
  optimizer<gradus::adams> nothing, other;
  CHECK(load_bytes(other, checkpoint_of(nothing)).differences.empty());
  std::vector<float> none;
  std::vector<float> no_gradients;
  optimizer<gradus::adams> opt, loaded;
  opt.add("none", none, no_gradients);
  loaded.add("none", none, no_gradients);
  opt.step();
  load_bytes(loaded, checkpoint_of(opt));
  CHECK(checkpoint_of(loaded) == checkpoint_of(opt));
}
