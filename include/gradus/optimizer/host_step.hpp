#pragma once
/// \file
/// A step over host memory: measure the gradients, decide, prepare coefficients, sweep the elements, count the step. It
/// knows the order of these and not the arithmetic, which is in decisions.hpp, host_sums.hpp, sweep.hpp and the rules.
///
/// Several processes may take one step together, each with a part of the model. What a step needs to know of the whole
/// model are sums of pages, and the backend's `add_up` adds these up over all processes.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include <gradus/kernel/reduce.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/host_factors.hpp>
#include <gradus/optimizer/host_sums.hpp>
#include <gradus/optimizer/parts.hpp>
#include <gradus/optimizer/step_engine.hpp>
#include <gradus/optimizer/sweep.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The step_engine of backends whose state is in host memory.
template <class Parts, class Backend>
class host_step {
  using model = typename Parts::model;
  using value_type = typename model::value_type;
  using item = typename model::work_item;
  static constexpr bool is_shared = shares_steps<Backend>;
  static constexpr bool has_sums = Parts::rule_type::sums;
  static_assert(!has_sums || !is_shared || shares_tensors<Backend>,
                "gradus: this step size needs sums over whole tensors, and this backend's add_up does not say which "
                "tensors have parts in other processes; it needs cut_tensor and cut_sums, or take a recipe without "
                "such sums, such as adamw.");

 public:
  using item_range = typename work_list<model>::item_range;

  static constexpr bool on_device = false;

  explicit host_step(const Backend& backend) : sums_(backend) {}
  Backend& backend() noexcept { return sums_.backend(); }
  const Backend& backend() const noexcept { return sums_.backend(); }

  void reserve(std::size_t tensors, std::size_t pages)
  {
    sums_.reserve(tensors, pages);
    if constexpr (has_sums)
      factors_.reserve(tensors, pages);
  }

  /// Takes a step, phase by phase.
  step_report step(Parts& p, const step_options& o)
  {
    p.refresh();
    const norm_of_step norm = measure(p, o);
    if (!decide(p, o, norm))
      return report_;
    if (has_two_phases(o))
      compute_moments(p, o);
    schedule(p, o, norm);
    compute_weights(p, o);
    p.count_steps();
    return report_;
  }

  // ── the phases of a step, in their order. An engine of your own may call them with work of its own between them. ──

  /// The gradients' norm, as given, or measured if the step needs it.
  norm_of_step measure(const Parts& p, const step_options& o)
  {
    norm_of_step norm;
    if (o.grad_norm_sq) {
      norm.known = norm.given = true;
      norm.squares.sum = *o.grad_norm_sq;
      // A given norm may be infinite by overflow although all gradients are finite.
      if (o.skip_nonfinite && !is_finite(*o.grad_norm_sq))
        norm.gradients_are_finite = !sums_.any(!sums_.gradients_are_finite(p));
    } else if (measures<model::one_pass>(o)) {
      norm.known = true;
      norm.squares = sums_.of_squares(p);
    }
    return norm;
  }

  /// Decides whether the step is taken, and prepares the coefficients if it is. Begins the report.
  /// \throws std::invalid_argument if clipping needs a factor that value_type cannot hold
  bool decide(Parts& p, const step_options& o, const norm_of_step& norm)
  {
    step_report report;
    if (norm.known)
      report.grad_norm = root_of(norm.squares, o.grad_scale);
    const verdict decided = judge<value_type>(norm, o.grad_scale, o.max_grad_norm.value_or(no_limit<double>()),
                                              o.skip_nonfinite);
    if (decided.underflows && decided.applied && !o.skip_nonfinite)
      refuse_to_clip(o, *report.grad_norm);
    report.applied = decided.applied && !decided.underflows;
    scale_ = decided.scale;
    if (report.applied) {
      prepare(p, o);
      report.applied = !o.skip_nonfinite || !overflows(p, o, root_of(norm.squares, scale_));
    }
    report_ = report;
    return report.applied;
  }

  /// Whether moments and weights are two phases, because a rule needs the mean of the new second moments, or sums.
  static bool has_two_phases(const step_options& o) noexcept
  {
    return has_sums || (Parts::rule_type::scheduled && !model::one_pass && !o.mean_square);
  }

  /// Computes the new moments and sums each page while it is in the cache. Moments that are stored rounded are not
  /// stored yet, because weights are divided by the unrounded values.
  void compute_moments(Parts& p, const step_options& o)
  {
    if constexpr (has_sums)
      factors_.compute(sums_.backend(), p, o);
    if constexpr (Parts::rule_type::scheduled && !model::one_pass) {
      sums_.sum_pages(p, o.flush_denormals, [&](const item& x, std::size_t i, std::size_t n) {
        const auto& prepared = p.cohorts[x.cohort].prepared;
        if constexpr (model::keeps_exactly) {
          sweep_item<pass::moments>(p, x, i, i + n);
          return sums_.template page_sum_of<plain_term>(x, x.state[model::formula::value_slot].values, i, n);
        } else
          return page_sum_of_next_moments<model>(backend(), prepared, x, i, n);
      });
    }
  }

  /// Computes v̄ if it was not given, and prepares the rules that read it.
  void schedule(Parts& p, const step_options& o, const norm_of_step& norm)
  {
    if constexpr (Parts::rule_type::scheduled) {
      if constexpr (model::one_pass)
        report_.mean_square = mean_by_norm(p, o, norm);
      else if (!o.mean_square)
        report_.mean_square = mean_of_moments(p);
      if (o.mean_square)
        report_.mean_square = o.mean_square;
      for (auto& c : p.cohorts.all())
        if (c.members > 0) {
          const auto& rule = p.groups[c.key].rule;
          c.scalars.mean_square = *report_.mean_square;
          prepare_with_mean(c.prepared, rule, c.scalars);
          if constexpr (reads_mean_square<decltype(rule.decay)>)
            report_.decay_clamped = report_.decay_clamped || scaled_decay(rule.decay, c.scalars).rate(c.scalars) > 1;
        }
      if constexpr (reads_mean_square<decltype(Parts::rule_type::decay)>)
        report_.decay_factor = decay_factor(*report_.mean_square, p.groups[0].rule.decay.eps);
    }
  }

  /// Computes the new weights, and the moments unless `compute_moments` stored them.
  void compute_weights(const Parts& p, const step_options& o) noexcept
  {
    compute_weights(p, o, {0, p.work.items().size()});
  }
  /// The same for some of the items. Together, the calls of a step must cover all items once.
  void compute_weights(const Parts& p, const step_options& o, item_range of) noexcept
  {
    if constexpr (has_sums && model::keeps_exactly)
      return sweep_all<pass::weights>(p, o, of);
    if constexpr (model::two_passes)
      if (!o.mean_square)
        return sweep_all<pass::weights>(p, o, of);
    sweep_all<pass::whole>(p, o, of);
  }

  /// Adds up zeros over all processes in a step without a norm (host_sums).
  void share_nothing(const Parts& p)
    requires(is_shared)
  {
    sums_.share_nothing(p);
  }

  // ── what else an engine has ──────────────────────────────────────────────────────────────────────────────────────

  void settle(Parts&) const noexcept {}
  step_report report() const { return report_; }

  void check_place(const void*, const void*, std::string_view) const noexcept {}
  void copy(void* to, const void* from, std::size_t bytes) const noexcept
  {
    if (bytes > 0)
      std::memcpy(to, from, bytes);
  }
  template <class S>
  void decode(const S* from, float* to, std::size_t n) const noexcept
  {
    if constexpr (short_float<S>)
      gradus::decode(from, to, n);
  }
  template <class X, class F>
  void show(std::span<X> values, const F& f, bool /*only_read*/) const
  {
    f(values);
  }

 protected:
  /// Calls f(item, begin, end) for ranges of some items, on the backend's threads.
  template <class F>
  void for_ranges(const Parts& p, const step_options& o, item_range of, const F& f) noexcept
  {
    p.work.for_ranges(backend(), o.flush_denormals, of, f);
  }
  /// What selects an item's random bits in this step.
  static std::uint64_t noise_of(const Parts& p, const item& x) noexcept
  {
    if constexpr (model::precision_type::stochastic)
      return noise_key(x.name_hash, p.seed, p.cohorts[x.cohort].t);
    else
      return 0;
  }

 private:
  [[noreturn]] static void refuse_to_clip(const step_options& o, double norm)
  {
    fail("max_grad_norm is " + detail::show(*o.max_grad_norm) + " and the gradients' norm " + detail::show(norm) +
         "; expected a clipping factor of at least " + detail::show(smallest_normal<value_type>) +
         ", the smallest normal " + name_of<value_type> + " (skip_nonfinite = true skips such steps)");
  }

  // ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────

  void prepare(Parts& p, const step_options& o) const noexcept
  {
    for (auto& c : p.cohorts.all())
      if (c.members > 0) {
        const auto& group = p.groups[c.key];
        c.scalars = scalars_of_step(group.rule, c.t + 1, rates_of(o, group), 0, c.kept.data());
        c.prepared = gradus::prepare<value_type>(group.rule, c.scalars, o.maximize ? -scale_ : scale_);
      }
  }

  /// Whether the step would make a finite moment or weight infinite or NaN. Usually the norm `size` of the scaled
  /// gradients rules this out; otherwise the step is tried on each element, and the results are discarded.
  bool overflows(const Parts& p, const step_options& o, double size)
  {
    bool possible = false;
    for (const auto& c : p.cohorts.all())
      possible = possible || (c.members > 0 && may_overflow<value_type>(size, c.scalars.lr));
    if (!possible)
      return false;
    std::atomic<bool> found{false};
    p.work.for_ranges(backend(), o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end && !found.load(std::memory_order_relaxed); i += page_size)
        if (page_overflows<model>(p.cohorts[x.cohort].prepared, x, i, end - i < page_size ? end - i : page_size))
          found.store(true, std::memory_order_relaxed);
    });
    return sums_.any(found.load(std::memory_order_relaxed));
  }

  // ── v̄ ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// v̄ by the recursion of Σv. Nothing if v̄ is given and the sums cannot be advanced; they are unknown then.
  std::optional<double> mean_by_norm(Parts& p, const step_options& o, const norm_of_step& norm)
  {
    second_moment_sums& sums = p.sums;
    const std::uint64_t elements = sums_.counted_elements(p);
    if (elements == 0)
      return 0.0;
    const sums_plan plan = sums.plan(o, elements);
    if (plan.forgets)
      sums.forget();
    if (!plan.advances)
      return {};
    sums.set_of_model(plan.of_model);
    sums_.sum_moments(p);
    const double counted = sums.is_of_model() ? double(*o.model_size) : double(elements);
    const bool is_one = sums.entries().live() == 1;
    const double mean = sums.advance<value_type>(
        p.cohorts.all(),
        [&](const second_moment_sums::entry& e) {
          return is_one ? norm.squares : square_sum{sums_.total(p, e), norm.squares.unit};
        },
        scale_, counted);
    // The unit suits the largest sum. In it, the squares of another one may have underflowed.
    if (!is_one && norm.squares.unit != 1)
      sums.forget();
    return mean;
  }

  /// v̄ from the pages that `compute_moments` summed.
  double mean_of_moments(Parts& p)
  {
    p.sums.correct(p.cohorts.all());
    const auto elements = double(sums_.counted_elements(p));
    const double total_moment = p.sums.total_of([&](const second_moment_sums::entry& e) { return sums_.total(p, e); });
    return elements > 0 ? total_moment / elements : 0;
  }

  // ── sweep ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// The formulas of a tensor in the last phase.
  decltype(auto) formula_of(const Parts& p, const item& x) const noexcept
  {
    if constexpr (has_sums)
      return factors_.formula_of(p, x);
    else
      return (p.cohorts[x.cohort].prepared);
  }
  template <pass Pass>
  void sweep_item(const Parts& p, const item& x, std::size_t begin, std::size_t end) const noexcept
  {
    decltype(auto) prepared = formula_of(p, x);
    if (x.trained)
      sweep_trained<Pass, model>(backend(), prepared, x, noise_of(p, x), begin, end);
    else
      sweep<Pass, model>(backend(), prepared, x, noise_of(p, x), begin, end);
  }
  template <pass Pass>
  void sweep_all(const Parts& p, const step_options& o, item_range of) noexcept
  {
    p.work.for_ranges(backend(), o.flush_denormals, of,
                      [&](const item& x, std::size_t begin, std::size_t end) noexcept {
                        sweep_item<Pass>(p, x, begin, end);
                      });
  }

  host_sums<Parts, Backend> sums_;
  host_factors<Parts> factors_;  // for a step size with sums
  double scale_ = 1;             // the factor on the gradients in this step
  step_report report_ = no_step();
};

/// The engine that takes the steps on a backend: the one that it names, or else loops on the host.
template <class Parts, class Backend>
struct engine_of {
  using type = host_step<Parts, Backend>;
};
template <class Parts, class Backend>
  requires names_engine<Backend, Parts>
struct engine_of<Parts, Backend> {
  using type = typename Backend::template engine_type<Parts>;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
