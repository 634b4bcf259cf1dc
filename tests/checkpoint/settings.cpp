// Hyperparameters in a checkpoint: they come back to the bit, and values that the optimizer here cannot take are refused.

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"
#include "support/locale.hpp"
#include "support/own_rules.hpp"
#include "support/random.hpp"

using namespace support;
using gradus::optimizer;

TEST_CASE("settings: hyperparameters come back to the bit")
{
  support::random r(7);
  for (int i = 0; i < 200; ++i) {
    gradus::adabound h{.lr = r.magnitude(1e-150, 1e150),
                       .beta1 = r.uniform(),
                       .beta2 = 1 - r.magnitude(1e-16, 1),
                       .eps = i == 0 ? 5e-324 : r.magnitude(1e-300, 1),
                       .weight_decay = i == 1 ? 1.7976931348623157e308 : r.uniform(),
                       .final_lr = std::nextafter(0.1, 1),
                       .gamma = r.magnitude(1e-9, 0.5)};
    optimizer<gradus::adabound, double> saved(h), loaded;  // float does not hold them all
    saved.add_group({.lr = 0.1 + 0.2});
    loaded.add_group({});
    load_bytes(loaded, checkpoint_of(saved));
    CHECK(std::bit_cast<std::array<double, 7>>(loaded.hyperparameters()) == std::bit_cast<std::array<double, 7>>(h));
    CHECK(loaded.hyperparameters(loaded.group_at(1)).lr == 0.1 + 0.2);
  }
  // Of a composition too, where two rules have an eps; and yes or no.
  using namespace gradus;
  optimizer c(compose(0.5, first_moment::ema{.beta1 = 0.25}, second_moment::ema{.beta2 = 0.75},
                      step_size::adaptive{.eps = 1e-3}, decay::scheduled{.weight_decay = 0.125, .eps = 1e-5}));
  decltype(c) d(compose(0, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{}, decay::scheduled{}));
  load_bytes(d, checkpoint_of(c));
  CHECK(d.hyperparameters().lr == 0.5);
  CHECK(d.hyperparameters().first_moment.beta1 == 0.25);
  CHECK(d.hyperparameters().second_moment.beta2 == 0.75);
  CHECK(d.hyperparameters().step_size.eps == 1e-3);
  CHECK(d.hyperparameters().decay.eps == 1e-5);
  CHECK(d.hyperparameters().decay.weight_decay == 0.125);
  const sgd moving{.momentum = 0.5, .nesterov = true};
  optimizer<sgd> yes(moving), no({.momentum = 0.5});
  load_bytes(no, checkpoint_of(yes));
  CHECK(no.hyperparameters().nesterov);
}

TEST_CASE("settings: fields of the caller's own rule come back, and a strict load counts none of them as a difference")
{
  const auto composed = [](double alpha, bool plain, double beta1, double derived) {
    return gradus::compose(0.01, own::blended{.inner = {.beta1 = beta1}, .alpha = alpha, .plain = plain},
                           own::deriving{{}, derived}, gradus::step_size::adaptive{}, gradus::decay::none{});
  };
  using recipe = decltype(composed(0, false, 0, 0));
  model<optimizer<recipe>> saved(3, composed(0.5, true, 0.75, 2)), other(0, composed(0.99, false, 0.9, 3));
  const std::string bytes = checkpoint_of(saved.opt);
  for (const char* name : {"first_moment.alpha", "first_moment.plain", "first_moment.beta1", "second_moment.alpha"})
    CHECK_MESSAGE(contains(bytes, name), name);
  CHECK_NOTHROW(load_bytes(other.opt, bytes));
  const recipe loaded = other.opt.hyperparameters();
  CHECK(loaded.first_moment.alpha == 0.5);
  CHECK(loaded.first_moment.plain);
  CHECK(loaded.first_moment.inner.beta1 == 0.75);
  CHECK(loaded.second_moment.alpha == 2);
  CHECK(checkpoint_of(other.opt) == bytes);
  // One that cannot be is refused by its name.
  std::string changed = bytes;
  const std::size_t at = changed.find("0.5", changed.find("first_moment.alpha"));
  changed.replace(at, 3, "7.5");
  check_refused(other.opt, changed, {"alpha is 7.5; expected a number in [0, 1]"});
}

TEST_CASE("settings: numbers in the file have a decimal point, whatever the locale has")
{
  const auto save = [] {
    model<optimizer<gradus::adam>> m(2, gradus::adam{.lr = 0.0015}), n(0);
    const std::string bytes = checkpoint_of(m.opt);
    CHECK(contains(bytes, "\"gradus/group/0/lr\":\"0.0015\""));
    load_bytes(n.opt, bytes);
    CHECK(n.opt.hyperparameters().lr == 0.0015);
    return bytes;
  };
  const std::string here = save();
  const support::german german;
  if (german.is_there())
    CHECK(save() == here);
}

TEST_CASE("settings: restored, unless the caller says otherwise")
{
  model<optimizer<gradus::adam>> m(2, gradus::adam{.lr = 0.5}), n(0);
  m.opt.freeze(m.hb);
  CHECK_FALSE(load_bytes(n.opt, checkpoint_of(m.opt), {.settings = false}).settings);
  CHECK(n.opt.hyperparameters().lr == 1e-3);
  n.opt.step();
  CHECK(n.opt.step_count(n.hb) == 3);
  CHECK(load_bytes(n.opt, checkpoint_of(m.opt)).settings);
  CHECK(n.opt.hyperparameters().lr == 0.5);
  n.opt.step();
  CHECK(n.opt.step_count(n.hb) == 2);
  CHECK(n.opt.step_count(n.ha) == 3);
  // And taken in again, where the file has it so.
  model<optimizer<gradus::adam>> all(2);
  load_bytes(n.opt, checkpoint_of(all.opt));
  n.opt.step();
  CHECK(n.opt.step_count(n.hb) == 3);
}

TEST_CASE("settings: an invalid hyperparameter is refused with the file's name and the group")
{
  const char* const path = "checkpoint_wrong_number.safetensors";
  model<optimizer<gradus::adam>> m(1), n(1);
  gradus::save(m.opt, path);
  std::FILE* const file = std::fopen(path, "r+b");
  std::string bytes;
  for (int c; (c = std::fgetc(file)) != EOF;)
    bytes += char(c);
  const std::size_t at = bytes.find("\"0.9\"");
  REQUIRE(std::fseek(file, long(at), SEEK_SET) == 0);
  std::fputs("\"1.9\"", file);
  std::fclose(file);
  const std::string expected = std::string("gradus: checkpoint \"") + path +
                               "\": group 0: beta1 is 1.9; expected a number in [0, 1)";
  CHECK(refusal([&] { gradus::load(n.opt, path); }) == expected);
  CHECK(refusal([&] { gradus::load(n.opt, path, {.lenient = true}); }) == expected);
  // Of a composition's rule, and of one that objects by itself.
  model<optimizer<gradus::sgd>> nesterov(0, gradus::sgd{.momentum = 0.5, .dampening = 0, .nesterov = true}),
      plain(0, gradus::sgd{.momentum = 0.5});
  std::string changed = checkpoint_of(nesterov.opt);
  changed.replace(changed.find("dampening\":\"0\""), 14, "dampening\":\"1\"");
  CHECK(contains(refusal([&] { load_bytes(plain.opt, changed); }), "gradus: checkpoint: group 0: "));
  // And what is refused afterwards says nothing of a file.
  CHECK(refusal([] { optimizer<gradus::adam> bad({.beta1 = 1.5}); }) ==
        "gradus: beta1 is 1.5; expected a number in [0, 1)");
  // A save names it too.
  CHECK(contains(refusal([&] { gradus::save(m.opt, path, {.metadata = {{"gradus/x", "1"}}}); }),
                 std::string("gradus: checkpoint \"") + path + "\": metadata has "));
  std::remove(path);
}

TEST_CASE("settings: text that is no number, or out of range, is refused")
{
  model<optimizer<gradus::adam>> m(1, gradus::adam{.lr = 0.01});
  const std::string good = checkpoint_of(m.opt);
  const auto check = [&](const std::string& put, const std::string& part) {
    std::string bytes = good;
    bytes.replace(bytes.find("\"0.01\""), 6, "\"" + put + "\"");
    for (const bool lenient : {false, true})
      check_refused(m.opt, bytes, {part}, {.lenient = lenient});
  };
  check("-.01", "gradus: checkpoint: group 0: lr is -0.01; expected a finite number >= 0");
  check("0,01", "\"gradus/group/0/lr\" is \"0,01\"; expected a number");
  check("0.1 ", "\"gradus/group/0/lr\" is \"0.1 \"; expected a number");
  check("    ", "expected a number");
  check("+inf", "expected a number");
  check("-inf", "lr is -inf; expected a finite number >= 0");
  check("-nan", "expected a finite number >= 0");
}

TEST_CASE("settings: hyperparameters too large for the type here are refused, and nothing is loaded")
{
  for (const double lr : {1e39, 1e300}) {
    model<optimizer<gradus::adam, double>> saved(1, gradus::adam{.lr = lr});
    model<optimizer<gradus::adam>> opt(0);
    check_refused(opt.opt, checkpoint_of(saved.opt),
                  {"lr is 1e+", "expected at most 3.40282347e+38, the largest float"}, {.convert = true});
  }
}
