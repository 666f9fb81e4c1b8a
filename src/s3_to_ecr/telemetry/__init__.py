"""What people see: log lines, metrics, the outcome of each object. Nothing here decides what the program does."""
