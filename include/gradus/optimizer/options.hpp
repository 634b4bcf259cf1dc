#pragma once
/// \file
/// What a step is told, and what it reports.

#include <cstdint>
#include <optional>
#include <string>

#include <gradus/error.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/rules/hyperparameters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The first field of a struct of options: as nothing converts to it, values without names do not compile.
struct every_option_is_named {
  explicit every_option_is_named() = default;
  template <class X>
  every_option_is_named(X) = delete;
};

}  // namespace detail

/// What one step may be told; every field is optional, and named: step({.lr_scale = 0.5}).
struct step_options {
  detail::every_option_is_named named_fields_only = detail::every_option_is_named();
  double lr_scale = 1;                       ///< a schedule's factor on the recipe's lr
  double grad_scale = 1;                     ///< factor on every gradient: 1/loss scale, 1/accumulated batches, …
  std::optional<double> max_grad_norm = {};  ///< clip the scaled gradients' global norm to this, as PyTorch does
  std::optional<double> grad_norm_sq = {};   ///< ‖g‖² of all raw gradients that take part, if the caller has it
  /// Change nothing if a gradient is infinite or NaN, or if the step would make a moment or a weight so.
  /// (Not seen: an L2 decay's λθ, and weights kept in 16 bits, that leave their type's range by their own size.)
  bool skip_nonfinite = false;
  bool flush_denormals = false;              ///< take denormal numbers for zeros within the step (see denormals.hpp)
  /// v̄ of the whole model for a scheduled decay, from a caller whose optimizers are parts of one model. No norm is then
  /// computed for it. Other decays do not look at it.
  std::optional<double> mean_square = {};
  /// The number of parameters of the whole model, where this optimizer has a part of them and grad_norm_sq is the whole
  /// model's: a scheduled decay's v̄ is then the whole model's too, in every part to the bit. For models whose tensors all
  /// have taken the same number of steps, from the first step on; in other cases, and where the second moment is not linear
  /// in g² or is kept rounded, give mean_square. Other decays do not look at it.
  std::optional<std::uint64_t> model_size = {};
};

/// What one step did.
struct step_report {
  bool applied = true;                      ///< false where skip_nonfinite found something, a device cannot clip so far, or while `pending`
  std::optional<double> grad_norm = {};     ///< after grad_scale, before clipping; if it was computed or given
  std::optional<double> mean_square = {};   ///< v̄, where the decay is scheduled
  std::optional<double> decay_factor = {};  ///< the default group's 1/√(v̄ + eps), 0 for v̄ + eps = 0; likewise
  bool decay_clamped = false;               ///< a scheduled decay would have taken more than the whole weight
  bool pending = false;                     ///< the step is only enqueued on a device; report() waits for what it did
};

namespace detail {

/// Whether the step scales gradients down to a norm. (An infinite limit only measures.)
inline bool clips(const step_options& o) noexcept
{
  return o.max_grad_norm && is_finite(*o.max_grad_norm);
}

/// Refuses options that no optimizer could step with. \tparam T  of the arithmetic
template <class T>
void check_options(const step_options& o)
{
  check("lr_scale", o.lr_scale, range::at_least_zero);
  if (!is_finite(o.grad_scale) || o.grad_scale <= 0)
    fail("grad_scale is " + show(o.grad_scale) + "; expected a finite number > 0");
  if constexpr (sizeof(T) < sizeof(double))
    if (o.grad_scale < smallest_normal<T> || o.grad_scale > largest<T>)
      fail("grad_scale is " + show(o.grad_scale) + "; expected a number from " + show(smallest_normal<T>) + " to " + show(largest<T>) +
           ", the range of " + name_of<T>);
  if (o.max_grad_norm && (is_nan(*o.max_grad_norm) || *o.max_grad_norm <= 0))
    fail("max_grad_norm is " + show(*o.max_grad_norm) + "; expected a number > 0 (infinity only measures)");
  if (o.grad_norm_sq && (*o.grad_norm_sq < 0 || (is_nan(*o.grad_norm_sq) && !o.skip_nonfinite)))
    fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected the sum of the squares of all raw gradients");
  if (o.grad_norm_sq && !is_finite(*o.grad_norm_sq) && clips(o) && !o.skip_nonfinite)
    fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected a finite number with max_grad_norm, which divides by its root: "
         "leave it out and it is computed, or set skip_nonfinite");
  if (o.mean_square && !contains(range::at_least_zero, *o.mean_square))
    fail("mean_square is " + show(*o.mean_square) + "; expected " + expectation(range::at_least_zero));
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
