# SPDX-License-Identifier: Apache-2.0
"""The core on FPGAs and chips: what it costs there."""
