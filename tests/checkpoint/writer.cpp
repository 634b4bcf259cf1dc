// What a save writes: its keys and names, the order of the arrays, the caller's metadata, and the limits of the format.

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"

using namespace support;
using gradus::optimizer;

namespace {

template <class Opt>
std::vector<std::string> keys_of(const Opt& opt)
{
  std::vector<std::string> keys;
  for (const auto& [key, entry] : entries_of(checkpoint_of(opt)))
    keys.push_back(key);
  return keys;
}

// Rules of a program's own, each with one name that is not UTF-8.
struct kind_in_latin1 : gradus::first_moment::ema {
  static constexpr std::string_view kind = "m\xfcller";
};
struct slot_in_latin1 : gradus::first_moment::ema {
  static constexpr std::array slots{gradus::slot{"m\xfcller", gradus::slot::any_sign}};
};
struct field_in_latin1 : gradus::first_moment::none {
  double alpha = 0.5;
  static constexpr auto fields = gradus::fields(gradus::field{"m\xfcller", &field_in_latin1::alpha,
                                                              gradus::range::zero_to_one});
};

}  // namespace

TEST_CASE("save: keys are state/TENSOR/SLOT with PyTorch's slot names, and parameters/TENSOR")
{
  tensor w(3);
  optimizer<gradus::amsgrad> opt;
  opt.add("w", w.weights, w.gradients);
  CHECK((keys_of(opt) == std::vector<std::string>{"parameters/w", "state/w/exp_avg", "state/w/exp_avg_sq",
                                                  "state/w/max_exp_avg_sq", "state/w/step"}));
  optimizer<gradus::sgd> sgd({.momentum = 0.9});
  sgd.add("w", w.weights, w.gradients);
  CHECK((keys_of(sgd) == std::vector<std::string>{"parameters/w", "state/w/momentum_buffer", "state/w/step"}));
  optimizer<gradus::adams> adams;
  adams.add("w", w.weights, w.gradients);
  CHECK((keys_of(adams) == std::vector<std::string>{"parameters/w", "state//exp_avg_sq_sum_is_of_model",
                                                    "state/w/exp_avg", "state/w/exp_avg_sq", "state/w/exp_avg_sq_sum",
                                                    "state/w/step"}));
}

TEST_CASE("save, load: a tensor's name may contain anything that is UTF-8")
{
  const std::string all_controls = [] {
    std::string s;
    for (char c = 1; c < 0x21; ++c)
      s += c;
    return s + std::string(1, '\0') + '\x7f';
  }();
  const std::vector<std::string> names{"a",
                                       "a/exp_avg",
                                       "a/step",
                                       "/",
                                       "//",
                                       "",
                                       "\"",
                                       "\\",
                                       "\\u0041",
                                       "\"}\n",
                                       "__metadata__",
                                       all_controls,
                                       "gewicht/\u00fc\u00e9",
                                       "\u5c64",
                                       "\U0001f9e0",
                                       "state/a/exp_avg",
                                       std::string(5000, 'x')};
  const auto build = [&](std::vector<tensor<>>& tensors, optimizer<gradus::adam>& opt) {
    for (std::size_t i = 0; i < names.size(); ++i)
      tensors.emplace_back(i + 1, double(i));
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i].empty())
        opt.add(tensors[i].weights, tensors[i].gradients);
      else
        opt.add(names[i], tensors[i].weights, tensors[i].gradients);
  };
  std::vector<tensor<>> tensors, others;
  optimizer<gradus::adam> opt, other;
  build(tensors, opt);
  build(others, other);
  opt.step();
  const auto report = load_bytes(other, checkpoint_of(opt));
  CHECK(report.differences.empty());
  CHECK(checkpoint_of(other) == checkpoint_of(opt));

  for (const char* bad : {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xe2\x82"}) {
    optimizer<gradus::adam> refused;
    refused.add(bad, tensors[0].weights, tensors[0].gradients);
    CHECK(contains(refusal([&] { checkpoint_of(refused); }), "expected UTF-8, as the file's keys are"));
  }
}

TEST_CASE("save: names of rules, slots and hyperparameters that are not UTF-8 are refused")
{
  const auto refusal_of = [](const auto& first) {
    tensor w(3);
    optimizer opt(gradus::compose(0.1, first, gradus::second_moment::none{}, gradus::step_size::constant{},
                                  gradus::decay::none{}));
    opt.add("w", w.weights, w.gradients);
    return refusal([&] { checkpoint_of(opt); });
  };
  const std::string expected = "; expected UTF-8, as the file's keys are";
  CHECK(contains(refusal_of(kind_in_latin1{}), "name of the recipe is \"m?ller + none + constant + none\"" + expected));
  CHECK(contains(refusal_of(slot_in_latin1{}), "key of a slot is \"state/w/m?ller\"" + expected));
  CHECK(contains(refusal_of(field_in_latin1{}), "name of a hyperparameter is \"first_moment.m?ller\"" + expected));
}

TEST_CASE("save: elements are aligned in the file")
{
  model<optimizer<gradus::adams, float>> m(3, scheduled);
  const std::string bytes = checkpoint_of(m.opt);
  const auto header = header_in(bytes);
  CHECK(header.data_start % 8 == 0);
  for (std::size_t i = 0; i < header.tensors.size(); ++i)
    CHECK(header.tensors[i].begin % header.tensors[i].type->bytes == 0);
}

TEST_CASE("save, load: the caller's own metadata")
{
  model<optimizer<gradus::adam>> m(1), n(0);
  const std::string bytes = checkpoint_of(m.opt, {.metadata = {{"epoch", "3"}, {"", "\"\n\u00e9"}}});
  CHECK((load_bytes(n.opt, bytes).metadata == std::map<std::string, std::string>{{"", "\"\n\u00e9"}, {"epoch", "3"}}));
  for (const auto& bad : std::vector<std::vector<std::pair<std::string, std::string>>>{
           {{"gradus/format", "2"}}, {{"a", "1"}, {"a", "2"}}, {{"\xff", "1"}}, {{"a", "\xff"}}})
    CHECK(contains(refusal([&] { checkpoint_of(m.opt, {.metadata = bad}); }),
                   "expected UTF-8, each name once, and no name that begins with \"gradus/\""));
}

TEST_CASE("save: a header over the format's limit is refused with its number of tensors and what to do")
{
  std::vector<float> w(1), g(1);
  optimizer<gradus::sgd> opt;
  const std::string name(60'000'000, 'x');
  opt.add(name, w, g);
  const std::string said = refusal([&] { gradus::save_to(opt, [](const void*, std::size_t) { return true; }); });
  CHECK(contains(said, "gradus: the checkpoint's header for 1 tensor has 120000"));
  CHECK(contains(said, " bytes; expected at most 100000000, the format's limit; add adjacent small tensors as one"));
}
