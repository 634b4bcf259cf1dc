#pragma once
/// \file
/// The optimizer of a model that several processes train together: each has all parameters and gradients, and the
/// optimizer state of its share of them (ZeRO stage 1).

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gradus/backend/default.hpp>
#include <gradus/checkpoint/settings.hpp>
#include <gradus/checkpoint/transfer.hpp>
#include <gradus/distributed/agreement.hpp>
#include <gradus/distributed/communicator.hpp>
#include <gradus/distributed/gradient_exchange.hpp>
#include <gradus/distributed/layout.hpp>
#include <gradus/distributed/place.hpp>
#include <gradus/distributed/reduction.hpp>
#include <gradus/distributed/sharded_step.hpp>
#include <gradus/distributed/sharded_values.hpp>
#include <gradus/distributed/talk.hpp>
#include <gradus/error.hpp>
#include <gradus/optimizer.hpp>
#include <gradus/optimizer/tensor_state.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// How a sharded optimizer exchanges gradients and parameters. The same on all ranks.
struct sharded_options {
  /// Bytes of gradients that are added at a time; a bucket is at least one page (4096 elements) a rank.
  std::size_t bucket = std::size_t(64) << 20;
  /// In which order the ranks' gradients are added (see `reduction`).
  gradus::reduction reduction = gradus::reduction::ranks_in_order;
  /// How long a rank waits for the others before it reports an error and ends all of them.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
  /// Microbatches that each rank adds before a step, see `accumulate`.
  std::size_t microbatches = 1;
};

/// Runs one recipe over a model of which every rank of a communicator has a replica. A step adds the ranks' gradients,
/// updates on each rank its share of the weights, and gathers all weights on all ranks. Given the same sums of gradients,
/// the weights, the state and the norm have the same bits for every number of ranks, and are the plain optimizer's.
///
///     gradus::comm::mpi world(MPI_COMM_WORLD);
///     gradus::sharded opt(world, gradus::adamw{.lr = 1e-3});
///     for (const auto& t : model)
///       opt.add(t.name, t.size);
///     opt.commit();
///     opt.parameters("layer1.weight"), opt.gradients("layer1.weight");  // spans, on every rank of the whole tensor
///     opt.step({.grad_scale = 1.0 / world.size(), .max_grad_norm = 1, .skip_nonfinite = true});
///
/// `commit`, `step`, `broadcast_parameters`, `replicas_agree`, `save` and `load` are collective: every rank calls them, in
/// the same order. So are, without waiting, all calls that change something, and the next step finds out whether the ranks
/// made the same ones. An error of a collective call is thrown on every rank, and then nothing has changed on any. If a
/// rank does not answer at all, the others end the program after a timeout. Destructors never communicate.
///
/// \tparam T        as for `optimizer`. Gradients of 16 bits are added in float
/// \tparam Comm     a `communicator`, which must outlive the optimizer
/// \tparam Backend  a CPU backend, or backend::thrust_device
///
/// Not movable. `step` allocates nothing.
template <class Recipe, class T, communicator Comm, class Backend = default_backend>
class sharded {
  using given = precision_of<T>;
  using gradient_sum = detail::sum_of<typename given::gradient_type>;
  /// Of the optimizer that steps this rank's parts; its gradients are sums.
  using inner_precision =
      precision<typename given::parameter_type, gradient_sum, typename given::state_type, typename given::master_type>;
  using place_type = detail::memory_place<Backend>;
  using inner_backend = detail::sharing<Backend, Comm>;
  using inner_optimizer = optimizer<Recipe, inner_precision, inner_backend>;
  using request = typename Comm::request;
  using parts_type = detail::parts<detail::model<Recipe, T, Backend>>;
  static_assert(!detail::moves_device_memory<Comm> || place_type::on_device,
                "gradus: this communicator moves device memory, and the parameters, gradients and scalars of this "
                "backend are in host memory; take one over host memory, such as comm::mpi, or a backend over device "
                "memory, such as backend::thrust_device.");
  static_assert(
      detail::moves_device_memory<Comm> || !place_type::on_device,
      "gradus: this communicator moves host memory, and the parameters, gradients and scalars of this backend "
      "are in device memory; take comm::nccl, or wrap this one in comm::staged.");
  static_assert(
      !detail::names_engine<Backend, parts_type> || detail::names_shared_engine<Backend, parts_type>,
      "gradus: the backend of a sharded optimizer is a CPU backend, such as backend::simd, scalar or parallel, "
      "or backend::thrust_device, and not backend::with_product, because matrices would be cut.");

 public:
  using precision_type = given;                             ///< the types of all numbers
  using parameter_type = typename given::parameter_type;    ///< of a weight
  using gradient_type = typename given::gradient_type;      ///< of a gradient, as it is sent
  using recipe_type = Recipe;                               ///< of the hyperparameters
  using rule_type = typename inner_optimizer::rule_type;    ///< the composition that Recipe::rule() returns
  using value_type = typename inner_optimizer::value_type;  ///< of the arithmetic
  /// Whether parameters and gradients are in a device's memory, which the host cannot access.
  static constexpr bool on_device = place_type::on_device;

  /// An optimizer whose default group has these hyperparameters. Talks to no other rank.
  /// \throws std::invalid_argument for a hyperparameter or option that is out of range
  explicit sharded(Comm& world, Recipe hyperparameters, const sharded_options& options = {},
                   Backend backend = Backend())
      : options_(options), talk_(world, place_type(backend), options.timeout),
        inner_(hyperparameters, inner_backend(backend, talk_)),
        exchange_(talk_, options.reduction, options.microbatches)
  {
    if (options.timeout.count() <= 0)
      detail::fail("timeout is " + std::to_string(options.timeout.count()) + " ms; expected more than 0");
  }
  sharded(const sharded&) = delete;
  sharded& operator=(const sharded&) = delete;

  // ── groups, as those of `optimizer` ────────────────────────────────────────────────────────────────────────────────

  /// Adds a group with its own hyperparameters. Pass the returned handle to `add`.
  group_handle add_group(const Recipe& hyperparameters, const group_options& o = {})
  {
    outdate();
    return inner_.add_group(hyperparameters, o);
  }
  /// A group's factor on its learning rate.
  double lr_scale(group_handle g = {}) const { return inner_.lr_scale(g); }
  /// Sets a group's factor on its learning rate, from the next step on. All ranks must set the same.
  void set_lr_scale(double lr_scale, group_handle g = {})
  {
    outdate();
    inner_.set_lr_scale(lr_scale, g);
  }
  /// A copy of a group's hyperparameters.
  Recipe hyperparameters(group_handle g = {}) const { return inner_.hyperparameters(g); }
  /// Sets a group's hyperparameters from the next step on. All ranks must set the same.
  void set_hyperparameters(const Recipe& hyperparameters, group_handle g = {})
  {
    outdate();
    inner_.set_hyperparameters(hyperparameters, g);
  }
  /// Throws if set_hyperparameters would.
  static void check_hyperparameters(const Recipe& hyperparameters)
  {
    inner_optimizer::check_hyperparameters(hyperparameters);
  }
  /// The number of groups, including the default group.
  std::size_t group_count() const { return inner_.group_count(); }
  /// The handle of a group by its index.
  group_handle group_at(std::size_t index) const { return inner_.group_at(index); }

  // ── tensors ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// Adds a tensor of n elements. All ranks must add the same tensors in the same order, before `commit`.
  /// \param name    new; "" picks a free one of "tensor0", "tensor1", …
  /// \param counts  counted_elsewhere for a copy of a tensor that another group of ranks counts in the norm
  /// \return the tensor's name
  /// \throws std::invalid_argument for a name in use, or after `commit`
  std::string add(std::string_view name, std::size_t n, std::optional<group_handle> in = {},
                  in_norm counts = in_norm::counted)
  {
    return add_tensor(name, n, in, counts, nullptr);
  }
  /// The same in a group of its own choice, without a norm of its own.
  std::string add(std::string_view name, std::size_t n, in_norm counts) { return add(name, n, {}, counts); }
  /// The same for a tensor of which only some elements are trained. All ranks must give the same mask.
  /// \param trained  for indices in the whole tensor; copied
  /// \throws std::invalid_argument also for a mask of another length, and with 8-bit state
  std::string add(std::string_view name, std::size_t n, const trained_mask& trained,
                  std::optional<group_handle> in = {}, in_norm counts = in_norm::counted)
  {
    return add_tensor(name, n, in, counts, &trained);
  }

  /// Ends the adding: the ranks agree on the list, lay it out and allocate. Collective. Parameters and gradients are then
  /// 0; set the parameters on all ranks, or on one and call `broadcast_parameters`.
  /// \throws std::invalid_argument if the ranks' lists or options differ, or no tensor was added
  void commit()
  {
    if (is_committed_)
      detail::fail("commit() was called twice; expected one call");
    talk_.begin("commit()", settings());
    agree_on_list();
    std::string problem;
    std::exception_ptr thrown;
    parts_of_commit made{*this};
    guarded(problem, thrown, [&] { allocate(); });
    talk_.begin("commit()", list_hash());
    speak(problem, thrown);
    made.stay = true;
    for (tensor& x : tensors_)
      x.trained = {};  // the parts have theirs
    is_committed_ = true;
    exchange_.begin_cycle();
  }

  /// A tensor's parameters, whole on every rank. Valid as long as the optimizer. On a device, a span of its memory.
  std::span<parameter_type> parameters(std::string_view name)
  {
    const detail::element_range r = layout_.tensors()[committed(name)];
    return {parameters_.get() + r.begin, r.size()};
  }
  /// A tensor's gradients, which this rank computes, whole. `step` overwrites them with sums in part, so compute or clear
  /// them before the next step.
  std::span<gradient_type> gradients(std::string_view name)
  {
    const detail::element_range r = layout_.tensors()[committed(name)];
    return {exchange_.gradients() + r.begin, r.size()};
  }
  /// All gradients as one array, with gaps of zeros between tensors, to clear them or to add to them.
  std::span<gradient_type> all_gradients()
  {
    check_committed();
    return {exchange_.gradients(), layout_.elements()};
  }

  /// Freezes a tensor: steps skip it. All ranks must freeze the same.
  void freeze(std::string_view name)
  {
    for_parts(name, [this](const tensor_handle& h) { inner_.freeze(h); });
  }
  /// Lets a frozen tensor take part in steps again.
  void unfreeze(std::string_view name)
  {
    for_parts(name, [this](const tensor_handle& h) { inner_.unfreeze(h); });
  }
  /// Marks elements of a tensor as padding, as optimizer::set_padding does. After `commit`; all ranks must mark the same.
  /// \param is_padding  for indices in the whole tensor
  void set_padding(std::string_view name, padding_mask is_padding)
  {
    const std::size_t i = committed(name);
    tensor& x = tensors_[i];
    detail::check_may_have_padding(name, x.is_masked);
    const std::vector<std::uint8_t> mask = detail::copy_of_mask("padding mask", name, x.size, is_padding);
    outdate();
    // Of the empty tensor too, because all ranks must forget the sum of second moments.
    inner_.set_padding(x.anchor, [](std::size_t) { return false; });
    for (const rank_part& p : parts_)
      if (p.tensor == i)
        inner_.set_padding(p.handle, [&](std::size_t k) { return mask[p.first + k] != 0; });
    x.padding_hash = detail::running_hash().add_bytes(mask.data(), mask.size()).value();
  }
  /// The number of steps that a tensor has taken.
  std::uint64_t step_count(std::string_view name) const { return inner_.step_count(tensors_[place(name)].anchor); }
  /// The number of weights in all tensors.
  std::size_t parameter_count() const noexcept
  {
    std::size_t n = 0;
    for (const tensor& x : tensors_)
      n += x.size;
    return n;
  }
  /// The bytes of this rank's moments and master weights.
  std::size_t state_bytes() const { return inner_.state_bytes(); }
  /// The number of weights that this rank steps, with the gaps between tensors.
  std::size_t elements_of_rank() const noexcept { return layout_.of_rank(); }

  /// The seed of stochastic rounding, initially 0; a part of the state.
  std::uint64_t seed() const
    requires(inner_precision::stochastic)
  {
    return inner_.seed();
  }
  /// Sets the seed. All ranks must set the same.
  void set_seed(std::uint64_t seed)
    requires(inner_precision::stochastic)
  {
    outdate();
    inner_.set_seed(seed);
  }

  // ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /// Says that this rank's gradients of a tensor are complete, so that the exchange of its bucket may begin while others
  /// are computed. Optional, in any order, and no rank needs to say it of the same tensors: `step` begins with the rest.
  /// \throws std::invalid_argument if it was said before in this step
  void ready(std::string_view name) { exchange_.ready(committed(name), name); }

  /// Ends a microbatch: adds its gradients to those before it, in the order of a binary tree, and clears `gradients`. Call
  /// it `microbatches` times before each step, which then clears them, too. With `reduction::tree`, and a power of two of
  /// microbatches on each rank, a step has the same bits however many ranks share the same microbatches in order.
  void accumulate()
  {
    check_committed();
    exchange_.accumulate();
  }

  /// Takes one step. Collective. The options are those of `optimizer`, the same on all ranks, without model_size.
  /// `grad_scale` of 1/world.size() makes sums means. The report is the same on all ranks.
  /// \throws std::invalid_argument on all ranks if one was given an option out of range, or if they disagree. Nothing has
  ///         changed then, except that gradients were added
  step_report step(const step_options& o = {})
  {
    check_committed();
    exchange_.check_microbatches();
    talk_.begin("step " + std::to_string(steps_ + 1), hash_of(o));
    ++steps_;
    const bool clears = exchange_.has_accumulated();
    exchange_.finish();
    read_masters();
#if GRADUS_EXCEPTIONS
    try {
#endif
      if (o.model_size)
        detail::fail("model_size is " + std::to_string(*o.model_size) +
                     "; expected none, because a sharded optimizer has the whole model");
      inner_.step(o);
#if GRADUS_EXCEPTIONS
    } catch (...) {
      refuse_step();
      throw;
    }
#endif
    talk_.finish_gathers();
    if (clears)
      exchange_.clear();
    return inner_.report();
  }
  /// The report of the last step.
  step_report report() const { return inner_.report(); }

  /// Copies all parameters from one rank to all. Collective.
  void broadcast_parameters(std::size_t root = 0)
  {
    check_committed();
    if (root >= talk_.ranks())
      detail::fail("root is " + std::to_string(root) + "; expected a rank below " + std::to_string(talk_.ranks()));
    talk_.begin("broadcast_parameters()", settings() + root);
    talk_.agree({});
    if (talk_.ranks() > 1) {
      request r = talk_.comm->broadcast(parameters_.get(), layout_.elements() * sizeof(parameter_type), root);
      talk_.wait(r, "broadcast of the parameters");
    }
    has_masters_ = false;
  }
  /// Whether all ranks have the same parameters, to the bit. Collective, and the same answer on all ranks. It reads all
  /// parameters once.
  bool replicas_agree()
  {
    check_committed();
    const std::uint64_t hash = hash_of_parameters();
    talk_.begin("replicas_agree()", settings());
    talk_.agree({});
    std::int64_t words[detail::statement::word_count];
    detail::statement::write(words, hash, 0, false, talk_.rank());
    if (talk_.ranks() > 1)
      talk_.sum(words, detail::statement::word_count, "comparison of the parameters");
    return detail::statement::agrees(words, hash, talk_.ranks());
  }
  /// Reads the master weights from the parameters, which other code has changed. Before the first step it happens by
  /// itself.
  void reset_masters() { has_masters_ = false; }

  // ── for save and load ──────────────────────────────────────────────────────────────────────────────────────────────

  /// As optimizer::visit_state, for whole tensors: an array is shown as `sharded_values`, of which this rank has some
  /// ranges. Counts and sums are spans, the same on all ranks.
  template <class Visitor>
  void visit_state(Visitor&& visit)
  {
    visit_whole(inner_, visit);
  }
  /// The same, read-only.
  template <class Visitor>
  void visit_state(Visitor&& visit) const
  {
    visit_whole(inner_, visit);
  }
  /// As optimizer::visit_tensors.
  template <class Visitor>
  void visit_tensors(Visitor&& visit)
  {
    check_committed();
    std::vector<unsigned char> takes_part_of(tensors_.size());
    std::size_t i = 0;
    inner_.visit_tensors([&](std::string_view name, auto, std::size_t group, bool& takes_part) {
      if (i < tensors_.size()) {
        visit(name, span_of(i), group, takes_part);
        takes_part_of[i] = takes_part;
      } else
        takes_part = takes_part_of[parts_[i - tensors_.size()].tensor] != 0;
      ++i;
    });
    outdate();
  }
  /// The same, read-only.
  template <class Visitor>
  void visit_tensors(Visitor&& visit) const
  {
    check_committed();
    std::size_t i = 0;
    inner_.visit_tensors([&](std::string_view name, auto, std::size_t group, const bool& takes_part) {
      if (i < tensors_.size())
        visit(name, std::span<const parameter_type>(span_of(i)), group, takes_part);
      ++i;
    });
  }
  /// Makes the next step recompute Σv of a scheduled decay.
  void recompute_sums() { inner_.recompute_second_moment_sum(); }

  /// The ranges of a tensor, by its index, that this rank has.
  template <class F>
  void for_ranges(std::size_t tensor, const F& f) const
  {
    for (const rank_part& p : parts_)
      if (p.tensor == tensor)
        f(detail::element_range{p.first, p.first + p.size});
  }

  /// Used by save and load: this rank and the talk of all ranks.
  detail::step_talk<Comm, place_type>& talk() noexcept { return talk_; }
  /// Copies bytes to or from parameters, gradients or state, which may be in a device's memory.
  void copy_memory(void* to, const void* from, std::size_t bytes) const { talk_.memory.copy(to, from, bytes); }
  /// Used by save and load: the hash of what all ranks must agree on.
  std::uint64_t settings()
  {
    check_list();
    return detail::running_hash().add(list_hash_).add(std::uint64_t(steps_)).value();
  }
  /// Used by load. \param others_failed  set if before_load throws
  void begin_load(bool& others_failed) noexcept { others_failed_ = &others_failed; }
  /// Used by load: ends the part of it that may fail on one rank alone.
  void before_load()
  {
    *others_failed_ = true;
    talk_.agree({});
    *others_failed_ = false;
  }
  /// Used by load: gathers the parameters, of which each rank has loaded its own.
  void after_load()
  {
    has_masters_ = true;
    outdate();
    for (auto& b : talk_.buckets)
      talk_.start_gather(b);
    talk_.finish_gathers();
  }
  /// Runs f; if it throws, keeps the error, so that the rank can say that it has one.
  template <class F>
  static void guarded([[maybe_unused]] std::string& problem, [[maybe_unused]] std::exception_ptr& thrown, const F& f)
  {
#if GRADUS_EXCEPTIONS
    try {
      f();
    } catch (const std::exception& e) {
      problem = e.what();
      thrown = std::current_exception();
    } catch (...) {
      problem = "unknown";
      thrown = std::current_exception();
    }
#else
    f();
#endif
  }
  /// Says whether this rank has a problem. Throws it, or the other ranks'.
  void speak(const std::string& problem, [[maybe_unused]] const std::exception_ptr& thrown)
  {
#if GRADUS_EXCEPTIONS
    if (thrown) {
      try {
        talk_.agree(problem);
      } catch (...) {
        // This rank's own error is thrown.
      }
      std::rethrow_exception(thrown);
    }
#endif
    talk_.agree(problem);
  }

 private:
  struct tensor {
    std::string name;
    std::size_t size;
    group_handle group;
    in_norm counts;
    tensor_handle anchor;
    bool is_masked = false;
    std::vector<std::uint8_t> trained = {};  // until commit: the mask
    std::uint64_t mask_hash = 0, padding_hash = 0;
  };
  /// A part that this rank steps.
  struct rank_part : detail::tensor_part {
    tensor_handle handle;
  };
  /// \param trained  null if all elements are
  std::string add_tensor(std::string_view name, std::size_t n, const std::optional<group_handle>& in, in_norm counts,
                         const trained_mask* trained)
  {
    if (is_committed_)
      detail::fail("tensor " + detail::quote(name) + " is added after commit(); expected all tensors before it");
    if (name.find('\0') != name.npos)
      detail::fail("name of a tensor has a zero byte; expected none");
    std::string own(name);
    for (std::size_t k = tensors_.size(); own.empty() || (name.empty() && places_.contains(own)); ++k)
      own = "tensor" + std::to_string(k);
    tensor added{own, n, in.value_or(group_handle{}), counts, {}};
    if (trained && on_device)
      detail::fail("the mask of tensor " + detail::quote(own) +
                   " is given; expected none on a device: set the gradients of the other elements to 0, or choose a "
                   "CPU backend");
    if (trained) {
      detail::check_may_have_mask<typename given::state_type>(own);
      added.trained = detail::copy_of_mask("mask", own, n, *trained);
      added.is_masked = n > 0;
      added.mask_hash = detail::running_hash().add_bytes(added.trained.data(), n).value();
    }
    places_.reserve(places_.size() + 1);
    tensors_.reserve(tensors_.capacity() > tensors_.size() ? tensors_.capacity() : 2 * tensors_.size() + 1);
    // An empty tensor, so that all ranks have the same names, groups and step counts in the same order.
    added.anchor = inner_.add_spans(own, {}, std::span<const gradient_sum>(), in);
    places_.emplace(own, tensors_.size());
    tensors_.push_back(std::move(added));
    outdate();
    return own;
  }
  std::size_t place(std::string_view name) const
  {
    const auto found = places_.find(std::string(name));
    if (found == places_.end())
      detail::fail("name is " + detail::quote(name) + "; expected the name of a tensor of this optimizer");
    return found->second;
  }
  void check_committed() const
  {
    if (!is_committed_)
      detail::fail("commit() was not called; expected it after the last add()");
  }
  std::size_t committed(std::string_view name) const
  {
    check_committed();
    return place(name);
  }
  std::span<parameter_type> span_of(std::size_t i) const
  {
    const detail::element_range r = layout_.tensors()[i];
    return {parameters_.get() + r.begin, r.size()};
  }
  template <class F>
  void for_parts(std::string_view name, const F& f)
  {
    const std::size_t i = committed(name);
    outdate();
    f(tensors_[i].anchor);
    for (const rank_part& p : parts_)
      if (p.tensor == i)
        f(p.handle);
  }

  // ── agreement ──────────────────────────────────────────────────────────────────────────────────────────────────────

  void outdate() noexcept { list_is_hashed_ = false; }
  void check_list()
  {
    if (!list_is_hashed_)
      list_hash_ = list_hash();
    list_is_hashed_ = true;
  }
  std::uint64_t hash_of(const tensor& x) const
  {
    return detail::running_hash()
        .add(x.name)
        .add(std::uint64_t(x.size))
        .add(std::uint64_t(x.group.key().index))
        .add(x.counts == in_norm::counted)
        .value();
  }
  /// The hash of the list, the hyperparameters and the options.
  std::uint64_t list_hash() const
  {
    detail::running_hash h;
    h.add(std::uint64_t(options_.bucket))
        .add(std::uint64_t(options_.reduction))
        .add(std::uint64_t(options_.microbatches));
    h.add(std::uint64_t(sizeof(parameter_type))).add(std::uint64_t(sizeof(gradient_type)));
    h.add(detail::recipe_of(inner_));
    for (std::size_t g = 0; g < inner_.group_count(); ++g) {
      h.add(inner_.lr_scale(inner_.group_at(g)));
      for (const auto& [name, value] : detail::numbers_of(inner_, g))
        h.add(name).add(value);
    }
    for (const tensor& x : tensors_)
      h.add(hash_of(x)).add(x.mask_hash).add(x.padding_hash);
    std::size_t i = 0;
    inner_.visit_tensors([&](std::string_view, auto, std::size_t, bool takes_part) {
      if (i++ < tensors_.size())
        h.add(takes_part);
    });
    if constexpr (inner_precision::stochastic)
      h.add(inner_.seed());
    return h.value();
  }
  std::uint64_t hash_of(const step_options& o)
  {
    return detail::running_hash()
        .add(settings())
        .add(o.lr_scale)
        .add(o.lr)
        .add(o.decay_scale)
        .add(o.maximize)
        .add(o.grad_scale)
        .add(o.max_grad_norm)
        .add(o.grad_norm_sq)
        .add(o.skip_nonfinite)
        .add(o.flush_denormals)
        .add(o.mean_square)
        .add(o.model_size)
        .value();
  }

  /// Fails on all ranks if their lists, hyperparameters or options differ, and says where lists differ first.
  void agree_on_list()
  {
    std::vector<std::uint64_t> hashes;
    for (const tensor& x : tensors_)
      hashes.push_back(hash_of(x));
    detail::agree_on_list(talk_, list_hash(), hashes, [this](std::size_t i) {
      return detail::quote(tensors_[i].name) + " of " + std::to_string(tensors_[i].size) + " elements";
    });
  }

  /// The hash of this rank's parameters.
  std::uint64_t hash_of_parameters() const
  {
    const std::size_t bytes = layout_.elements() * sizeof(parameter_type);
    const auto* const all = reinterpret_cast<const unsigned char*>(parameters_.get());
    detail::running_hash hash;
    if constexpr (on_device) {
      std::vector<unsigned char> piece(bytes < detail::staging_bytes ? bytes : detail::staging_bytes);
      for (std::size_t i = 0, n; i < bytes; i += n) {
        n = bytes - i < piece.size() ? bytes - i : piece.size();
        copy_memory(piece.data(), all + i, n);
        hash.add_bytes(piece.data(), n);
      }
    } else
      hash.add_bytes(all, bytes);
    return hash.value();
  }
  /// Takes part in a step that this rank has to refuse, so that no other rank waits for it or goes on.
  void refuse_step() noexcept
  {
#if GRADUS_EXCEPTIONS
    try {
      if constexpr (on_device) {
        // The other ranks find out from its words, and nothing is changed.
        talk_.refuses = true;
        inner_.step();
        talk_.finish_gathers();
      } else if (!talk_.has_spoken())
        talk_.refuse_step();
    } catch (...) {
      // This rank's own problem is reported.
    }
    talk_.refuses = false;
#endif
  }

  // ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  void allocate()
  {
    const std::size_t ranks = talk_.ranks(), rank = talk_.rank();
    std::vector<std::size_t> sizes;
    for (const tensor& x : tensors_)
      sizes.push_back(x.size);
    layout_ = {sizes, ranks, options_.bucket / sizeof(gradient_type)};
    const std::size_t n = layout_.elements(), buckets = layout_.buckets().size();
    parameters_ = {n, parameter_type(), talk_.memory.source()};
    exchange_.allocate(layout_);
    talk_.reserve_operations(2 * buckets + 4);
    for (std::size_t b = 0; b < buckets; ++b) {
      const detail::element_range all = layout_.buckets()[b];
      auto& bucket = talk_.buckets.emplace_back();
      bucket.bytes = parameters_.get() + all.begin;
      bucket.end = parameters_.get() + all.end;
      bucket.slice = layout_.slice(b, rank).size() * sizeof(parameter_type);
    }
    // A step adds up one sum for each β₂ and step count.
    talk_.reserve(rule_type::scheduled ? tensors_.size() + 1 : 1, 0);
    if constexpr (rule_type::sums) {
      for (std::size_t i = 0; i < tensors_.size(); ++i)
        if (!rule_type::sums_over_model && layout_.is_cut(i)) {
          const auto whole = span_of(i);
          talk_.cuts.push_back({whole.data(), whole.data() + whole.size()});
        }
      constexpr std::size_t terms = detail::term_count<decltype(rule_type::step_size)>();
      talk_.reserve(terms, terms + 1);
    }
    const auto parts = layout_.parts(rank);
    parts_.reserve(parts.size());
    for (const detail::tensor_part& p : parts) {
      const tensor& x = tensors_[p.tensor];
      std::string name(1, '\0');
      name += std::to_string(parts_.size());
      const auto is_trained = [&](std::size_t i) { return x.trained[p.first + i] != 0; };
      const trained_mask trained(is_trained);
      const tensor_handle h = inner_.add_spans(name, {parameters_.get() + p.place, p.size},
                                               std::span<const gradient_sum>(exchange_.sum_at(p.bucket, p.place),
                                                                             p.size),
                                               x.group, x.is_masked ? &trained : nullptr);
      inner_.set_part(h, x.name, p.first);
      inner_.set_in_norm(h, x.counts);
      parts_.push_back({p, h});
    }
  }
  /// Removes the parts again if commit fails, on this rank or another, so that it can be called again.
  struct parts_of_commit {
    sharded& of;
    bool stay = false;
    ~parts_of_commit()
    {
      if (stay)
        return;
      for (; !of.parts_.empty(); of.parts_.pop_back())  // from the last, so that the next tensors get places in order
        of.inner_.remove(of.parts_.back().handle, removed_state::dropped);
      of.talk_.buckets.clear();
      of.talk_.cuts.clear();
    }
  };

  /// Master weights are those of the parameters at the first step, unless they were loaded.
  void read_masters()
  {
    if constexpr (inner_precision::has_master)
      if (!has_masters_)
        for (const rank_part& p : parts_)
          inner_.reset_master(p.handle);
    has_masters_ = true;
  }

  // ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  template <class Inner, class Visitor>
  void visit_whole(Inner& inner, Visitor& visit) const
  {
    check_committed();
    std::vector<std::size_t> sizes;
    std::vector<unsigned char> is_masked;
    std::vector<detail::tensor_part> parts(parts_.begin(), parts_.end());
    for (const tensor& x : tensors_) {
      sizes.push_back(x.size);
      is_masked.push_back(x.is_masked);
    }
    detail::part_collector found(sizes.size(), talk_.memory);
    inner.visit_state(detail::in_place(found));
    detail::whole_visitor whole(visit, found, sizes, parts, is_masked);
    inner.visit_state(detail::in_place(whole));
  }

  sharded_options options_;
  detail::step_talk<Comm, place_type> talk_;
  inner_optimizer inner_;
  detail::gradient_exchange<Comm, place_type, gradient_type> exchange_;
  std::vector<tensor> tensors_;
  std::unordered_map<std::string, std::size_t> places_;
  detail::page_layout layout_;
  std::vector<rank_part> parts_;
  detail::array_memory<parameter_type, typename place_type::memory_type> parameters_;
  std::uint64_t steps_ = 0, list_hash_ = 0;
  bool is_committed_ = false, has_masters_ = false, list_is_hashed_ = false;
  bool* others_failed_ = nullptr;
};

template <communicator Comm, class Recipe>
sharded(Comm&, Recipe) -> sharded<Recipe, float, Comm>;
template <communicator Comm, class Recipe>
sharded(Comm&, Recipe, const sharded_options&) -> sharded<Recipe, float, Comm>;
template <communicator Comm, class Recipe, class Backend>
sharded(Comm&, Recipe, const sharded_options&, Backend) -> sharded<Recipe, float, Comm, Backend>;

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
