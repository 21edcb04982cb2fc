/* SPDX-License-Identifier: Apache-2.0 */
/* JSON (RFC 8259) as program files hold it. */
#include "loomwork_json.h"

static bool is_space(uint8_t character)
{
    return character == ' ' || character == '\t' || character == '\n' || character == '\r';
}

static void skip_spaces(struct loomwork_span *rest)
{
    while (rest->begin != rest->end && is_space(*rest->begin))
        rest->begin++;
}

static bool skip_character(struct loomwork_span *rest, char character)
{
    skip_spaces(rest);
    if (rest->begin == rest->end || *rest->begin != (uint8_t)character)
        return false;
    rest->begin++;
    return true;
}

/* Behind the string that begins at `at` with its opening quote; NULL where it does not end. */
static const uint8_t *end_of_string(const uint8_t *at, const uint8_t *end)
{
    for (at++; at != end; at++) {
        if (*at == '"')
            return at + 1;
        if (*at == '\\' && ++at == end)
            return NULL;
    }
    return NULL;
}

/* Behind the number, true, false or null that begins at `at`. */
static const uint8_t *end_of_word(const uint8_t *at, const uint8_t *end)
{
    while (at != end && !is_space(*at) && *at != ',' && *at != ':' && *at != ']' && *at != '}')
        at++;
    return at;
}

/* Behind the value that begins at `at`; NULL where there is none. */
static const uint8_t *end_of_value(const uint8_t *at, const uint8_t *end)
{
    size_t depth = 0;
    do {
        if (at == end)
            return NULL;
        if (*at == '"') {
            at = end_of_string(at, end);
            if (!at)
                return NULL;
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (depth && (*at == '}' || *at == ']')) {
            depth--;
            at++;
        } else if (depth) {
            at++;
        } else {
            const uint8_t *behind = end_of_word(at, end);
            return behind == at ? NULL : behind;
        }
    } while (depth);
    return at;
}

static bool cut_value(struct loomwork_span *rest, struct loomwork_span *value)
{
    skip_spaces(rest);
    const uint8_t *behind = end_of_value(rest->begin, rest->end);
    if (!behind)
        return false;
    value->begin = rest->begin;
    value->end = behind;
    rest->begin = behind;
    return true;
}

/* After a value: nothing more, or a comma with something behind it. */
static bool skip_comma(struct loomwork_span *rest)
{
    skip_spaces(rest);
    if (rest->begin == rest->end)
        return true;
    const uint8_t *comma = rest->begin;
    if (!skip_character(rest, ','))
        return false;
    skip_spaces(rest);
    if (rest->begin != rest->end)
        return true;
    rest->begin = comma;
    return false;
}

bool loomwork_json_next(struct loomwork_span *rest, struct loomwork_span *value)
{
    struct loomwork_span ahead = *rest;
    if (!cut_value(&ahead, value) || !skip_comma(&ahead))
        return false;
    *rest = ahead;
    return true;
}

static bool inside(struct loomwork_span value, char open, char close, struct loomwork_span *contents)
{
    if (value.end - value.begin < 2 || *value.begin != (uint8_t)open || value.end[-1] != (uint8_t)close)
        return false;
    contents->begin = value.begin + 1;
    contents->end = value.end - 1;
    return true;
}

bool loomwork_json_list(struct loomwork_span value, struct loomwork_span *contents)
{
    if (!inside(value, '[', ']', contents))
        return false;
    skip_spaces(contents);
    return true;
}

bool loomwork_json_member(struct loomwork_span object, const char *key, struct loomwork_span *value)
{
    struct loomwork_span rest;
    struct loomwork_span name;
    if (!inside(object, '{', '}', &rest))
        return false;
    while (cut_value(&rest, &name) && loomwork_json_text(name, &name) && skip_character(&rest, ':')
           && cut_value(&rest, value)) {
        if (loomwork_text_is(name, key))
            return true;
        if (!skip_comma(&rest))
            return false;
    }
    return false;
}

bool loomwork_json_count(struct loomwork_span contents, size_t *count)
{
    struct loomwork_span value;
    for (*count = 0; loomwork_json_next(&contents, &value);)
        ++*count;
    return contents.begin == contents.end;
}

bool loomwork_json_number(struct loomwork_span value, uint32_t maximum, uint32_t *number)
{
    uint64_t sum = 0;
    if (value.begin == value.end)
        return false;
    for (const uint8_t *at = value.begin; at != value.end; at++) {
        if (*at < '0' || *at > '9')
            return false;
        sum = sum * 10 + (uint64_t)(*at - '0');
        if (sum > maximum)
            return false;
    }
    *number = (uint32_t)sum;
    return true;
}

bool loomwork_json_text(struct loomwork_span value, struct loomwork_span *text)
{
    return inside(value, '"', '"', text);
}

bool loomwork_json_equal(struct loomwork_span first, struct loomwork_span second)
{
    if (first.end - first.begin != second.end - second.begin)
        return false;
    while (first.begin != first.end)
        if (*first.begin++ != *second.begin++)
            return false;
    return true;
}

static bool hexadecimal(const uint8_t *at, const uint8_t *end, uint32_t *number)
{
    if (end - at < 4)
        return false;
    *number = 0;
    for (unsigned place = 0; place < 4; place++) {
        const uint8_t digit = at[place];
        uint32_t value;
        if (digit >= '0' && digit <= '9')
            value = (uint32_t)(digit - '0');
        else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
            value = (uint32_t)((digit | 0x20) - 'a' + 10);
        else
            return false;
        *number = *number << 4 | value;
    }
    return true;
}

/* The UTF-8 bytes of a code point; returns how many. */
static unsigned utf8(uint32_t point, uint8_t bytes[4])
{
    if (point < 0x80) {
        bytes[0] = (uint8_t)point;
        return 1;
    }
    const unsigned count = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (unsigned place = count - 1; place > 0; place--, point >>= 6)
        bytes[place] = (uint8_t)(0x80 | (point & 0x3f));
    bytes[0] = (uint8_t)((0xf00u >> count & 0xf0u) | point);
    return count;
}

/* Cut the next byte or escape sequence off the front of a text; returns the number of UTF-8 bytes, 0 where it is wrong. */
static unsigned cut_character(struct loomwork_span *text, uint8_t bytes[4])
{
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    bytes[0] = *text->begin++;
    if (bytes[0] != '\\')
        return 1;
    if (text->begin == text->end)
        return 0;
    const uint8_t letter = *text->begin++;
    if (letter != 'u') {
        for (unsigned place = 0; escapes[place]; place += 2) {
            if (letter == (uint8_t)escapes[place]) {
                bytes[0] = (uint8_t)escapes[place + 1];
                return 1;
            }
        }
        return 0;
    }
    uint32_t point;
    uint32_t low;
    if (!hexadecimal(text->begin, text->end, &point))
        return 0;
    text->begin += 4;
    if (point >= 0xd800 && point < 0xdc00) {
        if (text->end - text->begin < 6 || text->begin[0] != '\\' || text->begin[1] != 'u'
            || !hexadecimal(text->begin + 2, text->end, &low) || low < 0xdc00 || low > 0xdfff)
            return 0;
        text->begin += 6;
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    return utf8(point, bytes);
}

bool loomwork_text_is(struct loomwork_span text, const char *utf8_text)
{
    uint8_t bytes[4];
    while (text.begin != text.end) {
        const unsigned count = cut_character(&text, bytes);
        if (!count)
            return false;
        for (unsigned place = 0; place < count; place++)
            if (!*utf8_text || (uint8_t)*utf8_text++ != bytes[place])
                return false;
    }
    return !*utf8_text;
}

size_t loomwork_text_copy(struct loomwork_span text, char *buffer, size_t size)
{
    uint8_t bytes[4];
    size_t length = 0;
    while (text.begin != text.end) {
        const unsigned count = cut_character(&text, bytes);
        if (!count || length + count >= size)
            break;
        for (unsigned place = 0; place < count; place++)
            buffer[length++] = (char)bytes[place];
    }
    if (size)
        buffer[length] = 0;
    return length;
}
