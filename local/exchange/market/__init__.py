"""What the recorded market is made of: rows, tables, timeframes, adjustments, and minutes that are made from daily bars."""
