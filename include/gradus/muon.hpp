#pragma once
/// \file
/// Muon, for matrices of weights: the momentum of the gradient is made orthogonal before it is followed. Groups of other
/// tensors are trained by AdamW in the same optimizer. Not in gradus.hpp, because it needs a matrix product.
///
///     #include <gradus/muon.hpp>
///     gradus::muon_optimizer<gradus::gemm::plain> opt({.lr = 2e-2});
///     auto other = opt.hyperparameters();
///     other.lr = 3e-4, other.orthogonal = false;
///     const auto adamw = opt.add_group(other);
///     opt.set_shape(opt.add(weights, gradients), gradus::view_shape(gradus::storage_order::row_major, 25, 40));
///     opt.add(bias, bias_gradients, adamw);
///     opt.step();

#include <array>
#include <cmath>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gradus/muon/muon_step.hpp>
#include <gradus/optimizer.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

namespace first_moment {

/// m ← βm + (1−β)g. With `orthogonal`, an engine for matrices (muon/muon_step.hpp) makes m, or with nesterov βm + (1−β)g
/// of the new m, orthogonal, and that is d; otherwise d = m, as `ema`. Muon (Jordan et al. 2024).
struct orthogonal_ema {
  double beta = 0.95;            ///< β in [0, 1)
  bool nesterov = true;          ///< looks one step ahead
  double ns_steps = 5;           ///< iterations of Newton–Schulz, a whole number from 1 to 99
  double eps = 1e-7;             ///< ≥ 0; the least norm that a matrix is divided by
  bool match_rms_adamw = false;  ///< the factor on α is 0.2·√max(rows, columns), not √max(1, rows/columns)
  bool orthogonal = true;        ///< for matrices; false is `ema`

  static constexpr std::string_view kind = "orthogonal_ema";           ///< the rule's name in checkpoints
  static constexpr std::array slots{slot{"exp_avg", slot::any_sign}};  ///< m, from 0
  static constexpr bool works_on_matrices = true;                      ///< needs backend::with_product
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(
      field{"beta", &orthogonal_ema::beta, range::zero_to_below_one}, hyper::nesterov(&orthogonal_ema::nesterov),
      field{"ns_steps", &orthogonal_ema::ns_steps, range::at_least_one}, hyper::eps(&orthogonal_ema::eps),
      field{"match_rms_adamw", &orthogonal_ema::match_rms_adamw, range::yes_or_no},
      field{"orthogonal", &orthogonal_ema::orthogonal, range::yes_or_no});
  /// 1 − βᵗ for `ema`; an orthogonal direction has none.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return orthogonal ? 1 : one_minus_power(beta, t); }
  /// Refuses numbers of iterations that are not whole, or too large.
  void validate() const
  {
    if (ns_steps != std::floor(ns_steps) || ns_steps > 99)
      refuse("ns_steps is " + detail::show(ns_steps) + "; expected a whole number from 1 to 99");
  }
  /// The factor on α for a matrix.
  double factor(double rows, double columns) const noexcept
  {
    if (match_rms_adamw)
      return 0.2 * std::sqrt(rows > columns ? rows : columns);
    return rows > columns ? std::sqrt(rows / columns) : 1;
  }

  /// The element formula with one step's coefficients.
  template <class T>
  struct formula {
    ema::formula<T> average;  ///< with β
    bool nesterov,            ///< looks ahead
        orthogonal;           ///< g is the orthogonal direction
    /// Updates m.
    template <class V>
    GRADUS_HOST_DEVICE void update(V* m, V g) const noexcept
    {
      average.update(m, g);
    }
    /// d. \param g  for `orthogonal` what the engine made of `ahead`
    template <class V>
    GRADUS_HOST_DEVICE V direction(const V* m, V g) const noexcept
    {
      return orthogonal ? g : m[0];
    }
    /// What is made orthogonal, from the new m.
    template <class V>
    GRADUS_HOST_DEVICE V ahead(V m, V g) const noexcept
    {
      if (nesterov)
        average.update(&m, g);
      return m;
    }
  };
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    return {ema{beta}.prepare<T>(k), nesterov, orthogonal};
  }
};

}  // namespace first_moment

namespace second_moment {

/// `ema`, or `none` for groups without a second moment.
struct optional_ema {
  double beta2 = 0.999;  ///< β₂ in [0, 1)
  bool kept = true;      ///< whether there is a second moment

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::beta2(&optional_ema::beta2),
                                                field{"kept", &optional_ema::kept, range::yes_or_no});
  static constexpr std::string_view kind = "optional_ema";  ///< the rule's name in checkpoints
  static constexpr std::array slots = ema::slots;           ///< v, from 0
  static constexpr std::size_t value_slot = 0;              ///< v
  static constexpr bool linear = false;                     ///< groups without it have no Σv
  /// 1 − β₂ᵗ, or 1.
  GRADUS_HOST_DEVICE double correction(double t) const noexcept { return kept ? one_minus_power(beta2, t) : 1; }
  /// The formula of one step.
  template <class T>
  GRADUS_HOST_DEVICE ema::formula<T> prepare(const step_scalars& k) const noexcept
  {
    return ema{beta2}.prepare<T>(k);
  }
  /// The rule that runs instead, without a slot, when `idle()`.
  using idle_form = none;
  /// Whether there is no second moment.
  GRADUS_HOST_DEVICE bool idle() const noexcept { return !kept; }
};

}  // namespace second_moment

namespace step_size {

/// `adaptive`, or `constant` for groups without a second moment.
struct optional_adaptive {
  double eps = 1e-8;   ///< ≥ 0; added to the corrected root √(v/bc2)
  bool adapts = true;  ///< whether it reads v

  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::eps(&optional_adaptive::eps),
                                                field{"adapts", &optional_adaptive::adapts, range::yes_or_no});
  static constexpr std::string_view kind = "optional_adaptive";  ///< the rule's name in checkpoints
  static constexpr bool reads_second_moment = true;              ///< needs a second moment, which may be optional

  /// a(v) of one step.
  template <class T>
  struct formula {
    ratio<T> inner;  ///< with α alone as the numerator if it is constant
    bool adapts;     ///< whether it reads v
    /// The value at v.
    template <class V>
    GRADUS_HOST_DEVICE V operator()(V v) const noexcept
    {
      return adapts ? inner(v) : V(inner.numerator);
    }
  };
  /// a(v) of one step.
  template <class T>
  GRADUS_HOST_DEVICE formula<T> prepare(const step_scalars& k) const noexcept
  {
    if (!adapts)
      return {ratio<T>{T(k.lr), T(0)}, false};
    return {adaptive{eps}.prepare<T>(k), true};
  }
};

}  // namespace step_size

/// Muon: momentum made orthogonal by Newton–Schulz, for matrices; and AdamW for groups with `orthogonal = false`. State:
/// `exp_avg`, and in groups of AdamW `exp_avg_sq`. Jordan et al. 2024 (docs/muon.md); PyTorch's form and defaults.
struct muon {
  double lr = 1e-3;              ///< learning rate, ≥ 0; `lr_scale` of a step multiplies it
  double weight_decay = 0.1;     ///< λ ≥ 0; shrinks θ by αλ
  double momentum = 0.95;        ///< μ in [0, 1), of matrices
  bool nesterov = true;          ///< looks one step ahead, of matrices
  double ns_steps = 5;           ///< iterations of Newton–Schulz, a whole number from 1 to 99
  double ns_eps = 1e-7;          ///< ≥ 0; the least norm that a matrix is divided by
  bool match_rms_adamw = false;  ///< the factor on α is 0.2·√max(rows, columns), not √max(1, rows/columns)
  bool orthogonal = true;        ///< false for groups of other tensors, which AdamW trains with what follows
  double beta1 = 0.9;            ///< β₁ in [0, 1), of AdamW
  double beta2 = 0.999;          ///< β₂ in [0, 1), of AdamW
  double eps = 1e-8;             ///< ≥ 0; keeps AdamW's divisor √v̂ + eps away from 0

  static constexpr std::string_view name = "muon";  ///< in checkpoints
  /// Names and ranges of the hyperparameters.
  static constexpr auto fields = gradus::fields(hyper::lr(&muon::lr), hyper::weight_decay(&muon::weight_decay),
                                                hyper::momentum(&muon::momentum), hyper::nesterov(&muon::nesterov),
                                                field{"ns_steps", &muon::ns_steps, range::at_least_one},
                                                field{"ns_eps", &muon::ns_eps, range::at_least_zero},
                                                field{"match_rms_adamw", &muon::match_rms_adamw, range::yes_or_no},
                                                field{"orthogonal", &muon::orthogonal, range::yes_or_no},
                                                hyper::beta1(&muon::beta1), hyper::beta2(&muon::beta2),
                                                hyper::eps(&muon::eps));
  /// The four rules with these hyperparameters.
  constexpr auto rule() const noexcept
  {
    return compose(lr,
                   first_moment::orthogonal_ema{orthogonal ? momentum : beta1, nesterov, ns_steps, ns_eps,
                                                match_rms_adamw, orthogonal},
                   second_moment::optional_ema{beta2, !orthogonal}, step_size::optional_adaptive{eps, !orthogonal},
                   decay::decoupled{weight_decay});
  }
};

namespace backend {

/// A CPU backend and a matrix product, for recipes that work on matrices.
/// \tparam Product  gemm::eigen, gemm::blas, gemm::plain, or your own matrix_product
/// \tparam Cpu      backend::simd or scalar, or parallel over one of these
template <class Product, class Cpu = default_backend>
struct with_product : Cpu {
  static_assert(matrix_product<Product, float> && matrix_product<Product, double>,
                "gradus: the product of backend::with_product has no multiply(m, n, k, alpha, a, b, b_is_transposed, "
                "beta, c) const for float and double, as gemm::plain has.");
  [[no_unique_address]] Product product;  ///< multiplies

  /// From a product and a backend, both copied or moved in.
  explicit with_product(Product p = Product(), Cpu cpu = Cpu()) : Cpu(std::move(cpu)), product(std::move(p)) {}

  /// The engine of its steps; recipes that do not work on matrices take them as on Cpu.
  template <class Parts>
  using engine_type =
      std::conditional_t<works_on_matrices<decltype(Parts::rule_type::first_moment)>,
                         detail::muon_step<Parts, with_product>, detail::host_step<Parts, with_product>>;
};

}  // namespace backend

/// An optimizer for Muon. \tparam Product  the matrix product  \tparam T  float or double, or a precision with gradients
/// and state of the arithmetic's type
template <class Product = gemm::plain, class T = float, class Cpu = default_backend>
using muon_optimizer = optimizer<muon, T, backend::with_product<Product, Cpu>>;

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
