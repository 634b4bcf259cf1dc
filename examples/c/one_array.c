/* Two layers trained in C, in the way of programs that keep all parameters in one array: a tensor is a part of it. */

#include <gradus.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { inputs = 4, hidden = 16, samples = 256, parameters = inputs * hidden + hidden + hidden + 1 };

/* The layers' names, and where each begins. */
static const char* const names[] = {"hidden.weight", "hidden.bias", "output.weight", "output.bias"};
static const size_t lengths[] = {inputs * hidden, hidden, hidden, 1};

static void check(gradus_status status)
{
  if (status != GRADUS_OK) {
    fprintf(stderr, "%s\n", gradus_last_error());
    exit(1);
  }
}

static float noise(void)
{
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* The mean squared error on y = sin(x0 + 2 x1) - x2 x3, and its gradients. */
static double loss_and_gradients(const float* w, float* dw)
{
  static float x[samples][inputs], y[samples];
  static int made = 0;
  for (int s = 0; s < samples && !made; ++s) {
    for (int i = 0; i < inputs; ++i)
      x[s][i] = noise();
    y[s] = sinf(x[s][0] + 2 * x[s][1]) - x[s][2] * x[s][3];
  }
  made = 1;
  const float *w1 = w, *b1 = w1 + inputs * hidden, *w2 = b1 + hidden, *b2 = w2 + hidden;
  float *dw1 = dw, *db1 = dw1 + inputs * hidden, *dw2 = db1 + hidden, *db2 = dw2 + hidden;
  for (int k = 0; k < parameters; ++k)
    dw[k] = 0;
  double loss = 0;
  for (int s = 0; s < samples; ++s) {
    float h[hidden], out = *b2;
    for (int j = 0; j < hidden; ++j) {
      float sum = b1[j];
      for (int i = 0; i < inputs; ++i)
        sum += w1[j * inputs + i] * x[s][i];
      h[j] = tanhf(sum);
      out += w2[j] * h[j];
    }
    const float error = out - y[s], d = 2 * error / samples;
    loss += (double)error * error / samples;
    *db2 += d;
    for (int j = 0; j < hidden; ++j) {
      const float back = d * w2[j] * (1 - h[j] * h[j]);
      dw2[j] += d * h[j];
      db1[j] += back;
      for (int i = 0; i < inputs; ++i)
        dw1[j * inputs + i] += back * x[s][i];
    }
  }
  return loss;
}

int main(void)
{
  float w[parameters], dw[parameters];
  for (int k = 0; k < parameters; ++k)
    w[k] = 0.5f * noise();

  gradus_optimizer* opt;
  const gradus_number numbers[] = {{"lr", 0.01}, {"weight_decay", 1e-4}}, no_decay[] = {{"weight_decay", 0}};
  check(gradus_create("adamw", numbers, 2, GRADUS_FLOAT32, &opt));
  size_t biases, at = 0;
  check(gradus_add_group(opt, no_decay, 1, &biases));
  for (size_t k = 0; k < 4; at += lengths[k++])
    check(gradus_add(opt, names[k], w + at, dw + at, lengths[k], k % 2 ? biases : 0, NULL));

  gradus_step_options options = gradus_default_step_options();
  options.max_grad_norm = 1;
  gradus_step_report report = {.size = sizeof report};
  double loss = 0;
  for (int t = 0; t < 500; ++t) {
    loss = loss_and_gradients(w, dw);
    options.lr_scale = 1 - t / 500.0;
    check(gradus_step(opt, &options, &report));
    if (t % 100 == 0)
      printf("step %3d: loss %.4f, gradient norm %.4f\n", t, loss, report.grad_norm);
  }
  printf("libgradus %s on %s: loss %.4f\n", gradus_version(), gradus_instruction_set(), loss);
  gradus_destroy(opt);
  return loss < 0.05 ? 0 : 1;
}
