#pragma once
/// \file
/// The contract between an optimizer and the engine that takes its steps: loops on the host (host_step.hpp), launches
/// on a device (backend/thrust/device_step.hpp), or your own.

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>

#include <gradus/optimizer/options.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// An engine is constructed from a backend and owns the memory that its steps need. It does not own the optimizer's
/// parts, which each call passes to it.
///
/// - `reserve(tensors, pages)` allocates all memory for steps over so many; nothing else may run out of memory.
/// - `step(parts, options)` takes or enqueues a step; the options have been checked.
/// - `settle(parts)` updates the parts' step counts and sums if the engine has newer ones; it waits for a device.
/// - `report()` returns the report of the last step; it waits for a device.
/// - `check_place(parameters, gradients, name)` fails for memory that the engine cannot access.
/// - `decode(from, to, n)` converts 16-bit parameters to their float master weights.
/// - `show(span, f, only_read)` calls f with values in host memory; unless only_read, f may change them.
/// - `backend()` returns the backend.
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

/// The report before the first step.
inline step_report no_step() noexcept
{
  step_report none;
  none.applied = false;
  return none;
}

/// The engine of a backend with its own memory; the backend's header defines it.
template <class Parts, class Backend>
class device_step;

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
