/* The conformance suite through C: a hand-written AdamW, one that ignores its groups, and libgradus. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gradus.h>

#include "../../tools/conformance/conformance.h"

struct loop {
  int ignores_groups;
  double m[9][9], v[9][9];
};

static void step(void* user, const conformance_tensor_double* tensors, size_t count, int t, double lr)
{
  struct loop* a = user;
  const conformance_settings s = conformance_default_settings();
  if (t == 1) {  // another run
    memset(a->m, 0, sizeof a->m);
    memset(a->v, 0, sizeof a->v);
  }
  for (size_t k = 0; k < count; ++k)
    for (size_t i = 0; i < tensors[k].size; ++i) {
      const double g = tensors[k].gradients[i], lambda = a->ignores_groups ? s.weight_decay : tensors[k].weight_decay;
      double* w = &tensors[k].parameters[i];
      a->m[k][i] = s.beta1 * a->m[k][i] + (1 - s.beta1) * g;
      a->v[k][i] = s.beta2 * a->v[k][i] + (1 - s.beta2) * g * g;
      const double m = a->m[k][i] / (1 - pow(s.beta1, t)), v = a->v[k][i] / (1 - pow(s.beta2, t));
      *w -= lr * (m / (sqrt(v) + s.eps) + lambda * *w);
    }
}

static void gradus_step_of(void* user, const conformance_tensor_float* tensors, size_t count, int t, double lr)
{
  gradus_optimizer* opt = user;
  char name[16];
  for (size_t k = 0; t == 1 && k < count; ++k) {
    snprintf(name, sizeof name, "tensor%d", (int)k);
    if (gradus_add(opt, name, tensors[k].parameters, tensors[k].gradients, tensors[k].size,
                   tensors[k].weight_decay > 0 ? 0 : 1, NULL))
      exit((puts(gradus_last_error()), 1));
  }
  gradus_step_options o = gradus_default_step_options();
  o.lr = lr;
  if (gradus_step(opt, &o, NULL))
    exit((puts(gradus_last_error()), 1));
}

static int failed;

static void expect(const char* what, int mistakes, int expected, const char* text, const char* part)
{
  printf("%s: %s", what, text);
  if (mistakes == expected && strstr(text, part))
    return;
  printf("FAILED: %d mistakes, expected %d, and \"%s\" in the text\n", mistakes, expected, part);
  failed = 1;
}

int main(void)
{
  static struct loop right, wrong = {.ignores_groups = 1};
  char text[2000];
  const conformance_settings s = conformance_default_settings();
  int mistakes = conformance_examine_double(&s, step, &right, text, sizeof text);
  expect("a loop", mistakes, 0, text, "Follows AdamW over all 60 steps, to rounding of double.");
  mistakes = conformance_examine_double(&s, step, &wrong, text, sizeof text);
  expect("a loop without groups", mistakes, 1, text, "! groups: ignored: all tensors decay");

  char little[8];
  mistakes = conformance_examine_double(&s, step, &wrong, little, sizeof little);
  expect("a short text", mistakes, 1, little, "Follows");
  mistakes = conformance_examine_double(&s, step, &wrong, NULL, sizeof text);
  expect("no text", mistakes, 1, "", "");
  mistakes = conformance_examine_float(&s, NULL, NULL, text, sizeof text);
  expect("no step", mistakes, -1, text, "The step is NULL.\n");
  mistakes = conformance_examine_double(NULL, step, &right, text, sizeof text);
  expect("no settings", mistakes, -1, text, "The pointer to the settings is NULL.\n");
  conformance_settings one = s;
  one.beta1 = 1;
  mistakes = conformance_examine_double(&one, step, &right, text, sizeof text);
  expect("beta1 = 1", mistakes, -1, text, "The setting beta1 is 1; expected a number in [0, 1).\n");

  const gradus_number numbers[] = {
      {"lr", s.lr}, {"beta1", s.beta1}, {"beta2", s.beta2}, {"eps", s.eps}, {"weight_decay", s.weight_decay}};
  const gradus_number none = {"weight_decay", 0};
  gradus_optimizer* opt;
  size_t group;
  if (gradus_create("adamw", numbers, 5, GRADUS_FLOAT32, &opt) || gradus_add_group(opt, &none, 1, &group) || group != 1)
    return puts(gradus_last_error()), 1;
  mistakes = conformance_examine_float(&s, gradus_step_of, opt, text, sizeof text);
  expect("libgradus", mistakes, 0, text, "Follows AdamW over all 60 steps, to rounding of float.");
  gradus_destroy(opt);
  return failed;
}
