#pragma once
/// \file
/// Contiguous ranges of any kind (vector, span, array, C array, Eigen matrix or map, …) as spans, by concept: without
/// <ranges>, which costs more compile time than all of gradus. And the handles of what was added.

#include <array>
#include <cstddef>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include <gradus/error.hpp>

namespace gradus::inline GRADUS_ISA {

/// A parameter group of one optimizer; default-constructed, the default group of any.
class group_handle {
 public:
  group_handle() = default;

 private:
  group_handle(std::uint64_t owner, std::size_t index) : owner_(owner), index_(index) {}
  std::uint64_t owner_ = 0;
  std::size_t index_ = 0;
  template <class, class, class>
  friend class optimizer;
};

/// A tensor of one optimizer.
class tensor_handle {
 public:
  tensor_handle() = default;

 private:
  tensor_handle(std::uint64_t owner, std::size_t index, std::uint64_t generation)
      : owner_(owner), index_(index), generation_(generation)
  {
  }
  std::uint64_t owner_ = 0;
  std::size_t index_ = 0;
  std::uint64_t generation_ = 0;
  template <class, class, class>
  friend class optimizer;
};

namespace detail {

/// The first element of a range; a Backend may know ranges of its own, whose data() is no plain pointer.
template <class Backend, class R>
constexpr auto data(R& range)
  requires(requires { std::data(range); })
{
  if constexpr (requires { Backend::data(range); })
    return Backend::data(range);
  else
    return std::data(range);
}

template <class R, class Pointer, class Backend>
concept contiguous = requires(R& r) {
  { detail::data<Backend>(r) } -> std::convertible_to<Pointer>;
  std::size(r);
};

/// A temporary container, whose elements are gone after the call. A temporary view (a span, an Eigen map) is welcome.
template <class R>
concept temporary_owner = !std::is_reference_v<R> && (requires { typename R::allocator_type; } ||
                                                      requires { std::tuple_size<R>::value; } ||
                                                      requires { requires std::is_same_v<typename R::PlainObject, R>; });

/// The elements of a range. Eigen's blocks and rows have data() and size() too, but may stride over elements.
template <class Element, class Backend, class R>
std::span<Element> as_span(const char* argument, R& range)
{
  if constexpr (requires { range.innerStride() + range.outerStride() + range.innerSize() + range.outerSize(); })
    if (range.innerStride() != 1 || (range.outerSize() > 1 && range.outerStride() != range.innerSize()))
      fail(std::string(argument) + " has inner stride " + std::to_string(range.innerStride()) + " and outer stride " +
           std::to_string(range.outerStride()) + "; expected elements that lie side by side (a whole matrix, or a copy)");
  return {detail::data<Backend>(range), static_cast<std::size_t>(std::size(range))};
}

}  // namespace detail

/// The faces of `add` and `rebind` that take ranges of any kind, over those of Derived that take spans.
///
/// The ranges are viewed, never copied: they must outlive the optimizer or be rebound. Parameters are writable
/// contiguous Parameter; gradients, contiguous Gradient or const Gradient of the same length in other memory. A tensor's name must be new.
/// \throws std::invalid_argument, with nothing added, for null or overlapping memory, lengths that differ, a name used
///         twice, a group of another optimizer
template <class Derived, class Parameter, class Gradient = Parameter, class Backend = void>
class range_front {
 public:
  template <class W, class G>
  tensor_handle add(W&& parameters, G&& gradients)
  {
    return self().add_spans({}, writable<W>(parameters), readable<G>(gradients));
  }
  template <class W, class G>
  tensor_handle add(W&& parameters, G&& gradients, const group_handle& group)
  {
    return self().add_spans({}, writable<W>(parameters), readable<G>(gradients), group);
  }
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients)
  {
    return self().add_spans(checked(name), writable<W>(parameters), readable<G>(gradients));
  }
  template <class W, class G>
  tensor_handle add(std::string_view name, W&& parameters, G&& gradients, const group_handle& group)
  {
    return self().add_spans(checked(name), writable<W>(parameters), readable<G>(gradients), group);
  }

  /// Points a tensor at other memory of the same length; its state stays.
  template <class W, class G>
  void rebind(const tensor_handle& tensor, W&& parameters, G&& gradients)
  {
    self().rebind_spans(tensor, writable<W>(parameters), readable<G>(gradients));
  }

 private:
  Derived& self() noexcept { return static_cast<Derived&>(*this); }

  static std::string_view checked(std::string_view name)
  {
    if (name.empty())
      fail("name is \"\"; expected at least one character, or no name at all");
    return name;
  }
  template <class W>
  static std::span<Parameter> writable(std::remove_reference_t<W>& range)
  {
    static_assert(detail::contiguous<std::remove_reference_t<W>, Parameter*, Backend>,
                  "gradus: parameters must be a writable contiguous range of the optimizer's precision T "
                  "(std::vector<T>, std::span<T>, an Eigen matrix of T, …), not const and not of another type.");
    static_assert(!detail::temporary_owner<W>,
                  "gradus: parameters is a temporary container, gone after this call; pass a variable, or a view of memory "
                  "that stays.");
    return detail::as_span<Parameter, Backend>("parameters", range);
  }
  template <class G>
  static std::span<const Gradient> readable(std::remove_reference_t<G>& range)
  {
    static_assert(detail::contiguous<std::remove_reference_t<G>, const Gradient*, Backend>,
                  "gradus: gradients must be a contiguous range of the optimizer's precision T "
                  "(std::vector<T>, std::span<const T>, an Eigen matrix of T, …), not of another type.");
    static_assert(!detail::temporary_owner<G>,
                  "gradus: gradients is a temporary container, gone after this call; pass a variable, or a view of memory "
                  "that stays.");
    return detail::as_span<const Gradient, Backend>("gradients", range);
  }
};

}  // namespace gradus::inline GRADUS_ISA
