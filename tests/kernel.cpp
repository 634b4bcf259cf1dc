// The kernel layer, for programs that own their memory: steps by hand give the optimizer's bits, and wrong lengths are
// rejected.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/compositions.hpp"
#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

constexpr gradus::default_backend backend{};

// One tensor of a program that manages its memory itself, and its twin for the optimizer.
template <class T, std::size_t Slots>
struct twins {
  std::vector<T> ours, theirs, gradients;
  std::array<std::vector<T>, Slots> slots;

  template <class Rule>
  twins(std::size_t n, const Rule& rule, support::random& r) : ours(n), gradients(n)
  {
    for (T& x : ours)
      x = T(r.uniform(-1, 1));
    theirs = ours;
    for (std::size_t k = 0; k < Slots; ++k)
      slots[k].assign(n, T(gradus::initial_value(rule, k)));
  }
  std::array<std::span<T>, Slots> state()
  {
    std::array<std::span<T>, Slots> spans;
    for (std::size_t k = 0; k < Slots; ++k)
      spans[k] = slots[k];
    return spans;
  }
  void draw_gradients(support::random& r)
  {
    for (T& g : gradients)
      g = T(r.uniform(-1, 1));
  }
};

// Two tensors and an optimizer of the same rule that holds their twins; `by_hand(t, lr_scale)` is the program's step.
template <class T, class Rule>
struct side_by_side {
  Rule rule;
  support::random r{5};
  twins<T, Rule::slots> a{53, rule, r}, b{5000, rule, r};
  gradus::optimizer<Rule, T> opt{rule};

  explicit side_by_side(const Rule& given) : rule(given)
  {
    opt.add("a", a.theirs, a.gradients);
    opt.add("b", b.theirs, b.gradients);
  }

  // ‖g‖² of both tensors.
  double squared_norm() const
  {
    gradus::exact_sum squares;
    gradus::add_squared_norm(backend, std::span<const T>(a.gradients), squares);
    gradus::add_squared_norm(backend, std::span<const T>(b.gradients), squares);
    return squares.value();
  }

  template <class F>
  void run(F&& by_hand, bool norm_is_given = false)
  {
    for (std::uint64_t t = 1; t <= 25; ++t) {
      a.draw_gradients(r);
      b.draw_gradients(r);
      const double lr_scale = 1 / (1 + 0.1 * double(t)), grad_scale = t % 2 ? 1 : 0.7;
      gradus::step_options options{.lr_scale = lr_scale, .grad_scale = grad_scale};
      if (norm_is_given)
        options.grad_norm_sq = squared_norm();
      const auto report = opt.step(options);
      REQUIRE(by_hand(t, lr_scale, grad_scale, report));
      REQUIRE(support::first_difference(a.ours, a.theirs) == -1);
      REQUIRE(support::first_difference(b.ours, b.theirs) == -1);
    }
    std::size_t k = 0;
    const auto compare_slots = [&](const auto& first_or_second) {
      for (const gradus::slot& s : first_or_second.slots) {
        for (auto [name, x] : {std::pair("a", &a), std::pair("b", &b)}) {
          const auto state = opt.state(name, s.name);
          CHECK(support::first_difference(x->slots[k], std::vector<T>(state.begin(), state.end())) == -1);
        }
        ++k;
      }
    };
    compare_slots(rule.first_moment);
    compare_slots(rule.second_moment);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("update: Adam by hand has the optimizer's bits", T, float, double)
{
  const auto rule = gradus::adam{.lr = 0.01, .weight_decay = 0.01}.rule();
  side_by_side<T, std::remove_const_t<decltype(rule)>> s(rule);
  s.run([&](std::uint64_t t, double lr_scale, double grad_scale, const gradus::step_report&) {
    const auto formula = gradus::prepare<T>(rule, gradus::make_step_scalars(rule, t, lr_scale, 0), grad_scale);
    return gradus::update(backend, formula, s.a.ours, s.a.gradients, s.a.state()) &&
           gradus::update(backend, formula, s.b.ours, s.b.gradients, s.b.state());
  });
}

TEST_CASE_TEMPLATE("update: AdamS by hand in one pass has the optimizer's bits, with the norm computed or given", T,
                   float, double)
{
  const auto rule = gradus::adams{.lr = 0.01, .weight_decay = 0.1}.rule();
  static_assert(rule.scheduled_in_one_pass);
  for (const bool norm_is_given : {false, true}) {
    side_by_side<T, std::remove_const_t<decltype(rule)>> s(rule);
    double second_moment_sum = 0;
    s.run(
        [&](std::uint64_t t, double lr_scale, double grad_scale, const gradus::step_report& report) {
          second_moment_sum = gradus::next_second_moment_sum<T>(rule.second_moment, second_moment_sum, s.squared_norm(),
                                                                grad_scale);
          const double mean_square = second_moment_sum / rule.second_moment.correction(double(t)) /
                                     double(s.a.ours.size() + s.b.ours.size());
          CHECK(report.mean_square == mean_square);
          const auto formula = gradus::prepare<T>(rule, gradus::make_step_scalars(rule, t, lr_scale, mean_square),
                                                  grad_scale);
          return gradus::update(backend, formula, s.a.ours, s.a.gradients, s.a.state()) &&
                 gradus::update(backend, formula, s.b.ours, s.b.gradients, s.b.state());
        },
        norm_is_given);
  }
}

TEST_CASE_TEMPLATE("update: AdamS by hand with a sum for each beta2 and step count has the optimizer's bits", T, float,
                   double)
{
  // Two of one β₂ and step count in two groups, one of another β₂, one that comes five steps later.
  const gradus::adams recipe{.lr = 0.01, .weight_decay = 0.1};
  const gradus::adams recipes[] = {recipe, {.lr = 0.02, .weight_decay = 0}, {.lr = 0.01, .beta2 = 0.9}, recipe};
  const std::size_t sizes[] = {53, 5000, 4097, 300}, sum_of[] = {0, 0, 1, 2};
  constexpr std::uint64_t late = 5;
  support::random r{6};
  gradus::optimizer<gradus::adams, T> opt(recipe);
  std::vector<twins<T, 2>> x;
  for (const std::size_t n : sizes)
    x.emplace_back(n, recipe.rule(), r);
  for (std::size_t i = 0; i < 3; ++i)
    opt.add(x[i].theirs, x[i].gradients, opt.add_group(recipes[i]));
  double second_moment_sums[3] = {};
  for (std::uint64_t t = 1; t <= 20; ++t) {
    if (t == late + 1)
      opt.add(x[3].theirs, x[3].gradients);
    const std::size_t present = t > late ? 4 : 3;
    gradus::exact_sum squares[3], total;
    double corrections[3] = {}, count = 0;
    for (std::size_t i = 0; i < present; ++i) {
      x[i].draw_gradients(r);
      gradus::add_squared_norm(backend, std::span<const T>(x[i].gradients), squares[sum_of[i]]);
      corrections[sum_of[i]] = recipes[i].rule().second_moment.correction(double(i == 3 ? t - late : t));
      count += double(sizes[i]);
    }
    const auto report = opt.step({.grad_scale = 0.7});
    for (std::size_t k = 0; k < present - 1; ++k) {
      const auto rule = recipes[k == 1 ? 2 : 0].rule();
      second_moment_sums[k] = gradus::next_second_moment_sum<T>(rule.second_moment, second_moment_sums[k],
                                                                squares[k].value(), 0.7);
      total.add(second_moment_sums[k] / corrections[k]);
    }
    CHECK(report.mean_square == total.value() / count);
    for (std::size_t i = 0; i < present; ++i) {
      const auto rule = recipes[i].rule();
      const auto k = gradus::make_step_scalars(rule, i == 3 ? t - late : t, 1, total.value() / count);
      REQUIRE(gradus::update(backend, gradus::prepare<T>(rule, k, 0.7), x[i].ours, x[i].gradients, x[i].state()));
      REQUIRE(support::first_difference(x[i].ours, x[i].theirs) == -1);
    }
  }
}

TEST_CASE_TEMPLATE("update_moments, update_weights: AMSGrad with a scheduled decay by hand has the optimizer's bits", T,
                   float, double)
{
  const auto rule = gradus::compose(0.01, gradus::first_moment::ema{}, gradus::second_moment::ema_max{.beta2 = 0.9},
                                    gradus::step_size::adaptive{}, gradus::decay::scheduled{.weight_decay = 0.1});
  static_assert(rule.scheduled && !rule.scheduled_in_one_pass);
  side_by_side<T, std::remove_const_t<decltype(rule)>> s(rule);
  s.run([&](std::uint64_t t, double lr_scale, double grad_scale, const gradus::step_report& report) {
    const auto moments = gradus::prepare<T>(rule, gradus::make_step_scalars(rule, t, lr_scale, 0), grad_scale);
    bool done = gradus::update_moments(backend, moments, s.a.ours, s.a.gradients, s.a.state()) &&
                gradus::update_moments(backend, moments, s.b.ours, s.b.gradients, s.b.state());
    constexpr std::size_t v = decltype(moments)::value_slot;
    gradus::exact_sum sum;
    gradus::add_sum(backend, std::span<const T>(s.b.slots[v]), sum);
    gradus::add_sum(backend, std::span<const T>(s.a.slots[v]), sum);
    const double mean_square = sum.value() / rule.second_moment.correction(double(t)) /
                               double(s.a.ours.size() + s.b.ours.size());
    CHECK(report.mean_square == mean_square);
    const auto weights = gradus::prepare<T>(rule, gradus::make_step_scalars(rule, t, lr_scale, mean_square),
                                            grad_scale);
    done = done && gradus::update_weights(backend, weights, s.a.ours, s.a.gradients, s.a.state());
    return done && gradus::update_weights(backend, weights, s.b.ours, s.b.gradients, s.b.state());
  });
}

TEST_CASE("update: SGD with momentum 0 accepts an empty slot, and does not change a full one")
{
  const auto rule = gradus::sgd{.lr = 0.1, .weight_decay = 0.01}.rule();
  support::random r(3);
  twins<float, 1> x(37, rule, r);
  const std::vector<float> untouched(37, 7.0f);
  std::vector<float> with_slot = x.ours, slot = untouched;
  gradus::optimizer<gradus::sgd> opt({.lr = 0.1, .weight_decay = 0.01});
  opt.add(x.theirs, x.gradients);
  for (std::uint64_t t = 1; t <= 10; ++t) {
    x.draw_gradients(r);
    opt.step();
    const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, t, 1, 0));
    REQUIRE(gradus::update(backend, formula, x.ours, x.gradients, {}));
    REQUIRE(gradus::update(backend, formula, with_slot, x.gradients, {std::span(slot)}));
    CHECK(support::first_difference(x.ours, x.theirs) == -1);
    CHECK(support::first_difference(with_slot, x.theirs) == -1);
  }
  CHECK(slot == untouched);
  // A momentum that is not 0 needs its slot.
  const auto moving = gradus::sgd{.momentum = 0.9}.rule();
  CHECK_FALSE(gradus::update(backend, gradus::prepare<float>(moving, gradus::make_step_scalars(moving, 1, 1)), x.ours,
                             x.gradients, {}));
  CHECK(support::first_difference(x.ours, x.theirs) == -1);
}

TEST_CASE("initial_value: Yogi's slots start from its accumulator, all others from 0")
{
  const gradus::yogi recipe{.initial_accumulator = 0.25};
  const auto rule = recipe.rule();
  CHECK(gradus::initial_value(rule, 0) == 0.25);
  CHECK(gradus::initial_value(rule, 1) == 0.25);
  support::for_each_composition([]<class Rule>(std::string_view name, const Rule& other) {
    if (!name.starts_with("yogi"))
      for (std::size_t k = 0; k < Rule::slots; ++k)
        CHECK_MESSAGE(gradus::initial_value(other, k) == 0, std::string(name));
  });
  side_by_side<float, std::remove_const_t<decltype(rule)>> s(rule);
  s.run([&](std::uint64_t t, double lr_scale, double grad_scale, const gradus::step_report&) {
    const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, t, lr_scale, 0), grad_scale);
    return gradus::update(backend, formula, s.a.ours, s.a.gradients, s.a.state()) &&
           gradus::update(backend, formula, s.b.ours, s.b.gradients, s.b.state());
  });
}

TEST_CASE("update: different lengths are refused, and nothing changes")
{
  const auto rule = gradus::amsgrad{.lr = 0.1}.rule();
  const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, 1, 1, 0));
  constexpr std::size_t n = 20;
  // Array k of the five (weights, gradients, three slots) is one shorter, one longer, empty.
  for (std::size_t wrong = 0; wrong < 5; ++wrong)
    for (const std::size_t length : {n - 1, n + 1, std::size_t(0)}) {
      std::array<std::vector<float>, 5> x;
      for (std::size_t k = 0; k < 5; ++k)
        x[k].assign(k == wrong ? length : n, 0.5f);
      const auto before = x;
      const std::array<std::span<float>, 3> slots{x[2], x[3], x[4]};
      CHECK_FALSE(gradus::update(backend, formula, x[0], x[1], slots));
      CHECK_FALSE(gradus::update_moments(backend, formula, x[0], x[1], slots));
      CHECK_FALSE(gradus::update_weights(backend, formula, x[0], x[1], slots));
      CHECK(x == before);
    }
  // Nothing at all is as good a length as any.
  CHECK(gradus::update(backend, formula, {}, {}, {}));
}

TEST_CASE("update_moments, update_weights: each changes its half and no more")
{
  support::for_each_composition([]<class Rule>(std::string_view name, const Rule& rule) {
    if constexpr (gradus::takes_one_pass<decltype(rule.first_moment)> || Rule::sums)
      return;
    else {
      constexpr std::size_t n = 20;
      std::vector<float> weights(n, 0.5f), gradients(n, 0.25f);
      std::vector<float> memory(n * Rule::slots, 0.125f);
      std::array<std::span<float>, Rule::slots> slots;
      for (std::size_t k = 0; k < Rule::slots; ++k)
        slots[k] = std::span(memory).subspan(n * k, n);
      gradus::step_scalars k = gradus::make_step_scalars(rule, 10, 1, 0, {});
      k.mean_square = 0.01;
      const auto formula = gradus::prepare<float>(rule, k);
      const auto old_weights = weights, old_memory = memory;
      const bool keeps_state = !formula.idle_first_moment || Rule::slots > 1;
      REQUIRE(gradus::update_moments(backend, formula, weights, gradients, slots));
      CHECK_MESSAGE(weights == old_weights, std::string(name));
      CHECK_MESSAGE((memory != old_memory) == keeps_state, std::string(name));
      const auto moved = memory;
      REQUIRE(gradus::update_weights(backend, formula, weights, gradients, slots));
      CHECK_MESSAGE(weights != old_weights, std::string(name));
      // A first moment that reads v̄ waits for the second half, which keeps the second moment.
      constexpr std::size_t late = gradus::reads_mean_square<decltype(rule.first_moment)> ? formula.first_slots : 0;
      for (std::size_t i = 0; i < memory.size(); ++i)
        CHECK_MESSAGE((memory[i] == moved[i]) == (i >= late * n), std::string(name));
      CHECK(gradients == std::vector<float>(n, 0.25f));
    }
  });
}

TEST_CASE_TEMPLATE("update_terms, update_weights: give the optimizer's bits, of a tensor of several pages", T, float,
                   double)
{
  const auto check = [](const auto& recipe) {
    const auto rule = recipe.rule();
    constexpr std::size_t n = 3 * gradus::page_size + 5;
    support::random r(31);
    support::walk x(rule, support::draw<T>(r, n));
    std::vector<T> weights = x.weights, gradients(n);
    gradus::optimizer<std::remove_cvref_t<decltype(recipe)>, T> opt(recipe);
    opt.add(weights, gradients);
    for (int t = 1; t <= 4; ++t) {
      for (T& g : gradients)
        g = T(r.uniform(-1, 1));
      x.step(gradients);
      opt.step();
    }
    CHECK(support::first_difference(x.weights, weights) == -1);
  };
  check(gradus::lamb{.lr = 0.01});
  check(gradus::stable_adamw{.lr = 0.01});
  check(gradus::cautious_adamw{.lr = 0.01});
}

TEST_CASE("update_terms: different lengths are refused, and nothing changes")
{
  const auto rule = gradus::lamb{}.rule();
  const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, 1, 1));
  constexpr std::size_t n = 20;
  for (std::size_t wrong = 0; wrong < 4; ++wrong)
    for (const std::size_t length : {n - 1, n + 1, std::size_t(0)}) {
      std::array<std::vector<float>, 4> x;
      for (std::size_t k = 0; k < 4; ++k)
        x[k].assign(k == wrong ? length : n, 0.5f);
      const auto before = x;
      std::array<gradus::exact_sum, 2> sums;
      CHECK_FALSE(gradus::update_terms(backend, formula, x[0], x[1], {x[2], x[3]}, sums));
      CHECK(x == before);
      CHECK(sums[0].value() == 0);
    }
}

TEST_CASE("prepare, update: formulas are trivially copyable, and nothing throws")
{
  int checked = 0;
  support::for_each_composition([&]<class Rule>(std::string_view, const Rule& rule) {
    const auto check = [&]<class T>(T) {
      using prepared = decltype(gradus::prepare<T>(rule, gradus::step_scalars{}));
      static_assert(std::is_trivially_copyable_v<prepared>);
      static_assert(std::is_standard_layout_v<gradus::step_scalars>);
      static_assert(sizeof(prepared) <= 128);  // small: it is handed on by value
      using slots = std::array<std::span<T>, prepared::slots>;
      using span = std::span<T>;
      using gradient_span = std::span<const T>;
      static_assert(noexcept(gradus::make_step_scalars(rule, 1, 1.0, 0.0, {})));
      static_assert(noexcept(gradus::prepare<T>(rule, gradus::step_scalars{})));
      static_assert(noexcept(gradus::initial_value(rule, 0)));
      if constexpr (Rule::sums) {
        static_assert(noexcept(gradus::update_terms(backend, std::declval<const prepared&>(), span(), gradient_span(),
                                                    slots(),
                                                    std::declval<std::span<gradus::exact_sum, prepared::terms>>())));
        static_assert(noexcept(gradus::factors_of(rule, gradus::step_scalars{}, nullptr, 1.0)));
      } else
        static_assert(noexcept(gradus::update(backend, std::declval<const prepared&>(), span(), gradient_span(),
                                              slots())));
      static_assert(noexcept(gradus::update_moments(backend, std::declval<const prepared&>(), span(), gradient_span(),
                                                    slots())));
      static_assert(noexcept(gradus::update_weights(backend, std::declval<const prepared&>(), span(), gradient_span(),
                                                    slots())));
      static_assert(noexcept(gradus::squared_norm(backend, gradient_span())));
      static_assert(noexcept(gradus::sum(backend, gradient_span())));
      static_assert(noexcept(gradus::add_squared_norm(backend, gradient_span(), std::declval<gradus::exact_sum&>())));
      static_assert(noexcept(gradus::add_sum(backend, gradient_span(), std::declval<gradus::exact_sum&>())));
      static_assert(noexcept(std::declval<const gradus::exact_sum&>().value()));
      if constexpr (Rule::scheduled_in_one_pass)
        static_assert(noexcept(gradus::next_second_moment_sum<T>(rule.second_moment, 0.0, 0.0)));
      ++checked;
    };
    check(0.0f);
    check(0.0);
  });
  CHECK(checked == 2 * 46);
}

TEST_CASE_TEMPLATE("next_second_moment_sum: follows the sum of the moments from the gradients' norms", T, float, double)
{
  const auto rule = gradus::adams{.beta2 = 0.99}.rule();
  support::random r(8);
  twins<T, 2> x(1000, rule, r);
  double sum = 0;
  for (std::uint64_t t = 1; t <= 1000; ++t) {
    x.draw_gradients(r);
    REQUIRE(gradus::update(backend, gradus::prepare<T>(rule, gradus::make_step_scalars(rule, t, 1, 0), 0.3), x.ours,
                           x.gradients, x.state()));
    sum = gradus::next_second_moment_sum<T>(rule.second_moment, sum,
                                            gradus::squared_norm(backend, std::span<const T>(x.gradients)), 0.3);
  }
  CHECK(sum ==
        doctest::Approx(gradus::sum(backend, std::span<const T>(x.slots[1]))).epsilon(sizeof(T) == 4 ? 1e-5 : 1e-12));
}
