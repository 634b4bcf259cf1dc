// Which tensors step together: those of one group and one number of steps; and who takes part in a step.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using support::restore, support::same, support::save, support::scheduled, support::tensor, support::tensors;

}  // namespace

// ── aging_table ─────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

struct entry {
  std::uint64_t key = 0, t = 0;
  std::size_t members = 0, next = gradus::detail::no_place;
  int note = 0;  // what a user of the table keeps in it
};
using table = gradus::detail::aging_table<entry>;
using key = std::uint64_t;

}  // namespace

TEST_CASE("aging_table: one entry for each key and t, found again until the next purge")
{
  table all;
  all.reserve(8);
  const std::size_t a = all.join(key{1}, 0), b = all.join(key{1}, 5), c = all.join(key{2}, 0);
  CHECK(a != b);
  CHECK(a != c);
  CHECK(all.join(key{1}, 0) == a);
  CHECK(all[a].members == 2);
  CHECK(all.live() == 3);
  all[b].note = 7;
  all.leave(b);
  CHECK(all.live() == 2);
  CHECK(all.join(key{1}, 5) == b);  // who leaves and comes back finds what it left
  CHECK(all[b].note == 7);
  all.leave(b);
  all.purge();
  const std::size_t again = all.join(key{1}, 5);
  CHECK(again == b);  // its place is used again
  CHECK(all[again].note == 0);
  CHECK(all.live() == 3);
}

TEST_CASE("aging_table: entries age together, but for those without members")
{
  table all;
  all.reserve(8);
  const std::size_t young = all.join(key{1}, 0), old = all.join(key{1}, 10), left = all.join(key{1}, 20);
  all[left].note = 7;
  all.leave(left);
  all.advance(3);
  CHECK(all[all.join(key{1}, 23)].note == 0);  // it is not what was left three steps ago
  CHECK(all[young].t == 3);
  CHECK(all[old].t == 13);
  CHECK(all.join(key{1}, 3) == young);
  CHECK(all.join(key{1}, 13) == old);
  const std::size_t newcomer = all.join(key{1}, 0);
  CHECK(newcomer != young);
  CHECK(all[newcomer].t == 0);
  all.advance();
  CHECK(all.join(key{1}, 1) == newcomer);
  CHECK(all.join(key{1}, 4) == young);
}

TEST_CASE("aging_table: compact removes what has no members once that is most of it, and says where the others are")
{
  table all;
  all.reserve(64);
  std::vector<std::size_t> places;
  for (std::uint64_t t = 0; t < 40; ++t)
    places.push_back(all.join(key{3}, t));
  for (std::uint64_t t = 0; t < 40; ++t)
    if (t % 10 != 7)
      all.leave(places[t]);
  bool called = false;
  all.compact([&](const auto& place) {
    called = true;
    for (std::uint64_t t = 7; t < 40; t += 10)
      places[t] = place(places[t]);
  });
  CHECK(called);
  CHECK(all.all().size() == 4);
  CHECK(all.live() == 4);
  for (std::uint64_t t = 7; t < 40; t += 10) {
    CHECK(all[places[t]].t == t);
    CHECK(all.join(key{3}, t) == places[t]);
  }
  all.compact([](const auto&) { FAIL("nothing has left"); });
  all.clear();
  CHECK(all.live() == 0);
  CHECK(all.all().empty());
}

TEST_CASE("aging_table: as a plain list of groups would have it, whoever joins and leaves")
{
  support::random r(8);
  table all;
  all.reserve(64);
  struct member {
    std::uint64_t key, t;
    std::size_t place;
  };
  std::vector<member> members;
  const auto matches = [&] {
    std::size_t groups = 0;
    bool good = true;
    for (std::size_t i = 0; i < members.size(); ++i) {
      std::size_t alike = 0, before = 0;
      for (std::size_t k = 0; k < members.size(); ++k)
        if (members[k].key == members[i].key && members[k].t == members[i].t) {
          ++alike;
          before += k < i;
          good = good && members[k].place == members[i].place;
        }
      groups += before == 0;
      const entry& e = all[members[i].place];
      good = good && e.key == members[i].key && e.t == members[i].t && e.members == alike;
    }
    return good && groups == all.live();
  };
  for (int step = 0; step < 2000; ++step) {
    if (members.size() < 30 && r.chance(0.6)) {
      const key k = r.below(4), t = members.empty() || r.chance(0.5) ? 0 : members[r.below(members.size())].t;
      members.push_back({k, t, all.join(k, t)});
    } else if (!members.empty()) {
      const std::size_t i = r.below(members.size());
      all.leave(members[i].place);
      members.erase(members.begin() + std::ptrdiff_t(i));
    }
    if (r.chance(0.2))
      all.compact([&](const auto& place) {
        for (member& m : members)
          m.place = place(m.place);
      });
    if (r.chance(0.2)) {
      all.advance();
      for (member& m : members)
        ++m.t;
    }
    REQUIRE(matches());
  }
}

namespace {

// A key that counts how often keys are compared.
struct counted_key {
  std::uint64_t value = 0;
  static inline std::size_t comparisons = 0;

  explicit operator std::uint64_t() const { return value; }
  bool operator==(const counted_key& other) const
  {
    ++comparisons;
    return value == other.value;
  }
};
struct counted_entry {
  counted_key key;
  std::uint64_t t = 0;
  std::size_t members = 0, next = gradus::detail::no_place;
};

}  // namespace

TEST_CASE("aging_table: join compares as few keys among many step counts as among few")
{
  for (const std::size_t n : {std::size_t(100), std::size_t(20000)}) {
    gradus::detail::aging_table<counted_entry> all;
    all.reserve(n);
    std::vector<std::size_t> places;
    counted_key::comparisons = 0;
    for (std::uint64_t t = 0; t < n; ++t)
      places.push_back(all.join(counted_key{1}, t));
    CHECK(counted_key::comparisons <= n);
    counted_key::comparisons = 0;
    for (std::uint64_t t = 0; t < 100; ++t)
      all.leave(places[t]);
    for (std::uint64_t t = 0; t < 100; ++t)
      CHECK(all.join(counted_key{1}, t) == places[t]);
    CHECK(counted_key::comparisons < 2 * 100);
  }
}

// ── in an optimizer ─────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("add: a tensor that is added late has a bias correction of its own")
{
  // RAdam is the strictest: its steps before and after the sixth are of two kinds.
  tensor<float> early(37, 1), late(21, 2), alone(21, 2);
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9}), fresh({.lr = 0.01, .beta2 = 0.9});
  const auto first = opt.add(early.weights, early.gradients);
  for (int t = 0; t < 4; ++t)
    opt.step();
  const auto second = opt.add(late.weights, late.gradients);
  fresh.add(alone.weights, alone.gradients);
  for (int t = 0; t < 12; ++t) {
    late.compute(t);
    alone.compute(t);
    opt.step();
    fresh.step();
    CHECK(same(late.weights, alone.weights));
  }
  CHECK(opt.step_count(first) == 16);
  CHECK(opt.step_count(second) == 12);
}

TEST_CASE("freeze: keeps weights, state and step count")
{
  auto model = tensors<float>();
  tensor<float> alone(4133, 2);
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9}), sole({.lr = 0.01, .beta2 = 0.9});
  std::vector<gradus::tensor_handle> handles;
  for (auto& x : model)
    handles.push_back(opt.add(x.weights, x.gradients));
  sole.add(alone.weights, alone.gradients);
  int taken = 0;
  for (int t = 0; t < 20; ++t) {
    const bool out = t % 5 == 1 || (t > 6 && t < 10);
    for (auto& x : model)
      x.compute(t);
    out ? opt.freeze(handles[1]) : opt.unfreeze(handles[1]);
    if (out)
      opt.freeze(handles[1]);  // again, without effect
    const auto weights = model[1].weights;
    const auto before = save(opt);
    opt.step();
    CHECK(opt.step_count(handles[0]) == std::uint64_t(t + 1));
    if (out) {
      CHECK(same(model[1].weights, weights));
      auto after = save(opt);
      for (const char* key : {"tensor1/exp_avg", "tensor1/exp_avg_sq", "tensor1/step"})
        CHECK((after.at(key) == before.at(key)));
      continue;
    }
    ++taken;
    alone.compute(t);
    sole.step();
    CHECK(same(model[1].weights, alone.weights));
  }
  CHECK(opt.step_count(handles[1]) == std::uint64_t(taken));
  CHECK(opt.parameter_count() == 5 + 4133 + 40);
}

TEST_CASE("freeze: a step changes nothing if all tensors are frozen")
{
  tensor<float> a(9, 1);
  const auto start = a.weights;
  gradus::optimizer<gradus::adams> opt(scheduled);
  const auto h = opt.add(a.weights, a.gradients);
  opt.freeze(h);
  const auto report = opt.step();
  CHECK(report.applied);
  CHECK(report.grad_norm == 0);
  CHECK(report.mean_square == 0);
  CHECK(same(a.weights, start));
  CHECK(opt.step_count(h) == 0);
  // The norm of no gradients is 0, and may be said.
  CHECK_NOTHROW(opt.step({.grad_norm_sq = 0}));
  CHECK(same(a.weights, start));
}

TEST_CASE("freeze, unfreeze: between two steps they change no bit")
{
  // Few elements and a strong decay, so that v̄'s last bits reach the weights.
  auto model = tensors<float>({3, 2}), other = tensors<float>({3, 2});
  auto strong = scheduled;
  strong.weight_decay = 20;
  gradus::optimizer<gradus::adams> opt(strong), reference(strong);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 2; ++i) {
    handles.push_back(opt.add(model[i].weights, model[i].gradients));
    reference.add(other[i].weights, other[i].gradients);
  }
  for (int t = 0; t < 20; ++t) {
    for (auto* m : {&model, &other})
      for (auto& x : *m)
        x.compute(t);
    if (t % 4 == 3) {
      opt.freeze(handles[1]);
      opt.unfreeze(handles[1]);
    }
    const auto report = opt.step();
    CHECK(*report.mean_square == *reference.step().mean_square);
  }
  CHECK(same(model, other));
}

TEST_CASE("freeze, remove: however tensors come, pause and go, each has a step count of its own")
{
  support::random r(5);
  const auto below = [&](std::size_t n) { return std::size_t(r.uniform(0, double(n))); };
  constexpr std::size_t n = 40;
  auto model = tensors<float>(std::vector<std::size_t>(n, 3)), alone = model;
  gradus::optimizer<gradus::radam> opt({.lr = 0.01, .beta2 = 0.9});
  std::vector<gradus::optimizer<gradus::radam>> each;
  std::vector<gradus::tensor_handle> handles;
  std::vector<bool> takes_part(n, true);
  const auto group = opt.add_group({.lr = 0.02, .beta2 = 0.9});
  for (std::size_t i = 0; i < n; ++i) {
    each.emplace_back(opt.hyperparameters(i % 3 ? gradus::group_handle{} : group));
    each.back().add(alone[i].weights, alone[i].gradients);
    handles.push_back(opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients,
                              i % 3 ? gradus::group_handle{} : group));
  }
  for (int t = 0; t < 60; ++t) {
    for (std::size_t k = 0; k < 15; ++k) {
      const std::size_t i = below(n);
      if (below(4) == 0) {
        opt.remove(handles[i], gradus::removed_state::kept);
        handles[i] = opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients);
        takes_part[i] = true;
      } else {
        takes_part[i] ? opt.freeze(handles[i]) : opt.unfreeze(handles[i]);
        takes_part[i] = !takes_part[i];
      }
    }
    if (t % 10 == 5)  // all but a few, so that cohorts are done with
      for (std::size_t i = 3; i < n; ++i) {
        opt.freeze(handles[i]);
        takes_part[i] = false;
      }
    opt.step();
    for (std::size_t i = 0; i < n; ++i)
      if (takes_part[i])
        each[i].step();
    CHECK(same(model, alone));
  }
}

// ── scalars ─────────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

// NAdam for one weight, in a plain loop.
struct one_weight {
  double theta, m = 0, v = 0, product = 1;
  int t = 0;
  void step(const gradus::nadam& h, double g)
  {
    const auto mu = [&](int k) { return h.beta1 * (1 - 0.5 * std::pow(0.96, k * h.momentum_decay)); };
    product *= mu(++t);
    m = h.beta1 * m + (1 - h.beta1) * g;
    v = h.beta2 * v + (1 - h.beta2) * g * g;
    const double root = std::sqrt(v / (1 - std::pow(h.beta2, t))) + h.eps;
    theta -= h.lr * ((1 - mu(t)) / (1 - product) * g + mu(t + 1) / (1 - product * mu(t + 1)) * m) / root;
  }
};

}  // namespace

TEST_CASE("cohorts: tensors with one group and step count, but different scalars, keep these, also when resumed")
{
  const gradus::nadam fast{.lr = 0.1, .momentum_decay = 2}, slow{.lr = 0.1, .momentum_decay = 0.01};
  std::vector<double> w[3] = {{1}, {2}, {3}}, g[3] = {{0.5}, {0.25}, {0.125}};
  one_weight expected[3] = {{1}, {2}, {3}};
  gradus::optimizer<gradus::nadam, double> first(fast), second(slow);
  gradus::tensor_handle of_first[3], of_second[3];
  for (int k = 0; k < 3; ++k)
    of_first[k] = first.add(std::string(1, char('a' + k)), w[k], g[k]);
  // Each tensor sits out some steps. All take four, but under different hyperparameters.
  const bool takes_part[3][6] = {{1, 1, 1, 1, 0, 0}, {1, 1, 0, 0, 1, 1}, {1, 0, 1, 1, 1, 0}};
  for (int step = 0; step < 6; ++step) {
    const gradus::nadam& h = step < 3 ? fast : slow;
    first.set_hyperparameters(h);
    for (int k = 0; k < 3; ++k) {
      takes_part[k][step] ? first.unfreeze(of_first[k]) : first.freeze(of_first[k]);
      if (takes_part[k][step])
        expected[k].step(h, g[k][0]);
    }
    first.step();
  }
  for (int k = 0; k < 3; ++k) {
    first.unfreeze(of_first[k]);
    CHECK(first.step_count(of_first[k]) == 4);
  }
  CHECK(expected[0].product != doctest::Approx(expected[1].product));
  CHECK(expected[0].product != doctest::Approx(expected[2].product));
  const auto check = [&] {
    for (int k = 0; k < 3; ++k) {
      expected[k].step(slow, g[k][0]);
      CHECK(w[k][0] == doctest::Approx(expected[k].theta).epsilon(1e-13));
    }
  };
  first.step();
  check();
  const auto saved = save(first);
  for (int k = 0; k < 3; ++k)
    of_second[k] = second.add(std::string(1, char('a' + k)), w[k], g[k]);
  restore(second, saved);
  CHECK(save(second) == saved);
  second.step();
  check();
  // A step that is not taken keeps the scalars.
  const auto before = save(second);
  g[1][0] = std::numeric_limits<double>::infinity();
  CHECK_FALSE(second.step({.skip_nonfinite = true}).applied);
  CHECK(save(second) == before);
  g[1][0] = 0.5;
  second.step({.skip_nonfinite = true});
  check();
}
