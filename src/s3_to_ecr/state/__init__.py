"""What the state table remembers between invocations, one module for each kind of row. Nothing else is stored here."""
