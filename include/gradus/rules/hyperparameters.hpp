#pragma once
/// \file
/// How a rule or recipe lists its hyperparameters, with names and ranges. Validation, checkpoints and any_optimizer use
/// these lists.

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/error.hpp>
#include <gradus/kernel/math.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// The set of values that a hyperparameter may take. Infinities and NaN are in none of them.
enum class range {
  any_number,            ///< every finite number
  at_least_zero,         ///< x ≥ 0
  above_zero,            ///< x > 0
  at_least_one,          ///< x ≥ 1
  zero_to_below_one,     ///< [0, 1)
  zero_to_one,           ///< [0, 1]
  above_zero_below_one,  ///< (0, 1)
  zero_to_half,          ///< [0, 0.5]
  yes_or_no              ///< 0 or 1
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

/// One hyperparameter of the aggregate A: a `double` or `bool` member with its name and range.
template <class A, class X>
struct field {
  static_assert(std::is_same_v<X, double> || std::is_same_v<X, bool>,
                "gradus: a hyperparameter is a double or a bool.");
  std::string_view name;  ///< its name in checkpoints and on command lines, without a slash
  X A::* member;          ///< the member of A
  range values;           ///< the values that it may take

  /// The member's size.
  static constexpr std::size_t bytes = sizeof(X), alignment = alignof(X);  ///< the member's alignment
  /// Calls f(name, member of a, range).
  template <class B, class Visit>
  constexpr void visit(B& a, const Visit& f) const
  {
    f(name, a.*member, values);
  }
  /// Whether is(name) holds.
  template <class F>
  constexpr bool any_name(const F& is) const
  {
    return is(name);
  }
  using owner = A;  ///< the aggregate
};
/// Deduces A and X from the member; clang++ before 17 needs this guide.
template <class A, class X>
field(std::string_view, X A::*, range) -> field<A, X>;

/// A member of the aggregate A that is a rule itself; its hyperparameters are listed as A's.
template <class A, class X>
struct fields_of {
  X A::* member;  ///< the member of A

  /// From a pointer to the member.
  constexpr explicit fields_of(X A::* m) noexcept : member(m) {}
  /// The member's size.
  static constexpr std::size_t bytes = sizeof(X), alignment = alignof(X);  ///< the member's alignment
  /// Calls f(name, member, range) for each of the inner rule's hyperparameters.
  template <class B, class Visit>
  constexpr void visit(B& a, const Visit& f) const
  {
    X::fields.visit(a.*member, f);
  }
  /// Whether is(name) holds for one of the inner rule's names.
  template <class F>
  constexpr bool any_name(const F& is) const
  {
    return X::fields.any_name(is);
  }
  using owner = A;  ///< the aggregate
};

/// The return type of `fields`: an empty list of hyperparameters, with the members of the other lists.
template <>
struct field_list<> {
  /// The size of the members together.
  static constexpr std::size_t bytes = 0, count = 0;  ///< the number of members
  /// The number of members that belong to a class itself, not to its base.
  template <class>
  static constexpr std::size_t count_of = 0;
  /// Where the members end if they are laid out from `at` on.
  static constexpr std::size_t end(std::size_t at) noexcept { return at; }
  /// Whether a member is listed.
  template <class Member>
  constexpr bool has(Member) const noexcept
  {
    return false;
  }
  /// Whether a member is listed twice.
  constexpr bool has_one_twice() const noexcept { return false; }
  /// Calls f(name, member, range) for each member.
  template <class A, class Visit>
  constexpr void visit(A&, const Visit&) const
  {}
  /// Whether is(name) holds for one of the names.
  template <class F>
  constexpr bool any_name(const F&) const
  {
    return false;
  }
};
/// The return type of `fields`: a list of hyperparameters.
template <class First, class... Rest>
struct field_list<First, Rest...> {
  First first;               ///< a `field` or `fields_of`
  field_list<Rest...> rest;  ///< the others

  /// The size of the listed members together.
  static constexpr std::size_t bytes = First::bytes + field_list<Rest...>::bytes,
                               count = 1 + sizeof...(Rest);  ///< the number of listed members
  /// How many of the listed members belong to A itself, not to its base.
  template <class A>
  static constexpr std::size_t count_of = std::is_same_v<typename First::owner, A> +
                                          field_list<Rest...>::template count_of<A>;
  /// Whether a member is listed.
  template <class Member>
  constexpr bool has(Member m) const noexcept
  {
    if constexpr (std::is_same_v<decltype(first.member), Member>)
      if (first.member == m)
        return true;
    return rest.has(m);
  }
  /// Whether a member is listed twice.
  constexpr bool has_one_twice() const noexcept { return rest.has(first.member) || rest.has_one_twice(); }
  /// The offset at which the members end if they lie in the listed order from `at` on.
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

/// Makes the list of an aggregate's hyperparameters, a static member of the aggregate:
///
///     struct mine {
///       double alpha = 0.5;
///       static constexpr auto fields = gradus::fields(gradus::field{"alpha", &mine::alpha,
///       gradus::range::zero_to_one});
///
/// A member that is a rule is listed as gradus::fields_of(&mine::inner). A rule that derives from another inherits its
/// list.
constexpr field_list<> fields() noexcept { return {}; }
/// Makes the list of an aggregate's hyperparameters. \param first  a `field` or `fields_of`; so are the others
template <class First, class... Rest>
constexpr field_list<First, Rest...> fields(First first, Rest... rest) noexcept
{
  return {first, fields(rest...)};
}

/// The common hyperparameters with their names and ranges: hyper::lr(&adam::lr).
namespace hyper {

/// A name and a range; called with a member, it makes a `field`.
struct named {
  std::string_view name;  ///< the hyperparameter's name
  range values;           ///< the values that it may take
  /// The field of this name and range for a member.
  template <class A, class X>
  constexpr field<A, X> operator()(X A::* member) const noexcept
  {
    return {name, member, values};
  }
};
inline constexpr named lr{"lr", range::at_least_zero};                      ///< α, the learning rate
inline constexpr named momentum{"momentum", range::zero_to_below_one};      ///< μ
inline constexpr named dampening{"dampening", range::zero_to_one};          ///< dampening of the momentum buffer
inline constexpr named nesterov{"nesterov", range::yes_or_no};              ///< Nesterov momentum
inline constexpr named beta0{"beta0", range::at_least_zero};                ///< Adai's β₀
inline constexpr named beta1{"beta1", range::zero_to_below_one};            ///< β₁
inline constexpr named beta2{"beta2", range::zero_to_below_one};            ///< β₂
inline constexpr named eps{"eps", range::at_least_zero};                    ///< keeps a divisor away from 0
inline constexpr named weight_decay{"weight_decay", range::at_least_zero};  ///< λ
inline constexpr named initial_accumulator{"initial_accumulator", range::at_least_zero};  ///< the moments' start value
inline constexpr named final_lr{"final_lr", range::at_least_zero};              ///< AdaBound's final step size
inline constexpr named gamma{"gamma", range::above_zero_below_one};             ///< γ, how fast AdaBound's bounds close
inline constexpr named partial{"partial", range::zero_to_half};                 ///< Padam's p
inline constexpr named beta3{"beta3", range::zero_to_below_one};                ///< β₃
inline constexpr named rho{"rho", range::zero_to_below_one};                    ///< Adadelta's ρ
inline constexpr named lr_decay{"lr_decay", range::at_least_zero};              ///< Adagrad's decay of lr
inline constexpr named centered{"centered", range::yes_or_no};                  ///< RMSprop's choice of v
inline constexpr named momentum_decay{"momentum_decay", range::at_least_zero};  ///< NAdam's warm-up of μ
inline constexpr named clip_exponent{"clip_exponent", range::at_least_zero};    ///< ADOPT's clipping
inline constexpr named t_alpha_beta3{"t_alpha_beta3", range::at_least_zero};    ///< AdEMAMix's warm-up
inline constexpr named warmup_steps{"warmup_steps", range::at_least_zero};      ///< Schedule-Free's warm-up of lr
inline constexpr named weight_power{"r", range::at_least_zero};                 ///< Schedule-Free's weights of steps
inline constexpr named weight_lr_power{"weight_lr_power", range::at_least_zero};            ///< likewise
inline constexpr named decoupled_weight_decay{"decoupled_weight_decay", range::yes_or_no};  ///< RAdam's choice of decay

}  // namespace hyper

namespace detail {

/// Converts to any type.
struct any_member {
  template <class X>
  operator X() const noexcept;
};
template <class A, std::size_t... K>
constexpr bool is_made_of(std::index_sequence<K...>) noexcept
{
  return requires { A{(void(K), any_member())...}; };
}

/// Whether an aggregate lists all its members. A forgotten member shows in the size, unless it is a bool or int that
/// fits into padding; that one shows in the number of initializers that the aggregate takes (a base counts as one).
template <class A>
constexpr bool lists_all() noexcept
{
  if constexpr (!requires { A::fields.bytes; })
    return std::is_empty_v<A>;
  else if constexpr (A::fields.count == 0)
    return std::is_empty_v<A>;
  else if constexpr (A::fields.has_one_twice() ||
                     (sizeof(A) - A::fields.bytes >= alignof(A) && sizeof(A) - A::fields.end(0) >= alignof(A)))
    return false;
  else if constexpr (std::is_aggregate_v<A> && sizeof(A) > A::fields.bytes) {
    constexpr std::size_t own = A::fields.template count_of<A>, with_base = own + (own < A::fields.count);
    return !is_made_of<A>(std::make_index_sequence<with_base + 1>());
  } else
    return true;
}

}  // namespace detail

/// An aggregate whose `fields` lists each of its members, or that has no members.
template <class A>
concept lists_its_fields = detail::lists_all<A>();

/// Calls f(name, member, range) for each hyperparameter that a rule or recipe lists.
template <class A, class F>
constexpr void for_each_hyperparameter(A& a, F&& f)
{
  if constexpr (requires { A::fields.bytes; })
    A::fields.visit(a, f);
}

/// Fails (error.hpp) if a hyperparameter is out of range, or if the aggregate's own `validate()` fails.
template <class A>
void validate(const A& a)
{
  for_each_hyperparameter(a, [](std::string_view name, auto value, range r) { detail::check(name, double(value), r); });
  if constexpr (requires { a.validate(); })
    a.validate();
}

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
