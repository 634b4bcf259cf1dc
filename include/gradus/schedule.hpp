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

/// Goes from a to b as x goes from 0 to 1, along a line.
inline double between(double a, double b, double x) { return fused(b - a, x, a); }

/// Goes from a to b as x goes from 0 to 1, along half a cosine.
inline double half_cosine(double x, double a, double b)
{
  return fused(a - b, 0.5 * (1 + std::cos(3.14159265358979323846 * x)), b);
}
/// The same from 1 to eta_min.
inline double half_cosine(double x, double eta_min) { return half_cosine(x, 1, eta_min); }

/// Rises linearly from start_factor to 1 until t_warmup, then stays 1. t_warmup may be 0.
inline double warm_up(double t, double t_warmup, double start_factor)
{
  return t < t_warmup ? between(start_factor, 1, t / t_warmup) : 1;
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
    return detail::warm_up(t, t_warmup, start_factor);
  }
};

/// Goes linearly from start_factor to end_factor until t_max, then stays there. PyTorch's LinearLR; a warm-up that ends
/// at 1 is also `linear_warmup`.
struct linear {
  double t_max = 5;               ///< length, > 0, in the unit of t; PyTorch's total_iters, with its default
  double start_factor = 1.0 / 3;  ///< factor at t = 0, ≥ 0; PyTorch's default
  double end_factor = 1;          ///< factor from t_max on, ≥ 0; PyTorch's default

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_max", t_max, range::above_zero);
    gradus::detail::check("start_factor", start_factor, range::at_least_zero);
    gradus::detail::check("end_factor", end_factor, range::at_least_zero);
    return t < t_max ? detail::between(start_factor, end_factor, t / t_max) : end_factor;
  }
};

/// Falls from 1 to eta_min as (1 − t/t_max)ᵖ, p = power, then stays there. PyTorch's PolynomialLR, with an end.
struct polynomial {
  double t_max = 5;    ///< length, > 0, in the unit of t; PyTorch's total_iters, with its default
  double power = 1;    ///< p > 0; PyTorch's default, a straight line
  double eta_min = 0;  ///< final factor, ≥ 0, as a fraction of the base lr; PyTorch's is 0

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_max", t_max, range::above_zero);
    gradus::detail::check("power", power, range::above_zero);
    gradus::detail::check("eta_min", eta_min, range::at_least_zero);
    return t < t_max ? detail::between(eta_min, 1, std::pow(1 - t / t_max, power)) : eta_min;
  }
};

/// gammaᵗ. PyTorch's ExponentialLR.
struct exponential {
  double gamma = 0;  ///< factor for each unit of t, in (0, 1]; it has no default, and 0 is refused

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    if (!is_finite(gamma) || gamma <= 0 || gamma > 1)
      gradus::detail::fail("gamma is " + gradus::detail::show(gamma) + "; expected a number in (0, 1]");
    return std::pow(gamma, t);
  }
};

/// Rises from 1/div_factor to 1 and falls to 1/(div_factor·final_div_factor), as PyTorch's OneCycleLR; lr is its max_lr.
/// It does not cycle momentum. Smith and Topin, Super-Convergence, 2018.
struct one_cycle {
  double t_max = 2;               ///< the number of steps, > 1; the last has t = t_max − 1. PyTorch's total_steps
  double pct_start = 0.3;         ///< the part of the steps in which the factor rises, in [0, 1]; PyTorch's default
  bool anneal_linearly = false;   ///< along lines instead of half cosines; PyTorch's anneal_strategy
  double div_factor = 25;         ///< ≥ 1; PyTorch's default
  double final_div_factor = 1e4;  ///< ≥ 1; PyTorch's default
  /// Whether the factor falls to 1/div_factor as fast as it rose, before it falls to the end. pct_start is then at most
  /// 0.5.
  bool three_phase = false;

  /// The factor at t; from t_max − 1 on it stays at the end.
  double operator()(double t) const
  {
    detail::check_t(t);
    if (!is_finite(t_max) || t_max <= 1)
      gradus::detail::fail("t_max is " + gradus::detail::show(t_max) + "; expected a finite number > 1");
    gradus::detail::check(three_phase ? "pct_start with three_phase" : "pct_start", pct_start,
                          three_phase ? range::zero_to_half : range::zero_to_one);
    gradus::detail::check("div_factor", div_factor, range::at_least_one);
    gradus::detail::check("final_div_factor", final_div_factor, range::at_least_one);
    // PyTorch's phases end at these steps. One that ends before step 0 is skipped, and the next one is joined midway.
    const double top = product(pct_start, t_max) - 1, last = t_max - 1, second = three_phase ? 2 * top : last;
    const double start = 1 / div_factor, end = start / final_div_factor;
    if (t <= top && top > 0)
      return anneal(start, 1, t / top);
    if (t >= last)
      return end;
    if (t < second)
      return anneal(1, three_phase ? start : end, (t - top) / (second - top));
    return anneal(start, end, (t - second) / (last - second));
  }

 private:
  double anneal(double from, double to, double x) const
  {
    return anneal_linearly ? detail::between(from, to, x) : detail::half_cosine(x, from, to);
  }
};

/// How the factor of `wsd` falls, for x from 0 to 1.
enum class wsd_decay {
  linear,         ///< 1 − x
  cosine,         ///< half a cosine
  one_minus_sqrt  ///< 1 − √x (Hägele et al. 2024)
};

/// Warm-up, stable, decay: rises linearly to 1, stays 1, and falls to eta_min. The stable phase may be prolonged at any
/// time, because nothing before the decay depends on its length. Hu et al., MiniCPM, 2024; Hägele et al., NeurIPS 2024.
struct wsd {
  double t_warmup = 0;                  ///< length of the warm-up, ≥ 0, in the unit of t
  double t_stable = 0;                  ///< length of the stable phase, ≥ 0
  double t_decay = 1;                   ///< length of the decay, > 0
  double eta_min = 0;                   ///< final factor, ≥ 0, as a fraction of the base lr
  wsd_decay decay = wsd_decay::linear;  ///< the form of the decay
  double start_factor = 0;              ///< factor at t = 0 if there is a warm-up, in [0, 1]

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_warmup", t_warmup, range::at_least_zero);
    gradus::detail::check("t_stable", t_stable, range::at_least_zero);
    gradus::detail::check("t_decay", t_decay, range::above_zero);
    gradus::detail::check("eta_min", eta_min, range::at_least_zero);
    gradus::detail::check("start_factor", start_factor, range::zero_to_one);
    if (t < t_warmup)
      return detail::warm_up(t, t_warmup, start_factor);
    const double since = t - t_warmup - t_stable;
    if (since <= 0)
      return 1;
    if (since >= t_decay)
      return eta_min;
    const double x = since / t_decay;
    if (decay == wsd_decay::cosine)
      return detail::half_cosine(x, eta_min);
    return detail::between(1, eta_min, decay == wsd_decay::linear ? x : std::sqrt(x));
  }
};

/// Rises linearly from start_factor to 1 until t_warmup, then falls as √(t_warmup/t). Vaswani et al., Attention is all
/// you need, 2017, with lr at the peak in place of their 1/√(d·t_warmup).
struct inverse_sqrt {
  double t_warmup = 1;      ///< length of the warm-up, > 0, in the unit of t
  double start_factor = 0;  ///< factor at t = 0, in [0, 1]; the paper's is 0

  /// The factor at t.
  double operator()(double t) const
  {
    detail::check_t(t);
    gradus::detail::check("t_warmup", t_warmup, range::above_zero);
    gradus::detail::check("start_factor", start_factor, range::zero_to_one);
    return t < t_warmup ? detail::warm_up(t, t_warmup, start_factor) : std::sqrt(t_warmup / t);
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
