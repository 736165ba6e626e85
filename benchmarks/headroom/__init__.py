"""How much a policy could gain: every constant plan and every named policy against what a search finds in hindsight."""
