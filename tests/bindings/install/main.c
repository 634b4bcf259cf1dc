/* A program that uses the installed library; with the argument "version", prints the library's. */
#include <stdio.h>
#include <string.h>

#ifdef CONSUMER_CUDA
#include <gradus_cuda.h>
#else
#include <gradus.h>
#endif

static int fails(const char* call)
{
  printf("%s: %s\n", call, gradus_last_error());
  return 1;
}

int main(int argc, char** argv)
{
  if (argc > 1 && strcmp(argv[1], "version") == 0)
    return puts(gradus_version()) < 0;
  gradus_optimizer* opt;
  float w[3] = {1, 2, 3}, dw[3] = {1, 1, 1};
  if (gradus_create("sgd", NULL, 0, GRADUS_FLOAT32, &opt) != GRADUS_OK)
    return fails("gradus_create");
  if (gradus_add(opt, "w", w, dw, 3, 0, NULL) != GRADUS_OK || gradus_step(opt, NULL, NULL) != GRADUS_OK)
    return fails("gradus_step");
  gradus_destroy(opt);
  if (!(w[0] < 1))
    return puts("the step changed nothing"), 1;
#ifdef CONSUMER_CUDA
  /* Where there is no device, this says so. */
  const gradus_status made = gradus_create_cuda("sgd", NULL, 0, GRADUS_FLOAT32, NULL, &opt);
  if (made != GRADUS_OK && made != GRADUS_DEVICE)
    return fails("gradus_create_cuda");
  gradus_destroy(opt);
#endif
  printf("libgradus %s\n", gradus_version());
  return 0;
}
