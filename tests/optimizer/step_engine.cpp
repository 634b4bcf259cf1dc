// Engines besides the two that gradus has: one that a backend names, and steps that two threads take together, each with
// a part of the model, as processes on several machines would.

#include <doctest/doctest.h>

#include <array>
#include <barrier>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gradus/gradus.hpp>

namespace {

// ── an engine that a backend names ───────────────────────────────────────────────────────────────────────────────────

// Takes the host's phases one by one, and notes their order.
template <class Parts, class Backend>
struct noting_step : gradus::detail::host_step<Parts, Backend> {
  using host = gradus::detail::host_step<Parts, Backend>;
  using host::host;

  gradus::step_report step(Parts& p, const gradus::step_options& o)
  {
    std::string& notes = *host::backend().notes;
    p.refresh();
    const auto norm = host::measure(p, o);
    notes += norm.known ? "norm " : "no norm ";
    if (!host::decide(p, o, norm)) {
      notes += "skipped ";
      return host::report();
    }
    if (host::has_two_phases(o)) {
      host::compute_moments(p, o);
      notes += "moments ";
    }
    host::schedule(p, o, norm);
    host::compute_weights(p, o);
    notes += "weights ";
    p.count_steps();
    return host::report();
  }
};

struct noting : gradus::default_backend {
  std::string* notes = nullptr;

  template <class Parts>
  using engine_type = noting_step<Parts, noting>;
};

// ── steps that two threads take together ─────────────────────────────────────────────────────────────────────────────

constexpr std::size_t thread_count = 2;

// What the threads share: each puts its sums there, and all add up all of them.
struct meeting {
  std::barrier<> all{thread_count};
  std::array<std::vector<gradus::exact_sum>, thread_count> sums;
};

struct together : gradus::default_backend {
  meeting* with = nullptr;
  std::size_t rank = 0;

  void add_up(std::span<gradus::exact_sum> mine)
  {
    with->sums[rank].assign(mine.begin(), mine.end());
    with->all.arrive_and_wait();
    for (std::size_t k = 0; k < mine.size(); ++k)
      mine[k].add(with->sums[1 - rank][k]);
    with->all.arrive_and_wait();  // before the next sums overwrite these
  }
};

// A model of some tensors, of which every second one has a group of its own.
template <class T>
struct model {
  std::vector<std::vector<T>> weights, gradients;

  model()
  {
    for (const std::size_t n : {5u, 4096u, 9001u, 64u, 4097u}) {
      weights.emplace_back(n, T(1));
      gradients.emplace_back(n);
    }
  }
  void compute(int t)
  {
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < weights[k].size(); ++i)
        gradients[k][i] = T(std::sin(double(i + 1) * (t + 1) * 0.37) * double(k + 1));
  }
  // Tensors that another thread has are empty here, so that all threads have the same list of tensors.
  template <class Opt>
  void add_to(Opt& opt, typename Opt::recipe_type second, std::size_t rank, std::size_t of)
  {
    const auto g = opt.add_group(second);
    for (std::size_t k = 0; k < weights.size(); ++k) {
      const std::size_t n = k % of == rank ? weights[k].size() : 0;
      opt.add_spans("t" + std::to_string(k), std::span(weights[k]).first(n), std::span<const T>(gradients[k]).first(n),
                    k % 2 ? std::optional(g) : std::nullopt);
    }
  }
};

// Takes steps once alone and once together, and compares weights and reports.
template <class Recipe, class T = float, class Change>
void compare(Recipe first, Recipe second, const gradus::step_options& o, const Change& change)
{
  constexpr int steps = 5;
  model<T> whole, shared;
  std::vector<gradus::step_report> reports[1 + thread_count];
  const auto train = [&](auto& opt, model<T>& m, std::vector<gradus::step_report>& got, auto&& meet) {
    for (int t = 0; t < steps; ++t) {
      meet([&] {
        m.compute(t);
        change(m, t);
      });
      got.push_back(opt.step(o));
    }
  };
  gradus::optimizer<Recipe, T> alone(first);
  whole.add_to(alone, second, 0, 1);
  train(alone, whole, reports[thread_count], [](auto&& f) { f(); });

  meeting with;
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < thread_count; ++rank)
    threads.emplace_back([&, rank] {
      together backend;
      backend.with = &with;
      backend.rank = rank;
      gradus::optimizer<Recipe, T, together> opt(first, backend);
      shared.add_to(opt, second, rank, thread_count);
      train(opt, shared, reports[rank], [&](auto&& f) {
        with.all.arrive_and_wait();
        if (rank == 0)
          f();
        with.all.arrive_and_wait();
      });
    });
  for (auto& thread : threads)
    thread.join();

  for (std::size_t rank = 0; rank < thread_count; ++rank)
    for (std::size_t t = 0; t < steps; ++t) {
      const auto &got = reports[rank][t], &expected = reports[thread_count][t];
      CHECK(got.applied == expected.applied);
      CHECK(got.mean_square == expected.mean_square);
      CHECK(got.decay_factor == expected.decay_factor);
      CHECK(got.grad_norm.has_value() == expected.grad_norm.has_value());
      if (got.grad_norm && std::isfinite(*expected.grad_norm))
        CHECK(*got.grad_norm == *expected.grad_norm);
    }
  for (std::size_t k = 0; k < whole.weights.size(); ++k)
    CHECK(std::memcmp(whole.weights[k].data(), shared.weights[k].data(), whole.weights[k].size() * sizeof(T)) == 0);
}

template <class Recipe, class T = float>
void compare(Recipe first, Recipe second, const gradus::step_options& o = {})
{
  compare<Recipe, T>(first, second, o, [](model<T>&, int) {});
}

}  // namespace

TEST_CASE("step_engine: a backend's own engine takes the steps, phase by phase")
{
  std::string notes;
  noting backend;
  backend.notes = &notes;
  std::vector<float> w(100, 1), g(100, 2), twin_w = w;
  SUBCASE("weights alone")
  {
    gradus::optimizer<gradus::adamw, float, noting> opt({}, backend);
    opt.add(w, g);
    gradus::optimizer<gradus::adamw> twin;
    twin.add(twin_w, g);
    opt.step();
    twin.step();
    CHECK(notes == "no norm weights ");
  }
  SUBCASE("a place between moments and weights")
  {
    const auto recipe = gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema_max{},
                                        gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
    gradus::optimizer<std::remove_const_t<decltype(recipe)>, float, noting> opt(recipe, backend);
    opt.add(w, g);
    gradus::optimizer twin(recipe);
    twin.add(twin_w, g);
    opt.step();
    twin.step();
    CHECK(notes == "no norm moments weights ");
  }
  SUBCASE("a step that is skipped")
  {
    gradus::optimizer<gradus::adamw, float, noting> opt({}, backend);
    opt.add(w, g);
    g[3] = std::numeric_limits<float>::infinity();
    CHECK(!opt.step({.skip_nonfinite = true}).applied);
    CHECK(notes == "norm skipped ");
  }
  CHECK(w == twin_w);
}

TEST_CASE("host_step: steps that are shared have the bits of steps alone, with a norm")
{
  compare<gradus::adamw>({}, {.weight_decay = 0}, {.max_grad_norm = 0.5});
  compare<gradus::sgd>({.lr = 0.1}, {.lr = 0.01, .momentum = 0.9}, {.max_grad_norm = 0.5});
  compare<gradus::adamw, double>({}, {.weight_decay = 0}, {.max_grad_norm = 0.5});
}

TEST_CASE("host_step: steps that are shared have the bits of steps alone, with a scheduled decay")
{
  compare<gradus::adams>({.weight_decay = 0.1}, {.weight_decay = 0});
  compare<gradus::adams>({.weight_decay = 0.1}, {.beta2 = 0.9, .weight_decay = 0.1}, {.max_grad_norm = 0.5});
  compare<gradus::adams, double>({.weight_decay = 0.1}, {.beta2 = 0.9, .weight_decay = 0.1}, {.max_grad_norm = 0.5});
  const auto two_phases = [](double beta2) {
    return gradus::compose(1e-3, gradus::first_moment::ema{}, gradus::second_moment::ema_max{.beta2 = beta2},
                           gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
  };
  compare(two_phases(0.999), two_phases(0.999));
  compare(two_phases(0.999), two_phases(0.9), {.max_grad_norm = 0.5});
}

TEST_CASE("host_step: a gradient that is not finite in one part lets all parts skip")
{
  compare<gradus::adams>({.weight_decay = 0.1}, {}, {.skip_nonfinite = true}, [](model<float>& m, int t) {
    if (t % 2)
      m.gradients[1][7] = std::numeric_limits<float>::infinity();
  });
  // The norm that is given overflowed: the gradients themselves are looked at.
  compare<gradus::adamw>({}, {}, {.grad_norm_sq = std::numeric_limits<double>::infinity(), .skip_nonfinite = true},
                         [](model<float>& m, int t) {
                           if (t == 2)
                             m.gradients[0][1] = std::numeric_limits<float>::quiet_NaN();
                         });
  // Finite gradients that would overflow a moment in one part.
  compare<gradus::adamw>({}, {}, {.skip_nonfinite = true}, [](model<float>& m, int t) {
    if (t == 3)
      m.gradients[3][5] = 1e30f;
  });
}

TEST_CASE("host_step: squares of shared doubles that overflow or underflow are summed in another unit")
{
  compare<gradus::adamw, double>({}, {}, {.max_grad_norm = 1}, [](model<double>& m, int t) {
    for (auto& g : m.gradients)
      for (double& x : g)
        x *= t % 2 ? 1e200 : 1e-200;
  });
}
