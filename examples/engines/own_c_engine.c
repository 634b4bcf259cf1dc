/* A small engine in C, and libgradus in it: its tensors lie in an arena of its own, which moves when it grows; its threads
 * compute gradients in buffers of their own; and its checkpoints are its own, with libgradus's bytes inside. It trains
 * two layers on Fashion-MNIST. (examples/c/one_array.c has groups and schedules.) */

#include <gradus.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
  pixels = 784,
  hidden = 32,
  classes = 10,
  train_images = 3000,
  test_images = 1000,
  batch = 100,
  epochs = 10,
  workers = 2
};
enum { w1 = 0, b1 = w1 + pixels * hidden, w2 = b1 + hidden, b2 = w2 + hidden * classes, parameters = b2 + classes };

static const struct {
  const char* name;
  size_t at, n;
} tensors[] = {{"hidden.weight", w1, pixels* hidden},
               {"hidden.bias", b1, hidden},
               {"output.weight", w2, hidden* classes},
               {"output.bias", b2, classes}};
enum { tensor_count = sizeof tensors / sizeof tensors[0] };

static unsigned char images[(train_images + test_images) * pixels], labels[train_images + test_images];

static void fail(const char* why)
{
  fprintf(stderr, "own_c_engine: %s\n", why);
  exit(1);
}

static void check(gradus_status status)
{
  if (status != GRADUS_OK)
    fail(gradus_last_error());
}

/* ── the engine ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The weights, their gradients, and the workers' gradients, one after the other. */
typedef struct {
  float* memory;
  gradus_optimizer* optimizer;
} engine;

static float* weights_of(const engine* e) { return e->memory; }
static float* gradients_of(const engine* e) { return e->memory + parameters; }
static float* gradients_of_worker(const engine* e, size_t k) { return e->memory + (2 + k) * parameters; }

/* Moves the arena to other memory, as it does when it grows. The optimizer keeps its state, and gets the new addresses. */
static void move(engine* e)
{
  const size_t bytes = (2 + workers) * parameters * sizeof(float);
  float* const memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory)
    fail("out of memory");
  memcpy(memory, e->memory, bytes);
  free(e->memory);
  e->memory = memory;
  for (size_t k = 0; k < tensor_count; ++k)
    check(gradus_rebind(e->optimizer, k, weights_of(e) + tensors[k].at, gradients_of(e) + tensors[k].at, tensors[k].n));
}

static engine start(void)
{
  engine e = {calloc((2 + workers) * parameters, sizeof(float)), NULL};
  if (!e.memory)
    fail("out of memory");
  unsigned state = 1;
  for (size_t k = 0; k < parameters; ++k) {
    state = state * 1664525u + 1013904223u;
    if (k < b1 || (k >= w2 && k < b2))
      weights_of(&e)[k] = ((float)(state >> 8) / 8388608.0f - 1) * (k < b1 ? 0.05f : 0.2f);
  }
  const gradus_number numbers[] = {{"lr", 2e-3}, {"weight_decay", 1e-4}};
  check(gradus_create("adams", numbers, 2, GRADUS_FLOAT32, &e.optimizer));
  check(gradus_set_threads(e.optimizer, workers)); /* libgradus's own threads, used only by steps of large models */
  for (size_t k = 0; k < tensor_count; ++k)
    check(gradus_add(e.optimizer, tensors[k].name, weights_of(&e) + tensors[k].at, gradients_of(&e) + tensors[k].at,
                     tensors[k].n, 0, NULL));
  return e;
}

static void stop(engine* e)
{
  gradus_destroy(e->optimizer); /* before the memory that it views */
  free(e->memory);
}

/* The network's answer for one image: the most likely class. Fills in what the gradients need. */
static size_t answer(const float* w, size_t image, float x[pixels], float h[hidden], float p[classes])
{
  for (size_t i = 0; i < pixels; ++i)
    x[i] = (float)images[image * pixels + i] / 255;
  memcpy(h, w + b1, hidden * sizeof(float));
  for (size_t i = 0; i < pixels; ++i)
    for (size_t j = 0; j < hidden; ++j)
      h[j] += x[i] * w[w1 + i * hidden + j];
  memcpy(p, w + b2, classes * sizeof(float));
  for (size_t j = 0; j < hidden; ++j) {
    h[j] = h[j] > 0 ? h[j] : 0;
    for (size_t c = 0; c < classes; ++c)
      p[c] += h[j] * w[w2 + j * classes + c];
  }
  size_t best = 0;
  float sum = 0;
  for (size_t c = 1; c < classes; ++c)
    best = p[c] > p[best] ? c : best;
  const float largest = p[best];
  for (size_t c = 0; c < classes; ++c)
    sum += p[c] = expf(p[c] - largest);
  for (size_t c = 0; c < classes; ++c)
    p[c] /= sum;
  return best;
}

typedef struct {
  const engine* engine;
  size_t worker, from, to;
} job;

/* The gradients' sum over some images, in the worker's buffer. */
static void* work(void* argument)
{
  const job* const j = argument;
  const float* const w = weights_of(j->engine);
  float* const g = gradients_of_worker(j->engine, j->worker);
  memset(g, 0, parameters * sizeof(float));
  for (size_t image = j->from; image < j->to; ++image) {
    float x[pixels], h[hidden], p[classes], back[hidden];
    answer(w, image, x, h, p);
    p[labels[image]] -= 1;
    for (size_t k = 0; k < hidden; ++k) {
      back[k] = 0;
      for (size_t c = 0; c < classes; ++c) {
        g[w2 + k * classes + c] += h[k] * p[c];
        back[k] += w[w2 + k * classes + c] * p[c];
      }
      back[k] = h[k] > 0 ? back[k] : 0;
      g[b1 + k] += back[k];
    }
    for (size_t c = 0; c < classes; ++c)
      g[b2 + c] += p[c];
    for (size_t i = 0; i < pixels; ++i)
      for (size_t k = 0; k < hidden; ++k)
        g[w1 + i * hidden + k] += x[i] * back[k];
  }
  return NULL;
}

static void train_epoch(engine* e)
{
  gradus_step_options options = gradus_default_step_options();
  options.grad_scale = 1.0 / batch; /* the workers add up; the mean needs no pass of its own */
  options.max_grad_norm = 5;
  for (size_t from = 0; from < train_images; from += batch) {
    pthread_t threads[workers];
    job jobs[workers];
    for (size_t k = 0; k < workers; ++k) {
      jobs[k] = (job){e, k, from + k * batch / workers, from + (k + 1) * batch / workers};
      if (pthread_create(&threads[k], NULL, work, &jobs[k]) != 0)
        fail("no thread");
    }
    memset(gradients_of(e), 0, parameters * sizeof(float));
    for (size_t k = 0; k < workers; ++k) { /* in this order, so that every run has the same bits */
      pthread_join(threads[k], NULL);
      for (size_t i = 0; i < parameters; ++i)
        gradients_of(e)[i] += gradients_of_worker(e, k)[i];
    }
    check(gradus_step(e->optimizer, &options, NULL));
  }
}

static double test_error(const engine* e)
{
  float x[pixels], h[hidden], p[classes];
  int wrong = 0;
  for (size_t i = train_images; i < train_images + test_images; ++i)
    wrong += answer(weights_of(e), i, x, h, p) != labels[i];
  return 100.0 * wrong / test_images;
}

/* ── checkpoints ────────────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
  unsigned char* bytes;
  size_t size;
} blob;

static int append(void* self, const void* bytes, size_t count)
{
  blob* const b = self;
  unsigned char* const larger = realloc(b->bytes, b->size + count);
  if (!larger)
    return 0; /* gradus_save_to then fails */
  memcpy(larger + b->size, bytes, count);
  *b = (blob){larger, b->size + count};
  return 1;
}

/* ── the data ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

static void read_gz(const char* path, size_t header, unsigned char* to, size_t count)
{
  unsigned char skipped[16];
  const gzFile file = gzopen(path, "rb");
  if (!file) {
    puts("own_c_engine: needs dataset-fashion-mnist");
    exit(77);
  }
  if (gzread(file, skipped, (unsigned)header) != (int)header ||
      gzread(file, to, (unsigned)count) != (int)count)
    fail("the images of dataset-fashion-mnist are damaged");
  gzclose(file);
}

int main(void)
{
  read_gz("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz", 16, images, sizeof images);
  read_gz("/usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz", 8, labels, sizeof labels);
  for (size_t i = 0; i < sizeof labels; ++i)
    if (labels[i] >= classes)
      fail("a label is not below 10");

  /* One run, whose arena moves after each epoch; and another that is saved half-way, and goes on in a new engine. */
  engine once = start();
  for (int epoch = 0; epoch < epochs; ++epoch) {
    train_epoch(&once);
    move(&once);
  }

  engine first = start(), second = start();
  for (int epoch = 0; epoch < epochs / 2; ++epoch)
    train_epoch(&first);
  blob saved = {NULL, 0};
  check(gradus_save_to(first.optimizer, append, &saved, 1));
  check(gradus_load_from(second.optimizer, saved.bytes, saved.size, NULL));
  for (int epoch = epochs / 2; epoch < epochs; ++epoch)
    train_epoch(&second);

  const int same = memcmp(weights_of(&once), weights_of(&second), parameters * sizeof(float)) == 0;
  const double error = test_error(&once);
  printf("own_c_engine: test error %.1f %%, %zu bytes of checkpoint, %s\n", error, saved.size,
         same ? "the same bits after the resume" : "OTHER BITS after the resume");
  free(saved.bytes);
  stop(&once);
  stop(&first);
  stop(&second);
  return same && error < 25 ? 0 : 1;
}
