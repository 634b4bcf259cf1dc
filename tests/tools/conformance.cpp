// The conformance suite: gradus itself, and loops with one mistake each, which it must name.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <gradus/gradus.hpp>
#include <gradus/presets.hpp>

#include "../tools/conformance/conformance.hpp"

namespace {

using namespace conformance;

template <class T>
using tensors_of = std::vector<conformance::tensor<T>>;

// Trains with gradus: the tensors are added in the first step, those without decay in a group of their own.
template <class T, class Recipe>
verdict examine_gradus(const settings& s, const Recipe& recipe, const Recipe& without_decay)
{
  gradus::optimizer<Recipe, T, gradus::backend::scalar> opt(recipe);
  const auto undecayed = opt.add_group(without_decay);
  return examine<T>(s, [&](tensors_of<T>& tensors, int t, double lr) {
    for (auto& x : tensors)
      if (t == 1)
        opt.add(std::span(x.parameters, x.size), std::span(x.gradients, x.size),
                x.weight_decay > 0 ? gradus::group_handle{} : undecayed);
    opt.step({.lr = lr});
  });
}

// Adam as people write it, with a mistake that `wrong` names.
template <class T>
struct adam_loop {
  settings s;
  std::string wrong;
  std::vector<std::vector<T>> m{9, std::vector<T>(9)}, v = m, x = m;
  int count = 0;

  bool is(const char* name) const { return wrong == name; }

  void operator()(tensors_of<T>& tensors, int step, double passed)
  {
    if (is("state is reset at step 30") && step == 30)
      m = v = std::vector(9, std::vector<T>(9));
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      ++count;
      const std::size_t of = is("shared state") ? 0 : k;
      const T lr = T(is("lr drops ignored") ? s.lr : passed),
              lambda = T(is("groups ignored") ? s.weight_decay : tensors[k].weight_decay);
      const T b1 = T(is("betas swapped") ? s.beta2 : s.beta1), b2 = T(is("betas swapped") ? s.beta1 : s.beta2);
      const int t = is("t once a tensor") ? count
                    : is("t from 0")      ? step - 1
                    : is("t stays 1")     ? 1
                    : is("t from 2")      ? step + 1
                                          : step;
      const bool first = !is("no bias correction") && !is("second corrected only");
      const bool second = !is("no bias correction") && !is("first corrected only");
      const T c1 = first ? 1 - std::pow(b1, T(t)) : T(1), c2 = second ? 1 - std::pow(b2, T(t)) : T(1);
      for (std::size_t i = 0; i < (is("rest of a vector of 4 left out") ? tensors[k].size / 4 * 4 : tensors[k].size);
           ++i) {
        T& theta = tensors[k].parameters[i];
        T g = tensors[k].gradients[i];
        if (is("clipped gradients"))
          g = g > T(0.1) ? T(0.1) : g;
        const T raw = g;
        if (is("L2") || is("L2 in the first moment only"))
          g += lambda * theta;
        if (is("L2 twice"))
          g += 2 * lambda * theta;
        const T seen = is("L2 in the first moment only") ? raw : g;
        m[of][i] = b1 * m[of][i] + (1 - b1) * g;
        v[of][i] = b2 * v[of][i] + (1 - b2) * seen * seen;
        T value = v[of][i];
        if (is("AMSGrad"))
          value = x[of][i] = std::fmax(x[of][i], value);
        if (is("AMSGrad after correction"))
          value = x[of][i] = std::fmax(x[of][i], value / c2);
        const T corrected = is("AMSGrad after correction") ? value : value / c2, eps = T(s.eps);
        const T divisor = is("eps inside the root")               ? std::sqrt(corrected + eps)
                          : is("eps inside the uncorrected root") ? std::sqrt(value + eps) / std::sqrt(c2)
                          : is("epsilon hat")                     ? (std::sqrt(value) + eps) / std::sqrt(c2)
                          : is("no eps")                          ? std::sqrt(corrected)
                          : is("at least eps")                    ? std::fmax(std::sqrt(corrected), eps)
                                                                  : std::sqrt(corrected) + eps;
        const T u = lr * (m[of][i] / c1 + (is("decay in the ratio") ? lambda * theta : T(0))) / divisor, before = theta;
        theta -= u;
        if (is("decay after the step"))
          theta -= lr * lambda * theta;
        else if (is("decay without lr"))
          theta -= lambda * before;
        else if (wrong.find("L2") != 0 && !is("no decay") && !is("decay in the ratio"))
          theta -= lr * lambda * before;
        if (is("rounded to float"))
          theta = T(float(theta));
        if (is("NaN at step 30") && step == 30 && k == 2 && i == 3)
          theta = std::numeric_limits<T>::quiet_NaN();
      }
    }
  }
};

// Whether the verdict has these choices, and otherwise AdamW's as in PyTorch.
bool is_adamw_but(const verdict& v, std::initializer_list<std::pair<axis_name, int>> choices)
{
  hypothesis h{};
  h[decay] = decoupled;
  for (const auto& [a, c] : choices)
    h[a] = static_cast<unsigned char>(c);
  return v.follows && v.best == h;
}

}  // namespace

TEST_CASE("conformance: gradus follows PyTorch")
{
  const settings s;
  const double wd = s.weight_decay;
  const auto adamw = [&](double lambda) { return gradus::adamw{s.lr, s.beta1, s.beta2, s.eps, lambda}; };
  for (const verdict& v :
       {examine_gradus<float>(s, adamw(wd), adamw(0)), examine_gradus<double>(s, adamw(wd), adamw(0))}) {
    CHECK_MESSAGE(is_adamw_but(v, {}), v.text);
    CHECK(v.mistakes == 0);
    CHECK(v.undecided.empty());
  }
  const auto amsgrad = [&](double lambda) { return gradus::amsgrad{s.lr, s.beta1, s.beta2, s.eps, lambda}; };
  CHECK(is_adamw_but(examine_gradus<double>(s, amsgrad(wd), amsgrad(0)), {{decay, l2}, {second, maximum}}));
  const auto sgd = [&](double lambda) { return gradus::sgd{s.lr, s.momentum, 0, false, lambda}; };
  CHECK(is_adamw_but(examine_gradus<float>(s, sgd(wd), sgd(0)), {{family, conformance::sgd}, {decay, l2}}));
}

TEST_CASE("conformance: presets follow their peers")
{
  const settings s;
  const double wd = s.weight_decay;
  namespace p = gradus::presets;
  const auto dlib = [&](double lambda) { return p::dlib::adam{s.lr, lambda, s.beta1, s.beta2}; };
  CHECK(is_adamw_but(examine_gradus<float>(s, dlib(wd), dlib(0)), {{decay, l2}, {eps_place, beside_uncorrected}}));
  const auto keras = [&](double lambda) { return p::keras::sgd{s.lr, s.momentum, false, lambda}; };
  CHECK(is_adamw_but(examine_gradus<double>(s, keras(wd), keras(0)),
                     {{family, conformance::sgd}, {momentum, lr_inside}}));
}

TEST_CASE_TEMPLATE("conformance: names the convention or mistake of an Adam", T, float, double)
{
  const settings s;
  const auto check = [&](const char* wrong, int mistakes, std::initializer_list<std::pair<axis_name, int>> choices) {
    const verdict v = examine<T>(s, adam_loop<T>{s, wrong});
    CAPTURE(v.text);
    CHECK_MESSAGE(is_adamw_but(v, choices), wrong);
    CHECK_MESSAGE(v.mistakes == mistakes, wrong);
    // In the buffers of all tensors together, small gradients do not show.
    CHECK_MESSAGE((v.undecided.empty() || wrong == std::string("shared state")), wrong);
    CHECK_MESSAGE((v.text.find("! ") != std::string::npos) == (mistakes > 0), wrong);
  };
  check("nothing", 0, {});
  check("L2", 0, {{decay, l2}});
  check("AMSGrad", 0, {{second, maximum}});
  check("AMSGrad after correction", 0, {{second, corrected_maximum}});
  check("epsilon hat", 0, {{eps_place, beside_uncorrected}});
  check("eps inside the root", 0, {{eps_place, inside_corrected}});
  check("eps inside the uncorrected root", 0, {{eps_place, inside_uncorrected}});
  check("no bias correction", 0, {{correction, none}});
  check("decay without lr", 0, {{decay, without_lr}});
  check("decay after the step", 0, {{decay, after}});
  check("no eps", 1, {{eps_place, no_eps}});
  check("first corrected only", 1, {{correction, only_first}});
  check("second corrected only", 1, {{correction, only_second}});
  check("t once a tensor", 1, {{correction, once_a_tensor}});
  check("t stays 1", 1, {{correction, stuck}});
  check("t from 2", 1, {{correction, ahead}});
  check("no decay", 1, {{decay, no_decay}});
  check("L2 twice", 1, {{decay, twice}});
  check("L2 in the first moment only", 1, {{decay, first_only}});
  check("decay in the ratio", 1, {{decay, in_ratio}});
  check("groups ignored", 1, {{groups, ignored}});
  check("lr drops ignored", 1, {{rate, ignored}});
  check("shared state", 1, {{state, 1}});
  check("betas swapped", 1, {{betas, 1}});
}

TEST_CASE("conformance: where an implementation parts from everything known")
{
  const settings s;
  const verdict reset = examine<double>(s, adam_loop<double>{s, "state is reset at step 30"});
  CHECK(!reset.follows);
  CHECK(reset.parts.step == 30);
  CHECK(reset.parts.tensor == 0);
  CHECK(reset.text.find("The nearest is AdamW, from which it parts at step 30, in tensor 0, element 0: ") !=
        std::string::npos);
  CHECK(!examine<float>(s, adam_loop<float>{s, "clipped gradients"}).follows);

  // Of formulas that part in the same step, the nearest is the one that predicts more of its elements.
  const verdict rest = examine<float>(s, adam_loop<float>{s, "rest of a vector of 4 left out"});
  CHECK(rest.text.find("The nearest is AdamW, from which it parts at step 1, in tensor 0, element 4: ") !=
        std::string::npos);
  const verdict at_least = examine<double>(s, adam_loop<double>{s, "at least eps"});
  CHECK(at_least.text.find("The nearest is AdamW, from which it parts at step 1, in tensor 3, element 0: ") !=
        std::string::npos);

  const verdict not_a_number = examine<float>(s, adam_loop<float>{s, "NaN at step 30"});
  CHECK(not_a_number.text == "The parameters are not finite after step 30.\n");
  CHECK(not_a_number.parts.step == 30);
  CHECK(not_a_number.parts.tensor == 2);
  CHECK(not_a_number.parts.element == 3);

  const verdict from_zero = examine<double>(s, adam_loop<double>{s, "t from 0"});
  CHECK(!from_zero.follows);
  CHECK(from_zero.text ==
        "The parameters are not finite after step 1. A bias correction whose count starts from 0 divides by 1 - "
        "beta^0 = 0.\n");

  const verdict rounded = examine<double>(s, adam_loop<double>{s, "rounded to float"});
  CHECK(is_adamw_but(rounded, {}));
  CHECK(rounded.single);
  CHECK(rounded.text.find("to rounding of float, although its numbers are double.") != std::string::npos);
}

TEST_CASE("conformance: observations that do not fit their problem")
{
  const settings s;
  const observations good = observe<double>(s, problem_for(s), adam_loop<double>{s, "nothing"});
  const auto check = [&](const std::string& text, const auto& change) {
    observations bad = good;
    change(bad);
    const verdict v = judge(s, bad);
    CHECK(v.text == text + "\n");
    CHECK(!v.follows);
  };
  const std::string expected = "; expected steps 1 to 60 and 19 parameters.";
  check("Step 7 was observed with 18 parameters" + expected, [](observations& o) { o.at[7].pop_back(); });
  check("Step 61 was observed with 19 parameters" + expected, [](observations& o) { o.at[61] = o.at[60]; });
  check("Step 0 was observed with 0 parameters" + expected, [](observations& o) { o.at[0]; });
  check("No step was observed.", [](observations& o) { o.at.clear(); });
  check("The problem has no tensors or no steps.", [](observations& o) { o.of.sizes.clear(); });
  check("The problem has no tensors or no steps.", [](observations& o) { o.of.sizes = {0, 0}; });
  check("The problem has 4 tensors and 1 scales; expected one for each, or none.",
        [](observations& o) { o.of.scales = {1}; });
  check("The problem has 4 tensors, of which 5 are undecayed; expected at most all.",
        [](observations& o) { o.of.undecayed = 5; });
  problem empty;
  empty.steps = 0;
  CHECK(judge(s, observe<double>(s, empty, adam_loop<double>{s, "nothing"})).text ==
        "The problem has no tensors or no steps.\n");
}

TEST_CASE("conformance: settings that no optimizer can have")
{
  const auto check = [](double settings::* field, double value, const std::string& text) {
    settings s;
    s.*field = value;
    int calls = 0;
    const verdict v = examine<double>(s, [&](tensors_of<double>&, int, double) { ++calls; });
    CHECK(v.text == "The setting " + text + ".\n");
    CHECK(!v.follows);
    CHECK(calls == 0);
  };
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  check(&settings::lr, 0, "lr is 0; expected a finite number above 0");
  check(&settings::lr, infinity, "lr is inf; expected a finite number above 0");
  check(&settings::beta1, 1, "beta1 is 1; expected a number in [0, 1)");
  check(&settings::beta2, -0.5, "beta2 is -0.5; expected a number in [0, 1)");
  check(&settings::momentum, 1, "momentum is 1; expected a number in [0, 1)");
  check(&settings::eps, -1e-8, "eps is -1e-08; expected a finite number of at least 0");
  check(&settings::weight_decay, nan, "weight_decay is nan; expected a finite number of at least 0");
  check(&settings::initial_accumulator, -1, "initial_accumulator is -1; expected a finite number of at least 0");
  check(&settings::dampening, nan, "dampening is nan; expected a finite number");
}

TEST_CASE("conformance: says what the settings leave open")
{
  settings s;
  s.weight_decay = 0;
  const verdict v = examine<double>(s, adam_loop<double>{s, "nothing"});
  CHECK(v.follows);
  CHECK(v.mistakes == 0);
  CHECK(v.text.find("weight decay: not tested, because weight_decay is 0") != std::string::npos);
  problem p = problem_for(s);
  p.steps = 1;  // in which the maximum is v itself
  const verdict open = judge(s, observe<double>(s, p, adam_loop<double>{s, "AMSGrad"}));
  CHECK(open.follows);
  CHECK(open.text.find("cannot be told apart: second moment: or AMSGrad's running maximum of v") != std::string::npos);
}

TEST_CASE_TEMPLATE("conformance: every eps, also one that float cannot show", T, float, double)
{
  settings s;
  for (const double eps : {0.0, 1e-30, 1e-16, 1e-8, 1e-3, 0.1}) {
    s.eps = eps;
    const verdict v = examine<T>(s, adam_loop<T>{s, "nothing"});
    CAPTURE(v.text);
    CHECK_MESSAGE(is_adamw_but(v, {}), eps);
    CHECK_MESSAGE(v.mistakes == 0, eps);
    CHECK_MESSAGE((v.text.find("  eps: not tested, because eps is 0\n") != std::string::npos) == (eps == 0), eps);
    CHECK_MESSAGE((v.text.find("  eps: beside") != std::string::npos) == (eps > 0), eps);
    CHECK_MESSAGE((v.text.find("cannot be told apart: eps") != std::string::npos) == (eps == 1e-30 && sizeof(T) == 4),
                  eps);
  }
}

TEST_CASE("conformance: SGD's conventions and mistakes")
{
  settings s;
  const auto check = [&](const std::string& wrong, std::initializer_list<std::pair<axis_name, int>> choices,
                         int mistakes) {
    std::vector<std::vector<float>> b(9, std::vector<float>(9));
    const verdict v = examine<float>(s, [&](tensors_of<float>& tensors, int, double lr) {
      for (std::size_t k = 0; k < tensors.size(); ++k)
        for (std::size_t i = 0; i < tensors[k].size; ++i) {
          float& theta = tensors[k].parameters[i];
          const float mu = float(s.momentum), alpha = float(lr);
          const float g = tensors[k].gradients[i] + float(tensors[k].weight_decay) * theta;
          b[k][i] = (wrong == "no momentum" ? 0 : mu) * b[k][i] + (wrong == "inside"       ? alpha
                                                                   : wrong == "complement" ? 1 - mu
                                                                                           : 1) *
                                                                      g;
          theta -= (wrong == "inside" ? 1 : alpha) * (wrong == "nesterov" ? g + mu * b[k][i] : b[k][i]);
        }
    });
    hypothesis h{};
    h[family] = sgd;
    for (const auto& [a, c] : choices)
      h[a] = static_cast<unsigned char>(c);
    CAPTURE(v.text);
    CHECK_MESSAGE(v.follows, wrong);
    CHECK_MESSAGE(v.best == h, wrong);
    CHECK_MESSAGE(v.mistakes == mistakes, wrong);
  };
  check("nothing", {}, 0);
  check("inside", {{momentum, lr_inside}}, 0);
  check("complement", {{momentum, complement}}, 0);
  check("no momentum", {{momentum, no_momentum}}, 1);
  check("nesterov", {{nesterov, 1}}, 1);
  s.nesterov = true;
  check("nesterov", {{nesterov, 1}}, 0);
  check("nothing", {}, 1);
}
