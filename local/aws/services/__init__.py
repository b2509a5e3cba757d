"""Services of AWS that the emulator lacks, or answers without data."""
