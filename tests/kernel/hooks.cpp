// The loops of the first ten recipes, by gradus's kernel and by one that knows none of the hooks that other rules use, for
// hooks.py to compare their instructions. A hook that a rule does not use must leave nothing in its loop.

#include <cstddef>
#include <type_traits>

#include <gradus/backend/default.hpp>
#include <gradus/kernel/kernel.hpp>
#include <gradus/recipes.hpp>

namespace hooks {

using gradus::fma, gradus::product;

// What the four rules of the first recipes need, and nothing else.
template <class Prepared>
struct plain_kernel {
  Prepared c;

  using value_type = typename Prepared::value_type;
  static constexpr std::size_t slots = Prepared::slots;
  static constexpr bool writes_parameters = true, writes_slots = true;

  template <class V>
  void operator()(V& theta, V g, V* slot) const noexcept
  {
    V* const second_slot = slot + Prepared::first_slots;
    if (Prepared::has_second_moment || c.grad_scale != 1)
      g = product(V(c.grad_scale), g);
    if constexpr (requires { c.decay.gradient(g, theta); })
      g = c.decay.gradient(g, theta);
    c.first_moment.update(slot, g);
    const V d = c.first_moment.direction(slot, g);
    c.second_moment.update(second_slot, g, d);
    const V a = c.step_size(Prepared::has_second_moment ? slot[Prepared::value_slot] : g);
    V kept = theta;
    if constexpr (requires { c.decay.weights(theta); })
      kept = c.decay.weights(theta);
    if constexpr (requires { c.decay.decrement(theta); })
      theta = c.decay.decrements ? theta - fma(a, d, c.decay.decrement(theta)) : fma(-a, d, kept);
    else
      theta = fma(-a, d, kept);
  }
};

template <class Recipe, class T>
using formula_of = decltype(gradus::prepare<T>(Recipe{}.rule(), gradus::step_scalars{}));

template <class Recipe, class T>
[[gnu::noinline, gnu::flatten]] void with_hooks(const formula_of<Recipe, T>* c, T* theta, const T* g, T* const* slots,
                                                std::size_t n)
{
  const gradus::kernel<gradus::pass::whole, formula_of<Recipe, T>> own{*c};
  gradus::default_backend{}.sweep(own, theta, g, slots, n);
}
template <class Recipe, class T>
[[gnu::noinline, gnu::flatten]] void without(const formula_of<Recipe, T>* c, T* theta, const T* g, T* const* slots,
                                             std::size_t n)
{
  const plain_kernel<formula_of<Recipe, T>> own{*c};
  gradus::default_backend{}.sweep(own, theta, g, slots, n);
}

// Instantiates both for a recipe.
template <class Recipe, class T>
struct both {
  decltype(&with_hooks<Recipe, T>) a = &with_hooks<Recipe, T>;
  decltype(&without<Recipe, T>) b = &without<Recipe, T>;
};
both<gradus::sgd, float> sgd;
both<gradus::sgds, float> sgds;
both<gradus::adam, float> adam;
both<gradus::adamw, float> adamw;
both<gradus::adams, float> adams;
both<gradus::amsgrad, float> amsgrad;
both<gradus::yogi, float> yogi;
both<gradus::adabound, float> adabound;
both<gradus::padam, float> padam;
both<gradus::radam, float> radam;

}  // namespace hooks
