// Every recipe over CUDA, for thrust_cuda.sh to compile and look into.

#include <string_view>

#include <thrust/device_vector.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

using gradus::bfloat16, gradus::precision;
using single = float;
using masters = precision<bfloat16, bfloat16, float, float>;
using remainders = precision<bfloat16, bfloat16, float, gradus::remainder16>;
using short_moments = precision<float, float, bfloat16>;
using codes = precision<float, float, gradus::block8>;
using doubles = double;

#if defined(GRADUS_TEST_GRAPH)
// As docs/gpu.md has it. \p next  makes the next gradients in the order of the stream
void train_by_graph(cudaStream_t stream, thrust::device_vector<float>& weights, thrust::device_vector<float>& gradients,
                    void (*next)(cudaStream_t))
{
  gradus::backend::thrust_device backend(thrust::cuda::par_nosync.on(stream));
  gradus::optimizer<gradus::adamw, float, decltype(backend)> opt({.lr = 1e-3}, backend);
  opt.add("weights", weights, gradients);
  opt.step({.max_grad_norm = 1});
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  opt.step({.max_grad_norm = 1});
  cudaStreamEndCapture(stream, &graph);
  cudaGraphInstantiate(&replay, graph, 0);
  for (int t = 0; t < 100; ++t) {
    next(stream);
    opt.set_options({.lr_scale = 1.0 / (1 + t), .max_grad_norm = 1});
    cudaGraphLaunch(replay, stream);
  }
  if (!opt.report().applied)
    opt.visit_state([](std::string_view, std::string_view, auto) {});
}
#endif

#if defined(GRADUS_TEST_RECIPES)
using recipes = gradus::recipe_list<GRADUS_TEST_RECIPES>;
#else
using recipes = gradus::all_recipes;
#endif

void step_all()
{
  recipes::for_each([]<class Recipe>(std::string_view, std::type_identity<Recipe>) {
    gradus::optimizer<Recipe, GRADUS_TEST_PRECISION, gradus::backend::thrust> opt;
    opt.step();
  });
}
