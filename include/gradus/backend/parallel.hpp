#pragma once
/// \file
/// Any CPU backend on several threads: `parallel` combines it with an executor.
///
///     #include <gradus/executor/thread_pool.hpp>
///     #include <gradus/gradus.hpp>
///     gradus::optimizer opt(gradus::adamw{}, gradus::backend::parallel(gradus::default_backend{},
///     gradus::executor::thread_pool(8)));
///
/// An executor has one member, `run(n, work)`. It calls work(k) once for each k in [0, n), in any order, on any
/// threads, and returns when all calls have returned. `work` is small, copyable and never throws. Steps give the same
/// bits for every executor and thread count. Steps of fewer than 262144 parameters do not use the executor, and of fewer
/// than 32768 if its threads are awake, unless a `division` says otherwise.

#include <concepts>
#include <cstddef>
#include <utility>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Executors: how a backend's work is spread over threads.
namespace executor {

/// The argument of an executor's `run`: a reference to the work, valid until `run` returns.
class work {
 public:
  /// Refers to f, which must outlive this object.
  template <class F>
  explicit work(const F& f) noexcept
      : self_(&f), call_([](const void* self, std::size_t k) noexcept { (*static_cast<const F*>(self))(k); })
  {}
  /// Runs piece k.
  void operator()(std::size_t k) const noexcept { call_(self_, k); }

 private:
  const void* self_;
  void (*call_)(const void*, std::size_t) noexcept;
};

/// The executor that runs one piece after another on the calling thread.
struct serial {
  /// Calls f(0), …, f(n−1).
  void run(std::size_t n, work f) const noexcept
  {
    for (std::size_t k = 0; k < n; ++k)
      f(k);
  }
};

}  // namespace executor

/// An executor: has `run(n, work)`, as executor::serial, thread_pool, openmp, tbb, or your own.
template <class E>
concept runs_work = requires(E e, executor::work w) { e.run(std::size_t(), w); };

/// An executor that knows whether its threads would start without delay, such as executor::thread_pool.
template <class E>
concept tells_awake = requires(const E& e) {
  { e.is_awake() } -> std::same_as<bool>;
};

namespace backend {

/// How a step is divided into pieces of work for an executor. Changes speed only, and no bits.
struct division {
  /// The number of elements below which a step does not use the executor; an eighth of it if its threads are awake.
  std::size_t from = std::size_t(1) << 18;
  std::size_t piece = std::size_t(1) << 14;  ///< the least number of elements in a piece
  std::size_t pieces = 256;                  ///< the most pieces in a step
};

/// A CPU backend whose steps run on an executor's threads.
/// \tparam Cpu       backend::simd, backend::scalar or backend::dispatch
/// \tparam Executor  executor::thread_pool, executor::openmp, executor::tbb, or your own
template <class Cpu, class Executor>
struct parallel : Cpu {
  static_assert(runs_work<Executor>,
                "gradus: the executor of backend::parallel has no run(std::size_t n, gradus::executor::work) "
                "const, which calls work(k) for each k below n and returns when all have returned.");
  Executor executor;           ///< runs the pieces of each step
  backend::division division;  ///< into these pieces

  /// From a backend and an executor, both copied or moved in.
  explicit parallel(Cpu cpu = Cpu(), Executor e = Executor(), backend::division d = {})
      : Cpu(std::move(cpu)), executor(std::move(e)), division(d)
  {}

  /// The number of elements from which on a step of n uses the executor now.
  std::size_t used_from(std::size_t n) const noexcept
  {
    if constexpr (tells_awake<Executor>)
      if (n >= division.from / 8 && n < division.from && executor.is_awake())
        return division.from / 8;
    return division.from;
  }
  /// Calls f(k) for each k below n, on the executor.
  template <class F>
  void for_pieces(std::size_t n, const F& f) noexcept
  {
    executor.run(n, executor::work(f));
  }
};

}  // namespace backend
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
