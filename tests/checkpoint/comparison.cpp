// What a strict load refuses, and how it lists the differences.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"

using namespace support;
using gradus::optimizer;

TEST_CASE("load: a strict load lists every difference and changes nothing")
{
  tensor a(3), b(40), c(5), d(7);
  optimizer<gradus::adam> saved, opt({.lr = 0.5});
  const auto g = opt.add_group({.lr = 0.25});
  saved.add_group({});
  saved.add("a", a.weights, a.gradients);
  saved.add("b", b.weights, b.gradients);
  saved.add("gone", c.weights, c.gradients);
  saved.step();
  tensor e(3), f(41), h(7);
  opt.add("new", h.weights, h.gradients);
  opt.add("b", f.weights, f.gradients);
  opt.add("a", e.weights, e.gradients, g);
  opt.step();
  check_refused(
      opt, checkpoint_of(saved, {}),
      {"gradus: checkpoint and this optimizer differ in 9; expected the same (lenient = true loads what fits):",
       "\n  \"state/new/exp_avg\" is missing; expected 7 of F32",
       "\n  \"state/new/exp_avg_sq\" is missing; expected 7 of F32",
       "\n  \"state/new/step\" is missing; expected 1 of U64", "\n  \"state/b/exp_avg\" has 40 elements; expected 41",
       "\n  \"state/b/exp_avg_sq\" has 40 elements; expected 41", "\n  \"gradus/group_of/a\" is \"0\"; expected \"1\"",
       "\n  \"state/gone/exp_avg\" is in the file; expected nothing under this key",
       "\n  \"state/gone/exp_avg_sq\" is in the file; expected nothing under this key",
       "\n  \"state/gone/step\" is in the file; expected nothing under this key"});
}

TEST_CASE("load: of many differences the message lists the first ones and counts the others")
{
  for (const std::size_t n : {3u, 10u, 11u, 5000u}) {  // tensors, each with two slots and a step count
    const auto make = [n](auto& opt, auto& weights, auto& gradients, const std::string& prefix) {
      weights.resize(n);
      gradients.resize(n);
      for (std::size_t i = 0; i < n; ++i)
        opt.add(prefix + std::to_string(i), std::span(&weights[i], 1), std::span(&gradients[i], 1));
    };
    optimizer<gradus::sgd> saved, opt;
    optimizer<gradus::sgd, double> other;
    std::vector<float> w, g, v, h;
    std::vector<double> w2, g2;
    make(saved, w, g, "there");
    make(opt, v, h, "here");
    make(other, w2, g2, "there");
    const std::string bytes = checkpoint_of(saved);
    const std::string said = refusal([&] { load_bytes(opt, bytes); });
    const std::size_t lines = std::size_t(std::count(said.begin(), said.end(), '\n'));
    CHECK(contains(said, "differ in " + std::to_string(4 * n)));  // step and parameters, missing and surplus
    CHECK(lines == (4 * n <= 10 ? 4 * n : 11));
    CHECK(said.size() < 1200);
    CHECK(contains(said, "and " + std::to_string(4 * n - 10) +
                             " more, which load_report::differences of a lenient load lists"));
    CHECK(load_bytes(opt, bytes, {.lenient = true}).differences.size() == 4 * n);
    // Of types too.
    const std::string mistyped = refusal([&] { load_bytes(other, bytes); });
    CHECK(contains(mistyped, "differ in " + std::to_string(n)));
    CHECK(contains(mistyped, " more, which") == (n > 10));
    CHECK(mistyped.size() < 1200);
  }
}

TEST_CASE("load: a strict load refuses other types, recipes, groups and momentum buffers")
{
  model<optimizer<gradus::adam>> m(2);
  model<optimizer<gradus::sgd>> in_float(2, gradus::sgd{.momentum = 0.5});
  model<optimizer<gradus::sgd, double>> in_double(1, gradus::sgd{.momentum = 0.5});
  check_refused(in_double.opt, checkpoint_of(in_float.opt),
                {"\"state/a/momentum_buffer\" is of type F32; expected F64, or convert = true",
                 "\"parameters/b\" is of type F32; expected F64, or convert = true"});
  model<optimizer<gradus::adamw>> other(1);
  check_refused(other.opt, checkpoint_of(m.opt), {"\"gradus/recipe\" is \"adam\"; expected \"adamw\""});
  model<optimizer<gradus::adam>> grouped(1);
  grouped.opt.add_group({});
  check_refused(grouped.opt, checkpoint_of(m.opt), {"differ in 1;", "\"gradus/groups\" is \"1\"; expected \"2\""});
  CHECK(load_bytes(grouped.opt, checkpoint_of(m.opt), {.settings = false}).differences.empty());

  // A momentum of 0 keeps no buffer, and another does: the program has to say which.
  model<optimizer<gradus::sgd>> with(2, gradus::sgd{.momentum = 0.5}), without(2);
  check_refused(without.opt, checkpoint_of(with.opt),
                {"\"gradus/group/0/momentum\" is 0.5; expected 0, as here",
                 "\"state/a/momentum_buffer\" is in the file"});
  check_refused(with.opt, checkpoint_of(without.opt),
                {"\"gradus/group/0/momentum\" is 0; expected a number > 0, as here",
                 "\"state/a/momentum_buffer\" is missing"});
  without.opt.set_hyperparameters({.momentum = 0.9});
  load_bytes(without.opt, checkpoint_of(with.opt));
  CHECK(without.opt.hyperparameters().momentum == 0.5);
  CHECK(checkpoint_of(without.opt) == checkpoint_of(with.opt));
}

TEST_CASE("load: a file of another program, or of another version of the layout, is refused")
{
  model<optimizer<gradus::adam>> m(1);
  check_refused(m.opt, file_of("{}"), {"\"gradus/format\" is missing; expected a file that gradus wrote"});
  check_refused(m.opt, file_of("{\"__metadata__\":{\"gradus/format\":\"2\"}}"),
                {"format is \"2\"; expected \"1\": another version of gradus wrote it"});
}

TEST_CASE("load: a tensor of an unknown type is a difference, and its bytes are never loaded")
{
  std::vector<float> w(2), g(2);
  gradus::optimizer<gradus::sgd> opt({.lr = 0.5});
  opt.add("w", w, g);
  const std::string start = "{\"__metadata__\":{\"gradus/format\":\"1\"},\"state/w/"
                            "step\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]}";
  const std::string seven("\7\0\0\0\0\0\0\0", 8);
  const auto foreign = [&](const std::string& key, const std::string& type, const std::string& offsets) {
    return start + ",\"" + key + "\":{\"dtype\":\"" + type + "\",\"shape\":[3],\"data_offsets\":" + offsets + "}}";
  };
  for (const char* type :
       {"C64", "C128", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2", "", "\\\"\\u00e9"})
    for (const std::size_t bytes : {0u, 1u, 2u, 24u}) {
      const std::string file = file_of(foreign("other", type, "[8," + std::to_string(8 + bytes) + "]"),
                                       seven + std::string(bytes, 'x'));
      const auto report = load_bytes(opt, file, {.lenient = true});
      CHECK(report.differences.back().what == gradus::load_difference::surplus);
      CHECK(report.differences.back().key == "other");
      gradus::optimizer<gradus::sgd> strict({.lr = 0.5});
      strict.add("w", w, g);
      CHECK(contains(refusal([&] { load_bytes(strict, file); }),
                     "\"other\" is in the file; expected nothing under this key"));
    }
  // What is wanted as floats is of another type, however many bytes it has; nor are master weights or moments made of
  // it.
  for (const char* type : {"C64", "F4", ""}) {
    gradus::optimizer<gradus::sgd> wants({.lr = 0.5});
    wants.add("w", w, g);
    w = {1, 2};
    const std::string file = file_of(foreign("parameters/w", type, "[8,16]"), seven + "12345678");
    for (const bool convert : {false, true}) {
      const auto report = load_bytes(wants, file, {.lenient = true, .convert = convert});
      CHECK(report.differences.back().what == gradus::load_difference::mistyped);
      CHECK(report.differences.back().sentence ==
            "\"parameters/w\" is of type \"" + std::string(type) + "\"; expected F32");
      CHECK((w == std::vector<float>{1, 2}));
    }
  }
}
