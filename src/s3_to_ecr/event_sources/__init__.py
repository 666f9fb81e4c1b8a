"""How events arrive and how they are answered, one module for each event source. The work itself is done elsewhere."""
