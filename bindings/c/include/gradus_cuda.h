/** \file
 * gradus in C on a CUDA device. Link with libgradus_cuda instead of libgradus: it has all functions of gradus.h, too.
 *
 *     gradus_optimizer* opt;
 *     if (gradus_create_cuda("adamw", NULL, 0, GRADUS_FLOAT32, stream, &opt) != GRADUS_OK) puts(gradus_last_error());
 *     gradus_add(opt, "w", w, dw, n, 0, NULL);   // device memory
 *     while (training) {
 *       compute(w, dw);                          // on the same stream
 *       gradus_step(opt, NULL, NULL);            // returns at once
 *     }
 *     gradus_destroy(opt);
 *
 * The functions of gradus.h work on such an optimizer with these differences:
 *
 * - Parameters and gradients are in memory that the device can access. So is the state: gradus_state gives device
 *   memory.
 * - A step is enqueued on the stream, for all tensors at once, and allocates nothing. Without a report it returns at
 *   once; with one it waits for the step. gradus_report waits for it later. After tensors were added, removed or
 *   rebound, the next step sends their list.
 * - All functions that need a result of the device wait for the stream: gradus_step_count, gradus_state,
 *   gradus_for_each_slot, gradus_save and gradus_load, and those that change tensors or groups.
 * - gradus_set_threads has no effect, gradus_copy_average is refused, and so is flush_denormals in a step.
 * - CUDA's errors are GRADUS_DEVICE, with CUDA's own words in gradus_last_error. */
#ifndef GRADUS_CUDA_H
#define GRADUS_CUDA_H

#include <gradus.h>

#ifdef __cplusplus
extern "C" {
#endif

/** CUDA's own name of what a cudaStream_t or a CUstream points at. */
struct CUstream_st;

/** Makes an optimizer on the current CUDA device. Its other calls use that device, whichever is current then.
 * \param stream  a cudaStream_t or CUstream of the device, in whose order steps are taken; it has to live until the
 *                optimizer is destroyed; NULL: the default stream
 * \param out     receives the optimizer, or NULL if the call fails
 * The rest as for gradus_create. GRADUS_DEVICE if there is no device. */
GRADUS_API gradus_status gradus_create_cuda(const char* recipe, const gradus_number* numbers, size_t count,
                                            gradus_dtype dtype, struct CUstream_st* stream, gradus_optimizer** out);
/** Lets later steps and calls use another stream of the same device. The caller orders the streams: what was enqueued on
 * the old one may still be running. A graph that was captured keeps the stream that it is launched on.
 * \param stream  as for gradus_create_cuda. Refused for an optimizer on the host */
GRADUS_API gradus_status gradus_set_stream(gradus_optimizer*, struct CUstream_st* stream);
/** Sets the options of later replays of a captured graph of gradus_step, in the order of the stream. A graph has the
 * kernels for the options that it was captured with. Capture after a step that was not captured, without a report; and
 * again after adding, removing or rebinding tensors, or changing hyperparameters.
 * \param options  NULL: the defaults. Refused for an optimizer on the host */
GRADUS_API gradus_status gradus_set_options(gradus_optimizer*, const gradus_step_options* options);

#ifdef __cplusplus
}
#endif
#endif
