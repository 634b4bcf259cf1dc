#pragma once
/// \file
/// How a rule or recipe lists its hyperparameters: by name, with their ranges. What validation checks, checkpoints keep and
/// a choice by name knows is what is listed.

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/error.hpp>
#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The set of values that a hyperparameter may take.
enum class range {
  any_number,
  at_least_zero,
  above_zero,
  at_least_one,
  zero_to_below_one,
  zero_to_one,
  above_zero_below_one,
  zero_to_half,
  yes_or_no
};

namespace detail {

inline const char* expectation(range r) noexcept
{
  switch (r) {
  case range::any_number: return "a finite number";
  case range::at_least_zero: return "a finite number >= 0";
  case range::above_zero: return "a finite number > 0";
  case range::at_least_one: return "a finite number >= 1";
  case range::zero_to_below_one: return "a number in [0, 1)";
  case range::zero_to_one: return "a number in [0, 1]";
  case range::above_zero_below_one: return "a number in (0, 1)";
  case range::zero_to_half: return "a number in [0, 0.5]";
  case range::yes_or_no: return "0 or 1";
  }
  return "";
}

inline bool contains(range r, double x) noexcept
{
  if (!is_finite(x))
    return false;
  switch (r) {
  case range::any_number: return true;
  case range::at_least_zero: return x >= 0;
  case range::above_zero: return x > 0;
  case range::at_least_one: return x >= 1;
  case range::zero_to_below_one: return x >= 0 && x < 1;
  case range::zero_to_one: return x >= 0 && x <= 1;
  case range::above_zero_below_one: return x > 0 && x < 1;
  case range::zero_to_half: return x >= 0 && x <= 0.5;
  case range::yes_or_no: return x == 0 || x == 1;
  }
  return false;
}

inline void check(std::string_view name, double value, range r)
{
  if (!contains(r, value))
    fail(std::string(name) + " is " + show(value) + "; expected " + expectation(r));
}

}  // namespace detail

template <class... F>
struct field_list;

/// One hyperparameter of the aggregate A: a `double` or `bool` member, its name in checkpoints and command lines (without a
/// slash), and the values that it may take.
template <class A, class X>
struct field {
  static_assert(std::is_same_v<X, double> || std::is_same_v<X, bool>, "gradus: a hyperparameter is a double or a bool.");
  std::string_view name;
  X A::*member;
  range values;

  static constexpr std::size_t bytes = sizeof(X), alignment = alignof(X);
  template <class B, class Visit>
  constexpr void visit(B& a, const Visit& f) const
  {
    f(name, a.*member, values);
  }
  template <class F>
  constexpr bool any_name(const F& is) const
  {
    return is(name);
  }
  using owner = A;
};
template <class A, class X>
field(std::string_view, X A::*, range) -> field<A, X>;  // which clang++ before 17 does not find by itself

/// A member that is a rule itself: what it lists is listed.
template <class A, class X>
struct fields_of {
  X A::*member;

  constexpr explicit fields_of(X A::*m) noexcept : member(m) {}
  static constexpr std::size_t bytes = sizeof(X), alignment = alignof(X);
  template <class B, class Visit>
  constexpr void visit(B& a, const Visit& f) const
  {
    X::fields.visit(a.*member, f);
  }
  template <class F>
  constexpr bool any_name(const F& is) const
  {
    return X::fields.any_name(is);
  }
  using owner = A;
};

/// What `fields` makes.
template <>
struct field_list<> {
  static constexpr std::size_t bytes = 0, count = 0;
  template <class>
  static constexpr std::size_t count_of = 0;
  static constexpr std::size_t end(std::size_t at) noexcept { return at; }
  template <class Member>
  constexpr bool has(Member) const noexcept
  {
    return false;
  }
  constexpr bool has_one_twice() const noexcept { return false; }
  template <class A, class Visit>
  constexpr void visit(A&, const Visit&) const
  {
  }
  template <class F>
  constexpr bool any_name(const F&) const
  {
    return false;
  }
};
template <class First, class... Rest>
struct field_list<First, Rest...> {
  First first;
  field_list<Rest...> rest;

  static constexpr std::size_t bytes = First::bytes + field_list<Rest...>::bytes, count = 1 + sizeof...(Rest);
  /// How many of them are members of A itself, not of its base.
  template <class A>
  static constexpr std::size_t count_of = std::is_same_v<typename First::owner, A> + field_list<Rest...>::template count_of<A>;
  template <class Member>
  constexpr bool has(Member m) const noexcept
  {
    if constexpr (std::is_same_v<decltype(first.member), Member>)
      if (first.member == m)
        return true;
    return rest.has(m);
  }
  constexpr bool has_one_twice() const noexcept { return rest.has(first.member) || rest.has_one_twice(); }
  /// Where members that stand as they are listed end, from an offset on.
  static constexpr std::size_t end(std::size_t at) noexcept
  {
    return field_list<Rest...>::end((at + First::alignment - 1) / First::alignment * First::alignment + First::bytes);
  }
  /// Calls f(name, member of a, range) for each.
  template <class B, class Visit>
  constexpr void visit(B& a, const Visit& f) const
  {
    first.visit(a, f);
    rest.visit(a, f);
  }
  /// Whether is(name) holds for one of the names.
  template <class F>
  constexpr bool any_name(const F& is) const
  {
    return first.any_name(is) || rest.any_name(is);
  }
};

/// The list of an aggregate's hyperparameters, which it has as a member:
///
///     struct mine {
///       double alpha = 0.5;
///       static constexpr auto fields = gradus::fields(gradus::field{"alpha", &mine::alpha, gradus::range::zero_to_one});
///
/// A member that is a rule is listed as gradus::fields_of(&mine::inner); a rule that derives from another has its list.
constexpr field_list<> fields() noexcept { return {}; }
template <class First, class... Rest>
constexpr field_list<First, Rest...> fields(First first, Rest... rest) noexcept
{
  return {first, fields(rest...)};
}

/// The hyperparameters that several rules and recipes have, each with one name and range: hyper::lr(&adam::lr).
namespace hyper {

struct named {
  std::string_view name;
  range values;
  template <class A, class X>
  constexpr field<A, X> operator()(X A::*member) const noexcept
  {
    return {name, member, values};
  }
};
inline constexpr named lr{"lr", range::at_least_zero};
inline constexpr named momentum{"momentum", range::zero_to_below_one};
inline constexpr named dampening{"dampening", range::zero_to_one};
inline constexpr named nesterov{"nesterov", range::yes_or_no};
inline constexpr named beta1{"beta1", range::zero_to_below_one};
inline constexpr named beta2{"beta2", range::zero_to_below_one};
inline constexpr named eps{"eps", range::at_least_zero};
inline constexpr named weight_decay{"weight_decay", range::at_least_zero};
inline constexpr named initial_accumulator{"initial_accumulator", range::at_least_zero};
inline constexpr named final_lr{"final_lr", range::at_least_zero};
inline constexpr named gamma{"gamma", range::above_zero_below_one};
inline constexpr named partial{"partial", range::zero_to_half};
inline constexpr named decoupled_weight_decay{"decoupled_weight_decay", range::yes_or_no};

}  // namespace hyper

namespace detail {

/// What converts to any member.
struct any_member {
  template <class X>
  operator X() const noexcept;
};
template <class A, std::size_t... K>
constexpr bool is_made_of(std::index_sequence<K...>) noexcept
{
  return requires { A{(void(K), any_member())...}; };
}

/// Whether an aggregate lists all that it is made of. Sizes show what is forgotten, but for a bool or int where padding would
/// be; that is shown by how many initializers the aggregate takes, a base being one.
template <class A>
constexpr bool lists_all() noexcept
{
  if constexpr (!requires { A::fields.bytes; })
    return std::is_empty_v<A>;
  else if constexpr (A::fields.count == 0)
    return std::is_empty_v<A>;
  else if constexpr (A::fields.has_one_twice() || (sizeof(A) - A::fields.bytes >= alignof(A) && sizeof(A) - A::fields.end(0) >= alignof(A)))
    return false;
  else if constexpr (std::is_aggregate_v<A> && sizeof(A) > A::fields.bytes) {
    constexpr std::size_t own = A::fields.template count_of<A>, with_base = own + (own < A::fields.count);
    return !is_made_of<A>(std::make_index_sequence<with_base + 1>());
  } else
    return true;
}

}  // namespace detail

/// An aggregate whose `fields` has each of its members, or that has none.
template <class A>
concept lists_its_fields = detail::lists_all<A>();

/// Calls f(name, field, range) for every hyperparameter that an aggregate (a rule or a recipe) lists.
template <class A, class F>
constexpr void for_each_hyperparameter(A& a, F&& f)
{
  if constexpr (requires { A::fields.bytes; })
    A::fields.visit(a, f);
}

/// Refuses an aggregate whose hyperparameters are out of range, or whose own `validate()` objects.
template <class A>
void validate(const A& a)
{
  for_each_hyperparameter(a, [](std::string_view name, auto value, range r) { detail::check(name, double(value), r); });
  if constexpr (requires { a.validate(); })
    a.validate();
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
