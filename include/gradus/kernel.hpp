#pragma once
/// \file
/// The kernel layer: one step of one tensor over raw spans, for programs that own their memory.
///
/// Nothing here allocates, throws or keeps state. Your program counts the steps and holds the slots. Each slot is as
/// long as the parameters and starts filled with `initial_value(rule, k)`:
///
///     const auto rule = gradus::adamw{.lr = 1e-3}.rule();
///     const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, t, lr_scale));  // t = 1, 2, …
///     const bool fits = gradus::update(gradus::default_backend{}, formula, weights, gradients, {exp_avg, exp_avg_sq});
///
/// Nadam keeps a number from step to step: pass what make_step_scalars returned for the step before as its fifth
/// argument.
///
/// A scheduled decay needs v̄, the fourth argument of make_step_scalars. If rule.scheduled_in_one_pass, keep one double
/// for all tensors that share β₂ and t: Σv, 0 at first. Before their step, advance it by their gradients' norm:
///
///     const auto rule = gradus::adams{.lr = 1e-3}.rule();
///     static double sum_of_v = 0;
///     gradus::exact_sum squares;
///     gradus::add_squared_norm(gradus::default_backend{}, std::span<const float>(gradients), squares);
///     gradus::add_squared_norm(gradus::default_backend{}, std::span<const float>(bias_gradients), squares);
///     sum_of_v = gradus::next_second_moment_sum<float>(rule.second_moment, sum_of_v, squares.value());
///     const double corrected = sum_of_v / rule.second_moment.correction(double(t));
///     const double mean_square = corrected / double(weights.size() + bias.size());
///     const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, t, lr_scale, mean_square));
///
/// A step size with sums, such as lamb's, takes its steps in two halves, `update_terms` and `update_weights`.
///
/// If not scheduled_in_one_pass, pass 0 and call update_moments, add the value slots of all tensors to an exact_sum
/// with add_sum, correct it likewise, prepare again with that v̄, and call update_weights. Where there are several
/// sums, because β₂ or t differ (if not scheduled_in_one_pass: the group or t), correct each, add them to an exact_sum,
/// and divide its value by the number of parameters. All this gives the bits of gradus::optimizer.

#include <array>
#include <concepts>
#include <cstddef>
#include <span>

#include <gradus/kernel/kernel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The N slots of a tensor as spans: {exp_avg, exp_avg_sq}. Another number of spans does not compile.
template <class T, std::size_t N>
struct slot_spans {
  std::array<std::span<T>, N> all = {};  ///< the first moment's slots, then the second moment's

  /// N empty spans.
  constexpr slot_spans() = default;
  /// From an array.
  constexpr slot_spans(const std::array<std::span<T>, N>& spans) noexcept : all(spans) {}
  /// From N ranges that convert to spans of T.
  template <class... X>
    requires(sizeof...(X) > 0 && (std::convertible_to<X, std::span<T>> && ...))
  constexpr slot_spans(X&&... spans) noexcept
  {
    static_assert(sizeof...(X) == N,
                  "gradus: the rule keeps another number of slots than spans were given; expected one for "
                  "each: the first moment's, then the second moment's.");
    if constexpr (sizeof...(X) == N)
      all = {std::span<T>(spans)...};
  }
};

namespace detail {

template <pass Pass, class Backend, class Prepared, class T = typename Prepared::value_type>
bool run_checked(const Backend& backend, const Prepared& c, std::span<T> theta, std::span<const T> g,
                 const slot_spans<T, Prepared::slots>& slots) noexcept
{
  T* pointer[Prepared::slots + 1] = {};
  bool good = g.size() == theta.size();
  for (std::size_t k = 0; k < Prepared::slots; ++k)
    if (c.keeps(k)) {
      good = good && slots.all[k].size() == theta.size();
      pointer[k] = slots.all[k].data();
    }
  if (good)
    run<Pass>(backend, c, theta.data(), g.data(), pointer, theta.size());
  return good;
}

}  // namespace detail

/// One step of one tensor, in one pass over its memory.
/// \param backend     backend::scalar, backend::simd or another CPU backend
/// \param formula     from `prepare`, for this step
/// \param parameters  updated
/// \param gradients   as long as the parameters, not overlapping them
/// \param slots       updated; each as long as the parameters. With momentum 0 its slot is ignored and may be empty; so
///                    is rmsprop's grad_avg if it is not centered
/// \return false, with nothing changed, if the lengths differ
template <class Backend, class F, class S, class P, class D, class T>
[[nodiscard]] bool update(const Backend& backend, const prepared<F, S, P, D, T>& formula,
                          std::type_identity_t<std::span<T>> parameters,
                          std::type_identity_t<std::span<const T>> gradients,
                          const std::type_identity_t<slot_spans<T, prepared<F, S, P, D, T>::slots>>& slots) noexcept
{
  static_assert(!has_sums<P>,
                "gradus: this step size needs sums before the first weight moves, so its step has two halves; take "
                "gradus::update_terms and gradus::update_weights.");
  return detail::run_checked<pass::whole>(backend, formula, parameters, gradients, slots);
}

/// The first half of a step in two passes, for rules that need the second moment of the whole model: updates only the
/// slots, and of those only the second moment's if the first moment reads v̄. Parameters and result as for `update`.
template <class Backend, class F, class S, class P, class D, class T>
[[nodiscard]] bool update_moments(
    const Backend& backend, const prepared<F, S, P, D, T>& formula, std::type_identity_t<std::span<T>> parameters,
    std::type_identity_t<std::span<const T>> gradients,
    const std::type_identity_t<slot_spans<T, prepared<F, S, P, D, T>::slots>>& slots) noexcept
{
  return detail::run_checked<pass::moments>(backend, formula, parameters, gradients, slots);
}

/// The second half: updates the parameters, and the slots that the first half left. Parameters and result as for
/// `update`.
template <class Backend, class F, class S, class P, class D, class T>
[[nodiscard]] bool update_weights(
    const Backend& backend, const prepared<F, S, P, D, T>& formula, std::type_identity_t<std::span<T>> parameters,
    std::type_identity_t<std::span<const T>> gradients,
    const std::type_identity_t<slot_spans<T, prepared<F, S, P, D, T>::slots>>& slots) noexcept
{
  return detail::run_checked<pass::weights>(backend, formula, parameters, gradients, slots);
}

/// The first half of a step of a step size with sums: updates the slots, and adds the tensor's terms to the sums. Then
/// make the factors with `factors_of`, from the values of the sums, change the formula with `prepare_with_factors`, and
/// call `update_weights`. Parameters and result as for `update`.
/// \param sums  one for each of the step size's `terms`; of one tensor or of all, as `sums_over` says
template <class Backend, class F, class S, class P, class D, class T>
  requires has_sums<P>
[[nodiscard]] bool update_terms(const Backend& backend, const prepared<F, S, P, D, T>& formula,
                                std::type_identity_t<std::span<T>> parameters,
                                std::type_identity_t<std::span<const T>> gradients,
                                const std::type_identity_t<slot_spans<T, prepared<F, S, P, D, T>::slots>>& slots,
                                std::type_identity_t<std::span<exact_sum, P::terms.size()>> sums) noexcept
{
  using formula_type = prepared<F, S, P, D, T>;
  bool good = gradients.size() == parameters.size();
  for (std::size_t k = 0; k < formula_type::slots; ++k)
    good = good && (!formula.keeps(k) || slots.all[k].size() == parameters.size());
  if (!good)
    return false;
  detail::page_of_terms<formula_type> terms = {};
  T *slot[formula_type::slots + 1] = {}, *term[P::terms.size()];
  for (std::size_t j = 0; j < P::terms.size(); ++j)
    term[j] = terms[j];
  for (std::size_t i = 0; i < parameters.size(); i += page_size) {
    const std::size_t n = parameters.size() - i < page_size ? parameters.size() - i : page_size;
    for (std::size_t k = 0; k < formula_type::slots; ++k)
      slot[k] = formula.keeps(k) ? slots.all[k].data() + i : nullptr;
    detail::run_terms(backend, formula, parameters.data() + i, gradients.data() + i, slot, term, n);
    double page[P::terms.size()];
    detail::sum_terms<formula_type>(backend, terms, n, page);
    for (std::size_t j = 0; j < P::terms.size(); ++j)
      sums[j].add(page[j]);
  }
  return true;
}

/// ‖x‖² in double, by pages (kernel/reduce.hpp), so with the same bits on every backend.
template <class Backend, class T>
[[nodiscard]] double squared_norm(const Backend& backend, std::span<const T> x) noexcept
{
  return reduce<square_term>(backend, x.data(), x.size());
}

/// Adds ‖x‖² to a sum. Add several tensors in any order: `sum.value()` is then their ‖g‖², with the bits of the
/// optimizer's.
template <class Backend, class T>
void add_squared_norm(const Backend& backend, std::span<const T> x, exact_sum& sum) noexcept
{
  add_pages<square_term>(backend, x.data(), x.size(), sum);
}

/// Σx in double, by pages (kernel/reduce.hpp), so with the same bits on every backend.
template <class Backend, class T>
[[nodiscard]] double sum(const Backend& backend, std::span<const T> x) noexcept
{
  return reduce<plain_term>(backend, x.data(), x.size());
}

/// Adds Σx to a sum.
template <class Backend, class T>
void add_sum(const Backend& backend, std::span<const T> x, exact_sum& sum) noexcept
{
  add_pages<plain_term>(backend, x.data(), x.size(), sum);
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
