// The parts of an optimizer stay consistent while tensors come, pause and go: in a step, each tensor counts in v̄ with
// its own moments, step count and β₂, and no tensor counts that does not take part.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/state.hpp"
#include "support/tensors.hpp"

namespace {

using gradus::removed_state;
using support::random, support::restore, support::save;

// An optimizer, and beside it a plain list of what was done to each tensor.
struct scene {
  using optimizer = gradus::optimizer<gradus::adams, double>;

  struct tensor {
    std::string name;
    std::vector<double> weights, gradients;
    std::vector<bool> is_padding;
    gradus::tensor_handle handle = {};
    std::size_t group = 0;
    std::uint64_t steps = 0;
    bool is_there = false, is_known = false, is_frozen = false;

    bool takes_part() const { return is_there && !is_frozen; }
    void draw_gradients(random& from)
    {
      for (std::size_t i = 0; i < gradients.size(); ++i)
        gradients[i] = is_padding[i] ? 0 : from.uniform(-1, 1) * from.magnitude(1e-3, 10);
    }
  };

  static constexpr double betas[] = {0.999, 0.99, 0.9, 0};
  random r;
  optimizer opt{recipe(0.999)};
  std::vector<tensor> tensors;

  static gradus::adams recipe(double beta2) { return {.lr = 0.01, .beta2 = beta2, .weight_decay = 0.1}; }

  explicit scene(std::uint64_t seed) : r(seed)
  {
    opt.add_group(recipe(0.999));
    opt.add_group(recipe(0.9));
    for (const std::size_t n : {1u, 2u, 7u, 40u, 40u, 5000u}) {
      tensor x;
      x.name = "t" + std::to_string(tensors.size());
      x.weights.assign(n, 0.5);
      x.gradients.resize(n);
      tensors.push_back(x);
    }
    for (tensor& x : tensors)
      add(x);
  }

  tensor& any() { return tensors[r.below(tensors.size())]; }
  double beta2(const tensor& x) const { return opt.hyperparameters(opt.group_at(x.group)).beta2; }

  void add(tensor& x)
  {
    if (x.is_known && r.chance(0.5)) {
      x.handle = opt.add(x.name, x.weights, x.gradients);  // which keeps its group
    } else {
      x.group = r.below(opt.group_count());
      x.handle = opt.add(x.name, x.weights, x.gradients, opt.group_at(x.group));
    }
    if (!x.is_known) {
      x.steps = 0;
      x.is_padding.assign(x.weights.size(), false);
    }
    x.is_there = x.is_known = true;
    x.is_frozen = false;
  }
  void remove(tensor& x)
  {
    const bool keeps = r.chance(0.7);
    opt.remove(x.handle, keeps ? removed_state::kept : removed_state::dropped);
    x.is_there = false;
    x.is_known = keeps;
  }
  void pad(tensor& x)
  {
    const double share = r.chance(0.3) ? 0 : r.uniform();
    for (std::size_t i = 0; i < x.weights.size(); ++i)
      x.is_padding[i] = r.chance(share);
    opt.set_padding(x.handle, x.is_padding);
  }
  // With sums that are unknown, or without a word about the sums, which then cannot be what they were.
  void write_step_counts()
  {
    const bool writes_sums = r.chance(0.5);
    opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
      using value = typename decltype(values)::value_type;
      if constexpr (std::is_same_v<value, std::uint64_t>) {
        if (key == "step" && values[0] > 0 && r.chance(0.5)) {
          values[0] = 1 + r.below(6);
          find(name).steps = values[0];
        }
      } else if constexpr (std::is_same_v<value, double>) {
        if (key == "exp_avg_sq_sum" && writes_sums)
          values[0] = std::numeric_limits<double>::quiet_NaN();
      }
    });
  }
  void visit_without_writing()
  {
    if (r.chance(0.5))
      opt.visit_state([](std::string_view, std::string_view, auto) {});
    else
      restore(opt, save(opt));
  }
  void freeze_by_visitor()
  {
    opt.visit_tensors([&](std::string_view name, auto, std::size_t group, bool& takes_part) {
      tensor& x = find(name);
      CHECK(group == x.group);
      CHECK(takes_part == x.takes_part());
      if (x.is_there && r.chance(0.3))
        takes_part = !takes_part;
      x.is_frozen = x.is_there ? !takes_part : x.is_frozen;
    });
  }
  tensor& find(std::string_view name)
  {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const tensor& x) { return x.name == name; });
  }

  void change()
  {
    tensor& x = any();
    switch (r.below(12)) {
    case 0: opt.set_hyperparameters(recipe(betas[r.below(4)]), opt.group_at(r.below(opt.group_count()))); break;
    case 1: visit_without_writing(); break;
    case 2: freeze_by_visitor(); break;
    case 3: write_step_counts(); break;
    case 4: opt.recompute_second_moment_sum(); break;
    case 5:
    case 6:
      if (x.is_there)
        pad(x);
      break;
    case 7:
    case 8: x.is_there ? remove(x) : add(x); break;
    default:
      if (!x.is_there)
        add(x);
      else if (r.chance(0.5)) {
        opt.freeze(x.handle);
        x.is_frozen = true;
      } else {
        opt.unfreeze(x.handle);
        x.is_frozen = false;
      }
    }
  }

  // Whether one norm serves all tensors that take part, as they have one β₂ and one step count.
  bool one_norm_serves() const
  {
    std::set<std::pair<double, std::uint64_t>> kinds;
    for (const tensor& x : tensors)
      if (x.takes_part())
        kinds.emplace(beta2(x), x.steps);
    return kinds.size() <= 1;
  }
  double squared_norm() const
  {
    gradus::exact_sum squares;
    for (const tensor& x : tensors)
      if (x.takes_part())
        gradus::add_squared_norm(gradus::backend::scalar{}, std::span<const double>(x.gradients), squares);
    return squares.value();
  }

  // v̄ from the moments, summed in extended precision.
  double mean_square() const
  {
    long double sum = 0;
    std::size_t count = 0;
    for (const tensor& x : tensors)
      if (x.takes_part()) {
        const long double correction = -std::expm1((long double)(x.steps) * std::log((long double)(beta2(x))));
        for (const double v : opt.state(x.name, "exp_avg_sq"))
          sum += v / correction;
        count += std::size_t(std::count(x.is_padding.begin(), x.is_padding.end(), false));
      }
    return count > 0 ? double(sum / (long double)(count)) : 0;
  }

  // One step, with options drawn at random. Nothing if no mean was to be computed.
  std::optional<double> step()
  {
    gradus::step_options o{.grad_scale = r.chance(0.5) ? 1 : 0.25};
    for (tensor& x : tensors)
      x.draw_gradients(r);
    if (r.chance(0.3))
      o.max_grad_norm = r.magnitude(0.1, 1000);
    o.skip_nonfinite = r.chance(0.3);
    if (r.chance(0.15))
      o.mean_square = r.magnitude(1e-3, 10);
    if (r.chance(0.3)) {
      const double squares = squared_norm();
      if (one_norm_serves() || o.mean_square)
        o.grad_norm_sq = squares;
      else {
        const auto before = save(opt);
        CHECK_THROWS_AS(opt.step({.grad_norm_sq = squares}), std::invalid_argument);
        CHECK((save(opt) == before));
      }
    }
    tensor& x = any();
    const bool skips = o.skip_nonfinite && !o.grad_norm_sq && x.takes_part() && !x.is_padding[0] && r.chance(0.5);
    if (skips)
      x.gradients[0] = std::numeric_limits<double>::infinity();
    const auto before = skips ? save(opt) : support::checkpoint{};
    opt.step(o);
    const auto report = opt.report();
    CHECK(report.applied == !skips);
    if (skips) {
      CHECK((save(opt) == before));
      return {};
    }
    for (tensor& each : tensors)
      each.steps += each.takes_part();
    if (!o.mean_square)
      return report.mean_square;
    CHECK(report.mean_square == o.mean_square);
    return {};
  }
};

}  // namespace

TEST_CASE("parts: whatever is done to tensors between steps, v̄ is the mean of the moments of those that take part")
{
  double worst = 0;
  int compared = 0, given = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    scene s(seed);
    for (int step = 0; step < 40; ++step) {
      CAPTURE(step);
      for (std::size_t changes = s.r.chance(0.3) ? 0 : s.r.below(5); changes > 0; --changes)
        s.change();
      if (s.r.chance(0.05))
        for (auto& x : s.tensors)  // one sum for all, so that a norm can be given
          if (x.is_there && (x.steps != s.tensors[0].steps || s.beta2(x) != s.beta2(s.tensors[0]))) {
            s.opt.freeze(x.handle);
            x.is_frozen = true;
          }
      if (std::none_of(s.tensors.begin(), s.tensors.end(), [](const auto& x) { return x.is_there; }))
        s.add(s.any());
      given += s.one_norm_serves();
      const std::optional<double> found = s.step();
      for (const auto& x : s.tensors)
        if (x.is_there)
          REQUIRE(s.opt.step_count(x.handle) == x.steps);
      if (!found)
        continue;
      const double expected = s.mean_square();
      const double error = expected == *found ? 0 : std::fabs(*found / expected - 1);
      REQUIRE(error < 1e-14);
      worst = std::fmax(worst, error);
      ++compared;
    }
  }
  MESSAGE("worst relative difference of v̄ in ", compared, " steps: ", worst, "; ", given, " with one sum");
  CHECK(compared > 1000);
  CHECK(given > 200);
}

TEST_CASE("add: a tensor that comes back, into another group, when the table is full")
{
  // Coming back makes room for one more tensor, which moves the table whenever it is full, as it is at some of these
  // numbers of tensors.
  for (std::size_t n = 1; n <= 20; ++n)
    for (std::size_t i = 0; i < n; ++i) {
      CAPTURE(n);
      CAPTURE(i);
      std::vector<double> weights(n, 1), gradients(n, 1);
      const auto add = [&](auto& opt, std::size_t k, gradus::group_handle g) {
        return opt.add("t" + std::to_string(k), std::span(weights).subspan(k, 1), std::span(gradients).subspan(k, 1),
                       g);
      };
      gradus::optimizer<gradus::adams, double> opt({.lr = 0});
      const auto moving = opt.add_group({.lr = 0.5});
      std::vector<gradus::tensor_handle> handles;
      for (std::size_t k = 0; k < n; ++k)
        handles.push_back(add(opt, k, {}));
      opt.remove(handles[i], removed_state::kept);
      handles[i] = add(opt, i, moving);
      opt.step();
      for (std::size_t k = 0; k < n; ++k) {
        CHECK(opt.step_count(handles[k]) == 1);
        CHECK((weights[k] != 1) == (k == i));
      }
    }
}
