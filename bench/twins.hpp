#pragma once
// The benchmarks' references: every recipe's step written by hand in intrinsics, and loops that move the same bytes
// with almost no arithmetic. The twins use IEEE square root and division, and fma where gradus does, so they give the
// same bits as gradus. In float or double, for AVX-512 or AVX2 with FMA; elsewhere TWINS is 0. Lengths are multiples of 16.

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

/// Reads g and does next to nothing with it, as no sum over g can be faster.
template <class T>
T read(std::size_t n, const T* g)
{
  using line [[gnu::vector_size(64), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  constexpr std::size_t width = 64 / sizeof(T);
  line sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 * width <= n; i += 4 * width)
    for (std::size_t k = 0; k < 4; ++k)
      sums[k] += *reinterpret_cast<const line*>(g + i + k * width);
  T sum = 0;
  for (; i < n; ++i)
    sum += g[i];
  return sum + sums[0][0] + sums[1][0] + sums[2][0] + sums[3][0];
}

#if TWINS

// ── registers ────────────────────────────────────────────────────────────────────────────────────────────────────

#if defined(__AVX512F__)
inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512d load(const double* p) { return _mm512_loadu_pd(p); }
template <class T>
auto all(double x)
{
  if constexpr (std::is_same_v<T, float>)
    return _mm512_set1_ps(float(x));
  else
    return _mm512_set1_pd(x);
}
inline void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
inline void store(double* p, __m512d x) { _mm512_storeu_pd(p, x); }
// Masked with all ones, because the plain forms use an undefined register, about which GCC 12 warns.
inline __m512 root(__m512 a) { return _mm512_maskz_sqrt_ps(0xffff, a); }
inline __m512d root(__m512d a) { return _mm512_maskz_sqrt_pd(0xff, a); }
inline __m512 larger(__m512 a, __m512 b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline __m512d larger(__m512d a, __m512d b) { return _mm512_maskz_max_pd(0xff, a, b); }
inline __m512 smaller(__m512 a, __m512 b) { return _mm512_maskz_min_ps(0xffff, a, b); }
inline __m512d smaller(__m512d a, __m512d b) { return _mm512_maskz_min_pd(0xff, a, b); }
inline __m512 mul_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512d mul_add(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
inline __m512 minus_mul_add(__m512 a, __m512 b, __m512 c) { return _mm512_fnmadd_ps(a, b, c); }
inline __m512d minus_mul_add(__m512d a, __m512d b, __m512d c) { return _mm512_fnmadd_pd(a, b, c); }
/// −w where v > s, w where v < s, else 0.
inline __m512 towards(__m512 v, __m512 s, __m512 w, __m512 minus_w)
{
  const __m512 up = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, s, _CMP_LT_OQ), w);
  return _mm512_mask_mov_ps(up, _mm512_cmp_ps_mask(v, s, _CMP_GT_OQ), minus_w);
}
inline __m512d towards(__m512d v, __m512d s, __m512d w, __m512d minus_w)
{
  const __m512d up = _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(v, s, _CMP_LT_OQ), w);
  return _mm512_mask_mov_pd(up, _mm512_cmp_pd_mask(v, s, _CMP_GT_OQ), minus_w);
}
#else
inline __m256 load(const float* p) { return _mm256_loadu_ps(p); }
inline __m256d load(const double* p) { return _mm256_loadu_pd(p); }
template <class T>
auto all(double x)
{
  if constexpr (std::is_same_v<T, float>)
    return _mm256_set1_ps(float(x));
  else
    return _mm256_set1_pd(x);
}
inline void store(float* p, __m256 x) { _mm256_storeu_ps(p, x); }
inline void store(double* p, __m256d x) { _mm256_storeu_pd(p, x); }
inline __m256 root(__m256 a) { return _mm256_sqrt_ps(a); }
inline __m256d root(__m256d a) { return _mm256_sqrt_pd(a); }
inline __m256 larger(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256d larger(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
inline __m256 smaller(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
inline __m256d smaller(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
inline __m256 mul_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d mul_add(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
inline __m256 minus_mul_add(__m256 a, __m256 b, __m256 c) { return _mm256_fnmadd_ps(a, b, c); }
inline __m256d minus_mul_add(__m256d a, __m256d b, __m256d c) { return _mm256_fnmadd_pd(a, b, c); }
/// −w where v > s, w where v < s, else 0.
inline __m256 towards(__m256 v, __m256 s, __m256 w, __m256 minus_w)
{
  const __m256 up = _mm256_and_ps(_mm256_cmp_ps(v, s, _CMP_LT_OQ), w);
  return _mm256_blendv_ps(up, minus_w, _mm256_cmp_ps(v, s, _CMP_GT_OQ));
}
inline __m256d towards(__m256d v, __m256d s, __m256d w, __m256d minus_w)
{
  const __m256d up = _mm256_and_pd(_mm256_cmp_pd(v, s, _CMP_LT_OQ), w);
  return _mm256_blendv_pd(up, minus_w, _mm256_cmp_pd(v, s, _CMP_GT_OQ));
}
#endif
/// A register of T.
template <class T>
using reg = decltype(all<T>(0));

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
template <class T, class Recipe>
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
    const double bc1 = gradus::one_minus_power(h.beta1, t), bc2 = gradus::one_minus_power(h.beta2, t),
                 root_bc2 = std::sqrt(bc2);
    c.numerator = h.lr * root_bc2 / bc1;
    c.eps = h.eps;
    c.l2 = h.weight_decay;
    if constexpr (is<Recipe, gradus::adamw, gradus::adams, gradus::adam, gradus::amsgrad, gradus::yogi>)
      c.eps *= root_bc2;
    if constexpr (is<Recipe, gradus::adamw>)
      c.lost = h.lr * h.weight_decay;
    if constexpr (is<Recipe, gradus::adams>) {
      sum = std::fma(double(T(1 - h.beta2)), norm_sq, double(T(h.beta2)) * sum);
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
template <class T, class Recipe>
  requires is_sgd<Recipe>
void step(const Recipe&, const coefficients& c, T* theta, const T* g, T* const* slot, std::size_t n)
{
  constexpr bool l2 = is<Recipe, gradus::sgd>;
  const reg<T> wd = all<T>(c.l2), lost = all<T>(c.lost), mu = all<T>(c.momentum), weight = all<T>(c.gradient),
               lr = all<T>(c.numerator);
  T* const buffer = slot[0];
  for (std::size_t i = 0; i < n; i += sizeof(reg<T>) / sizeof(T)) {
    reg<T> w = load(theta + i), gi = load(g + i);
    if constexpr (l2)
      gi = mul_add(wd, w, gi);
    const reg<T> b = mul_add(weight, gi, mu * load(buffer + i));
    store(buffer + i, b);
    store(theta + i, l2 ? minus_mul_add(lr, b, w) : w - mul_add(lr, b, lost * w));
  }
}

template <class T, class Recipe>
  requires is_adam<Recipe>
void step(const Recipe& h, const coefficients& c, T* theta, const T* g, T* const* slot, std::size_t n)
{
  constexpr bool decoupled = is<Recipe, gradus::adamw, gradus::adams>;
  constexpr bool keeps_max = is<Recipe, gradus::amsgrad, gradus::padam>;
  constexpr bool clips = is<Recipe, gradus::adabound, gradus::radam>;
  const reg<T> b1 = all<T>(h.beta1), c1 = all<T>(1 - h.beta1), b2 = all<T>(h.beta2), c2 = all<T>(1 - h.beta2),
               minus_c2 = all<T>(-(1 - h.beta2));
  const reg<T> wd = all<T>(c.l2), lost = all<T>(c.lost), numerator = all<T>(c.numerator), eps = all<T>(c.eps),
               lo = all<T>(c.lo), hi = all<T>(c.hi);
  T *const m = slot[0], *const v = slot[1], *const top = keeps_max ? slot[2] : nullptr;
  for (std::size_t i = 0; i < n; i += sizeof(reg<T>) / sizeof(T)) {
    reg<T> w = load(theta + i), gi = load(g + i);
    if constexpr (!decoupled)
      gi = mul_add(wd, w, gi);
    const reg<T> mi = mul_add(c1, gi, b1 * load(m + i));
    reg<T> vi = load(v + i);
    if constexpr (is<Recipe, gradus::yogi>)
      vi = mul_add(towards(vi, gi * gi, c2, minus_c2) * gi, gi, vi);
    else
      vi = mul_add(c2 * gi, gi, b2 * vi);
    store(m + i, mi);
    store(v + i, vi);
    if constexpr (keeps_max) {
      vi = larger(load(top + i), vi);
      store(top + i, vi);
    }
    reg<T> below = root(vi) + eps;
    if constexpr (is<Recipe, gradus::padam>)
      below = root(below);  // partial = 1/4, the default
    reg<T> rate = numerator / below;
    if constexpr (clips)
      rate = smaller(hi, larger(lo, rate));
    store(theta + i, decoupled ? w - mul_add(rate, mi, lost * w) : minus_mul_add(rate, mi, w));
  }
}

#else

template <class>
inline constexpr bool exists = false;

#endif

}  // namespace twins
