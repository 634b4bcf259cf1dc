// Every refusal: the whole sentence, and that the refused call has changed nothing.

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/locale.hpp"
#include "support/own_rules.hpp"

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// Refusals know no backend, so the one that compiles fastest serves.
template <class Recipe>
using optimizer = gradus::optimizer<Recipe, float, gradus::backend::scalar>;

// An optimizer in the middle of its work, with two tensors in two groups, and an image of all that can be seen of it.
template <class Recipe>
struct scene {
  std::vector<float> weight{1, -2, 3, 0.5f, 7}, weight_gradient{0.5f, 1, -1, 2, 0.25f};
  std::vector<float> bias{4, 5, -6}, bias_gradient{1, 0.125f, -3};
  std::vector<float> spare{1, 2, 3}, spare_gradient{3, 2, 1};
  optimizer<Recipe> opt;
  gradus::group_handle undecayed;
  gradus::tensor_handle w, b;

  explicit scene(Recipe r = {}) : opt(r)
  {
    r.weight_decay = 0;
    undecayed = opt.add_group(r);
    w = opt.add("weight", weight, weight_gradient);
    b = opt.add("bias", bias, bias_gradient, undecayed);
    opt.step();
    opt.step();
  }

  std::string image() const
  {
    std::string all;
    const auto put = [&](const auto* x, std::size_t n) {
      if (n > 0)
        all.append(reinterpret_cast<const char*>(x), n * sizeof *x);
      all += '|';
    };
    for (const auto* x : {&weight, &weight_gradient, &bias, &bias_gradient, &spare, &spare_gradient})
      put(x->data(), x->size());
    opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
      all.append(name).append(key);
      put(values.data(), values.size());
    });
    all += std::to_string(opt.step_count(w)) + ' ' + std::to_string(opt.step_count(b)) + ' ' +
           std::to_string(opt.parameter_count()) + ' ' + std::to_string(opt.state_bytes());
    for (const auto& g : {gradus::group_handle{}, undecayed}) {
      Recipe r = opt.hyperparameters(g);
      gradus::for_each_hyperparameter(
          r, [&](std::string_view, auto value, gradus::range) { all += ' ' + std::to_string(double(value)); });
    }
    return all;
  }
};

// The call is refused in these words, nothing that can be seen has changed, and nothing that cannot: a twin that was never
// refused anything does the same afterwards.
template <class Recipe = gradus::adams, class Call>
void check_refused(const std::string& message, Call&& call, const Recipe& recipe = {})
{
  CAPTURE(message);
  scene<Recipe> s(recipe), twin(recipe);
  const std::string before = s.image();
  CHECK_THROWS_WITH_AS(call(s), message.c_str(), std::invalid_argument);
  CHECK((s.image() == before));
  for (auto* x : {&s, &twin}) {
    x->opt.step();
    x->opt.add("spare", x->spare, x->spare_gradient, x->opt.add_group(x->opt.hyperparameters(x->undecayed)));
    x->opt.step();
  }
  CHECK((s.image() == twin.image()));
}

// What is expected of each hyperparameter, and values outside it.
struct limits {
  const char* name;
  const char* expected;
  std::vector<double> outside;
};
const limits all_limits[] = {
    {"lr", "a finite number >= 0", {-1e-3, not_a_number, inf}},
    {"momentum", "a number in [0, 1)", {-0.1, 1, 1.5, not_a_number, inf}},
    {"dampening", "a number in [0, 1]", {-0.1, 1.5, not_a_number, inf}},
    {"beta1", "a number in [0, 1)", {-0.1, 1, 2, not_a_number, inf}},
    {"beta2", "a number in [0, 1)", {-0.1, 1, 2, not_a_number, inf}},
    {"eps", "a finite number >= 0", {-1e-8, not_a_number, inf}},
    {"weight_decay", "a finite number >= 0", {-0.01, not_a_number, inf}},
    {"initial_accumulator", "a finite number >= 0", {-1e-6, not_a_number, inf}},
    {"final_lr", "a finite number >= 0", {-0.1, not_a_number, inf}},
    {"gamma", "a number in (0, 1)", {-1e-3, 0, 1, not_a_number, inf}},
    {"partial", "a number in [0, 0.5]", {-0.125, 0.75, not_a_number, inf}},
};

std::string text(double x)
{
  return gradus::detail::show(x);
}

// Eigen's block of a matrix, as far as gradus looks at it.
struct block {
  float* first;
  std::size_t count;
  std::ptrdiff_t inner_stride, outer_stride, inner_size, outer_size;

  float* data() const { return first; }
  std::size_t size() const { return count; }
  std::ptrdiff_t innerStride() const { return inner_stride; }
  std::ptrdiff_t outerStride() const { return outer_stride; }
  std::ptrdiff_t innerSize() const { return inner_size; }
  std::ptrdiff_t outerSize() const { return outer_size; }
};

}  // namespace

TEST_CASE("numbers stand in a sentence short, and exact enough to recognise")
{
  CHECK(text(1e-3) == "0.001");
  CHECK(text(-1) == "-1");
  CHECK(text(not_a_number) == "nan");
  CHECK(text(inf) == "inf");
  CHECK(text(1.0000001) == "1.0000001");
}

TEST_CASE("hyperparameters outside their range, of every recipe")
{
  int refused = 0;
  gradus::for_each_recipe([&]<class Recipe>(std::string_view recipe_name, std::type_identity<Recipe>) {
    CAPTURE(recipe_name);
    Recipe model;
    gradus::for_each_hyperparameter(model, [&](std::string_view name, auto& field, gradus::range) {
      using Field = std::remove_reference_t<decltype(field)>;
      if (std::is_same_v<Field, bool>)
        return;  // cannot be anything but a yes or a no
      const limits* limit = nullptr;
      for (const limits& l : all_limits)
        if (l.name == name)
          limit = &l;
      REQUIRE_MESSAGE(limit, name);
      const Field good = field;
      for (const double bad : limit->outside) {
        field = Field(bad);
        const std::string message = "gradus: " + std::string(name) + " is " + text(bad) + "; expected " + limit->expected;
        CHECK_THROWS_WITH_AS(optimizer<Recipe>{model}, message.c_str(), std::invalid_argument);
        optimizer<Recipe> opt;
        CHECK_THROWS_WITH_AS(opt.add_group(model), message.c_str(), std::invalid_argument);
        CHECK_THROWS_WITH_AS(opt.set_hyperparameters(model), message.c_str(), std::invalid_argument);
        CHECK(double(opt.hyperparameters().lr) == Recipe{}.lr);
        ++refused;
      }
      field = good;
    });
  });
  CHECK(refused > 150);
}

TEST_CASE("hyperparameters of a composition's rules")
{
  const auto composed = [](double lr, double beta1, double beta2, double eps, double weight_decay, double decay_eps) {
    return gradus::compose(lr, gradus::first_moment::ema{.beta1 = beta1}, gradus::second_moment::ema_max{.beta2 = beta2},
                           gradus::step_size::adaptive{.eps = eps},
                           gradus::decay::scheduled{.weight_decay = weight_decay, .eps = decay_eps});
  };
  using recipe = decltype(composed(0, 0, 0, 0, 0, 0));
  const auto make = [&](const recipe& r) { return optimizer<recipe>(r); };
  CHECK_NOTHROW(make(composed(0, 0, 0, 0, 0, 0)));
  CHECK_THROWS_WITH_AS(make(composed(-1, 0, 0, 0, 0, 0)), "gradus: lr is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 1, 0, 0, 0, 0)), "gradus: beta1 is 1; expected a number in [0, 1)", std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 1, 0, 0, 0)), "gradus: beta2 is 1; expected a number in [0, 1)", std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, -1, 0, 0)), "gradus: eps is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, 0, -1, 0)), "gradus: weight_decay is -1; expected a finite number >= 0", std::invalid_argument);
  CHECK_THROWS_WITH_AS(make(composed(0, 0, 0, 0, 0, -2)), "gradus: eps is -2; expected a finite number >= 0", std::invalid_argument);
}

TEST_CASE("fields of a rule of one's own, of a rule in it and of one that it derives from, are checked by their names")
{
  own::blended first{};
  own::deriving second{};
  const auto make = [&] {
    const auto rule = gradus::compose(0.1, first, second, gradus::step_size::adaptive{}, gradus::decay::none{});
    return optimizer<std::remove_const_t<decltype(rule)>>(rule);
  };
  CHECK_NOTHROW(make());
  first.alpha = not_a_number;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is nan; expected a number in [0, 1]", std::invalid_argument);
  first.alpha = 1.5;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is 1.5; expected a number in [0, 1]", std::invalid_argument);
  first.alpha = 1;
  first.inner.beta1 = 1;
  CHECK_THROWS_WITH_AS(make(), "gradus: beta1 is 1; expected a number in [0, 1)", std::invalid_argument);
  first.inner.beta1 = 0;
  second.alpha = 0;
  CHECK_THROWS_WITH_AS(make(), "gradus: alpha is 0; expected a finite number > 0", std::invalid_argument);
  second.alpha = 1;
  second.beta2 = not_a_number;
  CHECK_THROWS_WITH_AS(make(), "gradus: beta2 is nan; expected a number in [0, 1)", std::invalid_argument);
  second.beta2 = 0.9;
  // A running optimizer refuses likewise, and keeps what it has.
  auto opt = make();
  auto changed = opt.hyperparameters();
  changed.first_moment.alpha = -1;
  CHECK_THROWS_WITH_AS(opt.set_hyperparameters(changed), "gradus: alpha is -1; expected a number in [0, 1]", std::invalid_argument);
  CHECK(opt.hyperparameters().first_moment.alpha == 1);
}

TEST_CASE("nesterov needs a momentum and no dampening")
{
  const std::string expected = "; expected momentum > 0 and dampening = 0: set them so, or nesterov = false";
  const gradus::sgd without_momentum{.nesterov = true};
  const gradus::sgds dampened{.momentum = 0.9, .dampening = 0.5, .nesterov = true};
  CHECK_THROWS_WITH_AS(optimizer<gradus::sgd>{without_momentum},
                       ("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected).c_str(), std::invalid_argument);
  CHECK_THROWS_WITH_AS(optimizer<gradus::sgds>{dampened},
                       ("gradus: nesterov is 1 with momentum 0.9 and dampening 0.5" + expected).c_str(), std::invalid_argument);
  CHECK_NOTHROW(optimizer<gradus::sgd>({.momentum = 0.9, .nesterov = true}));
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.set_hyperparameters(without_momentum, s.undecayed); }, {.momentum = 0.5});
  check_refused<gradus::sgd>("gradus: nesterov is 1 with momentum 0 and dampening 0" + expected,
                             [&](auto& s) { s.opt.add_group(without_momentum); });
}

TEST_CASE("memory: null, of another size, too long")
{
  using floats = std::span<float>;
  const auto none = static_cast<float*>(nullptr);
  check_refused("gradus: parameters of tensor \"x\" is null; expected 3 elements",
                [&](auto& s) { s.opt.add("x", floats(none, 3), s.spare_gradient); });
  check_refused("gradus: gradients of tensor \"x\" is null; expected 3 elements",
                [&](auto& s) { s.opt.add("x", s.spare, floats(none, 3)); });
  check_refused("gradus: size of gradients of tensor \"x\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.add("x", s.spare, s.weight_gradient); });
  check_refused("gradus: size of gradients of tensor \"tensor2\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.add(s.spare, s.weight_gradient); });
  check_refused("gradus: parameters of tensor \"bias\" is null; expected 3 elements",
                [&](auto& s) { s.opt.rebind(s.b, floats(none, 3), s.spare_gradient); });
  check_refused("gradus: gradients of tensor \"bias\" is null; expected 3 elements",
                [&](auto& s) { s.opt.rebind(s.b, s.spare, floats(none, 3)); });
  check_refused("gradus: size of gradients of tensor \"bias\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.rebind(s.b, s.spare, s.weight_gradient); });
  check_refused("gradus: size of parameters of tensor \"bias\" is 5; expected 3, the size of its state",
                [](auto& s) { s.opt.rebind(s.b, s.weight, s.weight_gradient); });

  // Lengths whose bytes exceed what any memory holds, alone or together with the eight parameters that are there.
  const std::size_t most = std::size_t(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(float) - 8;
  for (const std::size_t n : {most + 1, std::size_t(-1) / sizeof(float), std::size_t(-1)})
    check_refused("gradus: size of parameters of tensor \"x\" is " + std::to_string(n) + "; expected at most " +
                      std::to_string(most) + ", or the bytes of all tensors would overflow",
                  [&](auto& s) { s.opt.add("x", floats(s.spare.data(), n), floats(s.spare_gradient.data(), n)); });
}

TEST_CASE("gradients in the memory of their parameters")
{
  const std::string message = "gradus: gradients of tensor \"x\" overlap its parameters; expected memory of their own";
  std::vector<float> memory(8, 1.0f);
  const std::span<float> all(memory);
  const auto add = [&](std::size_t w, std::size_t g, std::size_t n) {
    return [=](auto& s) { s.opt.add("x", all.subspan(w, n), all.subspan(g, n)); };
  };
  check_refused(message, add(0, 0, 8));
  check_refused(message, add(0, 3, 4));
  check_refused(message, add(3, 0, 4));
  check_refused(message, add(4, 4, 1));
  check_refused("gradus: gradients of tensor \"bias\" overlap its parameters; expected memory of their own",
                [&](auto& s) { s.opt.rebind(s.b, all.subspan(0, 3), all.subspan(2, 3)); });

  optimizer<gradus::sgd> opt;
  CHECK_NOTHROW(opt.add(all.subspan(0, 4), all.subspan(4)));  // side by side is not overlapping
  CHECK_NOTHROW(opt.add(all.subspan(0, 0), all.subspan(0, 0)));
}

TEST_CASE("elements that do not lie side by side")
{
  std::vector<float> memory(12, 1.0f);
  const block row{memory.data(), 4, 3, 1, 1, 4};
  const block corner{memory.data(), 4, 1, 3, 2, 2};
  const block column{memory.data(), 3, 1, 12, 3, 1};  // one column: where the next would begin is of no matter
  const block matrix{memory.data() + 6, 6, 1, 3, 3, 2};
  check_refused("gradus: parameters of tensor \"x\" has inner stride 3 and outer stride 1; expected elements that lie side by side (a whole matrix, or a copy)",
                [&](auto& s) { s.opt.add("x", row, s.spare_gradient); });
  check_refused("gradus: parameters has inner stride 1 and outer stride 3; expected elements that lie side by side (a whole matrix, or a copy)",
                [&](auto& s) { s.opt.add(corner, s.spare_gradient); });
  check_refused("gradus: gradients has inner stride 1 and outer stride 3; expected elements that lie side by side (a whole matrix, or a copy)",
                [&](auto& s) { s.opt.rebind(s.b, s.spare, corner); });
  optimizer<gradus::sgd> opt;
  std::vector<float> other(6, 1.0f), third(3, 1.0f);
  CHECK_NOTHROW(opt.add(column, third));
  CHECK_NOTHROW(opt.add(other, matrix));
}

TEST_CASE("names")
{
  check_refused("gradus: name is \"\"; expected at least one character, or no name at all",
                [](auto& s) { s.opt.add("", s.spare, s.spare_gradient); });
  check_refused("gradus: name is \"\"; expected at least one character, or no name at all",
                [](auto& s) { s.opt.add("", s.spare, s.spare_gradient, s.undecayed); });
  check_refused("gradus: name is \"weight\", which another tensor has; expected a name of its own",
                [](auto& s) { s.opt.add("weight", s.spare, s.spare_gradient); });
  // A tensor that has no name of its own gets one that no other has.
  optimizer<gradus::sgd> opt;
  std::vector<float> w(2, 1.0f), v(2, 1.0f), g(2, 1.0f);
  opt.add("tensor1", w, g);
  CHECK_NOTHROW(opt.add(v, g));
}

TEST_CASE("groups of another optimizer")
{
  const std::string message = "gradus: group is of another optimizer; expected one that add_group of this optimizer returned";
  optimizer<gradus::adams> other;
  const auto group = other.add_group({});
  check_refused(message, [&](auto& s) { s.opt.add("x", s.spare, s.spare_gradient, group); });
  check_refused(message, [&](auto& s) { s.opt.add(s.spare, s.spare_gradient, group); });
  check_refused(message, [&](auto& s) { s.opt.hyperparameters(group); });
  check_refused(message, [&](auto& s) { s.opt.set_hyperparameters({}, group); });
}

TEST_CASE("tensors that are not, or no longer, the optimizer's")
{
  const std::string message =
      "gradus: tensor is removed, or of another optimizer; expected one that add of this optimizer returned";
  scene<gradus::adams> other;
  const auto check_all = [&](const gradus::tensor_handle& h) {
    check_refused(message, [&](auto& s) { s.opt.rebind(h, s.spare, s.spare_gradient); });
    check_refused(message, [&](auto& s) { s.opt.freeze(h); });
    check_refused(message, [&](auto& s) { s.opt.unfreeze(h); });
    check_refused(message, [&](auto& s) { s.opt.remove(h, gradus::removed_state::dropped); });
    check_refused(message, [&](auto& s) { s.opt.remove(h, gradus::removed_state::kept); });
    check_refused(message, [&](auto& s) { s.opt.step_count(h); });
  };
  check_all(other.w);
  check_all({});

  // A handle ends with its tensor, even if another one comes to stand in its place or under its name.
  for (const auto state : {gradus::removed_state::dropped, gradus::removed_state::kept}) {
    scene<gradus::adams> s;
    const auto old = s.b;
    s.opt.remove(old, state);
    CHECK_THROWS_WITH_AS(s.opt.step_count(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.remove(old, state), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.unfreeze(old), message.c_str(), std::invalid_argument);
    s.b = s.opt.add("bias", s.bias, s.bias_gradient, s.undecayed);
    const std::string before = s.image();
    CHECK_THROWS_WITH_AS(s.opt.step_count(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.freeze(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.remove(old, state), message.c_str(), std::invalid_argument);
    CHECK((s.image() == before));
    CHECK_NOTHROW(s.opt.freeze(s.b));
  }
}

TEST_CASE("a tensor comes back to kept state of another length")
{
  scene<gradus::adams> s, twin;
  for (auto* x : {&s, &twin})
    x->opt.remove(x->b, gradus::removed_state::kept);
  CHECK_THROWS_WITH_AS(s.opt.add("bias", s.weight, s.weight_gradient),
                       "gradus: size of parameters of tensor \"bias\" is 5; expected 3, the size of its state",
                       std::invalid_argument);
  CHECK(s.opt.parameter_count() == 5);
  for (auto* x : {&s, &twin}) {
    x->b = x->opt.add("bias", x->bias, x->bias_gradient);
    x->opt.step();
  }
  CHECK((s.image() == twin.image()));
}

TEST_CASE("options of a step")
{
  for (const double bad : {-1.0, -inf, inf, not_a_number})
    check_refused("gradus: lr_scale is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.lr_scale = bad}); });
  for (const double bad : {0.0, -1.0, inf, not_a_number})
    check_refused("gradus: grad_scale is " + text(bad) + "; expected a finite number > 0",
                  [=](auto& s) { s.opt.step({.grad_scale = bad}); });
  for (const double bad : {0.0, -1.0, -inf, not_a_number})
    check_refused("gradus: max_grad_norm is " + text(bad) + "; expected a number > 0 (infinity only measures)",
                  [=](auto& s) { s.opt.step({.max_grad_norm = bad}); });
  for (const double bad : {-1.0, -inf})
    check_refused("gradus: grad_norm_sq is " + text(bad) + "; expected the sum of the squares of all raw gradients",
                  [=](auto& s) { s.opt.step({.grad_norm_sq = bad}); });
  for (const double bad : {1e39, 1e-46, 1e-39})
    check_refused("gradus: grad_scale is " + text(bad) + "; expected a number from 1.17549435e-38 to 3.40282347e+38, the range of float",
                  [=](auto& s) { s.opt.step({.grad_scale = bad}); });
  check_refused("gradus: lr_scale is 1e+42 with lr 0.001; expected a product of at most 3.40282347e+38, the largest float",
                [=](auto& s) { s.opt.step({.lr_scale = 1e42}); });
  for (const double bad : {-1.0, inf, not_a_number})
    check_refused("gradus: mean_square is " + text(bad) + "; expected a finite number >= 0",
                  [=](auto& s) { s.opt.step({.mean_square = bad}); });
  check_refused("gradus: model_size is 7; expected at least 8, the number of parameters of this part",
                [=](auto& s) { s.opt.step({.grad_norm_sq = 1, .model_size = 7}); });
  check_refused("gradus: grad_norm_sq is inf; expected a finite number with max_grad_norm, which divides by its root; leave it "
                "out to have it computed, or set skip_nonfinite",
                [=](auto& s) { s.opt.step({.max_grad_norm = 1, .grad_norm_sq = inf}); });
  // One bad option among good ones is enough.
  check_refused("gradus: lr_scale is -1; expected a finite number >= 0",
                [](auto& s) { s.opt.step({.lr_scale = -1, .max_grad_norm = 1, .grad_norm_sq = 1, .skip_nonfinite = true}); });
}

TEST_CASE("hyperparameters that the compute type cannot hold")
{
  const auto check = [](const auto& good, auto change, const std::string& name) {
    auto bad = good;
    change(bad);
    check_refused("gradus: " + name + " is 1e+39; expected at most 3.40282347e+38, the largest float",
                  [=](auto& s) { s.opt.add_group(bad); }, good);
    check_refused("gradus: " + name + " is 1e+39; expected at most 3.40282347e+38, the largest float",
                  [=](auto& s) { s.opt.set_hyperparameters(bad); }, good);
    CHECK_THROWS_AS(optimizer<std::remove_const_t<decltype(bad)>>{bad}, std::invalid_argument);
    CHECK_NOTHROW(gradus::optimizer<std::remove_const_t<decltype(bad)>, double, gradus::backend::scalar>{bad});
  };
  check(gradus::adam{}, [](auto& r) { r.lr = 1e39; }, "lr");
  check(gradus::adam{}, [](auto& r) { r.eps = 1e39; }, "eps");
  check(gradus::sgd{}, [](auto& r) { r.weight_decay = 1e39; }, "weight_decay");
  check(gradus::adabound{}, [](auto& r) { r.final_lr = 1e39; }, "final_lr");
  check(gradus::yogi{}, [](auto& r) { r.initial_accumulator = 1e39; }, "initial_accumulator");
  // A rule's own, of a composition.
  const auto composed = gradus::compose(1, gradus::first_moment::ema{}, gradus::second_moment::ema{}, gradus::step_size::adaptive{},
                                        gradus::decay::scheduled{.eps = 1e39});
  CHECK_THROWS_WITH_AS((gradus::optimizer(composed)), "gradus: eps is 1e+39; expected at most 3.40282347e+38, the largest float",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(gradus::any_optimizer<float>("adam", {{"eps", 1e39}}),
                       "gradus: eps is 1e+39; expected at most 3.40282347e+38, the largest float", std::invalid_argument);
}

TEST_CASE("hyperparameters whose products the compute type cannot hold")
{
  const auto check = [](const auto& recipe, const std::string& message) {
    using R = std::remove_cvref_t<decltype(recipe)>;
    std::vector<float> w(3, 1), g(3, 1);
    optimizer<R> opt(recipe);
    opt.add(w, g);
    CHECK_THROWS_WITH_AS(opt.step(), message.c_str(), std::invalid_argument);
    CHECK(w == std::vector<float>(3, 1));
    std::vector<double> v(3, 1), h(3, 1);
    gradus::optimizer<R, double, gradus::backend::scalar> in_double(recipe);
    in_double.add(v, h);
    CHECK_NOTHROW(in_double.step());
  };
  const std::string product = "; expected a product of at most 3.40282347e+38, the largest float";
  check(gradus::adamw{.lr = 1e30, .weight_decay = 1e20}, "gradus: weight_decay is 1e+20 with lr 1e+30 and lr_scale 1" + product);
  check(gradus::sgds{.lr = 1e30, .weight_decay = 1e20}, "gradus: weight_decay is 1e+20 with lr 1e+30 and lr_scale 1" + product);
  check(gradus::adam{.lr = 1e35, .beta1 = 0.999999, .beta2 = 0.5},
        "gradus: lr is 1e+35 and lr_scale 1; expected hyperparameters that give coefficients of "
        "at most 3.40282347e+38, the largest float");
  // What is large and fits is taken; and a scheduled decay, which is held to 1, is.
  std::vector<float> w(3, 1), g(3, 1);
  optimizer<gradus::adams> opt({.lr = 1e30, .weight_decay = 1e20});
  opt.add(w, g);
  CHECK(opt.step().decay_clamped);
  CHECK_NOTHROW(opt.step({.grad_scale = 1e38}));
}

TEST_CASE("one norm for tensors that need one each")
{
  const std::string message =
      "gradus: grad_norm_sq is 14; expected none, because a scheduled decay needs the norm of each tensor if tensors "
      "differ in beta2 or in the number of steps taken; leave it out to have it computed";
  scene<gradus::adams> late, twin;
  for (auto* s : {&late, &twin})
    s->opt.add("spare", s->spare, s->spare_gradient);
  const std::string before = late.image();
  CHECK_THROWS_WITH_AS(late.opt.step({.grad_norm_sq = 14}), message.c_str(), std::invalid_argument);
  CHECK((late.image() == before));
  for (auto* s : {&late, &twin})
    s->opt.step();
  CHECK((late.image() == twin.image()));

  scene<gradus::adams> beta2;
  gradus::adams other = beta2.opt.hyperparameters();
  other.beta2 = 0.5;
  beta2.opt.set_hyperparameters(other, beta2.undecayed);
  const std::string before_beta2 = beta2.image();
  CHECK_THROWS_WITH_AS(beta2.opt.step({.grad_norm_sq = 14}), message.c_str(), std::invalid_argument);
  CHECK((beta2.image() == before_beta2));
  CHECK_NOTHROW(beta2.opt.step());

  // Where no decay is scheduled one norm serves all: it is only for clipping.
  scene<gradus::adam> plain;
  plain.opt.add("spare", plain.spare, plain.spare_gradient);
  CHECK_NOTHROW(plain.opt.step({.max_grad_norm = 1, .grad_norm_sq = 14}));
  // And what is left out does not count.
  scene<gradus::adams> alone;
  alone.opt.freeze(alone.opt.add("spare", alone.spare, alone.spare_gradient));
  CHECK_NOTHROW(alone.opt.step({.grad_norm_sq = 14}));
}

TEST_CASE("a step with nothing to move")
{
  const char* const message = "gradus: step() has no tensors; expected at least one add(parameters, gradients) before it";
  optimizer<gradus::adams> opt;
  CHECK_THROWS_WITH_AS(opt.step(), message, std::invalid_argument);
  CHECK_THROWS_WITH_AS(opt.step({.grad_norm_sq = 1}), message, std::invalid_argument);
  for (const auto state : {gradus::removed_state::dropped, gradus::removed_state::kept}) {
    scene<gradus::adams> s;
    s.opt.remove(s.w, state);
    s.opt.remove(s.b, state);
    CHECK_THROWS_WITH_AS(s.opt.step(), message, std::invalid_argument);
    CHECK(s.opt.parameter_count() == 0);
    s.w = s.opt.add("weight", s.weight, s.weight_gradient);
    CHECK_NOTHROW(s.opt.step());
    CHECK(s.opt.step_count(s.w) == (state == gradus::removed_state::kept ? 3 : 1));
  }
}

TEST_CASE("state that is not there")
{
  check_refused("gradus: name is \"weigth\"; expected the name of a tensor of this optimizer",
                [](auto& s) { s.opt.state("weigth", "exp_avg"); });
  check_refused("gradus: name is \"\"; expected the name of a tensor of this optimizer",
                [](auto& s) { s.opt.state("", "exp_avg"); });
  check_refused("gradus: slot of tensor \"weight\" is \"momentum_buffer\"; expected \"exp_avg\" or \"exp_avg_sq\"",
                [](auto& s) { s.opt.state("weight", "momentum_buffer"); });
  check_refused<gradus::sgd>("gradus: slot of tensor \"weight\" is \"exp_avg\"; expected \"momentum_buffer\"",
                             [](auto& s) { std::as_const(s.opt).state("weight", "exp_avg"); }, {.momentum = 0.9});
  check_refused<gradus::sgd>(
      "gradus: slot of tensor \"weight\" is \"momentum_buffer\"; expected none, because the tensor has no state",
      [](auto& s) { s.opt.state("weight", "momentum_buffer"); });
}

TEST_CASE("error_handler hears of an error before it is thrown")
{
  static std::string heard;
  static bool thrown = false;
  heard.clear();
  thrown = false;
  struct reset {
    ~reset() { gradus::error_handler = nullptr; }
  } at_end;
  gradus::error_handler = [](const char* message) {
    CHECK_FALSE(thrown);
    heard = message;
  };
  try {
    optimizer<gradus::sgd> opt({.lr = -1});
  } catch (const std::invalid_argument& e) {
    thrown = true;
    CHECK(heard == e.what());
  }
  CHECK(thrown);
  CHECK(heard == "gradus: lr is -1; expected a finite number >= 0");
}

TEST_CASE("a norm that is not a number is refused, or stops a step that may be skipped")
{
  std::vector<float> w{1, 2}, g{0.5f, 0.5f};
  gradus::optimizer<gradus::adams> opt;
  opt.add(w, g);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(opt.step({.grad_norm_sq = nan}), std::invalid_argument);
  CHECK_FALSE(opt.step({.grad_norm_sq = nan, .skip_nonfinite = true}).applied);
  CHECK_THROWS_WITH_AS(opt.step({.max_grad_norm = nan}),
                       "gradus: max_grad_norm is nan; expected a number > 0 (infinity only measures)", std::invalid_argument);
  CHECK(w == std::vector<float>{1, 2});
  CHECK(opt.step().applied);
  CHECK(w[0] < 1);
}

TEST_CASE("a number in a sentence has a point, whatever the locale has")
{
  using gradus::detail::with_point;
  CHECK(with_point("-1,5") == "-1.5");
  CHECK(with_point("1,5e-07") == "1.5e-07");
  CHECK(with_point("1\xd9\xab" "5") == "1.5");  // U+066B, as in Arabic
  CHECK(with_point("-1.5e+300") == "-1.5e+300");
  for (const char* whole : {"0", "-3", "1e+20", "inf", "-inf", "nan", "-nan", ""})
    CHECK(with_point(whole) == whole);

  const support::german german;
  if (!german.is_there())
    return;
  char text[8];
  std::snprintf(text, sizeof text, "%.1f", 1.5);
  REQUIRE(std::string(text) == "1,5");
  CHECK(gradus::detail::show(-1.5) == "-1.5");
  CHECK(gradus::detail::show(1.25e-300) == "1.25e-300");
  CHECK(gradus::detail::show(inf) == "inf");
  std::string said;
  try {
    optimizer<gradus::adam> refused({.beta1 = -1.5});
  }
  catch (const std::invalid_argument& e) {
    said = e.what();
  }
  CHECK(said == "gradus: beta1 is -1.5; expected a number in [0, 1)");
}
