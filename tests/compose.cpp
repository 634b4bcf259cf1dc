// Free composition: every combination of rules that makes sense compiles and runs; the recipes are what the tables say.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/bits.hpp"
#include "support/own_rules.hpp"
#include "support/random.hpp"

namespace {

namespace first_moment = gradus::first_moment;
namespace second_moment = gradus::second_moment;
namespace step_size = gradus::step_size;
namespace decay = gradus::decay;

template <class... Rules, class F>
void for_each_rule(F&& f)
{
  (f(std::type_identity<Rules>{}), ...);
}

template <class F, class S, class P, class D>
concept makes_sense = gradus::step_size_is_served<S, P> && gradus::scheduled_decay_is_served<S, D> &&
                      gradus::stable_decay_is_served<F, D>;

// Calls visit(types of the four rules) for every combination of all the rules that gradus has.
template <class Visit>
void for_each_combination(Visit&& visit)
{
  for_each_rule<first_moment::none, first_moment::momentum, first_moment::ema>([&]<class F>(std::type_identity<F> f) {
    for_each_rule<second_moment::none, second_moment::ema, second_moment::ema_max, second_moment::yogi>(
        [&]<class S>(std::type_identity<S> s) {
          for_each_rule<step_size::constant, step_size::adaptive, step_size::bounded, step_size::partially_adaptive,
                        step_size::rectified>([&]<class P>(std::type_identity<P> p) {
            for_each_rule<decay::none, decay::l2, decay::decoupled, decay::independent, decay::scheduled,
                          decay::stable, decay::l2_or_decoupled>(
                [&]<class D>(std::type_identity<D> d) { visit(f, s, p, d); });
          });
        });
  });
}

constexpr std::size_t length = 19;

// One combination, without its types: what runs it is compiled once.
struct combination {
  std::array<std::string_view, 4> kinds;
  std::size_t slots;
  void (*step)(double lr, double lr_scale, std::uint64_t t, float* weights, const float* gradients, float* const* slots);
  std::string names() const
  {
    std::string all;
    for (const std::string_view kind : kinds)
      all += std::string(kind) + " ";
    return all;
  }
};

struct problem {
  std::vector<float> weights, gradients, memory;
  std::vector<float*> slots;
  explicit problem(const combination& c) : weights(length), gradients(length), memory(length * (c.slots + 1), 1e-3f)
  {
    for (std::size_t k = 0; k < c.slots; ++k)
      slots.push_back(&memory[length * k]);
    for (std::size_t i = 0; i < length; ++i)
      weights[i] = 1 + float(i) / 8;
  }
  void step(const combination& c, double lr, double lr_scale, std::uint64_t t)
  {
    for (std::size_t i = 0; i < length; ++i)
      gradients[i] = weights[i] / 2;
    c.step(lr, lr_scale, t, weights.data(), gradients.data(), slots.data());
  }
};

// Eight steps down a parabola leave the weights finite, and smaller.
void check_descent(const combination& c)
{
  problem p(c);
  const auto squares = [&] {
    double sum = 0;
    for (const float x : p.weights)
      sum += double(x) * double(x);
    return sum;
  };
  const double before = squares();
  for (std::uint64_t t = 1; t <= 8; ++t)
    p.step(c, 0.01, 1, t);
  const double after = squares();
  CHECK_MESSAGE(std::isfinite(after), c.names());
  CHECK_MESSAGE(after < before, c.names());
}

// At a learning rate of 0 nothing moves; but an independent decay goes on, by its definition.
void check_standstill(const combination& c)
{
  for (const double lr : {0.0, 0.01}) {
    problem p(c);
    const auto start = p.weights;
    for (std::uint64_t t = 1; t <= 8; ++t)
      p.step(c, lr, lr == 0 ? 1 : 0, t);
    CHECK_MESSAGE((support::first_difference(p.weights, start) == -1) == (c.kinds[3] != "independent"), c.names());
  }
}

// Whether two compositions of one type hold the same numbers, by what a kernel does with them.
template <class A, class B>
bool same_steps(const A& a, const B& b)
{
  static_assert(std::is_same_v<A, B>, "a recipe's rule() and compose(...) give one type");
  const auto run = [](const A& rule) {
    std::vector<double> weights(length), gradients(length), memory(length * A::slots);
    for (std::size_t i = 0; i < length; ++i)
      weights[i] = double(i) - 9.5;
    std::array<std::span<double>, A::slots> slots;
    for (std::size_t k = 0; k < A::slots; ++k) {
      slots[k] = std::span(memory).subspan(length * k, length);
      for (double& x : slots[k])
        x = gradus::initial_value(rule, k);
    }
    for (std::uint64_t t = 1; t <= 10; ++t) {
      for (std::size_t i = 0; i < length; ++i)
        gradients[i] = weights[i] / 3 + double(t);
      gradus::step_scalars k = gradus::make_step_scalars(rule, t, 0.5, 0);
      k.mean_square = 0.1;
      REQUIRE(gradus::update(gradus::default_backend{}, gradus::prepare<double>(rule, k), weights, gradients, slots));
    }
    weights.insert(weights.end(), memory.begin(), memory.end());
    return weights;
  };
  return support::first_difference(run(a), run(b)) == -1;
}

}  // namespace

TEST_CASE("every combination of rules that makes sense compiles and runs, and stands still at a learning rate of 0")
{
  int sensible = 0, all = 0;
  for_each_combination([&]<class F, class S, class P, class D>(std::type_identity<F>, std::type_identity<S>,
                                                               std::type_identity<P>, std::type_identity<D>) {
    ++all;
    if constexpr (makes_sense<F, S, P, D>) {
      ++sensible;
      using composition = gradus::composition<F, S, P, D>;
      const combination c{{F::kind, S::kind, P::kind, D::kind}, composition::slots,
                          [](double lr, double lr_scale, std::uint64_t t, float* x, const float* g, float* const* slots) {
                            D d{};
                            if constexpr (requires { d.weight_decay; })
                              d.weight_decay = 0.01;
                            const auto rule = gradus::compose(lr, F{}, S{}, P{}, d);
                            gradus::step_scalars k = gradus::make_step_scalars(rule, t, lr_scale, 0);
                            k.mean_square = 0.1;
                            const auto formula = gradus::prepare<float>(rule, k);
                            using kernel = gradus::kernel<gradus::pass::whole, std::remove_const_t<decltype(formula)>>;
                            gradus::default_backend{}.sweep(kernel{formula}, x, g, slots, length);
                          }};
      check_descent(c);
      check_standstill(c);
    }
  });
  // Step sizes and second moments: constant goes with all four, each of the other four with the three that keep something:
  // 1 + 3·5 pairs, one of them without a second moment. Five decays go with everything; `scheduled` with the 15 pairs that
  // have a second moment; `stable` with one of the three first moments.
  CHECK(all == 3 * 4 * 5 * 7);
  CHECK(sensible == 3 * (16 * 5 + 15) + 16);
}

TEST_CASE("every recipe stands still at lr = 0, and at lr_scale = 0")
{
  gradus::for_each_recipe([]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    CAPTURE(std::string(name));
    for (const double lr : {0.0, 0.5}) {
      Recipe h;
      h.lr = lr;
      h.weight_decay = 0.1;
      std::vector<float> w(length, 1.0f), g(length, 1.0f);
      gradus::optimizer<Recipe> opt(h);
      opt.add(w, g);
      for (int t = 1; t <= 100; ++t)
        opt.step({.lr_scale = lr == 0 ? 1.0 : 0.0});
      CHECK(w == std::vector<float>(length, 1.0f));
    }
  });
}

namespace {

// Decays of a user's own: the new weight, and what is taken off it.
struct halved {
  static constexpr std::string_view kind = "halved";
  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE V weights(V theta) const noexcept
    {
      return V(0.5f) * theta;
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const gradus::step_scalars&) const noexcept
  {
    return {};
  }
};
struct less_a_quarter {
  static constexpr std::string_view kind = "less_a_quarter";
  struct formula {
    template <class V>
    GRADUS_HOST_DEVICE V decrement(V theta) const noexcept
    {
      return V(0.25f) * theta;
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula prepare(const gradus::step_scalars&) const noexcept
  {
    return {};
  }
};

}  // namespace

TEST_CASE("a decay of one's own gives the new weight, or what is taken off it")
{
  const auto moved = [](const auto& decay) {
    std::vector<float> w(length, 1.0f), g(length, 1.0f);
    gradus::optimizer opt(gradus::compose(0.125, first_moment::none{}, second_moment::none{}, step_size::constant{}, decay));
    opt.add(w, g);
    opt.step();
    return w;
  };
  CHECK(moved(halved{}) == std::vector<float>(length, 0.5f - 0.125f));
  CHECK(moved(less_a_quarter{}) == std::vector<float>(length, 1 - (0.25f + 0.125f)));
}

namespace {

// Weights after some steps, from gradients that are random but the same.
template <class T, class Backend, class Rule>
std::vector<T> trained(const Rule& rule, Backend backend)
{
  support::random r(11);
  std::vector<T> w(length), g(length);
  for (T& x : w)
    x = T(r.uniform(-1, 1));
  gradus::optimizer<Rule, T, Backend> opt(rule, backend);
  opt.add(w, g);
  for (int t = 1; t <= 20; ++t) {
    for (T& x : g)
      x = T(r.uniform(-1, 1));
    g[3] = 0;
    opt.step();
  }
  return w;
}

template <class A, class B>
bool same_training(const A& a, const B& b)
{
  return support::first_difference(trained<float>(a, gradus::default_backend{}), trained<float>(b, gradus::default_backend{})) == -1;
}

}  // namespace

TEST_CASE_TEMPLATE("a rule in another namespace, all its words qualified, has the bits of the built-in one", T, float, double)
{
  const auto expected = trained<T>(own::built_in(), gradus::backend::scalar{});
  CHECK(support::first_difference(trained<T>(own::spelled_out(), gradus::backend::scalar{}), expected) == -1);
  CHECK(support::first_difference(trained<T>(own::spelled_out(), gradus::default_backend{}), expected) == -1);
}

namespace own {

// Words that are not qualified, in a namespace where for plain numbers they would be the C library's.
struct unqualified {
  double beta1 = 0.9;
  static constexpr auto fields = gradus::fields(gradus::hyper::beta1(&unqualified::beta1));
  static constexpr std::string_view kind = "unqualified";
  static constexpr std::array slots{gradus::slot{"average", gradus::slot::any_sign}};
  GRADUS_HOST_DEVICE double correction(double) const noexcept { return 1; }
  template <class T>
  struct formula {
    T beta1, rest;
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      m[0] = fma(V(rest), sqrt(abs(g)), V(beta1) * m[0]);
    }
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V) const noexcept
    {
      return m[0];
    }
  };
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const gradus::step_scalars&) const noexcept
  {
    return {T(beta1), T(1 - beta1)};
  }
};

}  // namespace own

TEST_CASE_TEMPLATE("words that are not qualified are gradus's in every backend", T, float, double)
{
  const auto rule = gradus::compose(0.01, own::unqualified{}, second_moment::none{}, gradus::step_size::constant{}, decay::none{});
  CHECK(support::first_difference(trained<T>(rule, gradus::backend::scalar{}), trained<T>(rule, gradus::default_backend{})) == -1);
}

namespace listing {

using gradus::field, gradus::fields, gradus::lists_its_fields, gradus::range;

// What is listed, and what is forgotten where no size shows it: bools and ints beside a bool, in a derived rule too.
struct three {
  double a = 1;
  bool b = true;
  double c = 2;
  static constexpr auto fields = gradus::fields(field{"a", &three::a, range::any_number}, field{"b", &three::b, range::yes_or_no},
                                                field{"c", &three::c, range::any_number});
};
struct two {
  double a = 1;
  bool b = true;
  static constexpr auto fields = gradus::fields(field{"a", &two::a, range::any_number}, field{"b", &two::b, range::yes_or_no});
};
struct forgotten_bool {
  double a = 1;
  bool b = true, forgotten = false;
  static constexpr auto fields = gradus::fields(field{"a", &forgotten_bool::a, range::any_number}, field{"b", &forgotten_bool::b, range::yes_or_no});
};
struct forgotten_int {
  double a = 1;
  bool b = true;
  int forgotten = 0;
  static constexpr auto fields = gradus::fields(field{"a", &forgotten_int::a, range::any_number}, field{"b", &forgotten_int::b, range::yes_or_no});
};
struct only_a_bool {
  bool forgotten = false;
  static constexpr auto fields = gradus::fields();
};
struct one_twice {
  double a = 1, forgotten = 1;
  static constexpr auto fields = gradus::fields(field{"a", &one_twice::a, range::any_number}, field{"b", &one_twice::a, range::any_number});
};
struct derived : two {};
struct derived_and_forgotten : two {
  bool forgotten = false;
};
struct derived_and_listed : two {
  bool c = false;
  static constexpr auto fields = gradus::fields(field{"a", &derived_and_listed::a, range::any_number},
                                                field{"b", &derived_and_listed::b, range::yes_or_no},
                                                field{"c", &derived_and_listed::c, range::yes_or_no});
};
struct around {
  gradus::first_moment::momentum inner;
  bool c = false;
  static constexpr auto fields = gradus::fields(gradus::fields_of(&around::inner), field{"c", &around::c, range::yes_or_no});
};
struct around_and_forgotten {
  gradus::first_moment::momentum inner;
  bool c = false, forgotten = false;
  static constexpr auto fields =
      gradus::fields(gradus::fields_of(&around_and_forgotten::inner), field{"c", &around_and_forgotten::c, range::yes_or_no});
};
struct nothing {};
struct nothing_listed {
  static constexpr auto fields = gradus::fields();
};

static_assert(lists_its_fields<three> && lists_its_fields<two> && lists_its_fields<derived> && lists_its_fields<derived_and_listed>);
static_assert(lists_its_fields<around> && lists_its_fields<nothing> && lists_its_fields<nothing_listed>);
static_assert(!lists_its_fields<forgotten_bool> && !lists_its_fields<forgotten_int> && !lists_its_fields<only_a_bool>);
static_assert(!lists_its_fields<one_twice> && !lists_its_fields<derived_and_forgotten> && !lists_its_fields<around_and_forgotten>);

}  // namespace listing

TEST_CASE("fields are visited by name, in rules that hold or derive from others too")
{
  std::string seen;
  const auto visit = [&](std::string_view name, auto& field, gradus::range) {
    seen += std::string(name) + (std::is_same_v<decltype(field), bool&> ? "? " : " ");
    field = std::remove_reference_t<decltype(field)>(1);
  };
  own::blended first{};
  gradus::for_each_hyperparameter(first, visit);
  CHECK(seen == "beta1 initial_accumulator alpha plain? ");
  CHECK(first.inner.beta1 == 1);
  CHECK(first.alpha == 1);
  CHECK(first.plain);
  seen = "";
  own::deriving second{};
  gradus::for_each_hyperparameter(second, visit);
  CHECK(seen == "beta2 alpha ");
  CHECK(second.beta2 == 1);
  CHECK(second.alpha == 1);
}

TEST_CASE("a rule around another, or deriving from it, keeps its bias correction and its start")
{
  const gradus::step_size::adaptive adaptive{};
  const auto around = gradus::compose(0.01, own::blended{}, second_moment::ema{}, adaptive, decay::none{});
  const auto plain = gradus::compose(0.01, first_moment::ema{}, second_moment::ema{}, adaptive, decay::none{});
  CHECK(gradus::make_step_scalars(around, 3, 1).bc1 == gradus::make_step_scalars(plain, 3, 1).bc1);
  CHECK(gradus::make_step_scalars(around, 3, 1).bc1 == doctest::Approx(1 - 0.9 * 0.9 * 0.9));
  CHECK(same_training(around, plain));
  CHECK(same_training(gradus::compose(0.01, first_moment::ema{}, own::deriving{}, adaptive, decay::scheduled{}),
                      gradus::compose(0.01, first_moment::ema{}, second_moment::ema{}, adaptive, decay::scheduled{})));
  // What a slot starts from is the rule's word.
  const auto started = gradus::compose(0.01, own::blended{.inner = {.initial_accumulator = 0.25}}, second_moment::ema{}, adaptive, decay::none{});
  CHECK(gradus::initial_value(started, 0) == 0.25);
  CHECK(gradus::initial_value(started, 1) == 0);
  std::vector<float> w(length), g(length);
  gradus::optimizer opt(started);
  opt.add("w", w, g);
  for (const float x : opt.state("w", "trace"))
    CHECK(x == 0.25f);
}

TEST_CASE("a decay corrected for momentum takes the gain of a first moment of one's own")
{
  const auto after_a_step = [](const auto& first) {
    std::vector<double> w(length, 1.0), g(length, 0.0);
    gradus::optimizer<decltype(gradus::compose(0.1, first, second_moment::none{}, step_size::constant{}, decay::stable{})), double> opt(
        gradus::compose(0.1, first, second_moment::none{}, step_size::constant{}, decay::stable{.weight_decay = 0.01}));
    opt.add(w, g);
    opt.step();
    return w[0];
  };
  CHECK(1 - after_a_step(own::heavy_ball{.friction = 0.1}) == doctest::Approx(1e-2));
  CHECK(1 - after_a_step(own::heavy_ball{.friction = 0.5}) == doctest::Approx(2e-3));
  CHECK(1 - after_a_step(first_moment::momentum{.momentum = 0.9}) == doctest::Approx(1e-2));
  static_assert(gradus::stable_decay_is_served<own::heavy_ball, decay::stable>);
  static_assert(!gradus::stable_decay_is_served<own::blended, decay::stable>);
}

TEST_CASE("the concepts refuse what makes no sense")
{
  static_assert(!gradus::step_size_is_served<second_moment::none, step_size::adaptive>);
  static_assert(!gradus::step_size_is_served<second_moment::none, step_size::rectified>);
  static_assert(gradus::step_size_is_served<second_moment::none, step_size::constant>);
  static_assert(!gradus::scheduled_decay_is_served<second_moment::none, decay::scheduled>);
  static_assert(gradus::scheduled_decay_is_served<second_moment::yogi, decay::scheduled>);
  static_assert(!gradus::stable_decay_is_served<first_moment::ema, decay::stable>);
  static_assert(!gradus::stable_decay_is_served<first_moment::none, decay::stable>);
  static_assert(gradus::stable_decay_is_served<first_moment::momentum, decay::stable>);
}

// docs and papers name these compositions; the numbers differ from the defaults on purpose.
TEST_CASE("a recipe is the composition that the table gives")
{
  using namespace gradus;
  const first_moment::momentum heavy{.momentum = 0.8, .dampening = 0.1, .nesterov = false};
  const first_moment::ema average{.beta1 = 0.8};
  const second_moment::ema square{.beta2 = 0.95};
  const second_moment::ema_max largest{.beta2 = 0.95};
  const second_moment::none none{};
  const step_size::constant constant{};
  const step_size::adaptive adaptive{.eps = 1e-4};
  constexpr double lr = 0.03, b1 = 0.8, b2 = 0.95, eps = 1e-4, wd = 0.2;

  CHECK(same_steps(sgd{lr, 0.8, 0.1, false, wd}.rule(), compose(lr, heavy, none, constant, decay::l2{wd})));
  CHECK(same_steps(sgds{lr, 0.8, 0.1, false, wd}.rule(), compose(lr, heavy, none, constant, decay::stable{wd})));
  CHECK(same_steps(adam{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::l2{wd})));
  CHECK(same_steps(adamw{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::decoupled{wd})));
  CHECK(same_steps(adams{lr, b1, b2, eps, wd}.rule(), compose(lr, average, square, adaptive, decay::scheduled{wd})));
  CHECK(same_steps(gradus::amsgrad{lr, b1, b2, eps, wd}.rule(), compose(lr, average, largest, adaptive, decay::l2{wd})));
  CHECK(same_steps(gradus::yogi{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .initial_accumulator = 0.3}.rule(),
                   compose(lr, first_moment::ema{.beta1 = b1, .initial_accumulator = 0.3},
                           second_moment::yogi{.beta2 = b2, .initial_accumulator = 0.3}, adaptive, decay::l2{wd})));
  CHECK(same_steps(adabound{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .final_lr = 0.3, .gamma = 0.1}.rule(),
                   compose(lr, average, square, step_size::bounded{.eps = eps, .final_lr = 0.3, .gamma = 0.1}, decay::l2{wd})));
  CHECK(same_steps(padam{.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .partial = 0.125}.rule(),
                   compose(lr, average, largest, step_size::partially_adaptive{.eps = eps, .partial = 0.125}, decay::l2{wd})));
  for (const bool decoupled : {false, true})
    CHECK(same_steps(radam{lr, b1, b2, eps, wd, decoupled}.rule(),
                     compose(lr, average, square, step_size::rectified{.eps = eps}, decay::l2_or_decoupled{wd, decoupled})));
}

TEST_CASE("the defaults are PyTorch's, or the authors'")
{
  struct row {
    std::string_view recipe, hyperparameter;
    double value;
  };
  // clang-format off
  const std::vector<row> table{
      {"sgd", "lr", 1e-3},       {"sgd", "momentum", 0},       {"sgd", "dampening", 0},
      {"sgd", "nesterov", 0},    {"sgd", "weight_decay", 0},

      {"sgds", "lr", 1e-3},      {"sgds", "momentum", 0},      {"sgds", "dampening", 0},
      {"sgds", "nesterov", 0},   {"sgds", "weight_decay", 0},

      {"adam", "lr", 1e-3},      {"adam", "beta1", 0.9},       {"adam", "beta2", 0.999},
      {"adam", "eps", 1e-8},     {"adam", "weight_decay", 0},

      {"adamw", "lr", 1e-3},     {"adamw", "beta1", 0.9},      {"adamw", "beta2", 0.999},
      {"adamw", "eps", 1e-8},    {"adamw", "weight_decay", 1e-2},

      {"adams", "lr", 1e-3},     {"adams", "beta1", 0.9},      {"adams", "beta2", 0.999},
      {"adams", "eps", 1e-8},    {"adams", "weight_decay", 1e-4},

      {"amsgrad", "lr", 1e-3},   {"amsgrad", "beta1", 0.9},    {"amsgrad", "beta2", 0.999},
      {"amsgrad", "eps", 1e-8},  {"amsgrad", "weight_decay", 0},

      {"yogi", "lr", 1e-2},      {"yogi", "beta1", 0.9},       {"yogi", "beta2", 0.999},
      {"yogi", "eps", 1e-3},     {"yogi", "weight_decay", 0},  {"yogi", "initial_accumulator", 1e-6},

      {"adabound", "lr", 1e-3},  {"adabound", "beta1", 0.9},   {"adabound", "beta2", 0.999},
      {"adabound", "eps", 1e-8}, {"adabound", "weight_decay", 0},
      {"adabound", "final_lr", 0.1},                           {"adabound", "gamma", 1e-3},

      {"padam", "lr", 0.1},      {"padam", "beta1", 0.9},      {"padam", "beta2", 0.999},
      {"padam", "eps", 1e-8},    {"padam", "weight_decay", 0}, {"padam", "partial", 0.25},

      {"radam", "lr", 1e-3},     {"radam", "beta1", 0.9},      {"radam", "beta2", 0.999},
      {"radam", "eps", 1e-8},    {"radam", "weight_decay", 0}, {"radam", "decoupled_weight_decay", 0},
  };
  // clang-format on
  std::size_t found = 0;
  gradus::for_each_recipe([&]<class Recipe>(std::string_view recipe, std::type_identity<Recipe>) {
    Recipe r;
    gradus::for_each_hyperparameter(r, [&](std::string_view hyperparameter, auto value, gradus::range allowed) {
      bool known = false;
      for (const row& x : table)
        if (x.recipe == recipe && x.hyperparameter == hyperparameter) {
          known = true;
          CHECK_MESSAGE(double(value) == x.value, std::string(recipe), " ", std::string(hyperparameter));
          CHECK(gradus::detail::contains(allowed, double(value)));
        }
      CHECK_MESSAGE(known, std::string(recipe), " ", std::string(hyperparameter));
      ++found;
    });
  });
  CHECK(found == table.size());
}

TEST_CASE("bytes of state a parameter are a constant of the composition")
{
  constexpr auto bytes = []<class Recipe>(Recipe) { return decltype(Recipe{}.rule())::template state_bytes<float>; };
  CHECK(bytes(gradus::sgd{}) == 4);  // with a momentum; without one, none
  CHECK(bytes(gradus::sgds{}) == 4);
  CHECK(bytes(gradus::adam{}) == 8);
  CHECK(bytes(gradus::adamw{}) == 8);
  CHECK(bytes(gradus::adams{}) == 8);
  CHECK(bytes(gradus::amsgrad{}) == 12);
  CHECK(bytes(gradus::yogi{}) == 8);
  CHECK(bytes(gradus::adabound{}) == 8);
  CHECK(bytes(gradus::padam{}) == 12);
  CHECK(bytes(gradus::radam{}) == 8);
}
