# SPDX-License-Identifier: Apache-2.0
"""Running programs: golden model, Verilator, and the machinery they share."""
