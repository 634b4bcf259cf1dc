#ifndef CONFORMANCE_H
#define CONFORMANCE_H
/* conformance.hpp for C and for every language that calls C; compile conformance_c.cpp into the program. */

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The hyperparameters that the implementation is configured with. Those that it does not have are ignored. */
typedef struct {
  double lr, beta1, beta2, eps, weight_decay, momentum, dampening;
  int nesterov;
  double initial_accumulator;
} conformance_settings;

/* lr 0.02, beta1 0.9, beta2 0.95, eps 1e-8, weight_decay 0.1, momentum 0.9, and 0. */
conformance_settings conformance_default_settings(void);

/* What a step receives of each tensor; the pointers stay the same from step to step. It updates the parameters. */
typedef struct {
  float* parameters;
  const float* gradients;
  size_t size;
  double weight_decay; /* settings' or 0 */
} conformance_tensor_float;
typedef struct {
  double* parameters;
  const double* gradients;
  size_t size;
  double weight_decay;
} conformance_tensor_double;

/* The implementation's step over all tensors; t counts from 1. */
typedef void (*conformance_step_float)(void* user, const conformance_tensor_float* tensors, size_t count, int t,
                                       double lr);
typedef void (*conformance_step_double)(void* user, const conformance_tensor_double* tensors, size_t count, int t,
                                        double lr);

/* Trains the suite's problem with a step, and writes what it follows into text, cut to capacity bytes with the ending 0; text may
   be NULL. Returns the number of probable mistakes, or -1 if it follows no known convention or an argument is wrong. */
int conformance_examine_float(const conformance_settings* settings, conformance_step_float step, void* user, char* text,
                              size_t capacity);
int conformance_examine_double(const conformance_settings* settings, conformance_step_double step, void* user,
                               char* text, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
