// libgradus through gradus.h: the same bits as in C++, and what is refused.

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/dispatch.hpp>
#include <gradus/checkpoint.hpp>

#include <gradus.h>

#include "bindings/support.hpp"
#include "support/folder.hpp"

#include <dlfcn.h>

using namespace bindings;

TEST_CASE_TEMPLATE("gradus_step: every recipe has the bits of C++, in groups, clipped, with threads", T, float, double,
                   gradus::bfloat16, gradus::float16)
{
  // libgradus with one thread and with three.
  for (std::size_t r = 0; r < gradus_recipe_count(); ++r) {
    const char* const recipe = gradus_recipe_name(r);
    CAPTURE(std::string(recipe));
    two_tensors<T, gradus::any_optimizer<typename precision_for<T>::type, gradus::backend::dispatch>> model(recipe);
    auto w1 = model.w, w3 = model.w;
    owned one(recipe, {{"lr", model.lr}}, dtype_of<T>), three(recipe, {{"lr", model.lr}}, dtype_of<T>);
    CHECK(gradus_set_threads(three, 3) == GRADUS_OK);
    model.add_to(one, w1.data(), model.g.data());
    model.add_to(three, w3.data(), model.g.data());
    for (int t = 0; t < 5; ++t)
      model.step(t, [&](const gradus_step_options& o, gradus_step_report& report) {
        CHECK(gradus_step(one, &o, &report) == GRADUS_OK);
        CHECK(gradus_step(three, &o, nullptr) == GRADUS_OK);
      });
    CHECK(std::memcmp(model.w.data(), w1.data(), sizeof(T) * w1.size()) == 0);
    CHECK(std::memcmp(model.w.data(), w3.data(), sizeof(T) * w3.size()) == 0);
  }
}

TEST_CASE("gradus_step: follows the recorded trajectories") { check_trajectories<host_array>(gradus_create); }

TEST_CASE("gradus_report: what the last step did, and nothing before the first")
{
  owned opt("adam");
  std::vector<float> w{1, 2}, g{3, 4};
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 2, 0, nullptr) == GRADUS_OK);
  gradus_step_report report{};
  check_refused(gradus_report(opt, nullptr), "report is null");
  check_refused(gradus_report(opt, &report), "size of gradus_step_report is 0");
  report.size = sizeof report;
  CHECK(gradus_report(opt, &report) == GRADUS_OK);
  CHECK((report.applied == 0 && std::isnan(report.grad_norm)));
  gradus_step_options o = gradus_default_step_options();
  o.max_grad_norm = 1;
  CHECK(gradus_step(opt, &o, nullptr) == GRADUS_OK);
  CHECK(gradus_report(opt, &report) == GRADUS_OK);
  CHECK((report.applied == 1 && report.grad_norm == 5));
}

TEST_CASE("gradus_recipe_numbers, groups: hyperparameters by name, their defaults and changes")
{
  gradus_number n[32];
  std::size_t count = 0;
  CHECK(gradus_recipe_numbers("adams", n, 32, &count) == GRADUS_OK);
  std::map<std::string, double> defaults;
  for (std::size_t i = 0; i < count; ++i)
    defaults[n[i].name] = n[i].value;
  CHECK(defaults.at("lr") == gradus::adams{}.lr);
  CHECK(defaults.size() == count);
  CHECK(gradus_recipe_numbers("adams", nullptr, 0, &count) == GRADUS_OK);
  CHECK(count == defaults.size());
  CHECK(gradus_recipe_name(gradus_recipe_count()) == nullptr);

  owned opt("adamw");
  CHECK(std::string(gradus_recipe(opt)) == "adamw");
  const auto lr_of = [&](std::size_t group) {
    CHECK(gradus_get_group(opt, group, n, 32, &count) == GRADUS_OK);
    for (std::size_t i = 0; i < count; ++i)
      if (std::string_view(n[i].name) == "lr")
        return n[i].value;
    return -1.0;
  };
  const gradus_number half = {"lr", 0.5};
  CHECK(gradus_set_group(opt, 0, &half, 1) == GRADUS_OK);
  CHECK(lr_of(0) == 0.5);
  CHECK(gradus_set_lr(opt, 0, 0.25) == GRADUS_OK);
  CHECK(lr_of(0) == 0.25);
  check_refused(gradus_set_lr(opt, 1, 0.25), "group");
  check_refused(gradus_set_lr(opt, 0, -1), "lr is -1");
}

TEST_CASE("gradus_rebind, freeze, remove, state: a tensor's life")
{
  auto w = numbers<float>(10, 1), g = numbers<float>(10, 2), moved = w, before = w;
  owned opt("adam");
  std::size_t tensor = 0;
  CHECK(gradus_add(opt, nullptr, w.data(), nullptr, 10, 0, &tensor) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(w == before);  // no gradients yet
  CHECK(gradus_rebind(opt, tensor, moved.data(), g.data(), 10) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(w == before);
  CHECK(moved != before);
  std::uint64_t steps = 0;
  CHECK(gradus_step_count(opt, tensor, &steps) == GRADUS_OK);
  CHECK(steps == 1);
  CHECK(gradus_freeze(opt, tensor) == GRADUS_OK);
  before = moved;
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(moved == before);
  CHECK(gradus_unfreeze(opt, tensor) == GRADUS_OK);

  void* values = nullptr;
  std::size_t n = 0;
  gradus_dtype dtype = GRADUS_FLOAT64;
  CHECK(gradus_state(opt, "tensor0", "exp_avg", &values, &n, &dtype) == GRADUS_OK);
  CHECK((n == 10 && dtype == GRADUS_FLOAT32));
  CHECK(static_cast<const float*>(values)[3] == doctest::Approx(0.1f * g[3]));
  check_refused(gradus_state(opt, "tensor0", "exp", &values, &n, nullptr), "exp");
  std::vector<std::string> slots;
  const auto note = [](void* self, const char* t, const char* slot) {
    static_cast<std::vector<std::string>*>(self)->push_back(std::string(t) + "/" + slot);
  };
  CHECK(gradus_for_each_slot(opt, note, &slots) == GRADUS_OK);
  CHECK(slots == std::vector<std::string>{"tensor0/exp_avg", "tensor0/exp_avg_sq"});
  // In double, the sums of a scheduled decay have the slots' type, and are none.
  const owned scheduled("adams", {}, GRADUS_FLOAT64);
  double x = 1, dx = 1;
  slots.clear();
  CHECK(gradus_add(scheduled, nullptr, &x, &dx, 1, 0, nullptr) == GRADUS_OK);
  CHECK(gradus_for_each_slot(scheduled, note, &slots) == GRADUS_OK);
  CHECK(slots == std::vector<std::string>{"tensor0/exp_avg", "tensor0/exp_avg_sq"});

  CHECK(gradus_remove(opt, tensor, 0) == GRADUS_OK);
  check_refused(gradus_freeze(opt, tensor), "tensor");
  check_refused(gradus_reset_master(opt, tensor), "no master weights");
  CHECK(gradus_parameter_count(opt) == 0);
}

TEST_CASE("gradus_copy_average: of a recipe that averages weights, in every type; others refuse")
{
  std::vector<float> w{1, 2, 3}, g{1, -1, 2}, average(3), expected(3);
  owned opt("schedule_free_adamw", {{"lr", 0.25}});
  std::size_t tensor = 0;
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 3, 0, &tensor) == GRADUS_OK);
  auto twin = w;
  gradus::optimizer<gradus::schedule_free_adamw> same({.lr = 0.25});
  const auto handle = same.add(twin, g);
  for (int t = 0; t < 3; ++t) {
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
    same.step();
  }
  CHECK(gradus_copy_average(opt, tensor, average.data(), 3) == GRADUS_OK);
  same.copy_average(handle, expected);
  CHECK(average == expected);
  CHECK(average != w);
  check_refused(gradus_copy_average(opt, tensor, average.data(), 2), "size of `to` is 2; expected 3");
  check_refused(gradus_copy_average(opt, tensor, nullptr, 3), "to is null");
  check_refused(gradus_copy_average(opt, tensor, reinterpret_cast<char*>(average.data()) + 1, 2), "address of to");
  check_refused(gradus_copy_average(opt, 7, average.data(), 3), "tensor");
  owned adamw("adamw");
  CHECK(gradus_add(adamw, "w", w.data(), g.data(), 3, 0, &tensor) == GRADUS_OK);
  check_refused(gradus_copy_average(adamw, tensor, average.data(), 3), "expected one that averages weights");
}

TEST_CASE("gradus_save, gradus_load: the file of C++, and back")
{
  const support::folder here("c");
  const std::string path = here / "run", other = here / "cpp";
  auto w = numbers<float>(100, 1), g = numbers<float>(100, 2), x = w, y = w;
  owned opt("adams", {{"weight_decay", 0.01}});
  gradus::any_optimizer<float, gradus::backend::dispatch> cpp("adams", {{"weight_decay", 0.01}});
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 100, 0, nullptr) == GRADUS_OK);
  cpp.add("w", x, g);
  for (int t = 0; t < 3; ++t) {
    CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
    cpp.step();
  }
  CHECK(gradus_save(opt, path.c_str(), 1) == GRADUS_OK);
  gradus::save(cpp, other, {.parameters = true});
  CHECK(support::content(path) == support::content(other));

  std::string written;
  const auto append = [](void* self, const void* bytes, std::size_t count) {
    static_cast<std::string*>(self)->append(static_cast<const char*>(bytes), count);
    return 1;
  };
  CHECK(gradus_save_to(opt, append, &written, 1) == GRADUS_OK);
  CHECK(written == support::content(path));
  check_refused(gradus_save_to(opt, [](void*, const void*, std::size_t) { return 0; }, nullptr, 1), "write", GRADUS_IO);

  owned resumed("adams");
  CHECK(gradus_add(resumed, "w", y.data(), g.data(), 100, 0, nullptr) == GRADUS_OK);
  CHECK(gradus_load_from(resumed, written.data(), written.size(), nullptr) == GRADUS_OK);
  CHECK(y == w);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  CHECK(gradus_step(resumed, nullptr, nullptr) == GRADUS_OK);
  CHECK(y == w);

  owned adam("adam");
  CHECK(gradus_add(adam, "w", y.data(), g.data(), 100, 0, nullptr) == GRADUS_OK);
  check_refused(gradus_load(adam, path.c_str()), "differ");
  gradus_load_options o = gradus_default_load_options();
  o.lenient = 1;
  CHECK(gradus_load_with(adam, path.c_str(), &o) == GRADUS_OK);
  o.parameters = 2;
  check_refused(gradus_load_with(adam, path.c_str(), &o), "parameters is 2; expected 0 or 1");
  check_refused(gradus_load(adam, (here / "nothing").c_str()), "expected a file that can be read", GRADUS_IO);
  check_refused(gradus_save(adam, (here / "no/folder").c_str(), 0), "path is", GRADUS_IO);
  check_refused(gradus_load_from(adam, written.data(), 5, nullptr), "size is 5");
}

TEST_CASE("gradus.h: null pointers, unknown names and wrong numbers are refused by a sentence")
{
  gradus_optimizer* none = reinterpret_cast<gradus_optimizer*>(16);
  check_refused(gradus_create("adamm", nullptr, 0, GRADUS_FLOAT32, &none),
                "optimizer is \"adamm\"; expected one of sgd, ");
  CHECK(none == nullptr);
  check_refused(gradus_create(nullptr, nullptr, 0, GRADUS_FLOAT32, &none), "recipe is null");
  check_refused(gradus_create("adam", nullptr, 2, GRADUS_FLOAT32, &none), "numbers is null");
  check_refused(gradus_create("adam", nullptr, 0, GRADUS_FLOAT32, nullptr), "out is null");
  const volatile int unknown_dtype = 9;
  check_refused(gradus_create("adam", nullptr, 0, gradus_dtype(int(unknown_dtype)), &none), "dtype is 9");
  const gradus_number nameless = {nullptr, 1}, unknown = {"learning_rate", 1}, wrong = {"beta1", 1.5};
  check_refused(gradus_create("adam", &nameless, 1, GRADUS_FLOAT32, &none), "name of a number is null");
  check_refused(gradus_create("adam", &unknown, 1, GRADUS_FLOAT32, &none), "\"lr\"?");
  check_refused(gradus_create("adam", &wrong, 1, GRADUS_FLOAT32, &none), "beta1 is 1.5");
  check_refused(gradus_step(nullptr, nullptr, nullptr), "optimizer is null");
  check_refused(gradus_recipe_numbers("adam", nullptr, 0, nullptr), "count is null");
  gradus_destroy(nullptr);
  CHECK(gradus_recipe(nullptr) == nullptr);
  CHECK(gradus_parameter_count(nullptr) == 0);

  owned opt("adam");
  std::vector<float> w(10), g(10);
  check_refused(gradus_add(opt, "w", nullptr, g.data(), 10, 0, nullptr), "parameters");
  check_refused(gradus_add(opt, "w", reinterpret_cast<char*>(w.data()) + 1, g.data(), 5, 0, nullptr), "w");
  check_refused(gradus_add(opt, "w", w.data(), g.data(), 10, 3, nullptr), "group");
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr) == GRADUS_OK);
  check_refused(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr), "\"w\"");
  check_refused(gradus_rebind(opt, 0, w.data(), g.data(), 9), "expected 10");
  check_refused(gradus_freeze(opt, 1), "tensor is 1; expected less than 1");
  check_refused(gradus_remove(opt, 0, 2), "keep_state is 2");
  check_refused(gradus_set_threads(opt, 5000), "threads is 5000");

  gradus_step_options o = gradus_default_step_options();
  o.lr_scale = -1;
  check_refused(gradus_step(opt, &o, nullptr), "lr_scale is -1");
  o = gradus_default_step_options();
  o.skip_nonfinite = 3;
  check_refused(gradus_step(opt, &o, nullptr), "skip_nonfinite is 3");
  g[3] = float(infinity);
  o.skip_nonfinite = 1;
  gradus_step_report report{};
  check_refused(gradus_step(opt, &o, &report), "size of gradus_step_report is 0");
  report.size = sizeof report;
  CHECK(gradus_step(opt, &o, &report) == GRADUS_OK);
  CHECK(report.applied == 0);
  CHECK(w == std::vector<float>(10));
}

TEST_CASE("gradus_state: master weights of 16-bit parameters")
{
  const auto start = numbers<gradus::bfloat16>(10, 1), g = numbers<gradus::bfloat16>(10, 2);
  auto w = start;
  owned opt("sgd", {{"lr", 0x1p-20}}, GRADUS_BFLOAT16);
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);
  void* values = nullptr;
  std::size_t n = 0;
  gradus_dtype dtype = GRADUS_FLOAT64;
  CHECK(gradus_state(opt, "w", "master", &values, &n, &dtype) == GRADUS_OK);
  CHECK((n == 10 && dtype == GRADUS_FLOAT32));
  for (std::size_t i = 0; i < n; ++i)
    CHECK(static_cast<const float*>(values)[i] == float(start[i]) - 0x1p-20f * float(g[i]));
  check_refused(gradus_state(opt, "w", "exp_avg", &values, &n, &dtype), "expected \"master\"");
  owned in_float("sgd");
  std::vector<float> x(10);
  CHECK(gradus_add(in_float, "w", x.data(), x.data(), 0, 0, nullptr) == GRADUS_OK);
  check_refused(gradus_state(in_float, "w", "master", &values, &n, &dtype), "expected none");
}

TEST_CASE("gradus_step_options: of a later version are accepted if what is unknown is 0, and refused otherwise")
{
  struct later {
    gradus_step_options known;
    double unknown;
  } o;
  gradus_init_step_options(&o.known, sizeof o);
  CHECK(o.known.size == sizeof o);
  CHECK(o.unknown == 0);
  owned opt("adam");
  std::vector<float> w(10), g(10);
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr) == GRADUS_OK);
  CHECK(gradus_step(opt, &o.known, nullptr) == GRADUS_OK);
  o.unknown = 1;
  check_refused(gradus_step(opt, &o.known, nullptr), "expected zeros beyond them, or a newer library");
  o.known.size = 8;
  check_refused(gradus_step(opt, &o.known, nullptr), "size of gradus_step_options is 8");
}

TEST_CASE("gradus.h: a call that meets another thread's, or its own caller's, is refused")
{
  owned opt("adam");
  std::vector<float> w(10), g(10);
  CHECK(gradus_add(opt, "w", w.data(), g.data(), 10, 0, nullptr) == GRADUS_OK);
  const auto write = [](void* self, const void*, std::size_t) {
    check_refused(gradus_step(static_cast<gradus_optimizer*>(self), nullptr, nullptr), "in use");
    return 1;
  };
  CHECK(gradus_save_to(opt, write, opt.self, 0) == GRADUS_OK);
  CHECK(gradus_step(opt, nullptr, nullptr) == GRADUS_OK);

  std::atomic<int> good = 0, refused = 0;
  const auto steps = [&] {
    for (int t = 0; t < 2000; ++t)
      ++(gradus_step(opt, nullptr, nullptr) == GRADUS_OK ? good : refused);
  };
  std::thread other(steps);
  steps();
  other.join();
  CHECK(good + refused == 4000);
  std::uint64_t count = 0;
  CHECK(gradus_step_count(opt, 0, &count) == GRADUS_OK);
  CHECK(count == std::uint64_t(good) + 1);
}

TEST_CASE("gradus_last_error: each thread has its own")
{
  check_refused(gradus_create("nothing", nullptr, 0, GRADUS_FLOAT32, nullptr), "out is null");
  std::string other = "unset";
  std::thread([&] { other = gradus_last_error(); }).join();
  CHECK(other.empty());
  CHECK(std::string(gradus_version()) == "0.1.0");
  CHECK(std::string(gradus_instruction_set()) == gradus::backend::dispatch().name());
}

#if defined(GRADUS_LIBRARY)  // not where its code is a part of this program
TEST_CASE("libgradus: two copies of it, loaded side by side, do not know of each other")
{
  const support::folder here("two");
  for (const char* copy : {"first", "second"})
    std::filesystem::copy_file(GRADUS_LIBRARY, here / copy);
  std::vector<float> w[2] = {std::vector<float>(100, 1), std::vector<float>(100, 1)}, g(100, 0.5f);
  void* libraries[2] = {dlopen((here / "first").c_str(), RTLD_NOW | RTLD_LOCAL),
                        dlopen((here / "second").c_str(), RTLD_NOW | RTLD_LOCAL)};
  gradus_optimizer* optimizers[2] = {};
  for (int k = 0; k < 2; ++k) {
    REQUIRE(libraries[k]);
    const auto create = reinterpret_cast<decltype(&gradus_create)>(dlsym(libraries[k], "gradus_create"));
    const auto add = reinterpret_cast<decltype(&gradus_add)>(dlsym(libraries[k], "gradus_add"));
    const auto last_error = reinterpret_cast<decltype(&gradus_last_error)>(dlsym(libraries[k], "gradus_last_error"));
    REQUIRE(create("adamw", nullptr, 0, GRADUS_FLOAT32, &optimizers[k]) == GRADUS_OK);
    CHECK(add(optimizers[k], "w", w[k].data(), g.data(), 100, 0, nullptr) == GRADUS_OK);
    CHECK(std::string(last_error()).empty());
    if (k == 0)
      CHECK(create("nothing", nullptr, 0, GRADUS_FLOAT32, nullptr) == GRADUS_INVALID_ARGUMENT);
  }
  for (int k = 0; k < 2; ++k) {
    const auto step = reinterpret_cast<decltype(&gradus_step)>(dlsym(libraries[k], "gradus_step"));
    const auto destroy = reinterpret_cast<decltype(&gradus_destroy)>(dlsym(libraries[k], "gradus_destroy"));
    CHECK(step(optimizers[k], nullptr, nullptr) == GRADUS_OK);
    destroy(optimizers[k]);
    CHECK(dlclose(libraries[k]) == 0);
  }
  CHECK(w[0] == w[1]);
  CHECK(w[0][0] < 1);
}
#endif
