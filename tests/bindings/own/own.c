/* Recipes of one's own through gradus.h: the names, ranges, steps, state and checkpoints of the page's warm and of
 * mine::believing. Prints what is wrong. */

#include <gradus.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int faults = 0;

#define CHECK(condition) \
  ((condition) ? (void)0 : (void)(++faults, printf("line %d: %s; last error: %s\n", __LINE__, #condition, gradus_last_error())))

static void check_refused(int line, gradus_status got, const char* part)
{
  if (got == GRADUS_INVALID_ARGUMENT && strstr(gradus_last_error(), part))
    return;
  ++faults;
  printf("line %d: status %d, and \"%s\"; expected \"%s\" in it\n", line, (int)got, gradus_last_error(), part);
}
#define REFUSED(call, part) check_refused(__LINE__, call, part)

enum { n = 5000 };

static double start(size_t i) { return sin(0.37 * (double)i); }
static double gradient(double w, size_t i, int t) { return 0.5 * w + cos(0.11 * (double)i + 0.3 * t); }

static void gradients(const double* w, double* g, int t)
{
  for (size_t i = 0; i < n; ++i)
    g[i] = gradient(w[i], i, t);
}

static void names(void)
{
  static const char* const expected[] = {"sgd", "adamw", "warm", "believing"};
  CHECK(gradus_recipe_count() == 4);
  for (size_t i = 0; i < 4; ++i)
    CHECK(gradus_recipe_name(i) && strcmp(gradus_recipe_name(i), expected[i]) == 0);
  CHECK(gradus_recipe_name(4) == NULL);
  gradus_number all[8];
  size_t count = 0;
  CHECK(gradus_recipe_numbers("warm", all, 8, &count) == GRADUS_OK && count == 4);
  CHECK(strcmp(all[1].name, "inertia") == 0 && all[1].value == 0.95);
  CHECK(strcmp(all[2].name, "warmth") == 0 && all[2].value == 0.5);
  CHECK(gradus_recipe_numbers("believing", all, 8, &count) == GRADUS_OK && count == 5);
  CHECK(strcmp(all[2].name, "plain") == 0 && all[2].value == 0);
}

static void refusals(void)
{
  gradus_optimizer* opt = NULL;
  REFUSED(gradus_create("warn", NULL, 0, GRADUS_FLOAT32, &opt), "expected one of sgd, adamw, warm, believing (\"warm\"?)");
  REFUSED(gradus_create("adam", NULL, 0, GRADUS_FLOAT32, &opt), "optimizer is \"adam\"; expected one of");
  gradus_number number = {"warmth", 1.5};
  REFUSED(gradus_create("warm", &number, 1, GRADUS_FLOAT32, &opt), "warmth is 1.5; expected a number in [0, 1)");
  number.name = "warmht";
  REFUSED(gradus_create("warm", &number, 1, GRADUS_FLOAT32, &opt), "hyperparameter of warm is \"warmht\"; expected one of lr, inertia, warmth, weight_decay");
  const gradus_number both[] = {{"plain", 1}, {"alpha", 1}};
  REFUSED(gradus_create("believing", both, 2, GRADUS_FLOAT32, &opt), "plain is 1 and alpha is 1; expected alpha below 1");
  CHECK(opt == NULL);
}

/* Against a plain loop in double; saved and loaded on the way. */
static void trajectory(const char* folder)
{
  const double lr = 0.01, inertia = 0.9, warmth = 0.7, weight_decay = 0.1, beta2 = 0.999, eps = 1e-8;
  static double w[n], g[n], x[n], m[n], v[n], other[n];
  for (size_t i = 0; i < n; ++i)
    x[i] = w[i] = start(i), m[i] = v[i] = 0;
  const gradus_number numbers[] = {{"lr", lr}, {"inertia", inertia}, {"warmth", warmth}, {"weight_decay", weight_decay}};
  gradus_optimizer* opt = NULL;
  CHECK(gradus_create("warm", numbers, 4, GRADUS_FLOAT64, &opt) == GRADUS_OK);
  CHECK(gradus_add(opt, "w", w, g, n, 0, NULL) == GRADUS_OK);
  char path[4096];
  snprintf(path, sizeof path, "%s/own.safetensors", folder);
  double product = 1;
  for (int t = 1; t <= 30; ++t) {
    gradients(w, g, t);
    CHECK(gradus_step(opt, NULL, NULL) == GRADUS_OK);
    const double beta = inertia * (1 - pow(warmth, t));
    product *= beta;
    double worst = 0;
    for (size_t i = 0; i < n; ++i) {
      const double gi = gradient(x[i], i, t);
      m[i] = beta * m[i] + (1 - beta) * gi;
      v[i] = beta2 * v[i] + (1 - beta2) * gi * gi;
      x[i] -= lr * weight_decay * x[i] + lr * (m[i] / (1 - product)) / (sqrt(v[i] / (1 - pow(beta2, t))) + eps);
      worst = fmax(worst, fabs(x[i] - w[i]));
    }
    if (!(worst < 1e-12)) {
      ++faults;
      printf("step %d: weights differ by %g\n", t, worst);
    }
    if (t == 15) {  /* another optimizer goes on, from the file */
      CHECK(gradus_save(opt, path, 1) == GRADUS_OK);
      gradus_destroy(opt);
      CHECK(gradus_create("warm", NULL, 0, GRADUS_FLOAT64, &opt) == GRADUS_OK);
      memcpy(other, w, sizeof w);
      memset(w, 0, sizeof w);
      CHECK(gradus_add(opt, "w", w, g, n, 0, NULL) == GRADUS_OK);
      CHECK(gradus_load(opt, path) == GRADUS_OK);
      CHECK(memcmp(other, w, sizeof w) == 0);
    }
  }
  void* values = NULL;
  size_t length = 0;
  CHECK(gradus_state(opt, "w", "warm_avg", &values, &length, NULL) == GRADUS_OK && length == n);
  gradus_destroy(opt);
  CHECK(gradus_create("believing", NULL, 0, GRADUS_FLOAT64, &opt) == GRADUS_OK);
  CHECK(gradus_add(opt, "w", w, g, n, 0, NULL) == GRADUS_OK);
  REFUSED(gradus_load(opt, path), "warm");
  gradus_destroy(opt);
}

/* In every dtype, with one thread and with three: the same bits, and no NaN. */
static void every_dtype(const char* recipe)
{
  static const size_t size[] = {4, 8, 2, 2};
  static unsigned char w[2][8 * 300000], g[8 * 300000];
  const size_t elements = 300000;
  for (int dtype = GRADUS_FLOAT32; dtype <= GRADUS_FLOAT16; ++dtype) {
    for (int k = 0; k < 2; ++k) {
      for (size_t i = 0; i < elements; ++i) {
        const float f = (float)start(i);
        unsigned bits;
        memcpy(&bits, &f, sizeof bits);
        const double d = f;
        const unsigned short half = (unsigned short)(dtype == GRADUS_BFLOAT16 ? bits >> 16 : 0x3000 + i % 1000);
        const void* one = dtype == GRADUS_FLOAT32 ? (const void*)&f : dtype == GRADUS_FLOAT64 ? (const void*)&d : (const void*)&half;
        memcpy(w[k] + i * size[dtype], one, size[dtype]);
        memcpy(g + i * size[dtype], one, size[dtype]);
      }
      gradus_optimizer* opt = NULL;
      CHECK(gradus_create(recipe, NULL, 0, (gradus_dtype)dtype, &opt) == GRADUS_OK);
      CHECK(gradus_set_threads(opt, k == 0 ? 1 : 3) == GRADUS_OK);
      CHECK(gradus_add(opt, NULL, w[k], g, elements, 0, NULL) == GRADUS_OK);
      const gradus_step_options o = gradus_default_step_options();
      gradus_step_report report = {.size = sizeof report};
      for (int t = 0; t < 3; ++t)
        CHECK(gradus_step(opt, &o, &report) == GRADUS_OK && report.applied);
      CHECK(isnan(report.decay_factor) == (strcmp(recipe, "warm") == 0));
      gradus_destroy(opt);
    }
    CHECK(memcmp(w[0], w[1], elements * size[dtype]) == 0);
    CHECK(memcmp(w[0], g, elements * size[dtype]) != 0);
  }
}

int main(int argc, char** argv)
{
  names();
  refusals();
  trajectory(argc > 1 ? argv[1] : ".");
  every_dtype("warm");
  every_dtype("believing");
  printf("%d faults\n", faults);
  return faults != 0;
}
