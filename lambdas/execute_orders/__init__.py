"""Accepts decisions, manual orders and flatten requests, and brings them to the broker."""
