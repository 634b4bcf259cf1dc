// A step allocates nothing, on any path; and where memory runs out in a call that does allocate, nothing has changed.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

// ── every operator new of this program, counted ──────────────────────────────────────────────────────────────────────

namespace {

long allocations = 0;
long until_failure = -1;  // how many more succeed; -1: all

void* allocate(std::size_t size, std::size_t alignment) noexcept
{
  ++allocations;
  if (until_failure == 0)
    return nullptr;
  if (until_failure > 0)
    --until_failure;
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment + (size == 0) * alignment);
}
void* allocate_or_throw(std::size_t size, std::size_t alignment = alignof(std::max_align_t))
{
  if (void* const p = allocate(size, alignment))
    return p;
  throw std::bad_alloc();
}
// Not inlined: GCC 12 takes a free that it sees in a delete for a mistake.
[[gnu::noinline]] void release(void* p) noexcept
{
  std::free(p);
}

}  // namespace

void* operator new(std::size_t n) { return allocate_or_throw(n); }
void* operator new[](std::size_t n) { return allocate_or_throw(n); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, std::size_t(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, alignof(std::max_align_t)); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, std::size_t(a)); }

void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

namespace {

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
  CHECK(allocations_in([&] { opt.leave_out(late); }) == 0);
  steps(false);
  opt.take_in(late);
  steps(false);
  opt.rebind(late, std::span(e.weights).first(4133), std::span(e.gradients).first(4133));
  steps(false);
  CHECK(allocations_in([&] { opt.remove(late, gradus::removed_state::kept); }) == 0);
  steps(false);
  opt.add("late", b.weights, b.gradients);
  steps(false);
  CHECK(allocations_in([&] { opt.resum(); }) == 0);
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
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    all.append(name).append(key);
    for (const auto x : values)
      all += ' ' + std::to_string(double(x));
  });
  return all;
}

// Calls with memory for one allocation, for two, … until it is enough; gives how often it was not.
template <class Optimizer, class Call>
int starve(Optimizer& opt, Call&& call)
{
  const std::string before = text_of(opt);
  for (int n = 0;; ++n) {
    bool failed = false;
    until_failure = n;
    try {
      call();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    until_failure = -1;
    if (!failed)
      return n;
    CHECK((text_of(opt) == before));
    REQUIRE(n < 100);
  }
}

}  // namespace

TEST_CASE("allocations are counted")
{
  CHECK(allocations_in([] { ::operator delete(::operator new(1)); }) == 1);
  CHECK(allocations_in([] { ::operator delete[](::operator new[](1, std::nothrow)); }) == 1);
  CHECK(allocations_in([] { ::operator delete(::operator new(1, std::align_val_t(64), std::nothrow), std::align_val_t(64)); }) == 1);
  tensor a(3);
  gradus::optimizer<gradus::sgd> opt({.momentum = 0.5});
  CHECK(allocations_in([&] { opt.add(a.weights, a.gradients); }) > 0);
}

TEST_CASE("a step allocates nothing")
{
  using namespace gradus;
  check_steps(sgd{.momentum = 0.9});
  check_steps(adams{.weight_decay = 0.1});                                 // one pass
  check_steps(compose(1e-3, first_moment::ema{}, second_moment::ema_max{}, // two passes
                      step_size::adaptive{}, decay::scheduled{.weight_decay = 0.1}));
  check_steps(adams{.weight_decay = 0.1}, backend::parallel(backend::scalar{}, executor::serial{}));
}

TEST_CASE("the engine layer allocates nothing")
{
  using namespace gradus;
  tensor x(5000);
  std::vector<float> m(5000), v(5000), top(5000);
  double mean_square = 0;
  bool good = true;
  const auto rule = compose(1e-3, first_moment::ema{}, second_moment::ema_max{}, step_size::adaptive{}, decay::scheduled{});
  CHECK(allocations_in([&] {
          const default_backend backend;
          tick k = make_tick(rule, 1, 1.0);
          const auto moments = prepare<float>(rule, k);
          good = good && update_moments(backend, moments, x.weights, x.gradients, {m, v, top});
          mean_square = sum(backend, std::span<const float>(top)) / k.bc2 / 5000;
          k.mean_square = mean_square;
          good = good && update_weights(backend, prepare<float>(rule, k), x.weights, x.gradients, {m, v, top});
          const auto one_pass = adams{}.rule();
          k = make_tick(one_pass, 1, 1.0);
          k.mean_square = next_second_moment_sum<float>(one_pass.second_moment, 0.0, squared_norm(backend, std::span<const float>(x.gradients))) / k.bc2 / 5000;
          good = good && update(backend, prepare<float>(one_pass, k), x.weights, x.gradients, {m, v});
        }) == 0);
  CHECK(good);
  CHECK(mean_square == doctest::Approx(0.25).epsilon(1e-6));
}

TEST_CASE("where memory runs out, nothing has changed, and the call may be tried again")
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
  CHECK(starve(opt, [&] { opt.leave_out(hb); }) == 0);
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
