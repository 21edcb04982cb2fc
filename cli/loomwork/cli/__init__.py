"""The `loomwork` command, one file per subcommand."""
