"""Running programs: golden model, Verilator, and the machinery they share."""
