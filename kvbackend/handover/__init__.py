"""One handover: which tokens are sent, within which budget, and both halves of it; in two phases, in two parts."""
