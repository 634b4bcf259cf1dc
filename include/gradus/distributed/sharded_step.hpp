#pragma once
/// \file
/// A step over the parts of a model that one rank has: the phases of host_step, with one all-reduce for all scalars of the
/// step, and the all-gather of each bucket started as soon as its weights are computed.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gradus/distributed/agreement.hpp>
#include <gradus/distributed/communicator.hpp>
#include <gradus/error.hpp>
#include <gradus/kernel/exact_sum.hpp>
#include <gradus/optimizer/host_step.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// What the engine of a sharded optimizer and the optimizer itself share: the communicator, and what a step says to the
/// other ranks.
template <class Comm>
class step_talk {
 public:
  using request = typename Comm::request;

  /// One bucket of parameters, as bytes.
  struct bucket {
    const void* end = nullptr;  // after its last parameter
    void* bytes = nullptr;
    std::size_t slice = 0;  // the bytes of one rank's slice
    request gather = {};
    bool is_running = false;
  };

  explicit step_talk(Comm& c, std::chrono::milliseconds timeout) : comm(&c), timeout_(timeout) {}

  Comm* comm;
  std::vector<bucket> buckets;

  std::size_t ranks() const { return std::size_t(comm->size()); }
  std::size_t rank() const { return std::size_t(comm->rank()); }

  /// Begins a call in which all ranks talk. \param in  its name  \param hash  of what all ranks must agree on
  void begin(std::string in, std::uint64_t hash)
  {
    in_ = std::move(in);
    hash_ = hash;
    said_ = 0;
    counted_ = 0;
  }
  const std::string& in() const noexcept { return in_; }
  void count(std::uint64_t elements) noexcept { counted_ = elements; }
  bool has_spoken() const noexcept { return said_ > 0; }
  /// The number of elements that count in all ranks together, from the first talk of the call.
  std::uint64_t counted_elements() const noexcept { return all_counted_; }

  /// Waits for an operation.
  void wait(request& r, const char* what) { wait_for(*comm, r, timeout_, in_, what); }

  /// Adds sums over all ranks, and compares what the ranks believe.
  void add_up(std::span<exact_sum> sums) { talk(sums, false); }

  /// Agrees without sums. A rank that had a problem says so, and all ranks then fail.
  /// \param mine  the problem of this rank, or ""
  void agree(const std::string& mine) { talk({}, !mine.empty()); }
  /// Takes part in the talk of a step that this rank has to refuse, so that no other rank waits for it or goes on.
  void refuse_step() noexcept
  {
#if GRADUS_EXCEPTIONS
    try {
      std::vector<exact_sum> none(usual_sums_);
      talk(none, true);
    } catch (...) {
      // This rank's own problem is reported.
    }
#endif
  }

  /// Starts to gather a bucket, whose weights this rank has computed.
  void start_gather(bucket& b)
  {
    if (ranks() == 1)
      return;
    b.gather = comm->all_gather(b.bytes, b.slice);
    b.is_running = true;
  }
  /// Lets the communicator work on what is running.
  void progress()
  {
    for (bucket& b : buckets)
      b.is_running = b.is_running && !comm->test(b.gather);
  }
  void finish_gathers()
  {
    for (bucket& b : buckets)
      if (b.is_running) {
        wait(b.gather, "all-gather of the parameters");
        b.is_running = false;
      }
  }

 private:
  void talk(std::span<exact_sum> sums, bool has_problem)
  {
    if (!sums.empty())
      usual_sums_ = sums.size();
    const std::uint64_t hash = running_hash().add(hash_).add(std::uint64_t(said_++)).value();
    const std::size_t n = sums.size() * exact_sum::word_count + statement::word_count;
    words_.resize(n);
    std::int64_t* const last = words_.data() + n - statement::word_count;
    statement::write(last, hash, counted_, has_problem, rank());
    for (std::size_t k = 0; k < sums.size(); ++k) {
      sums[k].carry();
      std::memcpy(words_.data() + k * exact_sum::word_count, sums[k].words, sizeof sums[k].words);
    }
    if (ranks() > 1) {
      request r = comm->sum(words_.data(), n);
      wait(r, "sum of the step's scalars");
    }
    for (std::size_t k = 0; k < sums.size(); ++k)
      std::memcpy(sums[k].words, words_.data() + k * exact_sum::word_count, sizeof sums[k].words);
    if (said_ == 1)
      all_counted_ = statement::counted(last);
    const std::size_t problems = statement::problems(last);
    if (problems == 1)
      fail(in_ + " failed on rank " + std::to_string(statement::rank_with_problem(last)) +
           ", whose error says why; nothing was changed on any rank");
    if (problems > 1)
      fail(in_ + " failed on " + std::to_string(problems) +
           " ranks, whose errors say why; nothing was changed on any rank");
    if (!statement::agrees(last, hash, ranks()))
      fail("the ranks disagree in " + in_ +
           ": expected every rank to make the same calls with the same options, hyperparameters and frozen tensors; "
           "nothing was changed on any rank");
  }

  std::chrono::milliseconds timeout_;
  std::string in_;
  std::uint64_t hash_ = 0, counted_ = 0, all_counted_ = 0;
  std::size_t said_ = 0;  // how often this call has talked
  std::size_t usual_sums_ = 1;
  std::vector<std::int64_t> words_;
};

/// Takes the steps of a sharded optimizer.
template <class Parts, class Backend>
class sharded_step : public host_step<Parts, Backend> {
  using host = host_step<Parts, Backend>;

 public:
  using host::host;

  step_report step(Parts& p, const step_options& o)
  {
    auto& talk = *host::backend().talk;
    p.refresh();
    talk.count(p.work.counted_elements());
    const norm_of_step norm = host::measure(p, o);
    if (!talk.has_spoken())
      host::share_nothing(p);  // the ranks must agree in every step
    if (!host::decide(p, o, norm))
      return host::report();
    if (host::has_two_phases(o))
      host::compute_moments(p, o);
    host::schedule(p, o, norm);
    const auto& items = p.work.items();
    std::size_t begin = 0;
    for (auto& bucket : talk.buckets) {
      std::size_t end = begin;
      while (end < items.size() && static_cast<const void*>(items[end].parameters) < bucket.end)
        ++end;
      host::compute_weights(p, o, {begin, end});
      begin = end;
      talk.start_gather(bucket);
      talk.progress();
    }
    p.count_steps();
    return host::report();
  }
};

/// A CPU backend whose steps are shared with other ranks.
template <class Backend, class Comm>
struct sharing : Backend {
  step_talk<Comm>* talk;

  sharing(const Backend& backend, step_talk<Comm>& t) : Backend(backend), talk(&t) {}
  void add_up(std::span<exact_sum> sums) { talk->add_up(sums); }
  std::uint64_t counted_elements() const noexcept { return talk->counted_elements(); }

  template <class Parts>
  using engine_type = sharded_step<Parts, sharing>;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
