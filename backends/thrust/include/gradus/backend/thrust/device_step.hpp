#pragma once
/// \file
/// A step over device memory: the step_engine of backend::thrust_device. It knows which launches a step needs and their
/// order; the launches are in launches.hpp, sums.hpp and update.hpp.
///
/// Everything that a step reads is in device memory: records of the tensors, cohorts and sums, and a board with the
/// scalars. A step is two launches, one that measures and decides and one that updates; a third comes between them if
/// the decision needs the moments. It allocates nothing and waits for nothing, so it can be captured as a graph. A
/// replay uses the current t, and the options that set_options stored last.

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

/// The engine of a device. \tparam Device  backend::thrust_device, or a class with its launch, launch_warps, copy,
/// check_reachable, memory and synchronous
/// \tparam Tensor  the record of a tensor
template <class Parts, class Device, template <class, std::size_t, unsigned> class Tensor = device_tensor>
class device_step {
 protected:
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
  using tensor = Tensor<precision, model::slots, nonnegative>;
  using cohort = device_cohort<rule_type, formula>;
  using own_type = device_own<formula>;
  static constexpr bool has_sums = rule_type::sums;
  using data = device_data<precision, tensor, cohort, model::one_pass>;
  using pack = backend::device_pack<value_type>;
  static constexpr bool in_codes = tensor::in_codes;
  static constexpr bool is_shared = data::is_shared;                          // the step, by several ranks
  static constexpr std::size_t unit = in_codes ? block8::block : pack::size;  // elements that are updated together
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
    array<exact_sum> next_exact(data::exact_sums(scheduled ? n : 0, n), exact_sum{}, device_.memory());
    array<own_type> next_own(has_sums ? n : 0, own_type{}, device_.memory());
    array<std::uint32_t> next_pages(m, 0u, device_.memory());
    host_tensors_.reserve(n);
    host_pages_.reserve(m);
    host_cohorts_.reserve(n);
    host_sums_.reserve(n);
    host_own_.reserve(has_sums ? n : 0);
    if (!board_.get()) {
      board_ = std::move(next_board);
      maps_ = std::move(next_maps);
    }
    tensors_ = std::move(next_tensors);
    cohorts_ = std::move(next_cohorts);
    sums_ = std::move(next_sums);
    exact_ = std::move(next_exact);
    own_ = std::move(next_own);
    pages_ = std::move(next_pages);
    tensor_room_ = n;
    page_room_ = m;
    is_uploaded_ = false;
  }

  /// Enqueues a step. The report is `pending`, unless launches have finished when they return.
  step_report step(Parts& p, const step_options& o)
  {
    bring_up_to_date(p, o);
    const step_parts parts = parts_of(p, o);
    const first_look<data> first{data_of_step(), parts};
    device_.launch_warps(pages_to_measure(parts), first);
    if (parts.looks_twice)
      device_.launch_warps(host_pages_.size(), second_look<data>{first.data, parts});
    update(0, packs_);
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
    if (!is_up_to_date(p) || !was_stepped_)
      return;
    device_.copy(host_cohorts_.data(), cohorts_.get(), host_cohorts_.size() * sizeof(cohort));
    std::uint64_t steps = 0;
    for (std::size_t c = 0; c < host_cohorts_.size(); ++c)
      if (host_cohorts_[c].active) {
        steps = host_cohorts_[c].t - p.cohorts[c].t;
        for (std::size_t i = 0; i < model::scalar_count; ++i)
          p.cohorts[c].scalars.state[i] = host_cohorts_[c].kept[i];
      }
    p.count_steps(steps);
    if constexpr (model::one_pass) {
      device_.copy(host_sums_.data(), sums_.get(), host_sums_.size() * sizeof(device_sum));
      may_be_unknown_ = false;
      for (std::size_t k = 0; k < host_sums_.size(); ++k) {
        p.sums.entries()[k].sum = host_sums_[k].sum;
        may_be_unknown_ = may_be_unknown_ || !is_finite(host_sums_[k].sum);
      }
      knows_model_ = read_board().of_model;
      p.sums.set_of_model(knows_model_);
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
      if constexpr (reads_mean_square<decltype(rule_type::decay)>)
        r.decay_factor = b.decay_factor;
    }
    r.decay_clamped = b.clamped != 0;
    return r;
  }

  /// Stores the options on the device, unless they are the same as before.
  void set_options(const step_options& o)
  {
    if (o.flush_denormals)
      fail("flush_denormals is 1; expected 0, because on a device the compiler decides this (nvcc -ftz=true)");
    const option_values values{o.lr_scale,
                               o.grad_scale,
                               o.max_grad_norm.value_or(no_limit<double>()),
                               o.grad_norm_sq,
                               o.skip_nonfinite,
                               o.mean_square,
                               o.model_size,
                               o.lr,
                               o.decay_scale,
                               o.maximize};
    if (options_ && *options_ == values)
      return;
    device_board told;
    told.lr_scale = o.lr_scale;
    told.lr = o.lr.value_or(-1.0);
    told.decay_scale = o.decay_scale;
    told.maximizes = o.maximize;
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

 protected:
  // ── the parts of a step ──────────────────────────────────────────────────────────────────────────────────────────

  /// Stores the options and the list of tensors on the device. A step follows.
  void bring_up_to_date(Parts& p, const step_options& o)
  {
    set_options(o);
    if (!is_up_to_date(p))
      upload(p);
    was_stepped_ = true;
  }
  bool is_up_to_date(const Parts& p) const noexcept { return is_uploaded_ && p.work.is_current(); }
  /// What the step consists of. Takes note of what is known about the sums of second moments after it.
  step_parts parts_of([[maybe_unused]] Parts& p, const step_options& o)
  {
    step_parts parts{};
    parts.has_elements = !is_empty();
    parts.measures = parts.has_elements && measures<model::one_pass>(o);
    parts.looks = parts.has_elements && o.skip_nonfinite && o.grad_norm_sq;
    parts.is_tried = parts.looks_twice = o.skip_nonfinite;
    parts.mean_is_given = o.mean_square.has_value();
    if constexpr (model::one_pass) {
      parts.counts_model = second_moment_sums::counts_model(o, elements_);
      parts.has_one_sum = p.sums.entries().live() == 1;
      if (parts.has_elements)
        plan_sums(p, o, parts);
    } else if constexpr (has_sums)
      parts.looks_twice = parts.looks_twice || parts.has_elements;
    else if constexpr (scheduled)
      parts.looks_twice = parts.looks_twice || (parts.has_elements && !parts.mean_is_given);
    return parts;
  }
  data data_of_step() const
  {
    return {board_.get(),
            tensors_.get(),
            pages_.get(),
            cohorts_.get(),
            sums_.get(),
            exact_.get(),
            std::int64_t(host_cohorts_.size()),
            std::int64_t(host_sums_.size()),
            std::int64_t(host_tensors_.size()),
            own()};
  }
  /// The number of pages that the first launch reads.
  std::size_t pages_to_measure(const step_parts& parts) const noexcept
  {
    return parts.measures || parts.looks ? host_pages_.size() : 0;
  }
  std::size_t pages() const noexcept { return host_pages_.size(); }
  std::size_t packs() const noexcept { return packs_; }
  const std::vector<tensor>& tensors() const noexcept { return host_tensors_; }
  /// Whether a sum of second moments on the device may be unknown.
  bool may_be_unknown() const noexcept { return may_be_unknown_; }

  /// Updates the elements of some packs, or blocks of 8-bit codes.
  void update(std::size_t begin, std::size_t end) const
  {
    const auto launch = [&](const auto& of_pack) {
      if constexpr (in_codes)
        device_.launch_warps(end - begin, of_pack);
      else
        device_.launch(end - begin, of_pack);
    };
    using update_type =
        std::conditional_t<in_codes, update_codes<precision, tensor, cohort>, update_pack<precision, tensor, cohort>>;
    const update_type of_pack{board_.get(), tensors_.get(), host_tensors_.size(), cohorts_.get(), own()};
    if constexpr (is_shared)
      launch(update_from<update_type>{of_pack, std::int64_t(begin)});
    else
      launch(of_pack);
  }

 private:
  struct option_values {
    double lr_scale, grad_scale, max_grad_norm;
    std::optional<double> grad_norm_sq;
    bool skip_nonfinite;
    std::optional<double> mean_square;
    std::optional<std::uint64_t> model_size;
    std::optional<double> lr;
    double decay_scale;
    bool maximize;
    bool operator==(const option_values&) const = default;
  };

  /// Whether a step has no elements. Of several ranks, some may have none in a step that has.
  bool is_empty() const noexcept { return !is_shared && host_tensors_.empty(); }

  device_board read_board() const
  {
    device_board b;
    device_.copy(&b, board_.get(), sizeof b);
    return b;
  }

  void plan_sums(Parts& p, const step_options& o, step_parts& parts)
  {
    if (parts.mean_is_given) {
      may_be_unknown_ = true;  // unless they can advance, which only the device knows
      knows_model_ = knows_model_ || parts.counts_model;
    } else {
      p.sums.set_of_model(parts.counts_model);  // what is ordered; settle() learns whether the step was taken
      const bool may_be_needed = may_be_unknown_ || (knows_model_ && !parts.counts_model);
      parts.looks_twice = parts.looks_twice || may_be_needed;
      const bool may_be_skipped = o.skip_nonfinite || clips(o);  // then the sums stay as they are
      may_be_unknown_ = may_be_needed && may_be_skipped;
      knows_model_ = parts.counts_model || (knows_model_ && may_be_skipped);
    }
    may_be_unknown_ = may_be_unknown_ || may_become_infinite(o);
  }

  /// Whether the step may make a sum infinite. A computed sum of squares of floats is too small for that.
  static bool may_become_infinite(const step_options& o) noexcept
  {
    return sizeof(value_type) > sizeof(float) || (o.grad_norm_sq && !(*o.grad_norm_sq < 0x1p700));
  }

  list_of_own<cohort> own() const
  {
    if constexpr (has_sums)
      return own_.get();
    else
      return {};
  }

  // ── the list on the device ───────────────────────────────────────────────────────────────────────────────────────

  void upload(Parts& p)
  {
    is_uploaded_ = false;
    p.refresh();
    host_tensors_.clear();
    host_cohorts_.clear();
    host_sums_.clear();
    host_own_.clear();
    host_pages_.clear();
    packs_ = 0;
    elements_ = p.work.counted_elements();
    for (const auto& x : p.work.items()) {
      host_pages_.insert(host_pages_.end(), page_count(x.size), std::uint32_t(host_tensors_.size()));
      host_tensors_.push_back(record_of(p, x));
      if constexpr (has_sums)
        host_own_.push_back({{}, double(x.counted)});
    }
    for (const auto& c : p.cohorts.all()) {
      host_cohorts_.push_back({p.groups[c.key].rule, c.t, {}, {}, {}, c.members > 0, p.groups[c.key].lr_scale});
      for (std::size_t i = 0; i < model::scalar_count; ++i)
        host_cohorts_.back().kept[i] = c.kept[i];
    }
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
    if constexpr (reads_mean_square<decltype(rule_type::decay)>)
      b.eps = p.groups[0].rule.decay.eps;
    device_.launch(1, store_list_facts{board_.get(), b});
    device_.copy(tensors_.get(), host_tensors_.data(), host_tensors_.size() * sizeof(tensor));
    device_.copy(pages_.get(), host_pages_.data(), host_pages_.size() * sizeof(std::uint32_t));
    device_.copy(cohorts_.get(), host_cohorts_.data(), host_cohorts_.size() * sizeof(cohort));
    device_.copy(sums_.get(), host_sums_.data(), host_sums_.size() * sizeof(device_sum));
    device_.copy(own_.get(), host_own_.data(), host_own_.size() * sizeof(own_type));
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
    if constexpr (is_shared) {
      d.first_in_whole = x.first_in_whole;
      d.counted = x.counted;
      d.is_counted = x.is_counted;
      d.cut = device_.cut_tensor(x.parameters);
    }
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

  static bool is_whole(const remainders& r) noexcept { return is_whole(r.rest); }

  Device device_;
  array<device_board> board_;
  array<device_maps> maps_;
  array<tensor> tensors_;
  array<cohort> cohorts_;
  array<device_sum> sums_;
  array<exact_sum> exact_;
  array<own_type> own_;
  array<std::uint32_t> pages_;  // the index of each page's tensor
  std::vector<tensor> host_tensors_;
  std::vector<cohort> host_cohorts_;
  std::vector<device_sum> host_sums_;
  std::vector<own_type> host_own_;
  std::vector<std::uint32_t> host_pages_;
  std::size_t tensor_room_ = 0, page_room_ = 0, packs_ = 0;
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
