"""After training: arrays and records in, tables and figures out."""
