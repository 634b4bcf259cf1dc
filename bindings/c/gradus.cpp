// libgradus: gradus.h over any_optimizer. No exception leaves a function, and every argument is checked. With
// GRADUS_C_CUDA it is libgradus_cuda.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(GRADUS_C_CUDA)
#include <thrust/system_error.h>
#endif

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/dispatch.hpp>
#include <gradus/checkpoint.hpp>

#include <gradus.h>

#include "optimizer.hpp"

namespace {

using gradus::detail::fail, gradus::detail::quote;

// ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────

constexpr std::size_t longest_sentence = 4096;
thread_local char last_error[longest_sentence] = "";

gradus_status failed(gradus_status status, std::string_view sentence) noexcept
{
  const bool fits = sentence.size() < longest_sentence;
  const std::size_t n = fits ? sentence.size() : longest_sentence - 4;
  std::copy_n(sentence.data(), n, last_error);
  std::strcpy(last_error + n, fits ? "" : "...");
  return status;
}

// Calls f, and turns what it throws into a status.
template <class F>
gradus_status guarded(const F& f) noexcept
{
  try {
    f();
    return GRADUS_OK;
  } catch (const gradus::io_error& e) {
    return failed(GRADUS_IO, e.what());
  } catch (const std::invalid_argument& e) {
    return failed(GRADUS_INVALID_ARGUMENT, e.what());
  } catch (const std::bad_alloc&) {
    return failed(GRADUS_OUT_OF_MEMORY, "gradus: out of memory");
  } catch (const std::length_error&) {
    return failed(GRADUS_OUT_OF_MEMORY, "gradus: out of memory");
#if defined(GRADUS_C_CUDA)
  } catch (const thrust::system_error& e) {
    return failed(GRADUS_DEVICE, e.what());
#endif
  } catch (const std::exception& e) {
    return failed(GRADUS_INTERNAL, e.what());
  } catch (...) {
    return failed(GRADUS_INTERNAL, "gradus: unknown error");
  }
}

template <class X>
X* required(const char* name, X* pointer, const char* expected)
{
  if (!pointer)
    fail(std::string(name) + " is null; expected " + expected);
  return pointer;
}

bool switched(const char* name, int value)
{
  if (value != 0 && value != 1)
    fail(std::string(name) + " is " + std::to_string(value) + "; expected 0 or 1");
  return value == 1;
}

// ── options and reports, which may be shorter or longer than this library's ────────────────────────────────────────

// The caller's options: those that it does not know are the defaults, and those that this library does not know must
// be 0.
template <class Options>
Options options_from(const Options& given, const char* name, std::size_t least, const Options& defaults)
{
  if (given.size < least)
    fail("size of " + std::string(name) + " is " + std::to_string(given.size) + "; expected sizeof(" + name +
         "), as the default options have it");
  Options o = defaults;
  std::memcpy(&o, &given, std::min(given.size, sizeof o));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&given);
  for (std::size_t i = sizeof o; i < given.size; ++i)
    if (bytes[i] != 0)
      fail("size of " + std::string(name) + " is " + std::to_string(given.size) + "; this library knows the first " +
           std::to_string(sizeof o) + " bytes; expected zeros beyond them, or a newer library");
  o.size = sizeof o;
  return o;
}

template <class Options>
void write_options(Options* to, std::size_t size, const Options& defaults) noexcept
{
  if (!to || size < sizeof to->size)
    return;
  std::memset(to, 0, size);
  std::memcpy(to, &defaults, std::min(size, sizeof defaults));
  to->size = size;
}

constexpr double none = std::numeric_limits<double>::quiet_NaN();

gradus_step_options default_step_options() noexcept
{
  gradus_step_options o{};
  o.size = sizeof o;
  o.lr_scale = o.grad_scale = o.decay_scale = 1;
  o.max_grad_norm = o.grad_norm_sq = o.mean_square = o.lr = none;
  return o;
}
gradus_load_options default_load_options() noexcept
{
  gradus_load_options o{};
  o.size = sizeof o;
  o.parameters = -1;
  o.settings = 1;
  return o;
}

std::optional<double> unless_nan(double x) { return gradus::is_nan(x) ? std::optional<double>() : x; }

gradus::step_options step_options_of(const gradus_step_options* given)
{
  if (!given)
    return {};
  const auto o = options_from(*given, "gradus_step_options", sizeof(gradus_step_options), default_step_options());
  return {.lr_scale = o.lr_scale,
          .lr = unless_nan(o.lr),
          .decay_scale = o.decay_scale,
          .grad_scale = o.grad_scale,
          .max_grad_norm = unless_nan(o.max_grad_norm),
          .grad_norm_sq = unless_nan(o.grad_norm_sq),
          .skip_nonfinite = switched("skip_nonfinite", o.skip_nonfinite),
          .flush_denormals = switched("flush_denormals", o.flush_denormals),
          .mean_square = unless_nan(o.mean_square),
          .model_size = o.model_size ? std::optional<std::uint64_t>(o.model_size) : std::nullopt,
          .maximize = switched("maximize", o.maximize)};
}

gradus::load_options load_options_of(const gradus_load_options* given)
{
  if (!given)
    return {};
  const auto o = options_from(*given, "gradus_load_options", sizeof(gradus_load_options), default_load_options());
  return {.parameters = o.parameters == -1 ? std::optional<bool>() : switched("parameters", o.parameters),
          .settings = switched("settings", o.settings),
          .lenient = switched("lenient", o.lenient),
          .convert = switched("convert", o.convert)};
}

void check_report(const gradus_step_report& report)
{
  if (report.size < sizeof(gradus_step_report))
    fail("size of gradus_step_report is " + std::to_string(report.size) +
         "; expected sizeof(gradus_step_report), set before the call");
}

void write_report(const gradus::step_report& from, gradus_step_report* to)
{
  gradus_step_report r{};
  r.size = to->size;
  r.applied = from.applied;
  r.grad_norm = from.grad_norm.value_or(none);
  r.mean_square = from.mean_square.value_or(none);
  r.decay_factor = from.decay_factor.value_or(none);
  r.decay_clamped = from.decay_clamped;
  std::memcpy(to, &r, std::min(to->size, sizeof r));
}

// ── the optimizers ─────────────────────────────────────────────────────────────────────────────────────────────────

using gradus::binding::group_at, gradus::binding::parameters_at, gradus::binding::gradients_at;

// The optimizer of a precision, as an alternative of the longer variant.
template <class From>
gradus_optimizer::any widened(From from)
{
  return std::visit([](auto& o) { return gradus_optimizer::any(std::move(o)); }, from);
}

#if defined(GRADUS_C_CUDA)
gradus_optimizer::any on_device(std::string_view recipe, std::span<const gradus::named_number> numbers,
                                gradus_dtype dtype, const gradus::binding::stream* stream)
{
  using namespace gradus::binding;
  switch (int(dtype)) {
  case GRADUS_FLOAT32: return make_on_device<float>(recipe, numbers, stream);
  case GRADUS_FLOAT64: return make_on_device<double>(recipe, numbers, stream);
  case GRADUS_BFLOAT16: return make_on_device<with_master<gradus::bfloat16>>(recipe, numbers, stream);
  case GRADUS_FLOAT16: return make_on_device<with_master<gradus::float16>>(recipe, numbers, stream);
  }
  fail_unknown_dtype(dtype);
}
#endif

}  // namespace

gradus_optimizer::gradus_optimizer(std::string_view recipe, std::span<const gradus::named_number> numbers,
                                   gradus_dtype dtype)
    : self(widened(gradus::binding::make_on_host(recipe, numbers, dtype, executor)))
{}

#if defined(GRADUS_C_CUDA)
gradus_optimizer::gradus_optimizer(std::string_view recipe, std::span<const gradus::named_number> numbers,
                                   gradus_dtype dtype, gradus::binding::stream s)
    : place(gradus::binding::place::current()), stream(s), self(on_device(recipe, numbers, dtype, &stream))
{}
#endif

const gradus::tensor_handle& gradus_optimizer::tensor(std::size_t number) const
{
  if (number >= tensors.size())
    fail("tensor is " + std::to_string(number) + "; expected less than " + std::to_string(tensors.size()) +
         ", the number of tensors that were added");
  return tensors[number];
}

namespace {

// Calls f(*opt) while no other thread may; turns what it throws into a status.
template <class Opt, class F>
gradus_status use(Opt* opt, const F& f) noexcept
{
  return guarded([&] {
    required("optimizer", opt, "one from gradus_create");
    if (opt->alive != gradus_optimizer::is_alive)
      fail("optimizer is none; expected one from gradus_create that has not been destroyed");
    if (opt->busy.exchange(true, std::memory_order_acquire))
      fail("optimizer is in use by another thread, or by the caller's function that it calls; expected one call at a "
           "time");
    struct release {
      std::atomic<bool>& busy;
      ~release() { busy.store(false, std::memory_order_release); }
    } const at_the_end{opt->busy};
#if defined(GRADUS_C_CUDA)
    const gradus::binding::place::visit there(opt->place);
#endif
    f(*opt);
  });
}

std::vector<gradus::named_number> numbers_of(const gradus_number* numbers, std::size_t count)
{
  if (count > 0)
    required("numbers", numbers, "hyperparameters, or count 0");
  std::vector<gradus::named_number> all;
  for (std::size_t i = 0; i < count; ++i)
    all.emplace_back(required("name of a number", numbers[i].name, "a hyperparameter's name"), numbers[i].value);
  return all;
}

using recipes = gradus::compiled_recipes;

// Names go out as they stand. (What is behind a text that does not end so is no constant, and the compiler says that.)
constexpr bool ends_with_zero(std::string_view name) noexcept { return name.data()[name.size()] == '\0'; }
constexpr bool names_end_with_zero() noexcept
{
  bool good = true;
  recipes::for_each([&good]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    good = good && ends_with_zero(name);
    Recipe defaults;
    gradus::for_each_hyperparameter(defaults, [&good](std::string_view field, auto, gradus::range) {
      good = good && ends_with_zero(field);
    });
  });
  return good;
}
static_assert(names_end_with_zero(),
              "gradus: the names of a recipe and its hyperparameters are string literals, as in static constexpr "
              "std::string_view name = \"mine\".");

void write_numbers(const std::vector<gradus::named_number>& from, gradus_number* to, std::size_t capacity,
                   std::size_t* count)
{
  required("count", count, "where the number of hyperparameters is written");
  if (capacity > 0)
    required("numbers", to, "room for hyperparameters, or capacity 0");
  *count = from.size();
  for (std::size_t i = 0; i < std::min(capacity, from.size()); ++i)
    to[i] = {from[i].first.data(), from[i].second};
}

}  // namespace

extern "C" {

const char* gradus_last_error(void) { return last_error; }

const char* gradus_version(void)
{
#define GRADUS_TEXT_(x) #x
#define GRADUS_TEXT(x) GRADUS_TEXT_(x)
  return GRADUS_TEXT(GRADUS_VERSION_MAJOR) "." GRADUS_TEXT(GRADUS_VERSION_MINOR) "." GRADUS_TEXT(GRADUS_VERSION_PATCH);
}

const char* gradus_instruction_set(void)
{
  const char* name = "";
  guarded([&] { name = gradus::backend::dispatch().name(); });
  return name;
}

size_t gradus_recipe_count(void)
{
  std::size_t n = 0;
  recipes::for_each([&](std::string_view, auto) { ++n; });
  return n;
}

const char* gradus_recipe_name(size_t index)
{
  const char* found = nullptr;
  recipes::for_each([&](std::string_view name, auto) {
    if (index-- == 0)
      found = name.data();
  });
  return found;
}

gradus_status gradus_recipe_numbers(const char* recipe, gradus_number* numbers, size_t capacity, size_t* count)
{
  return guarded([&] {
    write_numbers(gradus::recipe_hyperparameters<recipes>(required("recipe", recipe, "a recipe's name")), numbers,
                  capacity, count);
  });
}

gradus_status gradus_create(const char* recipe, const gradus_number* numbers, size_t count, gradus_dtype dtype,
                            gradus_optimizer** out)
{
  return guarded([&] {
    *required("out", out, "where the optimizer is written") = nullptr;
    *out = new gradus_optimizer(required("recipe", recipe, "a recipe's name"), numbers_of(numbers, count), dtype);
  });
}

#if defined(GRADUS_C_CUDA)
gradus_status gradus_create_cuda(const char* recipe, const gradus_number* numbers, size_t count, gradus_dtype dtype,
                                 struct CUstream_st* stream, gradus_optimizer** out)
{
  return guarded([&] {
    *required("out", out, "where the optimizer is written") = nullptr;
    *out = new gradus_optimizer(required("recipe", recipe, "a recipe's name"), numbers_of(numbers, count), dtype,
                                stream);
  });
}

gradus_status gradus_set_stream(gradus_optimizer* opt, struct CUstream_st* stream)
{
  return use(opt, [&](gradus_optimizer& self) {
    if (!self.is_on_device())
      fail("the optimizer is on the host; expected one from gradus_create_cuda, whose steps are enqueued on a stream");
    self.stream = stream;
  });
}

gradus_status gradus_set_options(gradus_optimizer* opt, const gradus_step_options* options)
{
  return use(opt, [&](gradus_optimizer& self) {
    const gradus::step_options o = step_options_of(options);
    self.visit([&](auto& x) { x.set_options(o); });
  });
}
#endif

void gradus_destroy(gradus_optimizer* opt)
{
  if (!opt || opt->alive != gradus_optimizer::is_alive)
    return;
  opt->alive = 0;
#if defined(GRADUS_C_CUDA)
  guarded([&] {
    const gradus::binding::place::visit there(opt->place);
    delete std::exchange(opt, nullptr);
  });
#endif
  delete opt;
}

const char* gradus_recipe(const gradus_optimizer* opt)
{
  return opt ? opt->visit([](const auto& o) { return o.name().data(); }) : nullptr;
}

gradus_status gradus_set_threads(gradus_optimizer* opt, unsigned threads)
{
  return use(opt, [&](gradus_optimizer& o) { o.executor.set_threads(threads); });
}

gradus_status gradus_add_group(gradus_optimizer* opt, const gradus_number* changed, size_t count, size_t* group)
{
  return use(opt, [&](gradus_optimizer& self) {
    const auto numbers = numbers_of(changed, count);
    self.visit([&](auto& o) {
      const std::size_t number = o.group_count();
      o.add_group(numbers);
      if (group)
        *group = number;
    });
  });
}

gradus_status gradus_set_group(gradus_optimizer* opt, size_t group, const gradus_number* changed, size_t count)
{
  return use(opt, [&](gradus_optimizer& self) {
    const auto numbers = numbers_of(changed, count);
    self.visit([&](auto& o) { o.set_hyperparameters(numbers, group_at(o, group)); });
  });
}

gradus_status gradus_get_group(const gradus_optimizer* opt, size_t group, gradus_number* numbers, size_t capacity,
                               size_t* count)
{
  return use(opt, [&](const gradus_optimizer& self) {
    self.visit([&](const auto& o) { write_numbers(o.hyperparameters(group_at(o, group)), numbers, capacity, count); });
  });
}

gradus_status gradus_set_lr(gradus_optimizer* opt, size_t group, double lr)
{
  return use(opt, [&](gradus_optimizer& self) { self.visit([&](auto& o) { o.set_lr(lr, group_at(o, group)); }); });
}

gradus_status gradus_add(gradus_optimizer* opt, const char* name, void* parameters, const void* gradients, size_t n,
                         size_t group, size_t* tensor)
{
  return use(opt, [&](gradus_optimizer& self) {
    self.tensors.reserve(self.tensors.size() + 1);
    self.visit([&]<class Opt>(Opt& o) {
      self.tensors.push_back(o.add_spans(name ? name : "", parameters_at<Opt>(parameters, n),
                                         gradients_at<Opt>(gradients, n), group_at(o, group)));
    });
    if (tensor)
      *tensor = self.tensors.size() - 1;
  });
}

gradus_status gradus_rebind(gradus_optimizer* opt, size_t tensor, void* parameters, const void* gradients, size_t n)
{
  return use(opt, [&](gradus_optimizer& self) {
    self.visit([&]<class Opt>(Opt& o) {
      o.rebind_spans(self.tensor(tensor), parameters_at<Opt>(parameters, n), gradients_at<Opt>(gradients, n));
    });
  });
}

gradus_status gradus_freeze(gradus_optimizer* opt, size_t tensor)
{
  return use(opt, [&](gradus_optimizer& self) { self.visit([&](auto& o) { o.freeze(self.tensor(tensor)); }); });
}

gradus_status gradus_unfreeze(gradus_optimizer* opt, size_t tensor)
{
  return use(opt, [&](gradus_optimizer& self) { self.visit([&](auto& o) { o.unfreeze(self.tensor(tensor)); }); });
}

gradus_status gradus_remove(gradus_optimizer* opt, size_t tensor, int keep_state)
{
  return use(opt, [&](gradus_optimizer& self) {
    const auto state = switched("keep_state", keep_state) ? gradus::removed_state::kept
                                                          : gradus::removed_state::dropped;
    self.visit([&](auto& o) { o.remove(self.tensor(tensor), state); });
  });
}

gradus_status gradus_reset_master(gradus_optimizer* opt, size_t tensor)
{
  return use(opt, [&](gradus_optimizer& self) {
    self.visit([&]<class Opt>(Opt& o) {
      if constexpr (Opt::precision_type::has_master)
        o.reset_master(self.tensor(tensor));
      else
        fail("dtype has no master weights; expected GRADUS_BFLOAT16 or GRADUS_FLOAT16");
    });
  });
}

gradus_status gradus_copy_average(const gradus_optimizer* opt, size_t tensor, void* to, size_t n)
{
  return use(opt, [&](const gradus_optimizer& self) {
    required("to", to, "room for the averages");
    self.visit([&]<class Opt>(const Opt& o) {
      const auto span = gradus::binding::parameters_at<Opt>(to, n);
      gradus::detail::check_alignment("to", {}, span);
      o.copy_average(self.tensor(tensor), span);
    });
  });
}

gradus_status gradus_step_count(const gradus_optimizer* opt, size_t tensor, uint64_t* count)
{
  return use(opt, [&](const gradus_optimizer& self) {
    *required("count", count, "where the number of steps is written") = self.visit([&](const auto& o) {
      return o.step_count(self.tensor(tensor));
    });
  });
}

size_t gradus_parameter_count(const gradus_optimizer* opt)
{
  std::size_t n = 0;
  use(opt, [&](const gradus_optimizer& self) { n = self.visit([](const auto& o) { return o.parameter_count(); }); });
  return n;
}

size_t gradus_state_bytes(const gradus_optimizer* opt)
{
  std::size_t n = 0;
  use(opt, [&](const gradus_optimizer& self) { n = self.visit([](const auto& o) { return o.state_bytes(); }); });
  return n;
}

gradus_status gradus_state(gradus_optimizer* opt, const char* tensor, const char* slot, void** values, size_t* n,
                           gradus_dtype* dtype)
{
  return use(opt, [&](gradus_optimizer& self) {
    required("tensor", tensor, "a tensor's name");
    required("slot", slot, "the name of a slot, such as \"exp_avg\"");
    required("values", values, "where the address is written");
    required("n", n, "where the length is written");
    self.visit([&](auto& o) {
      const auto found = o.state(tensor, slot);
      *values = found.data();
      *n = found.size();
      if (dtype)
        *dtype = sizeof(found[0]) == sizeof(double) ? GRADUS_FLOAT64 : GRADUS_FLOAT32;
    });
  });
}

gradus_status gradus_for_each_slot(gradus_optimizer* opt, void (*visit)(void*, const char*, const char*), void* context)
{
  return use(opt, [&](gradus_optimizer& self) {
    required("visit", visit, "a function");
    self.visit([&](auto& o) {
      std::string name, key;
      gradus::binding::for_each_slot(o, [&](std::string_view n, std::string_view k, const auto&) {
        name = n;
        key = k;
        visit(context, name.c_str(), key.c_str());
      });
    });
  });
}

void gradus_init_step_options(gradus_step_options* options, size_t size)
{
  write_options(options, size, default_step_options());
}

void gradus_init_load_options(gradus_load_options* options, size_t size)
{
  write_options(options, size, default_load_options());
}

gradus_status gradus_step(gradus_optimizer* opt, const gradus_step_options* options, gradus_step_report* report)
{
  return use(opt, [&](gradus_optimizer& self) {
    if (report)
      check_report(*report);
    const gradus::step_options o = step_options_of(options);
    self.visit([&](auto& x) {
      gradus::step_report r = x.step(o);
      if (report && r.pending)
        r = x.report();
      if (report)
        write_report(r, report);
    });
  });
}

gradus_status gradus_report(const gradus_optimizer* opt, gradus_step_report* report)
{
  return use(opt, [&](const gradus_optimizer& self) {
    check_report(*required("report", report, "where the report is written"));
    write_report(self.visit([](const auto& x) { return x.report(); }), report);
  });
}

gradus_status gradus_save(const gradus_optimizer* opt, const char* path, int with_parameters)
{
  return use(opt, [&](const gradus_optimizer& self) {
    required("path", path, "a file's name");
    const gradus::save_options options{.parameters = switched("with_parameters", with_parameters)};
    self.visit([&](const auto& o) { gradus::save(o, path, options); });
  });
}

gradus_status gradus_load(gradus_optimizer* opt, const char* path) { return gradus_load_with(opt, path, nullptr); }

gradus_status gradus_load_with(gradus_optimizer* opt, const char* path, const gradus_load_options* options)
{
  return use(opt, [&](gradus_optimizer& self) {
    required("path", path, "a file's name");
    self.visit([&](auto& o) { gradus::load(o, path, load_options_of(options)); });
  });
}

gradus_status gradus_save_to(const gradus_optimizer* opt, int (*write)(void*, const void*, size_t), void* context,
                             int with_parameters)
{
  return use(opt, [&](const gradus_optimizer& self) {
    required("write", write, "a function");
    const gradus::save_options options{.parameters = switched("with_parameters", with_parameters)};
    self.visit([&](const auto& o) {
      gradus::save_to(o, [&](const void* bytes, std::size_t n) { return write(context, bytes, n) != 0; }, options);
    });
  });
}

gradus_status gradus_load_from(gradus_optimizer* opt, const void* bytes, size_t size,
                               const gradus_load_options* options)
{
  return use(opt, [&](gradus_optimizer& self) {
    required("bytes", bytes, "a checkpoint");
    self.visit([&](auto& o) {
      gradus::load_from(o, std::span(static_cast<const std::byte*>(bytes), size), load_options_of(options));
    });
  });
}

}  // extern "C"
