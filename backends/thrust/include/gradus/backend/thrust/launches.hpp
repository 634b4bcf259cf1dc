#pragma once
/// \file
/// The launches that decide and prepare a step. Each is a function object, called for k = 0, 1, …. The decisions are
/// the host's (optimizer/decisions.hpp); the elements are updated by update.hpp.

#include <cstddef>
#include <cstdint>

#include <gradus/backend/thrust/records.hpp>
#include <gradus/backend/thrust/sums.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/mean_square.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

// ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Chooses the unit in which squares are summed again, from their plain sum.
struct choose_unit {
  device_board* board;
  const exact_sum* total;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->unit = unit_for(total->value());
    board->has_unit = board->unit != 1;
  }
};

/// Looks for gradients that are infinite or NaN. Needed if a given norm is infinite, because it may have overflowed.
template <class Tensor>
struct find_nonfinite {
  device_board* board;
  const Tensor* tensors;
  std::size_t n;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (is_finite(board->given_norm_sq))
      return;
    const std::size_t page = std::size_t(k) / page_lanes, lane = std::size_t(k) % page_lanes;
    const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_page, page)];
    const std::size_t begin = (page - x.first_page) * page_size;
    const std::size_t end = x.size - begin < page_size ? x.size : begin + page_size;
    for (std::size_t i = begin + lane; i < end; i += page_lanes)
      if (!is_finite(gradient_element{}(x, i)))
        set_flag(board->has_nonfinite);
  }
};

// ── decide and prepare ───────────────────────────────────────────────────────────────────────────────────────────────

/// Decides whether the step is taken, and prepares one cohort's coefficients.
template <class Cohort, class T>
struct prepare_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;          // the number of cohorts; may be 0
  const exact_sum* total;  // ‖g‖², or null
  bool looks;              // whether find_nonfinite was launched
  bool is_tried;           // whether the step is tried on the elements before it is taken
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    norm_of_step norm;
    norm.given = board->is_given;
    // A graph that was captured without computing the norm never has one, even if later options need it.
    norm.known = norm.given || (board->is_measured && (total || board->elements == 0));
    if (norm.given)
      norm.squares.sum = board->given_norm_sq;
    else if (norm.known && total)
      norm.squares = {total->value(), board->unit};
    norm.gradients_are_finite = looks && !is_set(board->has_nonfinite);
    const verdict decided = judge<T>(norm, board->grad_scale, board->max_grad_norm, board->skips);
    const bool applied = decided.applied && !decided.underflows;
    if (applied && k < n && cohorts[k].active) {
      Cohort& c = cohorts[k];
      c.scalars = make_step_scalars(c.rule, c.t + 1, board->lr_scale, 0);
      c.prepared = prepare<T>(c.rule, c.scalars, decided.scale);
      if (!is_tried)
        c.t += 1;
      else if (board->skips && may_overflow<T>(root_of(norm.squares, decided.scale), c.scalars.lr))
        set_flag(board->may_overflow);
    }
    if (k == 0) {
      board->applied = board->advances = applied;
      board->has_norm = norm.known;
      board->norm = root_of(norm.squares, board->grad_scale);
      board->scale = decided.scale;
      board->has_mean = board->clamped = false;
    }
  }
};

/// With skip_nonfinite: if the step could overflow, tries it on each element and discards the results.
template <class Precision, class Tensor, class Cohort>
struct try_elements {
  device_board* board;
  const Tensor* tensors;
  std::size_t n;
  const Cohort* cohorts;
  std::size_t packs, unit, lanes;

  using T = typename Precision::compute_type;

  GRADUS_HOST_DEVICE void operator()(std::int64_t lane) const noexcept
  {
    if (!board->applied || !is_set(board->may_overflow))
      return;
    for (std::size_t k = std::size_t(lane); k < packs && !is_set(board->overflows); k += lanes) {
      const Tensor& x = tensors[last_from(tensors, n, &Tensor::first_pack, k)];
      const Cohort& c = cohorts[x.cohort];
      const std::size_t begin = (k - x.first_pack) * unit, end = x.size - begin < unit ? x.size : begin + unit;
      for (std::size_t i = begin; i < end; ++i) {
        const T theta = x.master ? T(x.master[i]) : load<T>(x.parameters + i);
        if (overflows(c, x, i, theta))
          set_flag(board->overflows);
      }
    }
  }

 private:
  GRADUS_HOST_DEVICE static bool overflows(const Cohort& c, const Tensor& x, std::size_t i, T theta) noexcept
  {
    T slot[Tensor::slot_count + 1] = {};
    const std::size_t first = c.prepared.idle_first_moment ? decltype(c.prepared)::first_slots : 0;
    for (std::size_t k = first; k < Tensor::slot_count; ++k)
      if constexpr (real<typename Precision::state_type>)
        slot[k] = x.slots[k][i];
      else
        slot[k] = x.read_slot(k, i);
    return element_overflows(c.prepared, theta, load<T>(x.gradients + i), slot);
  }
};

/// Counts a step that was tried, unless it overflows.
template <class Cohort>
struct count_tried {
  const device_board* board;
  Cohort* cohorts;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (cohorts[k].active && board->applied && !is_set(board->overflows))
      cohorts[k].t += 1;
  }
};
/// Sets `applied` to the result of the trial, and clears the flags for the next step.
struct close_verdict {
  device_board* board;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->applied = board->advances = board->applied && board->overflows == 0;
    board->may_overflow = board->overflows = board->has_nonfinite = 0;
  }
};

// ── v̄, and the decay that is scheduled by it ─────────────────────────────────────────────────────────────────────────

/// Decides whether the sums advance, and whether they are the whole model's.
struct arrange_sums {
  device_board* board;
  device_sum* sums;
  std::int64_t n;
  bool mean_is_given, counts_model, measures;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    if (!board->applied || board->elements == 0)
      return;
    std::size_t live = 0;
    bool all_known = true;
    for (std::int64_t k = 0; k < n; ++k)
      if (sums[k].active) {
        ++live;
        all_known = all_known && is_finite(sums[k].sum);
      }
    const sums_plan plan = plan_of_sums(mean_is_given, measures, counts_model, board->of_model, all_known, live);
    for (std::int64_t k = 0; plan.forgets && k < n; ++k)
      sums[k].sum = unknown_sum();
    board->advances = plan.advances;
    board->of_model = plan.of_model;
  }
};

/// Sets an unknown sum to the value that was computed from the moments.
struct keep_recomputed {
  const device_board* board;
  device_sum* sums;
  const exact_sum* recomputed;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (board->applied && board->advances && board->elements > 0 && sums[k].active && !is_finite(sums[k].sum))
      sums[k].sum = recomputed[k].value();
  }
};

/// Advances one sum of second moments by the recursion of Σv, and adds its part to n·v̄.
template <class Cohort, class T>
struct advance_sum {
  const device_board* board;
  device_sum* sums;
  const Cohort* cohorts;
  const exact_sum* total;     // ‖g‖² of all tensors; null if no norm was computed
  const exact_sum* of_entry;  // ‖g‖² of each entry's tensors; null if there is only one entry or no norm was computed
  exact_sum* mean;
  bool is_one;  // whether there is only one sum
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    device_sum& s = sums[k];
    if (!board->applied || !board->advances || !s.active || board->elements == 0)
      return;
    square_sum squares;
    if (board->is_given)
      squares.sum = board->given_norm_sq;
    else if (of_entry)
      squares = {of_entry[k].value(), board->unit};
    else if (total)
      squares = {total->value(), board->unit};
    s.sum = next_sum<T>(s.beta2, s.sum, squares, board->scale);
    add_atomically(*mean, s.sum / cohorts[s.cohort].scalars.bc2);
    // The unit suits the largest sum. In it, the squares of another one may have underflowed.
    if (!is_one && squares.unit != 1)
      s.sum = unknown_sum();
  }
};

/// Adds one entry's part to n·v̄, from the sum of its moments.
template <class Cohort>
struct add_moments {
  const device_board* board;
  const device_sum* sums;
  const Cohort* cohorts;
  const exact_sum* of_entry;
  exact_sum* mean;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (board->applied && sums[k].active)
      add_atomically(*mean, of_entry[k].value() / cohorts[sums[k].cohort].scalars.bc2);
  }
};

/// Prepares one cohort's scheduled decay from v̄.
template <class Cohort, class T>
struct schedule_cohort {
  device_board* board;
  Cohort* cohorts;
  std::int64_t n;
  const exact_sum* total;  // n·v̄, or null
  bool mean_is_given;      // whether v̄ was given when the step was enqueued or captured
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept
  {
    if (!board->applied)
      return;
    double mean = 0;
    if (mean_is_given || board->has_given_mean)
      mean = board->given_mean_square;
    else if (total && board->elements > 0)
      mean = total->value() / (board->of_model ? board->model_size : board->elements);
    if (k < n) {
      Cohort& c = cohorts[k];
      c.scalars.mean_square = mean;
      c.prepared.decay = c.rule.decay.template prepare<T>(c.scalars);
      c.clamped = c.active && c.rule.decay.rate(c.scalars) > 1;
    }
    if (k == 0) {
      board->has_mean = true;
      board->mean_square = mean;
      board->decay_factor = decay_factor(mean, board->eps);
    }
  }
};

/// Combines the cohorts' flags `clamped`. A separate launch, because concurrent writes to one flag would race.
template <class Cohort>
struct gather_clamped {
  device_board* board;
  const Cohort* cohorts;
  std::int64_t n;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    for (std::int64_t k = 0; board->applied && k < n; ++k)
      board->clamped = board->clamped || cohorts[k].clamped;
  }
};

// ── data from the host ───────────────────────────────────────────────────────────────────────────────────────────────

/// Copies the options to the board.
struct store_options {
  device_board* board;
  device_board told;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->lr_scale = told.lr_scale;
    board->grad_scale = told.grad_scale;
    board->max_grad_norm = told.max_grad_norm;
    board->given_norm_sq = told.given_norm_sq;
    board->is_given = told.is_given;
    board->is_measured = told.is_measured;
    board->skips = told.skips;
    board->has_given_mean = told.has_given_mean;
    if (told.has_given_mean)  // a graph that was captured with a given mean uses the last one
      board->given_mean_square = told.given_mean_square;
    if (told.model_size > 0)
      board->model_size = told.model_size;
  }
};
/// Copies the facts about the list of tensors to the board.
struct store_list_facts {
  device_board* board;
  device_board known;
  GRADUS_HOST_DEVICE void operator()(std::int64_t) const noexcept
  {
    board->seed = known.seed;
    board->elements = known.elements;
    board->eps = known.eps;
    board->of_model = known.of_model;
  }
};
/// Converts one 16-bit parameter to its master weight.
template <class S>
struct decode_one {
  const S* from;
  float* to;
  GRADUS_HOST_DEVICE void operator()(std::int64_t k) const noexcept { to[k] = float(from[k]); }
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
