#pragma once
/// \file
/// A step with rules that work on matrices: between the moments and the weights of a matrix, its direction is made
/// orthogonal. All else is host_step's.

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include <gradus/kernel/exact_sum.hpp>
#include <gradus/kernel/reduce.hpp>
#include <gradus/muon/newton_schulz.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/optimizer/host_step.hpp>
#include <gradus/optimizer/sweep.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The engine of backend::with_product.
template <class Parts, class Backend>
class muon_step : public host_step<Parts, Backend> {
  using host = host_step<Parts, Backend>;
  using model = typename Parts::model;
  using item = typename model::work_item;
  using value_type = typename model::value_type;
  static_assert(
      std::is_same_v<typename model::gradient_type, value_type> && model::keeps_exactly,
      "gradus: a recipe that works on matrices needs gradients and moments of the arithmetic's type (float, or "
      "double); the weights may have 16 bits.");
  static_assert(
      !Parts::rule_type::scheduled,
      "gradus: a recipe that works on matrices has no second moment of the whole model, which a scheduled decay "
      "needs; take decay::decoupled.");
  static_assert(
      !Parts::rule_type::sums,
      "gradus: a recipe that works on matrices has no sums over tensors; take step_size::constant or adaptive.");
  static_assert(
      !requires(const decltype(Parts::rule_type::decay)& d) {
        d.template prepare<double>(step_scalars{}).gradient(1.0, 1.0);
      }, "gradus: a recipe that works on matrices makes the gradient orthogonal, which L2 would change again; take "
         "decay::decoupled.");
  static_assert(
      !reads_direction<decltype(Parts::rule_type::second_moment)>,
      "gradus: a recipe that works on matrices has its direction after all moments, and this second moment is "
      "computed from it; take second_moment::none or ema.");

 public:
  using host::host;

  /// Makes room for a matrix in a group with this rule.
  void reserve_matrix(const typename Parts::rule_type& rule, const matrix_extents& m, std::string_view name)
  {
    if (!rule.first_moment.orthogonal)
      return;
    const std::size_t small = m.rows < m.columns ? m.rows : m.columns;
    if constexpr (requires { decltype(host::backend().product)::most; })
      if (const std::size_t large = m.rows + m.columns - small; large > decltype(host::backend().product)::most)
        fail("shape of tensor " + quote(name) + " has " + std::to_string(large) +
             " rows or columns; expected at most " + std::to_string(decltype(host::backend().product)::most) +
             ", which the matrix product can take");
    memory_.reserve(m.rows * m.columns, small);
  }

  step_report step(Parts& p, const step_options& o)
  {
    p.refresh();
    const auto& items = p.work.items();
    for (const item& x : items)
      if (is_matrix(p, x))
        check(x, p);
    if (!host::decide(p, o, host::measure(p, o)))
      return host::report();
    std::size_t begin = 0;
    for (std::size_t i = 0; i < items.size(); ++i)
      if (is_matrix(p, items[i])) {
        host::compute_weights(p, o, {begin, i});
        update(p, o, i);
        begin = i + 1;
      }
    host::compute_weights(p, o, {begin, items.size()});
    p.count_steps();
    return host::report();
  }

 private:
  static const auto& rule_of(const Parts& p, const item& x) noexcept
  {
    return p.groups[p.cohorts[x.cohort].key].rule.first_moment;
  }
  static bool is_matrix(const Parts& p, const item& x) noexcept { return rule_of(p, x).orthogonal; }
  static void check(const item& x, const Parts& p)
  {
    if (x.extents.rows != 0 && !x.trained)
      return;
    std::string name;
    for (const auto& t : p.table.all())
      if (t.active && t.parameters == x.parameters && t.size == x.size)
        name = quote(t.name);
    if (x.trained)
      fail("tensor " + name +
           " has a mask and is in a group with orthogonal = 1; expected no mask, because its direction "
           "depends on all elements");
    fail("tensor " + name +
         " has no shape and is in a group with orthogonal = 1; expected set_shape(tensor, shape) before "
         "the step, or a group with orthogonal = 0 for what is not a matrix");
  }

  void update(const Parts& p, const step_options& o, std::size_t i)
  {
    const item& x = p.work.items()[i];
    const Backend& backend = host::backend();
    const auto& rule = rule_of(p, x);
    const auto& prepared = p.cohorts[x.cohort].prepared;
    const matrix_extents in_memory = x.extents.by_rows();
    // The iteration works on the smaller side.
    const bool turns = in_memory.rows > in_memory.columns;
    const std::size_t rows = turns ? in_memory.columns : in_memory.rows, columns = x.size / rows;
    const auto place = [=](std::size_t k) { return turns ? k % rows * columns + k / rows : k; };

    value_type* u = memory_.x.get();
    host::for_ranges(p, o, {i, i + 1}, [&](const item& y, std::size_t begin, std::size_t end) noexcept {
      sweep<pass::moments, model>(backend, prepared, y, 0, begin, end);
      for (std::size_t k = begin; k < end; ++k)
        u[place(k)] = prepared.first_moment
                          .ahead(number<value_type>(y.state[0].values[k]),
                                 number<value_type>(product(prepared.grad_scale, y.gradients[k])))
                          .x;
    });
    normalize(u, x.size, rule.eps);
    newton_schulz(backend.product, rows, columns, std::size_t(rule.ns_steps), memory_);

    u = memory_.x.get();
    if (turns) {
      for (std::size_t k = 0; k < x.size; ++k)
        memory_.y.get()[k] = u[place(k)];
      u = memory_.y.get();
    }
    item directed = x;
    directed.gradients = u;
    auto along = prepared;
    along.grad_scale = 1;
    step_scalars k = p.cohorts[x.cohort].scalars;
    k.lr = double(value_type(k.lr));  // rounded before the factor, as in a step without it
    const double factor = rule.factor(double(x.extents.rows), double(x.extents.columns));
    prepare_with_factors(along, p.groups[p.cohorts[x.cohort].key].rule, k, {.step = factor});
    along.decay = prepared.decay;
    host::for_ranges(p, o, {i, i + 1}, [&](const item&, std::size_t begin, std::size_t end) noexcept {
      sweep<pass::weights, model>(backend, along, directed, host::noise_of(p, directed), begin, end);
    });
  }

  /// u/max(‖u‖, eps).
  void normalize(value_type* u, std::size_t n, double eps) const noexcept
  {
    const auto sum_of_squares = [&] {
      exact_sum squares;
      add_pages<square_term>(host::backend(), u, n, squares);
      return squares.value();
    };
    double squares = sum_of_squares();
    // In another unit where value_type cannot hold the norm, or a double its square.
    const double unit = sizeof(value_type) == 8 ? unit_for(squares) : squares > 0x1p254 ? 0x1p64 : 1;
    if (unit != 1) {
      for (std::size_t k = 0; k < n; ++k)
        u[k] = u[k] * value_type(1 / unit);
      squares = sum_of_squares();
    }
    const double norm = std::sqrt(squares), least = eps / unit;
    const auto divisor = value_type(norm > least ? norm : least);
    for (std::size_t k = 0; k < n && divisor > 0; ++k)
      u[k] = u[k] / divisor;
  }

  newton_schulz_memory<value_type> memory_;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
