// The study's worker: trains one network with one optimizer as a file describes it, and writes down how it went.
// study.py has the experiments, and starts one of these for each run.

#include <array>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/schedule.hpp>

#include "images.hpp"
#include "language.hpp"
#include "sharpness.hpp"

namespace {

using json = nlohmann::json;
using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start)
{
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

// ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────

struct run {
  std::string model, optimizer, schedule;
  double lr = 0, weight_decay = 0;
  std::vector<double> milestones;  // fractions of the run; lr is divided by 10 at each
  double t_0 = 1, t_mult = 2;      // epochs, of the first warm restart
  int epochs = 0;
  std::int64_t images = 0, batch = 0;  // lstm: characters to train on, and streams of text
  std::uint64_t seed = 0;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(run, model, optimizer, lr, weight_decay, schedule, milestones, t_0, t_mult, epochs,
                                   images, batch, seed)

run read_run(const std::string& file)
{
  std::ifstream in(file);
  if (!in)
    throw std::runtime_error(file + " is not a readable file");
  const json description = json::parse(in), all_keys = run();
  for (const auto& [key, value] : all_keys.items())
    if (!description.contains(key))
      throw std::runtime_error(file + " has no key " + key);
  for (const auto& [key, value] : description.items()) {
    if (!all_keys.contains(key))
      throw std::runtime_error(file + " has the key " + key + "; expected only those of " + all_keys.dump());
    const json& like = all_keys[key];
    if (like.is_number_integer() ? !value.is_number_integer() || value < 1
        : like.is_number()       ? !value.is_number()
                                 : value.type() != like.type())
      throw std::runtime_error(file + ": " + key + " is " + value.dump() + "; expected " +
                               (like.is_number_integer() ? "an integer of at least 1"
                                : like.is_number()       ? "a number"
                                                         : "a value like " + like.dump()));
  }
  const run r = description.get<run>();
  return r;
}

/// Of the number of epochs that have passed, a fraction included, the factor on lr.
std::function<double(double)> lr_scale(const run& r)
{
  if (r.schedule == "constant")
    return [](double) { return 1.0; };
  if (r.schedule == "warm_restarts")
    return gradus::schedule::cosine_warm_restarts{.t_0 = r.t_0, .t_mult = r.t_mult};
  if (r.schedule != "step")
    throw std::invalid_argument("schedule is \"" + r.schedule + "\"; expected constant, step or warm_restarts");
  gradus::schedule::multi_step drops{.milestones = r.milestones};
  for (double& fraction : drops.milestones)
    fraction *= r.epochs;
  return drops;
}

struct places {
  std::string data = fashion_mnist::usual_folder, text = "/usr/lib/bible.data";
};

std::unique_ptr<study::task> make_task(const run& r, const places& where)
{
  if (r.model == "lstm")
    return std::make_unique<study::language_model>(where.text, std::size_t(r.batch), r.seed,
                                                   study::language_config{.train = std::size_t(r.images)});
  return std::make_unique<study::images>(r.model, where.data, Eigen::Index(r.images), Eigen::Index(r.batch), r.seed);
}

/// Calls f with the optimizer of r's name: a recipe of gradus, or SGD with momentum and a decay that no recipe has.
template <class F>
auto with_optimizer(const run& r, const F& f)
{
  using namespace gradus;
  const auto sgd_with = [&](auto decay) {
    optimizer opt(compose(r.lr, first_moment::momentum{0.9}, second_moment::none{}, step_size::constant{}, decay));
    return f(opt);
  };
  if (r.optimizer == "sgd_decoupled")
    return sgd_with(decay::decoupled{r.weight_decay});
  if (r.optimizer == "sgd_independent")
    return sgd_with(decay::independent{r.weight_decay});
  std::vector<named_number> numbers = {{"lr", r.lr}, {"weight_decay", r.weight_decay}};
  if (r.optimizer == "sgd" || r.optimizer == "sgds")
    numbers.emplace_back("momentum", 0.9);
  any_optimizer_of<float, sgd, sgds, adam, adamw, adams, amsgrad, yogi, adabound, padam, radam> opt(r.optimizer,
                                                                                                    numbers);
  return f(opt);
}

template <class Opt>
void add_tensors(Opt& opt, study::task& task)
{
  for (const study::tensor& t : task.tensors)
    opt.add(t.name, std::span(task.parameters).subspan(t.begin, t.size),
            std::span(task.gradients).subspan(t.begin, t.size));
}

// ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────

/// ‖g + λθ‖
double norm_with_l2(const study::task& task, double lambda)
{
  return (study::vector_of(task.gradients) + float(lambda) * study::vector_of(task.parameters)).cast<double>().norm();
}

/// The λ that an L2 term of the run's strength has; experiments.py has the factors (decay_factor).
double l2_strength(const run& r)
{
  if (r.optimizer == "adamw")
    return r.weight_decay * 1e-3;
  return r.optimizer == "sgd_independent" ? r.weight_decay / r.lr : r.weight_decay;
}

// ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A file of JSON, an object a line.
class log_file {
 public:
  explicit log_file(std::string path) : path_(std::move(path)) {}

  /// Replaces all that is in it.
  void restart(const std::string& lines)
  {
    lines_.clear();
    out_.open(path_, std::ios::trunc);
    put(lines);
  }
  void add(const json& line) { put(line.dump() + "\n"); }

  const std::string& lines() const { return lines_; }

 private:
  void put(const std::string& text)
  {
    lines_ += text;
    if (!(out_ << text << std::flush))
      throw std::runtime_error("could not write to " + path_);
  }

  std::string path_, lines_;
  std::ofstream out_;
};

/// One epoch, and its line of the log.
template <class Opt>
json train_epoch(const run& r, study::task& task, Opt& opt, int epoch)
{
  const auto start = clock_type::now();
  const std::function<double(double)> scale = lr_scale(r);
  const std::size_t steps = task.steps_per_epoch();
  double loss = 0, in_steps = 0, gradient_norm = 0, gradient_norm_l2 = 0, lr = 0;
  int clamped = 0;
  gradus::step_report report;
  task.start_epoch(std::size_t(epoch));
  for (std::size_t step = 0; step < steps; ++step) {
    loss += task.step_gradients(step);
    if (!std::isfinite(loss))
      return {{"epoch", epoch + 1}, {"diverged", true}};
    gradient_norm_l2 += norm_with_l2(task, l2_strength(r));
    const double factor = scale(epoch + double(step) / double(steps));
    const auto before = clock_type::now();
    // A limit of infinity clips nothing, but has the norm measured.
    report = opt.step({.lr_scale = factor, .max_grad_norm = task.max_grad_norm(), .flush_denormals = true});
    in_steps += seconds_since(before);
    lr = r.lr * factor;
    gradient_norm += report.grad_norm.value();
    clamped += report.decay_clamped;
  }
  const double seconds = seconds_since(start);
  const double probe_loss = task.probe_gradients(), probe_norm = study::norm(task.gradients);
  // Every second epoch, as it takes half as long as the training.
  const bool tested = (r.epochs - epoch) % 2 == 1;
  const study::measurement test = tested ? task.test() : study::measurement();
  if (!std::isfinite(probe_loss + test.loss))
    return {{"epoch", epoch + 1}, {"diverged", true}};
  const double n = double(steps);
  json line = {{"epoch", epoch + 1},
               {"lr", lr},
               {"train_loss", loss / n},
               {"probe_loss", probe_loss},
               {"grad_norm", gradient_norm / n},
               {"grad_norm_l2", gradient_norm_l2 / n},
               {"probe_grad_norm", probe_norm},
               {"weight_norm", study::norm(task.parameters)},
               {"decay_factor", report.decay_factor ? json(*report.decay_factor) : json()},
               {"clamped", clamped},
               {"seconds", seconds},
               {"optimizer_seconds", in_steps},
               {"examples", steps * task.examples_per_step()}};
  if (tested)
    line.update({{"test_loss", test.loss}, {"test_error", test.error}});
  return line;
}

/// After each epoch, all that the run needs to go on is in `state`, the log's lines up to there included.
template <class Opt>
void train(const run& r, study::task& task, Opt& opt, const json& about, log_file& log, const std::string& state)
{
  const auto start = clock_type::now();
  add_tensors(opt, task);
  std::vector<float> of_buffers(task.buffers().size());
  if (!of_buffers.empty())
    opt.freeze(opt.add("buffers", task.buffers(), std::span<float>(of_buffers)));

  int epoch = 0;
  double seconds_before = 0;
  bool diverged = false;
  if (std::filesystem::exists(state)) {
    gradus::load_report loaded = gradus::load(opt, state, {.parameters = true});
    if (loaded.metadata["run"] != json(r).dump())
      throw std::runtime_error(state + " is the state of the run " + loaded.metadata["run"] + "; expected " +
                               json(r).dump());
    epoch = std::stoi(loaded.metadata["epoch"]);
    seconds_before = std::stod(loaded.metadata["seconds"]);
    log.restart(loaded.metadata["log"]);
  } else {
    json first = {{"run", r}};
    first.update(about);
    first.update({{"parameters", task.parameters.size()}, {"tensors", task.tensors.size()}});
    log.restart(first.dump() + "\n");
  }

  const auto seconds = [&] { return seconds_before + seconds_since(start); };
  while (epoch < r.epochs && !diverged) {
    const json line = train_epoch(r, task, opt, epoch);
    diverged = line.contains("diverged");
    ++epoch;
    if (!diverged)
      gradus::save(opt, state,
                   {.parameters = true,
                    .metadata = {{"run", json(r).dump()},
                                 {"epoch", std::to_string(epoch)},
                                 {"seconds", std::to_string(seconds())},
                                 {"log", log.lines() + line.dump() + "\n"}}});
    log.add(line);
  }
  json last = {{"done", true}, {"sharpness", nullptr}};
  if (!diverged)
    last["sharpness"] = study::sharpness(task);
  last["seconds"] = seconds();
  log.add(last);
}

// ── Theorem 1 ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Logistic regression with an L2 term, every step on all of its data: gradient descent reaches the minimum, then lr is
/// divided by ten. Where the decay is multiplied by lr, or is part of the gradient, nothing moves. Where it is not, its
/// strength against the loss has become ten times as large: the point is no longer a stationary one.
void theorem(log_file& log)
{
  constexpr Eigen::Index examples = 400, features = 20;
  constexpr int drop = 4000, steps = 8000;
  constexpr double lr = 0.5, lambda = 0.01;
  fashion_mnist::random_numbers random(1);
  Eigen::MatrixXd x(examples, features);
  for (double& element : x.reshaped())
    element = 2 * random.uniform() - 1;
  Eigen::ArrayXd label(examples);  // 1 or −1, one in ten of them wrong
  for (Eigen::Index i = 0; i < examples; ++i)
    label[i] = (x.row(i).head(features / 2).sum() > 0) == (random.uniform() < 0.9) ? 1 : -1;

  const auto descend = [&](const char* kind, auto decay) {
    using namespace gradus;
    Eigen::VectorXd w = Eigen::VectorXd::Zero(features), gradient(features);
    const auto rule = compose(lr, first_moment::momentum{0}, second_moment::none{}, step_size::constant{}, decay);
    optimizer<decltype(rule), double> opt(rule);
    opt.add(std::span(w.data(), features), std::span(gradient.data(), features));
    for (int step = 0; step <= steps; ++step) {
      const Eigen::ArrayXd margin = label * (x * w).array();
      gradient = -(x.transpose() * (label / (1 + margin.exp())).matrix()) / double(examples);
      const double factor = step < drop ? 1 : 0.1;
      if (step % 50 == 0)
        log.add({{"kind", kind},
                 {"step", step},
                 {"lr", lr * factor},
                 {"loss", (1 + (-margin).exp()).log().mean() + lambda / 2 * w.squaredNorm()},
                 {"stationarity", (gradient + lambda * w).norm()}});
      opt.step({.lr_scale = factor});
    }
  };
  log.restart("");
  descend("independent", gradus::decay::independent{lr * lambda});
  descend("coupled", gradus::decay::decoupled{lambda});
  descend("l2", gradus::decay::l2{lambda});
}

// ── what a step costs ────────────────────────────────────────────────────────────────────────────────────────────────

/// Medians over rounds in which the optimizers take turns.
void time_steps(const places& where, log_file& log)
{
  constexpr int rounds = 15, steps = 20;
  constexpr std::array<std::string_view, 10> names{"sgd",     "sgds", "adam",     "adamw", "adams",
                                                   "amsgrad", "yogi", "adabound", "padam", "radam"};
  std::vector<std::vector<double>> in_steps(names.size()), share(names.size());
  run common;
  common.model = "vgg_bn";
  common.lr = 1e-3;
  common.weight_decay = 5e-4;
  common.images = 12'000;
  common.batch = 128;
  const std::unique_ptr<study::task> task = make_task(common, where);
  task->start_epoch(0);
  const auto parameters = task->parameters;
  std::size_t step = 0;
  for (int round = 0; round < rounds; ++round)
    for (std::size_t k = 0; k < names.size(); ++k) {
      run r = common;
      r.optimizer = names[k];
      task->parameters = parameters;
      with_optimizer(r, [&](auto& opt) {
        add_tensors(opt, *task);
        task->step_gradients(0);
        opt.step();  // the first finds nothing in the caches
        double of_optimizer = 0;
        const auto start = clock_type::now();
        for (int i = 0; i < steps; ++i) {
          task->step_gradients(step++ % task->steps_per_epoch());
          const auto before = clock_type::now();
          opt.step({.flush_denormals = true});
          of_optimizer += seconds_since(before);
        }
        in_steps[k].push_back(of_optimizer / steps);
        share[k].push_back(of_optimizer / seconds_since(start));
      });
    }
  const auto median = [](std::vector<double>& x) {
    std::nth_element(x.begin(), x.begin() + std::ptrdiff_t(x.size() / 2), x.end());
    return x[x.size() / 2];
  };
  log.restart("");
  for (std::size_t k = 0; k < names.size(); ++k) {
    const double ns = 1e9 * median(in_steps[k]);
    log.add({{"optimizer", names[k]},
             {"model", common.model},
             {"ns_per_step", ns},
             {"ns_per_parameter", ns / double(parameters.size())},
             {"share_of_step", median(share[k])}});
  }
}

}  // namespace

int main(int argc, char** argv)
{
  CLI::App app("The worker of the study: one run, told by a file. study.py starts it.");
  places where;
  std::string description, log, state, about = "{}";
  const auto command = [&](const char* name, const char* what) {
    CLI::App* c = app.add_subcommand(name, what);
    c->add_option("--log", log, "Written: JSON, an object a line")->required();
    c->add_option("--data", where.data, "Folder of Fashion-MNIST's four .gz files")->capture_default_str();
    c->add_option("--text", where.text, "The language model's: plain, or that of Debian's bible-kjv-text")
        ->capture_default_str();
    return c;
  };
  CLI::App* const training = command("run", "Train, or go on where --state ends");
  training->add_option("description", description, "JSON file: model, optimizer, lr, …")->required();
  training->add_option("--state", state, "Checkpoint, written after each epoch")->required();
  training->add_option("--about", about, "JSON object for the log's first line");
  CLI::App* const theorem_1 = command("theorem", "Theorem 1, on logistic regression");
  command("time", "Seconds a step, by optimizer");
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  try {
    log_file out(log);
    if (training->parsed()) {
      const run r = read_run(description);
      lr_scale(r)(0);  // refuses before anything is begun
      const std::unique_ptr<study::task> task = make_task(r, where);
      with_optimizer(r, [&](auto& opt) { train(r, *task, opt, json::parse(about), out, state); });
    } else if (theorem_1->parsed())
      theorem(out);
    else
      time_steps(where, out);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "study: %s\n", e.what());
    return 1;
  }
  return 0;
}
