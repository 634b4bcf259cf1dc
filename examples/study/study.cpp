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
#include <Eigen/Cholesky>
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

/// Long runs have fifty lines: of so many epochs, one is measured, written down and saved.
int stride(const run& r) { return r.epochs > 100 ? r.epochs / 50 : 1; }

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

/// One epoch, and its line of the log; only its number where the epoch is not `measured`.
template <class Opt>
json train_epoch(const run& r, study::task& task, Opt& opt, int epoch, bool measured)
{
  const auto start = clock_type::now();
  const std::function<double(double)> scale = lr_scale(r);
  const std::size_t steps = task.steps_per_epoch();
  double loss = 0, in_steps = 0, gradient_norm = 0, gradient_norm_l2 = 0, largest_norm = 0, lr = 0;
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
    largest_norm = std::max(largest_norm, report.grad_norm.value());
    clamped += report.decay_clamped;
  }
  if (!measured)
    return {{"epoch", epoch + 1}};
  const double seconds = seconds_since(start);
  const double probe_loss = task.probe_gradients(), probe_norm = study::norm(task.gradients);
  // Every second line, as it takes half as long as the training.
  const bool tested = (r.epochs - epoch - 1) / stride(r) % 2 == 0;
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
               {"grad_norm_max", largest_norm},
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

/// After each epoch with a line, all that the run needs to go on is in `state`, the log's lines up to there included.
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
    const bool measured = (r.epochs - epoch - 1) % stride(r) == 0;
    const json line = train_epoch(r, task, opt, epoch, measured);
    diverged = line.contains("diverged");
    ++epoch;
    if (!diverged && !measured)
      continue;
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

// ── Theorems 1 and 2 ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Logistic regression on points whose labels are 1 or −1, one in ten of them wrong.
struct regression {
  static constexpr Eigen::Index examples = 400, features = 20;
  Eigen::MatrixXd x{examples, features};
  Eigen::ArrayXd label{examples};

  explicit regression(fashion_mnist::random_numbers& random)
  {
    for (double& element : x.reshaped())
      element = 2 * random.uniform() - 1;
    for (Eigen::Index i = 0; i < examples; ++i)
      label[i] = (x.row(i).head(features / 2).sum() > 0) == (random.uniform() < 0.9) ? 1 : -1;
  }
  Eigen::ArrayXd margins(const Eigen::VectorXd& w) const { return label * (x * w).array(); }
  double loss(const Eigen::VectorXd& w) const { return (1 + (-margins(w)).exp()).log().mean(); }
  Eigen::VectorXd gradient(const Eigen::VectorXd& w) const
  {
    return -(x.transpose() * (label / (1 + margins(w).exp())).matrix()) / double(examples);
  }

  /// The least loss, by Newton's method.
  double least_loss() const
  {
    Eigen::VectorXd w = Eigen::VectorXd::Zero(features);
    for (int i = 0; i < 50; ++i) {
      const Eigen::ArrayXd p = 1 / (1 + margins(w).exp());
      const Eigen::MatrixXd hessian = x.transpose() * (p * (1 - p)).matrix().asDiagonal() * x / double(examples);
      w -= hessian.ldlt().solve(gradient(w));
    }
    return loss(w);
  }
};

/// Logistic regression with an L2 term, every step on all of its data: gradient descent reaches the minimum, then lr is
/// divided by ten. Where the decay is multiplied by lr, or is part of the gradient, nothing moves. Where it is not, its
/// strength against the loss has become ten times as large: the point is no longer a stationary one.
void theorem(log_file& log)
{
  constexpr int drop = 4000, steps = 8000;
  constexpr double lr = 0.5, lambda = 0.01;
  fashion_mnist::random_numbers random(1);
  const regression problem(random);

  const auto descend = [&](const char* kind, auto decay) {
    using namespace gradus;
    Eigen::VectorXd w = Eigen::VectorXd::Zero(regression::features), gradient = w;
    const auto rule = compose(lr, first_moment::momentum{0}, second_moment::none{}, step_size::constant{}, decay);
    optimizer<decltype(rule), double> opt(rule);
    opt.add(std::span(w.data(), regression::features), std::span(gradient.data(), regression::features));
    for (int step = 0; step <= steps; ++step) {
      gradient = problem.gradient(w);
      const double factor = step < drop ? 1 : 0.1;
      if (step % 50 == 0)
        log.add({{"kind", kind},
                 {"step", step},
                 {"lr", lr * factor},
                 {"loss", problem.loss(w) + lambda / 2 * w.squaredNorm()},
                 {"stationarity", (gradient + lambda * w).norm()}});
      opt.step({.lr_scale = factor});
    }
  };
  log.restart("");
  descend("independent", gradus::decay::independent{lr * lambda});
  descend("coupled", gradus::decay::decoupled{lambda});
  descend("l2", gradus::decay::l2{lambda});
}

/// SGD on the same problem with batches, and the bound that Theorem 2 gives for it. With f = L + λ/2 ‖θ‖², lr = c/√T in T
/// steps, and L smooth with constant ℓ, the descent lemma gives
///   min E‖∇f(θₖ)‖² ≤ ((f(θ₀) − L*)/c + c (ℓ + λ)/2 · ((G + λ sup‖θ‖)² + σ²)) / √T,
/// where G bounds ‖∇L‖ and σ² the variance of a batch's gradient; here both follow from the points. The mean is over
/// seeds, the least over the ends of epochs, so the least of all steps can only be smaller.
void bound(log_file& log)
{
  constexpr int batch = 10, per_epoch = int(regression::examples) / batch, seeds = 5;
  constexpr double c = 2;
  fashion_mnist::random_numbers random(1);
  const regression problem(random);
  const double n = double(regression::examples);
  const double smooth = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(problem.x.transpose() * problem.x / (4 * n))
                            .eigenvalues()
                            .maxCoeff();
  const double steepest = problem.x.rowwise().norm().mean();                 // |dL/dmargin| ≤ 1
  const double variance = problem.x.rowwise().squaredNorm().mean() / batch;  // E‖g‖² of one example over the batch
  const double least = problem.least_loss();
  log.restart("");
  for (const double lambda : {0.0, 0.001, 0.01, 0.1, 1.0})
    for (const int epochs : {50, 100, 200, 1000, 2000}) {
      const double steps = double(epochs) * per_epoch, lr = c / std::sqrt(steps);
      std::vector<double> squares(std::size_t(epochs) + 1), of_loss(squares.size());
      double longest = 0, start = 0;
      for (int seed = 1; seed <= seeds; ++seed) {
        fashion_mnist::random_numbers random_of(std::uint64_t(seed) + 100);
        Eigen::VectorXd w(regression::features), gradient(regression::features);
        for (double& element : w)
          element = 2 * random_of.uniform() - 1;
        gradus::optimizer<gradus::sgd, double> opt({.lr = lr, .weight_decay = lambda});
        opt.add(std::span(w.data(), regression::features), std::span(gradient.data(), regression::features));
        start += (problem.loss(w) + lambda / 2 * w.squaredNorm()) / seeds;
        for (int epoch = 0; epoch <= epochs; ++epoch) {
          const Eigen::VectorXd whole = problem.gradient(w);
          squares[std::size_t(epoch)] += (whole + lambda * w).squaredNorm() / seeds;
          of_loss[std::size_t(epoch)] += whole.squaredNorm() / seeds;
          if (epoch == epochs)
            break;
          for (int step = 0; step < per_epoch; ++step) {
            gradient.setZero();
            for (int k = 0; k < batch; ++k) {
              const auto i = Eigen::Index(random_of.uniform() * n);  // with replacement, as the theorem has it
              const double margin = problem.label[i] * problem.x.row(i).dot(w);
              gradient -= problem.x.row(i).transpose() * (problem.label[i] / (1 + std::exp(margin)) / batch);
            }
            opt.step();
            longest = std::max(longest, w.norm());
          }
        }
      }
      const double slope = steepest + lambda * longest;
      log.add({{"kind", "bound"},
               {"lambda", lambda},
               {"epochs", epochs},
               {"least", *std::min_element(squares.begin(), squares.end())},
               {"last", squares.back()},
               {"last_of_loss", of_loss.back()},
               {"bound",
                ((start - least) / c + c * (smooth + lambda) / 2 * (slope * slope + variance)) / std::sqrt(steps)}});
    }
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
  CLI::App* const theorem_2 = command("bound", "Theorem 2, on logistic regression");
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
    else if (theorem_2->parsed())
      bound(out);
    else
      time_steps(where, out);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "study: %s\n", e.what());
    return 1;
  }
  return 0;
}
