#pragma once
/// \file
/// The four rules fused into one element update, and the concept for backends that run it.

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

#include <gradus/kernel/arrays.hpp>
#include <gradus/kernel/element.hpp>
#include <gradus/kernel/reduce.hpp>
#include <gradus/rules/composition.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The formula that a rule's `prepare<T>` returns, with one step's coefficients.
template <class Rule, class T>
using formula_of = decltype(std::declval<const Rule&>().template prepare<T>(step_scalars{}));

namespace detail {

/// Whether a moment does not need all its slots in this run.
template <class Moment>
GRADUS_HOST_DEVICE bool is_idle([[maybe_unused]] const Moment& rule) noexcept
{
  if constexpr (requires { rule.idle(); })
    return rule.idle();
  else
    return false;
}

/// Scales a step as the decay wants it, and bounds of the step that follow lr_scale. \param of_decay  the decay's scalars
template <class Decay>
GRADUS_HOST_DEVICE void scale_step([[maybe_unused]] step_scalars& of_step, [[maybe_unused]] const Decay& decay,
                                   [[maybe_unused]] const step_scalars& of_decay) noexcept
{
  if constexpr (requires { decay.step_factor(of_decay); }) {
    const double factor = decay.step_factor(of_decay);
    of_step.lr *= factor;
    of_step.lr_scale *= factor;
  }
}

/// The scalars for the step size, scaled by the decay. A step size with sums knows the decay's rate.
template <class StepSize, class Decay>
GRADUS_HOST_DEVICE step_scalars seen_by_step_size([[maybe_unused]] const Decay& decay, step_scalars k) noexcept
{
  if constexpr (has_sums<StepSize> && requires { decay.rate(k); })
    k.decay_rate = decay.rate(k);
  scale_step(k, decay, step_scalars(k));
  return k;
}

/// Whether slot k of two moments exists. Idle, a first moment has no slots, and a second moment those of its idle form.
template <class F, class S>
GRADUS_HOST_DEVICE constexpr bool keeps_slot(std::size_t k, bool idle_first, [[maybe_unused]] bool idle_second) noexcept
{
  if (k < F::slots.size())
    return !idle_first;
  if constexpr (requires { typename S::idle_form; })
    return !idle_second || k - F::slots.size() < S::idle_form::slots.size();
  else
    return true;
}

}  // namespace detail

/// The formulas of a composition for one step of the tensors that share a step count. Small and trivially copyable.
template <class FirstMoment, class SecondMoment, class StepSize, class Decay, class T>
struct prepared {
  formula_of<FirstMoment, T> first_moment;    ///< g → d
  formula_of<SecondMoment, T> second_moment;  ///< g → v
  formula_of<StepSize, T> step_size;          ///< a(v)
  formula_of<Decay, T> decay;                 ///< changes g or shrinks θ
  T grad_scale = 1;                           ///< factor on each gradient
  bool idle_first_moment = false;             ///< momentum 0: its slot is not read or written
  bool idle_second_moment = false;            ///< not centered: its second slot is not read or written

  using value_type = T;                                                           ///< float or double
  using first_moment_type = FirstMoment;                                          ///< the rule
  using step_size_type = StepSize;                                                ///< the rule
  using second_moment_type = SecondMoment;                                        ///< the rule
  static constexpr std::size_t first_slots = FirstMoment::slots.size();           ///< slots of the first moment
  static constexpr std::size_t slots = first_slots + SecondMoment::slots.size();  ///< slots of both moments
  /// The number of the slot that holds v.
  static constexpr std::size_t value_slot = [] {
    if constexpr (keeps_second_moment<SecondMoment>)
      return first_slots + SecondMoment::value_slot;
    else
      return std::size_t(0);
  }();
  /// The number of terms that the step size adds up before the first weight moves.
  static constexpr std::size_t terms = detail::term_count<StepSize>();
  static constexpr bool has_second_moment = keeps_second_moment<SecondMoment>;  ///< whether there is a v

  /// Whether slot k exists: an idle moment has fewer.
  GRADUS_HOST_DEVICE bool keeps(std::size_t k) const noexcept
  {
    return detail::keeps_slot<FirstMoment, SecondMoment>(k, idle_first_moment, idle_second_moment);
  }
};

/// The formulas of one step, with coefficients rounded to T.
/// \param rule  a recipe's `rule()`
/// \param k  from make_step_scalars
/// \param grad_scale  factor on each gradient, such as 1/loss scale or a clip factor; negative to ascend
template <class T, class F, class S, class P, class D>
GRADUS_HOST_DEVICE prepared<F, S, P, D, T> prepare(const composition<F, S, P, D>& rule, const step_scalars& k,
                                                   double grad_scale = 1) noexcept
{
  const D decay = detail::scaled_decay(rule.decay, k);
  return {rule.first_moment.template prepare<T>(k),
          rule.second_moment.template prepare<T>(k),
          rule.step_size.template prepare<T>(detail::seen_by_step_size<P>(decay, k)),
          decay.template prepare<T>(k),
          T(grad_scale),
          detail::is_idle(rule.first_moment),
          detail::is_idle(rule.second_moment)};
}

/// The same formulas once v̄ of the step is known.
/// \param k  with this v̄
template <class F, class S, class P, class D, class T>
GRADUS_HOST_DEVICE void prepare_with_mean(prepared<F, S, P, D, T>& formula, const composition<F, S, P, D>& rule,
                                          const step_scalars& k) noexcept
{
  if constexpr (reads_mean_square<F>)
    formula.first_moment = rule.first_moment.template prepare<T>(k);
  if constexpr (reads_mean_square<D>)
    formula.decay = detail::scaled_decay(rule.decay, k).template prepare<T>(k);
}

/// The factors on the step of a tensor, from the sums of its terms or of the whole model's.
/// \param k     from make_step_scalars
/// \param sums  one for each of the step size's `terms`
/// \param n     the number of elements in them; with 0, the factors are 1
template <class F, class S, class P, class D>
GRADUS_HOST_DEVICE step_factors factors_of(const composition<F, S, P, D>& rule, const step_scalars& k,
                                           const double* sums, double n) noexcept
{
  if (!(n > 0))
    return {};
  return rule.step_size.finish(sums, n, detail::seen_by_step_size<P>(detail::scaled_decay(rule.decay, k), k));
}
/// The same formulas with these factors, for `pass::weights`.
template <class F, class S, class P, class D, class T>
GRADUS_HOST_DEVICE void prepare_with_factors(prepared<F, S, P, D, T>& formula, const composition<F, S, P, D>& rule,
                                             const step_scalars& k, const step_factors& factors) noexcept
{
  const D decay = detail::scaled_decay(rule.decay, k);
  step_scalars of_step = detail::seen_by_step_size<P>(decay, k), of_decay = k;
  // An infinite one would give NaN where the direction is 0.
  constexpr auto most = double((std::numeric_limits<T>::max)());
  of_step.lr = k.lr * factors.step > most ? most : k.lr * factors.step;
  of_step.lr_scale = k.lr_scale * factors.step;
  of_decay.lr *= factors.decay;
  detail::scale_step(of_step, decay, of_decay);
  formula.step_size = rule.step_size.template prepare<T>(of_step);
  formula.decay = decay.template prepare<T>(of_decay);
}

/// The whole update in one pass, or one of its halves, for rules that need the moments of the whole model first.
enum class pass {
  whole,    ///< slots and parameters
  moments,  ///< only the slots; only the second moment's, if the first moment reads v̄
  weights,  ///< what `moments` or `terms` left
  terms     ///< the slots, and the terms of a step size with sums, as further slots
};

/// One element's update: θ, g, slots → θ′, slots′, over any value type V.
template <pass Pass, class Prepared>
struct kernel {
  Prepared c;  ///< the formulas

  using value_type = typename Prepared::value_type;  ///< float or double
  /// Slots of both moments, and the terms of `pass::terms`, which are only written.
  static constexpr std::size_t slots = Prepared::slots + (Pass == pass::terms ? Prepared::terms : 0);
  static constexpr std::size_t first_slots = Prepared::first_slots;  ///< slots of the first moment
  /// Whether this pass updates θ.
  static constexpr bool writes_parameters = Pass == pass::whole || Pass == pass::weights;
  /// Whether this pass updates the first moment. One that reads v̄ waits for all second moments.
  static constexpr bool updates_first = Pass !=
                                        (reads_mean_square<typename Prepared::first_moment_type> ? pass::moments
                                                                                                 : pass::weights);
  static constexpr bool writes_slots = Pass != pass::weights || updates_first;  ///< whether this pass updates slots

  /// For single elements: the rules see detail::number, not float or double itself.
  template <real V>
  GRADUS_HOST_DEVICE void operator()(V& theta, V g, V* slot) const noexcept
  {
    using number = detail::number<V>;
    number x(theta), state[slots + 1];
    for (std::size_t k = 0; k < slots; ++k)
      state[k] = number(slot[k]);
    (*this)(x, number(g), state);
    for (std::size_t k = 0; k < slots; ++k)
      slot[k] = state[k].x;
    theta = x.x;
  }
  /// Updates θ and the slots of V's elements. \param slot  the slots, first moment's first
  template <class V>
  GRADUS_HOST_DEVICE void operator()(V& theta, V g, V* slot) const noexcept
  {
    using F = typename Prepared::first_moment_type;
    static_assert(
        Pass != pass::weights || !takes_one_pass<F>,
        "gradus: this first moment computes its direction before it updates its slots, or averages weights, so "
        "its step cannot be taken in two passes; take gradus::update.");
    V* const second_slot = slot + Prepared::first_slots;
    // The product costs nothing beside a square root and a division; without them it is a fifth of the arithmetic.
    if (Prepared::has_second_moment || c.grad_scale != 1)
      g = product(V(c.grad_scale), g);
    if constexpr (requires { c.decay.gradient(g, theta); })
      g = c.decay.gradient(g, theta);
    if constexpr (Pass != pass::weights && changes_gradient_of_v<F>)
      c.second_moment.update(second_slot, c.first_moment.gradient_of_v(slot, g), g);
    else if constexpr (Pass != pass::weights && reads_new_v<F>)
      c.second_moment.update(second_slot, g, g);
    if constexpr (updates_first && !updates_last<F>)
      update_first(slot, g, theta);
    V d = g;
    if constexpr (reads_parameters<F>)
      d = c.first_moment.direction(slot, g, slot[Prepared::value_slot], theta);
    else if constexpr (reads_new_v<F>)
      d = c.first_moment.direction(slot, g, slot[Prepared::value_slot]);
    else
      d = c.first_moment.direction(slot, g);
    if constexpr (updates_first && updates_last<F>)
      update_first(slot, g, theta);
    if constexpr (Pass != pass::weights && !reads_new_v<F> && !changes_gradient_of_v<F>)
      c.second_moment.update(second_slot, g, d);
    if constexpr (Pass == pass::terms)
      c.step_size.term(slot + Prepared::slots, theta, g, d,
                       Prepared::has_second_moment ? slot[Prepared::value_slot] : g);
    if constexpr (writes_parameters) {
      [[maybe_unused]] const V before = theta;
      const V v = Prepared::has_second_moment ? slot[Prepared::value_slot] : g;
      if constexpr (requires { c.step_size.displacement(v, d, g, theta); })
        move(theta, V(1), c.step_size.displacement(v, d, g, theta));
      else if constexpr (requires { c.decay.weights(theta, d); } || requires { c.decay.decrement(theta, d); })
        move(theta, c.step_size(v), d);
      else {
        const V a = c.step_size(v);
        V kept = theta;
        if constexpr (requires { c.decay.weights(theta); })
          kept = c.decay.weights(theta);
        // The decay is added to u first, because alone it may be too small to change θ.
        if constexpr (requires { c.decay.decrement(theta); }) {
#if defined(__CUDA_ARCH__)  // computes both and selects one: for a branch here nvcc emits two stores of the weight
          const V by_factor = fma(-a, d, kept), by_decrement = theta - fma(a, d, c.decay.decrement(theta));
          theta = decrements(c.decay) ? by_decrement : by_factor;
#else
          theta = decrements(c.decay) ? theta - fma(a, d, c.decay.decrement(theta)) : fma(-a, d, kept);
#endif
        } else
          theta = fma(-a, d, kept);
      }
      if constexpr (finishes_step<F>)
        c.first_moment.finish(slot, before, theta);
    }
  }

 private:
  template <class V>
  GRADUS_INLINE GRADUS_HOST_DEVICE void update_first(V* slot, V g, [[maybe_unused]] V theta) const noexcept
  {
    if constexpr (reads_parameters<typename Prepared::first_moment_type>)
      c.first_moment.update(slot, g, slot[Prepared::value_slot], theta);
    else if constexpr (reads_v<typename Prepared::first_moment_type>)
      c.first_moment.update(slot, g, slot[Prepared::value_slot]);
    else
      c.first_moment.update(slot, g);
  }
  /// θ − u for u = a·d and a decay that may read d.
  template <class V>
  GRADUS_INLINE GRADUS_HOST_DEVICE void move(V& theta, V a, V d) const noexcept
  {
    V kept = theta, taken = V(0);
    if constexpr (requires { c.decay.weights(theta); })
      kept = c.decay.weights(theta);
    else if constexpr (requires { c.decay.weights(theta, d); })
      kept = c.decay.weights(theta, d);
    if constexpr (requires { c.decay.decrement(theta); })
      taken = c.decay.decrement(theta);
    else if constexpr (requires { c.decay.decrement(theta, d); })
      taken = c.decay.decrement(theta, d);
    if constexpr (requires { c.decay.decrement(theta); } || requires { c.decay.decrement(theta, d); }) {
      const V by_factor = fma(-a, d, kept), by_decrement = theta - fma(a, d, taken);
      theta = decrements(c.decay) ? by_decrement : by_factor;
    } else
      theta = fma(-a, d, kept);
  }
  /// Whether `decrement` acts in this step. A formula that has both `decrement` and `weights` says which.
  template <class Decay>
  GRADUS_HOST_DEVICE static bool decrements(const Decay& decay) noexcept
  {
    if constexpr (requires { decay.decrements; })
      return decay.decrements;
    else
      return true;
  }
};

/// Applies a kernel to the V::size elements that start at i (one element for a plain number). The loop body of every
/// backend. Arrays of the compute type come as pointers, others as one of the classes in arrays.hpp.
template <class V, class Kernel, class Theta, class G, class Slot>
GRADUS_HOST_DEVICE inline void apply_at(const Kernel& kernel, Theta theta, G g, const Slot* slots,
                                        std::size_t i) noexcept
{
  V slot[Kernel::slots + 1];
  for (std::size_t k = 0; k < Kernel::slots; ++k)
    slot[k] = load<V>(slots[k], i);
  V x = load<V>(theta, i);
  kernel(x, load<V>(g, i), slot);
  if constexpr (Kernel::writes_slots)
    for (std::size_t k = 0; k < Kernel::slots; ++k)
      store(slots[k], i, slot[k]);
  if constexpr (Kernel::writes_parameters)
    store(theta, i, x);
}

namespace detail {

/// The formula of a moment's idle form.
template <class Idle, class T, class Formula>
GRADUS_INLINE GRADUS_HOST_DEVICE inline formula_of<Idle, T> idle_formula(const Formula& f) noexcept
{
  if constexpr (requires { f.idle_form(); })
    return f.idle_form();
  else
    return {};
}

/// Calls f(kernel, skipped), or f of the kernel with the second moment's idle form if that is idle.
template <pass Pass, class F, class S, class P, class D, class T, class Call>
GRADUS_INLINE GRADUS_HOST_DEVICE inline auto with_second_moment(
    const kernel<Pass, prepared<F, S, P, D, T>>& kernel_of_all, std::size_t skipped, const Call& f) noexcept
{
  if constexpr (requires { typename S::idle_form; }) {
    using idle = typename S::idle_form;
    const auto& c = kernel_of_all.c;
    if (c.idle_second_moment)
      return f(kernel<Pass, prepared<F, idle, P, D, T>>{{c.first_moment, idle_formula<idle, T>(c.second_moment),
                                                         c.step_size, c.decay, c.grad_scale}},
               skipped);
  }
  return f(kernel_of_all, skipped);
}

/// Calls f(kernel, skipped) with the kernel that runs these formulas. Idle moments have no slots in it that they do not
/// need, and `skipped` is the number of the first moment's.
template <pass Pass, class F, class S, class P, class D, class T, class Call>
GRADUS_INLINE GRADUS_HOST_DEVICE inline auto with_kernel(const prepared<F, S, P, D, T>& c, const Call& f) noexcept
{
  if constexpr (requires { typename F::idle_form; }) {
    using idle = typename F::idle_form;
    if (c.idle_first_moment)
      return with_second_moment(kernel<Pass, prepared<idle, S, P, D, T>>{{idle_formula<idle, T>(c.first_moment),
                                                                          c.second_moment, c.step_size, c.decay,
                                                                          c.grad_scale, false, c.idle_second_moment}},
                                F::slots.size(), f);
  }
  if constexpr (requires { typename S::idle_form; })
    return with_second_moment(kernel<Pass, prepared<F, S, P, D, T>>{c}, 0, f);
  else
    return f(kernel<Pass, prepared<F, S, P, D, T>>{c}, std::size_t(0));
}

template <pass Pass, class Backend, class Prepared, class Theta, class G, class Slot>
void run(const Backend& backend, const Prepared& c, const Theta& theta, const G& g, const Slot* slots,
         std::size_t n) noexcept
{
  // Inlined: a kernel that is passed on is stored piecewise and loaded back in packs, which stalls.
  with_kernel<Pass>(c, [&](const auto& kernel, std::size_t skipped)
                           GRADUS_INLINE { backend.sweep(kernel, theta, g, slots + skipped, n); });
}

/// Runs pass::terms over n elements. Updates the slots, and writes to the arrays of terms.
template <class Backend, class Prepared, class Theta, class G, class T>
void run_terms(const Backend& backend, const Prepared& c, const Theta& theta, const G& g, T* const* slots,
               T* const* terms, std::size_t n) noexcept
{
  T* all[Prepared::slots + Prepared::terms + 1] = {};
  std::size_t end = 0;  // of the slots of the kernel, which lacks the last ones of an idle second moment
  for (std::size_t k = 0; k < Prepared::slots; ++k)
    if (k < Prepared::first_slots || c.keeps(k))
      all[end++] = slots[k];
  for (std::size_t j = 0; j < Prepared::terms; ++j)
    all[end + j] = terms[j];
  run<pass::terms>(backend, c, theta, g, all, n);
}
/// The terms of a page.
template <class Prepared>
using page_of_terms = typename Prepared::value_type[Prepared::terms > 0 ? Prepared::terms : 1][page_size];
/// The sum of each term over the first n elements of a page.
template <class Prepared, class Backend>
void sum_terms(const Backend& backend, const page_of_terms<Prepared>& terms, std::size_t n, double* sums) noexcept
{
  constexpr auto kinds = Prepared::step_size_type::terms;
  for (std::size_t j = 0; j < kinds.size(); ++j)
    sums[j] = kinds[j] == summed::squares ? page_sum<square_term>(backend, terms[j], n)
                                          : page_sum<plain_term>(backend, terms[j], n);
}

using some_kernel = kernel<pass::whole, decltype(prepare<float>(std::declval<some_composition>(), step_scalars{}))>;

template <class B>
concept runs_kernels = requires(const B& b, float* theta, const float* g, float* const* slots, std::size_t n) {
  b.sweep(some_kernel{}, theta, g, slots, n);
};
template <class B>
concept sums_pages = requires(const B& b, const float* x, std::size_t n, double* sums) {
  b.page_sums(square_term{}, x, n, sums);
} || requires(const B& b, double (&partial)[page_lanes], const float* x, std::size_t n) {
  b.accumulate(square_term{}, partial, x, n);
};

}  // namespace detail

/// A backend: runs a kernel over arrays (`sweep`) and sums them (`accumulate` or `page_sums`), as backend::scalar does;
/// or has its own memory (`memory_type`), as Thrust's does.
template <class B>
concept backend_type_of = requires { typename B::memory_type; } || (detail::runs_kernels<B> && detail::sums_pages<B>);

/// The start value of slot k of a composition, 0 ≤ k < slots.
template <class F, class S, class P, class D>
double initial_value(const composition<F, S, P, D>& rule, std::size_t k) noexcept
{
  if (k < F::slots.size()) {
    if constexpr (requires { rule.first_moment.initial_value(k); })
      return rule.first_moment.initial_value(k);
  } else if constexpr (requires { rule.second_moment.initial_value(k); })
    return rule.second_moment.initial_value(k - F::slots.size());
  return 0;
}

namespace detail {

template <class T>
GRADUS_HOST_DEVICE double next_second_moment_sum_by_beta(double beta2, double sum, double grad_norm_sq,
                                                         double grad_scale) noexcept
{
  const double scale = double(T(grad_scale));
  return fused(double(T(1 - beta2)), scale * scale * grad_norm_sq, double(T(beta2)) * sum);
}

}  // namespace detail

/// Σv after a step: β₂·Σv + (1−β₂)·‖g‖². The coefficients are rounded to T, as the elements see them; with unrounded
/// ones the result drifts from Σv a hundred times faster.
/// \param rule  a `linear` second moment
/// \param sum  Σv before the step
/// \param grad_norm_sq  ‖g‖² of the raw gradients
/// \param grad_scale  factor on each gradient
template <class T, class SecondMoment>
[[nodiscard]] GRADUS_HOST_DEVICE double next_second_moment_sum(const SecondMoment& rule, double sum,
                                                               double grad_norm_sq, double grad_scale = 1) noexcept
{
  static_assert(SecondMoment::linear, "gradus: this second moment is not linear in g²; sum its value slot instead.");
  return detail::next_second_moment_sum_by_beta<T>(rule.beta(), sum, grad_norm_sq, grad_scale);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
