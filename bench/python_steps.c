/* Steps of libgradus, timed in C, for bench/python.py: in its process, and without Python in between. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include <gradus.h>

double seconds_of_steps(gradus_optimizer* opt, int steps);
gradus_optimizer* adamw_of(void* const* parameters, void* const* gradients, const size_t* sizes, size_t count, unsigned threads);

gradus_optimizer* adamw_of(void* const* parameters, void* const* gradients, const size_t* sizes, size_t count, unsigned threads)
{
  gradus_optimizer* opt;
  if (gradus_create("adamw", NULL, 0, GRADUS_FLOAT32, &opt) != GRADUS_OK || gradus_set_threads(opt, threads) != GRADUS_OK)
    return NULL;
  for (size_t i = 0; i < count; ++i)
    if (gradus_add(opt, NULL, parameters[i], gradients[i], sizes[i], 0, NULL) != GRADUS_OK)
      return NULL;
  return opt;
}

double seconds_of_steps(gradus_optimizer* opt, int steps)
{
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < steps; ++i)
    gradus_step(opt, NULL, NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}
