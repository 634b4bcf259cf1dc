#pragma once
/// \file
/// How a rank comes by the sums of gradients that it needs: microbatches are added, and buckets exchanged while others are
/// still computed.

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/distributed/layout.hpp>
#include <gradus/distributed/place.hpp>
#include <gradus/distributed/reduction.hpp>
#include <gradus/distributed/talk.hpp>
#include <gradus/error.hpp>
#include <gradus/state/memory.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The gradients of a model on one rank, of type G, and the sums over all ranks of those that the rank steps. A cycle is
/// what happens between two steps.
template <class Comm, class Place, class G>
class gradient_exchange {
 public:
  using sum_type = sum_of<G>;

  gradient_exchange(step_talk<Comm, Place>& talk, gradus::reduction order, std::size_t microbatches)
      : talk_(&talk), order_(order), microbatches_(microbatches)
  {
    if (microbatches == 0)
      fail("microbatches is 0; expected at least 1");
    if (microbatches > 1 && !in_place)
      fail("microbatches is " + std::to_string(microbatches) +
           ", and the gradients have 16 bits; expected 1, because sums of microbatches need float: add them in "
           "arrays of your own");
    if (order == reduction::engine && !in_place)
      fail("reduction is engine, and the gradients have 16 bits, which communicators cannot add; expected "
           "ranks_in_order or tree, which add in float");
  }

  /// \param layout  must outlive the exchange
  void allocate(const page_layout& layout)
  {
    layout_ = &layout;
    const std::size_t n = layout.elements(), buckets = layout.buckets().size(), ranks = layout.ranks();
    gradients_ = {n, G(), talk_->memory.source()};
    if (!in_place)
      sums_ = {layout.of_rank(), sum_type(), talk_->memory.source()};
    levels_.clear();
    std::size_t levels = 0;
    while (microbatches_ >> levels > 1)
      ++levels;
    for (std::size_t k = 0; microbatches_ > 1 && k <= levels; ++k)
      levels_.emplace_back(n, G(), talk_->memory.source());
    if (ranks > 1)
      for (auto& memory : received_)
        memory = {buckets > 0 ? layout.buckets()[0].size() : 0, G(), talk_->memory.source()};
    waiting_.assign(buckets, 0);
    is_ready_.assign(layout.tensors().size(), false);
    running_.reserve(most_running);
  }

  G* gradients() const noexcept { return gradients_.get(); }
  void clear() { gradients_.fill(G()); }

  /// Where the sum of the gradient at a place of this rank's slice is.
  sum_type* sum_at(std::size_t bucket, std::size_t at) const
  {
    if constexpr (in_place)
      return gradients_.get() + at;
    else
      return sums_.get() + layout_->buckets()[bucket].begin / layout_->ranks() + at -
             layout_->slice(bucket, talk_->rank()).begin;
  }

  /// Begins a cycle: no tensor is ready, and no bucket is sent.
  void begin_cycle()
  {
    accumulated_ = 0;
    next_ = layout_->buckets().size();
    for (std::size_t& w : waiting_)
      w = 0;
    for (std::size_t i = 0; i < is_ready_.size(); ++i) {
      is_ready_[i] = false;
      const element_range in = buckets_of(i);
      for (std::size_t b = in.begin; b < in.end; ++b)
        ++waiting_[b];
    }
  }

  /// Says that this rank's gradients of a tensor are complete, and starts the exchange of the buckets that are now.
  void ready(std::size_t tensor, std::string_view name)
  {
    if (microbatches_ > 1)
      fail("ready(" + quote(name) + ") is called with microbatches of " + std::to_string(microbatches_) +
           "; expected accumulate() after each");
    if (is_ready_[tensor])
      fail("ready(" + quote(name) + ") is called twice; expected once before each step");
    is_ready_[tensor] = true;
    const element_range in = buckets_of(tensor);
    for (std::size_t b = in.begin; b < in.end; ++b)
      --waiting_[b];
    run(false);
  }

  /// Ends a microbatch, see sharded::accumulate.
  void accumulate()
  {
    if (accumulated_ == microbatches_)
      fail("accumulate() is called " + std::to_string(accumulated_ + 1) + " times; expected " +
           std::to_string(microbatches_) + ", the microbatches of a step");
    const std::size_t n = layout_->elements();
    std::size_t level = 0;
    for (; accumulated_ >> level & 1; ++level)
      talk_->memory.add_pairwise(levels_[level].get(), gradients_.get(), n);
    if (++accumulated_ == microbatches_) {
      // The sum that has just been made is the smallest, of `level`. The larger ones are added to it, smallest first.
      for (++level; accumulated_ >> level; ++level)
        if (accumulated_ >> level & 1)
          talk_->memory.add_pairwise(levels_[level].get(), gradients_.get(), n);
      return;
    }
    talk_->memory.move(levels_[level].get(), gradients_.get(), n);
    clear();
  }
  /// Whether gradients were accumulated in this cycle.
  bool has_accumulated() const noexcept { return accumulated_ > 0; }
  /// Throws unless all microbatches of the step have come.
  void check_microbatches() const
  {
    if (microbatches_ > 1 && accumulated_ != microbatches_)
      fail("step() comes after " + std::to_string(accumulated_) + " calls of accumulate(); expected " +
           std::to_string(microbatches_) + ", the microbatches of a step");
  }
  /// Exchanges all that is left, and ends the cycle.
  void finish()
  {
    run(true);
    begin_cycle();
  }

 private:
  using request = typename Comm::request;
  template <class X>
  using array = array_memory<X, typename Place::memory_type>;
  static constexpr bool in_place = std::is_same_v<G, sum_type>;
  static constexpr std::size_t most_running = 2;  // exchanges at a time

  /// A bucket's exchange that is running.
  struct running {
    std::size_t bucket;
    request r;
  };

  /// The buckets that a tensor is in.
  element_range buckets_of(std::size_t tensor) const
  {
    const element_range r = layout_->tensors()[tensor];
    if (r.size() == 0)
      return {};
    const std::size_t length = layout_->buckets()[0].size();
    return {r.begin / length, (r.end - 1) / length + 1};
  }

  /// Starts the exchange of buckets, from the last to the first on every rank, in whatever order they become ready: of
  /// those that are, or of all, and then waits for all.
  void run(bool all)
  {
    for (;;) {
      while (!running_.empty() && talk_->comm->test(running_.front().r))
        finish_first(false);
      if (next_ > 0 && (all || waiting_[next_ - 1] == 0) && running_.size() < most_running)
        start(--next_);
      else if (all && !running_.empty())
        finish_first(true);
      else
        break;
    }
  }
  void start(std::size_t b)
  {
    const element_range whole = layout_->buckets()[b], mine = layout_->slice(b, talk_->rank());
    const G* const from = gradients_.get() + whole.begin;
    if (talk_->ranks() == 1)
      return add_up(b, from);
    G* const to = received_[b % most_running].get();
    if constexpr (in_place)
      if (order_ == reduction::engine) {
        running_.push_back({b, talk_->comm->reduce_scatter(from, to, mine.size())});
        return;
      }
    running_.push_back({b, talk_->comm->exchange(from, to, mine.size() * sizeof(G))});
  }
  void finish_first(bool waits)
  {
    if (waits)
      talk_->follow(running_.front().r, "exchange of the gradients");
    const std::size_t b = running_.front().bucket;
    for (std::size_t k = 1; k < running_.size(); ++k)
      running_[k - 1] = std::move(running_[k]);
    running_.pop_back();
    add_up(b, received_[b % most_running].get());
  }
  /// Adds the ranks' pieces of this rank's slice of a bucket.
  void add_up(std::size_t b, const G* pieces)
  {
    const element_range mine = layout_->slice(b, talk_->rank());
    sum_type* const to = sum_at(b, mine.begin);
    if constexpr (in_place)
      if (order_ == reduction::engine || talk_->ranks() == 1) {
        if (to != pieces)
          talk_->memory.move(to, pieces, mine.size());
        return;
      }
    talk_->memory.add_pieces(pieces, talk_->ranks(), mine.size(), order_, to);
  }

  step_talk<Comm, Place>* talk_;
  gradus::reduction order_;
  std::size_t microbatches_;
  const page_layout* layout_ = nullptr;
  array<G> gradients_;
  array<sum_type> sums_;                 // of this rank's slices, if they are of another type
  array<G> received_[most_running];      // the pieces of a bucket
  std::vector<array<G>> levels_;         // sums of 1, 2, 4, … microbatches
  std::vector<std::size_t> waiting_;     // for each bucket, how many of its tensors are not ready
  std::vector<unsigned char> is_ready_;  // by tensor
  std::vector<running> running_;
  std::size_t next_ = 0;  // the buckets from this one on have been sent
  std::size_t accumulated_ = 0;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
