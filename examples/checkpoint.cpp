// Saves a run and resumes it; the program of docs/checkpoint.md.

#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

int main()
{
  std::vector<float> weights(1000, 1.0f), gradients(1000, 0.1f);
  gradus::optimizer<gradus::adams> opt({.lr = 1e-3});
  opt.add("weights", weights, gradients);
  opt.step();
  gradus::save(opt, "run.safetensors", {.parameters = true, .metadata = {{"epoch", "1"}}});

  // Later, in another process: add the same tensors, and load the file.
  std::vector<float> resumed_weights(1000), resumed_gradients(1000, 0.1f);
  gradus::optimizer<gradus::adams> resumed;
  resumed.add("weights", resumed_weights, resumed_gradients);
  gradus::load_report report = gradus::load(resumed, "run.safetensors");

  opt.step();
  resumed.step();
  return resumed_weights == weights && report.metadata["epoch"] == "1" ? 0 : 1;
}
