"""How events arrive and how they are answered, one module for each carrier. The work itself is done elsewhere."""
