#pragma once
// The benchmarks' references: every recipe's step written by hand in intrinsics, and loops that move the same bytes
// with almost no arithmetic. The twins use IEEE square root and division, and fma where gradus does, so they give the
// same bits as gradus. float32, for AVX-512 or AVX2 with FMA; elsewhere TWINS is 0. Lengths are multiples of 16.

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <gradus/kernel/math.hpp>
#include <gradus/recipes.hpp>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#define TWINS 1
#else
#define TWINS 0
#endif

namespace twins {

// ── pure traffic ─────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads g and every x and writes every x, one cache line at a time, with prefetching as in gradus's loop or without.
/// The faster of the two, which depends on machine and size, is the reference.
template <bool Prefetch, class T, class... P>
void traffic(std::size_t n, const T* g, P*... x)
{
  using line [[gnu::vector_size(64), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  for (std::size_t i = 0; i < n; i += 64 / sizeof(T)) {
    if constexpr (Prefetch) {
      gradus::prefetch(g + i, 8192);
      (gradus::prefetch(x + i, 8192), ...);
    }
    const line& gi = *reinterpret_cast<const line*>(g + i);
    ((*reinterpret_cast<line*>(x + i) += gi), ...);
  }
}

#if TWINS

// ── registers ────────────────────────────────────────────────────────────────────────────────────────────────────

#if defined(__AVX512F__)
using reg = __m512;
inline constexpr std::size_t width = 16;
inline reg all(double x) { return _mm512_set1_ps(float(x)); }
inline reg load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, reg x) { _mm512_storeu_ps(p, x); }
inline reg mul(reg a, reg b) { return _mm512_mul_ps(a, b); }
inline reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
inline reg sub(reg a, reg b) { return _mm512_sub_ps(a, b); }
inline reg div(reg a, reg b) { return _mm512_div_ps(a, b); }
// Masked with all ones, because the plain forms use an undefined register, about which GCC 12 warns.
inline reg root(reg a) { return _mm512_maskz_sqrt_ps(0xffff, a); }
inline reg larger(reg a, reg b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline reg smaller(reg a, reg b) { return _mm512_maskz_min_ps(0xffff, a, b); }
inline reg mul_add(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
inline reg minus_mul_add(reg a, reg b, reg c) { return _mm512_fnmadd_ps(a, b, c); }
/// −w where v > s, w where v < s, else 0.
inline reg towards(reg v, reg s, reg w, reg minus_w)
{
  const reg up = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, s, _CMP_LT_OQ), w);
  return _mm512_mask_mov_ps(up, _mm512_cmp_ps_mask(v, s, _CMP_GT_OQ), minus_w);
}
#else
using reg = __m256;
inline constexpr std::size_t width = 8;
inline reg all(double x) { return _mm256_set1_ps(float(x)); }
inline reg load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, reg x) { _mm256_storeu_ps(p, x); }
inline reg mul(reg a, reg b) { return _mm256_mul_ps(a, b); }
inline reg add(reg a, reg b) { return _mm256_add_ps(a, b); }
inline reg sub(reg a, reg b) { return _mm256_sub_ps(a, b); }
inline reg div(reg a, reg b) { return _mm256_div_ps(a, b); }
inline reg root(reg a) { return _mm256_sqrt_ps(a); }
inline reg larger(reg a, reg b) { return _mm256_max_ps(a, b); }
inline reg smaller(reg a, reg b) { return _mm256_min_ps(a, b); }
inline reg mul_add(reg a, reg b, reg c) { return _mm256_fmadd_ps(a, b, c); }
inline reg minus_mul_add(reg a, reg b, reg c) { return _mm256_fnmadd_ps(a, b, c); }
inline reg towards(reg v, reg s, reg w, reg minus_w)
{
  const reg up = _mm256_and_ps(_mm256_cmp_ps(v, s, _CMP_LT_OQ), w);
  return _mm256_blendv_ps(up, minus_w, _mm256_cmp_ps(v, s, _CMP_GT_OQ));
}
#endif

// ── the twins ────────────────────────────────────────────────────────────────────────────────────────────────────

template <class Recipe, class... Any>
inline constexpr bool is = (std::is_same_v<Recipe, Any> || ...);

template <class R>
inline constexpr bool is_sgd = is<R, gradus::sgd, gradus::sgds>;
template <class R>
inline constexpr bool is_adam = is<R, gradus::adam, gradus::adamw, gradus::adams, gradus::amsgrad, gradus::yogi,
                                   gradus::adabound, gradus::padam, gradus::radam>;

/// Whether a recipe has a twin. (A new recipe is measured without one until it is written here.)
template <class R>
inline constexpr bool exists = is_sgd<R> || is_adam<R>;

/// The scalars of one step.
struct coefficients {
  double numerator = 0, eps = 0, lo = 0, hi = 0, l2 = 0, lost = 0, momentum = 0, gradient = 1;
};

/// The scalars of step t. `sum` is Σv of AdamS, advanced with the squared norm of all n gradients.
template <class Recipe>
  requires exists<Recipe>
coefficients prepare(const Recipe& h, double t, double& sum, double norm_sq, double n)
{
  coefficients c;
  if constexpr (is_sgd<Recipe>) {
    c.numerator = h.lr;
    if (t > 1) {
      c.momentum = h.momentum;
      c.gradient = 1 - h.dampening;
    }
    if constexpr (is<Recipe, gradus::sgds>)
      c.lost = h.lr * h.weight_decay * (1 - h.dampening) / (1 - h.momentum);
    else
      c.l2 = h.weight_decay;
  } else {
    const double bc1 = 1 - std::pow(h.beta1, t), bc2 = 1 - std::pow(h.beta2, t), root_bc2 = std::sqrt(bc2);
    c.numerator = h.lr * root_bc2 / bc1;
    c.eps = h.eps;
    c.l2 = h.weight_decay;
    if constexpr (is<Recipe, gradus::adamw, gradus::adams, gradus::adam, gradus::amsgrad, gradus::yogi>)
      c.eps *= root_bc2;
    if constexpr (is<Recipe, gradus::adamw>)
      c.lost = h.lr * h.weight_decay;
    if constexpr (is<Recipe, gradus::adams>) {
      sum = std::fma(double(float(1 - h.beta2)), norm_sq, double(float(h.beta2)) * sum);
      c.lost = h.lr * h.weight_decay / std::sqrt(sum / bc2 / n);
    }
    if constexpr (is<Recipe, gradus::adabound>) {
      c.lo = h.final_lr * (1 - 1 / std::fma(h.gamma, t, 1.0));
      c.hi = h.final_lr * (1 + 1 / (h.gamma * t));
    }
    if constexpr (is<Recipe, gradus::radam>) {
      const double rho_inf = 2 / (1 - h.beta2) - 1, rho = rho_inf - 2 * t * (1 - bc2) / bc2, lr = h.lr / bc1;
      if (rho > 5) {
        c.numerator = lr * std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) *
                      root_bc2;
        c.hi = std::numeric_limits<double>::infinity();
      } else {
        c.numerator = c.lo = c.hi = lr;
        c.eps = 1;
      }
    }
  }
  return c;
}

/// One step of n elements. The slots are in gradus's order.
template <class Recipe>
  requires is_sgd<Recipe>
void step(const Recipe&, const coefficients& c, float* theta, const float* g, float* const* slot, std::size_t n)
{
  constexpr bool l2 = is<Recipe, gradus::sgd>;
  const reg wd = all(c.l2), lost = all(c.lost), mu = all(c.momentum), weight = all(c.gradient), lr = all(c.numerator);
  float* const buffer = slot[0];
  for (std::size_t i = 0; i < n; i += width) {
    reg w = load(theta + i), gi = load(g + i);
    if constexpr (l2)
      gi = mul_add(wd, w, gi);
    const reg b = mul_add(weight, gi, mul(mu, load(buffer + i)));
    store(buffer + i, b);
    store(theta + i, l2 ? minus_mul_add(lr, b, w) : sub(w, mul_add(lr, b, mul(lost, w))));
  }
}

template <class Recipe>
  requires is_adam<Recipe>
void step(const Recipe& h, const coefficients& c, float* theta, const float* g, float* const* slot, std::size_t n)
{
  constexpr bool decoupled = is<Recipe, gradus::adamw, gradus::adams>;
  constexpr bool keeps_max = is<Recipe, gradus::amsgrad, gradus::padam>;
  constexpr bool clips = is<Recipe, gradus::adabound, gradus::radam>;
  const reg b1 = all(h.beta1), c1 = all(1 - h.beta1), b2 = all(h.beta2), c2 = all(1 - h.beta2),
            minus_c2 = all(-(1 - h.beta2));
  const reg wd = all(c.l2), lost = all(c.lost), numerator = all(c.numerator), eps = all(c.eps), lo = all(c.lo),
            hi = all(c.hi);
  float *const m = slot[0], *const v = slot[1], *const top = keeps_max ? slot[2] : nullptr;
  for (std::size_t i = 0; i < n; i += width) {
    reg w = load(theta + i), gi = load(g + i);
    if constexpr (!decoupled)
      gi = mul_add(wd, w, gi);
    const reg mi = mul_add(c1, gi, mul(b1, load(m + i)));
    reg vi = load(v + i);
    if constexpr (is<Recipe, gradus::yogi>)
      vi = mul_add(mul(towards(vi, mul(gi, gi), c2, minus_c2), gi), gi, vi);
    else
      vi = mul_add(mul(c2, gi), gi, mul(b2, vi));
    store(m + i, mi);
    store(v + i, vi);
    if constexpr (keeps_max) {
      vi = larger(load(top + i), vi);
      store(top + i, vi);
    }
    reg below = add(root(vi), eps);
    if constexpr (is<Recipe, gradus::padam>)
      below = root(below);  // partial = 1/4, the default
    reg rate = div(numerator, below);
    if constexpr (clips)
      rate = smaller(hi, larger(lo, rate));
    store(theta + i, decoupled ? sub(w, mul_add(rate, mi, mul(lost, w))) : minus_mul_add(rate, mi, w));
  }
}

#else

template <class>
inline constexpr bool exists = false;

#endif

}  // namespace twins
