/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one image through a program of one accelerator step with one input and one output.
 *
 * core: how this system reaches the core. memory: for the windows of the step, see loomwork_memory_bytes. */
#include "loomwork_driver.h"

enum loomwork_result run_image(const struct loomwork_core *core, const struct loomwork_memory *memory,
                               const void *file, size_t file_bytes, const int8_t *input, size_t input_values,
                               int8_t *output, size_t output_values)
{
    struct loomwork_program program;
    struct loomwork_step step;
    struct loomwork_job job;
    struct loomwork_failure failure;
    enum loomwork_result result = loomwork_open(&program, file, file_bytes);
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_accepts(core, &program);
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_program_step(&program, 0, &step);
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_prepare(core, &step, memory, &job);
    /* Until here once, from here for each image. */
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_place(&job, 0, input, input_values);
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_run(core, &job, &failure);
    if (result == LOOMWORK_RESULT_OK)
        result = loomwork_take(&job, 0, output, output_values);
    return result;
}
