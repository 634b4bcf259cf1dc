#pragma once
/// \file
/// The launches that measure, decide and prepare a step. The decisions are the host's (optimizer/decisions.hpp); the
/// elements are updated by update.hpp.

#include <cstddef>
#include <cstdint>

#include <gradus/backend/thrust/records.hpp>
#include <gradus/backend/thrust/sums.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/mean_square.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// What a step was enqueued for; a graph keeps it.
struct step_parts {
  bool has_elements;   // whether any tensor takes part
  bool measures;       // the norm of the gradients
  bool looks;          // for gradients that are infinite or NaN
  bool is_tried;       // on the elements before it is taken, with skip_nonfinite
  bool looks_twice;    // second_look follows
  bool mean_is_given;  // v̄
  bool counts_model;   // see plan_of_sums
  bool has_one_sum;    // of second moments
};

// ── the end of the decision: counts, v̄, and the decay that is scheduled by it ────────────────────────────────────────

/// Advances sum k of second moments by the recursion of Σv, and returns its part of n·v̄.
template <class Data>
GRADUS_HOST_DEVICE double advance_sum(const Data& data, const step_parts& parts, std::int64_t k) noexcept
{
  const device_board& b = *data.board;
  device_sum& s = data.sums[k];
  if (!b.applied || b.elements == 0)
    return 0;
  if (b.plan.forgets)
    s.sum = unknown_sum();
  if (!b.plan.advances || !s.active)
    return 0;
  if (parts.looks_twice && !is_finite(s.sum))
    s.sum = data.moments(std::size_t(k)).value();
  square_sum squares = b.squares;
  if (!b.is_given && data.sum_count > 1)
    squares.sum = data.norm(Data::index_of_unit(squares.unit), std::size_t(k)).value();
  s.sum = next_sum<typename Data::value_type>(s.beta2, s.sum, squares, b.scale);
  const double part = s.sum / data.cohorts[s.cohort].scalars.bc2;
  // The unit suits the largest sum. In it, the squares of another one may have underflowed.
  if (!parts.has_one_sum && squares.unit != 1)
    s.sum = unknown_sum();
  return part;
}

/// The part of n·v̄ of sum k, from the sum of its moments.
template <class Data>
GRADUS_HOST_DEVICE double part_of_moments(const Data& data, const step_parts& parts, std::int64_t k) noexcept
{
  const device_sum& s = data.sums[k];
  if (!data.board->applied || parts.mean_is_given || !s.active)
    return 0;
  return data.moments(std::size_t(k)).value() / data.cohorts[s.cohort].scalars.bc2;
}

/// Computes v̄, and prepares the rules of all cohorts that read it.
template <class Data, class Team>
GRADUS_HOST_DEVICE void schedule(const Data& data, const step_parts& parts, const Team& team) noexcept
{
  device_board& b = *data.board;
  team.for_each(data.sum_count, [&](std::int64_t k) {
    double part;
    if constexpr (Data::one_pass)
      part = advance_sum(data, parts, k);
    else
      part = part_of_moments(data, parts, k);
    data.sums[k].part = part;
    if (data.sum_count > 1)
      serial_warp().add(data.mean(), part);
  });
  team.for_each(1, [&](std::int64_t) {
    if (!b.applied)
      return;
    double mean = 0;
    if (Data::one_pass && b.elements > 0)
      b.of_model = b.plan.of_model;
    if (parts.mean_is_given || b.has_given_mean)
      mean = b.given_mean_square;
    else if (parts.has_elements && b.elements > 0) {
      const double total = data.sum_count > 1 ? data.mean().value() : data.sums[0].part;  // one term is exact
      mean = total / (b.of_model ? b.model_size : b.elements);
    }
    b.has_mean = true;
    b.mean_square = mean;
    b.decay_factor = decay_factor(mean, b.eps);
  });
  team.for_each(data.cohort_count, [&](std::int64_t k) {
    auto& c = data.cohorts[k];
    if (!b.applied || !c.active)
      return;
    c.scalars.mean_square = b.mean_square;
    prepare_with_mean(c.prepared, c.rule, c.scalars);
    if constexpr (reads_mean_square<decltype(c.rule.decay)>)
      if (scaled_decay(c.rule.decay, c.scalars).rate(c.scalars) > 1)
        set_flag(b.clamped);
  });
}

/// Makes the factors on each tensor's step from its sums, and the formulas with them.
template <class Data, class Team>
GRADUS_HOST_DEVICE void finish_sums(const Data& data, const Team& team) noexcept
{
  team.for_each(data.tensor_count, [&](std::int64_t k) {
    if (!data.board->applied)
      return;
    const auto& c = data.cohorts[data.tensors[k].cohort];
    auto& own = data.own[k];
    double sums[Data::terms];
    for (std::size_t j = 0; j < Data::terms; ++j)
      sums[j] = data.term(std::size_t(k), j).value();
    own.prepared = c.prepared;
    prepare_with_factors(own.prepared, c.rule, c.scalars,
                         factors_of(c.rule, c.scalars, sums,
                                    Data::sums_over_model ? data.board->elements : own.counted));
  });
}

/// What the last launch before the update does when all results are there.
template <class Data, class Team>
GRADUS_HOST_DEVICE void conclude(const Data& data, const step_parts& parts, const Team& team) noexcept
{
  device_board& b = *data.board;
  if (parts.is_tried) {
    team.for_each(1, [&](std::int64_t) {
      b.applied = b.applied && !is_set(b.overflows);
      b.may_overflow = b.overflows = b.has_nonfinite = 0;
    });
    team.for_each(data.cohort_count, [&](std::int64_t k) {
      if (b.applied && data.cohorts[k].active)
        data.cohorts[k].count_step();
    });
  }
  if constexpr (Data::scheduled)
    schedule(data, parts, team);
  if constexpr (Data::terms > 0)
    finish_sums(data, team);
  // For the next step. Sums were added with atomics, and are read and cleared only here.
  const std::size_t sums = Data::exact_sums(std::size_t(data.sum_count), std::size_t(data.tensor_count));
  team.for_each(std::int64_t(sums * exact_sum::word_count), [&](std::int64_t k) {
    const std::size_t word = std::size_t(k);
    data.exact[word / exact_sum::word_count].words[word % exact_sum::word_count] = 0;
  });
}

// ── measure, decide and prepare ──────────────────────────────────────────────────────────────────────────────────────

/// The first launch of every step: measures the gradients if necessary, decides, and prepares all cohorts.
template <class Data>
struct first_look {
  Data data;
  step_parts parts;

  using T = typename Data::value_type;
  static constexpr unsigned blocks_per_processor = 4;  // so that a lane may have 128 registers
  static constexpr std::size_t batch = 128 / sizeof(T);

  GRADUS_HOST_DEVICE std::uint32_t& tickets() const noexcept { return data.board->tickets; }

  /// A page of gradients.
  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t k, const Warp& warp) const noexcept
  {
    const auto p = data.page_at(k);
    if (parts.measures)
      sum_squares(p, warp);
    else if (!is_finite(data.board->given_norm_sq))  // the norm may have overflowed although all gradients are finite
      warp.for_lanes([&](std::size_t lane, std::size_t) {
        for_lane_of_page<8>(p, lane, gradient_element<T>(), [&](double g) {
          if (!is_finite(g))
            set_flag(data.board->has_nonfinite);
        });
      });
  }

  /// Scalars that do not depend on the gradients. Their powers take about as long as a page.
  template <class Team>
  GRADUS_HOST_DEVICE void start(const Team& team) const noexcept
  {
    team.for_each(data.cohort_count, [this](std::int64_t k) {
      auto& c = data.cohorts[k];
      if (c.active)
        c.scalars = scalars_of_step(c.rule, c.t + 1, rates_of(*data.board, c), 0, c.kept);
    });
  }

  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    team.for_each(1, [this](std::int64_t) { decide(); });
    team.for_each(data.cohort_count, [this](std::int64_t k) { prepare_cohort(data.cohorts[k]); });
    if (!parts.looks_twice)
      conclude(data, parts, team);
  }

 private:
  template <class Page, class Warp>
  GRADUS_HOST_DEVICE void sum_squares(const Page& p, const Warp& warp) const noexcept
  {
    double partial[Data::units][Warp::lanes];
    warp.for_lanes([&](std::size_t lane, std::size_t own) {
      double sum[Data::units] = {};
      for_lane_of_page<batch>(p, lane, gradient_element<T>(), [&sum](double g) {
        for (std::size_t u = 0; u < Data::units; ++u)
          sum[u] = square_term{}(sum[u], u == 0 ? g : g * (1 / Data::unit(u)));
      });
      for (std::size_t u = 0; u < Data::units; ++u)
        partial[u][own] = sum[u];
    });
    for (std::size_t u = 0; u < Data::units; ++u) {
      const double sum = warp.sum(partial[u]);
      // In a small unit, the sum of finite gradients that do not count may overflow.
      if (!counts(p.tensor, sum) || (Data::unit(u) < 1 && !is_counted(p.tensor)))
        continue;
      warp.add(data.norm(u), sum);
      if (Data::one_pass && data.sum_count > 1)  // the norm of a single entry is the total
        warp.add(data.norm(u, p.tensor.sum), sum);
    }
  }

  /// Decides whether the step is taken, and how sums of second moments advance if it is.
  GRADUS_HOST_DEVICE void decide() const noexcept
  {
    device_board& b = *data.board;
    norm_of_step norm;
    norm.given = b.is_given;
    // A graph that was captured without computing the norm never has one, even if later options need it.
    norm.known = norm.given || (b.is_measured && (parts.measures || b.elements == 0));
    if (norm.given)
      norm.squares.sum = b.given_norm_sq;
    else if (parts.measures) {
      norm.squares.sum = data.norm(0).value();
      if (Data::units > 1)
        if (const double unit = unit_for(norm.squares.sum); unit != 1)
          norm.squares = {data.norm(Data::index_of_unit(unit)).value(), unit};
    }
    norm.gradients_are_finite = parts.looks && !is_set(b.has_nonfinite);
    const verdict decided = judge<T>(norm, b.grad_scale, b.max_grad_norm, b.skips);
    b.applied = decided.applied && !decided.underflows && !(Data::is_shared && b.is_refused);
    b.scale = decided.scale;
    b.squares = norm.squares;
    b.has_norm = norm.known;
    b.norm = root_of(norm.squares, b.grad_scale);
    b.has_mean = false;
    b.clamped = 0;
    if constexpr (Data::one_pass)
      plan_sums();
  }
  GRADUS_HOST_DEVICE void plan_sums() const noexcept
  {
    device_board& b = *data.board;
    std::size_t live = 0;
    bool all_known = true;
    for (std::int64_t k = 0; k < data.sum_count; ++k)
      if (data.sums[k].active) {
        ++live;
        all_known = all_known && is_finite(data.sums[k].sum);
      }
    b.plan = plan_of_sums(parts.mean_is_given, parts.measures, parts.counts_model, b.of_model, all_known, live);
  }

  template <class Cohort>
  GRADUS_HOST_DEVICE static step_rates rates_of(const device_board& b, const Cohort& c) noexcept
  {
    return {b.lr_scale, b.lr, b.decay_scale, c.lr_scale};
  }
  template <class Cohort>
  GRADUS_HOST_DEVICE void prepare_cohort(Cohort& c) const noexcept
  {
    device_board& b = *data.board;
    if (!b.applied || !c.active)
      return;
    c.prepared = prepare<T>(c.rule, c.scalars, b.maximizes ? -b.scale : b.scale);
    if (!parts.is_tried)
      c.count_step();
    else if (b.skips && may_overflow<T>(root_of(b.squares, b.scale), c.scalars.lr))
      set_flag(b.may_overflow);
  }
};

// ── look at the moments, if the decision needs them ──────────────────────────────────────────────────────────────────

/// The second launch of some steps. With skip_nonfinite, it tries the step on each element if the norm says that it
/// could overflow, and discards the results. It sums second moments if v̄ does not follow from the norm, and the terms of
/// a step size with sums.
template <class Data>
struct second_look {
  Data data;
  step_parts parts;

  using T = typename Data::value_type;
  static constexpr unsigned blocks_per_processor = 4;

  GRADUS_HOST_DEVICE std::uint32_t& tickets() const noexcept { return data.board->tickets; }

  /// A page of elements.
  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t k, const Warp& warp) const noexcept
  {
    device_board& b = *data.board;
    if (!b.applied)
      return;
    const auto p = data.page_at(k);
    const auto& cohort = data.cohorts[p.tensor.cohort];
    if (is_set(b.may_overflow))
      warp.for_lanes([&](std::size_t lane, std::size_t) {
        for (std::size_t i = p.begin + lane; i < p.end && !is_set(b.overflows); i += page_lanes)
          if (overflows(cohort, p.tensor, i))
            set_flag(b.overflows);
      });
    if constexpr (Data::terms > 0)
      add_terms<4>(data, warp, data.tensor_of_page[k], p, cohort.prepared);
    if constexpr (Data::one_pass) {
      if (b.elements > 0 && is_counted(p.tensor) && is_needed(b.plan, data.sums[p.tensor.sum]))
        warp.add(data.moments(p.tensor.sum),
                 sum_of_page<plain_term, 128 / sizeof(T)>(warp, p,
                                                          slot_element{decltype(cohort.prepared)::value_slot}));
    } else if constexpr (Data::scheduled)
      if (!parts.mean_is_given) {
        const double sum = sum_of_page<plain_term, 8>(warp, p,
                                                      next_moment_element<decltype(cohort.prepared)>{cohort.prepared});
        if (counts(p.tensor, sum))
          warp.add(data.moments(p.tensor.sum), sum);
      }
  }

  template <class Team>
  GRADUS_HOST_DEVICE void start(const Team&) const noexcept
  {}
  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    conclude(data, parts, team);
  }

 private:
  /// Whether the sum is to be recomputed from the moments.
  GRADUS_HOST_DEVICE static bool is_needed(const sums_plan& plan, const device_sum& sum) noexcept
  {
    return plan.advances && (plan.forgets || !is_finite(sum.sum));
  }
  template <class Cohort, class Tensor>
  GRADUS_HOST_DEVICE static bool overflows(const Cohort& c, const Tensor& x, std::size_t i) noexcept
  {
    T slot[Tensor::slot_count + 1] = {};
    x.read_slots(c.prepared, i, slot);
    return element_overflows(c.prepared, x.template parameter<T>(i), load<T>(on_device(x.gradients) + i), slot);
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
    board->lr = told.lr;
    board->decay_scale = told.decay_scale;
    board->maximizes = told.maximizes;
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
