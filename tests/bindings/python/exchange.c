/* Takes steps in C, from a checkpoint to a checkpoint: exchange RECIPE DTYPE START END LOAD SAVE
 *
 * LOAD is "-" for a run from the start. test_checkpoint.py does the same in Python. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gradus.h>

enum { first = 37, second = 5, count = first + second };

static void check(gradus_status status)
{
  if (status != GRADUS_OK) {
    fprintf(stderr, "%s\n", gradus_last_error());
    exit(1);
  }
}

int main(int argc, char** argv)
{
  if (argc != 7)
    return 2;
  const int in_double = strcmp(argv[2], "float64") == 0;
  double wide_w[count], wide_g[count] = {0};
  float w[count], g[count] = {0};
  for (int i = 0; i < count; ++i)
    w[i] = (float)(wide_w[i] = (i % 13 - 6) / 8.0);
  void* const weights = in_double ? (void*)wide_w : (void*)w;
  void* const gradients = in_double ? (void*)wide_g : (void*)g;
  const size_t bytes = in_double ? sizeof(double) : sizeof(float);

  const gradus_number lr = {"lr", 0.01}, other_lr = {"lr", 0.02};
  gradus_optimizer* opt;
  size_t group;
  check(gradus_create(argv[1], &lr, 1, in_double ? GRADUS_FLOAT64 : GRADUS_FLOAT32, &opt));
  check(gradus_add_group(opt, &other_lr, 1, &group));
  check(gradus_add(opt, "a", weights, gradients, first, 0, NULL));
  check(gradus_add(opt, "b/c", (char*)weights + first * bytes, (char*)gradients + first * bytes, second, group, NULL));
  if (strcmp(argv[5], "-") != 0)
    check(gradus_load(opt, argv[5]));
  for (int t = atoi(argv[3]); t < atoi(argv[4]); ++t) {
    for (int i = 0; i < count; ++i) { /* times a power of two, so that fused or not makes no difference */
      const double add = ((7 * i + 3 * t) % 11 - 5) / 64.0;
      wide_g[i] = wide_w[i] * 0.25 + add;
      g[i] = w[i] * 0.25f + (float)add;
    }
    check(gradus_step(opt, NULL, NULL));
  }
  check(gradus_save(opt, argv[6], 1));
  gradus_destroy(opt);
  return 0;
}
