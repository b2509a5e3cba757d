"""Orders at the wire: how they are asked for, and when they meet the price."""
