/* The layout that programs are compiled against: fields may be added at the end of structs that carry their size, and
 * nothing may move. */

#include <gradus.h>
#include <stddef.h>

#define HAS(type, field, at) _Static_assert(offsetof(type, field) == (at), #type " has its field " #field " elsewhere")

HAS(gradus_number, name, 0);
HAS(gradus_number, value, 8);
_Static_assert(sizeof(gradus_number) == 16, "arrays of numbers have another stride");

HAS(gradus_step_options, size, 0);
HAS(gradus_step_options, lr_scale, 8);
HAS(gradus_step_options, grad_scale, 16);
HAS(gradus_step_options, max_grad_norm, 24);
HAS(gradus_step_options, grad_norm_sq, 32);
HAS(gradus_step_options, skip_nonfinite, 40);
HAS(gradus_step_options, flush_denormals, 44);
HAS(gradus_step_options, mean_square, 48);
HAS(gradus_step_options, model_size, 56);
HAS(gradus_step_options, lr, 64);
HAS(gradus_step_options, decay_scale, 72);
HAS(gradus_step_options, maximize, 80);

HAS(gradus_step_report, size, 0);
HAS(gradus_step_report, applied, 8);
HAS(gradus_step_report, grad_norm, 16);
HAS(gradus_step_report, mean_square, 24);
HAS(gradus_step_report, decay_factor, 32);
HAS(gradus_step_report, decay_clamped, 40);

HAS(gradus_load_options, size, 0);
HAS(gradus_load_options, parameters, 8);
HAS(gradus_load_options, settings, 12);
HAS(gradus_load_options, lenient, 16);
HAS(gradus_load_options, convert, 20);

_Static_assert(GRADUS_OK == 0 && GRADUS_INVALID_ARGUMENT == 1 && GRADUS_OUT_OF_MEMORY == 2 && GRADUS_IO == 3 &&
                   GRADUS_INTERNAL == 4 && GRADUS_DEVICE == 5, "a status has another number");
_Static_assert(GRADUS_FLOAT32 == 0 && GRADUS_FLOAT64 == 1 && GRADUS_BFLOAT16 == 2 && GRADUS_FLOAT16 == 3,
               "a dtype has another number");
