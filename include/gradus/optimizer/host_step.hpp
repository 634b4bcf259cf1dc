#pragma once
/// \file
/// A step over host memory: measure the gradients, decide, prepare coefficients, sweep the elements, count the step. It
/// knows the order of these and not the arithmetic, which is in decisions.hpp, sweep.hpp and the rules.
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
#include <type_traits>
#include <utility>
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

/// A backend whose steps are shared with other processes: add_up(sums) adds to each sum the same sum of all others. All
/// processes call it the same number of times in a step, with equally many sums. If the backend also has
/// counted_elements(), the number of elements that count in all processes together, they need not add that up.
template <class Backend>
concept shares_steps = requires(Backend& b, std::span<exact_sum> sums) { b.add_up(sums); };

/// The step_engine of backends whose state is in host memory.
template <class Parts, class Backend>
class host_step {
  using model = typename Parts::model;
  using value_type = typename model::value_type;
  using gradient_type = typename model::gradient_type;
  using item = typename model::work_item;
  static constexpr bool is_shared = shares_steps<Backend>;
  static constexpr bool has_sums = Parts::rule_type::sums;
  static_assert(!has_sums || !is_shared,
                "gradus: this step size needs sums over whole tensors, and processes that share a step have parts of "
                "them; take a recipe without such sums, such as adamw.");

 public:
  using item_range = typename work_list<model>::item_range;

  static constexpr bool on_device = false;

  explicit host_step(const Backend& backend) : backend_(backend) {}
  const Backend& backend() const noexcept { return backend_; }

  void reserve([[maybe_unused]] std::size_t tensors, std::size_t pages)
  {
    if (page_sums_.size() < pages * sums_of_page)
      page_sums_.resize((pages + pages / 2) * sums_of_page);
    if constexpr (has_sums)
      if (factors_.size() < tensors)
        factors_.resize(tensors + tensors / 2);
    if constexpr (is_shared) {
      make_room(shared_, 1 + (Parts::rule_type::scheduled ? tensors : 0));
      make_room(entries_, Parts::rule_type::scheduled ? tensors : 0);
    }
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
        norm.gradients_are_finite = !any(!gradients_are_finite(p));
    } else if (measures<model::one_pass>(o)) {
      norm.known = true;
      norm.squares = sum_squares(p);
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
      sum_terms(p, o);
    if constexpr (Parts::rule_type::scheduled && !model::one_pass) {
      sum_pages(p, o.flush_denormals, [&](const item& x, std::size_t i, std::size_t n) {
        const auto& prepared = p.cohorts[x.cohort].prepared;
        if constexpr (model::keeps_exactly) {
          sweep_item<pass::moments>(p, x, i, i + n);
          return page_sum_of<plain_term>(x, x.state[model::formula::value_slot].values, i, n);
        } else
          return page_sum_of_next_moments<model>(backend_, prepared, x, i, n);
      });
      share(p);
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

  /// Adds up zeros over all processes, as many as `measure` would: in a step without a norm, processes that agree on
  /// something else while they add up still do.
  void share_nothing(const Parts& p)
    requires(is_shared)
  {
    order_entries(p);
    shared_.assign(entries_.size() > 1 ? entries_.size() : 1, exact_sum());
    backend_.add_up(std::span(shared_));
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
    p.work.for_ranges(backend_, o.flush_denormals, of, f);
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

  // ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// ‖g‖². Leaves the page sums in page_sums_.
  square_sum sum_squares(const Parts& p)
  {
    p.work.for_ranges(backend_, false, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      if (x.trained)
        for (std::size_t i = begin; i < end; i += page_size)
          page_sums_[x.first_page + i / page_size] = page_sum_of<square_term>(x, x.gradients, i,
                                                                              end - i < page_size ? end - i
                                                                                                  : page_size);
      else
        page_sums<square_term>(backend_, x.gradients + begin, end - begin,
                               page_sums_.data() + x.first_page + begin / page_size);
    });
    leave_uncounted(p);
    share(p);
    const double plain = total(p);
    if constexpr (std::is_same_v<gradient_type, double>)
      if (const double unit = unit_for(plain); unit != 1) {
        sum_pages(p, false, [this, unit](const item& x, std::size_t i, std::size_t n) {
          const auto sum = [&](const double* g) { return scaled_square_sum(backend_, g, n, 1 / unit); };
          return x.trained ? of_trained(x.gradients + i, x.trained + i, n, sum) : sum(x.gradients + i);
        });
        share(p);
        return {total(p), unit};
      }
    return {plain, 1};
  }

  bool gradients_are_finite(const Parts& p) const noexcept
  {
    for (const item& x : p.work.items())
      if (!all_finite(x.gradients, x.size))
        for (std::size_t i = 0; i < x.size; ++i)
          if (!is_finite(x.gradients[i]) && (!x.trained || x.trained[i]))
            return false;
    return true;
  }

  /// The sum over one page of a tensor's gradients or moments, n elements from the i-th on.
  template <class Term, class X>
  double page_sum_of(const item& x, const X* values, std::size_t i, std::size_t n) const noexcept
  {
    const auto sum = [&](const X* page) { return page_sum<Term>(backend_, page, n); };
    return x.trained ? of_trained(values + i, x.trained + i, n, sum) : sum(values + i);
  }

  /// Sets page_sums_ to of_page(item, begin, length) for every page.
  template <class F>
  void sum_pages(const Parts& p, bool flush_denormals, const F& of_page) noexcept
  {
    p.work.for_ranges(backend_, flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end; i += page_size)
        page_sums_[x.first_page + i / page_size] = of_page(x, i, end - i < page_size ? end - i : page_size);
    });
    leave_uncounted(p);
  }
  /// Removes the pages of tensors that do not count from the sums, except those that are not finite.
  void leave_uncounted(const Parts& p) noexcept
  {
    if (p.work.counts_all())
      return;
    for (const item& x : p.work.items())
      for (std::size_t k = 0; !x.is_counted && k < page_count(x.size); ++k)
        if (double& sum = page_sums_[x.first_page + k]; is_finite(sum))
          sum = 0;
  }
  /// Shares the page sums: the total of each entry of the sums of second moments, or of all pages if there is only one.
  void share(const Parts& p)
  {
    if constexpr (is_shared) {
      order_entries(p);
      shared_.assign(entries_.size() > 1 ? entries_.size() : 1, exact_sum());
      if (entries_.size() > 1)
        for (std::size_t k = 0; k < entries_.size(); ++k)
          add_pages(p, p.sums.entries()[entries_[k]], shared_[k]);
      else
        add_pages(p, shared_[0]);
      backend_.add_up(std::span(shared_));
    }
  }
  /// Lists the entries that have members in the same order in all processes, by β₂ (or group) and step count.
  void order_entries(const Parts& p) noexcept
  {
    entries_.clear();
    if constexpr (Parts::rule_type::scheduled) {
      const auto& all = p.sums.entries().all();
      const auto is_before = [&](std::size_t a, std::size_t b) {
        return all[a].key != all[b].key ? all[a].key < all[b].key : all[a].t < all[b].t;
      };
      for (std::size_t i = 0; i < all.size(); ++i)
        if (all[i].members > 0) {
          entries_.push_back(i);
          for (std::size_t k = entries_.size() - 1; k > 0 && is_before(entries_[k], entries_[k - 1]); --k)
            std::swap(entries_[k], entries_[k - 1]);
        }
    }
  }
  /// The sum of all pages.
  double total(const Parts& p) const noexcept
  {
    if constexpr (is_shared) {
      exact_sum sum;
      for (const exact_sum& part : shared_)
        sum.add(part);
      return sum.value();
    }
    if (p.work.pages() == 1)
      return page_sums_[0];
    exact_sum sum;
    add_pages(p, sum);
    return sum.value();
  }
  /// The sum over the pages of the tensors in one entry.
  double total(const Parts& p, const second_moment_sums::entry& e) const noexcept
  {
    if (p.sums.entries().live() == 1)
      return total(p);
    if constexpr (is_shared)
      for (std::size_t k = 0; k < entries_.size(); ++k)
        if (entries_[k] == std::size_t(&e - p.sums.entries().all().data()))
          return shared_[k].value();
    exact_sum sum;
    add_pages(p, e, sum);
    return sum.value();
  }
  void add_pages(const Parts& p, exact_sum& sum) const noexcept
  {
    for (std::size_t k = 0; k < p.work.pages(); ++k)
      sum.add(page_sums_[k]);
  }
  void add_pages(const Parts& p, const second_moment_sums::entry& e, exact_sum& sum) const noexcept
  {
    for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
      const item& x = p.work.items()[i];
      for (std::size_t k = 0; k < page_count(x.size); ++k)
        sum.add(page_sums_[x.first_page + k]);
    }
  }

  /// The number of elements in the whole model that count.
  std::uint64_t counted_elements(const Parts& p)
  {
    if constexpr (requires { backend_.counted_elements(); })
      return backend_.counted_elements();
    else
      return std::uint64_t(over_all(double(p.work.counted_elements())));
  }
  /// The sum of a number over all processes; alone, the number.
  double over_all(double mine)
  {
    if constexpr (is_shared) {
      exact_sum sum;
      sum.add(mine);
      backend_.add_up(std::span(&sum, 1));
      return sum.value();
    } else
      return mine;
  }
  /// Whether it is so in any process.
  bool any(bool here) { return over_all(here) > 0; }

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
    p.work.for_ranges(backend_, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      for (std::size_t i = begin; i < end && !found.load(std::memory_order_relaxed); i += page_size)
        if (page_overflows<model>(p.cohorts[x.cohort].prepared, x, i, end - i < page_size ? end - i : page_size))
          found.store(true, std::memory_order_relaxed);
    });
    return any(found.load(std::memory_order_relaxed));
  }

  // ── v̄ ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// v̄ by the recursion of Σv. Nothing if v̄ is given and the sums cannot be advanced; they are unknown then.
  std::optional<double> mean_by_norm(Parts& p, const step_options& o, const norm_of_step& norm)
  {
    second_moment_sums& sums = p.sums;
    const std::uint64_t elements = counted_elements(p);
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
    const double mean = sums.advance<value_type>(
        p.cohorts.all(),
        [&](const second_moment_sums::entry& e) {
          return is_one ? norm.squares : square_sum{total(p, e), norm.squares.unit};
        },
        scale_, counted);
    // The unit suits the largest sum. In it, the squares of another one may have underflowed.
    if (!is_one && norm.squares.unit != 1)
      sums.forget();
    return mean;
  }

  /// Recomputes unknown sums from the moments.
  void sum_moments(Parts& p)
  {
    const auto sum_up = [&](auto& e) {
      if (e.members == 0 || is_finite(e.sum))
        return;
      exact_sum sum;
      for (std::size_t i = e.first_item; i != no_place; i = p.work.items()[i].next_of_sum) {
        const item& x = p.work.items()[i];
        if (!x.is_counted)
          continue;
        const auto* const moments = x.state[model::formula::value_slot].values;
        if (x.trained)
          for (std::size_t k = 0; k < x.size; k += page_size)
            sum.add(page_sum_of<plain_term>(x, moments, k, x.size - k < page_size ? x.size - k : page_size));
        else
          gradus::add_pages<plain_term>(backend_, moments, x.size, sum);
      }
      if constexpr (is_shared)
        backend_.add_up(std::span(&sum, 1));
      e.sum = sum.value();
    };
    if constexpr (is_shared) {
      order_entries(p);
      for (const std::size_t k : entries_)
        sum_up(p.sums.entries()[k]);
    } else
      for (auto& e : p.sums.entries().all())
        sum_up(e);
  }

  /// v̄ from the pages that `compute_moments` summed.
  double mean_of_moments(Parts& p)
  {
    p.sums.correct(p.cohorts.all());
    const auto elements = double(counted_elements(p));
    const double total_moment = p.sums.total_of([&](const second_moment_sums::entry& e) { return total(p, e); });
    return elements > 0 ? total_moment / elements : 0;
  }

  // ── sums of a step size ──────────────────────────────────────────────────────────────────────────────────────────

  /// Computes the new moments and each tensor's sums, and from these the factors on its step. As in compute_moments,
  /// moments that are stored rounded are not stored yet.
  void sum_terms(const Parts& p, const step_options& o) noexcept
  {
    p.work.for_ranges(backend_, o.flush_denormals, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      page_of_terms<typename model::formula> terms = {};
      for (std::size_t i = begin; i < end; i += page_size)
        sum_page_of_terms<model>(backend_, p.cohorts[x.cohort].prepared, x, i,
                                 end - i < page_size ? end - i : page_size, terms,
                                 page_sums_.data() + (x.first_page + i / page_size) * model::terms);
    });
    constexpr bool of_model = Parts::rule_type::sums_over_model;
    const auto& items = p.work.items();
    double sums[model::terms] = {};
    for (std::size_t j = 0; of_model && j < model::terms; ++j) {
      exact_sum sum;
      for (const item& x : items)
        if (x.is_counted)
          add_terms(x, j, sum);
      sums[j] = sum.value();
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      const item& x = items[i];
      for (std::size_t j = 0; !of_model && j < model::terms; ++j)
        sums[j] = sum_of_terms(x, j);
      const auto& c = p.cohorts[x.cohort];
      factors_[i] = factors_of(p.groups[c.key].rule, c.scalars, sums,
                               double(of_model ? p.work.counted_elements() : x.counted));
    }
  }
  /// A tensor's sum of term j.
  double sum_of_terms(const item& x, std::size_t j) const noexcept
  {
    if (page_count(x.size) == 1)
      return page_sums_[x.first_page * model::terms + j];
    exact_sum sum;
    add_terms(x, j, sum);
    return sum.value();
  }
  /// Adds a tensor's pages of term j to a sum.
  void add_terms(const item& x, std::size_t j, exact_sum& sum) const noexcept
  {
    for (std::size_t k = 0; k < page_count(x.size); ++k)
      sum.add(page_sums_[(x.first_page + k) * model::terms + j]);
  }
  /// The formulas of a tensor in the last phase.
  decltype(auto) formula_of_item(const Parts& p, const item& x) const noexcept
  {
    const auto& c = p.cohorts[x.cohort];
    if constexpr (has_sums) {
      typename model::formula own = c.prepared;
      prepare_with_factors(own, p.groups[c.key].rule, c.scalars, factors_[std::size_t(&x - p.work.items().data())]);
      return own;
    } else
      return (c.prepared);
  }

  // ── sweep ────────────────────────────────────────────────────────────────────────────────────────────────────────

  template <pass Pass>
  void sweep_item(const Parts& p, const item& x, std::size_t begin, std::size_t end) const noexcept
  {
    const auto& prepared = formula_of_item(p, x);
    if (x.trained)
      sweep_trained<Pass, model>(backend_, prepared, x, noise_of(p, x), begin, end);
    else
      sweep<Pass, model>(backend_, prepared, x, noise_of(p, x), begin, end);
  }
  template <pass Pass>
  void sweep_all(const Parts& p, const step_options& o, item_range of) noexcept
  {
    p.work.for_ranges(backend_, o.flush_denormals, of, [&](const item& x, std::size_t begin, std::size_t end) noexcept {
      sweep_item<Pass>(p, x, begin, end);
    });
  }

  Backend backend_;
  static constexpr std::size_t sums_of_page = model::terms > 1 ? model::terms : 1;
  std::vector<double> page_sums_;
  std::vector<step_factors> factors_;  // of each item, for a step size with sums
  // For processes that share steps: the sums of the entries in the list, or of all pages.
  std::vector<exact_sum> shared_;
  std::vector<std::size_t> entries_;
  double scale_ = 1;  // the factor on the gradients in this step
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
