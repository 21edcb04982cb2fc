# SPDX-License-Identifier: Apache-2.0
"""Boards: what each has, and the design that goes onto it."""
