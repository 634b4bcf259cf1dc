// The study's models: gradients against differences of the loss, and epochs that can be taken up by another object.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

#include <Eigen/QR>

#include "images.hpp"
#include "language.hpp"
#include "sharpness.hpp"

namespace {

/// Checks the gradients that `loss` leaves in the task, tensor by tensor: along a direction that is half the gradient's
/// and half a random one, the loss has to rise as the gradients say. The step is a compromise between the loss's
/// curvature and float's rounding, which the number of examples in the loss averages out. 1e-2 is far below the error
/// of any term left out.
void check_gradients(study::task& t, const std::function<double()>& loss, double step = 1e-2, double tolerance = 1e-2)
{
  loss();
  const study::numbers parameters = t.parameters, gradients = t.gradients;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (const study::tensor& tensor : t.tensors) {
    CAPTURE(tensor.name);
    std::vector<double> noise(tensor.size);
    double noise_square = 0, gradient_square = 0;
    for (std::size_t i = 0; i < tensor.size; ++i) {
      noise[i] = normal(random);
      noise_square += noise[i] * noise[i];
      gradient_square += double(gradients[tensor.begin + i]) * double(gradients[tensor.begin + i]);
    }
    const double norm = std::sqrt(gradient_square);
    REQUIRE(norm > 1e-4);  // or else nothing is tested
    double expected = 0, rise = 0;
    study::numbers moved = parameters;
    for (const double sign : {1.0, -1.0}) {
      for (std::size_t i = 0; i < tensor.size; ++i) {
        const std::size_t at = tensor.begin + i;
        const double along = double(gradients[at]) / norm + noise[i] / std::sqrt(noise_square);
        moved[at] = static_cast<float>(double(parameters[at]) + sign * step * along);
        // What rounding left of the step counts, not the step.
        expected += sign * (double(moved[at]) - double(parameters[at])) / (2 * step) * double(gradients[at]);
      }
      t.parameters = moved;
      rise += sign * loss() / (2 * step);
    }
    CHECK(std::abs(rise - expected) <= tolerance * norm);
    t.parameters = parameters;
  }
  loss();
  CHECK(t.gradients == gradients);  // a loss that is not the same each time could not have been tested
}

/// A file of its own, removed at the end.
struct temporary_text {
  std::string path;

  explicit temporary_text(const std::string& content)
  {
    static int count = 0;
    const std::string name = "study_test_" + std::to_string(getpid()) + "_" + std::to_string(count++) + ".txt";
    path = (std::filesystem::temp_directory_path() / name).string();
    std::ofstream(path, std::ios::binary) << content;
  }
  ~temporary_text() { std::remove(path.c_str()); }
  temporary_text(const temporary_text&) = delete;
  temporary_text& operator=(const temporary_text&) = delete;
};

/// Words of a made-up language, so that there is something to learn.
std::string babble(std::size_t size)
{
  const std::vector<std::string> words = {"ra ", "tol ", "mena ", "sirek ", "o ", "lun, ", "dat.\n"};
  std::mt19937 random(1);
  std::string text;
  while (text.size() < size)
    text += words[random() % words.size()];
  text.resize(size);
  return text;
}

const study::language_config small = {
    .train = 3000, .test = 500, .window = 20, .embedding = 6, .hidden = 8, .layers = 2, .dropout = 0.3f, .probe = 30};

std::string error_of(const std::function<void()>& f)
{
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("the language model's gradients are its loss's")
{
  const temporary_text text(babble(4000));
  study::language_model t(text.path, 16, 7, small);
  for (float& p : t.parameters)  // the gates leave the straight part of their curves
    p *= 2;
  SUBCASE("without dropout")
  {
    check_gradients(t, [&] { return t.probe_gradients(); });
  }
  SUBCASE("with dropout")
  {
    check_gradients(t, [&] {
      t.start_epoch(3);
      return t.step_gradients(0);
    });
  }
}

TEST_CASE("another object goes on from the end of any epoch with the same bits")
{
  const temporary_text text(babble(4000));
  study::language_model first(text.path, 16, 7, small);
  const auto train = [](study::language_model& t, std::size_t epoch) {
    t.start_epoch(epoch);
    for (std::size_t step = 0; step < t.steps_per_epoch(); ++step) {
      t.step_gradients(step);
      for (std::size_t i = 0; i < t.parameters.size(); ++i)
        t.parameters[i] -= 0.5f * t.gradients[i];
    }
  };
  train(first, 0);
  study::language_model second(text.path, 16, 7, small);
  CHECK(second.parameters != first.parameters);
  second.parameters = first.parameters;
  first.probe_gradients();  // neither does a look at the state of things change what comes
  first.test();
  train(first, 1);
  train(second, 1);
  CHECK(second.parameters == first.parameters);
  CHECK(second.gradients == first.gradients);
  CHECK(second.test().loss == first.test().loss);

  study::language_model other_seed(text.path, 16, 8, small);
  other_seed.parameters = first.parameters;
  first.start_epoch(2), second.start_epoch(3), other_seed.start_epoch(2);
  const double loss = first.step_gradients(0);
  CHECK(second.step_gradients(0) != loss);  // each epoch and seed drops others
  CHECK(other_seed.step_gradients(0) != loss);
}

TEST_CASE("the language model learns, and carries its state from step to step")
{
  const temporary_text text(babble(4000));
  study::language_model t(text.path, 16, 7, small);
  CHECK(t.vocabulary() == 18);  // 17 and the symbol for others
  CHECK(t.steps_per_epoch() == 9);
  CHECK(t.examples_per_step() == 320);
  const double before = t.test().loss;
  CHECK(before == doctest::Approx(std::log(18)).epsilon(0.05));
  for (std::size_t epoch = 0; epoch < 30; ++epoch) {
    t.start_epoch(epoch);
    for (std::size_t step = 0; step < t.steps_per_epoch(); ++step) {
      t.step_gradients(step);
      for (std::size_t i = 0; i < t.parameters.size(); ++i)
        t.parameters[i] -= 2 * t.gradients[i];
    }
  }
  const study::measurement after = t.test();
  CHECK(after.loss < 0.6 * before);
  CHECK(after.error < 60);

  t.start_epoch(0);
  const double fresh = t.step_gradients(1);
  t.start_epoch(0);
  t.step_gradients(0);
  CHECK(t.step_gradients(1) != fresh);
}

TEST_CASE("the text of bible-kjv-text is unpacked")
{
  // One window: codes of nine bits, of which 261 is "ab" and 263 "aba", complete only once read; 256 ends it.
  std::string packed = "EC02Compressed Data File";
  packed.resize(0x58);
  const auto number = [&](std::size_t n) {
    for (const int shift : {24, 16, 8, 0})
      packed += static_cast<char>(n >> shift & 255);
  };
  std::string window;
  std::size_t bits = 0, count = 0;
  for (const std::size_t code : {84u, 10u, 71u, 32u, 97u, 98u, 261u, 263u, 10u, 256u}) {
    bits |= code << count;
    for (count += 9; count >= 8; count -= 8, bits >>= 8)
      window += static_cast<char>(bits & 255);
  }
  window += static_cast<char>(bits);
  number(1), number(0x64), number(0x64 + window.size());
  CHECK(study::read_text(temporary_text(packed + window).path) == "abababa\n");
  const std::string bible = "/usr/lib/bible.data";
  if (!std::filesystem::exists(bible))
    return;
  const std::string text = study::read_text(bible);
  CHECK(text.size() == 4'137'850);  // what the program bible prints, without the verses' numbers
  CHECK(text.starts_with("In the beginning God created the heaven and the earth.\n"));
  CHECK(text.ends_with("The grace of our Lord Jesus Christ be with you all. Amen.\n"));
}

TEST_CASE("a character that training does not have counts as wrong and nothing worse")
{
  std::string content = babble(3500);
  const temporary_text known(content);
  const study::measurement all_known = study::language_model(known.path, 16, 7, small).test();
  content[3200] = '#';
  const temporary_text unknown(content);
  const study::measurement one_unknown = study::language_model(unknown.path, 16, 7, small).test();
  CHECK(std::isfinite(one_unknown.loss));
  CHECK(one_unknown.loss != all_known.loss);
}

TEST_CASE("a text that is missing, too short or damaged is refused with what was expected")
{
  const temporary_text text(babble(3000));
  const auto refused = [](const std::string& path, std::size_t batch, study::language_config c, const char* why) {
    const std::string error = error_of([&] { study::language_model(path, batch, 7, c); });
    CAPTURE(error);
    CHECK(error.find(why) != std::string::npos);
  };
  refused("/nowhere/text", 16, small, "cannot read the text /nowhere/text");
  refused(std::filesystem::temp_directory_path().string(), 16, small, "cannot read the text");
  refused(text.path, 16, small, "3000 characters; expected 3000 to train on and 500");
  study::language_config c = small;
  c.train = 2500;
  refused(text.path, 100, c, "too few");
  refused(text.path, 0, c, "batch");
  c.dropout = 1;
  refused(text.path, 16, c, "dropout is 1");
  refused(temporary_text("EC02Compressed Data File").path, 16, small, "cut short");
  std::string damaged = "EC02Compressed Data File";  // one window of two bytes, whose first code cannot be one yet
  damaged.resize(0x58);
  damaged += std::string("\0\0\0\1\0\0\0\x64\0\0\0\x66\xff\xff", 14);
  refused(temporary_text(damaged).path, 16, small, "damaged");
}

TEST_CASE("the gradients of networks on images are those of the loss")
{
  for (const char* model : {"mlp", "vgg", "vgg_bn", "resnet"}) {
    CAPTURE(std::string(model));
    study::images t(model, fashion_mnist::usual_folder, 192, 64, 3);
    check_gradients(t, [&] { return t.probe_gradients(); }, 2e-3, 2e-2);
    check_gradients(
        t,
        [&] {
          t.start_epoch(1);
          return t.step_gradients(2);
        },
        2e-3, 2e-2);
  }
}

TEST_CASE("batch normalisation remembers the means of training, and only of training")
{
  study::images t("vgg_bn", fashion_mnist::usual_folder, 64, 32, 3);
  const auto remembered = [&] { return std::vector<float>(t.buffers().begin(), t.buffers().end()); };
  const std::vector<float> at_first = remembered();
  REQUIRE(at_first.size() == 2 * (16 + 32 + 64));
  t.probe_gradients();
  t.test();
  CHECK(remembered() == at_first);
  t.start_epoch(0);
  for (int i = 0; i < 150; ++i)  // without a step, they become the batch's
    t.step_gradients(0);
  const std::vector<float> of_the_batch = remembered();
  t.step_gradients(0);
  CHECK(of_the_batch != at_first);
  for (std::size_t i = 0; i < of_the_batch.size(); ++i)
    CHECK(t.buffers()[i] == doctest::Approx(of_the_batch[i]).epsilon(1e-4));
}

TEST_CASE("each epoch shifts, mirrors and orders the images anew, the same for the same seed")
{
  study::images t("mlp", fashion_mnist::usual_folder, 512, 128, 3),
      same("mlp", fashion_mnist::usual_folder, 512, 128, 3);
  const auto loss_of = [](study::images& of, std::size_t epoch) {
    of.start_epoch(epoch);
    return of.step_gradients(1);
  };
  const double first = loss_of(t, 0);
  CHECK(loss_of(t, 1) != first);
  CHECK(loss_of(t, 0) == first);
  CHECK(loss_of(same, 0) == first);
}

TEST_CASE("sharpness is the largest eigenvalue of the Hessian")
{
  // Half a sum of c·(θ − 1)², whose Hessian has c on its diagonal, turned so that none is a coordinate's own.
  class quadratic final : public study::task {
   public:
    explicit quadratic(double largest)
    {
      add_tensor("theta", 50);
      curvature_ = Eigen::VectorXd::LinSpaced(50, -30, 10);
      curvature_[20] = largest;
      turn_ = Eigen::HouseholderQR<Eigen::MatrixXd>(Eigen::MatrixXd::Random(50, 50)).householderQ();
    }
    std::size_t steps_per_epoch() const override { return 1; }
    std::size_t examples_per_step() const override { return 1; }
    void start_epoch(std::size_t) override {}
    double step_gradients(std::size_t) override { return probe_gradients(); }
    study::measurement test() override { return {}; }
    double probe_gradients() override
    {
      const Eigen::VectorXd x = turn_ * (study::vector_of(parameters).cast<double>().array() - 1).matrix();
      const Eigen::VectorXf g = (turn_.transpose() * (curvature_.array() * x.array()).matrix()).cast<float>();
      std::copy_n(g.data(), 50, gradients.data());
      return curvature_.dot(x.cwiseAbs2()) / 2;
    }

   private:
    Eigen::VectorXd curvature_;
    Eigen::MatrixXd turn_;
  };
  for (const double largest : {12.0, 25.0, 400.0}) {
    quadratic t(largest);
    const study::numbers before = t.parameters;
    CHECK(study::sharpness(t) == doctest::Approx(largest).epsilon(0.02));
    CHECK(t.parameters == before);
  }
}
