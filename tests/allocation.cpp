// A step allocates nothing, on any path; and where memory runs out in a call that does allocate, nothing has changed.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

#include "support/starve.hpp"

namespace {

using support::allocations;

template <class F>
long allocations_in(F&& f)
{
  const long before = allocations;
  f();
  return allocations - before;
}

// Sizes that make several pieces, a tail, and nothing.
struct tensor {
  std::vector<float> weights, gradients;
  explicit tensor(std::size_t n) : weights(n, 1.0f), gradients(n, 0.5f) {}
};

// Steps with all that they can be told, through all that can become of tensors.
template <class Recipe, class Backend = gradus::default_backend>
void check_steps(const Recipe& recipe, Backend backend = {})
{
  using optimizer = gradus::optimizer<Recipe, float, Backend>;
  tensor a(270000), b(4133), c(37), d(0), e(5000);
  optimizer opt(recipe, backend);
  const auto group = opt.add_group(recipe);
  const auto steps = [&](bool norm_may_be_given) {
    CHECK(allocations_in([&] { opt.step(); }) == 0);
    CHECK(allocations_in([&] { opt.step({.lr_scale = 0.5, .grad_scale = 2}); }) == 0);
    CHECK(allocations_in([&] { opt.step({.max_grad_norm = 1}); }) == 0);
    CHECK(allocations_in([&] { opt.step({.skip_nonfinite = true}); }) == 0);
    CHECK(allocations_in([&] { opt.step({.flush_denormals = true}); }) == 0);
    if (norm_may_be_given)
      CHECK(allocations_in([&] { opt.step({.max_grad_norm = 1, .grad_norm_sq = 2}); }) == 0);
    a.gradients[269999] = HUGE_VALF;
    gradus::step_report report;
    CHECK(allocations_in([&] { report = opt.step({.skip_nonfinite = true}); }) == 0);
    CHECK_FALSE(report.applied);
    a.gradients[269999] = 0.5f;
  };
  const auto h = opt.add(a.weights, a.gradients);
  steps(true);
  // A second age, a third; another group; nothing.
  const auto late = opt.add("late", b.weights, b.gradients);
  steps(!gradus::optimizer<Recipe>::rule_type::scheduled_in_one_pass);
  opt.add(c.weights, c.gradients, group);
  opt.add(d.weights, d.gradients, group);
  steps(!gradus::optimizer<Recipe>::rule_type::scheduled_in_one_pass);
  CHECK(allocations_in([&] { opt.freeze(late); }) == 0);
  steps(false);
  CHECK(allocations_in([&] { opt.unfreeze(late); }) == 0);
  steps(false);
  const auto elsewhere = std::span(e.weights).first(4133), its_gradients = std::span(e.gradients).first(4133);
  CHECK(allocations_in([&] { opt.rebind(late, elsewhere, its_gradients); }) == 0);
  steps(false);
  CHECK(allocations_in([&] { opt.remove(late, gradus::removed_state::kept); }) == 0);
  steps(false);
  opt.add("late", b.weights, b.gradients);
  steps(false);
  CHECK(allocations_in([&] { opt.recompute_second_moment_sum(); }) == 0);
  steps(false);
  opt.visit_state([](auto, auto, auto) {});
  steps(false);
  CHECK(allocations_in([&] {
          optimizer moved(std::move(opt));
          opt = std::move(moved);
        }) == 0);
  steps(false);
  CHECK(opt.step_count(h) > 0);
}

std::string text_of(const auto& opt)
{
  std::string all = std::to_string(opt.parameter_count()) + ' ' + std::to_string(opt.state_bytes());
  for (std::size_t g = 0; g < opt.group_count(); ++g)
    for (const auto& [name, value] : gradus::detail::numbers_of(opt, g))
      all.append(name) += ' ' + std::to_string(value);
  opt.visit_tensors([&](std::string_view name, auto parameters, std::size_t group, bool takes_part) {
    all.append(name) += ' ' + std::to_string(group) + ' ' + std::to_string(takes_part);
    for (const auto& x : parameters)
      all.append(reinterpret_cast<const char*>(&x), sizeof x);
  });
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    all.append(name).append(key);
    for (const auto& x : values)
      all.append(reinterpret_cast<const char*>(&x), sizeof x);
  });
  return all;
}

// `starve` for a call that leaves the optimizer as it was.
template <class Optimizer, class Call>
int starve(Optimizer& opt, Call&& call)
{
  const std::string before = text_of(opt);
  return support::starve(call, [&] { return text_of(opt) == before; });
}

}  // namespace

TEST_CASE("support: allocations are counted")
{
  CHECK(allocations_in([] { ::operator delete(::operator new(1)); }) == 1);
  CHECK(allocations_in([] { ::operator delete[](::operator new[](1, std::nothrow)); }) == 1);
  CHECK(allocations_in([] {
          ::operator delete(::operator new(1, std::align_val_t(64), std::nothrow), std::align_val_t(64));
        }) == 1);
  tensor a(3);
  gradus::optimizer<gradus::sgd> opt({.momentum = 0.5});
  CHECK(allocations_in([&] { opt.add(a.weights, a.gradients); }) > 0);
}

TEST_CASE("step: allocates nothing")
{
  using namespace gradus;
  check_steps(sgd{.momentum = 0.9});
  check_steps(adams{.weight_decay = 0.1});                                  // one pass
  check_steps(compose(1e-3, first_moment::ema{}, second_moment::ema_max{},  // two passes
                      step_size::adaptive{}, decay::scheduled{.weight_decay = 0.1}));
  check_steps(adams{.weight_decay = 0.1}, backend::parallel(backend::scalar{}, executor::serial{}));
}

TEST_CASE("update: the kernel layer allocates nothing")
{
  using namespace gradus;
  tensor x(5000);
  std::vector<float> m(5000), v(5000), top(5000);
  double mean_square = 0;
  bool good = true;
  const auto rule = compose(1e-3, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{},
                            decay::scheduled{});
  CHECK(allocations_in([&] {
          const default_backend backend;
          step_scalars k = make_step_scalars(rule, 1, 1.0, 0);
          const auto moments = prepare<float>(rule, k);
          good = good && update_moments(backend, moments, x.weights, x.gradients, {m, v, top});
          mean_square = sum(backend, std::span<const float>(top)) / k.bc2 / 5000;
          k.mean_square = mean_square;
          good = good && update_weights(backend, prepare<float>(rule, k), x.weights, x.gradients, {m, v, top});
          const auto one_pass = adams{}.rule();
          k = make_step_scalars(one_pass, 1, 1.0, 0);
          k.mean_square = next_second_moment_sum<float>(one_pass.second_moment, 0.0,
                                                        squared_norm(backend, std::span<const float>(x.gradients))) /
                          k.bc2 / 5000;
          good = good && update(backend, prepare<float>(one_pass, k), x.weights, x.gradients, {m, v});
        }) == 0);
  CHECK(good);
  CHECK(mean_square == doctest::Approx(0.25).epsilon(1e-6));
}

TEST_CASE("optimizer: a call that runs out of memory changes nothing and can be repeated")
{
  tensor a(100), b(50), c(20);
  gradus::optimizer<gradus::sgd, float, gradus::backend::scalar> opt({.lr = 0.1});
  gradus::optimizer<gradus::sgd, float, gradus::backend::scalar> twin({.lr = 0.1});
  tensor a2(100), b2(50), c2(20);
  gradus::group_handle group, twins_group;
  gradus::tensor_handle hb, hb2;
  const std::string long_name(100, 'x');

  CHECK(starve(opt, [&] { group = opt.add_group({.lr = 0.1}); }) > 0);
  twins_group = twin.add_group({.lr = 0.1});
  CHECK(starve(opt, [&] { opt.add(a.weights, a.gradients, group); }) > 0);
  twin.add(a2.weights, a2.gradients, twins_group);
  CHECK(starve(opt, [&] { hb = opt.add(long_name, b.weights, b.gradients, group); }) > 0);
  hb2 = twin.add(long_name, b2.weights, b2.gradients, twins_group);
  CHECK(starve(opt, [&] { opt.step(); }) == 0);
  twin.step();
  // Two tensors need a buffer each.
  CHECK(starve(opt, [&] { opt.set_hyperparameters({.lr = 0.1, .momentum = 0.9}, group); }) > 1);
  twin.set_hyperparameters({.lr = 0.1, .momentum = 0.9}, twins_group);
  opt.step();
  twin.step();
  // Nothing that gives back can fail.
  CHECK(starve(opt, [&] { opt.freeze(hb); }) == 0);
  CHECK(starve(opt, [&] { opt.remove(hb, gradus::removed_state::kept); }) == 0);
  twin.remove(hb2, gradus::removed_state::kept);
  // It comes back to a group whose momentum is 0, and then once more to one that has a momentum.
  starve(opt, [&] { hb = opt.add(long_name, b.weights, b.gradients, gradus::group_handle{}); });
  hb2 = twin.add(long_name, b2.weights, b2.gradients, gradus::group_handle{});
  opt.remove(hb, gradus::removed_state::kept);
  twin.remove(hb2, gradus::removed_state::kept);
  CHECK(starve(opt, [&] { hb = opt.add(long_name, b.weights, b.gradients, group); }) > 0);
  hb2 = twin.add(long_name, b2.weights, b2.gradients, twins_group);
  CHECK(starve(opt, [&] { opt.add("c", c.weights, c.gradients); }) > 0);
  twin.add("c", c2.weights, c2.gradients);
  CHECK(starve(opt, [&] { opt.remove(hb, gradus::removed_state::dropped); }) == 0);
  twin.remove(hb2, gradus::removed_state::dropped);
  for (int t = 0; t < 3; ++t) {
    opt.step();
    twin.step();
  }
  CHECK((text_of(opt) == text_of(twin)));
  CHECK((a.weights == a2.weights));
  CHECK((b.weights == b2.weights));
  CHECK((c.weights == c2.weights));
}

// ── every member, with memory for no allocation, for one, for two, … ─────────────────────────────────────────────────

namespace {

std::vector<std::byte> bytes_of(const auto& opt, bool parameters)
{
  std::vector<std::byte> all;
  gradus::save_to(opt,
                  [&](const void* p, std::size_t n) {
                    const auto* const bytes = static_cast<const std::byte*>(p);
                    all.insert(all.end(), bytes, bytes + n);
                    return true;
                  },
                  {.parameters = parameters});
  return all;
}

// \tparam Parameter, Gradient  what Optimizer's are
template <class Optimizer, class Parameter, class Gradient>
void starve_every_member(Optimizer opt, const auto& raised, const auto& lowered)
{
  std::vector<std::vector<Parameter>> w(20, std::vector<Parameter>(300));
  std::vector<std::vector<Gradient>> g(20, std::vector<Gradient>(300));
  const auto name = [](std::size_t i) { return "a name that is too long to be kept in place " + std::to_string(i); };
  std::vector<gradus::tensor_handle> h(w.size());
  gradus::group_handle group;
  starve(opt, [&] { group = opt.add_group(raised); });
  for (std::size_t i = 0; i + 1 < w.size(); ++i) {
    const std::string own = name(i);
    const auto is_last = [](std::size_t k) { return k > 200; };
    const gradus::padding_mask padding(is_last);
    if (i % 3 == 2)
      CHECK(starve(opt, [&] { h[i] = opt.add_spans(own, w[i], std::nullopt, group); }) > 0);
    else if (i == 6)
      CHECK(starve(opt, [&] {
              h[i] = opt.add_spans(own, w[i], std::span<const Gradient>(g[i]), group, nullptr, &padding);
            }) > 0);
    else
      CHECK(starve(opt, [&] { h[i] = opt.add(own, w[i], g[i], i % 2 ? group : gradus::group_handle{}); }) > 0);
  }
  CHECK(starve(opt, [&] { opt.step(); }) == 0);
  CHECK(starve(opt, [&] { opt.report(); }) == 0);
  CHECK(starve(opt, [&] { opt.rebind_gradients_spans(h[2], g[2]); }) == 0);
  CHECK(starve(opt, [&] { opt.unbind_gradients(h[2]); }) == 0);
  CHECK(starve(opt, [&] { opt.rebind_gradients_spans(h[2], g[2]); }) == 0);
  for (std::size_t i = 0; i < 20; i += 2) {
    CHECK(starve(opt, [&] { opt.freeze(h[i]); }) == 0);
    CHECK(starve(opt, [&] { opt.step(); }) == 0);
  }
  for (const std::size_t i : {0u, 2u, 4u, 6u})
    CHECK(starve(opt, [&] { opt.unfreeze(h[i]); }) == 0);
  const std::vector<typename Optimizer::rebinding> round{{h[0], w[1], g[1]}, {h[1], w[0], g[0]}};
  CHECK(starve(opt, [&] { opt.rebind_spans(round); }) == 0);
  CHECK(starve(opt, [&] { opt.rebind(h[3], w.back(), g.back()); }) == 0);
  CHECK(starve(opt, [&] { opt.set_padding(h[4], [](std::size_t i) { return i > 200; }); }) > 0);
  starve(opt, [&] { opt.set_hyperparameters(lowered, group); });
  starve(opt, [&] { opt.set_hyperparameters(raised, group); });
  CHECK(starve(opt, [&] { opt.set_lr(0.25, group); }) == 0);
  CHECK(starve(opt, [&] { opt.recompute_second_moment_sum(); }) == 0);
  if constexpr (requires { opt.set_seed(1); })
    CHECK(starve(opt, [&] { opt.set_seed(opt.seed() + 1); }) == 0);
  if constexpr (requires { opt.reset_master(h[0]); })
    CHECK(starve(opt, [&] { opt.reset_master(h[0]); }) == 0);
  // Remainders are shown as a copy in float, and a removed tensor keeps its parameters with them.
  constexpr bool copies = [] {
    if constexpr (requires { typename Optimizer::master_type; })
      return std::is_same_v<typename Optimizer::master_type, gradus::remainder16>;
    return false;
  }();
  CHECK((starve(opt, [&] { opt.visit_state([](auto, auto, auto) {}); }) > 0) == copies);
  CHECK(starve(opt, [&] { opt.visit_tensors([](auto, auto, auto, bool&) {}); }) == 0);
  starve(opt, [&] { (void)opt.hyperparameters(group); });
  // What a load finds is not what it leaves: other weights, state, hyperparameters, and who takes part.
  const auto bytes = bytes_of(opt, true);
  opt.set_lr(0.5, group);
  opt.set_lr(0.75);
  opt.unfreeze(h[12]);
  opt.freeze(h[13]);
  for (auto& tensor : w)
    tensor.assign(300, tensor[0]);
  opt.step();
  CHECK(starve(opt, [&] { gradus::load_from(opt, bytes); }) > 0);
  CHECK((bytes_of(opt, true) == bytes));
  for (std::size_t i = 0; i + 1 < w.size(); ++i)
    CHECK((starve(opt, [&] {
             opt.remove(h[i], i % 3 ? gradus::removed_state::dropped : gradus::removed_state::kept);
           }) > 0) == (copies && i % 3 == 0));
  for (std::size_t i = 0; i + 1 < w.size(); ++i) {
    const std::string own = name(i);
    CHECK(starve(opt, [&] { h[i] = opt.add(own, w[i], g[i], group); }) > 0);
  }
  opt.step();
}

}  // namespace

TEST_CASE("every member: where memory runs out, nothing has changed")
{
  using namespace gradus;
  using backend = backend::scalar;
  starve_every_member<optimizer<sgd, float, backend>, float, float>(optimizer<sgd, float, backend>(),
                                                                    sgd{.momentum = 0.5}, sgd{});
  starve_every_member<optimizer<adams, double, backend>, double, double>(optimizer<adams, double, backend>(),
                                                                         adams{.lr = 0.1}, adams{});
  using codes = precision<bfloat16, bfloat16, block8, float>;
  starve_every_member<optimizer<adamw, codes, backend>, bfloat16, bfloat16>(optimizer<adamw, codes, backend>(),
                                                                            adamw{.lr = 0.1}, adamw{});
  using remainders = precision<bfloat16, bfloat16, float, remainder16>;
  starve_every_member<optimizer<adamw, remainders, backend>, bfloat16, bfloat16>(
      optimizer<adamw, remainders, backend>(), adamw{.lr = 0.1}, adamw{});
  const std::vector<named_number> raised{{"lr", 0.125}, {"momentum", 0.5}}, lowered{{"momentum", 0.0}};
  starve_every_member<any_optimizer<float, backend>, float, float>(any_optimizer<float, backend>("sgd"), raised,
                                                                   lowered);
}

TEST_CASE("load: numbers of another precision, under memory pressure, are loaded whole or not at all")
{
  using namespace gradus;
  std::vector<float> w(300, 0.5f), g(300, 0.25f), v(300, 0.0f);
  std::vector<double> wide(300, 1.0), wide_g(300, 2.0);
  optimizer<adams, float, backend::scalar> from({.lr = 0.5});
  from.add("a tensor with a long name, the first of two", w, g);
  from.add("a tensor with a long name, the second of two", v, g);
  from.step();
  const auto bytes = bytes_of(from, true);
  optimizer<adams, double, backend::scalar> to({.lr = 0.25});
  std::vector<double> wide_too(300, 1.0);
  to.add("a tensor with a long name, the first of two", wide, wide_g);
  to.add("a tensor with a long name, the second of two", wide_too, wide_g);
  to.step();
  CHECK(starve(to, [&] { load_from(to, bytes, {.convert = true}); }) > 0);
  CHECK(to.lr() == 0.5);
  CHECK(wide[7] == double(w[7]));
}

TEST_CASE("a call that is not refused makes no sentence: rebinding and learning rates allocate nothing")
{
  std::vector<float> w(2000), g(2000);
  gradus::optimizer<gradus::adamw> opt;
  gradus::any_optimizer<float> any("adamw");
  std::vector<float> w2(2000), g2(2000);
  std::vector<gradus::tensor_handle> h, h2;
  for (std::size_t i = 0; i < 1000; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".attention.query_projection.weight";
    h.push_back(opt.add(name, std::span(w).subspan(i, 1), std::span(g).subspan(i, 1)));
    h2.push_back(any.add(name, std::span(w2).subspan(i, 1), std::span(g2).subspan(i, 1)));
  }
  for (const std::size_t at : {1000u, 1000u, 0u, 500u})
    CHECK(allocations_in([&] {
            for (std::size_t k = 0; k < 1000; ++k) {
              const std::size_t i = at == 500 ? 999 - k
                                              : k;  // upwards where it moves down, or it would meet its neighbours
              opt.rebind(h[i], std::span(w).subspan(at + i, 1), std::span(g).subspan(at + i, 1));
              any.rebind(h2[i], std::span(w2).subspan(at + i, 1), std::span(g2).subspan(at + i, 1));
            }
            opt.set_lr(0.5);
            any.set_lr(0.5);
            opt.step();
            any.step();
          }) == 0);
}
