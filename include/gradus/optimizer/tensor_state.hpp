#pragma once
/// \file
/// The state of one tensor: made for a rule, changed to suit another rule, found by name, and masked. Does no arithmetic.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gradus/error.hpp>
#include <gradus/number/block8.hpp>
#include <gradus/optimizer/padding.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// State for n elements, with the rule's initial values. \param had  null, or a rule whose slots are not made
template <class Model>
typename Model::state_memory make_state(const typename Model::rule_type& rule, std::size_t n,
                                        const typename Model::rule_type* had,
                                        const typename Model::memory_source::type& memory)
{
  typename Model::state_memory state;
  for (std::size_t k = 0; k < Model::slots; ++k)
    if (Model::keeps(rule, k) && !(had && Model::keeps(*had, k)))
      state[k] = {n, initial_value(rule, k), Model::slot_list[k], memory};
  return state;
}

/// Gives a tensor the slots of the rule `to`. \param added  the state that `from` does not have, by make_state
template <class Model>
void change_slots(typename Model::tensor& x, const typename Model::rule_type& from, const typename Model::rule_type& to,
                  typename Model::state_memory& added) noexcept
{
  for (std::size_t k = 0; k < Model::slots; ++k)
    if (Model::keeps(from, k) != Model::keeps(to, k))
      x.state[k] = std::move(added[k]);
}

/// One slot's values; or the master weights, as "master", if they and the slots are floats.
template <class Model>
std::span<typename Model::state_type> slot_of(const typename Model::tensor& x, const typename Model::rule_type& rule,
                                              std::string_view slot_name)
{
  std::string names;
  for (std::size_t k = 0; k < Model::slots; ++k) {
    if (!Model::keeps(rule, k))
      continue;
    if (Model::slot_list[k].name == slot_name)
      return {x.state[k].view().values, x.size};
    names += (names.empty() ? "" : " or ") + quote(Model::slot_list[k].name);
  }
  if constexpr (std::is_same_v<typename Model::master_type, float> &&
                std::is_same_v<typename Model::state_type, float>) {
    if (slot_name == "master")
      return {x.master.get(), x.size};
    names += names.empty() ? "\"master\"" : " or \"master\"";
  }
  fail("slot of tensor " + quote(x.name) + " is " + quote(slot_name) + "; expected " +
       (names.empty() ? "none, because the tensor has no state" : names));
}

/// The bytes of a tensor's moments and master weights.
template <class Model>
std::size_t state_bytes(const typename Model::tensor& x) noexcept
{
  std::size_t bytes = Model::masters::bytes(x.size);
  for (const auto& slot : x.state)
    bytes += slot.view() ? slot.bytes(x.size) : 0;
  return bytes;
}

// ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A mask's answers for the n elements of a tensor, 1 or 0 each. \param what  "mask" or "padding mask"
template <class Mask>
std::vector<std::uint8_t> copy_of_mask(const char* what, std::string_view name, std::size_t n, const Mask& mask)
{
  if (mask.size().value_or(n) != n)
    fail("size of the " + std::string(what) + " of tensor " + quote(name) + " is " + std::to_string(*mask.size()) +
         "; expected " + std::to_string(n) + ", the size of its parameters");
  std::vector<std::uint8_t> copy(n);
  for (std::size_t i = 0; i < n; ++i)
    copy[i] = mask(i);
  return copy;
}

/// Fails for a mask of trained elements with 8-bit state.
template <class State>
void check_may_have_mask(std::string_view name)
{
  if (std::is_same_v<State, block8>)
    fail("the mask of tensor " + quote(name) +
         " is given; expected none with 8-bit state, because a block is encoded as a whole; choose a precision with "
         "another state");
}

/// Fails for padding of a tensor that has a mask of trained elements.
inline void check_may_have_padding(std::string_view name, bool is_masked)
{
  if (is_masked)
    fail("tensor " + quote(name) +
         " has a mask of trained elements; expected none with set_padding: let the mask leave out padding");
}

/// Makes a mask that was written from outside consist of 0 and 1, and counts.
template <class Tensor>
void settle_mask(Tensor& x) noexcept
{
  x.uncounted = 0;
  for (std::uint8_t& is_trained : x.trained) {
    is_trained = is_trained != 0;
    x.uncounted += !is_trained;
  }
}

/// Gives a new tensor its mask of trained elements.
template <class Model>
void set_mask(typename Model::tensor& x, std::string_view name, const trained_mask& is_trained)
{
  std::vector<std::uint8_t> mask = copy_of_mask("mask", name, x.size, is_trained);
  check_may_have_mask<typename Model::state_type>(name);
  x.trained = std::move(mask);
  settle_mask(x);
}

/// A copy of a padding mask's answers, made before anything changes, because the mask may throw.
inline std::vector<std::uint8_t> checked_padding(std::string_view name, std::size_t n, bool is_masked,
                                                 const padding_mask& is_padding)
{
  check_may_have_padding(name, is_masked);
  return copy_of_mask("padding mask", name, n, is_padding);
}

/// Sets the state of padding to 0, and counts it. \param mask  1 for padding, an element each
template <class Tensor, class Engine>
void clear_padding(Tensor& x, const std::vector<std::uint8_t>& mask, const Engine& engine)
{
  std::size_t count = 0;
  for (const std::uint8_t is_one : mask)
    count += is_one;
  const auto clear = [&mask]<class X>(std::span<X> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (mask[i])
        values[i] = X{};
  };
  for (const auto& slot : x.state)
    if (slot.view())
      slot.visit("", x.size, [&]<class X>(std::string_view, std::span<X> values) {
        if (values.size() == mask.size())  // not the scales of block8
          engine.show(values, clear, false);
      });
  x.uncounted = count;
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
