// A quick benchmark: the time of one step of AdamW, or of the recipes named as arguments, in float on one thread,
// divided by the time of the same step written by hand, and by the time to move the same bytes. Rounds are interleaved,
// processor time is measured, and medians of the rounds' ratios are printed, so that the ratios are fair on a busy
// machine or one whose speed drifts. The suite measures the rest.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string_view>

#include <gradus/gradus.hpp>

#include "model.hpp"
#include "twins.hpp"

namespace {

/// This thread's processor time if the system has it, otherwise the process's.
double processor_seconds()
{
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
#else
  return double(std::clock()) / CLOCKS_PER_SEC;
#endif
}

template <class F>
double seconds(std::size_t repeats, const F& work)
{
  const double start = processor_seconds();
  for (std::size_t k = 0; k < repeats; ++k) {
    work();
    bench::clobber();
  }
  return processor_seconds() - start;
}

constexpr std::size_t rounds = 15;
using samples = std::array<double, rounds>;

double median_ratio(const samples& a, const samples& b)
{
  samples r;
  for (std::size_t i = 0; i < rounds; ++i)
    r[i] = a[i] / b[i];
  std::nth_element(r.begin(), r.begin() + rounds / 2, r.end());
  return r[rounds / 2];
}

template <class Recipe>
void measure(const char* name, std::size_t n)
{
  constexpr std::size_t slots = decltype(std::declval<Recipe>().rule())::slots;
  const Recipe h = bench::measured<Recipe>();
  const double norm_sq = 0.01 * double(n);
  const bench::model<float> ours({1, n}), twin({1, n}), moved({1, n});
  gradus::optimizer<Recipe, float> opt(h);
  ours.add_to(opt);

  std::vector<bench::buffer<float>> memory;
  float *of_twin[slots + 1] = {}, *of_traffic[slots + 1] = {};
  const auto rule = h.rule();
  for (std::size_t k = 0; k < slots; ++k) {
    of_twin[k] = memory.emplace_back(twin.stride).data();
    of_traffic[k] = memory.emplace_back(twin.stride).data();
    for (std::size_t i = 0; i < twin.stride; ++i)
      of_twin[k][i] = of_traffic[k][i] = float(gradus::initial_value(rule, k));
  }

  const std::size_t repeats = std::max<std::size_t>(1, (std::size_t(1) << 22) / n);
  [[maybe_unused]] double t = 0, sum = 0;
  samples traffic, by_hand, gradus_step;
  for (std::size_t r = 0; r < rounds; ++r) {
    traffic[r] = seconds(repeats, [&] {
      [&]<std::size_t... K>(std::index_sequence<K...>) {
        twins::traffic<false>(n, moved.gradients(0), moved.parameters(0), of_traffic[K]...);
      }(std::make_index_sequence<slots>{});
    });
#if TWINS
    if constexpr (twins::exists<Recipe>)
      by_hand[r] = seconds(repeats, [&] {
        twins::step(h, twins::prepare(h, ++t, sum, norm_sq, double(n)), twin.parameters(0), twin.gradients(0), of_twin, n);
      });
#endif
    gradus_step[r] = seconds(repeats, [&] { opt.step({.grad_norm_sq = norm_sq}); });
  }
  std::printf("%-9s %9zu  %12.2f", name, n, median_ratio(gradus_step, traffic));
  if constexpr (twins::exists<Recipe>) {
    const bool same = std::memcmp(ours.parameters(0), twin.parameters(0), n * sizeof(float)) == 0;
    std::printf("  %12.2f  %s", median_ratio(gradus_step, by_hand), same ? "same bits" : "DIFFERENT BITS");
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv)
{
  std::printf("%-9s %9s  %12s  %12s\n", "recipe", "elements", "pure traffic", "by hand");
  gradus::for_each_recipe([&]<class Recipe>(const char* name, std::type_identity<Recipe>) {
    bool wanted = argc < 2 && std::string_view(name) == "adamw";
    for (int i = 1; i < argc; ++i)
      wanted = wanted || std::string_view(argv[i]) == name || std::string_view(argv[i]) == "all";
    if (wanted)
      for (const std::size_t n : {std::size_t(1) << 12, std::size_t(1) << 16, std::size_t(1) << 20, std::size_t(1) << 24})
        measure<Recipe>(name, n);
  });
}
