// Any calls at all, in any order: a libFuzzer target whose bytes are read as calls of an optimizer. After each step the
// weights, state and report are those of a naive model in double (naive.hpp), after each load those that were saved, and
// the next step has the same bits; what is invalid, often on purpose, is refused with a sentence and changes nothing.
//
// `./dev fuzz` runs it; alone.cpp makes it a program that needs no libFuzzer, for the tests.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/backend/scalar.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

#include "fuzz/naive.hpp"
#include "support/checkpoint.hpp"
#include "support/random.hpp"

namespace {

struct {
  unsigned long long histories, calls, steps, refusals, loads;
} done = {};

// With GRADUS_FUZZ_TRACE in the environment each call is printed.
void trace(const std::string& line)
{
  static const bool on = std::getenv("GRADUS_FUZZ_TRACE") != nullptr;
  if (on)
    std::fprintf(stderr, "%s\n", line.c_str());
}

[[noreturn]] void fault(const std::string& sentence)
{
  std::fprintf(stderr, "fuzz/api: %s\n", sentence.c_str());
  std::abort();
}

constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

// Decisions from bytes; zeros after their end.
class decisions {
 public:
  decisions(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool any() const { return at_ < size_; }
  std::size_t below(std::size_t n) { return at_ < size_ ? data_[at_++] % n : 0; }
  bool one_in(std::size_t n) { return below(n) == n - 1; }
  template <std::size_t N>
  double of(const double (&numbers)[N])
  {
    return numbers[below(N)];
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

template <class Recipe>
constexpr naive::kind kind_of = std::is_same_v<Recipe, gradus::sgd>     ? naive::kind::sgd
                                : std::is_same_v<Recipe, gradus::adam>  ? naive::kind::adam
                                : std::is_same_v<Recipe, gradus::adamw> ? naive::kind::adamw
                                : std::is_same_v<Recipe, gradus::adams> ? naive::kind::adams
                                                                        : naive::kind::amsgrad;

template <class Recipe>
Recipe recipe_of(const naive::group& h)
{
  if constexpr (std::is_same_v<Recipe, gradus::sgd>)
    return {h.lr, h.momentum, h.dampening, h.nesterov, h.weight_decay};
  else
    return {h.lr, h.beta1, h.beta2, h.eps, h.weight_decay};
}
template <class Recipe>
naive::group group_of(const Recipe& r, double lr_scale)
{
  naive::group h;
  h.lr = r.lr;
  h.weight_decay = r.weight_decay;
  h.lr_scale = lr_scale;
  if constexpr (std::is_same_v<Recipe, gradus::sgd>) {
    h.momentum = r.momentum;
    h.dampening = r.dampening;
    h.nesterov = r.nesterov;
  } else {
    h.beta1 = r.beta1;
    h.beta2 = r.beta2;
    h.eps = r.eps;
  }
  return h;
}

template <class Recipe, class Backend>
class history {
  static constexpr naive::kind kind = kind_of<Recipe>;
  using optimizer = gradus::optimizer<Recipe, double, Backend>;
  using memory = std::vector<double>;
  static constexpr std::size_t places = 640, longest = 48;

  struct tracked : naive::tensor {
    gradus::tensor_handle handle;
    std::size_t w_at = 0, g_at = 0;  // in memory
    double largest = 0;              // weight that it ever had
  };

 public:
  history(const std::uint8_t* data, std::size_t size) : in(data, size)
  {
    groups.push_back(valid_hyperparameters());
    opt.set_hyperparameters(recipe_of<Recipe>(groups[0]));
    stranger_group = stranger.add_group(Recipe{.lr = 0.5});
    stranger_tensor = stranger.add("a stranger's", strangers[0], strangers[1]);
  }

  void run()
  {
    for (int n = 0; in.any() && n < 250; ++n) {
      one_call();
      ++done.calls;
    }
    check_everything();
    ++done.histories;
  }

 private:
  void one_call()
  {
    switch (in.below(32)) {
    case 0:
    case 1:
    case 2:
    case 3: return add();
    case 4: return remove();
    case 5: return freeze(true);
    case 6: return freeze(false);
    case 7: return add_group();
    case 8: return regroup();
    case 9: return rebind();
    case 10: return rebind_several();
    case 11: return set_hyperparameters();
    case 12: return set_rates();
    case 13: return gradients_come_and_go();
    case 14: return write_state();
    case 15: return save();
    case 16: return load();
    case 17: return go_on_in_another();
    case 18: return move();
    case 19: return visit();
    case 20: return set_in_norm();
    case 21: return ask();
    case 22: return set_padding();
    default: return step();
    }
  }

  // ── calls that must be refused change nothing ────────────────────────────────────────────────────────────────────

  // Whether f was accepted. It must be exactly unless `refused`.
  template <class F>
  bool call(const char* what, bool refused, const F& f)
  {
    trace(std::string(what) + (refused ? ", to be refused" : ""));
    std::string before;
    if (refused)
      before = support::checkpoint_of(opt);
    try {
      f();
    } catch (const std::invalid_argument& e) {
      const std::string said = e.what();
      if (!refused)
        fault(std::string(what) + " was refused: " + said);
      check_sentence(what, said);
      if (support::checkpoint_of(opt) != before)
        fault(std::string(what) + " was refused and changed something: " + said);
      ++done.refusals;
      return false;
    }
    if (refused)
      fault(std::string(what) + " was accepted; expected a refusal");
    return true;
  }
  static void check_sentence(const char* what, const std::string& said)
  {
    if (!said.starts_with("gradus: ") || said.size() < 30 || said.find("expected") == std::string::npos)
      fault(std::string(what) + " was refused with \"" + said + "\", which is no sentence");
  }

  // ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────

  naive::group valid_hyperparameters()
  {
    naive::group h;
    h.lr = in.of({1e-3, 0.1, 1, 0});
    h.weight_decay = in.of({0.01, 0, 0.3});
    if constexpr (kind == naive::kind::sgd) {
      h.momentum = in.of({0.9, 0, 0.5});
      h.dampening = in.of({0, 0.25});
      h.nesterov = h.momentum > 0 && h.dampening == 0 && in.one_in(2);
    } else {
      h.beta1 = in.of({0.9, 0.5, 0});
      h.beta2 = in.of({0.999, 0.5, 0.9, 0});
      h.eps = in.of({1e-8, 1e-3});
    }
    return h;
  }
  // Makes one number invalid.
  void spoil(naive::group& h)
  {
    const double bad = in.of({nan, -1, infinity, 1.5, -infinity});
    switch (in.below(4)) {
    case 0: h.lr = bad == 1.5 ? nan : bad; return;
    case 1: h.weight_decay = bad == 1.5 ? -0.5 : bad; return;
    case 2: (kind == naive::kind::sgd ? h.momentum : h.beta1) = bad; return;
    default:
      if (kind != naive::kind::sgd)
        h.beta2 = bad;
      else {
        h.nesterov = true;
        h.dampening = 0.5;
      }
    }
  }

  tracked* any_tensor(bool attached)
  {
    std::vector<tracked*> all;
    for (tracked& x : tensors)
      if (x.attached == attached)
        all.push_back(&x);
    return all.empty() ? nullptr : all[in.below(all.size())];
  }
  // A handle that is none of this optimizer's, or no longer.
  gradus::tensor_handle bad_handle()
  {
    switch (in.below(3)) {
    case 0: return {};
    case 1: return stranger_tensor;
    default: return stale.empty() ? gradus::tensor_handle() : stale[in.below(stale.size())];
    }
  }

  struct interval {
    std::size_t begin, end;
    bool meets(const interval& o) const { return begin < o.end && o.begin < end && begin < end && o.begin < o.end; }
  };
  static interval weights_of(const tracked& x) { return {x.w_at, x.w_at + x.w.size()}; }
  static interval gradients_of(const tracked& x) { return {x.g_at, x.bound ? x.g_at + x.w.size() : x.g_at}; }
  // Whether weights and gradients would meet what they must not, in the tensors but `but`.
  bool overlaps(interval w, interval g, const std::vector<const tracked*>& but) const
  {
    if (w.meets(g))
      return true;
    for (const tracked& x : tensors)
      if (x.attached && std::find(but.begin(), but.end(), &x) == but.end())
        if (w.meets(weights_of(x)) || w.meets(gradients_of(x)) || g.meets(weights_of(x)))
          return true;
    return false;
  }
  // Mostly where weights are at home, or gradients; sometimes anywhere.
  std::size_t any_place(bool of_weights)
  {
    const std::size_t wide = in.below(8), slot = in.below(16);
    if (wide == 7)
      return slot * (places - longest) / 16 + in.below(7);
    return (of_weights ? 0 : places / 2) + slot % 6 * longest + (wide == 6 ? 3 : 0);
  }
  std::span<double> weights_at(std::size_t at, std::size_t n) { return std::span(*arena).subspan(at, n); }
  std::span<const double> gradients_at(std::size_t at, std::size_t n) { return weights_at(at, n); }
  // Spans that no call may take: null, misaligned, or of another size.
  template <class X>
  std::span<X> bad_span(std::span<X> good)
  {
    switch (in.below(3)) {
    case 0: return {static_cast<X*>(nullptr), good.size()};
    case 1: {
      std::uintptr_t odd;
      X* const even = good.data();
      std::memcpy(&odd, &even, sizeof odd);
      ++odd;
      X* misaligned;
      std::memcpy(&misaligned, &odd, sizeof odd);
      return {misaligned, good.size()};
    }
    default: return {good.data(), good.size() + 1};
    }
  }

  // ── tensors come, go and move ────────────────────────────────────────────────────────────────────────────────────

  void add()
  {
    const std::size_t kind_of_name = in.below(8);
    tracked* const kept = kind_of_name >= 5 ? any_tensor(false) : nullptr;
    tracked* const taken = kind_of_name == 4 ? any_tensor(true) : nullptr;
    std::string name = "t" + std::to_string(tensors_made++);
    if (kind_of_name == 3)
      name = std::array{"a/b\"\n", "sp\xc3\xa4te", "state/x/exp_avg", "\\u0041"}[in.below(4)] + name;
    if (kept)
      name = kept->name;
    if (taken)
      name = taken->name;
    const bool unnamed = kind_of_name == 2;
    if (tensors.size() >= 24 && !kept)
      return;

    std::size_t n = kept && !in.one_in(6) ? kept->w.size() : in.one_in(8) ? 0 : 1 + in.below(longest - 1);
    bool refused = taken || (kept && kept->w.size() != n);
    tracked x;
    x.w_at = any_place(true);
    x.g_at = any_place(false);
    x.bound = !in.one_in(5);
    std::span<double> w = weights_at(x.w_at, n);
    std::optional<std::span<const double>> g;
    if (x.bound)
      g = gradients_at(x.g_at, n);
    refused = refused || overlaps({x.w_at, x.w_at + n}, {x.g_at, x.bound ? x.g_at + n : x.g_at}, {});
    const std::size_t bad = in.below(12);
    if (bad == 11 && n > 0) {
      // Without gradients, weights of another size are weights.
      if (const auto spoilt = bad_span(w); x.bound || spoilt.size() == n) {
        w = spoilt;
        refused = true;
      }
    } else if (bad == 10 && n > 0 && x.bound) {
      g = bad_span(*g);
      refused = true;
    }
    std::optional<gradus::group_handle> in_group;
    x.group = kept ? kept->group : 0;
    if (const std::size_t place = in.below(4); place == 1 || place == 2) {
      x.group = in.below(groups.size());
      in_group = opt.group_at(x.group);
    } else if (place == 3 && in.one_in(4)) {
      in_group = stranger_group;
      refused = true;
    }
    std::vector<std::uint8_t> mask;
    const bool masked = in.one_in(4);
    if (masked) {
      mask.resize(n);
      for (auto& is_trained : mask)
        is_trained = noise.chance(0.6);
      x.trained.assign(mask.begin(), mask.end());
      if (in.one_in(6)) {
        mask.push_back(1);
        refused = true;
      }
    }
    const gradus::trained_mask trained(mask);

    if (!call("add", refused,
              [&] { x.handle = opt.add_spans(unnamed ? "" : name, w, g, in_group, masked ? &trained : nullptr); }))
      return;
    x.w.assign(w.begin(), w.end());
    x.name = unnamed ? name_of_newest() : name;
    if (kept) {
      x.m = kept->m;
      x.v = kept->v;
      x.top = kept->top;
      x.t = kept->t;
      x.counted = kept->counted;
      if (!masked) {
        x.trained = kept->trained;
        x.padding = kept->padding;
      }
      forget_momentum(x, groups[kept->group], groups[x.group]);
      *kept = std::move(x);
    } else {
      x.m.assign(n, 0);
      x.v.assign(n, 0);
      x.top.assign(n, 0);
      tensors.push_back(std::move(x));
    }
  }
  std::string name_of_newest()
  {
    std::string found;
    std::as_const(opt).visit_tensors([&](std::string_view name, auto, std::size_t, const bool&) {
      if (std::none_of(tensors.begin(), tensors.end(), [&](const tracked& x) { return x.name == name; }))
        found = name;
    });
    if (found.empty())
      fault("add without a name added nothing");
    return found;
  }
  // A buffer that either group does not keep is none, and a new one is zeros.
  static void forget_momentum(tracked& x, const naive::group& from, const naive::group& to)
  {
    if (kind == naive::kind::sgd && (from.momentum == 0 || to.momentum == 0))
      x.m.assign(x.w.size(), 0);
  }

  void remove()
  {
    const auto state = in.one_in(2) ? gradus::removed_state::kept : gradus::removed_state::dropped;
    tracked* const x = in.one_in(6) ? nullptr : any_tensor(true);
    if (!x)
      return void(call("remove by a bad handle", true, [&] { opt.remove(bad_handle(), state); }));
    call("remove", false, [&] { opt.remove(x->handle, state); });
    detach(*x, state);
  }
  void detach(tracked& x, gradus::removed_state state)
  {
    stale.push_back(x.handle);
    if (state == gradus::removed_state::kept) {
      x.attached = x.bound = x.frozen = false;
    } else
      tensors.erase(tensors.begin() + (&x - tensors.data()));
  }

  void freeze(bool frozen)
  {
    tracked* const x = in.one_in(6) ? nullptr : any_tensor(true);
    const gradus::tensor_handle h = x ? x->handle : bad_handle();
    if (frozen ? call("freeze", !x, [&] { opt.freeze(h); })
               : call("unfreeze", !x || !x->bound, [&] { opt.unfreeze(h); }))
      x->frozen = frozen;
  }

  void regroup()
  {
    tracked* const x = any_tensor(true);
    if (!x)
      return;
    const std::size_t to = in.below(groups.size());
    call("remove", false, [&] { opt.remove(x->handle, gradus::removed_state::kept); });
    stale.push_back(x->handle);
    std::optional<std::span<const double>> g;
    if (x->bound)
      g = gradients_at(x->g_at, x->w.size());
    call("add to another group", false,
         [&] { x->handle = opt.add_spans(x->name, weights_at(x->w_at, x->w.size()), g, opt.group_at(to)); });
    forget_momentum(*x, groups[x->group], groups[to]);
    x->group = to;
    x->frozen = false;
  }

  void rebind()
  {
    tracked* const x = in.one_in(8) ? nullptr : any_tensor(true);
    const std::size_t n = x ? x->w.size() : 1, w_at = any_place(true), g_at = any_place(false);
    const bool bound = !in.one_in(5);
    std::span<double> w = weights_at(w_at, n);
    std::optional<std::span<const double>> g;
    if (bound)
      g = gradients_at(g_at, n);
    bool refused = !x || overlaps({w_at, w_at + n}, {g_at, bound ? g_at + n : g_at}, {x});
    if (in.one_in(10) && n > 0) {
      w = bad_span(w);
      refused = true;
    }
    const gradus::tensor_handle h = x ? x->handle : bad_handle();
    if (!call("rebind", refused, [&] { opt.rebind_spans(h, w, g); }))
      return;
    x->w_at = w_at;
    x->g_at = g_at;
    x->bound = bound;
    if (in.one_in(2))  // a program copies the weights, or has others there
      std::copy(x->w.begin(), x->w.end(), w.begin());
    else
      x->w.assign(w.begin(), w.end());
  }

  // Two tensors exchange their memory, or move elsewhere together.
  void rebind_several()
  {
    tracked *const a = any_tensor(true), *const b = any_tensor(true);
    if (!a || !b)
      return;
    const bool swaps = in.one_in(2);
    const std::size_t a_w = swaps ? b->w_at : any_place(true), b_w = swaps ? a->w_at : any_place(true),
                      a_g = swaps ? b->g_at : a->g_at, b_g = swaps ? a->g_at : b->g_at, n = a->w.size(),
                      m = b->w.size();
    // Gradients overwrite in part what the other tensor's are made of; that is theirs.
    if (std::max({a_w + n, b_w + m, a_g + n, b_g + m}) > places)
      return;
    const interval new_a{a_w, a_w + n}, new_b{b_w, b_w + m}, new_ag{a_g, a_g + n}, new_bg{b_g, b_g + m};
    const bool refused = a == b || overlaps(new_a, new_ag, {a, b}) || overlaps(new_b, new_bg, {a, b}) ||
                         new_a.meets(new_b) || new_a.meets(new_bg) || new_b.meets(new_ag);
    using rebinding = typename optimizer::rebinding;
    const rebinding both[] = {{a->handle, weights_at(a_w, n), gradients_at(a_g, n)},
                              {b->handle, weights_at(b_w, m), gradients_at(b_g, m)}};
    if (!call("rebind of two", refused, [&] { opt.rebind_spans(both); }))
      return;
    a->w_at = a_w;
    a->g_at = a_g;
    b->w_at = b_w;
    b->g_at = b_g;
    a->bound = b->bound = true;
    std::copy(a->w.begin(), a->w.end(), arena->begin() + std::ptrdiff_t(a_w));
    std::copy(b->w.begin(), b->w.end(), arena->begin() + std::ptrdiff_t(b_w));
  }

  void gradients_come_and_go()
  {
    tracked* const x = in.one_in(8) ? nullptr : any_tensor(true);
    const gradus::tensor_handle h = x ? x->handle : bad_handle();
    if (in.one_in(2)) {
      if (call("unbind_gradients", !x, [&] { opt.unbind_gradients(h); }))
        x->bound = false;
      return;
    }
    const std::size_t n = x ? x->w.size() : 1, g_at = any_place(false);
    std::span<const double> g = gradients_at(g_at, n);
    bool refused = !x || overlaps(weights_of(*x), {g_at, g_at + n}, {x});
    if (in.one_in(8) && n > 0) {
      g = bad_span(g);
      refused = true;
    }
    if (call("rebind_gradients", refused, [&] { opt.rebind_gradients(h, g); })) {
      x->g_at = g_at;
      x->bound = true;
    }
  }

  void set_in_norm()
  {
    tracked* const x = in.one_in(8) ? nullptr : any_tensor(true);
    const bool counted = in.one_in(2);
    const gradus::tensor_handle h = x ? x->handle : bad_handle();
    if (call("set_in_norm", !x,
             [&] { opt.set_in_norm(h, counted ? gradus::in_norm::counted : gradus::in_norm::counted_elsewhere); }))
      x->counted = counted;
  }

  // The state of padding becomes 0, and its gradients are 0 from then on.
  void set_padding()
  {
    tracked* const x = in.one_in(8) ? nullptr : any_tensor(true);
    const gradus::tensor_handle h = x ? x->handle : bad_handle();
    std::vector<std::uint8_t> mask(x ? x->w.size() : 1);
    for (auto& is_padding : mask)
      is_padding = noise.chance(0.3);
    bool refused = !x || !x->trained.empty();
    if (in.one_in(6)) {
      mask.push_back(0);
      refused = true;
    }
    if (!call("set_padding", refused, [&] { opt.set_padding(h, mask); }))
      return;
    x->padding.assign(mask.begin(), mask.end());
    for (std::size_t i = 0; i < mask.size(); ++i)
      if (mask[i])
        x->m[i] = x->v[i] = x->top[i] = 0;
  }

  // ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────

  void add_group()
  {
    if (groups.size() >= 6)
      return;
    naive::group h = valid_hyperparameters();
    h.lr_scale = in.of({1, 0.5, 0, 3});
    bool refused = false;
    if (in.one_in(4)) {
      in.one_in(4) ? void(h.lr_scale = in.of({nan, -1, infinity})) : spoil(h);
      refused = true;
    }
    if (call("add_group", refused, [&] { opt.add_group(recipe_of<Recipe>(h), {.lr_scale = h.lr_scale}); }))
      groups.push_back(h);
  }

  void set_hyperparameters()
  {
    const bool foreign = in.one_in(12);
    const std::size_t g = in.below(groups.size());
    naive::group h = valid_hyperparameters();
    h.lr_scale = groups[g].lr_scale;
    const bool refused = in.one_in(4);
    if (refused)
      spoil(h);
    if (!call("set_hyperparameters", refused || foreign,
              [&] { opt.set_hyperparameters(recipe_of<Recipe>(h), foreign ? stranger_group : opt.group_at(g)); }))
      return;
    for (tracked& x : tensors)
      if (x.group == g)
        forget_momentum(x, groups[g], h);
    groups[g] = h;
  }

  void set_rates()
  {
    const std::size_t g = in.below(groups.size());
    const double number = in.of({0.5, 0, 0.01, 2, nan, -1, infinity});
    const bool refused = !(number >= 0 && number < 3);
    if (in.one_in(2)) {
      if (call("set_lr", refused, [&] { opt.set_lr(number, opt.group_at(g)); }))
        groups[g].lr = number;
    } else if (call("set_lr_scale", refused, [&] { opt.set_lr_scale(number, opt.group_at(g)); }))
      groups[g].lr_scale = number;
  }

  // ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

  void new_gradients()
  {
    const double size = in.of({1, 0.01, 50, 0});
    for (const tracked& x : tensors)
      if (x.attached && x.bound)
        for (double& g : weights_at(x.g_at, x.w.size()))
          g = noise.chance(0.1) ? 0 : size * noise.uniform(-1, 1);
    for (const tracked& x : tensors)
      for (std::size_t i = 0; x.attached && x.bound && i < x.padding.size(); ++i)
        if (x.padding[i])
          weights_at(x.g_at + i, 1)[0] = 0;
    for (tracked& x : tensors)
      if (x.attached && x.bound)
        read_gradients(x);
    for (tracked& x : tensors)
      for (const double w : x.w)
        x.largest = std::fmax(x.largest, std::fabs(w));
  }
  void read_gradients(tracked& x)
  {
    const auto g = gradients_at(x.g_at, x.w.size());
    x.g.assign(g.begin(), g.end());
  }

  void step()
  {
    new_gradients();
    naive::options o;
    gradus::step_options told;
    bool refused = std::none_of(tensors.begin(), tensors.end(), [](const tracked& x) { return x.attached; });
    const std::size_t ages = naive::ages(tensors, groups), elements = naive::counted_elements(tensors);
    const std::size_t which = in.below(4);  // a plain step, or one with options
    bool given = false, poisoned = false;
    if (which != 0) {
      o.lr_scale = told.lr_scale = in.of({1, 0.5, 0, 2});
      o.decay_scale = told.decay_scale = in.of({1, 0.5, 0});
      o.grad_scale = told.grad_scale = in.of({1, 0.5, 3});
      o.maximize = told.maximize = in.one_in(4);
      o.skip_nonfinite = told.skip_nonfinite = in.one_in(3);
      told.flush_denormals = in.one_in(4);
      if (in.one_in(3))
        o.max_grad_norm = told.max_grad_norm = in.of({0.5, 20, infinity});
      if (in.one_in(5)) {
        o.lr = told.lr = in.of({0.01, 0, 0.3});
        refused = refused || o.lr_scale != 1;
      }
    }
    if (which >= 2) {
      if (in.one_in(4)) {
        o.mean_square = told.mean_square = in.of({0.25, 4, 0});
      }
      given = in.one_in(4);
      if (given) {
        o.grad_norm_sq = told.grad_norm_sq = naive::squares(tensors);
        refused = refused || (kind == naive::kind::adams && !o.mean_square && ages > 1);
      }
      if (in.one_in(5)) {
        const std::size_t other = in.below(3);
        told.model_size = other == 0 ? elements : other == 1 ? elements + 7 : elements / 2;
        refused = refused || *told.model_size < elements ||
                  (kind == naive::kind::adams && !o.mean_square && other == 1 && !given);
        if (other == 1 && given && kind == naive::kind::adams)
          told.model_size.reset();  // it says that the norm is a larger model's
      }
    }
    if (which == 3) {
      poisoned = !given && in.one_in(4) && poison();
      if (poisoned)
        o.skip_nonfinite = told.skip_nonfinite = true;
      if (in.one_in(4)) {
        refused = true;
        const double bad = in.of({nan, -1, infinity, -infinity});
        switch (in.below(7)) {
        case 0: told.lr_scale = bad; break;
        case 1: told.decay_scale = bad; break;
        case 2: told.grad_scale = in.one_in(2) ? 0 : bad; break;
        case 3: told.max_grad_norm = std::isnan(bad) ? nan : in.one_in(2) ? 0 : -1; break;
        case 4: told.grad_norm_sq = -1; break;
        case 5: told.mean_square = bad; break;
        default: told.lr_scale = 1; told.lr = bad;
        }
      }
    }

    const auto show = [](std::optional<double> x) { return x ? gradus::detail::show(*x) : std::string("-"); };
    trace("lr_scale " + show(told.lr_scale) + " lr " + show(told.lr) + " decay_scale " + show(told.decay_scale) +
          " grad_scale " + show(told.grad_scale) + " max_grad_norm " + show(told.max_grad_norm) + " grad_norm_sq " +
          show(told.grad_norm_sq) + " mean_square " + show(told.mean_square) + " model_size " +
          (told.model_size ? std::to_string(*told.model_size) : "-") + (told.maximize ? " maximize" : "") +
          (told.skip_nonfinite ? " skip_nonfinite" : "") + (poisoned ? " poisoned" : ""));
    const std::map<std::string, std::string> before = poisoned ? everything(opt) : std::map<std::string, std::string>();
    gradus::step_report said;
    for (const tracked& x : tensors)
      trace("  " + x.name + ": " + std::to_string(x.w.size()) + " in group " + std::to_string(x.group) + ", " +
            std::to_string(x.t) + " steps" + (x.attached ? "" : ", removed") + (x.bound ? "" : ", no gradients") +
            (x.frozen ? ", frozen" : "") + (x.counted ? "" : ", counted elsewhere") +
            (x.trained.empty() ? "" : ", masked"));
    const bool taken = call("step", refused, [&] { said = opt.step(told); });
    for (double& x : *arena)  // what was poison may become a weight
      x = std::isfinite(x) || !poisoned ? x : 0;
    if (!taken)
      return;
    ++done.steps;
    const naive::report r = naive::step(kind, tensors, groups, o);
    if (said.applied != r.applied)
      fault(said.applied ? "a step was applied" : "a step was skipped");
    const bool measured = given || o.max_grad_norm || o.skip_nonfinite ||
                          (kind == naive::kind::adams && !o.mean_square);
    if (measured != said.grad_norm.has_value())
      fault("a step reports a norm, or none, against expectation");
    if (measured && !poisoned && !near(*said.grad_norm, r.norm))
      fault("the norm is " + gradus::detail::number_text(*said.grad_norm, 17) + "; expected " +
            gradus::detail::number_text(r.norm, 17));
    if (!r.applied) {
      if (everything(opt) != before)
        fault("a skipped step changed something");
      return;
    }
    if (said.mean_square.has_value() != (kind == naive::kind::adams))
      fault("a step reports a mean, or none, against expectation");
    if (kind == naive::kind::adams) {
      if (!near(*said.mean_square, r.mean_square))
        fault("the mean is " + gradus::detail::number_text(*said.mean_square, 17) + "; expected " +
              gradus::detail::number_text(r.mean_square, 17));
      if (said.decay_clamped != r.clamped && !r.barely)
        fault("the decay was clamped, or not, against expectation");
    }
    compare(true);
  }

  // An infinity or NaN among the gradients that count.
  bool poison()
  {
    const double bad = in.of({nan, infinity, -infinity});
    for (tracked& x : tensors)
      if (x.takes_part() && x.counted && !x.w.empty()) {
        const std::size_t i = in.below(x.w.size());
        if (!x.counts(i))
          continue;
        weights_at(x.g_at + i, 1)[0] = bad;
        for (tracked& y : tensors)
          if (y.attached && y.bound)
            read_gradients(y);
        return true;
      }
    return false;
  }

  static bool near(double a, double b, double scale = 0)
  {
    if (a == b || (std::isnan(a) && std::isnan(b)))
      return true;
    return std::isfinite(a) && std::isfinite(b) &&
           std::fabs(a - b) <= 1e-10 * (std::fabs(a) + std::fabs(b) + scale) + 1e-300;
  }

  // Weights, state and step counts are the model's, which then takes over their last digits.
  void compare(bool and_state)
  {
    for (tracked& x : tensors) {
      if (and_state)
        for_each_slot(x, [&](const char* slot, std::vector<double>& expected) {
          const std::span<const double> found = std::as_const(opt).state(x.name, slot);
          for (std::size_t i = 0; i < expected.size(); ++i)
            if (!near(found[i], expected[i], slot == std::string_view("exp_avg") ? 50 : 0) &&
                !near(found[i], expected[i], std::fabs(x.largest)))
              fault(std::string(slot) + " " + std::to_string(i) + " of tensor " + x.name + " is " +
                    gradus::detail::number_text(found[i], 17) + "; expected " +
                    gradus::detail::number_text(expected[i], 17));
          expected.assign(found.begin(), found.end());
        });
      if (x.attached) {
        if (opt.step_count(x.handle) != x.t)
          fault("tensor " + x.name + " has taken " + std::to_string(opt.step_count(x.handle)) + " steps; expected " +
                std::to_string(x.t));
        const auto w = weights_at(x.w_at, x.w.size());
        for (std::size_t i = 0; i < w.size(); ++i) {
          x.largest = std::fmax(x.largest, std::fabs(w[i]));
          if (!near(w[i], x.w[i], x.largest))
            fault("weight " + std::to_string(i) + " of tensor " + x.name + " is " +
                  gradus::detail::number_text(w[i], 17) + "; expected " + gradus::detail::number_text(x.w[i], 17));
        }
        x.w.assign(w.begin(), w.end());
      }
    }
  }
  template <class F>
  void for_each_slot(tracked& x, const F& f)
  {
    if (kind == naive::kind::sgd) {
      if (groups[x.group].momentum > 0)
        f("momentum_buffer", x.m);
    } else {
      f("exp_avg", x.m);
      f("exp_avg_sq", x.v);
      if (kind == naive::kind::amsgrad)
        f("max_exp_avg_sq", x.top);
    }
  }

  // ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────

  void write_state()
  {
    tracked* const x = tensors.empty() ? nullptr : &tensors[in.below(tensors.size())];
    if (!x || in.one_in(6))
      return void(call("state under a wrong name", true,
                       [&] { (void)opt.state(x && in.one_in(2) ? x->name : "nobody", "nothing"); }));
    const double number = in.of({0, 0.5, 1e-6});
    for_each_slot(*x, [&](const char* slot, std::vector<double>& mine) {
      if (mine.empty() || in.one_in(2))
        return;
      const std::size_t i = in.below(mine.size());
      opt.state(x->name, slot)[i] = mine[i] = number;
    });
    opt.recompute_second_moment_sum();
  }

  void visit()
  {
    const bool by_visitor = in.one_in(2);
    call("a change from a visitor", true, [&] {
      bool changed = false;
      opt.visit_tensors([&](std::string_view, auto, std::size_t, bool&) {
        changed = true;
        by_visitor ? void(opt.step()) : opt.recompute_second_moment_sum();
      });
      if (!changed)
        gradus::refuse("expected a tensor to be visited");  // there is none, and so no change
    });
    std::size_t i = in.below(tensors.size() + 1);
    std::string name = i < tensors.size() ? tensors[i].name : "";
    opt.visit_tensors([&](std::string_view visited, auto, std::size_t, bool& takes_part) {
      if (visited == name)
        takes_part = !takes_part;
    });
    if (i < tensors.size() && tensors[i].attached)
      tensors[i].frozen = !tensors[i].frozen;
  }

  void ask()
  {
    std::size_t elements = 0, bytes = 0;
    for (tracked& x : tensors) {
      elements += x.attached ? x.w.size() : 0;
      for_each_slot(x, [&](const char*, const std::vector<double>& mine) { bytes += 8 * mine.size(); });
    }
    if (opt.parameter_count() != elements || opt.state_bytes() != bytes || opt.group_count() != groups.size())
      fault("the numbers of parameters, bytes and groups are " + std::to_string(opt.parameter_count()) + ", " +
            std::to_string(opt.state_bytes()) + " and " + std::to_string(opt.group_count()) + "; expected " +
            std::to_string(elements) + ", " + std::to_string(bytes) + " and " + std::to_string(groups.size()));
    const std::size_t g = in.below(groups.size());
    if (opt.lr(opt.group_at(g)) != groups[g].lr || opt.lr_scale(opt.group_at(g)) != groups[g].lr_scale)
      fault("the learning rate of group " + std::to_string(g) + " is not the one that was set");
    call("step_count by a bad handle", true, [&] { (void)opt.step_count(bad_handle()); });
    call("a group that is none", true, [&] { (void)opt.group_at(groups.size() + in.below(3)); });
  }

  // ── save, load, move ─────────────────────────────────────────────────────────────────────────────────────────────

  // All that an optimizer shows, by name.
  static std::map<std::string, std::string> everything(const optimizer& of, bool parameters = true, bool sums = true)
  {
    std::map<std::string, std::string> all;
    const auto bytes = [](auto values) {
      return values.empty() ? std::string()
                            : std::string(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    };
    of.visit_state([&](std::string_view name, std::string_view key, auto values) {
      if (sums || key != "exp_avg_sq_sum")  // which depends on who takes part
        all[std::string(name) + " has " + std::string(key)] = bytes(values);
    });
    of.visit_tensors([&](std::string_view name, auto values, std::size_t g, const bool& takes_part) {
      all[std::string(name)] = std::to_string(g) + ' ' + std::to_string(takes_part) + ' ' +
                               (parameters ? bytes(values) : "");
    });
    for (std::size_t g = 0; g < of.group_count(); ++g) {
      std::string numbers = std::to_string(of.lr_scale(of.group_at(g)));
      for (const auto& [name, value] : gradus::detail::numbers_of(of, g))
        numbers += ' ' + std::to_string(value);
      all["group " + std::to_string(g)] = numbers;
    }
    return all;
  }
  // The first difference of two of them.
  static std::string difference(const std::map<std::string, std::string>& a,
                                const std::map<std::string, std::string>& b)
  {
    for (const auto& [key, bytes] : a)
      if (const auto other = b.find(key); other == b.end() || other->second != bytes)
        return key + (other == b.end() ? " is missing" : ": " + shown(bytes) + " and " + shown(other->second));
    return a.size() == b.size() ? "" : "one has more";
  }
  static std::string shown(const std::string& bytes)
  {
    if (bytes.size() % 8 != 0 || bytes.empty())
      return bytes;
    std::string text;
    for (std::size_t i = 0; i < bytes.size() && i < 64; i += 8) {
      double x;
      std::memcpy(&x, bytes.data() + i, 8);
      text += gradus::detail::number_text(x, 17) + ' ';
    }
    return text;
  }

  // What a strict load compares. A file without parameters does not tell whether a tensor was removed.
  std::string shape(bool parameters) const
  {
    std::map<std::string, std::string> all;
    for (const tracked& x : tensors)
      all[x.name] = std::to_string(x.w.size()) + ' ' + std::to_string(x.group) + ' ' +
                    std::to_string(parameters && x.attached && !x.w.empty()) + std::to_string(!x.trained.empty());
    std::string text = std::to_string(groups.size());
    for (const naive::group& g : groups)
      text += g.momentum > 0 ? " m" : " -";
    for (const auto& [name, rest] : all)
      text += '\n' + name + ' ' + rest;
    return text;
  }

  bool has_weights() const
  {
    return std::any_of(tensors.begin(), tensors.end(), [](const tracked& x) { return x.attached && !x.w.empty(); });
  }
  std::vector<bool> attached() const
  {
    std::map<std::string, bool> all;
    for (const tracked& x : tensors)
      all[x.name] = x.attached;
    std::vector<bool> flags;
    for (const auto& [name, is_attached] : all)
      flags.push_back(is_attached);
    return flags;
  }

  void save()
  {
    saved.parameters = !in.one_in(3) && has_weights();
    saved.bytes = support::checkpoint_of(opt, {.parameters = saved.parameters, .metadata = {{"epoch", "3"}}});
    saved.shape = shape(saved.parameters);
    saved.attached = attached();
    saved.everything = everything(opt, saved.parameters, false);
    saved.counted.clear();
    for (const tracked& x : tensors)
      saved.counted[x.name] = x.counted;
    call("save with bad metadata", true,
         [&] { (void)support::checkpoint_of(opt, {.metadata = {{in.one_in(2) ? "\xff" : "gradus/recipe", "x"}}}); });
  }

  void load()
  {
    if (saved.bytes.empty())
      return;
    const std::size_t how = in.below(6);
    if (how == 5) {
      std::string cut = saved.bytes;
      if (in.one_in(2))
        cut.resize(in.below(256) * cut.size() / 256);
      else
        cut += 'x';
      return void(call("load of a damaged file", true, [&] { support::load_bytes(opt, cut); }));
    }
    ++done.loads;
    if (how == 4) {
      // What fits is loaded; the model learns what that was.
      call("lenient load", false, [&] {
        support::load_bytes(opt, saved.bytes, {.settings = in.one_in(2), .lenient = true, .convert = in.one_in(2)});
      });
      return learn();
    }
    gradus::load_options o;
    if (how == 3)
      o.parameters = true;
    const bool refused = shape(saved.parameters) != saved.shape || (how == 3 && !saved.parameters && has_weights());
    trace("saved:\n" + saved.shape + "\nnow:\n" + shape(saved.parameters));
    if (!call("load", refused, [&] { support::load_bytes(opt, saved.bytes, o); }))
      return;
    if (attached() == saved.attached && everything(opt, saved.parameters, false) != saved.everything)
      fault("a load did not restore what was saved: " +
            difference(saved.everything, everything(opt, saved.parameters, false)));
    learn();
  }

  // The model takes over all that the optimizer has.
  void learn()
  {
    // A sum is saved, but not which tensors count in it: set_in_norm is called again before a load.
    for (const tracked& x : tensors)
      if (const auto was = saved.counted.find(x.name); was != saved.counted.end() && was->second != x.counted)
        opt.recompute_second_moment_sum();
    for (std::size_t g = 0; g < groups.size(); ++g)
      groups[g] = group_of(opt.hyperparameters(opt.group_at(g)), opt.lr_scale(opt.group_at(g)));
    std::as_const(opt).visit_tensors([&](std::string_view name, auto values, std::size_t, const bool& takes_part) {
      tracked& x = named(name);
      if (x.attached) {
        x.w.assign(values.begin(), values.end());
        x.frozen = !takes_part;
      }
    });
    std::as_const(opt).visit_state([&](std::string_view name, std::string_view key, auto values) {
      if (name.empty())
        return;
      tracked& x = named(name);
      if (key == "step")
        x.t = static_cast<unsigned long>(values[0]);
      if (key == "trained")
        x.trained.assign(values.begin(), values.end());
    });
    for (tracked& x : tensors)
      for_each_slot(x, [&](const char* slot, std::vector<double>& mine) {
        const auto found = std::as_const(opt).state(x.name, slot);
        mine.assign(found.begin(), found.end());
      });
  }
  tracked& named(std::string_view name)
  {
    for (tracked& x : tensors)
      if (x.name == name)
        return x;
    fault("a tensor " + std::string(name) + " is shown; expected none of this name");
  }

  // Loads into a new optimizer with the same tensors in another order, takes the same step in both, and goes on in the new.
  void go_on_in_another()
  {
    optimizer next;
    naive::group other = groups[0];
    other.lr = 0.125;  // the file has the right one
    next.set_hyperparameters(recipe_of<Recipe>(other));
    for (std::size_t g = 1; g < groups.size(); ++g)
      next.add_group(recipe_of<Recipe>(groups[g]));
    auto its_arena = std::make_unique<memory>(*arena);
    std::vector<std::size_t> order(tensors.size());
    for (std::size_t i = 0; i < order.size(); ++i)
      order[i] = i;
    if (in.one_in(2))
      std::reverse(order.begin(), order.end());
    std::vector<gradus::tensor_handle> handles(tensors.size());
    memory elsewhere(longest, 0.5);
    // Removed ones first: their memory is in nobody's way.
    for (const bool attached : {false, true})
      for (const std::size_t i : order) {
        const tracked& x = tensors[i];
        if (x.attached != attached)
          continue;
        const std::span<double> w = attached ? std::span(*its_arena).subspan(x.w_at, x.w.size())
                                             : std::span(elsewhere).first(x.w.size());
        std::optional<std::span<const double>> g;
        if (x.attached && x.bound)
          g = std::span<const double>(*its_arena).subspan(x.g_at, x.w.size());
        const auto all = [](std::size_t) { return true; };
        const gradus::trained_mask mask(all);
        handles[i] = next.add_spans(x.name, w, g, next.group_at(x.group), x.trained.empty() ? nullptr : &mask);
        if (!x.padding.empty()) {
          const auto is_padding = [&](std::size_t k) -> bool { return x.padding[k]; };
          next.set_padding(handles[i], is_padding);
        }
        if (!x.counted)
          next.set_in_norm(handles[i], gradus::in_norm::counted_elsewhere);
        if (!attached)
          next.remove(handles[i], gradus::removed_state::kept);
      }
    ++done.loads;
    const std::string bytes = support::checkpoint_of(opt);
    support::load_bytes(next, bytes);
    if (everything(next) != everything(opt))
      fault("a load into another optimizer did not restore what was saved: " +
            difference(everything(opt), everything(next)));
    if (opt.parameter_count() > 0 || std::any_of(tensors.begin(), tensors.end(), [](auto& x) { return x.attached; })) {
      new_gradients();
      *its_arena = *arena;
      gradus::step_options o{.lr_scale = in.of({1, 0.5}), .skip_nonfinite = in.one_in(3)};
      if (in.one_in(3))
        o.max_grad_norm = 1;
      const auto said = opt.step(o);
      next.step(o);
      done.steps += 2;
      if (everything(next) != everything(opt))
        fault("a step after a load does not have the bits of the run that was saved: " +
              difference(everything(opt), everything(next)));
      naive::options same;
      same.lr_scale = o.lr_scale;
      same.max_grad_norm = o.max_grad_norm;
      const naive::report r = naive::step(kind, tensors, groups, same);
      if (said.grad_norm && !near(*said.grad_norm, r.norm))
        fault("the norm after a load is " + gradus::detail::number_text(*said.grad_norm, 17) + "; expected " +
              gradus::detail::number_text(r.norm, 17));
    }
    opt = std::move(next);
    for (const tracked& x : tensors)
      if (x.attached)
        stale.push_back(x.handle);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      tensors[i].handle = handles[i];
    arena = std::move(its_arena);
    compare(true);
  }

  void move()
  {
    optimizer other(std::move(opt));
    const auto refuses = [&](const char* what, const auto& f) {
      const std::string said = support::refusal(f);
      if (said.find("moved from") == std::string::npos)
        fault(std::string(what) + " of a moved-from optimizer said \"" + said + '"');
      ++done.refusals;
    };
    refuses("step", [&] { opt.step(); });
    refuses("save", [&] { (void)support::checkpoint_of(opt); });
    refuses("add", [&] { opt.add(*arena); });
    refuses("add_group", [&] { opt.add_group({}); });
    refuses("report", [&] { (void)opt.report(); });
    refuses("visit_state", [&] { opt.visit_state([](auto, auto, auto) {}); });
    if (!saved.bytes.empty())
      refuses("load", [&] { support::load_bytes(opt, saved.bytes); });
    for (const tracked& x : tensors)
      if (x.attached)
        refuses("freeze", [&] { opt.freeze(x.handle); });
    opt = std::move(other);
    optimizer& same = opt;
    opt = std::move(same);
  }

  void check_everything()
  {
    compare(true);
    ask();
  }

  decisions in;
  support::random noise{1};
  std::unique_ptr<memory> arena = std::make_unique<memory>(places, 0.25);
  memory strangers[2] = {memory(1, 0.5), memory(1, 0.5)};
  optimizer opt, stranger;
  std::vector<naive::group> groups;
  std::vector<tracked> tensors;
  std::vector<gradus::tensor_handle> stale;
  gradus::group_handle stranger_group;
  gradus::tensor_handle stranger_tensor;
  std::size_t tensors_made = 0;
  struct {
    std::string bytes, shape;
    std::vector<bool> attached;
    std::map<std::string, bool> counted;
    std::map<std::string, std::string> everything;
    bool parameters = false;
  } saved;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv)
{
  // Histories to begin with: libFuzzer alone would begin with a call or two.
  for (int i = 1; i < *argc; ++i)
    if (const std::filesystem::path corpus = (*argv)[i]; std::filesystem::is_directory(corpus))
      for (std::uint64_t seed = 0; seed < 50; ++seed) {
        support::random r(seed);
        std::string bytes(200 + r.below(1300), 0);
        for (char& byte : bytes)
          byte = char(r.below(256));
        std::ofstream(corpus / ("seed" + std::to_string(seed)), std::ios::binary) << bytes;
      }
  std::atexit([] {
    std::printf("fuzz/api: %llu histories of %llu calls, %llu steps among them, %llu loads, %llu refusals\n",
                done.histories, done.calls, done.steps, done.loads, done.refusals);
  });
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
  using namespace gradus;
  if (size < 2)
    return 0;
  const auto run = [&]<class Recipe>(Recipe) {
#ifdef GRADUS_FUZZ_WIDE  // more than the tests compile
    if constexpr (std::is_same_v<Recipe, adams>)
      if (data[0] / 5 % 2 == 1)
        return history<Recipe, default_backend>(data + 1, size - 1).run();
#endif
    history<Recipe, backend::scalar>(data + 1, size - 1).run();
  };
  switch (data[0] % 5) {
  case 0: run(sgd{}); break;
  case 1: run(adam{}); break;
  case 2: run(adamw{}); break;
  case 3: run(adams{}); break;
  default: run(amsgrad{});
  }
  return 0;
}
