"""The commands of `m3col`, one module per group."""
