"""One module for each stage, with a module-level ``STAGE`` (`benchmarks.reproduction.stage`)."""
