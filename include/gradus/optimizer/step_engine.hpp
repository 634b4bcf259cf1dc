#pragma once
/// \file
/// The contract between an optimizer and the engine that takes its steps: loops on the host (host_step.hpp), launches
/// on a device (backend/thrust/device_step.hpp), or one that a backend of your own names.

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
/// - `on_device` tells whether the state is in memory that only the engine accesses.
/// - `copy(to, from, bytes)` copies to or from the state's memory.
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
  { E::on_device } -> std::convertible_to<bool>;
  known.copy(p, p, std::size_t());
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

/// Whether a recipe works on matrices and the backend has no engine for them.
template <class Recipe, class Backend>
concept is_without_matrices = requires(const Recipe& r) {
  requires decltype(r.rule().first_moment)::works_on_matrices;
  requires !requires(const Backend& b) { b.product; };
};

/// A backend that names the engine of its steps: Backend::engine_type<Parts>.
template <class Backend, class Parts>
concept names_engine = requires { typename Backend::template engine_type<Parts>; };
}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
