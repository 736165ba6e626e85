"""What policies do: when they prepare, what they send, who is served first, and where one wins against another."""
