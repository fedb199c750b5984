"""The printed side: what the publications say, and what arithmetic says of it."""
