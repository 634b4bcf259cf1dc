#pragma once
/// \file
/// One program for every machine: without -march, steps still run with the widest instruction set that the machine has.
/// Link gradus::dispatch, the only part of gradus that is compiled separately.
///
///     #include <gradus/backend/dispatch.hpp>
///     #include <gradus/gradus.hpp>
///     gradus::optimizer<gradus::adamw, float, gradus::backend::dispatch> opt;
///
/// Steps give the bits of a program built for that instruction set. Instruction sets with fma belong to one family of
/// bits, regardless of the caller's flags. It runs the recipes of recipes.hpp, or those that CMake's GRADUS_RECIPES names
/// (docs/c.md), and adamw with decay::cautious, in float and double, also with 16-bit parameters and gradients and with
/// 8-bit state. A call costs one more indirect jump.

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include <gradus/error.hpp>
#include <gradus/kernel.hpp>
#include <gradus/recipes.hpp>
#include <gradus/state/slots.hpp>

#if defined(GRADUS_RECIPES_HEADER)
#include GRADUS_RECIPES_HEADER
#endif

#include <gradus/macros_off.hpp>

namespace gradus {

/// The functions of gradus::dispatch for one instruction set. Caller and component are compiled with different flags,
/// so the type of a kernel differs between them (see GRADUS_ISA). They agree on its index in the list below and on its
/// bytes.
struct dispatch_table {
  /// Applies the kernel to n elements.
  using sweep_function = void (*)(const void* kernel, void* theta, const void* g, const void* slots,
                                  std::size_t n) noexcept;
  /// The sums of the pages of n elements.
  using sum_function = void (*)(const void* x, std::size_t n, double* sums) noexcept;

  const char* name;               ///< of the instruction set
  std::uint64_t layout;           ///< equal in a header and a component that belong together
  const sweep_function* sweeps;   ///< in the order of for_each_dispatched_kernel
  const sum_function* page_sums;  ///< squares of float, squares of double, sums of float, sums of double
};

/// The table of an instruction set, or null if the component was not compiled for it or the machine does not have it.
/// \param set  a backend::instruction_set as a number
extern "C" const dispatch_table* gradus_dispatch_table(int set) noexcept;

}  // namespace gradus

GRADUS_OPEN_NAMESPACE

/// The recipes that gradus::dispatch and libgradus are compiled with: all of gradus's, unless CMake's GRADUS_RECIPES names
/// others, which may be your own.
#if defined(GRADUS_RECIPES)
using compiled_recipes = GRADUS_RECIPES;
#else
using compiled_recipes = all_recipes;
#endif

namespace detail {

/// Calls f(type_identity<Kernel>) for every kernel of the component: those that the recipes run, float's before
/// double's, and one composition more.
template <class Visitor>
constexpr void for_each_dispatched_kernel(const Visitor& f)
{
  // Rule says in which passes its steps are taken; rules that are idle take theirs in the same.
  const auto visit_passes = [&]<class Rule, class Formula>(std::type_identity<Rule>, std::type_identity<Formula>) {
    f(std::type_identity<kernel<pass::whole, Formula>>{});
    if constexpr (Rule::scheduled)
      f(std::type_identity<kernel<pass::moments, Formula>>{});
    if constexpr (Rule::sums)
      f(std::type_identity<kernel<pass::terms, Formula>>{});
    if constexpr (Rule::sums || (Rule::scheduled && !Rule::scheduled_in_one_pass))
      f(std::type_identity<kernel<pass::weights, Formula>>{});
  };
  const auto visit_first =
      [&]<class Rule, class F, class S, class P, class D, class T>(Rule of,
                                                                   std::type_identity<prepared<F, S, P, D, T>> all) {
        visit_passes(of, all);
        if constexpr (requires { typename F::idle_form; })
          visit_passes(of, std::type_identity<prepared<typename F::idle_form, S, P, D, T>>{});
      };
  const auto visit = [&]<class T, class F, class S, class P, class D>(T, const composition<F, S, P, D>&) {
    constexpr std::type_identity<composition<F, S, P, D>> of{};
    visit_first(of, std::type_identity<prepared<F, S, P, D, T>>{});
    if constexpr (requires { typename S::idle_form; })
      visit_first(of, std::type_identity<prepared<F, typename S::idle_form, P, D, T>>{});
  };
  compiled_recipes::for_each([&]<class Recipe>(auto, std::type_identity<Recipe>) {
    visit(float(), Recipe{}.rule());
    visit(double(), Recipe{}.rule());
  });
  // AdamW with cautious weight decay, which is no recipe.
  constexpr auto cautious = compose(0, first_moment::ema{}, second_moment::ema{}, step_size::adaptive{},
                                    decay::cautious{});
  visit(float(), cautious);
  visit(double(), cautious);
}

/// The index of a kernel among them, or their number if it is none of them.
template <class Kernel>
constexpr std::size_t dispatch_index() noexcept
{
  std::size_t index = 0;
  bool found = false;
  for_each_dispatched_kernel([&]<class K>(std::type_identity<K>) {
    index += !(found = found || std::is_same_v<K, Kernel>);
  });
  return index;
}
inline constexpr std::size_t dispatched_kernels = dispatch_index<void>();

/// A hash that differs if header and component are of different versions.
constexpr std::uint64_t dispatch_layout() noexcept
{
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  const auto add = [&](std::uint64_t x) { hash = (hash ^ x) * 0x100000001b3u; };
  add(GRADUS_VERSION_MAJOR);
  add(GRADUS_VERSION_MINOR);
  add(GRADUS_VERSION_PATCH);
  for_each_dispatched_kernel([&]<class K>(std::type_identity<K>) {
    static_assert(std::is_trivially_copyable_v<K>, "a kernel crosses over as bytes");
    add(sizeof(K));
    add(K::slots);
  });
  return hash;
}

}  // namespace detail

namespace backend {

/// The instruction sets of gradus::dispatch, narrowest first.
enum class instruction_set {
  baseline,  ///< on every machine of the target: SSE2 on x86-64, NEON on 64-bit Arm
  avx2_fma,  ///< AVX2 and FMA
  avx512,    ///< AVX-512 F, BW, CD, DQ and VL
};

/// The backend that runs the loops of gradus::dispatch. Threads may share an object.
class dispatch {
 public:
  /// Uses the widest instruction set that processor and operating system support.
  dispatch() : dispatch(widest()) {}

  /// Uses the given instruction set; other targets than x86-64 have only `baseline`.
  /// \throws std::invalid_argument if the machine does not have it, or the linked component is of another version
  explicit dispatch(instruction_set set) : table_(gradus_dispatch_table(int(set)))
  {
    if (!table_)
      detail::fail("instruction_set is " + show(set) + "; expected one that this machine has, the widest being " +
                   show(widest()));
    if (table_->layout != detail::dispatch_layout())
      detail::fail(
          "the linked gradus::dispatch is of another version than the header; expected both from one installation");
  }

  /// Whether the machine has an instruction set and the component was compiled for it.
  static bool supports(instruction_set set) noexcept { return gradus_dispatch_table(int(set)) != nullptr; }

  /// The instruction set in use: "baseline", "avx2_fma", "avx512" or "neon".
  const char* name() const noexcept { return table_->name; }

  /// Applies a kernel of one of the recipes to n elements; any other kernel does not compile.
  template <class Kernel, class T>
  void sweep(const Kernel& kernel, T* theta, const T* g, T* const* slots, std::size_t n) const noexcept
  {
    constexpr std::size_t index = detail::dispatch_index<Kernel>();
    static_assert(index < detail::dispatched_kernels,
                  "gradus: backend::dispatch runs the recipes, and this is another composition; take backend::simd and "
                  "build with -march, or name your recipe in CMake's GRADUS_RECIPES.");
    if constexpr (index < detail::dispatched_kernels)
      table_->sweeps[index](&kernel, theta, g, slots, n);
  }

  /// The same for 16-bit parameters or gradients, with state in float. Blocks of them are decoded to floats, because the
  /// component's loops know no other type; the bits are those of the other backends.
  template <class Kernel, class Theta, class G, class Slot>
  void sweep(const Kernel& kernel, const Theta& theta, const G& g, const Slot* slots, std::size_t n) const noexcept
  {
    static_assert(std::is_pointer_v<Slot> && !std::is_same_v<Theta, completed>,
                  "gradus: backend::dispatch has no state in bfloat16 and no master weights in remainder16; take "
                  "backend::simd and build with -march.");
    if constexpr (std::is_pointer_v<Slot> && !std::is_same_v<Theta, completed>)
      for (std::size_t i = 0; i < n; i += detail::stage)
        sweep_block(kernel, from(theta, i), from(g, i), slots, i, n - i < detail::stage ? n - i : detail::stage);
  }

  /// The sums, or sums of squares, of the pages of n elements.
  template <class Term, class T>
  void page_sums(Term, const T* x, std::size_t n, double* sums) const noexcept
  {
    constexpr bool square = std::is_same_v<Term, square_term>;
    static_assert(square || std::is_same_v<Term, plain_term>,
                  "gradus: backend::dispatch adds up numbers or their squares.");
    table_->page_sums[(square ? 0 : 2) + (sizeof(T) == sizeof(float) ? 0 : 1)](x, n, sums);
  }

 private:
  /// The elements of one block: theta and g begin there, and the slots i elements before.
  template <class Kernel, class Theta, class G>
  void sweep_block(const Kernel& kernel, const Theta& theta, const G& g, float* const* slots, std::size_t i,
                   std::size_t n) const noexcept
  {
    float weights[detail::stage], gradients[detail::stage], *slot[Kernel::slots + 1] = {}, *weight = weights;
    const float* gradient = gradients;
    if constexpr (std::is_pointer_v<Theta>)
      weight = theta;
    else if constexpr (requires { theta.master; })
      weight = theta.master;
    else
      for (std::size_t k = 0; k < n; ++k)
        weights[k] = float(theta.data[k]);
    if constexpr (std::is_pointer_v<G>)
      gradient = g;
    else
      for (std::size_t k = 0; k < n; ++k)
        gradients[k] = float(g.data[k]);
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      slot[k] = slots[k] ? slots[k] + i : nullptr;
    sweep(kernel, weight, gradient, slot, n);
    if constexpr (!std::is_pointer_v<Theta> && Kernel::writes_parameters)
      for (std::size_t k = 0; k < n; ++k)
        store(theta, k, weight[k]);
  }
  static instruction_set widest() noexcept
  {
    int set = int(instruction_set::avx512);
    while (set > 0 && !gradus_dispatch_table(set))
      --set;
    return instruction_set(set);
  }
  static std::string show(instruction_set set)
  {
    switch (set) {
    case instruction_set::baseline: return "baseline";
    case instruction_set::avx2_fma: return "avx2_fma";
    case instruction_set::avx512: return "avx512";
    }
    return std::to_string(int(set));
  }

  const dispatch_table* table_;
};

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
