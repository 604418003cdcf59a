"""What steps and searches cost in time and memory, measured; each folder is run as `python -m benchmarks.<folder>`."""
