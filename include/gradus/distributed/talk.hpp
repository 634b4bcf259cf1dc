#pragma once
/// \file
/// What a rank says to the others in one collective call, and what it hears from them.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gradus/distributed/agreement.hpp>
#include <gradus/distributed/communicator.hpp>
#include <gradus/error.hpp>
#include <gradus/kernel/exact_sum.hpp>
#include <gradus/optimizer/tables.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// What the engine of a sharded optimizer and the optimizer itself share: the communicator, and what a step says to the
/// other ranks. \tparam Place  a memory_place: where the communicator's memory is
template <class Comm, class Place>
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

  step_talk(Comm& c, Place p, std::chrono::milliseconds timeout) : comm(&c), memory(std::move(p)), timeout_(timeout) {}

  /// The memory of a tensor that has several parts, which may be on several ranks.
  struct cut {
    const void *begin, *end;
  };

  Comm* comm;
  Place memory;
  bool refuses = false;  // whether this rank takes part in a device's step only to refuse it
  std::vector<bucket> buckets;
  std::vector<cut> cuts;  // in the order of memory, the same on all ranks

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

  /// Makes room for as many sums as a step adds up at a time, n of them for each tensor that has several parts.
  void reserve(std::size_t sums, std::size_t n)
  {
    cut_sums_.reserve(n * cuts.size());
    const std::size_t most = sums > n * cuts.size() ? sums : n * cuts.size();
    words_.reserve(most * exact_sum::word_count + statement::word_count);
  }
  /// The index of the tensor of several parts that is in this place, or no_place.
  std::size_t cut_at(const void* place) const noexcept
  {
    const std::less<const void*> is_before;
    std::size_t low = 0, high = cuts.size();  // the first that ends after the place
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (is_before(place, cuts[middle].end))
        high = middle;
      else
        low = middle + 1;
    }
    return low < cuts.size() && !is_before(place, cuts[low].begin) ? low : no_place;
  }
  /// n sums of 0 for each tensor that has several parts.
  std::span<exact_sum> cut_sums(std::size_t n)
  {
    cut_sums_.assign(n * cuts.size(), exact_sum());
    return cut_sums_;
  }

  /// Waits for an operation.
  void wait(request& r, const char* what) { wait_for(*comm, r, timeout_, in_, what); }
  /// Makes what follows on the device wait for an operation, or waits for it.
  /// \param is_read  false if the device needs no result of it
  void follow(request& r, const char* what, [[maybe_unused]] bool is_read = true)
  {
    if constexpr (orders_device_work<Comm>) {
      if (is_read)
        comm->follow(r);
      followed_.push_back({r, what});
    } else
      wait(r, what);
  }

  // Operations on host memory, which wait.
  void sum(std::int64_t* words, std::size_t n, const char* what)
  {
    memory.lend(words, n * sizeof *words, [&](void* lent) {
      request r = comm->sum(static_cast<std::int64_t*>(lent), n);
      wait(r, what);
    });
  }
  void broadcast(void* bytes, std::size_t n, std::size_t root, const char* what)
  {
    memory.lend(bytes, n, [&](void* lent) {
      request r = comm->broadcast(lent, n, root);
      wait(r, what);
    });
  }
  void gather(void* all, std::size_t bytes, const char* what)
  {
    memory.lend(all, bytes * ranks(), [&](void* lent) {
      request r = comm->all_gather(lent, bytes);
      wait(r, what);
    });
  }

  // A step on a device says what it has to say by words in device memory (backend/thrust/shared_step.hpp).

  /// Makes room for as many operations as a step on a device has.
  void reserve_operations(std::size_t n)
  {
    if constexpr (orders_device_work<Comm>)
      followed_.reserve(n);
  }
  /// What all ranks must agree on in this step. \param more  of what only the engine knows
  std::uint64_t hash_of_words(std::uint64_t more) const noexcept { return running_hash().add(hash_).add(more).value(); }
  /// Adds up words over all ranks, in the order of the device's work.
  void add_words(std::int64_t* words, std::size_t n, bool is_read = true)
  {
    if (ranks() == 1)
      return;
    request r = comm->sum(words, n);
    follow(r, scalars, is_read);
  }

  /// Adds sums over all ranks, and compares what the ranks believe.
  void add_up(std::span<exact_sum> sums) { talk(sums, false); }

  /// Agrees without sums. A rank that had a problem says so, and all ranks then fail.
  /// \param mine  the problem of this rank, or ""
  void agree(const std::string& mine) { talk({}, !mine.empty()); }
  /// Takes part in the talk of a step that this rank has to refuse, so that no other rank waits for it or goes on.
  void refuse_step()
  {
    std::vector<exact_sum> none(usual_sums_);
    talk(none, true);
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
  /// Waits for operations that only the device has followed so far.
  void finish_followed()
  {
    for (followed& f : followed_)
      wait(f.r, f.what);
    followed_.clear();
  }
  void finish_gathers()
  {
    finish_followed();
    for (bucket& b : buckets)
      if (b.is_running) {
        wait(b.gather, "all-gather of the parameters");
        b.is_running = false;
      }
  }

 private:
  void talk(std::span<exact_sum> sums, bool has_problem)
  {
    if (!sums.empty() && said_ == 0 && sums.size() != usual_sums_) {
      // Do all ranks have another number of sums? This one may be alone with it, and sums of different lengths do not meet.
      std::vector<exact_sum> none(usual_sums_);
      talk(none, has_problem);
      usual_sums_ = sums.size();
    }
    const std::uint64_t hash = running_hash().add(hash_).add(std::uint64_t(said_++)).value();
    const std::size_t n = sums.size() * exact_sum::word_count + statement::word_count;
    words_.resize(n);
    std::int64_t* const last = words_.data() + n - statement::word_count;
    statement::write(last, hash, counted_, has_problem, rank());
    for (std::size_t k = 0; k < sums.size(); ++k) {
      sums[k].carry();
      std::memcpy(words_.data() + k * exact_sum::word_count, sums[k].words, sizeof sums[k].words);
    }
    if (ranks() > 1)
      sum(words_.data(), n, scalars);
    for (std::size_t k = 0; k < sums.size(); ++k)
      std::memcpy(sums[k].words, words_.data() + k * exact_sum::word_count, sizeof sums[k].words);
    if (said_ == 1)
      all_counted_ = statement::counted(last);
    judge(last, hash, in_);
  }

 public:
  /// Fails on all ranks if one has a problem or the ranks disagree. \param last  the sum of their statements
  void judge(const std::int64_t* last, std::uint64_t hash, const std::string& in) const
  {
    const std::size_t problems = statement::problems(last);
    if (problems == 1)
      fail(in + " failed on rank " + std::to_string(statement::rank_with_problem(last)) +
           ", whose error says why; nothing was changed on any rank");
    if (problems > 1)
      fail(in + " failed on " + std::to_string(problems) +
           " ranks, whose errors say why; nothing was changed on any rank");
    if (!statement::agrees(last, hash, ranks()))
      fail("the ranks disagree in " + in +
           ": expected every rank to make the same calls with the same options, hyperparameters and frozen tensors; "
           "nothing was changed on any rank");
  }

 private:
  static constexpr const char* scalars = "sum of the step's scalars";
  /// An operation that the device waits for, and the host later.
  struct followed {
    request r;
    const char* what;
  };

  std::vector<followed> followed_;
  std::chrono::milliseconds timeout_;
  std::string in_;
  std::uint64_t hash_ = 0, counted_ = 0, all_counted_ = 0;
  std::size_t said_ = 0;        // how often this call has talked
  std::size_t usual_sums_ = 1;  // that a step adds up at first
  std::vector<std::int64_t> words_;
  std::vector<exact_sum> cut_sums_;
};

/// Fails on all ranks if they were given different lists of tensors, or none, or disagree on anything else that is hashed;
/// says where the lists differ first.
/// \param hash      of the list and of all that ranks must agree on
/// \param hashes    of each tensor
/// \param describe  describe(i) → tensor i in words
template <class Comm, class Place, class Describe>
void agree_on_list(step_talk<Comm, Place>& talk, std::uint64_t hash, const std::vector<std::uint64_t>& hashes,
                   const Describe& describe)
{
  const std::size_t ranks = talk.ranks();
  if (ranks == 1) {
    if (hashes.empty())
      fail("commit() has no tensors; expected at least one add() before it");
    return;
  }
  const char* const purpose = "comparison of the lists";
  std::int64_t words[statement::word_count];
  statement::write(words, hash, 0, hashes.empty(), talk.rank());
  talk.sum(words, statement::word_count, purpose);
  if (statement::problems(words) > 0)
    fail("commit() has no tensors on " + std::to_string(statement::problems(words)) +
         " ranks; expected at least one add() before it on every rank");
  if (statement::agrees(words, hash, ranks))
    return;
  // Every rank looks for its first tensor that is not rank 0's, and all hear of the first of these.
  const auto broadcast = [&](void* bytes, std::size_t n) { talk.broadcast(bytes, n, 0, purpose); };
  std::uint64_t count = hashes.size();
  broadcast(&count, sizeof count);
  std::vector<std::uint64_t> of_rank_0(std::size_t(count), 0);
  if (talk.rank() == 0)
    of_rank_0 = hashes;
  if (count > 0)
    broadcast(of_rank_0.data(), of_rank_0.size() * sizeof of_rank_0[0]);
  std::uint64_t first = 0;
  while (first < count && first < hashes.size() && hashes[std::size_t(first)] == of_rank_0[std::size_t(first)])
    ++first;
  std::vector<std::uint64_t> firsts(2 * ranks);
  firsts[2 * talk.rank()] = first;
  firsts[2 * talk.rank() + 1] = hashes.size();
  talk.gather(firsts.data(), 2 * sizeof firsts[0], purpose);
  std::size_t other = 0;
  for (std::size_t k = 1; k < ranks; ++k)
    if ((firsts[2 * k] < count || firsts[2 * k + 1] != count) && (other == 0 || firsts[2 * k] < firsts[2 * other]))
      other = k;
  if (other == 0)
    fail("the ranks have the same tensors in commit(), and different hyperparameters, options, masks or frozen "
         "tensors; expected the same on every rank");
  const std::uint64_t at = firsts[2 * other];
  std::string text = at < hashes.size() ? describe(std::size_t(at)) : "missing";
  std::uint64_t length = text.size();
  broadcast(&length, sizeof length);
  text.resize(std::size_t(length));
  broadcast(text.data(), text.size());
  fail("the ranks' lists differ in commit(): tensor " + std::to_string(at) + " is " + text +
       " on rank 0, and another, or in another group, on rank " + std::to_string(other) +
       "; expected every rank to add the same tensors in the same order");
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
