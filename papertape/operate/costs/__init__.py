"""What an option adds to the month that `papertape.operate.cost` estimates: one module each."""
