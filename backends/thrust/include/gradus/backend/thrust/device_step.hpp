#pragma once
/// \file
/// A step over device memory: the step_engine of backend::thrust_device. It knows which launches a step needs and their
/// order; the launches are in launches.hpp, sums.hpp and update.hpp.
///
/// Everything that a step reads is in device memory: records of the tensors, cohorts and sums, and a board with the
/// scalars. A step is a fixed sequence of launches that allocates nothing and waits for nothing, so it can be captured
/// as a graph. A replay uses the current t, and the options that set_options stored last.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/backend/thrust/launches.hpp>
#include <gradus/backend/thrust/records.hpp>
#include <gradus/backend/thrust/sums.hpp>
#include <gradus/backend/thrust/update.hpp>
#include <gradus/optimizer/parts.hpp>
#include <gradus/optimizer/step_engine.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The engine of a device. \tparam Device  backend::thrust_device, or a class with its launch, copy, check_reachable,
/// memory and synchronous
template <class Parts, class Device>
class device_step {
  using model = typename Parts::model;
  using precision = typename model::precision_type;
  using gradient_type = typename model::gradient_type;
  using value_type = typename model::value_type;
  using rule_type = typename model::rule_type;
  using formula = typename model::formula;
  template <class X>
  using array = array_memory<X, typename Device::memory_type>;

  static constexpr unsigned nonnegative = [] {
    unsigned bits = 0;
    for (std::size_t k = 0; k < model::slots; ++k)
      bits |= unsigned(model::slot_list[k].is_nonnegative) << k;
    return bits;
  }();
  using tensor = device_tensor<precision, model::slots, nonnegative>;
  using cohort = device_cohort<rule_type, formula>;
  using pack = backend::device_pack<value_type>;
  static constexpr bool in_codes = tensor::in_codes;
  static constexpr std::size_t unit = in_codes ? block8::block : pack::size;  // the elements that one thread updates
  static constexpr bool scheduled = rule_type::scheduled;
  static_assert(std::is_trivially_copyable_v<rule_type> && std::is_trivially_copyable_v<formula>);

 public:
  static constexpr bool on_device = true;

  explicit device_step(const Device& d) : device_(d) {}
  const Device& backend() const noexcept { return device_; }

  void reserve(std::size_t tensors, std::size_t pages)
  {
    if (tensors <= tensor_room_ && pages <= page_room_)
      return;
    const std::size_t n = tensors > tensor_room_ ? 2 * tensors : tensor_room_;
    const std::size_t m = pages > page_room_ ? pages + pages / 2 : page_room_;
    array<device_board> next_board(board_.get() ? 0 : 1, device_board{}, device_.memory());
    array<device_maps> next_maps(in_codes && !maps_.get(), device_maps{}, device_.memory());
    array<tensor> next_tensors(n, tensor{}, device_.memory());
    array<cohort> next_cohorts(n, cohort{}, device_.memory());
    array<device_sum> next_sums(scheduled ? n : 0, device_sum{}, device_.memory());
    array<exact_sum> next_exact(first_entry + (scheduled ? 2 * n : 0), exact_sum{}, device_.memory());
    array<double> next_partial(m * page_lanes, 0.0, device_.memory());
    host_tensors_.reserve(n);
    host_cohorts_.reserve(n);
    host_sums_.reserve(n);
    if (!board_.get()) {
      board_ = std::move(next_board);
      maps_ = std::move(next_maps);
    }
    tensors_ = std::move(next_tensors);
    cohorts_ = std::move(next_cohorts);
    sums_ = std::move(next_sums);
    exact_ = std::move(next_exact);
    partial_ = std::move(next_partial);
    tensor_room_ = n;
    page_room_ = m;
    is_uploaded_ = false;
  }

  /// Enqueues a step. The report is `pending`, unless launches have finished when they return.
  step_report step(Parts& p, const step_options& o)
  {
    set_options(o);
    if (!is_uploaded_ || !p.work.is_current())
      upload(p);
    const exact_sum* const norm = measure(o);
    prepare(o, norm);
    if constexpr (scheduled)
      schedule(p, o, norm);
    if constexpr (model::two_passes) {
      if (o.mean_square)
        update<pass::whole>();
      else
        update<pass::weights>();
    } else
      update<pass::whole>();
    was_stepped_ = true;
    if constexpr (Device::synchronous)
      return report();
    else {
      step_report unknown = no_step();
      unknown.pending = true;
      return unknown;
    }
  }

  /// Copies step counts and sums that steps changed from the device; waits for it.
  void settle(Parts& p)
  {
    if (!is_uploaded_ || !p.work.is_current() || !was_stepped_)
      return;
    device_.copy(host_cohorts_.data(), cohorts_.get(), host_cohorts_.size() * sizeof(cohort));
    std::uint64_t steps = 0;
    for (std::size_t c = 0; c < host_cohorts_.size(); ++c)
      if (host_cohorts_[c].active)
        steps = host_cohorts_[c].t - p.cohorts[c].t;
    p.count_steps(steps);
    if constexpr (model::one_pass) {
      device_.copy(host_sums_.data(), sums_.get(), host_sums_.size() * sizeof(device_sum));
      may_be_unknown_ = false;
      for (std::size_t k = 0; k < host_sums_.size(); ++k) {
        p.sums.entries()[k].sum = host_sums_[k].sum;
        may_be_unknown_ = may_be_unknown_ || !is_finite(host_sums_[k].sum);
      }
      p.sums.set_of_model(read_board().of_model);
    }
  }

  step_report report() const
  {
    if (!board_.get())
      return no_step();
    const device_board b = read_board();
    step_report r;
    r.applied = b.applied;
    if (b.has_norm)
      r.grad_norm = b.norm;
    if (b.has_mean) {
      r.mean_square = b.mean_square;
      r.decay_factor = b.decay_factor;
    }
    r.decay_clamped = b.clamped;
    return r;
  }

  /// Stores the options on the device, unless they are the same as before.
  void set_options(const step_options& o)
  {
    if (o.flush_denormals)
      fail("flush_denormals is 1; expected 0, because on a device the compiler decides this (nvcc -ftz=true)");
    const option_values values{o.lr_scale,     o.grad_scale,     o.max_grad_norm.value_or(no_limit<double>()),
                               o.grad_norm_sq, o.skip_nonfinite, o.mean_square,
                               o.model_size};
    if (options_ && *options_ == values)
      return;
    device_board told;
    told.lr_scale = o.lr_scale;
    told.grad_scale = o.grad_scale;
    told.max_grad_norm = values.max_grad_norm;
    told.is_given = o.grad_norm_sq.has_value();
    told.given_norm_sq = o.grad_norm_sq.value_or(0.0);
    told.is_measured = measures<model::one_pass>(o);
    told.skips = o.skip_nonfinite;
    told.has_given_mean = o.mean_square.has_value();
    told.given_mean_square = o.mean_square.value_or(0.0);
    told.model_size = double(o.model_size.value_or(0));
    device_.launch(1, store_options{board_.get(), told});
    options_ = values;
  }

  void check_place(const void* parameters, const void* gradients, std::string_view name) const
  {
    device_.check_reachable(parameters, "parameters", name);
    if (gradients)
      device_.check_reachable(gradients, "gradients", name);
  }
  void copy(void* to, const void* from, std::size_t bytes) const { device_.copy(to, from, bytes); }
  template <class S>
  void decode(const S* from, float* to, std::size_t n) const
  {
    device_.launch(n, decode_one<S>{from, to});
  }
  /// Calls f with a copy in host memory, and copies it back unless only_read.
  template <class X, class F>
  void show(std::span<X> values, const F& f, bool only_read) const
  {
    std::vector<std::remove_const_t<X>> copy(values.size());
    device_.copy(copy.data(), values.data(), values.size_bytes());
    f(std::span<X>(copy));
    if constexpr (!std::is_const_v<X>)
      if (!only_read)
        device_.copy(values.data(), copy.data(), values.size_bytes());
  }

 private:
  struct option_values {
    double lr_scale, grad_scale, max_grad_norm;
    std::optional<double> grad_norm_sq;
    bool skip_nonfinite;
    std::optional<double> mean_square;
    std::optional<std::uint64_t> model_size;
    bool operator==(const option_values&) const = default;
  };

  // The indices of the exact sums: ‖g‖² of all gradients, n·v̄, and then two sums for each entry of second_moment_sums.
  static constexpr std::size_t of_all = 0, of_mean = 1, first_entry = 2;
  exact_sum* exact(std::size_t i) const noexcept { return exact_.get() + i; }
  exact_sum* exact_of_entries() const noexcept { return exact(first_entry); }
  exact_sum* recomputed() const noexcept { return exact(first_entry + host_sums_.size()); }

  std::int64_t cohorts() const noexcept { return std::int64_t(host_cohorts_.size()); }
  /// At least one thread, which writes the board.
  std::size_t cohort_threads() const noexcept { return host_cohorts_.empty() ? 1 : host_cohorts_.size(); }
  bool is_empty() const noexcept { return host_tensors_.empty(); }

  device_board read_board() const
  {
    device_board b;
    device_.copy(&b, board_.get(), sizeof b);
    return b;
  }

  // ── measure ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /// \return ‖g‖² of all tensors, if it is computed
  const exact_sum* measure(const step_options& o) const
  {
    if (is_empty())
      return nullptr;
    clear(exact(0), first_entry + 2 * host_sums_.size());
    if (looks(o))
      device_.launch(pages_ * page_lanes, find_nonfinite<tensor>{board_.get(), tensors_.get(), host_tensors_.size()});
    if (!measures<model::one_pass>(o))
      return nullptr;
    // With a single entry, its norm is the total.
    exact_sum* const of_entry = model::one_pass && host_sums_.size() > 1 ? exact_of_entries() : nullptr;
    add_pages<square_term>(gradient_element{}, every_tensor{}, exact(of_all), of_entry);
    if constexpr (std::is_same_v<gradient_type, double>) {
      device_.launch(1, choose_unit{board_.get(), exact(of_all)});
      clear(exact(0), first_entry + host_sums_.size(), &board_.get()->has_unit);
      add_pages<square_term>(scaled_gradient_element{board_.get()}, tensors_in_other_unit{board_.get()}, exact(of_all),
                             of_entry);
    }
    return exact(of_all);
  }
  static bool looks(const step_options& o) noexcept { return o.skip_nonfinite && o.grad_norm_sq; }

  void clear(exact_sum* sums, std::size_t n, const bool* only_if = nullptr) const
  {
    device_.launch(n * exact_sum::word_count, clear_sums{sums, only_if});
  }
  template <class Term, class Element, class Which>
  void add_pages(const Element& element, const Which& which, exact_sum* total, exact_sum* of_entry) const
  {
    const std::size_t n = host_tensors_.size();
    device_.launch(pages_ * page_lanes,
                   sum_lane<Term, tensor, Element, Which>{tensors_.get(), n, element, which, partial_.get()});
    device_.launch(pages_, add_page<tensor, Which>{tensors_.get(), n, which, partial_.get(), total, of_entry});
  }

  // ── prepare ──────────────────────────────────────────────────────────────────────────────────────────────────────

  void prepare(const step_options& o, const exact_sum* norm) const
  {
    device_board* const board = board_.get();
    device_.launch(cohort_threads(), prepare_cohort<cohort, value_type>{board, cohorts_.get(), cohorts(), norm,
                                                                        looks(o), o.skip_nonfinite});
    if (!o.skip_nonfinite)
      return;
    const std::size_t lanes = packs_ < most_tries ? packs_ : most_tries;
    device_.launch(lanes, try_elements<precision, tensor, cohort>{board, tensors_.get(), host_tensors_.size(),
                                                                  cohorts_.get(), packs_, unit, lanes});
    device_.launch(host_cohorts_.size(), count_tried<cohort>{board, cohorts_.get()});
    device_.launch(1, close_verdict{board});
  }
  static constexpr std::size_t most_tries = std::size_t(1) << 17;  // threads; they usually return at once

  // ── v̄, and the decay that is scheduled by it ─────────────────────────────────────────────────────────────────────

  void schedule([[maybe_unused]] Parts& p, const step_options& o, const exact_sum* norm)
  {
    const exact_sum* mean = nullptr;
    if (!is_empty()) {
      if constexpr (model::one_pass)
        mean = mean_by_norm(p, o, norm);
      else if (!o.mean_square)
        mean = mean_by_moments();
    }
    device_board* const board = board_.get();
    device_.launch(cohort_threads(), schedule_cohort<cohort, value_type>{board, cohorts_.get(), cohorts(), mean,
                                                                         o.mean_square.has_value()});
    device_.launch(1, gather_clamped<cohort>{board, cohorts_.get(), cohorts()});
  }

  const exact_sum* mean_by_norm(Parts& p, const step_options& o, const exact_sum* norm)
  {
    device_board* const board = board_.get();
    const std::size_t n = host_sums_.size();
    const bool counts_model = second_moment_sums::counts_model(o, elements_);
    knows_model_ = knows_model_ || counts_model;
    if (!o.mean_square)
      p.sums.set_of_model(counts_model);  // what is ordered; settle() learns whether the step was taken
    if (o.mean_square || knows_model_ || may_be_unknown_) {
      device_.launch(1, arrange_sums{board, sums_.get(), std::int64_t(n), o.mean_square.has_value(), counts_model,
                                     measures<true>(o)});
      add_pages<plain_term>(slot_element{formula::value_slot}, tensors_of_unknown_sum{board, sums_.get()}, nullptr,
                            recomputed());
      device_.launch(n, keep_recomputed{board, sums_.get(), recomputed()});
      may_be_unknown_ = o.mean_square.has_value() || o.skip_nonfinite;
    }
    may_be_unknown_ = may_be_unknown_ || may_become_infinite(o);
    const exact_sum* const of_entry = norm && n > 1 ? exact_of_entries() : nullptr;
    device_.launch(n, advance_sum<cohort, value_type>{board, sums_.get(), cohorts_.get(), norm, of_entry,
                                                      exact(of_mean), p.sums.entries().live() == 1});
    return exact(of_mean);
  }

  /// Whether the step may make a sum infinite. A computed sum of squares of floats is too small for that.
  static bool may_become_infinite(const step_options& o) noexcept
  {
    return sizeof(value_type) > sizeof(float) || (o.grad_norm_sq && !(*o.grad_norm_sq < 0x1p700));
  }

  const exact_sum* mean_by_moments() const
  {
    if constexpr (model::keeps_exactly) {
      update<pass::moments>();
      add_pages<plain_term>(slot_element{formula::value_slot}, every_tensor{}, nullptr, exact_of_entries());
    } else
      add_pages<plain_term>(next_moment_element<cohort>{cohorts_.get()}, every_tensor{}, nullptr, exact_of_entries());
    device_.launch(host_sums_.size(),
                   add_moments<cohort>{board_.get(), sums_.get(), cohorts_.get(), exact_of_entries(), exact(of_mean)});
    return exact(of_mean);
  }

  // ── update ───────────────────────────────────────────────────────────────────────────────────────────────────────

  template <pass Pass>
  void update() const
  {
    const std::size_t n = host_tensors_.size();
    if constexpr (in_codes)
      device_.launch(packs_, update_codes<precision, tensor, cohort>{board_.get(), tensors_.get(), n, cohorts_.get()});
    else
      device_.launch(packs_,
                     update_pack<Pass, precision, tensor, cohort>{board_.get(), tensors_.get(), n, cohorts_.get()});
  }

  // ── the list on the device ───────────────────────────────────────────────────────────────────────────────────────

  void upload(Parts& p)
  {
    is_uploaded_ = false;
    p.refresh();
    host_tensors_.clear();
    host_cohorts_.clear();
    host_sums_.clear();
    packs_ = 0;
    pages_ = p.work.pages();
    elements_ = p.work.counted_elements();
    for (const auto& x : p.work.items())
      host_tensors_.push_back(record_of(p, x));
    for (const auto& c : p.cohorts.all())
      host_cohorts_.push_back({p.groups[c.key].rule, c.t, {}, {}, c.members > 0, false});
    may_be_unknown_ = false;
    if constexpr (scheduled) {
      for (const auto& e : p.sums.entries().all()) {
        host_sums_.push_back({e.sum, e.beta2(), 0, e.members > 0});
        may_be_unknown_ = may_be_unknown_ || (e.members > 0 && !is_finite(e.sum));
      }
      for (std::size_t c = 0; c < host_cohorts_.size(); ++c)
        if (host_cohorts_[c].active)
          host_sums_[p.cohorts[c].sum].cohort = c;
    }
    device_board b;
    b.seed = p.seed;
    b.elements = double(elements_);
    b.of_model = knows_model_ = p.sums.is_of_model();
    if constexpr (scheduled)
      b.eps = p.groups[0].rule.decay.eps;
    device_.launch(1, store_list_facts{board_.get(), b});
    device_.copy(tensors_.get(), host_tensors_.data(), host_tensors_.size() * sizeof(tensor));
    device_.copy(cohorts_.get(), host_cohorts_.data(), host_cohorts_.size() * sizeof(cohort));
    device_.copy(sums_.get(), host_sums_.data(), host_sums_.size() * sizeof(device_sum));
    is_uploaded_ = true;
    was_stepped_ = false;
  }

  tensor record_of(const Parts& p, const typename model::work_item& x)
  {
    tensor d{};
    d.parameters = x.parameters;
    d.gradients = x.gradients;
    d.maps = maps_.get();
    d.size = x.size;
    d.first_pack = packs_;
    d.first_page = x.first_page;
    d.cohort = x.cohort;
    d.sum = p.cohorts[x.cohort].sum;
    d.name_hash = x.name_hash;
    d.aligned = is_whole(x.parameters) && is_whole(x.gradients);
    if constexpr (precision::has_master) {
      d.master = x.master;
      d.aligned = d.aligned && is_whole(x.master);
    }
    for (std::size_t k = 0; k < model::slots; ++k)
      if constexpr (in_codes) {
        d.slots[k] = x.state[k].codes;
        d.scales[k] = x.state[k].scales;
      } else {
        d.slots[k] = x.state[k].values;
        d.aligned = d.aligned && is_whole(d.slots[k]);
      }
    packs_ += x.size / unit + (x.size % unit != 0);
    return d;
  }
  template <class X>
  static bool is_whole(const X* p) noexcept
  {
    return reinterpret_cast<std::uintptr_t>(p) % (pack::size * sizeof(X)) == 0;
  }

  Device device_;
  array<device_board> board_;
  array<device_maps> maps_;
  array<tensor> tensors_;
  array<cohort> cohorts_;
  array<device_sum> sums_;
  array<exact_sum> exact_;
  array<double> partial_;
  std::vector<tensor> host_tensors_;
  std::vector<cohort> host_cohorts_;
  std::vector<device_sum> host_sums_;
  std::size_t tensor_room_ = 0, page_room_ = 0, packs_ = 0, pages_ = 0;
  std::uint64_t elements_ = 0;   // without padding
  bool is_uploaded_ = false;     // whether the device has the optimizer's list
  bool was_stepped_ = false;     // whether a step may have changed counts and sums on the device since then
  bool may_be_unknown_ = false;  // whether a sum of second moments on the device may be unknown
  bool knows_model_ = false;     // whether the sums may be a whole model's
  std::optional<option_values> options_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
