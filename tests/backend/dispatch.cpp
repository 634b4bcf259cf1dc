// gradus::dispatch, from a program of any flags: each instruction set gives the bits of its family.

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/backend/dispatch.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/compositions.hpp"
#include "support/fingerprint.hpp"

namespace {

using gradus::backend::dispatch;
using gradus::backend::instruction_set;

constexpr instruction_set sets[] = {instruction_set::baseline, instruction_set::avx2_fma, instruction_set::avx512};
#if defined(__aarch64__)
constexpr std::string_view names[] = {"neon", "", ""};
#else
constexpr std::string_view names[] = {"baseline", "avx2_fma", "avx512"};
#endif

bool is_fused(const dispatch& d) { return std::string_view(d.name()) != "baseline"; }

std::vector<dispatch> all_of_this_machine()
{
  std::vector<dispatch> all;
  for (const instruction_set set : sets)
    if (dispatch::supports(set)) {
      all.emplace_back(set);
      CHECK(names[int(set)] == all.back().name());
    }
  return all;
}

// Calls f(name, rule) for the compositions that are recipes.
template <class F>
void for_each_recipe_rule(const F& f)
{
  support::for_each_composition([&]<class Rule>(std::string_view name, const Rule& rule) {
    using formulas = decltype(gradus::prepare<float>(rule, gradus::step_scalars{}));
    using kernel = gradus::kernel<gradus::pass::whole, formulas>;
    if constexpr (gradus::detail::dispatch_index<kernel>() < gradus::detail::dispatched_kernels)
      f(name, rule);
  });
}

}  // namespace

TEST_CASE_TEMPLATE("dispatch: every instruction set gives the bits recorded for its family", T, float, double)
{
  const auto expected = support::expected_hashes();
  for (const dispatch& d : all_of_this_machine())
    for_each_recipe_rule([&](std::string_view name, const auto& rule) {
      const std::string key = std::string(is_fused(d) ? "fused " : "unfused ") + std::string(name) +
                              (sizeof(T) == 4 ? " float" : " double");
      CHECK_MESSAGE(expected.at(key) == support::fingerprint_of<T>(d, rule), std::string(d.name()), ": ", key);
    });
}

TEST_CASE_TEMPLATE("dispatch: every instruction set has the scalar backend's bits of its family, at any length", T,
                   float, double)
{
  for_each_recipe_rule([&](std::string_view name, const auto& rule) {
    for (const std::size_t length : {1u, 3u, 7u, 8u, 9u, 15u, 16u, 17u, 31u, 33u, 64u, 4095u, 4097u}) {
      std::string family[2];
      family[GRADUS_FUSED] = support::fingerprint_of<T>(gradus::backend::scalar{}, rule, length, 20);
      for (const dispatch& d : all_of_this_machine()) {
        const std::string hash = support::fingerprint_of<T>(d, rule, length, 20);
        std::string& known = family[is_fused(d)];
        if (known.empty())
          known = hash;
        CHECK_MESSAGE(hash == known, std::string(d.name()), ", ", name, ", length ", length);
      }
    }
  });
}

TEST_CASE("dispatch: several threads give the bits of one")
{
  constexpr std::size_t length = 200'001;
  const auto run = [](auto backend) {
    gradus::optimizer opt(gradus::adams{.lr = 0.01, .weight_decay = 0.1}, backend);
    std::vector<float> weights(length, 0.5f), gradients(length);
    for (std::size_t i = 0; i < length; ++i)
      gradients[i] = float(i % 1000) / 256 - 2;
    opt.add(weights, gradients);
    for (int t = 0; t < 5; ++t)
      opt.step({.max_grad_norm = 1.0});
    return weights;
  };
  for (const dispatch& d : all_of_this_machine())
    CHECK_MESSAGE(run(d) == run(gradus::backend::parallel(d, gradus::executor::thread_pool(3))), std::string(d.name()));
}

TEST_CASE_TEMPLATE("dispatch: 16-bit parameters and gradients have the bits of the scalar backend", Precision,
                   gradus::precision<gradus::bfloat16, gradus::bfloat16, float, float>,
                   gradus::precision<gradus::float16, gradus::float16, float, float>,
                   gradus::precision<float, gradus::bfloat16>, gradus::precision<gradus::bfloat16>)
{
  constexpr std::size_t length = 5003;
  using parameter = typename Precision::parameter_type;
  using gradient = typename Precision::gradient_type;
  const auto run = [&]<class Backend>(const Backend& backend) {
    gradus::optimizer<gradus::adams, Precision, Backend> opt({.lr = 0.01, .weight_decay = 0.1}, backend);
    std::vector<parameter> weights(length);
    std::vector<gradient> gradients(length);
    for (std::size_t i = 0; i < length; ++i) {
      weights[i] = parameter(float(i % 37) / 32 - 0.5f);
      gradients[i] = gradient(float(i % 1000) / 256 - 2);
    }
    opt.add("w", weights, gradients);
    for (int t = 0; t < 5; ++t)
      opt.step({.max_grad_norm = 1.0});
    std::vector<float> all(weights.begin(), weights.end());
    for (const float m : opt.state("w", "exp_avg"))
      all.push_back(m);
    return all;
  };
  for (const dispatch& d : all_of_this_machine())
    if (is_fused(d) == bool(GRADUS_FUSED))
      CHECK_MESSAGE(run(d) == run(gradus::backend::scalar{}), std::string(d.name()));
}

TEST_CASE("dispatch: takes the widest instruction set by default")
{
  const auto all = all_of_this_machine();
  REQUIRE(!all.empty());
  CHECK(std::string_view(dispatch().name()) == all.back().name());
  std::printf("dispatch takes %s, the widest of %zu\n", dispatch().name(), all.size());
#if defined(__AVX512BW__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  CHECK(all.size() == 3);
#elif defined(__AVX2__) && defined(__FMA__)
  CHECK(all.size() >= 2);
#endif
}

TEST_CASE("dispatch: an instruction set that the machine lacks is refused")
{
  const auto refusal = [](instruction_set set) -> std::string {
    try {
      const dispatch d(set);
      return d.name();
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
  };
  const std::string rest = "; expected one that this machine has, the widest being ";
  CHECK(refusal(instruction_set(7)).starts_with("gradus: instruction_set is 7" + rest));
  CHECK(refusal(instruction_set(-1)).starts_with("gradus: instruction_set is -1" + rest));
  for (const instruction_set set : sets) {
    const std::string name = set == instruction_set::avx512 ? "avx512" : "avx2_fma";  // baseline is always there
    if (!dispatch::supports(set))
      CHECK(refusal(set).starts_with("gradus: instruction_set is " + name + rest));
  }
}
