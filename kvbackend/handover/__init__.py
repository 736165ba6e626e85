"""One handover: which tokens are sent, within which budget, and both halves of the move; in two phases where needed."""
