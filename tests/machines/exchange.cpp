// Takes steps from a checkpoint to a checkpoint, with one optimizer for each element type that a checkpoint can hold:
//
//   exchange BEGIN END LOAD SAVE
//
// LOAD is a folder of an earlier run, or "-" for a run from the start; SAVE is the folder that gets NAME.safetensors for each
// optimizer. It prints the default backend's name. machines.py compares the files of two machines.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

namespace {

int steps_begin = 0, steps_end = 0;
std::string load_folder, save_folder;

template <class T, class Recipe>
void run(const char* name, const Recipe& recipe)
{
  using types = gradus::precision_of<T>;
  using W = typename types::parameter_type;
  using G = typename types::gradient_type;
  constexpr std::size_t sizes[] = {300, 7};
  std::vector<W> weights[2];
  std::vector<G> gradients[2];
  gradus::optimizer<Recipe, T> opt(recipe);
  auto changed = recipe;
  changed.lr *= 2;
  const auto group = opt.add_group(changed);
  for (std::size_t k = 0; k < 2; ++k) {
    for (std::size_t i = 0; i < sizes[k]; ++i)
      weights[k].push_back(W(float(int(i % 13) - 6) / 8));
    gradients[k].resize(sizes[k]);
  }
  opt.add("a", weights[0], gradients[0]);
  opt.add("b/c", weights[1], gradients[1], group);
  const std::string file = std::string("/") + name + ".safetensors";
  if (load_folder != "-")
    gradus::load(opt, load_folder + file);
  for (int t = steps_begin; t < steps_end; ++t) {
    // A product with a power of two, so that a compiler may fuse it with the sum or not.
    for (std::size_t k = 0; k < 2; ++k)
      for (std::size_t i = 0; i < sizes[k]; ++i)
        gradients[k][i] = G(float(double(float(weights[k][i])) * 0.25 +
                                  double((7 * int(i) + 3 * t + int(k)) % 11 - 5) / 64));
    opt.step({.max_grad_norm = 0.5});
  }
  gradus::save(opt, save_folder + file, {.parameters = true, .metadata = {{"t", std::to_string(steps_end)}}});
}

}  // namespace

int main(int argc, char** argv)
try {
  if (argc != 5)
    return 2;
  steps_begin = std::atoi(argv[1]);
  steps_end = std::atoi(argv[2]);
  std::printf("%s\n", gradus::default_backend_name());
  load_folder = argv[3];
  save_folder = argv[4];
  using gradus::bfloat16, gradus::float16, gradus::precision;
  run<float>("adams", gradus::adams{.lr = 0.01, .weight_decay = 0.1});
  run<double>("radam", gradus::radam{.lr = 0.01});
  run<precision<float, float, gradus::block8>>("block8", gradus::adamw{.lr = 0.01});
  run<precision<bfloat16, bfloat16, float, gradus::remainder16>>("remainder", gradus::adamw{.lr = 0.01});
  run<precision<float16, float, bfloat16>>("short", gradus::adamw{.lr = 0.01});
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
