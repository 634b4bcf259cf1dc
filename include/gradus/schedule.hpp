#pragma once
/// \file
/// Learning-rate schedules: pure functions of the step or epoch t, counted from 0, that return `lr_scale`, the factor
/// on a recipe's lr. t may be a fraction.
///
///     const auto schedule = gradus::schedule::sequence(gradus::schedule::linear_warmup{.t_warmup = 5}, 5,
///                                                      gradus::schedule::cosine{.t_max = 195});
///     opt.step({.lr_scale = schedule(epoch)});
///
/// A call with a t that is negative, infinite or NaN, or with a field out of range, throws std::invalid_argument
/// (error.hpp).

#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <gradus/rules/hyperparameters.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Learning-rate schedules.
namespace schedule {

namespace detail {

inline void check_t(double t) { gradus::detail::check("t", t, range::at_least_zero); }

/// Falls from 1 to eta_min as x goes from 0 to 1, along half a cosine.
inline double half_cosine(double x, double eta_min)
{
  return std::fma(1 - eta_min, 0.5 * (1 + std::cos(3.14159265358979323846 * x)), eta_min);
}

}  // namespace detail

/// gammaᵏ, where k is the number of milestones that t has reached.
struct multi_step {
  std::vector<double> milestones;  ///< values of t, ≥ 0, in any order
  double gamma = 0.1;              ///< ≥ 0; PyTorch's default

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("gamma", gamma, range::at_least_zero);
    double scale = 1;
    for (const double milestone : milestones) {
      gradus::detail::check("milestones", milestone, range::at_least_zero);
      scale *= t >= milestone ? gamma : 1;
    }
    return scale;
  }
};

/// Falls from 1 to eta_min along half a cosine until t_max, then stays there. Loshchilov and Hutter, SGDR, ICLR 2017.
struct cosine {
  double t_max = 1;    ///< length, > 0, in the unit of t
  double eta_min = 0;  ///< final factor, ≥ 0, as a fraction of the base lr

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_max", t_max, range::above_zero);
    gradus::detail::check("eta_min", eta_min, range::at_least_zero);
    return t < t_max ? detail::half_cosine(t / t_max, eta_min) : eta_min;
  }
};

/// `cosine` over periods of t_0, t_0·t_mult, t_0·t_mult², …, each from 1 again. SGDR, as above.
struct cosine_warm_restarts {
  double t_0 = 1;      ///< length of the first period, > 0, in the unit of t
  double t_mult = 1;   ///< growth of each period, ≥ 1
  double eta_min = 0;  ///< factor at a period's end, ≥ 0, as a fraction of the base lr

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_0", t_0, range::above_zero);
    gradus::detail::check("t_mult", t_mult, range::at_least_one);
    gradus::detail::check("eta_min", eta_min, range::at_least_zero);
    if (t_mult == 1)
      return detail::half_cosine(std::fmod(t, t_0) / t_0, eta_min);
    double period = t_0;
    if (t < 0x1p400 && period < 0x1p-500) {  // exact; a denormal period would not grow
      t *= 0x1p600;
      period *= 0x1p600;
    }
    const double growth = t_mult - 1, log_mult = std::log1p(growth);
    while (t >= period) {
      // A logarithm gives the number of periods before t up to rounding, so one period and a few parts in 10¹⁵ are
      // subtracted from it. Few periods are added one by one, so that restarts are exact to the bit. Many periods, or
      // tiny ones far from t, are skipped in one jump, which loses nothing.
      const double log_x = std::log1p(t / period * growth);
      const double passed = std::floor((log_x < 600 ? log_x : 600) / log_mult * (1 - 0x1p-50)) - 1;
      if (passed >= 64 || (passed >= 1 && period < 0x1p-500)) {
        const double factor = std::pow(t_mult, passed);
        const double gone = period * ((factor < 2 ? std::expm1(passed * log_mult) : factor - 1) / growth);
        t = gone < t ? t - gone : 0;
        period *= factor;
      } else {
        t -= period;
        if (period > std::numeric_limits<double>::max() / t_mult)
          return detail::half_cosine(t / period / t_mult, eta_min);
        period *= t_mult;
      }
    }
    return detail::half_cosine(t / period, eta_min);
  }
};

/// Rises linearly from start_factor to 1 until t_warmup, then stays 1.
struct linear_warmup {
  double t_warmup = 1;      ///< length, > 0, in the unit of t
  double start_factor = 0;  ///< factor at t = 0, in [0, 1]

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_warmup", t_warmup, range::above_zero);
    gradus::detail::check("start_factor", start_factor, range::zero_to_one);
    return t < t_warmup ? std::fma(1 - start_factor, t / t_warmup, start_factor) : 1;
  }
};

/// The product of schedules at the same t, such as a warm-up on top of a decay.
template <class... Schedules>
struct product {
  std::tuple<Schedules...> factors;  ///< the schedules

  /// From schedules, each callable with t.
  explicit product(Schedules... schedules) : factors(std::move(schedules)...) {}

  /// The factor at t.
  double operator()(double t) const
  {
    return std::apply([t](const Schedules&... f) { return (1.0 * ... * f(t)); }, factors);
  }
};

/// `first` until t reaches `until`, then `second` at t − until. Nest it for more than two schedules.
template <class First, class Second>
struct sequence {
  First first;    ///< for t < until
  double until;   ///< ≥ 0
  Second second;  ///< from `until` on

  /// \throws std::invalid_argument if the change is negative, infinite or NaN
  sequence(First before, double change, Second after)
      : first(std::move(before)), until(change), second(std::move(after))
  {
    gradus::detail::check("until", until, range::at_least_zero);
  }

  /// The factor at t.
  double operator()(double t) const { return t < until ? first(t) : second(t - until); }
};

}  // namespace schedule
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
