#pragma once
/// \file
/// The options of a step and its report. Options are checked here as far as they do not depend on the tensors.

#include <cstdint>
#include <optional>
#include <string>

#include <gradus/error.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/rules/hyperparameters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace detail {

/// The type of the first field of step_options. Nothing converts to it, so options without names do not compile.
struct every_option_is_named {
  explicit every_option_is_named() = default;
  template <class X>
  every_option_is_named(X) = delete;
};

}  // namespace detail

/// The options of one step. All are optional, and given by name: step({.lr_scale = 0.5}).
struct step_options {
  /// Not for use; it makes options without names an error at compile time.
  detail::every_option_is_named named_fields_only = detail::every_option_is_named();
  double lr_scale = 1;  ///< ≥ 0; a schedule's factor on the recipe's lr
  /// ≥ 0; α itself, for programs that hand over a learning rate instead of a factor. It replaces the lr of every group;
  /// lr_scale must then be 1, and a rule that reads lr_scale (AdaBound's bounds) gets lr divided by the group's lr.
  std::optional<double> lr = {};
  double decay_scale = 1;  ///< ≥ 0; a schedule's factor on weight_decay, for every decay that has one
  double grad_scale = 1;   ///< > 0; factor on every gradient, such as 1/loss scale or 1/number of accumulated batches
  /// > 0; clips the global norm of the scaled gradients to this, as PyTorch's clip_grad_norm_ does. Infinity only
  /// measures the norm.
  std::optional<double> max_grad_norm = {};
  /// ‖g‖² of all raw gradients in this step, before grad_scale, if the caller has it; saves the pass that computes it.
  std::optional<double> grad_norm_sq = {};
  /// Skips the step, and changes nothing, if a gradient is infinite or NaN, or if a moment or a weight would become so.
  /// Not detected: an L2 decay's λθ, or a weight stored in 16 bits, that overflows by its own size.
  bool skip_nonfinite = false;
  bool flush_denormals = false;  ///< treats denormal numbers as zeros during the step (denormals.hpp); host only
  /// v̄ ≥ 0 of the whole model for a scheduled decay, if several optimizers have parts of one model. The step then does
  /// not compute v̄. Other decays ignore it.
  std::optional<double> mean_square = {};
  /// The number of weights in the whole model, if this optimizer has only a part and grad_norm_sq is the whole model's.
  /// A scheduled decay's v̄ is then the whole model's, with the same bits in every part. Give it from the first step;
  /// all tensors must have taken the same number of steps. In other cases, and if the second moment is not linear in g²
  /// or is stored rounded, give mean_square instead. Other decays ignore it.
  std::optional<std::uint64_t> model_size = {};
  bool maximize = false;  ///< ascends: the step sees −g in place of g
};

/// What a group has beside hyperparameters: add_group(h, {.lr_scale = 0.1}).
struct group_options {
  /// Not for use; it makes options without names an error at compile time.
  detail::every_option_is_named named_fields_only = detail::every_option_is_named();
  double lr_scale = 1;  ///< ≥ 0; factor on every lr of this group, a step's absolute one too
};

/// The result of one step.
struct step_report {
  /// Whether weights and state changed. False if skip_nonfinite skipped the step, if the clipping factor underflowed on
  /// a device (the host throws), and while `pending`.
  bool applied = true;
  std::optional<double> grad_norm = {};    ///< ‖g‖ after grad_scale and before clipping, if it was computed or given
  std::optional<double> mean_square = {};  ///< v̄, with a scheduled decay
  /// The default group's 1/√(v̄ + eps), with a scheduled decay; 0 if v̄ + eps = 0.
  std::optional<double> decay_factor = {};
  bool decay_clamped = false;  ///< a scheduled decay's rate exceeded 1 and was lowered to 1
  bool pending = false;        ///< the step is enqueued on a device; report() waits for its result
};

namespace detail {

/// Whether the step clips gradients. An infinite limit only measures their norm.
inline bool clips(const step_options& o) noexcept { return o.max_grad_norm && is_finite(*o.max_grad_norm); }

/// Fails for options that are invalid for every optimizer. \tparam T  of the arithmetic
template <class T>
void check_options(const step_options& o)
{
  check("lr_scale", o.lr_scale, range::at_least_zero);
  if (o.lr) {
    check("lr", *o.lr, range::at_least_zero);
    if (o.lr_scale != 1)
      fail("lr_scale is " + show(o.lr_scale) + " with lr " + show(*o.lr) +
           "; expected 1, because lr is the learning rate itself");
  }
  check("decay_scale", o.decay_scale, range::at_least_zero);
  if (!is_finite(o.grad_scale) || o.grad_scale <= 0)
    fail("grad_scale is " + show(o.grad_scale) + "; expected a finite number > 0");
  if constexpr (sizeof(T) < sizeof(double))
    if (o.grad_scale < smallest_normal<T> || o.grad_scale > largest<T>)
      fail("grad_scale is " + show(o.grad_scale) + "; expected a number from " + show(smallest_normal<T>) + " to " +
           show(largest<T>) + ", the range of " + name_of<T>);
  if (o.max_grad_norm && (is_nan(*o.max_grad_norm) || *o.max_grad_norm <= 0))
    fail("max_grad_norm is " + show(*o.max_grad_norm) + "; expected a number > 0 (infinity only measures)");
  if (o.grad_norm_sq && (*o.grad_norm_sq < 0 || (is_nan(*o.grad_norm_sq) && !o.skip_nonfinite)))
    fail("grad_norm_sq is " + show(*o.grad_norm_sq) + "; expected the sum of the squares of all raw gradients");
  if (o.grad_norm_sq && !is_finite(*o.grad_norm_sq) && clips(o) && !o.skip_nonfinite)
    fail("grad_norm_sq is " + show(*o.grad_norm_sq) +
         "; expected a finite number with max_grad_norm, which divides by its root; "
         "leave it out to have it computed, or set skip_nonfinite");
  if (o.mean_square && !contains(range::at_least_zero, *o.mean_square))
    fail("mean_square is " + show(*o.mean_square) + "; expected " + expectation(range::at_least_zero));
}

}  // namespace detail

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
