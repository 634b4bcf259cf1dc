#pragma once
/// \file
/// What takes an optimizer's steps: the host's loops, a device's launches, or another that fulfils the concept.

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>

#include <gradus/optimizer/options.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// An engine is made of a backend and keeps what its steps need. The optimizer's parts are lent to it, call by call.
///
/// - `reserve(tensors, pages)` gets all memory for steps over so many; it alone may run out of memory.
/// - `step(parts, options)` takes a step that has been checked, or orders one.
/// - `settle(parts)` brings step counts and sums up to date, if the engine knows more of them than the parts do.
/// - `report()` says what the last step did; it waits for it.
/// - `check_place(…)` refuses memory that the engine cannot reach.
/// - `decode(from, to, n)` widens short parameters to their masters.
/// - `show(span, f, only_read)` calls f on values that the host can read, and write unless they are only to be read.
template <class E, class Parts>
concept step_engine = requires(E& engine, const E& known, Parts& parts, const step_options& options, float* p,
                               std::span<float> values, void (*f)(std::span<float>)) {
  engine.reserve(std::size_t(), std::size_t());
  { engine.step(parts, options) } -> std::same_as<step_report>;
  engine.settle(parts);
  { known.report() } -> std::same_as<step_report>;
  known.check_place(p, p, std::string_view());
  known.decode(p, p, std::size_t());
  known.show(values, f, true);
  known.backend();
};

/// What the report of an engine that has not taken a step says.
inline step_report no_step() noexcept
{
  step_report none;
  none.applied = false;
  return none;
}

/// Takes the steps on this backend, if it has memory of its own; defined beside the backend.
template <class Parts, class Backend>
class device_step;

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
