"""What pruned and quantised caches do to answers, as measured beforehand: tables for policies, and for fast scoring."""
