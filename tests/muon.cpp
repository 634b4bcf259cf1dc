// Muon: trajectories of PyTorch's, threads and products, and what is refused.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/muon.hpp>
#include <gradus/schedule.hpp>
#if __has_include(<Eigen/SVD>)
#include <Eigen/SVD>
#include <gradus/gemm/eigen.hpp>
#endif
#if defined(GRADUS_TEST_BLAS)
#include <gradus/gemm/blas.hpp>
#endif

#include "support/golden.hpp"
#include "support/random.hpp"
#include "support/walk.hpp"

namespace {

using gradus::muon, gradus::muon_optimizer, gradus::storage_order, gradus::view_shape;
using support::draw;
namespace gemm = gradus::gemm;

view_shape by_rows(std::size_t rows, std::size_t columns)
{
  return view_shape(storage_order::row_major, rows, columns);
}
muon adamw_with(muon h)
{
  h.orthogonal = false;
  return h;
}

// The largest difference from a recorded case, relative to 1e-3 + |x|.
template <class Product, class T, class Cpu = gradus::default_backend>
double worst_difference(const golden::problem& p, const golden::recording& c)
{
  const auto value = [&](const char* key) { return c.hyperparameters.at(key); };
  const muon h{.lr = value("lr"),
               .weight_decay = value("weight_decay"),
               .momentum = value("momentum"),
               .nesterov = value("nesterov") != 0,
               .ns_steps = value("ns_steps"),
               .match_rms_adamw = value("match_rms_adamw") != 0};
  golden::model<T> model(p);
  muon_optimizer<Product, T, Cpu> opt(h);
  muon other = adamw_with(h);
  other.weight_decay = 0;
  const auto adamw = opt.add_group(other);
  const view_shape shapes[] = {by_rows(4, 6), by_rows(6, 4), by_rows(5, 5)};
  for (std::size_t k = 0; k < model.tensors.size(); ++k) {
    auto& x = model.tensors[k];
    if (k < 3)
      opt.set_shape(opt.add(x.weights, x.gradients), shapes[k]);
    else
      opt.add(x.weights, x.gradients, adamw);
  }
  std::vector<double> milestones;
  for (const int drop : p.drops)
    milestones.push_back(drop - 1);
  const gradus::schedule::multi_step schedule{.milestones = milestones, .gamma = 0.1};
  double worst = 0;
  std::size_t compared = 0;
  for (int t = 1; t <= p.steps; ++t) {
    model.compute_gradients(t);
    opt.step({.lr_scale = schedule(t - 1)});
    const auto recorded = c.at.find(t);
    if (recorded == c.at.end())
      continue;
    auto expected = recorded->second.begin();
    for (const auto& x : model.tensors)
      for (const T w : x.weights) {
        const double difference = std::fabs(double(w) - *expected) / (1e-3 + std::fabs(*expected));
        worst = difference > worst || std::isnan(difference) ? difference : worst;
        ++expected;
        ++compared;
      }
  }
  CHECK(compared == c.at.size() * 76);
  return worst;
}

template <class Product>
void follow_recorded(const char* product)
{
  const golden::file recorded = golden::read(GRADUS_TEST_DATA "/golden/muon.txt");
  CHECK(recorded.cases.size() == 4);
  for (const auto& c : recorded.cases) {
    CHECK(c.at.size() == 9);
    const double in_double = worst_difference<Product, double>(recorded.problem, c),
                 in_float = worst_difference<Product, float>(recorded.problem, c);
    std::printf("%-6s %-21s double %.1e  float %.1e\n", product, c.name.c_str(), in_double, in_float);
    // PyTorch's own iteration has the 8 bits of bfloat16.
    const bool is_rough = c.name == "muon_bfloat16";
    CHECK_MESSAGE(in_double < (is_rough ? 0.5 : 1e-10), c.name);
    CHECK_MESSAGE(in_float < (is_rough ? 0.5 : 5e-3), c.name);
  }
}

// Four matrices of up to three pages, one turned, and a vector; a few steps with clipping.
template <class Optimizer>
std::vector<std::vector<float>> trained(Optimizer opt)
{
  constexpr std::size_t sizes[][2] = {{70, 130}, {130, 70}, {1, 9}, {33, 33}};
  support::random r(5);
  std::vector<std::vector<float>> weights, gradients;
  for (const auto& s : sizes) {
    weights.push_back(draw<float>(r, s[0] * s[1]));
    gradients.push_back(draw<float>(r, s[0] * s[1]));
  }
  weights.push_back(draw<float>(r, 5000));
  gradients.push_back(draw<float>(r, 5000));
  const auto adamw = opt.add_group(adamw_with(opt.hyperparameters()));
  for (std::size_t k = 0; k < 4; ++k)
    opt.set_shape(opt.add(weights[k], gradients[k]), by_rows(sizes[k][0], sizes[k][1]));
  opt.add(weights[4], gradients[4], adamw);
  for (int t = 0; t < 3; ++t) {
    const auto report = opt.step({.max_grad_norm = 0.5});
    CHECK(report.applied);
    CHECK(*report.grad_norm > 10);
    for (auto& g : gradients)
      for (float& x : g)
        x = -0.75f * x;
  }
  return weights;
}

}  // namespace

TEST_CASE("muon: follows PyTorch's trajectories, on matrices that are wide, high and square, beside AdamW")
{
  follow_recorded<gemm::plain>("plain");
  const golden::file recorded = golden::read(GRADUS_TEST_DATA "/golden/muon.txt");
  CHECK(worst_difference<gemm::plain, double, gradus::backend::scalar>(recorded.problem, recorded.cases[0]) < 1e-10);
#if __has_include(<Eigen/SVD>)
  follow_recorded<gemm::eigen>("eigen");
#endif
#if defined(GRADUS_TEST_BLAS)
  follow_recorded<gemm::blas>("blas");
#endif
}

TEST_CASE("muon: groups that are not orthogonal are AdamW, to the bit")
{
  support::random r(7);
  std::vector<float> a = draw<float>(r, 100), b = a, gradients = draw<float>(r, 100);
  muon_optimizer<> opt(
      muon{.lr = 0.01, .weight_decay = 0.3, .orthogonal = false, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6});
  gradus::optimizer<gradus::adamw> adamw({.lr = 0.01, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.3});
  opt.add(a, gradients);
  adamw.add(b, gradients);
  for (int t = 0; t < 5; ++t) {
    opt.step();
    adamw.step();
    for (float& g : gradients)
      g = 0.5f - g;
  }
  CHECK(a == b);
}

TEST_CASE("orthogonal_ema: other step sizes and decays")
{
  using gradus::compose;
  namespace first_moment = gradus::first_moment;
  namespace second_moment = gradus::second_moment;
  namespace step_size = gradus::step_size;
  namespace decay = gradus::decay;
  support::random r(32);
  const std::vector<float> start = draw<float>(r, 60), g = draw<float>(r, 60);
  const auto moved = [&](const auto& recipe) {
    std::vector<float> w = start;
    gradus::optimizer<std::remove_cvref_t<decltype(recipe)>, float, gradus::backend::with_product<gemm::plain>> opt(
        recipe);
    opt.set_shape(opt.add(w, g), by_rows(20, 3));
    for (int t = 0; t < 3; ++t)
      opt.step();
    return w;
  };
  const auto with = [&](const auto& v, const auto& a, const auto& d) {
    return moved(compose(0.1, first_moment::orthogonal_ema{}, v, a, d));
  };
  const auto muon_itself = moved(muon{.lr = 0.1, .weight_decay = 0.25});
  CHECK(muon_itself == with(second_moment::none{}, step_size::constant{}, decay::decoupled{0.25}));
  const auto spared = with(second_moment::none{}, step_size::constant{}, decay::cautious{0.25});
  const auto kept = with(second_moment::none{}, step_size::constant{}, decay::none{});
  CHECK(spared != kept);
  CHECK(spared != muon_itself);
  // In the first steps of a constant gradient, v̂ = g².
  const auto adaptive = with(second_moment::ema{}, step_size::adaptive{.eps = 0}, decay::none{});
  for (std::size_t i = 0; i < g.size(); ++i)
    CHECK(double(adaptive[i] - start[i]) * std::fabs(double(g[i])) ==
          doctest::Approx(double(kept[i] - start[i])).epsilon(1e-3));
}

TEST_CASE("muon: the same bits for any number of threads, and on the scalar backend")
{
  const auto expected = trained(muon_optimizer<>(muon{.lr = 0.05}));
  using three = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;
  CHECK(expected ==
        trained(muon_optimizer<gemm::plain, float, three>(
            muon{.lr = 0.05},
            gradus::backend::with_product<gemm::plain, three>({}, three({}, gradus::executor::thread_pool(3),
                                                                        {.from = 0, .piece = 4096, .pieces = 8})))));
  CHECK(expected == trained(muon_optimizer<gemm::plain, float, gradus::backend::scalar>(muon{.lr = 0.05})));
}

TEST_CASE("muon: matrices have a moment of their own size, and only AdamW's groups a second one")
{
  std::vector<float> w(6, 1.0f), g(6, 1.0f), b(2, 1.0f), gb(2, 1.0f);
  muon_optimizer<> opt(muon{.lr = 0.1});
  const auto matrix = opt.add("w", w, g);
  opt.set_shape(matrix, by_rows(2, 3));
  opt.add("b", b, gb, opt.add_group(adamw_with(opt.hyperparameters())));
  CHECK(opt.state_bytes() == (6 + 2 + 2) * sizeof(float));
  opt.step();
  CHECK(opt.state("w", "exp_avg").size() == 6);
  CHECK(opt.state("b", "exp_avg_sq").size() == 2);
  CHECK_THROWS_AS((void)opt.state("w", "exp_avg_sq"), std::invalid_argument);
  CHECK(opt.step_count(matrix) == 1);
}

TEST_CASE("muon: a zero gradient moves nothing but by decay, also without eps")
{
  for (const double eps : {0.0, 1e-7}) {
    std::vector<double> w(6, 1.0), g(6, 0.0);
    muon_optimizer<gemm::plain, double> opt(muon{.lr = 0.5, .weight_decay = 0.5, .ns_eps = eps});
    opt.set_shape(opt.add(w, g), by_rows(3, 2));
    opt.step();
    opt.step();
    CHECK(w == std::vector<double>(6, 0.5625));
  }
}

TEST_CASE("muon: a run that is saved and loaded goes on with the same bits")
{
  const auto steps = [](auto& opt, std::vector<float>& g, int from, int to) {
    for (int t = from; t < to; ++t) {
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = float(int(i * 7 + std::size_t(t) * 5) % 11 - 5);
      opt.step();
    }
  };
  const auto set_up = [](auto& opt, std::vector<float>& w, std::vector<float>& g, std::vector<float>& b) {
    opt.set_shape(opt.add("w", w, g), by_rows(4, 3));
    opt.add("b", b, g, opt.add_group(adamw_with(opt.hyperparameters())));
  };
  std::vector<float> w(12, 0.5f), g(12), b(12, 0.5f);
  muon_optimizer<> opt(muon{.lr = 0.05, .ns_steps = 4});
  set_up(opt, w, g, b);
  steps(opt, g, 0, 3);
  std::string file;
  gradus::save_to(opt,
                  [&](const void* bytes, std::size_t n) {
                    return file.append(static_cast<const char*>(bytes), n), true;
                  },
                  {.parameters = true});
  steps(opt, g, 3, 6);
  std::vector<float> w2(12), g2(12), b2(12);
  muon_optimizer<> other;
  set_up(other, w2, g2, b2);
  gradus::load_from(other, std::as_bytes(std::span(file)));
  steps(other, g2, 3, 6);
  CHECK(w == w2);
  CHECK(b == b2);
}

TEST_CASE("muon: weights of 16 bits, with masters and without")
{
  const auto run = []<class Precision>(std::type_identity<Precision>) {
    using W = typename Precision::parameter_type;
    std::vector<W> w(12, W(0.5f));
    std::vector<float> g{1, -1, 2, 3, 0, 1, -2, 1, 1, 0, 0, 4};
    muon_optimizer<gemm::plain, Precision> opt(muon{.lr = 0.05});
    opt.set_shape(opt.add(w, g), by_rows(4, 3));
    for (int t = 0; t < 4; ++t)
      opt.step();
    return std::vector<float>(w.begin(), w.end());
  };
  using gradus::precision, gradus::bfloat16;
  const auto plain = run(std::type_identity<precision<float, float, float>>{});
  for (const auto& rounded : {run(std::type_identity<precision<bfloat16, float, float>>{}),
                              run(std::type_identity<precision<bfloat16, float, float, float>>{}),
                              run(std::type_identity<precision<bfloat16, float, float, gradus::remainder16>>{})})
    for (std::size_t i = 0; i < plain.size(); ++i)
      CHECK(std::fabs(plain[i] - rounded[i]) < 0.01f);
}

#if __has_include(<Eigen/SVD>)
TEST_CASE("newton_schulz: five iterations bring singular values from 0.01 on to between 0.68 and 1.14")
{
  support::random r(3);
  for (const auto& [rows, columns] : {std::pair(8, 5), std::pair(5, 8), std::pair(6, 6)}) {
    Eigen::MatrixXd w = Eigen::MatrixXd::Zero(rows, columns), g(rows, columns);
    for (double& x : std::span(g.data(), std::size_t(g.size())))
      x = r.uniform(-1, 1);
    muon_optimizer<gemm::eigen, double> opt(muon{.lr = 1, .weight_decay = 0});
    opt.add(w, g);  // has the shape of its own
    opt.step();
    w /= std::sqrt(std::max(1.0, double(rows) / columns));
    const Eigen::JacobiSVD<Eigen::MatrixXd> before(g), after(w);
    REQUIRE(before.singularValues().minCoeff() / g.norm() > 0.01);
    CHECK(after.singularValues().minCoeff() > 0.68);
    CHECK(after.singularValues().maxCoeff() < 1.14);
  }
}

TEST_CASE("set_shape: a column-major matrix of Eigen and a row-major copy take the same steps")
{
  Eigen::MatrixXd w(3, 2), g(3, 2);
  w << 1, 4, 2, 5, 3, 6;
  g << 1, 0, -1, 3, 2, 1;
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> w2 = w, g2 = g;
  std::vector<double> w3(w2.data(), w2.data() + 6), g3(g2.data(), g2.data() + 6);
  muon_optimizer<gemm::plain, double> opt(muon{.lr = 0.1});
  opt.add(w, g);
  opt.add(w2, g2);
  opt.set_shape(opt.add(w3, g3), by_rows(3, 2));
  for (int t = 0; t < 3; ++t)
    opt.step();
  CHECK((w - w2).cwiseAbs().maxCoeff() < 1e-14);
  CHECK(std::vector<double>(w2.data(), w2.data() + 6) == w3);
}

namespace {
struct of_at_most_four : gemm::plain {
  static constexpr std::size_t most = 4;
};
}  // namespace

TEST_CASE("add: of a matrix that the product cannot take adds nothing; groups of AdamW need no product")
{
  Eigen::MatrixXf w = Eigen::MatrixXf::Ones(3, 5), g = w;
  const muon h{.lr = 0.1};
  muon_optimizer<of_at_most_four> opt(h);
  const auto adamw = opt.add_group(adamw_with(h));
  const char* const sentence =
      "gradus: shape of tensor \"w\" has 5 rows or columns; expected at most 4, which the matrix product can take";
  CHECK_THROWS_WITH_AS(opt.add("w", w, g), sentence, std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.add("w", w), sentence, std::invalid_argument);
  CHECK(opt.parameter_count() == 0);
  const auto added = opt.add("w", w, g, adamw);
  opt.step();
  CHECK_THROWS_WITH_AS(opt.set_hyperparameters(h, adamw), sentence, std::invalid_argument);
  CHECK(!opt.hyperparameters(adamw).orthogonal);
  opt.remove(added, gradus::removed_state::kept);
  CHECK_THROWS_WITH_AS(opt.add("w", w, g, opt.group_at(0)), sentence, std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.add("w", std::span(w.data(), 15), std::span(g.data(), 15), opt.group_at(0)), sentence,
                       std::invalid_argument);
  CHECK(opt.parameter_count() == 0);
  CHECK(opt.step_count(opt.add("w", w, g)) == 1);  // in its own group
}

TEST_CASE("rebind: memory of another shape or order is refused")
{
  using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::MatrixXf w = Eigen::MatrixXf::Ones(3, 2), g = w, same = w, turned = Eigen::MatrixXf::Ones(2, 3),
                  turned_g = turned;
  row_major other = w, other_g = w;
  muon_optimizer<> opt;
  const auto h = opt.add("w", w, g);
  CHECK_THROWS_WITH_AS(
      opt.rebind(h, turned, turned_g),
      "gradus: shape of parameters of tensor \"w\" is 2x3, column-major; expected 3x2, column-major, its "
      "shape so far (a std::span(pointer, size) has no shape)",
      std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.rebind(h, other, other_g),
                       "gradus: shape of parameters of tensor \"w\" is 3x2, row-major; expected 3x2, column-major, its "
                       "shape so far (a std::span(pointer, size) has no shape)",
                       std::invalid_argument);
  opt.step();
  CHECK(other == row_major::Ones(3, 2));
  opt.rebind(h, same, g);
  opt.step();
  CHECK(same != Eigen::MatrixXf::Ones(3, 2));
}
#endif

TEST_CASE("muon: a matrix without a shape, wrong shapes and a mask are refused, and nothing changes")
{
  std::vector<float> w(6, 1.0f), g(6, 1.0f), b(6, 1.0f);
  muon_optimizer<> opt(muon{.lr = 0.1});
  const auto h = opt.add("w", w, g);
  const auto other = opt.add("b", b, g, opt.add_group(adamw_with(opt.hyperparameters())));
  CHECK_THROWS_WITH_AS(
      opt.step(),
      "gradus: tensor \"w\" has no shape and is in a group with orthogonal = 1; expected "
      "set_shape(tensor, shape) before the step, or a group with orthogonal = 0 for what is not a matrix",
      std::invalid_argument);
  CHECK(opt.step_count(other) == 0);
  CHECK(b == std::vector<float>(6, 1.0f));
  for (const auto& [shape, text] :
       {std::pair(by_rows(2, 4), "2x4"), std::pair(by_rows(0, 6), "0x6"), std::pair(by_rows(4, 1), "4x1"),
        std::pair(view_shape(storage_order::row_major, 6), "6"),
        std::pair(view_shape(storage_order::row_major, 1, 2, 3), "1x2x3")})
    CHECK_THROWS_WITH_AS(
        opt.set_shape(h, shape),
        ("gradus: shape of tensor \"w\" is " + std::string(text) + "; expected rows and columns of 6 elements").c_str(),
        std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.set_shape(h, view_shape(storage_order::other, 3, 2)),
                       "gradus: storage order of tensor \"w\" is neither row-major nor column-major; expected one of "
                       "them, because this recipe multiplies matrices",
                       std::invalid_argument);
  opt.set_shape(h, by_rows(3, 2));
  opt.step();
  CHECK(opt.step_count(other) == 1);
  std::vector<float> masked(6, 1.0f);
  const std::vector<bool> mask{true, true, true, false, true, true};
  opt.set_shape(opt.add("masked", masked, g, gradus::trained_mask(mask)), by_rows(3, 2));
  CHECK_THROWS_WITH_AS(opt.step(),
                       "gradus: tensor \"masked\" has a mask and is in a group with orthogonal = 1; expected no mask, "
                       "because its direction depends on all elements",
                       std::invalid_argument);
  CHECK(masked == std::vector<float>(6, 1.0f));
}

TEST_CASE_TEMPLATE("muon: the step has the same size for gradients of every size", T, float, double)
{
  const auto step = [](T scale) {
    support::random r(31);
    std::vector<T> w(70 * 30), g = draw<T>(r, w.size());
    for (T& x : g)
      x *= scale;
    muon_optimizer<gemm::plain, T> opt(muon{.lr = 1, .ns_eps = 0});
    opt.set_shape(opt.add(w, g), by_rows(70, 30));
    opt.step();
    return w;
  };
  const auto expected = step(1);
  CHECK(std::fabs(double(expected[0])) > 1e-3);
  const bool is_float = sizeof(T) == 4;
  for (const T scale : {is_float ? T(0x1p126) : T(0x1p1000), is_float ? T(0x1p-100) : T(0x1p-900), T(0x1p60)})
    CHECK(support::largest_difference(step(scale), expected) < (is_float ? 1e-3 : 1e-9));
}

TEST_CASE("muon: ns_steps is a whole number from 1 to 99")
{
  for (const double bad : {2.5, 100.0})
    CHECK_THROWS_WITH_AS(muon_optimizer<>(muon{.ns_steps = bad}),
                         ("gradus: ns_steps is " + std::string(bad < 3 ? "2.5" : "100") +
                          "; expected a whole number from 1 to 99")
                             .c_str(),
                         std::invalid_argument);
  CHECK_THROWS_AS(muon_optimizer<>(muon{.ns_steps = 0}), std::invalid_argument);
  CHECK_NOTHROW(muon_optimizer<>(muon{.ns_steps = 99}));
}

TEST_CASE("any_optimizer: has muon by a list with it and a backend with a product; other recipes have no shapes")
{
  using backend = gradus::backend::with_product<gemm::plain>;
  using any = gradus::any_optimizer<float, backend, gradus::recipe_list<muon, gradus::adamw>>;
  std::vector<float> w(6, 1.0f), w2 = w, g{1, 2, 3, -1, 0, 1};
  any opt("muon", {{"lr", 0.05}, {"ns_steps", 3}});
  opt.set_shape(opt.add(w, g), by_rows(2, 3));
  muon_optimizer<> same(muon{.lr = 0.05, .ns_steps = 3});
  same.set_shape(same.add(w2, g), by_rows(2, 3));
  opt.step();
  same.step();
  CHECK(w == w2);
  any adamw("adamw", {});
  CHECK_THROWS_WITH_AS(adamw.set_shape(adamw.add(w2, g), by_rows(2, 3)),
                       "gradus: the optimizer is adamw; expected one that works on matrices, such as muon",
                       std::invalid_argument);
}
