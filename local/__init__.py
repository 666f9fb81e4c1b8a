"""The local stack: moto in place of AWS, the sample objects of `events/`, and a demonstration."""
