#pragma once
/// \file
/// Shows visitors all state that a resumed run needs, and counts visitors so that the optimizer rejects changes
/// meanwhile. Knows no file format.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/optimizer/parts.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The number of visitors that are running. Atomic, because several threads may visit a const optimizer.
class visit_count {
 public:
  visit_count() = default;
  visit_count(visit_count&&) noexcept {}
  bool any() const noexcept { return value_.load(std::memory_order_relaxed) > 0; }

  /// Counts one visitor during its lifetime.
  class visit {
   public:
    explicit visit(visit_count& count) noexcept : count_(count)
    {
      count_.value_.fetch_add(1, std::memory_order_relaxed);
    }
    visit(const visit&) = delete;
    ~visit() { count_.value_.fetch_sub(1, std::memory_order_relaxed); }

   private:
    visit_count& count_;
  };

 private:
  std::atomic<unsigned> value_ = 0;
};

/// During its lifetime, a visitor may write state. Its destructor rebuilds cohorts and sums, even if the visitor threw.
template <class Parts>
class changing_visit {
 public:
  changing_visit(Parts& parts, visit_count& count) noexcept : visit_(count), parts_(parts) { parts_.scatter_sums(); }
  ~changing_visit()
  {
    parts_.settle_masks();
    parts_.gather_sums();
  }

 private:
  visit_count::visit visit_;
  Parts& parts_;
};

/// Shows a visitor the master weights of a tensor that has remainders, as floats: a copy that is written back, or for a
/// visitor with `static constexpr bool takes_masters_in_pieces = true`, `joined_masters`.
template <bool OnlyReads, class Tensor, class Engine, class Visitor>
void show_masters(const Tensor& x, const Engine& engine, Visitor& visit)
{
  using element = std::conditional_t<OnlyReads, const float, float>;
  const joined_masters<Engine, element> joined(engine, x.attached ? x.parameters : x.master.kept(), x.master.get(),
                                               x.size);
  if constexpr (requires { requires Visitor::takes_masters_in_pieces; })
    visit(std::string_view(x.name), std::string_view("master"), joined);
  else {
    std::vector<float> copy(x.size);
    joined.read(0, x.size, copy.data());
    visit(std::string_view(x.name), std::string_view("master"), std::span<element>(copy));
    if constexpr (!OnlyReads)
      joined.write(0, x.size, copy.data());
  }
}

/// See optimizer::visit_state. \tparam Parts  const for visitors that only read
template <class Parts, class Engine, class Visitor>
void visit_state(Parts& parts, const Engine& engine, Visitor& visit)
{
  using model = typename Parts::model;
  constexpr bool only_reads = std::is_const_v<Parts>;
  for (auto& x : parts.table.all()) {
    if (x.name.empty())
      continue;
    const std::string_view name = x.name;
    const auto show = [&]<class X>(std::string_view key, std::span<X> values) {
      using shown = std::span<std::conditional_t<only_reads, const X, X>>;
      if constexpr (requires { requires Visitor::takes_device_memory; })
        visit(name, key, shown(values));
      else
        engine.show(values, [&](std::span<X> readable) { visit(name, key, shown(readable)); }, only_reads);
    };
    const auto show_number = [&](std::string_view key, auto& number) { visit(name, key, std::span(&number, 1)); };
    for (std::size_t k = 0; k < model::slots; ++k)
      if (model::keeps(parts.groups[x.group].rule, k))
        x.state[k].visit(model::slot_list[k].name, x.size, show);
    if (!x.trained.empty())
      visit(name, std::string_view("trained"),
            std::span<std::conditional_t<only_reads, const std::uint8_t, std::uint8_t>>(x.trained));
    if constexpr (model::has_remainders)
      show_masters<only_reads>(x, engine, visit);
    else if constexpr (model::precision_type::has_master)
      show("master", std::span(x.master.get(), x.size));
    if constexpr (only_reads) {
      const std::uint64_t steps = parts.steps_of(x);
      show_number("step", steps);
      if constexpr (model::one_pass) {
        const double sum = parts.sum_of(x);
        show_number("exp_avg_sq_sum", sum);
      }
    } else {
      const std::uint64_t steps = x.t;
      show_number("step", x.t);
      if constexpr (model::one_pass) {
        const double sum = x.second_moment_sum;
        show_number("exp_avg_sq_sum", x.second_moment_sum);
        if (x.t != steps && x.second_moment_sum == sum)
          parts.forget_scattered_sum(x);  // it was the sum of the tensors with the old step count
      }
    }
    if constexpr (model::scalar_count > 0)
      for (std::size_t i = 0; i < model::scalar_count; ++i) {
        const std::string_view key = decltype(Parts::rule_type::first_moment)::scalars[i].name;
        if constexpr (only_reads)
          show_number(key, parts.scalars_of(x)[i]);
        else
          show_number(key, x.scalars[i]);
      }
  }
  if constexpr (model::precision_type::stochastic)
    visit(std::string_view(), std::string_view("seed"), std::span(&parts.seed, 1));
  if constexpr (model::one_pass) {
    std::conditional_t<only_reads, const std::uint64_t, std::uint64_t> of_model = parts.sums.is_of_model();
    visit(std::string_view(), std::string_view("exp_avg_sq_sum_is_of_model"), std::span(&of_model, 1));
    if constexpr (!only_reads)
      parts.sums.set_of_model(of_model != 0);
  }
}

/// See optimizer::visit_tensors. \tparam Parts  const for visitors that only read
template <class Parts, class Visitor>
void visit_tensors(Parts& parts, Visitor& visit)
{
  using parameter = typename Parts::model::parameter_type;
  constexpr bool only_reads = std::is_const_v<Parts>;
  using element = std::conditional_t<only_reads, const parameter, parameter>;
  for (auto& x : parts.table.all()) {
    if (x.name.empty())
      continue;
    std::conditional_t<only_reads, const bool, bool> takes_part = x.attached && !x.is_frozen;
    visit(std::string_view(x.name), std::span<element>(x.parameters, x.attached ? x.size : 0), x.group, takes_part);
    if constexpr (!only_reads) {
      x.is_frozen = !takes_part;
      if (x.is_frozen && x.active)
        parts.forget_sum_of(x);  // which covers this tensor
    }
  }
  if constexpr (!only_reads)
    parts.scatter_sums();
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
