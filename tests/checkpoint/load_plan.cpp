// What is loaded from where: parameters, states between recipes, and the sums of a scheduled decay.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"

using namespace support;
using gradus::load_difference;
using gradus::optimizer;

TEST_CASE("load: parameters are loaded if the file has them, unless the caller says otherwise")
{
  model<optimizer<gradus::adam>> m(2), n(0);
  const std::string with = checkpoint_of(m.opt), without = checkpoint_of(m.opt, {});
  const auto start = n.a.weights;
  CHECK_FALSE(load_bytes(n.opt, without).parameters);
  CHECK(n.a.weights == start);
  check_refused(n.opt, without, {"\"parameters/a\" is missing; expected 3 of F32"}, {.parameters = true});
  const auto ignored = load_bytes(n.opt, with, {.parameters = false});
  CHECK((!ignored.parameters && ignored.differences.empty()));
  CHECK(n.a.weights == start);
  CHECK(load_bytes(n.opt, with).parameters);
  CHECK(n.a.weights == m.a.weights);
}

TEST_CASE("load: a new layer, another order and other groups keep the state of all other tensors")
{
  model<optimizer<gradus::adams>> m(5, scheduled);
  tensor a(3), b(40), d(6);
  optimizer<gradus::adams> opt({.lr = 0.125});
  const auto g = opt.add_group({.lr = 0.25});
  const auto hb = opt.add("b", b.weights, b.gradients, g);
  const auto hd = opt.add("new", d.weights, d.gradients);
  opt.add("a", a.weights, a.gradients);
  const auto report = load_bytes(opt, checkpoint_of(m.opt), {.lenient = true});
  for (const char* slot : {"exp_avg", "exp_avg_sq"})
    for (const char* name : {"a", "b"}) {
      const auto x = opt.state(name, slot), y = m.opt.state(name, slot);
      CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
    }
  CHECK(opt.step_count(hb) == 5);
  CHECK(opt.step_count(hd) == 0);
  CHECK(a.weights == m.a.weights);
  CHECK((report.afresh == std::vector<std::string>{"new"}));
  CHECK_FALSE(report.settings);  // whose would be whose?
  CHECK(opt.hyperparameters().lr == 0.125);
  std::size_t surplus = 0, missing = 0, groups = 0;
  for (const auto& d2 : report.differences) {
    surplus += d2.what == load_difference::surplus;
    missing += d2.what == load_difference::missing;
    groups += d2.what == load_difference::groups;
  }
  CHECK(surplus == 5);  // two slots, step, sum and parameters of c
  CHECK(missing == 5);
  CHECK(groups == 2);  // how many there are, and b's

  // v̄ is that of the moments, over those who are there now.
  const auto step = opt.step();
  double sum = 0, n = 0;
  for (const char* name : {"a", "b", "new"})
    for (const float v : opt.state(name, "exp_avg_sq")) {
      sum += double(v) / (1 - std::pow(0.999, name[0] == 'n' ? 1 : 6));
      n += 1;
    }
  CHECK(*step.mean_square == doctest::Approx(sum / n).epsilon(1e-5));
}

TEST_CASE("load: a tensor's state is loaded as a whole or not at all")
{
  model<optimizer<gradus::adam>> m(5), n(0);
  std::string bytes = checkpoint_of(m.opt);
  const std::string key = "state/b/exp_avg_sq";
  bytes.replace(bytes.find(key), key.size(), "state/b/exp_avg_xx");
  const auto report = load_bytes(n.opt, bytes, {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"b"}));
  CHECK(n.opt.step_count(n.hb) == 0);
  CHECK(n.opt.step_count(n.ha) == 5);
  for (const float x : n.opt.state("b", "exp_avg"))
    CHECK(x == 0);
  CHECK(n.b.weights == m.b.weights);  // parameters are no state
}

TEST_CASE("load: another recipe takes over the slots that both have, and reports which start afresh")
{
  model<optimizer<gradus::adam, double>> adam(5);
  const auto same = [](auto& from, auto& to, const char* slot) {
    for (const char* name : {"a", "b", "c"}) {
      const auto x = from.state(name, slot), y = to.state(name, slot);
      CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
    }
  };
  model<optimizer<gradus::adamw, double>> adamw(0);
  auto report = load_bytes(adamw.opt, checkpoint_of(adam.opt), {.lenient = true});
  CHECK(report.afresh.empty());
  CHECK(report.differences.size() == 1);
  CHECK(report.differences[0].what == load_difference::recipe);
  CHECK(report.differences[0].key == "gradus/recipe");
  CHECK_FALSE(report.settings);
  CHECK(adamw.opt.hyperparameters().weight_decay == 1e-2);
  same(adam.opt, adamw.opt, "exp_avg");
  same(adam.opt, adamw.opt, "exp_avg_sq");
  CHECK(adamw.opt.step_count(adamw.ha) == 5);

  // AdamS finds its sums anew.
  model<optimizer<gradus::adams, double>> adams(0);
  report = load_bytes(adams.opt, checkpoint_of(adamw.opt), {.lenient = true});
  CHECK(report.afresh.empty());
  const auto step = adams.opt.step();
  double sum = 0;
  for (const char* name : {"a", "b", "c"})
    for (const double v : adams.opt.state(name, "exp_avg_sq"))
      sum += v;
  CHECK(*step.mean_square == doctest::Approx(sum / 48 / (1 - std::pow(0.999, 6))).epsilon(1e-12));

  // AMSGrad's maximum starts at this step.
  model<optimizer<gradus::amsgrad, double>> amsgrad(0);
  report = load_bytes(amsgrad.opt, checkpoint_of(adam.opt), {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"a/max_exp_avg_sq", "b/max_exp_avg_sq", "c/max_exp_avg_sq"}));
  CHECK(amsgrad.opt.step_count(amsgrad.ha) == 5);
  same(adam.opt, amsgrad.opt, "exp_avg_sq");

  // Where the moments are not there, neither is the step count that would correct their bias.
  model<optimizer<gradus::sgd, double>> sgd(5, gradus::sgd{.momentum = 0.9});
  model<optimizer<gradus::adam, double>> from_sgd(0);
  report = load_bytes(from_sgd.opt, checkpoint_of(sgd.opt), {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"a", "b", "c"}));
  CHECK(from_sgd.opt.step_count(from_sgd.ha) == 0);
  CHECK(from_sgd.a.weights == sgd.a.weights);
}

TEST_CASE("load: a tensor that was removed with its state kept")
{
  model<optimizer<gradus::adam>> m(3), n(0), whole(0);
  m.opt.remove(m.hb, gradus::removed_state::kept);
  m.opt.step();
  check_refused(whole.opt, checkpoint_of(m.opt), {"differ in 1;", "\"parameters/b\" is missing; expected 40 of F32"});
  n.opt.remove(n.hb, gradus::removed_state::kept);
  load_bytes(n.opt, checkpoint_of(m.opt));
  CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  n.opt.step();
  CHECK(n.opt.step_count(n.opt.add("b", n.b.weights, n.b.gradients)) == 3);
}

// ── the sums of a scheduled decay ────────────────────────────────────────────────────────────────────────────────────

namespace {

using adams_model = model<optimizer<gradus::adams, double>>;

// A checkpoint of four steps with these sums of a, b and c, which may be far from the true ones, so that a step shows
// who uses them.
std::string with_sums(const std::array<double, 3>& sums, std::uint64_t is_of_model = 0, bool freezes_c = false)
{
  adams_model m(4, scheduled);
  if (freezes_c)
    m.opt.freeze(m.hc);
  m.opt.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<X> values) {
    if constexpr (std::is_same_v<X, double>)
      if (key == "exp_avg_sq_sum")
        values[0] = sums[std::size_t(name[0] - 'a')];
    if constexpr (std::is_same_v<X, std::uint64_t>)
      if (key == "exp_avg_sq_sum_is_of_model")
        values[0] = is_of_model;
  });
  return checkpoint_of(m.opt);
}

// Whether the next step takes v̄ from the second moments of these tensors, and not from the file's sums.
template <class Opt>
bool sums_are_anew(Opt& opt, std::initializer_list<const char*> names, const gradus::step_options& o = {})
{
  const double mean = *opt.step(o).mean_square;
  double sum = 0, n = 0;
  for (const char* name : names)
    for (const double v : opt.state(name, "exp_avg_sq")) {
      sum += v;
      n += 1;
    }
  return std::fabs(mean / (sum / n / (1 - std::pow(0.9, 5))) - 1) < 1e-12;
}

constexpr double far = 1e6;

}  // namespace

TEST_CASE("load: sums of second moments are used where the same tensors share them")
{
  adams_model strict(0, scheduled), other_lr(0, scheduled), more_steps(7, scheduled);
  load_bytes(strict.opt, with_sums({far, far, far}));
  CHECK_FALSE(sums_are_anew(strict.opt, {"a", "b", "c"}));
  load_bytes(other_lr.opt, with_sums({far, far, far}), {.settings = false});
  CHECK_FALSE(sums_are_anew(other_lr.opt, {"a", "b", "c"}));
  load_bytes(more_steps.opt, with_sums({far, far, far}));
  CHECK_FALSE(sums_are_anew(more_steps.opt, {"a", "b", "c"}));
  // One that is frozen in the file is frozen here too.
  adams_model frozen(0, scheduled);
  load_bytes(frozen.opt, with_sums({far, far, far}, 0, true));
  CHECK_FALSE(sums_are_anew(frozen.opt, {"a", "b"}));
}

TEST_CASE("load: sums of second moments are recomputed where other tensors share them")
{
  const std::string bytes = with_sums({far, far, far});
  adams_model fewer(0, scheduled), more(0, scheduled), paused(0, scheduled), removed(0, scheduled);
  fewer.opt.remove(fewer.hc, gradus::removed_state::dropped);
  load_bytes(fewer.opt, bytes, {.lenient = true});
  CHECK(sums_are_anew(fewer.opt, {"a", "b"}));
  paused.opt.freeze(paused.hc);
  load_bytes(paused.opt, bytes, {.settings = false});
  CHECK(sums_are_anew(paused.opt, {"a", "b"}));
  removed.opt.remove(removed.hc, gradus::removed_state::kept);
  load_bytes(removed.opt, bytes, {.parameters = false});
  CHECK(sums_are_anew(removed.opt, {"a", "b"}));
  tensor<double> d(9);
  more.opt.add("d", d.weights, d.gradients);
  load_bytes(more.opt, bytes, {.lenient = true});
  CHECK(*more.opt.step().mean_square < 10);
}

TEST_CASE("load: sums of second moments are recomputed if other groups may share them differently")
{
  const std::string bytes = with_sums({far, far, far});
  tensor<double> a(3), b(40), c(5);
  optimizer<gradus::adams, double> opt(scheduled);
  const auto group = opt.add_group({.lr = 0.01, .beta2 = 0.5, .weight_decay = 0.01});
  opt.add("a", a.weights, a.gradients);
  opt.add("b", b.weights, b.gradients, group);
  opt.add("c", c.weights, c.gradients, group);
  load_bytes(opt, bytes, {.settings = false});
  CHECK(*opt.step().mean_square < 10);
  // Two groups in the file whose sums are equal by chance, and one here.
  const std::string two = [&] {
    optimizer<gradus::adams, double> saved(scheduled);
    const auto g = saved.add_group({.lr = 0.01, .beta2 = 0.5, .weight_decay = 0.01});
    saved.add("a", a.weights, a.gradients);
    saved.add("b", b.weights, b.gradients, g);
    saved.add("c", c.weights, c.gradients, g);
    for (int t = 0; t < 4; ++t)
      saved.step();
    saved.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> values) {
      if constexpr (std::is_same_v<X, double>)
        if (key == "exp_avg_sq_sum")
          values[0] = far;
    });
    return checkpoint_of(saved);
  }();
  adams_model one(0, scheduled);
  load_bytes(one.opt, two, {.settings = false});
  CHECK(sums_are_anew(one.opt, {"a", "b", "c"}));
}

TEST_CASE("load: sums of second moments that are not finite, or that tensors disagree on, are recomputed")
{
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& sums : std::vector<std::array<double, 3>>{{nan, nan, nan},
                                                             {-nan, -nan, -nan},
                                                             {infinity, infinity, infinity},
                                                             {far, nan, far},
                                                             {nan, far, far},
                                                             {far, far, infinity},
                                                             {far, far, 2 * far},
                                                             {1, far, far}}) {
    for (const bool lenient : {false, true}) {
      adams_model m(0, scheduled);
      CHECK(load_bytes(m.opt, with_sums(sums), {.lenient = lenient}).differences.empty());
      CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
    }
  }
}

TEST_CASE("load: unknown sums of second moments are saved, and the resumed run has the same bits")
{
  for (const bool freezes : {false, true}) {
    adams_model m(4, scheduled), n(0, scheduled);
    if (freezes)
      m.opt.freeze(m.hc);
    else
      m.opt.recompute_second_moment_sum();
    m.opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> values) {
      if (key == "exp_avg_sq_sum")
        CHECK(std::isnan(double(values[0])));
    });
    load_bytes(n.opt, checkpoint_of(m.opt));
    CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
    m.opt.step();
    n.opt.step();
    CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  }
}

TEST_CASE("load: sums of second moments that the file lacks are recomputed")
{
  std::string bytes = with_sums({far, far, far});
  bytes.replace(bytes.find("b/exp_avg_sq_sum"), 16, "b/exp_avg_xx_sum");
  adams_model m(0, scheduled);
  const auto report = load_bytes(m.opt, bytes, {.lenient = true});
  CHECK(report.afresh.empty());
  CHECK(m.opt.step_count(m.hb) == 4);
  CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
}

TEST_CASE("load: a whole model's sum of second moments remains one, with the file's settings or without")
{
  const gradus::step_options whole{.grad_norm_sq = 1.0, .model_size = 1000};
  for (const bool settings : {false, true}) {
    adams_model m(0, scheduled), n(0, scheduled);
    tensor<double> d(3), e(3);
    m.opt.add("d", d.weights, d.gradients, m.opt.add_group({.lr = 0.5, .beta2 = 0.9}));
    n.opt.add("d", e.weights, e.gradients, n.opt.add_group({.lr = 0.25, .beta2 = 0.9}));
    m.opt.step(whole);
    load_bytes(n.opt, checkpoint_of(m.opt), {.settings = settings});
    const double expected = *m.opt.step(whole).mean_square;
    CHECK(*n.opt.step(whole).mean_square == expected);
    CHECK(expected == doctest::Approx(0.001));
  }
  // A step of this part alone recomputes them.
  adams_model m(0, scheduled);
  load_bytes(m.opt, with_sums({far, far, far}, 1));
  CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
  // Of another part it is unknown, and a step that needs it says so.
  adams_model other(0, scheduled);
  other.opt.remove(other.hc, gradus::removed_state::dropped);
  load_bytes(other.opt, with_sums({far, far, far}, 1), {.lenient = true});
  CHECK(contains(refusal([&] { other.opt.step(whole); }), "give mean_square instead"));
}

TEST_CASE("load: step counts and sums that no run can have reached are refused")
{
  model<optimizer<gradus::adams>> m(3, scheduled);
  const std::string good = checkpoint_of(m.opt);
  const auto check = [&](const std::string& key, auto value, const std::string& part) {
    const auto header = header_in(good);
    std::string bytes = good;
    std::memcpy(bytes.data() + header.data_start + header.tensors.find(key)->begin, &value, 8);
    for (const bool lenient : {false, true})
      check_refused(m.opt, bytes, {part}, {.lenient = lenient});
  };
  check("state/a/step", std::uint64_t(-1), "\"state/a/step\" is 18446744073709551615; expected fewer than 2^53 steps");
  check("state//exp_avg_sq_sum_is_of_model", std::uint64_t(2),
        "\"state//exp_avg_sq_sum_is_of_model\" is 2; expected 0 or 1");
  check("state//exp_avg_sq_sum_is_of_model", std::uint64_t(-1), "is 18446744073709551615; expected 0 or 1");
  check("state/a/exp_avg_sq_sum", -1.0, "\"state/a/exp_avg_sq_sum\" is -1; expected a sum of squares");
  check("state/b/exp_avg_sq_sum", -std::numeric_limits<double>::infinity(), "is -inf; expected a sum of squares");
}

TEST_CASE("load: a sum of second moments of another type is converted, and checked like any other")
{
  model<optimizer<gradus::adams>> m(3, scheduled);
  std::string bytes = checkpoint_of(m.opt);
  const auto header = header_in(bytes);
  // The same place is two floats: the first is the sum.
  const std::string key = "\"state/a/exp_avg_sq_sum\":{\"dtype\":\"F64\",\"shape\":[1],";
  const std::size_t at = bytes.find(key),
                    begin = static_cast<std::size_t>(header.tensors.find("state/a/exp_avg_sq_sum")->begin);
  REQUIRE(at != std::string::npos);
  const auto offsets = [](std::size_t from, std::size_t to) {
    return "\"data_offsets\":[" + std::to_string(from) + ',' + std::to_string(to) + "]}";
  };
  std::string two = "\"state/a/exp_avg_sq_sum\":{\"dtype\":\"F32\",\"shape\":[1]," + offsets(begin, begin + 4) +
                    ",\"rest\":{\"dtype\":\"F32\",\"shape\":[1]," + offsets(begin + 4, begin + 8);
  const std::size_t end = bytes.find('}', at) + 1, length = header.data_start - 8 + two.size() - (end - at);
  bytes = bytes.substr(0, at) + two + bytes.substr(end);
  const auto with = [&](float sum) {
    std::string changed = with_length(bytes, length);
    std::memcpy(changed.data() + 8 + length + begin, &sum, sizeof sum);
    return changed;
  };
  const gradus::load_options o{.lenient = true, .convert = true};
  check_refused(m.opt, with(-1), {"\"state/a/exp_avg_sq_sum\" is -1; expected a sum of squares"}, o);
  CHECK_NOTHROW(load_bytes(m.opt, with(1), o));
}
