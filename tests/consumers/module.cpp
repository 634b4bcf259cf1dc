// Imports gradus, and includes none of its headers.

#include <cstdio>
#include <vector>

import gradus;

#if defined(CONSUMER_DISPATCH)
using backend = gradus::backend::dispatch;
#else
using backend = gradus::default_backend;
#endif

int main()
{
  std::vector<float> weights(37, 1.0f), gradients(37, 0.5f), expected(37, 1.0f);
  gradus::any_optimizer<float, backend, gradus::recipe_list<gradus::sgd, gradus::adams>> opt("adams",
                                                                                             {{"lr", 0.05},
                                                                                              {"weight_decay", 1e-3}});
  gradus::optimizer<gradus::adams, float, backend> same({.lr = 0.05, .weight_decay = 1e-3});
  opt.add("w", weights, gradients);
  same.add("w", expected, gradients);
  for (int step = 0; step < 20; ++step) {
    const gradus::schedule::cosine schedule{.t_max = 20};
    opt.step({.lr_scale = schedule(step), .max_grad_norm = 1});
    same.step({.lr_scale = schedule(step), .max_grad_norm = 1});
  }
  std::printf("%s: %.9g, expected %.9g\n", gradus::default_backend_name(), double(weights[0]), double(expected[0]));
  return weights == expected ? 0 : 1;
}
