// What optimizers, backends and the kernel layer are given that they do not take, one a case; without a case, what they
// do.

#include <array>
#include <cstddef>
#include <span>

#include <gradus/backend/parallel.hpp>
#include <gradus/backend/with_memory.hpp>
#include <gradus/gradus.hpp>

#if defined(CASE_LAMBDA_AS_BACKEND)
gradus::optimizer opt(gradus::adamw{}, [](int) {});
#elif defined(CASE_INT_AS_BACKEND)
gradus::optimizer<gradus::adamw, float, int> opt;
#else
gradus::optimizer opt(gradus::adamw{}, gradus::backend::scalar{});
#endif

using recipes = gradus::recipe_list<gradus::adamw>;
#if defined(CASE_INT_AS_BACKEND_BY_NAME)
gradus::any_optimizer<float, int, recipes> by_name("adamw");
#elif defined(CASE_INT_AS_PRECISION_BY_NAME)
gradus::any_optimizer<int, gradus::backend::scalar, recipes> by_name("adamw");
#else
gradus::any_optimizer<float, gradus::backend::scalar, recipes> by_name("adamw");
#endif

struct executor {
#if !defined(CASE_EXECUTOR_WITHOUT_RUN)
  void run(std::size_t n, gradus::executor::work work) const noexcept
  {
    for (std::size_t k = 0; k < n; ++k)
      work(k);
  }
#endif
};
gradus::optimizer in_threads(gradus::adamw{}, gradus::backend::parallel(gradus::backend::scalar{}, executor{}));

struct resource {
#if !defined(CASE_RESOURCE_WITHOUT_ALLOCATE)
  void* allocate(std::size_t bytes, std::size_t alignment);
#endif
  void deallocate(void* p, std::size_t bytes, std::size_t alignment) noexcept;
} arena;
gradus::backend::with_memory in_memory(gradus::backend::scalar{}, arena);

struct recipe {
#if defined(CASE_RECIPE_WITHOUT_LR)
  double lr = 0;
#else
  double lr = 1e-3;
#endif
#if defined(CASE_RECIPE_UNLISTED)
  double alpha = 0.5;
#endif
#if !defined(CASE_RECIPE_WITHOUT_FIELDS)
  static constexpr auto fields = gradus::fields(gradus::hyper::lr(&recipe::lr));
#endif
#if !defined(CASE_RECIPE_WITHOUT_RULE)
  constexpr auto rule() const noexcept { return gradus::adam{.lr = lr}.rule(); }
#endif
};
#if defined(CASE_INT_AS_RECIPE)
gradus::optimizer<int> own(3);
#elif defined(CASE_COMPOSED_RULE_AS_RECIPE)
gradus::optimizer own(gradus::first_moment::ema{});
#elif defined(CASE_RECIPE_WITHOUT_LR)
gradus::optimizer<recipe> own;
#elif defined(CASE_INT_AS_PRECISION)
gradus::optimizer<recipe, int> own;
#else
gradus::optimizer own(recipe{});
#endif

bool caller(std::span<float> w, std::span<const float> g, std::span<float> m, std::span<float> v)
{
  const auto adam = gradus::adam{}.rule();
  const auto adams = gradus::adams{}.rule();
  const auto formula = gradus::prepare<float>(adam, gradus::make_step_scalars(adam, 1, 1));
#if defined(CASE_NO_MEAN_SQUARE)
  const auto scheduled = gradus::prepare<float>(adams, gradus::make_step_scalars(adams, 1, 1));
#else
  const auto scheduled = gradus::prepare<float>(adams, gradus::make_step_scalars(adams, 1, 1, 0.5));
#endif
  const gradus::backend::scalar backend;
#if defined(CASE_ONE_SLOT_FOR_TWO)
  bool fits = gradus::update(backend, formula, w, g, {m});
#elif defined(CASE_THREE_SLOTS_FOR_TWO)
  bool fits = gradus::update(backend, formula, w, g, {m, v, v});
#else
  bool fits = gradus::update(backend, formula, w, g, {m, v});
#endif
#if defined(CASE_UPDATE_IGNORED)
  gradus::update(backend, scheduled, w, g, {m, v});
#elif defined(CASE_HALF_IGNORED)
  gradus::update_weights(backend, scheduled, w, g, {m, v});
#else
  fits = fits && gradus::update(backend, scheduled, w, g, {m, v});
#endif
  return fits;
}

int main()
{
  opt.step();
  by_name.step();
  in_threads.step();
  own.step();
}
