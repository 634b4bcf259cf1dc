#pragma once
/// \file
/// A step over host memory: measure the gradients, decide, prepare coefficients, sweep the elements, count the step. It
/// knows the order of these and not the arithmetic, which is in decisions.hpp, sweep.hpp and the rules.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>
#include <gradus/optimizer/decisions.hpp>
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
  using gradient_type = typename model::gradient_type;
  using item = typename model::work_item;

 public:
  explicit host_step(const Backend& backend) : backend_(backend) {}
  const Backend& backend() const noexcept { return backend_; }

  void reserve(std::size_t /*tensors*/, std::size_t pages)
  {
    if (page_sums_.size() < pages)
      page_sums_.resize(pages + pages / 2);
  }

  /// Takes a step. If the decay needs the mean of the new moments, there are two phases: the first computes the
  /// moments, the second the weights. Between them the mean is formed, where an engine over several machines could
  /// share it.
  step_report step(Parts& p, const step_options& o)
  {
    p.refresh();
    step_report report;
    const norm_of_step norm = measure(p, o);
    if (norm.known)
      report.grad_norm = root_of(norm.squares, o.grad_scale);
    const verdict decided = judge<value_type>(norm, o.grad_scale, o.max_grad_norm.value_or(no_limit<double>()),
                                              o.skip_nonfinite);
    if (decided.underflows && decided.applied && !o.skip_nonfinite)
      refuse_to_clip(o, *report.grad_norm);
    report.applied = decided.applied && !decided.underflows;
    if (report.applied) {
      prepare(p, o, decided.scale);
      report.applied = !o.skip_nonfinite || !overflows(p, o, root_of(norm.squares, decided.scale));
    }
    if (!report.applied)
      return report_ = report;
    if constexpr (Parts::rule_type::scheduled) {
      if constexpr (!model::one_pass)
        if (!o.mean_square)
          compute_moments(p, o);
      schedule(p, o, norm, decided.scale, report);
    }
    move(p, o);
    p.count_steps();
    return report_ = report;
  }

  void settle(Parts&) const noexcept {}
  step_report report() const { return report_; }

  void check_place(const void*, const void*, std::string_view) const noexcept {}
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

 private:
  [[noreturn]] static void refuse_to_clip(const step_options& o, double norm)
  {
    fail("max_grad_norm is " + detail::show(*o.max_grad_norm) + " and the gradients' norm " + detail::show(norm) +
         "; expected a clipping factor of at least " + detail::show(smallest_normal<value_type>) +
         ", the smallest normal " + name_of<value_type> + " (skip_nonfinite = true skips such steps)");
  }

  // ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /// The norm: as given, or measured if the step needs it. Leaves the page sums in page_sums_.
  norm_of_step measure(const Parts& p, const step_options& o) noexcept
  {
    norm_of_step norm;
    if (o.grad_norm_sq) {
      norm.known = norm.given = true;
      norm.squares.sum = *o.grad_norm_sq;
      // A given norm may be infinite by overflow although all gradients are finite.
      if (o.skip_nonfinite && !is_finite(*o.grad_norm_sq))
        norm.gradients_are_finite = gradients_are_finite(p);
    } else if (measures<model::one_pass>(o)) {
      norm.known = true;
      norm.squares = sum_squares(p);
    }
    return norm;
  }

  square_sum sum_squares(const Parts& p) noexcept
  {
    sum_pages(p, false, [this](const item& x, std::size_t i, std::size_t n) {
      return page_sum<square_term>(backend_, x.gradients + i, n);
    });
    const double plain = total(p);
    if constexpr (std::is_same_v<gradient_type, double>)
      if (const double unit = unit_for(plain); unit != 1) {
        sum_pages(p, false, [this, unit](const item& x, std::size_t i, std::size_t n) {
          return scaled_square_sum(backend_, x.gradients + i, n, 1 / unit);
        });
        return {total(p), unit};
      }
    return {plain, 1};
  }

  bool gradients_are_finite(const Parts& p) const noexcept
  {
    for (const item& x : p.work.items())
      if (!all_finite(x.gradients, x.size))
        return false;
    return true;
  }

  /// Sets page_sums_ to of_page(item, begin, length) for every page.
  template <class F>
  void sum_pages(const Parts& p, bool flush_denormals, const F& of_page) noexcept
  {
    p.work.for_ranges(backend_, flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end; i += page_size)
        page_sums_[x.first_page + i / page_size] = of_page(x, i, end - i < page_size ? end - i : page_size);
    });
  }
  double total(const Parts& p) const noexcept
  {
    if (p.work.pages() == 1)
      return page_sums_[0];
    exact_sum sum;
    for (std::size_t k = 0; k < p.work.pages(); ++k)
      sum.add(page_sums_[k]);
    return sum.value();
  }
  /// The sum over the pages of the tensors in one entry.
  double total(const Parts& p, const second_moment_sums::entry& e) const noexcept
  {
    if (p.sums.entries().live() == 1)
      return total(p);
    exact_sum sum;
    for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
      const item& x = p.work.items()[i];
      for (std::size_t k = 0; k < page_count(x.size); ++k)
        sum.add(page_sums_[x.first_page + k]);
    }
    return sum.value();
  }

  // ── prepare ──────────────────────────────────────────────────────────────────────────────────────────────────────

  static void prepare(Parts& p, const step_options& o, double scale) noexcept
  {
    for (auto& c : p.cohorts.all())
      if (c.members > 0) {
        const auto& rule = p.groups[c.key].rule;
        c.scalars = make_step_scalars(rule, c.t + 1, o.lr_scale, 0);
        c.prepared = gradus::prepare<value_type>(rule, c.scalars, scale);
      }
  }

  /// Whether the step would make a finite moment or weight infinite or NaN. Usually the norm `size` of the scaled
  /// gradients rules this out; otherwise the step is tried on each element, and the results are discarded.
  bool overflows(const Parts& p, const step_options& o, double size) noexcept
  {
    bool possible = false;
    for (const auto& c : p.cohorts.all())
      possible = possible || (c.members > 0 && may_overflow<value_type>(size, c.scalars.lr));
    if (!possible)
      return false;
    std::atomic<bool> found{false};
    p.work.for_ranges(backend_, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end && !found.load(std::memory_order_relaxed); i += page_size)
        if (page_overflows<model>(p.cohorts[x.cohort].prepared, x, i, end - i < page_size ? end - i : page_size))
          found.store(true, std::memory_order_relaxed);
    });
    return found.load(std::memory_order_relaxed);
  }

  // ── v̄, and the decay that is scheduled by it ─────────────────────────────────────────────────────────────────────

  /// Computes v̄ if it was not given, and prepares each cohort's decay with it.
  void schedule(Parts& p, const step_options& o, const norm_of_step& norm, double scale, step_report& report) noexcept
  {
    if constexpr (model::one_pass)
      report.mean_square = mean_by_norm(p, o, norm, scale);
    else if (!o.mean_square)
      report.mean_square = mean_of_moments(p);
    if (o.mean_square)
      report.mean_square = o.mean_square;
    for (auto& c : p.cohorts.all())
      if (c.members > 0) {
        const auto& decay = p.groups[c.key].rule.decay;
        c.scalars.mean_square = *report.mean_square;
        c.prepared.decay = decay.template prepare<value_type>(c.scalars);
        report.decay_clamped = report.decay_clamped || decay.rate(c.scalars) > 1;
      }
    report.decay_factor = decay_factor(*report.mean_square, p.groups[0].rule.decay.eps);
  }

  /// v̄ by the recursion of Σv. Nothing if v̄ is given and the sums cannot be advanced; they are unknown then.
  std::optional<double> mean_by_norm(Parts& p, const step_options& o, const norm_of_step& norm, double scale) noexcept
  {
    second_moment_sums& sums = p.sums;
    const std::uint64_t elements = p.work.counted_elements();
    if (elements == 0)
      return 0.0;
    const sums_plan plan = sums.plan(o, elements);
    if (plan.forgets)
      sums.forget();
    if (!plan.advances)
      return {};
    sums.set_of_model(plan.of_model);
    sum_moments(p);
    const double counted = sums.is_of_model() ? double(*o.model_size) : double(elements);
    const bool is_one = sums.entries().live() == 1;
    return sums.advance<value_type>(
        p.cohorts.all(),
        [&](const second_moment_sums::entry& e) {
          return is_one ? norm.squares : square_sum{total(p, e), norm.squares.unit};
        },
        scale, counted);
  }

  /// Recomputes unknown sums from the moments.
  void sum_moments(Parts& p) noexcept
  {
    for (auto& e : p.sums.entries().all()) {
      if (e.members == 0 || is_finite(e.sum))
        continue;
      exact_sum sum;
      for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
        const item& x = p.work.items()[i];
        add_pages<plain_term>(backend_, x.state[model::formula::value_slot].values, x.size, sum);
      }
      e.sum = sum.value();
    }
  }

  /// Computes the new moments and sums each page while it is in the cache. Moments that are stored rounded are not
  /// stored yet, because weights are divided by the unrounded values.
  void compute_moments(Parts& p, const step_options& o) noexcept
  {
    sum_pages(p, o.flush_denormals, [&](const item& x, std::size_t i, std::size_t n) {
      const auto& prepared = p.cohorts[x.cohort].prepared;
      if constexpr (model::keeps_exactly) {
        sweep<pass::moments, model>(backend_, prepared, x, noise_of(p, x), i, i + n);
        return page_sum<plain_term>(backend_, x.state[model::formula::value_slot].values + i, n);
      } else
        return page_sum_of_next_moments<model>(backend_, prepared, x, i, n);
    });
  }
  double mean_of_moments(Parts& p) const noexcept
  {
    p.sums.correct(p.cohorts.all());
    const std::uint64_t elements = p.work.counted_elements();
    const double total_moment = p.sums.total_of([&](const second_moment_sums::entry& e) { return total(p, e); });
    return elements > 0 ? total_moment / double(elements) : 0;
  }

  // ── sweep and count ──────────────────────────────────────────────────────────────────────────────────────────────

  static std::uint64_t noise_of(const Parts& p, const item& x) noexcept
  {
    if constexpr (model::precision_type::stochastic)
      return noise_key(x.name_hash, p.seed, p.cohorts[x.cohort].t);
    else
      return 0;
  }

  /// Updates the weights, and the moments unless `compute_moments` did.
  void move(const Parts& p, const step_options& o) noexcept
  {
    if constexpr (model::two_passes)
      if (!o.mean_square)
        return sweep_all<pass::weights>(p, o);
    sweep_all<pass::whole>(p, o);
  }
  template <pass Pass>
  void sweep_all(const Parts& p, const step_options& o) noexcept
  {
    p.work.for_ranges(backend_, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      sweep<Pass, model>(backend_, p.cohorts[x.cohort].prepared, x, noise_of(p, x), begin, end);
    });
  }

  Backend backend_;
  std::vector<double> page_sums_;
  step_report report_ = no_step();
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
