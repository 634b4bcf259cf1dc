// The gradus half of torch_exchange.py: torch_exchange RECIPE MOMENTUM IN OUT FROM TO goes on with a run that is in the file
// IN, from step FROM to step TO, and saves it in OUT. Without IN ("-") it starts one.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>

#include "support/golden.hpp"

int main(int argc, char** argv)
try {
  if (argc != 7)
    return 2;
  const golden::problem problem{.seed = 11, .sizes = {3, 12, 30}, .steps = 0, .drops = {}};
  golden::model<double> model(problem);
  gradus::any_optimizer<double> opt(argv[1]);
  if (std::string_view(argv[1]) == "sgd")
    opt.set_hyperparameters({{"momentum", std::atof(argv[2])}});
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
}
catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
