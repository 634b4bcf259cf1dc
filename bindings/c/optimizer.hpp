#pragma once
// What stands behind gradus.h's opaque pointer: an any_optimizer of one of four precisions. Only declared here; host.cpp
// compiles the recipes. The Python module uses it too, and is linked with libgradus.a. In libgradus_cuda, which is
// compiled with GRADUS_C_CUDA, the optimizer is on the host or on a device.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <gradus/any_optimizer.hpp>
#include <gradus/backend/dispatch.hpp>
#include <gradus/backend/parallel.hpp>
#include <gradus/executor/thread_pool.hpp>

#include <gradus.h>

namespace gradus::binding {

// An executor whose threads can be changed while optimizers have copies of it.
class adjustable {
 public:
  void run(std::size_t n, executor::work f) const noexcept
  {
    if (*pool_)
      (*pool_)->run(n, f);
    else
      executor::serial{}.run(n, f);
  }
  void set_threads(unsigned threads)
  {
    if (threads == 1)
      pool_->reset();
    else
      *pool_ = executor::thread_pool(threads);
  }

 private:
  using pool = std::optional<executor::thread_pool>;
  std::shared_ptr<pool> pool_ = std::make_shared<pool>();
};

using backend = gradus::backend::parallel<gradus::backend::dispatch, adjustable>;
template <class T>
using with_master = precision<T, T, float, float>;

// One optimizer of a backend, in the order of gradus_dtype.
template <class Backend, class Recipes = compiled_recipes>
using of_any_dtype = std::variant<any_optimizer<float, Backend, Recipes>, any_optimizer<double, Backend, Recipes>,
                                  any_optimizer<with_master<bfloat16>, Backend, Recipes>,
                                  any_optimizer<with_master<float16>, Backend, Recipes>>;

// An optimizer on the host. Fails for an unknown recipe or dtype, and for numbers out of range.
of_any_dtype<backend> make_on_host(std::string_view recipe, std::span<const named_number> numbers, gradus_dtype dtype,
                                   const adjustable& executor);

[[noreturn]] inline void fail_unknown_dtype(gradus_dtype dtype)
{
  detail::fail("dtype is " + std::to_string(int(dtype)) +
               "; expected GRADUS_FLOAT32, GRADUS_FLOAT64, GRADUS_BFLOAT16 or GRADUS_FLOAT16");
}

// The spans of an optimizer's tensor; without gradients, none.
template <class Opt>
auto parameters_at(void* p, std::size_t n)
{
  using span = typename Opt::parameters_span;
  return span(static_cast<typename span::pointer>(p), n);
}
template <class Opt>
auto gradients_at(const void* p, std::size_t n)
{
  using span = typename Opt::gradients_span;
  return p ? std::optional<span>(span(static_cast<typename span::pointer>(p), n)) : std::nullopt;
}

// Calls f(tensor, slot, values) for each slot of each tensor.
template <class Opt, class F>
void for_each_slot(const Opt& opt, const F& f)
{
  // visit_state shows a tensor's slots first, then its number of steps, and then other numbers, which may have the slots'
  // type.
  bool after_slots = false;
  std::string before;
  opt.visit_state([&]<class X>(std::string_view tensor, std::string_view key, std::span<const X> values) {
    after_slots = (after_slots && before == tensor) || std::is_same_v<X, std::uint64_t>;
    before = tensor;
    if constexpr (std::is_same_v<X, typename Opt::state_type>)
      if (!after_slots)
        f(tensor, key, values);
  });
}

// A group by its number.
template <class Opt>
group_handle group_at(const Opt& opt, std::size_t number)
{
  if (number >= opt.group_count())
    detail::fail("group is " + std::to_string(number) + "; expected less than " + std::to_string(opt.group_count()) +
                 ", the number of groups");
  return opt.group_at(number);
}

}  // namespace gradus::binding

#if defined(GRADUS_C_CUDA)
#include "device.hpp"
#endif

struct gradus_optimizer {
#if defined(GRADUS_C_CUDA)
  using any =
      gradus::binding::joined<gradus::binding::of_any_dtype<gradus::binding::backend>,
                              gradus::binding::of_any_dtype<gradus::binding::device, gradus::binding::device_recipes>>;
  static constexpr std::uint64_t is_alive = 0x67726164'63756461u;  // not libgradus's, so that it refuses this one's
#else
  using any = gradus::binding::of_any_dtype<gradus::binding::backend>;
  static constexpr std::uint64_t is_alive = 0x67726164'75734f4bu;
#endif

  std::uint64_t alive = is_alive;
  mutable std::atomic<bool> busy = false;
  gradus::binding::adjustable executor;
#if defined(GRADUS_C_CUDA)
  gradus::binding::place place;
  gradus::binding::stream stream = nullptr;  // which `self` reads
#endif
  any self;
  std::vector<gradus::tensor_handle> tensors;

  // Fails for an unknown recipe, and for numbers out of range.
  gradus_optimizer(std::string_view recipe, std::span<const gradus::named_number> numbers, gradus_dtype dtype);
#if defined(GRADUS_C_CUDA)
  // On the current device, with steps in the order of the stream. Fails too if there is no device.
  gradus_optimizer(std::string_view recipe, std::span<const gradus::named_number> numbers, gradus_dtype dtype,
                   gradus::binding::stream s);
  bool is_on_device() const noexcept { return place.device() >= 0; }
#endif

  const gradus::tensor_handle& tensor(std::size_t number) const;

  template <class F>
  decltype(auto) visit(const F& f)
  {
    return std::visit(f, self);
  }
  template <class F>
  decltype(auto) visit(const F& f) const
  {
    return std::visit(f, self);
  }
};
