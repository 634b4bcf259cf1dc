// The gradus half of torch_exchange.py: torch_exchange RECIPE NAMES IN OUT FROM TO goes on with a run that is in the file
// IN, from step FROM to step TO, and saves it in OUT. Without IN ("-") it starts one. NAMES are hyperparameters that are
// not 0, so that there is state for them: momentum,centered. And torch_exchange PRECISION OUT makes a run of amsgrad in that
// precision, saves it in OUT, and its moments as plain floats in OUT.NAME.SLOT.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>

#include "support/golden.hpp"

// Codes and scales come one after the other.
struct plain_moments {
  std::string path;
  std::vector<std::uint8_t> codes = {};

  template <class X>
  void operator()(std::string_view tensor, std::string_view slot, std::span<X> values)
  {
    std::vector<float> plain;
    if constexpr (sizeof(X) == 1) {
      codes.assign(values.begin(), values.end());
      return;
    } else if constexpr (std::is_same_v<X, gradus::bfloat16> || std::is_same_v<X, const gradus::bfloat16>)
      for (const auto x : values)
        plain.push_back(float(x));
    else if constexpr (std::is_same_v<std::remove_const_t<X>, float>)
      plain.assign(values.begin(), values.end());
    if (!codes.empty()) {
      slot.remove_suffix(std::string_view("_scale").size());
      const std::vector<float> scales = plain;
      plain.resize(codes.size());
      if (slot == "exp_avg")
        gradus::decode<true>(codes.data(), scales.data(), plain.data(), codes.size());
      else
        gradus::decode<false>(codes.data(), scales.data(), plain.data(), codes.size());
      codes.clear();
    }
    if (slot == "step" || tensor.empty())
      return;
    std::FILE* const file = std::fopen((path + '.' + std::string(tensor) + '.' + std::string(slot)).c_str(), "wb");
    std::fwrite(plain.data(), sizeof(float), plain.size(), file);
    std::fclose(file);
  }
};

template <class Parameter, class State, class Master>
void run_in(const std::string& path)
{
  gradus::optimizer<gradus::amsgrad, gradus::precision<Parameter, Parameter, State, Master>> opt({.lr = 0.01,
                                                                                                  .beta2 = 0.9});
  std::vector<Parameter> w(700), gw(700), b(12), gb(12);
  opt.add("w", w, gw);
  opt.add("b", b, gb);
  for (int t = 0; t < 20; ++t) {
    for (auto* const g : {&gw, &gb})
      for (std::size_t i = 0; i < g->size(); ++i)
        (*g)[i] = Parameter(float(std::pow(10.0, -double(i % 9)) * std::sin(double(i) + 0.3 * t)));
    opt.step();
  }
  gradus::save(opt, path, {.parameters = true});
  const auto& shown = opt;
  shown.visit_state(plain_moments{path});
}

int main(int argc, char** argv)
try {
  if (argc == 3) {
    const std::string_view precision = argv[1];
    precision == "block8"     ? run_in<float, gradus::block8, void>(argv[2])
    : precision == "bfloat16" ? run_in<float, gradus::bfloat16, void>(argv[2])
                              : run_in<gradus::bfloat16, float, float>(argv[2]);
    return 0;
  }
  if (argc != 7)
    return 2;
  const golden::problem problem{.seed = 11, .sizes = {3, 12, 30}, .steps = 0, .drops = {}};
  golden::model<double> model(problem);
  gradus::any_optimizer<double> opt(argv[1]);
  for (std::string_view names = argv[2]; !names.empty();) {
    const std::string_view name = names.substr(0, names.find(','));
    opt.set_hyperparameters({{name, name == "centered" ? 1 : 0.5}});
    names.remove_prefix(name.size() < names.size() ? name.size() + 1 : name.size());
  }
  const auto group = opt.add_group({});
  opt.add("layer.weight", model.tensors[1].weights, model.tensors[1].gradients);
  opt.add("other.weight", model.tensors[2].weights, model.tensors[2].gradients);
  opt.add("layer.bias", model.tensors[0].weights, model.tensors[0].gradients, group);
  if (std::string_view(argv[3]) != "-")
    gradus::load(opt, argv[3]);
  for (int t = std::atoi(argv[5]); t < std::atoi(argv[6]); ++t) {
    model.compute_gradients(t);
    opt.step();
  }
  gradus::save(opt, argv[4], {.parameters = true});
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
