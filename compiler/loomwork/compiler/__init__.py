"""The compiler: from a trained network to a program of commands."""
