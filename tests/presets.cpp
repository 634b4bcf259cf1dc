// Presets of other libraries, against trajectories recorded from these libraries (golden/peers.txt).

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/gradus.hpp>
#include <gradus/presets.hpp>

#include "support/golden.hpp"
#include "support/refusal.hpp"
#include "support/walk.hpp"

namespace {

namespace presets = gradus::presets;

// Calls visit(name, type) for each preset; cases have these names, with a colon and a variant. \param T  the peer's
// precision
template <class Visit>
void for_each_preset(Visit&& visit)
{
  const auto in_double = [&]<class P>(const char* name, std::type_identity<P> p) { visit(name, p, double()); };
  const auto in_float = [&]<class P>(const char* name, std::type_identity<P> p) { visit(name, p, float()); };
  using std::type_identity;
  in_double("torch/adam", type_identity<presets::torch::adam>{});
  in_double("torch/adamw", type_identity<presets::torch::adamw>{});
  in_double("torch/adam_amsgrad", type_identity<presets::torch::adam_amsgrad>{});
  in_double("torch/adamw_amsgrad", type_identity<presets::torch::adamw_amsgrad>{});
  in_double("torch/sgd", type_identity<presets::torch::sgd>{});
  in_double("torch/rmsprop", type_identity<presets::torch::rmsprop>{});
  in_double("optax/adam", type_identity<presets::optax::adam>{});
  in_double("optax/adamw", type_identity<presets::optax::adamw>{});
  in_double("optax/amsgrad", type_identity<presets::optax::amsgrad>{});
  in_double("optax/sgd", type_identity<presets::optax::sgd>{});
  in_double("optax/rmsprop", type_identity<presets::optax::rmsprop>{});
  in_double("optax/adagrad", type_identity<presets::optax::adagrad>{});
  in_double("optax/yogi", type_identity<presets::optax::yogi>{});
  in_double("optax/lion", type_identity<presets::optax::lion>{});
  in_double("tensorflow/adam", type_identity<presets::tensorflow::adam>{});
  in_double("tensorflow/adamw", type_identity<presets::tensorflow::adamw>{});
  in_double("tensorflow/amsgrad", type_identity<presets::tensorflow::amsgrad>{});
  in_double("tensorflow/sgd", type_identity<presets::tensorflow::sgd>{});
  in_double("tensorflow/rmsprop", type_identity<presets::tensorflow::rmsprop>{});
  in_double("tensorflow/adagrad", type_identity<presets::tensorflow::adagrad>{});
  in_double("tensorflow/nadam", type_identity<presets::keras::nadam>{});
  in_double("ensmallen/adam", type_identity<presets::ensmallen::adam>{});
  in_double("ensmallen/amsgrad", type_identity<presets::ensmallen::amsgrad>{});
  in_double("ensmallen/nadam", type_identity<presets::ensmallen::nadam>{});
  in_double("ensmallen/yogi", type_identity<presets::ensmallen::yogi>{});
  in_double("ensmallen/adabelief", type_identity<presets::ensmallen::adabelief>{});
  in_double("ensmallen/momentum_sgd", type_identity<presets::ensmallen::momentum_sgd>{});
  in_double("ensmallen/rmsprop", type_identity<presets::ensmallen::rmsprop>{});
  in_float("dlib/adam", type_identity<presets::dlib::adam>{});
  in_float("dlib/sgd", type_identity<presets::dlib::sgd>{});
  in_float("ggml/adamw", type_identity<presets::ggml::adamw>{});
  in_float("ggml/sgd", type_identity<presets::ggml::sgd>{});
  in_float("deepspeed/adam", type_identity<presets::deepspeed::adam>{});
}

// The preset of a recorded case, with its hyperparameters.
template <class Preset>
Preset with_hyperparameters(const golden::recording& c)
{
  Preset preset;
  std::size_t used = c.hyperparameters.count("float");
  gradus::for_each_hyperparameter(preset, [&](std::string_view field, auto& x, gradus::range) {
    if (const auto given = c.hyperparameters.find(std::string(field)); given != c.hyperparameters.end()) {
      x = static_cast<std::remove_reference_t<decltype(x)>>(given->second);
      ++used;
    }
  });
  CHECK_MESSAGE(used == c.hyperparameters.size(), c.name);
  gradus::validate(preset);
  return preset;
}

template <class Preset>
Preset without_decay(Preset preset)
{
  gradus::for_each_hyperparameter(preset, [](std::string_view name, auto& x, gradus::range) {
    if (name == "weight_decay" || name == "wd")
      x = 0;
  });
  return preset;
}

// The largest difference from what was recorded, relative to 1e-3 + |x|.
template <class T, class Preset>
double worst_difference(const golden::problem& p, const golden::recording& c, const Preset& preset)
{
  golden::model<T> model(p);
  using rule = decltype(preset.rule());
  std::vector<support::walk<T, rule>> walks;
  for (std::size_t k = 0; k < model.tensors.size(); ++k)
    walks.emplace_back(k + p.undecayed < model.tensors.size() ? preset.rule() : without_decay(preset).rule(),
                       model.tensors[k].weights);
  double worst = 0, lr_scale = 1;
  std::size_t compared = 0;
  for (int t = 1; t <= p.steps; ++t) {
    for (const int drop : p.drops)
      lr_scale *= t == drop ? 0.1 : 1;
    for (std::size_t k = 0; k < walks.size(); ++k)
      model.tensors[k].weights = walks[k].weights;
    model.compute_gradients(t);
    const auto recorded = c.at.find(t);
    for (std::size_t k = 0; k < walks.size(); ++k) {
      walks[k].step(model.tensors[k].gradients, lr_scale);
      for (std::size_t i = 0; recorded != c.at.end() && i < walks[k].weights.size(); ++i, ++compared) {
        const double expected = recorded->second[compared % 19];
        const double difference = std::fabs(double(walks[k].weights[i]) - expected) / (1e-3 + std::fabs(expected));
        worst = difference > worst || std::isnan(difference) ? difference : worst;
      }
    }
  }
  CHECK(compared == c.at.size() * 19);
  return worst;
}

const golden::file& peers()
{
  static const golden::file file = golden::read(GRADUS_TEST_DATA "/golden/peers.txt");
  return file;
}

}  // namespace

TEST_CASE("presets: each follows the recorded trajectories of its peer")
{
  CHECK(peers().cases.size() == 41);
  std::size_t compared = 0;
  for_each_preset([&]<class Preset, class T>(const char* name, std::type_identity<Preset>, T) {
    std::size_t cases = 0;
    for (const golden::recording& c : peers().cases) {
      if (c.name.substr(0, c.name.find(':')) != name)
        continue;
      ++cases;
      CHECK(c.at.size() == 11);
      CHECK(c.hyperparameters.count("float") == (sizeof(T) == 4));
      const double worst = worst_difference<T>(peers().problem, c, with_hyperparameters<Preset>(c));
      std::printf("%-30s %-6s %.1e\n", c.name.c_str(), sizeof(T) == 4 ? "float" : "double", worst);
      // In float two programs round differently, and weights near 0 show it.
      CHECK_MESSAGE(worst < (sizeof(T) == 4 ? 1e-4 : 1e-12), c.name);
    }
    CHECK_MESSAGE(cases > 0, name);
    compared += cases;
  });
  CHECK(compared == peers().cases.size());
}

// Where the peer's formula is another, its trajectory must not fit gradus's recipe of the same name.
TEST_CASE("presets: are not gradus's own recipes")
{
  std::size_t compared = 0;
  for (const golden::recording& c : peers().cases) {
    const auto differs = [&]<class T>(const char* name, const auto& recipe, T) {
      if (c.name != name)
        return;
      ++compared;
      CHECK_MESSAGE(worst_difference<T>(peers().problem, c, recipe) > 1e-3, name);
    };
    differs("dlib/adam", gradus::adam{0.02, 0.9, 0.95, 1e-8, 0.1}, float());
    differs("dlib/sgd", gradus::sgd{.lr = 0.02, .momentum = 0.9, .weight_decay = 0.1}, float());
    differs("tensorflow/adamw", gradus::adamw{0.02, 0.9, 0.95, 1e-7, 0.1}, double());
    differs("ensmallen/amsgrad", gradus::amsgrad{0.02, 0.9, 0.95, 1e-8, 0}, double());
    differs("optax/amsgrad", gradus::amsgrad{0.02, 0.9, 0.95, 1e-8, 0}, double());
    differs("optax/rmsprop", gradus::rmsprop{.lr = 0.01, .alpha = 0.9, .eps = 1e-8}, double());
    differs("deepspeed/adam:uncorrected", gradus::adamw{0.02, 0.9, 0.95, 1e-8, 0.1}, float());
  }
  CHECK(compared == 7);
}

// Lines "defaults NAME key=value …" of the file.
TEST_CASE("presets: defaults are the peer's")
{
  std::ifstream in(GRADUS_TEST_DATA "/golden/peers.txt");
  std::set<std::string> seen;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, name;
    words >> word >> name;
    if (word != "defaults")
      continue;
    seen.insert(name.substr(0, name.find(':')));
    while (words >> word) {
      const std::string key = word.substr(0, word.find('='));
      const double value = std::stod(word.substr(word.find('=') + 1));
      bool found = false;
      for_each_preset([&]<class Preset>(const char* preset_name, std::type_identity<Preset>, auto) {
        Preset preset;
        if (name.substr(0, name.find(':')) == preset_name)
          gradus::for_each_hyperparameter(preset, [&](std::string_view field, auto x, gradus::range) {
            if (field != key)
              return;
            found = true;
            CHECK_MESSAGE(float(x) == float(value), name << ' ' << key);
          });
      });
      CHECK_MESSAGE(found, name << ' ' << key);
    }
  }
  CHECK(seen.size() > 25);
}

// The rules that only presets have.
TEST_CASE_TEMPLATE("presets: the same bits on the scalar and the default backend, for every tail", T, float, double)
{
  const auto check = [](const auto& preset) {
    const auto rule = preset.rule();
    constexpr std::size_t slots = decltype(preset.rule())::slots;
    for (const std::size_t n : {std::size_t(1), std::size_t(7), std::size_t(70)}) {
      support::random r(31);
      support::walk<T, decltype(preset.rule())> walk(rule, support::draw<T>(r, n));
      std::vector<T> weights = walk.weights;
      std::array<std::vector<T>, slots> state = walk.slots;
      for (int t = 0; t < 10; ++t) {
        const std::vector<T> g = support::draw<T>(r, n);
        walk.step(g);
        std::array<std::span<T>, slots> spans;
        for (std::size_t k = 0; k < slots; ++k)
          spans[k] = state[k];
        REQUIRE(gradus::update(gradus::backend::scalar{}, gradus::prepare<T>(rule, walk.scalars), weights, g, spans));
      }
      CHECK(support::equal(weights, walk.weights));
      for (std::size_t k = 0; k < slots; ++k)
        CHECK(support::equal(state[k], walk.slots[k]));
    }
  };
  check(presets::optax::amsgrad{.learning_rate = 0.01, .b2 = 0.9, .eps_root = 1e-3});
  check(presets::optax::rmsprop{.learning_rate = 0.01, .centered = true, .momentum = 0.5, .nesterov = true});
  check(presets::tensorflow::sgd{.learning_rate = 0.05, .momentum = 0.9, .nesterov = true, .weight_decay = 0.1});
}

TEST_CASE("presets: are recipes, which optimizer takes and checks")
{
  std::vector<float> weights{1, -1}, gradients{0.5f, 0.25f};
  gradus::optimizer opt(presets::dlib::adam{.learning_rate = 0.5, .weight_decay = 0});
  opt.add(weights, gradients);
  opt.step();
  CHECK(weights[0] == doctest::Approx(0.5));
  opt.step({.lr = 0});
  CHECK(weights[0] == doctest::Approx(0.5));
  CHECK(support::refusal([] { gradus::optimizer bad(presets::dlib::adam{.momentum1 = 1}); }) ==
        "gradus: momentum1 is 1; expected a number in [0, 1)");
  CHECK(support::refusal([] { gradus::validate(presets::tensorflow::sgd{.nesterov = true}.rule()); }) ==
        "gradus: nesterov is 1 with momentum 0; expected momentum > 0: set it so, or nesterov = false");
}
