// Runs that are killed and runs that are long: `./dev torture`, and a little of both in the tests.
//
//   PROGRAM [--kills N] [--steps N] [--folder FOLDER]
//
// Kills: a process steps and saves in a loop and is killed at a random moment, N times. After each the file loads, it is
// the run's, and the steps after it have the bits of a run that nobody interrupted.
// Soak: a small network is trained for N steps, frozen and unfrozen in parts, twice from the same start. One of the two runs
// is saved, loaded, moved to other memory, and given pools of other sizes all the time. Their bits are the same, and the
// memory stays what it was.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <gradus/backend/parallel.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "support/checkpoint.hpp"
#include "support/failing_memory.hpp"
#include "support/random.hpp"

namespace {

namespace fs = std::filesystem;
using support::random;

[[noreturn]] void fault(const std::string& sentence)
{
  std::fprintf(stderr, "torture: %s\n", sentence.c_str());
  std::exit(1);
}

// ── the network: one hidden layer, images of noise around ten prototypes ─────────────────────────────────────────────

constexpr std::size_t inputs = 64, hidden = 32, classes = 10, batch = 8;
constexpr std::array<std::size_t, 4> sizes = {inputs * hidden, hidden, hidden* classes, classes};
constexpr std::array<const char*, 4> names = {"layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias"};

struct images {
  std::vector<float> prototypes = std::vector<float>(classes * inputs);
  std::vector<float> x = std::vector<float>(batch * inputs);
  std::array<std::size_t, batch> label = {};

  images()
  {
    random r(1);
    for (float& p : prototypes)
      p = float(r.uniform(-1, 1));
  }
  // The batch of one step, a function of the step alone.
  void draw(std::uint64_t step)
  {
    random r(1000 + step);
    for (std::size_t k = 0; k < batch; ++k) {
      label[k] = r.below(classes);
      for (std::size_t i = 0; i < inputs; ++i)
        x[k * inputs + i] = prototypes[label[k] * inputs + i] + float(r.uniform(-1, 1));
    }
  }
};

using tensors = std::array<std::vector<float>, 4>;

tensors first_weights()
{
  random r(2);
  tensors w;
  for (std::size_t k = 0; k < w.size(); ++k) {
    w[k].resize(sizes[k]);
    for (float& x : w[k])
      x = k % 2 ? 0 : float(r.uniform(-0.2, 0.2));
  }
  return w;
}

// Computes the gradients of the mean cross entropy.
void backward(const images& of, const tensors& w, tensors& g)
{
  for (auto& x : g)
    std::fill(x.begin(), x.end(), 0.0f);
  float h[hidden], y[classes], dh[hidden];
  for (std::size_t k = 0; k < batch; ++k) {
    const float* const x = of.x.data() + k * inputs;
    for (std::size_t j = 0; j < hidden; ++j)
      h[j] = w[1][j];
    for (std::size_t i = 0; i < inputs; ++i)
      for (std::size_t j = 0; j < hidden; ++j)
        h[j] += x[i] * w[0][i * hidden + j];
    for (float& a : h)
      a = a > 0 ? a : 0;
    for (std::size_t c = 0; c < classes; ++c)
      y[c] = w[3][c];
    for (std::size_t j = 0; j < hidden; ++j)
      for (std::size_t c = 0; c < classes; ++c)
        y[c] += h[j] * w[2][j * classes + c];
    float most = y[0], sum = 0;
    for (const float a : y)
      most = a > most ? a : most;
    for (float& a : y)
      sum += a = std::exp(a - most);
    for (std::size_t c = 0; c < classes; ++c) {
      y[c] = (y[c] / sum - (c == of.label[k] ? 1.0f : 0.0f)) / float(batch);
      g[3][c] += y[c];
    }
    for (std::size_t j = 0; j < hidden; ++j) {
      dh[j] = 0;
      for (std::size_t c = 0; c < classes; ++c) {
        g[2][j * classes + c] += h[j] * y[c];
        dh[j] += w[2][j * classes + c] * y[c];
      }
      dh[j] = h[j] > 0 ? dh[j] : 0;
      g[1][j] += dh[j];
    }
    for (std::size_t i = 0; i < inputs; ++i)
      for (std::size_t j = 0; j < hidden; ++j)
        g[0][i * hidden + j] += x[i] * dh[j];
  }
}

const gradus::adams recipe{.lr = 1e-3, .weight_decay = 1e-3};
const gradus::save_options with_parameters{.parameters = true};

// What a step is told, a function of the step alone.
gradus::step_options options_of(std::uint64_t step)
{
  gradus::step_options o;
  o.lr_scale = 1 / (1 + 1e-5 * double(step));
  if (step % 3 == 0)
    o.max_grad_norm = 1;
  o.skip_nonfinite = step % 5 == 0;
  return o;
}

// ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────

struct small_run {
  images data;
  tensors w = first_weights(), g = first_weights();
  gradus::optimizer<gradus::adams> opt{recipe};
  std::uint64_t steps = 0;
  small_run()
  {
    for (std::size_t k = 0; k < w.size(); ++k)
      opt.add(names[k], w[k], g[k]);
  }
  void step()
  {
    data.draw(steps);
    backward(data, w, g);
    opt.step(options_of(steps));
    ++steps;
  }
  void save(const std::string& path) const
  {
    gradus::save(opt, path, {.parameters = true, .metadata = {{"steps", std::to_string(steps)}}});
  }
  // Whether there was a file.
  bool load(const std::string& path)
  {
    if (!fs::exists(path))
      return false;
    const auto report = gradus::load(opt, path);
    steps = std::strtoull(report.metadata.at("steps").c_str(), nullptr, 10);
    return true;
  }
};

void kill_runs(long kills, const fs::path& folder)
{
  const std::string path = (folder / "killed.safetensors").string();
  fs::remove(path);
  small_run reference;
  std::vector<std::string> kept;  // what the run nobody interrupts was after its last steps
  std::uint64_t first_kept = 0;
  const auto expected = [&](std::uint64_t step) -> const std::string& {
    while (first_kept + kept.size() <= step) {
      if (kept.empty() && first_kept == 0)
        kept.push_back(support::checkpoint_of(reference.opt));
      else {
        reference.step();
        kept.push_back(support::checkpoint_of(reference.opt));
      }
      if (kept.size() > 4000) {
        kept.erase(kept.begin(), kept.begin() + 2000);
        first_kept += 2000;
      }
    }
    if (step < first_kept)
      fault("a file is older than the one before it");
    return kept[step - first_kept];
  };

  random r(std::uint64_t(kills) + 7);
  const auto begin = std::chrono::steady_clock::now();
  {
    small_run one;
    for (int i = 0; i < 5; ++i) {
      one.step();
      one.save(path);
    }
  }
  const double a_save = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / 5;
  fs::remove(path);
  long within = 0, turns = 0, resumed = 0;
  std::uint64_t last = 0;
  for (long k = 0; k < kills; ++k) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      small_run run;
      run.load(path);
      for (;;) {
        for (std::uint64_t n = 1 + run.steps % 4; n > 0; --n)
          run.step();
        run.save(path);
      }
    }
    usleep(useconds_t(r.uniform(0, std::min(6 * a_save, 5e4))));
    if (child < 0 || kill(child, SIGKILL) != 0)
      fault("a process could not be started or killed");
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
      fault("a run ended before it was killed");
    within += fs::exists(path + ".partial");
    small_run run;
    if (!run.load(path)) {
      if (last > 0)
        fault("kill " + std::to_string(k) + ": the file is gone");
      continue;
    }
    if (run.steps < last)
      fault("kill " + std::to_string(k) + ": the file of step " + std::to_string(last) + " is an older one again");
    if (support::checkpoint_of(run.opt) != expected(run.steps))
      fault("kill " + std::to_string(k) + ": the file of step " + std::to_string(run.steps) +
            " is not that of the run");
    turns += run.steps != last;
    last = run.steps;
    for (int i = 0; i < 3; ++i, ++resumed)
      run.step();
    if (support::checkpoint_of(run.opt) != expected(run.steps))
      fault("kill " + std::to_string(k) + ": the steps after " + std::to_string(last) + " have other bits");
  }
  fs::remove(path);
  fs::remove(path + ".partial");
  if (resumed == 0)
    fault("no run was resumed");
  std::printf("kills: %ld, %ld of them within a save, %ld after which the file was a later one; %llu steps in the end. "
              "Every file loaded, and all %ld steps after one had the bits of the uninterrupted run\n",
              kills, within, turns, static_cast<unsigned long long>(last), resumed);
}

// ── soak ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

double resident_mib()
{
  std::ifstream in("/proc/self/statm");
  long total = 0, resident = 0;
  in >> total >> resident;
  return double(resident) * double(sysconf(_SC_PAGESIZE)) / 0x1p20;
}

// The run that nobody interrupts.
struct calm_run {
  tensors w = first_weights(), g = first_weights();
  gradus::optimizer<gradus::adams> opt{recipe};
  std::array<gradus::tensor_handle, 4> handles;
  calm_run()
  {
    for (std::size_t k = 0; k < w.size(); ++k)
      handles[k] = opt.add(names[k], w[k], g[k]);
  }
};

// The run that suffers.
struct tortured_run {
  using parallel = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;
  using optimizer = gradus::optimizer<gradus::adams, float, parallel>;
  tensors w = first_weights(), g = first_weights();
  std::unique_ptr<optimizer> opt;
  std::array<gradus::tensor_handle, 4> handles;
  std::array<bool, 4> frozen = {};
  long saves = 0, loads = 0, rebinds = 0, pools = 0, removals = 0, moves = 0;

  tortured_run() { renew(1, false); }

  // A new optimizer of these tensors, with so many threads.
  void renew(unsigned threads, bool always)
  {
    gradus::backend::division d;
    if (always)
      d = {.from = 1, .piece = 256, .pieces = 16};
    opt = std::make_unique<optimizer>(recipe,
                                      parallel(gradus::default_backend{},
                                               gradus::executor::thread_pool(threads, std::chrono::microseconds(0)),
                                               d));
    for (std::size_t k = 0; k < w.size(); ++k)
      handles[k] = opt->add(names[k], w[k], g[k]);
  }

  void suffer(random& r, const fs::path& folder)
  {
    switch (r.below(7)) {
    case 0: {  // back to what was saved in memory, after steps that come to nothing
      const std::string bytes = support::checkpoint_of(*opt);
      for (std::size_t n = r.below(4); n > 0; --n)
        opt->step({.grad_scale = 3});
      if (r.chance(0.3))
        opt->set_lr(0.5);
      support::load_bytes(*opt, bytes);
      ++saves, ++loads;
      break;
    }
    case 1: {  // the same by a file
      const std::string path = (folder / "soak.safetensors").string();
      gradus::save(*opt, path, with_parameters);
      opt->step();
      gradus::load(*opt, path);
      ++saves, ++loads;
      break;
    }
    case 2: {  // another optimizer goes on, on another pool
      const std::string bytes = support::checkpoint_of(*opt);
      renew(unsigned(1 + r.below(4)), r.chance(0.3));
      support::load_bytes(*opt, bytes);
      ++saves, ++loads, ++pools;
      break;
    }
    case 3: {  // other memory
      const std::size_t k = r.below(w.size());
      std::vector<float> elsewhere(w[k]), its_gradients(g[k].size(), 7.0f);
      opt->rebind(handles[k], elsewhere, its_gradients);
      w[k].swap(elsewhere);
      g[k].swap(its_gradients);
      ++rebinds;
      break;
    }
    case 4: {  // removed, and added again
      const std::size_t k = r.below(w.size());
      opt->remove(handles[k], gradus::removed_state::kept);
      handles[k] = opt->add(names[k], w[k], g[k]);
      if (frozen[k])
        opt->freeze(handles[k]);
      ++removals;
      break;
    }
    case 5: {
      auto next = std::make_unique<optimizer>(std::move(*opt));
      opt = std::move(next);
      ++moves;
      break;
    }
    default: {  // calls that are refused
      const gradus::tensor_handle none;
      const bool refused = !support::refusal([&] { opt->step({.lr_scale = -1}); }).empty() &&
                           !support::refusal([&] { opt->freeze(none); }).empty() &&
                           !support::refusal([&] { opt->add("overlapping", w[0], g[0]); }).empty();
      if (!refused)
        fault("an invalid call was accepted");
    }
    }
  }
};

void soak(std::uint64_t steps, const fs::path& folder)
{
  images data;
  calm_run calm;
  tortured_run tortured;
  random r(3);
  const std::uint64_t interval = std::max<std::uint64_t>(steps / 10, 1);
  double resident = 0, most_resident = 0;
  long living = 0, most_living = 0, freezes = 0;
  std::string table;
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t t = 0; t < steps; ++t) {
    if (r.chance(0.01)) {
      const std::size_t k = r.below(4);
      const bool frozen = tortured.frozen[k] = !tortured.frozen[k];
      frozen ? calm.opt.freeze(calm.handles[k]) : calm.opt.unfreeze(calm.handles[k]);
      frozen ? tortured.opt->freeze(tortured.handles[k]) : tortured.opt->unfreeze(tortured.handles[k]);
      ++freezes;
    }
    if (r.chance(0.02))
      tortured.suffer(r, folder);
    data.draw(t);
    backward(data, calm.w, calm.g);
    backward(data, tortured.w, tortured.g);
    const auto a = calm.opt.step(options_of(t)), b = tortured.opt->step(options_of(t));
    if (a.mean_square != b.mean_square || a.grad_norm != b.grad_norm)
      fault("step " + std::to_string(t) + ": the reports differ");
    if ((t + 1) % 100 == 0 || t + 1 == steps)
      for (std::size_t k = 0; k < 4; ++k)
        if (calm.w[k] != tortured.w[k])
          fault("step " + std::to_string(t) + ": the weights of " + names[k] + " differ");
    if ((t + 1) % interval == 0) {
      if (support::checkpoint_of(calm.opt) != support::checkpoint_of(*tortured.opt))
        fault("step " + std::to_string(t) + ": the states differ");
      const double now = resident_mib();
      const long alive = support::living;
      // The first interval is for what the C library and the threads keep.
      if (t + 1 == interval) {
        resident = now;
        living = alive;
      }
      most_resident = std::max(most_resident, now);
      most_living = std::max(most_living, alive);
      char line[120];
      std::snprintf(line, sizeof line, "| %llu | %.1f | %ld |\n", static_cast<unsigned long long>(t + 1), now, alive);
      table += line;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fs::remove(folder / "soak.safetensors");
  const auto& s = tortured;
  std::printf(
      "soak: %llu steps in %.0f s, frozen or unfrozen %ld times; in the second run %ld saves, %ld loads, %ld rebinds, "
      "%ld removals, %ld moves, %ld pools. The same bits throughout\n",
      static_cast<unsigned long long>(steps), seconds, freezes, s.saves, s.loads, s.rebinds, s.removals, s.moves,
      s.pools);
  std::printf("\n| after steps | resident MiB | living allocations |\n|---|---|---|\n%s", table.c_str());
  if (most_resident > resident + 4 || most_living > living + 50)
    fault("memory grew during the soak");
}

}  // namespace

int main(int argc, char** argv)
{
  long kills = 0;
  std::uint64_t steps = 0;
  fs::path folder = "torture_files";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--kills")
      kills = std::strtol(argv[i + 1], nullptr, 10);
    else if (option == "--steps")
      steps = std::strtoull(argv[i + 1], nullptr, 10);
    else if (option == "--folder")
      folder = argv[i + 1];
    else
      fault("unknown option " + std::string(option) + "; expected --kills, --steps or --folder");
  }
  fs::create_directories(folder);
  if (kills > 0)
    kill_runs(kills, folder);
  if (steps > 0)
    soak(steps, folder);
  fs::remove(folder);
}
