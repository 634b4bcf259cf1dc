#pragma once
/// \file
/// The decisions of a step before it changes anything: the gradients' norm, the clipping factor, and whether results
/// stay finite. Pure functions, shared by host and device.

#include <cmath>
#include <limits>
#include <utility>

#include <gradus/kernel.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// T's limits and name, for error messages.
template <class T>
inline constexpr double largest = double((std::numeric_limits<T>::max)());
template <class T>
inline constexpr double smallest_normal = double((std::numeric_limits<T>::min)());
template <class T>
inline constexpr const char* name_of = sizeof(T) == 4 ? "float" : "double";

/// ‖g‖² = sum·unit². The unit is 1, or a power of two if the plain sum of squares overflows or underflows.
struct square_sum {
  double sum = 0;
  double unit = 1;
};

/// The unit in which to sum the squares of doubles again, or 1 if the plain sum is accurate. With a unit of 2^±600 no
/// element that matters is lost: if 2⁵⁰ elements overflow together, at least one exceeds 2⁴⁸⁶.
GRADUS_HOST_DEVICE inline double unit_for(double plain_sum) noexcept
{
  if (is_nan(plain_sum))
    return 1;
  return !is_finite(plain_sum) ? 0x1p600 : plain_sum < 0x1p-960 ? 0x1p-600 : 1;
}

/// ‖g‖·scale; infinite only if a double cannot hold it.
GRADUS_HOST_DEVICE inline double root_of(const square_sum& s, double scale) noexcept
{
  const double root = std::sqrt(s.sum), norm = root * s.unit;
  return is_finite(norm) ? product(norm, scale) : product(root, s.unit * scale);
}

/// grad_scale, lowered so that the scaled gradients' norm does not exceed the limit: PyTorch's clip_grad_norm_.
GRADUS_HOST_DEVICE inline double clipped_scale(const square_sum& s, double grad_scale, double limit) noexcept
{
  const double norm = root_of(s, grad_scale);
  if (!is_finite(norm) && is_finite(s.sum))
    return rounded(limit / s.unit) / std::sqrt(s.sum);  // the norm is too large for a double, but the quotient is not
  const double clip = limit / (norm + 1e-6);
  return grad_scale * (clip > 1 ? 1 : clip);
}

/// Whether clipping made the factor so small that T cannot hold it, although the norm is finite.
template <class T>
GRADUS_HOST_DEVICE bool underflows(const square_sum& s, double scale, double grad_scale) noexcept
{
  return is_finite(s.sum) && scale < grad_scale && scale < smallest_normal<T>;
}

/// Σv after a step, from Σv before it and ‖g‖², by next_second_moment_sum (kernel.hpp). Correct even if ‖g‖² or the
/// square of the scale is out of a double's range, as long as their product is not.
template <class T>
GRADUS_INLINE GRADUS_HOST_DEVICE inline double next_sum(double beta2, double sum, const square_sum& s,
                                                        double scale) noexcept
{
  const double square = scale * scale;
  if (s.unit == 1 && square >= 0x1p-900 && square <= 0x1p900)
    return next_second_moment_sum_by_beta<T>(beta2, sum, s.sum, scale);
  const double norm = root_of(s, double(T(scale)));
  return next_second_moment_sum_by_beta<T>(beta2, sum, norm * norm, 1);
}

/// The factor 1/√(v̄ + eps) on a scheduled weight decay; 0 if all gradients have been 0, so that nothing decays.
GRADUS_HOST_DEVICE inline double decay_factor(double mean_square, double eps) noexcept
{
  const double v = mean_square + eps;
  return v == 0 ? 0 : 1 / std::sqrt(v);
}

/// The gradients' norm, as far as a step knows it.
struct norm_of_step {
  bool known = false;  // given or measured
  bool given = false;
  square_sum squares = {};
  bool gradients_are_finite = true;  // checked only if a given norm is infinite, because it may have overflowed
};

/// Whether a step is taken, and the factor on its gradients.
struct verdict {
  bool applied = true;
  bool underflows = false;  // clipping needs a factor that T cannot hold
  double scale = 1;         // the factor on the gradients
};

/// Decides whether a step is taken, and with which factor on the gradients.
/// \param limit  max_grad_norm, or infinity for none
/// \param skips  skip_nonfinite
template <class T>
GRADUS_HOST_DEVICE verdict judge(const norm_of_step& norm, double grad_scale, double limit, bool skips) noexcept
{
  const bool clips = norm.known && is_finite(limit);
  verdict v;
  // If the computed sum of squares is finite, so are all gradients.
  if (skips && norm.known && !is_finite(norm.squares.sum))
    v.applied = norm.given && !is_nan(norm.squares.sum) && !clips && norm.gradients_are_finite;
  v.scale = clips ? clipped_scale(norm.squares, grad_scale, limit) : grad_scale;
  v.underflows = clips && underflows<T>(norm.squares, v.scale, grad_scale);
  return v;
}

/// Whether gradients with this norm could make a finite moment or weight infinite. If not, their squares, and lr times
/// them, stay below T's largest number by a factor of at least 16. L2's λθ is not considered, because each step would
/// have to read all weights once more.
template <class T>
GRADUS_HOST_DEVICE bool may_overflow(double size, double lr) noexcept
{
  constexpr double bound = sizeof(T) == 4 ? 0x1p62 : 0x1p510;
  return !(size <= bound && size * lr <= bound);
}

/// Whether a step of one element makes a finite weight or moment infinite or NaN. Overwrites `slot`.
template <pass Pass, class Prepared, class T = typename Prepared::value_type>
GRADUS_HOST_DEVICE bool element_overflows(const kernel<Pass, Prepared>& kernel, T theta, T g, T* slot) noexcept
{
  bool finite[Prepared::slots + 1];
  for (std::size_t k = 0; k < Prepared::slots; ++k)
    finite[k] = is_finite(slot[k]);
  finite[Prepared::slots] = is_finite(theta);
  kernel(theta, g, slot);
  bool overflows = finite[Prepared::slots] && !is_finite(theta);
  for (std::size_t k = 0; k < Prepared::slots; ++k)
    overflows = overflows || (finite[k] && !is_finite(slot[k]));
  return overflows;
}

/// The same with the kernel that the composition selects. Overwrites `slot`.
template <class F, class S, class P, class D, class T>
GRADUS_HOST_DEVICE bool element_overflows(const prepared<F, S, P, D, T>& c, std::type_identity_t<T> theta,
                                          std::type_identity_t<T> g, std::type_identity_t<T>* slot) noexcept
{
  return with_kernel<pass::whole>(c, [&](const auto& kernel, std::size_t skipped) noexcept {
    return element_overflows(kernel, theta, g, slot + skipped);
  });
}

/// Whether the coefficients of step t are finite in T. Tests this with a step of zeros and a second moment of 1.
template <class T, class Rule>
bool coefficients_are_finite(const Rule& rule, std::uint64_t t, const step_rates& rates) noexcept
{
  const auto c = prepare<T>(rule, scalars_of_step(rule, t, rates, 1, step_scalars{}.state));
  using prepared_type = std::remove_const_t<decltype(c)>;
  T slot[prepared_type::slots + 1] = {};
  for (std::size_t i = prepared_type::first_slots; i < prepared_type::slots; ++i)
    slot[i] = 1;
  return !element_overflows(c, 0, 0, slot);
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
