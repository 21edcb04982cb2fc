# SPDX-License-Identifier: Apache-2.0
"""Pruning that the accelerator turns into speed: fewer channels, or weight tiles that are all zero."""
