# SPDX-License-Identifier: Apache-2.0
"""The core on FPGAs: what it costs there."""
