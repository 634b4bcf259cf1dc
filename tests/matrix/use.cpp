// What matrix.py compiles with every compiler and set of flags: a run as users write it, with groups, clipping, threads,
// short numbers, 8-bit state, a checkpoint and an optimizer chosen by name. It has recorded bits too: the hyperparameters
// make every power of a bias correction exact, so that no C library can round it. With WITH_BITS, bits.cpp is its second
// unit.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/fingerprint.hpp"
#include "support/random.hpp"

#if defined(WITH_BITS)
bool has_recorded_bits();
#endif

namespace {

bool good = true;

void check(bool condition, const char* what)
{
  if (!condition)
    std::printf("failed: %s\n", what);
  good = good && condition;
}

template <class T>
struct network {
  std::vector<T> weights[3], gradients[3];
  explicit network(std::uint64_t seed)
  {
    support::random r(seed);
    const std::size_t sizes[] = {5, 1037, 9001};
    for (int k = 0; k < 3; ++k)
      for (std::size_t i = 0; i < sizes[k]; ++i) {
        weights[k].push_back(T(float(r.uniform(-1, 1))));
        gradients[k].push_back(T(float(r.uniform(-1, 1))));
      }
  }
  template <class Optimizer>
  void add_to(Optimizer& opt)
  {
    auto h = opt.hyperparameters();
    h.weight_decay = 0;
    const auto undecayed = opt.add_group(h);
    opt.add("bias", weights[0], gradients[0], undecayed);
    opt.add("layer1", weights[1], gradients[1]);
    opt.add("layer2", weights[2], gradients[2]);
  }
  // The gradients go to and fro between two halves.
  void turn()
  {
    for (auto& g : gradients)
      for (std::size_t i = 0; i + 1 < g.size(); i += 2)
        std::swap(g[i], g[i + 1]);
  }
  bool operator==(const network& other) const
  {
    for (int k = 0; k < 3; ++k)
      if (weights[k].size() != other.weights[k].size() ||
          std::memcmp(weights[k].data(), other.weights[k].data(), weights[k].size() * sizeof(T)) != 0)
        return false;
    return true;
  }
};

constexpr gradus::step_options clipped{.lr_scale = 0.5, .grad_scale = 0.25, .max_grad_norm = 4, .skip_nonfinite = true};

template <class T, class Optimizer>
void train(Optimizer& opt, network<T>& n, int steps)
{
  for (int t = 0; t < steps; ++t) {
    check(opt.step(clipped).applied, "a step is applied");
    n.turn();
  }
}

using backend = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;

backend with_threads(unsigned n)
{
  return backend(gradus::default_backend{}, gradus::executor::thread_pool(n), {.from = 1});
}

// Ten steps at once, and five, a checkpoint, and five by threads. Returns the hash of the weights.
template <class Precision, class Recipe>
std::string run(const Recipe& recipe, const std::string& file)
{
  using T = typename gradus::precision_of<Precision>::parameter_type;
  network<T> whole(7), parts(7);
  gradus::optimizer<Recipe, Precision, backend> opt(recipe, with_threads(1)), resumed(Recipe{}, with_threads(3));
  whole.add_to(opt);
  parts.add_to(resumed);
  train(opt, whole, 5);
  gradus::save(opt, file, {.parameters = true});
  gradus::load(resumed, file);
  std::remove(file.c_str());
  parts.turn();  // five times, as the other's
  train(opt, whole, 5);
  train(resumed, parts, 5);
  check(whole == parts, "threads and a checkpoint leave the bits as they are");

  const auto before = whole;
  const std::uint32_t nan = 0x7fc00000u;
  float bad;
  std::memcpy(&bad, &nan, sizeof bad);
  whole.gradients[2][4099] = T(bad);
  check(!opt.step(clipped).applied && whole == before, "a step with a NaN is skipped, and changes nothing");

  support::fingerprint hash;
  for (const auto& w : whole.weights)
    for (const T& x : w) {
      const float value(x);
      hash.add(std::span<const float>(&value, 1));
    }
  return hash.text();
}

void chosen_by_name()
{
  network<float> named(8), typed(8);
  gradus::any_optimizer<float, backend, gradus::recipe_list<gradus::adams>> any("adams", {{"lr", 0.125},
                                                                                          {"weight_decay", 0.25}});
  gradus::optimizer<gradus::adams, float, backend> opt({.lr = 0.125, .weight_decay = 0.25});
  for (int k = 0; k < 3; ++k) {
    any.add(named.weights[k], named.gradients[k]);
    opt.add(typed.weights[k], typed.gradients[k]);
  }
  train(any, named, 3);
  train(opt, typed, 3);
  check(named == typed, "an optimizer chosen by name has the same bits");
}

void refusals()
{
  std::string said;
  try {
    gradus::optimizer<gradus::adams, float, backend> opt({.lr = -1});
  } catch (const std::invalid_argument& error) {
    said = error.what();
  }
  check(said.find("lr") != std::string::npos && said.find("-1") != std::string::npos, "a refusal names the value");
  said.clear();
  try {
    network<float> n(9);
    gradus::optimizer<gradus::adams, float, backend> opt;
    n.add_to(opt);
    opt.add("again", n.weights[1], n.gradients[2]);
  } catch (const std::invalid_argument& error) {
    said = error.what();
  }
  check(!said.empty(), "tensors that overlap, or of other sizes, are refused");
}

}  // namespace

int main(int, char** argv)
{
  const std::string file = std::string(argv[0]) + ".safetensors";
  const auto recorded = support::expected_hashes(GRADUS_TEST_DATA "/matrix/expected.txt");
  const auto compare = [&](const char* name, const std::string& hash) {
    const std::string key = std::string(GRADUS_FUSED ? "fused" : "unfused") + " run " + name;
    const auto known = recorded.find(key);
    if (known == recorded.end() || known->second != hash) {
      std::printf("%s %s\n", key.c_str(), hash.c_str());
      check(false, "a run has the bits recorded in matrix/expected.txt");
    }
  };
  constexpr gradus::adams adams{.lr = 0.125, .beta1 = 0.75, .beta2 = 0.875, .weight_decay = 0.25};
  constexpr gradus::yogi yogi{.lr = 0.0625, .beta1 = 0.5, .beta2 = 0.75, .weight_decay = 0.25};
  compare("float", run<float>(adams, file));
  compare("bfloat16", run<gradus::precision<gradus::bfloat16, gradus::bfloat16, gradus::block8>>(yogi, file));
  chosen_by_name();
  refusals();
#if defined(WITH_BITS)
  check(has_recorded_bits(), "the trajectories have the bits recorded in bits/expected.txt");
#endif
  return good ? 0 : 1;
}
