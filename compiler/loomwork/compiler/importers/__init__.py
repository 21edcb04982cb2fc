# SPDX-License-Identifier: Apache-2.0
"""Importers: from a model file to a `Partition`."""
