/** \file
 * gradus in C: optimizers by name, over arrays of the caller's. C11 and C++; link with libgradus.
 *
 *     gradus_optimizer* opt;
 *     gradus_number numbers[] = {{"lr", 1e-3}, {"weight_decay", 0.01}};
 *     if (gradus_create("adamw", numbers, 2, GRADUS_FLOAT32, &opt) != GRADUS_OK) puts(gradus_last_error());
 *     gradus_add(opt, "w", w, dw, n, 0, NULL);
 *     while (training) {
 *       compute(w, dw);
 *       gradus_step(opt, NULL, NULL);
 *     }
 *     gradus_destroy(opt);
 *
 * Arrays are viewed and never copied: they have to stay where they are until they are rebound, their tensor is removed,
 * or the optimizer is destroyed. Steps use the widest instruction set of the machine.
 *
 * A call that fails returns a status, changes nothing and leaves a sentence in gradus_last_error. An optimizer may be
 * used by one thread at a time; a call that meets another thread's is refused. Different optimizers are independent. */
#ifndef GRADUS_H
#define GRADUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(GRADUS_BUILDS_LIBRARY) && defined(__GNUC__)
#define GRADUS_API __attribute__((visibility("default")))
#else
#define GRADUS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** An optimizer; only handled by its address. */
typedef struct gradus_optimizer gradus_optimizer;

/** What a call returns. */
typedef enum {
  GRADUS_OK = 0,           /**< it succeeded */
  GRADUS_INVALID_ARGUMENT, /**< an argument, or the content of a checkpoint, is not what was expected */
  GRADUS_OUT_OF_MEMORY,    /**< there is not enough memory */
  GRADUS_IO,               /**< a file cannot be opened, read or written */
  GRADUS_INTERNAL,         /**< anything else, such as a thread that the system did not start */
  GRADUS_DEVICE            /**< an error of CUDA, such as no device (gradus_cuda.h) */
} gradus_status;

/** The type of parameters and gradients. State is in float64 for float64, otherwise in float32. 16-bit parameters have
 * master weights in float32, the state "master". */
typedef enum
#ifdef __cplusplus
    : unsigned /* the type that C has, so that a number which is no dtype can be passed, and is refused */
#endif
{ GRADUS_FLOAT32 = 0,
  GRADUS_FLOAT64,
  GRADUS_BFLOAT16,
  GRADUS_FLOAT16 } gradus_dtype;

/** A hyperparameter by its name; a switch's value is 0 or 1. */
typedef struct {
  const char* name;
  double value;
} gradus_number;

/** The options of a step. Later versions add fields at the end, so begin with gradus_default_step_options(). */
typedef struct {
  size_t size;          /**< sizeof(gradus_step_options) */
  double lr_scale;      /**< >= 0; a schedule's factor on the learning rate; 1 */
  double grad_scale;    /**< > 0; factor on every gradient, such as 1/loss scale; 1 */
  double max_grad_norm; /**< > 0; clips the norm of all scaled gradients to this; infinity only measures; NaN: neither */
  double grad_norm_sq;  /**< the sum of squares of all gradients before grad_scale, if known; NaN: not known */
  int skip_nonfinite;   /**< 1 skips a step with a gradient that is infinite or NaN, or that would make a weight so; 0 */
  int flush_denormals;  /**< 1 treats denormal numbers as zeros during the step; 0 */
  double mean_square;   /**< the mean of the whole model's second moments, if several optimizers have parts; NaN: none */
  uint64_t model_size;  /**< the number of weights in the whole model, if grad_norm_sq is the whole model's; 0: none */
  double lr;            /**< >= 0; an absolute learning rate in place of every group's, with lr_scale 1; NaN: none */
  double decay_scale;   /**< >= 0; a schedule's factor on the weight decay; 1 */
  int maximize;         /**< 1 ascends; 0 */
} gradus_step_options;

/** What a step did. Numbers that were not computed are NaN. */
typedef struct {
  size_t size;         /**< sizeof(gradus_step_report), set by the caller */
  int applied;         /**< 0 if skip_nonfinite skipped the step */
  double grad_norm;    /**< the norm of all gradients after grad_scale and before clipping */
  double mean_square;  /**< the mean of the second moments, with a scheduled weight decay */
  double decay_factor; /**< the factor of a scheduled weight decay */
  int decay_clamped;   /**< 1 if a scheduled decay's rate exceeded 1 and was lowered to 1 */
} gradus_step_report;

/** How a checkpoint is loaded. Later versions add fields at the end, so begin with gradus_default_load_options(). */
typedef struct {
  size_t size;    /**< sizeof(gradus_load_options) */
  int parameters; /**< 1: also the parameters, 0: not, -1: if the checkpoint has them; -1 */
  int settings;   /**< 1: also hyperparameters, and which tensors are frozen; 1 */
  int lenient;    /**< 1: what fits, instead of refusing a checkpoint that does not fit in everything; 0 */
  int convert;    /**< 1: also numbers of another precision, rounded to nearest; 0 */
} gradus_load_options;

/** The sentence of this thread's last call that failed; valid until its next one fails. Empty if none has. */
GRADUS_API const char* gradus_last_error(void);
/** The version of the library, such as "0.1.0". */
GRADUS_API const char* gradus_version(void);
/** The instruction set that steps use: "baseline", "avx2_fma", "avx512" or "neon". */
GRADUS_API const char* gradus_instruction_set(void);

/** The number of recipes. */
GRADUS_API size_t gradus_recipe_count(void);
/** The name of a recipe, such as "adamw"; NULL from gradus_recipe_count() on. */
GRADUS_API const char* gradus_recipe_name(size_t index);
/** A recipe's hyperparameters with their defaults.
 * \param numbers   room for `capacity` of them; may be NULL if capacity is 0
 * \param count     receives how many there are, even if that is more than fit */
GRADUS_API gradus_status gradus_recipe_numbers(const char* recipe, gradus_number* numbers, size_t capacity,
                                               size_t* count);

/** Makes an optimizer.
 * \param recipe   one of the recipes' names
 * \param numbers  `count` hyperparameters that replace defaults; may be NULL if count is 0
 * \param out      receives the optimizer, or NULL if the call fails */
GRADUS_API gradus_status gradus_create(const char* recipe, const gradus_number* numbers, size_t count,
                                       gradus_dtype dtype, gradus_optimizer** out);
/** Destroys an optimizer, not its arrays. Does nothing for NULL. No other thread may be in a call with it. */
GRADUS_API void gradus_destroy(gradus_optimizer*);
/** The name of the recipe; NULL for NULL. */
GRADUS_API const char* gradus_recipe(const gradus_optimizer*);
/** Runs steps of large models on this many threads: 1 at first, at most 4096; 0: as many as the machine has. The results
 * have the same bits. */
GRADUS_API gradus_status gradus_set_threads(gradus_optimizer*, unsigned threads);

/** Adds a group of tensors, with group 0's hyperparameters but for those named.
 * \param group  receives its number, from 1 on; may be NULL */
GRADUS_API gradus_status gradus_add_group(gradus_optimizer*, const gradus_number* changed, size_t count,
                                          size_t* group);
/** Changes hyperparameters of a group from the next step on. */
GRADUS_API gradus_status gradus_set_group(gradus_optimizer*, size_t group, const gradus_number* changed, size_t count);
/** A group's hyperparameters; the rest as for gradus_recipe_numbers. */
GRADUS_API gradus_status gradus_get_group(const gradus_optimizer*, size_t group, gradus_number* numbers,
                                          size_t capacity, size_t* count);
/** Sets a group's learning rate from the next step on. */
GRADUS_API gradus_status gradus_set_lr(gradus_optimizer*, size_t group, double lr);

/** Adds a tensor of n numbers of the optimizer's type.
 * \param name        unlike all other tensors', in UTF-8; NULL: "tensor0", "tensor1", … by its number
 * \param gradients   n numbers; NULL: the tensor is frozen until gradus_rebind gives it some
 * \param group       0, or a number from gradus_add_group
 * \param tensor      receives the tensor's number, 0, 1, …; may be NULL */
GRADUS_API gradus_status gradus_add(gradus_optimizer*, const char* name, void* parameters, const void* gradients,
                                    size_t n, size_t group, size_t* tensor);
/** Points a tensor at new memory; its state stays.
 * \param gradients  NULL: the tensor is frozen until it is rebound with gradients
 * \param n          the length that it has */
GRADUS_API gradus_status gradus_rebind(gradus_optimizer*, size_t tensor, void* parameters, const void* gradients,
                                       size_t n);
/** Lets steps skip a tensor; weights, state and step count stay as they are. */
GRADUS_API gradus_status gradus_freeze(gradus_optimizer*, size_t tensor);
/** Lets a frozen tensor take part in steps again. */
GRADUS_API gradus_status gradus_unfreeze(gradus_optimizer*, size_t tensor);
/** Removes a tensor; its number then stands for none.
 * \param keep_state  1: a tensor of the same name and length that is added later goes on with its state */
GRADUS_API gradus_status gradus_remove(gradus_optimizer*, size_t tensor, int keep_state);
/** Reads 16-bit parameters into their master weights, after other code has changed them. */
GRADUS_API gradus_status gradus_reset_master(gradus_optimizer*, size_t tensor);

/** Writes the weights that the recipe averages, for schedule_free_adamw those to evaluate and to keep.
 * \param to  room for the tensor's n parameters, of the optimizer's dtype; may be the parameters themselves */
GRADUS_API gradus_status gradus_copy_average(const gradus_optimizer*, size_t tensor, void* to, size_t n);
/** The number of steps that a tensor has taken. */
GRADUS_API gradus_status gradus_step_count(const gradus_optimizer*, size_t tensor, uint64_t* count);
/** The number of parameters in all tensors; 0 for NULL. */
GRADUS_API size_t gradus_parameter_count(const gradus_optimizer*);
/** The bytes of state of all tensors; 0 for NULL. */
GRADUS_API size_t gradus_state_bytes(const gradus_optimizer*);

/** One slot of a tensor's state, to be read or changed until the tensor is removed, such as "exp_avg" of "w", or "master".
 * \param values  receives the address of the first number
 * \param n       receives how many there are
 * \param dtype   receives their type; may be NULL */
GRADUS_API gradus_status gradus_state(gradus_optimizer*, const char* tensor, const char* slot, void** values, size_t* n,
                                      gradus_dtype* dtype);
/** Calls visit(self, tensor, slot) for each slot of each tensor. `visit` must not change the optimizer. */
GRADUS_API gradus_status gradus_for_each_slot(gradus_optimizer*,
                                              void (*visit)(void* self, const char* tensor, const char* slot),
                                              void* self);

/** Writes the default options of a step, `size` bytes of them; gradus_default_step_options is shorter. */
GRADUS_API void gradus_init_step_options(gradus_step_options* options, size_t size);
/** Writes the default options of a load, `size` bytes of them; gradus_default_load_options is shorter. */
GRADUS_API void gradus_init_load_options(gradus_load_options* options, size_t size);

/** The default options of a step. Inline, so that the struct has the size that the caller was compiled with. */
static inline gradus_step_options gradus_default_step_options(void)
{
  gradus_step_options o;
  gradus_init_step_options(&o, sizeof o);
  return o;
}
/** The default options of a load. */
static inline gradus_load_options gradus_default_load_options(void)
{
  gradus_load_options o;
  gradus_init_load_options(&o, sizeof o);
  return o;
}

/** Takes one step with all tensors that are not frozen. Allocates nothing.
 * \param options  NULL: the defaults
 * \param report   receives what was done, unless NULL; its size has to be set */
GRADUS_API gradus_status gradus_step(gradus_optimizer*, const gradus_step_options* options,
                                     gradus_step_report* report);

/** What the last step did; before the first, `applied` is 0. \param report  its size has to be set */
GRADUS_API gradus_status gradus_report(const gradus_optimizer*, gradus_step_report* report);

/** Saves to a safetensors file, which is replaced as a whole or not at all. The file is the one that gradus writes in
 * C++ and Python.
 * \param path             in the file system's encoding
 * \param with_parameters  1: also the parameters */
GRADUS_API gradus_status gradus_save(const gradus_optimizer*, const char* path, int with_parameters);
/** Loads a file into the tensors that have been added, by their names. Refuses one that does not fit in everything. */
GRADUS_API gradus_status gradus_load(gradus_optimizer*, const char* path);
/** The same with options. */
GRADUS_API gradus_status gradus_load_with(gradus_optimizer*, const char* path, const gradus_load_options* options);
/** Saves to anywhere: calls write(self, bytes, count) with one piece after the other, which returns 0 if it failed. */
GRADUS_API gradus_status gradus_save_to(const gradus_optimizer*,
                                        int (*write)(void* self, const void* bytes, size_t count), void* self,
                                        int with_parameters);
/** Loads a checkpoint of `size` bytes from memory. \param options  NULL: the defaults */
GRADUS_API gradus_status gradus_load_from(gradus_optimizer*, const void* bytes, size_t size,
                                          const gradus_load_options* options);

#ifdef __cplusplus
}
#endif
#endif
