#pragma once
/// \file
/// A step over the parts of a model that one rank has: the phases of host_step, with one all-reduce for all scalars of the
/// step, and the all-gather of each bucket started as soon as its weights are computed.

#include <cstddef>
#include <cstdint>
#include <span>

#include <gradus/distributed/place.hpp>
#include <gradus/distributed/talk.hpp>
#include <gradus/kernel/exact_sum.hpp>
#include <gradus/optimizer/host_step.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

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

/// The engine of steps that are shared: the one that the backend names, or else sharded_step.
template <class Parts, class Backend, class Sharing>
struct shared_engine {
  using type = sharded_step<Parts, Sharing>;
};
template <class Parts, class Backend, class Sharing>
  requires names_shared_engine<Backend, Parts>
struct shared_engine<Parts, Backend, Sharing> {
  using type = typename Backend::template shared_engine_type<Parts, Sharing>;
};

/// A backend whose steps are shared with other ranks.
template <class Backend, class Comm>
struct sharing : Backend {
  using talk_type = step_talk<Comm, memory_place<Backend>>;
  talk_type* talk;

  sharing(const Backend& backend, talk_type& t) : Backend(backend), talk(&t) {}
  void add_up(std::span<exact_sum> sums) { talk->add_up(sums); }
  std::uint64_t counted_elements() const noexcept { return talk->counted_elements(); }
  std::size_t cut_tensor(const void* parameters) const noexcept { return talk->cut_at(parameters); }
  std::span<exact_sum> cut_sums(std::size_t n) { return talk->cut_sums(n); }

  template <class Parts>
  using engine_type = typename shared_engine<Parts, Backend, sharing>::type;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
