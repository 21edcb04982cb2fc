/* SPDX-License-Identifier: Apache-2.0 */
/* Reads program files (docs/reference/program.md). */
#include "loomwork_json.h"

static uint64_t header_number(const uint8_t *header, unsigned offset, unsigned bytes)
{
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | header[offset + bytes];
    return value;
}

#define HEADER_NUMBER(header, field) \
    header_number((header), LOOMWORK_LWB_##field##_OFFSET, LOOMWORK_LWB_##field##_BYTES)

/* CRC-32 of zlib and Ethernet (ISO 3309), four bits at a time. */
static uint32_t crc32(const uint8_t *bytes, size_t length)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    uint32_t crc = 0xffffffffu;
    for (size_t place = 0; place < length; place++) {
        crc ^= bytes[place];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static enum loomwork_result check_header(const uint8_t *file, size_t length)
{
    static const char magic[] = LOOMWORK_LWB_MAGIC;
    for (size_t place = 0; place < LOOMWORK_LWB_MAGIC_BYTES; place++)
        if (place >= length || file[place] != (uint8_t)magic[place])
            return LOOMWORK_RESULT_NOT_A_PROGRAM;
    if (length < LOOMWORK_LWB_HEADER_BYTES)
        return LOOMWORK_RESULT_TRUNCATED;
    if (crc32(file, LOOMWORK_LWB_HEADER_CRC_OFFSET) != HEADER_NUMBER(file, HEADER_CRC) || HEADER_NUMBER(file, RESERVED))
        return LOOMWORK_RESULT_DAMAGED_HEADER;
    if (HEADER_NUMBER(file, FORMAT_VERSION) != LOOMWORK_LWB_FORMAT_VERSION)
        return LOOMWORK_RESULT_WRONG_FORMAT;
    if (HEADER_NUMBER(file, LENGTH) > length)
        return LOOMWORK_RESULT_TRUNCATED;
    if (HEADER_NUMBER(file, LENGTH) < length)
        return LOOMWORK_RESULT_TOO_LONG;
    if (crc32(file + LOOMWORK_LWB_HEADER_BYTES, length - LOOMWORK_LWB_HEADER_BYTES) != HEADER_NUMBER(file, BODY_CRC))
        return LOOMWORK_RESULT_DAMAGED;
    if (HEADER_NUMBER(file, ISA_HASH) != LOOMWORK_ISA_HASH)
        return LOOMWORK_RESULT_WRONG_DRIVER;
    return LOOMWORK_RESULT_OK;
}

static bool number_member(struct loomwork_span object, const char *key, uint32_t *number)
{
    struct loomwork_span value;
    return loomwork_json_member(object, key, &value) && loomwork_json_number(value, UINT32_MAX, number);
}

static bool text_member(struct loomwork_span object, const char *key, struct loomwork_span *text)
{
    return loomwork_json_member(object, key, text) && loomwork_json_text(*text, text);
}

static bool list_member(struct loomwork_span object, const char *key, struct loomwork_span *contents, size_t *count)
{
    return loomwork_json_member(object, key, contents) && loomwork_json_list(*contents, contents)
           && loomwork_json_count(*contents, count);
}

static bool list_item(struct loomwork_span contents, size_t index, struct loomwork_span *item)
{
    do {
        if (!loomwork_json_next(&contents, item))
            return false;
    } while (index--);
    return true;
}

/* {"offset": o, "length": n}: these bytes of the data behind the metadata. */
static bool data_member(const struct loomwork_program *program, struct loomwork_span object, const char *key,
                        struct loomwork_span *bytes)
{
    struct loomwork_span place;
    uint32_t offset;
    uint32_t length;
    const size_t available = (size_t)(program->data.end - program->data.begin);
    if (!loomwork_json_member(object, key, &place) || !number_member(place, "offset", &offset)
        || !number_member(place, "length", &length) || offset > available || length > available - offset)
        return false;
    bytes->begin = program->data.begin + offset;
    bytes->end = bytes->begin + length;
    return true;
}

static bool read_shape(struct loomwork_tensor *tensor)
{
    struct loomwork_span rest = tensor->shape;
    struct loomwork_span item;
    uint32_t size;
    tensor->values = 1;
    while (loomwork_json_next(&rest, &item)) {
        if (!loomwork_json_number(item, UINT32_MAX, &size) || !size)
            return false;
        const uint64_t values = (uint64_t)tensor->values * size;
        if (values > UINT32_MAX)
            return false;
        tensor->values = (uint32_t)values;
    }
    return rest.begin == rest.end;
}

static bool read_zero_point(struct loomwork_span value, int32_t *zero_point)
{
    uint32_t magnitude;
    const bool negative = value.begin != value.end && *value.begin == '-';
    if (negative)
        value.begin++;
    if (!loomwork_json_number(value, negative ? 0x80000000u : 0x7fffffffu, &magnitude))
        return false;
    *zero_point = negative ? (int32_t)-(int64_t)magnitude : (int32_t)magnitude;
    return true;
}

static bool is_null(struct loomwork_span value)
{
    return loomwork_text_is(value, "null");
}

static bool read_tensor(struct loomwork_span object, struct loomwork_tensor *tensor)
{
    struct loomwork_span zero_point;
    tensor->zero_point = 0;
    if (!text_member(object, "name", &tensor->name) || !text_member(object, "dtype", &tensor->dtype)
        || !list_member(object, "shape", &tensor->shape, &tensor->dimensions) || !read_shape(tensor)
        || !loomwork_json_member(object, "scale", &tensor->scale)
        || !loomwork_json_member(object, "zero_point", &zero_point))
        return false;
    tensor->quantized = !is_null(tensor->scale) && !is_null(zero_point);
    return is_null(zero_point) || read_zero_point(zero_point, &tensor->zero_point);
}

/* The tensor that a value of the metadata names. */
static bool named_tensor(const struct loomwork_program *program, struct loomwork_span value,
                         struct loomwork_tensor *tensor)
{
    struct loomwork_span name;
    struct loomwork_span rest = program->tensor_list;
    struct loomwork_span item;
    if (!loomwork_json_text(value, &name))
        return false;
    while (loomwork_json_next(&rest, &item)) {
        if (!read_tensor(item, tensor))
            return false;
        if (loomwork_json_equal(tensor->name, name))
            return true;
    }
    return false;
}

static bool read_placement(const struct loomwork_program *program, struct loomwork_span object,
                           struct loomwork_placement *placement)
{
    struct loomwork_span name;
    if (!loomwork_json_member(object, "tensor", &name) || !named_tensor(program, name, &placement->tensor)
        || !number_member(object, "offset", &placement->offset)
        || !number_member(object, "row_stride", &placement->row_stride)
        || !number_member(object, "rows", &placement->rows) || !number_member(object, "row_bytes", &placement->row_bytes))
        return false;
    const uint64_t bytes = (uint64_t)placement->rows * placement->row_stride;
    return loomwork_text_is(placement->tensor.dtype, "int8") && placement->rows && placement->row_bytes
           && placement->row_stride >= placement->row_bytes
           && (uint64_t)placement->rows * placement->row_bytes == placement->tensor.values
           && bytes <= UINT32_MAX - placement->offset;
}

/* Where the last placement of a list ends. */
static bool window_bytes(const struct loomwork_program *program, struct loomwork_span list, uint32_t *bytes)
{
    struct loomwork_placement placement;
    struct loomwork_span item;
    *bytes = 0;
    while (loomwork_json_next(&list, &item)) {
        if (!read_placement(program, item, &placement))
            return false;
        const uint32_t end = placement.offset + placement.rows * placement.row_stride;
        *bytes = end > *bytes ? end : *bytes;
    }
    return *bytes != 0;
}

static bool ends_with_end(struct loomwork_span commands)
{
    const size_t length = (size_t)(commands.end - commands.begin);
    if (!length || length % LOOMWORK_COMMAND_BYTES)
        return false;
    const uint8_t *last = commands.end - LOOMWORK_COMMAND_BYTES;
    const unsigned opcode = last[0] & ((1u << LOOMWORK_END_OPCODE_WIDTH) - 1);
    return opcode == LOOMWORK_OPCODE_END;
}

static bool read_step(const struct loomwork_program *program, struct loomwork_span object, struct loomwork_step *step)
{
    const struct loomwork_span nothing = {program->data.begin, program->data.begin};
    struct loomwork_span kind;
    step->program = program;
    step->commands = step->constants = step->model = nothing;
    step->input_bytes = step->output_bytes = step->workspace_bytes = 0;
    if (!text_member(object, "kind", &kind) || !list_member(object, "inputs", &step->input_list, &step->inputs)
        || !list_member(object, "outputs", &step->output_list, &step->outputs))
        return false;
    if (loomwork_text_is(kind, "host")) {
        step->kind = LOOMWORK_KIND_HOST;
        return data_member(program, object, "model", &step->model);
    }
    step->kind = LOOMWORK_KIND_ACCELERATOR;
    return loomwork_text_is(kind, "accelerator") && data_member(program, object, "commands", &step->commands)
           && data_member(program, object, "constants", &step->constants) && ends_with_end(step->commands)
           && number_member(object, "workspace_bytes", &step->workspace_bytes)
           && window_bytes(program, step->input_list, &step->input_bytes)
           && window_bytes(program, step->output_list, &step->output_bytes);
}

static bool all_tensors(const struct loomwork_program *program, struct loomwork_span names)
{
    struct loomwork_tensor tensor;
    struct loomwork_span item;
    while (loomwork_json_next(&names, &item))
        if (!named_tensor(program, item, &tensor))
            return false;
    return true;
}

/* Read everything once, so that no function fails later. */
static bool check_contents(const struct loomwork_program *program)
{
    struct loomwork_tensor tensor;
    struct loomwork_step step;
    struct loomwork_span rest = program->tensor_list;
    struct loomwork_span item;
    while (loomwork_json_next(&rest, &item))
        if (!read_tensor(item, &tensor))
            return false;
    if (!program->inputs || !program->outputs || !all_tensors(program, program->input_list)
        || !all_tensors(program, program->output_list))
        return false;
    for (rest = program->step_list; loomwork_json_next(&rest, &item);) {
        if (!read_step(program, item, &step))
            return false;
        if (step.kind == LOOMWORK_KIND_HOST
            && (!all_tensors(program, step.input_list) || !all_tensors(program, step.output_list)))
            return false;
    }
    return true;
}

enum loomwork_result loomwork_open(struct loomwork_program *program, const void *file, size_t length)
{
    const uint8_t *bytes = file;
    const enum loomwork_result result = check_header(bytes, length);
    if (result != LOOMWORK_RESULT_OK)
        return result;
    const uint64_t size = HEADER_NUMBER(bytes, METADATA_LENGTH);
    if (size > length - LOOMWORK_LWB_HEADER_BYTES)
        return LOOMWORK_RESULT_MALFORMED;
    const size_t end = LOOMWORK_LWB_HEADER_BYTES + (size_t)size;
    const size_t gap = (LOOMWORK_LWB_ALIGNMENT - end % LOOMWORK_LWB_ALIGNMENT) % LOOMWORK_LWB_ALIGNMENT;
    struct loomwork_span metadata = {bytes + LOOMWORK_LWB_HEADER_BYTES, bytes + end};
    struct loomwork_span root;
    struct loomwork_span config;
    program->isa_hash = (uint32_t)HEADER_NUMBER(bytes, ISA_HASH);
    program->config_hash = HEADER_NUMBER(bytes, CONFIG_HASH);
    program->data.begin = bytes + (gap < length - end ? end + gap : length);
    program->data.end = bytes + length;
    if (!loomwork_json_next(&metadata, &root) || metadata.begin != metadata.end
        || !loomwork_json_member(root, "config", &config)
        || !number_member(config, "bus_bytes", &program->bus_bytes)
        || !number_member(config, "address_bits", &program->address_bits)
        || !list_member(root, "steps", &program->step_list, &program->steps)
        || !list_member(root, "inputs", &program->input_list, &program->inputs)
        || !list_member(root, "outputs", &program->output_list, &program->outputs)
        || !list_member(root, "tensors", &program->tensor_list, &program->tensors))
        return LOOMWORK_RESULT_MALFORMED;
    if (!program->bus_bytes || program->bus_bytes > LOOMWORK_MAX_BUS_BYTES || (program->bus_bytes & (program->bus_bytes - 1))
        || !program->address_bits || program->address_bits > 64 || !check_contents(program))
        return LOOMWORK_RESULT_MALFORMED;
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_program_step(const struct loomwork_program *program, size_t index,
                                           struct loomwork_step *step)
{
    struct loomwork_span item;
    if (!list_item(program->step_list, index, &item))
        return LOOMWORK_RESULT_NO_SUCH_ITEM;
    return read_step(program, item, step) ? LOOMWORK_RESULT_OK : LOOMWORK_RESULT_MALFORMED;
}

static enum loomwork_result named_item(const struct loomwork_program *program, struct loomwork_span list, size_t index,
                                       struct loomwork_tensor *tensor)
{
    struct loomwork_span item;
    if (!list_item(list, index, &item))
        return LOOMWORK_RESULT_NO_SUCH_ITEM;
    return named_tensor(program, item, tensor) ? LOOMWORK_RESULT_OK : LOOMWORK_RESULT_MALFORMED;
}

enum loomwork_result loomwork_program_input(const struct loomwork_program *program, size_t index,
                                            struct loomwork_tensor *tensor)
{
    return named_item(program, program->input_list, index, tensor);
}

enum loomwork_result loomwork_program_output(const struct loomwork_program *program, size_t index,
                                             struct loomwork_tensor *tensor)
{
    return named_item(program, program->output_list, index, tensor);
}

enum loomwork_result loomwork_program_tensor(const struct loomwork_program *program, size_t index,
                                             struct loomwork_tensor *tensor)
{
    struct loomwork_span item;
    if (!list_item(program->tensor_list, index, &item))
        return LOOMWORK_RESULT_NO_SUCH_ITEM;
    return read_tensor(item, tensor) ? LOOMWORK_RESULT_OK : LOOMWORK_RESULT_MALFORMED;
}

enum loomwork_result loomwork_find_tensor(const struct loomwork_program *program, const char *name,
                                          struct loomwork_tensor *tensor)
{
    struct loomwork_span rest = program->tensor_list;
    struct loomwork_span item;
    while (loomwork_json_next(&rest, &item))
        if (read_tensor(item, tensor) && loomwork_text_is(tensor->name, name))
            return LOOMWORK_RESULT_OK;
    return LOOMWORK_RESULT_NO_SUCH_ITEM;
}

enum loomwork_result loomwork_tensor_dimension(const struct loomwork_tensor *tensor, size_t index, uint32_t *size)
{
    struct loomwork_span item;
    if (!list_item(tensor->shape, index, &item) || !loomwork_json_number(item, UINT32_MAX, size))
        return LOOMWORK_RESULT_NO_SUCH_ITEM;
    return LOOMWORK_RESULT_OK;
}

static enum loomwork_result step_item(const struct loomwork_step *step, struct loomwork_span list, size_t index,
                                      struct loomwork_placement *placement)
{
    struct loomwork_span item;
    if (step->kind == LOOMWORK_KIND_HOST) {
        placement->offset = placement->row_stride = placement->rows = placement->row_bytes = 0;
        return named_item(step->program, list, index, &placement->tensor);
    }
    if (!list_item(list, index, &item))
        return LOOMWORK_RESULT_NO_SUCH_ITEM;
    return read_placement(step->program, item, placement) ? LOOMWORK_RESULT_OK : LOOMWORK_RESULT_MALFORMED;
}

enum loomwork_result loomwork_step_input(const struct loomwork_step *step, size_t index,
                                         struct loomwork_placement *placement)
{
    return step_item(step, step->input_list, index, placement);
}

enum loomwork_result loomwork_step_output(const struct loomwork_step *step, size_t index,
                                          struct loomwork_placement *placement)
{
    return step_item(step, step->output_list, index, placement);
}
