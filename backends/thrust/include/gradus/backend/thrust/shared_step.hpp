#pragma once
/// \file
/// A step over device memory that several ranks take together, each with a part of the model: the engine of `sharded` on
/// backend::thrust_device.
///
/// A rank measures its part and writes what the others must know to an array of words: exact sums, a flag, and its
/// statement (distributed/agreement.hpp). The communicator adds these arrays up, and every rank then decides from the
/// same words with the launches of launches.hpp. The moments are looked at in the same way, with words of their own. So
/// no scalar of the step passes through the host.
///
/// The numbers of words, and so the calls of the communicator, depend on what the ranks agreed on in earlier calls and not
/// on the options of this step. Ranks whose options differ, or of which one refuses the step, thus make the same calls
/// and find it out from the words.

#include <cstddef>
#include <cstdint>
#include <string>

#include <gradus/backend/thrust/device_step.hpp>
#include <gradus/distributed/agreement.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// What a rank says in a step.
struct rank_words {
  std::uint64_t hash, counted;
  std::size_t rank, ranks;
  bool has_problem;
};

/// The words that ranks add up between the two halves of a launch: exact sums, then other numbers.
/// \tparam Data  device_data of a shared step
template <class Data>
struct words_of_step {
  static constexpr std::size_t of_sum = exact_sum::word_count;

  /// Copies sum s of n, as at(s) returns it, to the words or back.
  template <class Team, class At>
  GRADUS_HOST_DEVICE static void write_sums(const Team& team, std::int64_t* words, std::size_t n, const At& at) noexcept
  {
    team.for_each(std::int64_t(n * of_sum),
                  [&](std::int64_t k) { words[k] = at(std::size_t(k) / of_sum).words[std::size_t(k) % of_sum]; });
  }
  template <class Team, class At>
  GRADUS_HOST_DEVICE static void read_sums(const Team& team, const std::int64_t* words, std::size_t n,
                                           const At& at) noexcept
  {
    team.for_each(std::int64_t(n * of_sum),
                  [&](std::int64_t k) { at(std::size_t(k) / of_sum).words[std::size_t(k) % of_sum] = words[k]; });
  }
};

// ── the first look ───────────────────────────────────────────────────────────────────────────────────────────────────

/// The words of the first look: the squares of each sum of second moments, or of all gradients; whether a gradient is
/// infinite or NaN; and the statement.
template <class Data>
struct first_words : words_of_step<Data> {
  GRADUS_HOST_DEVICE static std::size_t sums(const Data& d) noexcept
  {
    return Data::units * (has_sums(d) ? std::size_t(d.sum_count) : 1);
  }
  GRADUS_HOST_DEVICE static bool has_sums(const Data& d) noexcept { return Data::one_pass && d.sum_count > 1; }
  GRADUS_HOST_DEVICE static exact_sum& sum(const Data& d, std::size_t s) noexcept
  {
    return has_sums(d) ? d.norm(s % Data::units, s / Data::units) : d.norm(s);
  }
  GRADUS_HOST_DEVICE static std::size_t flag(const Data& d) noexcept { return sums(d) * exact_sum::word_count; }
  GRADUS_HOST_DEVICE static std::size_t said(const Data& d) noexcept { return flag(d) + 1; }
  GRADUS_HOST_DEVICE static std::size_t size(const Data& d) noexcept { return said(d) + statement::word_count; }
};

/// Measures this rank's gradients, and writes the words. Clears those of the second look, which follow.
template <class Data>
struct first_measure : first_look<Data> {
  std::int64_t* words;
  rank_words mine;
  std::size_t second;  // the number of words of the second look

  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    using layout = first_words<Data>;
    const Data& d = this->data;
    layout::write_sums(team, words, layout::sums(d), [&](std::size_t s) -> exact_sum& { return layout::sum(d, s); });
    team.for_each(1, [&](std::int64_t) {
      words[layout::flag(d)] = is_set(d.board->has_nonfinite);
      statement::write(words + layout::said(d), mine.hash, mine.counted, mine.has_problem, mine.rank);
    });
    team.for_each(std::int64_t(second), [&](std::int64_t k) { words[layout::size(d) + std::size_t(k)] = 0; });
  }
};

/// Decides from the words of all ranks. It has no pages.
template <class Data>
struct first_verdict : first_look<Data> {
  const std::int64_t* words;
  rank_words mine;

  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t, const Warp&) const noexcept
  {}
  template <class Team>
  GRADUS_HOST_DEVICE void start(const Team&) const noexcept
  {}
  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    using layout = first_words<Data>;
    const Data& d = this->data;
    layout::read_sums(team, words, layout::sums(d), [&](std::size_t s) -> exact_sum& { return layout::sum(d, s); });
    if (layout::has_sums(d))  // the total follows
      team.for_each(std::int64_t(Data::units * layout::of_sum), [&](std::int64_t k) {
        const std::size_t u = std::size_t(k) / layout::of_sum, word = std::size_t(k) % layout::of_sum;
        std::int64_t total = 0;
        for (std::int64_t s = 0; s < d.sum_count; ++s)
          total += d.norm(u, std::size_t(s)).words[word];
        d.norm(u).words[word] = total;
      });
    team.for_each(1, [&](std::int64_t) {
      device_board& b = *d.board;
      const std::int64_t* const said = words + layout::said(d);
      b.has_nonfinite = this->parts.looks && words[layout::flag(d)] != 0;  // else nobody would clear it
      b.is_refused = statement::problems(said) > 0 || !statement::agrees(said, mine.hash, mine.ranks);
      b.elements = double(statement::counted(said));
    });
    first_look<Data>::finish(team);
  }
};

// ── the second look ──────────────────────────────────────────────────────────────────────────────────────────────────

/// The words of the second look: sums of second moments; the terms of the model, or of each tensor of several parts with
/// the number of its elements; and whether an element overflows.
template <class Data>
struct second_words : words_of_step<Data> {
  std::int64_t* words;
  std::size_t moments, cuts;  // how many of them

  static constexpr std::size_t terms_of_model = Data::sums_over_model ? Data::terms : 0;
  static constexpr std::size_t terms_of_cut = Data::sums_over_model ? 0 : Data::terms;

  GRADUS_HOST_DEVICE std::size_t model_terms() const noexcept { return moments * exact_sum::word_count; }
  GRADUS_HOST_DEVICE std::size_t term(std::size_t cut, std::size_t j) const noexcept
  {
    return model_terms() + (terms_of_model + cut * terms_of_cut + j) * exact_sum::word_count;
  }
  GRADUS_HOST_DEVICE std::size_t counted(std::size_t cut) const noexcept { return term(cuts, 0) + cut; }
  GRADUS_HOST_DEVICE std::size_t flag() const noexcept { return counted(cuts); }
  GRADUS_HOST_DEVICE std::size_t size() const noexcept { return flag() + 1; }

  template <class Team>
  GRADUS_HOST_DEVICE void write(const Team& team, const Data& d) const noexcept
  {
    this->write_sums(team, words, moments, [&](std::size_t s) -> exact_sum& { return d.moments(s); });
    if constexpr (terms_of_model > 0)
      this->write_sums(team, words + model_terms(), terms_of_model,
                       [&](std::size_t j) -> exact_sum& { return d.term(0, j); });
    if constexpr (terms_of_cut > 0) {
      for_cut_words(team, d, [&](std::size_t at, exact_sum& sum, std::size_t word) {
        add_atomically(words[at], sum.words[word]);  // several parts may be on one rank
      });
      team.for_each(d.tensor_count, [&](std::int64_t k) {
        const auto& x = d.tensors[k];
        if (x.cut != no_place)
          add_atomically(words[counted(x.cut)], std::int64_t(x.counted));
      });
    }
    team.for_each(1, [&](std::int64_t) { words[flag()] = is_set(d.board->overflows); });
  }
  template <class Team>
  GRADUS_HOST_DEVICE void read(const Team& team, const Data& d) const noexcept
  {
    this->read_sums(team, words, moments, [&](std::size_t s) -> exact_sum& { return d.moments(s); });
    if constexpr (terms_of_model > 0)
      this->read_sums(team, words + model_terms(), terms_of_model,
                      [&](std::size_t j) -> exact_sum& { return d.term(0, j); });
    if constexpr (terms_of_cut > 0) {
      for_cut_words(team, d, [&](std::size_t at, exact_sum& sum, std::size_t word) { sum.words[word] = words[at]; });
      team.for_each(d.tensor_count, [&](std::int64_t k) {
        const auto& x = d.tensors[k];
        if (x.cut != no_place)
          d.own[k].counted = double(words[counted(x.cut)]);
      });
    }
    team.for_each(1, [&](std::int64_t) { d.board->overflows = words[flag()] != 0; });
  }

 private:
  /// Calls f(place, sum, word) for each word of the terms of tensors that have several parts.
  template <class Team, class F>
  GRADUS_HOST_DEVICE void for_cut_words(const Team& team, const Data& d, const F& f) const noexcept
  {
    constexpr std::size_t each = terms_of_cut * exact_sum::word_count;
    team.for_each(d.tensor_count * std::int64_t(each), [&](std::int64_t k) {
      const std::size_t number = std::size_t(k) / each, in = std::size_t(k) % each;
      if (const std::size_t cut = d.tensors[number].cut; cut != no_place)
        f(term(cut, 0) + in, d.term(number, in / exact_sum::word_count), in % exact_sum::word_count);
    });
  }
};

/// Looks at this rank's moments, and writes the words.
template <class Data>
struct second_measure : second_look<Data> {
  second_words<Data> words;

  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    words.write(team, this->data);
  }
};
/// Decides from the words of all ranks. It has no pages.
template <class Data>
struct second_verdict : second_look<Data> {
  second_words<Data> words;

  template <class Warp>
  GRADUS_HOST_DEVICE void operator()(std::int64_t, const Warp&) const noexcept
  {}
  template <class Team>
  GRADUS_HOST_DEVICE void finish(const Team& team) const noexcept
  {
    words.read(team, this->data);
    second_look<Data>::finish(team);
  }
};

// ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// The engine of a device whose steps are shared. \tparam Device  a backend of device_step with `talk` (step_talk) and
/// cut_tensor
template <class Parts, class Device>
class shared_device_step : public device_step<Parts, Device, device_part> {
  using base = device_step<Parts, Device, device_part>;
  using typename base::data;
  template <class X>
  using array = array_memory<X, typename Device::memory_type>;

 public:
  using base::backend, base::base;

  void reserve(std::size_t tensors, std::size_t pages)
  {
    base::reserve(tensors, pages);
    // The first words and the second. At most so many tensors have several parts.
    const std::size_t sums = (data::units + 1) * (data::scheduled ? 2 * tensors : 1),
                      terms = data::terms * (tensors + 1),
                      n = (sums + terms) * exact_sum::word_count + tensors + statement::word_count + 2;
    if (n <= room_)
      return;
    words_ = {n, std::int64_t(), backend().memory()};
    room_ = n;
  }

  /// Enqueues a step; the report is pending.
  step_report step(Parts& p, const step_options& o)
  {
    // After a step that was refused, the device knows what has become of the sums.
    const bool must_settle = base::may_be_unknown() || !is_judged_;
    is_judged_ = false;
    if (must_settle || !base::is_up_to_date(p))
      talk().finish_followed();  // while there is a deadline: copies wait for the device, and so for what it follows
    if (must_settle)
      base::settle(p);  // so that all ranks know the same of the sums
    base::bring_up_to_date(p, o);
    const bool reads_moments = data::one_pass ? base::may_be_unknown() : data::scheduled;
    const step_parts parts = base::parts_of(p, o);
    const data d = base::data_of_step();
    hash_ = talk().hash_of_words(hash_of_sums(p));
    const rank_words mine{hash_, p.work.counted_elements(), talk().rank(), talk().ranks(), talk().refuses};
    words_said_ = first_words<data>::said(d);
    in_ = talk().in();

    const first_look<data> first{d, parts};
    const second_look<data> second{d, parts};
    const second_words<data> words{{},
                                   words_.get() + first_words<data>::size(d),
                                   reads_moments ? std::size_t(d.sum_count) : 0,
                                   talk().cuts.size()};
    backend().launch_warps(base::pages_to_measure(parts), first_measure<data>{first, words_.get(), mine, words.size()});
    talk().add_words(words_.get(), first_words<data>::size(d));
    backend().launch_warps(0, first_verdict<data>{first, words_.get(), mine});

    if (parts.looks_twice)
      backend().launch_warps(base::pages(), second_measure<data>{second, words});
    talk().add_words(words.words, words.size(), parts.looks_twice);
    if (parts.looks_twice)
      backend().launch_warps(0, second_verdict<data>{second, words});

    // The gather of a bucket goes on while the next is updated.
    std::size_t next = 0, begin = 0;
    for (auto& bucket : talk().buckets) {
      while (next < base::tensors().size() && static_cast<const void*>(base::tensors()[next].parameters) < bucket.end)
        ++next;
      const std::size_t end = next < base::tensors().size() ? base::tensors()[next].first_pack : base::packs();
      base::update(begin, end);
      begin = end;
      talk().start_gather(bucket);
    }
    step_report unknown = no_step();
    unknown.pending = true;
    return unknown;
  }

  /// Fails if the ranks disagreed in the last step, or one of them refused it.
  step_report report() const
  {
    if (words_said_ > 0) {
      std::int64_t said[statement::word_count];
      backend().copy(said, words_.get() + words_said_, sizeof said);
      talk().judge(said, hash_, in_);
      is_judged_ = true;
    }
    return base::report();
  }

 private:
  auto& talk() const noexcept { return *backend().talk; }

  /// The sums of second moments must be in the same order on all ranks. Their step counts may be some steps behind.
  static std::uint64_t hash_of_sums(const Parts& p) noexcept
  {
    running_hash h;
    [[maybe_unused]] const second_moment_sums::entry* first = nullptr;
    if constexpr (data::scheduled)
      for (const auto& e : p.sums.entries().all())
        if (const bool is_live = e.members > 0; h.add(is_live), is_live) {
          first = first ? first : &e;
          h.add(e.key).add(e.t - first->t);
        }
    return h.value();
  }

  array<std::int64_t> words_;
  std::size_t room_ = 0, words_said_ = 0;
  std::uint64_t hash_ = 0;
  mutable bool is_judged_ = true;  // whether the ranks agreed in the last step
  std::string in_;                 // the name of the last step
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
