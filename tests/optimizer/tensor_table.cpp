// Which tensors an optimizer has: their names and memory, how they come, are rebound and go.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/gradus.hpp>

#include "support/random.hpp"
#include "support/refusal.hpp"
#include "support/scene.hpp"
#include "support/tensors.hpp"

namespace {

using support::check_refused, support::refusal, support::same, support::scalar_optimizer, support::scene;
using support::scheduled, support::tensor, support::tensors;

// n numbers that start as 1, 2, … and can be asked for in part.
template <class T>
struct arena {
  std::vector<T> numbers;
  explicit arena(std::size_t n)
  {
    for (std::size_t i = 0; i < n; ++i)
      numbers.push_back(T(i + 1));
  }
  std::span<T> part(std::size_t begin, std::size_t n) { return std::span<T>(numbers).subspan(begin, n); }
};

}  // namespace

TEST_CASE("names: a tensor's own, or one by its place")
{
  tensor<float> a(3, 1), b(2, 2), c(1, 3);
  gradus::optimizer<gradus::adam> opt;
  const auto group = opt.add_group({.lr = 1});
  opt.add("layer1.weight", a.weights, a.gradients);
  opt.add("layer1.bias", b.weights, b.gradients, group);
  opt.add(c.weights, c.gradients);
  opt.step();
  CHECK(opt.state("layer1.weight", "exp_avg").size() == 3);
  CHECK(std::as_const(opt).state("layer1.bias", "exp_avg_sq").size() == 2);
  CHECK(opt.state("tensor2", "exp_avg").size() == 1);
  CHECK(opt.state("tensor2", "exp_avg")[0] == 0.1f * c.gradients[0]);
}

TEST_CASE("names: an empty one, and that of another tensor, are refused")
{
  check_refused("gradus: name is \"\"; expected at least one character, or no name at all",
                [](auto& s) { s.opt.add("", s.spare, s.spare_gradient); });
  check_refused("gradus: name is \"\"; expected at least one character, or no name at all",
                [](auto& s) { s.opt.add("", s.spare, s.spare_gradient, s.undecayed); });
  check_refused("gradus: name is \"weight\", which another tensor has; expected a name of its own",
                [](auto& s) { s.opt.add("weight", s.spare, s.spare_gradient); });
  // A tensor that has no name of its own gets one that no other has.
  scalar_optimizer<gradus::sgd> opt;
  std::vector<float> w(2, 1.0f), v(2, 1.0f), g(2, 1.0f);
  opt.add("tensor1", w, g);
  CHECK_NOTHROW(opt.add(v, g));
}

TEST_CASE("add: empty tensors take part and change nothing")
{
  tensor<float> a(7, 1), alone(7, 1), none(0, 2);
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  const auto empty = opt.add("empty", none.weights, none.gradients);
  opt.add(a.weights, a.gradients);
  std::array<float, 0> also_none{};
  opt.add(also_none, std::span<float>());
  reference.add(alone.weights, alone.gradients);
  for (int t = 0; t < 3; ++t) {
    const auto report = opt.step({.max_grad_norm = 0.5, .skip_nonfinite = true});
    const auto expected = reference.step({.max_grad_norm = 0.5, .skip_nonfinite = true});
    CHECK(*report.grad_norm == *expected.grad_norm);
    CHECK(*report.mean_square == *expected.mean_square);
  }
  CHECK(same(a.weights, alone.weights));
  CHECK(opt.step_count(empty) == 3);
  CHECK(opt.state("empty", "exp_avg").empty());
  CHECK(opt.parameter_count() == 7);

  gradus::optimizer<gradus::adams> nothing_else(scheduled);
  nothing_else.add(none.weights, none.gradients);
  const auto report = nothing_else.step();
  CHECK(report.mean_square == 0);
  CHECK(report.decay_factor == 0);
}

TEST_CASE("add, rebind: memory that is null, of another size or too long is refused")
{
  using floats = std::span<float>;
  const auto none = static_cast<float*>(nullptr);
  check_refused("gradus: parameters of tensor \"x\" is null; expected 3 elements",
                [&](auto& s) { s.opt.add("x", floats(none, 3), s.spare_gradient); });
  check_refused("gradus: gradients of tensor \"x\" is null; expected 3 elements",
                [&](auto& s) { s.opt.add("x", s.spare, floats(none, 3)); });
  check_refused("gradus: size of gradients of tensor \"x\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.add("x", s.spare, s.weight_gradient); });
  check_refused("gradus: size of gradients of tensor \"tensor2\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.add(s.spare, s.weight_gradient); });
  check_refused("gradus: parameters of tensor \"bias\" is null; expected 3 elements",
                [&](auto& s) { s.opt.rebind(s.b, floats(none, 3), s.spare_gradient); });
  check_refused("gradus: gradients of tensor \"bias\" is null; expected 3 elements",
                [&](auto& s) { s.opt.rebind(s.b, s.spare, floats(none, 3)); });
  check_refused("gradus: size of gradients of tensor \"bias\" is 5; expected 3, the size of its parameters",
                [](auto& s) { s.opt.rebind(s.b, s.spare, s.weight_gradient); });
  check_refused("gradus: size of parameters of tensor \"bias\" is 5; expected 3, the size of its state",
                [](auto& s) { s.opt.rebind(s.b, s.weight, s.weight_gradient); });

  // Lengths whose bytes exceed what any memory holds, alone or together with the eight parameters that are there.
  const std::size_t most = std::size_t(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(float) - 8;
  for (const std::size_t n : {most + 1, std::size_t(-1) / sizeof(float), std::size_t(-1)})
    check_refused("gradus: size of parameters of tensor \"x\" is " + std::to_string(n) + "; expected at most " +
                      std::to_string(most) + ", or the bytes of all tensors would overflow",
                  [&](auto& s) { s.opt.add("x", floats(s.spare.data(), n), floats(s.spare_gradient.data(), n)); });
}

TEST_CASE("add, rebind: gradients in the memory of their parameters are refused")
{
  const std::string message = "gradus: gradients of tensor \"x\" overlap its parameters; expected memory of their own";
  std::vector<float> memory(8, 1.0f);
  const std::span<float> all(memory);
  const auto add = [&](std::size_t w, std::size_t g, std::size_t n) {
    return [=](auto& s) { s.opt.add("x", all.subspan(w, n), all.subspan(g, n)); };
  };
  check_refused(message, add(0, 0, 8));
  check_refused(message, add(0, 3, 4));
  check_refused(message, add(3, 0, 4));
  check_refused(message, add(4, 4, 1));
  check_refused("gradus: gradients of tensor \"bias\" overlap its parameters; expected memory of their own",
                [&](auto& s) { s.opt.rebind(s.b, all.subspan(0, 3), all.subspan(2, 3)); });

  scalar_optimizer<gradus::sgd> opt;
  CHECK_NOTHROW(opt.add(all.subspan(0, 4), all.subspan(4)));  // side by side is not overlapping
  CHECK_NOTHROW(opt.add(all.subspan(0, 0), all.subspan(0, 0)));
}

TEST_CASE_TEMPLATE("add: memory that another tensor uses is refused, and both are named", T, float, double)
{
  arena<T> w(40), g(40);
  gradus::optimizer<gradus::sgd, T> opt({.lr = 1});
  const auto a = opt.add("a", w.part(10, 10), g.part(10, 10));
  const auto expected = [](const char* new_one, const char* old_one) {
    return "gradus: " + std::string(new_one) + " of tensor \"b\" overlap the " + old_one +
           " of tensor \"a\"; expected memory of their own";
  };
  const std::string twice = expected("parameters", "parameters");
  // The same, what begins in it, ends in it, lies in it, has it in itself, and by one element.
  const std::size_t parts[][2] = {{10, 10}, {15, 10}, {5, 10}, {12, 3}, {0, 40}, {19, 1}, {1, 10}, {19, 10}};
  for (const auto& x : parts)
    CHECK(refusal([&] { opt.add("b", w.part(x[0], x[1]), g.part(0, x[1])); }) == twice);
  arena<T> spare(40);
  CHECK(refusal([&] { opt.add("b", g.part(19, 3), spare.part(0, 3)); }) == expected("parameters", "gradients"));
  CHECK(refusal([&] { opt.add("b", spare.part(0, 3), w.part(8, 3)); }) == expected("gradients", "parameters"));
  // Who is left out has its place still.
  opt.freeze(a);
  CHECK(refusal([&] { opt.add("b", w.part(10, 10), g.part(0, 10)); }) == twice);
  opt.unfreeze(a);
  CHECK(opt.parameter_count() == 10);

  // Beside it, and nothing at all, is no overlap; and many may read one gradient.
  CHECK_NOTHROW(opt.add("left", w.part(0, 10), g.part(10, 10)));
  CHECK_NOTHROW(opt.add("right", w.part(20, 10), g.part(15, 10)));
  CHECK_NOTHROW(opt.add("empty", w.part(15, 0), g.part(15, 0)));
  opt.step();
  CHECK(w.numbers[10] == T(11 - 11));
  CHECK(w.numbers[20] == T(21 - 16));

  // What was removed is free.
  opt.remove(a, gradus::removed_state::kept);
  CHECK_NOTHROW(opt.add("b", w.part(12, 8), spare.part(0, 8)));
  CHECK(refusal([&] { opt.add("a", w.part(10, 10), g.part(10, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
}

TEST_CASE("rebind: memory that another tensor uses is refused, one's own is not")
{
  arena<float> w(40), g(40), spare(40);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto a = opt.add("a", w.part(0, 10), g.part(0, 10));
  opt.add("b", w.part(10, 10), g.part(10, 10));
  CHECK(refusal([&] { opt.rebind(a, w.part(5, 10), g.part(0, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind(a, g.part(10, 10), spare.part(0, 10)); }) ==
        "gradus: parameters of tensor \"a\" overlap the gradients of tensor \"b\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind(a, w.part(0, 10), w.part(15, 10)); }) ==
        "gradus: gradients of tensor \"a\" overlap the parameters of tensor \"b\"; expected memory of their own");
  // It is where it was, and its place is taken still.
  opt.step();
  CHECK(w.numbers[0] == 0);
  CHECK_FALSE(refusal([&] { opt.add(w.part(3, 1), spare.part(0, 1)); }).empty());
  // Moved by less than its length, and onto its gradients' old place.
  opt.rebind(a, w.part(20, 10), g.part(10, 10));
  opt.rebind(a, w.part(25, 10), g.part(10, 10));
  opt.rebind(a, g.part(0, 10), spare.part(0, 10));
  opt.rebind(a, g.part(0, 10), spare.part(0, 10));
  CHECK_NOTHROW(opt.add("c", w.part(20, 20), spare.part(0, 20)));
  opt.step();
  CHECK(g.numbers[4] == 0);
}

TEST_CASE("rebind: several at once may take each other's places, all or none")
{
  arena<float> w(40), g(40);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto a = opt.add("a", w.part(0, 10), g.part(0, 10));
  const auto b = opt.add("b", w.part(10, 10), g.part(10, 10));
  const auto c = opt.add("c", w.part(20, 10), g.part(20, 10));
  using rebinding = decltype(opt)::rebinding;
  CHECK_FALSE(refusal([&] { opt.rebind(a, w.part(10, 10), g.part(10, 10)); }).empty());
  const std::vector<rebinding> round{{a, w.part(10, 10), g.part(10, 10)},
                                     {b, w.part(20, 10), g.part(20, 10)},
                                     {c, w.part(0, 10), g.part(0, 10)}};
  opt.rebind_spans(round);
  opt.step();
  CHECK(w.numbers == std::vector<float>([] {
          std::vector<float> v(40, 0.0f);
          for (std::size_t i = 30; i < 40; ++i)
            v[i] = float(i + 1);
          return v;
        }()));
  // The last of three is refused: nobody has moved.
  const std::vector<rebinding> bad{{a, w.part(0, 10), g.part(0, 10)},
                                   {b, w.part(30, 10), std::nullopt},
                                   {c, w.part(5, 10), g.part(0, 10)}};
  CHECK(refusal([&] { opt.rebind_spans(bad); }) ==
        "gradus: parameters of tensor \"c\" overlap the parameters of tensor \"a\"; expected memory of their own");
  CHECK(refusal([&] { opt.rebind_spans(std::vector<rebinding>{round[0], round[1], round[0]}); }) ==
        "gradus: tensor \"a\" occurs twice in the list; expected each tensor once");
  opt.step();
  CHECK(w.numbers[5] == -6);    // c's
  CHECK(w.numbers[15] == -16);  // a's
  CHECK(w.numbers[25] == -26);  // b's
  CHECK(w.numbers[35] == 36);
  CHECK_NOTHROW(opt.add("d", w.part(30, 10), g.part(0, 10)));
}

TEST_CASE("add, rebind, remove: in any order, what overlaps is refused and nothing else")
{
  support::random r(3);
  const auto below = [&](std::size_t n) { return std::size_t(r.uniform(0, double(n))); };
  arena<float> memory(300);
  struct known {
    gradus::tensor_handle handle;
    std::size_t n, w, g;
  };
  gradus::optimizer<gradus::sgd> opt;
  std::vector<known> all;
  int refused = 0, accepted = 0;
  for (int k = 0; k < 3000; ++k) {
    const std::size_t at = all.empty() ? 0 : below(2 * all.size());  // a tensor, or a new one
    const bool is_new = at >= all.size();
    const std::size_t n = is_new ? below(k % 2 ? 4 : 20) : all[at].n, w = below(300 - n), g = below(300 - n);
    if (!is_new && (all.size() > 12 || below(3) == 0)) {
      opt.remove(all[at].handle, gradus::removed_state::dropped);
      all.erase(all.begin() + std::ptrdiff_t(at));
      continue;
    }
    const auto meet = [](std::size_t a, std::size_t n_a, std::size_t b, std::size_t n_b) {
      return n_a > 0 && n_b > 0 && a < b + n_b && b < a + n_a;
    };
    bool overlaps = meet(w, n, g, n);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (is_new || i != at)
        overlaps = overlaps || meet(w, n, all[i].w, all[i].n) || meet(w, n, all[i].g, all[i].n) ||
                   meet(g, n, all[i].w, all[i].n);
    gradus::tensor_handle handle;
    const std::string sentence = refusal([&] {
      if (is_new)
        handle = opt.add(memory.part(w, n), memory.part(g, n));
      else
        opt.rebind(all[at].handle, memory.part(w, n), memory.part(g, n));
    });
    REQUIRE(sentence.empty() == !overlaps);
    (overlaps ? refused : accepted)++;
    if (!overlaps && is_new)
      all.push_back({handle, n, w, g});
    else if (!overlaps)
      all[at] = {all[at].handle, n, w, g};
  }
  CHECK(refused > 300);
  CHECK(accepted > 300);
}

TEST_CASE("rebind: a tensor whose memory was moved goes on with the same bits")
{
  auto model = tensors<float>(), unmoved = tensors<float>();
  gradus::optimizer<gradus::adams> opt(scheduled), reference(scheduled);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 3; ++i) {
    handles.push_back(opt.add(model[i].weights, model[i].gradients));
    reference.add(unmoved[i].weights, unmoved[i].gradients);
  }
  for (int t = 0; t < 10; ++t) {
    if (t % 3 == 2)
      for (std::size_t i = 0; i < 3; ++i) {
        // An odd place: memory need not be aligned to more than its elements.
        std::vector<float> w(1 + model[i].weights.size()), g(w.size() + 2);
        std::copy(model[i].weights.begin(), model[i].weights.end(), w.begin() + 1);
        model[i].weights.swap(w);
        model[i].gradients.swap(g);
        std::fill(w.begin(), w.end(), 1e9f);  // whoever still reads there is found out
        opt.rebind(handles[i], std::span(model[i].weights).subspan(1),
                   std::span<const float>(model[i].gradients).subspan(1, model[i].weights.size() - 1));
        model[i].weights.erase(model[i].weights.begin());
        opt.rebind(handles[i], model[i].weights, std::span(model[i].gradients).first(model[i].weights.size()));
      }
    for (auto* m : {&model, &unmoved})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    reference.step();
  }
  CHECK(same(model, unmoved));
}

TEST_CASE_TEMPLATE("remove: with its state kept, a tensor resumes under its name", Recipe, gradus::adam, gradus::sgd,
                   gradus::adams)
{
  Recipe recipe{};
  recipe.lr = 0.01;
  recipe.weight_decay = std::is_same_v<Recipe, gradus::adams> ? 20 : 0.01;  // so that v̄'s last bits reach the weights
  if constexpr (requires { recipe.momentum; })
    recipe.momentum = 0.9;
  auto model = tensors<float>({3, 2, 4}), uninterrupted = tensors<float>({3, 2, 4});
  gradus::optimizer<Recipe> opt(recipe), reference(recipe);
  std::vector<gradus::tensor_handle> handles;
  for (std::size_t i = 0; i < 3; ++i) {
    handles.push_back(opt.add("t" + std::to_string(i), model[i].weights, model[i].gradients));
    reference.add(uninterrupted[i].weights, uninterrupted[i].gradients);
  }
  std::vector<float> moved;
  for (int t = 0; t < 12; ++t) {
    if (t == 5) {
      // Between two steps the tensor goes and comes back, at another place in memory.
      opt.remove(handles[1], gradus::removed_state::kept);
      CHECK(opt.parameter_count() == 7);
      CHECK(opt.state_bytes() == reference.state_bytes());
      moved = model[1].weights;
      model[1].weights.swap(moved);
      handles[1] = opt.add("t1", model[1].weights, model[1].gradients);
      CHECK(opt.step_count(handles[1]) == 5);
      CHECK(opt.parameter_count() == reference.parameter_count());
    }
    for (auto* m : {&model, &uninterrupted})
      for (auto& x : *m)
        x.compute(t);
    opt.step();
    reference.step();
  }
  CHECK(same(model, uninterrupted));
}

TEST_CASE("add: a tensor that comes back stays in its group, unless told otherwise")
{
  tensor<float> a(3, 1);
  gradus::optimizer<gradus::sgd> opt({.lr = 1});
  const auto still = opt.add_group({.lr = 0});
  auto h = opt.add("a", a.weights, a.gradients, still);
  const auto start = a.weights;
  opt.step();
  opt.remove(h, gradus::removed_state::kept);
  h = opt.add("a", a.weights, a.gradients);
  opt.step();
  CHECK(same(a.weights, start));
  opt.remove(h, gradus::removed_state::kept);
  opt.add("a", a.weights, a.gradients, gradus::group_handle{});
  opt.step();
  CHECK_FALSE(same(a.weights, start));
}

TEST_CASE("add: a tensor that comes back to kept state of another length is refused")
{
  scene<gradus::adams> s, twin;
  for (auto* x : {&s, &twin})
    x->opt.remove(x->b, gradus::removed_state::kept);
  CHECK_THROWS_WITH_AS(s.opt.add("bias", s.weight, s.weight_gradient),
                       "gradus: size of parameters of tensor \"bias\" is 5; expected 3, the size of its state",
                       std::invalid_argument);
  CHECK(s.opt.parameter_count() == 5);
  for (auto* x : {&s, &twin}) {
    x->b = x->opt.add("bias", x->bias, x->bias_gradient);
    x->opt.step();
  }
  CHECK((s.image() == twin.image()));
}

TEST_CASE("remove: with its state dropped, a tensor starts afresh")
{
  tensor<float> a(30, 1), b(20, 2), alone(20, 2);
  gradus::optimizer<gradus::adam> opt({.lr = 0.01}), fresh({.lr = 0.01});
  opt.add("a", a.weights, a.gradients);
  const auto old = opt.add("b", b.weights, b.gradients);
  opt.step();
  opt.step();
  opt.remove(old, gradus::removed_state::dropped);
  CHECK(opt.state_bytes() == 8 * 30);
  b = tensor<float>(20, 2);
  const auto h = opt.add("b", b.weights, b.gradients);
  CHECK(opt.step_count(h) == 0);
  fresh.add(alone.weights, alone.gradients);
  for (int t = 0; t < 3; ++t) {
    opt.step();
    fresh.step();
  }
  CHECK(same(b.weights, alone.weights));
}

TEST_CASE("add: a tensor without a name never takes another's state")
{
  tensor<float> a(3, 1), b(3, 2);
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add("tensor1", a.weights, a.gradients);
  opt.step();
  opt.remove(h, gradus::removed_state::kept);
  CHECK(opt.step_count(opt.add(b.weights, b.gradients)) == 0);
}

TEST_CASE("add, remove: many tensors that come and go leave the others alone")
{
  tensor<float> stays(11, 1), alone(11, 1), guest(7, 2);
  gradus::optimizer<gradus::adam> opt, reference;
  opt.add(stays.weights, stays.gradients);
  reference.add(alone.weights, alone.gradients);
  for (int t = 0; t < 100; ++t) {
    const auto h = opt.add(guest.weights, guest.gradients);
    CHECK(opt.step_count(h) == 0);
    opt.step();
    reference.step();
    opt.remove(h, gradus::removed_state::dropped);
  }
  CHECK(same(stays.weights, alone.weights));
  CHECK(opt.parameter_count() == 11);
  CHECK(opt.state_bytes() == 88);
}

TEST_CASE_TEMPLATE("add: without gradients, a tensor stands still until it has some", T, float, double)
{
  tensor<T> a(37, 1), alone(37, 1);
  const auto start = a.weights;
  gradus::optimizer<gradus::adams, T> opt(scheduled), fresh(scheduled);
  const auto h = opt.add_spans("a", a.weights, std::nullopt);
  const auto report = opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
  CHECK(report.applied);
  CHECK(report.grad_norm == 0);
  CHECK(report.mean_square == 0);
  CHECK(refusal([&] { opt.unfreeze(h); }) == "gradus: tensor \"a\" has no gradients; expected "
                                             "rebind_gradients(tensor, gradients) before unfreeze(tensor)");
  // Whatever a visitor writes, no step reads gradients that are not there.
  for (const bool written : {true, false, true}) {
    opt.visit_tensors([&](std::string_view, auto, std::size_t, bool& takes_part) { takes_part = written; });
    opt.step();
  }
  CHECK(same(a.weights, start));
  CHECK(opt.step_count(h) == 0);
  opt.rebind_gradients_spans(h, a.gradients);
  fresh.add(alone.weights, alone.gradients);
  opt.step();
  fresh.step();
  CHECK(same(a.weights, alone.weights));
  // And back again: its state stays.
  opt.rebind_spans(h, a.weights, std::nullopt);
  opt.step();
  CHECK(same(a.weights, alone.weights));
  opt.rebind_spans(h, a.weights, a.gradients);
  opt.step();
  fresh.step();
  CHECK(same(a.weights, alone.weights));
  CHECK(opt.step_count(h) == 2);
}

TEST_CASE("unbind_gradients: steps skip the tensor, and its memory may be another's")
{
  tensor<float> a(5, 1), b(5, 2);
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add("a", a.weights, a.gradients);
  opt.step();
  const auto start = a.weights;
  opt.unbind_gradients(h);
  opt.unbind_gradients(h);  // it has none
  opt.step();
  CHECK(same(a.weights, start));
  CHECK(opt.step_count(h) == 1);
  opt.add("b", a.gradients, b.gradients);  // they are weights now
  opt.rebind_gradients(h, b.gradients);
  opt.step();
  CHECK(opt.step_count(h) == 2);
  opt.remove(h, gradus::removed_state::dropped);
  CHECK(refusal([&] { opt.unbind_gradients(h); }) ==
        "gradus: tensor is removed, or of another optimizer; expected one that add of this optimizer returned");
}

TEST_CASE("rebind_gradients: a frozen tensor stays frozen")
{
  tensor<float> a(5, 1), b(6, 2);
  const auto start = a.weights;
  gradus::optimizer<gradus::adam> opt;
  const auto h = opt.add_spans("a", a.weights, std::nullopt);
  opt.add(b.weights, b.gradients);
  opt.freeze(h);
  opt.rebind_gradients_spans(h, a.gradients);
  opt.step();
  CHECK(same(a.weights, start));
  opt.unfreeze(h);
  opt.step();
  CHECK_FALSE(same(a.weights, start));
  CHECK(refusal([&] { opt.rebind_gradients_spans(h, b.gradients); }) ==
        "gradus: size of gradients of tensor \"a\" is 6; expected 5, the size of its parameters");
  CHECK(refusal([&] { opt.rebind_gradients_spans(h, std::span<const float>(b.weights).first(5)); }) ==
        "gradus: gradients of tensor \"a\" overlap the parameters of tensor \"tensor1\"; expected memory of their own");
  // A visitor that leaves it as it is does not leave it out.
  const auto h2 = opt.add_spans("c", std::span(b.gradients).first(0), std::nullopt);
  opt.visit_tensors([](std::string_view, auto, std::size_t, bool&) {});
  opt.rebind_gradients_spans(h2, {});
  opt.step();
  CHECK(opt.step_count(h2) == 1);
}

TEST_CASE("handles: of tensors that were removed, or are of another optimizer, are refused")
{
  const std::string message =
      "gradus: tensor is removed, or of another optimizer; expected one that add of this optimizer returned";
  scene<gradus::adams> other;
  const auto check_all = [&](const gradus::tensor_handle& h) {
    check_refused(message, [&](auto& s) { s.opt.rebind(h, s.spare, s.spare_gradient); });
    check_refused(message, [&](auto& s) { s.opt.freeze(h); });
    check_refused(message, [&](auto& s) { s.opt.unfreeze(h); });
    check_refused(message, [&](auto& s) { s.opt.remove(h, gradus::removed_state::dropped); });
    check_refused(message, [&](auto& s) { s.opt.remove(h, gradus::removed_state::kept); });
    check_refused(message, [&](auto& s) { s.opt.step_count(h); });
  };
  check_all(other.w);
  check_all({});

  // A handle ends with its tensor, even if another one comes to stand in its place or under its name.
  for (const auto state : {gradus::removed_state::dropped, gradus::removed_state::kept}) {
    scene<gradus::adams> s;
    const auto old = s.b;
    s.opt.remove(old, state);
    CHECK_THROWS_WITH_AS(s.opt.step_count(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.remove(old, state), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.unfreeze(old), message.c_str(), std::invalid_argument);
    s.b = s.opt.add("bias", s.bias, s.bias_gradient, s.undecayed);
    const std::string before = s.image();
    CHECK_THROWS_WITH_AS(s.opt.step_count(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.freeze(old), message.c_str(), std::invalid_argument);
    CHECK_THROWS_WITH_AS(s.opt.remove(old, state), message.c_str(), std::invalid_argument);
    CHECK((s.image() == before));
    CHECK_NOTHROW(s.opt.freeze(s.b));
  }
}
