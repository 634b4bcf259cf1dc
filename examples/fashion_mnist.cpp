// The demo: trains one small network on Fashion-MNIST with each optimizer of gradus, prints a table and draws the
// curves.
//
// Every optimizer is chosen by name, starts from the same weights and sees the same batches in the same order. The
// network with its forward and backward pass is below; Eigen multiplies the matrices.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <Eigen/Core>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/schedule.hpp>

#include "fashion_mnist.hpp"

namespace {

using matrix = Eigen::MatrixXf;
using vector = Eigen::VectorXf;
using clock_type = std::chrono::steady_clock;

using namespace fashion_mnist;

constexpr Index hidden = 256;

double seconds_since(clock_type::time_point start)
{
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

// ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The optimizers that the demo knows. Only these are compiled, for four precisions.
using recipes = gradus::recipe_list<gradus::sgd, gradus::sgds, gradus::adam, gradus::adamw, gradus::adams,
                                    gradus::amsgrad, gradus::yogi, gradus::adabound, gradus::padam, gradus::radam>;
template <class T>
using any_optimizer = gradus::any_optimizer<T, gradus::default_backend, recipes>;

/// Hyperparameters for this short run; the recipes' defaults are for longer runs. The weight decay is 5e-4 for L2, SGDS
/// and SWD, and larger if it is decoupled. --lr and --weight-decay override them. These are the optimizers that run if
/// none is chosen.
const std::map<std::string_view, std::vector<gradus::named_number>> tuned = {
    {"sgd", {{"lr", 0.03}, {"momentum", 0.9}, {"weight_decay", 5e-4}}},
    {"sgds", {{"lr", 0.03}, {"momentum", 0.9}, {"weight_decay", 5e-4}}},
    {"adam", {{"lr", 1e-3}, {"weight_decay", 5e-4}}},
    {"adamw", {{"lr", 1e-3}, {"weight_decay", 1e-2}}},
    {"adams", {{"lr", 1e-3}, {"weight_decay", 5e-4}}},
    {"amsgrad", {{"lr", 1e-3}, {"weight_decay", 5e-4}}},
    {"yogi", {{"lr", 2e-3}, {"weight_decay", 5e-4}}},
    {"adabound", {{"lr", 1e-3}, {"weight_decay", 5e-4}}},
    {"padam", {{"lr", 0.03}, {"weight_decay", 5e-4}}},
    {"radam", {{"lr", 3e-3}, {"weight_decay", 5e-4}}},  // its first few hundred steps are short
};

/// The factor on lr as a function of the epochs that have passed, fractions included.
using schedule = std::function<double(double)>;

const std::map<std::string, std::function<schedule(double epochs)>> schedules = {
    {"constant", [](double) { return [](double) { return 1.0; }; }},
    {"multi_step", [](double n) { return gradus::schedule::multi_step{.milestones = {n / 2, n * 3 / 4}}; }},
    {"cosine", [](double n) { return gradus::schedule::cosine{.t_max = n}; }},
    {"warm_restarts", [](double n) { return gradus::schedule::cosine_warm_restarts{.t_0 = n / 3, .t_mult = 2}; }},
    {"warmup_cosine",
     [](double n) {
       return gradus::schedule::sequence(gradus::schedule::linear_warmup{.t_warmup = n / 10}, n / 10,
                                         gradus::schedule::cosine{.t_max = n * 9 / 10});
     }},
};

struct options {
  std::vector<std::string> optimizers;
  int epochs = 10;
  Index batch = 64, images = train_count;
  std::optional<double> lr, weight_decay, require_test_error;
  std::string schedule = "cosine", precision = "float", data = usual_folder, output = "fashion_mnist_curves";
  std::string save, resume;
  int stop_after = 0;     // epochs; 0: all
  std::int64_t seed = 1;  // signed, because CLI11 reads a negative number as a large unsigned one
};

/// The hyperparameters of the chosen recipe. If a name occurs twice, the later number counts.
std::vector<gradus::named_number> hyperparameters(const std::string& optimizer, const options& o)
{
  std::vector<gradus::named_number> numbers;
  if (const auto known = tuned.find(optimizer); known != tuned.end())
    numbers = known->second;
  if (o.lr)
    numbers.emplace_back("lr", *o.lr);
  if (o.weight_decay)
    numbers.emplace_back("weight_decay", *o.weight_decay);
  return numbers;
}

void describe(CLI::App& app, options& o)
{
  std::vector<std::string> names;
  for (const std::string_view name : gradus::recipe_names<recipes>())
    names.emplace_back(name);
  const CLI::Range up_to_all(Index(1), train_count);
  const CLI::Range whole(std::int64_t(0), std::numeric_limits<std::int64_t>::max());
  // clang-format off
  app.add_option("--optimizer", o.optimizers, "One or more; if not given, those tuned for it")->check(CLI::IsMember(names));
  app.add_option("--epochs", o.epochs, "How often each image is seen")->check(CLI::Range(1, 10'000))->capture_default_str();
  app.add_option("--batch", o.batch, "Images a step")->check(up_to_all)->capture_default_str();
  app.add_option("--lr", o.lr, "Learning rate; if not given, each optimizer's own, which the table shows");
  app.add_option("--weight-decay", o.weight_decay, "Of the weights, not of the biases; if not given, as --lr");
  app.add_option("--schedule", o.schedule, "Of the learning rate, over the whole run")->check(CLI::IsMember(schedules))->capture_default_str();
  app.add_option("--precision", o.precision, "Number types of the optimizer; bf16: parameters and gradients too, with float masters")
      ->check(CLI::IsMember({"float", "bf16_state", "8bit_state", "bf16"}))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Of first weights and order of images")->check(whole)->capture_default_str();
  app.add_option("--images", o.images, "Train on the first so many")->check(up_to_all)->capture_default_str();
  app.add_option("--data", o.data, "Folder of the four .gz files")->capture_default_str();
  app.add_option("--output", o.output, "Folder for plots and numbers, created if missing")->capture_default_str();
  app.add_option("--save", o.save, "After each epoch, save all that the run needs to this file (with one --optimizer)");
  app.add_option("--resume", o.resume, "Go on with the run that --save left in this file, with the same options as then");
  app.add_option("--stop-after", o.stop_after, "Stop after so many epochs, as if interrupted")->check(CLI::Range(1, 10'000));
  app.add_option("--require-test-error", o.require_test_error, "Fail if any optimizer ends above this many percent");
  // clang-format on
  app.callback([&o, names] {
    // Each recipe once, in the order of for_each_recipe.
    std::vector<std::string> chosen;
    for (const std::string& name : names)
      if (o.optimizers.empty() ? tuned.count(name) > 0 : std::count(o.optimizers.begin(), o.optimizers.end(), name) > 0)
        chosen.push_back(name);
    o.optimizers = chosen;
    o.batch = std::min(o.batch, o.images);
    if ((!o.save.empty() || !o.resume.empty()) && o.optimizers.size() != 1)
      throw CLI::ValidationError("--save and --resume", "are of one run: give one --optimizer");
  });
}

// ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// One image a column.
struct batch {
  matrix x;
  std::vector<Index> labels;

  void fill(const data_set& from, const Index* which, Index count)
  {
    x.resize(pixels, count);
    labels.resize(std::size_t(count));
    for (Index j = 0; j < count; ++j) {
      const auto* image_start = &from.images[std::size_t(which[j] * pixels)];
      const Eigen::Map<const Eigen::Array<unsigned char, pixels, 1>> image(image_start);
      x.col(j) = (image.cast<float>() / 255 - pixel_mean) / pixel_deviation;
      labels[std::size_t(j)] = from.labels[std::size_t(which[j])];
    }
  }
};

struct layer {
  matrix weight, weight_gradient;
  vector bias, bias_gradient;

  layer(Index in, Index out, random_numbers& random)
      : weight(out, in), weight_gradient(out, in), bias(vector::Zero(out)), bias_gradient(out)
  {
    const double limit = std::sqrt(6 / double(in));  // He et al., ICCV 2015
    for (float& w : weight.reshaped())
      w = float(limit * (2 * random.uniform() - 1));
  }
  void forward(const matrix& x, matrix& y) const
  {
    y.noalias() = weight * x;
    y.colwise() += bias;
  }
  void backward(const matrix& x, const matrix& y_gradient)
  {
    weight_gradient.noalias() = y_gradient * x.transpose();
    bias_gradient = y_gradient.rowwise().sum();
  }
};

/// Two layers with a ReLU between them, and a softmax.
struct network {
  layer layer1, layer2;
  matrix h, h_gradient;  // output of the first layer after the ReLU
  matrix z;              // output of the second layer; after loss_and_gradients, the loss's gradient by it

  explicit network(random_numbers& random) : layer1(pixels, hidden, random), layer2(hidden, classes, random) {}

  void forward(const matrix& x)
  {
    layer1.forward(x, h);
    h = h.cwiseMax(0.0f);
    layer2.forward(h, z);
  }

  /// Returns the mean cross entropy of a batch, and leaves its gradients in the layers.
  double loss_and_gradients(const batch& b)
  {
    forward(b.x);
    double loss = 0;
    for (Index j = 0; j < z.cols(); ++j) {
      const Index label = b.labels[std::size_t(j)];
      auto column = z.col(j).array();
      column -= column.maxCoeff();  // so that exp cannot overflow
      loss -= double(column(label));
      column = column.exp();
      loss += std::log(double(column.sum()));
      column /= column.sum();
      column(label) -= 1;
    }
    z /= float(z.cols());
    layer2.backward(h, z);
    h_gradient.noalias() = layer2.weight.transpose() * z;
    h_gradient = (h.array() > 0).select(h_gradient, 0);
    layer1.backward(b.x, h_gradient);
    return loss / double(z.cols());
  }
};

// ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A progress line, rewritten several times a second if the output is a terminal.
class progress {
 public:
  explicit progress(double images) : images_(images) {}

  void show(const std::string& optimizer, int epoch, int epochs, Index more_images, double loss)
  {
    done_ += double(more_images);
    if (!watched_ || seconds_since(shown_) < 0.1)
      return;
    shown_ = clock_type::now();
    const double part = done_ / images_, left = seconds_since(start_) * (1 - part) / part;
    std::fprintf(stderr, "\r%-9s epoch %d/%d  %3.0f %%  loss %.4f  %.0f s left    ", optimizer.c_str(), epoch, epochs,
                 100 * part, loss, left);  // the blanks overwrite the rest of a longer line
  }
  void clear() const
  {
    if (watched_)
      std::fprintf(stderr, "\r%*s\r", 78, "");
  }

 private:
  bool watched_ = isatty(STDERR_FILENO) != 0;
  double images_, done_ = 0;
  clock_type::time_point start_ = clock_type::now(), shown_ = start_;
};

struct epoch_result {
  double loss = 0, test_error = 0, gradient_norm = 0;
  double decay_factor = 0;  ///< 1/√v̄ of a scheduled decay
  int clamped = 0;          ///< steps in which such a decay would have taken more than the whole weight
};

double test_error(network& net, const data_set& test)
{
  constexpr Index at_once = 500;
  std::vector<Index> which(std::size_t{at_once});
  batch b;
  Index wrong = 0, guess = 0;
  for (Index i = 0; i < test_count; i += at_once) {
    std::iota(which.begin(), which.end(), i);
    b.fill(test, which.data(), at_once);
    net.forward(b.x);
    for (Index j = 0; j < at_once; ++j) {
      net.z.col(j).maxCoeff(&guess);
      wrong += guess != b.labels[std::size_t(j)];
    }
  }
  return 100 * double(wrong) / double(test_count);
}

/// The network's tensors in an optimizer's number types; for float, the network's own memory.
template <class T>
class tensors {
 public:
  template <class Optimizer>
  tensors(network& net, Optimizer& opt)
  {
    const gradus::group_handle biases = opt.add_group({{"weight_decay", 0.0}});
    const auto add = [&](const char* name, auto& weight, auto& gradient, gradus::group_handle group) {
      if constexpr (in_float)
        opt.add(name, weight, gradient, group);
      else {
        copy& c = copies_.emplace_back(copy{std::span(weight.data(), std::size_t(weight.size())),
                                            std::span(gradient.data(), std::size_t(weight.size())),
                                            {},
                                            {}});
        c.short_weight.assign(c.weight.size(), {});
        c.short_gradient.assign(c.weight.size(), {});
        for (std::size_t i = 0; i < c.weight.size(); ++i)
          c.short_weight[i] = parameter(c.weight[i]);
        opt.add(name, c.short_weight, c.short_gradient, group);
      }
    };
    add("layer1.weight", net.layer1.weight, net.layer1.weight_gradient, {});
    add("layer1.bias", net.layer1.bias, net.layer1.bias_gradient, biases);
    add("layer2.weight", net.layer2.weight, net.layer2.weight_gradient, {});
    add("layer2.bias", net.layer2.bias, net.layer2.bias_gradient, biases);
    take_weights();
  }
  void give_gradients()
  {
    for (copy& c : copies_)
      for (std::size_t i = 0; i < c.gradient.size(); ++i)
        c.short_gradient[i] = parameter(c.gradient[i]);
  }
  void take_weights()
  {
    for (copy& c : copies_)
      for (std::size_t i = 0; i < c.weight.size(); ++i)
        c.weight[i] = float(c.short_weight[i]);
  }

 private:
  using parameter = typename gradus::precision_of<T>::parameter_type;
  static constexpr bool in_float = std::is_same_v<parameter, float>;
  struct copy {
    std::span<float> weight, gradient;
    std::vector<parameter> short_weight, short_gradient;
  };
  std::list<copy> copies_;
};

double number(const std::vector<gradus::named_number>& hyperparameters, std::string_view wanted)
{
  for (const auto& [name, value] : hyperparameters)
    if (name == wanted)
      return value;
  return 0;
}

/// The contents of a checkpoint besides optimizer and weights: the run's options, the number of finished epochs, and
/// their rows of curves.csv.
std::string description(const options& o)
{
  return "epochs " + std::to_string(o.epochs) + ", batch " + std::to_string(o.batch) + ", images " +
         std::to_string(o.images) + ", schedule " + o.schedule + ", precision " + o.precision + ", seed " +
         std::to_string(o.seed);
}

/// Loads a run and returns the number of its finished epochs.
template <class T>
int resume(any_optimizer<T>& opt, const options& o, std::string& rows)
{
  gradus::load_report loaded = gradus::load(opt, o.resume, {.parameters = true});
  if (loaded.metadata["run"] != description(o))
    throw std::runtime_error("--resume is " + o.resume + ", a run of " + loaded.metadata["run"] + "; expected one of " +
                             description(o));
  rows = loaded.metadata["rows"];
  return std::stoi(loaded.metadata["epoch"]);
}

/// Trains a new network, prints a row of the table, and returns the last epoch's results.
template <class T>
epoch_result train(const std::string& name, const options& o, const data_set& training, const data_set& test,
                   progress& shown, std::ofstream& curves)
{
  const auto start = clock_type::now();
  random_numbers random(static_cast<std::uint64_t>(o.seed));
  network net(random);
  any_optimizer<T> opt(name, hyperparameters(name, o));
  tensors<T> of_net(net, opt);
  const schedule lr_scale = schedules.at(o.schedule)(o.epochs);
  std::vector<Index> order(std::size_t(o.images));
  std::iota(order.begin(), order.end(), 0);

  batch b;
  epoch_result result;
  std::string rows;
  const int over = o.resume.empty() ? 0 : resume(opt, o, rows);
  of_net.take_weights();
  curves << rows;
  for (int epoch = 1; epoch <= o.epochs && (o.stop_after == 0 || epoch <= o.stop_after); ++epoch) {
    random.shuffle(order);
    if (epoch <= over)
      continue;  // only the shuffle runs, because each epoch shuffles the last one's order
    result = {};
    for (Index i = 0, count; i < o.images; i += count) {
      count = std::min(o.batch, o.images - i);
      b.fill(training, &order[std::size_t(i)], count);
      const double share = double(count) / double(o.images);
      result.loss += share * net.loss_and_gradients(b);
      of_net.give_gradients();
      const gradus::step_report report = opt.step({
          .lr_scale = lr_scale(epoch - 1 + double(i) / double(o.images)),
          .max_grad_norm = std::numeric_limits<double>::infinity(),  // clips nothing, but measures the norm
          .flush_denormals = true,  // under L2, weights and moments of dead units decay to denormals, which are slow
      });
      of_net.take_weights();
      result.gradient_norm += share * report.grad_norm.value();
      result.decay_factor += share * report.decay_factor.value_or(0);
      result.clamped += report.decay_clamped;
      shown.show(name, epoch, o.epochs, count, result.loss * double(o.images) / double(i + count));
    }
    result.test_error = test_error(net, test);
    std::ostringstream row;
    row << name << ',' << epoch << ',' << result.loss << ',' << result.test_error << ',' << result.gradient_norm
        << '\n';
    curves << row.str() << std::flush;
    rows += row.str();
    if (!o.save.empty())
      gradus::save(opt, o.save,
                   {.parameters = true,
                    .metadata = {{"run", description(o)}, {"epoch", std::to_string(epoch)}, {"rows", rows}}});
  }
  shown.clear();
  std::printf("%-9s %7g %13g %11.4f %13.2f %14.4f %8.1f\n", name.c_str(), number(opt.hyperparameters(), "lr"),
              number(opt.hyperparameters(), "weight_decay"), result.loss, result.test_error, result.gradient_norm,
              seconds_since(start));
  if (result.decay_factor > 0)
    std::printf("          scheduled: in AdamW's units its weight decay was %.3g; limited to the whole weight in %d "
                "steps\n",
                number(opt.hyperparameters(), "weight_decay") * result.decay_factor, result.clamped);
  std::fflush(stdout);
  return result;
}

using gradus::bfloat16, gradus::block8, gradus::precision;
const std::map<std::string, decltype(&train<float>)> precisions = {
    {"float", train<float>},
    {"bf16_state", train<precision<float, float, bfloat16>>},
    {"8bit_state", train<precision<float, float, block8>>},
    {"bf16", train<precision<bfloat16, bfloat16, bfloat16, float>>},
};

// ── the plots ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The gnuplot script that draws curves.csv in the same folder; `names` and `epochs` are set before it.
constexpr const char* plot_script = R"(set datafile separator ","
array heading[3] = ["train loss", "test error, %", "gradient norm"]
array colour[10] = [0x000000, 0x888888, 0x1f77b4, 0x17becf, 0xd62728, \
                    0xff7f0e, 0x2ca02c, 0x8c564b, 0x9467bd, 0xe377c2]
array point[10] = [4, 5, 6, 7, 7, 8, 9, 10, 11, 13]
left(panel) = 0.04 + 0.3 * (panel - 1)
set xlabel "epoch"
set xrange [0.8:epochs + 0.2]
set xtics 1, ceil(epochs / 10.0)
set autoscale yfix
set offsets 0, 0, graph 0.04, graph 0.04
set grid ytics linetype 1 linecolor rgb 0xdddddd
set format "%g"
set border 3
set tics nomirror
set tmargin at screen 0.9
set bmargin at screen 0.14
do for [type in "png svg"] {
  if (type eq "png") { set terminal pngcairo size 1500, 480 font "sans,12" }
  else { set terminal svg size 1500, 480 font "sans,14" background "white" }
  set pointsize (type eq "png" ? 1 : 0.6)
  set output "fashion_mnist." . type
  set multiplot
  set key off
  do for [panel = 1:3] {
    set title heading[panel]
    set lmargin at screen left(panel)
    set rmargin at screen left(panel) + 0.255
    if (panel == 2) { unset logscale y; set ytics autofreq }
    else {
      set logscale y
      set ytics ("" 1)
      do for [power = -4:8] { do for [m in "1 1.5 2 2.5 3 4 5 6 8"] { set ytics add (m * 10.0**power) } }
    }
    if (panel == 3) { set key at screen 0.995, 0.9 right top Left reverse samplen 3 spacing 1.5 }
    plot for [i = 1:words(names)] "curves.csv" \
      using (strcol(1) eq word(names, i) ? $2 : NaN):(column(panel + 2)) title word(names, i) \
      with linespoints linewidth 2 dashtype 2 - i % 2 \
      linecolor rgb colour[(i - 1) % 10 + 1] pointtype point[(i - 1) % 10 + 1]
  }
  unset multiplot
}
)";

/// Runs gnuplot on the curves in the current folder. The script stays there, to change and run again.
bool draw(const options& o)
{
  std::ofstream script("fashion_mnist.gp");
  script << "epochs = " << o.epochs << "\nnames = \"";
  for (const std::string& name : o.optimizers)
    script << name << ' ';
  script << "\"\n" << plot_script;
  script.close();
  return script && std::system("gnuplot fashion_mnist.gp 2> gnuplot.log") == 0;
}

int run(options o)
{
  for (const std::string& name : o.optimizers)
    any_optimizer<float>(name, hyperparameters(name, o));  // reports bad numbers before the first run
  const data_set training = read_data(o.data, "train", train_count), test = read_data(o.data, "t10k", test_count);
  fs::create_directories(o.output);
  if (!o.save.empty())
    o.save = fs::absolute(o.save).string();
  if (!o.resume.empty())
    o.resume = fs::absolute(o.resume).string();
  fs::current_path(o.output);  // so that no path needs quoting for the shell or gnuplot
  std::ofstream curves("curves.csv");
  curves << "optimizer,epoch,train_loss,test_error_percent,gradient_norm" << std::endl;
  if (!curves)
    throw std::runtime_error("--output is " + o.output + "; expected a folder that can be written to");

  std::printf("Fashion-MNIST, %d-%d-%d network: images %d, epochs %d, batch %d, schedule %s, seed %lld.\n"
              "Train loss, gradient norm and a scheduled decay are means over the last epoch's batches.\n\n"
              "optimizer      lr  weight decay  train loss  test error %%  gradient norm  seconds\n",
              int(pixels), int(hidden), int(classes), int(o.images), o.epochs, int(o.batch), o.schedule.c_str(),
              static_cast<long long>(o.seed));
  progress shown(double(o.images) * o.epochs * double(o.optimizers.size()));
  std::string above;
  for (const std::string& name : o.optimizers) {
    const epoch_result last = precisions.at(o.precision)(name, o, training, test, shown, curves);
    if (o.require_test_error && !(last.test_error <= *o.require_test_error))
      above += (above.empty() ? "" : ", ") + name;
  }

  if (!curves)
    std::printf("\ncurves.csv in %s is incomplete: it could not be written to the end.\n", o.output.c_str());
  else if (draw(o))
    std::printf("\nThe curves are in %s: fashion_mnist.png, fashion_mnist.svg and curves.csv.\n", o.output.c_str());
  else
    std::printf("\nThe curves are not drawn, as gnuplot is missing or failed (%s/gnuplot.log says which); "
                "their numbers are in curves.csv there.\n",
                o.output.c_str());
  if (above.empty())
    return 0;
  std::fprintf(stderr, "fashion_mnist: the test error of %s is above the %g %% that --require-test-error allows\n",
               above.c_str(), *o.require_test_error);
  return 1;
}

}  // namespace

int main(int argc, char** argv)
{
  options o;
  CLI::App app("Trains a small network on Fashion-MNIST with the optimizers of gradus, and draws the curves.");
  describe(app, o);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(o);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fashion_mnist: %s\n", e.what());
    return 1;
  }
}
