/* SPDX-License-Identifier: Apache-2.0 */
/* Reads JSON where it lies: no copy, no allocation, no recursion. Internal to the driver. */
#ifndef LOOMWORK_JSON_H
#define LOOMWORK_JSON_H

#include "loomwork_driver.h"

/* Cut the next value off the front of `rest`, the contents of a list. False at the end; false with something left in
   `rest` where the text is no JSON. Inside of values that are passed over, only strings and the number of brackets are
   looked at. */
bool loomwork_json_next(struct loomwork_span *rest, struct loomwork_span *value);

/* What is between the brackets of a value that is a list. */
bool loomwork_json_list(struct loomwork_span value, struct loomwork_span *contents);

/* The value of a member of an object; the first one where there are several of that name. */
bool loomwork_json_member(struct loomwork_span object, const char *key, struct loomwork_span *value);

/* The number of values in the contents of a list. */
bool loomwork_json_count(struct loomwork_span contents, size_t *count);

/* A value that is a whole number from 0 to `maximum`. */
bool loomwork_json_number(struct loomwork_span value, uint32_t maximum, uint32_t *number);

/* A value that is text: what is between its quotes. */
bool loomwork_json_text(struct loomwork_span value, struct loomwork_span *text);

bool loomwork_json_equal(struct loomwork_span first, struct loomwork_span second);

#endif
