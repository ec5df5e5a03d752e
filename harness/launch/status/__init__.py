"""Where the runs of a sweep stand: as a table, as JSON, live on a terminal, and as lines while a driver works."""
