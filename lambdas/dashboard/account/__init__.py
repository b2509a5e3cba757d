"""The account's history: closes, what they say of a policy's skill, and what anyone could have had."""
