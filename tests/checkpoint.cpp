// Checkpoints: what goes into a file, what comes out of it and into which optimizer, and what is refused.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/kernel/reduce.hpp>

#include "support/checkpoint.hpp"
#include "support/golden.hpp"
#include "support/locale.hpp"
#include "support/own_rules.hpp"
#include "support/random.hpp"

namespace {
struct short_number {  // a type of element of somebody's own
  std::uint16_t bits;
};
}  // namespace
template <>
inline constexpr std::string_view gradus::safetensors::dtype_name<short_number> = "BF16";

using namespace support;
using gradus::any_optimizer;
using gradus::load_difference;
using gradus::optimizer;

namespace {

template <class T = float>
struct tensor {
  std::vector<T> weights, gradients;
  explicit tensor(std::size_t n, double start = 1) : weights(n), gradients(n)
  {
    for (std::size_t i = 0; i < n; ++i) {
      weights[i] = T(start * std::cos(double(i)));
      gradients[i] = T(std::sin(double(i) + start));
    }
  }
};

// Tensors a, b, c of 3, 40 and 5 elements in an optimizer, after so many steps.
template <class Opt>
struct model {
  using T = typename Opt::value_type;
  Opt opt;
  tensor<T> a{3}, b{40}, c{5};
  gradus::tensor_handle ha, hb, hc;

  template <class... Arguments>
  explicit model(int steps, const Arguments&... arguments) : opt(arguments...)
  {
    ha = opt.add("a", a.weights, a.gradients);
    hb = opt.add("b", b.weights, b.gradients);
    hc = opt.add("c", c.weights, c.gradients);
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

// Keys of tensors, with their types and sizes.
std::map<std::string, std::string> entries_of(const std::string& bytes)
{
  std::map<std::string, std::string> entries;
  const auto header = gradus::safetensors::read_header("it", bytes.size(),
                                                       [&](std::uint64_t at, void* to, std::size_t n) {
                                                         std::memcpy(to, bytes.data() + at, n);
                                                       });
  for (const auto& [key, entry] : header.tensors)
    entries[std::string(key)] = std::string(entry.type->name) + ' ' + std::to_string(entry.elements);
  return entries;
}
template <class Opt>
std::vector<std::string> keys_of(const Opt& opt)
{
  std::vector<std::string> keys;
  for (const auto& [key, entry] : entries_of(checkpoint_of(opt)))
    keys.push_back(key);
  return keys;
}

// Loading refuses with a sentence that has all these parts in it, and changes nothing.
template <class Opt>
void check_refused(Opt& opt, const std::string& bytes, const std::vector<std::string>& parts,
                   const gradus::load_options& o = {})
{
  const std::string before = checkpoint_of(opt);
  const std::string sentence = refusal([&] { load_bytes(opt, bytes, o); });
  for (const std::string& part : parts)
    CHECK_MESSAGE(contains(sentence, part), "expected \"", part, "\" in: ", sentence);
  CHECK(checkpoint_of(opt) == before);
}

const gradus::adams scheduled{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.01};

}  // namespace

// ── what is in a file ────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("keys are state/TENSOR/SLOT with PyTorch's slot names, and parameters/TENSOR")
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

TEST_CASE("elements are aligned in the file")
{
  model<optimizer<gradus::adams, float>> m(3, scheduled);
  const std::string bytes = checkpoint_of(m.opt);
  const auto header = gradus::safetensors::read_header("it", bytes.size(),
                                                       [&](std::uint64_t at, void* to, std::size_t n) {
                                                         std::memcpy(to, bytes.data() + at, n);
                                                       });
  CHECK(header.data_start % 8 == 0);
  for (const auto& [key, entry] : header.tensors)
    CHECK(entry.begin % entry.type->bytes == 0);
}

TEST_CASE("names may have anything in them that is UTF-8")
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

TEST_CASE("hyperparameters come back to the bit")
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
  optimizer<radam> yes({.decoupled_weight_decay = true}), no;
  load_bytes(no, checkpoint_of(yes));
  CHECK(no.hyperparameters().decoupled_weight_decay);
}

TEST_CASE("fields of a rule of one's own come back, and a strict load counts none of them as a difference")
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

TEST_CASE("numbers are written and read with a point, whatever the locale has")
{
  using gradus::detail::to_number, gradus::detail::to_number_by_strtod, gradus::detail::to_text,
      gradus::detail::to_text_by_printf;
  const auto compare = [] {
    support::random r(9);
    for (int i = 0; i < 4000; ++i) {
      const double x = i == 0   ? 5e-324
                       : i == 1 ? 1.7976931348623157e308
                       : i == 2 ? 0.0
                       : i == 3 ? -0.0015
                       : i % 2  ? r.uniform(-2, 2)
                                : r.any<double>();
      if (!std::isfinite(x))
        continue;
      const std::string text = to_text(x), other = to_text_by_printf(x);
      REQUIRE(text.find(',') == std::string::npos);
      REQUIRE(other.find(',') == std::string::npos);
      REQUIRE(other.size() <= text.size() + 6);  // no digits but those that are needed
      for (const std::string& t : {text, other}) {
        REQUIRE(std::bit_cast<std::uint64_t>(*to_number(t)) == std::bit_cast<std::uint64_t>(x));
        REQUIRE(std::bit_cast<std::uint64_t>(*to_number_by_strtod(t)) == std::bit_cast<std::uint64_t>(x));
      }
    }
    for (const char* text :
         {"",    "-",     "+1",   " 1",     "1 ",   ".",     "-.",     "e5",     "1e",       "1e+",
          "1e-", "1.5.2", "0,5",  "1.5e3x", "0x10", "1e400", "-1e400", "1e-400", "infinite", "1e99999999999999999999",
          "1_0", "--1",   "1e--2"}) {
      CHECK_MESSAGE(!to_number_by_strtod(text), text);
      CHECK_MESSAGE(!to_number(text), text);
    }
    for (const char* text : {"1", "1.", ".5", "-.5e1", "1E3", "1e+3", "001", "0e99999999999",
                             "0.000000000000000000000000000000000000000001e42"})
      CHECK_MESSAGE(to_number_by_strtod(text) == to_number(text), text);
    CHECK(*to_number_by_strtod("-inf") == -INFINITY);
    CHECK(std::isnan(*to_number_by_strtod("nan")));
    model<optimizer<gradus::adam>> m(2, gradus::adam{.lr = 0.0015}), n(0);
    const std::string bytes = checkpoint_of(m.opt);
    CHECK(contains(bytes, "\"gradus/group/0/lr\":\"0.0015\""));
    load_bytes(n.opt, bytes);
    CHECK(n.opt.hyperparameters().lr == 0.0015);
    return bytes;
  };
  const std::string here = compare();
  const support::german german;
  if (german.is_there())
    CHECK(compare() == here);
}

TEST_CASE("the caller's own metadata")
{
  model<optimizer<gradus::adam>> m(1), n(0);
  const std::string bytes = checkpoint_of(m.opt, {.metadata = {{"epoch", "3"}, {"", "\"\n\u00e9"}}});
  CHECK((load_bytes(n.opt, bytes).metadata == std::map<std::string, std::string>{{"", "\"\n\u00e9"}, {"epoch", "3"}}));
  for (const auto& bad : std::vector<std::vector<std::pair<std::string, std::string>>>{
           {{"gradus/format", "2"}}, {{"a", "1"}, {"a", "2"}}, {{"\xff", "1"}}, {{"a", "\xff"}}})
    CHECK(contains(refusal([&] { checkpoint_of(m.opt, {.metadata = bad}); }),
                   "expected UTF-8, and each name once and not to begin with \"gradus/\""));
}

TEST_CASE("a file that Python's safetensors has written, of eight steps of PyTorch's Adam with amsgrad")
{
  const std::string file = GRADUS_TEST_DATA "/checkpoint/recorded.safetensors";
  const golden::problem problem{.seed = 11, .sizes = {3, 12, 30}, .steps = 8, .drops = {}};
  golden::model<double> recorded(problem), here(problem);
  const auto add = [](auto& opt, auto& tensors) {
    const auto group = opt.add_group({});
    opt.add("layer.weight", tensors[1].weights, tensors[1].gradients);
    opt.add("other.weight", tensors[2].weights, tensors[2].gradients);
    opt.add("layer.bias", tensors[0].weights, tensors[0].gradients, group);
  };
  optimizer<gradus::amsgrad, double> loaded({.lr = 7}), opt({.lr = 0.01, .beta1 = 0.9, .beta2 = 0.9});
  add(loaded, recorded.tensors);
  add(opt, here.tensors);
  opt.set_hyperparameters(opt.hyperparameters(), opt.group_at(1));
  const auto report = gradus::load(loaded, file);
  CHECK((report.metadata == std::map<std::string, std::string>{{"note", "written by Python's safetensors"}}));
  CHECK((report.parameters && report.settings && report.differences.empty()));
  CHECK(loaded.hyperparameters().lr == 0.01);
  opt.set_hyperparameters(loaded.hyperparameters(), opt.group_at(1));
  for (int t = 0; t < problem.steps; ++t) {
    here.compute_gradients(t);
    opt.step();
  }
  double worst = 0;
  const auto compare = [&](double x, double y) { worst = std::fmax(worst, std::fabs(x - y) / (1e-3 + std::fabs(y))); };
  for (std::size_t k = 0; k < 3; ++k)
    for (std::size_t i = 0; i < problem.sizes[k]; ++i)
      compare(here.tensors[k].weights[i], recorded.tensors[k].weights[i]);
  for (const char* name : {"layer.weight", "other.weight", "layer.bias"})
    for (const char* slot : {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"})
      for (std::size_t i = 0; i < opt.state(name, slot).size(); ++i)
        compare(opt.state(name, slot)[i], loaded.state(name, slot)[i]);
  CHECK(worst < 1e-12);
  // What gradus writes has the same keys; the tensors, the same types and sizes.
  std::string bytes;
  std::FILE* const in = std::fopen(file.c_str(), "rb");
  for (int c; (c = std::fgetc(in)) != EOF;)
    bytes += char(c);
  std::fclose(in);
  CHECK((entries_of(checkpoint_of(loaded)) == entries_of(bytes)));
}

// ── optimizers chosen by name ────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("an optimizer chosen by name writes the same bytes, and each loads the other's")
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    Recipe h;
    if constexpr (requires { h.momentum; })
      h.momentum = 0.5;
    std::vector<gradus::named_number> numbers;
    if constexpr (requires { h.momentum; })
      numbers.emplace_back("momentum", 0.5);
    model<optimizer<Recipe>> typed(3, h), other(1, h);
    model<any_optimizer<float>> named(3, name, numbers), fresh(0, name, numbers);
    const std::string bytes = checkpoint_of(typed.opt);
    CHECK_MESSAGE(checkpoint_of(named.opt) == bytes, name);
    load_bytes(other.opt, checkpoint_of(named.opt));
    CHECK_MESSAGE(checkpoint_of(other.opt) == bytes, name);
    load_bytes(fresh.opt, bytes);
    CHECK_MESSAGE(checkpoint_of(fresh.opt) == bytes, name);
    typed.opt.step();
    fresh.opt.step();
    CHECK_MESSAGE(checkpoint_of(fresh.opt) == checkpoint_of(typed.opt), name);
  });
}

TEST_CASE("by name too, groups and who is left out are restored, and bad numbers refused")
{
  using any = any_optimizer<float>;
  model<any> m(2, "adams"), n(0, "adams");
  m.opt.add_group({{"lr", 0.125}});
  n.opt.add_group({});
  m.opt.freeze(m.hb);
  load_bytes(n.opt, checkpoint_of(m.opt));
  CHECK(n.opt.hyperparameters(n.opt.group_at(1))[0].second == 0.125);
  m.opt.step();
  n.opt.step();
  CHECK(n.opt.step_count(n.hb) == 2);
  CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  std::string bad = checkpoint_of(m.opt);
  bad.replace(bad.find("\"0.125\""), 7, "\"-.125\"");
  check_refused(n.opt, bad, {"gradus: checkpoint: group 1: lr is -0.125; expected a finite number >= 0"});
}

// ── strict ───────────────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("a strict load lists every difference and changes nothing")
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

TEST_CASE("of many differences a sentence lists the first ones and counts the others")
{
  for (const std::size_t n : {3u, 10u, 11u, 5000u}) {  // tensors, each with two slots and a step count
    const auto make = [n](auto& opt, auto& weights, auto& gradients, const std::string& prefix) {
      weights.resize(n);
      gradients.resize(n);
      for (std::size_t i = 0; i < n; ++i)
        opt.add(prefix + std::to_string(i), std::span(&weights[i], 1), std::span(&gradients[i], 1));
    };
    optimizer<gradus::sgd> saved, opt;
    any_optimizer<double> other("sgd");
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

TEST_CASE("a hyperparameter that cannot be is refused with the file's name and the group")
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
  any_optimizer<float> named("adam");
  CHECK(refusal([&] { gradus::load(named, path, {.lenient = true}); }) == expected);
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

TEST_CASE("a header over the format's limit: how many tensors it is of, and what to do")
{
  std::vector<float> w(1), g(1);
  optimizer<gradus::sgd> opt;
  const std::string name(60'000'000, 'x');
  opt.add(name, w, g);
  const std::string said = refusal([&] { gradus::save_to(opt, [](const void*, std::size_t) { return true; }); });
  CHECK(contains(said, "gradus: the checkpoint's header has 120000"));
  CHECK(contains(said, " bytes, tensors 1; expected at most 100000000 bytes, the format's limit: add small tensors "
                       "that lie side by side as one"));
}

TEST_CASE("what else a strict load refuses")
{
  model<optimizer<gradus::adam>> m(2);
  model<optimizer<gradus::adam, double>> in_double(1);
  check_refused(in_double.opt, checkpoint_of(m.opt),
                {"\"state/a/exp_avg\" is of type F32; expected F64, or convert = true",
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

TEST_CASE("parameters are loaded where they are in the file, unless the caller says otherwise")
{
  model<optimizer<gradus::adam>> m(2), n(0);
  const std::string with = checkpoint_of(m.opt), without = checkpoint_of(m.opt, {});
  const auto start = n.a.weights;
  CHECK_FALSE(load_bytes(n.opt, without).parameters);
  CHECK(n.a.weights == start);
  check_refused(n.opt, without, {"\"parameters/a\" is missing; expected 3 of F32"}, {.parameters = true});
  const auto ignored = load_bytes(n.opt, with, {.parameters = false});
  CHECK((!ignored.parameters && ignored.differences.empty()));
  CHECK(n.a.weights == start);
  CHECK(load_bytes(n.opt, with).parameters);
  CHECK(n.a.weights == m.a.weights);
}

TEST_CASE("settings are restored, unless the caller says otherwise")
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

TEST_CASE("a tensor that was removed, its state kept, is in the file, and is loaded where it was removed likewise")
{
  model<optimizer<gradus::adam>> m(3), n(0), whole(0);
  m.opt.remove(m.hb, gradus::removed_state::kept);
  m.opt.step();
  check_refused(whole.opt, checkpoint_of(m.opt), {"differ in 1;", "\"parameters/b\" is missing; expected 40 of F32"});
  n.opt.remove(n.hb, gradus::removed_state::kept);
  load_bytes(n.opt, checkpoint_of(m.opt));
  CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  n.opt.step();
  CHECK(n.opt.step_count(n.opt.add("b", n.b.weights, n.b.gradients)) == 3);
}

// ── lenient ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("adding a layer, reordering and regrouping keep every other state")
{
  model<optimizer<gradus::adams>> m(5, scheduled);
  tensor a(3), b(40), d(6);
  optimizer<gradus::adams> opt({.lr = 0.125});
  const auto g = opt.add_group({.lr = 0.25});
  const auto hb = opt.add("b", b.weights, b.gradients, g);
  const auto hd = opt.add("new", d.weights, d.gradients);
  opt.add("a", a.weights, a.gradients);
  const auto report = load_bytes(opt, checkpoint_of(m.opt), {.lenient = true});
  for (const char* slot : {"exp_avg", "exp_avg_sq"})
    for (const char* name : {"a", "b"}) {
      const auto x = opt.state(name, slot), y = m.opt.state(name, slot);
      CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
    }
  CHECK(opt.step_count(hb) == 5);
  CHECK(opt.step_count(hd) == 0);
  CHECK(a.weights == m.a.weights);
  CHECK((report.afresh == std::vector<std::string>{"new"}));
  CHECK_FALSE(report.settings);  // whose would be whose?
  CHECK(opt.hyperparameters().lr == 0.125);
  std::size_t surplus = 0, missing = 0, groups = 0;
  for (const auto& d2 : report.differences) {
    surplus += d2.what == load_difference::surplus;
    missing += d2.what == load_difference::missing;
    groups += d2.what == load_difference::groups;
  }
  CHECK(surplus == 5);  // two slots, step, sum and parameters of c
  CHECK(missing == 5);
  CHECK(groups == 2);  // how many there are, and b's

  // v̄ is that of the moments, over those who are there now.
  const auto step = opt.step();
  double sum = 0, n = 0;
  for (const char* name : {"a", "b", "new"})
    for (const float v : opt.state(name, "exp_avg_sq")) {
      sum += double(v) / (1 - std::pow(0.999, name[0] == 'n' ? 1 : 6));
      n += 1;
    }
  CHECK(*step.mean_square == doctest::Approx(sum / n).epsilon(1e-5));
}

TEST_CASE("a tensor's state is loaded as a whole or not at all")
{
  model<optimizer<gradus::adam>> m(5), n(0);
  std::string bytes = checkpoint_of(m.opt);
  const std::string key = "state/b/exp_avg_sq";
  bytes.replace(bytes.find(key), key.size(), "state/b/exp_avg_xx");
  const auto report = load_bytes(n.opt, bytes, {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"b"}));
  CHECK(n.opt.step_count(n.hb) == 0);
  CHECK(n.opt.step_count(n.ha) == 5);
  for (const float x : n.opt.state("b", "exp_avg"))
    CHECK(x == 0);
  CHECK(n.b.weights == m.b.weights);  // parameters are no state
}

TEST_CASE("from recipe to recipe: what they share is taken over, and what starts afresh is said")
{
  model<optimizer<gradus::adam, double>> adam(5);
  const auto same = [](auto& from, auto& to, const char* slot) {
    for (const char* name : {"a", "b", "c"}) {
      const auto x = from.state(name, slot), y = to.state(name, slot);
      CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
    }
  };
  model<optimizer<gradus::adamw, double>> adamw(0);
  auto report = load_bytes(adamw.opt, checkpoint_of(adam.opt), {.lenient = true});
  CHECK(report.afresh.empty());
  CHECK(report.differences.size() == 1);
  CHECK(report.differences[0].what == load_difference::recipe);
  CHECK(report.differences[0].key == "gradus/recipe");
  CHECK_FALSE(report.settings);
  CHECK(adamw.opt.hyperparameters().weight_decay == 1e-2);
  same(adam.opt, adamw.opt, "exp_avg");
  same(adam.opt, adamw.opt, "exp_avg_sq");
  CHECK(adamw.opt.step_count(adamw.ha) == 5);

  // AdamS finds its sums anew.
  model<optimizer<gradus::adams, double>> adams(0);
  report = load_bytes(adams.opt, checkpoint_of(adamw.opt), {.lenient = true});
  CHECK(report.afresh.empty());
  const auto step = adams.opt.step();
  double sum = 0;
  for (const char* name : {"a", "b", "c"})
    for (const double v : adams.opt.state(name, "exp_avg_sq"))
      sum += v;
  CHECK(*step.mean_square == doctest::Approx(sum / 48 / (1 - std::pow(0.999, 6))).epsilon(1e-12));

  // AMSGrad's maximum starts at this step.
  model<optimizer<gradus::amsgrad, double>> amsgrad(0);
  report = load_bytes(amsgrad.opt, checkpoint_of(adam.opt), {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"a/max_exp_avg_sq", "b/max_exp_avg_sq", "c/max_exp_avg_sq"}));
  CHECK(amsgrad.opt.step_count(amsgrad.ha) == 5);
  same(adam.opt, amsgrad.opt, "exp_avg_sq");

  // Where the moments are not there, neither is the step count that would correct their bias.
  model<optimizer<gradus::sgd, double>> sgd(5, gradus::sgd{.momentum = 0.9});
  model<optimizer<gradus::adam, double>> from_sgd(0);
  report = load_bytes(from_sgd.opt, checkpoint_of(sgd.opt), {.lenient = true});
  CHECK((report.afresh == std::vector<std::string>{"a", "b", "c"}));
  CHECK(from_sgd.opt.step_count(from_sgd.ha) == 0);
  CHECK(from_sgd.a.weights == sgd.a.weights);
}

namespace {

// What an optimizer of bfloat16 parameters with float master weights, moments of eight bits and stochastic rounding
// shows.
struct mixed {
  using value_type = short_number;
  std::vector<short_number> parameters{{0x3f80}, {0xc000}};  // 1, −2
  std::vector<float> master{1.001f, -2.002f}, scale{0.5f};
  std::vector<std::uint8_t> codes{7, 9};
  std::uint64_t step = 5, seed = 0x123456789abcdef0;
  bool takes_part = true;

  std::string_view name() const { return "adam"; }
  std::size_t group_count() const { return 1; }
  gradus::group_handle group_at(std::size_t) const { return {}; }
  std::vector<gradus::named_number> hyperparameters(gradus::group_handle) const { return {{"lr", 0.5}}; }
  void check_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) const {}
  void set_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) {}
  void recompute_second_moment_sum() {}
  template <class Self, class Visit>
  static void visit_all(Self& self, Visit& visit)
  {
    const std::string_view w = "w";
    visit(w, std::string_view("exp_avg"), std::span(self.codes));
    visit(w, std::string_view("exp_avg_scale"), std::span(self.scale));
    visit(w, std::string_view("master"), std::span(self.master));
    visit(w, std::string_view("step"), std::span(&self.step, 1));
    visit(std::string_view(), std::string_view("seed"), std::span(&self.seed, 1));
  }
  template <class Visit>
  void visit_state(Visit&& visit)
  {
    visit_all(*this, visit);
  }
  template <class Visit>
  void visit_state(Visit&& visit) const
  {
    visit_all(*this, visit);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit)
  {
    visit(std::string_view("w"), std::span(parameters), std::size_t{}, takes_part);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit) const
  {
    visit(std::string_view("w"), std::span(parameters), std::size_t{}, takes_part);
  }
};

}  // namespace

namespace {

// An optimizer in a device's memory, where every bit stands for its opposite: who touches it directly is found out.
struct elsewhere {
  static constexpr bool on_device = true;
  using value_type = float;
  static constexpr std::size_t n = 300'000;  // more than is on its way at a time
  std::vector<float> memory = std::vector<float>(3 * n);
  std::uint64_t step = 5;
  bool takes_part = true;

  std::string_view name() const { return "adam"; }
  std::size_t group_count() const { return 1; }
  gradus::group_handle group_at(std::size_t) const { return {}; }
  std::vector<gradus::named_number> hyperparameters(gradus::group_handle) const { return {{"lr", 0.5}}; }
  void check_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) const {}
  void set_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) {}
  void recompute_second_moment_sum() {}
  bool is_mine(const void* p) const { return p >= memory.data() && p < memory.data() + memory.size(); }
  void copy_memory(void* to, const void* from, std::size_t bytes) const
  {
    CHECK(bytes <= std::size_t(1) << 20);
    const unsigned char flip = is_mine(to) != is_mine(from) ? 0xff : 0;
    for (std::size_t i = 0; i < bytes; ++i)
      static_cast<unsigned char*>(to)[i] = static_cast<const unsigned char*>(from)[i] ^ flip;
  }
  template <class Self, class Visit>
  static void visit_all(Self& self, Visit& visit)
  {
    static_assert(Visit::takes_device_memory);
    visit(std::string_view("w"), std::string_view("exp_avg"), std::span(self.memory).first(n));
    visit(std::string_view("w"), std::string_view("exp_avg_sq"), std::span(self.memory).subspan(n, n));
    visit(std::string_view("w"), std::string_view("step"), std::span(&self.step, 1));
  }
  template <class Visit>
  void visit_state(Visit&& visit)
  {
    visit_all(*this, visit);
  }
  template <class Visit>
  void visit_state(Visit&& visit) const
  {
    visit_all(*this, visit);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit)
  {
    visit(std::string_view("w"), std::span(memory).last(n), std::size_t{}, takes_part);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit) const
  {
    visit(std::string_view("w"), std::span(memory).last(n), std::size_t{}, takes_part);
  }
};

}  // namespace

TEST_CASE("a device's memory goes piece by piece")
{
  tensor w(elsewhere::n);
  optimizer<gradus::adam> here({.lr = 0.5});
  here.add("w", w.weights, w.gradients);
  for (int t = 0; t < 3; ++t)
    here.step();
  elsewhere there;
  load_bytes(there, checkpoint_of(here), {.settings = false});
  std::vector<float> brought(elsewhere::n);
  const auto is_there = [&](std::size_t slot, const float* expected) {
    for (std::size_t i = 0; i < elsewhere::n; ++i)
      brought[i] = std::bit_cast<float>(~std::bit_cast<std::uint32_t>(there.memory[slot * elsewhere::n + i]));
    return std::memcmp(brought.data(), expected, elsewhere::n * sizeof(float)) == 0;
  };
  CHECK(is_there(0, here.state("w", "exp_avg").data()));
  CHECK(is_there(1, here.state("w", "exp_avg_sq").data()));
  CHECK(is_there(2, w.weights.data()));
  CHECK(there.step == 3);
  // And back; and in another precision.
  tensor v(elsewhere::n);
  tensor<double> d(elsewhere::n);
  optimizer<gradus::adam> back({.lr = 0.5});
  optimizer<gradus::adam, double> in_double;
  back.add("w", v.weights, v.gradients);
  in_double.add("w", d.weights, d.gradients);
  load_bytes(back, checkpoint_of(there), {.settings = false});
  CHECK(checkpoint_of(back) == checkpoint_of(here));
  load_bytes(in_double, checkpoint_of(there), {.settings = false, .convert = true});
  CHECK(d.weights[elsewhere::n - 1] == double(w.weights.back()));
  there = {};
  load_bytes(there, checkpoint_of(in_double), {.settings = false, .convert = true});
  CHECK(is_there(0, here.state("w", "exp_avg").data()));
  CHECK(is_there(2, w.weights.data()));
}

TEST_CASE("slots of any type, and master weights that go with the parameters")
{
  const mixed saved;
  CHECK((entries_of(checkpoint_of(saved)) == std::map<std::string, std::string>{{"parameters/w", "BF16 2"},
                                                                                {"state//seed", "U64 1"},
                                                                                {"state/w/exp_avg", "U8 2"},
                                                                                {"state/w/exp_avg_scale", "F32 1"},
                                                                                {"state/w/master", "F32 2"},
                                                                                {"state/w/step", "U64 1"}}));
  const auto fresh = [] {
    mixed m;
    m.parameters = {{0}, {0}};
    m.master = {0, 0};
    m.scale = {0};
    m.codes = {0, 0};
    m.step = m.seed = 0;
    return m;
  };
  mixed m = fresh();
  load_bytes(m, checkpoint_of(saved));
  CHECK(checkpoint_of(m) == checkpoint_of(saved));

  // Parameters of a run in float are the master weights, rounded; and moments of floats are no codes.
  tensor w(2);
  w.weights = {1.001f, -2.002f};
  optimizer<gradus::adam> in_float({.lr = 0.5});
  in_float.add("w", w.weights, w.gradients);
  m = fresh();
  auto report = load_bytes(m, checkpoint_of(in_float), {.lenient = true, .convert = true});
  CHECK((m.master == w.weights));
  CHECK(m.parameters[0].bits == 0x3f80);
  CHECK(m.codes[0] == 0);
  CHECK(m.step == 0);
  CHECK((report.afresh == std::vector<std::string>{"w", "/seed"}));

  // Parameters of bfloat16 alone: the master weights are those.
  std::string bytes = checkpoint_of(saved);
  bytes.replace(bytes.find("w/master"), 8, "w/mister");
  m = fresh();
  report = load_bytes(m, bytes, {.lenient = true});
  CHECK((m.master == std::vector<float>{1, -2}));
  CHECK(m.codes[1] == 9);
  CHECK(m.step == 5);
  CHECK(report.afresh.empty());
  // Not where the caller's own parameters stay.
  m = fresh();
  report = load_bytes(m, bytes, {.parameters = false, .lenient = true});
  CHECK((m.master == std::vector<float>{0, 0}));
  CHECK((report.afresh == std::vector<std::string>{"w/master"}));
}

// ── the sums of a scheduled decay ────────────────────────────────────────────────────────────────────────────────────

namespace {

using adams_model = model<optimizer<gradus::adams, double>>;

// A checkpoint of four steps with these sums of a, b and c, which may be far from the true ones, so that a step shows
// who uses them.
std::string with_sums(const std::array<double, 3>& sums, std::uint64_t is_of_model = 0, bool freezes_c = false)
{
  adams_model m(4, scheduled);
  if (freezes_c)
    m.opt.freeze(m.hc);
  m.opt.visit_state([&]<class X>(std::string_view name, std::string_view key, std::span<X> values) {
    if constexpr (std::is_same_v<X, double>)
      if (key == "exp_avg_sq_sum")
        values[0] = sums[std::size_t(name[0] - 'a')];
    if constexpr (std::is_same_v<X, std::uint64_t>)
      if (key == "exp_avg_sq_sum_is_of_model")
        values[0] = is_of_model;
  });
  return checkpoint_of(m.opt);
}

// Whether the next step takes v̄ from the second moments of these tensors, and not from the file's sums.
template <class Opt>
bool sums_are_anew(Opt& opt, std::initializer_list<const char*> names, const gradus::step_options& o = {})
{
  const double mean = *opt.step(o).mean_square;
  double sum = 0, n = 0;
  for (const char* name : names)
    for (const double v : opt.state(name, "exp_avg_sq")) {
      sum += v;
      n += 1;
    }
  return std::fabs(mean / (sum / n / (1 - std::pow(0.9, 5))) - 1) < 1e-12;
}

constexpr double far = 1e6;

}  // namespace

TEST_CASE("the file's sums are used where the same tensors share them")
{
  adams_model strict(0, scheduled), other_lr(0, scheduled), more_steps(7, scheduled);
  load_bytes(strict.opt, with_sums({far, far, far}));
  CHECK_FALSE(sums_are_anew(strict.opt, {"a", "b", "c"}));
  load_bytes(other_lr.opt, with_sums({far, far, far}), {.settings = false});
  CHECK_FALSE(sums_are_anew(other_lr.opt, {"a", "b", "c"}));
  load_bytes(more_steps.opt, with_sums({far, far, far}));
  CHECK_FALSE(sums_are_anew(more_steps.opt, {"a", "b", "c"}));
  // One that is frozen in the file is frozen here too.
  adams_model frozen(0, scheduled);
  load_bytes(frozen.opt, with_sums({far, far, far}, 0, true));
  CHECK_FALSE(sums_are_anew(frozen.opt, {"a", "b"}));
}

TEST_CASE("sums are recomputed where other tensors share them")
{
  const std::string bytes = with_sums({far, far, far});
  adams_model fewer(0, scheduled), more(0, scheduled), paused(0, scheduled), removed(0, scheduled);
  fewer.opt.remove(fewer.hc, gradus::removed_state::dropped);
  load_bytes(fewer.opt, bytes, {.lenient = true});
  CHECK(sums_are_anew(fewer.opt, {"a", "b"}));
  paused.opt.freeze(paused.hc);
  load_bytes(paused.opt, bytes, {.settings = false});
  CHECK(sums_are_anew(paused.opt, {"a", "b"}));
  removed.opt.remove(removed.hc, gradus::removed_state::kept);
  load_bytes(removed.opt, bytes, {.parameters = false});
  CHECK(sums_are_anew(removed.opt, {"a", "b"}));
  tensor<double> d(9);
  more.opt.add("d", d.weights, d.gradients);
  load_bytes(more.opt, bytes, {.lenient = true});
  CHECK(*more.opt.step().mean_square < 10);
}

TEST_CASE("sums are recomputed where groups that are not loaded may divide tensors otherwise")
{
  const std::string bytes = with_sums({far, far, far});
  tensor<double> a(3), b(40), c(5);
  optimizer<gradus::adams, double> opt(scheduled);
  const auto group = opt.add_group({.lr = 0.01, .beta2 = 0.5, .weight_decay = 0.01});
  opt.add("a", a.weights, a.gradients);
  opt.add("b", b.weights, b.gradients, group);
  opt.add("c", c.weights, c.gradients, group);
  load_bytes(opt, bytes, {.settings = false});
  CHECK(*opt.step().mean_square < 10);
  // Two groups in the file whose sums are equal by chance, and one here.
  const std::string two = [&] {
    optimizer<gradus::adams, double> saved(scheduled);
    const auto g = saved.add_group({.lr = 0.01, .beta2 = 0.5, .weight_decay = 0.01});
    saved.add("a", a.weights, a.gradients);
    saved.add("b", b.weights, b.gradients, g);
    saved.add("c", c.weights, c.gradients, g);
    for (int t = 0; t < 4; ++t)
      saved.step();
    saved.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> values) {
      if constexpr (std::is_same_v<X, double>)
        if (key == "exp_avg_sq_sum")
          values[0] = far;
    });
    return checkpoint_of(saved);
  }();
  adams_model one(0, scheduled);
  load_bytes(one.opt, two, {.settings = false});
  CHECK(sums_are_anew(one.opt, {"a", "b", "c"}));
}

TEST_CASE("sums that are NaN or infinite, or that tensors disagree on, are recomputed")
{
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& sums : std::vector<std::array<double, 3>>{{nan, nan, nan},
                                                             {-nan, -nan, -nan},
                                                             {infinity, infinity, infinity},
                                                             {far, nan, far},
                                                             {nan, far, far},
                                                             {far, far, infinity},
                                                             {far, far, 2 * far},
                                                             {1, far, far}}) {
    for (const bool lenient : {false, true}) {
      adams_model m(0, scheduled);
      CHECK(load_bytes(m.opt, with_sums(sums), {.lenient = lenient}).differences.empty());
      CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
    }
  }
}

TEST_CASE("sums that are unknown are saved, and a run resumed from there has the same bits")
{
  for (const bool freezes : {false, true}) {
    adams_model m(4, scheduled), n(0, scheduled);
    if (freezes)
      m.opt.freeze(m.hc);
    else
      m.opt.recompute_second_moment_sum();
    m.opt.visit_state([&]<class X>(std::string_view, std::string_view key, std::span<X> values) {
      if (key == "exp_avg_sq_sum")
        CHECK(std::isnan(double(values[0])));
    });
    load_bytes(n.opt, checkpoint_of(m.opt));
    CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
    m.opt.step();
    n.opt.step();
    CHECK(checkpoint_of(n.opt) == checkpoint_of(m.opt));
  }
}

TEST_CASE("sums that the file lacks are recomputed")
{
  std::string bytes = with_sums({far, far, far});
  bytes.replace(bytes.find("b/exp_avg_sq_sum"), 16, "b/exp_avg_xx_sum");
  adams_model m(0, scheduled);
  const auto report = load_bytes(m.opt, bytes, {.lenient = true});
  CHECK(report.afresh.empty());
  CHECK(m.opt.step_count(m.hb) == 4);
  CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
}

TEST_CASE("the sum of a whole model is loaded as such, with the file's settings or without")
{
  const gradus::step_options whole{.grad_norm_sq = 1.0, .model_size = 1000};
  for (const bool settings : {false, true}) {
    adams_model m(0, scheduled), n(0, scheduled);
    tensor<double> d(3), e(3);
    m.opt.add("d", d.weights, d.gradients, m.opt.add_group({.lr = 0.5, .beta2 = 0.9}));
    n.opt.add("d", e.weights, e.gradients, n.opt.add_group({.lr = 0.25, .beta2 = 0.9}));
    m.opt.step(whole);
    load_bytes(n.opt, checkpoint_of(m.opt), {.settings = settings});
    const double expected = *m.opt.step(whole).mean_square;
    CHECK(*n.opt.step(whole).mean_square == expected);
    CHECK(expected == doctest::Approx(0.001));
  }
  // A step of this part alone recomputes them.
  adams_model m(0, scheduled);
  load_bytes(m.opt, with_sums({far, far, far}, 1));
  CHECK(sums_are_anew(m.opt, {"a", "b", "c"}));
  // Of another part it is unknown, and a step that needs it says so.
  adams_model other(0, scheduled);
  other.opt.remove(other.hc, gradus::removed_state::dropped);
  load_bytes(other.opt, with_sums({far, far, far}, 1), {.lenient = true});
  CHECK(contains(refusal([&] { other.opt.step(whole); }), "give mean_square instead"));
}

namespace {

// The bits of all numbers in an optimizer's state and of its weights, but for which NaN is one.
template <class M>
std::vector<double> numbers_of(const M& m)
{
  std::vector<double> all;
  const auto add = [&](auto values) {
    for (const auto& x : values)
      if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(x)>>)
        all.push_back(std::isnan(double(x)) ? -12345.0 : double(x));
  };
  add(std::span(m.b.weights));
  m.opt.visit_state([&](std::string_view, std::string_view key, auto values) {
    if (key != "exp_avg_sq_sum")
      add(values);
  });
  return all;
}

template <class Opt, class... Arguments>
void check_broken_state_resumes(double gradient, const gradus::step_options& o, const Arguments&... arguments)
{
  using T = typename Opt::parameter_type;
  model<Opt> m(2, arguments...), n(0, arguments...);
  m.b.gradients[7] = T(gradient);
  m.opt.step(o);
  m.b.gradients[7] = T(0.5);
  for (const bool lenient : {false, true}) {
    CHECK(refusal([&] { CHECK(load_bytes(n.opt, checkpoint_of(m.opt), {.lenient = lenient}).differences.empty()); }) ==
          "");
    n.a = m.a, n.b = m.b, n.c = m.c;
    n.opt.rebind(n.ha, n.a.weights, n.a.gradients);
    n.opt.rebind(n.hb, n.b.weights, n.b.gradients);
    n.opt.rebind(n.hc, n.c.weights, n.c.gradients);
    CHECK((numbers_of(n) == numbers_of(m)));
    m.opt.step();
    n.opt.step();
    const auto broken = numbers_of(m), resumed = numbers_of(n);
    REQUIRE(broken.size() == resumed.size());
    for (std::size_t i = 0; i < broken.size(); ++i)
      CHECK((broken[i] == resumed[i] || std::fabs(broken[i] - resumed[i]) < 1e-6 * std::fabs(broken[i])));
  }
}

}  // namespace

TEST_CASE("hyperparameters that are too large for the type here are refused, and nothing is loaded")
{
  for (const double lr : {1e39, 1e300}) {
    model<optimizer<gradus::adam, double>> saved(1, gradus::adam{.lr = lr});
    model<optimizer<gradus::adam>> opt(0);
    check_refused(opt.opt, checkpoint_of(saved.opt),
                  {"lr is 1e+", "expected at most 3.40282347e+38, the largest float"}, {.convert = true});
    model<any_optimizer<float>> any(0, "adam");
    check_refused(any.opt, checkpoint_of(saved.opt),
                  {"lr is 1e+", "expected at most 3.40282347e+38, the largest float"}, {.convert = true});
  }
}

TEST_CASE("what saves loads: a run that is broken by infinite, NaN or overflowing gradients, too")
{
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {infinity, -infinity, nan, 3e38, 1e200}) {
    gradus::for_each_recipe([&]<class R>(const char*, std::type_identity<R>) {
      if (bad != 1e200)
        check_broken_state_resumes<optimizer<R, float>>(bad, {});
      check_broken_state_resumes<optimizer<R, double>>(bad, {});
    });
    const auto composed = gradus::compose(0.01, gradus::first_moment::none{}, gradus::second_moment::ema{.beta2 = 0.9},
                                          gradus::step_size::rectified{},
                                          gradus::decay::scheduled{.weight_decay = 0.1, .eps = 1e-8});
    check_broken_state_resumes<optimizer<std::remove_const_t<decltype(composed)>, double>>(bad, {.max_grad_norm = 1},
                                                                                           composed);
    check_broken_state_resumes<optimizer<gradus::adams, gradus::precision<float, float, gradus::block8>>>(
        bad == 1e200 ? infinity : bad, {}, scheduled);
  }
  check_broken_state_resumes<optimizer<gradus::adams, double>>(1e200, {.max_grad_norm = 1}, scheduled);
  check_broken_state_resumes<optimizer<gradus::adams, float>>(1, {.mean_square = 2}, scheduled);
}

TEST_CASE("another precision, where it is asked for")
{
  model<optimizer<gradus::adams, double>> in_double(5, scheduled), back(0, scheduled);
  model<optimizer<gradus::adams, float>> in_float(0, scheduled);
  const auto report = load_bytes(in_float.opt, checkpoint_of(in_double.opt), {.convert = true});
  CHECK(report.differences.empty());
  CHECK(report.afresh.empty());
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(in_float.b.weights[i] == float(in_double.b.weights[i]));
    CHECK(in_float.opt.state("b", "exp_avg_sq")[i] == float(in_double.opt.state("b", "exp_avg_sq")[i]));
  }
  load_bytes(back.opt, checkpoint_of(in_float.opt), {.convert = true});
  CHECK(back.opt.state("c", "exp_avg")[3] == double(in_float.opt.state("c", "exp_avg")[3]));
}

TEST_CASE("from float to short parameters with master weights, and back, nothing is lost")
{
  using gradus::bfloat16;
  using short_precision = gradus::precision<bfloat16, bfloat16, float, float>;
  model<optimizer<gradus::adamw>> in_float(5), back(0);
  std::vector<bfloat16> w[3], g[3];
  optimizer<gradus::adamw, short_precision> mixed;
  const char* const names[] = {"a", "b", "c"};
  const std::vector<float>* const weights[] = {&in_float.a.weights, &in_float.b.weights, &in_float.c.weights};
  for (std::size_t k = 0; k < 3; ++k) {
    w[k].resize(weights[k]->size());
    g[k].resize(weights[k]->size());
    mixed.add(names[k], w[k], g[k]);
  }
  const auto report = load_bytes(mixed, checkpoint_of(in_float.opt), {.convert = true});
  CHECK((report.differences.empty() && report.parameters && report.settings));
  mixed.visit_state([&]<class X>(std::string_view name, std::string_view slot, std::span<X> values) {
    if constexpr (std::is_same_v<X, float>)
      if (slot == "master")
        CHECK(std::equal(values.begin(), values.end(), weights[name[0] - 'a']->begin()));
  });
  for (std::size_t i = 0; i < w[1].size(); ++i)
    CHECK(w[1][i].bits == bfloat16(in_float.b.weights[i]).bits);
  load_bytes(back.opt, checkpoint_of(mixed), {.convert = true});
  CHECK(checkpoint_of(back.opt) == checkpoint_of(in_float.opt));
}

TEST_CASE("numbers converted between floating-point types are rounded to nearest, ties to even")
{
  using gradus::safetensors::convert;
  using gradus::safetensors::find_dtype;
  const auto *f64 = find_dtype("F64"), *f32 = find_dtype("F32"), *f16 = find_dtype("F16"), *bf16 = find_dtype("BF16");
  const auto converted = [](const auto* from, auto x, const auto* to, auto y) {
    convert(*from, reinterpret_cast<const unsigned char*>(&x), *to, reinterpret_cast<unsigned char*>(&y), 1);
    return y;
  };
  // The compiler's own conversion, for any number that there is and for those around float's denormals.
  support::random r(1);
  for (int i = 0; i < 100000; ++i) {
    double x = r.any<double>();
    if (i % 2)
      x = std::ldexp(r.uniform(-2, 2), -int(r.below(60)) - 100);
    if (i % 4 == 3)
      x = double(float(x)) * (1 + 0x1p-24);  // a tie, where it is not a denormal
    const float expected = float(x), found = converted(f64, x, f32, 0.0f);
    REQUIRE((std::isnan(x) ? std::isnan(found)
                           : std::bit_cast<std::uint32_t>(found) == std::bit_cast<std::uint32_t>(expected)));
    REQUIRE((std::isnan(expected) || std::bit_cast<std::uint64_t>(converted(f32, expected, f64, 0.0)) ==
                                         std::bit_cast<std::uint64_t>(double(expected))));
    // bfloat16: float's upper half, its lower half added to round it.
    const auto bits = std::bit_cast<std::uint32_t>(expected);
    const auto upper = std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    REQUIRE((std::isnan(expected) || converted(f32, expected, bf16, std::uint16_t{}) == upper));
  }
  // Every float16, there and back; and what it is, by its definition.
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto sixteen = std::uint16_t(bits);
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float x = converted(f16, sixteen, f32, 0.0f);
    if (exponent == 31 && fraction) {
      REQUIRE(std::isnan(x));
      continue;
    }
    const double magnitude = exponent == 31 ? INFINITY
                             : exponent     ? std::ldexp(1024 + fraction, int(exponent) - 25)
                                            : std::ldexp(fraction, -24);
    REQUIRE(double(x) == (bits & 0x8000 ? -magnitude : magnitude));
    REQUIRE(std::signbit(x) == (bits >= 0x8000));
    REQUIRE(converted(f32, x, f16, std::uint16_t{}) == sixteen);
    REQUIRE(converted(f64, double(x), f16, std::uint16_t{}) == sixteen);
    // Half-way to the next one, and a little to either side.
    if ((bits & 0x7fff) < 0x7bff) {
      const double next = double(converted(f16, std::uint16_t(bits + 1), f32, 0.0f)), middle = (double(x) + next) / 2;
      REQUIRE(converted(f64, middle, f16, std::uint16_t{}) == (bits % 2 ? bits + 1 : bits));
      REQUIRE(converted(f64, std::nextafter(middle, 0.0), f16, std::uint16_t{}) == bits);
      REQUIRE(converted(f64, std::nextafter(middle, middle * 2), f16, std::uint16_t{}) == bits + 1);
    }
  }
  CHECK(converted(f64, 65520.0, f16, std::uint16_t{}) == 0x7c00);
  CHECK(converted(f64, 65519.99, f16, std::uint16_t{}) == 0x7bff);
  CHECK(converted(f32, 1e-30f, f16, std::uint16_t{}) == 0);
}

// ── the caller's own streams ─────────────────────────────────────────────────────────────────────────────────────────

TEST_CASE("a stream that fails: a sentence, and nothing changed before anything was read")
{
  model<optimizer<gradus::adam>> m(3), n(1);
  int calls = 0;
  const std::string sentence = refusal([&] {
    gradus::save_to(m.opt, [&](const void*, std::size_t) { return ++calls < 3; });
  });
  CHECK(contains(sentence, "gradus: write returned false for "));
  CHECK(calls == 3);

  const std::string bytes = checkpoint_of(m.opt), before = checkpoint_of(n.opt);
  int reads = 0;
  for (int good = 0;; ++good) {
    calls = 0;
    const auto read = [&](std::uint64_t at, void* to, std::size_t count) {
      std::memcpy(to, bytes.data() + at, count);
      return ++calls <= good;
    };
    const std::string said = refusal([&] { gradus::load_from(n.opt, bytes.size(), read); });
    if (said.empty())
      break;
    ++reads;
    if (good < 5) {
      CHECK(said == "gradus: checkpoint: could not be read");
      CHECK(checkpoint_of(n.opt) == before);
    } else
      CHECK(contains(said, "what was read until then is in the optimizer"));
  }
  CHECK(reads == 2 + 3 + 3 + 6);  // length, header; step counts, before anything else; parameters; slots
  CHECK(checkpoint_of(n.opt) == bytes);
}

TEST_CASE("an empty optimizer, and empty tensors")
{
  optimizer<gradus::adams> nothing, other;
  CHECK(load_bytes(other, checkpoint_of(nothing)).differences.empty());
  std::vector<float> none;
  std::vector<float> no_gradients;
  optimizer<gradus::adams> opt, loaded;
  opt.add("none", none, no_gradients);
  loaded.add("none", none, no_gradients);
  opt.step();
  load_bytes(loaded, checkpoint_of(opt));
  CHECK(checkpoint_of(loaded) == checkpoint_of(opt));
}
