// Every recipe over CUDA, for thrust_cuda.sh to compile and look into.

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

using gradus::bfloat16, gradus::precision;
using single = float;
using masters = precision<bfloat16, bfloat16, float, float>;
using short_moments = precision<float, float, bfloat16>;

void step_all()
{
  gradus::for_each_recipe([]<class Recipe>(std::string_view, std::type_identity<Recipe>) {
    gradus::optimizer<Recipe, GRADUS_TEST_PRECISION, gradus::backend::thrust> opt;
    opt.step();
  });
}
