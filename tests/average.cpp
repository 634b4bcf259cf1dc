// Averages of weights that a recipe keeps beside its own state.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/average.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using gradus::averaged, support::draw;
namespace average = gradus::average;

template <class T>
constexpr double rounding = sizeof(T) == 4 ? 1e-5 : 1e-13;

// The largest difference between plain descent with an average and a loop in double.
// \param update  update(t, e, θ) after each step, for each element
template <class T, class Average, class Update>
double worst_difference(const Average& rule, const Update& update)
{
  constexpr std::size_t n = 37;
  support::random r(9);
  std::vector<T> weights = draw<T>(r, n), gradients(n), e(n);
  std::vector<double> theta(weights.begin(), weights.end()), mean = theta;
  gradus::optimizer<averaged<gradus::sgd, Average>, T> opt({{.lr = 0.1}, rule});
  const auto h = opt.add(weights, gradients);
  opt.copy_average(h, e);
  CHECK(e == weights);
  double worst = 0;
  for (int t = 1; t <= 40; ++t) {
    for (T& g : gradients)
      g = T(r.uniform(-1, 1));
    opt.step();
    opt.copy_average(h, e);
    for (std::size_t i = 0; i < n; ++i) {
      theta[i] -= 0.1 * double(gradients[i]);
      update(t, mean[i], theta[i]);
      worst = std::fmax(worst, std::fabs(double(weights[i]) - theta[i]));
      worst = std::fmax(worst, std::fabs(double(e[i]) - mean[i]));
    }
  }
  return worst;
}

// Weights and averages after some steps, in one array.
template <class Recipe, class Backend = gradus::default_backend>
std::vector<float> trained(const Recipe& recipe, Backend backend = Backend())
{
  support::random r(10);
  std::vector<float> a = draw<float>(r, 9000), b = draw<float>(r, 33), ga(9000), gb(33);
  gradus::optimizer<Recipe, float, Backend> opt(recipe, backend);
  const gradus::tensor_handle handles[] = {opt.add(a, ga), opt.add(b, gb)};
  for (int t = 0; t < 5; ++t) {
    for (float& g : ga)
      g = float(r.uniform(-1, 1));
    for (float& g : gb)
      g = float(r.uniform(-1, 1));
    opt.step();
  }
  std::vector<float> all = a;
  all.insert(all.end(), b.begin(), b.end());
  opt.copy_average(handles[0], a);
  opt.copy_average(handles[1], b);
  all.insert(all.end(), a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("ema: the equation, from the parameters before the first step", T, float, double)
{
  for (const double decay : {0.0, 0.5, 0.999})
    CHECK(worst_difference<T>(average::ema{decay}, [=](int, double& e, double theta) {
            e = decay * e + (1 - decay) * theta;
          }) < rounding<T>);
}

TEST_CASE_TEMPLATE("swa: the mean of the weights after every period-th step from start on, before it the weights", T,
                   float, double)
{
  for (const int start : {1, 7, 100})
    for (const int period : {1, 3})
      CHECK(worst_difference<T>(average::swa{double(start), double(period)}, [=](int t, double& e, double theta) {
              if (t < start)
                e = theta;
              else if ((t - start) % period == 0)
                e += (theta - e) / ((t - start) / period + 1);
            }) < rounding<T>);
}

TEST_CASE_TEMPLATE("lookahead: every period-th step the slow weights follow, and the fast ones start from them", T,
                   float, double)
{
  for (const double alpha : {0.0, 0.5, 1.0})
    for (const int period : {1, 5})
      CHECK(worst_difference<T>(average::lookahead{alpha, double(period)}, [=](int t, double& e, double& theta) {
              if (t % period == 0)
                theta = e += alpha * (theta - e);
            }) < rounding<T>);
}

TEST_CASE("averaged: the weights of a recipe are its own to the bit, with every kind of rule")
{
  const auto check = [](const char* name, auto recipe) {
    using R = decltype(recipe);
    support::random r(11);
    std::vector<float> a = draw<float>(r, 100), b = a, gradients = draw<float>(r, 100);
    gradus::optimizer<R> plain(recipe);
    gradus::optimizer<averaged<R, average::ema>> with({recipe, {.decay = 0.9}});
    plain.add(a, gradients);
    with.add(b, gradients);
    for (int t = 0; t < 5; ++t) {
      plain.step();
      with.step();
      for (float& g : gradients)
        g = 0.5f - g;
    }
    CHECK_MESSAGE(a == b, std::string(name));
    CHECK_MESSAGE(with.state_bytes() == plain.state_bytes() + 400, std::string(name));
  };
  check("adamw", gradus::adamw{.lr = 0.01});
  check("adams", gradus::adams{.lr = 0.01});
  check("adadelta", gradus::adadelta{});  // updates last
  check("adopt", gradus::adopt{});        // reads the old v
  check("nadam", gradus::nadam{});        // keeps scalars
  check("adan", gradus::adan{});          // gives v another gradient
  check("yogi", gradus::yogi{});          // starts from another number
  check("adagrad", gradus::adagrad{});    // has no first moment
  check("lion", gradus::lion{});
  check("rmsprop", gradus::rmsprop{.momentum = 0.9, .centered = true});
  check("schedule_free_adamw", gradus::schedule_free_adamw{.weight_decay = 0.1});
}

TEST_CASE("averaged: a recipe of which momentum 0 has no buffer keeps an average")
{
  const gradus::sgd plain{.lr = 0.1, .dampening = 0.5};  // which has no effect with momentum 0
  std::vector<float> w(3, 1.0f), g(3, 1.0f), e(3), of_plain = w;
  gradus::optimizer<averaged<gradus::sgd, average::ema>> opt({plain, {.decay = 0.5}});
  gradus::optimizer<gradus::sgd> without(plain);
  const auto h = opt.add(w, g);
  without.add(of_plain, g);
  opt.step();
  without.step();
  opt.copy_average(h, e);
  CHECK(w == std::vector<float>(3, 0.9f));
  CHECK(e == std::vector<float>(3, 0.95f));
  for (int t = 2; t <= 4; ++t) {
    opt.step();
    without.step();
    CHECK(w == of_plain);
  }
}

TEST_CASE("averaged: the same bits on the scalar backend and on threads")
{
  const averaged<gradus::adamw, average::lookahead> recipe{{.lr = 0.01}, {.period = 2}};
  const auto expected = trained(recipe);
  CHECK(expected == trained<decltype(recipe), gradus::backend::scalar>(recipe));
  using three = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;
  CHECK(expected ==
        trained(recipe, three({}, gradus::executor::thread_pool(3), {.from = 0, .piece = 4096, .pieces = 8})));
}

TEST_CASE("averaged: a run that is saved and loaded goes on with the same bits; other settings are refused")
{
  using recipe = averaged<gradus::adamw, average::swa>;
  std::vector<float> w(12, 0.5f), g(12, 1.0f), e(12), w2(12), e2(12);
  gradus::optimizer<recipe> opt({{.lr = 0.05}, {.start = 2}}), other;
  const auto h = opt.add("w", w, g), h2 = other.add("w", w2, g);
  for (int t = 0; t < 3; ++t)
    opt.step();
  std::string file;
  gradus::save_to(opt,
                  [&](const void* bytes, std::size_t n) {
                    return file.append(static_cast<const char*>(bytes), n), true;
                  },
                  {.parameters = true});
  gradus::load_from(other, std::as_bytes(std::span(file)));
  CHECK(other.hyperparameters().average.start == 2);
  for (int t = 0; t < 3; ++t) {
    opt.step();
    other.step();
  }
  opt.copy_average(h, e);
  other.copy_average(h2, e2);
  CHECK(w == w2);
  CHECK(e == e2);
  gradus::optimizer<averaged<gradus::adamw, average::ema>> wrong;
  wrong.add("w", w2, g);
  CHECK_THROWS_AS(gradus::load_from(wrong, std::as_bytes(std::span(file))), std::invalid_argument);
  CHECK_THROWS_WITH_AS((gradus::optimizer<recipe>({{}, {.period = 0}})),
                       "gradus: average_period is 0; expected a finite number >= 1", std::invalid_argument);
}

TEST_CASE("copy_average: elements that are not trained, and frozen tensors, are as the parameters")
{
  using recipe = averaged<gradus::adamw, average::ema>;
  std::vector<double> w{1, 2, 3}, g{1, 1, 1}, frozen{5}, gf{1}, e(3), ef(1);
  const std::vector<bool> mask{true, false, true};
  gradus::optimizer<recipe, double> opt({{.lr = 0.1}, {.decay = 0.5}});
  const auto h = opt.add(w, g, gradus::trained_mask(mask)), hf = opt.add(frozen, gf);
  opt.freeze(hf);
  opt.step();
  opt.step();
  opt.copy_average(h, e);
  opt.copy_average(hf, ef);
  CHECK(e[0] != w[0]);
  CHECK(e[1] == 2);
  CHECK(ef[0] == 5);
}

TEST_CASE("averaged: weights of 16 bits with masters, and moments and averages of 16 bits")
{
  const auto run = []<class Precision>(std::type_identity<Precision>) {
    using W = typename Precision::parameter_type;
    std::vector<W> w(12, W(0.5f)), e(12);
    std::vector<float> g{1, -1, 2, 3, 0, 1, -2, 1, 1, 0, 0, 4};
    gradus::optimizer<averaged<gradus::adamw, average::ema>, Precision> opt({{.lr = 0.05}, {.decay = 0.5}});
    const auto h = opt.add(w, g);
    for (int t = 0; t < 4; ++t)
      opt.step();
    opt.copy_average(h, e);
    return std::vector<float>(e.begin(), e.end());
  };
  using gradus::precision, gradus::bfloat16;
  const auto plain = run(std::type_identity<precision<float, float, float>>{});
  for (const auto& rounded : {run(std::type_identity<precision<bfloat16, float, float, float>>{}),
                              run(std::type_identity<precision<float, float, bfloat16>>{})})
    for (std::size_t i = 0; i < plain.size(); ++i)
      CHECK(std::fabs(plain[i] - rounded[i]) < 0.01f);
}
