# SPDX-License-Identifier: Apache-2.0
"""The `loomwork` command, one file per subcommand."""
