"""The stack on this machine: moto for AWS, the samples that `events/` speaks of, and a demonstration."""
