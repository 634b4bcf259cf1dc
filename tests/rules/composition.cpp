// Compositions: every combination of rules that makes sense, and rules of one's own.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
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
                      gradus::stable_decay_is_served<F, D> && gradus::unit_is_served<S, P> &&
                      gradus::beta_is_served<S, P> && gradus::v_is_served<F, S> && gradus::direction_is_served<F, S> &&
                      gradus::two_passes_are_served<F, S, D> && !(gradus::is_norm<S> && gradus::reads_mean_square<D>);

// Calls visit(types of the four rules) for every combination of the rules of the ten oldest recipes.
template <class Visit>
void for_each_combination(Visit&& visit)
{
  for_each_rule<first_moment::none, first_moment::momentum, first_moment::ema>([&]<class F>(std::type_identity<F> f) {
    for_each_rule<second_moment::none, second_moment::ema, second_moment::ema_max, second_moment::yogi>(
        [&]<class S>(std::type_identity<S> s) {
          for_each_rule<step_size::constant, step_size::adaptive, step_size::bounded, step_size::partially_adaptive,
                        step_size::rectified>([&]<class P>(std::type_identity<P> p) {
            for_each_rule<decay::none, decay::l2, decay::decoupled, decay::independent, decay::scheduled, decay::stable,
                          decay::l2_or_decoupled>([&]<class D>(std::type_identity<D> d) { visit(f, s, p, d); });
          });
        });
  });
}

// The same for rules that read each other, with one of each kind that they may meet.
template <class Visit>
void for_each_combination_of_readers(Visit&& visit)
{
  for_each_rule<first_moment::ema, first_moment::sign_of_ema, first_moment::two_emas, first_moment::normalized_momentum,
                first_moment::normalized_ema, first_moment::rms_ratio>([&]<class F>(std::type_identity<F> f) {
    for_each_rule<second_moment::none, second_moment::ema, second_moment::belief, second_moment::infinity_norm,
                  second_moment::ema_about_mean>([&]<class S>(std::type_identity<S> s) {
      for_each_rule<step_size::constant, step_size::decaying, step_size::adaptive_above, step_size::by_norm>(
          [&]<class P>(std::type_identity<P> p) {
            for_each_rule<decay::decoupled, decay::scheduled>([&]<class D>(std::type_identity<D> d) {
              visit(f, s, p, d);
            });
          });
    });
  });
}

constexpr std::size_t length = 19;

// One combination, without its types: what runs it is compiled once.
struct combination {
  std::array<std::string_view, 4> kinds;
  std::size_t slots;
  void (*step)(double lr, double lr_scale, std::uint64_t t, float* weights, const float* gradients,
               float* const* slots);
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
  // The two averages of Adadelta need one decay rate, and by default they have two.
  CHECK_MESSAGE((after < before || c.kinds[0] == "rms_ratio"), c.names());
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

}  // namespace

namespace {

// Checks the combinations that make sense. Returns their number, and the number of all.
template <class ForEach>
std::pair<int, int> check_all(const ForEach& for_each)
{
  int sensible = 0, all = 0;
  for_each([&]<class F, class S, class P, class D>(std::type_identity<F>, std::type_identity<S>, std::type_identity<P>,
                                                   std::type_identity<D>) {
    ++all;
    if constexpr (makes_sense<F, S, P, D>) {
      ++sensible;
      using composition = gradus::composition<F, S, P, D>;
      const combination c{{F::kind, S::kind, P::kind, D::kind},
                          composition::slots,
                          [](double lr, double lr_scale, std::uint64_t t, float* x, const float* g,
                             float* const* slots) {
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
  return {sensible, all};
}

}  // namespace

TEST_CASE("compose: every combination that makes sense compiles and runs, and lr = 0 changes no weight")
{
  const auto [sensible, all] = check_all([](const auto& visit) { for_each_combination(visit); });
  // Step sizes and second moments: constant goes with all four, each of the other four with the three that keep
  // something: 1 + 3·5 pairs, one of them without a second moment. Five decays go with everything; `scheduled` with the
  // 15 pairs that have a second moment; `stable` with one of the three first moments.
  CHECK(all == 3 * 4 * 5 * 7);
  CHECK(sensible == 3 * (16 * 5 + 15) + 16);
}

TEST_CASE("compose: every combination of rules that read each other that makes sense compiles and runs, too")
{
  const auto [sensible, all] = check_all([](const auto& visit) { for_each_combination_of_readers(visit); });
  CHECK(all == 6 * 5 * 4 * 2);
  // none: constant and no schedule, with the three first moments that do not read v. ema: three step sizes, all six
  // first moments, both decays. belief: without the two that read the new v, and sign_of_ema is not scheduled.
  // infinity_norm: two step sizes, the three that do not read v, no schedule. ema_about_mean: the two that update last
  // are not scheduled.
  CHECK(sensible == 3 + 3 * 6 * 2 + 3 * (4 + 3) + 2 * 3 + 3 * (6 + 4));
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
  return support::first_difference(trained<float>(a, gradus::default_backend{}),
                                   trained<float>(b, gradus::default_backend{})) == -1;
}

}  // namespace

TEST_CASE_TEMPLATE("compose: the caller's rule with qualified names has the bits of the built-in rule", T, float,
                   double)
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

TEST_CASE_TEMPLATE("compose: the caller's rule with unqualified names has the same bits on every backend", T, float,
                   double)
{
  const auto rule = gradus::compose(0.01, own::unqualified{}, second_moment::none{}, gradus::step_size::constant{},
                                    decay::none{});
  CHECK(support::first_difference(trained<T>(rule, gradus::backend::scalar{}),
                                  trained<T>(rule, gradus::default_backend{})) == -1);
}

TEST_CASE("compose: the caller's rule around another, or derived from it, keeps its bias correction and start value")
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
  const auto started = gradus::compose(0.01, own::blended{.inner = {.initial_accumulator = 0.25}}, second_moment::ema{},
                                       adaptive, decay::none{});
  CHECK(gradus::initial_value(started, 0) == 0.25);
  CHECK(gradus::initial_value(started, 1) == 0);
  std::vector<float> w(length), g(length);
  gradus::optimizer opt(started);
  opt.add("w", w, g);
  for (const float x : opt.state("w", "trace"))
    CHECK(x == 0.25f);
}

TEST_CASE("state_bytes: a constant of the composition")
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

TEST_CASE("make_step_scalars: what the rules say of themselves, and neutral numbers where they say nothing")
{
  const auto averages = gradus::compose(0.5, first_moment::ema{.beta1 = 0.5}, second_moment::ema_max{.beta2 = 0.75},
                                        step_size::adaptive{}, decay::scheduled{});
  gradus::step_scalars k = gradus::make_step_scalars(averages, 2, 0.25, 3);
  CHECK(k.lr == 0.125);
  CHECK(k.lr_scale == 0.25);
  CHECK(k.t == 2);
  CHECK(k.bc1 == 1 - 0.5 * 0.5);
  CHECK(k.bc2 == 1 - 0.75 * 0.75);
  CHECK(k.beta2 == 0.75);
  CHECK(k.gain == 1);
  CHECK(k.mean_square == 3);
  const auto plain = gradus::compose(0.5, first_moment::momentum{.momentum = 0.5, .dampening = 0.25},
                                     second_moment::none{}, step_size::constant{}, decay::stable{});
  k = gradus::make_step_scalars(plain, 1, 0);
  CHECK(k.lr == 0);
  CHECK(k.bc1 == 1);
  CHECK(k.bc2 == 1);
  CHECK(k.beta2 == 0);
  CHECK(k.gain == 1.5);
  CHECK(k.mean_square == 0);
}
